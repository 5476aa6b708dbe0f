"""DeviceUpscaler: a frame in, the same moment enlarged out, with the planes on one GPU all the way between.

    host planes ─► pinned ─► [copy in] ─► [compute: one CUDA graph a frame] ─► [copy out] ─► pinned host planes

Each bracket is a CUDA stream of its own, so that with a few frames in flight the copies of some and the computing of
another overlap. The host waits for nothing but a frame's last event, and for the comparison with the frame before
where that pays (`streamsr.device.routing`). On the CPU the same steps run one after the other, which is how their
pictures are tested where there is no GPU.
"""

from __future__ import annotations

import gc
import logging
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from streamsr.consistency import MEASURED_TURNS, ConsistencyCount
from streamsr.device.bands import rows_a_launch
from streamsr.device.enlarger import DeviceEnlarger, batch_shapes
from streamsr.device.routing import DeviceRouter, Routed
from streamsr.device.slot import Slot
from streamsr.device_frame import DevicePlane
from streamsr.errors import GpuMemoryFault, UsageError
from streamsr.frame import Colour, Frame, Plane, PlaneLayout
from streamsr.launch import Choice, LaunchPlan, refuse_unusable
from streamsr.launch_choice import CORES_PX
from streamsr.patches import PatchGrid
from streamsr.routing import RoutingCount
from streamsr.runtimes.device import DeviceGenerator
from streamsr.runtimes.gpu_faults import guarded
from streamsr.runtimes.gpu_generator import new_cuda_stream
from streamsr.runtimes.pinned import PinnedPool
from streamsr.timing import StageClock

log = logging.getLogger(__name__)

PATCH_PX = 32
"""Side of a patch's core where patches are launched."""

FRAMES_IN_FLIGHT = 3
"""One copied in, one computed, one copied out; a fourth would only wait."""

SCARCE_BATCH = 64
"""Patches a launch after one that found no memory."""

PROBED_ROWS = 16
"""Rows that are compared before a whole frame is: a picture that moves differs in one of them."""


@dataclass
class InFlight:
    """A frame under way.

    Attributes:
        frame: as it was given.
        enlarger: what enlarges frames of its kind.
        slot: its buffers; None where it shows the output of the frame before.
        host_out: where its planes arrive, pinned.
        num_measured: samples whose consistency is measured.
        router: what launched it; None where frames of its kind are not routed.
        routed: how it was launched.
    """

    frame: Frame
    enlarger: DeviceEnlarger
    slot: Slot | None = None
    host_out: Tensor | None = None
    num_measured: int = 0
    router: DeviceRouter | None = None
    routed: Routed | None = None


