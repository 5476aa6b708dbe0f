"""Steadiness over time: whether an enlarged video flickers, and whether it moves as the camera's does.

- *Warp error*: the next frame, taken back along the motion, against this one: mean absolute luma difference where the
  motion can be trusted. The motion is estimated once, on the camera's own frames, for all methods; so a method cannot
  look steady by blurring the motion away. Noise, light and breathing move the camera's own frames too: read it beside
  the camera's own warp error.
- *Flicker*: mean absolute change of luma from frame to frame where the camera's picture rests (no sample within 1 px of
  the place changes by more than a level). What changes there was added.
- *Change error*, where the truth is known: mean absolute difference between the change of a picture and the change of
  the truth (as in Chu et al. 2020, TecoGAN, equation 5 without its features).

Optical flow is OpenCV's dense inverse search (Kroeger et al. 2016).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Luma = NDArray[np.uint8]
Flow = NDArray[np.float32]

ROUND_TRIP_PX = 0.5
"""Motion is trusted where forth and back again ends within so many pixels of the start."""

RESTS_LEVELS = 1
"""Largest change of a sample that rests: a coder's rounding."""


@dataclass(frozen=True)
class Motion:
    """The motion between two frames of the camera.

    Attributes:
        flow: (h, w, 2) float32, where a pixel of the first frame is in the second, in pixels, x first.
        trusted: (h, w) bool.
        rests: (h, w) bool, nothing changes here.
    """

    flow: Flow
    trusted: NDArray[np.bool_]
    rests: NDArray[np.bool_]


@dataclass(frozen=True)
class Steadiness:
    """How steady one step from a frame to the next is, in grey levels of luma; NaN where nothing could be measured.

    Attributes:
        warp_error: along the camera's motion.
        flicker: where the camera's picture rests.
        change_error: against the change of the truth.
        moved_px: mean length of the trusted motion, in pixels of the camera.
        trusted: share of the camera's picture where motion was trusted.
        rests: share that rests.
    """

    warp_error: float
    flicker: float
    change_error: float
    moved_px: float
    trusted: float
    rests: float


def motion_between(first: Luma, second: Luma) -> Motion:
    """Estimate the motion between two (h, w) uint8 frames of the camera.

    Raises:
        ValueError: the shapes differ.
    """
    if first.shape != second.shape:
        raise ValueError(f"expected two frames of one shape, got {first.shape} and {second.shape}")
    forth, back = _flow(first, second), _flow(second, first)
    returned = forth + _sampled(back, forth)
    trusted = np.hypot(returned[..., 0], returned[..., 1]) <= ROUND_TRIP_PX
    change = cv2.absdiff(first, second)
    rests = cv2.dilate(change, np.ones((3, 3), np.uint8)) <= RESTS_LEVELS
    return Motion(forth, trusted & _inside(forth), np.asarray(rests))


def steadiness(
    first: Luma, second: Luma, motion: Motion, *, scale: int, truth: tuple[Luma, Luma] | None = None
) -> Steadiness:
    """Measure a step of an enlarged video, or of the camera's own with scale 1.

    Args:
        first: (scale * h, scale * w) uint8 luma.
        second: the frame after it.
        motion: the camera's.
        scale: enlargement.
        truth: the two frames as they should be; None where that is not known.

    Raises:
        ValueError: the shapes are not the motion's, enlarged.
    """
    height, width = motion.trusted.shape
    if not first.shape == second.shape == (scale * height, scale * width):
        raise ValueError(f"expected frames of {(scale * height, scale * width)}, got {first.shape} and {second.shape}")
    flow = _enlarged(motion.flow, scale)
    trusted = _grown(motion.trusted, scale) & _inside(flow)
    rests = _grown(motion.rests, scale)
    warped = np.abs(_sampled(second.astype(np.float32), flow) - first)
    change = second.astype(np.float32) - first
    error = float("nan")
    if truth is not None:
        error = float(np.mean(np.abs(change - (truth[1].astype(np.float32) - truth[0]))))
    length = np.hypot(motion.flow[..., 0], motion.flow[..., 1])
    return Steadiness(
        warp_error=_mean(warped, trusted),
        flicker=_mean(np.abs(change), rests),
        change_error=error,
        moved_px=_mean(length, motion.trusted),
        trusted=float(motion.trusted.mean()),
        rests=float(motion.rests.mean()),
    )


def _mean(values: NDArray[np.float32], where: NDArray[np.bool_]) -> float:
    return float(values[where].mean()) if where.any() else float("nan")


def _flow(first: Luma, second: Luma) -> Flow:
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # type: ignore[attr-defined, unused-ignore]
    whole = (np.ascontiguousarray(frame) for frame in (first, second))
    return np.asarray(search.calc(*whole, None), np.float32)


def _places(flow: Flow) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    height, width = flow.shape[:2]
    across = np.arange(width, dtype=np.float32)[None, :] + flow[..., 0]
    down = np.arange(height, dtype=np.float32)[:, None] + flow[..., 1]
    return across, down


def _sampled(values: NDArray[np.float32], flow: Flow) -> NDArray[np.float32]:
    """Return values read where the flow points to, by linear interpolation."""
    return np.asarray(cv2.remap(values, *_places(flow), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)


def _inside(flow: Flow) -> NDArray[np.bool_]:
    across, down = _places(flow)
    height, width = flow.shape[:2]
    return np.asarray((across >= 0) & (across <= width - 1) & (down >= 0) & (down <= height - 1))


def _enlarged(flow: Flow, scale: int) -> Flow:
    if scale == 1:
        return flow
    size = (flow.shape[1] * scale, flow.shape[0] * scale)
    return np.asarray(cv2.resize(flow, size, interpolation=cv2.INTER_LINEAR) * scale, np.float32)


def _grown(mask: NDArray[np.bool_], scale: int) -> NDArray[np.bool_]:
    return mask.repeat(scale, 0).repeat(scale, 1)
