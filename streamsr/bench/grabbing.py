"""The program that looks at an X screen: ``python -m streamsr.bench.grabbing DISPLAY``, started by `ScreenObserver`.

It is a program of its own because PyAV and OpenCV each bring a libxcb, and two of them in one program crash. It is told
by lines of ``left top side`` where the number stands, ends with the end of these, and says what it sees in lines of
``nanoseconds number``, on the clock of `time.monotonic_ns`, which all programs of one machine share. ``number`` is -1
where there is none. Lines of ``every nanoseconds`` tell how often it looks.
"""

from __future__ import annotations

import select
import sys
import time
from collections import deque
from typing import Any, BinaryIO, TextIO

import av
import numpy as np

from streamsr.bench.sightings import read_corner, usual_interval_ms
from streamsr.frame import Plane

LOOKS_A_SECOND = 250
"""Of a square of some hundred pixels: under a tenth of a core."""

TELL_EVERY = 250
"""Looks between two lines that tell how often it looks."""

Place = tuple[int, int, int]
"""Left, top and side, in pixels of the screen, of the square that holds the number."""


class Grabber:
    """Looks at one square of a screen.

    Args:
        display: of the X server.
        orders: where to look, a line each, unbuffered; its end is the end.
        told: where sightings go.
    """

    def __init__(self, display: str, orders: BinaryIO, told: TextIO) -> None:
        self._display, self._orders, self._told = display, orders, told
        self._last: Plane | None = None
        self._times_ns: deque[int] = deque(maxlen=TELL_EVERY)
        self._num_looks = 0

    def run(self) -> None:
        """Look until there are no more orders."""
        order = self._orders.readline()
        while order.strip():
            left, top, side = (int(word) for word in order.split())
            order = self._look((left, top, side))

    def _look(self, place: Place) -> bytes:
        """Look at one place until there is another order; return it, empty at their end."""
        left, top, side = place
        options = {"grab_x": str(left), "grab_y": str(top), "video_size": f"{side}x{side}", "draw_mouse": "0"}
        with av.open(self._display, format="x11grab", options={**options, "framerate": str(LOOKS_A_SECOND)}) as screen:
            for picture in screen.decode(video=0):
                self._note(green_of(picture), time.monotonic_ns())
                if select.select([self._orders], [], [], 0)[0]:
                    return self._orders.readline()
        return b""

    def _note(self, corner: Plane, now_ns: int) -> None:
        """Say what is seen where it differs from the last look."""
        self._times_ns.append(now_ns)
        self._num_looks += 1
        if self._num_looks % TELL_EVERY == 0:
            self._say(f"every {round(usual_interval_ms(list(self._times_ns)) * 1e6)}")
        if self._last is None or not np.array_equal(self._last, corner):
            self._last = corner
            number = read_corner(corner)
            self._say(f"{now_ns} {-1 if number is None else number}")

    def _say(self, line: str) -> None:
        self._told.write(f"{line}\n")
        self._told.flush()


def green_of(picture: Any) -> Plane:
    """Return the green samples of a grabbed picture of four bytes a pixel, (H, W) uint8, a copy."""
    plane = picture.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(picture.height, plane.line_size)
    green: Plane = rows[:, 1 : 4 * picture.width : 4].copy()
    return green


def main() -> int:
    """Look at the display that is named; 1 where it cannot be grabbed."""
    try:
        with open(0, "rb", buffering=0, closefd=False) as orders:
            Grabber(sys.argv[1], orders, sys.stdout).run()
    except av.error.FFmpegError as cause:
        sys.stderr.write(f"display {sys.argv[1]}: cannot be grabbed ({cause.strerror})\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
