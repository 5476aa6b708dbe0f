"""Pictures that a GPU decoded and that stay on it: played on the CPU here, with PyAV's pictures as surfaces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from streamsr import device_slot
from streamsr.capture.planes import choose_layout, make_planar, view_planes
from streamsr.device_frame import SurfaceCopier, planes_on
from streamsr.device_upscaler import DeviceUpscaler, holds_the_same
from streamsr.engine import find_engine
from streamsr.frame import Colour, Frame
from streamsr.runtimes.cuda import CudaGenerator
from tests.surfaces import Surface, noise

COLOUR = Colour(1, False, 1, 1)
CPU = torch.device("cpu")
FORMATS = ["nv12", "p010le", "p016le"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def upscaler_on_cpu(**options: Any) -> DeviceUpscaler:
    return DeviceUpscaler(CudaGenerator(find_engine("tiny-x2"), precision="fp32", device="cpu"), **options)


def both_ways(fmt: str, num: int = 3, size: tuple[int, int] = (66, 50)) -> tuple[list[Frame], list[Frame]]:
    """Return frames of the same pictures: with planes downloaded, and kept."""
    copier, downloaded, kept = SurfaceCopier("cpu"), [], []
    for seed in range(num):
        picture = noise(fmt, *size, seed=seed)
        layout = choose_layout(picture.format)
        planes = view_planes(make_planar(picture, layout, COLOUR), layout)
        frame = Frame(planes, layout, COLOUR, seed, Fraction(1, 25), sequence=seed)
        downloaded.append(frame)
        kept.append(frame.with_planes(copier.copy(Surface(picture), layout)))
    return downloaded, kept


@pytest.mark.parametrize("fmt", FORMATS)
def test_kept_planes_are_enlarged_as_downloaded_ones_and_never_downloaded(fmt: str) -> None:
    downloaded, kept = both_ways(fmt)
    expected = list(upscaler_on_cpu().upscale_all(downloaded))
    made = list(upscaler_on_cpu().upscale_all(kept))
    assert [frame.pts for frame in made] == [frame.pts for frame in kept]
    for frame, other in zip(made, expected, strict=True):
        assert all(isinstance(plane, np.ndarray) for plane in frame.planes)
        assert all(map(np.array_equal, frame.planes, other.planes))
    assert not any(plane.is_downloaded for frame in kept for plane in planes_on(frame, CPU))


def test_frames_of_both_kinds_may_come_by_turns() -> None:
    downloaded, kept = both_ways("nv12", 4)
    mixed = [one for pair in zip(kept, downloaded, strict=True) for one in pair]
    made = list(upscaler_on_cpu().upscale_all(mixed))
    expected = list(upscaler_on_cpu().upscale_all(downloaded))
    for place, frame in enumerate(made):
        assert all(map(np.array_equal, frame.planes, expected[place // 2].planes))
    assert not any(plane.is_downloaded for frame in kept for plane in planes_on(frame, CPU))


def test_planes_on_another_device_are_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    downloaded, kept = both_ways("p010le", 1)
    assert planes_on(kept[0], torch.device("cuda:1")) == []
    monkeypatch.setattr(device_slot, "planes_on", lambda frame, device: [])
    upscaler = upscaler_on_cpu()
    expected = upscaler.upscale(downloaded[0])
    assert all(map(np.array_equal, upscaler.upscale(kept[0]).planes, expected.planes))
    assert all(plane.is_downloaded for plane in planes_on(kept[0], CPU))


def test_kept_frames_are_compared_without_a_download() -> None:
    downloaded, kept = both_ways("nv12", 2)
    assert holds_the_same(kept[0], replace(kept[0], pts=7))
    assert not holds_the_same(kept[0], kept[1])
    assert not holds_the_same(kept[0], downloaded[0])
    assert not holds_the_same(downloaded[0], kept[0])
    assert not any(plane.is_downloaded for frame in kept for plane in planes_on(frame, CPU))
    upscaler = upscaler_on_cpu()
    made = list(upscaler.upscale_all([kept[0], replace(kept[0], pts=7), kept[1]]))
    assert made[1].planes[0] is made[0].planes[0]
    assert made[2].planes[0] is not made[1].planes[0]
