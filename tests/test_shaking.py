"""The queue room under schedules that shake: short runs with random sleeps, a fine switch interval, and very long ones.

``STREAMSR_SEEDS`` sets how many short runs there are.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamsr.capture.base import SourceInfo, SourceReport, TrackPacket
from streamsr.frame import Colour, Frame, PlaneLayout
from streamsr.pipeline import Pipeline
from streamsr.worker import Channel, Latest, Line, Stopped, Worker

RUNS = int(os.environ.get("STREAMSR_SEEDS", "1500"))
LONG_RUN_FRAMES = 100_000
JOIN_S = 20.0
"""Longer than any run here takes: what is not over by then hangs."""

ROOT = Path(__file__).resolve().parents[1]
GRAY = PlaneLayout(chroma_shift=None)
COLOUR = Colour(matrix=1, full_range=False, primaries=1, transfer=1)

Shake = Callable[[], None]


@pytest.fixture(autouse=True)
def fine_switches() -> Iterator[None]:
    """Let threads take turns a thousand times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


def shake_of(chance: random.Random) -> Shake:
    """Return a wait that is mostly nothing, sometimes a yield, seldom a millisecond."""

    def shake() -> None:
        draw = chance.random()
        if draw < 0.02:
            time.sleep(0.001)
        elif draw < 0.3:
            time.sleep(0)

    return shake


def picture_of(number: int) -> Any:
    """Return an 8x4 picture that spells its number, byte by byte, and its complement."""
    spelled = np.frombuffer(number.to_bytes(4, "little"), np.uint8)
    return np.tile(np.concatenate([spelled, ~spelled]), (4, 1))


class NumberedSource:
    """Gives numbered frames and packets between them; may fail at an item."""

    def __init__(self, num: int, shake: Shake, *, fail_at: int | None = None) -> None:
        self.num, self.shake, self.fail_at = num, shake, fail_at
        self.info = SourceInfo("numbered", 8, 4, GRAY, COLOUR, Fraction(1, 25), Fraction(25))
        self.report = SourceReport()

    def __iter__(self) -> Iterator[Frame | TrackPacket]:
        for number in range(self.num):
            self.shake()
            if number == self.fail_at:
                raise RuntimeError(f"source {number}")
            yield Frame((picture_of(number),), GRAY, COLOUR, pts=number, time_base=Fraction(1, 25), sequence=number)
            if number % 5 == 2:
                yield TrackPacket(1, number)

    def __enter__(self) -> NumberedSource:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class CheckingSink:
    """Checks order, count and pixels of what it is given; may fail at a frame."""

    def __init__(self, shake: Shake, *, fail_at: int | None = None) -> None:
        self.shake, self.fail_at = shake, fail_at
        self.num_frames = self.num_packets = 0

    def show(self, frame: Frame) -> None:
        self.shake()
        if frame.sequence == self.fail_at:
            raise RuntimeError(f"sink {frame.sequence}")
        assert frame.sequence == self.num_frames
        assert np.array_equal(frame.planes[0], np.repeat(picture_of(frame.sequence), 2, axis=0))
        self.num_frames += 1

    def pass_through(self, track: int, packet: Any) -> None:
        assert packet == self.num_frames - 1, "a packet stays behind the frame that it followed"
        self.num_packets += 1

    def __enter__(self) -> CheckingSink:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def upscaler(shake: Shake, *, fail_at: int | None = None) -> Callable[[Frame], Frame]:
    """Return a stage that doubles the rows; may fail at a frame."""

    def upscale(frame: Frame) -> Frame:
        shake()
        if frame.sequence == fail_at:
            raise RuntimeError(f"upscaler {frame.sequence}")
        return frame.with_planes((np.repeat(frame.planes[0], 2, axis=0),))

    return upscale


def outcome(line: Pipeline, shake: Shake | None) -> str:
    """Run a line, stopped after a shake if one is given; return the failure it raised, or that it hangs."""
    with line:
        if shake is not None:
            shake()
            line.stop()
        try:
            return "" if line.join(JOIN_S) else "hangs"
        except RuntimeError as cause:
            return str(cause)


