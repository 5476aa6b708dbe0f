"""Fit the planes of a frame to what an encoder takes: same samples where it can be, said and exact where it cannot.

Nothing here knows a colour matrix: luma stays luma. Chroma is resampled only where the encoder has no format with the
source's subsampling, by the filters below, at the source's siting.
"""

from __future__ import annotations

from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from streamsr.frame import Colour, Frame, Plane, PlaneLayout

Samples = NDArray[Any]

LAYOUTS = {
    layout.pix_fmt: layout
    for layout in (
        PlaneLayout(chroma_shift=shift, bit_depth=depth)
        for shift in ((1, 1), (1, 0), (0, 0), (0, 1), None)
        for depth in (8, 10, 12, 16)
    )
}
"""Every planar layout a frame can have, by FFmpeg's name."""

SUBSAMPLING = {None: "gray", (1, 1): "4:2:0", (1, 0): "4:2:2", (0, 0): "4:4:4", (0, 1): "4:4:0"}


def loss(source: PlaneLayout, target: PlaneLayout) -> tuple[int, int, int, int]:
    """Order target layouts by what they cost: colour detail lost, depth lost, then samples that only take space.

    Examples:
        >>> loss(PlaneLayout((1, 0), 10), PlaneLayout((1, 1), 10)) > loss(PlaneLayout((1, 0), 10), PlaneLayout((1, 0)))
        True
    """
    fewer, more = _chroma_steps(source, target), _chroma_steps(target, source)
    depth = source.bit_depth - target.bit_depth
    return (fewer, max(depth, 0), more, max(-depth, 0))


def _chroma_steps(finer: PlaneLayout, coarser: PlaneLayout) -> int:
    """Return how many halvings of chroma lead from one layout to another; 9 for all of it."""
    if finer.chroma_shift is None:
        return 0
    if coarser.chroma_shift is None:
        return 9
    return sum(max(0, c - f) for f, c in zip(finer.chroma_shift, coarser.chroma_shift, strict=True))


def describe_change(source: PlaneLayout, target: PlaneLayout) -> list[str]:
    """Say what fitting changes in the samples, one phrase each; empty where they stay what they are."""
    changes = []
    if target.bit_depth != source.bit_depth:
        word = "reduced" if target.bit_depth < source.bit_depth else "widened"
        changes.append(f"{word} from {source.bit_depth}-bit to {target.bit_depth}-bit")
    if target.chroma_shift != source.chroma_shift:
        old, new = SUBSAMPLING[source.chroma_shift], SUBSAMPLING[target.chroma_shift]
        changes.append(f"chroma resampled from {old} to {new}" if source.chroma_shift else f"{old} stored as {new}")
    if target.chroma_shift is None and source.chroma_shift is not None:
        changes[-1] = "colour dropped"
    return changes


def fill(picture: av.VideoFrame, frame: Frame, target: PlaneLayout) -> None:
    """Write a frame's samples into the buffers of a picture: one copy where the layout is the same.

    Args:
        picture: of `target`'s pixel format, at least as large as the frame; what is beyond the frame repeats its edge.
        frame: the samples.
        target: the picture's layout.
    """
    planes = fit_planes(frame, target)
    for buffer, plane in zip(picture.planes, planes, strict=True):
        samples: Samples = np.frombuffer(buffer, target.dtype)  # type: ignore[call-overload]
        _copy_padded(samples.reshape(buffer.height, -1)[:, : buffer.width], plane)


def fit_planes(frame: Frame, target: PlaneLayout) -> tuple[Plane, ...]:
    """Return the planes of a frame in another layout, the same arrays where nothing changes."""
    source, colour = frame.layout, frame.colour
    luma = _change_depth(frame.planes[0], source, target, colour, chroma=False)
    if target.chroma_shift is None:
        return (luma,)
    if source.chroma_shift is None:
        size = target.chroma_size(frame.width, frame.height)
        neutral = np.full(size[::-1], 1 << (target.bit_depth - 1), target.dtype)
        return (luma, neutral, neutral)
    chroma = (_change_depth(plane, source, target, colour, chroma=True) for plane in frame.planes[1:])
    return (luma, *(_resample(plane, frame, target) for plane in chroma))


def _copy_padded(buffer: Samples, plane: Plane) -> None:
    height, width = plane.shape
    buffer[:height, :width] = plane
    if width < buffer.shape[1]:
        buffer[:height, width:] = plane[:, -1:]
    if height < buffer.shape[0]:
        buffer[height:] = buffer[height - 1]


def _change_depth(plane: Plane, source: PlaneLayout, target: PlaneLayout, colour: Colour, *, chroma: bool) -> Plane:
    """Scale samples to another bit depth (Rec. ITU-T H.273, 8.3: limited range by 2**n, full range by the peaks)."""
    if source.bit_depth == target.bit_depth:
        return plane
    shift = target.bit_depth - source.bit_depth
    factor = target.peak / source.peak if colour.full_range else 2.0**shift
    zero, new_zero = (1 << (source.bit_depth - 1), 1 << (target.bit_depth - 1)) if chroma else (0, 0)
    scaled = np.rint((plane.astype(np.float32) - zero) * factor) + new_zero
    made: Plane = scaled.clip(0, target.peak).astype(target.dtype)
    return made


def _resample(plane: Plane, frame: Frame, target: PlaneLayout) -> Plane:
    """Bring a chroma plane to the target's subsampling, first across, then down."""
    source_shift, target_shift = frame.layout.chroma_shift, target.chroma_shift
    if source_shift == target_shift or source_shift is None or target_shift is None:
        return plane
    across, down = frame.colour.siting.value
    width, height = target.chroma_size(frame.width, frame.height)
    plane = _step(plane, target_shift[0] - source_shift[0], across, width)
    made: Plane = _step(plane.T, target_shift[1] - source_shift[1], down, height).T
    return made


def _step(plane: Plane, step: int, offset: float, size: int) -> Plane:
    if step == 0:
        return plane
    wide = np.pad(plane.astype(np.int32), ((0, 0), (1, 3)), "edge")
    stepped = _halve(wide, offset, size) if step > 0 else _double(wide, offset)[:, :size]
    made: Plane = stepped.astype(plane.dtype)
    return made


def _halve(wide: Samples, offset: float, size: int) -> Samples:
    """Halve the columns of a plane padded by 1 and 3: a pair's mean where centred, [1 2 1] / 4 where co-sited."""
    if offset == 0:
        pair: Samples = wide[:, 1::2][:, :size] + wide[:, 2::2][:, :size] + 1 >> 1
        return pair
    at = 1 if offset < 0 else 2
    left, middle, right = (wide[:, start::2][:, :size] for start in (at - 1, at, at + 1))
    mean: Samples = left + 2 * middle + right + 2 >> 2
    return mean


def _double(wide: Samples, offset: float) -> Samples:
    """Double the columns of a plane padded by 1 and 3, linearly between the positions that the siting gives."""
    before, here, after = wide[:, :-4], wide[:, 1:-3], wide[:, 2:-2]
    if offset == 0:
        even, odd = before + 3 * here + 2 >> 2, 3 * here + after + 2 >> 2
    elif offset < 0:
        even, odd = here, here + after + 1 >> 1
    else:
        even, odd = before + here + 1 >> 1, here
    return np.stack((even, odd), axis=2).reshape(len(wide), -1)
