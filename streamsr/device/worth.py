"""RoutingWorth: whether comparing patches with the frame before saves a GPU more than it costs, found by trying.

    watch ──► route ──► rest ──► watch ──► ...
       └─────────────────▲

While it *watches*, frames are launched whole and compared on the side, which nobody waits for: that tells what could be
saved. Where that is enough, it *routes*: the host waits for each comparison, and only the patches that changed are
launched. What that really saves is measured against what it costs, and where it does not pay, frames are launched whole
and not even compared for a long *rest*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

State = Literal["watch", "route", "rest"]

WATCHED = 32
"""Frames that are watched: a second of video, of which compression makes some all new."""

JUDGED = 64
"""Frames between two looks at whether routing pays."""

RESTED = 1000
"""Frames of a rest; watching a thirtieth of them is what never routing costs at most."""

WAIT_MS = 0.1
"""What a comparison is taken to cost before it was measured: a launch, a copy of a few kB and the host's waking."""

MOST_PART = 0.8
"""The part of a frame's arithmetic above which it is launched whole: cutting and stitching cost too."""


class RoutingWorth:
    """Owned by one thread; told how every frame went, in their order.

    Args:
        cores_px: sides of patches to choose from.

    Attributes:
        state: how the next frame is launched.
        core_px: side of the patches to launch, while it routes.
    """

    def __init__(self, cores_px: Sequence[int]) -> None:
        self.state: State = "watch"
        self.core_px = cores_px[0]
        self._cores_px = tuple(cores_px)
        self._num = 0
        self._spared = dict.fromkeys(self._cores_px, 0.0)
        self._frame_ms = 0.0
        self._saved_ms = self._cost_ms = 0.0

    def watched(self, parts: Mapping[int, float], frame_ms: float) -> None:
        """Take a frame that was launched whole and compared on the side.

        Args:
            parts: by side of the patches, the part of the frame's arithmetic that those that changed would take.
            frame_ms: what the whole frame took the GPU.
        """
        if self.state != "watch":
            return
        self._num += 1
        self._frame_ms += (frame_ms - self._frame_ms) / self._num
        for core_px, part in parts.items():
            self._spared[core_px] += 1 - part if part <= MOST_PART else 0.0
        if self._num == WATCHED:
            self.core_px = max(self._cores_px, key=lambda core_px: self._spared[core_px])
            saved_ms = self._spared[self.core_px] / WATCHED * self._frame_ms
            self._enter("route" if saved_ms > WAIT_MS else "rest")

    def routed(self, compute_ms: float, cost_ms: float) -> None:
        """Take a frame whose patches were routed.

        Args:
            compute_ms: what the frame took the GPU, launched as it was.
            cost_ms: what the host waited for the comparison.
        """
        if self.state != "route":
            return
        self._num += 1
        self._saved_ms += self._frame_ms - compute_ms
        self._cost_ms += cost_ms
        if self._num == JUDGED:
            self._enter("route" if self._saved_ms > self._cost_ms else "rest")

    def rested(self) -> None:
        """Take a frame that was launched whole and not compared."""
        if self.state != "rest":
            return
        self._num += 1
        if self._num == RESTED:
            self._enter("watch")

    def _enter(self, state: State) -> None:
        """Go on in a state, with nothing counted yet."""
        self.state, self._num = state, 0
        self._saved_ms = self._cost_ms = 0.0
        if state == "watch":
            self._spared = dict.fromkeys(self._cores_px, 0.0)
            self._frame_ms = 0.0
