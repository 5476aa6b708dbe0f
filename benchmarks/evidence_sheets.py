"""The sheets of `benchmarks.evidence`: compared crops, the worst of an engine, reflections, and the rendered scene."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from streamsr.capture import open_source
from streamsr.colour import to_rgb8
from streamsr.evaluation.crops import COMPARED_PX, WORST, WORST_PX, Crop, cut, worst_place
from streamsr.evaluation.figures import Truth
from streamsr.evaluation.images import read_picture
from streamsr.evaluation.methods import Interpolation, Method, Samples
from streamsr.evaluation.run import enlarged
from streamsr.evaluation.sheets import png, sheet
from streamsr.evaluation.subjects import Subject
from streamsr.frame import Frame

MULTIPLE = 4
REFLECTIONS_PX = 96
RENDERED = "testsrc:endoscopy:size=640x480,frames=8"
RENDERED_FRAMES = (6,)

Rows = Iterable[dict[str, Any]]


def read_subject(data: Path, row: dict[str, Any]) -> Subject:
    """Read the frame of a row."""
    truth, _ = read_picture(data / row["name"])
    return Subject(row["name"], row["dataset"], row["group"], truth)


def worst_sheet(rows: Rows, method: Method, data: Path) -> bytes:
    """Return the worst crops of an engine as PNG."""
    ours = sorted((row for row in rows if row["method"] == method.name), key=lambda row: -row["worst_rms"])
    crops = []
    for row in ours[:WORST]:
        methods = [Interpolation("bicubic", method.scale), method]
        frame = enlarged(read_subject(data, row), methods, multiple=MULTIPLE)
        crops.append(cut(frame, row["worst_top"], row["worst_left"], WORST_PX, row["worst_rms"]))
    return png(sheet(crops, difference_of=method.name))


def compared_sheet(rows: Rows, methods: Sequence[Method], data: Path) -> bytes:
    """Return a crop of the middle frame of each set as PNG, where bicubic interpolation is furthest from the truth."""
    return png(sheet([_most_error(read_subject(data, row), methods) for row in _middle_rows(rows, methods)]))


def reflections_sheet(rows: Rows, methods: Sequence[Method], data: Path) -> bytes:
    """Return a crop of each set as PNG: where the middle frame has most highlights."""
    crops = []
    for row in _middle_rows([row for row in rows if "highlight_psnr_db" in row], methods):
        frame = enlarged(read_subject(data, row), methods, multiple=MULTIPLE)
        density = cv2.blur((frame.truth.highlights & frame.truth.field).astype(np.float32), (9, 9))
        top, left, _ = worst_place(density, frame.truth.field, REFLECTIONS_PX)
        crops.append(cut(frame, top, left, REFLECTIONS_PX, 0.0))
    return png(sheet(crops))


def rendered_sheet(methods: Sequence[Method]) -> bytes:
    """Return crops of the rendered scene as PNG: no patient, and nothing that may not be shown."""
    crops = []
    with open_source(RENDERED) as source:
        for number, frame in enumerate(each for each in source if isinstance(each, Frame)):
            if number in RENDERED_FRAMES:
                crops.append(_most_error(Subject(f"frame {number}", "rendered scene", "", to_rgb8(frame)), methods))
    return png(sheet(crops))


def _most_error(subject: Subject, methods: Sequence[Method]) -> Crop:
    """Return the crop where the first method is furthest from the truth."""
    frame = enlarged(subject, methods, multiple=MULTIPLE)
    error = _squared(frame.made[0][1].luma, frame.truth)
    side = min(COMPARED_PX, *error.shape)
    top, left, mean = worst_place(error, frame.truth.field, side)
    return cut(frame, top, left, side, mean**0.5)


def _squared(luma: Samples, truth: Truth) -> Any:
    return np.square(luma.astype(np.float32) - truth.luma)


def _middle_rows(rows: Rows, methods: Sequence[Method]) -> list[dict[str, Any]]:
    """Return the middle row of each set, of the frames that every method has."""
    names = {method.name for method in methods}
    by_name: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["method"] in names:
            by_name.setdefault(row["name"], []).append(row)
    whole = [found[0] for found in by_name.values() if len(found) == len(names)]
    middle = []
    for dataset in dict.fromkeys(row["dataset"] for row in whole):
        here = [row for row in whole if row["dataset"] == dataset]
        middle.append(here[len(here) // 2])
    return middle
