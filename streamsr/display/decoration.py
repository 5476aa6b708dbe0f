"""Decoration: labels, alarms, figures and help, laid over a composed picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import cv2

from streamsr.display.lettering import draw_line
from streamsr.display.overlay import ALARM_BOX, GLASS_BOX, badge_line
from streamsr.display.paint import Box, Cover, box_letters, lay_over_rgb
from streamsr.display.panel import Rows, clock, draw_panel, status_rows
from streamsr.display.panes import Pane, arrangement_of, line_px
from streamsr.display.shown import Shown
from streamsr.display.slate import spoken_age
from streamsr.display.status import LiveStatus
from streamsr.display.viewport import Picture
from streamsr.display.viewstate import Arrangement, ViewState

AMBER = (242, 174, 26)
FROZEN_BOX = Box(ink=(0.05, 0.05, 0.05), paper=(0.95, 0.68, 0.10), opacity=0.96)
PANEL_CAPITAL_SHARE, SMALLEST_PANEL_CAPITAL_PX = 0.016, 8
SLATE_ROWS, SLATE_FREE_SHARE = ("source", "recording"), 0.36
"""What the figures are reduced to on a slate, and the part of its height above what it says."""


@dataclass(frozen=True)
class Around:
    """What is laid over besides the picture's own labels.

    Attributes:
        status: of the session; its alarm shows on a frozen picture, its recording always.
        notice: what just happened, in one line.
        keys: (keys, meaning) for help.
        silent_s: seconds for which the session gave no picture, where that is too long; else 0.
    """

    status: LiveStatus = field(default_factory=LiveStatus)
    notice: str = ""
    keys: Rows = ()
    silent_s: float = 0.0


class Decoration:
    """Draws what is laid over a composed picture, in place."""

    def __init__(self, canvas: Picture, shown: Shown, state: ViewState, places: tuple[Pane, ...]) -> None:
        self.canvas, self.shown, self.state, self.places = canvas, shown, state, places
        self.height, self.width = canvas.shape[:2]
        self.capital_px = max(round(PANEL_CAPITAL_SHARE * min(self.width, self.height)), SMALLEST_PANEL_CAPITAL_PX)
        self.margin = self.capital_px

    def draw(self, now_ns: int, around: Around) -> None:
        """Draw all that the state and the session ask for."""
        self._draw_labels(badge=around.status.badge)
        top = self.margin
        if self.state.frozen:
            top = self._draw_frozen(now_ns, top)
        alarm = around.status.alarm if self.state.frozen else self.shown.alarm
        if alarm and self._badge_may_be_hidden:
            top = self._put(alarm, ALARM_BOX, self.width / 2, top, across=0.5)
        if around.silent_s:
            said = f"NO NEW PICTURE FOR {spoken_age(around.silent_s)}"
            self._put(said, ALARM_BOX, self.width / 2, top, across=0.5)
        if around.status.recording.active:
            line = f"REC {clock(around.status.recording.seconds)}"
            self._put(line, ALARM_BOX, self.width - self.margin, self.height - self.margin, across=1, down=1)
        if around.notice:
            self._put(around.notice, GLASS_BOX, self.width / 2, self.height - 4 * self.margin, across=0.5, down=1)
        if self.state.overlay:
            self._draw_panel(around.status)
        if self.state.help and around.keys:
            cover = draw_panel(around.keys, self.capital_px)
            place = (round((self.width - cover.size[0]) / 2), round((self.height - cover.size[1]) / 2))
            lay_over_rgb(self.canvas, cover, place)

    def _draw_panel(self, status: LiveStatus) -> None:
        """Draw the figures; on a slate only those that say something then, and never over what the slate says."""
        rows, most_px = status_rows(status), self.height
        if self.shown.is_slate:
            rows = tuple(row for row in rows if row[0] in SLATE_ROWS)
            most_px = round(self.places[0].top + SLATE_FREE_SHARE * self.places[0].height)
        panel = draw_panel(rows, self.capital_px)
        if not self.shown.is_slate or self.margin + panel.size[1] <= most_px:
            lay_over_rgb(self.canvas, panel, (self.margin, self.margin))

    @property
    def _badge_may_be_hidden(self) -> bool:
        """Whether the badge that is burnt into the picture may be outside of what is visible, or be of another time."""
        state = self.state
        if self.shown.is_slate:
            return state.frozen
        return state.frozen or state.zoom > 1 or state.arrangement in (Arrangement.ORIGINAL, Arrangement.SPLIT)

    def _draw_labels(self, *, badge: bool) -> None:
        """Say which version is where; the whole enlarged picture needs none, its badge says so."""
        shown, state = self.shown, self.state
        arrangement, pane = arrangement_of(shown, state), self.places[0]
        zoom = f"  zoom {state.zoom:.1f}" if state.zoom > 1 else ""
        made = self._made(self.places[-1].width, zoom, badge=badge)
        if shown.is_slate or (arrangement is Arrangement.ENLARGED and not zoom):
            return
        if arrangement is Arrangement.SPLIT:
            self._draw_line(pane, made)
            return
        if arrangement is not Arrangement.ENLARGED:
            original = "ORIGINAL" + (zoom if arrangement is Arrangement.ORIGINAL else "")
            self._label(original, pane.left + pane.width / 2, across=0.5)
        if arrangement is not Arrangement.ORIGINAL:
            self._label(made, self.places[-1].left + self.places[-1].width / 2, across=0.5)

    def _made(self, room_px: int, zoom: str, *, badge: bool) -> str:
        """Return what made the picture: in the badge's own words where zoom or the camera's half may hide the badge."""
        shown = self.shown
        short = ("ENHANCED" if shown.is_generated else "BICUBIC") + zoom
        is_hidden = zoom or arrangement_of(shown, self.state) is Arrangement.SPLIT
        if not (is_hidden and badge) or shown.original is None:
            return short
        scale = shown.picture.width // shown.original.width
        said = badge_line(scale, is_generated=shown.is_generated, reason=shown.reason) + zoom
        fits = pill(said, GLASS_BOX, self.capital_px).size[0] + 2 * self.margin <= room_px
        return said if fits else short

    def _draw_line(self, pane: Pane, made: str) -> None:
        """Draw the split line with its grip, and say what is on its sides where there is room."""
        x, radius = pane.left + line_px(pane, self.state), max(self.capital_px // 2, 4)
        top, bottom, middle = pane.top, pane.top + pane.height - 1, pane.top + pane.height // 2
        for colour, extra in (((0, 0, 0), 2), ((255, 255, 255), 0)):
            cv2.line(self.canvas, (x, top), (x, bottom), colour, 1 + extra)
            cv2.circle(self.canvas, (x, middle), radius + extra // 2, colour, -1, cv2.LINE_AA)
        right_px = pane.left + pane.width - x
        if pill(made, GLASS_BOX, self.capital_px).size[0] + 2 * self.margin > right_px:
            made = "AI-ENHANCED" if self.shown.is_generated else "BICUBIC"
        for text, across, room in (("ORIGINAL", 1.0, x - pane.left), (made, 0.0, right_px)):
            if pill(text, GLASS_BOX, self.capital_px).size[0] + 2 * self.margin <= room:
                self._label(text, x + (self.margin if across == 0 else -self.margin), across=across)

    def _label(self, text: str, x: float, *, across: float) -> None:
        pane = self.places[0]
        self._put(text, GLASS_BOX, x, pane.top + pane.height - self.margin, across=across, down=1)

    def _draw_frozen(self, now_ns: int, top: int) -> int:
        """Frame the picture and say how old it is; returns where the next line may stand."""
        wide = max(3, round(0.006 * min(self.width, self.height)))
        for pane in self.places:
            corner = (pane.left + pane.width - 1 - wide // 2, pane.top + pane.height - 1 - wide // 2)
            cv2.rectangle(self.canvas, (pane.left + wide // 2, pane.top + wide // 2), corner, AMBER, wide)
        age_s = max(now_ns - self.shown.arrived_ns, 0) / 1e9
        return self._put(f"FROZEN  {spoken_age(age_s)}", FROZEN_BOX, self.width / 2, top, across=0.5)

    def _put(self, text: str, box: Box, x: float, y: float, *, across: float, down: float = 0.0) -> int:
        """Put a pill so that the part ``(across, down)`` of it is at (x, y); returns where the next may stand below."""
        cover = pill(text, box, self.capital_px)
        left = min(max(round(x - across * cover.size[0]), 0), max(self.width - cover.size[0], 0))
        top = round(y - down * cover.size[1])
        lay_over_rgb(self.canvas, cover, (left, top))
        below: int = top + cover.size[1] + self.margin // 2
        return below


@lru_cache(maxsize=64)
def pill(text: str, box: Box, capital_px: int) -> Cover:
    """Draw one line in a box."""
    return box_letters(draw_line(text, capital_px), round(0.6 * capital_px), box)
