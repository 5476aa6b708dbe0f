"""DealingUpscaler: the frames of one video dealt out to several GPUs, and given back in their order.

    frames ──► 0 2 4 ──► GPU 0 ──► 0 1 2 3 4 ...
          └──► 1 3 5 ──► GPU 1 ──┘

Dealing a frame out copies it to pinned memory and enqueues the rest, some tenths of a millisecond at 1080p, so one
thread keeps all GPUs busy. Where cards differ, the slowest sets the pace.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from streamsr.consistency import ConsistencyCount
from streamsr.errors import GpuFault, UsageError
from streamsr.frame import Frame, PlaneLayout
from streamsr.launch import LaunchPlan
from streamsr.routing import RoutingCount
from streamsr.timing import StageClock

if TYPE_CHECKING:
    from streamsr.device.upscaler import DeviceUpscaler
    from streamsr.runtimes.device import DeviceGenerator

log = logging.getLogger(__name__)


class DealingUpscaler:
    """Enlarges the frames of a video in their order on one GPU or several, each of which takes its turn.

    A GPU that fails is left out from there on, and all frames in flight are done again, in their order, by those that
    are left: by them too, so that what a GPU was given first always comes out first. Owned by one thread; counts,
    clocks, description and notices may be read by others.

    Args:
        upscalers: one a GPU, alike, and with nothing in flight; the first frame goes to the first.

    Attributes:
        frames_in_flight: frames between `submit` and `collect`, at most: of all GPUs together.
        clocks: what the host spends on a frame, by name: ``submit`` copies and enqueues, ``collect`` waits.

    Raises:
        UsageError: there are no upscalers.
    """

    def __init__(self, upscalers: Sequence[DeviceUpscaler]) -> None:
        if not upscalers:
            raise UsageError("expected a GPU or more to deal frames out to, got none; make an upscaler for each")
        self.frames_in_flight = sum(upscaler.frames_in_flight for upscaler in upscalers)
        self.clocks = {name: StageClock(name) for name in ("submit", "collect")}
        self._upscalers = tuple(upscalers)
        self._turns = deque(upscalers)
        self._waiting: deque[Frame] = deque()
        self._dealt: deque[DeviceUpscaler] = deque()  # of the first of those that wait, who has them
        self._latest = upscalers[0]
        self._lost: list[DeviceUpscaler] = []
        self._told: list[str] = []

    @property
    def generator(self) -> DeviceGenerator:
        """What enlarges on the first GPU; on the others runs the same, in the same precision."""
        return self._upscalers[0].generator

    @property
    def device(self) -> str | None:
        """Torch's name of the one GPU that takes all frames; None of several."""
        return str(self._upscalers[0].device) if len(self._upscalers) == 1 else None

    @property
    def description(self) -> str:
        """What runs on which GPU, and which were lost since, in one line."""
        ways: dict[str, list[DeviceUpscaler]] = {}
        for upscaler in self._upscalers:
            ways.setdefault(upscaler.generator.description, []).append(upscaler)
        if len(self._upscalers) == 1:
            return next(iter(ways))
        used = "; ".join(f"{self._named(having)}: {way}" for way, having in ways.items())
        left_out = [upscaler for upscaler in tuple(self._lost) if len(self._lost) < len(self._upscalers)]
        return f"{used}, then without {self._named(left_out)}" if left_out else used

    @property
    def notices(self) -> list[str]:
        """What the user should know, one line each: of every generator, and of GPUs that were lost."""
        made = [notice for upscaler in self._upscalers for notice in upscaler.generator.notices]
        return [*made, *self._told]

    @property
    def count(self) -> RoutingCount:
        """Where the patches of all frames that came out went."""
        return sum((upscaler.count for upscaler in self._upscalers), RoutingCount())

    @property
    def consistency(self) -> ConsistencyCount:
        """How well the frames so far give their inputs back, as far as that was measured."""
        return sum((upscaler.consistency for upscaler in self._upscalers), ConsistencyCount())

    @property
    def plan(self) -> LaunchPlan | None:
        """How the latest frame was launched; None before the first."""
        return self._latest.plan

    @property
    def num_in_flight(self) -> int:
        """Frames submitted and not yet collected."""
        return len(self._waiting)

    def prepare(self, width: int, height: int, layout: PlaneLayout) -> None:
        """Have compiled what frames of one size would wait for; a GPU that fails is found out at its first frame.

        Raises:
            EngineError: it cannot be had.
        """
        for upscaler in self._upscalers:
            try:
                upscaler.prepare(width, height, layout)
            except GpuFault as fault:
                log.warning("%s: %s", self._named([upscaler]), fault)

    def submit(self, frame: Frame) -> None:
        """Take the next frame and give it to the GPU whose turn it is.

        Raises:
            UsageError: as many frames are in flight as may be.
            GpuFault: the last GPU failed; nothing more can be done here.
            EngineError: the generator failed, and not because of the GPU alone.
        """
        if len(self._waiting) >= self.frames_in_flight:
            raise UsageError(f"expected fewer than {self.frames_in_flight} frames in flight; collect one first")
        self._waiting.append(frame)
        try:
            with self.clocks["submit"].measure():
                self._deal()
        except BaseException:
            self._waiting.pop()
            raise

    def collect(self) -> Frame:
        """Wait for the oldest frame in flight and return it enlarged.

        Raises:
            UsageError: none is in flight.
            GpuFault: the last GPU failed; nothing more can be done here.
            EngineError: the generator failed, and not because of the GPU alone.
        """
        if not self._waiting:
            raise UsageError("expected a frame in flight, got none; submit one first")
        with self.clocks["collect"].measure():
            made = self._oldest()
        self._waiting.popleft()
        self._dealt.popleft()
        return made

    def drain(self) -> None:
        """Wait for all frames in flight and drop them; a GPU that fails meanwhile is found out at the next frame."""
        self._waiting.clear()
        self._dealt.clear()
        for upscaler in self._upscalers:
            with suppress(GpuFault):
                upscaler.drain()

    def _oldest(self) -> Frame:
        """Return the oldest frame enlarged, by whichever GPU can."""
        while True:
            self._deal()
            try:
                return self._dealt[0].collect()
            except GpuFault as fault:
                self._lose(self._dealt[0], fault)

    def _deal(self) -> None:
        """Deal out what waits, in its order, as far as the GPU whose turn it is has room."""
        while len(self._dealt) < len(self._waiting):
            upscaler = self._turns[0]
            if upscaler.num_in_flight >= upscaler.frames_in_flight:
                return
            try:
                upscaler.submit(self._waiting[len(self._dealt)])
            except GpuFault as fault:
                self._lose(upscaler, fault)
                continue
            self._dealt.append(upscaler)
            self._latest = upscaler
            self._turns.rotate(-1)

    def _lose(self, upscaler: DeviceUpscaler, fault: GpuFault) -> None:
        """Leave a GPU out; all that is in flight waits to be dealt out anew.

        Raises:
            GpuFault: it was the last one.
        """
        self._turns.remove(upscaler)
        self._lost.append(upscaler)
        self._dealt.clear()
        if len(self._upscalers) == 1:
            raise fault
        line = f"{self._named([upscaler])}: {fault}"
        if not self._turns:
            raise GpuFault(line) from fault
        left = sorted(self._turns, key=self._upscalers.index)
        self._told.append(f"{line}; went on with {self._named(left)}")
        log.warning("%s", self._told[-1])
        for other in left:
            with suppress(GpuFault):  # it fails at its next frame as well
                other.drain()

    def _named(self, upscalers: Sequence[DeviceUpscaler]) -> str:
        """Return the numbers of some GPUs in words; on the CPU, their places."""
        numbers = []
        for upscaler in upscalers:
            index = upscaler.generator.device.index
            numbers.append(str(self._upscalers.index(upscaler) if index is None else index))
        *first, last = numbers
        return f"GPUs {', '.join(first)} and {last}" if first else f"GPU {last}"
