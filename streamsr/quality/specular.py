"""Specular highlights: where they are (Arnold et al. 2010), where training leaves them alone, how well they survive.

`find_highlights` is the detector, on the host; `saturation_mask` is a coarser form for the training device;
`measure_highlights` compares a picture with the truth in and around them.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from streamsr.quality.fidelity import field_of_view, psnr_db

SATURATED = 250 / 255
"""RGB level from which a sample counts as clipped."""

SATURATED_LUMA = (16 + 219 * SATURATED) / 255
"""What grey of that level reads in studio-range luma, of 255 (ITU-R BT.601-7, 2.5.3): 230.7."""

RING_PX = 8
"""Width of the ring around highlights in which ringing is looked for."""

OVERSHOOT_REACH_PX = 2
"""A sample overshoots when it leaves the range of the truth within so many pixels of it."""


@dataclass(frozen=True)
class HighlightSettings:
    """Thresholds of the detector, named as in Arnold et al. 2010, section 2; levels of 255.

    Attributes:
        strong: T1, level from which a pixel is a highlight by itself.
        candidate: T2 (absolute), level from which a pixel is left out when its surroundings are estimated.
        contrast: T2 (relative), ratio to the surroundings from which a pixel is a highlight.
        largest_share: N_min as a share of the picture; larger areas are bright tissue. 9000 of 574x500 pixels.
        gradient: T3, mean gradient that the contour of an area must have, in levels a pixel.
        median_share: side of the median window as a share of the picture's height, 30 of 500 pixels.
        floor: level below which nothing is a highlight; keeps the dark surround's noise out. Not in the paper.
    """

    strong: float = 240.0
    candidate: float = 180.0
    contrast: float = 1.0
    largest_share: float = 9000 / (574 * 500)
    gradient: float = 5.0
    median_share: float = 30 / 500
    floor: float = 100.0


ARNOLD = HighlightSettings()
"""The paper's values."""


def find_highlights(rgb: NDArray[np.uint8], settings: HighlightSettings = ARNOLD) -> NDArray[np.bool_]:
    """Find specular highlights as Arnold, Ghosh, Ameling and Lacey (EURASIP JIVP 2010, 814319) do.

    Module 1 takes what is absolutely bright, the thresholds of green and blue balanced by the picture's colour.
    Module 2 fills bright areas with the colour around them, smooths the filled picture by a median and takes what
    stands out of it. Areas that are too large or have too soft a contour are dropped again; the rest grows by 1 px.

    Simplified or adapted, since the paper's text leaves room: the sizes scale with the picture; the contour's gradient
    is Sobel's on luma; the dark surround, which the paper crops, takes the colours beside it; nothing below `floor` is
    taken. Burnt-in text is found too.

    Args:
        rgb: (H, W, 3) uint8.
        settings: thresholds.

    Returns:
        (H, W) bool.
    """
    levels = rgb.astype(np.float32)
    luma = levels @ np.array([0.299, 0.587, 0.114], np.float32)
    found = _bright(levels, luma, settings.strong)
    surroundings = _surroundings(rgb, _bright(levels, luma, settings.candidate), settings)
    found |= _stands_out(levels, surroundings) > settings.contrast
    found &= luma > settings.floor
    kept = _drop_soft_and_large(found, luma, settings)
    return np.asarray(cv2.dilate(kept.astype(np.uint8), _disc(1)) > 0)


