"""The other end of the reader's pipes: start it, tell it what to do, hear it, and end it surely."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import streamsr
from streamsr.capture.wire import Message, WireReader, widen

ROOT = str(Path(streamsr.__file__).resolve().parents[1])

LEAVE_S = 0.7
"""For a reader to close the file it keeps; what it flushed before plays either way."""


class ReaderProcess:
    """One process that reads. Owned by one thread, whose end also ends the process.

    Args:
        takes_input: give it this program's standard input.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, *, takes_input: bool) -> None:
        incoming, messages = os.pipe()
        orders, self._orders = os.pipe()
        widen(messages)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "streamsr.capture.reader", str(messages), str(orders)],
                stdin=None if takes_input else subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # FFmpeg's lines may hold passwords
                pass_fds=(messages, orders),
                env=_environment(),
            )
        except BaseException:
            os.close(incoming)
            os.close(self._orders)
            raise
        finally:
            os.close(messages)
            os.close(orders)
        self._incoming = incoming
        self._wire = WireReader(incoming)
        self.is_ready = False

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def tell(self, **order: Any) -> None:
        """Tell it what to do; one that is no longer there is noticed by `read`."""
        with contextlib.suppress(OSError):
            os.write(self._orders, json.dumps(order).encode() + b"\n")

    def read(self, timeout_s: float) -> Message | None:
        """Read its next message; None where none came in time.

        Raises:
            EOFError: it ended.
            WireError: what came is no message.
        """
        message = self._wire.read(timeout_s)
        if message is not None and message.head.get("kind") == "ready":
            self.is_ready = True
        return message

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(LEAVE_S)  # one that a driver holds is left to the system
        for descriptor in (self._incoming, self._orders):
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def how_it_ended(self) -> str:
        """Say how a process that ended by itself did."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(LEAVE_S)
        code = self._process.returncode
        return f"its reader was ended by signal {-code}" if code is not None and code < 0 else "its reader ended"


def _environment() -> dict[str, str]:
    """Return an environment in which this very package is found, and nothing in the working folder is."""
    paths = [ROOT, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}
