"""Measure how much later a picture is seen than its data arrived, through one view, in a session of this program."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from streamsr.bench.observing import Ledger, ObservedView, Observer
from streamsr.bench.sessions import make_session
from streamsr.bench.sightings import Findings, Stamp, corner_of, match, read_corner, summarise
from streamsr.config import LiveSettings
from streamsr.display.commands import Command
from streamsr.display.shown import Shown
from streamsr.errors import InputError
from streamsr.live.ladder import WARMING
from streamsr.live.monitor import told
from streamsr.live.session import LiveSession
from streamsr.worker import Line, Worker

PATIENCE_S = 120.0
"""For the source to give, the rungs to warm and the view to open; a first run compiles its networks."""

SIGHT_S = 30.0
"""Of that, for a number to be seen once pictures are shown by warm engines: a browser starts, a badge moves away."""

SETTLE_S = 2.0
"""Between the last of these and the first frame that counts."""

LAST_LOOK_S = 1.0
"""Between the last frame that counts and the end, so that it can be seen."""

LOOK_S = 0.02

LEGIBLE_IN_A_ROW = 25
"""Pictures whose numbers must be legible before frames count: an alarm or a badge may stand on the number of the first
frames, which is nearly black."""


@dataclass(frozen=True)
class Stretch:
    """The time in which frames count, in `time.monotonic_ns`; both 0 where it never came to that."""

    begin_ns: int = 0
    end_ns: int = 0


@dataclass(frozen=True)
class ViewLatency:
    """What was seen of a session through one view.

    Attributes:
        view: its name.
        seen_at: where a number counts as seen.
        frames: that arrived while it was measured.
        seen: of these.
        missed: frames that were never seen: dropped, or replaced between two looks.
        out_of_order: sightings of a frame older than one that was seen before.
        unreadable: looks that found no number, or one that had not arrived.
        added_latency: from arrival to the first sighting, as `told` says.
        claimed_latency: the same as the session itself measures it, of the same frames.
        interval_ms: the usual time between two looks: a picture may have been there that much earlier.
        clock_error_ms: by how much the clock of the looks may be misjudged.
        by_rung: pictures presented, by what made them.
        dropped: frames never shown, by cause.
        size_out: (width, height) of the pictures.
    """

    view: str
    seen_at: str
    frames: int
    seen: int
    missed: int
    out_of_order: int
    unreadable: int
    added_latency: Mapping[str, float]
    claimed_latency: Mapping[str, float]
    interval_ms: float
    clock_error_ms: float
    by_rung: Mapping[str, int]
    dropped: Mapping[str, int]
    size_out: tuple[int, int]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


@dataclass
class Claims:
    """The added latencies that a view states, with when each picture's data arrived."""

    stated: list[tuple[int, float]] = field(default_factory=list)

    def note(self, shown: Shown, at_ns: int) -> None:
        """Note when the view says that it presented a picture, which is what the session counts by."""
        if not shown.is_slate:
            self.stated.append((shown.arrived_ns, (at_ns - shown.arrived_ns) / 1e6))

    def within(self, stretch: Stretch) -> list[float]:
        """Return those of the frames that count."""
        return [added_ms for arrived_ns, added_ms in self.stated if stretch.begin_ns <= arrived_ns < stretch.end_ns]


class Legibility:
    """Whether a session's pictures carry the numbers of their originals. Written by the view's thread."""

    def __init__(self) -> None:
        self._in_a_row = 0

    @property
    def is_given(self) -> bool:
        """Whether the last pictures did; once so, it stays so."""
        return self._in_a_row >= LEGIBLE_IN_A_ROW

    def check(self, shown: Shown) -> None:
        """Look at a picture."""
        if self.is_given or shown.original is None:
            return
        scale = shown.picture.width / shown.original.width
        number = read_corner(corner_of(shown.original.planes[0], 1.0))
        legible = number is not None and number == read_corner(corner_of(shown.picture.planes[0], scale))
        self._in_a_row = self._in_a_row + 1 if legible else 0


