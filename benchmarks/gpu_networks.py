"""How long the networks take on a whole frame, each runtime on the same pictures; and patches against the frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu_engines import engine_of
from benchmarks.gpu_timing import Section, inputs_of, measured
from streamsr.device_planes import Windows
from streamsr.engine import Engine
from streamsr.models.srgan import SRGANGenerator
from streamsr.models.student import SPECS
from streamsr.patches import PatchGrid, spans_of
from streamsr.runtimes.cuda import CudaGenerator
from streamsr.runtimes.cuda_networks import Chooser
from streamsr.runtimes.fused import FusedGenerator, serves
from streamsr.runtimes.gpu_generator import GpuGenerator, tuned_convolutions
from streamsr.runtimes.torch_cpu import load_network

STUDENT_SIZE = (1080, 1920)
SRGAN_SIZE = (480, 640)


class PlainNetwork:
    """The network as torch runs it: half precision, channels last, one kernel after the other.

    Args:
        engine: which network.
        device: where it runs.
        dtype: of weights and features.
    """

    def __init__(self, engine: Engine, device: torch.device, dtype: torch.dtype) -> None:
        self.scale, self.dtype, self.chooser = engine.scale, dtype, Chooser()
        network: nn.Module = load_network(engine)
        self.network = network.to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def enlarge(self, pictures: Tensor, out: Tensor) -> None:
        """Enlarge pictures; see `streamsr.runtimes.gpu_generator.GpuGenerator.enlarge`."""
        samples = pictures.to(self.dtype)
        samples = samples / 255 if pictures.dtype == torch.uint8 else samples
        made = self.network(samples.contiguous(memory_format=torch.channels_last)).float()
        out.copy_(made.mul_(255).round_().clamp_(0, 255) if out.dtype == torch.uint8 else made)


class BandedNetwork:
    """A network run band by band, so that the feature maps of a band stay in the GPU's cache.

    Args:
        network: has run on the whole frame, so that its methods are chosen; they are kept.
        num: bands.
        radius_px: rows of context on each side of a band.
    """

    def __init__(self, network: Any, num: int, radius_px: int) -> None:
        self.network, self.num, self.radius_px = network, num, radius_px
        self.scale, self.chooser = network.scale, network.chooser

    def enlarge(self, pictures: Tensor, out: Tensor) -> None:
        """Enlarge one picture; see `streamsr.runtimes.gpu_generator.GpuGenerator.enlarge`."""
        height, width = pictures.shape[2:]
        spans = spans_of(height, -(-height // self.num), self.radius_px)
        tall = spans[0].window[1] - spans[0].window[0]
        for (role, num, _, *rest), method in list(self.chooser.chosen.items()):
            self.chooser.chosen.setdefault((role, num, tall, *rest), method)
        made = torch.empty((1, 1, self.scale * tall, self.scale * width), dtype=out.dtype, device=out.device)
        for span in spans:
            self.network.enlarge(pictures[:, :, slice(*span.window)], made)
            out[:, :, span.core_slice(self.scale)] = made[:, :, span.inner_slice(self.scale)]


def generator_on(section: Section, engine: Engine, **options: Any) -> CudaGenerator:
    """Return the ``cuda`` runtime, or its stand-in on the CPU."""
    if section.device.type != "cuda":
        return CudaGenerator(engine, precision="fp32", device="cpu")
    return CudaGenerator(engine, **options)


def macs_of(engine: Engine) -> int:
    """Return the multiply-adds an input pixel costs."""
    if engine.architecture == "srgan":
        return SRGANGenerator(scale=engine.scale, num_blocks=engine.depth).macs_per_pixel
    return SPECS[engine.name].macs_per_pixel


class Frames:
    """Pictures of one size to rotate among, and the buffers that launches read and write.

    Args:
        section: where.
        engine: which network.
        size: (H, W) of the input.
    """

    def __init__(self, section: Section, engine: Engine, size: tuple[int, int]) -> None:
        channels = 1 if engine.colour == "luma" else 3
        dtype = torch.uint8 if channels == 1 else torch.float32
        self.pictures = inputs_of(section, channels, *size, dtype)
        self.source = self.pictures[0].clone()
        shape = (1, channels, engine.scale * size[0], engine.scale * size[1])
        self.out = torch.zeros(shape, dtype=dtype, device=section.device)

    def next(self, run: int) -> None:
        """Put the next picture into the buffer that is read."""
        self.source.copy_(self.pictures[run % len(self.pictures)])

    def example(self, launch: Callable[[], object]) -> Tensor:
        """Return what a launch makes of a real picture, on the CPU."""
        self.next(1)
        self.out.zero_()
        launch()
        return self.out.float().cpu()


def ways_of(section: Section, engine: Engine) -> Iterator[tuple[str, Callable[[], GpuGenerator]]]:
    """Give the ways to run a network, by name: what makes a generator ready."""
    dtype = torch.float16 if section.device.type == "cuda" else torch.float32

    def plain(graphs: bool) -> GpuGenerator:
        generator = generator_on(section, engine, graphs=graphs)
        generator.network = PlainNetwork(engine, section.device, dtype)
        return generator

    def fused() -> GpuGenerator:
        return FusedGenerator(engine)

    def banded(num: int) -> GpuGenerator:
        generator = generator_on(section, engine)
        frames = Frames(section, engine, frame_size(section, engine))
        generator.capture(lambda: generator.enlarge(frames.source, frames.out))
        generator.network = BandedNetwork(generator.network, num, engine.radius_px)
        return generator

    yield "torch eager", lambda: plain(graphs=False)
    yield "cuda", lambda: generator_on(section, engine)
    if serves(engine) and section.device.type == "cuda":
        yield "fused", fused
    if engine.architecture == "student":
        for num in (2, 4, 8):
            yield f"cuda in {num} bands", partial(banded, num)
    yield "torch graph", lambda: plain(graphs=True)
    if engine.architecture == "srgan":
        yield "cuda bf16", lambda: generator_on(section, engine, precision="bf16")


def frame_size(section: Section, engine: Engine) -> tuple[int, int]:
    """Return (H, W) of the frames that a network is timed on."""
    height, width = STUDENT_SIZE if engine.architecture == "student" else SRGAN_SIZE
    return (height // 20, width // 20) if section.quick else (height, width)


def time_network(section: Section, name: str) -> None:
    """Time a network's whole frame in every way there is."""
    engine, stand_in = engine_of(name, section.work)
    size = frame_size(section, engine)
    gflop = 2e-9 * macs_of(engine) * size[0] * size[1]
    section.note("engine", {"name": name, "random_weights": stand_in, "input": list(size), "gflop": round(gflop, 1)})
    frames = Frames(section, engine, size)
    expected: Tensor | None = None
    for way, make in ways_of(section, engine):
        with section.step(way):
            generator = make()
            expected = time_way(section, way, generator, frames, gflop, expected)


