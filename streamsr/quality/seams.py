"""Seam error: whether the grid of patches shows in the stitched picture.

`seam_ratio` compares the steps across patch borders with the steps everywhere else, in the picture and in the truth, so
that detail which happens to lie on a border cancels. 1 means that borders look like the rest.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def seam_ratio(picture: NDArray[np.uint8], truth: NDArray[np.uint8], *, every_px: int) -> float:
    """Return how much larger steps across borders are than elsewhere, beside the truth's: (b / i) / (b' / i').

    b is the mean absolute step between the two pixels on either side of a border, i of all other neighbours.

    Args:
        picture: (H, W) uint8.
        truth: (H, W) uint8.
        every_px: side of a patch's core in pixels of the picture.

    Returns:
        The ratio; NaN where there is no border or no step anywhere.

    Raises:
        ValueError: the shapes differ.
    """
    if picture.shape != truth.shape:
        raise ValueError(f"expected two pictures of one shape, got {picture.shape} and {truth.shape}")
    ours, theirs = _border_to_rest(picture, every_px), _border_to_rest(truth, every_px)
    return ours / theirs if theirs > 0 else float("nan")


def _border_to_rest(picture: NDArray[np.uint8], every_px: int) -> float:
    """Return the mean step across borders over the mean of all other steps, NaN where either is missing."""
    border: list[NDArray[np.int16]] = []
    rest: list[NDArray[np.int16]] = []
    for plane in (picture, picture.T):
        steps = np.abs(np.diff(plane.astype(np.int16), axis=0))
        across = (np.arange(1, len(plane)) % every_px) == 0
        border.append(steps[across].ravel())
        rest.append(steps[~across].ravel())
    ours, others = np.concatenate(border), np.concatenate(rest)
    if not len(ours) or not len(others) or not others.any():
        return float("nan")
    return float(ours.mean() / others.mean())


def seam_step(stitched: NDArray[np.uint8], whole: NDArray[np.uint8]) -> int:
    """Return the largest difference, in levels, between a stitched picture and the same made in one piece.

    Raises:
        ValueError: the shapes differ.
    """
    if stitched.shape != whole.shape:
        raise ValueError(f"expected two pictures of one shape, got {stitched.shape} and {whole.shape}")
    return int(np.abs(stitched.astype(np.int16) - whole.astype(np.int16)).max())
