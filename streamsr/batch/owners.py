"""Whether the run that claimed some work still lives, so that what a dead one left can be taken over at once."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

LEASE_S = 120.0
"""A run on another machine that gave no sign for so long counts as dead; it gives one every second or so."""


@dataclass(frozen=True)
class Owner:
    """A process that can be told from every other one.

    Attributes:
        machine: where it runs: name, boot, and the set of processes that its number belongs to.
        pid: its number.
        started: when it started, in the kernel's ticks; 0 where the system does not say.
    """

    machine: str
    pid: int
    started: int


def this_owner() -> Owner:
    """Return this process."""
    return Owner(this_machine(), os.getpid(), start_ticks(os.getpid()) or 0)


@cache
def this_machine() -> str:
    """Return a name that only processes share which can see one another."""
    parts = [platform.node()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    except OSError:
        pass
    return " ".join(parts)


def start_ticks(pid: int) -> int | None:
    """Return when a process started; None where there is no such process, 0 where the system does not say."""
    try:
        state, *fields = (
            Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        )
    except OSError:
        return None if Path("/proc/self").exists() or not _answers(pid) else 0
    return None if state in "ZX" else int(fields[18])


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def is_alive(owner: Owner, *, beat_s: float, now_s: float) -> bool:
    """Return whether a run lives.

    Args:
        owner: its process.
        beat_s: when it last gave a sign, seconds since the epoch.
        now_s: the present.
    """
    if owner.machine == this_machine():
        return start_ticks(owner.pid) == owner.started
    return now_s - beat_s < LEASE_S
