"""Doubles for the page's tests: a session that shows numbered test frames, and a server of it in a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from time import monotonic, monotonic_ns, sleep

import cv2
import numpy as np

from streamsr.capture.framecode import draw_frame_code
from streamsr.capture.testsrc import EndoscopySource, TestSettings
from streamsr.config import WebSettings
from streamsr.display.commands import Command
from streamsr.display.shown import Shown
from streamsr.display.slate import no_signal_lines, slate
from streamsr.display.status import LiveStatus, RecordingStatus, SourceState
from streamsr.frame import Frame
from streamsr.sinks.web import WebView
from streamsr.timing import Percentiles

SCALE = 2
SOURCE = TestSettings(width=160, height=120, frames=4)
ENHANCED_LUMA, CAMERA_LUMA = 200, 60
"""Of the band across the middle, so that pixels tell which picture they are of."""


def band(luma: np.ndarray, value: int) -> None:
    """Paint the middle quarter of the rows of a luma plane, in place."""
    height = luma.shape[0]
    luma[height * 3 // 8 : height * 5 // 8] = value


def camera_frame(number: int, source: TestSettings = SOURCE) -> Frame:
    """Return a numbered frame of the test source, with the camera's band in it."""
    with EndoscopySource(source) as opened:
        frame = opened.frame(number % source.frames)
    luma = frame.planes[0].copy()
    band(luma, CAMERA_LUMA)
    draw_frame_code(luma, number)
    now = monotonic_ns()
    planes = (luma, *frame.planes[1:])
    return replace(frame, planes=planes, pts=number, sequence=number, captured_ns=now, arrived_ns=now)


