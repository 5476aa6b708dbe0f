"""FrameUpscaler: a frame in, the same moment enlarged out, on one device.

    route ──► cut ──► generate ──► stitch ──► project    luma (or RGB), the patches that need it
    resample ────────────────────────────────────►       chroma, through one fixed filter

Planes that come out are never written to again, so they stay valid for as long as anyone holds them; where nothing
changed, a frame may share them with the one before.
"""

from __future__ import annotations

import numpy as np

from streamsr.colour import RgbBridge
from streamsr.consistency import ConsistencyCount
from streamsr.enlarger import PictureEnlarger, Settings, StageClocks
from streamsr.frame import Colour, Frame, Plane, PlaneLayout
from streamsr.launch import Choice, LaunchPlan, refuse_unusable
from streamsr.resample import PlaneEnlarger, chroma_enlarger
from streamsr.routing import RoutingCount
from streamsr.runtimes.base import Generator
from streamsr.surround import black_level
from streamsr.timing import StageClock


class FrameUpscaler:
    """Enlarges the frames of a video in their order. Owned by one thread.

    Size, layout and colour may change from frame to frame; the geometry is then built anew, and nothing is reused.

    Args:
        generator: reads luma (1 channel) or RGB (3 channels); stays the caller's to close.
        launch: ``auto`` chooses for each frame (`streamsr.launch_choice`), ``frame`` and ``patch`` fix the launch.
        patch_px: side of a patch's core; None for 32 in routing and the fastest in launches.
        halo_px: context on each side of a core; None for the generator's radius, which leaves no seam at all.
        skip_surround: fill the black surround without the generator.
        reuse_unchanged: show the previous output where the input did not change.
        consistency: project what the generator made, so that it gives the input back (`streamsr.consistency`): luma,
            or RGB before it becomes planes again.
        trial_first: try launches when the first frame comes, so that no later frame waits for that, rather than once
            it pays.

    With a halo below the generator's radius the launch may show at seams, in reused patches too.

    Raises:
        UsageError: an option that cannot be.
        EngineError: a generator that reads neither luma nor RGB.
    """

    def __init__(
        self,
        generator: Generator,
        *,
        launch: Choice = "auto",
        patch_px: int | None = None,
        halo_px: int | None = None,
        skip_surround: bool = True,
        reuse_unchanged: bool = True,
        consistency: bool = False,
        trial_first: bool = False,
    ) -> None:
        refuse_unusable(generator.channels, launch, patch_px, halo_px)
        self.generator = generator
        self.settings = Settings(launch, patch_px, halo_px, skip_surround, reuse_unchanged, consistency, trial_first)
        self.notices: tuple[str, ...] = ()
        self._clocks = StageClocks()
        self._made_for: tuple[int, int, PlaneLayout, Colour] | None = None
        self._enlarger: PictureEnlarger | None = None
        self._bridge: RgbBridge | None = None
        self._chroma: PlaneEnlarger | None = None
        self._counted, self._measured = RoutingCount(), ConsistencyCount()
        self._latest: Frame | None = None
        self._latest_out: tuple[Plane, ...] = ()

    @property
    def description(self) -> str:
        """What runs the generator, in one line."""
        return self.generator.description

    @property
    def clocks(self) -> dict[str, StageClock]:
        """One clock a stage, by name: route, cut, generate, stitch, project, chroma; all have one duration a frame."""
        return self._clocks.clocks

    @property
    def count(self) -> RoutingCount:
        """Where the patches of all frames so far went."""
        return self._counted if self._enlarger is None else self._counted + self._enlarger.count

    @property
    def consistency(self) -> ConsistencyCount:
        """How well the frames so far give their inputs back, as far as that was measured: nothing without projection.

        Of RGB generators the RGB is measured, before it becomes planes, in levels of luma.
        """
        measured = self._enlarger.consistency if self._enlarger else None
        return self._measured + measured if measured else self._measured

    @property
    def plan(self) -> LaunchPlan | None:
        """How the latest size is launched; None before the first frame."""
        return None if self._enlarger is None else self._enlarger.plan

    def upscale(self, frame: Frame) -> Frame:
        """Enlarge the next frame.

        Args:
            frame: any layout; its planes must not be written to before the next call has returned.

        Returns:
            The same moment, layout and colour, ``generator.scale`` times as wide and high; never written to again.

        Raises:
            EngineError: the generator failed.
            InputError: a colour matrix that an RGB generator cannot be given.
        """
        wanted = (frame.width, frame.height, frame.layout, frame.colour)
        if wanted != self._made_for:
            self._rebuild(frame)
            self._made_for = wanted
        planes = self._through_luma(frame) if self._bridge is None else self._through_rgb(self._bridge, frame)
        self._latest, self._latest_out = frame, planes
        self._clocks.end_frame()
        return frame.with_planes(planes)

    def _rebuild(self, frame: Frame) -> None:
        """Make everything that depends on size, layout or colour."""
        self._measured = self.consistency
        self._counted, self._enlarger, self._bridge, self._chroma = self.count, None, None, None
        self._made_for, self._latest = None, None
        layout, size, scale = frame.layout, (frame.width, frame.height), self.generator.scale
        black: float = black_level(full_range=frame.colour.full_range, bit_depth=layout.bit_depth)
        peak, level, dtype = float(layout.peak), 1.0, layout.dtype
        if self.generator.channels == 3:
            self._bridge = RgbBridge(layout, frame.colour, *size, scale)
            offset, gain = self._bridge.coding.luma
            # Half a level more, so that rounding in RGB leaves black samples black.
            black, peak, level = (black + 0.5 - offset) / gain, 1.0, 1.0 / gain
        elif layout.chroma_shift is not None:
            self._chroma = chroma_enlarger(layout, *size, scale, siting=frame.colour.siting)
        self._enlarger = PictureEnlarger(
            self.generator,
            *size,
            settings=self.settings,
            clocks=self._clocks,
            peak=peak,
            black=black,
            dtype=np.float32 if self._bridge else dtype,
            level=level,
        )

    def _through_luma(self, frame: Frame) -> tuple[Plane, ...]:
        """Luma through the generator, chroma through the fixed filter."""
        assert self._enlarger is not None
        luma = self._enlarger.enlarge(frame.planes[0][None])[0]
        with self._clocks.measure("chroma"):
            chroma = [self._enlarge_chroma(frame, place) for place in range(1, len(frame.planes))]
        return (luma, *chroma)

    def _enlarge_chroma(self, frame: Frame, place: int) -> Plane:
        """Enlarge one chroma plane, or show the previous one when it did not change."""
        assert self._chroma is not None
        plane = frame.planes[place]
        if self.settings.reuse_unchanged and self._latest is not None:
            before = self._latest.planes[place]
            if np.array_equal(plane, before):
                return self._latest_out[place]
        return self._chroma.enlarge(plane)

    def _through_rgb(self, bridge: RgbBridge, frame: Frame) -> tuple[Plane, ...]:
        """All planes through the generator, as RGB."""
        assert self._enlarger is not None
        with self._clocks.measure("chroma"):
            rgb = bridge.rgb_of(frame.planes)
        enlarged = self._enlarger.enlarge(rgb)
        with self._clocks.measure("chroma"):
            return bridge.planes_of(enlarged, frame.planes)
