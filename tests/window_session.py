"""A session with a window, run as a program of its own: Qt takes the program down with the display that it lost.

Prints one JSON object at the end: numbers of the pictures that were presented, commands that were asked for, and the
number of the picture that the last snapshot was about.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace

import cv2  # noqa: F401 (before PyAV, whose X11 libraries hang the windows of an OpenCV that is loaded after it)
import numpy as np

from streamsr.capture.testsrc import EndoscopySource, TestSettings
from streamsr.display.commands import Command
from streamsr.display.shown import Shown
from streamsr.display.slate import blank_frame
from streamsr.frame import PlaneLayout
from streamsr.sinks.window import WindowView
from tests.live_doubles import FakeShowing, enlarged

RATE = 25.0
LONGEST = 1000
"""Pictures after which a session ends that nobody quits: 40 s."""


def numbered() -> Iterator[Shown]:
    """Give pictures that carry their numbers, as the test source draws them."""
    source = EndoscopySource(TestSettings(width=320, height=240, frames=LONGEST))
    for number in range(LONGEST):
        frame = source.frame(number)
        yield Shown(number, enlarged(frame), frame, "fast-x2")


def two_versions() -> Iterator[Shown]:
    """Give pictures whose original is dark and whose enlargement is bright."""
    like = blank_frame(320, 240, PlaneLayout(None))
    dark = like.with_planes((np.full((240, 320), 60, np.uint8),))
    bright = like.with_planes((np.full((480, 640), 200, np.uint8),))
    for number in range(LONGEST):
        yield Shown(number, bright, dark, "fast-x2")


class Session(FakeShowing):
    """Makes pictures when they are asked for."""

    def __init__(self, pictures: Iterator[Shown]) -> None:
        super().__init__(pause_s=1 / RATE, keep_open=True)
        self._pictures = pictures
        self.snapshot_of: int | None = None

    def next(self, timeout_s: float) -> Shown | None:
        picture = next(self._pictures, None)
        if picture is None:
            self.end()
            return None
        self.put(replace(picture))
        return super().next(timeout_s)

    def ask(self, command: Command, about: Shown | None = None) -> str:
        if command is Command.SNAPSHOT:
            self.snapshot_of = about.number if about else None
        return super().ask(command, about)


def main() -> None:
    session = Session({"numbered": numbered, "two": two_versions}[sys.argv[1]]())
    WindowView().run(session)
    asked = [command.value for command in session.asked]
    print(json.dumps({"told": session.told, "asked": asked, "snapshot_of": session.snapshot_of}))


if __name__ == "__main__":
    main()
