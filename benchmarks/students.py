"""The students under test: those of the catalogue, and stand-ins with random weights for those not shipped yet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from streamsr.engine import Engine, find_engine, read_engine
from streamsr.errors import EngineNotFound
from streamsr.models.student import SPECS, Student, StudentSpec
from streamsr.runtimes.onnx_graph import quantised_student
from streamsr.training.quantise import arrays, calibrate
from streamsr.training.ship import write_engine


def student_engine(name: str, folder: Path) -> Engine:
    """Return a student of the catalogue, or a stand-in of the same shape in ``folder``; speed does not tell them apart.

    Args:
        name: one of `streamsr.models.student.SPECS`.
        folder: where a stand-in is written.
    """
    try:
        return find_engine(name)
    except EngineNotFound:
        return random_engine(folder / name, SPECS[name])


def random_engine(folder: Path, spec: StudentSpec, *, seed: int = 0) -> Engine:
    """Write and return an engine of random weights with its INT8 form.

    Args:
        folder: of the engine; its name is the engine's.
        spec: the shape of the network.
        seed: of the weights.
    """
    torch.manual_seed(seed)
    student = Student(spec).eval()
    noise = np.random.default_rng(seed).integers(0, 256, (48, 64), dtype=np.uint8)
    scales = calibrate(student, [noise])
    int8 = quantised_student(
        arrays(student),
        scale=spec.scale,
        activation_clips=scales.activation_clips,
        weight_scales=scales.weight_scales,
    )
    write_engine(folder, student, int8)
    return read_engine(folder)


def macs_per_pixel(engine: Engine) -> int:
    """Return the multiply-adds an input pixel costs; see `StudentSpec.macs_per_pixel`."""
    return StudentSpec(engine.channels, engine.depth, engine.scale).macs_per_pixel


def is_stand_in(engine: Engine) -> bool:
    """Return whether an engine has random weights, because the catalogue has none of its name."""
    try:
        return find_engine(engine.name).folder != engine.folder
    except EngineNotFound:
        return True
