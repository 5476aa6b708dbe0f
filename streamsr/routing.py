"""Which patches are worth the generator: not the black surround, and not what has not changed.

Only two things are skipped. A patch whose window (core and halo) holds the same bits as in the previous frame shows
the previous output, which is exact. A patch of the black surround, the mask round an endoscope's circular or
octagonal picture, is enlarged by bicubic interpolation. To count as surround, every sample of a patch's window must
be as dark as black, and the patch must touch the frame's border or another such patch that does: the dark lumen in the
middle of the picture, which is where one looks, is never skipped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamsr.errors import UsageError
from streamsr.patches import PatchGrid, Samples
from streamsr.surround import Mask, any_in_windows, find_surround, over_channels


@dataclass(frozen=True)
class RoutingCount:
    """Where patches went; adding two counts adds their parts.

    Attributes:
        total: patches.
        surround: those that were enlarged by bicubic interpolation, or kept from the previous frame so.
        unchanged: those whose output was the previous frame's, bit for bit, but for what the consistency projection
            changes at their border where the patch beside them changed.
        generated: all others; the generator made them.
        launched: patches that the generator really computed: ``generated``, and those that lay in the same launch.
    """

    total: int = 0
    surround: int = 0
    unchanged: int = 0
    generated: int = 0
    launched: int = 0

    @property
    def skipped(self) -> int:
        """Patches that the generator was spared."""
        return self.total - self.launched

    def __add__(self, other: RoutingCount) -> RoutingCount:
        return RoutingCount(
            self.total + other.total,
            self.surround + other.surround,
            self.unchanged + other.unchanged,
            self.generated + other.generated,
            self.launched + other.launched,
        )


@dataclass(frozen=True)
class Routing:
    """Where the patches of one frame go; every mask is (rows, columns) of the grid, and the first three tile it.

    Attributes:
        generate: needs the generator.
        surround: is black surround.
        unchanged: is neither, and shows the previous output.
        refill: the part of ``surround`` that the previous output does not show already.
    """

    generate: Mask
    surround: Mask
    unchanged: Mask
    refill: Mask

    def count(self, launched: Mask) -> RoutingCount:
        """Return the count of this frame, given the (rows, columns) mask of the patches that were launched."""
        parts = (self.surround, self.unchanged, self.generate, launched)
        return RoutingCount(self.generate.size, *(int(np.count_nonzero(part)) for part in parts))


class Router:
    """Routes the patches of frames of one size that follow each other. Owned by one thread.

    Args:
        grid: the geometry; its window is the context that must be black or unchanged.
        black: the largest sample that counts as black surround; None to look for no surround.
        reuse_unchanged: whether to look for patches that did not change.
    """

    def __init__(self, grid: PatchGrid, *, black: float | None, reuse_unchanged: bool = True) -> None:
        self.grid, self.black, self.reuse_unchanged = grid, black, reuse_unchanged
        self._previous: Samples | None = None
        self._filled: Mask = np.zeros((grid.rows, grid.columns), np.bool_)

    def reset(self) -> None:
        """Forget the previous frame; the next one reuses nothing."""
        self._previous = None

    def route(self, picture: Samples) -> Routing:
        """Route the patches of the next frame.

        Args:
            picture: (H, W) or (C, H, W), any dtype; kept until the next call, so it must not be written to.

        Raises:
            UsageError: the picture is not of the grid's size.
        """
        grid = self.grid
        if picture.shape[-2:] != (grid.height, grid.width):
            raise UsageError(
                f"expected a picture of {grid.width}x{grid.height}, got {picture.shape}; make a new Router"
            )
        everywhere: Mask = np.ones((grid.rows, grid.columns), np.bool_)
        surround = ~everywhere if self.black is None else find_surround(picture, grid, self.black)
        changed = everywhere
        if self._previous is not None and self.reuse_unchanged:
            changed = any_in_windows(over_channels(picture != self._previous), grid)
        fresh = changed | (surround != self._filled)
        self._previous, self._filled = picture, surround
        return Routing(fresh & ~surround, surround, ~fresh & ~surround, fresh & surround)
