"""The black surround: the mask round an endoscope's circular or octagonal picture; what counts as it, and its filling.

To count, every sample of a patch and its halo must be as dark as black, and the patch must touch the frame's border or
another such patch that does: the dark lumen in the middle of the picture, where one looks, is never taken for it.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from streamsr.patches import PatchGrid, Samples

Mask = NDArray[np.bool_]
Box = tuple[tuple[int, int], tuple[int, int]]

FILL_MARGIN_PX = 2
"""What bicubic interpolation reads on each side of what it enlarges."""

BLACK_8BIT = 16
"""Luma of black in limited range at 8 bits (Rec. ITU-R BT.709-6, item 4.6); 0 in full range."""

BLACK_TOLERANCE_8BIT = 4
"""Levels above black, at 8 bits, that still count as black: what lossy codecs leave of a black mask."""


def black_level(*, full_range: bool, bit_depth: int) -> int:
    """Return the largest luma sample that still counts as black surround."""
    level = BLACK_TOLERANCE_8BIT + (0 if full_range else BLACK_8BIT)
    return ((level + 1) << (bit_depth - 8)) - 1


def over_channels(mask: Mask) -> Mask:
    """Return whether any channel of a (C, H, W) mask is set, as (H, W)."""
    if mask.ndim == 2 or len(mask) == 1:
        return mask.reshape(mask.shape[-2:])
    joined: Mask = np.logical_or.reduce(mask, axis=0)
    return joined


def any_in_windows(mask: Mask, grid: PatchGrid) -> Mask:
    """Return whether any sample of each window is set.

    Args:
        mask: (H, W).
        grid: the geometry.

    Returns:
        (rows, columns).
    """
    bands: Mask = np.empty((grid.rows, grid.width), np.bool_)
    for band, row in zip(bands, grid.row_spans, strict=True):
        np.logical_or.reduce(mask[slice(*row.window)], axis=0, out=band)
    found: Mask = np.empty((grid.rows, grid.columns), np.bool_)
    for place, column in enumerate(grid.column_spans):
        np.logical_or.reduce(bands[:, slice(*column.window)], axis=1, out=found[:, place])
    return found


def find_surround(picture: Samples, grid: PatchGrid, black: float) -> Mask:
    """Return which patches are black surround.

    Args:
        picture: (H, W) or (C, H, W).
        grid: the geometry.
        black: the largest sample that counts as black.

    Returns:
        (rows, columns): patches whose window is black and that are joined to the border by such patches, side by side.
    """
    dark = ~any_in_windows(over_channels(picture > black), grid)
    return joined_to_border(dark)


def joined_to_border(mask: Mask) -> Mask:
    """Return the part of a mask that is joined to its border, over sides and not corners.

    It grows by one patch a round, and a surround is seldom more than a few patches deep.
    """
    reached: Mask = mask.copy()
    reached[1:-1, 1:-1] = False
    while True:
        grown: Mask = reached.copy()
        grown[1:] |= reached[:-1]
        grown[:-1] |= reached[1:]
        grown[:, 1:] |= reached[:, :-1]
        grown[:, :-1] |= reached[:, 1:]
        grown &= mask
        if np.array_equal(grown, reached):
            return reached
        reached = grown


def fill(picture: Samples, grid: PatchGrid, mask: Mask, enlarged: Samples) -> None:
    """Enlarge some patches by bicubic interpolation; the result does not depend on which others are enlarged.

    Args:
        picture: (C, H, W) uint8, uint16 or float32.
        grid: the geometry.
        mask: (rows, columns): the patches.
        enlarged: (C, scale * H, scale * W), same dtype; only the patches' cores are written.
    """
    rows, columns = grid.row_spans, grid.column_spans
    for (first_row, last_row), (first, last) in boxes_of(mask):
        tall = (rows[first_row].core[0], rows[last_row - 1].core[1])
        wide = (columns[first].core[0], columns[last - 1].core[1])
        _fill_box(picture, grid.scale, (tall, wide), enlarged)


def boxes_of(mask: Mask) -> Iterator[Box]:
    """Give rectangles that tile a mask: its runs along rows, those of following rows joined where they are equal.

    Yields:
        ((row, row), (column, column)), start and stop, of a rectangle, in patches.
    """
    open_runs: dict[tuple[int, int], int] = {}
    for row in range(len(mask) + 1):
        runs = runs_of(mask[row]) if row < len(mask) else set()
        for run in set(open_runs) - runs:
            yield (open_runs.pop(run), row), run
        for run in runs - set(open_runs):
            open_runs[run] = row


def runs_of(line: Mask) -> set[tuple[int, int]]:
    """Return the start and stop of every run of True."""
    if not line.any():
        return set()
    edges = np.flatnonzero(np.diff(line.view(np.int8), prepend=0, append=0)).tolist()
    return set(zip(edges[::2], edges[1::2], strict=True))


def _fill_box(picture: Samples, scale: int, box: Box, enlarged: Samples) -> None:
    """Enlarge a box, given as start and stop of its rows and columns, with what interpolation reads round it."""
    (top, bottom), (left, right) = box
    above, before = max(top - FILL_MARGIN_PX, 0), max(left - FILL_MARGIN_PX, 0)
    source = picture[:, above : bottom + FILL_MARGIN_PX, before : right + FILL_MARGIN_PX]
    size = (scale * source.shape[2], scale * source.shape[1])
    inner = (
        slice(scale * (top - above), scale * (bottom - above)),
        slice(scale * (left - before), scale * (right - before)),
    )
    for plane, target in zip(source, enlarged, strict=True):
        made = cv2.resize(plane, size, interpolation=cv2.INTER_CUBIC)
        target[scale * top : scale * bottom, scale * left : scale * right] = made[inner]
