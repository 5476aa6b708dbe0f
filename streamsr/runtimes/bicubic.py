"""Bicubic interpolation as a generator: the reference, the fallback and the fill of what is not worth a network."""

from __future__ import annotations

import cv2
import numpy as np

from streamsr.runtimes.base import Pictures


class BicubicGenerator:
    """Bicubic interpolation of single planes (OpenCV's kernel, a = -0.75, replicated border).

    Args:
        scale: enlargement of each side.
    """

    runtime = "bicubic"
    precision = "fp32"
    channels = 1
    radius_px = 3

    def __init__(self, scale: int) -> None:
        self.scale = scale
        self.description = f"bicubic (OpenCV {cv2.__version__}), CPU"

    def generate(self, pictures: Pictures, out: Pictures | None = None) -> Pictures:
        """Enlarge pictures; see `streamsr.runtimes.base.Generator.generate`."""
        num, channels, height, width = pictures.shape
        size = (width * self.scale, height * self.scale)
        if out is None:
            out = np.empty((num, channels, size[1], size[0]), pictures.dtype)
        for picture, enlarged in zip(
            pictures.reshape(-1, height, width), out.reshape(-1, size[1], size[0]), strict=True
        ):
            cv2.resize(picture, size, dst=enlarged, interpolation=cv2.INTER_CUBIC)
        return out
