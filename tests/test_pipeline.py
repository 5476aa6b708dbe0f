"""The line: order, failure at any stage and frame, stopping, and no thread left behind."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from streamsr.capture.base import SourceInfo, SourceReport, TrackPacket
from streamsr.frame import Colour, Frame, PlaneLayout
from streamsr.pipeline import Pipeline
from streamsr.plans import PlanCache
from streamsr.worker import Channel, Latest, Line, Stopped, Worker
from tests.test_plans import building, is_gone, wait_for

GRAY = PlaneLayout(chroma_shift=None)
COLOUR = Colour(matrix=1, full_range=False, primaries=1, transfer=1)


class CountingSource:
    """Gives ``num`` tiny frames numbered in their pixels, a packet after every third, and fails at ``fail_at``."""

    def __init__(self, num: int, *, fail_at: int | None = None) -> None:
        self.num, self.fail_at = num, fail_at
        self.info = SourceInfo("counting", 8, 8, GRAY, COLOUR, Fraction(1, 25), Fraction(25))
        self.report = SourceReport()

    def __iter__(self) -> Iterator[Frame | TrackPacket]:
        for number in range(self.num):
            if number == self.fail_at:
                raise RuntimeError("source broke")
            picture = np.full((8, 8), number % 256, np.uint8)
            yield Frame((picture,), GRAY, COLOUR, pts=number * 2, time_base=Fraction(1, 50), sequence=number)
            if number % 3 == 0:
                yield TrackPacket(1, number)

    def __enter__(self) -> CountingSource:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class ListSink:
    """Keeps the sequence numbers and packets it was given; fails at ``fail_at``."""

    def __init__(self, *, fail_at: int | None = None, delay: float = 0.0) -> None:
        self.fail_at, self.delay = fail_at, delay
        self.shown: list[int] = []
        self.events: list[object] = []

    def show(self, frame: Frame) -> None:
        if frame.sequence == self.fail_at:
            raise RuntimeError("sink broke")
        time.sleep(self.delay)
        assert int(frame.planes[0][0, 0]) == frame.sequence % 256
        self.shown.append(frame.sequence)
        self.events.append(frame.sequence)

    def pass_through(self, track: int, packet: object) -> None:
        self.events.append(f"packet {packet}")

    def __enter__(self) -> ListSink:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def breaking_at(number: int | None) -> object:
    def upscale(frame: Frame) -> Frame:
        if frame.sequence == number:
            raise RuntimeError("upscaler broke")
        return frame

    return upscale


def test_every_frame_and_packet_arrives_once_in_order() -> None:
    sink = ListSink()
    with Pipeline(CountingSource(500), lambda frame: frame, sink) as pipeline:
        assert pipeline.join()
    assert sink.shown == list(range(500))
    assert sink.events[:6] == [0, "packet 0", 1, 2, 3, "packet 3"]
    assert pipeline.progress().shown == 500
    assert pipeline.progress().seconds == pytest.approx(499 * 2 / 50)
    assert {name: clock.num for name, clock in pipeline.clocks.items()} == {
        "capture": 500,
        "upscale": 500,
        "sink": 500,
    }


@pytest.mark.parametrize("number", [0, 1, 7, 39])
@pytest.mark.parametrize("stage", ["source", "upscaler", "sink"])
def test_a_failure_at_any_stage_is_raised_by_join_and_leaves_no_thread(stage: str, number: int) -> None:
    source = CountingSource(40, fail_at=number if stage == "source" else None)
    sink = ListSink(fail_at=number if stage == "sink" else None)
    upscale = breaking_at(number if stage == "upscaler" else None)
    with pytest.raises(RuntimeError, match=f"{stage} broke"), Pipeline(source, upscale, sink) as pipeline:  # type: ignore[arg-type]
        pipeline.join()
    assert sink.shown == list(range(len(sink.shown)))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("streamsr-")]


def test_stop_ends_a_line_whose_sink_is_slow() -> None:
    sink = ListSink(delay=0.01)
    with Pipeline(CountingSource(100_000), lambda frame: frame, sink) as pipeline:
        while pipeline.progress().shown < 3:
            time.sleep(0.001)
        pipeline.stop()
        assert pipeline.join(timeout=10)
    assert 3 <= len(sink.shown) < 100_000


def test_stop_ends_the_wait_for_a_plan_and_its_builder(tmp_path: Path) -> None:
    number = tmp_path / "number"

    def upscale(frame: Frame) -> Frame:
        building(PlanCache(tmp_path / "plans"), number)
        return frame

    with Pipeline(CountingSource(3), upscale, ListSink()) as pipeline:
        wait_for(lambda: number.is_file() and number.read_text())
        pipeline.stop()
        assert pipeline.join(timeout=2)
    assert is_gone(int(number.read_text()))


def test_leaving_the_pipeline_early_stops_it() -> None:
    with Pipeline(CountingSource(100_000), lambda frame: frame, ListSink(delay=0.001)) as pipeline:
        assert not pipeline.join(timeout=0.01)
    assert pipeline.join(timeout=0)


def test_queues_hold_no_more_than_their_size() -> None:
    held = 0
    most = 0
    lock = threading.Lock()

    class Watching(CountingSource):
        def __iter__(self) -> Iterator[Frame | TrackPacket]:
            nonlocal held, most
            for item in super().__iter__():
                if isinstance(item, Frame):
                    with lock:
                        held += 1
                        most = max(most, held)
                yield item

    class Releasing(ListSink):
        def show(self, frame: Frame) -> None:
            nonlocal held
            super().show(frame)
            with lock:
                held -= 1

    with Pipeline(Watching(60), lambda frame: frame, Releasing(delay=0.001), queue_items=2) as pipeline:
        pipeline.join()
    assert most <= 2 + 2 + 3  # two queues and one item in the hands of each stage


def test_the_first_failure_wins() -> None:
    line = Line()
    line.fail("one", ValueError("first"))
    line.fail("two", ValueError("second"))
    assert str(line.failure) == "first"
    assert line.stopped


def test_a_full_channel_wakes_up_on_stop() -> None:
    line = Line()
    channel: Channel[int] = line.channel(1)
    channel.put(1)
    caught: list[type[BaseException]] = []

    def work() -> None:
        try:
            channel.put(2)
        except Stopped:
            caught.append(Stopped)
            raise

    worker = Worker("full", line, work, channel.end)
    worker.start()
    time.sleep(0.01)
    line.stop()
    assert worker.join(5)
    assert caught == [Stopped]
    assert line.failure is None


def test_the_newest_item_wins_and_what_it_replaced_is_counted() -> None:
    latest: Latest[int] = Latest(Line())
    assert latest.take(0.0) is None
    for number in range(5):
        latest.put(number)
    assert latest.take(0.0) == 4
    assert latest.num_dropped == 4
    latest.put(5)
    assert (latest.take(0.0), latest.num_dropped) == (5, 4)


def test_a_wait_for_the_newest_item_wakes_up_on_stop() -> None:
    line = Line()
    latest: Latest[int] = Latest(line)
    timer = threading.Timer(0.05, line.stop)
    timer.start()
    started = time.monotonic()
    with pytest.raises(Stopped):
        latest.take(60.0)
    timer.join()
    assert time.monotonic() - started < 30


def test_items_queued_before_the_end_are_delivered() -> None:
    line = Line()
    channel: Channel[int] = line.channel(3)
    for item in (1, 2, 3):
        channel.put(item)
    channel.end()
    assert list(channel) == [1, 2, 3]


class Delayed:
    """An upscaler with frames in flight, which fails at a frame; counts what it holds."""

    def __init__(self, frames_in_flight: int = 3, *, fail_at: int | None = None, at: str = "submit") -> None:
        self.frames_in_flight, self.fail_at, self.at = frames_in_flight, fail_at, at
        self.flying: list[Frame] = []
        self.most, self.drained = 0, False

    def submit(self, frame: Frame) -> None:
        if self.at == "submit" and frame.sequence == self.fail_at:
            raise RuntimeError("upscaler broke")
        self.flying.append(frame)
        self.most = max(self.most, len(self.flying))

    def collect(self) -> Frame:
        frame = self.flying.pop(0)
        if self.at == "collect" and frame.sequence == self.fail_at:
            raise RuntimeError("upscaler broke")
        return frame

    def drain(self) -> None:
        self.flying.clear()
        self.drained = True


@pytest.mark.parametrize("num", [0, 1, 2, 3, 4, 500])
@pytest.mark.parametrize("frames_in_flight", [1, 3])
def test_frames_in_flight_and_packets_keep_their_order(num: int, frames_in_flight: int) -> None:
    plain, sink, flight = ListSink(), ListSink(), Delayed(frames_in_flight)
    with Pipeline(CountingSource(num), lambda frame: frame, plain) as pipeline:
        assert pipeline.join()
    with Pipeline(CountingSource(num), flight, sink) as pipeline:
        assert pipeline.join()
    assert sink.events == plain.events
    assert flight.most == min(num, frames_in_flight)
    assert flight.drained
    assert pipeline.clocks["upscale"].num == num


@pytest.mark.parametrize("at", ["submit", "collect"])
@pytest.mark.parametrize("number", [0, 2, 39])
def test_a_failure_with_frames_in_flight_is_raised_and_drains(at: str, number: int) -> None:
    sink, flight = ListSink(), Delayed(fail_at=number, at=at)
    with pytest.raises(RuntimeError, match="upscaler broke"), Pipeline(CountingSource(40), flight, sink) as pipeline:
        pipeline.join()
    assert flight.drained
    assert sink.shown == list(range(len(sink.shown)))


def test_stopping_with_frames_in_flight_drains() -> None:
    flight = Delayed()
    with Pipeline(CountingSource(100_000), flight, ListSink(delay=0.001)) as pipeline:
        assert not pipeline.join(timeout=0.02)
    assert pipeline.join(timeout=0)
    assert flight.drained


def test_a_line_that_has_ended_holds_nothing_in_a_circle() -> None:
    """What enlarged, buffers of a GPU among it, goes with the line and not when the collector of circles runs."""
    delayed = Delayed(2)
    gone = weakref.ref(delayed)
    gc.collect()
    gc.disable()
    try:
        with Pipeline(CountingSource(5), delayed, ListSink()) as line:
            assert line.join()
        del line, delayed
        assert gone() is None
    finally:
        gc.enable()
