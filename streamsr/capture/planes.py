"""Turn a decoded picture into planes: views where it is planar already, else the nearest planar layout."""

from __future__ import annotations

from typing import Any

import numpy as np
from av.video.format import VideoFormat
from av.video.frame import VideoFrame

from streamsr.errors import InputError
from streamsr.frame import Colour, Plane, PlaneLayout

BICUBIC_ACCURATE = 0x4 | 0x40000 | 0x80000
"""swscale flags: bicubic, accurate rounding, the same result on every processor."""

_VIEWABLE = frozenset(
    PlaneLayout(shift, bits).pix_fmt for shift in (None, (1, 1), (1, 0), (0, 0), (0, 1)) for bits in (8, 10, 12, 16)
)
_SUBSAMPLING = {
    **{(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0", (1, 2): "4:4:0"},
    **{(4, 1): "4:1:1", (4, 4): "4:1:0"},
}
"""By how many luma samples a chroma sample stands for, across and down."""
_SWS_MATRIX = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}


def choose_layout(pixel_format: VideoFormat) -> PlaneLayout:
    """Choose the planar layout that keeps what a pixel format holds: no chroma and no bit is lost, alpha is.

    Args:
        pixel_format: PyAV's.

    Returns:
        RGB and palettes become 4:4:4, 4:1:1 becomes 4:2:2, 4:1:0 becomes 4:2:0; 9 bits become 10 and 14 become 16.

    Raises:
        InputError: the format lives on an accelerator, or names no samples.
    """
    parts = [part for part in pixel_format.components if not part.is_alpha]
    if not parts:
        raise InputError(
            f"pixel format {pixel_format.name}: expected samples in memory; decode it without acceleration"
        )
    bits = _round_up_depth(max(part.bits for part in parts))
    if is_rgb(pixel_format):
        return PlaneLayout((0, 0), bits)
    if len(parts) < 3:
        return PlaneLayout(None, bits)
    shift = (int(pixel_format.chroma_width(64) < 64), int(pixel_format.chroma_height(64) < 64))
    # There is no 16-bit 4:4:0 in FFmpeg, so its chroma is widened rather than its depth cut.
    return PlaneLayout((0, 0) if shift == (0, 1) and bits == 16 else shift, bits)


def is_rgb(pixel_format: VideoFormat) -> bool:
    """Return whether a pixel format needs a matrix to become YUV."""
    return bool(pixel_format.is_rgb or pixel_format.has_palette or pixel_format.name.startswith("xyz"))


def has_alpha(pixel_format: VideoFormat) -> bool:
    """Return whether a pixel format carries transparency."""
    return any(part.is_alpha for part in pixel_format.components)


def describe_chroma_change(pixel_format: VideoFormat) -> str | None:
    """Say in one line how `choose_layout` changes the subsampling of a pixel format; None where it keeps it."""
    if is_rgb(pixel_format) or sum(not part.is_alpha for part in pixel_format.components) < 3:
        return None
    coded = (64 // pixel_format.chroma_width(64), 64 // pixel_format.chroma_height(64))
    across, down = choose_layout(pixel_format).chroma_shift or (0, 0)
    kept = (1 << across, 1 << down)
    if coded == kept:
        return None
    return f"chroma resampled from {_SUBSAMPLING.get(coded, 'another raster')} to {_SUBSAMPLING[kept]}"


def make_planar(frame: VideoFrame, layout: PlaneLayout, colour: Colour) -> VideoFrame:
    """Convert a picture to a planar layout; one that has it already is returned itself.

    Only samples are rearranged, interpolated or widened: range and matrix stay as ``colour`` says. RGB goes through the
    matrix and the range of ``colour``.
    """
    if frame.format.name.replace("yuvj", "yuv") == layout.pix_fmt:
        return frame
    return _rescale(frame, colour, format=layout.pix_fmt)


def fit(frame: VideoFrame, layout: PlaneLayout, colour: Colour, *, width: int, height: int) -> VideoFrame:
    """Scale a picture to a size and a layout with a bicubic filter."""
    return _rescale(frame, colour, format=layout.pix_fmt, width=width, height=height)


def view_planes(frame: VideoFrame, layout: PlaneLayout) -> tuple[Plane, ...]:
    """View the planes of a picture without copying.

    Args:
        frame: in a planar format of ``layout``.
        layout: subsampling and depth.

    Returns:
        (H, W) luma and, unless gray, two chroma planes; uint8 or uint16, rows strided. They keep the picture alive.
    """
    num = 1 if layout.chroma_shift is None else 3
    return tuple(_view(plane, layout.dtype) for plane in frame.planes[:num])


def _view(plane: Any, dtype: type[np.uint8] | type[np.uint16]) -> Plane:
    row = abs(plane.line_size) // np.dtype(dtype).itemsize
    samples = np.frombuffer(plane, dtype).reshape(plane.height, row)[:, : plane.width]
    # PyAV hands out a picture that is stored bottom up from its lowest address.
    return samples[::-1] if plane.line_size < 0 else samples


def _rescale(frame: VideoFrame, colour: Colour, **wanted: Any) -> VideoFrame:
    sws_matrix = _SWS_MATRIX.get(colour.matrix, 5)
    sws_range = 2 if colour.full_range else 1
    # One thread: FFmpeg 8's converters write past the end of a row, into what the next thread has written already (with
    # 4:2:2 of 66x50 about one picture in thirty came out wrong at its slices' edges).
    return frame.reformat(
        **wanted,
        threads=1,
        interpolation=BICUBIC_ACCURATE,
        src_colorspace=sws_matrix,
        dst_colorspace=sws_matrix,
        src_color_range=2 if is_rgb(frame.format) else sws_range,
        dst_color_range=sws_range,
    )


def _round_up_depth(bits: int) -> int:
    return next((depth for depth in (8, 10, 12) if bits <= depth), 16)
