"""The live session: in time whatever the generator does, honest about what is shown, and gone when it is left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from streamsr.display.commands import Command
from streamsr.display.showing import Showing
from streamsr.display.shown import Shown
from streamsr.display.status import RecordingStatus, SourceState
from streamsr.errors import InputError
from streamsr.frame import Frame
from streamsr.live.rungs import Enlarger, is_sane
from streamsr.live.session import LiveSession
from tests.live_feeds import PERIOD_S, CollectingView, Doubler, ScriptedFeed, make_frame

MACHINE_STALL_MS = 400.0
"""What a busy machine may add to any wait; only bounds against hanging and staleness are loosened by it."""


def frames(num: int, first: int = 0) -> list[Frame]:
    return [make_frame(number) for number in range(first, first + num)]


def session_of(
    script: list[Frame | float | Exception],
    rungs: list[tuple[str, Callable[[int], Enlarger]]],
    view: CollectingView,
    **options: object,
) -> LiveSession:
    return LiveSession(ScriptedFeed(script), view, rungs, Doubler(), scale=2, **options)  # type: ignore[arg-type]


def run(session: LiveSession) -> LiveSession:
    with session:
        session.run()
    return session


def test_every_frame_is_shown_in_order_by_the_best_rung_once_it_is_warm() -> None:
    view = CollectingView()
    session = run(session_of([*frames(60)], [("best", lambda depth: Doubler())], view))
    numbers = [shown.original.sequence for shown in view.pictures if shown.original]
    assert numbers == sorted(set(numbers))
    assert len(numbers) >= 50
    assert {shown.rung for shown in view.pictures[-20:]} == {"best"}
    assert session.summary()["frames_in"] == 60
    assert session.summary()["shown"] + sum(session.summary()["dropped"].values()) == 60
    assert session.summary()["added_latency"]["num"] == len(numbers)


def test_bicubic_already_shows_while_the_engine_is_built() -> None:
    def build(depth: int) -> Enlarger:
        time.sleep(0.4)
        return Doubler()

    view = CollectingView()
    run(session_of([*frames(60)], [("best", build)], view))
    rungs = [shown.rung for shown in view.pictures]
    assert rungs[0] == "bicubic-x2"
    assert rungs[-1] == "best"
    assert view.pictures[0].reason == "warming up"


@pytest.mark.parametrize("sleep_s", [0.1, 0.5])
def test_a_slow_generator_costs_detail_and_never_time(sleep_s: float) -> None:
    """Warm calls are quick, so that the ladder believes in the rung; then every call is far too slow."""
    slow = Doubler(sleep_s=lambda call: sleep_s if call > 12 else 0.0)
    view = CollectingView()
    session = run(session_of([*frames(120)], [("slow", lambda depth: slow)], view))
    limit_ms = session.director.max_latency_ms + PERIOD_S * 1e3 + MACHINE_STALL_MS
    assert max(view.ages_ms()) <= limit_ms
    assert session.monitor.late > 0
    assert view.pictures[-1].rung == "bicubic-x2"
    assert view.pictures[-1].reason == "too slow"
    assert len(view.pictures) > 60


def test_a_slow_engine_leaves_the_picture_to_the_student() -> None:
    slow = Doubler(sleep_s=lambda call: 0.2 if call > 12 else 0.0)
    view = CollectingView()
    run(session_of([*frames(120)], [("engine", lambda depth: slow), ("student", lambda depth: Doubler())], view))
    assert {shown.rung for shown in view.pictures[-20:]} == {"student"}


def test_a_generator_that_fails_becomes_bicubic_with_an_alarm_and_recovers() -> None:
    failing = Doubler(fails=lambda call: 12 <= call < 14)
    view = CollectingView()
    run(session_of([*frames(150)], [("best", lambda depth: failing)], view))
    alarmed = [shown for shown in view.pictures if shown.alarm]
    assert alarmed
    assert all(shown.rung == "bicubic-x2" for shown in alarmed)
    assert (view.pictures[-1].rung, view.pictures[-1].alarm) == ("best", "")


def test_a_generator_that_hangs_is_left_behind_and_the_session_ends_in_time() -> None:
    release = threading.Event()
    calls: list[int] = []

    class Hanging(Doubler):
        def upscale(self, frame: Frame) -> Frame:
            calls.append(1)
            if len(calls) == 12:
                release.wait(30)
            return super().upscale(frame)

    view = CollectingView()
    session = session_of([*frames(300)], [("best", lambda depth: Hanging())], view, seconds=4.0)
    try:
        started = time.monotonic()
        run(session)
        assert time.monotonic() - started < 8
        assert max(view.ages_ms()) <= session.director.max_latency_ms + PERIOD_S * 1e3 + MACHINE_STALL_MS
        assert any("does not answer" in event.text for event in session.monitor.events)
        assert view.pictures[-1].rung == "best", "a new thread took its place"
        assert session.num_abandoned == 1
    finally:
        release.set()
        for rung in session.keeper.rungs:
            rung.join(5.0)


@pytest.mark.parametrize("kind", ["zeros", "noise", "nan", "stale", "wrong size"])
def test_a_generator_that_makes_no_picture_becomes_bicubic(kind: str) -> None:
    class Broken(Doubler):
        def upscale(self, frame: Frame) -> Frame:
            large = super().upscale(frame)
            if self.num_calls <= 12:
                return large
            luma = large.planes[0]
            broken = {
                "zeros": np.zeros_like(luma),
                "noise": np.random.default_rng(0).choice(np.array([0, 255], np.uint8), luma.shape),
                "nan": np.nan_to_num(np.full(luma.shape, np.nan, np.float32)).astype(np.uint8),
                "stale": np.full_like(luma, 20),
                "wrong size": luma[:-2],
            }[kind]
            return large.with_planes((broken, *large.planes[1:]))

    view = CollectingView()
    session = run(session_of([*frames(60)], [("broken", lambda depth: Broken())], view, badge=False))
    assert any("failed" in event.text for event in session.monitor.events)
    for shown in view.pictures:
        assert shown.original is not None
        assert is_sane(shown.original, shown.picture) or shown.alarm
    assert any(shown.alarm for shown in view.pictures)


def test_bypass_takes_effect_within_one_frame() -> None:
    asked_at: list[int] = []

    def ask(showing: Showing, shown: Shown) -> None:
        if shown.original is not None and shown.original.sequence >= 40 and not asked_at:
            assert "bypass on" in showing.ask(Command.BYPASS)
            asked_at.append(shown.number)

    view = CollectingView(ask)
    session = run(session_of([*frames(60)], [("best", lambda depth: Doubler())], view))
    after = [shown for shown in view.pictures if shown.number > asked_at[0] + 1]
    assert after
    assert {(shown.rung, shown.reason) for shown in after} == {("bicubic-x2", "bypass")}
    assert [interval["what"] for interval in session.summary()["bypass_intervals"]] == ["bypass"]


def test_bypass_does_not_wait_for_the_frame_in_work() -> None:
    class Shy(CollectingView):
        def run(self, showing: Showing) -> None:
            time.sleep(0.5)
            showing.ask(Command.BYPASS)
            super().run(showing)

    slow = Doubler(sleep_s=lambda call: 5.0 if call >= 12 else 0.0)
    view = Shy()
    session = session_of([*frames(60)], [("best", lambda depth: slow)], view, max_latency_ms=60_000.0, seconds=1.0)
    with session:
        session.run()
        assert view.pictures
        assert all(shown.reason == "bypass" for shown in view.pictures[-3:])
    for rung in session.keeper.rungs:
        assert rung.join(10.0)


def test_a_silent_source_shows_no_signal_and_its_return_shows_the_picture() -> None:
    view = CollectingView()
    session = run(session_of([*frames(20), 0.6, *frames(20, first=20)], [], view))
    kinds = [shown.is_slate for _, shown in view.seen]
    first_picture = kinds.index(False)
    slates = [shown for _, shown in view.seen[first_picture:] if shown.is_slate]
    assert slates
    assert all(shown.alarm == "no signal" for shown in slates)
    assert not kinds[-1]
    silent_ms = session.director.silent_after_ms + PERIOD_S * 1e3 + MACHINE_STALL_MS
    assert max(view.ages_ms()) <= silent_ms
    assert [interval["what"] for interval in session.summary()["signal_gaps"]].count("no signal") >= 2


def test_what_is_shown_before_the_first_frame_is_a_slate() -> None:
    view = CollectingView()
    run(session_of([0.3, *frames(3)], [], view))
    assert view.seen[0][1].is_slate
    assert view.seen[0][1].alarm == ""


def test_a_size_change_is_survived_through_bicubic_and_warmed_again() -> None:
    large = [make_frame(number, size=(96, 64)) for number in range(60, 120)]
    view = CollectingView()
    run(session_of([*frames(60), *large], [("best", lambda depth: Doubler())], view))
    sizes = [(shown.picture.width, shown.picture.height) for shown in view.pictures]
    assert set(sizes) == {(128, 96), (192, 128)}
    first = sizes.index((192, 128))
    assert view.pictures[first].rung == "bicubic-x2"
    assert view.pictures[-1].rung == "best"


def test_a_source_that_cannot_be_opened_ends_the_session_with_its_error() -> None:
    with pytest.raises(InputError, match="nobody there"):
        run(session_of([*frames(2), InputError("nobody there")], [], CollectingView()))


def test_a_view_that_fails_ends_the_session_with_its_error() -> None:
    def ask(showing: Showing, shown: Shown) -> None:
        raise RuntimeError("the screen is gone")

    with pytest.raises(RuntimeError, match="the screen is gone"):
        run(session_of([*frames(300)], [], CollectingView(ask)))


def test_quit_ends_the_session() -> None:
    def ask(showing: Showing, shown: Shown) -> None:
        showing.ask(Command.QUIT)

    started = time.monotonic()
    run(session_of([*frames(3000)], [], CollectingView(ask)))
    assert time.monotonic() - started < 10


def test_the_badge_marks_what_a_generator_made_and_can_be_left_out() -> None:
    def ask(showing: Showing, shown: Shown) -> None:
        if shown.original is not None and shown.original.sequence == 40:
            showing.ask(Command.BADGE)

    view = CollectingView(ask)
    session = run(session_of([*frames(80)], [("best", lambda depth: Doubler())], view))
    by_best = [shown for shown in view.pictures if shown.rung == "best"]
    marked = [int(np.ptp(shown.picture.planes[0])) > 0 for shown in by_best]
    assert marked[0]
    assert not marked[-1]
    assert "badge off" in [event.text for event in session.monitor.events]


class CountingRecorder:
    """Counts what it is offered."""

    def __init__(self) -> None:
        self.offered: list[Shown] = []
        self.active = False

    def offer(self, shown: Shown) -> None:
        self.offered.append(shown)

    def start(self) -> None:
        self.active = True

    def stop(self) -> None:
        self.active = False

    def status(self) -> RecordingStatus:
        return RecordingStatus(active=self.active)


def test_the_recorder_is_offered_every_picture_and_stopped() -> None:
    recorder = CountingRecorder()

    def ask(showing: Showing, shown: Shown) -> None:
        if shown.original is not None and shown.original.sequence == 10:
            assert showing.ask(Command.RECORD) == "recording on"
            assert showing.status().recording.active

    run(session_of([*frames(30)], [], CollectingView(ask), recorder=recorder))
    assert len(recorder.offered) >= 30
    assert not recorder.active


def test_status_tells_the_truth_about_the_session() -> None:
    told = []

    def ask(showing: Showing, shown: Shown) -> None:
        told.append(showing.status())

    run(session_of([*frames(60)], [("best", lambda depth: Doubler())], CollectingView(ask), name="scripted"))
    last = told[-1]
    assert (last.source, last.rungs, last.rung, last.reason) == ("scripted", ("best", "bicubic-x2"), "best", "")
    assert (last.size_in, last.size_out) == ((64, 48), (128, 96))
    assert last.state in (SourceState.LIVE, SourceState.ENDED)
    assert last.frames_in >= last.frames_shown > 30
    assert last.added_latency.num > 0
    assert {"decode", "wait", "present"} <= set(last.stages)


@pytest.fixture(autouse=True)
def no_rung_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
