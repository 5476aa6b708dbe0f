"""Planes on a device: resampled with a few taps, read as real numbers, written as levels.

One Triton kernel each, or torch where it is missing; nothing here waits for the device, and all of it may be captured.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from streamsr.runtimes.gpu_ops import kernels, uses_triton


@dataclass(frozen=True)
class Ending:
    """What follows a sum of taps: the consistency projection's two halves.

    Attributes:
        base: (N, H', W') of the result's size: uint8, int16 (the bits of uint16) or float32.
        lacks: True for what the base lacks of the sum, softened and limited; False for the base plus the sum.
        unit: what a difference is multiplied by, or the sum.
        slack: differences up to this are none, and all others are smaller by it.
        most: the largest difference.
    """

    base: Tensor
    lacks: bool
    unit: float = 1.0
    slack: float = 0.0
    most: float = 0.0


def resample(
    source: Tensor,
    out: Tensor,
    rows: tuple[Tensor, Tensor],
    columns: tuple[Tensor, Tensor],
    *,
    peak: float,
    ending: Ending | None = None,
) -> None:
    """Resample planes with a few taps along each axis, edges repeated.

    Args:
        source: (N, H, W) uint8, int16 (the bits of uint16) or float32; contiguous.
        out: (N, H', W'), contiguous, written: uint8 or int16 rounded half to even and clamped, or float32.
        rows: for every output row (H',) int32, the first input row that it reads, which may lie outside, and (H', K)
            float32, the weights of this one and those that follow.
        columns: likewise.
        peak: the largest level.
        ending: what follows; None for nothing.
    """
    if not uses_triton(source):
        _resample_in_torch(source, out, rows, columns, peak, ending)
        return
    num, height, width = out.shape
    block_h, block_w = 8, 128
    grid = (-(-width // block_w), -(-height // block_h), num)
    base = source if ending is None else ending.base
    levels = source.dtype != torch.float32 if ending is not None and ending.lacks else out.dtype != torch.float32
    kernels().resample[grid](
        source,
        base,
        out,
        rows[0],
        rows[1],
        columns[0],
        columns[1],
        source.shape[1],
        source.shape[2],
        height,
        width,
        float(peak),
        1.0 if ending is None else float(ending.unit),
        0.0 if ending is None else float(ending.slack),
        0.0 if ending is None else float(ending.most),
        from_words=source.dtype == torch.int16,
        base_words=base.dtype == torch.int16,
        ending=0 if ending is None else 1 if ending.lacks else 2,
        as_levels=levels,
        row_taps=rows[1].shape[1],
        column_taps=columns[1].shape[1],
        block_h=block_h,
        block_w=block_w,
    )


def _resample_in_torch(
    source: Tensor,
    out: Tensor,
    rows: tuple[Tensor, Tensor],
    columns: tuple[Tensor, Tensor],
    peak: float,
    ending: Ending | None,
) -> None:
    real = real_samples(source)
    for axis, (first, weights) in ((2, columns), (1, rows)):
        taps = torch.arange(weights.shape[1], device=first.device)
        places = (first.long()[:, None] + taps).clamp(0, real.shape[axis] - 1)
        taken = real.index_select(axis, places.flatten())
        taken = taken.view(*taken.shape[:axis], -1, len(taps), *taken.shape[axis + 1 :])
        real = (taken * (weights if axis == 2 else weights[:, :, None])).sum(axis + 1)
    if ending is not None and ending.lacks:
        real = real.clamp(0, peak) if source.dtype != torch.float32 else real
        real = (real_samples(ending.base) - real) * ending.unit
        real = (real - real.clamp(-ending.slack, ending.slack)).clamp(-ending.most, ending.most)
    elif ending is not None:
        real = real_samples(ending.base) + real * ending.unit
    out.copy_(real.round_().clamp_(0, peak).to(torch.int32) if out.dtype != torch.float32 else real)


def real_samples(samples: Tensor) -> Tensor:
    """Return samples as float32; int16 holds the bits of uint16."""
    return (samples.to(torch.int32) & 0xFFFF).float() if samples.dtype == torch.int16 else samples.float()


def write_levels(real: Tensor, out: Tensor, *, peak: int) -> None:
    """Round real levels half to even, clamp them to [0, peak] and write them as uint8, or int16 with uint16's bits."""
    out.copy_(real.round().clamp_(0, peak).to(torch.int32))
