"""Monitor: counts and times everything that happens in a live session, and tells it as one snapshot."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import numpy as np

from streamsr.display.shown import BYPASS, Shown
from streamsr.frame import Frame
from streamsr.timing import Percentiles, StageClock

log = logging.getLogger(__name__)

WINDOW_S = 10.0
"""Seconds behind now that the sliding window of `LiveStatus` spans."""

RATE_WINDOW_S = 3.0
"""Seconds over which frame rates are counted."""

EVENTS_KEPT = 1000
"""Lines of the log kept: bounded memory in a session of days."""

EVENTS_SHOWN = 8


@dataclass(frozen=True)
class Event:
    """One line of a session's log: `at_s` seconds after its beginning."""

    at_s: float
    text: str


@dataclass
class Interval:
    """A stretch of a session, in seconds after its beginning; still going on where ``end_s`` is None."""

    what: str
    begin_s: float
    end_s: float | None = None


@dataclass
class Intervals:
    """Stretches in which one thing at a time was so, for example which rung was used. Not thread-safe by itself."""

    kept: deque[Interval] = field(default_factory=lambda: deque(maxlen=EVENTS_KEPT))

    def change(self, what: str, now_s: float) -> bool:
        """End the last stretch and begin one of something else; an empty name begins none; return whether it did."""
        last = self.kept[-1] if self.kept and self.kept[-1].end_s is None else None
        if (last.what if last else "") == what:
            return False
        if last is not None:
            last.end_s = now_s
        if what:
            self.kept.append(Interval(what, now_s))
        return True

    def told(self, now_s: float) -> list[dict[str, Any]]:
        """Return them as JSON has them, the last one ended now."""
        return [
            {
                "what": each.what,
                "begin_s": round(each.begin_s, 3),
                "end_s": round(now_s if each.end_s is None else each.end_s, 3),
            }
            for each in self.kept
        ]


class SlidingTimes:
    """Durations in milliseconds of the last `WINDOW_S` seconds. Not thread-safe by itself."""

    def __init__(self) -> None:
        self._kept: deque[tuple[float, float]] = deque()

    def add(self, now_s: float, duration_ms: float) -> None:
        """Add a duration."""
        self._kept.append((now_s, duration_ms))
        self._forget(now_s)

    def durations_ms(self, now_s: float) -> list[float]:
        """Return those still in the window."""
        self._forget(now_s)
        return [duration for _, duration in self._kept]

    def rate(self, now_s: float) -> float:
        """Return how many a second there were lately."""
        recent = sum(1 for when, _ in self._kept if now_s - when <= RATE_WINDOW_S)
        return recent / RATE_WINDOW_S

    def _forget(self, now_s: float) -> None:
        while self._kept and now_s - self._kept[0][0] > WINDOW_S:
            self._kept.popleft()


