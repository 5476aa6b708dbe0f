"""The choice of a launch: never against what a busy clock makes of it, and tried only where that can pay."""

from __future__ import annotations

import time

import numpy as np
import pytest

from streamsr.launch import WORTHWHILE, Costs, LaunchPlan, tiles_of
from streamsr.launch_choice import SURE_PX, LaunchChooser, Trial
from streamsr.patches import PatchGrid
from streamsr.runtimes.base import Pictures
from streamsr.surround import Mask


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


class Counted:
    """A generator that takes no time and remembers the shapes it was given."""

    scale, channels, radius_px = 2, 1, 4
    runtime = precision = description = "counted"

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def generate(self, pictures: Pictures, out: Pictures | None = None) -> Pictures:
        self.shapes.append(pictures.shape)
        assert out is not None
        return out


def grid_of(width: int, height: int, radius_px: int = 4) -> PatchGrid:
    return PatchGrid(width, height, 2, radius_px, 32)


def some(grid: PatchGrid, num: int) -> Mask:
    """Return a mask of the first patches."""
    mask: Mask = np.zeros((grid.rows, grid.columns), np.bool_)
    mask.flat[:num] = True
    return mask


def test_a_fixed_launch_is_taken_without_a_trial() -> None:
    generator = Counted()
    assert LaunchChooser(generator, 640, 480, launch="frame", trial_first=True).plan == LaunchPlan("frame", 32, 4)
    fixed = LaunchChooser(generator, 640, 480, launch="patch", cores=(48,), halo_px=9, trial_first=True)
    assert fixed.plan == LaunchPlan("patch", 48, 9)
    assert LaunchChooser(generator, 60, 50, trial_first=True).plan == LaunchPlan("frame", 32, 4)
    assert generator.shapes == []


def test_a_trial_measures_every_patch_size_and_the_frame() -> None:
    generator = Counted()
    plan = LaunchChooser(generator, 640, 480, trial_first=True).plan
    assert plan.kind == "region"
    assert {shape[-1] for shape in generator.shapes} == {40, 72, 136, 640}
    assert LaunchChooser(generator, 640, 480, launch="patch").plan.kind == "patch"


def test_a_frame_that_would_take_too_long_is_not_tried() -> None:
    generator = Counted()
    assert LaunchChooser(generator, 640, 480, trial_first=True, budget_ms=0.0).plan.kind == "patch"
    assert {shape[-1] for shape in generator.shapes} == {40}


def test_a_frame_too_large_to_be_launched_unseen_has_its_trial_first() -> None:
    generator = Counted()
    side = int(SURE_PX**0.5) + 32
    assert LaunchChooser(generator, side, side).plan.costs is not None
    assert generator.shapes


def test_a_video_that_moves_everywhere_never_has_a_trial() -> None:
    generator, grid = Counted(), grid_of(640, 480)
    chooser = LaunchChooser(generator, 640, 480)
    for _ in range(1000):
        assert chooser.choose(some(grid, grid.num), grid, 1.0) == "frame"
        chooser.note(1.0, 100.0)
    assert generator.shapes == []
    assert chooser.plan.costs is None


@pytest.mark.parametrize(("part", "expected"), [(WORTHWHILE + 0.01, "frame"), (WORTHWHILE - 0.01, "region")])
def test_a_region_needs_no_trial(part: float, expected: str) -> None:
    generator, grid = Counted(), grid_of(640, 480)
    assert LaunchChooser(generator, 640, 480).choose(some(grid, grid.num - 20), grid, part) == expected
    assert generator.shapes == []


def test_the_trial_comes_when_patches_could_have_saved_as_much_as_it_costs() -> None:
    generator, grid = Counted(), grid_of(640, 480)
    chooser, whole = LaunchChooser(generator, 640, 480), 0
    while chooser.plan.costs is None:
        chooser.choose(some(grid, 4), grid, 1.0)
        chooser.note(1.0, 40.0)
        whole += chooser.plan.costs is None
        assert whole < 100
    # Four patches of 40x40 cost 2 % of a frame, so each frame launched whole lost 39 of its 40 ms; 13 of these are 500.
    assert whole == 12
    assert {shape[-1] for shape in generator.shapes} == {40, 72, 136, 640}


def test_patches_that_could_spare_little_beside_the_region_are_never_tried() -> None:
    generator, grid = Counted(), grid_of(640, 480)
    chooser = LaunchChooser(generator, 640, 480)
    for _ in range(1000):
        assert chooser.choose(some(grid, 4), grid, 0.025) == "region"
        chooser.note(0.025, 40.0)
    assert generator.shapes == []


def test_a_clock_that_falls_before_the_frame_is_measured_does_not_make_patches_look_cheap() -> None:
    plan = Trial(SlowingGenerator(falls_at_px=320 * 240), (grid_of(320, 240, 10),)).run()
    assert plan.kind == "region"
    assert plan.cheapest(8 * 10, 1.0) == "frame"


def test_patches_are_launched_when_few_are_left() -> None:
    plan = Trial(SlowingGenerator(falls_at_px=1 << 30), (grid_of(640, 480, 10),)).run()
    assert plan.cheapest(15 * 20, 1.0) == "frame"
    assert plan.cheapest(4, 1.0) == "patch"


@pytest.mark.parametrize(
    ("num", "part", "expected"), [(300, 1.0, "frame"), (300, 0.7, "region"), (4, 0.7, "patch"), (4, 0.01, "region")]
)
def test_each_frame_takes_the_cheapest_launch(num: int, part: float, expected: str) -> None:
    plan = LaunchPlan("region", 32, 4, Costs(frame_ms=50.0, patch_ms=0.4, window_px=1600))
    assert plan.cheapest(num, part) == expected


def test_less_than_the_frame_has_to_be_worth_it() -> None:
    plan = LaunchPlan("region", 32, 10, Costs(frame_ms=10.0, patch_ms=1.0, window_px=52 * 52))
    assert plan.cheapest(100, WORTHWHILE + 0.05) == "frame"
    assert plan.cheapest(100, WORTHWHILE - 0.05) == "region"
    assert plan.cheapest(4, 1.0) == "patch"


def test_a_tile_is_launched_where_one_of_its_patches_is_needed() -> None:
    grid = grid_of(160, 96)
    mask = some(grid, 0)
    mask[2, 3] = True
    assert tiles_of(mask, grid, PatchGrid(160, 96, 2, 4, 64)).tolist() == [[False] * 3, [False, True, False]]
    assert tiles_of(mask, grid, grid) is mask
