"""The reader's way out: a thread that sends messages, so that reading a source never waits for who shows it."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from typing import Any

from streamsr.capture.forms import head_of_frame
from streamsr.capture.wire import Sending
from streamsr.frame import Frame, Plane

AT_ONCE_S = 0.004
"""How long the thread that reads may wait for room in the pipe: a picture of 1080p is three times what it holds."""

LONG_S = 0.25
"""How long the outlet's own thread waits for room before it looks round."""

Letter = tuple[dict[str, Any], tuple[Plane, ...]]


class Outlet:
    """Sends messages in order, of waiting pictures only the newest.

    A picture that comes while another still waits takes its place: this is where frames are dropped when the other end
    is slow. Every picture has its number, so the other end counts what it did not get.

    Whoever brings a message sends it at once where the pipe has room, since the next picture's decoding would keep
    another thread from running for its whole length; the outlet's own thread sends what is left.

    Args:
        descriptor: of the pipe; made non-blocking. When it breaks, this program is about to end anyway.
    """

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._letters: deque[Letter] = deque()
        self._begun: Sending | None = None
        self._changed = threading.Condition()
        self._is_sending = self._closing = self._broken = False
        self._thread = threading.Thread(target=self._serve, name="streamsr-outlet")
        self._thread.start()

    def tell(self, kind: str, text: str = "", **more: Any) -> None:
        """Send what happened."""
        self._put(({"kind": kind, "text": text, "at_ns": time.monotonic_ns(), **more}, ()))

    def give(self, frame: Frame, **more: Any) -> None:
        """Send a frame, in place of one that still waits."""
        self._put(({"kind": "frame", **head_of_frame(frame), **more}, frame.planes))

    def close(self, timeout_s: float) -> None:
        """Send what waits, as far as the time goes."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)

    def _put(self, letter: Letter) -> None:
        with self._changed:
            if letter[1]:
                self._letters = deque(other for other in self._letters if not other[1])
            self._letters.append(letter)
            if self._is_sending:
                return
            self._is_sending = True
        self._send(time.monotonic() + AT_ONCE_S)

    def _send(self, until_s: float) -> None:
        """Send all that waits, or what can be sent until then; only one thread at a time is here."""
        while self._next():
            try:
                complete = self._begun is None or self._begun.advance(
                    self._descriptor, max(0.0, until_s - time.monotonic())
                )
            except OSError:
                self._broken = complete = True
            if not complete:
                break
            self._begun = None
        with self._changed:
            self._is_sending = False
            self._changed.notify_all()

    def _next(self) -> bool:
        """Take the next message if none is begun; return whether there is one."""
        with self._changed:
            if self._begun is None and self._letters:
                self._begun = Sending(*self._letters.popleft())
            return self._begun is not None and not self._broken

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._is_sending and (self._has_more or self._closing))
                if not self._has_more:
                    return
                self._is_sending = True
            self._send(time.monotonic() + LONG_S)

    @property
    def _has_more(self) -> bool:
        return not self._broken and (self._begun is not None or bool(self._letters))
