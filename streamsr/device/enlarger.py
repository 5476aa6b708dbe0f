"""DeviceEnlarger: what lies between a frame's planes on a device and the enlarged ones, enqueued without waiting."""

from __future__ import annotations

import torch
from torch import Tensor

from streamsr.consistency import RGB_LIMITS
from streamsr.device.bands import bands_of, most_rows
from streamsr.device.planes import BridgeOnDevice, ChromaOnDevice, PlaneBuffer, Windows
from streamsr.device.projection import ProjectionOnDevice
from streamsr.frame import Frame
from streamsr.launch import LaunchPlan
from streamsr.patches import PatchGrid
from streamsr.runtimes.device import DeviceGenerator
from streamsr.runtimes.plane_ops import read_levels, write_levels

MAX_BATCH_PX = 1 << 20
"""Input pixels a launch of patches: the SRGAN at x4 holds 256 channels of four times as many, 2 GiB in half
precision."""


def batch_shapes(num: int, patch: tuple[int, ...], batch: int | None = None) -> set[tuple[int, ...]]:
    """Return the shapes of the launches of some patches, (N, C, H, W) each; see `DeviceEnlarger.generate_patches`.

    Args:
        num: how many patches.
        patch: (C, H, W).
        batch: patches a launch at most; None for as many as `MAX_BATCH_PX` allows.
    """
    most = most_patches(patch[1], patch[2], batch or num)
    return {(size, *patch) for size in {min(num, most), num % most} - {0}}


def most_patches(height: int, width: int, asked: int) -> int:
    """Return how many patches of a size a launch has at most: as asked, or as many as `MAX_BATCH_PX` allows."""
    return min(asked, max(MAX_BATCH_PX // (height * width), 1))


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
        with torch.no_grad():
            picture = self.picture_of(flat)
            made = self.large.luma(flat_out)[None] if self._makes_levels else self.room_for_made()
            self.generate(picture, made)
            self.finish(flat, picture, made, flat_out, figures)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the samples that the generator reads and writes."""
        return torch.uint8 if self._bridge is None and self.small.dtype == torch.uint8 else torch.float32

    def picture_of(self, flat: Tensor) -> Tensor:
        """Return what the generator reads: (C, H, W) uint8 luma (a view), or float32 luma or RGB in [0, 1]."""
        if self._bridge is not None:
            return self._bridge.rgb_of(flat)[0]
        luma = self.small.luma(flat)[None]
        return luma if luma.dtype == torch.uint8 else read_levels(luma, gain=1.0 / self.small.layout.peak)

    def room_for_made(self) -> Tensor:
        """Return an empty (C, scale * H, scale * W) picture of the type that the generator writes."""
        shape = (self.generator.channels, self.large.height, self.large.width)
        return torch.empty(shape, dtype=self.dtype, device=self.generator.device)

    def generate(self, picture: Tensor, made: Tensor) -> None:
        """Enqueue the generator on a picture, whole or in patches.

        Args:
            picture: from `picture_of`.
            made: (C, scale * H, scale * W), written.
        """
        if self._windows is None:
            self._launch(picture[None], made[None])
        else:
            self.generate_patches(self._windows, picture, made)

    def generate_patches(self, windows: Windows, picture: Tensor, made: Tensor, indices: Tensor | None = None) -> None:
        """Enqueue the generator on some patches of a picture, a batch at a time: no more is held at once.

        Args:
            windows: how it is cut.
            picture: from `picture_of`.
            made: (C, scale * H, scale * W), written where the patches' cores are.
            indices: (N,) int32, their numbers, on the device; None for all.
        """
        indices, scale = windows.all if indices is None else indices, self.generator.scale
        width, height = windows.grid.window_size
        for chosen in torch.split(indices, most_patches(height, width, self.batch or len(indices))):
            patches = windows.cut(picture, chosen)
            shape = (len(chosen), len(picture), scale * height, scale * width)
            outputs = torch.empty(shape, dtype=made.dtype, device=made.device)
            self._launch(patches, outputs)
            windows.stitch(outputs, made, chosen)
            del patches, outputs  # before the next batch is made room for

    def _launch(self, pictures: Tensor, out: Tensor) -> None:
        """Enqueue the generator on (N, C, H, W) pictures, in bands of rows where a layer would be too large."""
        (num, _, height, width), scale = pictures.shape, self.generator.scale
        rows = most_rows(self.generator, num * width)
        if height <= rows:
            self.generator.enlarge(pictures, out)
            return
        for band in bands_of(height, rows, self.generator.radius_px):
            made = torch.empty((*out.shape[:2], scale * band.height, out.shape[3]), dtype=out.dtype, device=out.device)
            self.generator.enlarge(pictures[:, :, band.top : band.top + band.height].contiguous(), made)
            first, core = scale * (band.core_top - band.top), slice(scale * band.core_top, scale * band.core_end)
            out[:, :, core].copy_(made[:, :, first : first + core.stop - core.start])
            del made  # before the next band is made room for

    def finish(self, flat: Tensor, picture: Tensor, made: Tensor, flat_out: Tensor, figures: Tensor | None) -> None:
        """Enqueue what follows the generator: projection, levels, chroma.

        Args:
            flat: as for `enlarge`; ``flat_out`` and ``figures`` too.
            picture: from `picture_of`.
            made: what the generator made of it; left as it is, but where it lies in ``flat_out`` itself.
            flat_out: written.
            figures: written where a frame is projected.
        """
        finish = self._finish_rgb if self._bridge is not None else self._finish_luma
        finish(flat, picture, made, flat_out, figures)

    @property
    def _makes_levels(self) -> bool:
        """Whether the generator writes the very samples that are shown."""
        return self._projection is None and self._bridge is None and self.small.dtype == torch.uint8

    def _finish_luma(
        self, flat: Tensor, picture: Tensor, made: Tensor, flat_out: Tensor, figures: Tensor | None
    ) -> None:
        """Round and project luma; chroma goes through the fixed filter."""
        small, large = self.small, self.large
        luma, target = small.luma(flat)[None], large.luma(flat_out)[None]
        if self._chroma is not None:
            self._chroma.enlarge(small.chroma(flat), large.chroma(flat_out))
        stitched = made
        if small.dtype != torch.uint8:
            stitched = target if self._projection is None else torch.empty_like(target)
            write_levels(made, stitched, peak=small.layout.peak, gain=small.layout.peak)
        if self._projection is not None:
            self._projection.project(luma, stitched, target)
            if figures is not None:
                self._projection.measure(luma, stitched, target, figures)
        elif stitched.data_ptr() != target.data_ptr():
            target.copy_(stitched)

    def _finish_rgb(
        self, flat: Tensor, picture: Tensor, made: Tensor, flat_out: Tensor, figures: Tensor | None
    ) -> None:
        """Project RGB and make planes of it."""
        assert self._bridge is not None
        shown = made
        if self._projection is not None:
            shown = torch.empty_like(made)
            self._projection.project(picture, made, shown)
            if figures is not None:
                self._projection.measure(picture, made, shown, figures)
        self._bridge.planes_of(shown[None], flat, flat_out)

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
