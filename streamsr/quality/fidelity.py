"""How near a picture is to the truth: PSNR on luma, inside the field of view or over the whole frame."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

FIELD_THRESHOLD = 32
"""Luma (studio range, 16 = black) above which a pixel counts as lit; the surround's compression noise stays below."""

FIELD_EROSION_PX = 12
"""How far the field of view is worn down, so that the hard edge of the surround does not rule the figure."""


SSIM_WINDOW_PX = 11
"""Side of the window of structural similarity."""


def field_of_view(luma: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Find the part of the picture that the scope lights: non-black, holes filled, worn down by 12 px.

    Args:
        luma: (H, W) uint8, studio range.

    Returns:
        (H, W) bool; True inside the field of view. Where nothing is left, all True.
    """
    field = _lit_area(luma)
    return field if field.any() else np.ones_like(field)


def is_lit(luma: NDArray[np.uint8]) -> bool:
    """Return whether a picture has a field of view: lit parts wide enough that something of them is left.

    Black frames have none. Every way to enlarge them gives them back, and a PSNR of such frames says nothing.

    Args:
        luma: (H, W) uint8, studio range.
    """
    return bool(_lit_area(luma).any())


def _lit_area(luma: NDArray[np.uint8]) -> NDArray[np.bool_]:
    lit = (luma > FIELD_THRESHOLD).astype(np.uint8)
    outside = cv2.copyMakeBorder(1 - lit, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    cv2.floodFill(outside, None, (0, 0), 2)
    filled = (outside[1:-1, 1:-1] != 2).astype(np.uint8)
    side = 2 * FIELD_EROSION_PX + 1
    padded = cv2.copyMakeBorder(filled, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    worn = cv2.erode(padded, np.ones((side, side), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)[1:-1, 1:-1]
    return np.asarray(worn, bool)


def psnr_db(
    picture: NDArray[np.uint8], truth: NDArray[np.uint8], *, mask: NDArray[np.bool_] | None = None, peak: float = 255.0
) -> float:
    """Return the peak signal-to-noise ratio in decibels, 10 log10(peak^2 / MSE).

    Args:
        picture: the picture to judge, any shape, uint8.
        truth: the truth, same shape, uint8.
        mask: where to measure; everywhere when None.
        peak: the largest possible value.

    Raises:
        ValueError: the shapes differ.
    """
    if picture.shape != truth.shape:
        raise ValueError(f"expected two pictures of one shape, got {picture.shape} and {truth.shape}")
    error = picture.astype(np.float64) - truth.astype(np.float64)
    mse = float(np.mean(np.square(error if mask is None else error[mask])))
    return float("inf") if mse == 0 else 10.0 * float(np.log10(peak**2 / mse))


def ssim(
    picture: NDArray[np.uint8], truth: NDArray[np.uint8], *, mask: NDArray[np.bool_] | None = None, peak: float = 255.0
) -> float:
    """Return the structural similarity of Wang et al. 2004: Gaussian window of sigma 1.5 and 11 samples, K 0.01, 0.03.

    Where no mask is given the outermost 5 samples are left out of the mean, as scikit-image does; of colour pictures it
    is the mean of the channels.

    Args:
        picture: (H, W) or (H, W, 3) uint8, at least 11 on each side.
        truth: the same shape, uint8.
        mask: where to average; everywhere but the border when None.
        peak: the largest possible value.

    Raises:
        ValueError: the shapes differ, or a side is below 11.
    """
    if picture.shape != truth.shape or min(picture.shape[:2]) < SSIM_WINDOW_PX:
        raise ValueError(f"expected two planes of one shape, 11 or more a side, got {picture.shape} and {truth.shape}")
    if picture.ndim == 3:
        channels = range(picture.shape[2])
        return float(np.mean([ssim(picture[..., at], truth[..., at], mask=mask, peak=peak) for at in channels]))
    ours, theirs = picture.astype(np.float64), truth.astype(np.float64)
    mean_ours, mean_theirs = _smooth(ours), _smooth(theirs)
    variance_ours = _smooth(ours * ours) - mean_ours**2
    variance_theirs = _smooth(theirs * theirs) - mean_theirs**2
    covariance = _smooth(ours * theirs) - mean_ours * mean_theirs
    low, high = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    likeness = (2 * mean_ours * mean_theirs + low) * (2 * covariance + high)
    likeness = likeness / ((mean_ours**2 + mean_theirs**2 + low) * (variance_ours + variance_theirs + high))
    border = SSIM_WINDOW_PX // 2
    return float(np.mean(likeness[border:-border, border:-border] if mask is None else likeness[mask]))


def _smooth(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    window = (SSIM_WINDOW_PX, SSIM_WINDOW_PX)
    return np.asarray(cv2.GaussianBlur(plane, window, 1.5, borderType=cv2.BORDER_REFLECT), np.float64)
