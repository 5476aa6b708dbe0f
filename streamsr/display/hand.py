"""The hand: what dragging and turning the wheel of a mouse do to a view's state."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from streamsr.display.panes import Pane, line_px
from streamsr.display.viewstate import ZOOM_STEP, Arrangement, Point, ViewState

REACH_PX = 14
"""How near to the split line one may take hold of it."""


class MouseAct(Enum):
    """What was done with the mouse; only its left button counts."""

    PRESS = "press"
    MOVE = "move"
    RELEASE = "release"
    WHEEL = "wheel"


@dataclass(frozen=True)
class MouseEvent:
    """One thing done with the mouse.

    Attributes:
        act: what.
        x: where, in pixels of the view.
        y: where, in pixels of the view.
        notches: by which the wheel was turned, positive away from the person.
    """

    act: MouseAct
    x: int
    y: int
    notches: float = 0.0


class Hand:
    """Drags the split line, pans and zooms. Owned by the view's thread."""

    def __init__(self) -> None:
        self._line = False
        self._held: Point | None = None

    def apply(self, event: MouseEvent, state: ViewState, places: tuple[Pane, ...]) -> ViewState:
        """Return the state after an event.

        Args:
            event: what was done.
            state: before it.
            places: where the picture is, as `compose.panes` says.
        """
        pane = self._pane_at(event, places)
        if event.act is MouseAct.WHEEL:
            factor: float = ZOOM_STEP**event.notches
            return state.zoomed(factor, _in_picture(pane.point(event.x, event.y), state))
        if event.act is MouseAct.PRESS:
            self._take_hold(event, state, pane)
        elif event.act is MouseAct.RELEASE:
            self._line, self._held = False, None
        elif self._line:
            return state.with_line((event.x - pane.left) / pane.width)
        elif self._held is not None:
            return self._pan(event, state, pane)
        return state

    def _take_hold(self, event: MouseEvent, state: ViewState, pane: Pane) -> None:
        near = abs(event.x - pane.left - line_px(pane, state)) <= REACH_PX
        self._line = near and state.arrangement is Arrangement.SPLIT
        self._held = None if self._line else _in_picture(pane.point(event.x, event.y), state)

    def _pan(self, event: MouseEvent, state: ViewState, pane: Pane) -> ViewState:
        """Keep the point that was taken hold of under the mouse."""
        assert self._held is not None
        under = _in_picture(pane.point(event.x, event.y), state)
        x, y = (middle + held - now for middle, held, now in zip(state.centre, self._held, under, strict=True))
        return state.centred((x, y))

    @staticmethod
    def _pane_at(event: MouseEvent, places: tuple[Pane, ...]) -> Pane:
        return next((pane for pane in places if event.x < pane.left + pane.width), places[-1])


def _in_picture(point: Point, state: ViewState) -> Point:
    """Return a point of what is visible as a point of the whole picture."""
    left, top, right, bottom = state.visible
    return (left + point[0] * (right - left), top + point[1] * (bottom - top))
