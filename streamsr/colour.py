"""YUV and RGB: matrix and range as the tags say, chroma where the siting says, nothing clamped before the end.

Only generators that read RGB need this, and previews; luma students never leave YUV. Around such a generator only its
*change* is subsampled: the output's chroma is the input's chroma through the fixed filter, plus what the generator
changed, brought down to the chroma grid. A generator that changes nothing therefore changes no chroma sample, however
noisy the chroma and however coarse its grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamsr.errors import InputError, UsageError
from streamsr.frame import Colour, Frame, Plane, PlaneLayout
from streamsr.resample import (
    PlaneEnlarger,
    Real,
    chroma_enlarger,
    chroma_filler,
    plane_enlarger,
    quantised,
    reduce_chroma,
)

KR_KB: dict[int, tuple[float, float]] = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
"""Luma weights of red and blue by matrix code point (Rec. ITU-T H.273, table 4)."""


@dataclass(frozen=True)
class Coding:
    """The numbers between samples and colour: ``sample = offset + gain * value``.

    Value is luma in [0, 1], or a colour difference in [-0.5, 0.5] (Rec. ITU-T H.273, equations 23 to 28).

    Attributes:
        kr: luma weight of red.
        kb: luma weight of blue.
        luma: (offset, gain) of luma samples.
        chroma: (offset, gain) of chroma samples.
    """

    kr: float
    kb: float
    luma: tuple[float, float]
    chroma: tuple[float, float]

    @property
    def weights(self) -> tuple[float, float, float]:
        """Luma weights of red, green and blue."""
        return (self.kr, 1.0 - self.kr - self.kb, self.kb)


def coding_of(colour: Colour, bit_depth: int) -> Coding:
    """Return how samples are coded.

    Args:
        colour: matrix and range.
        bit_depth: bits a sample.

    Raises:
        InputError: a matrix that is not of the luma and colour difference kind.
    """
    if colour.matrix not in KR_KB:
        known = ", ".join(str(code) for code in KR_KB)
        raise InputError(
            f"expected a colour matrix of H.273 code {known}, got {colour.matrix}; convert the source to BT.709 first"
        )
    one = float(1 << (bit_depth - 8))
    middle, peak = 128.0 * one, float((1 << bit_depth) - 1)
    luma, chroma = ((0.0, peak), (middle, peak)) if colour.full_range else ((16 * one, 219 * one), (middle, 224 * one))
    return Coding(*KR_KB[colour.matrix], luma, chroma)


def rgb_from_yuv(luma: Real, blue: Real, red: Real, coding: Coding) -> Real:
    """Return RGB.

    Args:
        luma: (H, W) float32 samples.
        blue: (H, W) float32 samples of the blue difference (U, Cb).
        red: (H, W) float32 samples of the red difference (V, Cr).
        coding: what the samples mean.

    Returns:
        (3, H, W) float32, fresh; in [0, 1] for colours that exist, not clamped.
    """
    (luma_offset, luma_gain), (chroma_offset, chroma_gain) = coding.luma, coding.chroma
    weight_r, weight_g, weight_b = coding.weights
    rgb = np.empty((3, *luma.shape), np.float32)
    value = (luma - np.float32(luma_offset)) * np.float32(1 / luma_gain)
    rgb[0] = value + (red - np.float32(chroma_offset)) * np.float32(2 * (1 - weight_r) / chroma_gain)
    rgb[2] = value + (blue - np.float32(chroma_offset)) * np.float32(2 * (1 - weight_b) / chroma_gain)
    rgb[1] = (value - np.float32(weight_r) * rgb[0] - np.float32(weight_b) * rgb[2]) * np.float32(1 / weight_g)
    return rgb


def yuv_from_rgb(rgb: Real, coding: Coding) -> tuple[Real, Real, Real]:
    """Return luma, blue and red difference samples, (H, W) float32 each, of (3, H, W) float32 RGB; not clamped."""
    (luma_offset, luma_gain), (chroma_offset, chroma_gain) = coding.luma, coding.chroma
    weight_r, weight_g, weight_b = (np.float32(weight) for weight in coding.weights)
    value = weight_r * rgb[0] + weight_g * rgb[1] + weight_b * rgb[2]
    blue = (rgb[2] - value) * np.float32(chroma_gain / (2 * (1 - coding.kb))) + np.float32(chroma_offset)
    red = (rgb[0] - value) * np.float32(chroma_gain / (2 * (1 - coding.kr))) + np.float32(chroma_offset)
    return value * np.float32(luma_gain) + np.float32(luma_offset), blue, red


class RgbBridge:
    """Takes frames of one size and colour to RGB for a generator, and its output back. Owned by one thread.

    Args:
        layout: of the planes, on both sides.
        colour: of the planes, on both sides.
        width: of the input in pixels.
        height: of the input in pixels.
        scale: enlargement by the generator.
    """

    def __init__(self, layout: PlaneLayout, colour: Colour, width: int, height: int, scale: int) -> None:
        self.layout, self.colour = layout, colour
        self.coding = coding_of(colour, layout.bit_depth)
        self._fillers: list[PlaneEnlarger] = []
        if layout.chroma_shift is not None:
            # One of each for U and for V: a result is valid until the next call only.
            self._fillers = [chroma_filler(layout, width, height, siting=colour.siting) for _ in "UV"]
            self._enlarger = chroma_enlarger(layout, width, height, scale, siting=colour.siting)
            self._baseline = plane_enlarger(width, height, scale)

    def rgb_of(self, planes: tuple[Plane, ...]) -> Real:
        """Return (3, H, W) float32 RGB, fresh, not clamped, of (Y,) or (Y, U, V); gray has three equal channels."""
        luma = planes[0].astype(np.float32)
        if not self._fillers:
            offset, gain = self.coding.luma
            return np.repeat(((luma - np.float32(offset)) * np.float32(1 / gain))[None], 3, axis=0)
        chroma = [filler.enlarge_real(plane) for filler, plane in zip(self._fillers, planes[1:], strict=True)]
        return rgb_from_yuv(luma, chroma[0], chroma[1], self.coding)

    def planes_of(self, rgb: Real, planes: tuple[Plane, ...]) -> tuple[Plane, ...]:
        """Return the enlarged planes.

        Args:
            rgb: (3, scale * H, scale * W) float32, the generator's output.
            planes: the input's planes, those `rgb_of` was last given.

        Returns:
            Fresh planes of the layout, rounded to nearest and clamped to [0, peak].
        """
        luma, *chroma = yuv_from_rgb(rgb, self.coding)
        dtype, peak = np.dtype(self.layout.dtype), self.layout.peak
        enlarged = [quantised(luma, dtype, peak)]
        for generated, plane, filler in zip(chroma, planes[1:], self._fillers, strict=False):
            enlarged.append(quantised(self._chroma_of(generated, plane, filler), dtype, peak))
        return tuple(enlarged)

    def _chroma_of(self, generated: Real, plane: Plane, filler: PlaneEnlarger) -> Real:
        """Return the input's chroma through the fixed filter, plus the generator's change to it."""
        change = generated - self._baseline.enlarge_real(filler.enlarge_real(plane))
        assert self.layout.chroma_shift is not None
        return self._enlarger.enlarge_real(plane) + reduce_chroma(change, self.layout.chroma_shift, self.colour.siting)


def to_rgb8(frame: Frame) -> NDArray[np.uint8]:
    """Return a frame as (H, W, 3) uint8 RGB in [0, 255] for a preview or a PNG.

    Raises:
        InputError: a colour matrix that is not known.
    """
    bridge = RgbBridge(frame.layout, frame.colour, frame.width, frame.height, 1)
    rgb = bridge.rgb_of(frame.planes).transpose(1, 2, 0)
    return np.ascontiguousarray(np.clip(np.rint(rgb * np.float32(255)), 0, 255).astype(np.uint8))


def from_rgb8(pixels: NDArray[Any], *, layout: PlaneLayout, colour: Colour) -> tuple[Plane, ...]:
    """Return the planes of a picture.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        layout: of the planes.
        colour: of the planes.

    Returns:
        Fresh planes, rounded to nearest.

    Raises:
        UsageError: not such an array.
        InputError: a colour matrix that is not known.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise UsageError(f"expected (H, W, 3) uint8 RGB, got {pixels.shape} {pixels.dtype}; convert the array first")
    rgb = np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype(np.float32) * np.float32(1 / 255)
    luma, *chroma = yuv_from_rgb(rgb, coding_of(colour, layout.bit_depth))
    reduced = []
    if layout.chroma_shift is not None:
        reduced = [reduce_chroma(plane, layout.chroma_shift, colour.siting) for plane in chroma]
    return tuple(quantised(plane, np.dtype(layout.dtype), layout.peak) for plane in (luma, *reduced))
