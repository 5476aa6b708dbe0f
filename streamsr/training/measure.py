"""What a written engine gives on one side of the data, as it will run, beside bicubic interpolation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from streamsr.config import GeneratorSettings
from streamsr.consistency import Projector
from streamsr.engine import Engine, read_engine
from streamsr.quality.fidelity import psnr_db
from streamsr.quality.perceptual import LpipsLike, distance_between, in_colour
from streamsr.runtimes import load_generator
from streamsr.training.data import Pair, Samples, bicubic_up, field_masks, load_pairs, luma_of
from streamsr.training.degrade import degraded

Enlarge = Callable[[Samples], Samples]
"""(h, w) luma or (h, w, 3) RGB, uint8, to the same at the scale."""

Precision = Literal["fp32", "int8"]

PERCEPTUAL_FORMS = ("bicubic", "projected")
"""What the LPIPS-like distance is measured of: the reference, and what is shown."""

PERCEPTUAL_FRAMES = 20
"""Frames of each set that it is measured on, evenly spread; it costs more than all else."""

ONE_LEVEL = 1.0 + 1e-3
"""One grey level, and what float32 adds to it."""


@dataclass(frozen=True)
class Perceptual:
    """Where the weights of the LPIPS-like distance are; see `streamsr.quality.perceptual`.

    Attributes:
        squeezenet: trunk.
        linear: linear layers.
    """

    squeezenet: Path
    linear: Path


def measure_engine(
    folder: Path, data: Path, *, split: str, perceptual: Perceptual | None = None, most_per_set: int | None = None
) -> dict[str, Any]:
    """Measure every precision of a written engine, as it will run, on one side of the data.

    All read the same reduced 8-bit RGB file; luma networks its luma, with chroma by bicubic interpolation where a
    colour picture is judged. The distance is measured of every picture with luma in whole levels, as a recording holds
    it: rounding is a dither that lowers the distance by 3 to 12 %, so all must have it or none.

    Returns:
        Form (``bicubic``, a precision, and ``projected``: the best precision made consistent with its input) -> data
        set -> ``field_of_view`` and ``whole_frame`` (mean luma PSNR in dB), ``lpips_like`` (mean, whole frame, of
        bicubic and projected, over at most `PERCEPTUAL_FRAMES` frames; left out without its weights), ``within_level``
        (share of input samples that it gives back within a grey level, 1 of 255) and ``frames``.
    """
    engine = read_engine(folder)
    pairs = load_pairs(data, split, engine.scale, colour="rgb", most_per_set=most_per_set)
    distance = LpipsLike.from_files(perceptual.squeezenet, perceptual.linear) if perceptual else None
    precisions: tuple[Precision, ...] = ("fp32", "int8")
    enlargers = {name: enlarger_of(engine, name) for name in precisions if name in engine.precisions}
    rows: dict[str, dict[str, list[dict[str, float]]]] = {}
    looked_at = evenly_spread(pairs, PERCEPTUAL_FRAMES)
    for pair, mask in zip(pairs, field_masks(pairs), strict=True):
        lr = pair.lr if engine.colour == "rgb" else luma_of(pair.lr)
        pictures: dict[str, Samples] = {"bicubic": bicubic_up(lr, engine.scale)}
        for name, enlarge in enlargers.items():
            pictures[name] = enlarge(lr)
        pictures["projected"] = projected(lr, list(pictures.values())[-1], engine.scale)
        for form, picture in pictures.items():
            judged = distance if form in PERCEPTUAL_FORMS and pair.file in looked_at else None
            figures = figures_of(pair, lr, picture, mask, engine.scale, judged)
            rows.setdefault(form, {}).setdefault(pair.dataset, []).append(figures)
    return {form: {name: mean_of(these) for name, these in by_set.items()} for form, by_set in rows.items()}


def measure_degraded(folder: Path, data: Path, *, most_per_set: int) -> dict[str, Any]:
    """Measure every precision of a written luma engine on the validation side, degraded as robust weights know it.

    Returns:
        Form -> data set -> ``field_of_view`` (mean luma PSNR in dB against the undegraded truth) and ``frames``; see
        `measure_engine` for the forms.
    """
    engine = read_engine(folder)
    pairs = degraded(load_pairs(data, "val", engine.scale, most_per_set=most_per_set), engine.scale)
    forms: dict[str, Enlarge] = {"bicubic": lambda lr: bicubic_up(lr, engine.scale)}
    precisions: tuple[Precision, ...] = ("fp32", "int8")
    forms |= {name: enlarger_of(engine, name) for name in precisions if name in engine.precisions}
    rows: dict[str, dict[str, list[dict[str, float]]]] = {}
    for pair, mask in zip(pairs, field_masks(pairs), strict=True):
        pictures = {form: enlarge(pair.lr) for form, enlarge in forms.items()}
        pictures["projected"] = projected(pair.lr, list(pictures.values())[-1], engine.scale)
        for form, picture in pictures.items():
            figures = {"field_of_view": psnr_db(picture, pair.hr, mask=mask)}
            rows.setdefault(form, {}).setdefault(pair.dataset, []).append(figures)
    return {form: {name: mean_of(these) for name, these in by_set.items()} for form, by_set in rows.items()}


def figures_of(
    pair: Pair, lr: Samples, picture: Samples, mask: NDArray[np.bool_], scale: int, distance: LpipsLike | None
) -> dict[str, float]:
    """Return what one picture is worth, see `measure_engine`."""
    luma, truth = (picture if picture.ndim == 2 else luma_of(picture)), luma_of(pair.hr)
    figures = {
        "field_of_view": psnr_db(luma, truth, mask=mask),
        "whole_frame": psnr_db(luma, truth),
        "within_level": within_level(lr, picture),
    }
    if distance is not None:
        shown = in_colour(luma, picture if picture.ndim == 3 else bicubic_up(pair.lr, scale))
        figures["lpips_like"] = distance_between(distance, shown, pair.hr)
    return figures


def evenly_spread(pairs: list[Pair], most: int) -> set[str]:
    """Return the files of at most so many pairs of each data set, evenly spread."""
    chosen: set[str] = set()
    for dataset in {pair.dataset for pair in pairs}:
        files = [pair.file for pair in pairs if pair.dataset == dataset]
        chosen |= set(files[:: max(1, len(files) // most)][:most])
    return chosen


def mean_of(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of every figure over the frames that have it, and the number of ``frames``."""
    keys = dict.fromkeys(key for row in rows for key in row)
    means = {key: round(float(np.mean([row[key] for row in rows if key in row])), 5) for key in keys}
    return {**means, "frames": len(rows)}


