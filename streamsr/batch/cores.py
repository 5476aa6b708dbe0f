"""Cores for processes that nobody on their machine hands out: each takes free ones and keeps them while it lives."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path
from typing import TextIO


@cache
def keep_to_cores(number: int) -> tuple[TextIO, ...]:
    """Keep this process to cores that no other process has taken by this function.

    A core is taken by locking a file, which the system frees when the process ends, however that is. Where there are
    not as many free ones, or the system cannot keep processes to cores, nothing changes.

    Args:
        number: how many cores.

    Returns:
        The locked files; they stay locked while they are open, and this function keeps them.
    """
    try:
        import fcntl
    except ImportError:
        return ()
    if not hasattr(os, "sched_setaffinity"):
        return ()
    folder = Path(tempfile.gettempdir()) / f"streamsr-cores-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    taken: list[tuple[int, TextIO]] = []
    for core in sorted(os.sched_getaffinity(0)):
        if len(taken) == number:
            break
        file: TextIO = (folder / str(core)).open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
        else:
            taken.append((core, file))
    if len(taken) < number:
        for _, file in taken:
            file.close()
        return ()
    os.sched_setaffinity(0, {core for core, _ in taken})
    import cv2

    cv2.setNumThreads(number)
    return tuple(file for _, file in taken)
