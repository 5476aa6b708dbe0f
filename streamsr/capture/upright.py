"""Turn pictures upright: read the display matrix, turn planes, siting and sample aspect with it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsr.frame import Plane, PlaneLayout, Siting

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

_ONE = 1 << 16


@dataclass(frozen=True)
class Turn:
    """One of the eight ways to lay a rectangle on the pixel grid.

    A picture is first mirrored along its main diagonal where ``swap`` says so, then its rows and columns are reversed.

    Attributes:
        swap: exchange rows and columns.
        flip_x: reverse every row.
        flip_y: reverse every column.
    """

    swap: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @property
    def is_identity(self) -> bool:
        """Whether nothing moves."""
        return not (self.swap or self.flip_x or self.flip_y)

    @property
    def degrees(self) -> int:
        """The turn in degrees counterclockwise (a mirrored picture counts as if it were not)."""
        if self.swap:
            return 90 if self.flip_y else 270
        return 180 if self.flip_x and self.flip_y else 0

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return the (width, height) that a picture has after the turn."""
        return (height, width) if self.swap else (width, height)

    def aspect(self, sample_aspect: Fraction) -> Fraction:
        """Return the sample aspect after the turn."""
        return 1 / sample_aspect if self.swap and sample_aspect else sample_aspect

    def layout(self, layout: PlaneLayout) -> PlaneLayout:
        """Return the layout after the turn: 4:2:2 becomes 4:4:0 where rows and columns change places."""
        if not self.swap or layout.chroma_shift is None:
            return layout
        return PlaneLayout((layout.chroma_shift[1], layout.chroma_shift[0]), layout.bit_depth)

    def plane(self, plane: Plane) -> Plane:
        """Turn one plane into a new C-contiguous one; the identity returns the plane itself."""
        if self.is_identity:
            return plane
        turned = plane.T if self.swap else plane
        rows = slice(None, None, -1 if self.flip_y else 1)
        columns = slice(None, None, -1 if self.flip_x else 1)
        return np.ascontiguousarray(turned[rows, columns])

    def siting(self, siting: Siting, layout: PlaneLayout, *, width: int, height: int) -> Siting:
        """Return the chroma siting after the turn.

        A flip along a subsampled side of odd length also moves the block grid: the last chroma sample covered one pixel
        and becomes the first. A sample that lay on the first pixel of its block then does so again; one that lay in the
        middle lies a pixel off, which has no name, and is given the nearest (half a luma pixel away).

        Args:
            siting: before the turn.
            layout: before the turn.
            width: before the turn, in pixels.
            height: before the turn, in pixels.
        """
        if layout.chroma_shift is None:
            return siting
        (x, y), shift, size = siting.value, layout.chroma_shift, (width, height)
        if self.swap:
            (x, y), shift, size = (y, x), shift[::-1], size[::-1]
        x = _flip(x, subsampled=bool(shift[0]), odd=bool(size[0] % 2)) if self.flip_x else x
        y = _flip(y, subsampled=bool(shift[1]), odd=bool(size[1] % 2)) if self.flip_y else y
        return Siting((x, y))


def read_turn(frame: VideoFrame) -> Turn | None:
    """Read the display matrix of a decoded picture.

    Returns:
        The turn that makes it upright, the identity where it has no display matrix; None where the matrix asks for an
        angle that is no multiple of 90 degrees.
    """
    side_data: Any = frame.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return Turn()
    return turn_of_matrix(tuple(int(value) for value in np.frombuffer(side_data, np.int32)[:5]))


def turn_of_matrix(matrix: tuple[int, ...]) -> Turn | None:
    """Return the turn of a display matrix, or None for other angles.

    ISO/IEC 14496-12, 8.2.2: (x, y) is shown at (a x + c y, b x + d y), with a, b at places 0, 1 and c, d at 3, 4 of the
    matrix, in 16.16 fixed point; x goes right, y down.
    """
    a, b, _, c, d = (round(value / _ONE) if abs(value) >= _ONE // 2 else 0 for value in matrix)
    if abs(a) == abs(d) == 1 and b == c == 0 and _is_exact(matrix):
        return Turn(False, flip_x=a < 0, flip_y=d < 0)
    if abs(b) == abs(c) == 1 and a == d == 0 and _is_exact(matrix):
        return Turn(True, flip_x=c < 0, flip_y=b < 0)
    return None


def _is_exact(matrix: tuple[int, ...]) -> bool:
    """Return whether every entry is within a degree's sine of -1, 0 or 1."""
    return all(min(abs(abs(value) - _ONE), abs(value)) < _ONE // 57 for value in (*matrix[:2], *matrix[3:5]))


def _flip(offset: float, *, subsampled: bool, odd: bool) -> float:
    return max(-offset - 1, -0.5) if subsampled and odd else -offset
