"""The rectangle of patches that holds all that needs the generator, and how few of these a video is launched in.

Compiled runtimes prepare every input shape once, so a region that was prepared is used again before a smaller one is
made.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamsr.patches import PatchGrid
from streamsr.surround import Mask

MAX_REGIONS = 4
"""Shapes of regions an upscaler launches in its life; a video's surround seldom changes, and each is compiled."""

PATIENCE = 50
"""Frames, about two seconds, for which a smaller region must have done before it is prepared."""

SHRINKS_BY = 0.2
"""How much smaller, as a part, a region must be to be worth preparing."""


@dataclass(frozen=True)
class Region:
    """A rectangle of patches: rows and columns of the routing grid, start and stop."""

    rows: tuple[int, int]
    columns: tuple[int, int]

    @property
    def num_patches(self) -> int:
        """Patches in it."""
        return (self.rows[1] - self.rows[0]) * (self.columns[1] - self.columns[0])

    def holds(self, other: Region) -> bool:
        """Whether another region lies in this one."""
        return (
            self.rows[0] <= other.rows[0]
            and self.rows[1] >= other.rows[1]
            and self.columns[0] <= other.columns[0]
            and self.columns[1] >= other.columns[1]
        )

    def joined(self, other: Region) -> Region:
        """Return the smallest region that holds both."""
        return Region(
            (min(self.rows[0], other.rows[0]), max(self.rows[1], other.rows[1])),
            (min(self.columns[0], other.columns[0]), max(self.columns[1], other.columns[1])),
        )

    def core(self, grid: PatchGrid) -> tuple[slice, slice]:
        """Return the (rows, columns) of its cores in the frame."""
        rows, columns = grid.row_spans, grid.column_spans
        return (
            slice(rows[self.rows[0]].core[0], rows[self.rows[1] - 1].core[1]),
            slice(columns[self.columns[0]].core[0], columns[self.columns[1] - 1].core[1]),
        )

    def window(self, grid: PatchGrid, halo_px: int) -> tuple[slice, slice]:
        """Return the (rows, columns) of its cores and their halo in the frame."""
        rows, columns = self.core(grid)
        return (
            slice(max(rows.start - halo_px, 0), min(rows.stop + halo_px, grid.height)),
            slice(max(columns.start - halo_px, 0), min(columns.stop + halo_px, grid.width)),
        )

    def mask(self, grid: PatchGrid) -> Mask:
        """Return the (rows, columns) mask of its patches."""
        mask: Mask = np.zeros((grid.rows, grid.columns), np.bool_)
        mask[slice(*self.rows), slice(*self.columns)] = True
        return mask


def region_of(mask: Mask) -> Region:
    """Return the smallest region that holds a mask that is set somewhere."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return Region((int(rows[0]), int(rows[-1]) + 1), (int(columns[0]), int(columns[-1]) + 1))


class Regions:
    """The few regions that the frames of one size are launched in.

    A region that was launched before is prepared, so the smallest of these that will do is taken, or else the whole
    frame. What the first frame needs is a region; another is added when one smaller by `SHRINKS_BY` would have done
    for `PATIENCE` frames, until there are `MAX_REGIONS`.

    Args:
        grid: the routing grid.
    """

    def __init__(self, grid: PatchGrid) -> None:
        self.whole = Region((0, grid.rows), (0, grid.columns))
        self.known: list[Region] = []
        self._recent: Region | None = None
        self._num_loose = 0
        self._patience = 1

    def cover(self, mask: Mask) -> Region:
        """Return the region to launch for the patches that need the generator, at least one."""
        needed = region_of(mask)
        fitting = [region for region in (*self.known, self.whole) if region.holds(needed)]
        best = min(fitting, key=lambda region: region.num_patches)
        self._watch(needed, best)
        if len(self.known) < MAX_REGIONS and self._recent is not None and self._num_loose >= self._patience:
            best = self._recent
            self._add(best)
        self._patience = PATIENCE
        return best

    def _add(self, region: Region) -> None:
        """Know a region, and start watching anew."""
        self.known.append(region)
        self._recent, self._num_loose = None, 0

    def _watch(self, needed: Region, best: Region) -> None:
        """Count for how many frames a smaller region than the best would have done."""
        self._recent = needed if self._recent is None else self._recent.joined(needed)
        if self._recent.num_patches > (1 - SHRINKS_BY) * best.num_patches:
            self._recent, self._num_loose = None, 0
        else:
            self._num_loose += 1
