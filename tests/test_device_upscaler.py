"""DeviceUpscaler: the picture is FrameUpscaler's, on the CPU here and on a GPU where there is one."""

from __future__ import annotations

import weakref
from dataclasses import replace
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.gpu_engines import random_engine
from streamsr.config import GeneratorSettings
from streamsr.consistency import Projector
from streamsr.device import enlarger
from streamsr.device.planes import PlaneBuffer, Windows, halving_of, taps_of
from streamsr.device.projection import ProjectionOnDevice
from streamsr.device.upscaler import DeviceUpscaler, holds_the_same
from streamsr.engine import Engine, find_engine
from streamsr.errors import EngineError, GpuFault, GpuMemoryFault, InputError, UsageError
from streamsr.fallback import recover
from streamsr.frame import Colour, Frame, Plane, PlaneLayout, Siting
from streamsr.models.projection import Projection
from streamsr.patches import PatchGrid, cut_patches
from streamsr.resample import PlaneEnlarger, reduce_chroma, siting_axis
from streamsr.runtimes.cuda import CudaGenerator
from streamsr.runtimes.gpu_faults import guarded
from streamsr.runtimes.pinned import Pages
from streamsr.runtimes.plane_ops import resample
from streamsr.runtimes.torch_cpu import TorchGenerator
from streamsr.upscaler import FrameUpscaler
from tests.test_consistency import clipped_pair

HAS_GPU = torch.cuda.is_available()
needs_gpu = pytest.mark.skipif(not HAS_GPU, reason="needs an NVIDIA GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.needs_cuda, needs_gpu])]
COLOUR = Colour(6, False, 6, 6)
LAYOUTS = [PlaneLayout(shift, depth) for shift in ((1, 1), (1, 0), (0, 0), None) for depth in (8, 10)]
SIZE = (47, 35)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def srgan(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return random_engine("srgan-x2", tmp_path_factory.mktemp("engines") / "srgan-x2", num_blocks=1)


def frame_of(layout: PlaneLayout, seed: int = 0, *, colour: Colour = COLOUR, size: tuple[int, int] = SIZE) -> Frame:
    """Return a smooth picture with some noise, all of whose RGB exists."""
    rng = np.random.default_rng(seed)
    sizes = [size, *([layout.chroma_size(*size)] * 2 if layout.chroma_shift is not None else [])]
    planes: list[Plane] = []
    for place, (wide, tall) in enumerate(sizes):
        across, down = np.meshgrid(np.linspace(0, 5, wide), np.linspace(0, 4, tall))
        wave = 0.5 + (0.3 if place == 0 else 0.12) * np.sin(across + seed + place) * np.cos(down)
        levels = (wave + rng.normal(0, 0.02, wave.shape)).clip(0, 1) * layout.peak
        planes.append(np.rint(levels).astype(layout.dtype))
    return Frame(tuple(planes), layout, colour, seed, Fraction(1, 25), sequence=seed)


def generator_for(engine: Engine, device: str) -> CudaGenerator:
    return CudaGenerator(engine, precision="fp32" if device == "cpu" else "fp16", device=device)


def largest_difference(made: Frame, expected: Frame) -> list[int]:
    assert [plane.shape for plane in made.planes] == [plane.shape for plane in expected.planes]
    assert [plane.dtype for plane in made.planes] == [plane.dtype for plane in expected.planes]
    return [
        int(np.abs(plane.astype(int) - other.astype(int)).max())
        for plane, other in zip(made.planes, expected.planes, strict=True)
    ]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.pix_fmt)
def test_luma_engines_give_the_frame_upscalers_picture(device: str, layout: PlaneLayout) -> None:
    engine = find_engine("tiny-x2")
    frame = frame_of(layout)
    expected = FrameUpscaler(TorchGenerator(engine, threads=1), skip_surround=False, launch="frame").upscale(frame)
    made = DeviceUpscaler(generator_for(engine, device)).upscale(frame)
    # Half precision has ten bits behind the point: at 10 bits it may be off by two levels.
    assert max(largest_difference(made, expected)) <= (1 if device == "cpu" or layout.bit_depth == 8 else 2)
    assert (made.pts, made.layout, made.colour) == (frame.pts, frame.layout, frame.colour)


@pytest.mark.parametrize("siting", list(Siting), ids=lambda siting: siting.name)
def test_chroma_lies_where_its_siting_says(siting: Siting) -> None:
    engine = find_engine("tiny-x2")
    frame = frame_of(PlaneLayout((1, 1), 8), colour=replace(COLOUR, siting=siting))
    expected = FrameUpscaler(TorchGenerator(engine, threads=1), skip_surround=False, launch="frame").upscale(frame)
    made = DeviceUpscaler(generator_for(engine, "cpu")).upscale(frame)
    assert max(largest_difference(made, expected)[1:]) <= 1
    assert np.mean([(a == b).mean() for a, b in zip(made.planes[1:], expected.planes[1:], strict=True)]) > 0.99


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.pix_fmt)
@pytest.mark.parametrize("full_range", [True, False])
def test_rgb_engines_give_the_frame_upscalers_picture(
    device: str, layout: PlaneLayout, full_range: bool, srgan: Engine
) -> None:
    frame = frame_of(layout, colour=replace(COLOUR, full_range=full_range, siting=Siting.TOP_LEFT))
    expected = FrameUpscaler(TorchGenerator(srgan, threads=1), skip_surround=False, launch="frame").upscale(frame)
    made = DeviceUpscaler(generator_for(srgan, device)).upscale(frame)
    assert max(largest_difference(made, expected)) <= (1 if device == "cpu" or layout.bit_depth == 8 else 4)


