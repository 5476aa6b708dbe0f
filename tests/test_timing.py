"""Stage clocks: percentiles of the newest durations, in bounded memory."""

from __future__ import annotations

import pytest

from streamsr import timing
from streamsr.timing import Percentiles, StageClock


def test_percentiles_are_of_every_duration_and_a_clock_without_any_says_zero() -> None:
    clock = StageClock("stage")
    assert clock.percentiles() == Percentiles(0, 0.0, 0.0, 0.0, 0.0)
    for number in range(1, 101):
        clock.add(number * 1_000_000)
    found = clock.percentiles()
    assert (found.num, found.p50_ms, found.max_ms) == (100, 50.5, 100.0)
    assert clock.latest_ms == 100.0


def test_the_oldest_durations_make_room_and_all_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "WINDOW", 10)
    clock = StageClock("stage")
    for number in range(25):
        clock.add(number * 1_000_000)
    assert clock.num == 25
    assert sorted(clock.durations_us) == [number * 1000 for number in range(15, 25)]
    assert clock.latest_ms == 24.0


def test_durations_that_four_bytes_do_not_hold_are_the_longest() -> None:
    clock = StageClock("stage")
    clock.add(10**18)
    clock.add(-5)
    assert clock.percentiles().max_ms == timing.LONGEST_US / 1e3
    assert clock.latest_ms == 0.0


def test_a_copy_is_left_alone_by_its_original() -> None:
    clock = StageClock("stage")
    clock.add(2_000_000)
    copied = clock.copy()
    clock.add(9_000_000)
    assert (copied.num, copied.percentiles().max_ms, clock.percentiles().max_ms) == (1, 2.0, 9.0)
