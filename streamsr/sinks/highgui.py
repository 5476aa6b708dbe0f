"""A window of OpenCV's HighGUI: shows pictures, gives keys and the mouse."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2

from streamsr.display.hand import MouseAct, MouseEvent
from streamsr.display.keys import key_name
from streamsr.display.viewport import Picture

ZOOMS_BY_ITSELF = "QT"
"""The framework whose windows enlarge what they show when the wheel turns, and shrink it when it turns back.

Nothing switches that off, and a window opened anew sometimes stays black; so the wheel is left to it.
"""

FONTS = "QT_QPA_FONTDIR"
NOTCH = 120
"""What HighGUI reports for one notch of a wheel, in the upper 16 bits of the flags."""

_ACTS = {
    cv2.EVENT_LBUTTONDOWN: MouseAct.PRESS,
    cv2.EVENT_MOUSEMOVE: MouseAct.MOVE,
    cv2.EVENT_LBUTTONUP: MouseAct.RELEASE,
    cv2.EVENT_MOUSEWHEEL: MouseAct.WHEEL,
}


def window_framework() -> str:
    """Return what OpenCV's windows are made with: ``QT``, ``GTK3``, ``WIN32``, ...; empty where it has none."""
    return str(cv2.currentUIFramework())


class HighGuiWindow:
    """One window, as a context manager. Used by the main thread alone.

    Args:
        title: also its name; one window a program may have it.
        size: (width, height) of the picture in pixels, to begin with.

    Attributes:
        size: (width, height) of the picture now.
        closed: whether the person closed it.
    """

    def __init__(self, title: str, size: tuple[int, int]) -> None:
        self.title, self.size, self.closed = title, size, False
        self._full_screen = False
        self._events: list[MouseEvent] = []
        self._zooms_by_itself = window_framework().startswith(ZOOMS_BY_ITSELF)

    def __enter__(self) -> HighGuiWindow:
        """Open it."""
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        if self._is_there():
            cv2.destroyWindow(self.title)
            cv2.waitKeyEx(1)

    def show(self, picture: Picture) -> None:
        """Take a picture, (H, W, 3) uint8 RGB; it is on the screen after `poll`."""
        cv2.imshow(self.title, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

    def poll(self) -> str:
        """Paint, read the keyboard and the mouse for about a millisecond.

        Returns:
            The name of the key that was pressed; empty where none was.
        """
        name = key_name(cv2.waitKeyEx(1))
        if not self._is_there():
            self.closed = True
            return name
        self.size = self._rect()[2:]
        return name

    def mouse(self) -> list[MouseEvent]:
        """Return what was done with the mouse since the last call."""
        events, self._events = self._events, []
        return events

    def resize(self, width: int, height: int) -> None:
        """Give the picture another size, unless it fills the screen."""
        if not self._full_screen:
            cv2.resizeWindow(self.title, width, height)
            self.size = (width, height)

    def set_full_screen(self, full_screen: bool) -> None:
        """Fill the screen, or stop doing so."""
        self._full_screen = full_screen
        cv2.setWindowProperty(
            self.title, cv2.WND_PROP_FULLSCREEN, cv2.WINDOW_FULLSCREEN if full_screen else cv2.WINDOW_NORMAL
        )

    def _open(self) -> None:
        if not Path(os.environ.get(FONTS, "")).is_dir():
            # OpenCV's wheel names a folder for fonts that it lacks, and Qt complains of that at every window.
            os.environ[FONTS] = str(Path(cv2.__file__).parent)
        cv2.namedWindow(self.title, cv2.WINDOW_NORMAL | cv2.WINDOW_FREERATIO | cv2.WINDOW_GUI_NORMAL)
        cv2.resizeWindow(self.title, *self.size)
        cv2.setMouseCallback(self.title, self._on_mouse)

    def _is_there(self) -> bool:
        """Return whether the window is still open; Qt answers that with an error when its last one was closed."""
        try:
            return bool(cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) >= 1)
        except cv2.error:
            return False

    def _rect(self) -> tuple[int, int, int, int]:
        x, y, width, height = cv2.getWindowImageRect(self.title)
        return x, y, max(width, 1), max(height, 1)

    def _on_mouse(self, kind: int, x: int, y: int, flags: int, _: Any) -> None:
        act = _ACTS.get(kind)
        if act is None or (act is MouseAct.WHEEL and self._zooms_by_itself):
            return
        notches = (flags >> 16) / NOTCH if act is MouseAct.WHEEL else 0.0
        self._events.append(MouseEvent(act, x, y, notches))
