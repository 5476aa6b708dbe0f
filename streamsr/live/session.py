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
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from streamsr.capture.listening import Feed, FeedEvent, FeedState
from streamsr.display.commands import Command
from streamsr.display.showing import View
from streamsr.display.shown import Shown
from streamsr.display.status import LiveStatus, RecordingStatus, SourceState
from streamsr.frame import Frame
from streamsr.live.director import Director
from streamsr.live.doors import Door, Metrics, Recorder
from streamsr.live.keeper import RungKeeper
from streamsr.live.monitor import Monitor
from streamsr.live.rungs import Enlarger, Rung
from streamsr.live.telling import Teller
from streamsr.live.wishes import Wishes
from streamsr.worker import Line, Worker

log = logging.getLogger(__name__)

JOIN_S = 1.5
"""For all threads to end after they were asked to; the recording is closed meanwhile, and may take a little more."""

LAST_LOOK_S, LONGEST_LAST_LOOK_S = 0.1, 0.5
"""Between the end of a source and the end of its session, beside the deadline of its last frame; and at most."""

WATCH_INTERVAL_S = 0.05

SWITCH_INTERVAL_S = 0.0005
"""For which one thread may keep Python to itself while another waits: a tenth of the usual, which delays a picture."""

STATES = {
    FeedState.OPENED: SourceState.LIVE,
    FeedState.LOST: SourceState.LOST,
    FeedState.RETRYING: SourceState.RECONNECTING,
    FeedState.ENDED: SourceState.ENDED,
}


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
        folder: where recordings and snapshots go; None is the working folder.
        keep_original: write the source's own packets beside every recording.
        about: what a snapshot's sidecar says of the session.
        say: takes each line of the session's log as it is written, in any thread.
        seconds: after which the session ends; None runs until asked.
        options: further arguments of `Director`.

    Attributes:
        monitor: everything counted and timed.
        director: makes what is shown.
        metrics: counts what is presented for Prometheus; None where nobody reads that.
        over: whether the session is over.
        trouble_told: why a recording stopped by itself, as far as the log says it already.
        original_trouble: why some of the original that was to be kept is not.
        num_abandoned: threads that hang in a runtime and could not be ended.
        num_building: threads that were still building an engine when the session ended.
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
        folder: Path | None = None,
        keep_original: bool = False,
        about: Mapping[str, Any] | None = None,
        say: Callable[[str], None] = lambda text: None,
        seconds: float | None = None,
        **options: Any,
    ) -> None:
        self.feed, self.view, self.recorder = feed, view, recorder
        self.line, self.monitor = Line(), Monitor(say)
        self.num_abandoned = self.num_building = 0
        self.metrics: Metrics | None = None
        self._seconds = seconds
        self._state = SourceState.OPENING
        self._shown: Shown | None = None
        self._over = self._closed = False
        self.trouble_told = self.original_trouble = ""
        self._switch_interval_s: float | None = None
        self.keeper = RungKeeper([Rung(each, self.line, build) for each, build in rungs], self.monitor)
        self.director = Director(
            self.line, self.keeper, bicubic, scale=scale, monitor=self.monitor, show=self._show, **options
        )
        self.door = Door(self, view.name)
        self._teller = Teller(
            name,
            scale,
            feed,
            door=self.door,
            monitor=self.monitor,
            director=self.director,
            keeper=self.keeper,
        )
        self.wishes = Wishes(
            self.director,
            feed,
            recorder,
            say=self.monitor.say,
            folder=folder or Path(),
            keep_original=keep_original,
            about=about,
        )
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

    def ask(self, command: Command, about: Shown | None = None) -> str:
        """Do what a person asked for; returns at once with what happens, in one line.

        Args:
            command: what is asked for.
            about: the picture that a snapshot is of; None is the newest.
        """
        if command is Command.QUIT:
            self._over = True
            return "ending"
        return self.wishes.ask(command, about or self._shown, self.status)

    def status(self) -> LiveStatus:
        """Return a snapshot of the session."""
        recording = RecordingStatus() if self.recorder is None else self.recorder.status()
        return self._teller.status(self._state, self._shown, recording)

    def summary(self) -> dict[str, Any]:
        """Return what the ``--json`` line holds of the whole session."""
        recording = None if self.recorder is None else asdict(self.recorder.status())
        kept = {"recording": recording, "original_trouble": self.original_trouble}
        return {**self._teller.summary(), **kept, "threads_left": self.num_abandoned}

    def note_presented(self, view: str, shown: Shown, at_ns: int) -> None:
        """Note that a view has a picture on its screen."""
        added_ms = self.monitor.present(view, shown, at_ns, self.director.max_latency_ms)
        if added_ms is None:
            return
        self.director.present.add((at_ns - shown.made_ns) / 1e6)
        if self.metrics is not None:
            self.metrics.observe(shown, at_ns - shown.arrived_ns)

    def receive(self, frame: Frame) -> None:
        """Take the feed's next frame: the newest wins; see `FeedListener`."""
        self.monitor.arrived(frame)
        self.director.frames.put(frame)

    def tell(self, event: FeedEvent) -> None:
        """Take what happens to the feed; see `FeedListener`."""
        self.monitor.say(event.text)
        self._state = STATES.get(event.state, self._state)
        if event.state is FeedState.UNKEPT:
            self.original_trouble = event.text
        if event.kept is not None and self.recorder is not None:
            over = event.state is FeedState.KEPT
            self.recorder.note_original(event.kept, over=over, cut_short=event.cut_short)
        if event.info is not None and event.info.rate > 0:
            self.director.stated_period_ms = float(1000 / event.info.rate)
        if event.state is FeedState.OPENED:
            self.monitor.reconnects = self.feed.num_reconnects

    def close(self) -> None:
        """End everything, within two seconds; harmless when done before."""
        self._over = True
        if self._closed:
            return
        self._closed = True
        if self._switch_interval_s is not None:
            sys.setswitchinterval(self._switch_interval_s)
        if self.recorder is not None:
            self.recorder.stop(0.0)  # who opened it waits for it
        self.feed.stop()
        self.line.stop()
        deadline = time.monotonic() + JOIN_S
        ended = [worker.join(_left_s(deadline)) for worker in self._workers if worker.started]
        ended.append(self.wishes.join(_left_s(deadline)))
        late = [rung for rung in self.keeper.rungs if rung.started and not rung.join(_left_s(deadline))]
        building = [rung.name for rung in late if rung.is_building]
        self.num_building = len(building)
        if building:
            self.monitor.say(f"{', '.join(building)}: still being built at the end")
        self.num_abandoned = ended.count(False) + len(late) - len(building)
        if self.num_abandoned:
            log.warning("%d threads hang and are left behind", self.num_abandoned)

    def _capture(self) -> None:
        try:
            self.feed.run(self)
            # For the last frame to be shown, however late its generator is.
            time.sleep(min(LAST_LOOK_S + self.director.max_latency_ms / 1e3, LONGEST_LAST_LOOK_S))
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
            self._tell_trouble(self.recorder.status().trouble)

    def _tell_trouble(self, trouble: str) -> None:
        """Log that a recording stopped by itself, and end the original with it: they belong together."""
        if trouble != self.trouble_told:
            self.trouble_told = trouble
            if trouble:
                self.monitor.say(trouble)
                self.feed.keep_original(None)

    def __enter__(self) -> LiveSession:
        self._switch_interval_s = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        for worker in self._workers:
            worker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _left_s(deadline: float) -> float:
    """Return the seconds left until a time of `time.monotonic`, and a moment where none are."""
    return max(0.05, deadline - time.monotonic())
