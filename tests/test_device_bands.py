"""Frames too large for one launch go in bands, patches a batch at a time; the picture is the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.gpu_engines import random_engine
from streamsr.device import bands, enlarger
from streamsr.device.bands import bands_of, most_rows, values_per_px
from streamsr.device.planes import Windows
from streamsr.device.upscaler import DeviceUpscaler
from streamsr.engine import Engine, find_engine
from streamsr.errors import EngineError
from streamsr.frame import PlaneLayout
from streamsr.runtimes.cuda import CudaGenerator
from tests.test_device_upscaler import frame_of, generator_for, largest_difference

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def srgan(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return random_engine("srgan-x4", tmp_path_factory.mktemp("engines") / "srgan-x4", num_blocks=1)


@given(height=st.integers(2, 400), radius=st.integers(0, 40), data=st.data())
def test_bands_hold_every_row_once_and_its_context(height: int, radius: int, data: st.DataObject) -> None:
    most = data.draw(st.integers(1, height - 1))
    try:
        found = bands_of(height, most, radius)
    except EngineError:
        assert most < min(2 * radius + 1, height)
        return
    assert [row for band in found for row in range(band.core_top, band.core_end)] == list(range(height))
    assert len({band.height for band in found}) == 1
    for band in found:
        assert band.top >= 0
        assert band.top + band.height <= height
        assert band.height <= most
        assert band.top <= max(band.core_top - radius, 0)
        assert band.top + band.height >= min(band.core_end + radius, height)


def test_largest_layers_are_known(srgan: Engine) -> None:
    generator = generator_for(srgan, "cpu")
    sizes: list[int] = []
    for module in (*generator.network.blocks[0], generator.network.last_stage, generator.network.tail):  # type: ignore[attr-defined]
        plain = module.run

        def run(features: Tensor, *options: Any, plain: Any = plain) -> Tensor:
            made: Tensor = plain(features, *options)
            sizes.append(max(features.numel(), made.numel()))
            return made

        module.run = run
    generator.enlarge(torch.zeros(1, 3, 8, 10), torch.zeros(1, 3, 32, 40))
    assert max(sizes) == 80 * values_per_px(generator)
    assert most_rows(generator, 1920) >= 1080
    assert most_rows(generator, 2560) < 1440
    assert most_rows(generator_for(find_engine("quality-x2"), "cpu"), 7680) >= 4320


@pytest.mark.parametrize("layout", [PlaneLayout((1, 1), 8), PlaneLayout(None, 10)], ids=lambda layout: layout.pix_fmt)
@pytest.mark.parametrize("rgb", [False, True], ids=["luma", "rgb"])
def test_large_frames_are_launched_in_bands(
    monkeypatch: pytest.MonkeyPatch, layout: PlaneLayout, rgb: bool, srgan: Engine
) -> None:
    generator = generator_for(srgan if rgb else find_engine("tiny-x2"), "cpu")
    frame, shapes = frame_of(layout, size=(31, 93)), watched(monkeypatch, generator)
    whole = DeviceUpscaler(generator).upscale(frame)
    assert {shape[2:] for shape in shapes} == {(93, 31)}
    shapes.clear()
    monkeypatch.setattr(bands, "MOST_VALUES", 50 * 31 * values_per_px(generator))
    made = DeviceUpscaler(generator).upscale(frame)
    assert max(largest_difference(made, whole)) <= (1 if rgb else 0)
    heights = {shape[2] for shape in shapes}
    assert len(heights) == 1
    assert max(heights) <= 50
    monkeypatch.setattr(bands, "MOST_VALUES", 31 * values_per_px(generator))
    with pytest.raises(EngineError, match="rows of such a picture at once"):
        DeviceUpscaler(generator).upscale(frame)


def test_patches_are_cut_generated_and_stitched_a_batch_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = generator_for(find_engine("tiny-x2"), "cpu")
    frame, shapes, cut = frame_of(PlaneLayout((1, 1), 8), size=(100, 71)), watched(monkeypatch, generator), []
    plain = Windows.cut

    def counted(windows: Windows, picture: Tensor, indices: Tensor | None = None) -> Tensor:
        patches = plain(windows, picture, indices)
        cut.append(len(patches))
        return patches

    monkeypatch.setattr(Windows, "cut", counted)
    whole = DeviceUpscaler(generator).upscale(frame)
    upscaler = DeviceUpscaler(generator, launch="patch", patch_px=16)
    window_px = (16 + 2 * generator.radius_px) ** 2
    monkeypatch.setattr(enlarger, "MAX_BATCH_PX", 8 * window_px)
    assert max(largest_difference(upscaler.upscale(frame), whole)) == 0
    assert set(cut) == {8, 35 % 8}
    monkeypatch.setattr(enlarger, "MAX_BATCH_PX", 2 * shapes[-1][2] * shapes[-1][3])
    shapes.clear()
    assert max(largest_difference(DeviceUpscaler(generator, launch="patch", patch_px=16).upscale(frame), whole)) == 0
    assert {shape[0] for shape in shapes} == {2, 1}


@pytest.mark.parametrize(("launch", "in_bands"), [("frame", False), ("frame", True), ("patch", False)])
def test_what_is_compiled_ahead_is_what_is_launched(
    monkeypatch: pytest.MonkeyPatch, launch: Any, in_bands: bool
) -> None:
    generator = generator_for(find_engine("tiny-x2"), "cpu")
    frame, compiled = frame_of(PlaneLayout((1, 1), 8), size=(61, 93)), set()
    monkeypatch.setattr(generator, "compile_for", lambda shape, dtype: compiled.add(shape))
    if in_bands:
        monkeypatch.setattr(bands, "MOST_VALUES", 50 * 61 * values_per_px(generator))
    monkeypatch.setattr(enlarger, "MAX_BATCH_PX", 5 * (32 + 2 * generator.radius_px) ** 2)
    upscaler = DeviceUpscaler(generator, launch=launch)
    upscaler.prepare(61, 93, frame.layout)
    shapes = watched(monkeypatch, generator)
    upscaler.upscale(frame)
    assert set(shapes) == compiled


def watched(monkeypatch: pytest.MonkeyPatch, generator: CudaGenerator) -> list[tuple[int, ...]]:
    """Return the shapes that a generator is given, as they come."""
    shapes: list[tuple[int, ...]] = []
    plain = generator.network.enlarge

    def enlarge(pictures: Tensor, out: Tensor) -> None:
        shapes.append(tuple(pictures.shape))
        plain(pictures, out)

    monkeypatch.setattr(generator.network, "enlarge", enlarge)
    return shapes
