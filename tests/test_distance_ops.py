"""What planes give back is counted by one kernel as torch counts it, in Triton's interpreter or on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from streamsr.device.projection import ProjectionOnDevice
from streamsr.runtimes import distance_ops, plane_ops
from tests.kernels import runs_triton, waits_for_nothing
from tests.test_consistency import clipped_pair

pytestmark = pytest.mark.kernels
HAS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if HAS_GPU else "cpu")
PEAKS = {"uint8": 255.0, "int16": 65535.0, "float32": 1.0}


def planes(kind: str, scale: int, size: tuple[int, int], *, num: int = 1) -> tuple[Tensor, Tensor]:
    """Return planes and what a generator might have made of them, much of it black or white."""
    pairs = [clipped_pair(scale, *size, seed=seed) for seed in range(num)]
    made = []
    for each in zip(*pairs, strict=True):
        levels = np.stack(each).astype(np.float64) / 255 * PEAKS[kind]
        dtype: Any = {"uint8": np.uint8, "int16": np.uint16, "float32": np.float32}[kind]
        levels = np.rint(levels) if kind != "float32" else levels
        made.append(torch.from_numpy(levels.astype(dtype).view(np.int16 if kind == "int16" else dtype)).to(DEVICE))
    return made[0], made[1]


def projection_of(kind: str, scale: int, size: tuple[int, int]) -> ProjectionOnDevice:
    level = 1 / 255 if kind == "float32" else 1.0
    return ProjectionOnDevice(scale, *size, peak=PEAKS[kind], level=level, device=DEVICE)


def in_torch(monkeypatch: pytest.MonkeyPatch, call: Any, *rooms: Any) -> None:
    """Make a call with rooms that do without Triton."""
    with monkeypatch.context() as patch:
        for ops in rooms:
            patch.setattr(ops, "uses_triton", lambda tensor: False)
        call()


@runs_triton
@pytest.mark.parametrize("kind", ["uint8", "int16", "float32"])
@pytest.mark.parametrize(("scale", "size"), [(2, (19, 12)), (2, (70, 8)), (4, (9, 7)), (4, (1, 1))])
def test_counts_are_those_of_torch(
    monkeypatch: pytest.MonkeyPatch, kind: str, scale: int, size: tuple[int, int]
) -> None:
    picture, stitched = planes(kind, scale, size, num=2 if size == (19, 12) else 1)
    projection, out = projection_of(kind, scale, size), torch.empty_like(stitched)
    in_torch(monkeypatch, lambda: projection.project(picture, stitched, out), plane_ops)
    ours, theirs, all_theirs = (torch.full((4,), torch.nan, dtype=torch.float64, device=DEVICE) for _ in range(3))
    projection.measure(picture, stitched, out, ours)
    in_torch(monkeypatch, lambda: projection.measure(picture, stitched, out, theirs), distance_ops)
    assert ours.tolist() == theirs.tolist()
    in_torch(monkeypatch, lambda: projection.measure(picture, stitched, out, all_theirs), distance_ops, plane_ops)
    assert (ours - all_theirs)[:3].abs().max() <= 2  # torch sums in another order
    assert ours[3].item() == pytest.approx(all_theirs[3].item(), abs=0.02 if kind == "int16" else 1e-3)


@runs_triton
def test_samples_at_the_ends_of_the_range_are_counted_apart() -> None:
    picture, stitched = planes("uint8", 2, (70, 12))
    projection = projection_of("uint8", 2, (70, 12))
    figures = torch.empty(4, dtype=torch.float64, device=DEVICE)
    projection.measure(picture, stitched, stitched, figures)
    before, within, clipped, largest = figures.tolist()
    assert before == within
    assert 0 < within < picture.numel()
    assert 0 < clipped <= picture.numel() - within
    assert largest > 1


def test_without_triton_nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    picture, stitched = planes("uint8", 2, (47, 35))
    projection, figures = projection_of("uint8", 2, (47, 35)), torch.empty(4, dtype=torch.float64, device=DEVICE)
    with waits_for_nothing():
        in_torch(
            monkeypatch,
            lambda: projection.measure(picture, stitched, stitched, figures),
            plane_ops,
            distance_ops,
        )
