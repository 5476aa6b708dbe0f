"""Frame: one picture of a source, as planes, with its time, its colour and its place in the sequence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[Any]
"""(H, W) samples: uint8 where the bit depth is 8, else uint16 holding the value in its low bits."""


class Siting(Enum):
    """Where chroma samples lie, as (x, y) offset in luma pixels from the middle of the luma block they cover.

    Rec. ITU-T H.264 Annex E, figure E-1 names the types; LEFT is the default of MPEG-2, H.264 and HEVC, CENTRE that
    of JPEG and MPEG-1, TOP_LEFT that of BT.2020 video. RIGHT and the others appear when a picture is turned upright.
    """

    LEFT = (-0.5, 0.0)
    CENTRE = (0.0, 0.0)
    TOP_LEFT = (-0.5, -0.5)
    TOP = (0.0, -0.5)
    BOTTOM = (0.0, 0.5)
    RIGHT = (0.5, 0.0)
    TOP_RIGHT = (0.5, -0.5)
    BOTTOM_LEFT = (-0.5, 0.5)
    BOTTOM_RIGHT = (0.5, 0.5)


@dataclass(frozen=True)
class Colour:
    """How samples mean colour, as code points of Rec. ITU-T H.273.

    Attributes:
        matrix: matrix coefficients (1 BT.709, 5 and 6 BT.601, 9 BT.2020).
        full_range: True where 0..255 are black and white, False where 16..235 are.
        primaries: colour primaries.
        transfer: transfer characteristics.
        siting: where chroma samples lie.
        assumed: names of the properties that the source did not state and that were decided by its height.
    """

    matrix: int
    full_range: bool
    primaries: int
    transfer: int
    siting: Siting = Siting.LEFT
    assumed: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlaneLayout:
    """The shape of a frame's planes.

    Attributes:
        chroma_shift: (x, y) binary logarithm of the chroma subsampling: (1, 1) is 4:2:0, (1, 0) 4:2:2, (0, 0) 4:4:4;
            None for gray.
        bit_depth: 8, 10, 12 or 16 significant bits a sample.
    """

    chroma_shift: tuple[int, int] | None = (1, 1)
    bit_depth: int = 8

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """The sample type of every plane."""
        return np.uint8 if self.bit_depth == 8 else np.uint16

    @property
    def peak(self) -> int:
        """The largest sample value."""
        return (1 << self.bit_depth) - 1

    def chroma_size(self, width: int, height: int) -> tuple[int, int]:
        """Return the (width, height) of a chroma plane; odd sides round up."""
        if self.chroma_shift is None:
            return (0, 0)
        x_shift, y_shift = self.chroma_shift
        return (-(-width >> x_shift), -(-height >> y_shift))

    @property
    def pix_fmt(self) -> str:
        """The FFmpeg name of this layout, for example ``yuv420p10le``."""
        names = {None: "gray", (1, 1): "yuv420p", (1, 0): "yuv422p", (0, 0): "yuv444p", (0, 1): "yuv440p"}
        return names[self.chroma_shift] + ("" if self.bit_depth == 8 else f"{self.bit_depth}le")


@dataclass(frozen=True)
class Frame:
    """One picture.

    Attributes:
        planes: (Y,) or (Y, U, V); Y is (H, W), U and V as `PlaneLayout.chroma_size` says. Rows may be strided; the
            samples are never written to after the frame is made. Where a GPU's decoder made them and something that
            reads them there asked for it, all are `streamsr.device_frame.DevicePlane`s: they have shape and dtype, lie
            on the GPU, and are downloaded once numpy looks inside (`streamsr.device_frame.on_host` does it for all).
        layout: subsampling and bit depth of the planes.
        colour: what the samples mean.
        pts: presentation time in units of `time_base`, the source's own; may be negative.
        time_base: seconds a unit.
        duration: in units of `time_base`, 0 where unknown.
        sequence: place in the source, from 0, without gaps.
        sample_aspect: width of a pixel over its height.
        captured_ns: `time.monotonic_ns` when the frame left the decoder.
        arrived_ns: `time.monotonic_ns` when the data it was decoded from came in; 0 where nobody asks, as in files.
    """

    planes: tuple[Plane, ...]
    layout: PlaneLayout
    colour: Colour
    pts: int
    time_base: Fraction
    duration: int = 0
    sequence: int = 0
    sample_aspect: Fraction = Fraction(1)
    captured_ns: int = 0
    arrived_ns: int = 0

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.planes[0].shape[1])

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.planes[0].shape[0])

    @property
    def seconds(self) -> float:
        """Presentation time in seconds."""
        return float(self.pts * self.time_base)

    def with_planes(self, planes: tuple[Plane, ...], *, colour: Colour | None = None) -> Frame:
        """Return the same moment with other samples of the same layout."""
        return replace(self, planes=planes, colour=colour or self.colour)
