"""The process that does tasks: ``python -m streamsr.batch.worker``, started by `streamsr.batch.local` alone.

It is told tasks over one connection and answers on it. It ends when the run does, however that ends: the system kills
it with its parent, and where the system cannot, telling the progress of a task fails and ends it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from multiprocessing.connection import Connection

PR_SET_PDEATHSIG = 1
"""Of prctl(2): the signal that this process gets when the thread that started it ends."""

TELL_INTERVAL_S = 0.25


def main(arguments: list[str]) -> None:
    """Do tasks until the connection ends.

    Args:
        arguments: descriptor of the connection, and the cores to keep to, separated by commas.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's interrupt is the run's to answer
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    cores = {int(core) for core in arguments[1].split(",") if core}
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)  # before any library counts its threads
    connection = Connection(int(arguments[0]))
    import cv2

    cv2.setNumThreads(max(len(cores), 1))
    from streamsr.batch.perform import perform
    from streamsr.job import JobProgress

    connection.send(("ready", None))
    while True:
        try:
            task = connection.recv()
        except (EOFError, OSError):
            return
        told_s = [0.0]

        def tell(progress: JobProgress, told_s: list[float] = told_s) -> None:
            if time.monotonic() - told_s[0] >= TELL_INTERVAL_S:
                told_s[0] = time.monotonic()
                connection.send(("told", progress))

        connection.send(("ended", perform(task, tell)))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (BrokenPipeError, ConnectionResetError):
        sys.exit(1)  # the run is gone