def test_unknown_matrices_are_refused(srgan: Engine) -> None:
    with pytest.raises(InputError, match="expected a colour matrix"):
        DeviceUpscaler(generator_for(srgan, "cpu")).upscale(frame_of(LAYOUTS[0], colour=replace(COLOUR, matrix=8)))


@pytest.mark.parametrize("device", DEVICES)
def test_patches_give_the_whole_picture(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = find_engine("tiny-x2")
    frame = frame_of(PlaneLayout((1, 1), 8), size=(100, 71))
    whole = DeviceUpscaler(generator_for(engine, device)).upscale(frame)
    upscaler = DeviceUpscaler(generator_for(engine, device), launch="patch", patch_px=16)
    monkeypatch.setattr(enlarger, "MAX_BATCH_PX", 7 * (16 + 2 * engine.radius_px) ** 2)
    assert max(largest_difference(upscaler.upscale(frame), whole)) <= (0 if device == "cpu" else 1)
    assert upscaler.plan is not None
    assert (upscaler.plan.kind, upscaler.plan.core_px, upscaler.plan.halo_px) == ("patch", 16, engine.radius_px)


@pytest.mark.parametrize("device", DEVICES)
def test_frames_in_flight_come_out_in_order_whatever_their_size(device: str) -> None:
    engine = find_engine("tiny-x2")
    layouts = [PlaneLayout((1, 1), 8), PlaneLayout(None, 8)]
    sizes = [(47, 35), (47, 35), (47, 35), (64, 32), (64, 32), (47, 35)]
    frames = [frame_of(layouts[place // 4], place, size=size) for place, size in enumerate(sizes)]
    upscaler = DeviceUpscaler(generator_for(engine, device))
    made = list(upscaler.upscale_all(frames))
    assert [frame.pts for frame in made] == [frame.pts for frame in frames]
    alone = DeviceUpscaler(generator_for(engine, device))
    for frame, enlarged in zip(frames, made, strict=True):
        assert max(largest_difference(enlarged, alone.upscale(frame))) <= (0 if device == "cpu" else 1)
    assert upscaler.count.launched == upscaler.count.total
    assert all(clock.num == len(frames) for clock in upscaler.clocks.values())


@pytest.mark.parametrize("device", DEVICES)
def test_unchanged_frames_show_the_previous_output(device: str) -> None:
    upscaler = DeviceUpscaler(generator_for(find_engine("tiny-x2"), device))
    first, other = frame_of(LAYOUTS[0], 1), frame_of(LAYOUTS[0], 2)
    changed = other.planes[2].copy()
    changed[-1, -1] ^= 1
    last = replace(other, planes=(*other.planes[:2], changed), pts=9)
    made = list(upscaler.upscale_all([first, replace(first, pts=7), other, replace(other, pts=8), last]))
    assert made[1].planes[0] is made[0].planes[0]
    assert made[3].planes[2] is made[2].planes[2]
    assert made[4].planes[0] is not made[3].planes[0]
    assert [frame.pts for frame in made] == [1, 7, 2, 8, 9]
    assert upscaler.count.unchanged == 2 * upscaler._enlarger.grid.num
    assert not np.array_equal(made[0].planes[0], made[2].planes[0])
    assert holds_the_same(first, replace(first, pts=3))
    assert not holds_the_same(other, last)


def test_output_is_never_written_to_again() -> None:
    upscaler = DeviceUpscaler(generator_for(find_engine("tiny-x2"), "cpu"))
    first = upscaler.upscale(frame_of(LAYOUTS[0], 1))
    kept = [plane.copy() for plane in first.planes]
    for seed in range(2, 8):
        upscaler.upscale(frame_of(LAYOUTS[0], seed))
    assert all(np.array_equal(plane, other) for plane, other in zip(first.planes, kept, strict=True))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", [PlaneLayout((1, 1), 8), PlaneLayout((1, 1), 10)], ids=lambda layout: layout.pix_fmt)
@pytest.mark.parametrize("rgb", [False, True], ids=["luma", "rgb"])
def test_projection_gives_the_frame_upscalers_picture(
    device: str, layout: PlaneLayout, rgb: bool, srgan: Engine
) -> None:
    engine, frame = srgan if rgb else find_engine("tiny-x2"), frame_of(layout)
    options: dict[str, Any] = {"launch": "frame", "consistency": True}
    expected = FrameUpscaler(TorchGenerator(engine, threads=1), skip_surround=False, **options).upscale(frame)
    made = DeviceUpscaler(generator_for(engine, device), **options).upscale(frame)
    plain = DeviceUpscaler(generator_for(engine, device)).upscale(frame)
    # A sample that half precision tips over moves its neighbours' corrections.
    assert max(largest_difference(made, expected)) <= (1 if device == "cpu" else 3)
    assert np.mean(made.planes[0] == expected.planes[0]) > (0.999 if device == "cpu" else 0.7)
    assert largest_difference(made, plain)[0] > 1


def test_projection_makes_the_output_give_the_input_back() -> None:
    engine, frame = find_engine("tiny-x2"), frame_of(LAYOUTS[0])
    down, lr = Projection(2, SIZE[1], SIZE[0]).down, torch.from_numpy(frame.planes[0]).float()
    residuals = []
    for consistency in (False, True):
        made = DeviceUpscaler(generator_for(engine, "cpu"), consistency=consistency).upscale(frame)
        residuals.append((down(torch.from_numpy(made.planes[0]).float()[None, None])[0, 0] - lr).abs().max().item())
    assert residuals[1] <= 1.0 < residuals[0]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("depth", [8, 10, 12])
@pytest.mark.parametrize("rgb", [False, True], ids=["luma", "rgb"])
def test_consistency_is_projected_and_counted_as_on_the_processor(
    device: str, depth: int, rgb: bool, srgan: Engine
) -> None:
    engine, frame = srgan if rgb else find_engine("tiny-x2"), frame_of(PlaneLayout((1, 1), depth))
    host = FrameUpscaler(TorchGenerator(engine, threads=1), skip_surround=False, launch="frame", consistency=True)
    upscaler = DeviceUpscaler(generator_for(engine, device), consistency=True)
    assert upscaler.consistency.samples == 0
    expected, made = host.upscale(frame), upscaler.upscale(frame)
    tolerance = 1 if device == "cpu" else 3 if depth == 8 else 12
    assert largest_difference(made, expected)[0] <= tolerance
    count, wanted = upscaler.consistency, host.consistency
    assert count.samples == SIZE[0] * SIZE[1] * (3 if rgb else 1)
    # A small picture is one band on the host, so both have measured all of it.
    assert wanted.samples == count.samples
    if device == "cpu":
        assert abs(count.within - wanted.within) <= 2
        assert abs(count.within_before - wanted.within_before) <= 2
        assert count.clipped == wanted.clipped
        assert count.max_levels == pytest.approx(wanted.max_levels, abs=0.1)
    assert count.share > count.share_before


def test_clipped_samples_are_counted_apart() -> None:
    engine = find_engine("tiny-x2")
    plane = np.where(np.indices((35, 47)).sum(0) % 9 < 4, 255, 0).astype(np.uint8)
    frame = Frame((plane,), PlaneLayout(None, 8), COLOUR, 0, Fraction(1, 25))
    host = FrameUpscaler(TorchGenerator(engine, threads=1), skip_surround=False, launch="frame", consistency=True)
    upscaler = DeviceUpscaler(generator_for(engine, "cpu"), consistency=True)
    host.upscale(frame)
    upscaler.upscale(frame)
    assert upscaler.consistency.clipped > 0
    assert abs(upscaler.consistency.clipped - host.consistency.clipped) <= 2


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("scale", [2, 4])
def test_clipped_rgb_settles_as_on_the_processor(device: str, dtype: type[Any], scale: int) -> None:
    planes = [clipped_pair(scale, *SIZE, seed=seed) for seed in range(3)]
    picture, stitched = (np.stack(each) for each in zip(*planes, strict=True))
    options: dict[str, Any] = {"channels": 3}
    if dtype is np.float32:
        picture, stitched = (each.astype(np.float32) / np.float32(255) for each in (picture, stitched))
        options |= {"peak": 1.0, "level": 1 / 255, "limits": (0.0, 0.9)}
    expected = Projector(scale, SIZE, **options).project(picture, stitched)
    projection = ProjectionOnDevice(
        scale, *SIZE, **{"peak": 255.0, "level": 1.0, **options}, device=torch.device(device)
    )
    ours, theirs = (torch.from_numpy(each).to(device) for each in (picture, stitched))
    out = torch.empty_like(theirs)
    projection.project(ours, theirs, out)
    made = out.cpu().numpy()
    # Where a residual is a level give or take float32, one corrects it and the other does not.
    near = 1 if dtype is np.uint8 else 1e-4
    assert (np.abs(made.astype(np.float32) - expected) <= near).mean() > 0.99
    assert made.max() == (255 if dtype is np.uint8 else np.float32(0.9))


def test_consistency_is_measured_of_every_fourth_frame() -> None:
    upscaler = DeviceUpscaler(generator_for(find_engine("tiny-x2"), "cpu"), consistency=True)
    list(upscaler.upscale_all(frame_of(LAYOUTS[0], seed) for seed in range(9)))
    assert upscaler.consistency.samples == 3 * SIZE[0] * SIZE[1]


def test_colour_may_change_between_frames_in_flight(srgan: Engine) -> None:
    colours = [COLOUR, replace(COLOUR, matrix=1), COLOUR, COLOUR, replace(COLOUR, full_range=True), COLOUR]
    frames = [frame_of(PlaneLayout((1, 1), 8), place, colour=colour) for place, colour in enumerate(colours)]
    made = list(DeviceUpscaler(generator_for(srgan, "cpu")).upscale_all(frames))
    for frame, enlarged in zip(frames, made, strict=True):
        assert max(largest_difference(enlarged, DeviceUpscaler(generator_for(srgan, "cpu")).upscale(frame))) == 0


def test_drained_frames_are_forgotten() -> None:
    upscaler = DeviceUpscaler(generator_for(find_engine("tiny-x2"), "cpu"))
    for seed in range(3):
        upscaler.submit(frame_of(LAYOUTS[0], seed))
    upscaler.drain()
    assert upscaler.num_in_flight == 0
    assert upscaler.count.total == 0
    made, alone = upscaler.upscale(frame_of(LAYOUTS[0], 7)), DeviceUpscaler(upscaler.generator)
    assert max(largest_difference(made, alone.upscale(frame_of(LAYOUTS[0], 7)))) == 0


def test_frame_without_memory_is_launched_in_a_few_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = generator_for(find_engine("tiny-x2"), "cpu")
    frame = frame_of(LAYOUTS[0], size=(200, 180))
    expected = DeviceUpscaler(generator).upscale(frame)
    plain = generator.network.enlarge

    def scarce(pictures: Tensor, out: Tensor) -> None:
        if pictures.shape[-1] > 60 or len(pictures) > 64:
            raise torch.OutOfMemoryError("CUDA out of memory")
        plain(pictures, out)

    monkeypatch.setattr(generator.network, "enlarge", scarce)
    upscaler = DeviceUpscaler(generator)
    assert max(largest_difference(upscaler.upscale(frame), expected)) == 0
    assert upscaler.plan is not None
    assert upscaler.plan.kind == "patch"

    def never(pictures: Tensor, out: Tensor) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(generator.network, "enlarge", never)
    with pytest.raises(EngineError, match="expected enough GPU memory"):
        DeviceUpscaler(generator).upscale(frame)


def test_lost_gpu_is_named_and_the_job_can_go_on() -> None:
    engine = find_engine("tiny-x2")
    generator = generator_for(engine, "cpu")
    upscaler = DeviceUpscaler(generator)
    frame = frame_of(LAYOUTS[0])
    upscaler.upscale(frame)

    def lost(*_: Any) -> None:
        raise RuntimeError("CUDA error: unspecified launch failure")

    generator.network.enlarge = lost  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="the GPU failed") as caught:
        upscaler.upscale(frame_of(LAYOUTS[0], 5))
    settings = GeneratorSettings(engine=engine.name, runtime="torch", precision="fp32", threads=1)
    spare, notice = recover(engine, settings, caught.value, bit_depth=8)
    assert spare.runtime == ("openvino" if find_spec("openvino") else "torch")
    assert "the GPU failed" in notice
    assert notice.endswith(f"went on with {spare.description}")


def test_impossible_options_are_refused() -> None:
    generator = generator_for(find_engine("tiny-x2"), "cpu")
    with pytest.raises(UsageError, match="expected a launch of"):
        DeviceUpscaler(generator, launch="tile")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="expected one frame in flight or more"):
        DeviceUpscaler(generator, frames_in_flight=0)
    upscaler = DeviceUpscaler(generator, frames_in_flight=1)
    with pytest.raises(UsageError, match="expected a frame in flight"):
        upscaler.collect()
    upscaler.submit(frame_of(LAYOUTS[0]))
    with pytest.raises(UsageError, match="collect"):
        upscaler.submit(frame_of(LAYOUTS[0], 1))
    with pytest.raises(UsageError, match="expected no frame in flight"):
        upscaler.upscale(frame_of(LAYOUTS[0], 1))


def test_windows_are_those_that_are_cut_on_the_host() -> None:
    grid = PatchGrid(50, 37, scale=2, halo_px=3, core_px=16)
    picture = np.random.default_rng(0).random((3, 37, 50), np.float32)
    windows = Windows(grid, torch.device("cpu")).cut(torch.from_numpy(picture))
    assert np.array_equal(windows.numpy(), cut_patches(picture, grid, range(grid.num)))


def test_planes_lie_apart_in_one_buffer() -> None:
    buffer = PlaneBuffer(PlaneLayout((1, 1), 10), 15, 9)
    flat = torch.zeros(buffer.num_samples, dtype=buffer.dtype)
    for place, plane in enumerate(buffer.planes(flat), 1):
        plane.fill_(place)
    assert [int((flat == place).sum()) for place in (1, 2, 3)] == [15 * 9, 8 * 5, 8 * 5]
    assert buffer.chroma_start % 256 == 0


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("offset", [-0.5, 0.0, 0.5])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_resampling_agrees_with_the_host(device: str, offset: float, dtype: type[Any]) -> None:
    peak = 255 if dtype is np.uint8 else 65535
    plane = np.random.default_rng(0).integers(0, peak + 1, (2, 18, 24)).astype(dtype)
    axes = [siting_axis(2 * side, 4, (1, 1), (offset, offset)) for side in (18, 24)]
    taps = [taps_of(axis, torch.device(device)) for axis in axes]
    kind = torch.uint8 if dtype is np.uint8 else torch.int16
    source = torch.from_numpy(plane.view(np.uint8 if dtype is np.uint8 else np.int16)).to(device)
    out = torch.zeros((2, axes[0].num_out, axes[1].num_out), dtype=kind, device=device)
    resample(source, out, taps[0], taps[1], peak=peak)
    host = PlaneEnlarger(axes[1], axes[0], peak=peak)
    for made, picture in zip(out.cpu().numpy().view(dtype), plane, strict=True):
        assert np.abs(made.astype(int) - host.enlarge(picture)).max() <= 1


@pytest.mark.parametrize("siting", list(Siting), ids=lambda siting: siting.name)
@pytest.mark.parametrize("size", [(9, 12), (8, 7), (1, 1)])
def test_subsampling_agrees_with_the_host(siting: Siting, size: tuple[int, int]) -> None:
    plane = np.random.default_rng(0).random(size, np.float32)
    expected = reduce_chroma(plane, (1, 1), siting)
    out = torch.empty((1, *expected.shape))
    rows, columns = (
        halving_of(side, 1, offset, torch.device("cpu")) for side, offset in zip(size, siting.value[::-1], strict=True)
    )
    resample(torch.from_numpy(plane)[None], out, rows, columns, peak=1.0)
    np.testing.assert_allclose(out[0].numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("consistency", [False, True])
def test_nothing_is_allocated_after_warm_up(device: str, consistency: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    plain = Pages.__init__
    monkeypatch.setattr(Pages, "__init__", lambda *args, **options: (made.append(1), plain(*args, **options))[1])
    upscaler = DeviceUpscaler(generator_for(find_engine("tiny-x2"), device), consistency=consistency)
    frames = [frame_of(LAYOUTS[0], seed, size=(128, 96)) for seed in range(16)]

    def allocated() -> tuple[int, int]:
        on_device = torch.cuda.memory_stats()["allocation.all.allocated"] if device == "cuda" else 0
        return on_device, len(made)

    def run(some: list[Frame]) -> None:
        for _ in upscaler.upscale_all(some):
            pass

    run(frames[:8])
    before = allocated()
    assert before[1] > 0
    run(frames[8:])
    assert allocated() == before


def test_what_found_no_memory_is_gone_before_it_is_tried_with_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exception of the first attempt holds its frames, and these what they had allocated."""

    class Buffer:
        """Stands in for memory of the first attempt."""

    generator = generator_for(find_engine("tiny-x2"), "cpu")
    plain, held = generator.network.enlarge, []

    def scarce(pictures: Tensor, out: Tensor) -> None:
        if not held:
            buffer = Buffer()
            held.append(weakref.ref(buffer))
            raise torch.OutOfMemoryError("CUDA out of memory")
        assert held[0]() is None
        plain(pictures, out)

    monkeypatch.setattr(generator.network, "enlarge", scarce)
    upscaler = DeviceUpscaler(generator)
    upscaler.upscale(frame_of(LAYOUTS[0], size=(100, 90)))
    assert upscaler.plan is not None
    assert upscaler.plan.kind == "patch"
    upscaler.upscale(frame_of(LAYOUTS[0], size=(60, 50)))
    assert upscaler.plan.kind == "frame", "another size may have the memory"


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: out of memory",
        "Triton Error [CUDA]: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "GET was unable to find an engine to execute this computation",
    ],
)
def test_memory_that_others_miss_is_memory_too(words: str) -> None:
    with pytest.raises(GpuMemoryFault, match="expected enough GPU memory"), guarded("tiny-x2"):
        raise RuntimeError(words)
    with pytest.raises(GpuFault, match="the GPU failed"), guarded("tiny-x2"):
        raise RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered")


def test_stand_ins_are_real_engines(tmp_path: Path) -> None:
    for name in ("srgan-x4", "quality-x2"):
        engine = random_engine(name, tmp_path / name, num_blocks=1)
        engine.verify()
        assert TorchGenerator(engine, threads=1).scale == int(name[-1])