def _bright(levels: NDArray[np.float32], luma: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    """Return module 1's mask: luma above a threshold, or green or blue above it times their share of the bright."""
    reference = max(float(np.percentile(luma, 95)), 1.0)
    mask = luma > threshold
    for channel in (1, 2):
        share = float(np.percentile(levels[..., channel], 95)) / reference
        mask |= levels[..., channel] > max(share, 1e-3) * threshold
    return mask


def _surroundings(
    rgb: NDArray[np.uint8], bright: NDArray[np.bool_], settings: HighlightSettings
) -> NDArray[np.float32]:
    """Return (H, W, 3) without bright areas: filled with the mean colour 2 to 4 px around, then median-filtered."""
    filled = rgb.copy()
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(bright.astype(np.uint8), connectivity=8)
    for label in range(1, count):
        left, top, width, height = (int(value) for value in boxes[label, :4])
        window = slice(max(top - 5, 0), top + height + 5), slice(max(left - 5, 0), left + width + 5)
        area = (labels[window] == label).astype(np.uint8)
        ring = (cv2.dilate(area, _disc(4)) > cv2.dilate(area, _disc(2))) & ~bright[window]
        if ring.any():
            filled[window][area > 0] = rgb[window][ring].mean(axis=0)
    filled = _without_surround(filled)
    side = max(3, round(settings.median_share * rgb.shape[0])) // 2 * 2 + 1
    return np.asarray(cv2.medianBlur(filled, side), np.float32)


def _without_surround(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Spread the colours of the field of view outwards, so that nothing stands out of the dark surround alone."""
    studio = (16 + rgb @ np.array([65.481, 128.553, 24.966]) / 255).astype(np.uint8)
    field = field_of_view(studio)
    _, nearest = cv2.distanceTransformWithLabels(
        (~field).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    colours = np.zeros((int(nearest.max()) + 1, 3), np.uint8)
    colours[nearest[field]] = rgb[field]
    spread: NDArray[np.uint8] = colours[nearest]
    return spread


def _stands_out(levels: NDArray[np.float32], surroundings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (H, W) the largest ratio of a channel to its surroundings, each weighted by mean / (mean + deviation)."""
    mean, deviation = levels.mean((0, 1)), levels.std((0, 1))
    weight = mean / np.maximum(mean + deviation, 1e-3)
    ratios: NDArray[np.float32] = (weight * levels / np.maximum(surroundings, 1.0)).max(axis=2)
    return ratios


def _drop_soft_and_large(
    found: NDArray[np.bool_], luma: NDArray[np.float32], settings: HighlightSettings
) -> NDArray[np.bool_]:
    """Keep the areas that are small enough and whose contour is steep enough."""
    gradient = np.hypot(cv2.Sobel(luma, cv2.CV_32F, 1, 0), cv2.Sobel(luma, cv2.CV_32F, 0, 1)) / 8
    area = found.astype(np.uint8)
    contour = found & (cv2.erode(area, _disc(1)) == 0)
    count, labels = cv2.connectedComponents(area, connectivity=8)
    sizes = np.bincount(labels.ravel(), minlength=count)
    lengths = np.bincount(labels[contour], minlength=count)
    steepness = np.bincount(labels[contour], weights=gradient[contour], minlength=count) / np.maximum(lengths, 1)
    keep = (sizes <= settings.largest_share * found.size) & (steepness >= settings.gradient)
    keep[0] = False
    kept: NDArray[np.bool_] = keep[labels]
    return kept


def _disc(radius_px: int) -> NDArray[np.uint8]:
    side = 2 * radius_px + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)


def saturation_mask(hr: Tensor, *, scale: int, grow_px: int = 2, every_channel: bool = False) -> Tensor:
    """Mark clipped samples and their neighbourhood, where texture cannot be known and only the fidelity loss acts.

    Nothing is read back and no shape depends on the data, so it may be captured in a CUDA graph.

    Args:
        hr: (B, C, H, W) in [0, 1]; C = 1 studio-range luma / 255, C = 3 RGB.
        scale: enlargement between the low resolution and `hr`.
        grow_px: low-resolution pixels by which clipped samples grow on every side.
        every_channel: count RGB as clipped only where all three are (white), not where one is. Red alone clips on
            wide parts of well-lit mucosa: on 12 frames of one colonoscopy set 19 % is marked so, 1 % by white.

    Returns:
        (B, 1, H, W) of hr's dtype, 1 on marked samples, else 0.
    """
    level = SATURATED_LUMA if hr.shape[1] == 1 else SATURATED
    # A thousandth of a level below, so that 250 / 255 in float32 counts whatever its last bit.
    samples = hr.detach().amin(1, keepdim=True) if every_channel else hr.detach().amax(1, keepdim=True)
    clipped = (samples >= level - 1e-3 / 255).to(hr.dtype)
    reach = grow_px * scale
    return functional.max_pool2d(clipped, 2 * reach + 1, stride=1, padding=reach)


def saturated(picture: NDArray[np.uint8], *, scale: int = 1, grow_px: int = 0) -> NDArray[np.bool_]:
    """Return `saturation_mask` of one picture on the host, (H, W) bool; (H, W) studio-range luma or (H, W, 3) RGB."""
    planes = torch.from_numpy(np.ascontiguousarray(np.atleast_3d(picture).transpose(2, 0, 1)))
    mask: NDArray[np.bool_] = (
        saturation_mask(planes[None].float() / 255, scale=scale, grow_px=grow_px)[0, 0].numpy() > 0
    )
    return mask


@dataclass(frozen=True)
class HighlightMeasures:
    """How a picture fares in and around the truth's highlights.

    Attributes:
        inside_psnr_db: PSNR inside the truth's highlights.
        ring_psnr_db: PSNR in the ring of 8 px around them.
        overshoot: mean of how far the ring's samples leave the truth's local range, in grey levels.
        overshoot_peak: the largest of it.
        overlap: intersection over union of the picture's highlights and the truth's.
        share: share of the truth that is highlight.
    """

    inside_psnr_db: float
    ring_psnr_db: float
    overshoot: float
    overshoot_peak: float
    overlap: float
    share: float


def measure_highlights(
    picture: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    *,
    picture_mask: NDArray[np.bool_],
    truth_mask: NDArray[np.bool_],
    field: NDArray[np.bool_] | None = None,
) -> HighlightMeasures | None:
    """Compare a picture with the truth in and around highlights.

    Args:
        picture: (H, W) or (H, W, 3) uint8.
        truth: the same shape.
        picture_mask: (H, W) bool, the picture's highlights, found as the truth's were.
        truth_mask: (H, W) bool, the truth's.
        field: (H, W) bool, where to look; everywhere when None.

    Returns:
        The measures, or None where the truth has no highlight in the field.

    Raises:
        ValueError: the shapes differ.
    """
    if not (picture.shape == truth.shape and picture.shape[:2] == picture_mask.shape == truth_mask.shape):
        shapes = (picture.shape, truth.shape, picture_mask.shape, truth_mask.shape)
        raise ValueError(f"expected two pictures and two masks of one size, got {shapes}; enlarge to the truth's size")
    field = np.ones_like(truth_mask) if field is None else field
    inside, ring = truth_mask & field, ring_around(truth_mask) & field
    if not inside.any() or not ring.any():
        return None
    excess = overshoot(picture, truth)[ring]
    union = (picture_mask | truth_mask) & field
    return HighlightMeasures(
        inside_psnr_db=psnr_db(picture, truth, mask=inside),
        ring_psnr_db=psnr_db(picture, truth, mask=ring),
        overshoot=float(excess.mean()),
        overshoot_peak=float(excess.max()),
        overlap=float((picture_mask & inside).sum() / union.sum()),
        share=float(inside.sum() / field.sum()),
    )


def ring_around(mask: NDArray[np.bool_], *, width_px: int = RING_PX) -> NDArray[np.bool_]:
    """Return what lies outside a mask and within `width_px` of it: (H, W) bool."""
    return np.asarray(cv2.dilate(mask.astype(np.uint8), _disc(width_px)) > 0) & ~mask


def overshoot(picture: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return how far each sample leaves the range that the truth has within 2 px, in grey levels, above or below."""
    window = np.ones((2 * OVERSHOOT_REACH_PX + 1,) * 2, np.uint8)
    levels = picture.astype(np.float32)
    above = levels - cv2.dilate(truth, window).astype(np.float32)
    below = cv2.erode(truth, window).astype(np.float32) - levels
    return np.asarray(np.maximum(np.maximum(above, below), 0), np.float32)
