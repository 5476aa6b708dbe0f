"""Correction: one step of the consistency projection on one plane (`streamsr.consistency`), band by band.

The first step corrects every sample that is off by more than the input's rounding. Those that follow correct what
clipping left: only samples still off by more than a level, and each by more where some of the enlarged samples that it
is made of lie at the end of the range and cannot move. That is an active-set step of the least change within range that
gives the input back, its matrix taken as diagonal: the movable share of a sample's own enlarged ones.

A band is made from the bands round it and always in the same arrays, so what is made of it does not depend on which
other bands are made: where nothing changed, nothing is done, and the result is that of doing it all.
"""

from __future__ import annotations

from collections.abc import Collection

import cv2
import numpy as np
from numpy.typing import NDArray

from streamsr.models.reduction import (
    DOWN_REACH_PX,
    LEAST_ROOM,
    MOST_PART,
    REACH_PX,
    SLACK_LEVELS,
    WITHIN_LEVELS,
    Limits,
    sharpening_taps,
)
from streamsr.reducer import Real, Reducer, Samples


class Correction:
    """Corrects planes of one size that follow each other. Owned by one thread.

    Args:
        scale: enlargement.
        width: of the low-resolution plane in pixels.
        height: of the low-resolution plane in pixels.
        peak: the largest sample there is; 1.0 for float planes.
        level: one grey level.
        limits: what float samples are clamped to; None leaves them. Integers are clamped to [0, peak].
        again: whether a step went before.

    Attributes:
        rows: of a band, low-resolution.
        within: samples of the watched bands that the latest plane gave back within one grey level, uncorrected.
    """

    def __init__(
        self,
        scale: int,
        width: int,
        height: int,
        *,
        peak: float,
        level: float,
        limits: Limits | None = None,
        again: bool = False,
    ) -> None:
        self.scale, self.width, self.height, self.peak, self.level = scale, width, height, peak, level
        self.limits, self.again = limits, again
        self.within = 0
        self._reducer = Reducer(scale, width, height)
        self.rows = self._reducer.rows
        self._taps = np.asarray(sharpening_taps(scale), np.float32)
        self._wanted = np.zeros((height, width), np.float32)
        self._residual = np.empty((self.rows, width), np.float32)
        self._previous: Samples | None = None

    def bands(self, rows: slice | None, reach: int = DOWN_REACH_PX) -> range:
        """Return the first rows of the bands that hold some rows and those around; of all after a failure."""
        if rows is None or self._previous is None:
            return range(0, self.height, self.rows)
        start = max(rows.start - reach, 0) // self.rows * self.rows
        return range(start, min(-(-(rows.stop + reach) // self.rows) * self.rows, self.height), self.rows)

    def correct(
        self, picture: Samples, made: Samples, changed: slice | None, watched: Collection[int] = ()
    ) -> tuple[Samples, slice]:
        """Correct the next plane.

        Args:
            picture: (height, width) uint8, uint16 or float32, the camera's.
            made: (scale * height, scale * width), same dtype; only read.
            changed: rows of ``picture`` outside which neither it nor ``made`` has changed since the last call; None
                where all may have.
            watched: first rows of the bands, among those that change, to count `within` for.

        Returns:
            (scale * height, scale * width), same dtype, fresh; integers rounded to nearest and clamped. And the
            low-resolution rows outside which it is that of the last call.
        """
        compared = self.bands(changed)
        corrected = self.bands(slice(compared.start, compared.stop), REACH_PX + 1)
        previous, self._previous, self.within = self._previous, None, 0
        for top in compared:
            self._compare(picture, made, top, watched=top in watched)
        enlarged = np.empty(made.shape, made.dtype)
        if previous is not None:
            above, below = self.scale * corrected.start, self.scale * corrected.stop
            enlarged[:above], enlarged[below:] = previous[:above], previous[below:]
        for top in corrected:
            self._correct(made, top, enlarged)
        self._previous = enlarged
        return enlarged, slice(corrected.start, min(corrected.stop, self.height))

    def differ(self, picture: Samples, enlarged: Samples, top: int) -> Real:
        """Return the residual of a band, (rows, width) in grey levels; valid until the next call."""
        target = picture[top : top + self.rows]
        residual = self._residual[: len(target)]
        self._reducer.reduce(enlarged, top, residual)
        if enlarged.dtype != np.float32:
            np.clip(residual, 0.0, self.peak, out=residual)
        np.subtract(target, residual, out=residual)
        if self.level != 1.0:
            residual *= np.float32(1 / self.level)
        return residual

    def _compare(self, picture: Samples, made: Samples, top: int, *, watched: bool) -> None:
        """Find what a band wants corrected."""
        residual = self.differ(picture, made, top)
        wanted, most = self._wanted[top : top + len(residual)], self.peak * MOST_PART / self.level
        np.clip(residual, -SLACK_LEVELS, SLACK_LEVELS, out=wanted)
        np.subtract(residual, wanted, out=wanted)
        if self.again:
            self._keep_outside(residual, wanted, made[self.scale * top :][: self.scale * len(residual)])
        np.clip(wanted, -most, most, out=wanted)
        if watched:
            self.within += int(np.count_nonzero(np.abs(residual, out=residual) <= WITHIN_LEVELS))

    def _keep_outside(self, residual: Real, wanted: Real, made: Samples) -> None:
        """Want nothing where a sample is within a level, and more where enlarged samples cannot move."""
        outside = np.abs(residual) > WITHIN_LEVELS
        wanted *= outside
        limits = self._limits_of(made)
        if limits is None or not outside.any():
            return
        below, above = (self._share(movable) for movable in (made > limits[0], made < limits[1]))
        wanted /= np.maximum(np.where(wanted < 0, below, above), LEAST_ROOM)

    def _share(self, chosen: NDArray[np.bool_]) -> Real:
        """Return which part of the enlarged samples of every low-resolution one is chosen."""
        size = (self.width, len(chosen) // self.scale)
        shares = cv2.resize(chosen.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        return np.asarray(shares, np.float32).reshape(size[::-1])

    def _limits_of(self, samples: Samples) -> Limits | None:
        return self.limits if samples.dtype == np.float32 else (0.0, self.peak)

    def _correct(self, made: Samples, top: int, enlarged: Samples) -> None:
        """Write a band of the enlarged plane."""
        scale, stop = self.scale, min(top + self.rows, self.height)
        rows = slice(scale * top, scale * stop)
        first, last = max(top - 1, 0), min(stop + 1, self.height)
        above = max(first - REACH_PX, 0)
        wanted = self._wanted[above : last + REACH_PX]
        limits = self._limits_of(made)
        if not wanted.any():
            enlarged[rows] = made[rows]
            if self.limits is not None and limits is self.limits:
                np.clip(enlarged[rows], *limits, out=enlarged[rows])
            return
        sharp = cv2.sepFilter2D(wanted, cv2.CV_32F, self._taps, self._taps, borderType=cv2.BORDER_REPLICATE)
        sharp = sharp.reshape(wanted.shape)[first - above : last - above]
        if self.level != 1.0:
            sharp *= np.float32(self.level)
        width, height = scale * self.width, scale * (last - first)
        spread = cv2.resize(sharp, (width, height), interpolation=cv2.INTER_LINEAR).reshape(height, width)
        spread = spread[scale * (top - first) :][: scale * (stop - top)]
        add(made[rows], np.asarray(spread, np.float32), limits, enlarged[rows])


def add(samples: Samples, correction: Real, limits: Limits | None, out: Samples) -> None:
    """Add a correction to samples, clamped; integers are rounded to nearest, halves to even.

    Args:
        samples: (H, W) uint8, uint16 or float32.
        correction: (H, W) float32; overwritten.
        limits: the smallest and the largest sample; None for none, of floats alone.
        out: (H, W) of the dtype of ``samples``, C-contiguous, written.
    """
    if samples.dtype == np.uint8:
        cv2.addWeighted(samples, 1.0, correction, 1.0, 0.0, dst=out, dtype=cv2.CV_8U)
    elif samples.dtype == np.float32:
        np.add(samples, correction, out=out)
        if limits is not None:
            np.clip(out, *limits, out=out)
    else:
        assert limits is not None
        correction += samples
        np.rint(correction, out=correction)
        np.clip(correction, *limits, out=out, casting="unsafe")