class Timekeeper:
    """Waits until a session has settled, lets frames count for some seconds, and ends it; in a thread of its own.

    Args:
        session: not yet running.
        is_ready: whether the view can be looked at.
        seconds: for how long frames count.
        patience_s: for the session to settle, after which it is ended without any.
        begun: called in that thread when frames begin to count.
        ended: called when they end to.

    Attributes:
        stretch: in which frames counted.
        lack: what kept the session from being settled, when it was last looked; empty where nothing did.
    """

    def __init__(
        self,
        session: LiveSession,
        is_ready: Callable[[], bool],
        seconds: float,
        *,
        patience_s: float = PATIENCE_S,
        begun: Callable[[], None] = lambda: None,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self.stretch, self.lack = Stretch(), "it did not begin"
        self._session, self._is_ready, self._seconds, self._patience_s = session, is_ready, seconds, patience_s
        self._begun, self._ended = begun, ended
        self._line = Line()
        self._worker = Worker("timekeeper", self._line, self._keep, lambda: None)

    def start(self) -> None:
        """Start the thread."""
        self._worker.start()

    def join(self) -> None:
        """Wait for the thread, which ends with the session.

        Raises:
            BaseException: what it failed with.
        """
        self._worker.join()
        if self._line.failure is not None:
            raise self._line.failure

    def _keep(self) -> None:
        try:
            if self._wait_until(self._has_warmed, self._patience_s) and self._wait_until(self._is_seen, SIGHT_S):
                self._wait(SETTLE_S)
                begin_ns = time.monotonic_ns()
                self._begun()
                self._wait(self._seconds)
                self.stretch = Stretch(begin_ns, time.monotonic_ns())
                self._ended()
                self._wait(LAST_LOOK_S)
        finally:
            self._session.ask(Command.QUIT)

    def _has_warmed(self) -> bool:
        status = self._session.status()
        if status.frames_shown and status.reason != WARMING:
            self.lack = "no number could be read from what is shown"
            return True
        self.lack = "the engines were not warm" if status.frames_shown else "no picture came from the source"
        return False

    def _is_seen(self) -> bool:
        if self._is_ready():
            self.lack = ""
        return not self.lack

    def _wait(self, seconds: float) -> None:
        self._wait_until(lambda: False, seconds)

    def _wait_until(self, holds: Callable[[], bool], seconds: float) -> bool:
        """Wait until something holds; return whether it does, and not the session's end or the time came first."""
        deadline = time.monotonic() + seconds
        while not self._session.over and time.monotonic() < deadline:
            if holds():
                return True
            time.sleep(LOOK_S)
        return False


def observe(
    observer: Observer, source: str, settings: LiveSettings, *, seconds: float, **options: Any
) -> tuple[LiveSession, Stretch, Ledger, Claims]:
    """Run a session until frames counted for some seconds.

    Args:
        observer: of the view that is to be looked at.
        source: of numbered frames.
        settings: of the session.
        seconds: for how long frames count.
        options: further arguments of `LiveSession`.

    Raises:
        InputError: the source gave nothing, or nothing could be read from the view.
        StreamsrError: what else ended the session.
    """
    ledger, claims, legibility = Ledger(), Claims(), Legibility()

    def presented(shown: Shown, at_ns: int) -> None:
        claims.note(shown, at_ns)
        observer.presented(shown, at_ns)
        legibility.check(shown)

    view = ObservedView(observer.view, presented)
    session = make_session(source, settings, view, hear=ledger.note, **options)
    timekeeper = Timekeeper(session, lambda: legibility.is_given and observer.is_ready, seconds)
    with observer, session:
        timekeeper.start()
        try:
            session.run()
        finally:
            session.close()
            timekeeper.join()
    if not timekeeper.stretch.end_ns:
        why = timekeeper.lack or "the source ended"
        raise InputError(
            f"{source}: expected {seconds:g} s of numbered pictures in the {view.name} view, the session ended before"
            f" ({why}); see what streamsr live says of it"
        )
    return session, timekeeper.stretch, ledger, claims


def measure_view(observer: Observer, source: str, settings: LiveSettings, *, seconds: float) -> ViewLatency:
    """Measure one view; see `observe`."""
    session, stretch, ledger, claims = observe(observer, source, settings, seconds=seconds)
    sightings, num_unreadable = observer.sightings()
    findings = find(ledger.arrivals(), sightings, stretch)
    summary, status = session.summary(), session.status()
    return ViewLatency(
        view=observer.view.name,
        seen_at=observer.seen_at,
        frames=findings.frames,
        seen=findings.seen,
        missed=findings.missed,
        out_of_order=findings.out_of_order,
        unreadable=findings.unknown + num_unreadable,
        added_latency=told(findings.percentiles),
        claimed_latency=told(summarise(claims.within(stretch))),
        interval_ms=observer.interval_ms(),
        clock_error_ms=round(observer.clock_error_ms, 3),
        by_rung=summary["by_rung"],
        dropped=summary["dropped"],
        size_out=status.size_out,
    )


def find(arrivals: Sequence[Stamp], sightings: Sequence[Stamp], stretch: Stretch) -> Findings:
    """Match what arrived and what was seen in a stretch of time."""
    return match(arrivals, sightings, begin_ns=stretch.begin_ns, end_ns=stretch.end_ns)
