"""The window on a virtual screen: what stands on the screen, what keys and mouse do; and where there is no screen."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamsr.capture.testsrc import read_frame_code
from streamsr.display.commands import Command
from streamsr.display.keys import DEFAULT_KEYS
from streamsr.display.viewport import Picture
from streamsr.errors import InputError, UsageError
from streamsr.sinks import screen
from streamsr.sinks.null_view import NullView
from streamsr.sinks.screen import ScreenProbe
from streamsr.sinks.window import _Watch
from tests.live_doubles import FakeShowing, shown_endoscopy, shown_slate

SCREEN = (1280, 1024)
PATIENCE_S = 30.0
PROGRAMS = ("Xvfb", "openbox", "xdotool", "xwininfo")
has_programs = pytest.mark.skipif(not all(map(shutil.which, PROGRAMS)), reason=f"needs {', '.join(PROGRAMS)}")


def wait_until(found: Callable[[], Any], what: str) -> Any:
    """Return what a function finds, trying until it finds something."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if result := found():
            return result
        time.sleep(0.05)
    pytest.fail(f"{what} did not come about")


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    """A virtual screen with a window manager; its name."""
    reader, writer = os.pipe()
    command = [
        "Xvfb",
        "-displayfd",
        str(writer),
        "-screen",
        "0",
        "{}x{}x24".format(*SCREEN),
        "-nolisten",
        "tcp",
        "-noreset",
    ]
    with subprocess.Popen(command, pass_fds=(writer,), stderr=subprocess.DEVNULL) as server:
        os.close(writer)
        with os.fdopen(reader) as number:
            name = f":{number.readline().strip()}"
        # Without a window manager Qt leaves some windows unpainted.
        with subprocess.Popen(["openbox"], env={**os.environ, "DISPLAY": name}, stderr=subprocess.DEVNULL) as manager:
            yield name
            manager.terminate()
        server.terminate()


GRAB = """
import sys, av
options = {"video_size": sys.argv[2], "framerate": "30", "draw_mouse": "0"}
with av.open(sys.argv[1], format="x11grab", options=options) as screen:
    sys.stdout.buffer.write(next(screen.decode(video=0)).to_ndarray(format="rgb24").tobytes())
"""
"""Reads a screen in a program of its own, without OpenCV: the two bring X11 libraries that do not go together."""


def grab(display: str) -> Picture:
    """Return what stands on a screen, (height, width, 3) RGB."""
    command = [sys.executable, "-c", GRAB, display, "{}x{}".format(*SCREEN)]
    done = subprocess.run(command, capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.uint8).reshape(SCREEN[1], SCREEN[0], 3)


FACTS = ("Absolute upper-left X", "Absolute upper-left Y", "Width", "Height")


