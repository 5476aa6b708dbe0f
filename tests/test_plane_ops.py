"""Kernels on planes give what torch gives, in Triton's interpreter or on a GPU; torch gives what the host gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from streamsr.colour import coding_of, rgb_from_yuv, yuv_from_rgb
from streamsr.frame import Colour
from streamsr.runtimes import plane_ops
from streamsr.runtimes.plane_ops import (
    Ending,
    Matrix,
    join_rgb,
    keep_outside,
    read_levels,
    resample,
    split_rgb,
    write_levels,
)
from tests.kernels import last_program_alone, runs_triton

HAS_GPU = torch.cuda.is_available()
DEVICE = "cuda" if HAS_GPU else "cpu"
pytestmark = pytest.mark.kernels
SIZE = (13, 22)


def matrix_of(depth: int, *, full_range: bool = False, matrix: int = 1) -> Matrix:
    coding = coding_of(Colour(matrix, full_range, 1, 1), depth)
    return Matrix(coding.luma, coding.chroma, coding.weights, (1 << depth) - 1)


def words(shape: tuple[int, ...], depth: int, seed: int = 0) -> Tensor:
    levels = np.random.default_rng(seed).integers(0, 1 << depth, shape)
    kind = np.uint8 if depth == 8 else np.uint16
    return torch.from_numpy(levels.astype(kind).view(np.uint8 if depth == 8 else np.int16)).to(DEVICE)


def real(shape: tuple[int, ...], low: float, high: float, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)).to(DEVICE)


def in_torch(monkeypatch: pytest.MonkeyPatch, call: Any) -> Any:
    """Return what a call gives without Triton."""
    with monkeypatch.context() as patch:
        patch.setattr(plane_ops, "uses_triton", lambda tensor: False)
        return call()


@pytest.mark.parametrize("depth", [8, 10, 16])
@pytest.mark.parametrize("full_range", [False, True])
def test_rgb_and_back_is_the_hosts(depth: int, full_range: bool) -> None:
    coding = coding_of(Colour(1, full_range, 1, 1), depth)
    matrix = matrix_of(depth, full_range=full_range)
    luma, differences = words(SIZE, depth), real((2, *SIZE), 0, matrix.peak, 1)
    levels = plane_ops.real_samples(luma).cpu().numpy()
    expected = rgb_from_yuv(levels, *differences.cpu().numpy(), coding)
    rgb = join_rgb(luma, differences, matrix)
    np.testing.assert_allclose(rgb.cpu().numpy(), expected, atol=2e-6)
    back, before = torch.empty_like(luma), real((2, *SIZE), 0, matrix.peak, 2)
    change = split_rgb(rgb, before, back, matrix)
    assert change is not None
    value, *made = yuv_from_rgb(expected, coding)
    off = plane_ops.real_samples(back).cpu().numpy() - np.clip(np.rint(value), 0, matrix.peak)
    assert np.abs(off).max() <= (0 if depth < 16 else 1)
    tolerance = 1e-6 * matrix.peak
    np.testing.assert_allclose(change.cpu().numpy(), np.stack(made) - before.cpu().numpy(), atol=tolerance)


def test_gray_has_three_equal_channels_and_no_differences() -> None:
    luma, matrix = words(SIZE, 8), matrix_of(8)
    rgb = join_rgb(luma, None, matrix)
    assert torch.equal(rgb[0], rgb[1])
    assert torch.equal(rgb[0], rgb[2])
    back = torch.empty_like(luma)
    assert split_rgb(rgb, None, back, matrix) is None
    assert torch.equal(back, luma)


@runs_triton
@pytest.mark.parametrize("depth", [8, 10])
@pytest.mark.parametrize("gray", [False, True])
def test_colour_kernels_give_what_torch_gives(monkeypatch: pytest.MonkeyPatch, depth: int, gray: bool) -> None:
    matrix, luma = matrix_of(depth, matrix=6), words(SIZE, depth)
    differences = None if gray else real((2, *SIZE), 0, matrix.peak, 1)
    rgb = join_rgb(luma, differences, matrix)
    torch.testing.assert_close(rgb, in_torch(monkeypatch, lambda: join_rgb(luma, differences, matrix)))
    ours, theirs = torch.empty_like(luma), torch.empty_like(luma)
    change = split_rgb(rgb, differences, ours, matrix)
    expected = in_torch(monkeypatch, lambda: split_rgb(rgb, differences, theirs, matrix))
    assert torch.equal(ours, theirs)
    if not gray:
        torch.testing.assert_close(change, expected, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("depth", [8, 10, 16])
@pytest.mark.parametrize("size", [(1, 1), (13, 21), (64, 48)])
def test_levels_become_real_and_levels_again(
    monkeypatch: pytest.MonkeyPatch, depth: int, size: tuple[int, int]
) -> None:
    levels, peak = words((1, *size), depth), (1 << depth) - 1
    made = read_levels(levels, gain=1 / peak)
    assert torch.equal(made, in_torch(monkeypatch, lambda: read_levels(levels, gain=1 / peak)))
    expected = levels.cpu().numpy().view(np.uint8 if depth == 8 else np.uint16) / np.float32(peak)
    np.testing.assert_allclose(made.cpu().numpy(), expected, rtol=1e-6)
    back = torch.empty_like(levels)
    write_levels(made, back, peak=peak, gain=peak)
    assert torch.equal(back, levels)
    beyond = real((1, *size), -0.2, 1.2) if size != (1, 1) else torch.tensor([[[0.5 / peak]]], device=DEVICE)
    ours, theirs = torch.empty_like(levels), torch.empty_like(levels)
    write_levels(beyond, ours, peak=peak, gain=peak)
    in_torch(monkeypatch, lambda: write_levels(beyond, theirs, peak=peak, gain=peak))
    assert torch.equal(ours, theirs)


def test_levels_midway_go_to_the_even_one() -> None:
    out = torch.empty(6, dtype=torch.int16, device=DEVICE)
    write_levels(torch.tensor([-3.0, 0.5, 1.5, 2.5, 40000.5, 70000.0], device=DEVICE), out, peak=65535)
    assert (out.int() & 0xFFFF).tolist() == [0, 0, 2, 2, 40000, 65535]


@runs_triton
@pytest.mark.parametrize("kind", ["uint8", "int16", "float32"])
@pytest.mark.parametrize("scale", [2, 4])
def test_corrections_outside_are_kept_as_torch_keeps_them(
    monkeypatch: pytest.MonkeyPatch, kind: str, scale: int
) -> None:
    large = (3, scale * SIZE[0], scale * SIZE[1])
    peak = {"uint8": 255.0, "int16": 1023.0, "float32": 1.0}[kind]
    made = real(large, -0.4, 1.4).clamp(0, 1) if kind == "float32" else words(large, 8 if kind == "uint8" else 10)
    if kind != "float32":
        made[:, : large[1] // 2] = 0
    wanted = real((3, *SIZE), -20, 20, 1)
    for limits in (None, (0.0, peak)):
        options: dict[str, Any] = {"scale": scale, "threshold": 0.5, "limits": limits, "least_room": 0.25, "most": 16.0}
        ours, theirs = wanted.clone(), wanted.clone()
        keep_outside(ours, made, **options)
        in_torch(monkeypatch, lambda: keep_outside(theirs, made, **options))  # noqa: B023 - called at once
        torch.testing.assert_close(ours, theirs)


def test_real_results_are_clamped_where_there_are_limits() -> None:
    source, base = real((1, 4, 4), -2, 2), real((1, 4, 4), -2, 2, 1)
    same = (torch.arange(4, dtype=torch.int32, device=DEVICE), torch.ones(4, 1, device=DEVICE))
    out = torch.empty_like(base)
    resample(source, out, same, same, peak=1.0, ending=Ending(base, lacks=False, limits=(0.0, 0.9)))
    torch.testing.assert_close(out, (base + source).clamp(0.0, 0.9))


@runs_triton
def test_planes_beyond_31_bits_are_resampled_and_corrected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that nothing touches is never backed, so this takes little."""
    last_program_alone(monkeypatch)
    side, device = 46_400, torch.device(DEVICE)
    source, out = (torch.empty((1, side, side), dtype=torch.uint8, device=device) for _ in range(2))
    source[:, -8:, -128:] = words((1, 8, 128), 8)
    same = (torch.arange(side, dtype=torch.int32, device=device), torch.ones(side, 1, device=device))
    resample(source, out, same, same, peak=255.0)
    assert torch.equal(out[:, -8:, -64:], source[:, -8:, -64:])
    wanted = torch.empty((1, side // 2, side // 2), device=device)
    wanted[:, -1, -64:] = 8.0
    source[:, -2:, -128:] = 255
    source[:, -2:, -64:] = 7
    options: dict[str, Any] = {"threshold": 0.5, "limits": (0.0, 255.0), "least_room": 0.25, "most": 16.0}
    keep_outside(wanted, source, scale=2, **options)
    assert wanted[0, -1, -64:-32].tolist() == [16.0] * 32
    assert wanted[0, -1, -32:].tolist() == [8.0] * 32
