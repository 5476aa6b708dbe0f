"""Crops that are shown: where interpolation loses most, and where every engine is furthest from the truth.

Crops are chosen by error alone, not by looks. The worst ones of an engine are at most one of a frame, and of the frames
of a video one a place, so that ten of them show ten things.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from streamsr.evaluation.figures import Truth
from streamsr.evaluation.methods import Made, Method
from streamsr.quality.fidelity import psnr_db

Samples = NDArray[np.uint8]

COMPARED_PX = 160
"""Side of the crops that are compared, in pixels of the truth."""

WORST_PX = 64
"""Side of the worst crops."""

WORST = 10
"""Worst crops of an engine."""

TRUTH, INPUT = "truth", "input"


@dataclass(frozen=True, eq=False)
class Crop:
    """One place in one frame, by every method.

    Attributes:
        name: of the subject.
        dataset: of the subject.
        left: of the crop in the truth, in pixels.
        top: of the crop in the truth, in pixels.
        score: root mean square error of luma there that it was chosen for, in grey levels.
        pictures: column -> (side, side, 3) uint8 RGB; ``input-xS`` is the low resolution, its pixels repeated.
        psnr_db: column -> luma PSNR of the crop.
    """

    name: str
    dataset: str
    left: int
    top: int
    score: float
    pictures: dict[str, Samples]
    psnr_db: dict[str, float] = field(default_factory=dict)

    def place(self) -> dict[str, Any]:
        """Return everything but the pictures, as JSON holds it."""
        psnr = {name: round(value, 3) for name, value in self.psnr_db.items()}
        where = {"name": self.name, "dataset": self.dataset, "left": self.left, "top": self.top}
        return {**where, "rms_levels": round(self.score, 3), "luma_psnr_db": psnr}


@dataclass
class Frame:
    """A subject by every method, for as long as crops are taken from it.

    Attributes:
        name: of the subject.
        dataset: of the subject.
        truth: of the subject.
        inputs: scale -> (h, w, 3) uint8 RGB.
        made: (method, what it made).
    """

    name: str
    dataset: str
    truth: Truth
    inputs: dict[int, Samples]
    made: list[tuple[Method, Made]]


def worst_place(error: NDArray[np.float32], field: NDArray[np.bool_], side: int) -> tuple[int, int, float]:
    """Return (top, left, mean) of the square with the largest mean error that lies in the field.

    Args:
        error: (H, W) float32, at least 0.
        field: (H, W) bool; where no square lies in it, all of the picture counts.
        side: of the square.
    """
    height, width = error.shape
    sums, inside = cv2.integral(error), cv2.integral(field.astype(np.uint8))
    totals, covered = (_squares(each, side) for each in (sums, inside))
    fits = covered >= 0.999 * side * side
    totals = np.where(fits, totals, -1.0) if fits.any() else totals
    top, left = np.unravel_index(int(np.argmax(totals)), (height - side + 1, width - side + 1))
    return int(top), int(left), float(max(totals[top, left], 0.0) / side**2)


def _squares(integral: NDArray[Any], side: int) -> NDArray[np.float64]:
    return np.asarray(
        integral[side:, side:] - integral[:-side, side:] - integral[side:, :-side] + integral[:-side, :-side],
        np.float64,
    )


def cut(frame: Frame, top: int, left: int, side: int, score: float, only: set[str] | None = None) -> Crop:
    """Return a crop by all methods, or by some."""
    window = slice(top, top + side), slice(left, left + side)
    pictures: dict[str, Samples] = {}
    psnr: dict[str, float] = {}
    for scale in sorted(frame.inputs):
        here = [(method, made) for method, made in frame.made if method.scale == scale]
        here = [each for each in here if only is None or each[0].name in only]
        if not here:
            continue
        large = frame.inputs[scale].repeat(scale, 0).repeat(scale, 1)
        pictures[f"{INPUT}-x{scale}"] = large[window].copy()
        for method, made in here:
            pictures[method.name] = made.rgb[window].copy()
            psnr[method.name] = min(psnr_db(made.luma[window], frame.truth.luma[window]), 100.0)
    pictures[TRUTH] = frame.truth.rgb[window].copy()
    return Crop(frame.name, frame.dataset, left, top, score, pictures, psnr)


def _shows_the_same(crop: Crop, other: Crop) -> bool:
    """Return whether two crops of one file overlap."""
    if crop.name.partition("#")[0] != other.name.partition("#")[0]:
        return False
    return abs(crop.left - other.left) < WORST_PX and abs(crop.top - other.top) < WORST_PX


@dataclass
class Gallery:
    """The crops of an evaluation.

    Attributes:
        compared: in the order of the subjects.
        worst: engine -> its worst crops, the worst first.
    """

    compared: list[Crop] = field(default_factory=list)
    worst: dict[str, list[Crop]] = field(default_factory=dict)

    def add(self, frame: Frame, *, compare: bool) -> None:
        """Take the crops of a subject: the compared one where asked, and of every engine one that may be a worst."""
        if compare:
            reference = next(made for method, made in frame.made if not method.is_engine)
            self.compared.append(self._at_most_error(frame, reference, COMPARED_PX, None))
        for method, made in frame.made:
            if method.is_engine:
                self._keep_worst(frame, method, made)

    def _keep_worst(self, frame: Frame, method: Method, made: Made) -> None:
        only = {method.name, f"bicubic-x{method.scale}"}
        crop = self._at_most_error(frame, made, WORST_PX, only)
        kept = self.worst.get(method.name, [])
        same = [other for other in kept if _shows_the_same(crop, other)]
        if any(other.score >= crop.score for other in same):
            return
        ranked = sorted([crop, *(other for other in kept if other not in same)], key=lambda each: -each.score)
        self.worst[method.name] = ranked[:WORST]

    def _at_most_error(self, frame: Frame, made: Made, side: int, only: set[str] | None) -> Crop:
        difference = made.luma.astype(np.float32) - frame.truth.luma
        side = min(side, *difference.shape)
        top, left, mean = worst_place(np.square(difference), frame.truth.field, side)
        return cut(frame, top, left, side, float(np.sqrt(mean)), only)
