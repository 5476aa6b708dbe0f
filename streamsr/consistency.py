"""The consistency projection: the enlarged picture, brought down again, gives the camera's picture back.

    residual = picture - down(stitched)        the stated filter, antialiased bicubic (`streamsr.models.reduction`)
    enlarged = stitched + up(residual)         its inverse: sharpened, then bilinear (`streamsr.correction`)
    residual = picture - down(enlarged)        measured, counted, shown

What is within half a level stays as it is: the camera's samples are rounded by that much, and correcting them would
only add the rounding's noise. One step brings all but some samples in 100,000 of real pictures within a level of 8 or
10 bits; deeper samples, whose levels are finer, take two. RGB generators leave more, much of it where a channel is
black or white and clamping undoes a part of the correction; they take more steps, each only where samples are still off
and by more where enlarged samples cannot move (`streamsr.correction`). Where the camera's picture steps from black to
white between two samples (drawn-in text, clipped spots) no picture in range gives it back; such samples are counted
apart, and corrections are limited so that they ring little. This is back-projection (Irani and Peleg 1991), as Bahat
and Michaeli 2020 put it behind any network, onto the pictures that are both consistent and in range.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from streamsr.correction import Correction
from streamsr.errors import UsageError
from streamsr.models.reduction import DOWN_REACH_PX, REACH_PX, WITHIN_LEVELS, Limits
from streamsr.reducer import Samples

FILTER = "antialiased bicubic, a = -0.5"
"""The stated filter, in words."""

STEP_REACH_PX = REACH_PX + 1 + DOWN_REACH_PX
"""Low-resolution pixels on either side that a step's correction depends on: sharpening, interpolation, reduction."""

ONE_STEP_LEVELS = 2047
"""Levels from black to white up to which one step is enough. At 10 bits it leaves 9 samples in 100,000 of validation
frames further off than a level, at 12 bits up to 2 in 100; two steps leave 4 in 100,000 there and 22 at 16 bits."""

RGB_STEPS = 5
"""Steps of RGB pictures. Of 8-bit validation frames of the worst of five sets, samples of srgan-x4 in 100,000 that are
off by more than a level: 944 after one step, 418 after two, 189 after three, 61 after four, 30 after five."""

RGB_LIMITS = (-16 / 219, 239 / 219)
"""What RGB in [0, 1] is clamped to: the range of 8-bit luma samples in studio range (Rec. ITU-R BT.601), so that luma
planes lose nothing. Interpolated chroma takes some 7 samples of camera pictures in 100,000 further out, and some
hundreds beyond [0, 1]."""

MEASURED_TURNS = 4
"""Of the bands of a plane, one in so many is measured, another the next time: a share needs no more, and all of them
would cost a quarter of the projection."""


@dataclass(frozen=True)
class ConsistencyCount:
    """How well enlarged pictures give their inputs back; adding two counts adds their samples.

    Attributes:
        samples: low-resolution samples compared.
        within_before: those that the generator's picture gave back within one grey level.
        within: those that the projected picture gives back so.
        clipped: those that it does not and that read an enlarged sample at either end of the range.
        max_levels: the largest difference, in grey levels.
    """

    samples: int = 0
    within_before: int = 0
    within: int = 0
    clipped: int = 0
    max_levels: float = 0.0

    @property
    def share(self) -> float:
        """The part of the samples within one grey level; 1 where there are none."""
        return self.within / self.samples if self.samples else 1.0

    @property
    def share_before(self) -> float:
        """The part that was within one grey level before the projection; 1 where there are none."""
        return self.within_before / self.samples if self.samples else 1.0

    def __add__(self, other: ConsistencyCount) -> ConsistencyCount:
        return ConsistencyCount(
            self.samples + other.samples,
            self.within_before + other.within_before,
            self.within + other.within,
            self.clipped + other.clipped,
            max(self.max_levels, other.max_levels),
        )


def num_steps(levels: float, channels: int = 1) -> int:
    """Return how many steps pictures of some channels take whose samples have so many levels from black to white."""
    if channels == 3:
        return RGB_STEPS
    return 1 if levels <= ONE_STEP_LEVELS else 2


def reach_px(levels: float) -> int:
    """Return how many low-resolution pixels on either side a projected sample depends on.

    The later steps of RGB pictures, which move little but round samples that clamping keeps off, are not counted.
    """
    return num_steps(levels) * STEP_REACH_PX


