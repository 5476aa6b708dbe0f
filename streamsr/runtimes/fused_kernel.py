"""What ``fused_kernel.cu`` needs to know before it runs: its macros, its weights as fragments, the frame's tiles.

Nothing here needs a GPU or PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SOURCE = Path(__file__).with_suffix(".cu")
"""The kernel."""

FloatArray = NDArray[np.floating[Any]]
Layer = tuple[FloatArray, FloatArray]
"""Weight (outputs, inputs, 3, 3) and bias (outputs,)."""

WARP = 32
PEAK = 255
LUMA_STEPS = 256
"""Luma enters as ``level / 256``, which is exact in half precision; the first layer's weights carry the rest."""


@dataclass(frozen=True)
class Variant:
    """How the kernel divides its work; every variant computes the same.

    Attributes:
        rows: rows a layer computes between two barriers.
        phases: groups of 16 pixels that share fragments; see the kernel.
        tile_w: width of a strip with its margins, in pixels; a multiple of ``16 * phases``.
        xsplit: warps of a body layer along the row.
        nsplit: warps of a body layer over its output channels.
        half_sums: whether body layers also sum in half precision; faster, not checked on shipped weights.
    """

    rows: int
    phases: int
    tile_w: int
    xsplit: int
    nsplit: int
    half_sums: bool = False

    @property
    def name(self) -> str:
        """Return the variant in a word."""
        short = f"r{self.rows}p{self.phases}w{self.tile_w}x{self.xsplit}n{self.nsplit}"
        return short + "h" * self.half_sums


VARIANTS: dict[int, tuple[Variant, ...]] = {
    16: (
        Variant(rows=1, phases=3, tile_w=192, xsplit=2, nsplit=1),
        Variant(rows=1, phases=4, tile_w=128, xsplit=2, nsplit=1),
        Variant(rows=1, phases=2, tile_w=64, xsplit=2, nsplit=1),
    ),
    32: (
        Variant(rows=1, phases=2, tile_w=96, xsplit=1, nsplit=2),
        Variant(rows=1, phases=2, tile_w=64, xsplit=1, nsplit=2),
    ),
}
"""By the network's channels: the one that was fastest on an H200 (``benchmarks/results/fused.json``) before narrower
ones, for GPUs whose shared memory does not hold it."""


