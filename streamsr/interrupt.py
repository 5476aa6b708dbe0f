"""Interrupts of the command line: the first closes the file and names what is kept, a later one ends at once."""

from __future__ import annotations

import atexit
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from streamsr.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
"""What asks a program to end; the last one comes when its terminal is closed or a remote session is lost."""

GRACE_S = 1.0
"""Seconds in which a further interrupt counts as part of the first: shells and schedulers often send two at once."""


class Ears:
    """What was heard of interrupts.

    Attributes:
        heard: whether there was one. What the body raises after it may be the interrupt under another name: where it
            hits the making of a class, Python turns it into a RuntimeError.
    """

    heard: bool = False


@contextmanager
def heeding_interrupts() -> Iterator[Ears]:
    """Turn the first of `SIGNALS` in the body into a KeyboardInterrupt, and a later one into an end with 130.

    What the program was told to ignore stays ignored (a shell does that to what it starts in the background). Outside
    the main thread nothing changes, since only that thread may set handlers.
    """
    ears = Ears()
    if threading.current_thread() is not threading.main_thread():
        yield ears
        return
    first_s: list[float] = []

    def heed(number: int, frame: FrameType | None) -> None:
        if not first_s:
            first_s.append(time.monotonic())
            ears.heard = True
            atexit.register(_close_ears)
            raise KeyboardInterrupt
        if time.monotonic() - first_s[0] > GRACE_S:
            os._exit(Interrupted.exit_code)  # the hidden draft stays; waiting for anything could hang

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, heed)
    try:
        yield ears
    finally:
        # After an interrupt the program is about to end with its own exit code, which a late one must not take away.
        if not first_s:
            for number, handler in before.items():
                signal.signal(number, handler)


def _close_ears() -> None:
    """Ignore signals while the interpreter ends: before it is gone it gives handled ones their deadly meaning back."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
