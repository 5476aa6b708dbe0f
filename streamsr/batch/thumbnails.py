"""Small pictures for the report: the middle of the original and the same place enlarged, as JPEG in text."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from streamsr.batch.contents import opened
from streamsr.capture.opening import choose_video
from streamsr.errors import StreamsrError

CROP_PX = 96
"""Side of what is cut out of the original."""

QUALITY = 80


class Thumbnails:
    """Keeps the picture in the middle of a result while it is checked, and finds the same one in its source.

    Args:
        source: name of the source.
        num_frames: how many pictures there are.
    """

    def __init__(self, source: str, num_frames: int) -> None:
        self._source, self._wanted = source, num_frames // 2
        self._enlarged: NDArray[np.uint8] | None = None
        self._seconds = 0.0

    def keep(self, number: int, seconds: float, picture: Any) -> None:
        """Take a decoded picture of the result."""
        if number == self._wanted:
            self._enlarged = picture.to_ndarray(format="bgr24")
            self._seconds = seconds

    def made(self, scale: int) -> dict[str, str] | None:
        """Return both crops in base64, or None where the source's picture cannot be had."""
        try:
            original = picture_at(self._source, self._seconds)
        except (StreamsrError, FFmpegError, OSError):
            return None
        if original is None or self._enlarged is None:
            return None
        height, width = original.shape[:2]
        top, left = max(0, (height - CROP_PX) // 2), max(0, (width - CROP_PX) // 2)
        crop = original[top : top + CROP_PX, left : left + CROP_PX]
        place = slice(top * scale, (top + CROP_PX) * scale), slice(left * scale, (left + CROP_PX) * scale)
        return {"original": _jpeg(crop), "enlarged": _jpeg(self._enlarged[place])}


def picture_at(source: str, seconds: float) -> NDArray[np.uint8] | None:
    """Return the (H, W, 3) uint8 BGR picture of a file that is shown at a time, or the next one after it."""
    with opened(Path(source)) as container:
        track, _ = choose_video(container, source)
        container.seek(max(0, int(seconds * 1e6)))
        for picture in container.decode(track):
            if picture.pts is not None and float(picture.pts * (track.time_base or 0)) >= seconds - 1e-3:
                found: Any = picture.to_ndarray(format="bgr24")
                return np.asarray(found, np.uint8)
    return None


def _jpeg(picture: NDArray[np.uint8]) -> str:
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return base64.b64encode(data.tobytes()).decode("ascii")
