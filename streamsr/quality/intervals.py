"""How sure a mean is: 95 % intervals by resampling groups, and frames within them.

Frames of one exam, sequence or surgery are alike, so a mean over 80 frames of two surgeries says less than 80 frames of
80. The interval is the percentile interval of a two-stage bootstrap (Efron and Tibshirani 1993, chapter 13; Davison and
Hinkley 1997, section 3.8): groups are drawn with replacement, then as many frames of every drawn group. With one group
it only knows how frames differ and is too narrow; with two or three it is coarse. The number of groups always stands
beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
"""Draws; the ends of the interval then wander by some hundredths of its width."""

TAIL = 0.025
"""Share of the draws beyond either end."""


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval.

    Attributes:
        mean: over the frames.
        low: 2.5 % of the resampled means are smaller.
        high: 2.5 % are larger.
        frames: that have the figure.
        groups: that these come from.
    """

    mean: float
    low: float
    high: float
    frames: int
    groups: int


class Resampler:
    """The same draws for every figure of some frames, so that figures can be compared draw by draw.

    Args:
        groups: the group of each frame.
        seed: of the draws.
        resamples: number of draws.

    Raises:
        ValueError: there are no frames.

    Attributes:
        weights: (resamples, frames) float64, how often each draw holds each frame.
    """

    def __init__(self, groups: Sequence[str], *, seed: int = 0, resamples: int = RESAMPLES) -> None:
        if not groups:
            raise ValueError("expected the groups of at least one frame, got none")
        random = np.random.default_rng(seed)
        names = sorted(set(groups))
        self.groups = np.array([names.index(group) for group in groups])
        times = random.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
        self.weights: NDArray[np.float64] = np.zeros((resamples, len(groups)))
        for group in range(len(names)):
            members = np.flatnonzero(self.groups == group)
            draws = random.multinomial(times[:, group] * len(members), np.full(len(members), 1 / len(members)))
            self.weights[:, members] = draws

    def means(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (resamples,) means of (frames,) or (resamples, K) of (frames, K) values; NaN counts as missing.

        A draw that holds no frame with the figure has NaN.
        """
        there = np.isfinite(values)
        total, count = self.weights @ np.where(there, values, 0.0), self.weights @ there
        means = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
        return np.asarray(means, np.float64)

    def interval(self, values: Sequence[float]) -> Interval | None:
        """Return the mean of one value a frame and its interval; NaN counts as missing, None where all are.

        Raises:
            ValueError: not as many values as frames.
        """
        numbers = np.asarray(values, np.float64)
        if numbers.shape != self.groups.shape:
            raise ValueError(f"expected {len(self.groups)} values, one a frame, got {numbers.shape}")
        there = np.isfinite(numbers)
        if not there.any():
            return None
        low, high = percentiles(self.means(numbers))
        return Interval(float(numbers[there].mean()), low, high, int(there.sum()), len(set(self.groups[there])))


def percentiles(draws: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 2.5 and the 97.5 percentile of draws, those without a value left out."""
    low, high = np.nanpercentile(draws, (100 * TAIL, 100 * (1 - TAIL)))
    return float(low), float(high)
