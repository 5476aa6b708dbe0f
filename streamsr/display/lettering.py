"""Lettering: lines of text as a coverage mask, by OpenCV's own letters; no font file is ever read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import ceil
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Coverage = NDArray[np.float32]

FACE = cv2.FONT_HERSHEY_SIMPLEX
LEADING = 1.75
"""Distance of two lines over the height of a capital."""

BEYOND = 0.32
"""Room above capitals and below the baseline over the height of a capital: brackets, g, j, p, q and y need it."""

SMALLEST_CAPITAL_PX = 5
"""Below this no capital can be told from another."""


def plain_text(text: str) -> str:
    """Return a text with every character that the letters lack replaced by ``?``."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in text)


@lru_cache(maxsize=256)
def draw_line(text: str, capital_px: int) -> Coverage:
    """Draw one line.

    Args:
        text: any; characters outside of ASCII become ``?``.
        capital_px: height of a capital.

    Returns:
        (H, W) float32 in [0, 1], read-only: how far each pixel is covered; W is that of the ink, at least 1, and H that
            of a capital with `BEYOND` on both sides.
    """
    text, size, thick = plain_text(text), _font_size(capital_px), _thickness(capital_px)
    (wide, _), _ = cv2.getTextSize(text, FACE, size, thick)
    side, beyond = 2 * capital_px, ceil(BEYOND * capital_px)
    canvas: Any = np.zeros((capital_px + 2 * beyond, wide + 2 * side), np.uint8)
    cv2.putText(canvas, text, (side, beyond + capital_px), FACE, size, 255, thick, cv2.LINE_AA)
    inked = np.flatnonzero(canvas.any(axis=0))
    ink = canvas[:, inked[0] : inked[-1] + 1] if len(inked) else canvas[:, :1]
    coverage: Coverage = ink.astype(np.float32) / np.float32(255)
    coverage.setflags(write=False)
    return coverage


def draw_lines(lines: Sequence[str], capital_px: int, *, centred: bool = False) -> Coverage:
    """Draw lines below each other.

    Args:
        lines: at least one.
        capital_px: height of a capital.
        centred: over each other's middle, else from the left.

    Returns:
        (H, W) float32 in [0, 1], fresh.
    """
    drawn = [draw_line(line, capital_px) for line in lines]
    step = round(LEADING * capital_px)
    wide = max(line.shape[1] for line in drawn)
    block = np.zeros((step * (len(drawn) - 1) + len(drawn[-1]), wide), np.float32)
    for index, line in enumerate(drawn):
        left = (wide - line.shape[1]) // 2 if centred else 0
        there = block[index * step : index * step + len(line), left : left + line.shape[1]]
        np.maximum(there, line, out=there)
    return block


def wrap(text: str, capital_px: int, width_px: int) -> tuple[str, ...]:
    """Break a text into lines, first where it has `` - ``, then between words where a line would be too wide."""
    lines: list[str] = []
    for part in text.split(" - "):
        words = part.split() or [""]
        lines.append(words[0])
        for word in words[1:]:
            longer = f"{lines[-1]} {word}"
            if draw_line(longer, capital_px).shape[1] <= width_px:
                lines[-1] = longer
            else:
                lines.append(word)
    return tuple(lines)


@lru_cache(maxsize=64)
def _font_size(capital_px: int) -> float:
    """Return OpenCV's font scale that makes a capital this high; its letters differ between versions 4 and 5."""
    probe_px = 100.0
    canvas: Any = np.zeros((400, 400), np.uint8)
    cv2.putText(canvas, "H", (40, 300), FACE, probe_px / 22, 255, 1)
    found = np.flatnonzero(canvas.any(axis=1))
    return float(capital_px / (found[-1] - found[0] + 1) * probe_px / 22)


def _thickness(capital_px: int) -> int:
    """Return a stroke of about a ninth of a capital, bold enough to be read on a moving picture."""
    return max(1, round(capital_px / 9))
