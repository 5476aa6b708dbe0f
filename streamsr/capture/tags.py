"""Decide what the samples of a picture mean: from its tags, and where there are none, by its height.

Untagged video is read as BT.709 from 720 lines up and as BT.601 below, which is how cameras and editing programs behave
(Rec. ITU-R BT.709 and BT.601; EBU Tech 3299). Only what is missing is filled in: a stated property is never overruled.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from streamsr.frame import Colour, PlaneLayout, Siting

HD_LINES = 720
JPEG_LIKE = frozenset({"mjpeg", "mjpegb", "jpegls", "ljpeg", "mpeg1video", "amv"})
"""Codecs whose chroma lies in the middle of the luma block (ITU-T T.871, ISO/IEC 11172-2)."""

BT709, BT601_625, BT601_525, BT2020 = (1, 1, 1), (5, 5, 6), (6, 6, 6), (9, 9, 14)
"""(matrix, primaries, transfer) code points of Rec. ITU-T H.273. The transfer of 625-line BT.601 is that of 525 lines:
code 5 means display gamma 2.8, which no camera of that family has."""

_BY_MATRIX = {1: BT709, 5: BT601_625, 6: BT601_525, 9: BT2020, 10: BT2020}
_BY_PRIMARIES = {1: BT709, 5: BT601_625, 6: BT601_525, 7: BT601_525, 9: BT2020}
_NO_MATRIX = frozenset({0, 2, 3})
_UNKNOWN = frozenset({0, 2, 3})
_FULL, _LIMITED = 2, 1


@dataclass(frozen=True)
class Tags:
    """What a decoder says of a picture's colour, as code points of Rec. ITU-T H.273; 2 (range: 0) is unspecified.

    Attributes:
        matrix: matrix coefficients; 0 is RGB.
        colour_range: 1 limited, 2 full.
        primaries: colour primaries.
        transfer: transfer characteristics.
    """

    matrix: int = 2
    colour_range: int = 0
    primaries: int = 2
    transfer: int = 2


def decide_colour(
    tags: Tags,
    *,
    layout: PlaneLayout,
    height: int,
    codec: str = "",
    pix_fmt: str = "",
    rgb: bool = False,
    rate: Fraction | None = None,
) -> Colour:
    """Decide the colour of a picture.

    The chroma siting is the codec's usual one, since PyAV does not expose the chroma location of a frame: in the middle
    for JPEG and MPEG-1, top left for BT.2020 at 4:2:0, else left.

    Args:
        tags: what the decoder says.
        layout: of the planes that will be given out.
        height: of the picture as coded, before it is turned upright, in lines.
        codec: FFmpeg codec name.
        pix_fmt: FFmpeg pixel format name before any conversion; ``yuvj...`` means full range.
        rgb: whether the source is RGB, so that the matrix is ours to choose and the range is full.
        rate: frames a second, which tells 50 Hz from 60 Hz families; None where unknown.

    Returns:
        The colour; ``assumed`` names what the tags left open.
    """
    stated_matrix = not rgb and tags.matrix not in _NO_MATRIX
    family = _family(tags, stated_matrix=stated_matrix, height=height, rate=rate)
    matrix = tags.matrix if stated_matrix else family[0]
    assumed = [] if stated_matrix or rgb else ["matrix"]
    if tags.colour_range not in (_LIMITED, _FULL) and not rgb and not pix_fmt.startswith("yuvj"):
        assumed.append("range")
    assumed += ["primaries"] if tags.primaries in _UNKNOWN else []
    assumed += ["transfer"] if tags.transfer in _UNKNOWN else []
    return Colour(
        matrix=matrix,
        full_range=_is_full_range(tags, pix_fmt=pix_fmt, rgb=rgb),
        primaries=family[1] if tags.primaries in _UNKNOWN else tags.primaries,
        transfer=family[2] if tags.transfer in _UNKNOWN else tags.transfer,
        siting=_siting(layout, codec=codec, matrix=matrix),
        assumed=tuple(assumed),
    )


def describe_assumption(colour: Colour, *, gray: bool = False) -> str | None:
    """Say in one line which matrix was assumed; None where it was stated, or where gray has none."""
    if gray or "matrix" not in colour.assumed:
        return None
    if colour.matrix in (5, 6):
        return "assuming BT.601 (SD)"
    return "assuming BT.709 (HD)" if colour.matrix == 1 else "assuming BT.2020 (from its primaries)"


def _family(tags: Tags, *, stated_matrix: bool, height: int, rate: Fraction | None) -> tuple[int, int, int]:
    """Return the family that fills the gaps: what is stated points to it, else the height does."""
    if stated_matrix and tags.matrix in _BY_MATRIX:
        return _BY_MATRIX[tags.matrix]
    if tags.primaries in _BY_PRIMARIES:
        return _BY_PRIMARIES[tags.primaries]
    if height >= HD_LINES:
        return BT709
    fifty_hertz = rate in (Fraction(25), Fraction(50)) and height not in (240, 480, 486)
    return BT601_625 if height in (288, 576) or fifty_hertz else BT601_525


def _is_full_range(tags: Tags, *, pix_fmt: str, rgb: bool) -> bool:
    # FFmpeg widens bits (black 0, white 1) and RGB to the full range.
    if rgb or pix_fmt.startswith("mono"):
        return tags.colour_range != _LIMITED
    return tags.colour_range == _FULL or pix_fmt.startswith("yuvj")


def _siting(layout: PlaneLayout, *, codec: str, matrix: int) -> Siting:
    if layout.chroma_shift in (None, (0, 0)) or codec in JPEG_LIKE:
        return Siting.CENTRE
    if layout.chroma_shift == (0, 1):
        return Siting.CENTRE
    if layout.chroma_shift == (1, 1) and matrix in (9, 10):
        return Siting.TOP_LEFT
    return Siting.LEFT