def enlarger_of(engine: Engine, precision: Precision) -> Enlarge:
    """Return a function that enlarges a picture as the engine will, in the default runtime of a CPU."""
    generator = load_generator(engine, GeneratorSettings(runtime="openvino", precision=precision))

    def enlarge(lr: Samples) -> Samples:
        if lr.ndim == 2:
            return np.array(generator.generate(np.ascontiguousarray(lr[None, None]))[0, 0], np.uint8)
        planes = np.ascontiguousarray(lr.transpose(2, 0, 1)[None], np.float32) / np.float32(255)
        made = np.rint(generator.generate(planes)[0].clip(0, 1) * 255).astype(np.uint8)
        return np.ascontiguousarray(made.transpose(1, 2, 0))

    return enlarge


def projected(lr: Samples, picture: Samples, scale: int) -> Samples:
    """Return a picture made consistent with its input, uint8 as both are."""
    planes, large = (each[None] if each.ndim == 2 else each.transpose(2, 0, 1) for each in (lr, picture))
    projector = Projector(scale, (lr.shape[1], lr.shape[0]), channels=len(planes))
    made = projector.project(np.ascontiguousarray(planes), np.ascontiguousarray(large))
    return np.array(made[0] if lr.ndim == 2 else made.transpose(1, 2, 0), np.uint8)


def within_level(lr: Samples, picture: Samples) -> float:
    """Return the share of input samples that a picture, brought down by the stated filter, gives back within a level.

    The filter is Pillow's in floating point, not the projection's own.
    """
    planes, large = (each[None] if each.ndim == 2 else each.transpose(2, 0, 1) for each in (lr, picture))
    shares = []
    for plane, made in zip(planes, large, strict=True):
        whole = Image.fromarray(np.ascontiguousarray(made, np.float32))
        down = np.asarray(whole.resize((plane.shape[1], plane.shape[0]), Image.Resampling.BICUBIC)).clip(0, 255)
        shares.append(np.mean(np.abs(down - plane) <= ONE_LEVEL))
    return float(np.mean(shares))
