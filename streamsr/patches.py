"""PatchGrid: the integer geometry of patches, and the two steps it gives: cut and stitch.

A frame is tiled by cores; round each core lies a window, the core and a halo of context, which is what the generator
sees. All windows of a frame have one size, so that they form one batch, and a window that would leave the frame is
shifted back inside instead of being padded. A window therefore either ends where the frame ends, and there the
network's own zero padding is the whole frame's zero padding, or lies at least a halo away from its core: with a halo
of at least the network's receptive radius the stitched picture equals the whole-frame picture.

    >>> import numpy as np
    >>> plane = np.arange(15, dtype=np.uint8).reshape(3, 5)
    >>> grid = PatchGrid(5, 3, scale=1, halo_px=1, core_px=2)
    >>> grid.rows, grid.columns, grid.window_size
    (2, 3, (4, 3))
    >>> patches = cut_patches(plane, grid, range(grid.num))
    >>> patches.shape
    (6, 1, 3, 4)
    >>> patches[1, 0]
    array([[ 1,  2,  3,  4],
           [ 6,  7,  8,  9],
           [11, 12, 13, 14]], dtype=uint8)
    >>> again = np.zeros_like(plane)
    >>> stitch_patches(patches, grid, range(grid.num), again)
    >>> bool((again == plane).all())
    True
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamsr.errors import UsageError

Samples = NDArray[Any]
Box = tuple[slice, slice]


@dataclass(frozen=True)
class Span:
    """One core along one axis, in input pixels.

    Attributes:
        core: start and stop of the core.
        window: start and stop of its window.
    """

    core: tuple[int, int]
    window: tuple[int, int]

    def core_slice(self, scale: int) -> slice:
        """Return where the enlarged core lies in the enlarged picture."""
        return slice(scale * self.core[0], scale * self.core[1])

    def inner_slice(self, scale: int) -> slice:
        """Return where the enlarged core lies in the enlarged window."""
        start = self.window[0]
        return slice(scale * (self.core[0] - start), scale * (self.core[1] - start))


def spans_of(side: int, core_px: int, halo_px: int) -> tuple[Span, ...]:
    """Tile one axis.

    Args:
        side: length of the axis in pixels.
        core_px: length of a core; the last may be shorter.
        halo_px: context on either side.

    Returns:
        The spans in order; their cores tile the axis, their windows are all ``min(core_px + 2 * halo_px, side)`` long.
    """
    window = min(core_px + 2 * halo_px, side)
    spans = []
    for start in range(0, side, core_px):
        first = max(0, min(start - halo_px, side - window))
        spans.append(Span((start, min(start + core_px, side)), (first, first + window)))
    return tuple(spans)


@dataclass(frozen=True)
class PatchGrid:
    """How a frame is cut into patches; patches are numbered row by row from the top left.

    Attributes:
        width: of the frame in pixels.
        height: of the frame in pixels.
        scale: enlargement of each side.
        halo_px: context on each side of a core.
        core_px: side of a core; those of the last row and column may be smaller.

    Raises:
        UsageError: a size that cannot be.
    """

    width: int
    height: int
    scale: int
    halo_px: int
    core_px: int = 32

    def __post_init__(self) -> None:
        if min(self.width, self.height, self.scale, self.core_px) < 1 or self.halo_px < 0:
            raise UsageError(
                "expected a patch grid with sides, scale and patch of at least 1 and a halo of at least 0, got "
                f"{self.width}x{self.height}, scale {self.scale}, patch {self.core_px}, halo {self.halo_px}; "
                "correct --patch or --halo"
            )

    @cached_property
    def column_spans(self) -> tuple[Span, ...]:
        """The spans along a row."""
        return spans_of(self.width, self.core_px, self.halo_px)

    @cached_property
    def row_spans(self) -> tuple[Span, ...]:
        """The spans along a column."""
        return spans_of(self.height, self.core_px, self.halo_px)

    @property
    def columns(self) -> int:
        """Patches in a row."""
        return len(self.column_spans)

    @property
    def rows(self) -> int:
        """Rows of patches."""
        return len(self.row_spans)

    @property
    def num(self) -> int:
        """Patches in a frame."""
        return self.rows * self.columns

    @property
    def window_size(self) -> tuple[int, int]:
        """(width, height) of every window in pixels."""
        return (
            min(self.core_px + 2 * self.halo_px, self.width),
            min(self.core_px + 2 * self.halo_px, self.height),
        )

    @cached_property
    def windows(self) -> tuple[Box, ...]:
        """(rows, columns) of every window in the frame."""
        return tuple((slice(*row.window), slice(*column.window)) for row, column in self._spans)

    @cached_property
    def inners(self) -> tuple[Box, ...]:
        """(rows, columns) of every enlarged core in its enlarged window."""
        scale = self.scale
        return tuple((row.inner_slice(scale), column.inner_slice(scale)) for row, column in self._spans)

    @cached_property
    def targets(self) -> tuple[Box, ...]:
        """(rows, columns) of every enlarged core in the enlarged picture."""
        scale = self.scale
        return tuple((row.core_slice(scale), column.core_slice(scale)) for row, column in self._spans)

    @property
    def _spans(self) -> list[tuple[Span, Span]]:
        return [(row, column) for row in self.row_spans for column in self.column_spans]


def cut_patches(picture: Samples, grid: PatchGrid, indices: Sequence[int], out: Samples | None = None) -> Samples:
    """Copy the windows of some patches into one batch; see the module for a worked example.

    Args:
        picture: (H, W) or (C, H, W), any dtype; rows may be strided.
        grid: the geometry, of the picture's size.
        indices: N numbers of patches.
        out: (at least N, C, window height, window width) of the same dtype to write into; allocated when None.

    Returns:
        (N, C, window height, window width), the first N of ``out``; what follows them in ``out`` is left as it was.

    Raises:
        UsageError: the picture is not of the grid's size.
    """
    if picture.shape[-2:] != (grid.height, grid.width):
        raise UsageError(f"expected a picture of {grid.width}x{grid.height}, got {picture.shape}; make a new PatchGrid")
    channels = 1 if picture.ndim == 2 else picture.shape[0]
    if out is None:
        width, height = grid.window_size
        out = np.empty((len(indices), channels, height, width), picture.dtype)
    windows = grid.windows
    for place, index in enumerate(indices):
        rows, columns = windows[index]
        out[place] = picture[..., rows, columns]
    return out[: len(indices)]


def stitch_patches(outputs: Samples, grid: PatchGrid, indices: Sequence[int], picture: Samples) -> None:
    """Write the enlarged cores of some patches into the enlarged picture; the inverse of `cut_patches` at scale 1.

    Args:
        outputs: (at least N, C, scale * window height, scale * window width), the generator's output.
        grid: the geometry that `cut_patches` was given.
        indices: N numbers of patches, as `cut_patches` was given.
        picture: (scale * H, scale * W) or (C, scale * H, scale * W), same dtype; only the cores are written.

    Raises:
        UsageError: the outputs or the picture are not of the grid's enlarged size.
    """
    scale, (width, height) = grid.scale, grid.window_size
    if picture.shape[-2:] != (scale * grid.height, scale * grid.width):
        raise UsageError(
            f"expected a picture of {scale * grid.width}x{scale * grid.height}, got {picture.shape}; "
            "enlarge it by the grid's scale"
        )
    if outputs.shape[-2:] != (scale * height, scale * width):
        raise UsageError(
            f"expected outputs of {scale * width}x{scale * height}, got {outputs.shape}; "
            "run a generator of the grid's scale"
        )
    target = picture[None] if picture.ndim == 2 else picture
    inners, targets = grid.inners, grid.targets
    for place, index in enumerate(indices):
        rows, columns = targets[index]
        inner_rows, inner_columns = inners[index]
        target[:, rows, columns] = outputs[place, :, inner_rows, inner_columns]
