"""DeviceRouter: frames of which parts did not change show the same picture as frames that are launched whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.gpu_engines import random_engine
from streamsr.device import routing as device_routing
from streamsr.device.enlarger import batch_shapes
from streamsr.device.slot import Slot
from streamsr.device.upscaler import DeviceUpscaler
from streamsr.device.worth import JUDGED, WATCHED
from streamsr.engine import Engine, find_engine
from streamsr.errors import EngineError
from streamsr.frame import Frame, PlaneLayout
from streamsr.runtimes.cuda import CudaGenerator
from tests.test_device_upscaler import DEVICES, frame_of, generator_for, largest_difference

SIZE = (150, 118)
EIGHT = PlaneLayout((1, 1), 8)
LAYOUTS = [EIGHT, PlaneLayout((1, 0), 10), PlaneLayout(None, 8)]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def srgan(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return random_engine("srgan-x2", tmp_path_factory.mktemp("engines") / "srgan-x2", num_blocks=1)


def changed_frame(frame: Frame, box: tuple[int, int, int, int], by: int = 9) -> Frame:
    """Return the next frame, other within a box of (top, left, height, width) of luma, and in chroma below it."""
    planes = [plane.copy() for plane in frame.planes]
    for place, plane in enumerate(planes):
        x_shift, y_shift = (0, 0) if place == 0 or frame.layout.chroma_shift is None else frame.layout.chroma_shift
        top, left, tall, wide = box[0] >> y_shift, box[1] >> x_shift, box[2] >> y_shift, box[3] >> x_shift
        plane[top : top + tall, left : left + wide] ^= by
    return replace(frame, planes=tuple(planes), pts=frame.pts + 1, sequence=frame.sequence + 1)


def routing(generator: CudaGenerator, frame: Frame, **options: Any) -> DeviceUpscaler:
    """Return an upscaler that routes from its second frame on."""
    upscaler = DeviceUpscaler(generator, **options)
    upscaler.upscale(frame)
    router = upscaler._router
    assert router is not None
    router.worth._enter("route")
    return upscaler


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.pix_fmt)
@pytest.mark.parametrize("rgb", [False, True], ids=["luma", "rgb"])
@pytest.mark.parametrize("consistency", [False, True])
def test_routed_frames_show_what_whole_frames_show(
    device: str, layout: PlaneLayout, rgb: bool, consistency: bool, srgan: Engine
) -> None:
    engine = srgan if rgb else find_engine("tiny-x2")
    frames = [frame_of(layout, 1, size=SIZE)]
    for box in ((40, 50, 3, 2), (0, 0, 20, 20), (100, 130, 18, 20), (30, 0, 90, 150)):
        frames.append(changed_frame(frames[-1], box))
    options: dict[str, Any] = {"consistency": consistency, "halo_px": engine.radius_px}
    upscaler = routing(generator_for(engine, device), frames[0], patch_px=16, **options)
    made = list(upscaler.upscale_all(frames))[1:]
    whole = DeviceUpscaler(generator_for(engine, device), reuse_unchanged=False, **options)
    # In half precision patches may round otherwise than frames, and the projection moves what is beside them.
    most = (0 if not rgb and not consistency else 1) if device == "cpu" else 12 if layout.bit_depth > 8 else 3
    for routed, expected in zip(made, list(whole.upscale_all(frames))[1:], strict=True):
        assert max(largest_difference(routed, expected)) <= most
    assert 0 < upscaler.count.launched < upscaler.count.total
    assert upscaler.count.generated + upscaler.count.unchanged == upscaler.count.total


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_changes_in_any_order(data: st.DataObject) -> None:
    generator = generator_for(find_engine("tiny-x2"), "cpu")
    frames = [frame_of(EIGHT, 1, size=SIZE)]
    for _ in range(data.draw(st.integers(1, 6))):
        top, left = data.draw(st.integers(0, SIZE[1] - 1)), data.draw(st.integers(0, SIZE[0] - 1))
        box = (top, left, data.draw(st.integers(0, 40)), data.draw(st.integers(0, 60)))
        frames.append(changed_frame(frames[-1], box))
    patch_px, in_flight = data.draw(st.sampled_from([None, 16, 32, 64])), data.draw(st.integers(1, 3))
    upscaler = routing(generator, frames[0], patch_px=patch_px, frames_in_flight=in_flight)
    whole = DeviceUpscaler(generator, reuse_unchanged=False)
    for frame, made in zip(frames, upscaler.upscale_all(frames), strict=True):
        assert made.pts == frame.pts
        assert max(largest_difference(made, whole.upscale(frame))) == 0


def test_it_finds_out_by_itself_and_stops_where_it_does_not_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time is made up: a frame takes 10 ms, a launch its part of that; then launches become slow."""
    slowness = 1.0

    def compute_ms(slot: Slot) -> float:
        return times[id(slot)]

    times: dict[int, float] = {}
    plain_launch = device_routing.DeviceRouter.launch

    def launch(self: Any, slot: Slot, routed: Any, *, measured: bool) -> None:
        plain_launch(self, slot, routed, measured=measured)
        part = 1.0 if routed.num_launched is None else routed.num_launched / self.grid.num
        times[id(slot)] = 10.0 * (part * slowness if routed.state == "route" else 1.0)

    compared = []
    plain_compare = Slot.compare
    monkeypatch.setattr(Slot, "compute_ms", compute_ms)
    monkeypatch.setattr(device_routing.DeviceRouter, "launch", launch)
    monkeypatch.setattr(Slot, "compare", lambda *args: (compared.append(1), plain_compare(*args)))
    upscaler = DeviceUpscaler(generator_for(find_engine("tiny-x2"), "cpu"), patch_px=16)
    frame = frame_of(EIGHT, 1, size=SIZE)

    def run(num: int) -> None:
        nonlocal frame
        for place in range(num):
            frame = changed_frame(frame, (60, 60, 5, 5), by=1 + place % 2)
            upscaler.upscale(frame)

    run(WATCHED + 1)
    assert upscaler.count.launched == upscaler.count.total
    before = upscaler.count
    run(JUDGED)
    saved = upscaler.count.unchanged - before.unchanged
    assert saved > 0.7 * JUDGED * upscaler._enlarger.grid.num
    slowness = 1e3
    run(3 * JUDGED)
    assert upscaler._router is not None
    assert upscaler._router.worth.state == "rest"
    num_compared = len(compared)
    run(20)
    assert len(compared) == num_compared


