"""The stated filter and what undoes it, as plain numbers, for every device that projects with them.

The filter is what the networks are trained for and what brings a picture down everywhere here: antialiased bicubic
interpolation with a = -1/2 (Keys 1981, equation 15, stretched by the scale), weights beyond the border left out and the
rest scaled to sum to one; PIL's ``BICUBIC`` and torch's ``interpolate(mode="bicubic", antialias=True)`` compute it.

Written as a matrix D along one axis, its best right inverse is P = D^T (D D^T)^-1: of all corrections that give a
residual back, P makes the smallest. At x2 the filter is (-3, 38, -3)/32 behind the adjoint of bilinear enlargement L,
so P is L behind a short sharpening Q = (D L)^-1; at x3 and x4 L Q is at most 1.3 % larger than P. A correction is
therefore ``L Q residual``. Q is cut to `REACH_PX` samples on either side, and samples beyond the border repeat the
edge: 1.8 % of a residual is left along an axis away from the border, 14 % at worst on it (summed absolute rows of
1 - D L Q, scales 2 to 4).
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, cos, floor, pi

REACH_PX = 4
"""Residuals on either side that sharpening reads; its taps fall to about a third each."""

DOWN_REACH_PX = 2
"""Low-resolution pixels on either side whose enlarged samples a reduced sample reads."""

SLACK_LEVELS = 0.5
"""Residuals that are left as they are: the input was rounded by as much. Correcting these too adds the rounding's
noise to the picture (0.1 dB on the smoothest of five validation sets, where this leaves a small gain)."""

MOST_PART = 16 / 255
"""The largest correction of a residual, as a part of the peak. Of what the engines leave on camera pictures one sample
in 100,000 is larger; larger ones come from full-scale edges that no picture in range gives back, where they ring."""

WITHIN_LEVELS = 1.0 + 1e-3
"""What counts as one grey level: one, and what float32 adds to it."""

LEAST_ROOM = 0.25
"""The least movable share that a correction is divided by. With a half, four steps leave nearly three times as many
samples off; with an eighth as many, and the largest residuals are larger."""

Limits = tuple[float, float]
"""The smallest and the largest sample."""

PERIOD = 64
"""Samples of the spectrum that the inverse is computed from; its taps fall by a third each, so none wraps."""


def keys_cubic(distance: float) -> float:
    """Return the weight of a sample at a distance, in samples (Keys 1981, equation 15)."""
    far = abs(distance)
    if far <= 1.0:
        return (1.5 * far - 2.5) * far * far + 1.0
    return ((-0.5 * far + 2.5) * far - 4.0) * far + 2.0 if far < 2.0 else 0.0


def num_before(scale: int) -> int:
    """Return how many enlarged samples before its own first one a reduced sample reads."""
    return -(floor((scale - 1) / 2 - 2 * scale) + 1)


@lru_cache(maxsize=8)
def down_taps(scale: int) -> tuple[float, ...]:
    """Return the filter along one axis: reduced sample ``i`` reads from ``scale * i - num_before(scale)`` on.

    >>> [256 * tap for tap in down_taps(2)]
    [-3.0, -9.0, 29.0, 111.0, 111.0, 29.0, -9.0, -3.0]
    """
    middle, first = (scale - 1) / 2, -num_before(scale)
    weights = [keys_cubic((place - middle) / scale) for place in range(first, ceil(middle + 2 * scale))]
    total = sum(weights)
    return tuple(weight / total for weight in weights)


def down_sums(scale: int, size: int) -> list[float]:
    """Return what part of the filter lies on the picture, for each of ``size`` reduced samples; 1 but at borders."""
    taps, before = down_taps(scale), num_before(scale)
    sums = []
    for place in range(size):
        start = scale * place - before
        sums.append(sum(tap for offset, tap in enumerate(taps) if 0 <= start + offset < scale * size))
    return sums


@lru_cache(maxsize=8)
def sharpening_taps(scale: int) -> tuple[float, ...]:
    """Return Q along one axis: 2 * REACH_PX + 1 taps, symmetric, that sum to one.

    >>> [round(tap, 3) for tap in sharpening_taps(2)[:5]]
    [0.016, -0.049, 0.149, -0.418, 1.604]
    """
    lags = _reduced_bilinear(scale)
    waves = [2 * pi * place / PERIOD for place in range(PERIOD)]
    spectrum = [lags[0] + 2 * sum(lag * cos(n * wave) for n, lag in enumerate(lags[1:], 1)) for wave in waves]
    taps = [
        sum(cos(place * wave) / value for wave, value in zip(waves, spectrum, strict=True))
        for place in range(-REACH_PX, REACH_PX + 1)
    ]
    total = sum(taps)
    return tuple(tap / total for tap in taps)


def _reduced_bilinear(scale: int) -> list[float]:
    """Return the taps of D L from the middle on: what of a sample its neighbours hold after up and down."""
    taps, before = down_taps(scale), num_before(scale)
    places = [(offset - before + 0.5) / scale - 0.5 for offset in range(len(taps))]
    return [
        sum(tap * max(0.0, 1.0 - abs(place - lag)) for tap, place in zip(taps, places, strict=True))
        for lag in range(DOWN_REACH_PX + 2)
    ]
