"""Doubles of what stands on both sides of a live session: a feed by script, generators that misbehave, a view."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from fractions import Fraction

import numpy as np

from streamsr.capture.base import SourceInfo
from streamsr.capture.listening import FeedEvent, FeedListener, FeedState
from streamsr.display.showing import Showing
from streamsr.display.shown import Shown
from streamsr.frame import Colour, Frame, PlaneLayout

LAYOUT = PlaneLayout()
COLOUR = Colour(matrix=6, full_range=False, primaries=6, transfer=6)
PERIOD_S = 0.02


def make_frame(number: int, *, size: tuple[int, int] = (64, 48)) -> Frame:
    """Return a bright frame whose level tells its number."""
    width, height = size
    level = 100 + number % 100
    planes = (
        np.full((height, width), level, np.uint8),
        np.full((height // 2, width // 2), 128, np.uint8),
        np.full((height // 2, width // 2), 128, np.uint8),
    )
    return Frame(planes, LAYOUT, COLOUR, pts=number, time_base=Fraction(1, 50), duration=1, sequence=number)


class ScriptedFeed:
    """Gives frames a period apart; a number is a pause in seconds, an event is told, an exception is raised."""

    def __init__(self, script: Iterable[Frame | float | FeedEvent | Exception], *, period_s: float = PERIOD_S) -> None:
        self.script, self.period_s = list(script), period_s
        self.num_reconnects = self.num_dropped = self.num_damaged = 0
        self.kept: list[str | None] = []
        self._stopped = threading.Event()

    def run(self, listener: FeedListener) -> None:
        info = SourceInfo("scripted", 64, 48, LAYOUT, COLOUR, Fraction(1, 50), Fraction(1 / self.period_s))
        listener.tell(FeedEvent(FeedState.OPENED, "opened", time.monotonic_ns(), info))
        due = time.monotonic()
        for item in self.script:
            if isinstance(item, Exception):
                raise item
            if isinstance(item, FeedEvent):
                listener.tell(item)
                continue
            due += item if isinstance(item, float) else self.period_s
            if self._stopped.wait(max(0.0, due - time.monotonic())):
                return
            if isinstance(item, Frame):
                now_ns = time.monotonic_ns()
                listener.receive(replace(item, captured_ns=now_ns, arrived_ns=now_ns))
        listener.tell(FeedEvent(FeedState.ENDED, "ended", time.monotonic_ns()))
        self._stopped.wait(2 * self.period_s)

    def keep_original(self, folder: str | None) -> None:
        self.kept.append(folder)

    def stop(self) -> None:
        self._stopped.set()


class Doubler:
    """Enlarges by repeating samples; misbehaves as told, by the number of its calls."""

    description = "a double"

    def __init__(
        self, *, sleep_s: Callable[[int], float] | float = 0.0, fails: Callable[[int], bool] = lambda call: False
    ) -> None:
        self.num_calls = 0
        self._sleep_s = sleep_s if callable(sleep_s) else lambda call: sleep_s
        self._fails = fails

    def upscale(self, frame: Frame) -> Frame:
        call, self.num_calls = self.num_calls, self.num_calls + 1
        time.sleep(self._sleep_s(call))
        if self._fails(call):
            raise RuntimeError("the double fails")
        return frame.with_planes(tuple(plane.repeat(2, axis=0).repeat(2, axis=1) for plane in frame.planes))


class CollectingView:
    """Takes every picture at once and notes when; may fail, or ask for something, at a picture's number."""

    wants_main_thread = False
    name = "collecting"

    def __init__(self, ask: Callable[[Showing, Shown], None] = lambda showing, shown: None) -> None:
        self.seen: list[tuple[int, Shown]] = []
        self._ask = ask

    def run(self, showing: Showing) -> None:
        while not showing.ended:
            shown = showing.next(0.05)
            if shown is not None:
                now_ns = time.monotonic_ns()
                showing.presented(shown, now_ns)
                self.seen.append((now_ns, shown))
                self._ask(showing, shown)

    @property
    def pictures(self) -> list[Shown]:
        """Those that are no slates."""
        return [shown for _, shown in self.seen if not shown.is_slate]

    def ages_ms(self) -> list[float]:
        """Return how old each camera picture on the screen was when the next one, or a slate, took its place."""
        return [
            (later_ns - shown.arrived_ns) / 1e6
            for (_, shown), (later_ns, _) in zip(self.seen, self.seen[1:], strict=False)
            if not shown.is_slate
        ]
