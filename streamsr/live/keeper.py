"""RungKeeper: keeps the rungs warm, tried and judged, and has a frame made by the one that the ladder chooses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

from streamsr.display.shown import BYPASS
from streamsr.frame import Frame
from streamsr.live.ladder import TRYING, WARMING, Ladder
from streamsr.live.monitor import Monitor
from streamsr.live.rungs import WARM_CALLS, Rung, Ticket

STUCK_S, STUCK_BUDGETS = 3.0, 10
"""A rung in use that takes longer than this, and than ten times its budget, for one frame hangs."""

TRIAL_LIMIT_S, WARM_LIMIT_S = 30.0, 1800.0
"""For a trial, which may just be slow, and for building and warming: a TensorRT plan takes minutes."""

MOST_ABANDONED = 3
"""Threads of a rung that may hang before it is given up: each keeps its memory until the session ends."""


@dataclass(frozen=True)
class Made:
    """What became of a frame at a rung.

    Attributes:
        frame: enlarged; None where bicubic is to do it.
        rung: name of the one that made it; empty where none did.
        reason: why it is not the best rung's; empty where it is.
        stages_ms: milliseconds of each stage in the rung.
    """

    frame: Frame | None
    rung: str = ""
    reason: str = ""
    stages_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Aside:
    """Work of a rung that is not for showing: warming it, or a trial."""

    place: int
    ticket: Ticket

    @property
    def warms(self) -> bool:
        """Whether it warms the rung."""
        return self.ticket.calls > 1


class RungKeeper:
    """Owns the rungs and the ladder; used by the director's thread alone, but for its attributes.

    Args:
        rungs: best first, not started; each has a thread of its own.
        monitor: told what happens to them.

    Attributes:
        ladder: which rung is in use, and why no better one.
        alarm: what is wrong with a rung, in one short line; empty where nothing is.
    """

    def __init__(self, rungs: list[Rung], monitor: Monitor) -> None:
        self.rungs, self.ladder, self.alarm = rungs, Ladder(len(rungs)), ""
        self._monitor = monitor
        self._shape: tuple[object, ...] | None = None
        self._unwarmed: list[int] = []
        self._aside: _Aside | None = None

    @property
    def rung(self) -> Rung | None:
        """The rung in use; None is bicubic."""
        place = self.ladder.rung
        return self.rungs[place] if place < len(self.rungs) else None

    def start(self) -> None:
        """Start the rungs' threads."""
        for rung in self.rungs:
            rung.start()

    def tend(self, frame: Frame) -> None:
        """Look after the rungs that are not in use; never waits.

        Call it when a frame was shown: a trial runs while the rung in use rests, and costs what it would alone.
        """
        for place in range(len(self.rungs)):
            if self._hangs(place):
                self._leave(place)
        if self._aside is None:
            self._begin_aside(frame)
        elif self._aside.ticket.done:
            aside, self._aside = self._aside, None
            self._judge(aside)
            self.ladder.settled(self._monitor.now_s)

    def generate(self, frame: Frame, until_ns: int, interrupted: Callable[[], bool]) -> Made:
        """Have a frame made by the rung in use.

        Args:
            frame: the next one.
            until_ns: `time.monotonic_ns` at which it must be made.
            interrupted: gives up at once where it becomes true (see `Rung.wait`).
        """
        place, rung = self.ladder.rung, self.rung
        if rung is None:
            return Made(None, reason=self.ladder.reason)
        ticket = rung.submit(frame)
        if ticket is None:
            # It is still at a frame before, whose lateness counted: one stall is one late frame.
            self._monitor.late += 1
            return Made(None, reason="late")
        if rung.wait(ticket, until_ns, interrupted):
            return self._take(place, ticket)
        if interrupted():
            return Made(None, reason=BYPASS)
        return self._miss(place, rung.busy_ns / 1e6)

    def _hangs(self, place: int) -> bool:
        """Return whether a rung has been at one piece of work for longer than any should take."""
        busy_ms, aside = self.rungs[place].busy_ns / 1e6, self._aside
        if aside is not None and aside.place == place:
            return busy_ms > (WARM_LIMIT_S if aside.warms else TRIAL_LIMIT_S) * 1e3
        budget_ms = self.ladder.budget.deadline_ms
        return busy_ms > max(STUCK_S * 1e3, STUCK_BUDGETS * budget_ms)

    def _take(self, place: int, ticket: Ticket) -> Made:
        """Take what a rung answered."""
        if ticket.result is None:
            self._fail(place, ticket.error)
            return Made(None, reason="failed")
        reason, rung = self.ladder.reason, self.rungs[place].name
        if self._aside is None:
            self.ladder.made(place, self._monitor.now_s, ticket.costs_ms[-1])
        return Made(ticket.result, rung, reason, ticket.stages_ms)

    def _miss(self, place: int, busy_ms: float) -> Made:
        """Note that a rung is late with this frame."""
        self._monitor.late += 1
        if self._aside is None:
            self.ladder.made(place, self._monitor.now_s, busy_ms, late=True)
        else:
            self.ladder.disturbed(place, self._monitor.now_s, WARMING if self._aside.warms else TRYING)
        return Made(None, reason="late")

    def meet(self, frame: Frame) -> None:
        """Have all rungs warmed anew where a frame has another shape than the last one; call it before `generate`.

        The lightest comes first: it is soon in use, and the best is not disturbed by the warming of others.
        """
        shape = _shape_of(frame)
        if shape == self._shape:
            return
        self._shape, self._unwarmed = shape, list(reversed(range(len(self.rungs))))
        for place in self._unwarmed:
            self.ladder.changed(place)
        if self.rungs:
            self.ladder.step_to_bicubic(self._monitor.now_s, WARMING)

    def _begin_aside(self, frame: Frame) -> None:
        if self._unwarmed:
            place, calls = self._unwarmed[0], WARM_CALLS
        else:
            wanted = self.ladder.wants_trial(self._monitor.now_s)
            if wanted is None:
                return
            # What failed was taken down: it is built and warmed like a new one.
            place, calls = wanted, 1 if self.rungs[wanted].enlarger is not None else WARM_CALLS
        ticket = self.rungs[place].submit(frame, calls=calls)
        if ticket is not None:
            self._aside = _Aside(place, ticket)
            self._unwarmed = [other for other in self._unwarmed if other != place]

    def _judge(self, aside: _Aside) -> None:
        """Tell the ladder what became of work aside."""
        place, ticket, now_s = aside.place, aside.ticket, self._monitor.now_s
        if _shape_of(ticket.frame) != self._shape:
            return  # pictures have changed meanwhile, and it is waiting to be warmed anew
        if ticket.result is None:
            self._fail(place, ticket.error)
            return
        if aside.warms:
            costs_ms = ticket.costs_ms[1:]
            self._monitor.say(f"{self.rungs[place].name} ready: {self.rungs[place].description}")
            self.ladder.warmed(place, now_s, costs_ms)
            if not self.ladder.budget.holds(costs_ms):
                self._monitor.say(f"{self.rungs[place].name} is too slow now: {median(costs_ms):.0f} ms a frame")
        else:
            self.ladder.tried(place, now_s, ticket.costs_ms[-1])
        self._clear_alarm(place)

    def _leave(self, place: int) -> None:
        """Leave a thread that hangs behind."""
        self.rungs[place].abandon()
        was_aside = self._aside is not None and self._aside.place == place
        if was_aside:
            self._aside = None
        self._fail(place, "does not answer")
        if was_aside:
            self.ladder.settled(self._monitor.now_s)
        if self.rungs[place].num_abandoned >= MOST_ABANDONED:
            self.ladder.retire(place)
            self._monitor.say(f"{self.rungs[place].name} is given up")

    def _fail(self, place: int, why: str) -> None:
        name = self.rungs[place].name
        self._monitor.say(f"{name} failed: {why}")
        self.alarm = f"{name} failed"
        self.ladder.failed(place, self._monitor.now_s, "failed")

    def _clear_alarm(self, place: int) -> None:
        name = self.rungs[place].name
        if self.alarm == f"{name} failed":
            self.alarm = ""
            self._monitor.say(f"{name} works again")


def _shape_of(frame: Frame) -> tuple[object, ...]:
    """Return what a rung is warmed for."""
    return frame.width, frame.height, frame.layout, frame.colour