class Monitor:
    """Everything that is counted and timed; each method may be called from any thread.

    Percentiles are worked out of copies: a picture never waits for them.

    Args:
        tell: takes each line of the log as it is written.
    """

    def __init__(self, tell: Callable[[str], None] = lambda text: None) -> None:
        self._tell = tell
        self.began_ns = time.monotonic_ns()
        self.began_utc = datetime.now(timezone.utc)
        self.added = StageClock("added")
        self.last_arrival_ns, self._after_gap = 0, False
        self.frames_in = self.frames_shown = self.late = self.shown_late = self.reconnects = 0
        self.by_rung: Counter[str] = Counter()
        self.rungs, self.bypasses, self.gaps = Intervals(), Intervals(), Intervals()
        self.events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self.intervals_ms: deque[float] = deque(maxlen=16)
        self._lock = threading.Lock()
        self._added, self._arrivals, self._shown = SlidingTimes(), SlidingTimes(), SlidingTimes()
        self._stages: dict[str, SlidingTimes] = {}
        self._all_stages: dict[str, StageClock] = {}
        self._presented: dict[str, int] = {}

    @property
    def now_s(self) -> float:
        """Seconds since the session began."""
        return (time.monotonic_ns() - self.began_ns) / 1e9

    @property
    def interval_ms(self) -> float:
        """The usual time between two arrivals lately; 0 before the second."""
        with self._lock:
            return float(np.median(self.intervals_ms)) if self.intervals_ms else 0.0

    def say(self, text: str) -> None:
        """Add a line to the log."""
        log.info("%s", text)
        with self._lock:
            self.events.append(Event(self.now_s, text))
        self._tell(text)

    def arrived(self, frame: Frame) -> None:
        """Count a frame that came from the source."""
        with self._lock:
            if self.last_arrival_ns and not self._after_gap:
                self.intervals_ms.append((frame.arrived_ns - self.last_arrival_ns) / 1e6)
            self.last_arrival_ns, self._after_gap = frame.arrived_ns, False
            self.frames_in += 1
            self._arrivals.add(self.now_s, 0.0)

    def gap_ends(self) -> None:
        """Leave the next interval out: what comes next comes after a gap, which is no period."""
        with self._lock:
            self._after_gap = True
            self.intervals_ms.clear()

    def show(self, shown: Shown) -> None:
        """Count a picture that goes to the views; note changes of rung and bypass."""
        with self._lock:
            now_s = self.now_s
            self.bypasses.change(BYPASS if shown.is_bypassed else "", now_s)
            self.gaps.change(shown.alarm if shown.is_slate else "", now_s)
            self.rungs.change("" if shown.is_slate else shown.rung, now_s)
            if shown.is_slate:
                return
            self.frames_shown += 1
            self.by_rung[shown.rung] += 1
            self._shown.add(now_s, 0.0)
            for name, duration_ms in shown.stages_ms.items():
                self._add_stage(name, now_s, duration_ms)

    def present(self, view: str, shown: Shown, at_ns: int, limit_ms: float = float("inf")) -> float | None:
        """Note that a view has a picture on its screen.

        Args:
            view: its name.
            shown: the picture.
            at_ns: `time.monotonic_ns` of the presentation.
            limit_ms: the deadline; what is later is counted.

        Returns:
            Added latency in milliseconds; None for slates and for pictures that the view had already presented.
        """
        with self._lock:
            if shown.is_slate or self._presented.get(view, -1) >= shown.number:
                return None
            self._presented[view] = shown.number
            added_ns, now_s = at_ns - shown.arrived_ns, self.now_s
            self.shown_late += added_ns / 1e6 > limit_ms
            self.added.add(added_ns)
            self._added.add(now_s, added_ns / 1e6)
            self._add_stage("present", now_s, (at_ns - shown.made_ns) / 1e6)
            return added_ns / 1e6

    def _add_stage(self, name: str, now_s: float, duration_ms: float) -> None:
        self._stages.setdefault(name, SlidingTimes()).add(now_s, duration_ms)
        self._all_stages.setdefault(name, StageClock(name)).add(round(duration_ms * 1e6))

    def measured(self) -> dict[str, Any]:
        """Return the fields of `LiveStatus` that are counted or timed here."""
        with self._lock:
            now_s = self.now_s
            added_ms = self._added.durations_ms(now_s)
            stages_ms = {name: times.durations_ms(now_s) for name, times in self._stages.items()}
            counted = {
                "frames_in": self.frames_in,
                "frames_shown": self.frames_shown,
                "by_rung": dict(self.by_rung),
                "late": self.late,
                "shown_late": self.shown_late,
                "reconnects": self.reconnects,
                "rate_in": self._arrivals.rate(now_s),
                "rate_shown": self._shown.rate(now_s),
                "events": tuple(f"{event.at_s:.1f} s {event.text}" for event in list(self.events)[-EVENTS_SHOWN:]),
                "uptime_s": now_s,
            }
        stages = {name: percentiles_of(durations_ms) for name, durations_ms in stages_ms.items()}
        return {**counted, "added_latency": percentiles_of(added_ms), "stages": stages}

    def summary(self) -> dict[str, Any]:
        """Return what a session's sidecar and its ``--json`` line hold of the whole session."""
        with self._lock:
            now_s = self.now_s
            added, stages = self.added.copy(), {name: clock.copy() for name, clock in self._all_stages.items()}
            counted = {
                "began": self.began_utc.isoformat(timespec="milliseconds"),
                "seconds": round(now_s, 3),
                "frames_in": self.frames_in,
                "shown": self.frames_shown,
                "late": self.late,
                "shown_late": self.shown_late,
                "reconnects": self.reconnects,
                "by_rung": dict(self.by_rung),
                "rungs": self.rungs.told(now_s),
                "bypass_intervals": self.bypasses.told(now_s),
                "signal_gaps": self.gaps.told(now_s),
                "events": [{"at_s": round(event.at_s, 3), "text": event.text} for event in self.events],
            }
        timed = {name: told(clock.percentiles()) for name, clock in stages.items()}
        return {**counted, "added_latency": told(added.percentiles()), "stages": timed}


def told(percentiles: Percentiles) -> Mapping[str, float]:
    """Return percentiles as JSON has them."""
    return {
        "num": percentiles.num,
        "p50_ms": percentiles.p50_ms,
        "p95_ms": percentiles.p95_ms,
        "p99_ms": percentiles.p99_ms,
        "max_ms": percentiles.max_ms,
    }


def percentiles_of(durations_ms: list[float]) -> Percentiles:
    """Summarise durations in milliseconds."""
    clock = StageClock("")
    for duration_ms in durations_ms:
        clock.add(round(duration_ms * 1e6))
    return clock.percentiles()
