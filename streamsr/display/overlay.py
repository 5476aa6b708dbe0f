"""What is burnt into the picture itself, for every view and the recording alike: the badge that says who made it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from streamsr.display.lettering import SMALLEST_CAPITAL_PX, draw_lines, wrap
from streamsr.display.paint import WHITE, Box, Cover, Stamp, box_letters, lay_over, make_stamp
from streamsr.display.shown import BYPASS
from streamsr.frame import Colour, Frame, Plane, PlaneLayout
from streamsr.surround import black_level

GLASS_BOX = Box(ink=WHITE, paper=(0.08, 0.08, 0.08), opacity=0.72)
"""Its paper has no colour, so that on the surround no chroma plane changes and none is copied."""

ALARM_BOX = Box(ink=WHITE, paper=(0.78, 0.06, 0.08), opacity=0.94)

CAPITAL_SHARE = 0.019
"""Height of a capital over the shorter side: 21 lines in 1080, which is 3.7 mm on a 27 inch screen."""

READABLE_CAPITAL_PX = 8
WIDEST_SHARE = 0.42
"""Part of the picture's width above which text is broken between words."""

SPECKS = 0.002
"""Part of a place that may be brighter than black: what lossy codecs leave; a single letter is more."""

PATIENCE = 50
"""Frames for which a place must have been lost before the badge moves: 2 s at 25 frames a second."""

Place = tuple[float, float]
"""Where a box is within the room that it has: (0, 0) is the top left corner, (1, 1) the bottom right."""

CORNERS: tuple[Place, ...] = ((1.0, 0.0), (1.0, 1.0), (0.0, 0.0), (0.0, 1.0))
"""The top right first: patient data stands at the left on most devices."""

SIDES: tuple[Place, ...] = tuple(
    place
    for step in (1, 7, 2, 6, 3, 5, 4)
    for place in ((1.0, step / 8), (0.0, step / 8), (step / 8, 0.0), (step / 8, 1.0))
)
TOP_RIGHT = CORNERS[0]


def badge_line(scale: int, *, is_generated: bool, reason: str) -> str:
    """Return what the badge says of a picture.

    Args:
        scale: it was enlarged by.
        is_generated: whether a learned generator did it.
        reason: why not; see `Shown.reason`.
    """
    if is_generated:
        return badge_text(scale)
    if reason == BYPASS:
        return "BYPASS - camera picture"
    return f"BICUBIC x{scale}" + (f" - {reason}" if reason else "")


def badge_text(scale: int) -> str:
    """Return what the badge says of a picture that a generator enlarged ``scale`` times."""
    return f"AI-ENHANCED x{scale} - research use"


class BadgePlace:
    """Chooses where in the black surround a badge stands, and stays there. Owned by one thread.

    A place is black at first sight, or the badge stands in the top right corner. It moves only when something lay below
    it in `PATIENCE` frames, without as many black ones on end between them: burnt-in figures that change leave their
    place black now and then. It moves to a corner that was black in as many frames on end; where none was, to a place
    at the side that is black at the beginning and at the end of as many.
    """

    def __init__(self) -> None:
        self._chosen: Place | None = None
        self._next: Place | None = None
        self._lost = self._number = 0
        self._lit: dict[Place, int] = {}

    def choose(self, frame: Frame, width: int, height: int) -> tuple[int, int]:
        """Return where a box goes.

        Args:
            frame: before it is burnt.
            width: of the box in pixels.
            height: of the box in pixels.

        Returns:
            (x, y) of its top left corner in pixels, even.
        """
        room = _Room(frame, width, height)
        if self._chosen is None:
            self._chosen = room.find() or TOP_RIGHT
        self._number += 1
        self._lit |= {place: self._number for place in {*CORNERS, self._chosen} if not room.is_black(place)}
        if self._lit.get(self._chosen) == self._number:
            self._lost += 1
        elif self._rested(self._chosen):
            self._lost = 0
        if self._lost >= PATIENCE:
            self._move(room)
        return room.at(self._chosen)

    def _rested(self, corner: Place) -> bool:
        """Return whether nothing was in a corner, or below the badge, for a while."""
        return self._number - self._lit.get(corner, 0) >= PATIENCE

    def _move(self, room: _Room) -> None:
        free = next((corner for corner in CORNERS if self._rested(corner)), None)
        if free is None and self._next and room.is_black(self._next):
            free = self._next
        if free is None:
            self._next = room.find(SIDES)
        else:
            self._chosen, self._next = free, None
        self._lost = 0