def enlarge(frame: Frame, luma: int) -> Frame:
    """Return a frame at twice the size, another band in it, with its number."""
    size = (frame.width * SCALE, frame.height * SCALE)
    planes = [cv2.resize(frame.planes[0], size, interpolation=cv2.INTER_CUBIC)]
    planes += [cv2.resize(plane, (size[0] // 2, size[1] // 2)) for plane in frame.planes[1:]]
    band(planes[0], luma)
    draw_frame_code(planes[0], frame.sequence, scale=SCALE)
    return frame.with_planes(tuple(planes))


class FakeShowing:
    """A session at a steady rate that remembers what it was asked and when.

    Args:
        rate: pictures a second.
        source: what the pictures are made of.
    """

    def __init__(self, rate: float = 25, source: TestSettings = SOURCE) -> None:
        self.period_s = 1 / rate
        self.source = source
        self.ended = False
        self.asked: list[Command] = []
        self.answers: dict[Command, str] = {}
        self.bypassed_at: int | None = None
        self.presented_numbers: list[int] = []
        self.number = -1
        self.state = SourceState.LIVE
        self.status_changes: dict[str, object] = {}
        self.alarm = ""
        self.is_lost = False
        self._due = monotonic()
        self._bases = [camera_frame(number, source) for number in range(source.frames)]
        self._large = [enlarge(frame, ENHANCED_LUMA) for frame in self._bases]
        self._plain = [enlarge(frame, CAMERA_LUMA) for frame in self._bases]
        self._wake = threading.Event()

    def next(self, timeout_s: float) -> Shown | None:
        wait = self._due - monotonic()
        if wait > timeout_s:
            self._wake.wait(timeout_s)
            return None
        if wait > 0:
            self._wake.wait(wait)
        if self.ended:
            return None
        late = max(0, int((monotonic() - self._due) / self.period_s))
        self._due += (late + 1) * self.period_s
        self.number += 1
        return self.shown(self.number)

    def shown(self, number: int) -> Shown:
        """Return a picture whose number is in its pixels as well, and in those of the original."""
        bypassed = Command.BYPASS in self.asked
        if bypassed and self.bypassed_at is None:
            self.bypassed_at = number
        place, now = number % len(self._bases), monotonic_ns()
        base = self._numbered(self._bases[place], number, 1, now)
        large = self._numbered((self._plain if bypassed else self._large)[place], number, SCALE, now)
        if self.is_lost:
            return Shown(number, slate(large, no_signal_lines(1.0)), None, "slate", "no signal", "no signal")
        rung = "bicubic-x2" if bypassed else "fast-x2"
        stages = {"decode": 1.5, "generate": 9.0, "stitch": 0.5}
        return Shown(number, large, base, rung, "bypass" if bypassed else "", self.alarm, stages)

    def presented(self, shown: Shown, at_ns: int | None = None) -> None:
        self.presented_numbers.append(shown.number)

    def status(self) -> LiveStatus:
        bypassed = Command.BYPASS in self.asked
        number = self.number
        made = LiveStatus(
            source="testsrc:endoscopy",
            state=self.state,
            signal_age_s=0.02,
            size_in=(self.source.width, self.source.height),
            size_out=(self.source.width * SCALE, self.source.height * SCALE),
            engine="fast-x2",
            runtime="openvino int8, 2 threads",
            rungs=("fast-x2", "tiny-x2", "bicubic-x2"),
            rung="bicubic-x2" if bypassed else "fast-x2",
            reason="bypass" if bypassed else "",
            bypassed=bypassed,
            period_ms=self.period_s * 1e3,
            max_latency_ms=2e3 * self.period_s,
            frames_in=number + 3,
            frames_shown=number + 1,
            dropped={"newer came": 2},
            by_rung={"fast-x2": number + 1},
            late=1,
            rate_in=1 / self.period_s,
            rate_shown=1 / self.period_s,
            skipped=0.38,
            added_latency=Percentiles(number + 1, 17.25, 24.5, 31.75, 40.0),
            stages={"decode": Percentiles(1, 1.5, 1.9, 2.2, 3.0), "generate": Percentiles(1, 9.0, 12.0, 15.0, 18.0)},
            recording=RecordingStatus(active=Command.RECORD in self.asked, folder="recordings", seconds=3.2),
            events=("12:00:01 opened testsrc:endoscopy", "12:00:02 rung fast-x2"),
            uptime_s=number * self.period_s,
        )
        return replace(made, **self.status_changes)  # type: ignore[arg-type]

    def ask(self, command: Command) -> str:
        self.asked.append(command)
        return self.answers.get(command, f"{command.value}: done")

    def end(self) -> None:
        self.ended = True
        self._wake.set()

    @staticmethod
    def _numbered(frame: Frame, number: int, scale: int, now: int) -> Frame:
        luma = frame.planes[0].copy()
        draw_frame_code(luma, number, scale=scale)
        return replace(frame, planes=(luma, *frame.planes[1:]), sequence=number, captured_ns=now, arrived_ns=now)


class Running:
    """A view that runs in a thread until `stop`.

    Attributes:
        stop_s: how long the stop took.
        failure: what `WebView.run` raised.
    """

    def __init__(self, view: WebView, showing: FakeShowing) -> None:
        self.view, self.showing = view, showing
        self.stop_s = 0.0
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="streamsr-web")

    @property
    def base(self) -> str:
        return self.view.url.partition("/?")[0]

    @property
    def token(self) -> str:
        return self.view.url.partition("token=")[2]

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        began = monotonic()
        self.showing.end()
        self._thread.join(20)
        self.stop_s = monotonic() - began
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self.view.run(self.showing)
        except BaseException as cause:
            self.failure = cause


@contextmanager
def running(showing: FakeShowing | None = None, settings: WebSettings | None = None) -> Iterator[Running]:
    """Serve a fake session on a free port."""
    made = Running(WebView(settings or WebSettings(port=0)), showing or FakeShowing())
    made.start()
    try:
        yield made
    finally:
        made.stop()


def wait_until(condition: object, limit_s: float = 20.0) -> None:
    """Wait for a callable to return something true; fail after a generous time."""
    end = monotonic() + limit_s
    while not condition():  # type: ignore[operator]
        assert monotonic() < end, "waited in vain"
        sleep(0.01)