class DeviceUpscaler:
    """Enlarges the frames of a video in their order on one GPU. Owned by one thread.

    Size, layout and colour may change from frame to frame; what depends on them is then made anew. A frame is launched
    whole; where many patches do not change from frame to frame, and launching the others alone is faster by more than
    finding them costs, those others. The surround is not looked for: where it is worth sparing, it does not change.

    Args:
        generator: reads luma (1 channel) or RGB (3 channels); stays the caller's to close.
        launch: ``frame`` launches frames whole, ``patch`` in patches that are all computed; ``auto`` whole, or the
            patches that changed.
        patch_px: side of a patch's core; None for 32, and for the best of `CORES_PX` for patches that changed.
        halo_px: context on each side of a core; None for the generator's radius, which leaves no seam at all.
        skip_surround: has no effect here; it is there so that both upscalers are made alike.
        reuse_unchanged: show the previous output where the input did not change.
        consistency: project what the generator made, so that it gives the input back (`streamsr.consistency`); of
            every fourth frame that is measured.
        frames_in_flight: frames between `submit` and `collect`, at most.
        routes: False where no frame may wait for launches to be made ready once the first has come out: then changed
            patches are not looked for.

    Raises:
        UsageError: an option that cannot be.
        EngineError: a generator that reads neither luma nor RGB.
    """

    def __init__(
        self,
        generator: DeviceGenerator,
        *,
        launch: Choice = "auto",
        patch_px: int | None = None,
        halo_px: int | None = None,
        skip_surround: bool = True,
        reuse_unchanged: bool = True,
        consistency: bool = False,
        frames_in_flight: int = FRAMES_IN_FLIGHT,
        routes: bool = True,
    ) -> None:
        refuse_unusable(generator.channels, launch, patch_px, halo_px)
        if frames_in_flight < 1:
            raise UsageError(f"expected one frame in flight or more, got {frames_in_flight}; allow one at least")
        self.generator, self.device = generator, generator.device
        self.frames_in_flight, self.reuse_unchanged = frames_in_flight, reuse_unchanged
        halo_px = generator.radius_px if halo_px is None else halo_px
        self._asked = LaunchPlan("patch" if launch == "patch" else "frame", patch_px or PATCH_PX, halo_px)
        self._patches = self._asked
        self._projects = consistency and generator.scale > 1
        self._routes = routes and reuse_unchanged and launch == "auto" and generator.runs_batches
        self._cores_px = (patch_px,) if patch_px else CORES_PX
        self._router: DeviceRouter | None = None
        self._batch: int | None = None
        self._copy_in: Any = new_cuda_stream(self.device) if generator.is_gpu else None
        self._copy_out: Any = new_cuda_stream(self.device) if generator.is_gpu else None
        self._made_for: tuple[int, int, PlaneLayout, Colour] | None = None
        self._free: deque[Slot] = deque()
        self._flying: deque[InFlight] = deque()
        self._latest: Frame | None = None
        self._latest_slot: Slot | None = None
        self._latest_out: tuple[Plane, ...] = ()
        self._clocks = {name: StageClock(name) for name in ("submit", "collect")}
        self._counted, self._measured, self._num_launched = RoutingCount(), ConsistencyCount(), 0

    @property
    def clocks(self) -> dict[str, StageClock]:
        """What the host spends on a frame, by name: ``submit`` copies and enqueues, ``collect`` waits."""
        return self._clocks

    @property
    def count(self) -> RoutingCount:
        """Where the patches of all frames that came out went."""
        return self._counted

    @property
    def consistency(self) -> ConsistencyCount:
        """How well the frames so far give their inputs back, as far as measured: nothing without projection."""
        return self._measured

    @property
    def plan(self) -> LaunchPlan | None:
        """How the latest size is launched; None before the first frame."""
        return None if self._made_for is None else self._patches

    @property
    def num_in_flight(self) -> int:
        """Frames submitted and not yet collected."""
        return len(self._flying)

    def prepare(self, width: int, height: int, layout: PlaneLayout) -> None:
        """Have compiled what frames of one size would wait for.

        What launches patches that changed is not: it may never pay, and is taken where it is there already.

        Raises:
            EngineError: what launches the frames cannot be had.
        """
        generator, asked = self.generator, self._asked
        dtype = torch.uint8 if generator.channels == 1 and layout.bit_depth == 8 else torch.float32
        if asked.kind == "patch":
            shapes = self._patch_shapes(width, height, asked.core_px)
        else:
            shapes = {(1, generator.channels, rows_a_launch(generator, width, height), width)}
        with guarded(generator.engine.name):
            for shape in sorted(shapes):
                generator.compile_for(shape, dtype)

    def _patch_shapes(self, width: int, height: int, core_px: int) -> set[tuple[int, ...]]:
        """Return the shapes of the launches of a frame in patches."""
        grid = PatchGrid(width, height, self.generator.scale, self._asked.halo_px, core_px)
        return batch_shapes(grid.num, (self.generator.channels, *reversed(grid.window_size)))

    def upscale(self, frame: Frame) -> Frame:
        """Enlarge one frame and wait for it; nothing else may be in flight.

        Args:
            frame: any layout; its planes must not be written to before the next call has returned.

        Returns:
            The same moment, layout and colour, ``generator.scale`` times as wide and high; never written to again.

        Raises:
            EngineError: the generator failed.
            InputError: a colour matrix that an RGB generator cannot be given.
        """
        if self._flying:
            raise UsageError(f"expected no frame in flight, got {len(self._flying)}; collect them first")
        self.submit(frame)
        return self.collect()

    def upscale_all(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Enlarge frames with several in flight; they come out in their order, some frames late."""
        for frame in frames:
            if len(self._flying) == self.frames_in_flight:
                yield self.collect()
            self.submit(frame)
        while self._flying:
            yield self.collect()

    def submit(self, frame: Frame) -> None:
        """Enqueue a frame; the host only copies its planes to pinned memory.

        Raises:
            UsageError: as many frames are in flight as may be.
            EngineError: the generator failed.
        """
        if len(self._flying) >= self.frames_in_flight:
            raise UsageError(f"expected fewer than {self.frames_in_flight} frames in flight; collect one first")
        wanted = (frame.width, frame.height, frame.layout, frame.colour)
        with self._clocks["submit"].measure(), guarded(self.generator.engine.name):
            if wanted != self._made_for:
                self._make_ready(frame)
                self._made_for = wanted
            same = self.reuse_unchanged and self._latest is not None and holds_the_same(frame, self._latest)
            self._flying.append(InFlight(frame, self._enlarger) if same else self._enqueue(frame))
            self._latest = frame

    def collect(self) -> Frame:
        """Wait for the oldest frame in flight and return it enlarged.

        Its planes lie in pinned memory, which is given out again once nobody holds any of them.

        Raises:
            UsageError: none is in flight.
            EngineError: the GPU failed.
        """
        if not self._flying:
            raise UsageError("expected a frame in flight, got none; submit one first")
        flying = self._flying.popleft()
        with self._clocks["collect"].measure(), guarded(self.generator.engine.name):
            if flying.slot is not None and flying.host_out is not None:
                flying.slot.wait()
                dtype, planes = flying.frame.layout.dtype, flying.enlarger.large.planes(flying.host_out)
                self._latest_out = tuple(plane.numpy().view(dtype) for plane in planes)
                if flying.num_measured:
                    self._measured += flying.slot.count(flying.num_measured)
            self._counted += counted(flying)
            if flying.slot is not None and flying.enlarger is self._enlarger:
                self._free.append(flying.slot)
        return flying.frame.with_planes(self._latest_out)

    def drain(self) -> None:
        """Wait for all frames in flight and drop them, so that nothing writes to buffers that nobody holds.

        Raises:
            GpuFault: the GPU failed.
        """
        if not self._flying:
            return
        flying, self._made_for = list(self._flying), None  # their slots are gone: all are made anew
        self._flying.clear()
        with guarded(self.generator.engine.name):
            for one in flying:
                if one.slot is not None:
                    one.slot.wait()

    def _enqueue(self, frame: Frame) -> InFlight:
        """Copy a frame's planes to pinned memory, enqueue upload, graph and download.

        Slots take turns, so that the frame before is still in its own.
        """
        slot, enlarger, router = self._free.popleft(), self._enlarger, self._router
        measured = self._projects and self._num_launched % MEASURED_TURNS == 0
        self._num_launched += 1
        slot.upload(frame, self._copy_in)
        routed = router.route(slot, self._latest_slot, self._copy_in) if router is not None else None
        if router is None or routed is None:
            slot.compute(lambda: slot.launch_whole(measured=measured))
        else:
            slot.compute(lambda: router.launch(slot, routed, measured=measured))
        host_out = slot.download(self._outputs.take(), self._copy_out, measured=measured)
        self._latest_slot = slot
        return InFlight(frame, enlarger, slot, host_out, enlarger.num_measured if measured else 0, router, routed)

    def _make_ready(self, frame: Frame) -> None:
        """Make everything for a size; where there is too little memory, once more with few patches a launch.

        The second attempt comes behind the handler, whose exception holds what the first one had allocated.
        """
        self._batch, self._patches = None, self._asked
        try:
            with guarded(self.generator.engine.name):
                self._rebuild(frame)
            return
        except GpuMemoryFault:
            pass
        self._let_go()
        gc.collect()
        if self.generator.is_gpu:
            torch.cuda.empty_cache()
        self._batch, self._patches = SCARCE_BATCH, replace(self._asked, kind="patch")
        self._rebuild(frame)

    def _let_go(self) -> None:
        """Drop what depends on size, layout or colour; frames in flight keep what they have."""
        self._free, self._router, self._latest_slot = deque(), None, None
        self._latest, self._made_for = None, None

    def _rebuild(self, frame: Frame) -> None:
        """Make everything that depends on size, layout or colour; frames in flight keep what they have."""
        if self.generator.is_gpu:  # what frames in flight read is dropped below
            for stream in (self._copy_in, self.generator.cuda_stream, self._copy_out):
                stream.synchronize()
        self._let_go()
        enlarger = DeviceEnlarger(self.generator, frame, self._patches, projects=self._projects, batch=self._batch)
        self._enlarger = enlarger
        if self._routes and self._patches.kind == "frame":
            halo_px = self._patches.halo_px
            self._router = DeviceRouter(self.generator, enlarger, halo_px=halo_px, cores_px=self._cores_px)
        self._outputs = PinnedPool(enlarger.large.num_samples, enlarger.large.dtype, pins=self.generator.is_gpu)
        num_slots = max(self.frames_in_flight, 2 if self._router else 1)
        self._free.extend(Slot(self.generator, enlarger, measures=self._projects) for _ in range(num_slots))


def counted(flying: InFlight) -> RoutingCount:
    """Return where the patches of a frame that has arrived went."""
    total = flying.enlarger.grid.num
    if flying.slot is None:
        return RoutingCount(total, unchanged=total)
    if flying.router is not None and flying.routed is not None:
        return flying.router.note(flying.slot, flying.routed)
    return RoutingCount(total, generated=total, launched=total)


def holds_the_same(frame: Frame, before: Frame) -> bool:
    """Return whether two frames of one size hold the same samples; a few rows are compared first.

    Planes on a device are not downloaded for that: they are the same where they are the same objects.
    """
    pairs = list(zip(frame.planes, before.planes, strict=True))
    if any(isinstance(plane, DevicePlane) for pair in pairs for plane in pair):
        return all(plane is other for plane, other in pairs)
    step = max(frame.height // PROBED_ROWS, 1)
    return np.array_equal(pairs[0][0][::step], pairs[0][1][::step]) and all(
        np.array_equal(plane, other) for plane, other in pairs
    )