def test_short_runs_under_shaken_schedules_lose_nothing_and_always_end() -> None:
    for seed in range(RUNS):
        chance = random.Random(seed)
        shake = shake_of(random.Random(seed + 1))
        num = chance.randrange(1, 12)
        stage = chance.choice(("source", "upscaler", "sink", None, None))
        at = {stage: chance.randrange(num)} if stage else {}
        sink = CheckingSink(shake, fail_at=at.get("sink"))
        source = NumberedSource(num, shake, fail_at=at.get("source"))
        line = Pipeline(source, upscaler(shake, fail_at=at.get("upscaler")), sink, queue_items=chance.choice((1, 2, 4)))
        stops = chance.random() < 0.2
        failure = outcome(line, shake if stops else None)
        assert failure != "hangs", f"seed {seed}"
        assert not failure or failure.split()[0] == stage, f"seed {seed}"
        assert failure or stops or stage is None, f"seed {seed}: a failure was lost"
        if stage is None and not stops:
            assert (sink.num_frames, sink.num_packets) == (num, len(range(2, num, 5))), f"seed {seed}"


def test_stopping_from_many_threads_at_once_ends_every_wait() -> None:
    for seed in range(RUNS // 10):
        shake = shake_of(random.Random(seed))
        line = Line()
        channel: Channel[int] = line.channel(1)
        latest: Latest[int] = Latest(line)

        def fill(channel: Channel[int] = channel) -> None:
            while True:
                channel.put(1)

        def empty(channel: Channel[int] = channel, shake: Shake = shake) -> None:
            for _ in channel:
                shake()

        def wait(latest: Latest[int] = latest) -> None:
            while True:
                latest.take(1.0)

        workers = [Worker(work.__name__, line, work, lambda: None) for work in (fill, empty, wait)]
        for worker in workers:
            worker.start()
        shake()
        stoppers = [threading.Thread(target=line.stop) for _ in range(3)]
        for stopper in stoppers:
            stopper.start()
        assert all(worker.join(JOIN_S) for worker in workers), f"seed {seed} hangs"
        for stopper in stoppers:
            stopper.join()
        with pytest.raises(Stopped):
            latest.take(0.0)


def test_the_newest_item_is_never_older_than_the_last_one_taken() -> None:
    for seed in range(RUNS // 10):
        shake = shake_of(random.Random(seed))
        line = Line()
        latest: Latest[int] = Latest(line)
        taken: list[int] = []

        def give(latest: Latest[int] = latest, shake: Shake = shake) -> None:
            for number in range(1, 40):
                latest.put(number)
                shake()

        def take(latest: Latest[int] = latest, taken: list[int] = taken, shake: Shake = shake) -> None:
            while not taken or taken[-1] != 39:
                item = latest.take(JOIN_S)
                assert item is not None
                taken.append(item)
                shake()

        workers = [Worker("give", line, give, lambda: None), Worker("take", line, take, lambda: None)]
        for worker in workers:
            worker.start()
        assert all(worker.join(JOIN_S) for worker in workers), f"seed {seed} hangs"
        assert line.failure is None
        assert taken == sorted(set(taken))
        assert len(taken) + latest.num_dropped == 39


@pytest.mark.slow
def test_a_hundred_thousand_frames_keep_their_order_their_count_and_their_pixels() -> None:
    def never() -> None:
        pass

    sys.setswitchinterval(0.005)
    sink = CheckingSink(never)
    with Pipeline(NumberedSource(LONG_RUN_FRAMES, never), upscaler(never), sink) as line:
        assert line.join(600)
    assert (sink.num_frames, sink.num_packets) == (LONG_RUN_FRAMES, LONG_RUN_FRAMES // 5)


def test_the_line_holds_in_developer_mode_with_warnings_as_errors() -> None:
    environment = {**os.environ, "STREAMSR_SEEDS": "60"}
    chosen = ["tests/test_pipeline.py", "tests/test_shaking.py"]
    child = subprocess.run(
        [
            sys.executable,
            "-X",
            "dev",
            "-W",
            "error",
            "-m",
            "pytest",
            "-q",
            "-k",
            "not hundred and not developer",
            *chosen,
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert child.returncode == 0, child.stdout[-2000:] + child.stderr[-2000:]
