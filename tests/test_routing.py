"""Routing and launch: what is skipped is black surround or unchanged, and nothing else; what it costs to launch."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsr.launch import MAX_BATCH_PX, batches_of
from streamsr.patches import PatchGrid
from streamsr.regions import MAX_REGIONS, PATIENCE, Region, Regions
from streamsr.routing import Router, RoutingCount
from streamsr.surround import any_in_windows, black_level, boxes_of, fill, find_surround, joined_to_border

GRID = PatchGrid(100, 76, scale=2, halo_px=4, core_px=16)
BLACK = 20


def tissue(seed: int = 0, shape: tuple[int, int] = (76, 100)) -> np.ndarray:
    return np.random.default_rng(seed).integers(60, 200, shape).astype(np.uint8)


def slow_windows(mask: np.ndarray, grid: PatchGrid) -> np.ndarray:
    return np.array([mask[rows, columns].any() for rows, columns in grid.windows]).reshape(grid.rows, grid.columns)


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    halo_px=st.integers(0, 12),
    core_px=st.integers(3, 33),
    seed=st.integers(0, 99),
)
def test_any_in_windows_is_what_each_window_says(
    width: int, height: int, halo_px: int, core_px: int, seed: int
) -> None:
    grid = PatchGrid(width, height, scale=2, halo_px=halo_px, core_px=core_px)
    mask = np.random.default_rng(seed).random((height, width)) > 0.999
    np.testing.assert_array_equal(any_in_windows(mask, grid), slow_windows(mask, grid))


def test_the_first_frame_is_generated_whole() -> None:
    routing = Router(GRID, black=BLACK).route(tissue())
    assert routing.generate.all()
    assert not routing.unchanged.any()


def test_only_windows_that_hold_a_changed_sample_are_generated_again() -> None:
    router, first = Router(GRID, black=BLACK), tissue()
    router.route(first)
    second = first.copy()
    second[40, 50] ^= 1
    routing = router.route(second)
    np.testing.assert_array_equal(routing.generate, slow_windows(first != second, GRID))
    np.testing.assert_array_equal(routing.unchanged, ~routing.generate)
    assert 1 <= routing.generate.sum() <= 4


def test_nothing_is_reused_when_asked_not_to_and_after_a_reset() -> None:
    frame = tissue()
    stubborn = Router(GRID, black=BLACK, reuse_unchanged=False)
    stubborn.route(frame)
    assert stubborn.route(frame).generate.all()
    router = Router(GRID, black=BLACK)
    router.route(frame)
    router.reset()
    assert router.route(frame).generate.all()


def test_black_at_the_border_is_surround_and_a_dark_lumen_is_not() -> None:
    frame = tissue()
    frame[:, :26] = 16
    frame[20:60, 44:84] = 16
    surround = Router(GRID, black=BLACK).route(frame).surround
    np.testing.assert_array_equal(np.flatnonzero(surround.any(axis=0)), [0])
    assert surround[:, 0].all()
    assert (~slow_windows(frame > BLACK, GRID)).sum() > surround.sum()


def test_one_bright_sample_in_core_or_halo_makes_surround_tissue() -> None:
    frame = np.full((76, 100), 16, np.uint8)
    assert find_surround(frame, GRID, BLACK).all()
    frame[17, 17] = BLACK + 1
    np.testing.assert_array_equal(find_surround(frame, GRID, BLACK), ~slow_windows(frame > BLACK, GRID))
    frame[17, 17] = BLACK
    assert find_surround(frame, GRID, BLACK).all()


def test_no_surround_is_looked_for_when_asked_not_to() -> None:
    routing = Router(GRID, black=None).route(np.zeros((76, 100), np.uint8))
    assert routing.generate.all()
    assert not routing.surround.any()


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 12), columns=st.integers(1, 12), seed=st.integers(0, 999))
def test_joined_to_border_agrees_with_connected_components(rows: int, columns: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((rows, columns)) > 0.4
    padded = np.pad(mask, 1, constant_values=True).astype(np.uint8)
    _, labels = cv2.connectedComponents(padded, connectivity=4)
    np.testing.assert_array_equal(joined_to_border(mask), (labels == labels[0, 0])[1:-1, 1:-1] & mask)


def test_a_patch_that_becomes_or_stops_being_surround_is_made_anew_though_its_bits_are_the_same() -> None:
    grid = PatchGrid(96, 96, scale=2, halo_px=0, core_px=16)
    router, open_way, closed = Router(grid, black=BLACK), tissue(shape=(96, 96)), tissue(shape=(96, 96))
    open_way[32:48, :48] = 16
    closed[32:48, :48] = 16
    closed[32:48, :16] = 90
    assert router.route(open_way).surround[2, :3].all()
    routing = router.route(closed)
    assert routing.generate[2, :3].all()
    routing = router.route(open_way)
    assert routing.refill[2, :3].all()
    assert not router.route(open_way).refill.any()


def test_black_levels_follow_range_and_depth() -> None:
    assert black_level(full_range=False, bit_depth=8) == 20
    assert black_level(full_range=True, bit_depth=8) == 4
    assert black_level(full_range=False, bit_depth=10) == 83
    assert black_level(full_range=True, bit_depth=16) == 1279


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 9), columns=st.integers(1, 9), seed=st.integers(0, 999))
def test_boxes_tile_their_mask(rows: int, columns: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((rows, columns)) > 0.3
    covered = np.zeros(mask.shape, int)
    for (top, bottom), (left, right) in boxes_of(mask):
        covered[top:bottom, left:right] += 1
    np.testing.assert_array_equal(covered, mask)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_fill_is_bicubic_of_the_whole_picture_in_the_cores_it_fills(dtype: type) -> None:
    picture = np.random.default_rng(3).integers(0, 256, (2, 76, 100)).astype(dtype)
    mask = np.random.default_rng(4).random((GRID.rows, GRID.columns)) > 0.5
    enlarged = np.zeros((2, 152, 200), dtype)
    fill(picture, GRID, mask, enlarged)
    for plane, result in zip(picture, enlarged, strict=True):
        whole = cv2.resize(plane, (200, 152), interpolation=cv2.INTER_CUBIC)
        for index, (rows, columns) in enumerate(GRID.targets):
            expected = whole[rows, columns] if mask.flat[index] else np.zeros_like(whole[rows, columns])
            np.testing.assert_allclose(result[rows, columns], expected, atol=1e-3)


def test_counts_add_up_and_skipped_is_what_was_not_launched() -> None:
    frame = tissue()
    frame[:, :26] = 16
    routing = Router(GRID, black=BLACK).route(frame)
    count = routing.count(routing.generate)
    assert count.total == GRID.num == count.surround + count.unchanged + count.generated
    assert count.skipped == count.surround == 5
    assert count + count == RoutingCount(70, 10, 0, 60, 60)
    assert routing.count(np.ones_like(routing.generate)).skipped == 0


@settings(max_examples=60, deadline=None)
@given(num=st.integers(0, 400), window_px=st.integers(1, 40_000))
def test_batches_hold_every_patch_in_few_sizes_with_little_waste(num: int, window_px: int) -> None:
    batches = list(batches_of(num, window_px))
    assert sum(taken for taken, _ in batches) == num
    assert {size for _, size in batches} <= {1, 4, 16, 64}
    assert all(taken >= 0.75 * size for taken, size in batches)
    assert all(size == 1 or size * window_px <= MAX_BATCH_PX for _, size in batches)


def test_regions_hold_what_is_needed_and_stay_few() -> None:
    regions, rng, seen = Regions(GRID), np.random.default_rng(5), set()
    for _ in range(500):
        mask = np.zeros((GRID.rows, GRID.columns), bool)
        row, column = rng.integers(0, GRID.rows), rng.integers(0, GRID.columns)
        mask[row : row + 2, column : column + 2] = True
        region = regions.cover(mask)
        assert (region.mask(GRID) | mask).sum() == region.num_patches
        seen.add(region)
    assert len(seen) <= MAX_REGIONS + 1


def box(rows: int, columns: int) -> np.ndarray:
    mask = np.zeros((GRID.rows, GRID.columns), bool)
    mask[:rows, :columns] = True
    return mask


def test_what_the_first_frame_needs_is_a_region_and_more_than_that_is_the_whole_frame() -> None:
    regions = Regions(GRID)
    assert regions.cover(box(5, 4)) == Region((0, 5), (0, 4))
    assert regions.cover(box(3, 4)) == Region((0, 5), (0, 4))
    assert regions.cover(box(5, 5)) == regions.whole
    assert regions.cover(box(5, 4)) == Region((0, 5), (0, 4))


def test_a_region_shrinks_when_a_smaller_one_would_do_for_long_and_not_before() -> None:
    regions = Regions(GRID)
    assert regions.cover(box(5, 7)) == regions.whole
    answers = [regions.cover(box(2, 2)) for _ in range(PATIENCE)]
    assert answers[:-1] == [regions.whole] * (PATIENCE - 1)
    assert answers[-1] == Region((0, 2), (0, 2))
    assert regions.cover(box(5, 7)) == regions.whole
