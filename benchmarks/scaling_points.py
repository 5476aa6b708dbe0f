"""The points of `benchmarks.scaling`: for each section what is called, and where each point lies on the axis."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import cycle
from pathlib import Path

import numpy as np

from benchmarks.students import random_engine
from streamsr.capture.testsrc import EndoscopySource, TestSettings
from streamsr.config import GeneratorSettings, usable_cores
from streamsr.engine import Engine
from streamsr.frame import Frame
from streamsr.models.student import StudentSpec
from streamsr.patches import PatchGrid
from streamsr.runtimes import Generator, load_generator
from streamsr.upscaler import FrameUpscaler

PATCH_PX = 32
WIDTHS = (224, 320, 480, 640, 960, 1280, 1920)
PATCHES_PX = (16, 24, 32, 48, 64, 96, 128)
HALOS_PX = (0, 2, 4, 6, 8, 10, 12, 16)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
ACTIVE = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
SOURCES = (1, 2, 3, 4)


@dataclass(frozen=True)
class Plan:
    """What the sections share.

    Attributes:
        engine: the luma student under test.
        folder: for stand-ins.
        quick: few points and small pictures.
    """

    engine: Engine
    folder: Path
    quick: bool

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the frames where they do not vary."""
        return (128, 96) if self.quick else (320, 240)

    def points(self, *values: float) -> list[float]:
        """Return the points of a section; three of them when quick."""
        return list(values[:3]) if self.quick else list(values)

    def generator(self, threads: int | None = None) -> Generator:
        """Load the engine."""
        return load_generator(self.engine, GeneratorSettings(threads=threads))


@dataclass
class Section:
    """The points of a section.

    Attributes:
        axis: what varies, with its unit.
        unit: what one unit of time is spent on.
        calls: what is timed, by the name of the point.
        xs: where each point lies on the axis, asked when all was timed.
    """

    axis: str
    unit: str = "frame"
    calls: dict[str, Callable[[], object]] = field(default_factory=dict)
    xs: dict[str, Callable[[], float]] = field(default_factory=dict)

    def add(self, label: str, x: float | Callable[[], float], call: Callable[[], object]) -> None:
        """Add a point."""
        self.calls[label] = call
        self.xs[label] = x if callable(x) else partial(float, x)


def frames_of(width: int, height: int, num: int = 4) -> list[Frame]:
    """Return rendered frames that all differ."""
    with EndoscopySource(TestSettings(width=width, height=height, frames=num)) as source:
        return [item for item in source if isinstance(item, Frame)]


def upscaling(generator: Generator, frames: list[Frame], **launch: object) -> Callable[[], object]:
    """Return a call that enlarges the next frame, every pixel."""
    options: dict[str, object] = {"skip_surround": False, "reuse_unchanged": False, **launch}
    upscaler = FrameUpscaler(generator, **options)  # type: ignore[arg-type]
    coming = cycle(frames)
    return lambda: upscaler.upscale(next(coming))


@contextmanager
def by_size(plan: Plan) -> Iterator[Section]:
    """Vary the size of whole frames, 16:9."""
    section, generator = Section("input megapixels"), plan.generator()
    for width in plan.points(*WIDTHS):
        across, down = int(width), 2 * round(width * 9 / 32)
        call = upscaling(generator, frames_of(across, down), launch="frame")
        section.add(f"{across}x{down}", across * down / 1e6, call)
    yield section


@contextmanager
def by_scale(plan: Plan) -> Iterator[Section]:
    """Vary the scale of a student whose weights are random."""
    section, frames = Section("output pixels an input pixel"), frames_of(*plan.size)
    for scale in (2, 3, 4):
        spec = StudentSpec(plan.engine.channels, plan.engine.depth, scale)
        engine = random_engine(plan.folder / f"shape-x{scale}", spec)
        call = upscaling(load_generator(engine, GeneratorSettings()), frames, launch="frame")
        section.add(f"x{scale}", scale**2, call)
    yield section


def launched_megapixels(plan: Plan, patch_px: int, halo_px: int) -> float:
    """Return the input pixels of all windows of a frame, in millions."""
    grid = PatchGrid(*plan.size, plan.engine.scale, halo_px, patch_px)
    width, height = grid.window_size
    return grid.num * width * height / 1e6


