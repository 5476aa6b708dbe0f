"""The process that reads a live source: ``python -m streamsr.capture.reader``, started by `ProcessFeed` alone.

FFmpeg can hang for ever on a dead feed, and only a process can be ended surely. It is told what to do by lines of JSON
on one pipe and sends messages (see `streamsr.capture.wire`) on another; the end of the first is the end of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import queue
import signal
import sys
import threading
from typing import Any

PR_SET_PDEATHSIG = 1
"""Of prctl(2): the signal that this process gets when the thread that started it ends."""

LEAVE_S = 0.3
"""For the last file to be closed, and as much for the last messages."""


class Reader:
    """Opens the source when told to, one opening after another. Made, run and left in the main thread.

    Args:
        messages: descriptor to send on.
        orders: descriptor to be told on.
    """

    def __init__(self, messages: int, orders: int) -> None:
        from streamsr.capture.outlet import Outlet

        self._outlet = Outlet(messages)
        self._openings: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._keeper: Any = None
        self._delivery: Any = None
        self._folder: str | None = None
        self._learnt: Any = None
        self._orders = orders
        self._lock = threading.Lock()

    def run(self) -> None:
        """Read until told to leave; does not return."""
        threading.Thread(target=self._obey, name="streamsr-orders").start()
        self._outlet.tell("ready")
        while True:
            self._read(self._openings.get())
            gc.collect()  # PyAV's containers and tracks hold each other, and tens of MB of pictures

    def _read(self, order: dict[str, Any]) -> None:
        """Read one opening to its end, and say how it ended."""
        from streamsr.capture.addresses import Address
        from streamsr.capture.live_opening import SourceLost

        try:
            address = Address.from_json(order)
            self._prepare(address)
            again = True
            while again:
                self._receive(self._learnt or address)
                gc.collect()
                again = address.loop and address.kind in ("file", "rendered")
            if address.recurs:
                self._outlet.tell("lost", f"{address.shown}: it ended", proof=0)
            else:
                self._outlet.tell("ended", f"{address.shown}: it ended")
        except SourceLost as cause:
            self._outlet.tell("lost", str(cause), proof=cause.proof)
        except Exception as cause:  # nobody foresaw it: the other end opens the source again and says so
            self._outlet.tell("lost", f"reading failed ({type(cause).__name__})", proof=0)

    def _receive(self, address: Any) -> None:
        from streamsr.capture.reception import Reception
        from streamsr.capture.rendition import Rendition

        if address.kind == "rendered":
            Rendition(address, self._delivery, self._keeper).run()
            return
        reception = Reception(address, self._delivery, self._keeper)
        self._learnt = reception.address
        reception.run()

    def _prepare(self, address: Any) -> None:
        from streamsr.capture.delivery import Delivery
        from streamsr.capture.keeping import OriginalKeeper

        if self._keeper is not None:
            return
        self._delivery = Delivery(self._outlet, paced=address.paced)
        with self._lock:
            self._keeper = OriginalKeeper(
                self._outlet.tell, reserve_bytes=address.reserve_bytes, preroll_s=address.preroll_s
            )
            self._keeper.keep(self._folder)

    def _obey(self) -> None:
        with open(self._orders, encoding="utf-8") as orders:  # noqa: PTH123 - a descriptor
            for line in orders:
                order = json.loads(line)
                if "open" in order:
                    self._openings.put(order["open"])
                elif "keep" in order:
                    with self._lock:
                        self._folder = order["keep"]
                        if self._keeper is not None:
                            self._keeper.keep(self._folder)
                else:
                    break
        self._leave()

    def _leave(self) -> None:
        """End this process, whatever its main thread hangs in."""
        if self._keeper is not None:
            self._keeper.close(LEAVE_S)
        self._outlet.close(LEAVE_S)
        os._exit(0)


def die_with_parent() -> None:
    """Have the system end this process with the one that started it; where it cannot, the orders' end does."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Read what the other end orders; the two descriptors are the arguments."""
    # An interrupt of the terminal or its end, and what a service manager sends to a whole group, is the other end's to
    # heed: it says when to leave, so that the original is closed.
    for number in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, number):
            signal.signal(getattr(signal, number), signal.SIG_IGN)
    die_with_parent()
    sys.setswitchinterval(
        0.0005
    )  # a tenth of the usual: the outlet must not wait for Python code of the reading thread
    import av.logging

    av.logging.set_level(None)  # its lines may hold passwords
    Reader(int(sys.argv[1]), int(sys.argv[2])).run()


if __name__ == "__main__":
    main()
