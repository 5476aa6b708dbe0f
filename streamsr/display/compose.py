"""Compose: one presentation, as a view's state wants it, in one picture of the view's size."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, floor

import numpy as np

from streamsr.display.decoration import Around, Decoration
from streamsr.display.panes import Pane, line_px, panes
from streamsr.display.shown import Shown
from streamsr.display.viewport import Picture, render
from streamsr.display.viewstate import Arrangement, ViewState
from streamsr.frame import Frame

MARGIN_PX = 2
"""Pixels of context that cubic interpolation reads round the part that is shown."""


def compose(
    shown: Shown, state: ViewState, size: tuple[int, int], *, now_ns: int, around: Around | None = None
) -> Picture:
    """Return what a view shows.

    Args:
        shown: the presentation.
        state: how the view shows it.
        size: (width, height) of the view in pixels.
        now_ns: `time.monotonic_ns`, which tells the age of a frozen picture.
        around: what is laid over besides.

    Returns:
        (height, width, 3) uint8 RGB, fresh; black where the picture does not reach.
    """
    canvas: Picture = np.empty((size[1], size[0], 3), np.uint8)
    places = panes(shown, state, size)
    if sum(pane.width * pane.height for pane in places) < size[0] * size[1]:
        canvas[...] = 0
    for frame, pane, visible in _parts(shown, state, places):
        there = canvas[pane.top : pane.top + pane.height, pane.left : pane.left + pane.width]
        render_part(frame, visible, there)
    Decoration(canvas, shown, state, places).draw(now_ns, around or Around())
    return canvas


def render_part(frame: Frame, visible: tuple[float, float, float, float], there: Picture) -> None:
    """Draw a part of a frame, given as (left, top, right, bottom) parts of it, so that it fills a place in a canvas.

    What is shown begins and ends between samples: the whole samples round it are resampled, and cut to a pixel.
    """
    size = (there.shape[1], there.shape[0])
    spans = (_span(visible[0], visible[2], frame.width, size[0]), _span(visible[1], visible[3], frame.height, size[1]))
    (left, right, wide, x), (top, bottom, tall, y) = spans
    window = (left, top, right, bottom)
    if (wide, tall) == size and there.flags.c_contiguous:
        render(frame, window, size, there)
        return
    there[...] = render(frame, window, (wide, tall))[y : y + size[1], x : x + size[0]]


def _span(start: float, stop: float, length: int, wanted: int) -> tuple[int, int, int, int]:
    """Return (first sample, sample behind the last, pixels that they make, first pixel wanted) along an axis."""
    if start <= 0.0 and stop >= 1.0:
        return 0, length, wanted, 0
    begin, end = start * length, stop * length
    first = max(2 * floor((begin - MARGIN_PX) / 2), 0)
    last = min(2 * ceil((end + MARGIN_PX) / 2), length)
    pixels_a_sample = wanted / (end - begin)
    made = max(round((last - first) * pixels_a_sample), wanted)
    return first, last, made, min(max(round((begin - first) * pixels_a_sample), 0), made - wanted)


def _parts(
    shown: Shown, state: ViewState, places: tuple[Pane, ...]
) -> Iterator[tuple[Frame, Pane, tuple[float, float, float, float]]]:
    """Give each frame to draw, where, and what part of it."""
    if shown.original is None:
        yield shown.picture, places[0], (0.0, 0.0, 1.0, 1.0)
        return
    if state.arrangement is Arrangement.SPLIT:
        yield from _split(shown.original, shown.picture, places[0], state)
        return
    frames = {
        Arrangement.ENLARGED: (shown.picture,),
        Arrangement.ORIGINAL: (shown.original,),
        Arrangement.SIDE_BY_SIDE: (shown.original, shown.picture),
    }[state.arrangement]
    for frame, pane in zip(frames, places, strict=True):
        yield frame, pane, state.visible


def _split(
    original: Frame, enlarged: Frame, pane: Pane, state: ViewState
) -> Iterator[tuple[Frame, Pane, tuple[float, float, float, float]]]:
    left, top, right, bottom = state.visible
    wide = line_px(pane, state)
    middle = left + (right - left) * wide / pane.width
    if wide:
        yield original, Pane(pane.left, pane.top, wide, pane.height), (left, top, middle, bottom)
    if wide < pane.width:
        rest = Pane(pane.left + wide, pane.top, pane.width - wide, pane.height)
        yield enlarged, rest, (middle, top, right, bottom)
