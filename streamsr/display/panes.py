"""Panes: where in a window the picture is, or both versions of it, and where the split line is."""

from __future__ import annotations

from dataclasses import dataclass

from streamsr.display.shown import Shown
from streamsr.display.viewstate import Arrangement, Point, ViewState

GAP_PX = 4
"""Between the two pictures side by side."""


@dataclass(frozen=True)
class Pane:
    """Where the whole of what is visible of a picture goes in a window, in pixels."""

    left: int
    top: int
    width: int
    height: int

    def point(self, x: int, y: int) -> Point:
        """Return a place in the window as parts of the pane, within it."""
        return (
            min(max((x - self.left) / self.width, 0.0), 1.0),
            min(max((y - self.top) / self.height, 0.0), 1.0),
        )


def panes(shown: Shown, state: ViewState, size: tuple[int, int]) -> tuple[Pane, ...]:
    """Return where the picture is in a window of (width, height) pixels: one pane, or two side by side."""
    picture = shown.picture
    aspect = float(picture.width * picture.sample_aspect / picture.height)
    if arrangement_of(shown, state) is not Arrangement.SIDE_BY_SIDE:
        return (_fit(aspect, 0, *size),)
    half = max((size[0] - GAP_PX) // 2, 1)
    return (_fit(aspect, 0, half, size[1]), _fit(aspect, size[0] - half, half, size[1]))


def arrangement_of(shown: Shown, state: ViewState) -> Arrangement:
    """Return how a picture is arranged: a slate has no original and stands alone."""
    return Arrangement.ENLARGED if shown.is_slate else state.arrangement


def line_px(pane: Pane, state: ViewState) -> int:
    """Return how many pixels of a pane are left of the split line."""
    return round(state.line * pane.width)


def _fit(aspect: float, left: int, width: int, height: int) -> Pane:
    """Return the largest pane of an aspect in the middle of a part of the window."""
    wide = max(min(width, round(height * aspect)), 1)
    tall = max(min(height, round(wide / aspect)), 1)
    return Pane(left + (width - wide) // 2, (height - tall) // 2, wide, tall)
