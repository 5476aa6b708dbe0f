"""LR consistency: whether the enlarged picture, brought down again, gives the camera's picture back.

It bounds what a network may have added: what is consistent differs from the camera only in what the camera's sampling
cannot see. The filter is the stated one, antialiased bicubic with a = -1/2 (`streamsr.models.reduction`), in torch's
implementation and in floating point: not the projection's own, and not rounded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from streamsr.models.reduction import WITHIN_LEVELS


@dataclass(frozen=True)
class Agreement:
    """How well an enlarged picture gives its input back.

    Attributes:
        psnr_db: PSNR of the reduced picture against the input; infinite where they are equal.
        within_level: share of the input's samples that come back within one grey level.
        max_levels: the largest difference.
    """

    psnr_db: float
    within_level: float
    max_levels: float


def reduced(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.float32]:
    """Bring a picture down by the stated filter, clamped to [0, 255] and not rounded.

    Args:
        picture: (H, W) or (H, W, 3) uint8.
        size: (height, width) of the result.

    Returns:
        float32 of the size, and of three channels where the picture has them.
    """
    planes = torch.from_numpy(np.ascontiguousarray(np.atleast_3d(picture).transpose(2, 0, 1)))[None].float()
    down = functional.interpolate(planes, size=size, mode="bicubic", antialias=True, align_corners=False)
    made = down[0].clamp(0, 255).numpy()
    return np.ascontiguousarray(made[0] if picture.ndim == 2 else made.transpose(1, 2, 0))


def agreement(lr: NDArray[np.uint8], picture: NDArray[np.uint8]) -> Agreement:
    """Compare an enlarged picture, brought down, with what it was made of.

    Args:
        lr: (h, w) or (h, w, 3) uint8.
        picture: as many channels, uint8, larger.

    Raises:
        ValueError: they differ in their channels, or the picture is not the larger.
    """
    if lr.ndim != picture.ndim or any(small > large for small, large in zip(lr.shape, picture.shape, strict=True)):
        raise ValueError(f"expected a picture and a larger one of as many channels, got {lr.shape} and {picture.shape}")
    distance = np.abs(reduced(picture, (lr.shape[0], lr.shape[1])).astype(np.float64) - lr)
    mse = float(np.mean(np.square(distance)))
    return Agreement(
        psnr_db=float("inf") if mse == 0 else 10 * float(np.log10(255.0**2 / mse)),
        within_level=float(np.mean(distance <= WITHIN_LEVELS)),
        max_levels=float(distance.max()),
    )
