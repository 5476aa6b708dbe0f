"""The planes of a frame on a device: where they lie in one buffer, how chroma grows, RGB and back, windows and back.

The same numbers as `streamsr.resample` and `streamsr.colour`, in the same order; a sum of floats in another order may
tip a sample that lies midway to the next level.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

import numpy as np
import torch
from torch import Tensor

from streamsr.colour import coding_of
from streamsr.frame import Colour, PlaneLayout
from streamsr.patches import PatchGrid
from streamsr.resample import Axis, keys_weights, siting_axis
from streamsr.runtimes.patch_ops import Tiling, cut_windows, stitch_cores
from streamsr.runtimes.plane_ops import Ending, Matrix, join_rgb, resample, split_rgb

ALIGNMENT = 256
"""Samples that a plane's start is a multiple of, so that devices read and write whole lines."""

Taps = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class PlaneBuffer:
    """Where the planes of frames of one size lie in one flat buffer, so that one copy moves them all.

    Attributes:
        layout: of the planes.
        width: of the luma plane.
        height: of the luma plane.
    """

    layout: PlaneLayout
    width: int
    height: int

    @property
    def dtype(self) -> torch.dtype:
        """The type of a sample: uint8, or int16 with the bits of uint16, which torch hardly computes with."""
        return torch.uint8 if self.layout.bit_depth == 8 else torch.int16

    @property
    def chroma_start(self) -> int:
        """Where the first chroma plane starts."""
        return -(-self.width * self.height // ALIGNMENT) * ALIGNMENT

    @property
    def num_samples(self) -> int:
        """Samples of the whole buffer."""
        wide, tall = self.layout.chroma_size(self.width, self.height)
        return self.chroma_start + 2 * wide * tall

    def luma(self, flat: Tensor) -> Tensor:
        """Return (H, W) luma of a flat buffer, a view."""
        return flat[: self.width * self.height].view(self.height, self.width)

    def chroma(self, flat: Tensor) -> Tensor:
        """Return (2, H', W') chroma of a flat buffer, a view; not for gray."""
        wide, tall = self.layout.chroma_size(self.width, self.height)
        return flat[self.chroma_start :].view(2, tall, wide)

    def planes(self, flat: Tensor) -> tuple[Tensor, ...]:
        """Return the planes of a flat buffer, views."""
        if self.layout.chroma_shift is None:
            return (self.luma(flat),)
        return (self.luma(flat), *self.chroma(flat))

    def enlarged(self, scale: int) -> PlaneBuffer:
        """Return the same for frames ``scale`` times the size."""
        return PlaneBuffer(self.layout, scale * self.width, scale * self.height)


def taps_of(axis: Axis, device: torch.device) -> Taps:
    """Return the first input and the four weights of every output of an axis.

    Returns:
        (num_out,) int32 and (num_out, 4) float32, on the device.
    """
    places = [axis.origin + place / axis.ratio for place in range(axis.num_out)]
    first = np.array([floor(place) - 1 for place in places], np.int32)
    weights = np.array([keys_weights(place - floor(place)) for place in places], np.float32)
    return torch.from_numpy(first).to(device), torch.from_numpy(weights).to(device)


class ChromaOnDevice:
    """Enlarges the chroma planes of frames of one size, as `streamsr.resample.chroma_enlarger` does.

    Args:
        buffer: of the input.
        colour: its siting is kept.
        scale: enlargement of each side.
        device: where it runs.
    """

    def __init__(self, buffer: PlaneBuffer, colour: Colour, scale: int, device: torch.device) -> None:
        assert buffer.layout.chroma_shift is not None
        (x_shift, y_shift), (x_offset, y_offset) = buffer.layout.chroma_shift, colour.siting.value
        self.peak = buffer.layout.peak
        self.rows = taps_of(siting_axis(buffer.height, scale, (y_shift, y_shift), (y_offset, y_offset)), device)
        self.columns = taps_of(siting_axis(buffer.width, scale, (x_shift, x_shift), (x_offset, x_offset)), device)

    def enlarge(self, chroma: Tensor, out: Tensor) -> None:
        """Enqueue the enlargement of (2, H, W) chroma into ``out``: levels rounded, or float32 as it is."""
        resample(chroma, out, self.rows, self.columns, peak=self.peak)


class BridgeOnDevice:
    """Takes planes to RGB and back, as `streamsr.colour.RgbBridge` does: only a generator's change is subsampled.

    Args:
        buffer: of the input.
        colour: of both sides.
        scale: enlargement by the generator.
        device: where it runs.

    Raises:
        InputError: a colour matrix that RGB cannot be reached from.
    """

    def __init__(self, buffer: PlaneBuffer, colour: Colour, scale: int, device: torch.device) -> None:
        self.buffer, self.colour, self.scale = buffer, colour, scale
        self.coding = coding_of(colour, buffer.layout.bit_depth)
        self.matrix = Matrix(self.coding.luma, self.coding.chroma, self.coding.weights, buffer.layout.peak)
        self.has_chroma = buffer.layout.chroma_shift is not None
        if buffer.layout.chroma_shift is None:
            return
        (x_shift, y_shift), (x_offset, y_offset) = buffer.layout.chroma_shift, colour.siting.value
        sides = ((buffer.height, y_shift, y_offset), (buffer.width, x_shift, x_offset))
        self.fill = [taps_of(siting_axis(side, 1, (shift, 0), (offset, 0.0)), device) for side, shift, offset in sides]
        self.baseline = [taps_of(siting_axis(side, scale, (0, 0), (0.0, 0.0)), device) for side, _, _ in sides]
        self.reduce = [halving_of(scale * side, shift, offset, device) for side, shift, offset in sides]
        self.chroma = ChromaOnDevice(buffer, colour, scale, device)

    def rgb_of(self, flat: Tensor) -> Tensor:
        """Return (1, 3, H, W) float32 RGB of a flat buffer of planes, not clamped, fresh."""
        return join_rgb(self.buffer.luma(flat), self._filled(flat), self.matrix)[None]

    def planes_of(self, rgb: Tensor, flat: Tensor, flat_out: Tensor) -> None:
        """Write the enlarged planes.

        Args:
            rgb: (1, 3, scale * H, scale * W) float32, the generator's output.
            flat: the input's planes.
            flat_out: buffer of the enlarged planes, written.
        """
        large, peak, filled = self.buffer.enlarged(self.scale), self.buffer.layout.peak, self._filled(flat)
        before = None if filled is None else torch.empty_like(rgb[0, :2])
        if filled is not None and before is not None:
            resample(filled, before, *self.baseline, peak=peak)
        change = split_rgb(rgb[0], before, large.luma(flat_out), self.matrix)
        if change is None:
            return
        target = large.chroma(flat_out)
        kept = torch.empty(target.shape, dtype=torch.float32, device=target.device)
        self.chroma.enlarge(self.buffer.chroma(flat), kept)
        resample(change, target, *self.reduce, peak=peak, ending=Ending(kept, lacks=False))

    def _filled(self, flat: Tensor) -> Tensor | None:
        """Return (2, H, W) float32 colour differences at the resolution of luma; None for gray."""
        if not self.has_chroma:
            return None
        chroma = self.buffer.chroma(flat)
        filled = torch.empty((2, self.buffer.height, self.buffer.width), dtype=torch.float32, device=flat.device)
        resample(chroma, filled, *self.fill, peak=self.buffer.layout.peak)
        return filled


def halving_of(side: int, shift: int, offset: float, device: torch.device) -> Taps:
    """Return the taps that bring an axis of ``side`` samples down to chroma; see `streamsr.resample.reduce_chroma`.

    Args:
        side: samples of the axis at the resolution of luma.
        shift: 1 to halve it, 0 to leave it.
        offset: -0.5 (on the even samples), 0 (midway) or 0.5 (on the odd samples).
        device: where they lie.
    """
    first, weights = np.arange(side, dtype=np.int32), [1.0]
    if shift:
        first = 2 * np.arange(-(-side // 2), dtype=np.int32) - (1 if offset < 0 else 0)
        weights = [0.5, 0.5] if offset == 0.0 else [0.25, 0.5, 0.25]
    return torch.from_numpy(first).to(device), torch.tensor([weights] * len(first), device=device)


class Windows:
    """Cuts a picture into windows and stitches their cores on a device; `streamsr.patches` says what that means.

    Args:
        grid: the geometry.
        device: where it runs.

    Attributes:
        tiling: the geometry as kernels take it.
        all: (patches,) int32, their numbers, on the device.
    """

    def __init__(self, grid: PatchGrid, device: torch.device) -> None:
        self.grid, self.tiling = grid, tiling_of(grid)
        self.all = torch.arange(grid.num, dtype=torch.int32, device=device)

    def cut(self, picture: Tensor, indices: Tensor | None = None) -> Tensor:
        """Return (N, C, h, w) windows of a contiguous (C, H, W) picture.

        Args:
            picture: on the device.
            indices: (N,) int32, numbers of patches, on the device; None for all.
        """
        return cut_windows(picture, self.all if indices is None else indices, self.tiling)

    def stitch(self, outputs: Tensor, picture: Tensor, indices: Tensor | None = None) -> None:
        """Write the cores of (N, C, scale * h, scale * w) outputs to a contiguous (C, scale * H, scale * W) picture."""
        stitch_cores(outputs, self.all if indices is None else indices, picture, self.tiling)


def tiling_of(grid: PatchGrid) -> Tiling:
    """Return the geometry of patches as kernels take it."""
    return Tiling(grid.width, grid.height, grid.scale, grid.columns, grid.core_px, grid.halo_px, grid.window_size)
