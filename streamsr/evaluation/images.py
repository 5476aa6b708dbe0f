"""Reading a picture that a user has: any common format and depth, to 8-bit RGB, and what had to be done for that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from streamsr.errors import InputError, InputNotFound

SMALLEST_SIDE_PX = 64
"""A picture must hold one patch of every measure."""


def read_picture(path: Path) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Read a picture.

    Returns:
        (H, W, 3) uint8 RGB, and what was done to get it, a few words each.

    Raises:
        InputNotFound: there is no such file.
        InputError: it is no picture, is cut short, has samples that are no integers, or is too small.
    """
    try:
        content = path.read_bytes()
    except OSError as cause:
        raise InputNotFound(f"{path}: expected a picture, got {cause.strerror}; check the path") from cause
    _refuse_broken(path)
    samples = _decoded(content)
    if samples is None:
        raise InputError(f"{path}: expected a picture, got {_kind(content)}; take it out or convert it to PNG")
    return to_rgb(np.asarray(samples), path)


def _decoded(content: bytes) -> Any:
    """Return what OpenCV makes of a file, None where it makes nothing of it."""
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if content else None
    except cv2.error:  # more pixels than it allows, among others
        return None


def to_rgb(samples: NDArray[Any], path: Path) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Return (H, W, 3) uint8 RGB of decoded samples, channels last and blue first, and what was done.

    Raises:
        InputError: samples that are no integers of 8 or 16 bits, or too small a picture.
    """
    if samples.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path}: expected samples of 8 or 16 bits, got {samples.dtype}; convert it to PNG")
    height, width = samples.shape[:2]
    if min(height, width) < SMALLEST_SIDE_PX:
        least = f"{SMALLEST_SIDE_PX}x{SMALLEST_SIDE_PX}"
        raise InputError(f"{path}: expected {least} pixels or more, got {width}x{height}; take it out")
    done = []
    if samples.dtype == np.uint16:
        samples = np.rint(samples / 257.0).astype(np.uint8)
        done.append("16 bits brought to 8")
    if samples.ndim == 3 and samples.shape[2] == 4:
        samples = samples[..., :3]
        done.append("alpha dropped")
    if samples.ndim == 2 or samples.shape[2] == 1:
        samples = np.repeat(samples.reshape(height, width, 1), 3, axis=2)
        done.append("gray, as three equal channels")
    return np.ascontiguousarray(samples[..., ::-1], np.uint8), tuple(done)


def _refuse_broken(path: Path) -> None:
    """Refuse a file that Pillow knows and finds damaged; what it does not know is left to OpenCV.

    OpenCV shows what is left of a damaged picture in silence, with grey for the rest.

    Raises:
        InputError: it is damaged.
    """
    try:
        with Image.open(path) as picture:
            picture.load()
    except UnidentifiedImageError:
        return
    except Exception as cause:  # Pillow raises many kinds for broken files
        line = " ".join(str(cause).split())[:100]
        raise InputError(f"{path}: expected a whole picture, got {line}; restore it or take it out") from cause


def _kind(content: bytes) -> str:
    return "none that can be decoded" if content else "an empty file"
