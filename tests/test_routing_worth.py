"""RoutingWorth: routes where that saves more than it costs, and lets it be where it does not."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from streamsr.device.worth import JUDGED, MOST_PART, RESTED, WAIT_MS, WATCHED, RoutingWorth

CORES = (32, 64, 128)


def watched(part: float, frame_ms: float = 5.0) -> RoutingWorth:
    worth = RoutingWorth(CORES)
    for _ in range(WATCHED):
        assert worth.state == "watch"
        worth.watched(dict.fromkeys(CORES, part), frame_ms)
    return worth


def test_much_that_does_not_change_is_routed() -> None:
    assert watched(0.3).state == "route"


def test_a_video_that_moves_everywhere_is_left_alone() -> None:
    assert watched(1.0).state == "rest"
    assert watched(MOST_PART + 0.01).state == "rest"


def test_what_a_light_network_could_save_is_less_than_the_wait() -> None:
    assert watched(0.5, frame_ms=2 * WAIT_MS - 0.01).state == "rest"
    assert watched(0.5, frame_ms=2 * WAIT_MS + 0.01).state == "route"


def test_the_patches_that_take_least_arithmetic_are_chosen() -> None:
    worth = RoutingWorth(CORES)
    for _ in range(WATCHED):
        worth.watched({32: 0.7, 64: 0.4, 128: 0.9}, 5.0)
    assert worth.core_px == 64


def test_routing_goes_on_while_it_pays_and_ends_where_it_does_not() -> None:
    worth = watched(0.3, frame_ms=5.0)
    for _ in range(3 * JUDGED):
        worth.routed(compute_ms=2.0, cost_ms=0.2)
    assert worth.state == "route"
    for _ in range(JUDGED):
        worth.routed(compute_ms=4.9, cost_ms=0.2)
    assert worth.state == "rest"
    for _ in range(RESTED):
        assert worth.state == "rest"
        worth.rested()
    assert worth.state == "watch"


def test_frames_that_were_under_way_when_the_state_changed_count_for_nothing() -> None:
    worth = watched(0.3)
    worth.watched(dict.fromkeys(CORES, 1.0), 5.0)
    worth.rested()
    assert worth.state == "route"


@given(st.integers(0, 1 << 30), st.integers(1, 6))
def test_a_look_at_which_routing_cost_more_than_it_saved_ends_it(seed: int, looks: int) -> None:
    rng, worth = random.Random(seed), watched(0.3, frame_ms=10.0)
    for _ in range(looks):
        gain_ms, usual_ms = 0.0, rng.uniform(0, 11)
        for _ in range(JUDGED):
            assert worth.state == "route"
            compute_ms, cost_ms = usual_ms * rng.uniform(0.8, 1.2), rng.uniform(0, 2)
            gain_ms += 10.0 - compute_ms - cost_ms
            worth.routed(compute_ms, cost_ms)
        if abs(gain_ms) > 1e-6:
            assert worth.state == ("route" if gain_ms > 0 else "rest")
        if worth.state == "rest":
            return
