"""DevicePlanes: what a decoder's surface holds, sample for sample, and downloaded only once somebody looks."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from streamsr.capture.planes import choose_layout, make_planar, view_planes
from streamsr.device_frame import DevicePlane, SurfaceCopier, in_present_context, on_host, planes_on, torch_context
from streamsr.frame import Colour, Frame, PlaneLayout
from tests.surfaces import Surface, noise

COLOUR = Colour(1, False, 1, 1)
CPU = torch.device("cpu")


def kept(picture: Any, copier: SurfaceCopier | None = None) -> Frame:
    layout = choose_layout(picture.format)
    planes = (copier or SurfaceCopier("cpu")).copy(Surface(picture), layout)
    return Frame(planes, layout, COLOUR, 0, Fraction(1, 25))


@pytest.mark.parametrize("size", [(64, 48), (66, 50), (2, 2)], ids=str)
@pytest.mark.parametrize("fmt", ["nv12", "p010le", "p016le"])
def test_planes_of_a_surface_are_the_downloaded_ones(fmt: str, size: tuple[int, int]) -> None:
    picture = noise(fmt, *size)
    layout = choose_layout(picture.format)
    expected = view_planes(make_planar(picture, layout, COLOUR), layout)
    frame = kept(picture)
    assert (frame.width, frame.height) == size
    for plane, other in zip(frame.planes, expected, strict=True):
        assert (plane.shape, plane.dtype) == (other.shape, other.dtype)
        assert np.array_equal(plane, other)
    assert int(np.asarray(frame.planes[0]).max()) <= layout.peak


def test_a_plane_is_downloaded_once_it_is_asked_for_and_only_once() -> None:
    frame = kept(noise("p010le", 64, 48))
    luma: Any = frame.planes[0]
    assert len(luma) == frame.height == 48
    assert planes_on(frame, CPU) == list(frame.planes)
    assert not any(plane.is_downloaded for plane in planes_on(frame, CPU))
    part = luma[3:5, ::2]
    assert luma.is_downloaded
    assert part.base is np.asarray(luma).base
    assert np.asarray(luma) is luma.on_host()
    assert np.array_equal(np.array(luma), luma.on_host())
    assert not np.shares_memory(np.array(luma), luma.on_host())
    assert np.asarray(luma, np.float32).dtype == np.float32
    assert not any(plane.is_downloaded for plane in planes_on(frame, CPU)[1:])


def test_planes_are_a_surfaces_own_copy() -> None:
    picture, copier = noise("nv12", 64, 48), SurfaceCopier("cpu")
    first = on_host(kept(picture, copier))
    before = [plane.copy() for plane in first.planes]
    copier.release()
    for plane in picture.planes:  # the decoder writes to it again
        plane.update(bytes(plane.buffer_size))
    assert all(map(np.array_equal, first.planes, before))
    assert all(isinstance(plane, np.ndarray) for plane in first.planes)


def test_frames_in_host_memory_are_left_as_they_are() -> None:
    frame = on_host(kept(noise("nv12", 64, 48)))
    assert on_host(frame) is frame
    assert planes_on(frame, CPU) == []
    mixed = replace(frame, planes=(frame.planes[0], *kept(noise("nv12", 64, 48)).planes[1:]))
    assert planes_on(mixed, CPU) == []
    assert all(isinstance(plane, np.ndarray) for plane in on_host(mixed).planes)


def test_planes_are_sent_to_memory_of_the_same_device() -> None:
    plane, target = DevicePlane(torch.arange(12, dtype=torch.int16).view(3, 4)), torch.zeros(3, 4, dtype=torch.int16)
    plane.send(target, None)
    assert torch.equal(target, plane.tensor)
    assert not plane.is_downloaded


@pytest.mark.parametrize(
    ("picture", "layout", "message"),
    [
        (noise("nv12", 47, 35), PlaneLayout((1, 1), 8), "chroma of 18x24x2 samples, got 17x23x2"),
        (noise("nv12", 64, 48), PlaneLayout((1, 1), 10), "samples of 10 bits, got torch.uint8"),
        (noise("p010le", 64, 48), PlaneLayout((1, 1), 8), "samples of 8 bits, got torch.uint16"),
        (noise("nv12", 64, 48), PlaneLayout((0, 0), 8), "chroma of 48x64x2 samples"),
    ],
    ids=["odd", "too few bits", "too many bits", "another raster"],
)
def test_surfaces_of_another_form_are_refused(picture: Any, layout: PlaneLayout, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SurfaceCopier("cpu").copy(Surface(picture), layout)


def test_memory_of_another_context_is_told_apart() -> None:
    def driver(owner: int, present: int, code: int = 0) -> Any:
        def pointer_attribute(found: Any, attribute: Any, pointer: Any) -> int:
            assert (attribute.value, pointer.value) == (1, 1 << 40)
            found._obj.value = owner
            return code

        def current(found: Any) -> int:
            found._obj.value = present
            return 0

        return lambda: SimpleNamespace(cuPointerGetAttribute=pointer_attribute, cuCtxGetCurrent=current)

    assert in_present_context(1 << 40, driver(7, 7))
    assert not in_present_context(1 << 40, driver(7, 8))
    assert not in_present_context(1 << 40, driver(7, 7, code=1))
    assert ctypes.sizeof(ctypes.c_void_p) == 8


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_there_is_no_context() -> None:
    with pytest.raises(RuntimeError, match="no NVIDIA GPU"), torch_context("cuda"):
        pass


@pytest.mark.needs_cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_planes_wait_for_what_writes_them() -> None:
    with torch_context("cuda") as number:
        assert in_present_context(torch.ones(1, device=f"cuda:{number}").data_ptr())
    other: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    ready: Any = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    with torch.cuda.stream(other):
        torch.cuda._sleep(100_000_000)
        tensor = torch.full((4, 4), 7, dtype=torch.uint8, device="cuda")
        ready.record()
    assert (DevicePlane(tensor, ready).on_host() == 7).all()
