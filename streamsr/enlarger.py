"""PictureEnlarger: what makes one plane (or an RGB picture) larger: route, cut, generate, stitch, fill, project.

Whatever the launch (`streamsr.launch`), the picture is the same: patches of the surround are always filled by bicubic
interpolation, all others always show what the generator makes of their window. Where the runtime's arithmetic is
floating point, "the same" is within its rounding, which may tip a sample that lies midway to the next grey level. The
consistency projection then reads the whole stitched picture, which is kept for it from frame to frame, so that seams
and reuse are none of its business.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamsr.consistency import RGB_LIMITS, ConsistencyCount, Projector
from streamsr.errors import EngineError
from streamsr.launch import Choice, LaunchPlan, batches_of, tiles_of
from streamsr.launch_choice import CORES_PX, LaunchChooser
from streamsr.patches import PatchGrid, Samples, cut_patches, stitch_patches
from streamsr.regions import Regions
from streamsr.routing import Router, Routing, RoutingCount
from streamsr.runtimes.base import Generator
from streamsr.surround import FILL_MARGIN_PX, Mask, fill
from streamsr.timing import StageClock

PATCH_PX = 32
"""Side of the patch that routing decides on, and of the smallest one launched."""

STAGES = ("route", "cut", "generate", "stitch", "project", "chroma")


class StageClocks:
    """The clocks of the stages; a stage that runs several times a frame counts as one.

    Attributes:
        clocks: one a stage, by name.
    """

    def __init__(self) -> None:
        self.clocks = {name: StageClock(name) for name in STAGES}
        self._taken_ns = dict.fromkeys(STAGES, 0)

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the time that the body takes to this frame's."""
        started = time.perf_counter_ns()
        try:
            yield
        finally:
            self._taken_ns[name] += time.perf_counter_ns() - started

    def end_frame(self) -> None:
        """Give this frame's times to the clocks."""
        for name, clock in self.clocks.items():
            clock.add(self._taken_ns[name])
            self._taken_ns[name] = 0


@dataclass(frozen=True)
class Settings:
    """How pictures are enlarged.

    Attributes:
        launch: ``auto``, ``frame`` or ``patch``.
        patch_px: side of a core; None for 32 in routing and the fastest of `CORES_PX` in launches.
        halo_px: context on each side; None for the generator's radius.
        skip_surround: whether the black surround goes without the generator.
        reuse_unchanged: whether patches that did not change go without it.
        consistency: whether the picture is made to give its input back.
        trial_first: whether launches are tried before the first frame, so that no later one waits for that.
    """

    launch: Choice = "auto"
    patch_px: int | None = None
    halo_px: int | None = None
    skip_surround: bool = True
    reuse_unchanged: bool = True
    consistency: bool = False
    trial_first: bool = False


@dataclass
class _Buffers:
    """What a launch of one shape reads and writes."""

    pictures: NDArray[Any]
    outputs: NDArray[Any] = field(repr=False)


