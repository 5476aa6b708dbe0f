"""A live session with faults of its generator, its feed and its view at random moments: it goes on, or ends with why.

Every seed is a script of a second, most of it waiting, so `TOGETHER` of them run at once. 160 run here, and
``STREAMSR_SEEDS=2400`` runs 1,600.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from streamsr.display.showing import Showing
from streamsr.display.shown import Shown
from streamsr.errors import InputError
from streamsr.frame import Frame
from streamsr.live.rungs import WARM_CALLS, Enlarger, is_sane
from streamsr.live.session import LiveSession
from streamsr.runtimes.bicubic import BicubicGenerator
from streamsr.upscaler import FrameUpscaler
from tests.faults import Fault, FaultyGenerator
from tests.live_feeds import CollectingView, Doubler, ScriptedFeed, make_frame

TOGETHER = 8
GROUPS = int(os.environ.get("STREAMSR_SEEDS", "240")) // 12
NUM_FRAMES = 45
GENERATOR_FAULTS = ("none", "exception", "out of memory", "stall", "slow", "zeros", "shape", "build")
PATIENCE_S = 20.0


class Faulty(Doubler):
    """Doubles pictures and has one kind of fault, at some of its calls after it was warmed."""

    def __init__(self, kind: str, calls: set[int]) -> None:
        super().__init__()
        self.kind, self.calls = kind, calls

    def upscale(self, frame: Frame) -> Frame:
        strikes = self.num_calls - WARM_CALLS in self.calls
        large = super().upscale(frame)
        if not strikes and self.kind != "slow":
            return large
        if self.kind == "exception":
            raise RuntimeError("broke on purpose")
        if self.kind == "out of memory":
            raise MemoryError("no memory on purpose")
        if self.kind in ("stall", "slow") and self.num_calls > WARM_CALLS:
            time.sleep(0.3 if self.kind == "stall" else 0.06)
        if self.kind == "zeros":
            return large.with_planes((np.zeros_like(large.planes[0]), *large.planes[1:]))
        if self.kind == "shape":
            return large.with_planes((large.planes[0][:-2], *large.planes[1:]))
        return large


def script_of(chance: random.Random) -> tuple[list[Frame | float | Exception], Exception | None]:
    """Return frames with a silence, another size, or an error somewhere among them, and that error."""
    script: list[Frame | float | Exception] = [make_frame(number) for number in range(NUM_FRAMES)]
    at, cause = chance.randrange(5, NUM_FRAMES), None
    kind = chance.choice(("whole", "whole", "silence", "size", "error"))
    if kind == "silence":
        script.insert(at, 0.25)
    elif kind == "size":
        script[at:] = [make_frame(number, size=(96, 80)) for number in range(at, NUM_FRAMES)]
    elif kind == "error":
        cause = InputError("the feed broke on purpose")
        script.insert(at, cause)
    return script, cause


def view_of(chance: random.Random) -> tuple[CollectingView, Exception | None]:
    """Return a view, sometimes one that fails, and what it then raises."""
    if chance.random() < 0.8:
        return CollectingView(), None
    at, cause = chance.randrange(3, 20), ValueError("the view broke on purpose")

    def ask(showing: Showing, shown: Shown) -> None:
        if len(view.seen) == at:
            raise cause

    view = CollectingView(ask)
    return view, cause


def run(session: LiveSession) -> BaseException | None:
    """Run a session; return what it raised."""
    try:
        with session:
            session.run()
    except Exception as cause:
        return cause
    return None


@pytest.mark.parametrize("group", range(GROUPS))
def test_a_session_survives_its_generator_and_ends_with_the_cause_of_what_it_cannot_survive(group: int) -> None:
    with ThreadPoolExecutor(TOGETHER) as pool:
        running = {seed: pool.submit(check, seed) for seed in range(group * TOGETHER, (group + 1) * TOGETHER)}
        for seed, ended in running.items():
            failure = ended.exception()
            assert failure is None, f"seed {seed}: {failure}"


def check(seed: int) -> None:
    """Run the session of a seed and check how it ends."""
    chance = random.Random(seed)
    kind = GENERATOR_FAULTS[seed % len(GENERATOR_FAULTS)]
    faulty = Faulty(kind, {chance.randrange(25) for _ in range(chance.choice((1, 1, 3, 8)))})

    def build(depth: int) -> Enlarger:
        if kind == "build" and chance.random() < 0.7:
            raise RuntimeError("cannot be built on purpose")
        return faulty

    script, feed_cause = script_of(chance)
    view, view_cause = view_of(chance)
    rungs: list[tuple[str, Callable[[int], Enlarger]]] = [("faulty", build)]
    if chance.random() < 0.5:
        rungs.append(("lighter", lambda depth: Doubler()))
    session = LiveSession(ScriptedFeed(script), view, rungs, Doubler(), scale=2, max_latency_ms=200.0, badge=False)
    raised = run(session)
    assert raised is None or raised in (feed_cause, view_cause) or raised.__cause__ in (feed_cause, view_cause)
    assert raised is not None or view_cause is None or len(view.seen) < 20, "a failure of the view was lost"
    for rung in session.keeper.rungs:
        assert rung.join(PATIENCE_S), "a thread is left behind"
    numbers = [shown.number for _, shown in view.seen]
    assert numbers == sorted(set(numbers))
    for shown in view.pictures:
        assert shown.original is not None
        assert shown.alarm or is_sane(shown.original, shown.picture)
    summary = session.summary()
    if raised is None:
        assert summary["frames_in"] == NUM_FRAMES
        assert summary["shown"] + sum(summary["dropped"].values()) == NUM_FRAMES


def test_numbers_that_are_none_become_bicubic_with_an_alarm_and_are_never_shown() -> None:
    """Through the enlarger itself, whose network reads and gives floating point as the SRGAN does."""

    class Rgb(BicubicGenerator):
        channels = 3

    fault = Fault("nan", WARM_CALLS + 12)
    faulty = FaultyGenerator(Rgb(2), fault, channels=3)
    upscaler = FrameUpscaler(faulty, launch="frame", skip_surround=False, reuse_unchanged=False)
    view, feed = CollectingView(), ScriptedFeed([make_frame(number) for number in range(NUM_FRAMES)])
    rungs: list[tuple[str, Callable[[int], Enlarger]]] = [("broken", lambda depth: upscaler)]
    session = LiveSession(feed, view, rungs, Doubler(), scale=2, max_latency_ms=5000.0, badge=False)
    assert run(session) is None
    assert fault.struck
    assert any(shown.alarm == "broken failed" for shown in view.pictures)
    assert any("failed" in event.text for event in session.monitor.events)
    for shown in view.pictures:
        assert shown.original is not None
        assert shown.alarm or is_sane(shown.original, shown.picture)  # an alarm's badge is drawn into the picture
