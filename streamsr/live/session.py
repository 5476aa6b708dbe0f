"""LiveSession: one source to one view now; makes every thread, and alone ends them.

    feed ──► newest frame ──► director ──► newest picture ──► view
    streamsr-capture          streamsr-director               streamsr-<view>, or the main thread
                              streamsr-rung-<name>, one a rung │
                                                               └► recorder (streamsr-record)

Between two stages there is room for one item and the newest wins, so that delay cannot build up. When the feed, the
director or the view fails, the session ends and `run` raises the cause; when a rung fails, the picture goes on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Protocol

from streamsr.capture.listening import Feed, FeedEvent, FeedState
from streamsr.display.commands import Command
from streamsr.display.showing import View
from streamsr.display.shown import Shown
from streamsr.display.status import LiveStatus, RecordingStatus, SourceState
from streamsr.frame import Frame
from streamsr.live.director import SMOOTHING, Director
from streamsr.live.keeper import RungKeeper
from streamsr.live.monitor import Monitor
from streamsr.live.rungs import Enlarger, Rung
from streamsr.worker import Latest, Line, Stopped, Worker

log = logging.getLogger(__name__)

JOIN_S = 1.6
"""For all threads to end after they were asked to: with closing the recording, two seconds."""

WATCH_INTERVAL_S = 0.05

STATES = {
    FeedState.OPENED: SourceState.LIVE,
    FeedState.LOST: SourceState.LOST,
    FeedState.RETRYING: SourceState.RECONNECTING,
    FeedState.ENDED: SourceState.ENDED,
}


class Recorder(Protocol):
    """What records; `sinks.live_recording.LiveRecorder` is one."""

    def offer(self, shown: Shown) -> None:
        """Take a picture; never waits."""

    def start(self) -> None:
        """Begin to record."""

    def stop(self) -> None:
        """End the recording; within two seconds."""

    def status(self) -> RecordingStatus:
        """Say how the recording is."""


class Door:
    """What one view is given of a session; see `streamsr.display.showing.Showing`."""

    def __init__(self, session: LiveSession, name: str) -> None:
        self._session, self._name = session, name
        self._newest: Latest[Shown] = Latest(session.line)

    @property
    def ended(self) -> bool:
        """Whether the session is over."""
        return self._session.over

    def leave(self, shown: Shown) -> None:
        """Leave a picture for the view; never waits."""
        self._newest.put(shown)

    def next(self, timeout_s: float) -> Shown | None:
        """Wait for a picture newer than the last one given; None when none came in time or the session is over."""
        try:
            return self._newest.take(timeout_s)
        except Stopped:
            return None

    def presented(self, shown: Shown, at_ns: int | None = None) -> None:
        """Say that a picture is on the screen."""
        self._session.note_presented(self._name, shown, time.monotonic_ns() if at_ns is None else at_ns)

    def status(self) -> LiveStatus:
        """Return a snapshot of the session."""
        return self._session.status()

    def ask(self, command: Command) -> str:
        """Ask the session for one of its commands; returns what happens, in one line."""
        return self._session.ask(command)


class LiveSession:
    """One source, its rungs, one view and perhaps a recording; a context manager whose threads are gone when left.

    Args:
        feed: the source; not yet running.
        view: what shows the pictures.
        rungs: (name, what builds it in the rung's thread from a bit depth), best first.
        bicubic: enlarges what no rung does in time.
        scale: of all of them.
        name: of the source, without secrets.
        recorder: what records; None where nothing is to be.
        snapshot: writes a pair of pictures and returns a line; None where it cannot be asked for.
        watch: told of every picture with its added latency in milliseconds, in the view's thread.
        say: takes each line of the session's log as it is written, in any thread.
        seconds: after which the session ends; None runs until asked.
        options: further arguments of `Director`.

    Attributes:
        monitor: everything counted and timed.
        director: makes what is shown.
        over: whether the session is over.
        num_abandoned: threads that hang in a runtime and could not be ended.
    """

    def __init__(
        self,
        feed: Feed,
        view: View,
        rungs: list[tuple[str, Callable[[int], Enlarger]]],
        bicubic: Enlarger,
        *,
        scale: int,
        name: str = "",
        recorder: Recorder | None = None,
        snapshot: Callable[[Shown, LiveStatus], str] | None = None,
        watch: Callable[[Shown, float], None] | None = None,
        say: Callable[[str], None] = lambda text: None,
        seconds: float | None = None,
        **options: Any,
    ) -> None:
        self.feed, self.view, self.recorder, self.name, self.scale = feed, view, recorder, name, scale
        self.line, self.monitor = Line(), Monitor(say)
        self.num_abandoned = 0
        self._snapshot, self._watch, self._seconds = snapshot, watch, seconds
        self._state = SourceState.OPENING
        self._shown: Shown | None = None
        self._over = False
        self.keeper = RungKeeper([Rung(each, self.line, build) for each, build in rungs], self.monitor)
        self.director = Director(
            self.line, self.keeper, bicubic, scale=scale, monitor=self.monitor, show=self._show, **options
        )
        self.door = Door(self, view.name)
        self._workers = [
            Worker("capture", self.line, self._capture, lambda: None),
            Worker("director", self.line, self.director.run, lambda: None),
        ]
        if not view.wants_main_thread:
            self._workers.append(Worker(view.name, self.line, self._run_view, lambda: None))

    @property
    def over(self) -> bool:
        """Whether the session is over: asked to end, out of time, out of source, or failed."""
        return self._over or self.line.stopped or self._out_of_time

    @property
    def _out_of_time(self) -> bool:
        return self._seconds is not None and self.monitor.now_s >= self._seconds

    def run(self) -> None:
        """Run the session to its end; call it in the main thread, inside the ``with``.

        Raises:
            StreamsrError: what ended it, where it did not end well.
        """
        if self.view.wants_main_thread:
            self.view.run(self.door)
        else:
            while not self.over:
                time.sleep(WATCH_INTERVAL_S)
        self.close()
        if self.line.failure is not None:
            raise self.line.failure

    def ask(self, command: Command) -> str:
        """Do what a person asked for; returns at once with what happens, in one line."""
        if command is Command.QUIT:
            self._over = True
            return "ending"
        if command is Command.BYPASS:
            return self._toggle_bypass()
        if command is Command.BADGE:
            self.director.badge = not self.director.badge
            return self._say(f"badge {'on' if self.director.badge else 'off'}")
        if command is Command.RECORD:
            return self._toggle_recording()
        if command is Command.SNAPSHOT:
            return self._take_snapshot()
        return f"{command.value} is for the view, not for the session"

    def status(self) -> LiveStatus:
        """Return a snapshot of the session."""
        director, ladder, monitor = self.director, self.keeper.ladder, self.monitor
        latest, shown = director.latest, self._shown
        measured = self._counted(monitor.measured())
        rung = self.keeper.rung
        return LiveStatus(
            **measured,
            source=self.name,
            state=self._state_now(),
            signal_age_s=0.0 if latest is None else (time.monotonic_ns() - latest.arrived_ns) / 1e9,
            size_in=(0, 0) if latest is None else (latest.width, latest.height),
            size_out=(0, 0) if shown is None else (shown.picture.width, shown.picture.height),
            engine=self._names[0],
            runtime=rung.description if rung else self._names[-1],
            rungs=self._names,
            rung=self._names[ladder.rung],
            reason="bypass" if director.bypassed else ladder.reason,
            bypassed=director.bypassed,
            alarm=self.keeper.alarm or ("no signal" if shown is not None and shown.alarm and shown.is_slate else ""),
            badge=director.badge,
            period_ms=director.period_ms,
            max_latency_ms=director.max_latency_ms,
            skipped=self._skipped(),
            recording=RecordingStatus() if self.recorder is None else self.recorder.status(),
        )

    def summary(self) -> Mapping[str, Any]:
        """Return what the ``--json`` line holds of the whole session."""
        return {
            **self._counted(self.monitor.summary()),
            "source": self.name,
            "ladder": list(self._names),
            "max_latency_ms": round(self.director.max_latency_ms, 3),
            "threads_left": self.num_abandoned,
        }

    def note_presented(self, view: str, shown: Shown, at_ns: int) -> None:
        """Note that a view has a picture on its screen."""
        added_ms = self.monitor.present(view, shown, at_ns)
        if added_ms is None:
            return
        took_ms = (at_ns - shown.made_ns) / 1e6
        self.director.present_ms += SMOOTHING * (took_ms - self.director.present_ms)
        if self._watch is not None:
            self._watch(shown, added_ms)

    def receive(self, frame: Frame) -> None:
        """Take the feed's next frame: the newest wins; see `FeedListener`."""
        self.monitor.arrived(frame)
        self.director.frames.put(frame)

    def tell(self, event: FeedEvent) -> None:
        """Take what happens to the feed; see `FeedListener`."""
        self._say(event.text)
        self._state = STATES.get(event.state, self._state)
        if event.info is not None and event.info.rate > 0:
            self.director.stated_period_ms = float(1000 / event.info.rate)
        if event.state is FeedState.OPENED:
            self.monitor.reconnects = self.feed.num_reconnects

    def close(self) -> None:
        """End everything, within two seconds; harmless when done before."""
        self._over = True
        self.feed.stop()
        self.line.stop()
        deadline = time.monotonic() + JOIN_S
        ended = [worker.join(max(0.05, deadline - time.monotonic())) for worker in self._workers if worker.started]
        ended += [rung.join(max(0.05, deadline - time.monotonic())) for rung in self.keeper.rungs if rung.started]
        if self.recorder is not None:
            self.recorder.stop()
        self.num_abandoned = ended.count(False)
        if self.num_abandoned:
            log.warning("%d threads hang and are left behind", self.num_abandoned)

    def _capture(self) -> None:
        try:
            self.feed.run(self)
        finally:
            self._state = SourceState.ENDED
            self._over = True

    def _run_view(self) -> None:
        try:
            self.view.run(self.door)
        finally:
            self._over = True

    def _show(self, shown: Shown) -> None:
        self._shown = shown
        self.door.leave(shown)
        if self.recorder is not None:
            self.recorder.offer(shown)

    def _toggle_bypass(self) -> str:
        asked = not self.director.bypassed
        self.director.bypass(asked)
        return self._say(f"bypass {'on' if asked else 'off'}")

    def _toggle_recording(self) -> str:
        if self.recorder is None:
            return "recording: expected a folder; start with --record DIR"
        if self.recorder.status().active:
            self.recorder.stop()
            self.feed.keep_original(None)
            return self._say("recording off")
        self.recorder.start()
        return self._say("recording on")

    def _take_snapshot(self) -> str:
        shown = self._shown
        if shown is None or shown.is_slate or self._snapshot is None:
            return "no snapshot: there is no picture"
        return self._say(self._snapshot(shown, self.status()))

    def _state_now(self) -> SourceState:
        """Return how the source is: silent sources are lost before the feed itself knows."""
        silent = self._shown is not None and self._shown.is_slate and self.director.latest is not None
        return SourceState.LOST if silent and self._state is SourceState.LIVE else self._state

    @property
    def _names(self) -> tuple[str, ...]:
        return (*(rung.name for rung in self.keeper.rungs), f"bicubic-x{self.scale}")

    def _counted(self, measured: dict[str, Any]) -> dict[str, Any]:
        """Add to what was counted here what the feed and the place of the newest frame count."""
        feed = self.feed
        causes = {"overrun": self.director.frames.num_dropped + feed.num_dropped, "damaged": feed.num_damaged}
        dropped = {cause: number for cause, number in causes.items() if number}
        return {
            **measured,
            "frames_in": measured["frames_in"] + feed.num_dropped,
            "dropped": {**measured["dropped"], **dropped},
        }

    def _skipped(self) -> float:
        rung = self.keeper.rung
        count = getattr(rung.enlarger, "count", None) if rung else None
        return count.skipped / count.total if count is not None and count.total else 0.0

    def _say(self, text: str) -> str:
        self.monitor.say(text)
        return text

    def __enter__(self) -> LiveSession:
        for worker in self._workers:
            worker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
