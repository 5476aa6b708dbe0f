"""Patches on a device: the same windows, cores and differences as on the host."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsr.device.planes import Windows, tiling_of
from streamsr.patches import PatchGrid, cut_patches, stitch_patches
from streamsr.runtimes.gpu_ops import interpreted
from streamsr.runtimes.patch_ops import compare_windows
from streamsr.surround import any_in_windows

pytestmark = pytest.mark.kernels
HAS_GPU = torch.cuda.is_available()
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=[pytest.mark.needs_cuda, pytest.mark.skipif(not HAS_GPU, reason="needs an NVIDIA GPU")]),
]
GRIDS = [
    PatchGrid(50, 37, 2, 3, 16),
    PatchGrid(33, 64, 4, 10, 8),
    PatchGrid(20, 20, 2, 40, 32),
    PatchGrid(7, 5, 2, 0, 3),
]
EXAMPLES = 5 if interpreted() else 60


def samples(shape: tuple[int, ...], dtype: type[Any], seed: int = 0) -> Any:
    made = np.random.default_rng(seed).integers(0, 250, shape)
    return made.astype(dtype) if dtype is not np.float32 else (made / 250).astype(dtype)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_windows_are_those_of_the_host(device: str, grid: PatchGrid, dtype: type[Any]) -> None:
    picture = samples((3, grid.height, grid.width), dtype)
    chosen = [grid.num - 1, 0, grid.num // 2, 0]
    windows = Windows(grid, torch.device(device))
    indices = torch.tensor(chosen, dtype=torch.int32, device=device)
    on_device = torch.from_numpy(picture).to(device)
    assert np.array_equal(windows.cut(on_device, indices).cpu().numpy(), cut_patches(picture, grid, chosen))
    assert np.array_equal(windows.cut(on_device).cpu().numpy(), cut_patches(picture, grid, range(grid.num)))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_cores_are_stitched_as_on_the_host_and_nothing_else_is_written(
    device: str, grid: PatchGrid, dtype: type[Any]
) -> None:
    wide, tall = grid.window_size
    chosen = sorted({0, grid.num // 2, grid.num - 1})
    outputs = samples((len(chosen), 3, grid.scale * tall, grid.scale * wide), dtype)
    expected = samples((3, grid.scale * grid.height, grid.scale * grid.width), dtype, 1)
    made = torch.from_numpy(expected.copy()).to(device)
    stitch_patches(outputs, grid, chosen, expected)
    indices = torch.tensor(chosen, dtype=torch.int32, device=device)
    Windows(grid, torch.device(device)).stitch(torch.from_numpy(outputs).to(device), made, indices)
    assert np.array_equal(made.cpu().numpy(), expected)


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=EXAMPLES, deadline=None)
@given(st.data())
def test_windows_that_differ_are_found_exactly(device: str, data: st.DataObject) -> None:
    grid = data.draw(st.sampled_from(GRIDS))
    before = samples((grid.height, grid.width), data.draw(st.sampled_from([np.uint8, np.int16])))
    now = before.copy()
    for _ in range(data.draw(st.integers(0, 3))):
        now[data.draw(st.integers(0, grid.height - 1)), data.draw(st.integers(0, grid.width - 1))] += 1
    mask = torch.full((grid.num,), 7, dtype=torch.uint8, device=device)
    compare_windows(torch.from_numpy(now).to(device), torch.from_numpy(before).to(device), mask, tiling_of(grid))
    assert np.array_equal(mask.cpu().numpy().reshape(grid.rows, grid.columns), any_in_windows(now != before, grid))


@pytest.mark.parametrize("device", DEVICES)
def test_chroma_counts_with_its_margin_and_joins_what_was_found(device: str) -> None:
    grid = PatchGrid(64, 48, 2, 2, 16)
    before = torch.zeros((24, 32), dtype=torch.uint8, device=device)
    mask = torch.zeros(grid.num, dtype=torch.uint8, device=device)
    mask[0] = 1
    now = before.clone()
    now[0, 29] = 9
    compare_windows(now, before, mask, tiling_of(grid), shift=(1, 1), margin=2, joins=True)
    assert np.flatnonzero(mask.cpu().numpy()).tolist() == [0, 3]
    now = before.clone()
    now[0, 20] = 9  # the window of the patch at column 3 begins at pixel 44, chroma 22
    compare_windows(now, before, mask, tiling_of(grid), shift=(1, 1), margin=2)
    assert np.flatnonzero(mask.cpu().numpy()).tolist() == [2, 3]
    compare_windows(now, before, mask, tiling_of(grid), shift=(1, 1), margin=1)
    assert np.flatnonzero(mask.cpu().numpy()).tolist() == [2]
