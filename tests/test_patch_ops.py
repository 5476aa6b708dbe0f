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
from streamsr.runtimes import patch_ops
from streamsr.runtimes.gpu_ops import interpreted
from streamsr.runtimes.patch_ops import compare_windows
from streamsr.surround import any_in_windows
from tests.kernels import grids_alone, last_program_alone, runs_triton, waits_for_nothing

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
    PatchGrid(3, 2, 2, 0, 1),
    PatchGrid(20, 1, 2, 1, 30),
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


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_without_triton_nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch, grid: PatchGrid) -> None:
    monkeypatch.setattr(patch_ops, "uses_triton", lambda tensor: False)
    picture = torch.from_numpy(samples((3, grid.height, grid.width), np.uint8))
    windows, mask = Windows(grid, picture.device), torch.zeros(grid.num, dtype=torch.uint8)
    indices = torch.tensor([0, grid.num - 1], dtype=torch.int32)
    made = torch.zeros((3, grid.scale * grid.height, grid.scale * grid.width), dtype=torch.uint8)
    with waits_for_nothing():
        patches = windows.cut(picture, indices)
        windows.stitch(patches.repeat_interleave(grid.scale, 2).repeat_interleave(grid.scale, 3), made, indices)
        compare_windows(picture[0], picture[1], mask, windows.tiling, joins=True)
        compare_windows(picture[0], picture[1], mask, windows.tiling, shift=(1, 1), margin=2)


def test_grids_of_many_patches_are_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = PatchGrid(3840, 2160, 2, 0, 8)
    assert grid.num == 129_600
    windows, mask = Windows(grid, torch.device("cpu")), torch.zeros(grid.num, dtype=torch.uint8)
    picture, made = (torch.zeros((1, scale * 2160, scale * 3840), dtype=torch.uint8) for scale in (1, 2))
    room = grids_alone(monkeypatch, patch_ops)
    patches = windows.cut(picture)
    windows.stitch(patches.repeat(1, 1, 2, 2), made)
    compare_windows(picture[0], picture[0], mask, windows.tiling)
    assert len(room.grids) == 3
    assert room.fit, room.grids


@runs_triton
def test_windows_of_pictures_beyond_31_bits_are_cut_and_stitched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that nothing touches is never backed, so this takes little."""
    grid, device = PatchGrid(27_000, 27_000, 1, 2, 32), "cuda" if HAS_GPU and not interpreted() else "cpu"
    last_program_alone(monkeypatch)
    picture, made = (torch.empty((3, 27_000, 27_000), dtype=torch.uint8, device=device) for _ in range(2))
    picture[:, -40:, -40:].random_(0, 256)
    windows, indices = Windows(grid, torch.device(device)), torch.tensor([grid.num - 1], device=device).int()
    wide, tall = grid.window_size
    patches = windows.cut(picture, indices)
    assert torch.equal(patches[0, 2, -7:], picture[2, -7:, -wide:])  # the last program copies no more
    windows.stitch(picture[None, :, -tall:, -wide:].contiguous(), made, indices)
    core = 27_000 % 32
    assert torch.equal(made[2, -core:, -core:], picture[2, -core:, -core:])
