"""The choice of a launch: by measurement, but never against what a busy clock makes of it."""

from __future__ import annotations

import time

import numpy as np

from streamsr.launch import WORTHWHILE, Costs, LaunchPlan, choose_launch
from streamsr.runtimes.base import Pictures


class SlowingGenerator:
    """Takes the same time a pixel in any shape, but ten times as long once the clock has fallen."""

    scale, channels, radius_px = 2, 1, 10
    runtime = precision = description = "double"

    def __init__(self, *, falls_at_px: int) -> None:
        self.falls_at_px = falls_at_px

    def generate(self, pictures: Pictures, out: Pictures | None = None) -> Pictures:
        num, channels, height, width = pictures.shape
        slow = 10 if height * width >= self.falls_at_px else 1
        time.sleep(num * height * width * slow * 2e-8)
        return np.zeros((num, channels, 2 * height, 2 * width), pictures.dtype) if out is None else out


def test_a_clock_that_falls_before_the_frame_is_measured_does_not_make_patches_look_cheap() -> None:
    plan = choose_launch(SlowingGenerator(falls_at_px=320 * 240), 320, 240, cores=(32,))
    assert plan.kind == "region"
    assert plan.cheapest(8 * 10, 1.0) == "frame"


def test_patches_are_launched_when_few_are_left() -> None:
    plan = choose_launch(SlowingGenerator(falls_at_px=1 << 30), 640, 480, cores=(32,))
    assert plan.cheapest(15 * 20, 1.0) == "frame"
    assert plan.cheapest(4, 1.0) == "patch"


def test_less_than_the_frame_has_to_be_worth_it() -> None:
    plan = LaunchPlan("region", 32, 10, Costs(frame_ms=10.0, patch_ms=1.0, window_px=52 * 52))
    assert plan.cheapest(100, WORTHWHILE + 0.05) == "frame"
    assert plan.cheapest(100, WORTHWHILE - 0.05) == "region"
    assert plan.cheapest(4, 1.0) == "patch"
