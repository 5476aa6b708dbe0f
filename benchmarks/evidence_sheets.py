"""The sheets of `benchmarks.evidence`: compared crops, the worst of an engine, reflections, and the rendered scene."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from streamsr.capture import open_source
from streamsr.colour import to_rgb8
from streamsr.evaluation.crops import COMPARED_PX, WORST, WORST_PX, Crop, Frame, cut, worst_place
from streamsr.evaluation.images import read_picture
from streamsr.evaluation.methods import Interpolation, Made, Method, Samples
from streamsr.evaluation.run import enlarged
from streamsr.evaluation.sheets import png, sheet
from streamsr.evaluation.subjects import Subject
from streamsr.frame import Frame as Picture

MULTIPLE = 4
REFLECTIONS_PX = 96
RENDERED = "testsrc:endoscopy:size=640x480,frames=8"
RENDERED_FRAME = 6

SHOWN = ("bicubic", "fast", "srgan")
"""Families that the sheet of README's first look has, between input and truth: more would be too small on a page."""

SHOWN_PX = 112
"""Side of its crops, in pixels of the truth: half a cell, so that every pixel is two by two."""

Rows = Iterable[dict[str, Any]]


def read_subject(data: Path, row: dict[str, Any]) -> Subject:
    """Read the frame of a row."""
    truth, _ = read_picture(data / row["name"])
    return Subject(row["name"], row["dataset"], row["group"], truth)


def _enlarged(data: Path, row: dict[str, Any], methods: Sequence[Method]) -> Frame:
    return enlarged(read_subject(data, row), methods, multiple=MULTIPLE)


def worst_crops(rows: Rows, method: Method, data: Path) -> list[Crop]:
    """Return the worst crops of an engine, the worst first, beside bicubic interpolation."""
    ours = sorted((row for row in rows if row["method"] == method.name), key=lambda row: -row["worst_rms"])
    crops = []
    for row in ours[:WORST]:
        frame = _enlarged(data, row, [Interpolation("bicubic", method.scale), method])
        crops.append(cut(frame, row["worst_top"], row["worst_left"], WORST_PX, row["worst_rms"]))
    return crops


def told_worst(crops: Iterable[Crop], name: str) -> list[dict[str, Any]]:
    """Return where an engine's worst crops lie and how bad they are, as JSON holds it."""
    told = []
    for crop in crops:
        place = crop.place()
        psnr = place.pop("luma_psnr_db")
        bicubic = next(value for method, value in psnr.items() if method != name)
        told.append({**place, "luma_psnr_db": psnr[name], "bicubic_psnr_db": bicubic})
    return told


def worst_sheet(crops: list[Crop], name: str) -> bytes:
    """Return the worst crops of an engine as PNG."""
    return png(sheet(crops, difference_of=name))


def compared_sheet(rows: Rows, methods: Sequence[Method], data: Path) -> bytes:
    """Return a crop of the middle frame of each set as PNG, where bicubic interpolation is furthest from the truth."""
    return png(sheet([_most_error(_enlarged(data, row, methods)) for row in _middle_rows(rows, methods)]))


def reflections_sheet(rows: Rows, methods: Sequence[Method], data: Path) -> bytes:
    """Return a crop of each set as PNG: where the middle frame has most highlights."""
    found = _middle_rows([row for row in rows if "highlight_psnr_db" in row], methods)
    return png(sheet([_most_highlights(_enlarged(data, row, methods)) for row in found]))


def rendered_sheets(methods: Sequence[Method]) -> dict[str, bytes]:
    """Return sheets of the rendered scene, which shows no patient, by file name.

    ``crops.png`` has a row a scale of a few methods, where bicubic interpolation is furthest from the truth;
    ``worst.png`` has a row for every engine, the scales side by side; ``reflections.png`` has a row a scale, where
    highlights are densest.

    Args:
        methods: engines and the interpolations of their scales.
    """
    scales = sorted({method.scale for method in methods})
    subject = _rendered()
    frames = [
        enlarged(subject, [each for each in methods if each.scale == scale], multiple=MULTIPLE) for scale in scales
    ]
    return {
        "crops.png": png(sheet([_first_look(frame) for frame in frames])),
        "worst.png": png(_side_by_side([_worst_rows(frame) for frame in frames])),
        "reflections.png": png(sheet([_most_highlights(frame) for frame in frames])),
    }


def _rendered() -> Subject:
    with open_source(RENDERED) as source:
        frames = [to_rgb8(each) for each in source if isinstance(each, Picture)]
    return Subject(f"frame {RENDERED_FRAME}", "rendered scene", "", frames[RENDERED_FRAME])


def _worst_rows(frame: Frame) -> Samples:
    """Return a row for every engine of a frame: the crop where it is furthest from the truth."""
    engines = [(method, made) for method, made in frame.made if method.is_engine]
    rows = [
        sheet(
            [_furthest(frame, made, WORST_PX, only={method.name, f"bicubic-x{method.scale}"})],
            difference_of=method.name,
        )
        for method, made in engines
    ]
    return np.asarray(np.concatenate(rows), np.uint8)


def _side_by_side(pictures: list[Samples]) -> Samples:
    """Return pictures beside each other, the lower ones continued in black."""
    height = max(len(picture) for picture in pictures)
    return np.concatenate([np.pad(each, ((0, height - len(each)), (0, 0), (0, 0))) for each in pictures], axis=1)


def _most_highlights(frame: Frame) -> Crop:
    """Return the crop where a frame has most highlights."""
    density = cv2.blur((frame.truth.highlights & frame.truth.field).astype(np.float32), (9, 9))
    top, left, _ = worst_place(density, frame.truth.field, REFLECTIONS_PX)
    return cut(frame, top, left, REFLECTIONS_PX, 0.0)


def _first_look(frame: Frame) -> Crop:
    """Return the crop where the first method is furthest from the truth, of a few methods."""
    only = {f"{family}-x{method.scale}" for family in SHOWN for method, _ in frame.made}
    return _furthest(frame, frame.made[0][1], SHOWN_PX, only)


def _most_error(frame: Frame) -> Crop:
    """Return the crop where the first method is furthest from the truth."""
    return _furthest(frame, frame.made[0][1], COMPARED_PX)


def _furthest(frame: Frame, made: Made, side: int, only: set[str] | None = None) -> Crop:
    """Return the crop where a method is furthest from the truth."""
    error = np.square(made.luma.astype(np.float32) - frame.truth.luma)
    side = min(side, *error.shape)
    top, left, mean = worst_place(error, frame.truth.field, side)
    return cut(frame, top, left, side, mean**0.5, only)


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
