"""Silence: tell pictures whose data came before a pause of the source from those that came after it.

Demuxers and decoders hold pictures back until later data pushes them out. After a pause these are old, whatever the
moment at which they come out: they were not shown in time, and must not be shown as what the camera sees now.
"""

from __future__ import annotations

from collections import deque
from fractions import Fraction
from statistics import median

SILENT_PERIODS = 3
"""Periods without data that are a silence: the last picture is taken from the screen after as many."""

HOLDING = frozenset({"mpegts", "mpeg", "h264", "hevc", "mjpeg", "mpegvideo", "m4v", "obu", "ivf", "vc1", "dirac"})
"""Demuxers that cannot know where a picture ends before the next one begins, and hold it back until then."""

STEPS_KEPT = 9
PACKETS_REMEMBERED = 64
"""More than any decoder reorders."""


class Silence:
    """Watches how long the source is waited for. Owned by the thread that reads.

    Args:
        period_s: between two pictures, as the source states.
        holds: whether the demuxer holds a packet back until the next one begins.

    Attributes:
        num_silences: so far.
    """

    def __init__(self, period_s: float, *, holds: bool) -> None:
        self.num_silences = 0
        self._period_s, self._holds = period_s, holds
        self._asked_ns: int | None = None
        self._wait_ns = (0, 0)
        self._last_s: Fraction | None = None
        self._steps: deque[float] = deque(maxlen=STEPS_KEPT)
        self._fresh_ns = 0
        self._came: dict[int, int] = {}

    def ask(self, now_ns: int) -> None:
        """Say that the source is waited for from now on."""
        self._asked_ns = now_ns

    def answer(self, now_ns: int) -> None:
        """Say that something came, or the end."""
        asked_ns, self._asked_ns = self._asked_ns, None
        if asked_ns is not None and now_ns - asked_ns > self._wait_ns[1] - self._wait_ns[0]:
            self._wait_ns = (asked_ns, now_ns)

    def packet(self, place: int | None, seconds: Fraction | None, arrived_ns: int) -> None:
        """Note a packet of the video.

        Args:
            place: its presentation time, which its picture will have too; None where it has none.
            seconds: its decoding time; None where it has none.
            arrived_ns: when it came out of the demuxer.
        """
        step_s = self._step_s(seconds)
        usual_s = self._usual_s or (step_s if step_s > 0 else 0.0)
        began_ns, came_ns = self._wait_ns[0], arrived_ns
        if self._is_silent(usual_s) and self._holds and 0 < step_s <= 2 * max(self._period_s, usual_s):
            came_ns = began_ns  # it follows on the last one, so it was there already
        self._settle(usual_s)
        if step_s > 0:
            self._steps.append(step_s)
        if place is not None:
            self._came[place] = came_ns
            while len(self._came) > PACKETS_REMEMBERED:
                self._came.pop(next(iter(self._came)))

    def end(self) -> None:
        """Note the end of the source: what comes now was held back."""
        self._settle(self._usual_s)

    def is_stale(self, place: int | None, arrived_ns: int) -> bool:
        """Return whether a picture's data came before the last silence.

        Args:
            place: its presentation time; None where it has none.
            arrived_ns: taken where its packet is not known.
        """
        came_ns = arrived_ns if place is None else self._came.pop(place, arrived_ns)
        return came_ns < self._fresh_ns

    @property
    def _usual_s(self) -> float:
        return median(self._steps) if self._steps else 0.0

    def _step_s(self, seconds: Fraction | None) -> float:
        """Return how far a packet lies behind the last one; a period where nobody says so, 0 for the first one."""
        last_s, self._last_s = self._last_s, seconds
        if seconds is None:
            return self._period_s
        return 0.0 if last_s is None else float(seconds - last_s)

    def _is_silent(self, usual_s: float) -> bool:
        waited_s = (self._wait_ns[1] - self._wait_ns[0]) / 1e9
        return usual_s > 0 and waited_s > SILENT_PERIODS * max(self._period_s, usual_s)

    def _settle(self, usual_s: float) -> None:
        """Judge the longest wait since the last packet."""
        if self._is_silent(usual_s):
            self._fresh_ns = self._wait_ns[1]
            self.num_silences += 1
        self._wait_ns = (0, 0)
