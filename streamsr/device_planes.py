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
from streamsr.runtimes.plane_ops import real_samples, resample, write_levels

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
        self.has_chroma = buffer.layout.chroma_shift is not None
        if buffer.layout.chroma_shift is None:
            return
        (x_shift, y_shift), (x_offset, y_offset) = buffer.layout.chroma_shift, colour.siting.value
        sides = ((buffer.height, y_shift, y_offset), (buffer.width, x_shift, x_offset))
        self.fill = [taps_of(siting_axis(side, 1, (shift, 0), (offset, 0.0)), device) for side, shift, offset in sides]
        self.baseline = [taps_of(siting_axis(side, scale, (0, 0), (0.0, 0.0)), device) for side, _, _ in sides]
        self.chroma = ChromaOnDevice(buffer, colour, scale, device)

    def rgb_of(self, flat: Tensor) -> Tensor:
        """Return (1, 3, H, W) float32 RGB of a flat buffer of planes, not clamped, fresh."""
        (offset, gain), (middle, chroma_gain) = self.coding.luma, self.coding.chroma
        value = (real_samples(self.buffer.luma(flat)) - offset) * (1 / gain)
        if not self.has_chroma:
            return value.expand(1, 3, *value.shape).contiguous()
        weight_r, weight_g, weight_b = self.coding.weights
        blue_difference, red_difference = self._filled(flat)
        red = value + (red_difference - middle) * (2 * (1 - weight_r) / chroma_gain)
        blue = value + (blue_difference - middle) * (2 * (1 - weight_b) / chroma_gain)
        green = (value - weight_r * red - weight_b * blue) * (1 / weight_g)
        return torch.stack([red, green, blue])[None]

    def planes_of(self, rgb: Tensor, flat: Tensor, flat_out: Tensor) -> None:
        """Write the enlarged planes.

        Args:
            rgb: (1, 3, scale * H, scale * W) float32, the generator's output.
            flat: the input's planes.
            flat_out: buffer of the enlarged planes, written.
        """
        (offset, gain), (middle, chroma_gain) = self.coding.luma, self.coding.chroma
        weight_r, weight_g, weight_b = self.coding.weights
        red, green, blue = rgb[0]
        value = weight_r * red + weight_g * green + weight_b * blue
        large, peak = self.buffer.enlarged(self.scale), self.buffer.layout.peak
        write_levels(value * gain + offset, large.luma(flat_out), peak=peak)
        if not self.has_chroma:
            return
        blue_difference = (blue - value) * (chroma_gain / (2 * (1 - weight_b))) + middle
        red_difference = (red - value) * (chroma_gain / (2 * (1 - weight_r))) + middle
        made = torch.stack([blue_difference, red_difference])
        before = torch.empty_like(made)
        resample(self._filled(flat), before, *self.baseline, peak=peak)
        target = large.chroma(flat_out)
        kept = torch.empty(target.shape, dtype=torch.float32, device=target.device)
        self.chroma.enlarge(self.buffer.chroma(flat), kept)
        write_levels(kept + self._reduced(made - before), target, peak=peak)

    def _filled(self, flat: Tensor) -> Tensor:
        """Return (2, H, W) float32 colour differences at the resolution of luma."""
        chroma = self.buffer.chroma(flat)
        filled = torch.empty((2, self.buffer.height, self.buffer.width), dtype=torch.float32, device=flat.device)
        resample(chroma, filled, *self.fill, peak=self.buffer.layout.peak)
        return filled

    def _reduced(self, change: Tensor) -> Tensor:
        """Subsample (2, H, W) to the chroma grid; see `streamsr.resample.reduce_chroma`."""
        assert self.buffer.layout.chroma_shift is not None
        for axis, shift, offset in zip((2, 1), self.buffer.layout.chroma_shift, self.colour.siting.value, strict=True):
            change = halved(change, axis, offset) if shift else change
        return change


def halved(planes: Tensor, axis: int, offset: float) -> Tensor:
    """Halve an axis; ``offset`` is -0.5 (on the even samples), 0 (midway) or 0.5 (on the odd samples)."""
    side = planes.shape[axis]
    num = -(-side // 2)

    def at(first: int) -> Tensor:
        places = torch.arange(first, first + 2 * num, 2, device=planes.device).clamp_(0, side - 1)
        return planes.index_select(axis, places)

    if offset == 0.0:
        return (at(0) + at(1)) * 0.5
    middle = 0 if offset < 0 else 1
    return (at(middle - 1) + at(middle + 1)) * 0.25 + at(middle) * 0.5


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