def test_moving_video_is_not_even_compared_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    upscaler = DeviceUpscaler(generator_for(find_engine("tiny-x2"), "cpu"))
    frames = [frame_of(EIGHT, seed) for seed in range(2)]
    list(upscaler.upscale_all(frames[place % 2] for place in range(WATCHED + 4)))
    assert upscaler._router is not None
    assert upscaler._router.worth.state == "rest"
    assert upscaler._router._parts is None


def test_what_cannot_be_routed_is_not() -> None:
    generator = generator_for(find_engine("tiny-x2"), "cpu")
    options: list[dict[str, Any]] = [{"launch": "frame"}, {"launch": "patch"}, {"reuse_unchanged": False}]
    for given_options in (*options, {"routes": False}):
        upscaler = DeviceUpscaler(generator, **given_options)
        upscaler.upscale(frame_of(EIGHT))
        assert upscaler._router is None
    generator.runs_batches = False  # as the fused kernel, whose one launch is a frame
    upscaler = DeviceUpscaler(generator)
    upscaler.upscale(frame_of(EIGHT))
    assert upscaler._router is None


def test_without_memory_for_more_buffers_frames_are_launched_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = generator_for(find_engine("tiny-x2"), "cpu")
    frames = [frame_of(EIGHT, 1, size=SIZE)]
    frames += [changed_frame(frames[0], (5, 5, 4, 4)), changed_frame(frames[0], (50, 50, 4, 4))]
    upscaler = routing(generator, frames[0], patch_px=16)

    def scarce(*_: Any, **__: Any) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(device_routing, "Parts", scarce)
    made = list(upscaler.upscale_all(frames[1:]))
    whole = DeviceUpscaler(generator, reuse_unchanged=False)
    assert all(
        max(largest_difference(one, whole.upscale(frame))) == 0 for one, frame in zip(made, frames[1:], strict=True)
    )
    assert upscaler.count.launched == upscaler.count.total


def test_chroma_alone_is_news_to_rgb_networks_only(srgan: Engine, tmp_path: Path) -> None:
    first = frame_of(EIGHT, 1, size=SIZE)
    chroma = first.planes[1].copy()
    chroma[30, 40] ^= 8
    second = replace(first, planes=(first.planes[0], chroma, first.planes[2]), pts=2)
    for engine, expected in ((find_engine("tiny-x2"), False), (srgan, True)):
        generator = generator_for(engine, "cpu")
        upscaler = routing(generator, first, patch_px=16, halo_px=engine.radius_px)
        list(upscaler.upscale_all([first]))
        before = upscaler.count
        made = upscaler.upscale(second)
        assert (upscaler.count.generated > before.generated) == expected
        whole = DeviceUpscaler(generator, reuse_unchanged=False, halo_px=engine.radius_px).upscale(second)
        assert max(largest_difference(made, whole)) <= 1


