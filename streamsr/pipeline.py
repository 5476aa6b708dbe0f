"""The line as threads and bounded queues: capture -> upscale -> sink.

    capture thread          upscale thread           sink thread
    iterates the source ─►  Frame -> Frame       ─►  encodes or shows
                      [4 items]             [4 items]

`Pipeline` makes every thread, queue and the one stop event, and alone joins them. Packets that pass through travel in
the same queues, so sound stays in order with the picture. When a stage fails the line stops: the capture thread leaves
its source between two items, the upscale thread finishes its frame, the sink thread finishes its write, and `join`
raises the first cause.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, TypeAlias

from streamsr.capture.base import Source, TrackPacket
from streamsr.frame import Frame
from streamsr.plans import telling_builds
from streamsr.sinks.base import Sink
from streamsr.timing import StageClock
from streamsr.worker import Channel, Line, Worker

QUEUE_ITEMS = 4
"""Room between two stages: enough that a slow frame in one does not stall the other, little enough that four 4K
frames (50 MB) are all that waits."""

Item: TypeAlias = "Frame | TrackPacket"


class Flight(Protocol):
    """An upscaler that works on several frames at a time, so that copies and computing overlap.

    Attributes:
        frames_in_flight: frames between `submit` and `collect`, at most.
    """

    frames_in_flight: int

    def submit(self, frame: Frame) -> None:
        """Take the next frame."""

    def collect(self) -> Frame:
        """Wait for the oldest frame in flight and return it enlarged."""

    def drain(self) -> None:
        """Wait for what is in flight and drop it."""


@dataclass(frozen=True)
class Progress:
    """How far a pipeline is.

    Attributes:
        captured: frames out of the source.
        upscaled: frames out of the upscaler.
        shown: frames into the sink.
        seconds: presentation time of the last frame shown.
    """

    captured: int
    upscaled: int
    shown: int
    seconds: float


class Pipeline:
    """One source through one upscaler into one sink; a context manager whose threads are gone when it is left.

    Args:
        source: an open source; the capture thread alone uses it until `join` returns.
        upscale: turns a frame into its enlarged frame, or an upscaler with several in flight; the upscale thread alone
            calls it.
        sink: an open sink; the sink thread alone uses it until `join` returns.
        queue_items: room between two stages.
    """

    def __init__(
        self, source: Source, upscale: Callable[[Frame], Frame] | Flight, sink: Sink, *, queue_items: int = QUEUE_ITEMS
    ) -> None:
        self.source, self.sink = source, sink
        self.clocks = {name: StageClock(name) for name in ("capture", "upscale", "sink")}
        self._line = Line()
        self._captured: Channel[Item] = self._line.channel(queue_items)
        self._upscaled: Channel[Item] = self._line.channel(queue_items)
        work = (lambda: self._enlarge(upscale)) if callable(upscale) else (lambda: self._enlarge_in_flight(upscale))
        self._workers = [
            Worker("capture", self._line, self._capture, self._captured.end),
            Worker("upscale", self._line, lambda: self._ending_builds(work), self._upscaled.end),
            Worker("sink", self._line, self._show, lambda: None),
        ]
        self._last_shown: Frame | None = None
        self._upscale_ns = 0

    def start(self) -> None:
        """Start the threads."""
        for worker in self._workers:
            worker.start()

    def stop(self) -> None:
        """Ask every stage to end after the item it is at; returns at once."""
        self._line.stop()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end of the line.

        Args:
            timeout: seconds to wait; None waits for ever.

        Returns:
            Whether every thread has ended.

        Raises:
            BaseException: the first failure of any stage, once every thread has ended.
        """
        ended = all(worker.join(timeout) for worker in self._workers)
        if ended and self._line.failure is not None:
            raise self._line.failure
        return ended

    def progress(self) -> Progress:
        """Say how far the line is; may be called from any thread."""
        last = self._last_shown
        return Progress(
            captured=self.clocks["capture"].num,
            upscaled=self.clocks["upscale"].num,
            shown=self.clocks["sink"].num,
            seconds=0.0 if last is None else last.seconds,
        )

    def _capture(self) -> None:
        items = iter(self.source)
        clock = self.clocks["capture"]
        while True:
            started = time.perf_counter_ns()
            item = next(items, None)
            if item is None:
                return
            if isinstance(item, Frame):
                clock.add(time.perf_counter_ns() - started)
            self._captured.put(item)

    def _ending_builds(self, work: Callable[[], None]) -> None:
        """Run the upscale stage; a plan that it waits for, which takes minutes, does not hold up a line that stops."""
        with telling_builds(lambda progress: self._line.check()):
            work()

    def _enlarge(self, upscale: Callable[[Frame], Frame]) -> None:
        clock = self.clocks["upscale"]
        for item in self._captured:
            if isinstance(item, Frame):
                with clock.measure():
                    item = upscale(item)
            self._upscaled.put(item)

    def _enlarge_in_flight(self, flight: Flight) -> None:
        """Keep several frames in flight; packets wait for the frames before them."""
        waiting: deque[TrackPacket | None] = deque()  # None stands for a frame in flight
        try:
            for item in self._captured:
                if isinstance(item, Frame):
                    while waiting.count(None) == flight.frames_in_flight:
                        self._put_next(flight, waiting)
                    with self._upscale_part():
                        flight.submit(item)
                waiting.append(None if isinstance(item, Frame) else item)
                while waiting and waiting[0] is not None:
                    self._put_next(flight, waiting)
            while waiting:
                self._put_next(flight, waiting)
        finally:
            flight.drain()

    def _put_next(self, flight: Flight, waiting: deque[TrackPacket | None]) -> None:
        """Pass on the oldest item."""
        packet = waiting.popleft()
        if packet is not None:
            self._upscaled.put(packet)
            return
        with self._upscale_part():
            frame = flight.collect()
        self.clocks["upscale"].add(self._upscale_ns)
        self._upscale_ns = 0
        self._upscaled.put(frame)

    @contextmanager
    def _upscale_part(self) -> Iterator[None]:
        """Add the time that the body takes to that of the next frame that comes out."""
        started = time.perf_counter_ns()
        yield
        self._upscale_ns += time.perf_counter_ns() - started

    def _show(self) -> None:
        clock = self.clocks["sink"]
        for item in self._upscaled:
            if isinstance(item, Frame):
                with clock.measure():
                    self.sink.show(item)
                self._last_shown = item
            else:
                self.sink.pass_through(item.track, item.packet)

    def __enter__(self) -> Pipeline:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        for worker in self._workers:
            worker.join()