class PlaneProjector:
    """Projects the planes of one size that follow each other. Owned by one thread.

    Args:
        scale: enlargement.
        width: of the low-resolution plane in pixels.
        height: of the low-resolution plane in pixels.
        peak: the largest sample there is; 1.0 for float planes.
        level: one grey level.
        limits: what float samples are clamped to; None leaves them. Integers are clamped to [0, peak].
        steps: None for those of a plane of luma.
        measured_turns: of the bands, one in so many is measured each time.

    Attributes:
        count: of all planes so far, as far as they were measured.
    """

    def __init__(
        self,
        scale: int,
        width: int,
        height: int,
        *,
        peak: float = 255.0,
        level: float = 1.0,
        limits: Limits | None = None,
        steps: int | None = None,
        measured_turns: int = MEASURED_TURNS,
    ) -> None:
        self.scale, self.width, self.height, self.peak = scale, width, height, peak
        self.count = ConsistencyCount()
        self._steps = [
            Correction(scale, width, height, peak=peak, level=level, limits=limits, again=place > 0)
            for place in range(steps or num_steps(peak / level))
        ]
        self._rows = self._steps[0].rows
        self._turns, self._turn = min(measured_turns, -(-height // self._rows)), 0

    def project(self, picture: Samples, stitched: Samples, changed: slice | None = None) -> Samples:
        """Project the next plane.

        Args:
            picture: (height, width) uint8, uint16 or float32, the camera's.
            stitched: (scale * height, scale * width), same dtype, the generator's; only read.
            changed: rows of ``picture`` outside which neither it nor ``stitched`` has changed since the last call;
                None where all may have.

        Returns:
            (scale * height, scale * width), same dtype, fresh and clamped; integers rounded to nearest.

        Raises:
            UsageError: planes of another size.
        """
        self._refuse_others(picture, stitched)
        bands = self._steps[0].bands(changed)
        measured = [top for top in bands if top // self._rows % self._turns == self._turn]
        self._turn = (self._turn + 1) % self._turns
        enlarged, rows = self._steps[0].correct(picture, stitched, changed, measured)
        for step in self._steps[1:]:
            enlarged, rows = step.correct(picture, enlarged, rows)
        self.count += ConsistencyCount(within_before=self._steps[0].within)
        for top in measured:
            self.count += self._measure(picture, enlarged, top)
        return enlarged

    def _refuse_others(self, picture: Samples, stitched: Samples) -> None:
        large = (self.scale * self.height, self.scale * self.width)
        if picture.shape != (self.height, self.width) or stitched.shape != large:
            raise UsageError(
                f"expected planes of {self.height}x{self.width} and {large[0]}x{large[1]} (rows x columns), got "
                f"{picture.shape} and {stitched.shape}; make a new projector"
            )

    def _measure(self, picture: Samples, enlarged: Samples, top: int) -> ConsistencyCount:
        """Return how well a band gives its input back."""
        distance = self._steps[0].differ(picture, enlarged, top)
        np.abs(distance, out=distance)
        outside = distance > WITHIN_LEVELS
        num_outside = int(np.count_nonzero(outside))
        clipped = self._count_clipped(enlarged, outside, top) if num_outside else 0
        return ConsistencyCount(
            distance.size, within=distance.size - num_outside, clipped=clipped, max_levels=float(distance.max())
        )

    def _count_clipped(self, enlarged: Samples, outside: NDArray[np.bool_], top: int) -> int:
        """Return how many of a band's samples that are not given back read an enlarged sample at either end."""
        if enlarged.dtype == np.float32:
            return 0
        above, below = max(top - DOWN_REACH_PX, 0), min(top + len(outside) + DOWN_REACH_PX, self.height)
        between = cv2.inRange(enlarged[self.scale * above : self.scale * below], 1.0, self.peak - 1.0)
        # One sample of the scale * scale at either end lowers the mean of 255 to 191 at x2, 239 at x4.
        between = cv2.resize(between, (self.width, below - above), interpolation=cv2.INTER_AREA)
        side = 2 * DOWN_REACH_PX + 1
        between = cv2.erode(between, np.ones((side, side), np.uint8)).reshape(below - above, self.width)
        return int(np.count_nonzero(outside & (between[top - above :][: len(outside)] < 255)))


class Projector:
    """Projects pictures of one size and some channels that follow each other. Owned by one thread.

    Args:
        scale: enlargement.
        size: (width, height) of the low-resolution picture in pixels.
        channels: planes a picture.
        peak: the largest sample there is; 1.0 for float pictures.
        level: one grey level.
        limits: what float samples are clamped to; None leaves them.
    """

    def __init__(
        self,
        scale: int,
        size: tuple[int, int],
        *,
        channels: int = 1,
        peak: float = 255.0,
        level: float = 1.0,
        limits: Limits | None = None,
    ) -> None:
        steps = num_steps(peak / level, channels)
        self.planes = [
            PlaneProjector(scale, *size, peak=peak, level=level, limits=limits, steps=steps) for _ in range(channels)
        ]
        self.reach_px = reach_px(peak / level)

    @property
    def count(self) -> ConsistencyCount:
        """How well the pictures so far give their inputs back, over their channels."""
        return sum((plane.count for plane in self.planes), ConsistencyCount())

    def project(self, picture: Samples, stitched: Samples, changed: slice | None = None) -> Samples:
        """Return (C, scale * H, scale * W), fresh, of a (C, H, W) picture; see `PlaneProjector.project`."""
        pairs = zip(self.planes, picture, stitched, strict=True)
        enlarged = [projector.project(plane, made, changed) for projector, plane, made in pairs]
        return enlarged[0][None] if len(enlarged) == 1 else np.stack(enlarged)
