"""Painting on planes: a picture with transparency, laid over a frame of any layout, depth, range and matrix.

What is laid over is brought into the frame's own coding once, as two numbers for each sample, ``kept`` and ``added``:
``sample = kept * sample + added``. Doing so for each frame afterwards touches the samples below alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from streamsr.colour import KR_KB, coding_of, yuv_from_rgb
from streamsr.display.lettering import Coverage
from streamsr.frame import Colour, Frame, Plane, PlaneLayout
from streamsr.resample import Real, quantised, reduce_chroma

Rgb = tuple[float, float, float]
"""Red, green and blue in [0, 1], as coded (gamma is not undone)."""

REFERENCE_WHITE = {16: 0.58, 18: 0.75}
"""Signal of white letters and pages, by transfer code point of H.273: ITU-R BT.2408, table 1. Elsewhere it is 1."""


@dataclass(frozen=True)
class Cover:
    """A picture with transparency.

    Attributes:
        rgb: (3, H, W) float32 in [0, 1].
        opacity: (H, W) float32 in [0, 1].
    """

    rgb: Real
    opacity: Coverage

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return (self.opacity.shape[1], self.opacity.shape[0])


@dataclass(frozen=True)
class Stamp:
    """A cover in the coding of a frame: of each plane the share that is kept and what is added, float32."""

    kept: tuple[Real, ...]
    added: tuple[Real, ...]


def letter_cover(coverage: Coverage, ink: Rgb, paper: Rgb, paper_opacity: float) -> Cover:
    """Return text on paper.

    Args:
        coverage: (H, W) float32 in [0, 1]: the text.
        ink: colour of the text, which is opaque.
        paper: colour below it.
        paper_opacity: 0 shows the picture, 1 hides it.
    """
    opacity = coverage + (1 - coverage) * np.float32(paper_opacity)
    share = coverage / np.maximum(opacity, np.float32(1e-6))
    shares = [share * np.float32(one) + (1 - share) * np.float32(two) for one, two in zip(ink, paper, strict=True)]
    return Cover(np.stack(shares), opacity)


def make_stamp(cover: Cover, layout: PlaneLayout, colour: Colour) -> Stamp:
    """Bring a cover into the coding of frames; its place and size must be multiples of the subsampling.

    Transparency is applied before chroma is subsampled, so that colour does not bleed out of what is transparent.
    """
    known = colour if colour.matrix in KR_KB else replace(colour, matrix=1)
    white = np.float32(REFERENCE_WHITE.get(colour.transfer, 1.0))
    coded = yuv_from_rgb(cover.rgb * white, coding_of(known, layout.bit_depth))
    kept, added = [1 - cover.opacity], [coded[0] * cover.opacity]
    if layout.chroma_shift is not None:
        shift, siting = layout.chroma_shift, colour.siting
        kept += [reduce_chroma(1 - cover.opacity, shift, siting)] * 2
        added += [reduce_chroma(plane * cover.opacity, shift, siting) for plane in coded[1:]]
    return Stamp(tuple(kept), tuple(added))


def lay_over(frame: Frame, stamp: Stamp, place: tuple[int, int]) -> Frame:
    """Return a frame with a stamp on it; a plane that it changes is copied, the others are shared.

    Args:
        frame: the frame; its planes are not written to.
        stamp: made for its layout and colour.
        place: (x, y) of the top left corner in luma pixels, not negative and multiples of the subsampling; what lies
            outside is cut off.
    """
    x_shift, y_shift = frame.layout.chroma_shift or (0, 0)
    planes = list(frame.planes)
    for index, plane in enumerate(planes):
        x, y = place if index == 0 else (place[0] >> x_shift, place[1] >> y_shift)
        planes[index] = _blend(plane, stamp.kept[index], stamp.added[index], (x, y), frame.layout.peak)
    return frame.with_planes(tuple(planes))


def _blend(plane: Plane, kept: Real, added: Real, place: tuple[int, int], peak: int) -> Plane:
    x, y = place
    below = plane[y : y + len(kept), x : x + kept.shape[1]]
    if not below.size:
        return plane
    tall, wide = below.shape
    mixed: NDArray[np.float32] = below * kept[:tall, :wide]
    mixed += added[:tall, :wide]
    blended = quantised(mixed, plane.dtype, peak)
    if np.array_equal(blended, below):
        return plane
    changed: Plane = plane.copy()
    changed[y : y + tall, x : x + wide] = blended
    return changed


def flat_frame(like: Frame, rgb: Rgb) -> Frame:
    """Return a frame of one colour with the size, layout, colour and times of another."""
    width, height, layout = like.width, like.height, like.layout
    sizes = [(height, width), *[layout.chroma_size(width, height)[::-1]] * (len(like.planes) - 1)]
    levels = _levels(rgb, layout, like.colour)
    return like.with_planes(
        tuple(np.full(size, level, layout.dtype) for size, level in zip(sizes, levels, strict=True))
    )


@lru_cache(maxsize=64)
def _levels(rgb: Rgb, layout: PlaneLayout, colour: Colour) -> tuple[int, ...]:
    """Return the sample of a colour in each plane."""
    one = Cover(np.array(rgb, np.float32).reshape(3, 1, 1), np.ones((1, 1), np.float32))
    stamp = make_stamp(one, layout, colour)
    return tuple(round(float(np.clip(plane[0, 0], 0, layout.peak))) for plane in stamp.added)
