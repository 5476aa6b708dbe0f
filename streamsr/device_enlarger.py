"""DeviceEnlarger: what lies between a frame's planes on a device and the enlarged ones, enqueued without waiting."""

from __future__ import annotations

import torch
from torch import Tensor

from streamsr.consistency import RGB_LIMITS
from streamsr.device_planes import BridgeOnDevice, ChromaOnDevice, PlaneBuffer, Windows
from streamsr.device_projection import ProjectionOnDevice
from streamsr.frame import Frame
from streamsr.launch import LaunchPlan
from streamsr.patches import PatchGrid
from streamsr.runtimes.device import DeviceGenerator
from streamsr.runtimes.plane_ops import real_samples, write_levels

MAX_BATCH_PX = 1 << 20
"""Input pixels a launch of patches: the SRGAN at x4 holds 256 channels of four times as many, 2 GiB in half precision,
and libraries count samples in 31 bits."""


class DeviceEnlarger:
    """Enlarges frames of one size, layout and colour on a device.

    Args:
        generator: reads luma (1 channel) or RGB (3 channels).
        frame: one of them.
        plan: whole frames, or patches of some size.
        projects: whether the result is made to give its input back.
        batch: patches a launch; None for as many as `MAX_BATCH_PX` allows.

    Attributes:
        small: how the planes of a frame lie.
        large: how those of the enlarged one lie.
        grid: the patches of a frame.
        num_measured: samples that a measurement compares; 0 where nothing is projected.

    Raises:
        InputError: a colour matrix that an RGB generator cannot be given.
    """

    def __init__(
        self, generator: DeviceGenerator, frame: Frame, plan: LaunchPlan, *, projects: bool, batch: int | None = None
    ) -> None:
        self.generator, self.batch = generator, batch
        scale, device = generator.scale, generator.device
        self.small = PlaneBuffer(frame.layout, frame.width, frame.height)
        self.large = self.small.enlarged(scale)
        self.grid = PatchGrid(frame.width, frame.height, scale, plan.halo_px, plan.core_px)
        self._bridge: BridgeOnDevice | None = None
        self._chroma: ChromaOnDevice | None = None
        if generator.channels == 3:
            self._bridge = BridgeOnDevice(self.small, frame.colour, scale, device)
        elif frame.layout.chroma_shift is not None:
            self._chroma = ChromaOnDevice(self.small, frame.colour, scale, device)
        self._projection = self._new_projection() if projects else None
        self.num_measured = generator.channels * frame.width * frame.height if projects else 0
        self._windows = Windows(self.grid, device) if plan.kind == "patch" else None

    def enlarge(self, flat: Tensor, flat_out: Tensor, figures: Tensor | None = None) -> None:
        """Enqueue a frame on the present CUDA stream; may be captured in a graph.

        Args:
            flat: planes as ``small`` says, on the device.
            flat_out: planes as ``large`` says, written.
            figures: (4,) float64, written where frames are projected: see `ProjectionOnDevice.measure`; None measures
                nothing.
        """
        enlarge = self._enlarge_rgb if self._bridge is not None else self._enlarge_luma
        with torch.no_grad():
            enlarge(flat, flat_out, figures)

    def _enlarge_luma(self, flat: Tensor, flat_out: Tensor, figures: Tensor | None) -> None:
        """Enqueue a frame: luma through the generator, chroma through the fixed filter."""
        small, large = self.small, self.large
        luma, target = small.luma(flat)[None], large.luma(flat_out)[None]
        if self._chroma is not None:
            self._chroma.enlarge(small.chroma(flat), large.chroma(flat_out))
        stitched = target if self._projection is None else torch.empty_like(target)
        if small.dtype == torch.uint8:
            self._generate(luma[None], stitched[None])
        else:
            peak = small.layout.peak
            made = torch.empty((1, *target.shape), dtype=torch.float32, device=flat.device)
            self._generate(real_samples(luma[None]).mul_(1.0 / peak), made)
            write_levels(made[0].mul(peak), stitched, peak=peak)
        if self._projection is not None:
            self._projection.project(luma, stitched, target)
            if figures is not None:
                self._projection.measure(luma, stitched, target, figures)

    def _enlarge_rgb(self, flat: Tensor, flat_out: Tensor, figures: Tensor | None) -> None:
        """Enqueue a frame: all planes through the generator, as RGB."""
        assert self._bridge is not None
        rgb = self._bridge.rgb_of(flat)
        scale = self.generator.scale
        made = torch.empty((1, 3, scale * rgb.shape[2], scale * rgb.shape[3]), dtype=rgb.dtype, device=flat.device)
        self._generate(rgb, made)
        if self._projection is not None:
            stitched, made = made, torch.empty_like(made)
            self._projection.project(rgb[0], stitched[0], made[0])
            if figures is not None:
                self._projection.measure(rgb[0], stitched[0], made[0], figures)
        self._bridge.planes_of(made, flat, flat_out)

    def _new_projection(self) -> ProjectionOnDevice:
        """Make what projects frames of this size: levels of luma, or RGB in [0, 1]."""
        peak, level = float(self.small.layout.peak), 1.0
        if self._bridge is not None:
            peak, level = 1.0, 1.0 / self._bridge.coding.luma[1]
        return ProjectionOnDevice(
            self.generator.scale,
            self.small.width,
            self.small.height,
            channels=self.generator.channels,
            peak=peak,
            level=level,
            limits=RGB_LIMITS if self._bridge is not None else None,
            device=self.generator.device,
        )

    def _generate(self, picture: Tensor, out: Tensor) -> None:
        """Enqueue the generator on a picture, whole or in patches."""
        if self._windows is None:
            self.generator.enlarge(picture, out)
            return
        patches = self._windows.cut(picture[0])
        scale = self.generator.scale
        num, channels, height, width = patches.shape
        outputs = torch.empty((num, channels, scale * height, scale * width), dtype=out.dtype, device=out.device)
        batch = self.batch or max(MAX_BATCH_PX // (height * width), 1)
        for first in range(0, num, batch):
            self.generator.enlarge(patches[first : first + batch], outputs[first : first + batch])
        self._windows.stitch(outputs, out[0])
