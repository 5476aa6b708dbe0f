"""One evaluation: every subject by every method, its figures, and the crops that are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from math import lcm
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamsr.engine import find_engine
from streamsr.errors import InputError
from streamsr.evaluation.crops import Frame, Gallery
from streamsr.evaluation.figures import Truth, figures_of
from streamsr.evaluation.methods import PATCH_PX, EngineMethod, Interpolation, Made, Method, stitched_and_whole
from streamsr.evaluation.subjects import Item, Subject, Told, counted, find_items, read_subjects
from streamsr.evaluation.summary import Row
from streamsr.quality.perceptual import LpipsLike
from streamsr.quality.seams import seam_ratio, seam_step
from streamsr.quality.temporal import Motion, motion_between, steadiness
from streamsr.training.data import bicubic_down, luma_of

Samples = NDArray[np.uint8]

COMPARED = 8
"""Subjects whose crops are compared, evenly spread."""

SEAM_CROP_PX = 96
"""Side of the middle of a picture, in input pixels, that seams are looked for in: 3 x 3 patches."""


@dataclass(frozen=True)
class EvaluationSettings:
    """What is evaluated, and how.

    Attributes:
        engines: names or folders.
        split: side of a data folder with a manifest.
        most_per_set: at most so many files of a set.
        frames: of a video, from its first on.
        consistency: project what engines make.
    """

    engines: tuple[str, ...]
    split: str = "test"
    most_per_set: int | None = None
    frames: int = 24
    consistency: bool = True


@dataclass
class Evaluation:
    """What came out.

    Attributes:
        place: what was evaluated.
        settings: how.
        rows: the figures, one a frame and method.
        seams: data set -> engine -> ``step_levels`` and ``ratio``.
        gallery: the crops.
        told: what was left out or changed.
        precisions: engine -> the form that ran.
        complete: whether it was not interrupted.
    """

    place: Path
    settings: EvaluationSettings
    rows: list[Row] = field(default_factory=list)
    seams: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    gallery: Gallery = field(default_factory=Gallery)
    told: Told = field(default_factory=lambda: Told([], [], lambda line: None))
    precisions: dict[str, str] = field(default_factory=dict)
    complete: bool = True

    def settings_told(self) -> dict[str, Any]:
        """Return the settings as JSON holds them."""
        return {**asdict(self.settings), "engines": list(self.settings.engines)}


Advance = Callable[[str, int, int], None]
"""Called after every subject: its name, frames done, frames in all."""


def make_methods(engines: Iterable[str], *, consistency: bool = True) -> list[Method]:
    """Return both interpolations of every scale that an engine has, and the engines behind them.

    Raises:
        EngineError: an engine is missing or damaged.
    """
    found = [find_engine(name) for name in dict.fromkeys(engines)]
    methods: list[Method] = []
    for scale in sorted({engine.scale for engine in found}):
        methods += [Interpolation("bicubic", scale), Interpolation("lanczos", scale)]
        here = [engine for engine in found if engine.scale == scale and engine.architecture != "bicubic"]
        methods += [EngineMethod(engine, consistency=consistency) for engine in here]
    return methods


def evaluate(
    place: Path,
    settings: EvaluationSettings,
    *,
    distance: LpipsLike | None = None,
    say: Callable[[str], None] = lambda line: None,
    advance: Advance = lambda name, done, total: None,
) -> Evaluation:
    """Measure the engines on what lies at a place.

    Args:
        place: a folder, a picture or a video, see `find_items`.
        settings: how.
        distance: of the perceptual figure; None leaves it out.
        say: called with every line that the user should read.
        advance: called after every subject, and at the end.

    An interrupt ends it with what was measured until then, where that is anything.

    Raises:
        InputNotFound: there is nothing at the place.
        InputError: nothing there can be measured.
        EngineError: an engine is missing or damaged.
    """
    result = Evaluation(place, settings, told=Told([], [], say))
    items = find_items(place, split=settings.split, most_per_set=settings.most_per_set, told=result.told)
    methods = make_methods(settings.engines, consistency=settings.consistency)
    result.precisions = {method.name: method.precision for method in methods if isinstance(method, EngineMethod)}
    measuring = Measuring(methods, result, distance)
    try:
        _measure(items, measuring, advance)
    except KeyboardInterrupt:
        if not result.rows:
            raise
        result.complete = False
        result.told.note("", "interrupted, so that only a part was measured")
    if not result.rows:
        raise InputError(f"{place}: expected a picture or video that can be measured, got none; see the lines above")
    if measuring.cut:
        multiple = measuring.multiple
        result.told.note("", f"{counted(len(measuring.cut), 'file')} cut to sides that are a multiple of {multiple}")
    if distance is None:
        result.told.note("", "no perceptual distance measured: that needs --squeezenet and --lpips-linear")
    return result


def _measure(items: list[Item], measuring: Measuring, advance: Advance) -> None:
    """Measure the items, and tell how far it is by frames: a video counts as many as are wanted of it."""
    result = measuring.result
    frames = result.settings.frames
    *begins, total = accumulate((frames if item.is_video else 1 for item in items), initial=0)
    before = dict(zip((item.name for item in items), begins, strict=True))
    compared = {items[round(at)].name for at in np.linspace(0, len(items) - 1, min(COMPARED, len(items)))}
    for subject in read_subjects(items, result.told, frames=frames):
        compare = subject.file in compared
        compared.discard(subject.file)
        measuring.add(subject, compare=compare)
        advance(subject.name, before[subject.file] + (subject.number or 0) + 1, total)
    advance("done", total, total)


class Measuring:
    """Measures subjects one after the other; remembers the last one, for what changes between two.

    Args:
        methods: by which every subject is enlarged.
        result: where figures and crops go.
        distance: of the perceptual figure; None leaves it out.

    Attributes:
        multiple: of which the sides of all pictures are.
        cut: files that were cut for that.
    """

    def __init__(self, methods: list[Method], result: Evaluation, distance: LpipsLike | None) -> None:
        self.methods, self.result, self.distance = methods, result, distance
        self.multiple = lcm(*(method.scale for method in methods))
        self.cut: set[str] = set()
        self._before: Frame | None = None

    def add(self, subject: Subject, *, compare: bool) -> None:
        """Enlarge and measure a subject by every method, and take its crops."""
        frame = enlarged(subject, self.methods, multiple=self.multiple)
        if frame.truth.rgb.shape != subject.truth.shape:
            self.cut.add(subject.file)
        steps = self._steps(frame) if subject.follows else {}
        rows = [
            row_of(subject, frame, method, made, self.distance) | steps.pop(method.name, {})
            for method, made in frame.made
        ]
        # The truth's and the camera's own.
        rows += [{**names_of(subject), "method": name, "scale": 1, **step} for name, step in steps.items()]
        self.result.rows += rows  # at once, so that an interrupt leaves no frame in part
        self._look_for_seams(frame)
        self.result.gallery.add(frame, compare=compare)
        self._before = frame

    def _steps(self, frame: Frame) -> dict[str, dict[str, float]]:
        """Return method -> figures of the step from the frame before, and by scale those of camera and truth."""
        before = self._before
        if before is None or before.truth.luma.shape != frame.truth.luma.shape:
            return {}
        found: dict[str, dict[str, float]] = {}
        truths = (before.truth.luma, frame.truth.luma)
        for scale, lr in frame.inputs.items():
            lumas = (luma_of(before.inputs[scale]), luma_of(lr))
            motion = motion_between(*lumas)
            for (method, first), (_, second) in zip(before.made, frame.made, strict=True):
                if method.scale == scale:
                    found[method.name] = _step(first.luma, second.luma, motion, scale, truths)
            found[f"truth-x{scale}"] = _step(*truths, motion, scale, None)
            found[f"camera-x{scale}"] = _step(*lumas, motion, 1, None)
        return found

    def _look_for_seams(self, frame: Frame) -> None:
        """Measure the seams of every engine, on the first subject of each data set."""
        if frame.dataset in self.result.seams:
            return
        found = self.result.seams[frame.dataset] = {}
        for method in self.methods:
            if isinstance(method, EngineMethod):
                found[method.name] = seams_of(method, frame)


def enlarged(subject: Subject, methods: Sequence[Method], *, multiple: int, truth: Truth | None = None) -> Frame:
    """Bring a subject down and enlarge it by some methods.

    Args:
        subject: whose sides are cut to a multiple.
        methods: of scales that divide the multiple.
        multiple: of which the sides are.
        truth: what `Truth.of` found in the subject, cut so, where that is known already.
    """
    if truth is None:
        height, width = (side // multiple * multiple for side in subject.truth.shape[:2])
        truth = Truth.of(np.ascontiguousarray(subject.truth[:height, :width]))
    inputs = {scale: bicubic_down(truth.rgb, scale) for scale in sorted({method.scale for method in methods})}
    made = [(method, method.enlarge(inputs[method.scale])) for method in methods]
    return Frame(subject.name, subject.dataset, truth, inputs, made)


def row_of(subject: Subject, frame: Frame, method: Method, made: Made, distance: LpipsLike | None) -> Row:
    """Return the figures of what a method made of a subject."""
    lr = frame.inputs[method.scale]
    figures = figures_of(made, lr, frame.truth, scale=method.scale, distance=distance)
    return {**names_of(subject), "method": method.name, "scale": method.scale, **figures}


def names_of(subject: Subject) -> Row:
    """Return what a row says of its subject."""
    return {"name": subject.name, "dataset": subject.dataset, "group": subject.group}


def _step(
    first: Samples, second: Samples, motion: Motion, scale: int, truth: tuple[Samples, Samples] | None
) -> dict[str, float]:
    measured = steadiness(first, second, motion, scale=scale, truth=truth)
    found = {name: getattr(measured, name) for name in ("warp_error", "flicker", "change_error")}
    return {name: value for name, value in found.items() if np.isfinite(value)}


def seams_of(method: EngineMethod, frame: Frame) -> dict[str, float]:
    """Return what the grid of patches leaves in the middle of a picture, before the projection.

    Returns:
        ``step_levels``, the largest difference to the picture made in one piece, and ``ratio``, see `seam_ratio`; left
        out where the picture holds no border.
    """
    lr, scale = frame.inputs[method.scale], method.scale
    sides = [min(side, SEAM_CROP_PX) for side in lr.shape[:2]]
    top, left = ((side - kept) // 2 for side, kept in zip(lr.shape[:2], sides, strict=True))
    stitched, whole = stitched_and_whole(
        method.engine, np.ascontiguousarray(lr[top : top + sides[0], left : left + sides[1]])
    )
    ratio = seam_ratio(stitched, whole, every_px=PATCH_PX * scale)
    found = {"step_levels": float(seam_step(stitched, whole))}
    return found | ({"ratio": ratio} if np.isfinite(ratio) else {})
