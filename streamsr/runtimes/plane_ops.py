"""Planes on a device: resampled with a few taps, made RGB and back, corrected, written as levels.

One Triton kernel each, or torch where it is missing; nothing here waits for the device, and all of it may be captured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from streamsr.runtimes.gpu_ops import uses_triton

BLOCK = 1024
"""Samples a program of an elementwise kernel."""

Limits = tuple[float, float]
"""The smallest and the largest sample."""


def kernels() -> Any:
    """Return the room of the Triton kernels, which is imported where Triton is."""
    from streamsr.runtimes import plane_kernels

    return plane_kernels


@dataclass(frozen=True)
class Ending:
    """What follows a sum of taps: the consistency projection's two halves.

    Attributes:
        base: (N, H', W') of the result's size: uint8, int16 (the bits of uint16) or float32.
        lacks: True for what the base lacks of the sum, softened and limited; False for the base plus the sum.
        unit: what a difference is multiplied by, or the sum.
        slack: differences up to this are none, and all others are smaller by it.
        most: the largest difference.
        limits: what a real result is clamped to; None for nothing.
    """

    base: Tensor
    lacks: bool
    unit: float = 1.0
    slack: float = 0.0
    most: float = 0.0
    limits: Limits | None = None


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
    limits = None if ending is None else ending.limits
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
        *(limits or (0.0, 0.0)),
        from_words=source.dtype == torch.int16,
        base_words=base.dtype == torch.int16,
        ending=0 if ending is None else 1 if ending.lacks else 2,
        as_levels=levels,
        has_limits=limits is not None,
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
        real = real if ending.limits is None else real.clamp(*ending.limits)
    out.copy_(real.round_().clamp_(0, peak).to(torch.int32) if out.dtype != torch.float32 else real)


@dataclass(frozen=True)
class Matrix:
    """How planes mean RGB; see `streamsr.colour.Coding`.

    Attributes:
        luma: (offset, gain): the level of black, and levels from there to white.
        chroma: (offset, gain) of the differences.
        weights: of red, green and blue in luma.
        peak: the largest level.
    """

    luma: tuple[float, float]
    chroma: tuple[float, float]
    weights: tuple[float, float, float]
    peak: float

    @property
    def difference_gains(self) -> tuple[float, float]:
        """What red and blue differences of levels are multiplied by to be added to luma in [0, 1]."""
        red, _, blue = self.weights
        return 2 * (1 - red) / self.chroma[1], 2 * (1 - blue) / self.chroma[1]


def join_rgb(luma: Tensor, differences: Tensor | None, matrix: Matrix) -> Tensor:
    """Return (3, H, W) float32 RGB, not clamped.

    Args:
        luma: (H, W) uint8 or int16 (the bits of uint16), contiguous.
        differences: (2, H, W) float32, blue and red; None for gray, which has three equal channels.
        matrix: what they mean.
    """
    (offset, gain), (middle, _), (red_gain, blue_gain) = matrix.luma, matrix.chroma, matrix.difference_gains
    weight_r, weight_g, weight_b = matrix.weights
    if uses_triton(luma):
        out = torch.empty((3, *luma.shape), dtype=torch.float32, device=luma.device)
        kernels().join_rgb[(-(-luma.numel() // BLOCK),)](
            luma,
            out if differences is None else differences,
            out,
            luma.numel(),
            offset,
            1 / gain,
            middle,
            red_gain,
            blue_gain,
            weight_r,
            weight_b,
            1 / weight_g,
            words=luma.dtype == torch.int16,
            has_chroma=differences is not None,
            block=BLOCK,
        )
        return out
    value = (real_samples(luma) - offset) * (1 / gain)
    if differences is None:
        return value.expand(3, *value.shape).contiguous()
    red = value + (differences[1] - middle) * red_gain
    blue = value + (differences[0] - middle) * blue_gain
    green = (value - weight_r * red - weight_b * blue) * (1 / weight_g)
    return torch.stack([red, green, blue])


def split_rgb(rgb: Tensor, before: Tensor | None, luma: Tensor, matrix: Matrix) -> Tensor | None:
    """Write the luma of RGB, and return by how much its differences changed.

    Args:
        rgb: (3, H, W) float32, contiguous.
        before: (2, H, W) float32, blue and red differences as they were; None for gray.
        luma: (H, W) uint8 or int16, contiguous, written: rounded half to even and clamped.
        matrix: what they mean.

    Returns:
        (2, H, W) float32, blue and red; None for gray.
    """
    (offset, gain), (middle, _), (red_gain, blue_gain) = matrix.luma, matrix.chroma, matrix.difference_gains
    weight_r, weight_g, weight_b = matrix.weights
    if uses_triton(rgb):
        change = None if before is None else torch.empty_like(before)
        kernels().split_rgb[(-(-luma.numel() // BLOCK),)](
            rgb,
            rgb if before is None else before,
            luma,
            rgb if change is None else change,
            luma.numel(),
            offset,
            gain,
            middle,
            1 / red_gain,
            1 / blue_gain,
            weight_r,
            weight_g,
            weight_b,
            matrix.peak,
            has_chroma=before is not None,
            block=BLOCK,
        )
        return change
    red, green, blue = rgb
    value = weight_r * red + weight_g * green + weight_b * blue
    write_levels(value * gain + offset, luma, peak=int(matrix.peak))
    if before is None:
        return None
    return torch.stack([(blue - value) * (1 / blue_gain) + middle, (red - value) * (1 / red_gain) + middle]) - before


def keep_outside(
    wanted: Tensor,
    made: Tensor,
    *,
    scale: int,
    threshold: float,
    limits: Limits | None,
    least_room: float,
    most: float,
) -> None:
    """Want nothing where little is wanted, and more where enlarged samples cannot move; in place.

    Args:
        wanted: (C, H, W) float32, changed.
        made: (C, scale * H, scale * W) uint8, int16 or float32, contiguous.
        scale: enlargement of each side.
        threshold: what is at most this is nothing.
        limits: ends of the range, at which samples cannot move further; None for none.
        least_room: the least part of movable samples that is divided by.
        most: the largest that is wanted then.
    """
    if uses_triton(wanted):
        kernels().keep_outside[(-(-wanted.numel() // BLOCK),)](
            wanted,
            made,
            wanted.numel(),
            wanted.shape[-1],
            threshold,
            *(limits or (0.0, 0.0)),
            least_room,
            most,
            words=made.dtype == torch.int16,
            has_limits=limits is not None,
            scale=scale,
            block=BLOCK,
        )
        return
    wanted.mul_(wanted.abs() > threshold)
    if limits is not None:
        real = real_samples(made)
        below, above = (
            functional.avg_pool2d(movable.float()[None], scale)[0] for movable in (real > limits[0], real < limits[1])
        )
        wanted.div_(torch.where(wanted < 0, below, above).clamp_(min=least_room))
    wanted.clamp_(-most, most)


def real_samples(samples: Tensor) -> Tensor:
    """Return samples as float32; int16 holds the bits of uint16."""
    return (samples.to(torch.int32) & 0xFFFF).float() if samples.dtype == torch.int16 else samples.float()


def read_levels(samples: Tensor, *, gain: float = 1.0) -> Tensor:
    """Return levels times a gain, float32, fresh.

    Args:
        samples: uint8 or int16 (the bits of uint16), contiguous.
        gain: what levels are multiplied by.
    """
    if not uses_triton(samples):
        return real_samples(samples).mul_(gain)
    out, num = torch.empty(samples.shape, dtype=torch.float32, device=samples.device), samples.numel()
    kernels().read_levels[(-(-num // BLOCK),)](
        samples, out, num, float(gain), words=samples.dtype == torch.int16, block=BLOCK
    )
    return out


def write_levels(real: Tensor, out: Tensor, *, peak: int, gain: float = 1.0) -> None:
    """Write real samples as levels, rounded half to even and clamped to [0, peak].

    Args:
        real: float32, contiguous.
        out: of the same shape: uint8, or int16 with the bits of uint16; contiguous, written.
        peak: the largest level.
        gain: what makes levels of them.
    """
    if not uses_triton(real):
        out.copy_(real.mul(gain).round_().clamp_(0, peak).to(torch.int32))
        return
    num = real.numel()
    kernels().write_levels[(-(-num // BLOCK),)](real, out, num, float(gain), float(peak), block=BLOCK)
