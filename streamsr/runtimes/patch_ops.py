"""Patches on a device: compared with the frame before, cut, stitched. One Triton kernel each, or torch without it.

Which patches are cut and stitched is read from device memory, so that a CUDA graph serves any choice of as many.
Nothing here waits for the device, and all of it may be captured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from streamsr.runtimes.gpu_ops import uses_triton

BLOCK = 1024
"""Samples a program."""


@dataclass(frozen=True)
class Tiling:
    """How a frame is cut into patches, as `streamsr.patches.PatchGrid` says.

    Attributes:
        width: of the frame in pixels.
        height: of the frame in pixels.
        scale: enlargement of each side.
        columns: patches in a row.
        core_px: side of a core.
        halo_px: context on each side.
        window: (width, height) of every window.
    """

    width: int
    height: int
    scale: int
    columns: int
    core_px: int
    halo_px: int
    window: tuple[int, int]

    @property
    def numbers(self) -> tuple[int, ...]:
        """What every kernel is told of it: columns, core, halo, height, width, window height, window width."""
        wide, tall = self.window
        return (self.columns, self.core_px, self.halo_px, self.height, self.width, tall, wide)

    def starts(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first row and the first column of the windows of some patches."""
        wide, tall = self.window
        rows, columns = indices // self.columns, indices % self.columns
        return (
            (rows * self.core_px - self.halo_px).clamp(0, self.height - tall),
            (columns * self.core_px - self.halo_px).clamp(0, self.width - wide),
        )


def kernels() -> Any:
    """Return the room of the Triton kernels, which is imported where Triton is."""
    from streamsr.runtimes import patch_kernels

    return patch_kernels


def compare_windows(
    now: Tensor,
    before: Tensor,
    mask: Tensor,
    tiling: Tiling,
    *,
    shift: tuple[int, int] = (0, 0),
    margin: int = 0,
    joins: bool = False,
) -> None:
    """Find the patches in whose window two planes differ.

    Args:
        now: (H', W') uint8 or int16, contiguous.
        before: as ``now``.
        mask: (patches,) uint8, written: 1 where they differ.
        tiling: of the frame.
        shift: (x, y) binary logarithm of how much smaller the planes are than the frame.
        margin: samples round a window that count too.
        joins: leave a 1 that is in the mask.
    """
    if not uses_triton(now):
        _compare_in_torch(now, before, mask, tiling, shift, margin, joins)
        return
    wide, tall = (-(-side >> by) + 1 + 2 * margin for side, by in zip(tiling.window, shift, strict=True))
    kernels().compare_windows[(len(mask),)](
        now,
        before,
        mask,
        *tiling.numbers,
        *now.shape,
        shift[1],
        shift[0],
        margin,
        joins=joins,
        num_steps=-(-wide * tall // BLOCK),
        block=BLOCK,
    )


def _compare_in_torch(
    now: Tensor, before: Tensor, mask: Tensor, tiling: Tiling, shift: tuple[int, int], margin: int, joins: bool
) -> None:
    wide, tall = tiling.window
    counts = torch.zeros(now.shape[0] + 1, now.shape[1] + 1, dtype=torch.int32, device=now.device)
    counts[1:, 1:] = (now != before).to(torch.int32).cumsum(0).cumsum(1)
    tops, lefts = tiling.starts(torch.arange(len(mask), device=now.device))
    edges = []
    for starts, length, by, side in zip((tops, lefts), (tall, wide), shift[::-1], now.shape, strict=True):
        edges.append(((starts >> by) - margin).clamp(min=0))
        edges.append((((starts + length - 1) >> by) + margin + 1).clamp(max=side))
    above, below, left, right = edges
    found = counts[below, right] - counts[above, right] - counts[below, left] + counts[above, left] > 0
    mask.copy_(found | (mask > 0) if joins else found)


def cut_windows(picture: Tensor, indices: Tensor, tiling: Tiling) -> Tensor:
    """Return (N, C, h, w) windows.

    Args:
        picture: (C, H, W), contiguous.
        indices: (N,) int32, numbers of patches.
        tiling: of the picture.
    """
    wide, tall = tiling.window
    num, channels = len(indices), len(picture)
    if not uses_triton(picture):
        tops, lefts = tiling.starts(indices.long())
        down, across = (torch.arange(side, device=picture.device) for side in (tall, wide))
        places = (tops[:, None, None] + down[:, None]) * tiling.width + lefts[:, None, None] + across
        flat = picture.reshape(channels, -1).index_select(1, places.flatten())
        return flat.view(channels, num, tall, wide).transpose(0, 1).contiguous()
    out = torch.empty((num, channels, tall, wide), dtype=picture.dtype, device=picture.device)
    grid = (-(-tall * wide // BLOCK) * channels * num,)
    kernels().cut_windows[grid](picture, indices, out, *tiling.numbers, channels, block=BLOCK)
    return out


def stitch_cores(outputs: Tensor, indices: Tensor, picture: Tensor, tiling: Tiling) -> None:
    """Write the enlarged cores of some patches.

    Args:
        outputs: (N, C, scale * h, scale * w), contiguous.
        indices: (N,) int32, numbers of patches; one may come several times.
        picture: (C, scale * H, scale * W), contiguous, written where these cores are.
        tiling: of the picture.
    """
    if uses_triton(outputs):
        (num, channels), scale, core = outputs.shape[:2], tiling.scale, tiling.core_px
        core_px = min(core, tiling.height) * min(core, tiling.width)
        grid = (-(-core_px * scale**2 // BLOCK) * channels * num,)
        kernels().stitch_cores[grid](outputs, indices, picture, *tiling.numbers, channels, scale=scale, block=BLOCK)
        return
    _stitch_in_torch(outputs, indices.long(), picture, tiling)


def _stitch_in_torch(outputs: Tensor, numbers: Tensor, picture: Tensor, tiling: Tiling) -> None:
    """Stitch without a mask, of whose ones the host would have to know how many there are.

    A core that hangs over the frame's edge writes the samples at the edge again, the same ones.
    """
    scale, core = tiling.scale, tiling.core_px
    num, channels, tall, wide = outputs.shape
    places = []
    for number, starts, side in zip(
        (numbers // tiling.columns, numbers % tiling.columns),
        tiling.starts(numbers),
        (tiling.height, tiling.width),
        strict=True,
    ):
        inside = torch.arange(min(core, side) * scale, device=outputs.device)
        target = (scale * core * number[:, None] + inside).clamp_(max=scale * side - 1)
        places.append((target, target - scale * starts[:, None]))
    (rows, inner_rows), (columns, inner_columns) = places
    targets = rows[:, :, None] * (scale * tiling.width) + columns[:, None, :]
    batch = torch.arange(num, device=outputs.device)[:, None, None] * (tall * wide)
    sources = batch + inner_rows[:, :, None] * wide + inner_columns[:, None, :]
    flat = outputs.transpose(0, 1).reshape(channels, -1)
    picture.view(channels, -1)[:, targets.flatten()] = flat.index_select(1, sources.flatten())
