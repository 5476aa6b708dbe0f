"""Time of live sources: play at their own pace, notice their true rate, and join times over interruptions."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from statistics import median

from streamsr.frame import Frame

LATE_S = 0.1
"""Lateness beyond which the rest is played that much later, rather than faster until it has caught up."""

LONGEST_WAIT_S = 10.0
"""A pause in a source's times that is longer is skipped."""

SIGN_OF_LIFE_S = 0.25
NUM_STEPS = 24
"""Steps between pictures that a rate is measured over: a second at 24 frames a second."""

OFF_BY = 0.2
"""Part by which the measured rate must differ from the stated one to be believed."""


class Pace:
    """Waits until a picture is due.

    Args:
        alive: called now and then during long waits.
    """

    def __init__(self, alive: Callable[[], None]) -> None:
        self._alive = alive
        self._start_s: float | None = None

    def wait(self, seconds: float) -> None:
        """Wait until the picture of this source time is due; the first is due at once.

        A source that falls behind is played later from then on; one whose time jumps, back or far ahead, starts anew.
        """
        now_s = time.monotonic()
        if self._start_s is None:
            self._start_s = now_s - seconds
        due_s = self._start_s + seconds
        if due_s < now_s - LATE_S or due_s > now_s + LONGEST_WAIT_S:
            self._start_s = now_s - seconds
            return
        while (left_s := due_s - time.monotonic()) > 0:
            time.sleep(min(left_s, SIGN_OF_LIFE_S))
            if left_s > SIGN_OF_LIFE_S:
                self._alive()


class RateWatch:
    """Measures how many frames a second a source really gives, by its own times.

    Args:
        stated: frames a second, as the source says.
    """

    def __init__(self, stated: Fraction) -> None:
        self.rate = stated
        self._times: deque[Fraction] = deque(maxlen=NUM_STEPS + 1)

    def add(self, frame: Frame) -> bool:
        """Take the next frame; return whether the rate turned out to be another one."""
        self._times.append(frame.pts * frame.time_base)
        if len(self._times) <= NUM_STEPS:
            return False
        times = list(self._times)
        self._times.clear()
        step = median(later - earlier for earlier, later in pairwise(times))
        if step <= 0 or abs(1 / step / self.rate - 1) <= OFF_BY:
            return False
        self.rate = (1 / step).limit_denominator(1001)
        return True


class Continuity:
    """Numbers frames and makes their times rise over interruptions, as long as these really were.

    A source's own times start anew when it is opened again, or jump. What follows is moved so that it lies as long
    after the first frame as it came after it; within a stretch, times are the source's own, to the tick.

    Attributes:
        num_placed: frames that were given a place.
        num_dropped: frames that were read and not given over, since a newer one came first.
    """

    def __init__(self) -> None:
        self.num_placed = self.num_dropped = 0
        self._next = 0
        self._stretch: object = None
        self._reader: object = None
        self._base = 0
        self._shift = 0
        self._first: Frame | None = None
        self._last: Frame | None = None

    def place(self, frame: Frame, reader: object, stretch: object) -> Frame:
        """Return a frame with its place in the session.

        Args:
            frame: ``sequence`` counts what its reader read.
            reader: who read it; a new one counts from 0 again.
            stretch: of times that belong together.
        """
        if reader != self._reader:
            self._reader, self._base = reader, self._next
        sequence = self._base + frame.sequence
        self.num_dropped += sequence - self._next
        self._next = sequence + 1
        self.num_placed += 1
        if (reader, stretch) != self._stretch:
            self._stretch, self._shift = (reader, stretch), self._shift_of(frame)
        placed = replace(frame, sequence=sequence, pts=frame.pts + self._shift)
        self._first, self._last = self._first or placed, placed
        return placed

    def _shift_of(self, frame: Frame) -> int:
        if self._first is None or self._last is None:
            return 0
        elapsed_s = Fraction(frame.arrived_ns - self._first.arrived_ns, 10**9)
        wanted_s = self._first.pts * self._first.time_base + elapsed_s
        least_s = self._last.pts * self._last.time_base
        pts = max(round(wanted_s / frame.time_base), int(least_s / frame.time_base) + 1)
        return pts - frame.pts
