"""DeviceRouter: launches only the patches of a frame that changed since the one before, while that pays.

    uploaded planes ─► compare ─► mask ─► host: which patches, in a batch of which size
                                            │
    picture ◄─ prepare ◄────────────────────┤
       └─► generate: the batch, the whole frame, or nothing ─► made, kept from frame to frame ─► finish

The comparison runs on the CUDA stream of uploads, so that the host, which must know it to choose a launch, waits for
nothing that is computed. One CUDA graph serves every choice of as many patches; each is captured when it is first of
use, which stops the line for some frames' time. `streamsr.device.worth` decides
whether any of this is done.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from streamsr.device.enlarger import DeviceEnlarger, batch_shapes
from streamsr.device.planes import Windows, tiling_of
from streamsr.device.slot import Slot
from streamsr.device.worth import MOST_PART, RoutingWorth, State
from streamsr.errors import EngineError, GpuFault, GpuMemoryFault
from streamsr.launch import tiles_of
from streamsr.patches import PatchGrid
from streamsr.routing import RoutingCount
from streamsr.runtimes.device import DeviceGenerator
from streamsr.runtimes.gpu_faults import guarded
from streamsr.runtimes.patch_ops import compare_windows
from streamsr.surround import Mask

log = logging.getLogger(__name__)

CHROMA_MARGIN = 3
"""Samples of chroma round a window that its RGB depends on: two of the four that interpolation reads, and siting."""

BATCH_PARTS = (1, 2, 4, 16)
"""What the largest batch is divided by to have the others: few, since each is a graph with buffers of its own."""


@dataclass
class Routed:
    """How one frame was launched.

    Attributes:
        state: what was known of whether routing pays.
        changed: (rows, columns) of the grid; None where nothing was compared.
        num_launched: patches of the grid that were computed; None for all.
        cost_ms: what the host waited for the comparison.
        made_ready: whether a launch had to be made ready for it, so that its time says nothing.
    """

    state: State
    changed: Mask | None = None
    num_launched: int | None = None
    cost_ms: float = 0.0
    made_ready: bool = False


class DeviceRouter:
    """Routes the frames of one size, layout and colour. Owned by one thread.

    Args:
        generator: whose CUDA stream computes.
        enlarger: of these frames, launched whole.
        halo_px: context on each side of a patch.
        cores_px: sides of launched patches to choose from.

    Attributes:
        worth: whether it pays.
        grid: of the patches that are compared: those of `DeviceEnlarger.grid`.
    """

    def __init__(
        self, generator: DeviceGenerator, enlarger: DeviceEnlarger, *, halo_px: int, cores_px: Sequence[int]
    ) -> None:
        self.generator, self.enlarger, self.grid = generator, enlarger, enlarger.grid
        self.worth = RoutingWorth(cores_px)
        self._tiling = tiling_of(self.grid)
        small, scale = enlarger.small, generator.scale
        self._tilings = {side: PatchGrid(small.width, small.height, scale, halo_px, side) for side in cores_px}
        self._parts: Parts | None = None
        self._gave_up = False

    def route(self, slot: Slot, before: Slot | None, copy_in: Any) -> Routed:
        """Compare an uploaded frame with the one before, where that is of use; wait for it only while it routes.

        Args:
            slot: holds the frame; its upload is enqueued on ``copy_in``.
            before: holds the frame before; None where nothing does.
            copy_in: the CUDA stream of uploads; None on the CPU.
        """
        state: State = "rest" if self._gave_up else self.worth.state
        if state == "rest" or before is None:
            return Routed(state)
        started = time.perf_counter_ns()
        slot.compare(lambda mask: self._compare(slot.device_in, before.device_in, mask), copy_in)
        if state == "watch":
            return Routed(state)
        changed = self._changed(slot)
        return Routed(state, changed, cost_ms=(time.perf_counter_ns() - started) / 1e6)

    def launch(self, slot: Slot, routed: Routed, *, measured: bool) -> None:
        """Enqueue what lies between a frame's planes and the enlarged ones, on the present CUDA stream."""
        if routed.state == "route" and not self._gave_up and self._could_launch_parts(slot, routed, measured=measured):
            return
        if self._parts is not None:
            self._parts.forget()
        slot.launch_whole(measured=measured)

    def note(self, slot: Slot, routed: Routed) -> RoutingCount:
        """Take a frame that has arrived, learn from it, and return where its patches went."""
        total, compute_ms = self.grid.num, slot.compute_ms()
        if routed.state == "watch" and slot.was_compared:
            changed = self._changed(slot)
            self.worth.watched({side: self._part(changed, side) for side in self._tilings}, compute_ms)
        elif routed.state == "route" and not routed.made_ready:
            self.worth.routed(compute_ms, routed.cost_ms)
        elif routed.state == "rest":
            self.worth.rested()
        generated = total if routed.changed is None else int(np.count_nonzero(routed.changed))
        launched = total if routed.num_launched is None else routed.num_launched
        return RoutingCount(total, unchanged=total - generated, generated=generated, launched=launched)

    def _compare(self, now: Tensor, before: Tensor, mask: Tensor) -> None:
        """Enqueue the comparison of what the generator reads: luma, or all planes."""
        small, tiling = self.enlarger.small, self._tiling
        compare_windows(small.luma(now), small.luma(before), mask, tiling)
        shift = small.layout.chroma_shift
        if self.generator.channels == 1 or shift is None:
            return
        for plane, other in zip(small.chroma(now), small.chroma(before), strict=True):
            compare_windows(plane, other, mask, tiling, shift=shift, margin=CHROMA_MARGIN, joins=True)

    def _changed(self, slot: Slot) -> Mask:
        """Return which patches changed, as (rows, columns)."""
        found: Mask = slot.compared().astype(np.bool_).reshape(self.grid.rows, self.grid.columns)
        return found

    def _part(self, changed: Mask, core_px: int) -> float:
        """Return the part of a frame's arithmetic that the tiles of one size take that hold what changed."""
        tiles = self._tilings[core_px]
        wide, tall = tiles.window_size
        num = int(np.count_nonzero(self._tiles_of(changed, core_px)))
        return num * wide * tall / (tiles.width * tiles.height)

    def _tiles_of(self, changed: Mask, core_px: int) -> Mask:
        """Return which tiles of one size hold what changed."""
        tiles = self._tilings[core_px]
        return tiles_of(changed, self.grid, tiles) if core_px >= self.grid.core_px else changed

    def _could_launch_parts(self, slot: Slot, routed: Routed, *, measured: bool) -> bool:
        """Enqueue a frame in parts, or give up routing where it cannot be: whole frames need nothing more.

        Too little memory for more buffers, or a plan for patches that cannot be built, is no reason to end a job.
        """
        try:
            with guarded(self.generator.engine.name):
                self._launch_parts(slot, routed, measured=measured)
            return True
        except EngineError as cause:
            if isinstance(cause, GpuFault) and not isinstance(cause, GpuMemoryFault):
                raise
            why = str(cause)
        # Behind the handlers, whose exceptions hold what was allocated for the attempt.
        told = f"whole frames are launched from here on: {why}"
        log.warning("%s", told)
        self.generator.notices.append(told)
        self._gave_up, self._parts, routed.num_launched = True, None, None
        gc.collect()
        if self.generator.is_gpu:
            torch.cuda.empty_cache()
        return False

    def _launch_parts(self, slot: Slot, routed: Routed, *, measured: bool) -> None:
        """Enqueue a frame in three steps, the middle one for the patches that changed."""
        assert routed.changed is not None
        if self._parts is None or self._parts.windows.grid.core_px != self.worth.core_px:
            self._parts = Parts(self.generator, self.enlarger, self._tilings[self.worth.core_px])
        tiles = self._tiles_of(routed.changed, self.worth.core_px)
        factor, ready = max(self.worth.core_px // self.grid.core_px, 1), self._parts.num_ready
        if self._parts.launch(slot, np.flatnonzero(tiles), measured=measured):
            covered = np.repeat(np.repeat(tiles, factor, axis=0), factor, axis=1)
            routed.num_launched = int(np.count_nonzero(covered[: self.grid.rows, : self.grid.columns]))
        routed.made_ready = self._parts.num_ready > ready


def batch_sizes(tiles: PatchGrid) -> list[int]:
    """Return how many patches a batch has, the smallest first."""
    wide, tall = tiles.window_size
    most = int(MOST_PART * tiles.width * tiles.height / (wide * tall))
    return sorted({most // part for part in BATCH_PARTS} - {0})


class Parts:
    """A frame's launch in three steps, with what the generator made kept from frame to frame.

    Args:
        generator: whose CUDA stream computes.
        enlarger: of the frames.
        tiles: the patches that are launched.

    Raises:
        EngineError: the generator would have to compile first what launches patches, while frames wait.
    """

    def __init__(self, generator: DeviceGenerator, enlarger: DeviceEnlarger, tiles: PatchGrid) -> None:
        self.generator, self.enlarger = generator, enlarger
        self.windows = Windows(tiles, generator.device)
        self.sizes = batch_sizes(tiles)
        self._refuse_waiting()
        self._made = enlarger.room_for_made()
        self._is_whole = False
        small = enlarger.small
        self._picture = torch.zeros(
            (generator.channels, small.height, small.width), dtype=enlarger.dtype, device=generator.device
        )
        self._indices = torch.zeros(max(self.sizes, default=1), dtype=torch.int32, device=generator.device)
        if generator.is_gpu:
            torch.cuda.current_stream(generator.device).synchronize()
        self._graphs: dict[object, Callable[[], None]] = {}

    def _refuse_waiting(self) -> None:
        """Refuse to launch patches where a generator has to compile first: frames would wait for that.

        Raises:
            EngineError: it has.
        """
        generator, (wide, tall) = self.generator, self.windows.grid.window_size
        for size in self.sizes:
            for shape in batch_shapes(size, (generator.channels, tall, wide), self.enlarger.batch):
                if not generator.is_ready_for(shape, self.enlarger.dtype):
                    raise EngineError(
                        f"{generator.engine.name}: expected a plan for patches to be there, got none; "
                        "streamsr engine build makes it ahead"
                    )

    @property
    def num_ready(self) -> int:
        """Steps that were made ready so far."""
        return len(self._graphs)

    def forget(self) -> None:
        """Take note that a frame was launched in another way: what was made of the one before is not kept here."""
        self._is_whole = False

    def launch(self, slot: Slot, indices: Any, *, measured: bool) -> bool:
        """Enqueue a frame.

        Args:
            slot: holds it.
            indices: numbers of the tiles that hold what changed.
            measured: whether its consistency is measured.

        Returns:
            False where the frame was launched whole.
        """
        enlarger, picture, made = self.enlarger, self._picture, self._made
        source, out, figures = slot.device_in, slot.device_out, slot.figures if measured else None
        self._run(("prepare", id(slot)), lambda: picture.copy_(enlarger.picture_of(source)))
        size = next((size for size in self.sizes if size >= len(indices)), None)
        in_parts = self._is_whole and (size is not None or len(indices) == 0)
        self._is_whole = False  # until the step below is enqueued
        if not in_parts:
            self._run("whole", lambda: enlarger.generate(picture, made))
        elif len(indices):
            assert size is not None
            chosen = self._indices[:size]
            chosen.copy_(slot.fill_indices(indices, size), non_blocking=True)
            self._run(size, lambda: enlarger.generate_patches(self.windows, picture, made, chosen))
        self._is_whole = True
        self._run(("finish", id(slot), measured), lambda: enlarger.finish(source, picture, made, out, figures))
        return in_parts

    def _run(self, key: object, step: Callable[[], object]) -> None:
        """Enqueue a step: the graph of it, captured when it is first needed."""

        def launch() -> None:
            with torch.no_grad():
                step()

        if key not in self._graphs:
            self._graphs[key] = self.generator.capture(launch)
        self._graphs[key]()
