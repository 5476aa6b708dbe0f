"""The INT8 form that TensorRT takes: which layers of a student bear symmetric activations, found by measurement.

Run as ``python -m streamsr.training.symmetric ENGINE_FOLDER... DATA``. Behind a ReLU a symmetric activation has 127
levels where other runtimes have 255, which most layers do not bear all together. Layers are tried alone, then joined
from the least harmful on for as long as the worst validation set keeps within `INT8_LOSS_DB` of float32. A form with
fewer than half of the layers would gain nothing and is not offered.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamsr.engine import MANIFEST, Engine, read_engine
from streamsr.errors import EngineError
from streamsr.quality.fidelity import psnr_db
from streamsr.runtimes.onnx_graph import float_student
from streamsr.runtimes.tensorrt_graph import SYMMETRIC, symmetric_student
from streamsr.training.data import field_masks, load_pairs
from streamsr.training.quantise import INT8_LOSS_DB

Luma = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Scene = tuple[str, Luma, Luma, Mask]
"""Name of the set, low resolution, truth, field of view."""

FILE = "model.int8-symmetric.onnx"
LEAST_PART = 0.5
"""Of the layers behind the first."""

TRIED_EACH = 12
"""Validation pictures of each set on which layers are chosen; the result is then measured on all."""


def choose_layers(layers: Sequence[int], loss_db: Callable[[tuple[int, ...]], float]) -> tuple[int, ...]:
    """Return the layers to run in INT8: those that lose least alone, as many as stay within the bar together.

    Args:
        layers: numbers of those that may be chosen.
        loss_db: what a form with some of them in INT8 loses.
    """
    alone = {layer: loss_db((layer,)) for layer in layers}
    chosen: tuple[int, ...] = ()
    for layer in sorted(alone, key=lambda number: alone[number]):
        together = tuple(sorted((*chosen, layer)))
        if loss_db(together) <= INT8_LOSS_DB:
            chosen = together
    return chosen


def mean_psnr(graph: bytes, scenes: Sequence[Scene]) -> dict[str, float]:
    """Return luma PSNR in dB inside the field of view, averaged over the pictures of each set."""
    from streamsr.runtimes.untold_onnxruntime import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    found: dict[str, list[float]] = {}
    for name, low, truth, mask in scenes:
        picture = session.run(None, {"lr": np.ascontiguousarray(low[None, None])})[0][0, 0]
        found.setdefault(name, []).append(psnr_db(picture, truth, mask=mask))
    return {name: float(np.mean(values)) for name, values in found.items()}


def load_scenes(data: Path, scale: int, *, most_per_set: int | None) -> list[Scene]:
    """Return validation pictures."""
    pairs = load_pairs(data, "val", scale, most_per_set=most_per_set)
    return [(pair.dataset, pair.lr, pair.hr, mask) for pair, mask in zip(pairs, field_masks(pairs), strict=True)]


def worst_loss(engine: Engine, scenes: Sequence[Scene]) -> Callable[[tuple[int, ...]], float]:
    """Return what measures how many dB INT8 in some layers loses on the worst set, against the float32 network."""
    quantised = engine.read_file("int8")
    exact = mean_psnr(float_student(engine.weights(), scale=engine.scale, eight_bit=True), scenes)

    def loss_db(layers: tuple[int, ...]) -> float:
        form = symmetric_student(quantised, scale=engine.scale, layers=layers)
        return max(exact[name] - psnr for name, psnr in mean_psnr(form, scenes).items())

    return loss_db


def ship_symmetric(folder: Path, data: Path) -> str:
    """Add the symmetric form to an engine, or take it away where none holds the bar; return what was done in one line.

    Args:
        folder: of a student that ships an INT8 form.
        data: folder with MANIFEST.tsv.

    Raises:
        EngineError: the engine is no such student.
    """
    engine = read_engine(folder)
    if engine.architecture != "student" or "int8" not in engine.precisions:
        raise EngineError(
            f"{folder}: expected a student with an INT8 form, got {engine.architecture}; quantise it first"
        )
    layers = range(1, engine.depth + 2)
    chosen = choose_layers(layers, worst_loss(engine, load_scenes(data, engine.scale, most_per_set=TRIED_EACH)))
    loss = worst_loss(engine, load_scenes(data, engine.scale, most_per_set=None))(chosen)
    offered = len(chosen) >= LEAST_PART * len(layers) and loss <= INT8_LOSS_DB
    form = symmetric_student(engine.read_file("int8"), scale=engine.scale, layers=chosen) if offered else None
    write_form(folder, form)
    verdict = "offered" if offered else "not offered"
    return f"{engine.name}: layers {chosen} of {len(layers)} in INT8 lose {loss:.3f} dB: {verdict}"


def write_form(folder: Path, form: bytes | None) -> None:
    """Put a form into an engine's folder and manifest, or take it out of both; the manifest is replaced last."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    manifest["files"].pop(FILE, None)
    manifest["precisions"].pop(SYMMETRIC, None)
    if form is not None:
        replace(folder / FILE, form)
        manifest["files"][FILE] = hashlib.sha256(form).hexdigest()
        manifest["precisions"][SYMMETRIC] = FILE
    replace(folder / MANIFEST, json.dumps(manifest, indent=2).encode() + b"\n")
    if form is None:
        (folder / FILE).unlink(missing_ok=True)


def replace(path: Path, content: bytes) -> None:
    """Write a file aside and rename it into place."""
    aside = path.with_name(f".{path.name}.part")
    aside.write_bytes(content)
    aside.replace(path)


def main(arguments: Sequence[str]) -> None:
    """Measure every engine folder but the last argument, which is the data."""
    *folders, data = map(Path, arguments)
    for folder in folders:
        sys.stdout.write(ship_symmetric(folder, data) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
