"""How long the networks take on a whole frame, each way in turn on the same pictures; and patches against the frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_engines import engine_of
from benchmarks.gpu_timing import Section, event_times_ms, inputs_of, summary
from benchmarks.gpu_ways import PlainNetwork, Way, generator_on, left_out_where_refused, plain_on, runtimes_of
from streamsr.device.planes import Windows
from streamsr.engine import Engine
from streamsr.models.srgan import SRGANGenerator
from streamsr.models.student import StudentSpec
from streamsr.patches import PatchGrid, spans_of
from streamsr.runtimes.cuda import CudaGenerator
from streamsr.runtimes.gpu_generator import GpuGenerator, tuned_convolutions

STUDENT_SIZE = (1080, 1920)
SRGAN_SIZE = (480, 640)

ROUNDS = 5
"""In each of which every way is timed once."""

PATCH_LAUNCHES = ("frame", "patches alone", "patches with cut and stitch")

LEAST_LEFT = 0.2
"""Part of a section's time before which nothing more is made ready: what is ready is still to be timed in turn."""


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


def macs_of(engine: Engine) -> int:
    """Return the multiply-adds an input pixel costs."""
    if engine.architecture == "srgan":
        return SRGANGenerator(scale=engine.scale, num_blocks=engine.depth).macs_per_pixel
    return StudentSpec(engine.channels, engine.depth, engine.scale).macs_per_pixel


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


