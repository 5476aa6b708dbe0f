"""The consistency projection on a device: the same steps, constants and counts as `streamsr.consistency`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from streamsr.consistency import num_steps
from streamsr.device.planes import Taps
from streamsr.models.reduction import (
    DOWN_REACH_PX,
    LEAST_ROOM,
    MOST_PART,
    REACH_PX,
    SLACK_LEVELS,
    WITHIN_LEVELS,
    Limits,
    down_sums,
    down_taps,
    num_before,
    sharpening_taps,
)
from streamsr.runtimes.distance_ops import Measure, count_distances
from streamsr.runtimes.plane_ops import Ending, keep_outside, resample


class ProjectionOnDevice:
    """Makes enlarged planes give their input back, as `streamsr.consistency.PlaneProjector` does.

    Args:
        scale: enlargement of each side.
        width: of the low-resolution planes in pixels.
        height: of the low-resolution planes in pixels.
        channels: planes a picture.
        peak: the largest sample; 1.0 for float planes.
        level: one grey level.
        limits: what float samples are clamped to; None leaves them. Integers are clamped to [0, peak].
        device: where it runs.
    """

    def __init__(
        self,
        scale: int,
        width: int,
        height: int,
        *,
        channels: int = 1,
        peak: float,
        level: float,
        limits: Limits | None = None,
        device: torch.device,
    ) -> None:
        self.peak, self.level, self.scale, self.limits = peak, level, scale, limits
        self.down = [reduction_of(side, scale, device) for side in (height, width)]
        self.up = [bilinear_of(side, scale, device) for side in (height, width)]
        self._measure = Measure(self.down[0], self.down[1], scale, DOWN_REACH_PX, peak, 1 / level, WITHIN_LEVELS)
        self.num_steps = num_steps(peak / level, channels)
        taps = torch.tensor(sharpening_taps(scale), dtype=torch.float32)
        self.sharpen, self.same = [], []
        for side in (height, width):
            first = torch.arange(side, dtype=torch.int32)
            self.sharpen.append(((first - REACH_PX).to(device), taps.repeat(side, 1).to(device)))
            self.same.append((first.to(device), torch.ones(side, 1, device=device)))

    def project(self, pictures: Tensor, stitched: Tensor, out: Tensor) -> None:
        """Enqueue the projection.

        Args:
            pictures: (C, H, W) the camera's: uint8, int16 (the bits of uint16) or float32.
            stitched: (C, scale * H, scale * W), same dtype, the generator's.
            out: as ``stitched``, written; integers rounded to nearest and clamped.
        """
        made = stitched
        for step in range(self.num_steps):
            target = out if step == self.num_steps - 1 else torch.empty_like(out)
            self._correct(pictures, made, target, again=step > 0)
            made = target

    def measure(self, pictures: Tensor, stitched: Tensor, out: Tensor, figures: Tensor) -> None:
        """Enqueue a measurement of how well pictures are given back, as `PlaneProjector.count` counts.

        Args:
            pictures: as for `project`; ``stitched`` and ``out`` too.
            stitched: the generator's.
            out: projected.
            figures: (4,) float64, written: samples within a level before and after, those that are not and read an
                enlarged sample at either end of the range, the largest difference in levels.
        """
        count_distances(pictures, stitched, out, figures, self._measure)

    def _correct(self, pictures: Tensor, made: Tensor, out: Tensor, *, again: bool) -> None:
        """Enqueue one step."""
        most = self.peak * MOST_PART / self.level
        lack = Ending(pictures, lacks=True, unit=1 / self.level, slack=SLACK_LEVELS, most=most)
        wanted = torch.empty(pictures.shape, dtype=torch.float32, device=pictures.device)
        across, sharp = torch.empty_like(wanted), torch.empty_like(wanted)
        resample(made, wanted, *self.down, peak=self.peak, ending=lack)
        if again:
            keep_outside(
                wanted,
                made,
                scale=self.scale,
                threshold=WITHIN_LEVELS - SLACK_LEVELS,
                limits=self.limits if made.dtype == torch.float32 else (0.0, self.peak),
                least_room=LEAST_ROOM,
                most=most,
            )
        resample(wanted, across, self.same[0], self.sharpen[1], peak=self.peak)
        resample(across, sharp, self.sharpen[0], self.same[1], peak=self.peak)
        limits = self.limits if made.dtype == torch.float32 else None
        ending = Ending(made, lacks=False, unit=self.level, limits=limits)
        resample(sharp, out, *self.up, peak=self.peak, ending=ending)


def reduction_of(side: int, scale: int, device: torch.device) -> Taps:
    """Return the taps of the stated filter for every reduced sample of an axis of ``side`` of them."""
    taps, before, sums = np.array(down_taps(scale)), num_before(scale), down_sums(scale, side)
    first = scale * np.arange(side) - before
    places = first[:, None] + np.arange(len(taps))
    weights = np.where((places >= 0) & (places < scale * side), taps, 0.0) / np.array(sums)[:, None]
    return torch.from_numpy(first.astype(np.int32)).to(device), torch.from_numpy(weights.astype(np.float32)).to(device)


def bilinear_of(side: int, scale: int, device: torch.device) -> Taps:
    """Return the two taps of bilinear interpolation, half-pixel centres, for every sample of an enlarged axis."""
    places = (np.arange(scale * side) + 0.5) / scale - 0.5
    first = np.floor(places)
    weights = np.stack([1 - (places - first), places - first], axis=1)
    return torch.from_numpy(first.astype(np.int32)).to(device), torch.from_numpy(weights.astype(np.float32)).to(device)
