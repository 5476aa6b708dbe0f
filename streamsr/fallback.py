"""FallbackUpscaler: GPUs' upscaler whose frames go on on the processor where the last GPU fails, and what says so.

The one place that decides which upscaler a generator gets: `make_upscaler`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

from streamsr.config import GeneratorSettings
from streamsr.consistency import ConsistencyCount
from streamsr.dealing import DealingUpscaler
from streamsr.engine import Engine
from streamsr.errors import EngineError, GpuFault
from streamsr.frame import Frame, PlaneLayout
from streamsr.launch import LaunchPlan
from streamsr.routing import RoutingCount
from streamsr.runtimes import (
    GPU_RUNTIMES,
    Generator,
    load_alike,
    load_generator,
    notices_of,
    refuse_missing_gpus,
)
from streamsr.timing import StageClock
from streamsr.upscaler import FrameUpscaler

log = logging.getLogger(__name__)

Spare: TypeAlias = "tuple[FrameUpscaler, str]"
"""What goes on where no GPU is left, and the line that says so."""


class FallbackUpscaler:
    """Enlarges the frames of a video in their order on GPUs, and on the processor from where the last GPU fails.

    Frames that were in flight then are done again. Owned by one thread; counts and clocks may be read by others.

    Args:
        upscaler: on the GPUs.
        spare: makes what goes on, given how the last GPU failed.
        other: makes what takes the upscaler's place where it cannot be prepared and another runtime was not asked for;
            None where there is no other.

    Attributes:
        frames_in_flight: frames between `submit` and `collect`, at most.
    """

    def __init__(
        self,
        upscaler: DealingUpscaler,
        spare: Callable[[GpuFault], Spare],
        other: Callable[[], DealingUpscaler] | None = None,
    ) -> None:
        self.frames_in_flight = upscaler.frames_in_flight
        self._gpus, self._make_spare, self._make_other = upscaler, spare, other
        self._spare: FrameUpscaler | None = None
        self._told: list[str] = []
        self._waiting: deque[Frame] = deque()

    @property
    def generator(self) -> Generator:
        """What enlarges on the first GPU."""
        return self._gpus.generator

    @property
    def device(self) -> str | None:
        """Torch's name of where all frames are enlarged: their planes may lie there already; None on several GPUs."""
        return self._gpus.device

    @property
    def description(self) -> str:
        """What runs the generator, and what did before, in one line."""
        first = self._gpus.description
        return f"{first}, then {self._spare.generator.description}" if self._spare else first

    @property
    def notices(self) -> list[str]:
        """What the user should know, one line each."""
        return [*self._gpus.notices, *self._told]

    @property
    def clocks(self) -> dict[str, StageClock]:
        """The clocks of both, by name."""
        return {**self._gpus.clocks, **(self._spare.clocks if self._spare else {})}

    @property
    def count(self) -> RoutingCount:
        """Where the patches of all frames so far went."""
        return self._gpus.count + self._spare.count if self._spare else self._gpus.count

    @property
    def consistency(self) -> ConsistencyCount:
        """How well the frames so far give their inputs back, as far as that was measured."""
        return self._gpus.consistency + self._spare.consistency if self._spare else self._gpus.consistency

    @property
    def plan(self) -> LaunchPlan | None:
        """How the latest size is launched; None before the first frame."""
        return (self._spare.plan if self._spare else None) or self._gpus.plan

    @property
    def num_in_flight(self) -> int:
        """Frames submitted and not yet collected."""
        return len(self._waiting)

    def prepare(self, width: int, height: int, layout: PlaneLayout) -> None:
        """Have compiled, in this thread, what frames of one size would wait for: with TensorRT that takes minutes.

        Before any frame. Where it cannot be had and the runtime was ours to choose, another takes its place.

        Raises:
            EngineError: it cannot be had.
        """
        try:
            self._gpus.prepare(width, height, layout)
        except EngineError as cause:
            if self._make_other is None or isinstance(cause, GpuFault):
                raise
            self._gpus, self._make_other = self._make_other(), None
            self._told.append(f"{cause}; went on with {self._gpus.description}")
            log.warning("%s", self._told[-1])

    def submit(self, frame: Frame) -> None:
        """Take the next frame; its planes must not be written to before it was collected.

        Raises:
            EngineError: the generator failed, and not because of the GPU alone.
        """
        if self._spare is None:
            try:
                self._gpus.submit(frame)
            except GpuFault as fault:
                self._go_on(fault)
        self._waiting.append(frame)

    def collect(self) -> Frame:
        """Wait for the oldest frame in flight and return it enlarged.

        Raises:
            EngineError: the generator failed, and not because of the GPU alone.
        """
        if self._spare is None:
            try:
                frame = self._gpus.collect()
            except GpuFault as fault:
                self._go_on(fault)
            else:
                self._waiting.popleft()
                return frame
        assert self._spare is not None
        return self._spare.upscale(self._on_host(self._waiting.popleft()))

    def upscale(self, frame: Frame) -> Frame:
        """Enlarge one frame and wait for it; see `submit` and `collect`."""
        self.submit(frame)
        return self.collect()

    def drain(self) -> None:
        """Wait for what is in flight and drop it."""
        self._waiting.clear()
        self._gpus.drain()

    def _on_host(self, frame: Frame) -> Frame:
        """Return a frame that the processor can read.

        Raises:
            EngineError: its planes lay on the GPU alone, and cannot be read there any more.
        """
        from streamsr.device_frame import on_host

        try:
            return on_host(frame)
        except RuntimeError as cause:
            line = " ".join(str(cause).split())[:160]
            raise EngineError(
                f"the GPU failed with decoded pictures on it ({line}); run again with --hwaccel none"
            ) from cause

    def _go_on(self, fault: GpuFault) -> None:
        """Make the spare; from here on it does every frame."""
        log.warning("%s", fault)
        self._spare, notice = self._make_spare(fault)
        self._told.append(notice)


