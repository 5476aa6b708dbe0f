"""How well enlarged planes on a device give their input back: one Triton kernel, or torch where it is missing.

Nothing here waits for the device, and all of it may be captured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from streamsr.runtimes.gpu_ops import uses_triton
from streamsr.runtimes.plane_ops import Ending, real_samples, resample

BLOCK = (8, 64)
"""Rows and columns of samples a program."""

MOST_UNITS = 1e9
"""No limit: more units than there are."""


def kernels() -> Any:
    """Return the room of the Triton kernel, which is imported where Triton is."""
    from streamsr.runtimes import distance_kernels

    return distance_kernels


@dataclass(frozen=True)
class Measure:
    """What is compared, and how.

    Attributes:
        rows: the taps that bring an enlarged axis down, as for `streamsr.runtimes.plane_ops.resample`.
        columns: likewise.
        scale: enlargement of each side.
        reach: samples on each side of a reduced one whose enlarged ones it depends on.
        peak: the largest level.
        unit: what differences are multiplied by.
        within: the largest distance, in units, that counts as none.
    """

    rows: tuple[Tensor, Tensor]
    columns: tuple[Tensor, Tensor]
    scale: int
    reach: int
    peak: float
    unit: float
    within: float


def count_distances(pictures: Tensor, stitched: Tensor, enlarged: Tensor, figures: Tensor, measure: Measure) -> None:
    """Count how many samples two enlargements give back.

    Args:
        pictures: (C, H, W) uint8, int16 (the bits of uint16) or float32; contiguous.
        stitched: (C, scale * H, scale * W), same dtype.
        enlarged: as ``stitched``.
        figures: (4,) float64, written: samples that ``stitched`` gives back, that ``enlarged`` does, those that it does
            not and that depend on a level at either end of the range (none where samples are float32), and its largest
            distance in units.
        measure: what is compared, and how.
    """
    if not uses_triton(pictures):
        _count_in_torch(pictures, stitched, enlarged, figures, measure)
        return
    num, height, width = pictures.shape
    counts = torch.zeros(4, dtype=torch.int32, device=pictures.device)
    kernels().count_distances[(-(-width // BLOCK[1]), -(-height // BLOCK[0]), num)](
        pictures,
        stitched,
        enlarged,
        counts,
        *measure.rows,
        *measure.columns,
        height,
        width,
        float(measure.peak),
        float(measure.unit),
        float(measure.within),
        words=pictures.dtype == torch.int16,
        as_levels=pictures.dtype != torch.float32,
        scale=measure.scale,
        reach=measure.reach,
        row_taps=measure.rows[1].shape[1],
        column_taps=measure.columns[1].shape[1],
        block_h=BLOCK[0],
        block_w=BLOCK[1],
    )
    figures[:3].copy_(counts[:3])
    figures[3:].copy_(counts[3:].view(torch.float32))


def _count_in_torch(pictures: Tensor, stitched: Tensor, enlarged: Tensor, figures: Tensor, measure: Measure) -> None:
    before, after = (_distance(pictures, planes, measure) for planes in (stitched, enlarged))
    outside = after > measure.within
    clipped = (outside & _clipped(enlarged, measure)).sum()
    counts = [(before <= measure.within).sum(), (~outside).sum(), clipped, after.max()]
    figures.copy_(torch.stack([count.double() for count in counts]))


def _distance(pictures: Tensor, enlarged: Tensor, measure: Measure) -> Tensor:
    """Return (C, H, W) float32: how many units the reduced enlargement is off the pictures."""
    lack = Ending(pictures, lacks=True, unit=measure.unit, slack=0.0, most=MOST_UNITS)
    distance = torch.empty(pictures.shape, dtype=torch.float32, device=pictures.device)
    resample(enlarged, distance, measure.rows, measure.columns, peak=measure.peak, ending=lack)
    return distance.abs_()


def _clipped(enlarged: Tensor, measure: Measure) -> Tensor:
    """Return (C, H, W) bool: whether a reduced sample reads an enlarged one at either end of the range."""
    if enlarged.dtype == torch.float32:
        return torch.zeros((), dtype=torch.bool, device=enlarged.device)
    real = real_samples(enlarged)
    ends = ((real < 1.0) | (real > measure.peak - 1.0)).half()[None]
    near = functional.max_pool2d(ends, measure.scale)
    return functional.max_pool2d(near, 2 * measure.reach + 1, stride=1, padding=measure.reach)[0] > 0
