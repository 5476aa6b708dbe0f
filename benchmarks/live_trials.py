"""What live sessions are put to: bypass asked for again and again, and a generator that is late at random."""

from __future__ import annotations

import random
import time
from bisect import bisect_right
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.live_sessions import BYPASS, SLATE, Sitting, distribution
from streamsr.display.commands import Command
from streamsr.frame import Frame
from streamsr.live.monitor import told
from streamsr.live.session import LiveSession

LONGEST_SLEEP_S = 0.9
"""Below the second after which a thread counts as hanging and is left behind."""

SOURCE_LATE = 1.5
"""Periods without a frame from the source that make the source itself late."""


class Sleeper:
    """A generator that repeats samples, after a sleep of random, heavy-tailed length.

    It sleeps in spells, so that the ladder goes on believing in it: calm ones with some milliseconds and now and then
    a long sleep, and stormy ones in which most are late. Sleeps are Pareto distributed. A calm spell is longer than the
    ten seconds after which the ladder forgets that a rung was too slow.

    Args:
        seed: of the sleeps.
        clock: seconds, for the spells.
    """

    description = "a double that sleeps"
    CALM_S, STORMY_S = 14.0, 2.0

    def __init__(self, seed: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._random, self._clock = random.Random(seed), clock
        self._began_s = clock()

    def upscale(self, frame: Frame) -> Frame:
        """Sleep, and enlarge twice."""
        time.sleep(self.next_sleep_s())
        return frame.with_planes(tuple(plane.repeat(2, axis=0).repeat(2, axis=1) for plane in frame.planes))

    def next_sleep_s(self) -> float:
        """Return how long the next call sleeps."""
        stormy = (self._clock() - self._began_s) % (self.CALM_S + self.STORMY_S) >= self.CALM_S
        if stormy or self._random.random() < 0.02:
            return min(0.02 * self._random.paretovariate(1.1), LONGEST_SLEEP_S)
        return 0.004


def ages_of(sitting: Sitting, *, deadline_ms: float, period_ms: float) -> dict[str, Any]:
    """Return how old each camera picture was when the next one, or a slate, took its place.

    Args:
        sitting: from its first picture to its last but one, settling included.
        deadline_ms: from arrival to presentation.
        period_ms: between two frames of the source.
    """
    view, limit_ms = sitting.view, deadline_ms + period_ms
    places = [place for place in range(len(view.kinds) - 1) if view.kinds[place] != SLATE]
    ages = np.array([(view.presented_ns[place + 1] - view.arrived_ns[place]) / 1e6 for place in places])
    over = [place for place, age_ms in zip(places, ages, strict=True) if age_ms > limit_ms]
    late = [place for place in over if _source_was_late(sitting, view.arrived_ns[place], period_ms)]
    return {
        "limit_ms": round(limit_ms, 3),
        "age_when_replaced": dict(told(distribution(ages))),
        "violations": len(over),
        "violations_while_the_source_was_late": len(late),
        "worst_ms": sorted((round(float(age_ms), 1) for age_ms in ages), reverse=True)[:10],
    }


def _source_was_late(sitting: Sitting, arrived_ns: int, period_ms: float) -> bool:
    """Return whether the frame after one came more than `SOURCE_LATE` periods later, or not at all."""
    after = bisect_right(sitting.came_ns, arrived_ns)
    return after >= len(sitting.came_ns) or sitting.came_ns[after] - arrived_ns > SOURCE_LATE * period_ms * 1e6


class Toggler:
    """Asks a session for bypass at random moments, and back.

    Args:
        tries: how often.
        seed: of the moments.
    """

    HOLD_S = (0.2, 0.5)

    def __init__(self, tries: int, seed: int = 0) -> None:
        self.tries = tries
        self.asked_ns: list[int] = []
        self._random = random.Random(seed)

    def __call__(self, session: LiveSession) -> None:
        """Ask until it was tried often enough, or the session is over."""
        for _ in range(2 * self.tries):
            until_s = time.monotonic() + self._random.uniform(*self.HOLD_S)
            while not session.over and time.monotonic() < until_s:
                time.sleep(0.001)
            if session.over:
                return
            self.asked_ns.append(time.monotonic_ns())
            session.ask(Command.BYPASS)


def reactions_of(sitting: Sitting, toggler: Toggler) -> dict[str, Any]:
    """Return how long bypass took to be seen: pictures presented after the asking that were still a generator's."""
    view = sitting.view
    frames: list[int] = []
    waits_ms: list[float] = []
    for asked_ns in toggler.asked_ns[::2]:
        first = bisect_right(view.presented_ns, asked_ns)
        found = next((place for place in range(first, len(view.kinds)) if view.kinds[place] == BYPASS), None)
        if found is not None:
            frames.append(found - first)
            waits_ms.append((view.presented_ns[found] - asked_ns) / 1e6)
    return {
        "tries": len(frames),
        "pictures_before": {str(number): frames.count(number) for number in sorted(set(frames))},
        "most_pictures_before": max(frames, default=0),
        "until_seen": dict(told(distribution(waits_ms))),
    }
