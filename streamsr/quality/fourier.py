"""Fourier-domain agreement of patches with the truth: what was added, and whether it is there.

A simple relative of sFRC (arXiv 2603.04673), which correlates small patches with the truth ring by ring and calls a
patch hallucinated where the correlation falls too early, by a threshold that it learns. Here nothing is learned: for
each patch (64 px, Hann window, mean removed) the Fourier ring correlation (Saxton and Baumeister 1982) is read twice:

- its *cut-off*: the frequency, as a part of the Nyquist frequency of the enlarged picture, at which the correlation,
  smoothed over three rings, first falls below a half;
- *invented* power: above the camera's own Nyquist frequency, the part of the picture's power that does not correlate
  with the truth, over the truth's power there: sum of P (1 - max(c, 0)^2) over sum of P'. 0 adds nothing or only what
  is there; 1 adds as much of what is not there as the truth holds of what is;
- *found* power, its counterpart, since whoever adds nothing invents nothing: in the same band, the part of the
  picture's power that does correlate with the truth, at most as much as the truth has, over the truth's power there:
  sum of min(P, P') max(c, 0)^2 over sum of P'. 1 is the truth itself; interpolation, noise and detail of the wrong sign
  are near 0.

A patch is *suspect* where its invented power exceeds half of the truth's whole power in that band. That half is a
choice: another would give other shares, in another order perhaps.

The band is what lies outside a circle of the camera's Nyquist frequency. The camera's own limit is a square, so that
diagonal detail between circle and square, which it did sample, counts as added (or as found) with the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

PATCH_PX = 64
"""Side of a patch."""

CORRELATED = 0.5
"""Correlation below which a ring counts as lost."""

SUSPECT = 0.5
"""Invented power, as a part of the truth's there, above which a patch is suspect. Chosen, not learned."""

LEAST_DEVIATION = 1.0
"""Patches of the truth that deviate less from their mean, in levels, hold no structure and are left out."""


@dataclass(frozen=True)
class FourierAgreement:
    """How the patches of a picture agree with those of the truth.

    Attributes:
        cutoff: mean over the patches, of the Nyquist frequency.
        invented: power that is not the truth's, over the truth's, above the camera's Nyquist frequency, all patches.
        found: power that is the truth's, over the truth's, there: 0 to 1.
        suspect: share of the patches whose invented power is above half of the truth's there.
        patches: that were looked at.
    """

    cutoff: float
    invented: float
    found: float
    suspect: float
    patches: int


def fourier_agreement(
    picture: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    *,
    scale: int,
    field: NDArray[np.bool_] | None = None,
    patch_px: int = PATCH_PX,
) -> FourierAgreement | None:
    """Compare a picture with the truth, patch by patch.

    Args:
        picture: (H, W) uint8 luma.
        truth: (H, W) uint8 luma.
        scale: by which the picture was enlarged.
        field: (H, W) bool; only patches that lie in it count. All when None.
        patch_px: side of a patch.

    Returns:
        The agreement, or None where no patch holds structure.

    Raises:
        ValueError: the shapes differ.
    """
    if picture.shape != truth.shape:
        raise ValueError(f"expected two pictures of one shape, got {picture.shape} and {truth.shape}")
    corners = _corners(truth, field, patch_px)
    if not corners:
        return None
    ours, theirs = (
        np.stack([_windowed(each[top : top + patch_px, left : left + patch_px]) for top, left in corners])
        for each in (picture, truth)
    )
    power, true_power, correlation = _rings(ours, theirs)
    above = np.arange(1, power.shape[1] + 1) > power.shape[1] / scale
    alike = np.square(np.maximum(correlation, 0))
    false_power = (power * (1 - alike))[:, above].sum(axis=1)
    right_power = (np.minimum(power, true_power) * alike)[:, above].sum()
    there = true_power[:, above].sum(axis=1)
    in_all = max(float(there.sum()), 1e-12)
    return FourierAgreement(
        cutoff=float(np.mean([cutoff(each) for each in correlation])),
        invented=float(false_power.sum() / in_all),
        found=float(right_power / in_all),
        suspect=float(np.mean(false_power > SUSPECT * there)),
        patches=len(corners),
    )


def cutoff(correlation: NDArray[np.float64]) -> float:
    """Return the part of the rings, from the lowest on, up to which the smoothed correlation is at least a half."""
    smooth = np.convolve(np.pad(correlation, 1, mode="edge"), np.full(3, 1 / 3), mode="valid")
    lost = np.flatnonzero(smooth < CORRELATED)
    return float(lost[0] / len(correlation)) if len(lost) else 1.0


def _corners(truth: NDArray[np.uint8], field: NDArray[np.bool_] | None, side: int) -> list[tuple[int, int]]:
    """Return the upper left corners of the patches that hold structure."""
    height, width = truth.shape
    found = []
    for top in range(0, height - side + 1, side):
        for left in range(0, width - side + 1, side):
            window = slice(top, top + side), slice(left, left + side)
            if (field is None or field[window].all()) and truth[window].std() >= LEAST_DEVIATION:
                found.append((top, left))
    return found


def _windowed(patch: NDArray[np.uint8]) -> NDArray[np.float64]:
    window = np.hanning(len(patch) + 2)[1:-1]
    levels = patch.astype(np.float64)
    return np.asarray((levels - levels.mean()) * np.outer(window, window))


def _rings(
    ours: NDArray[np.float64], theirs: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return power of both and correlation of (N, P, P) patches by ring: (N, P / 2) each, ring 1 first."""
    mine, yours = np.fft.fft2(ours), np.fft.fft2(theirs)
    rings = _ring_matrix(ours.shape[1])
    flat = (len(ours), -1)
    power, true_power = (np.square(np.abs(each)).reshape(flat) @ rings for each in (mine, yours))
    shared = np.real(mine * np.conj(yours)).reshape(flat) @ rings
    norm = np.sqrt(power * true_power)
    correlation = np.divide(shared, norm, out=np.zeros_like(shared), where=norm > 1e-9)
    return power, true_power, correlation


@lru_cache(maxsize=4)
def _ring_matrix(side: int) -> NDArray[np.float64]:
    """Return (P * P, P / 2): 1 where a frequency lies in a ring, one cycle a patch wide."""
    place = np.fft.fftfreq(side) * side
    radius = np.rint(np.hypot(place[:, None], place[None, :])).astype(int).ravel()
    return np.asarray(radius[:, None] == np.arange(1, side // 2 + 1)[None], np.float64)