@dataclass(frozen=True)
class KernelShape:
    """One student in one variant.

    Attributes:
        channels: of the body, 16 or 32.
        depth: number of body layers.
        scale: enlargement of each side, 2 or 4.
        variant: how the work is divided.
    """

    channels: int
    depth: int
    scale: int
    variant: Variant

    @property
    def macros(self) -> dict[str, int]:
        """Return what the source expects to be defined."""
        network = {"CHANNELS": self.channels, "DEPTH": self.depth, "SCALE": self.scale}
        return network | {name.upper(): int(value) for name, value in asdict(self.variant).items()}

    @property
    def threads(self) -> int:
        """Threads of a block: the body's warps, one for the last layer, one for luma and the first layer."""
        return WARP * (self.depth * self.variant.xsplit * self.variant.nsplit + 2)

    @property
    def margin_px(self) -> int:
        """Positions on each side of a strip that are context alone."""
        return self.depth + 1

    @property
    def core_px(self) -> int:
        """Widest strip of the frame that a tile enlarges."""
        return self.variant.tile_w - 2 * self.margin_px

    @property
    def layer_lag_rows(self) -> int:
        """Rows that a layer is behind the layer before it."""
        return self.variant.rows + 1

    @property
    def lag_rows(self) -> int:
        """Rows that a tile takes longer than it is high: its context and the way through the layers."""
        return self.margin_px + self.layer_lag_rows * (self.depth + 2)

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a block: luma as words, a ring of rows for every layer, a pixel more."""
        rows, tile_w = self.variant.rows, self.variant.tile_w
        ring = self.layer_lag_rows + 1 + rows
        luma_rows = self.layer_lag_rows * self.margin_px + ring
        bank = 16 if self.variant.phases <= 2 else 1
        pitch = tile_w + 2 + (bank - tile_w - 2) % WARP
        return ceil(luma_rows * pitch * 4 / 128) * 128 + self.margin_px * ring * self.channels * tile_w * 2 + 16


def pack_fragments(matrices: FloatArray) -> NDArray[np.uint32]:
    """Return matrices as the B fragments of ``mma.m16n8k16``, two halves a word.

    Lane ``4 * g + t`` holds in word ``w`` the rows ``8 * w + 2 * t`` and ``+ 1`` (low half first) of column ``g``
    (PTX manual, "Matrix Fragments for mma.m16n8k16 with floating point type").

    Args:
        matrices: (taps, inputs, outputs), inputs a multiple of 16, outputs of 8.

    Returns:
        Words in the order tap, 16 inputs, 8 outputs, lane, word.
    """
    taps, inputs, outputs = matrices.shape
    parts = matrices.reshape(taps, inputs // 16, 2, 4, 2, outputs // 8, 8).transpose(0, 1, 5, 6, 3, 2, 4)
    return np.ascontiguousarray(parts.astype(np.float16)).reshape(-1).view(np.uint32)


def _neighbourhoods(kernels: FloatArray) -> FloatArray:
    """Return (outputs, 3, 3) kernels of luma as one (1, 16, outputs) matrix: input ``4 * dy + dx``, others zero."""
    matrix = np.zeros((1, 16, len(kernels)))
    for dy in range(3):
        matrix[0, 4 * dy : 4 * dy + 3] = kernels[:, dy].T
    return matrix


def _by_tap(weight: FloatArray) -> FloatArray:
    """Return (outputs, inputs, rows, columns) weights as (rows * columns, inputs, outputs) matrices."""
    matrices: FloatArray = weight.transpose(2, 3, 1, 0).reshape(-1, weight.shape[1], weight.shape[0])
    return matrices


def phase_columns(scale: int) -> NDArray[np.intp]:
    """Return the output column of the last layer that every channel of the pixel shuffle goes to.

    A lane then holds neighbouring samples of one enlarged row: its two columns of one tile (scale 2), or its two
    columns of both tiles (scale 4).
    """
    p, q = np.divmod(np.arange(scale**2), scale)
    columns: NDArray[np.intp] = 2 * p + q if scale == 2 else 8 * (q // 2) + 2 * p + q % 2
    return columns


def pack_network(
    layers: Sequence[Layer], skip_taps: FloatArray, shape: KernelShape
) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
    """Return a student's weights as the kernel reads them.

    Args:
        layers: weight and bias of every convolution, first to last, float32.
        skip_taps: (scale * scale, 1, 3, 3); see `streamsr.models.student.bilinear_taps`.
        shape: network and variant.

    Returns:
        Fragments (half precision in 32-bit words) and float32 biases.
    """
    columns, width = phase_columns(shape.scale), 16 if shape.scale == 4 else 8
    first, last = layers[0], layers[-1]
    words = [pack_fragments(_neighbourhoods(first[0][:, 0] * (LUMA_STEPS / PEAK)))]
    body = [_by_tap(weight) for weight, _ in layers[1:]]
    for matrices in body[:-1]:
        words += [pack_fragments(part) for part in np.split(matrices, shape.variant.nsplit, axis=2)]
    final, skip, offsets = np.zeros((*body[-1].shape[:2], width)), np.zeros((1, 16, width)), np.zeros(width)
    final[:, :, columns] = body[-1] * PEAK
    skip[:, :, columns] = _neighbourhoods(skip_taps[:, 0] * LUMA_STEPS)
    offsets[columns] = last[1] * PEAK
    words += [pack_fragments(final), pack_fragments(skip)]
    biases = np.concatenate([bias for _, bias in layers[:-1]] + [offsets])
    return np.concatenate(words), biases.astype(np.float32)


@dataclass(frozen=True)
class TilePlan:
    """How a frame is cut into tiles.

    Attributes:
        strip_px: width of a strip.
        strips: number of strips.
        segment_rows: height of a tile.
        num_tiles: strips times the segments of a strip.
        blocks: thread blocks to launch.
    """

    strip_px: int
    strips: int
    segment_rows: int
    num_tiles: int
    blocks: int


def plan_tiles(height: int, width: int, shape: KernelShape, num_multiprocessors: int) -> TilePlan:
    """Cut a frame so that the multiprocessors, one block each, are done soonest.

    A tile takes as long as its rows and about half its lag, however wide it is: while the pipeline fills and empties,
    some layers rest.

    Args:
        height: of the frame, in pixels.
        width: of the frame, in pixels.
        shape: network and variant.
        num_multiprocessors: of the GPU.
    """
    fewest, best, soonest = ceil(width / shape.core_px), None, float("inf")
    for strips in range(fewest, fewest + 4):
        strip_px = min(ceil(ceil(width / strips) / 8) * 8, shape.core_px)
        num_strips = ceil(width / strip_px)
        for waves in range(1, 4):
            segment_rows = ceil(height / max(num_multiprocessors * waves // num_strips, 1))
            num_tiles = num_strips * ceil(height / segment_rows)
            time_rows = ceil(num_tiles / num_multiprocessors) * (segment_rows + shape.lag_rows / 2)
            if time_rows < soonest:
                soonest = time_rows
                best = TilePlan(strip_px, num_strips, segment_rows, num_tiles, min(num_tiles, num_multiprocessors))
    assert best is not None
    return best
