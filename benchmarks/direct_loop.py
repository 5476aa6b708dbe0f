"""The plain program round a library: PyAV decodes, the library enlarges the luma, OpenCV the chroma, PyAV encodes.

One thread, whole frames, the encoder with the settings that `upscale_file` has; PyAV's own threads as it offers them.
Times are kept, colour tags and sound are not.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2

# isort: split
import av
import numpy as np
from numpy.typing import NDArray

ENCODER = {"crf": "16", "preset": "superfast"}

Picture = NDArray[np.uint8]


def enlarge_directly(
    source: Path, target: Path, scale: int, make: Callable[[int, int], Callable[[Picture], Picture]]
) -> int:
    """Enlarge a 4:2:0 video of 8 bits and return how many frames there were.

    Args:
        source: a video file.
        target: a Matroska file; replaced.
        scale: enlargement of each side, even.
        make: returns what enlarges luma of a width and height.
    """
    with av.open(str(source)) as reading, av.open(str(target), "w") as writing:
        decoded = reading.streams.video[0]
        decoded.thread_type = "AUTO"
        width, height = decoded.codec_context.width, decoded.codec_context.height
        enlarge = make(width, height)
        encoded: Any = writing.add_stream("libx264", rate=decoded.average_rate or Fraction(25), options=dict(ENCODER))
        encoded.width, encoded.height, encoded.pix_fmt = scale * width, scale * height, "yuv420p"
        encoded.time_base = decoded.time_base
        num_frames = 0
        for frame in reading.decode(decoded):
            large = enlarge_frame(frame, scale, enlarge)
            large.pts, large.time_base = frame.pts, frame.time_base
            writing.mux(encoded.encode(large))
            num_frames += 1
        writing.mux(encoded.encode(None))
    return num_frames


def enlarge_frame(frame: Any, scale: int, enlarge: Callable[[Picture], Picture]) -> Any:
    """Enlarge a decoded yuv420p frame: (3 / 2 H, W) uint8 planes below one another in and out."""
    width, height = frame.width, frame.height
    planes = frame.to_ndarray(format="yuv420p")
    chroma = planes[height:].reshape(2, height // 2, width // 2)
    size = (scale * width // 2, scale * height // 2)
    large = np.empty((3 * scale * height // 2, scale * width), np.uint8)
    large[: scale * height] = enlarge(planes[:height])
    for plane, out in zip(chroma, large[scale * height :].reshape(2, *reversed(size)), strict=True):
        cv2.resize(plane, size, dst=out, interpolation=cv2.INTER_CUBIC)
    return av.VideoFrame.from_ndarray(large, format="yuv420p")
