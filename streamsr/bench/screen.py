"""Look at the window on an X screen, the user's own or a virtual one."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType

import cv2

from streamsr.bench.grabbing import Place
from streamsr.bench.observing import MOST_LOOKS
from streamsr.bench.sightings import Stamp
from streamsr.capture.framecode import SMALLEST_PX
from streamsr.display.panes import panes
from streamsr.display.shown import Shown
from streamsr.display.viewstate import ViewState
from streamsr.errors import InputError, UsageError
from streamsr.sinks.window import TITLE, WindowView
from streamsr.worker import Line, Worker

PLACE_EVERY = 10
"""Pictures between two questions where the window is: it may be moved, and it takes a moment to be placed."""

SCREEN_PX = (1920, 1200)
"""Of a virtual screen: larger than the window makes itself."""

START_S, LEAVE_S = 20.0, 2.0


class ScreenObserver:
    """Reads numbers from the screen on which the window is; only the corner that holds them is grabbed.

    Args:
        display: of the X server, such as ``:0``.

    Raises:
        UsageError: this PyAV cannot grab the screen.
    """

    seen_at = "on the screen"
    clock_error_ms = 0.0

    def __init__(self, display: str) -> None:
        require_grabbing()
        self.view = WindowView()
        self._display = display
        self._stamps: list[Stamp] = []
        self._num_unreadable = 0
        self._every_ns = 0
        self._place: Place | None = None
        self._num_presented = 0
        self._line = Line()
        self._worker = Worker("screen", self._line, self._hear, lambda: None)

    @property
    def is_ready(self) -> bool:
        """Whether a number was seen on the screen, or grabbing failed, which `__exit__` raises."""
        return bool(self._stamps) or self._line.failure is not None

    def presented(self, shown: Shown, at_ns: int) -> None:
        """Ask now and then where the window is, which only the window's own thread may."""
        if shown.original is None:
            return
        if self._num_presented % PLACE_EVERY == 0:
            self._look_at(place_of(shown, cv2.getWindowImageRect(TITLE)))
        self._num_presented += 1

    def sightings(self) -> tuple[list[Stamp], int]:
        """Return what was seen."""
        return self._stamps, self._num_unreadable

    def interval_ms(self) -> float:
        """Return the usual time between two looks."""
        return self._every_ns / 1e6

    def __enter__(self) -> ScreenObserver:
        """Start the program that looks."""
        command = [sys.executable, "-m", "streamsr.bench.grabbing", self._display]
        pipe = subprocess.PIPE
        self._program = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        self._worker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Look no more.

        Raises:
            InputError: the screen could not be grabbed.
        """
        assert self._program.stdin is not None
        with suppress(OSError):
            self._program.stdin.close()
        if not self._worker.join(LEAVE_S):
            self._program.kill()
            self._worker.join()
        if self._line.failure is not None and kind is None:
            raise self._line.failure

    def _look_at(self, place: Place) -> None:
        if place != self._place and self._program.stdin is not None:
            self._place = place
            with suppress(OSError):  # a program that has ended says so in `_hear`
                self._program.stdin.write("{} {} {}\n".format(*place))
                self._program.stdin.flush()

    def _hear(self) -> None:
        """Take in what the other program sees, until it ends."""
        program = self._program
        assert program.stdout is not None
        assert program.stderr is not None
        for line in program.stdout:
            first, second = line.split()
            if first == "every":
                self._every_ns = int(second)
            elif int(second) < 0:
                self._num_unreadable += 1
            elif len(self._stamps) < MOST_LOOKS:
                self._stamps.append(Stamp(int(second), int(first)))
        said = program.stderr.read().strip().splitlines()
        if program.wait():
            raise InputError(f"{said[-1] if said else 'grabbing failed'}; keep the window wholly on the screen")


def place_of(shown: Shown, window: tuple[int, int, int, int]) -> Place:
    """Return where on the screen the number of a picture stands.

    Args:
        shown: a camera picture, alone in the window.
        window: left, top, width and height of the window's inside on the screen.
    """
    assert shown.original is not None
    left, top, width, height = window
    pane = panes(shown, ViewState(), (max(width, 1), max(height, 1)))[0]
    side = max(2, round(SMALLEST_PX * pane.height / shown.original.height))
    return left + pane.left, top + pane.top + pane.height - side, side


def require_grabbing() -> None:
    """Check that this PyAV can grab an X screen.

    Raises:
        UsageError: it cannot.
    """
    from av.format import ContainerFormat

    try:
        ContainerFormat("x11grab", "r")
    except ValueError as cause:
        raise UsageError("expected PyAV with x11grab, got one without; only Linux wheels have it") from cause


@contextmanager
def virtual_screen() -> Iterator[str]:
    """Run an Xvfb and give the name of its display.

    Raises:
        UsageError: there is none, or it does not start.
    """
    if shutil.which("Xvfb") is None:
        raise UsageError("expected a display or Xvfb, found neither; set DISPLAY or install xvfb")
    reader, writer = os.pipe()
    command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", "{}x{}x24".format(*SCREEN_PX)]
    command += ["-nolisten", "tcp", "-noreset"]
    with (
        os.fdopen(reader) as told,
        subprocess.Popen(command, pass_fds=(writer,), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server,
    ):
        os.close(writer)
        try:
            number = read_line(told.fileno(), START_S)
            if not number:
                raise UsageError(f"expected Xvfb to start within {START_S:.0f} s, it did not; set DISPLAY")
            yield f":{number}"
        finally:
            server.terminate()


def read_line(descriptor: int, timeout_s: float) -> str:
    """Read a line from a pipe; what came of it where no more comes in time."""
    deadline, got = time.monotonic() + timeout_s, b""
    while not got.endswith(b"\n"):
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not select.select([descriptor], [], [], left_s)[0]:
            break
        more = os.read(descriptor, 64)
        if not more:
            break
        got += more
    return got.decode().strip()