@contextmanager
def by_patch(plan: Plan) -> Iterator[Section]:
    """Vary the side of patches."""
    section, generator, frames = Section("megapixels launched"), plan.generator(), frames_of(*plan.size)
    halo_px = plan.engine.halo_px
    for side in map(int, plan.points(*PATCHES_PX)):
        call = upscaling(generator, frames, launch="patch", patch_px=side, halo_px=halo_px)
        section.add(f"{side} px", launched_megapixels(plan, side, halo_px), call)
    yield section


@contextmanager
def by_halo(plan: Plan) -> Iterator[Section]:
    """Vary the halo of patches of 32 px."""
    section, generator, frames = Section("megapixels launched"), plan.generator(), frames_of(*plan.size)
    for halo_px in map(int, plan.points(*HALOS_PX)):
        call = upscaling(generator, frames, launch="patch", patch_px=PATCH_PX, halo_px=halo_px)
        section.add(f"{halo_px} px", launched_megapixels(plan, PATCH_PX, halo_px), call)
    yield section


@contextmanager
def by_batch(plan: Plan) -> Iterator[Section]:
    """Vary the number of patches in one call of the generator."""
    section, generator, scale = Section("patches a call", unit="call"), plan.generator(), plan.engine.scale
    side = PATCH_PX + 2 * plan.engine.halo_px
    for num in map(int, plan.points(*BATCHES)):
        patches = np.random.default_rng(num).integers(0, 256, (num, 1, side, side), dtype=np.uint8)
        out = np.empty((num, 1, scale * side, scale * side), np.uint8)
        section.add(f"{num}", num, partial(generator.generate, patches, out))
    yield section


@contextmanager
def by_threads(plan: Plan) -> Iterator[Section]:
    """Vary the threads of the generator."""
    section, frames = Section("1 / threads"), frames_of(*plan.size)
    cores = usable_cores()
    for threads in sorted({*(2**power for power in range(cores.bit_length()) if 2**power <= cores), cores}):
        call = upscaling(plan.generator(threads), frames, launch="frame")
        section.add(f"{threads}", 1 / threads, call)
    yield section


@contextmanager
def by_active(plan: Plan) -> Iterator[Section]:
    """Vary the part of the patches that changed: the rows of patches below some height change from frame to frame."""
    section = Section("part of the patches launched")
    generator, (width, height) = plan.generator(), (256, 256) if plan.quick else (512, 512)
    (base,) = frames_of(width, height, 1)
    for part in plan.points(*ACTIVE):
        # The halo reaches into the row of patches above, which is launched too; the axis tells what really was.
        changed = base.planes[0].copy()
        changed[round((1 - part) * height) :] ^= 1
        frames = [base, replace(base, planes=(changed, *base.planes[1:]))]
        upscaler = FrameUpscaler(generator, launch="patch", patch_px=PATCH_PX, skip_surround=False)
        pictures = cycle(frames)
        section.add(
            f"{part:.0%} changed",
            partial(launched_part, upscaler),
            partial(lambda made, coming: made.upscale(next(coming)), upscaler, pictures),
        )
    yield section


def launched_part(upscaler: FrameUpscaler) -> float:
    """Return the part of the patches that were launched, without the first frame's, which are all."""
    count, frames = upscaler.count, upscaler.clocks["generate"].num
    of_a_frame = count.total / frames
    return (count.launched - of_a_frame) / (count.total - of_a_frame)


@contextmanager
def by_sources(plan: Plan) -> Iterator[Section]:
    """Vary the number of upscalers at work, each in a thread of its own with all cores to choose from."""
    section = Section("sources at once", unit="frame of every source")
    num_most = SOURCES[2] if plan.quick else SOURCES[-1]
    with ThreadPoolExecutor(num_most) as pool:
        enlarge = [upscaling(plan.generator(), frames_of(*plan.size), launch="frame") for _ in range(num_most)]
        for num in SOURCES[:num_most]:
            section.add(f"{num}", num, partial(run_all, pool, enlarge[:num]))
        yield section


def run_all(pool: ThreadPoolExecutor, calls: list[Callable[[], object]]) -> None:
    """Make all calls at once and wait for the last."""
    for done in [pool.submit(call) for call in calls]:
        done.result()


SECTIONS: Mapping[str, Callable[[Plan], AbstractContextManager[Section]]] = {
    "size": by_size,
    "scale": by_scale,
    "patch": by_patch,
    "halo": by_halo,
    "batch": by_batch,
    "threads": by_threads,
    "active": by_active,
    "sources": by_sources,
}
