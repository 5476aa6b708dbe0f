"""The ladder: quick down, slow up, never between two rungs, and always back to the best that fits."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsr.live.ladder import (
    COSTS_KEPT,
    DISTURBED_S,
    LONGEST_WAIT_S,
    MOST_LATE,
    TOO_SLOW,
    TRIALS_WANTED,
    UPWARD_HEADROOM,
    WARMING,
    Budget,
    Ladder,
)

PERIOD_MS, DEADLINE_MS = 40.0, 70.0


def ladder_at(rung: int, costs_ms: tuple[float, ...] = (20.0, 5.0)) -> Ladder:
    """A ladder whose rungs cost as stated, using one of them from second 0 on."""
    ladder = Ladder(len(costs_ms))
    ladder.budget = Budget(PERIOD_MS, DEADLINE_MS)
    for place in reversed(range(rung, len(costs_ms))):
        ladder.warmed(place, 0.0, [costs_ms[place]])
    assert ladder.rung == rung
    return ladder


def test_bicubic_is_used_until_a_rung_is_warm() -> None:
    ladder = Ladder(2)
    ladder.budget = Budget(PERIOD_MS, DEADLINE_MS)
    assert (ladder.rung, ladder.reason) == (2, WARMING)
    ladder.warmed(1, 1.0, [5.0])
    assert (ladder.rung, ladder.reason) == (1, WARMING)
    ladder.warmed(0, 2.0, [20.0])
    assert (ladder.rung, ladder.reason) == (0, "")


def test_a_rung_that_does_not_fit_when_warm_is_not_used() -> None:
    ladder = Ladder(2)
    ladder.budget = Budget(PERIOD_MS, DEADLINE_MS)
    ladder.warmed(0, 0.0, [200.0])
    ladder.warmed(1, 0.0, [5.0])
    assert (ladder.rung, ladder.reason) == (1, TOO_SLOW)


def test_late_frames_step_down_at_once() -> None:
    ladder = ladder_at(0)
    for _ in range(MOST_LATE - 1):
        ladder.made(0, 1.0, 100.0, late=True)
    assert ladder.rung == 0
    ladder.made(0, 1.0, 100.0, late=True)
    assert (ladder.rung, ladder.reason) == (1, TOO_SLOW)


def test_a_single_slow_frame_changes_nothing() -> None:
    ladder = ladder_at(0)
    for number in range(1000):
        ladder.made(0, number / 25, 300.0 if number % 50 == 0 else 20.0, late=number % 50 == 0)
        assert ladder.rung == 0


def test_a_rung_that_cannot_keep_up_is_left_though_no_frame_is_late() -> None:
    ladder = ladder_at(0)
    for number in range(COSTS_KEPT):
        ladder.made(0, number / 25, PERIOD_MS + 10)
    assert ladder.rung == 1


def test_a_better_rung_is_used_again_only_after_trials_that_fit_well() -> None:
    ladder = ladder_at(1, (200.0, 5.0))
    ladder.failed(0, 0.0, "failed")
    assert ladder.wants_trial(0.0) is None
    now_s = 100.0
    assert ladder.wants_trial(now_s) == 0
    for _ in range(TRIALS_WANTED - 1):
        ladder.tried(0, now_s, 20.0)
        assert ladder.rung == 1
    ladder.tried(0, now_s, 20.0)
    assert (ladder.rung, ladder.reason) == (0, "")


def test_a_rung_that_just_fits_is_not_gone_up_to() -> None:
    ladder = ladder_at(1, (200.0, 5.0))
    ladder.failed(0, 0.0, "failed")
    just = PERIOD_MS * (UPWARD_HEADROOM + 1) / 2
    for number in range(50):
        ladder.tried(0, 100.0 * number, just)
    assert ladder.rung == 1


def test_waits_between_trials_double_up_to_a_limit() -> None:
    ladder = ladder_at(1, (200.0, 5.0))
    ladder.failed(0, 0.0, "failed")
    now_s, waits = 0.0, []
    for _ in range(10):
        while ladder.wants_trial(now_s) is None:
            now_s += 0.25
        waits.append(now_s)
        ladder.tried(0, now_s, 500.0)
    steps = [after - before for before, after in pairwise(waits)]
    assert all(before <= after for before, after in pairwise(steps))
    assert steps[-1] == pytest.approx(LONGEST_WAIT_S, abs=0.5)


def test_a_failed_rung_is_skipped_on_the_way_down() -> None:
    ladder = ladder_at(0, (20.0, 10.0, 5.0))
    ladder.failed(1, 1.0, "failed")
    ladder.failed(0, 1.0, "failed")
    assert (ladder.rung, ladder.reason) == (2, "failed")


def test_all_rungs_failing_ends_at_bicubic() -> None:
    ladder = ladder_at(0)
    for place in range(2):
        ladder.failed(place, 1.0, "failed")
    assert ladder.rung == 2


def test_another_size_must_be_warmed_before_a_trial() -> None:
    ladder = ladder_at(0)
    ladder.changed(0)
    ladder.step_to_bicubic(1.0, WARMING)
    assert ladder.rung == 2
    assert ladder.wants_trial(1000.0) != 0


def test_a_rung_that_paused_for_another_is_used_again_without_a_trial() -> None:
    ladder = ladder_at(1)
    for _ in range(MOST_LATE - 1):
        ladder.disturbed(1, 1.0, WARMING)
    assert ladder.rung == 1
    ladder.disturbed(1, 1.0, WARMING)
    assert (ladder.rung, ladder.reason) == (2, WARMING)
    ladder.warmed(0, 2.0, [200.0])
    ladder.settled(2.0)
    assert (ladder.rung, ladder.reason) == (1, TOO_SLOW)


def test_a_rung_that_is_late_now_and_then_while_another_is_built_for_minutes_stays_in_use() -> None:
    ladder = ladder_at(1)
    for number in range(20):
        ladder.disturbed(1, number * DISTURBED_S, WARMING)
    assert ladder.rung == 1
    for late in range(MOST_LATE):
        ladder.disturbed(1, 20 * DISTURBED_S + late / 10, WARMING)
    assert ladder.rung == 2


def test_a_better_rung_that_became_warm_is_not_left_for_the_one_that_paused() -> None:
    ladder = ladder_at(1)
    for _ in range(MOST_LATE):
        ladder.disturbed(1, 1.0, WARMING)
    ladder.warmed(0, 2.0, [20.0])
    ladder.settled(2.0)
    assert (ladder.rung, ladder.reason) == (0, "")


def test_another_size_ends_a_pause() -> None:
    ladder = ladder_at(1)
    for _ in range(MOST_LATE):
        ladder.disturbed(1, 1.0, WARMING)
    ladder.step_to_bicubic(2.0, WARMING)
    ladder.settled(2.0)
    assert ladder.rung == 2


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["made", "late", "failed", "tried", "warmed", "disturbed", "settled"]),
            st.integers(0, 2),
            st.floats(1, 300),
        ),
        max_size=120,
    )
)
def test_whatever_happens_the_rung_exists_and_a_reason_is_given_below_the_best(
    events: list[tuple[str, int, float]],
) -> None:
    ladder = Ladder(3)
    ladder.budget = Budget(PERIOD_MS, DEADLINE_MS)
    for number, (what, place, cost_ms) in enumerate(events):
        now_s = number / 10
        if what in ("made", "late"):
            ladder.made(place, now_s, cost_ms, late=what == "late")
        elif what == "failed":
            ladder.failed(place, now_s, "failed")
        elif what == "tried" and place < ladder.rung:
            ladder.tried(place, now_s, cost_ms)
        elif what == "warmed":
            ladder.warmed(place, now_s, [cost_ms])
        elif what == "disturbed":
            ladder.disturbed(place, now_s, WARMING)
        elif what == "settled":
            ladder.settled(now_s)
        assert 0 <= ladder.rung <= 3
        assert (ladder.reason == "") == (ladder.rung == 0)
