"""The live session: in time whatever the generator does, honest about what is shown, and gone when it is left."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from streamsr.capture.listening import FeedEvent, FeedState
from streamsr.config import LiveSettings
from streamsr.display.commands import Command
from streamsr.display.showing import Showing
from streamsr.display.shown import Shown
from streamsr.display.status import LiveStatus, RecordingStatus, SourceState
from streamsr.errors import InputError
from streamsr.frame import Frame
from streamsr.live.director import Director
from streamsr.live.keeper import RungKeeper
from streamsr.live.monitor import Monitor
from streamsr.live.rungs import WARM_CALLS, Enlarger, is_sane
from streamsr.live.session import LiveSession
from streamsr.live_commands import run_live
from streamsr.plans import PlanCache
from streamsr.worker import Line
from tests.live_feeds import PERIOD_S, CollectingView, Doubler, ScriptedFeed, make_frame
from tests.test_plans import building, is_gone

MACHINE_STALL_MS = 400.0
"""What a busy machine may add to any wait; only bounds against hanging and staleness are loosened by it."""


PATIENCE_S = 60.0
"""For something to happen on a machine that is busy with everything else."""

LAZY: dict[str, object] = {"max_latency_ms": 5000.0}
"""Where lateness is not what a test is about."""


def frames(num: int, first: int = 0) -> list[Frame]:
    return [make_frame(number) for number in range(first, first + num)]


def session_of(
    script: list[Frame | float | FeedEvent | Exception],
    rungs: list[tuple[str, Callable[[int], Enlarger]]],
    view: CollectingView,
    **options: object,
) -> LiveSession:
    return LiveSession(ScriptedFeed(script), view, rungs, Doubler(), scale=2, **options)  # type: ignore[arg-type]


def run(session: LiveSession) -> LiveSession:
    with session:
        session.run()
    return session


def until(done: Callable[[Shown], bool]) -> CollectingView:
    """Return a view that quits when it is shown what it waits for, or out of patience."""
    began_s = time.monotonic()

    def ask(showing: Showing, shown: Shown) -> None:
        if done(shown) or time.monotonic() - began_s > PATIENCE_S:
            showing.ask(Command.QUIT)

    return CollectingView(ask)


def endless(size: tuple[int, int] = (64, 48)) -> list[Frame | float | Exception]:
    return [make_frame(number, size=size) for number in range(int(PATIENCE_S / PERIOD_S))]


def limit_ms(session: LiveSession) -> float:
    """The age that no shown picture may exceed: the deadline, a period, and what the machine takes for itself."""
    return session.director.max_latency_ms + PERIOD_S * 1e3 + MACHINE_STALL_MS


def test_every_frame_is_counted_and_those_shown_are_in_order() -> None:
    view = CollectingView()
    session = run(session_of([*frames(60)], [("best", lambda depth: Doubler())], view))
    numbers = [shown.original.sequence for shown in view.pictures if shown.original]
    assert numbers == sorted(set(numbers))
    summary = session.summary()
    assert summary["frames_in"] == 60
    assert summary["shown"] + sum(summary["dropped"].values()) == 60
    assert summary["added_latency"]["num"] == len(numbers)


def test_bicubic_already_shows_while_the_engine_is_built() -> None:
    def build(depth: int) -> Enlarger:
        time.sleep(0.4)
        return Doubler()

    view = until(lambda shown: shown.rung == "best")
    run(session_of(endless(), [("best", build)], view, **LAZY))
    assert (view.pictures[0].rung, view.pictures[0].reason) == ("bicubic-x2", "warming up")
    assert (view.pictures[-1].rung, view.pictures[-1].reason) == ("best", "")


@pytest.mark.parametrize("sleep_s", [0.1, 0.5])
def test_a_slow_generator_costs_detail_and_never_time(sleep_s: float) -> None:
    """Warm calls are quick, so that the ladder believes in the rung; then every call is far too slow."""
    slow = Doubler(sleep_s=lambda call: sleep_s if call >= WARM_CALLS else 0.0)
    view = CollectingView()
    session = run(session_of([*frames(120)], [("slow", lambda depth: slow)], view))
    assert max(view.ages_ms()) <= limit_ms(session)
    assert view.pictures[-1].rung == "bicubic-x2"
    assert len(view.pictures) > 30


def director_of(shown: list[Shown]) -> Director:
    monitor = Monitor()
    keeper = RungKeeper([], monitor)
    return Director(Line(), keeper, Doubler(), scale=2, monitor=monitor, show=shown.append, max_latency_ms=80.0)


def test_what_bicubic_and_the_view_need_is_kept_back_by_their_dear_costs() -> None:
    director = director_of([])
    before_ms = director._generator_ms
    for cost_ms in [1.0] * 20 + [30.0]:
        director._bicubic_costs.add(cost_ms)
        director.present.add(1.0)
    assert director._generator_ms == pytest.approx(before_ms - 1.0)  # one stall is no cost
    director._bicubic_costs.add(20.0)
    director.present.add(8.0)
    director.present.add(9.0)
    assert director._generator_ms == pytest.approx(before_ms - 19.0 - 8.0)


def test_a_frame_that_would_be_shown_too_old_gives_way_to_a_newer_one_but_never_two_in_a_row() -> None:
    shown: list[Shown] = []
    director = director_of(shown)
    old_ns = time.monotonic_ns() - 200_000_000
    old = [replace(frame, arrived_ns=old_ns, captured_ns=old_ns) for frame in frames(4)]
    director._direct(old[0])  # nothing newer waits
    director.frames.put(old[3])
    director._direct(old[1])
    assert (len(shown), director.num_passed_over) == (1, 1)
    director._direct(old[2])
    assert [each.original.sequence for each in shown if each.original] == [0, 2]


def test_threads_do_not_wait_long_for_each_other_while_a_session_runs() -> None:
    before_s = sys.getswitchinterval()
    during_s: list[float] = []
    run(session_of([*frames(5)], [], CollectingView(lambda showing, shown: during_s.append(sys.getswitchinterval()))))
    assert max(during_s) < before_s
    assert sys.getswitchinterval() == before_s


def test_a_slow_engine_leaves_the_picture_to_the_student() -> None:
    slow = Doubler(sleep_s=lambda call: 0.5 if call >= WARM_CALLS else 0.0)
    view = until(lambda shown: shown.rung == "student" and shown.reason == "too slow")
    rungs: list[tuple[str, Callable[[int], Enlarger]]] = [
        ("engine", lambda depth: slow),
        ("student", lambda depth: Doubler()),
    ]
    session = run(session_of(endless(), rungs, view, max_latency_ms=300.0))
    assert (view.pictures[-1].rung, view.pictures[-1].reason) == ("student", "too slow")
    assert session.monitor.late > 0


def test_an_engine_that_is_too_slow_when_it_is_warm_is_said_with_what_it_costs() -> None:
    view = until(lambda shown: shown.rung == "bicubic-x2" and shown.reason == "too slow")
    session = run(session_of(endless(), [("engine", lambda depth: Doubler(sleep_s=0.3))], view, max_latency_ms=100.0))
    told = [event.text for event in session.monitor.events]
    assert any(re.fullmatch(r"engine is too slow now: 3\d\d ms a frame", text) for text in told), told


def test_lateness_while_another_rung_is_built_does_not_count_against_the_one_in_use() -> None:
    building = threading.Event()

    def build(depth: int) -> Enlarger:
        building.set()
        time.sleep(2.5)
        building.clear()
        return Doubler(sleep_s=lambda call: 1.0)

    view = until(lambda shown: shown.rung == "student" and shown.reason == "too slow")
    rungs: list[tuple[str, Callable[[int], Enlarger]]] = [
        ("engine", build),
        ("student", lambda depth: Doubler(sleep_s=lambda call: 0.45 if building.is_set() else 0.0)),
    ]
    session = run(session_of(endless(), rungs, view, max_latency_ms=300.0))
    told = [event.text for event in session.monitor.events]
    assert session.monitor.late > 0
    assert "down to bicubic-x2: warming up" in told
    assert "down to bicubic-x2: too slow" not in told
    assert told.index("up to student: better ones too slow") > told.index("engine ready: a double")


def test_a_generator_that_fails_becomes_bicubic_with_an_alarm_and_recovers() -> None:
    failing = Doubler(fails=lambda call: 12 <= call < 14)
    alarmed: list[Shown] = []

    def recovered(shown: Shown) -> bool:
        if shown.alarm and not shown.is_slate:
            alarmed.append(shown)
        return bool(alarmed) and shown.rung == "best"

    view = until(recovered)
    run(session_of(endless(), [("best", lambda depth: failing)], view, **LAZY))
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
                release.wait(PATIENCE_S)
            return super().upscale(frame)

    view = until(lambda shown: shown.rung == "best" and len(calls) > 12)
    session = session_of(endless(), [("best", lambda depth: Hanging())], view, max_latency_ms=100.0)
    try:
        with session:
            session.run()
            started = time.monotonic()
            session.close()
            assert time.monotonic() - started < 10
        assert max(view.ages_ms()) <= limit_ms(session)
        assert any("does not answer" in event.text for event in session.monitor.events)
        assert view.pictures[-1].rung == "best", "a new thread took its place"
        assert session.num_abandoned == 1
    finally:
        release.set()
        for rung in session.keeper.rungs:
            rung.join(PATIENCE_S)


@pytest.mark.parametrize("kind", ["zeros", "noise", "stale", "wrong size"])
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
                "stale": np.full_like(luma, 20),
                "wrong size": luma[:-2],
            }[kind]
            return large.with_planes((broken, *large.planes[1:]))

    view = until(lambda shown: bool(shown.alarm) and not shown.is_slate)
    session = run(session_of(endless(), [("broken", lambda depth: Broken())], view, badge=False, **LAZY))
    assert any("failed" in event.text for event in session.monitor.events)
    assert view.pictures[-1].alarm == "broken failed"
    for shown in view.pictures[:-1]:
        assert shown.original is not None
        assert is_sane(shown.original, shown.picture)


def test_bypass_takes_effect_within_one_frame() -> None:
    asked_at: list[int] = []

    def ask(showing: Showing, shown: Shown) -> None:
        if shown.rung == "best" and not asked_at:
            assert "bypass on" in showing.ask(Command.BYPASS)
            asked_at.append(shown.number)
        elif asked_at and shown.number > asked_at[0] + 10:
            showing.ask(Command.QUIT)

    view = CollectingView(ask)
    session = run(session_of(endless(), [("best", lambda depth: Doubler())], view, **LAZY))
    # The frame in work when it is asked for may have been finished.
    after = [shown for shown in view.pictures if shown.number > asked_at[0] + 1]
    assert after
    assert {(shown.rung, shown.reason) for shown in after} == {("bicubic-x2", "bypass")}
    assert [interval["what"] for interval in session.summary()["bypass_intervals"]] == ["bypass"]


def test_bypass_does_not_wait_for_the_frame_in_work() -> None:
    began = threading.Event()

    class Slow(Doubler):
        def upscale(self, frame: Frame) -> Frame:
            if self.num_calls >= WARM_CALLS:
                began.set()
                time.sleep(5.0)
            return super().upscale(frame)

    class Watcher(CollectingView):
        def run(self, showing: Showing) -> None:
            began.wait(PATIENCE_S)
            showing.ask(Command.BYPASS)
            super().run(showing)

    def ask(showing: Showing, shown: Shown) -> None:
        if shown.reason == "bypass":
            showing.ask(Command.QUIT)

    view = Watcher(ask)
    session = session_of(endless(), [("best", lambda depth: Slow())], view, max_latency_ms=60_000.0)
    with session:
        session.run()
        first = next(shown for shown in view.pictures if shown.reason == "bypass")
        assert first.made_ns - first.arrived_ns < 4e9, "it did not wait for the generator"
    for rung in session.keeper.rungs:
        assert rung.join(PATIENCE_S)


def test_a_silent_source_shows_no_signal_and_its_return_shows_the_picture() -> None:
    view = CollectingView()
    session = run(session_of([*frames(20), 0.6, *frames(20, first=20)], [], view))
    kinds = [shown.is_slate for _, shown in view.seen]
    first_picture = kinds.index(False)
    first_slate = kinds.index(True, first_picture)
    assert False in kinds[first_slate:], "the picture comes back"
    slates = [shown for _, shown in view.seen[first_picture:] if shown.is_slate]
    assert all(shown.alarm == "no signal" for shown in slates)
    assert max(view.ages_ms()) <= session.director.silent_after_ms + PERIOD_S * 1e3 + MACHINE_STALL_MS
    assert [interval["what"] for interval in session.summary()["signal_gaps"]].count("no signal") >= 2


def test_what_is_shown_before_the_first_frame_is_a_slate() -> None:
    view = CollectingView()
    run(session_of([0.3, *frames(3)], [], view))
    assert view.seen[0][1].is_slate
    assert view.seen[0][1].alarm == ""


def test_a_size_change_is_survived_through_bicubic_and_warmed_again() -> None:
    view = until(lambda shown: shown.rung == "best" and shown.picture.width == 192)
    script = [*frames(60), *endless((96, 64))]
    run(session_of(script, [("best", lambda depth: Doubler())], view, **LAZY))
    sizes = [(shown.picture.width, shown.picture.height) for shown in view.pictures]
    assert sorted(set(sizes)) == [(128, 96), (192, 128)]
    assert view.pictures[sizes.index((192, 128))].rung == "bicubic-x2"
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


def test_an_engine_that_is_still_built_at_the_end_is_said_and_does_not_count_as_hanging() -> None:
    release, begun = threading.Event(), threading.Event()

    def build(depth: int) -> Enlarger:
        begun.set()
        release.wait(PATIENCE_S)
        return Doubler()

    session = session_of(endless(), [("best", build)], until(lambda shown: begun.is_set()))
    try:
        run(session)
        assert session.num_abandoned == session.summary()["threads_left"] == 0
        assert session.num_building == 1
        assert [event.text for event in session.monitor.events][-1] == "best: still being built at the end"
    finally:
        release.set()
        for rung in session.keeper.rungs:
            rung.join(PATIENCE_S)


def test_a_plan_that_is_compiled_does_not_hold_up_the_end(tmp_path: Path) -> None:
    number = tmp_path / "number"

    def build(depth: int) -> Enlarger:
        building(PlanCache(tmp_path / "plans"), number)
        return Doubler()

    session = session_of(
        endless(), [("best", build)], until(lambda shown: number.is_file() and bool(number.read_text()))
    )
    run(session)
    assert all(rung.join(PATIENCE_S) for rung in session.keeper.rungs)
    assert is_gone(int(number.read_text()))


def test_the_badge_marks_what_a_generator_made_and_can_be_left_out() -> None:
    asked_at: list[int] = []

    def ask(showing: Showing, shown: Shown) -> None:
        if shown.rung == "best" and not asked_at:
            assert showing.ask(Command.BADGE) == "badge off"
            asked_at.append(shown.number)
        elif asked_at and shown.number > asked_at[0] + 5:
            showing.ask(Command.QUIT)

    view = CollectingView(ask)
    session = run(session_of(endless(), [("best", lambda depth: Doubler())], view, **LAZY))
    marked = [int(np.ptp(shown.picture.planes[0])) > 0 for shown in view.pictures if shown.rung == "best"]
    assert marked[0]
    assert not marked[-1]
    assert "badge off" in [event.text for event in session.monitor.events]


class CountingRecorder:
    """Counts what it is offered."""

    def __init__(self) -> None:
        self.offered: list[Shown] = []
        self.active = self.hangs = False

    def offer(self, shown: Shown) -> None:
        self.offered.append(shown)

    def start(self, folder: Path) -> None:
        self.active = True

    def stop(self, timeout_s: float = 2.0) -> bool:
        self.active = False
        return True

    def status(self) -> RecordingStatus:
        return RecordingStatus(active=self.active)

    def note_original(self, path: Path, *, over: bool, cut_short: bool = False) -> None:
        pass


def test_pictures_that_the_view_never_took_count_for_no_rung_and_late_ones_are_counted() -> None:
    class SlowView(CollectingView):
        def run(self, showing: Showing) -> None:
            while not showing.ended:
                time.sleep(3 * PERIOD_S)
                shown = showing.next(0.05)
                if shown is not None:
                    time.sleep(PERIOD_S)  # so that every picture is late, in whatever phase it was taken
                    showing.presented(shown)

    summary = run(session_of([*frames(60)], [], SlowView(), max_latency_ms=PERIOD_S * 1e3 / 2)).summary()
    assert summary["dropped"]["view"] > 10
    assert sum(summary["by_rung"].values()) == summary["shown"] < 50
    assert 0 < summary["shown_late"] <= summary["added_latency"]["num"]


def test_the_recorder_is_offered_every_picture_and_stopped(tmp_path: Path) -> None:
    recorder = CountingRecorder()

    def ask(showing: Showing, shown: Shown) -> None:
        if not shown.is_slate and not recorder.active:
            assert showing.ask(Command.RECORD) == "recording on"
            assert showing.status().recording.active

    view = CollectingView(ask)
    session = run(session_of([*frames(30)], [], view, recorder=recorder, folder=tmp_path))
    assert len([shown for shown in recorder.offered if not shown.is_slate]) == session.summary()["shown"]
    assert not recorder.active


def test_a_recording_is_told_to_end_before_anything_else_is_waited_for(tmp_path: Path) -> None:
    recorder, running = CountingRecorder(), []

    def stop(timeout_s: float) -> bool:
        running.append(not session.line.stopped)
        return True

    recorder.stop = stop  # type: ignore[method-assign]
    session = session_of([*frames(5)], [], CollectingView(), recorder=recorder, folder=tmp_path)
    run(session)
    assert running == [True]


def test_a_snapshot_is_a_pair_with_a_sidecar(tmp_path: Path) -> None:
    answers: list[str] = []

    def ask(showing: Showing, shown: Shown) -> None:
        if not answers or (not shown.is_slate and len(answers) == 1):
            answers.append(showing.ask(Command.SNAPSHOT))

    run(session_of([*frames(30)], [], CollectingView(ask), folder=tmp_path))
    assert "no picture" in answers[0] or "taking" in answers[0]
    assert sorted(path.suffix for path in tmp_path.iterdir())[-2:] == [".png", ".png"]
    assert any(path.suffix == ".json" for path in tmp_path.iterdir())


def test_status_tells_the_truth_about_the_session() -> None:
    told: list[LiveStatus] = []

    def ask(showing: Showing, shown: Shown) -> None:
        told.append(showing.status())
        if shown.rung == "best" and told[-1].added_latency.num > 30:
            showing.ask(Command.QUIT)

    run(session_of(endless(), [("best", lambda depth: Doubler())], CollectingView(ask), name="scripted", **LAZY))
    last = told[-1]
    assert sum(last.by_rung.values()) == last.frames_shown
    assert (last.source, last.rungs, last.rung, last.reason) == ("scripted", ("best", "bicubic-x2"), "best", "")
    assert (last.size_in, last.size_out) == ((64, 48), (128, 96))
    assert last.state is SourceState.LIVE
    assert last.frames_in >= last.frames_shown > 30
    assert {"decode", "wait", "present"} <= set(last.stages)


@pytest.fixture(autouse=True)
def no_rung_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)


def test_an_original_that_is_not_all_there_is_an_error_of_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    why = "the original is no longer kept: no space left"
    event = FeedEvent(FeedState.UNKEPT, why, time.monotonic_ns())

    def open_session(source: str, settings: LiveSettings, *, say: Callable[[str], None]) -> LiveSession:
        script: list[Frame | float | FeedEvent | Exception] = [*frames(3), event, *frames(3, 3)]
        return session_of(script, [("double", lambda bit_depth: Doubler())], CollectingView(), say=say, **LAZY)

    monkeypatch.setattr("streamsr.live.opening.open_session", open_session)
    assert run_live("scripted", LiveSettings(), as_json=True, quiet=False) == 5
    told = capsys.readouterr()
    summary = json.loads(told.out)
    assert (summary["original_trouble"], summary["frames_in"]) == (why, 6)
    assert told.err.count(why) == 1
    assert run_live("scripted", LiveSettings(), as_json=True, quiet=True) == 5
    assert capsys.readouterr().err == f"streamsr: {why}\n"