def test_a_rest_is_no_part_of_what_is_kept() -> None:
    """Frames that were launched whole between two phases of routing leave nothing stale behind."""
    generator = generator_for(find_engine("tiny-x2"), "cpu")
    first, other = frame_of(EIGHT, 1, size=SIZE), frame_of(EIGHT, 2, size=SIZE)
    upscaler = routing(generator, first, patch_px=16)
    list(upscaler.upscale_all([changed_frame(first, (5, 5, 4, 4)), changed_frame(first, (9, 9, 4, 4))]))
    router = upscaler._router
    assert router is not None
    router.worth._enter("rest")
    list(upscaler.upscale_all([other, changed_frame(other, (50, 50, 9, 9))]))
    router.worth._enter("route")
    last = [changed_frame(other, (20, 20, 3, 3)), changed_frame(other, (80, 90, 3, 3))]
    whole = DeviceUpscaler(generator, reuse_unchanged=False)
    for frame, made in zip(last, upscaler.upscale_all(last), strict=True):
        assert max(largest_difference(made, whole.upscale(frame))) == 0


def test_frames_do_not_wait_for_a_plan_for_patches(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    generator = generator_for(find_engine("tiny-x2"), "cpu")
    frames = [frame_of(EIGHT, 1, size=SIZE)]
    frames += [changed_frame(frames[-1], (5, 5, 4, at)) for at in (4, 5, 6)]
    upscaler = routing(generator, frames[0], patch_px=16)
    launched: set[tuple[int, ...]] = set()
    asked: set[tuple[int, ...]] = set()
    plain = generator.network.enlarge

    def is_ready_for(shape: tuple[int, ...], dtype: torch.dtype) -> bool:
        assert dtype == torch.uint8
        asked.add(shape)
        return shape[0] < 10

    def noting(pictures: Tensor, out: Tensor) -> None:
        launched.add(tuple(pictures.shape))
        plain(pictures, out)

    monkeypatch.setattr(generator.network, "enlarge", noting)
    monkeypatch.setattr(generator, "is_ready_for", is_ready_for)
    list(upscaler.upscale_all(frames[1:]))
    assert not launched - {(1, 1, SIZE[1], SIZE[0])}
    (line,) = [record.getMessage() for record in caplog.records if "whole frames are launched" in record.getMessage()]
    assert "expected a plan for patches to be there" in line
    assert upscaler.count.launched == upscaler.count.total
    again = routing(generator, frames[0], patch_px=16)
    monkeypatch.setattr(generator, "is_ready_for", lambda shape, dtype: not asked.add(shape))
    list(again.upscale_all(frames[1:]))
    assert again.count.launched < again.count.total
    assert launched - {(1, 1, SIZE[1], SIZE[0])} <= asked, "what is launched was asked for"


@pytest.mark.parametrize("num", [1, 63, 64, 65, 200])
def test_launches_have_the_shapes_that_are_told_ahead(num: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = generator_for(find_engine("tiny-x2"), "cpu")
    upscaler = DeviceUpscaler(generator, launch="patch", patch_px=8)
    upscaler.upscale(frame_of(EIGHT, 1, size=SIZE))
    enlarger, launched = upscaler._enlarger, set()
    assert enlarger._windows is not None
    wide, tall = enlarger.grid.window_size
    monkeypatch.setattr(generator, "enlarge", lambda pictures, out: launched.add(tuple(pictures.shape)))
    enlarger.batch = 64
    picture, indices = torch.zeros(1, SIZE[1], SIZE[0], dtype=torch.uint8), torch.zeros(num, dtype=torch.int32)
    enlarger.generate_patches(enlarger._windows, picture, enlarger.room_for_made(), indices)
    assert launched == batch_shapes(num, (1, tall, wide), 64)


def test_a_plan_for_patches_that_cannot_be_built_ends_routing_and_not_the_job(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    generator = generator_for(find_engine("tiny-x2"), "cpu")
    frames = [frame_of(EIGHT, 1, size=SIZE)]
    frames += [changed_frame(frames[0], (5, 5, 4, 4)), changed_frame(frames[0], (50, 50, 4, 4))]
    upscaler = routing(generator, frames[0], patch_px=16)
    plain = generator.network.enlarge

    def whole_only(pictures: Tensor, out: Tensor) -> None:
        if pictures.shape[-1] != SIZE[0]:
            raise EngineError("tiny-x2: expected its plan to be built, the builder failed with code 4")
        plain(pictures, out)

    monkeypatch.setattr(generator.network, "enlarge", whole_only)
    made = list(upscaler.upscale_all(frames[1:]))
    whole = DeviceUpscaler(generator, reuse_unchanged=False)
    for frame, one in zip(frames[1:], made, strict=True):
        assert max(largest_difference(one, whole.upscale(frame))) == 0
    assert "whole frames are launched from here on" in caplog.text
