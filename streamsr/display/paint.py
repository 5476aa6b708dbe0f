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

WHITE: Rgb = (1.0, 1.0, 1.0)

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
class Box:
    """How a box of text looks.

    Attributes:
        ink: colour of the letters.
        paper: colour of the box.
        opacity: of the box: 0 shows the picture below, 1 hides it.
    """

    ink: Rgb
    paper: Rgb
    opacity: float


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


def box_letters(lines: Coverage, padding_px: int, box: Box) -> Cover:
    """Set text in a box with round corners, its sides even so that it covers whole chroma samples."""
    # Letters come with room above and below, so that half of the padding looks like all of it.
    above = padding_px // 2
    tall, wide = lines.shape[0] + 2 * above, lines.shape[1] + 2 * padding_px
    text = np.zeros((tall + tall % 2, wide + wide % 2), np.float32)
    text[above : above + lines.shape[0], padding_px : padding_px + lines.shape[1]] = lines
    cover = letter_cover(text, box.ink, box.paper, box.opacity)
    return Cover(cover.rgb, cover.opacity * _round_box(*text.shape, radius=0.6 * padding_px))


def _round_box(height: int, width: int, *, radius: float) -> Coverage:
    """Return how far each pixel lies in a box with round corners, (height, width) float32 in [0, 1]."""
    y, x = (np.maximum(np.abs(np.arange(side) - (side - 1) / 2) - (side / 2 - radius), 0) for side in (height, width))
    beyond = np.hypot(y[:, None], x[None, :])
    inside: Coverage = np.clip(radius + 0.5 - beyond, 0, 1).astype(np.float32)
    return inside


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


def lay_over_rgb(picture: NDArray[np.uint8], cover: Cover, place: tuple[int, int]) -> None:
    """Lay a cover over an (H, W, 3) uint8 RGB picture, in place; what lies outside is cut off."""
    x, y = place
    left, top = max(-x, 0), max(-y, 0)
    below = picture[y + top : max(y + cover.size[1], 0), x + left : max(x + cover.size[0], 0)]
    tall, wide = below.shape[:2]
    if below.size:
        opacity = cover.opacity[top : top + tall, left : left + wide, None]
        colour = cover.rgb[:, top : top + tall, left : left + wide].transpose(1, 2, 0)
        below[...] = np.rint(below * (1 - opacity) + colour * (opacity * np.float32(255))).astype(np.uint8)


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
