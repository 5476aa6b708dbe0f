"""The viewport: a part of a frame at a size, as RGB, fast enough for every picture that is shown.

Planes are resampled first and the matrix applied last, as the bicubic rung does it. Chroma is moved to the middle of
the luma samples that it covers before it is resampled, since that is where OpenCV takes samples to lie.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from streamsr.colour import KR_KB, coding_of
from streamsr.frame import Colour, Frame, Plane, PlaneLayout
from streamsr.resample import Real, keys_weights

Picture = NDArray[np.uint8]
Window = tuple[int, int, int, int]
"""(left, top, right, bottom) in luma pixels."""


BAND_ROWS = 128
"""Rows that are coloured at a time: what lies between planes and picture then stays in the processor's cache, and large
buffers need not be had from the system for every picture, which costs more than filling them."""

BAND_MARGIN = 2
"""Chroma rows round a band that its interpolation reads."""

CHROMA = cv2.INTER_LINEAR
"""How chroma is brought to the size of luma, as browsers and video players do it: cubic costs five times as much (15 ms
of a 4K picture) for what no eye resolves."""


def render(frame: Frame, window: Window, size: tuple[int, int], into: Picture | None = None) -> Picture:
    """Return a part of a frame at a size.

    Args:
        frame: of any layout, depth, range and matrix; one that is not known is taken for BT.709.
        window: the part; its sides are multiples of the subsampling, but for the frame's own right and bottom edge.
        size: (width, height) of the result in pixels.
        into: where the result goes, (height, width, 3) uint8, contiguous; None makes a picture.

    Returns:
        (height, width, 3) uint8 RGB; cubic where the part is enlarged, averages where it is made smaller.
    """
    picture = np.empty((size[1], size[0], 3), np.uint8) if into is None else into
    left, top, right, bottom = window
    depth = frame.layout.bit_depth
    luma = _resampled(_eight_bits(frame.planes[0][top:bottom, left:right], depth), size)
    if frame.layout.chroma_shift is None:
        level = cv2.transform(luma, _gray_matrix(frame.layout, frame.colour))
        cv2.merge([level, level, level], dst=picture)
        return picture
    x_shift, y_shift = frame.layout.chroma_shift
    part = (slice(top >> y_shift, -(-bottom >> y_shift)), slice(left >> x_shift, -(-right >> x_shift)))
    chroma = [_centred(_eight_bits(plane[part], depth), frame.layout, frame.colour) for plane in frame.planes[1:]]
    _colour_in(picture, luma, chroma, _matrix(frame.layout, frame.colour))
    return picture


def _colour_in(picture: Picture, luma: Picture, chroma: list[Picture], matrix: Real) -> None:
    """Fill a picture, band by band, from luma of its size and chroma of any."""
    tall, wide = luma.shape
    if any(tall % plane.shape[0] or wide % plane.shape[1] for plane in chroma):
        chroma = [_resampled(plane, (wide, tall), CHROMA) for plane in chroma]
    for top in range(0, tall, BAND_ROWS):
        band = slice(top, min(top + BAND_ROWS, tall))
        parts = [_rows_of(plane, band, (wide, tall)) for plane in chroma]
        cv2.transform(cv2.merge([luma[band], *parts]), matrix, dst=picture[band])


def _rows_of(plane: Picture, band: slice, size: tuple[int, int]) -> Picture:
    """Return some rows of what a plane becomes at a size that is a whole multiple of its own."""
    wide, tall = size
    times = tall // plane.shape[0]
    first = max(band.start // times - BAND_MARGIN, 0)
    last = min(-(-band.stop // times) + BAND_MARGIN, plane.shape[0])
    brought = _resampled(plane[first:last], (wide, (last - first) * times), CHROMA)
    return brought[band.start - first * times : band.stop - first * times]


def _eight_bits(plane: Plane, depth: int) -> Picture:
    if depth == 8:
        return np.ascontiguousarray(plane)
    reduced: Picture = cv2.convertScaleAbs(np.ascontiguousarray(plane), alpha=1.0 / (1 << (depth - 8)))
    return reduced


def _resampled(plane: Picture, size: tuple[int, ...], enlarging: int = cv2.INTER_CUBIC) -> Picture:
    """Bring a plane to (width, height): averages where both sides shrink, else cubic, or as is asked for.

    Halving is exact and several times faster than averaging over areas that cut samples; of what is left, less than
    two samples a pixel, linear interpolation takes all.
    """
    while min(plane.shape[1] / size[0], plane.shape[0] / size[1]) >= 2 and not (plane.shape[0] | plane.shape[1]) % 2:
        plane = cv2.resize(plane, (plane.shape[1] // 2, plane.shape[0] // 2), interpolation=cv2.INTER_AREA)
    if plane.shape[::-1] == size:
        return plane
    shrinks = size[0] <= plane.shape[1] and size[1] <= plane.shape[0]
    little = plane.shape[1] < 2 * size[0] and plane.shape[0] < 2 * size[1]
    reducing = cv2.INTER_LINEAR if little else cv2.INTER_AREA
    brought: Any = cv2.resize(plane, size, interpolation=reducing if shrinks else enlarging)
    made: Picture = brought
    return made


def _centred(plane: Picture, layout: PlaneLayout, colour: Colour) -> Picture:
    """Move samples of a chroma plane to the middle of the luma samples that they cover."""
    across, down = (
        0.0 if not shift else -offset / (1 << shift)
        for shift, offset in zip(layout.chroma_shift or (0, 0), colour.siting.value, strict=True)
    )
    if across == 0 and down == 0:
        return plane
    moved: Picture = cv2.sepFilter2D(plane, -1, _shift_kernel(across), _shift_kernel(down), borderType=1)
    return moved


@lru_cache(maxsize=8)
def _shift_kernel(shift: float) -> Real:
    """Return five taps that take a sample ``shift`` in [-0.5, 0.5] further on, by cubic convolution."""
    taps = np.zeros(5, np.float32)
    first = 0 if shift < 0 else 1
    taps[first : first + 4] = keys_weights(shift % 1.0)
    return taps


@lru_cache(maxsize=8)
def _matrix(layout: PlaneLayout, colour: Colour) -> Real:
    """Return (3, 4) float32 that takes 8-bit (Y, U, V, 1) to RGB in [0, 255]; inverse of `colour.yuv_from_rgb`."""
    kr_kb = colour if colour.matrix in KR_KB else Colour(1, colour.full_range, 1, 1)
    coding = coding_of(kr_kb, 8)
    weight_r, weight_g, weight_b = coding.weights
    luma, chroma = 255 / coding.luma[1], 255 / coding.chroma[1]
    red, blue = 2 * (1 - weight_r) * chroma, 2 * (1 - weight_b) * chroma
    turned = np.array(
        [[luma, 0, red], [luma, -blue * weight_b / weight_g, -red * weight_r / weight_g], [luma, blue, 0]]
    )
    offsets = np.array([coding.luma[0], coding.chroma[0], coding.chroma[0]])
    return np.column_stack([turned, -turned @ offsets]).astype(np.float32)


@lru_cache(maxsize=8)
def _gray_matrix(layout: PlaneLayout, colour: Colour) -> Real:
    """Return (1, 2) float32 that takes 8-bit (Y, 1) to gray in [0, 255]."""
    offset, gain = coding_of(Colour(1, colour.full_range, 1, 1), 8).luma
    return np.array([[255 / gain, -offset * 255 / gain]], np.float32)
