"""Stage clocks: how long each stage of the line takes a frame, as percentiles, never a mean alone."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

WINDOW = 100_000
"""Newest durations kept a stage: 0.8 MB, and an hour at 25 frames a second."""


@dataclass(frozen=True)
class Percentiles:
    """A distribution of durations in milliseconds, and how many there were."""

    num: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


class StageClock:
    """Durations of one stage. Written by the one thread that owns the stage, read when it is done.

    Args:
        name: the stage.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.num = 0
        self.durations_ns: deque[int] = deque(maxlen=WINDOW)

    def add(self, duration_ns: int) -> None:
        """Add one duration."""
        self.num += 1
        self.durations_ns.append(duration_ns)

    def copy(self) -> StageClock:
        """Return a clock with the same durations, which this one's owner leaves alone."""
        copied = StageClock(self.name)
        copied.num, copied.durations_ns = self.num, self.durations_ns.copy()
        return copied

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Add the time that the body takes."""
        started = time.perf_counter_ns()
        try:
            yield
        finally:
            self.add(time.perf_counter_ns() - started)

    def percentiles(self) -> Percentiles:
        """Summarise the newest durations; all zero where there are none."""
        if not self.durations_ns:
            return Percentiles(0, 0.0, 0.0, 0.0, 0.0)
        values = np.fromiter(self.durations_ns, np.int64) / 1e6
        p50, p95, p99 = (round(float(value), 3) for value in np.percentile(values, (50, 95, 99)))
        return Percentiles(self.num, p50, p95, p99, round(float(values.max()), 3))
