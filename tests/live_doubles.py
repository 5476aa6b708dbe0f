"""Doubles of the live session's doors: a `Showing` that gives what a test puts in, and pictures to put in."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from time import monotonic_ns

import cv2
import numpy as np

from streamsr.capture.testsrc import EndoscopySource, TestSettings
from streamsr.display.commands import Command
from streamsr.display.shown import Shown
from streamsr.display.slate import blank_frame, no_signal_lines, slate
from streamsr.display.status import LiveStatus
from streamsr.frame import Colour, Frame, PlaneLayout

HD = Colour(matrix=1, full_range=False, primaries=1, transfer=1)


def random_frame(
    width: int, height: int, *, layout: PlaneLayout | None = None, colour: Colour = HD, seed: int = 0
) -> Frame:
    """Return a frame of noise between a fifth and four fifths of the peak."""
    layout, chance = layout or PlaneLayout(), np.random.default_rng(seed)
    low, high = layout.peak // 5, layout.peak * 4 // 5
    sizes = [(height, width)]
    if layout.chroma_shift is not None:
        sizes += [layout.chroma_size(width, height)[::-1]] * 2
    planes = tuple(chance.integers(low, high, size, dtype=layout.dtype) for size in sizes)
    return Frame(planes, layout, colour, 0, Fraction(1, 25), captured_ns=monotonic_ns(), arrived_ns=monotonic_ns())


def enlarged(frame: Frame, scale: int = 2) -> Frame:
    """Return a frame through bicubic; numbers drawn by the test source stay readable."""
    planes = tuple(cv2.resize(plane, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC) for plane in frame.planes)
    return frame.with_planes(planes)


def shown_endoscopy(count: int, *, width: int = 320, height: int = 240, scale: int = 2, rung: str = "") -> list[Shown]:
    """Return presentations of the rendered endoscopy, numbered in their pixels as in `Shown.number`."""
    source = EndoscopySource(TestSettings(width=width, height=height, frames=count))
    frames = [replace(source.frame(number), arrived_ns=monotonic_ns()) for number in range(count)]
    return [
        Shown(number, enlarged(frame, scale), frame, rung or f"fast-x{scale}") for number, frame in enumerate(frames)
    ]


def shown_slate(number: int, *, width: int = 640, height: int = 480, age_s: float = 3.2) -> Shown:
    """Return the presentation of a lost signal."""
    picture = slate(blank_frame(width, height), no_signal_lines(age_s))
    return Shown(number, picture, None, "slate", "no signal", "no signal")


class FakeShowing:
    """A live session as a view sees it: gives the pictures it holds, remembers what it was told.

    Args:
        pictures: given out in their order, one a call of `next`.
        pause_s: least time between two pictures; 0 gives them at once.
        keep_open: stay open after the last picture, until `end` or a QUIT.
        status: what `status` returns.

    Attributes:
        asked: commands, in their order.
        told: numbers of the pictures that were presented, in their order.
        about: the picture that the last command was about.
    """

    def __init__(
        self,
        pictures: Sequence[Shown] = (),
        *,
        pause_s: float = 0.0,
        keep_open: bool = False,
        status: LiveStatus | None = None,
    ) -> None:
        self.asked: list[Command] = []
        self.told: list[int] = []
        self.about: Shown | None = None
        self.current = status or LiveStatus()
        self._waiting, self._pause_s, self._keep_open = deque(pictures), pause_s, keep_open
        self._ended, self._changed = threading.Event(), threading.Condition()
        self._asked = threading.Condition()

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def end(self) -> None:
        """End the session."""
        with self._changed:
            self._ended.set()
            self._changed.notify_all()

    def put(self, *pictures: Shown) -> None:
        """Add pictures."""
        with self._changed:
            self._waiting.extend(pictures)
            self._changed.notify_all()

    def next(self, timeout_s: float) -> Shown | None:
        if self._pause_s and self._waiting:
            self._ended.wait(self._pause_s)
        with self._changed:
            self._changed.wait_for(lambda: bool(self._waiting) or self.ended, timeout_s)
            if self.ended or not self._waiting:
                return None
            newest = self._waiting.popleft()
            if not self._waiting and not self._keep_open:
                self._ended.set()
            return newest

    def presented(self, shown: Shown, at_ns: int | None = None) -> None:
        self.told.append(shown.number)

    def status(self) -> LiveStatus:
        return self.current

    def ask(self, command: Command, about: Shown | None = None) -> str:
        self.about = about
        with self._asked:
            self.asked.append(command)
            self._asked.notify_all()
        if command is Command.QUIT:
            self.end()
        return f"{command.value}: done"

    def wait_for(self, command: Command, timeout_s: float = 10.0) -> bool:
        """Wait until a command was asked for; returns whether it was."""
        with self._asked:
            return self._asked.wait_for(lambda: command in self.asked, timeout_s)