class PictureEnlarger:
    """Enlarges pictures of one size that follow each other with the generator. Owned by one thread.

    Args:
        generator: what enlarges; it must read ``channels`` channels.
        width: of a picture in pixels.
        height: of a picture in pixels.
        settings: how.
        clocks: where times go.
        peak: the sample that means 1.0 to the generator; 255 for uint8, which it reads as such.
        black: the largest sample that counts as black surround.
        dtype: of the samples.
        level: one grey level, in samples.
    """

    def __init__(
        self,
        generator: Generator,
        width: int,
        height: int,
        *,
        settings: Settings,
        clocks: StageClocks,
        peak: float,
        black: float,
        dtype: type[np.generic],
        level: float = 1.0,
    ) -> None:
        self.generator, self.clocks, self.peak = generator, clocks, peak
        self.dtype = dtype
        self.count = RoutingCount()
        self._projector: Projector | None = None
        if settings.consistency and generator.scale > 1:
            self._projector = Projector(
                generator.scale,
                (width, height),
                channels=generator.channels,
                peak=peak,
                level=level,
                limits=RGB_LIMITS if generator.channels == 3 else None,
            )
        core_px = settings.patch_px or PATCH_PX
        self.chooser = LaunchChooser(
            generator,
            width,
            height,
            launch=settings.launch,
            halo_px=settings.halo_px,
            cores=(settings.patch_px,) if settings.patch_px else CORES_PX,
            dtype=self._network_dtype,
            trial_first=settings.trial_first,
        )
        # What a patch shows depends on its window alone, the surround beside it included.
        halo_px = max(self.plan.halo_px, self._projector.reach_px if self._projector else FILL_MARGIN_PX)
        self.grid = PatchGrid(width, height, generator.scale, halo_px, core_px)
        self.router = Router(
            self.grid,
            black=black if settings.skip_surround else None,
            reuse_unchanged=settings.reuse_unchanged,
        )
        self._regions = Regions(self.grid)
        self._buffers: dict[tuple[int, ...], _Buffers] = {}
        self._previous: Samples | None = None
        self._stitched: Samples | None = None

    @property
    def plan(self) -> LaunchPlan:
        """How frames are launched at present."""
        return self.chooser.plan

    @property
    def consistency(self) -> ConsistencyCount | None:
        """How well the pictures so far give their inputs back; None where they are not made to."""
        return self._projector.count if self._projector else None

    @property
    def _network_dtype(self) -> type[np.generic]:
        return np.uint8 if self.dtype is np.uint8 else np.float32

    def enlarge(self, picture: Samples) -> Samples:
        """Enlarge the next picture.

        Args:
            picture: (C, H, W) of ``dtype``; kept until the next call, so it must not be written to.

        Returns:
            (C, scale * H, scale * W) of ``dtype``; never written to again.
        """
        try:
            return self._enlarge(picture)
        except BaseException:
            # The router has seen a picture whose output was never finished.
            self.router.reset()
            self._previous = self._stitched = None
            raise

    def _enlarge(self, picture: Samples) -> Samples:
        with self.clocks.measure("route"):
            routing = self.router.route(picture)
        previous, launched = self._previous, np.zeros_like(routing.generate)
        if previous is not None and not routing.generate.any() and not routing.refill.any():
            enlarged = previous
        else:
            stitched, launched = self._launch(picture, routing)
            with self.clocks.measure("stitch"):
                fill(picture, self.grid, routing.refill | (routing.surround & launched), stitched)
            enlarged = self._projected(picture, stitched, launched | routing.refill)
            self._stitched = stitched
        self._previous = enlarged
        self.count += routing.count(launched)
        return enlarged

    def _projected(self, picture: Samples, stitched: Samples, made: Mask) -> Samples:
        """Return the picture to show, of a stitched one in which some patches were made anew."""
        if self._projector is None:
            return stitched
        with self.clocks.measure("project"):
            rows = np.flatnonzero(made.any(axis=1))
            spans = self.grid.row_spans
            changed = slice(spans[rows[0]].core[0], spans[rows[-1]].core[1])
            return self._projector.project(picture, stitched, changed if self._stitched is not None else None)

    def _launch(self, picture: Samples, routing: Routing) -> tuple[Samples, Mask]:
        """Return a picture in which all but the surround is right, and the mask of what was launched."""
        mask = routing.generate
        if not mask.any():
            return self._canvas(picture, routing), mask
        region = self._regions.cover(mask)
        window = region.window(self.grid, self.plan.halo_px)
        part = _area(window) / (self.grid.width * self.grid.height)
        kind = self.chooser.choose(mask, self.grid, part)
        started = time.perf_counter_ns()
        if kind == "frame":
            enlarged = self._launch_frame(picture)
            self.chooser.note(1.0, (time.perf_counter_ns() - started) / 1e6)
            return enlarged, np.ones_like(mask)
        enlarged = self._canvas(picture, routing)
        if kind == "region":
            self._launch_region(picture, window, region.core(self.grid), enlarged)
            self.chooser.note(part, (time.perf_counter_ns() - started) / 1e6)
            return enlarged, region.mask(self.grid)
        tiles = tiles_of(mask, self.grid, self.chooser.tiles)
        self._launch_patches(picture, np.flatnonzero(tiles), enlarged)
        factor = self.chooser.tiles.core_px // self.grid.core_px
        covered = np.repeat(np.repeat(tiles, factor, axis=0), factor, axis=1)
        return enlarged, covered[: mask.shape[0], : mask.shape[1]]

    def _canvas(self, picture: Samples, routing: Routing) -> Samples:
        """Return a picture to draw on, showing the previously stitched one where some of that is kept."""
        with self.clocks.measure("stitch"):
            canvas = self._fresh(picture)
            if self._stitched is None or canvas is self._stitched or (routing.generate | routing.refill).all():
                return canvas
            np.copyto(canvas, self._stitched)
            return canvas

    def _fresh(self, picture: Samples) -> Samples:
        """Return a picture to draw on: the stitched one, unless that was given out."""
        if self._projector is not None and self._stitched is not None:
            return self._stitched
        channels, height, width = picture.shape
        return np.empty((channels, self.generator.scale * height, self.generator.scale * width), picture.dtype)

    def _launch_frame(self, picture: Samples) -> Samples:
        enlarged = self._fresh(picture)
        if self._is_native:
            with self.clocks.measure("cut"):
                pictures = np.ascontiguousarray(picture)[None]
            self._run(pictures, enlarged[None])
            return enlarged
        whole = (slice(0, picture.shape[1]), slice(0, picture.shape[2]))
        self._launch_region(picture, whole, whole, enlarged)
        return enlarged

    @property
    def _is_native(self) -> bool:
        """Whether samples go to the generator as they are."""
        return self.dtype is not np.uint16

    def _launch_region(
        self, picture: Samples, window: tuple[slice, slice], core: tuple[slice, slice], enlarged: Samples
    ) -> None:
        """Launch one window of the picture and write its core."""
        scale = self.generator.scale
        buffers = self._buffers_of(1, window[0].stop - window[0].start, window[1].stop - window[1].start)
        with self.clocks.measure("cut"):
            buffers.pictures[0] = picture[:, window[0], window[1]]
        self._generate(buffers)
        inner = tuple(
            slice(scale * (cores.start - first.start), scale * (cores.stop - first.start))
            for cores, first in zip(core, window, strict=True)
        )
        target = tuple(slice(scale * cores.start, scale * cores.stop) for cores in core)
        with self.clocks.measure("stitch"):
            enlarged[:, target[0], target[1]] = buffers.outputs[0][:, inner[0], inner[1]]

    def _launch_patches(self, picture: Samples, indices: NDArray[np.intp], enlarged: Samples) -> None:
        """Launch some tiles in batches of the few sizes and write their cores."""
        tiles = self.chooser.tiles
        width, height = tiles.window_size
        numbers, done = indices.tolist(), 0
        for taken, size in batches_of(len(numbers), width * height):
            batch, done = numbers[done : done + taken], done + taken
            buffers = self._buffers_of(size, height, width)
            with self.clocks.measure("cut"):
                cut_patches(picture, tiles, batch, out=buffers.pictures)
            self._generate(buffers)
            with self.clocks.measure("stitch"):
                stitch_patches(buffers.outputs, tiles, batch, enlarged)

    def _generate(self, buffers: _Buffers) -> None:
        """Run the generator on full buffers, in its own scale of samples."""
        if self._is_native:
            self._run(buffers.pictures, buffers.outputs)
            return
        with self.clocks.measure("cut"):
            buffers.pictures *= np.float32(1 / self.peak)
        self._run(buffers.pictures, buffers.outputs)
        with self.clocks.measure("stitch"):
            buffers.outputs *= np.float32(self.peak)
            np.clip(np.rint(buffers.outputs, out=buffers.outputs), 0, self.peak, out=buffers.outputs)

    def _run(self, pictures: Samples, outputs: Samples) -> None:
        """Run the generator.

        Raises:
            EngineError: what it made is not all numbers; rounded to samples, that would be a black hole in the picture.
        """
        with self.clocks.measure("generate"):
            self.generator.generate(pictures, outputs)
        if outputs.dtype == np.float32 and not np.isfinite(outputs.sum()):
            raise EngineError(
                f"{self.generator.description}: expected samples, got some that are not a number; "
                "try --precision fp32 or another --runtime"
            )

    def _buffers_of(self, num: int, height: int, width: int) -> _Buffers:
        """Return the buffers of a shape, made when it is first launched."""
        shape, scale = (num, self.generator.channels, height, width), self.generator.scale
        if shape not in self._buffers:
            large = (num, self.generator.channels, scale * height, scale * width)
            self._buffers[shape] = _Buffers(np.zeros(shape, self._network_dtype), np.empty(large, self._network_dtype))
        return self._buffers[shape]


def _area(box: tuple[slice, slice]) -> int:
    return int((box[0].stop - box[0].start) * (box[1].stop - box[1].start))
