"""Measuring in turn: every candidate once a round, so that what disturbs the machine disturbs them alike."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass
class Timings:
    """What the rounds took.

    Attributes:
        walls_ms: a call, one entry a round.
        cpus_ms: processor time of this whole program during the call, all threads together.
    """

    walls_ms: list[float] = field(default_factory=list)
    cpus_ms: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        """Return median and spread in milliseconds: wall p10, p50, p90 and CPU p50."""
        p10, p50, p90 = (round(float(value), 3) for value in np.percentile(self.walls_ms, (10, 50, 90)))
        return {"p10_ms": p10, "p50_ms": p50, "p90_ms": p90, "cpu_p50_ms": round(float(np.median(self.cpus_ms)), 3)}


def cpu_seconds() -> float:
    """Return the processor time of this program so far, all threads, to the microsecond."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def others_seconds() -> float:
    """Return the processor time that the rest of the machine has used so far, stolen time included; 0 if unknown."""
    try:
        ticks = [int(value) for value in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return 0.0
    user, nice, system, _, _, irq, soft_irq, steal = ticks
    return (user + nice + system + irq + soft_irq + steal) / os.sysconf("SC_CLK_TCK") - cpu_seconds()


def in_turn(
    candidates: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    budget_s: float,
    least: int = 1,
    settle: bool = False,
) -> dict[str, Timings]:
    """Call every candidate once a round, each round beginning with another, so that none always follows the same one.

    Args:
        candidates: by name; each has been called before, so that nothing is prepared any more.
        rounds: at most.
        budget_s: no round starts after so many seconds, but for the first ones.
        least: rounds that run whatever they take.
        settle: call each twice and time the second: the threads of the one before may still be waiting busily.
    """
    timings = {name: Timings() for name in candidates}
    started_s = time.perf_counter()
    for done in range(rounds):
        if done >= least and time.perf_counter() - started_s > budget_s:
            break
        first = done % max(1, len(candidates))
        for name, call in (*list(candidates.items())[first:], *list(candidates.items())[:first]):
            if settle:
                call()
            wall_ns, cpu_s = time.perf_counter_ns(), cpu_seconds()
            call()
            timings[name].walls_ms.append((time.perf_counter_ns() - wall_ns) / 1e6)
            timings[name].cpus_ms.append((cpu_seconds() - cpu_s) * 1e3)
    return timings


class Company:
    """How busy the rest of the machine was: a figure beside the figures, so that a disturbed run shows itself."""

    def __init__(self) -> None:
        self._others_s, self._wall_s = others_seconds(), time.perf_counter()

    def cores(self) -> float:
        """Return how many cores others kept busy on average since this was made."""
        wall_s = time.perf_counter() - self._wall_s
        return round(max(0.0, others_seconds() - self._others_s) / max(wall_s, 1e-9), 2)