def time_way(
    section: Section, way: str, generator: GpuGenerator, frames: Frames, gflop: float, expected: Tensor | None
) -> Tensor:
    """Time one way on rotating pictures, and compare its picture with the first way's."""
    launch = generator.capture(lambda: generator.enlarge(frames.source, frames.out))
    with generator.on_stream(), torch.no_grad(), tuned_convolutions(on=generator.is_gpu):
        made = frames.example(launch)
        runs = 3 if section.quick else 200 if gflop < 700 else 100
        times: dict[str, Any] = dict(measured(launch, device=section.device, runs=runs, between=frames.next))
    times["tflops"] = round(gflop / times["p50_ms"], 1)
    if expected is not None:
        difference = (made - expected).abs()
        unit = 1.0 if frames.out.dtype == torch.uint8 else 255.0
        times["levels_off"] = {"max": round(float(difference.max()) * unit, 3)}
        times["levels_off"]["mean"] = round(float(difference.mean()) * unit, 5)
        times["is_finite"] = bool(torch.isfinite(made).all())
    chosen = generator.network.chooser.summary()
    section.note(way, {**times, **({"methods": chosen} if chosen else {})})
    return made if expected is None else expected


def time_patches(section: Section, name: str = "srgan-x4") -> None:
    """Time 32x32 patches with their halo against the whole frame."""
    engine, stand_in = engine_of(name, section.work)
    height, width = (48, 64) if section.quick else SRGAN_SIZE
    grid = PatchGrid(width, height, engine.scale, engine.halo_px)
    extra = grid.num * grid.window_size[0] * grid.window_size[1] / (width * height)
    section.note(
        "patches",
        {
            "random_weights": stand_in,
            "num": grid.num,
            "window": grid.window_size,
            "halo_px": engine.halo_px,
            "extra_arithmetic": round(extra, 3),
        },
    )
    frames = Frames(section, engine, (height, width))
    generator = generator_on(section, engine)
    windows = Windows(grid, section.device)
    patches = windows.cut(frames.source[0])
    outputs = torch.empty(
        (grid.num, 3, engine.scale * patches.shape[2], engine.scale * patches.shape[3]),
        dtype=torch.float32,
        device=section.device,
    )

    def cut_and_stitch() -> None:
        patches.copy_(windows.cut(frames.source[0]))
        generator.enlarge(patches, outputs)
        windows.stitch(outputs, frames.out[0])

    launches = {
        "frame": lambda: generator.enlarge(frames.source, frames.out),
        "patches alone": lambda: generator.enlarge(patches, outputs),
        "patches with cut and stitch": cut_and_stitch,
    }
    for way, launch in launches.items():
        with section.step(way):
            ready = generator.capture(launch)
            with generator.on_stream():
                times = measured(ready, device=section.device, runs=3 if section.quick else 60, between=frames.next)
            section.note(way, times)
    section.note("methods", generator.network.chooser.summary())
    with section.step("ratio"):
        frame_ms = section.result["frame"]["p50_ms"]
        ratios = {way: section.result[way]["p50_ms"] / (extra * frame_ms) for way in list(launches)[1:]}
        section.note("over_arithmetic", {way: round(ratio, 3) for way, ratio in ratios.items()})


def time_compiled(section: Section, name: str) -> None:
    """Time a network behind ``torch.compile`` with its longest tuning, inside a CUDA graph."""
    engine, stand_in = engine_of(name, section.work)
    size = frame_size(section, engine)
    gflop = 2e-9 * macs_of(engine) * size[0] * size[1]
    section.note("engine", {"name": name, "random_weights": stand_in, "input": list(size), "gflop": round(gflop, 1)})
    generator = CudaGenerator(
        engine, precision="fp16" if section.device.type == "cuda" else "fp32", device=section.device.type, compiled=True
    )
    frames = Frames(section, engine, size)
    with section.step("compiled"):
        time_way(section, "torch.compile max-autotune", generator, frames, gflop, None)
