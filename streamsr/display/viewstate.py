"""ViewState: how one view shows the pictures, as one frozen value that commands and the mouse make a new one from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from streamsr.display.commands import Command

LARGEST_ZOOM, ZOOM_STEP = 16.0, 1.25
LINE_STEP = 0.02
"""Part of the view's width by which a key moves the split line."""

PAN_STEP = 0.1
"""Part of what is visible by which a key pans."""

Point = tuple[float, float]
"""(x, y) as parts of the picture's width and height, from its top left corner."""


class Arrangement(Enum):
    """Which version of the picture is where."""

    ENLARGED = "enlarged"
    ORIGINAL = "original"
    SIDE_BY_SIDE = "side by side"
    SPLIT = "split"


_ARRANGEMENT = {
    Command.ORIGINAL: Arrangement.ORIGINAL,
    Command.SIDE_BY_SIDE: Arrangement.SIDE_BY_SIDE,
    Command.SPLIT: Arrangement.SPLIT,
}
_LINE = {Command.SPLIT_LEFT: -LINE_STEP, Command.SPLIT_RIGHT: LINE_STEP}
_ZOOM = {Command.ZOOM_IN: ZOOM_STEP, Command.ZOOM_OUT: 1 / ZOOM_STEP}
_PAN = {
    Command.PAN_LEFT: (-PAN_STEP, 0.0),
    Command.PAN_RIGHT: (PAN_STEP, 0.0),
    Command.PAN_UP: (0.0, -PAN_STEP),
    Command.PAN_DOWN: (0.0, PAN_STEP),
}
_SWITCH = {
    Command.FREEZE: "frozen",
    Command.OVERLAY: "overlay",
    Command.FULL_SCREEN: "full_screen",
    Command.HELP: "help",
}


@dataclass(frozen=True)
class ViewState:
    """How a view shows the pictures. Zoom and pan hold for both versions, so that they always show the same place.

    Attributes:
        arrangement: which version is where.
        line: where the split line is, as a part of the view's width; the original is left of it.
        zoom: 1 shows the whole picture.
        centre: the point in the middle of the view; what is visible never leaves the picture.
        frozen: whether the picture is held.
        overlay: whether latency and state are laid over.
        help: whether the keys are laid over.
        full_screen: whether the window fills the screen.
    """

    arrangement: Arrangement = Arrangement.ENLARGED
    line: float = 0.5
    zoom: float = 1.0
    centre: Point = (0.5, 0.5)
    frozen: bool = False
    overlay: bool = False
    help: bool = False
    full_screen: bool = False

    @property
    def visible(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) of what is visible, as parts of the picture."""
        half = 0.5 / self.zoom
        x, y = self.centre
        return (x - half, y - half, x + half, y + half)

    def after(self, command: Command) -> ViewState:
        """Return the state after a command; those of the session change nothing here.

        Panning sideways moves the split line where there is nothing to pan, so that arrows do what is expected.
        """
        if command in _ARRANGEMENT:
            wanted = _ARRANGEMENT[command]
            return replace(self, arrangement=Arrangement.ENLARGED if self.arrangement is wanted else wanted)
        if command in _LINE:
            return self.with_line(self.line + _LINE[command])
        if command in _ZOOM:
            return self.zoomed(_ZOOM[command], self.centre)
        if command in _PAN:
            return self._after_pan(*_PAN[command])
        if command is Command.ZOOM_FIT:
            return replace(self, zoom=1.0, centre=(0.5, 0.5))
        if command in _SWITCH:
            switched: dict[str, Any] = {_SWITCH[command]: not getattr(self, _SWITCH[command])}
            return replace(self, **switched)
        return self

    def with_line(self, line: float) -> ViewState:
        """Return the state with the split line elsewhere, within the view."""
        return replace(self, line=min(max(line, 0.0), 1.0))

    def zoomed(self, factor: float, at: Point) -> ViewState:
        """Return the state enlarged by a factor, the point ``at`` staying where it is as far as the edges allow."""
        zoom = min(max(self.zoom * factor, 1.0), LARGEST_ZOOM)
        if abs(zoom - 1.0) < 0.01:
            return replace(self, zoom=1.0, centre=(0.5, 0.5))
        share = self.zoom / zoom
        x, y = (there + (middle - there) * share for there, middle in zip(at, self.centre, strict=True))
        return replace(self, zoom=zoom).centred((x, y))

    def centred(self, centre: Point) -> ViewState:
        """Return the state with another point in the middle, as near as the edges allow."""
        half = 0.5 / self.zoom
        x, y = (min(max(part, half), 1.0 - half) for part in centre)
        return replace(self, centre=(x, y))

    def _after_pan(self, across: float, down: float) -> ViewState:
        if self.zoom == 1.0 and self.arrangement is Arrangement.SPLIT:
            return self.with_line(self.line + across * LINE_STEP / PAN_STEP)
        x, y = self.centre
        return self.centred((x + across / self.zoom, y + down / self.zoom))