@dataclass
class Ready:
    """A way that can be timed.

    Attributes:
        name: in the result.
        generator: on whose CUDA stream it runs.
        launch: enqueues it.
        told: figures besides the times.
        gflop: of a launch; 0 where no rate is told.
        times_ms: of all rounds so far.
    """

    name: str
    generator: GpuGenerator
    launch: Callable[[], object]
    told: dict[str, Any]
    gflop: float = 0.0
    times_ms: list[float] = field(default_factory=list)

    def time(self, section: Section, frames: Frames, runs: int, *, keep: bool = True) -> None:
        """Time some launches and note all times so far.

        Args:
            section: where.
            frames: read and written.
            runs: how many launches.
            keep: whether later rounds add to them.
        """
        device = section.device
        with self.generator.on_stream(), torch.no_grad(), tuned_convolutions(on=self.generator.is_gpu):
            event_times_ms(self.launch, runs=max(runs // 5, 2), device=device, between=frames.next)
            times = event_times_ms(self.launch, runs=runs, device=device, between=frames.next)
        found = summary([*self.times_ms, *times])
        self.times_ms += times if keep else []
        rate = {"tflops": round(self.gflop / found["p50_ms"], 1)} if self.gflop else {}
        section.note(self.name, {**found, **rate, **self.told})


def in_turn(section: Section, frames: Frames, ready: Sequence[Ready], runs: int) -> None:
    """Time every way once a round, each round beginning with another, on the same pictures."""
    rounds = 2 if section.quick else ROUNDS
    for done in range(rounds):
        first = done % max(len(ready), 1)
        for way in (*ready[first:], *ready[:first]):
            way.time(section, frames, 3 if section.quick else max(runs // rounds, 10))
        section.note("rounds", done + 1)


def time_network(section: Section, name: str) -> None:
    """Time a network's whole frame in every way there is."""
    engine, frames, gflop = network_to_time(section, name)
    ways = [*runtimes_of(section, engine), Way("torch eager", lambda: plain_on(section, engine, graphs=False))]
    if engine.architecture == "srgan":
        ways.insert(1, Way("cuda bf16", lambda: generator_on(section, engine, precision="bf16")))
    ways.append(Way("torch graph", lambda: plain_on(section, engine, graphs=True)))
    if engine.architecture == "student":
        ways += [Way(f"cuda in {num} bands", partial(banded_on, section, engine, num)) for num in (2, 4)]
    time_ways(section, engine, frames, gflop, ways)


def time_compiled(section: Section, name: str) -> None:
    """Time our runtimes beside ``torch.compile`` with its longest tuning, inside a CUDA graph, in turn."""
    engine, frames, gflop = network_to_time(section, name)
    compiled = Way("torch.compile max-autotune", lambda: compiled_on(section, engine))
    time_ways(section, engine, frames, gflop, [*runtimes_of(section, engine), compiled])


def network_to_time(section: Section, name: str) -> tuple[Engine, Frames, float]:
    """Return an engine, its frames, and the arithmetic of one in GFLOP."""
    engine, stand_in = engine_of(name, section.work)
    size = frame_size(section, engine)
    gflop = 2e-9 * macs_of(engine) * size[0] * size[1]
    section.note("engine", {"name": name, "random_weights": stand_in, "input": list(size), "gflop": round(gflop, 1)})
    return engine, Frames(section, engine, size), gflop


def frame_size(section: Section, engine: Engine) -> tuple[int, int]:
    """Return (H, W) of the frames that a network is timed on."""
    height, width = STUDENT_SIZE if engine.architecture == "student" else SRGAN_SIZE
    return (height // 20, width // 20) if section.quick else (height, width)


def banded_on(section: Section, engine: Engine, num: int) -> GpuGenerator:
    """Return the ``cuda`` runtime that runs a frame in bands."""
    generator = generator_on(section, engine)
    frames = Frames(section, engine, frame_size(section, engine))
    generator.capture(lambda: generator.enlarge(frames.source, frames.out))
    generator.network = BandedNetwork(generator.network, num, engine.radius_px)
    return generator


def compiled_on(section: Section, engine: Engine) -> GpuGenerator:
    """Return the network behind ``torch.compile``."""
    if section.device.type != "cuda":
        return CudaGenerator(engine, precision="fp32", device="cpu", compiled=True)
    return CudaGenerator(engine, compiled=True)


def time_ways(section: Section, engine: Engine, frames: Frames, gflop: float, ways: Sequence[Way]) -> None:
    """Make every way ready, compare its picture with fp32, then time them in turn.

    Each is timed once as soon as it is ready, so that a section that is ended says something of what it came to.
    """
    expected: Tensor | None = None
    with section.step("fp32"):
        expected = expected_picture(section, engine, frames)
    ready = list[Ready]()
    for way in ways:
        if section.left < LEAST_LEFT:
            section.note(way.name, {"left out": "no time left"})
            continue
        with section.step(way.name), left_out_where_refused(section, way.name):
            found = ready_to_time(way, frames, gflop, expected)
            found.time(section, frames, 3 if section.quick else 20, keep=False)
            ready.append(found)
    in_turn(section, frames, ready, 200 if gflop < 700 else 100)


def ready_to_time(way: Way, frames: Frames, gflop: float, expected: Tensor | None) -> Ready:
    """Return a way whose network has run and is captured, with how far its picture is from fp32's."""
    generator = way.make()
    launch = generator.capture(lambda: generator.enlarge(frames.source, frames.out))
    with generator.on_stream(), torch.no_grad(), tuned_convolutions(on=generator.is_gpu):
        made = frames.example(launch)
    told: dict[str, Any] = {"precision": generator.precision, "is_finite": bool(torch.isfinite(made).all())}
    if expected is not None:
        unit = 1.0 if frames.out.dtype == torch.uint8 else 255.0
        off = (made - expected).abs()
        told["levels_off"] = {"max": round(float(off.max()) * unit, 3), "mean": round(float(off.mean()) * unit, 5)}
    if chosen := generator.network.chooser.summary():
        told["methods"] = chosen
    return Ready(way.name, generator, launch, told, gflop)


def expected_picture(section: Section, engine: Engine, frames: Frames) -> Tensor:
    """Return what the network makes of the example in fp32, without TF32."""
    network = PlainNetwork(engine, section.device, torch.float32)
    with torch.no_grad(), without_tf32():
        return frames.example(lambda: network.enlarge(frames.source, frames.out))


@contextmanager
def without_tf32() -> Iterator[None]:
    """Let convolutions of float32 keep their lower bits."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def time_patches(section: Section, name: str) -> None:
    """Time 32x32 patches with their halo against the whole frame, in turn, in every runtime that serves."""
    engine, stand_in = engine_of(name, section.work)
    height, width = (48, 64) if section.quick else SRGAN_SIZE
    grid = PatchGrid(width, height, engine.scale, engine.halo_px)
    extra = grid.num * grid.window_size[0] * grid.window_size[1] / (width * height)
    found = {"num": grid.num, "window": grid.window_size, "halo_px": engine.halo_px}
    section.note("patches", {"random_weights": stand_in, **found, "extra_arithmetic": round(extra, 3)})
    frames, ready = Frames(section, engine, (height, width)), list[Ready]()
    for way in runtimes_of(section, engine):
        with section.step(way.name), left_out_where_refused(section, way.name):
            found_ways = patches_to_time(way, frames, Windows(grid, section.device), grid)
            for each in found_ways:
                each.time(section, frames, 3 if section.quick else 10, keep=False)
            ready += found_ways
    in_turn(section, frames, ready, 60)
    for way in runtimes_of(section, engine):
        over_arithmetic(section, way.name, extra)


def patches_to_time(way: Way, frames: Frames, windows: Windows, grid: PatchGrid) -> list[Ready]:
    """Return the frame, its patches, and its patches with cut and stitch as launches of one generator."""
    generator = way.make()
    patches = windows.cut(frames.source[0])
    num, channels, tall, wide = patches.shape
    outputs = patches.new_empty((num, channels, grid.scale * tall, grid.scale * wide))

    def cut_and_stitch() -> None:
        patches.copy_(windows.cut(frames.source[0]))
        generator.enlarge(patches, outputs)
        windows.stitch(outputs, frames.out[0])

    launches: tuple[Callable[[], None], ...] = (
        lambda: generator.enlarge(frames.source, frames.out),
        lambda: generator.enlarge(patches, outputs),
        cut_and_stitch,
    )
    return [
        Ready(f"{way.name}: {what}", generator, generator.capture(launch), {"precision": generator.precision})
        for what, launch in zip(PATCH_LAUNCHES, launches, strict=True)
    ]


def over_arithmetic(section: Section, way: str, extra: float) -> None:
    """Note what patches take over the frame's time and their extra arithmetic; nothing where they were not timed."""
    times = {what: section.result.get(f"{way}: {what}", {}).get("p50_ms") for what in PATCH_LAUNCHES}
    if None in times.values():
        return
    ratios = {what: round(times[what] / (extra * times["frame"]), 3) for what in PATCH_LAUNCHES[1:]}
    section.note(f"{way}: over arithmetic", ratios)
