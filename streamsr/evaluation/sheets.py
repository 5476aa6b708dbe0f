"""Sheets: crops side by side in one PNG, a row each, a column a method, labelled."""

from __future__ import annotations

import base64

import cv2
import numpy as np
from numpy.typing import NDArray

from streamsr.evaluation.crops import Crop

Samples = NDArray[np.uint8]

CELL_PX = 224
"""Side of a cell; crops are enlarged to it by repeating pixels, so that nothing is smoothed."""

LABEL_PX, GAP_PX = 20, 4
BACKGROUND, INK, FAINT = (24, 24, 24), (240, 240, 240), (170, 170, 170)
DIFFERENCE_GAIN = 4
"""How much larger than they are differences are drawn, around middle grey."""


def sheet(crops: list[Crop], *, difference_of: str | None = None) -> Samples:
    """Draw crops, a row each.

    Args:
        crops: with the same columns.
        difference_of: method whose difference to the truth, four times as strong, gets a column of its own.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: there are none.
    """
    if not crops:
        raise ValueError("expected crops to draw, got none")
    rows = [_row(crop, difference_of) for crop in crops]
    width = max(row.shape[1] for row in rows)
    padded = [_framed(row, row.shape[0] + GAP_PX, width) for row in rows]
    return np.asarray(np.concatenate(padded), np.uint8)


def _row(crop: Crop, difference_of: str | None) -> Samples:
    pictures = dict(crop.pictures)
    if difference_of is not None:
        pictures[f"difference x{DIFFERENCE_GAIN}"] = difference(pictures[difference_of], pictures["truth"])
    cells = [_cell(picture, name, crop.psnr_db.get(name)) for name, picture in pictures.items()]
    row = np.concatenate(cells, axis=1)
    line = f"{crop.dataset}: {crop.name} at {crop.left},{crop.top}"
    return np.asarray(np.concatenate([_label(line, row.shape[1], INK), row]), np.uint8)


def _cell(picture: Samples, name: str, decibels: float | None) -> Samples:
    side = (CELL_PX, CELL_PX)
    large = np.asarray(cv2.resize(picture, side, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
    text = name if decibels is None else f"{name}  {decibels:.1f} dB"
    cell = np.asarray(np.concatenate([large, _label(text, CELL_PX, FAINT)]), np.uint8)
    return _framed(cell, cell.shape[0], CELL_PX + GAP_PX)


def _label(text: str, width: int, ink: tuple[int, int, int]) -> Samples:
    label = np.empty((LABEL_PX, width, 3), np.uint8)
    label[:] = BACKGROUND
    plain = text.encode("ascii", "replace").decode()  # OpenCV's font has no other letters
    (long, _), _ = cv2.getTextSize(plain, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 1)
    size = 0.42 * min(1.0, (width - 8) / max(long, 1))
    cv2.putText(label, plain, (4, LABEL_PX - 6), cv2.FONT_HERSHEY_SIMPLEX, size, ink, 1, cv2.LINE_AA)
    return label


def _framed(picture: Samples, height: int, width: int) -> Samples:
    made = np.empty((height, width, 3), np.uint8)
    made[:] = BACKGROUND
    made[: picture.shape[0], : picture.shape[1]] = picture
    return made


def difference(picture: Samples, truth: Samples) -> Samples:
    """Return what a picture has that the truth has not, around middle grey, `DIFFERENCE_GAIN` times as strong."""
    apart = picture.astype(np.int16) - truth
    return np.asarray(np.clip(128 + DIFFERENCE_GAIN * apart, 0, 255), np.uint8)


def png(picture: Samples) -> bytes:
    """Return (H, W, 3) uint8 RGB as a PNG file."""
    _, content = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))
    return bytes(content.tobytes())


def data_address(picture: Samples) -> str:
    """Return a picture as an address that holds it, for a page that loads nothing."""
    return "data:image/png;base64," + base64.b64encode(png(picture)).decode()
