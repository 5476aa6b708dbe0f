"""Live time: own pace, true rate, and places that rise over interruptions."""

from __future__ import annotations

import time
from fractions import Fraction

import numpy as np
import pytest

from streamsr.capture.pacing import LONGEST_WAIT_S, NUM_STEPS, Continuity, Pace, RateWatch
from streamsr.frame import Colour, Frame, PlaneLayout

SECOND = 10**9


def make_frame(pts: int, *, rate: int = 25, sequence: int = 0, arrived_ns: int = 0) -> Frame:
    plane = np.zeros((1, 1), np.uint8)
    return Frame(
        (plane,),
        PlaneLayout(None),
        Colour(1, False, 1, 1),
        pts=pts,
        time_base=Fraction(1, rate),
        sequence=sequence,
        arrived_ns=arrived_ns,
    )


def test_times_stay_the_sources_own_within_a_stretch():
    continuity = Continuity()
    placed = [continuity.place(make_frame(100 + n, sequence=n, arrived_ns=n * SECOND), 1, 1) for n in range(5)]
    assert [frame.pts for frame in placed] == [100, 101, 102, 103, 104]


def test_a_stretch_begins_as_long_after_the_first_frame_as_it_came_after_it():
    continuity = Continuity()
    continuity.place(make_frame(1000, arrived_ns=SECOND), 1, 1)
    back = continuity.place(make_frame(7, rate=90000, sequence=1, arrived_ns=11 * SECOND), 1, 2)
    assert back.seconds == pytest.approx(1000 / 25 + 10)
    again = continuity.place(make_frame(7 + 3600, rate=90000, sequence=2, arrived_ns=11 * SECOND), 1, 2)
    assert again.seconds - back.seconds == pytest.approx(0.04)


def test_a_stretch_never_begins_before_the_last_ended():
    continuity = Continuity()
    continuity.place(make_frame(0, arrived_ns=0), 1, 1)
    last = continuity.place(make_frame(500, sequence=1, arrived_ns=1), 1, 1)
    after = continuity.place(make_frame(0, sequence=2, arrived_ns=2), 1, 2)
    assert after.pts * after.time_base > last.pts * last.time_base


def test_missing_numbers_are_drops_and_a_new_reader_counts_on():
    continuity = Continuity()
    placed = [continuity.place(make_frame(n, sequence=n), 1, 1).sequence for n in (0, 1, 4)]
    placed += [continuity.place(make_frame(n, sequence=n), 2, 1).sequence for n in (0, 2)]
    assert placed == [0, 1, 4, 5, 7]
    assert (continuity.num_dropped, continuity.num_placed) == (3, 5)


def test_a_false_rate_is_found_out_and_a_true_one_is_left_alone():
    watch = RateWatch(Fraction(25))
    assert not any(watch.add(make_frame(n)) for n in range(200))
    found = [watch.add(make_frame(300 + 2 * n)) for n in range(2 * NUM_STEPS + 2)]
    assert found.count(True) == 1
    assert watch.rate == Fraction(25, 2)


def test_pace_keeps_time_and_skips_what_is_too_long():
    pace, calls = Pace(lambda: calls.append(1)), []
    started_s = time.monotonic()
    for seconds in (5.0, 5.1, 5.4):
        pace.wait(seconds)
    assert time.monotonic() - started_s >= 0.4
    assert calls  # the second wait was long enough for a sign of life
    for jump in (5.4 + 2 * LONGEST_WAIT_S, 0.0, 0.05):
        pace.wait(jump)
    assert time.monotonic() - started_s < LONGEST_WAIT_S
