"""Stand-ins for pictures that a GPU decoded: PyAV's own on the CPU, which look as if they lay on a GPU."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame

STORED = {"yuv420p": "nv12", "yuv420p10le": "p010le", "yuv420p16le": "p016le"}
"""The format of a surface, by that of the planes it holds."""


class Surface:
    """A picture whose planes only ``__dlpack__`` gives, as PyAV's are where a GPU keeps them.

    Args:
        picture: in host memory, nv12, p010le or p016le; what it is asked beside its samples comes from it.

    Attributes:
        num_downloads: how often its samples were asked for on the host.
    """

    num_downloads = 0

    def __init__(self, picture: VideoFrame) -> None:
        self.picture = picture
        self.format, self.sw_format = SimpleNamespace(name="cuda", components=()), picture.format
        self.planes: tuple[Any, ...] = tuple(map(SurfacePlane, picture.planes))

    def reformat(self, **wanted: Any) -> VideoFrame:
        Surface.num_downloads += 1
        return self.picture.reformat(**wanted)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.picture, name)


class SurfacePlane:
    """A plane of a surface; refuses a CUDA stream, as PyAV does, and the buffer protocol."""

    def __init__(self, plane: Any) -> None:
        self._plane = plane

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        if stream is not None:
            raise NotImplementedError("CUDA stream synchronization is not supported.")
        return self._plane.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)


def on_surface(picture: VideoFrame) -> Surface:
    """Return a decoded picture as a GPU would have it."""
    return Surface(picture.reformat(format=STORED[picture.format.name.replace("yuvj", "yuv")], threads=1))


def noise(fmt: str, width: int, height: int, *, seed: int = 0) -> VideoFrame:
    """Return an nv12, p010le or p016le picture of noise, whose unused low bits are 0; rows are strided."""
    picture, rng = av.VideoFrame(width, height, fmt), np.random.default_rng(seed)
    for plane in picture.planes:
        levels = rng.integers(0, 256, plane.buffer_size, np.uint8)
        if fmt == "p010le":
            levels = (levels.view(np.uint16) & 0xFFC0).view(np.uint8)
        plane.update(levels.tobytes())
    picture.pts, picture.time_base = seed, Fraction(1, 25)
    return picture
