"""Make an engine folder out of trained weights: files, hashes, measured quality, card."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from streamsr.config import GeneratorSettings
from streamsr.engine import MANIFEST, Engine, read_engine
from streamsr.errors import EngineError
from streamsr.models.student import Student
from streamsr.quality.fidelity import psnr_db
from streamsr.runtimes import load_generator
from streamsr.runtimes.onnx_graph import quantised_student
from streamsr.training.card import card
from streamsr.training.data import CropSampler, LumaPair, bicubic_up, field_masks, load_pairs
from streamsr.training.pretrain import PretrainSettings
from streamsr.training.quantise import RoundedStudent, calibrate, tune

Luma = NDArray[np.uint8]

INT8_LOSS_DB = 0.05
"""What an INT8 form may lose on any validation set."""

TUNING_STEPS = 200
"""Optimiser steps under rounding: tiny-x2 lost up to 0.085 dB without, 0.04 dB after 150, 0.03 dB after 300."""

CALIBRATION_FRAMES = 8
"""Training frames of each set from which INT8 scales are chosen."""


def quantise(student: Student, data: Path, *, tuning_steps: int) -> tuple[bytes, Student]:
    """Return a student's INT8 form, scaled and tuned on training frames, and the tuned float weights behind it.

    Args:
        student: the float network.
        data: folder with MANIFEST.tsv.
        tuning_steps: optimiser steps under rounding; 0 for none.
    """
    pairs = load_pairs(data, "train", student.spec.scale, most_per_set=200)
    shown = [pair.lr for pair in load_pairs(data, "train", student.spec.scale, most_per_set=CALIBRATION_FRAMES)]
    rounded = RoundedStudent(student, calibrate(student, shown))
    sampler = CropSampler(pairs, scale=student.spec.scale, patch_px=48, batch=16, seed=7)
    tune(rounded, iter(sampler), steps=tuning_steps)
    scales = rounded.scales()
    content = quantised_student(
        arrays(rounded.student),
        scale=student.spec.scale,
        activation_clips=scales.activation_clips,
        weight_scales=scales.weight_scales,
    )
    return content, rounded.student


def arrays(student: Student) -> dict[str, NDArray[np.float32]]:
    """Return a student's weights by name, as they are stored."""
    return {name: tensor.detach().numpy().astype(np.float32) for name, tensor in student.state_dict().items()}


def mean_psnr(enlarge: Callable[[Luma], Luma], pairs: list[LumaPair], masks: list[Any]) -> dict[str, dict[str, float]]:
    """Return luma PSNR in dB a data set, inside the field of view and over the whole frame, averaged over frames."""
    figures: dict[str, list[tuple[float, float]]] = {}
    for pair, mask in zip(pairs, masks, strict=True):
        picture = enlarge(pair.lr)
        figures.setdefault(pair.dataset, []).append((psnr_db(picture, pair.hr, mask=mask), psnr_db(picture, pair.hr)))
    return {
        name: {"field_of_view": round(float(inside), 3), "whole_frame": round(float(whole), 3), "frames": len(values)}
        for name, values in figures.items()
        for inside, whole in [np.mean(values, axis=0)]
    }


def write_engine(folder: Path, student: Student, int8: bytes, *, kind: str = "fidelity") -> None:
    """Write the files of an engine and its manifest, each aside and renamed.

    Args:
        folder: ``engines/NAME``.
        student: the float network.
        int8: its quantised form.
        kind: ``fidelity`` or ``adversarial``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    spec = student.spec
    files = {"model.safetensors": save(arrays(student)), "model.int8.onnx": int8}
    for name, content in files.items():
        replace(folder / name, content)
    manifest = {
        "name": folder.name,
        "architecture": "student",
        "scale": spec.scale,
        "colour": "luma",
        "kind": kind,
        "channels": spec.channels,
        "depth": spec.depth,
        "radius_px": spec.receptive_radius_px,
        "halo_px": spec.receptive_radius_px,
        "patch_px": 32,
        "macs_per_pixel": spec.macs_per_pixel,
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        "precisions": {"fp32": "model.safetensors", "int8": "model.int8.onnx"},
    }
    replace(folder / MANIFEST, json.dumps(manifest, indent=2).encode() + b"\n")


def ship(folder: Path, student: Student, settings: PretrainSettings, *, seconds: float) -> None:
    """Make the whole engine folder of a finished run: files, manifest, INT8 form, metrics, card, settings.

    Args:
        folder: ``engines/NAME``.
        student: the trained network.
        settings: of its run.
        seconds: that its run took.

    Raises:
        EngineError: the INT8 form loses more than `INT8_LOSS_DB` on a validation set.
    """
    data = Path(settings.data)
    int8, _ = quantise(student, data, tuning_steps=TUNING_STEPS)
    write_engine(folder, student, int8)
    metrics = {split: measure_engine(folder, data, split=split) for split in ("val", "test")}
    losses = {
        name: row["field_of_view"] - metrics["val"]["int8"][name]["field_of_view"]
        for name, row in metrics["val"]["fp32"].items()
    }
    if max(losses.values()) > INT8_LOSS_DB:
        raise EngineError(f"{folder}: expected INT8 to lose at most {INT8_LOSS_DB} dB, got {losses}; tune it longer")
    replace(folder / "metrics.json", json.dumps(metrics, indent=1).encode() + b"\n")
    replace(folder / "card.md", card(student, settings, metrics, name=folder.name, seconds=seconds).encode())
    kept = {**asdict(settings), "data": "DATA", "output": f"runs/{folder.name}"}
    lines = [f"{key} = {json.dumps(value)}" for key, value in kept.items()]
    replace(folder / "train.toml", ("\n".join(lines) + "\n").encode())


def measure_engine(folder: Path, data: Path, *, split: str) -> dict[str, Any]:
    """Measure a written engine, as it will run, beside bicubic interpolation on one side of the data."""
    engine = read_engine(folder)
    pairs = load_pairs(data, split, engine.scale)
    masks = field_masks(pairs)
    figures: dict[str, Any] = {"bicubic": mean_psnr(lambda lr: bicubic_up(lr, engine.scale), pairs, masks)}
    for precision in ("fp32", "int8"):
        figures[precision] = mean_psnr(luma_enlarger(engine, precision), pairs, masks)
    return figures


def luma_enlarger(engine: Engine, precision: Literal["fp32", "int8"]) -> Callable[[Luma], Luma]:
    """Return a function that enlarges (H, W) uint8 luma as the engine will, in the default runtime."""
    generator = load_generator(engine, GeneratorSettings(precision=precision))

    def enlarge(luma: Luma) -> Luma:
        enlarged: Luma = generator.generate(np.ascontiguousarray(luma[None, None]))[0, 0]
        return enlarged

    return enlarge


def replace(path: Path, content: bytes) -> None:
    """Write a file aside and rename it into place."""
    aside = path.with_name(f".{path.name}.part")
    aside.write_bytes(content)
    aside.replace(path)