class _Room:
    """The places of a box in a frame."""

    def __init__(self, frame: Frame, width: int, height: int) -> None:
        self.luma: Plane = frame.planes[0]
        self.black = black_level(full_range=frame.colour.full_range, bit_depth=frame.layout.bit_depth)
        self.width, self.height = width, height
        self.margin = round(min(frame.width, frame.height) * 0.0125)

    def at(self, place: Place) -> tuple[int, int]:
        """Return (x, y) of a place in pixels, even."""
        tall, wide = self.luma.shape
        free = (wide - self.width - 2 * self.margin, tall - self.height - 2 * self.margin)
        x, y = (max(self.margin + part * side, 0.0) for part, side in zip(place, free, strict=True))
        return (2 * int(x / 2), 2 * int(y / 2))

    def is_black(self, place: Place) -> bool:
        """Return whether nothing but surround lies below the box."""
        x, y = self.at(place)
        below = self.luma[y : y + self.height, x : x + self.width]
        return bool(np.count_nonzero(below > self.black) <= SPECKS * below.size)

    def find(self, places: tuple[Place, ...] = (*CORNERS, *SIDES)) -> Place | None:
        """Return the first black place; None where there is none."""
        return next((place for place in places if self.is_black(place)), None)


def burn_badge(frame: Frame, text: str, *, alarm: bool = False, place: BadgePlace | None = None) -> Frame:
    """Return a frame with a badge burnt in.

    Args:
        frame: of any layout, depth, range and matrix; its planes are not written to, and shared where unchanged.
        text: in one line; `` - `` and long text break it.
        alarm: white on red, for what a person must notice; else white on dark glass.
        place: where the surround is, kept from frame to frame; None takes the top right corner.
    """
    badge = _Badge(text, alarm, frame.width, frame.height, frame.layout, frame.colour)
    stamp, (width, height) = _stamp_of(badge)
    where = place.choose(frame, width, height) if place else _Room(frame, width, height).at(TOP_RIGHT)
    return lay_over(frame, stamp, where)


@dataclass(frozen=True)
class _Badge:
    """All that a badge's stamp depends on."""

    text: str
    alarm: bool
    width: int
    height: int
    layout: PlaneLayout
    colour: Colour


@lru_cache(maxsize=16)
def _stamp_of(badge: _Badge) -> tuple[Stamp, tuple[int, int]]:
    """Return a badge's stamp and its (width, height) in pixels."""
    cover = draw_badge(badge.text, badge.width, badge.height, alarm=badge.alarm)
    return make_stamp(cover, badge.layout, badge.colour), cover.size


def draw_badge(text: str, width: int, height: int, *, alarm: bool) -> Cover:
    """Draw a badge for pictures of a size; where the picture is too small for it, in smaller letters."""
    capital_px = max(READABLE_CAPITAL_PX, round(min(width, height) * CAPITAL_SHARE))
    while True:
        lines = draw_lines(wrap(text, capital_px, round(WIDEST_SHARE * width)), capital_px)
        padding = round(0.7 * capital_px)
        tall, wide = lines.shape[0] + padding, lines.shape[1] + 2 * padding
        if capital_px <= SMALLEST_CAPITAL_PX or (wide <= width and tall <= height):
            return box_letters(lines, padding, ALARM_BOX if alarm else GLASS_BOX)
        capital_px -= 1
