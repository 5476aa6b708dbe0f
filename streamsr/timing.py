"""Stage clocks: how long each stage of the line takes a frame, as percentiles, never a mean alone."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

WINDOW = 20_000
"""Newest durations kept a stage: 80 kB, and 13 minutes at 25 frames a second. A live session has some twenty stages;
with a window of an hour their clocks would grow by 9 MiB in it."""

LONGEST_US = 2**32 - 1
"""What a duration of four bytes holds: over an hour."""


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
        self.durations_us = array("I")

    @property
    def latest_ms(self) -> float:
        """The newest duration; 0 where there is none."""
        return self.durations_us[(self.num - 1) % WINDOW] / 1e3 if self.num else 0.0

    def add(self, duration_ns: int) -> None:
        """Add one duration, kept to the microsecond."""
        duration_us = min(max(0, round(duration_ns / 1e3)), LONGEST_US)
        if self.num < WINDOW:
            self.durations_us.append(duration_us)
        else:
            self.durations_us[self.num % WINDOW] = duration_us
        self.num += 1

    def copy(self) -> StageClock:
        """Return a clock with the same durations, which this one's owner leaves alone."""
        copied = StageClock(self.name)
        copied.num, copied.durations_us = self.num, self.durations_us[:]
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
        if not self.num:
            return Percentiles(0, 0.0, 0.0, 0.0, 0.0)
        values = np.array(self.durations_us[:], np.float64) / 1e3  # a copy: an array that is read cannot grow
        p50, p95, p99 = (round(float(value), 3) for value in np.percentile(values, (50, 95, 99)))
        return Percentiles(self.num, p50, p95, p99, round(float(values.max()), 3))
