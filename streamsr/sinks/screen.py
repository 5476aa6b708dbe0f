"""Whether a window can be opened here, found out in a program of its own: Qt ends one that finds no display."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from streamsr.errors import UsageError
from streamsr.sinks.highgui import window_framework

NEXT_STEP = "use --view web, or --view none with --record"
PATIENCE_S = 20.0

SPOILED = "/av.libs/libxcb-shm"
"""Library of PyAV's wheel that Qt finds instead of its own where PyAV was loaded first."""
PROBE = """
import sys, cv2
cv2.namedWindow("streamsr")
cv2.destroyAllWindows()
print("open", flush=True)
sys.stdin.read()
"""


class ScreenProbe:
    """Opens a window in another program, and keeps that program connected to the display until it is left.

    A display server without any other client starts anew when its last one leaves, and takes a connection that is made
    meanwhile for ever; so the probe stays until the real window is there.

    Args:
        environment: that says which display; None takes the program's own.

    Raises:
        UsageError: there is no display, it cannot be reached, or this OpenCV has no windows or was loaded too late.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        self._program: subprocess.Popen[bytes] | None = None
        if not window_framework():
            raise UsageError(f"--view window: expected OpenCV with windows, got a headless build; {NEXT_STEP}")
        if not sys.platform.startswith("linux"):
            return
        if _is_spoiled():
            raise UsageError("--view window: expected OpenCV loaded before PyAV, got PyAV first; import cv2 before av")
        if not (environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY")):
            raise UsageError(f"--view window: expected a display, got none (DISPLAY is not set); {NEXT_STEP}")
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", PROBE]
        self._program = subprocess.Popen(command, env=dict(environment), stdin=pipe, stdout=pipe, stderr=pipe)
        self._wait_until_open(self._program)

    def __enter__(self) -> ScreenProbe:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the other program end."""
        self.close()

    def close(self) -> None:
        """Let the other program end; may be called again."""
        if self._program is not None:
            _end(self._program)
            self._program = None

    def _wait_until_open(self, program: subprocess.Popen[bytes]) -> None:
        assert program.stdout is not None
        heard, _, _ = select.select([program.stdout], [], [], PATIENCE_S)
        if not heard:
            _end(program)
            raise UsageError(f"--view window: expected a window within {PATIENCE_S:.0f} s, got none; {NEXT_STEP}")
        if not program.stdout.readline():
            said = _end(program)
            raise UsageError(f"--view window: expected a display, got {_first_line(said)}; {NEXT_STEP}")


def _is_spoiled() -> bool:
    """Return whether OpenCV's windows would use the X11 libraries that PyAV brings, and so hang without end."""
    return SPOILED in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")


def _end(program: subprocess.Popen[bytes]) -> bytes:
    """End a probe and return what it complained of."""
    try:
        return program.communicate(timeout=1.0)[1]
    except subprocess.TimeoutExpired:
        program.kill()
        return program.communicate()[1]


def _first_line(output: bytes) -> str:
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    return lines[0] if lines else "a window that failed"
