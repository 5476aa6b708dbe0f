"""Live sessions under measurement: what they are run with, and what is noted of them."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.resident import family_kib
from streamsr.bench.latency import Stretch, Timekeeper
from streamsr.display.showing import Showing
from streamsr.errors import InputError
from streamsr.frame import Frame
from streamsr.live.monitor import told
from streamsr.live.session import LiveSession
from streamsr.timing import Percentiles, StageClock

MEMORY_EVERY_S = 2.0

PICTURE, SLATE, BYPASS = 0, 1, 2
"""Kinds of what is presented."""


class NotingView:
    """A view without a screen that notes of every picture when its data arrived and when it was presented.

    Attributes:
        arrived_ns: of each picture, `time.monotonic_ns`; 17 bytes a picture, so that noting is no leak.
        presented_ns: of each picture.
        kinds: `PICTURE`, `SLATE` or `BYPASS`.
    """

    name = "none"
    wants_main_thread = False

    def __init__(self) -> None:
        self.arrived_ns, self.presented_ns, self.kinds = array("q"), array("q"), bytearray()

    def run(self, showing: Showing) -> None:
        """Take pictures until the session is over."""
        while not showing.ended:
            shown = showing.next(0.2)
            if shown is None:
                continue
            now_ns = time.monotonic_ns()
            showing.presented(shown, now_ns)
            self.arrived_ns.append(shown.arrived_ns)
            self.presented_ns.append(now_ns)
            self.kinds.append(SLATE if shown.is_slate else BYPASS if shown.reason == "bypass" else PICTURE)


@dataclass
class Sitting:
    """One session and what was noted of it, while frames counted and before.

    Attributes:
        view: what was presented, from the beginning.
        came_ns: when each frame arrived, from the beginning.
        stretch: in which frames counted.
        before: the session's own summary when it began.
        after: the same at the end.
        memory: (seconds since frames began to count, MiB of this program and those it started).
        description: what ran the generators.
    """

    view: NotingView = field(default_factory=NotingView)
    came_ns: array[int] = field(default_factory=lambda: array("q"))
    stretch: Stretch = field(default_factory=Stretch)
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    memory: list[tuple[float, float]] = field(default_factory=list)
    description: str = ""

    def note_arrival(self, frame: Frame) -> None:
        """Note a frame that came."""
        self.came_ns.append(frame.arrived_ns)

    def added_ms(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Return the added latency of each picture that counts."""
        arrived, presented = np.array(self.view.arrived_ns), np.array(self.view.presented_ns)
        kinds = np.frombuffer(bytes(self.view.kinds), np.uint8)
        counts = (kinds != SLATE) & (arrived >= self.stretch.begin_ns) & (arrived < self.stretch.end_ns)
        added: np.ndarray[tuple[int], np.dtype[np.float64]] = (presented - arrived)[counts] / 1e6
        return added


def sit(
    make: Callable[[NotingView, Callable[[Frame], None]], LiveSession],
    *,
    seconds: float,
    during: Callable[..., None] | None = None,
) -> Sitting:
    """Run a session, let it settle, and note what happens for some seconds.

    Args:
        make: puts the session together from its view and what hears its feed.
        seconds: for how long frames count.
        during: called with the session in a thread of its own when frames begin to count; must end with the session.

    Raises:
        InputError: the session ended before that.
    """
    sitting = Sitting()
    session = make(sitting.view, sitting.note_arrival)
    aside = threading.Thread(target=during, args=(session,))

    def begun() -> None:
        sitting.before = session.summary()
        sitting.description = session.status().runtime
        aside.start()

    def ended() -> None:
        sitting.after = session.summary()

    timekeeper = Timekeeper(session, lambda: True, seconds, begun=begun, ended=ended)
    watch = threading.Thread(target=_watch_memory, args=(session, sitting.memory))
    with session:
        timekeeper.start()
        watch.start()
        try:
            session.run()
        finally:
            session.close()
            timekeeper.join()
            watch.join()
            if aside.ident is not None:
                aside.join()
    sitting.stretch = timekeeper.stretch
    if not sitting.stretch.end_ns:
        raise InputError(
            f"{session.status().source}: the session ended before {seconds:g} s were measured ({timekeeper.lack})"
        )
    began_s = sitting.stretch.begin_ns / 1e9
    sitting.memory = [(at_s - began_s, mib) for at_s, mib in sitting.memory if at_s >= began_s]
    return sitting


def _watch_memory(session: LiveSession, samples: list[tuple[float, float]]) -> None:
    while not session.over:
        samples.append((time.monotonic(), family_kib() / 1024))
        until = time.monotonic() + MEMORY_EVERY_S
        while not session.over and time.monotonic() < until:
            time.sleep(0.05)


def figures_of(sitting: Sitting) -> dict[str, Any]:
    """Return latency, drops, rungs and memory of the time in which frames counted."""
    before, after = sitting.before, sitting.after
    frames = after["frames_in"] - before["frames_in"]
    dropped = _difference(before["dropped"], after["dropped"])
    rungs = _difference(before["by_rung"], after["by_rung"])
    shown = max(1, sum(rungs.values()))
    return {
        "seconds": round((sitting.stretch.end_ns - sitting.stretch.begin_ns) / 1e9, 1),
        "runtime": sitting.description,
        "frames_in": frames,
        "shown": sum(rungs.values()),
        "added_latency": dict(told(distribution(sitting.added_ms()))),
        "dropped": dropped,
        "dropped_share": round(sum(dropped.values()) / max(1, frames), 5),
        "late": after["late"] - before["late"],
        "rung_shares": {name: round(number / shown, 4) for name, number in rungs.items()},
        "max_latency_ms": after["max_latency_ms"],
        "memory": memory_of(sitting.memory),
    }


def _difference(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    counts = {name: number - before.get(name, 0) for name, number in after.items()}
    return {name: number for name, number in counts.items() if number}


def memory_of(samples: list[tuple[float, float]]) -> dict[str, float]:
    """Compare memory a minute after frames began to count (a tenth of the time where that is less) with the end.

    Args:
        samples: (seconds, MiB).
    """
    if not samples:
        return {}
    times, mib = np.array(samples).T
    early = min(60.0, 0.1 * float(times[-1]))
    width = max(MEMORY_EVERY_S, 0.05 * float(times[-1]))
    start = float(np.median(mib[(times >= early) & (times <= early + width)])) if len(mib) > 1 else float(mib[0])
    end = float(np.median(mib[times >= times[-1] - width]))
    return {
        "start_at_s": round(early, 1),
        "start_mib": round(start, 1),
        "end_mib": round(end, 1),
        "growth_mib": round(end - start, 2),
        "most_mib": round(float(mib.max()), 1),
    }


def distribution(durations_ms: Any) -> Percentiles:
    """Return the distribution of durations in milliseconds."""
    clock = StageClock("")
    for duration_ms in durations_ms:
        clock.add(round(float(duration_ms) * 1e6))
    return clock.percentiles()