class Desk:
    """A person at the window: looks at the screen, presses keys, moves the mouse."""

    def __init__(self, display: str, program: subprocess.Popen[str]) -> None:
        self.display, self.program = display, program
        self.window = wait_until(self._find_window, "the window")

    def _find_window(self) -> str:
        return (["", *self._run("search", "--onlyvisible", "--name", "^streamsr$").split()])[-1]

    def _run(self, *words: str, program: str = "xdotool") -> str:
        environment, command = {**os.environ, "DISPLAY": self.display}, [program, *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
        return done.stdout

    def press(self, *keys: str) -> None:
        self._run("windowfocus", self.window)
        for key in keys:
            self._run("key", key)
            time.sleep(0.1)

    def drag(self, start: tuple[int, int], stop: tuple[int, int]) -> None:
        self._run("mousemove", "--window", self.window, *map(str, start))
        self._run("mousedown", "1")
        for part in (0.5, 1.0):
            point = (round(a + part * (b - a)) for a, b in zip(start, stop, strict=True))
            self._run("mousemove", "--window", self.window, *map(str, point))
            time.sleep(0.1)
        self._run("mouseup", "1")

    def close_window(self) -> None:
        self.press("alt+F4")

    def look(self) -> Picture:
        """Return the window's picture as (480, 640, 3) RGB, read back from the screen."""
        self.window = wait_until(self._find_window, "the window")
        said = self._run("-id", self.window, program="xwininfo")
        x, y, width, height = (int(re.findall(rf"{fact}: +(-?\d+)", said)[0]) for fact in FACTS)
        return np.ascontiguousarray(grab(self.display)[y : y + height, x : x + width])

    def result(self) -> dict[str, Any]:
        """Return what the session saw, when it has ended."""
        output, errors = self.program.communicate(timeout=PATIENCE_S)
        assert self.program.returncode == 0, errors
        return dict(json.loads(output.splitlines()[-1]))


@contextmanager
def at_window(display: str, pictures: str) -> Iterator[Desk]:
    command = [sys.executable, "-m", "tests.window_session", pictures]
    with subprocess.Popen(
        command,
        cwd=Path(__file__).resolve().parents[1],
        env={**os.environ, "DISPLAY": display},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        try:
            yield Desk(display, program)
        finally:
            if program.poll() is None:
                program.kill()


def code_of(picture: Picture) -> int | None:
    try:
        return read_frame_code(picture[..., 1], 2)
    except InputError:
        return None


@pytest.mark.needs_display
@has_programs
def test_pictures_on_the_screen_carry_rising_numbers_and_all_of_them_were_presented(display: str) -> None:
    with at_window(display, "numbered") as desk:
        wait_until(lambda: code_of(desk.look()) is not None, "a picture")
        seen = []
        for _ in range(4):
            seen.append(code_of(desk.look()))
            time.sleep(0.15)
        desk.press("q")
        result = desk.result()
    assert None not in seen
    assert seen == sorted(seen)
    assert seen[0] != seen[-1]
    assert result["told"] == list(range(len(result["told"])))
    assert set(seen) <= set(result["told"])


@pytest.mark.needs_display
@has_programs
def test_keys_reach_the_session_and_a_snapshot_is_of_the_frozen_picture(display: str) -> None:
    with at_window(display, "numbered") as desk:
        wait_until(lambda: code_of(desk.look()) is not None, "a picture")
        desk.press("space")
        frozen = wait_until(lambda: code_of(desk.look()), "a frozen picture")
        time.sleep(0.3)
        assert code_of(desk.look()) == frozen
        desk.press("p", "b", "r", "g", "Escape")
        result = desk.result()
    assert result["asked"] == ["snapshot", "bypass", "record", "badge", "quit"]
    assert result["snapshot_of"] == frozen
    assert max(result["told"]) == frozen


def line_at(picture: Picture) -> float | None:
    """Return where dark becomes bright in the upper part of a picture, as a part of its width; None where nowhere."""
    bright = picture[100, :, 0] > 128
    if bright.all() or not bright.any():
        return None
    return float(np.flatnonzero(np.diff(bright.astype(int)))[-1] + 1) / len(bright)


@pytest.mark.needs_display
@has_programs
def test_the_split_shows_both_versions_and_its_line_follows_the_mouse(display: str) -> None:
    with at_window(display, "two") as desk:
        wait_until(lambda: (desk.look()[100] > 128).all(), "the enlarged picture")
        desk.press("v")
        assert wait_until(lambda: line_at(desk.look()), "the split") == pytest.approx(0.5, abs=0.01)
        desk.drag((320, 300), (160, 300))
        wait_until(lambda: abs((line_at(desk.look()) or 0) - 0.25) < 0.01, "the line where the mouse let go of it")
        desk.press("q")
        desk.result()


@pytest.mark.needs_display
@has_programs
def test_a_window_that_is_closed_ends_the_session(display: str) -> None:
    with at_window(display, "two") as desk:
        desk.close_window()
        assert desk.result()["asked"] == ["quit"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere a window needs no display server")
@pytest.mark.parametrize("named", [{}, {"DISPLAY": ""}, {"DISPLAY": ":4242"}, {"DISPLAY": "no such host:0"}])
def test_where_no_display_is_reached_one_line_says_what_to_do(named: dict[str, str]) -> None:
    others = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    with pytest.raises(UsageError, match=r"expected a display, got .*--view web") as refused:
        ScreenProbe({**others, **named})
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 2


def test_an_opencv_without_windows_is_refused_before_it_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "window_framework", lambda: "")
    with pytest.raises(UsageError, match=r"headless build.*--view web"):
        ScreenProbe({"DISPLAY": ":0"})


def test_the_null_view_presents_every_picture_and_ends_with_the_session() -> None:
    showing = FakeShowing([shown_slate(number, width=64, height=48) for number in range(3)])
    NullView().run(showing)
    assert showing.told == [0, 1, 2]
    assert NullView.wants_main_thread is False


def test_a_slate_cannot_be_frozen_and_a_picture_that_was_stays_marked() -> None:
    showing = FakeShowing()
    watch = _Watch(None, showing, DEFAULT_KEYS)  # type: ignore[arg-type]
    watch.obey(Command.FREEZE)
    assert not watch.state.frozen
    watch.shown = shown_slate(0)
    watch.obey(Command.FREEZE)
    assert (watch.state.frozen, watch.held) == (False, None)
    picture = shown_endoscopy(1)[0]
    watch.shown = picture
    watch.obey(Command.FREEZE)
    watch.shown = shown_slate(1)
    assert (watch.state.frozen, watch.held) == (True, picture)
    watch.obey(Command.FREEZE)
    assert (watch.state.frozen, watch.held) == (False, None)


@pytest.mark.parametrize("module", ["streamsr.live.opening", "streamsr.api", "streamsr.sinks.recording"])
def test_opencv_is_loaded_before_pyav_whose_libraries_hang_its_windows(module: str) -> None:
    program = f"import sys, {module}; order = list(sys.modules); assert order.index('cv2') < order.index('av')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere the libraries are not shared")
def test_windows_that_would_hang_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "_is_spoiled", lambda: True)
    with pytest.raises(UsageError, match="import cv2 before av"):
        ScreenProbe({"DISPLAY": ":0"})
