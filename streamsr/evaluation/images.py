"""Reading a picture that a user has: any common format and depth, to 8-bit RGB, and what had to be done for that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from streamsr.errors import InputError, InputNotFound

SMALLEST_SIDE_PX = 64
"""A picture must hold one patch of every measure."""

HELD_BITS = (8, 10, 12)
"""Depths that are kept in the low bits of 16-bit files; a deeper picture uses the whole range."""

ORIENTATION = 0x0112
"""EXIF's tag of how a picture is to be turned."""


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
    orientation, pages = _looked_at(path)
    samples = _decoded(content)
    if samples is None:
        raise InputError(f"{path}: expected a picture, got {_kind(content)}; take it out or convert it to PNG")
    done = (f"the first of {pages} pages",) if pages > 1 else ()
    rgb, changes = to_rgb(np.asarray(samples), path)
    if orientation in TURNS:
        rgb, done = np.ascontiguousarray(TURNS[orientation](rgb)), (*done, "turned as its EXIF says")
    return rgb, (*done, *changes)


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
    if samples.ndim == 3 and samples.shape[2] == 4:
        samples = samples[..., :3]
        done.append("alpha dropped")
    if samples.dtype == np.uint16:
        bits = held_bits(int(samples.max()))
        samples = np.rint(samples * (255.0 / (2**bits - 1))).astype(np.uint8)
        done.append("16 bits brought to 8" if bits == 16 else f"16 bits that hold {bits}, brought to 8")
    if samples.ndim == 2 or samples.shape[2] == 1:
        samples = np.repeat(samples.reshape(height, width, 1), 3, axis=2)
        done.append("gray, as three equal channels")
    return np.ascontiguousarray(samples[..., ::-1], np.uint8), tuple(done)


def held_bits(largest: int) -> int:
    """Return the bits that the samples of a 16-bit file hold, by the largest.

    >>> [held_bits(largest) for largest in (255, 1023, 4095, 4096, 65535)]
    [8, 10, 12, 16, 16]
    """
    return next((bits for bits in HELD_BITS if largest < 2**bits), 16)


TURNS: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    2: np.fliplr,
    3: lambda rgb: np.rot90(rgb, 2),
    4: np.flipud,
    5: lambda rgb: rgb.swapaxes(0, 1),
    6: lambda rgb: np.rot90(rgb, -1),
    7: lambda rgb: np.rot90(rgb, 2).swapaxes(0, 1),
    8: np.rot90,
}
"""EXIF orientation -> what brings a picture upright."""


def _looked_at(path: Path) -> tuple[int, int]:
    """Refuse a file that Pillow knows and finds damaged; what it does not know is left to OpenCV.

    OpenCV shows what is left of a damaged picture in silence, with grey for the rest. It leaves a picture as it lies
    in the file, but for TIFF, which it turns by itself.

    Returns:
        The EXIF orientation that is still to be applied, and the number of pages.

    Raises:
        InputError: it is damaged.
    """
    try:
        with Image.open(path) as picture:
            turned = 1 if picture.format == "TIFF" else int(picture.getexif().get(ORIENTATION, 1))
            pages = int(getattr(picture, "n_frames", 1))
            picture.load()
            return turned, pages
    except UnidentifiedImageError:
        return 1, 1
    except Exception as cause:  # Pillow raises many kinds for broken files
        line = " ".join(str(cause).split())[:100]
        raise InputError(f"{path}: expected a whole picture, got {line}; restore it or take it out") from cause


def _kind(content: bytes) -> str:
    return "none that can be decoded" if content else "an empty file"