Upscaler: TypeAlias = "FrameUpscaler | FallbackUpscaler"


LIGHT = ("student", "bicubic")
"""Architectures whose whole frames a processor launches with no trial before; one of the SRGAN's takes seconds."""


def make_upscaler(
    engine: Engine,
    settings: GeneratorSettings,
    *,
    bit_depth: int,
    reuse_unchanged: bool = True,
    trial_first: bool = False,
) -> Upscaler:
    """Load a generator and return what enlarges frames with it: on the GPU, or on several, where it runs there.

    Args:
        engine: which generator.
        settings: how, and on how many GPUs.
        bit_depth: of the samples to come.
        reuse_unchanged: False where the caller may write to the planes of a frame that was enlarged.
        trial_first: whether a processor tries launches when the first frame comes, so that no later one waits for it;
            on a GPU, patches are then not routed, since their launches are made ready when they are first of use.

    Raises:
        EngineError: the generator cannot run here.
        UsageError: a setting that cannot be.
    """
    options: dict[str, Any] = {
        "launch": settings.launch,
        "patch_px": settings.patch_px,
        "halo_px": engine.halo_px if settings.halo_px is None else settings.halo_px,
        "skip_surround": settings.skip_surround,
        "reuse_unchanged": settings.reuse_unchanged and reuse_unchanged,
        "consistency": settings.consistency and engine.kind != "interpolation",
    }
    refuse_missing_gpus(settings.gpus)
    generator = load_generator(engine, settings, bit_depth=bit_depth)
    routes, trial_first = not trial_first, trial_first or engine.architecture not in LIGHT
    if generator.runtime not in GPU_RUNTIMES:
        upscaler = FrameUpscaler(generator, **options, trial_first=trial_first)
        upscaler.notices = (*notices_of(generator), *told_without_gpus(generator, settings.gpus))
        return upscaler
    from streamsr.device.upscaler import DeviceUpscaler

    def spare(fault: GpuFault) -> Spare:
        found, notice = recover(engine, settings, fault, bit_depth=bit_depth)
        return FrameUpscaler(found, **options, trial_first=trial_first), notice

    def dealing(first: Generator) -> DealingUpscaler:
        generators = load_alike(engine, first, settings.gpus)
        return DealingUpscaler([DeviceUpscaler(each, **options, routes=routes) for each in generators])

    def other() -> DealingUpscaler:
        return dealing(load_generator(engine, replace(settings, runtime="cuda"), bit_depth=bit_depth))

    compiles = settings.runtime == "auto" and generator.runtime != "cuda"
    return FallbackUpscaler(dealing(generator), spare, other if compiles else None)


def told_without_gpus(generator: Generator, asked: int | str) -> tuple[str, ...]:
    """Return the notices of a generator on the processor where GPUs were asked for.

    Raises:
        EngineError: a number of GPUs was asked for, and what else was asked for keeps the generator off them.
    """
    if asked == 1:
        return ()
    if asked != "all":
        got = "; ".join(notices_of(generator)) or generator.description
        raise EngineError(f"--gpus: expected a generator that runs on GPUs, got {got}; leave --gpus out")
    return (f"--gpus all: no GPU is used, {generator.description} is",)


def recover(
    engine: Engine, settings: GeneratorSettings, cause: EngineError, *, bit_depth: int
) -> tuple[Generator, str]:
    """Return a generator on the processor for a job whose GPU failed, and the line that says so.

    Args:
        engine: which generator.
        settings: what was asked for.
        cause: how the GPU failed.
        bit_depth: of the samples.
    """
    spare = replace(settings, runtime="openvino", precision="auto")
    try:
        generator = load_generator(engine, spare, bit_depth=bit_depth)
    except EngineError:
        generator = load_generator(engine, replace(spare, runtime="torch"), bit_depth=bit_depth)
    return generator, f"{cause}; went on with {generator.description}"
