"""Cut and stitch: windows of one size inside the frame, cores that tile it, and each the inverse of the other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsr.errors import UsageError
from streamsr.patches import PatchGrid, cut_patches, stitch_patches

sides = st.integers(1, 70)
grids = st.builds(
    PatchGrid,
    width=sides,
    height=sides,
    scale=st.integers(1, 3),
    halo_px=st.integers(0, 20),
    core_px=st.integers(1, 40),
)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def nearest(pictures: np.ndarray, scale: int) -> np.ndarray:
    return pictures.repeat(scale, axis=-2).repeat(scale, axis=-1)


@settings(max_examples=60, deadline=None)
@given(grid=grids, seed=st.integers(0, 99))
def test_stitch_inverts_cut_for_any_size_core_halo_and_scale(grid: PatchGrid, seed: int) -> None:
    plane = noise(grid.height, grid.width, seed=seed)
    patches = cut_patches(plane, grid, range(grid.num))
    picture = np.zeros((grid.scale * grid.height, grid.scale * grid.width), np.uint8)
    stitch_patches(nearest(patches, grid.scale), grid, range(grid.num), picture)
    np.testing.assert_array_equal(picture, nearest(plane, grid.scale))


@settings(max_examples=60, deadline=None)
@given(grid=grids)
def test_cores_tile_the_frame_once(grid: PatchGrid) -> None:
    covered = np.zeros((grid.scale * grid.height, grid.scale * grid.width), int)
    for rows, columns in grid.targets:
        covered[rows, columns] += 1
    assert (covered == 1).all()
    assert len(grid.targets) == grid.num == grid.rows * grid.columns


@settings(max_examples=60, deadline=None)
@given(grid=grids)
def test_windows_have_one_size_lie_inside_and_hold_core_and_halo(grid: PatchGrid) -> None:
    for spans, side, window in (
        (grid.column_spans, grid.width, grid.window_size[0]),
        (grid.row_spans, grid.height, grid.window_size[1]),
    ):
        for span in spans:
            start, stop = span.window
            assert stop - start == window
            assert start >= 0
            assert stop <= side
            # Either the halo is all there, or the window ends where the frame ends.
            assert start == 0 or span.core[0] - start >= grid.halo_px
            assert stop == side or stop - span.core[1] >= grid.halo_px


def test_some_patches_are_cut_and_stitched_and_no_others() -> None:
    grid = PatchGrid(50, 41, scale=1, halo_px=3, core_px=8)
    plane, picture = noise(41, 50), np.zeros((41, 50), np.uint8)
    chosen = [0, 5, grid.num - 1]
    stitch_patches(cut_patches(plane, grid, chosen), grid, chosen, picture)
    expected = np.zeros_like(picture)
    for index in chosen:
        expected[grid.targets[index]] = plane[grid.targets[index]]
    np.testing.assert_array_equal(picture, expected)
    assert np.count_nonzero(picture) < plane.size


def test_cut_writes_into_a_larger_batch_and_leaves_its_rest_alone() -> None:
    grid = PatchGrid(20, 20, scale=1, halo_px=2, core_px=8)
    out = np.full((4, 1, 12, 12), 7, np.uint8)
    patches = cut_patches(noise(20, 20), grid, [1, 2], out=out)
    assert np.shares_memory(patches, out)
    assert patches.shape == (2, 1, 12, 12)
    assert (out[2:] == 7).all()


def test_colour_pictures_and_strided_planes_are_cut_alike() -> None:
    grid = PatchGrid(33, 17, scale=1, halo_px=4, core_px=16)
    wide = noise(17, 66)
    picture = np.stack([wide[:, ::2]] * 3)
    patches = cut_patches(picture, grid, range(grid.num))
    assert patches.shape[1] == 3
    for channel in range(3):
        np.testing.assert_array_equal(patches[:, channel : channel + 1], cut_patches(wide[:, ::2], grid, range(6)))
    again = np.zeros_like(picture)
    stitch_patches(patches, grid, range(grid.num), again)
    np.testing.assert_array_equal(again, picture)


@pytest.mark.parametrize(
    "wrong", [{"width": 0}, {"height": 0}, {"scale": 0}, {"core_px": 0}, {"halo_px": -1}], ids=lambda wrong: str(wrong)
)
def test_a_grid_that_cannot_be_is_refused(wrong: dict[str, int]) -> None:
    sizes = {"width": 8, "height": 8, "scale": 2, "halo_px": 1, "core_px": 4, **wrong}
    with pytest.raises(UsageError, match="--patch or --halo"):
        PatchGrid(**sizes)


def test_pictures_of_another_size_are_refused() -> None:
    grid = PatchGrid(20, 10, scale=2, halo_px=1, core_px=8)
    with pytest.raises(UsageError, match="20x10"):
        cut_patches(noise(10, 21), grid, [0])
    with pytest.raises(UsageError, match="40x20"):
        stitch_patches(np.zeros((1, 1, 20, 20), np.uint8), grid, [0], np.zeros((20, 41), np.uint8))
    with pytest.raises(UsageError, match="20x20"):
        stitch_patches(np.zeros((1, 1, 10, 10), np.uint8), grid, [0], np.zeros((20, 40), np.uint8))
