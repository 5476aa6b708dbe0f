"""The slate: what stands where no camera picture is, so that it can be taken for none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from time import monotonic_ns

import numpy as np

from streamsr.display.lettering import Coverage, draw_lines, wrap
from streamsr.display.overlay import READABLE_CAPITAL_PX
from streamsr.display.paint import WHITE, Cover, Rgb, Stamp, flat_frame, lay_over, letter_cover, make_stamp
from streamsr.frame import Colour, Frame, Plane, PlaneLayout

GROUND: Rgb = (0.07, 0.12, 0.22)
"""Blue: a colour that the inside of a body does not have."""

AMBER: Rgb = (0.95, 0.68, 0.10)
PALE: Rgb = (0.78, 0.83, 0.90)
TITLE_SHARE, TEXT_SHARE, BAND_SHARE = 0.085, 0.034, 0.045
"""Heights of the title's capitals, of the other lines' and of the striped bands, over the shorter side."""

HD_COLOUR = Colour(matrix=1, full_range=False, primaries=1, transfer=1)


def no_signal_lines(age_s: float | None, note: str = "") -> tuple[str, ...]:
    """Return the lines of the slate of a lost source.

    Args:
        age_s: seconds since the last picture; None where there never was one.
        note: what is being done about it, in a few words.
    """
    last = "no picture yet" if age_s is None else f"last picture {spoken_age(age_s)} ago"
    return ("NO SIGNAL", last, *((note,) if note else ()))


def opening_lines(name: str) -> tuple[str, ...]:
    """Return the lines of the slate before the first picture."""
    return ("OPENING", name)


def spoken_age(seconds: float) -> str:
    """Return a duration as a person says it: ``3.2 s``, ``2 min 05 s``, ``1 h 02 min``."""
    whole = int(seconds)
    if whole < 60:
        return f"{max(int(seconds * 10), 0) / 10} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole // 60 % 60:02d} min"


def blank_frame(width: int, height: int, layout: PlaneLayout | None = None, colour: Colour = HD_COLOUR) -> Frame:
    """Return a frame to make slates like, where no source has given one yet.

    Args:
        width: in pixels.
        height: in pixels.
        layout: None takes 8-bit 4:2:0.
        colour: BT.709 in limited range where nothing is said.
    """
    layout = layout or PlaneLayout()
    chroma = layout.chroma_size(width, height)[::-1]
    sizes = [(height, width)] + ([] if layout.chroma_shift is None else [chroma, chroma])
    return Frame(tuple(np.zeros(size, layout.dtype) for size in sizes), layout, colour, 0, Fraction(1, 1000))


def slate(like: Frame, lines: Sequence[str], *, alarm: bool = True) -> Frame:
    """Draw a slate.

    Args:
        like: the frame whose size, layout, colour, pts and time base it takes.
        lines: the first large, the others below it in small letters.
        alarm: with striped bands; False is calm.

    Returns:
        A frame that was captured and has arrived now.
    """
    width, height, layout, colour = like.width, like.height, like.layout, like.colour
    drawn = like.with_planes(_ground(width, height, layout, colour, alarm))
    blocks = [(lines[:1], TITLE_SHARE, WHITE), (lines[1:], TEXT_SHARE, PALE)]
    # The title stands just above the middle and the lines just below, so that neither moves when the other changes.
    for index, (block, share, ink) in enumerate(blocks):
        if any(block):
            stamp, (wide, tall) = _text_stamp(tuple(block), _capital(share, like), ink, width, layout, colour)
            gap = _capital(TEXT_SHARE, like)
            top = height // 2 + gap if index else height // 2 - tall
            drawn = lay_over(drawn, stamp, (_even((width - wide) / 2), _even(top)))
    now_ns = monotonic_ns()
    return replace(drawn, captured_ns=now_ns, arrived_ns=now_ns)


def _capital(share: float, like: Frame) -> int:
    return max(READABLE_CAPITAL_PX, round(share * min(like.width, like.height)))


@lru_cache(maxsize=16)
def _text_stamp(
    lines: tuple[str, ...], capital_px: int, ink: Rgb, width: int, layout: PlaneLayout, colour: Colour
) -> tuple[Stamp, tuple[int, int]]:
    """Return centred lines as a stamp, and its (width, height); what is too wide for the picture is broken."""
    broken = [part for line in lines for part in wrap(line, capital_px, round(0.9 * width))]
    text = draw_lines(broken, capital_px, centred=True)
    text = np.pad(text, ((0, text.shape[0] % 2), (0, text.shape[1] % 2)))
    cover = letter_cover(text, ink, GROUND, 0.0)
    return make_stamp(cover, layout, colour), cover.size


@lru_cache(maxsize=4)
def _ground(width: int, height: int, layout: PlaneLayout, colour: Colour, alarm: bool) -> tuple[Plane, ...]:
    """Return the planes of an empty slate; shared, and like every frame's never written to."""
    ground = flat_frame(blank_frame(width, height, layout, colour), GROUND)
    if alarm:
        band = _even(max(BAND_SHARE * min(width, height), 4.0))
        stripes = _stripes(_even(width) + 2, band)
        rgb = np.ones((3, 1, 1), np.float32) * np.array(AMBER, np.float32).reshape(3, 1, 1)
        cover = Cover(np.broadcast_to(rgb, (3, *stripes.shape)), stripes)
        stamp = make_stamp(cover, layout, colour)
        for top in (0, _even(height - band)):
            ground = lay_over(ground, stamp, (0, top))
    return ground.planes


def _stripes(width: int, height: int) -> Coverage:
    """Return slanted stripes, as wide as the gaps between them, (height, width) float32 in [0, 1]."""
    period = 2.4 * height
    along = (np.arange(width)[None, :] + np.arange(height)[:, None]) % period
    distance = period / 4 - np.abs(along - period / 2)
    stripes: Coverage = np.clip(0.5 - distance, 0, 1).astype(np.float32)
    return stripes


def _even(length: float) -> int:
    return 2 * int(max(length, 0) / 2)
