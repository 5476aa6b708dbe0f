"""The forms of eight bits that TensorRT takes, symmetric INT8 and FP8: which layers bear them is found by measurement.

Run as ``python -m streamsr.training.forms ENGINE_FOLDER... DATA``. Behind a ReLU a symmetric activation has 127 levels
where other runtimes have 255, and an FP8 activation three bits of mantissa; most layers do not bear that all together.
Layers are tried alone, then joined from the least harmful on for as long as the worst validation set keeps within
`INT8_LOSS_DB` of float32. A form with fewer than half of the layers would gain nothing and is not offered. Before FP8
is given up, the weights are tuned for a short while, with the least harmful half rounded, towards what the network made
before; those of symmetric INT8 were tuned as unsigned INT8.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamsr.engine import MANIFEST, Engine, read_engine
from streamsr.errors import EngineError
from streamsr.quality.fidelity import psnr_db
from streamsr.runtimes.onnx_graph import float_student
from streamsr.training.card import with_form
from streamsr.training.data import Pair, field_masks, load_pairs
from streamsr.training.degrade import degraded
from streamsr.training.eight_bits import FORMS, Form, behind_the_first, is_robust
from streamsr.training.quantise import INT8_LOSS_DB
from streamsr.training.ship import JUDGED_FRAMES

Luma = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Scene = tuple[str, Luma, Luma, Mask]
"""Name of the set, low resolution, truth, field of view."""

CARD = "card.md"

LEAST_PART = 0.5
"""Of the layers behind the first."""

TRIED_EACH = 6
"""Validation pictures of each set on which layers are chosen; the result is then measured on all."""


@dataclass(frozen=True)
class Finding:
    """What was found of a form of an engine.

    Attributes:
        engine: its name.
        form: its name in manifests.
        num_layers: behind the first.
        alone_db: what each layer that may be chosen loses alone on the worst set, on the pictures of the choice.
        layers: that were chosen.
        loss_db: what they lose together on every validation set, all of its pictures.
        tuned: whether the weights were tuned for it.
        offered: whether the form holds the bar and has enough layers.
        content: it, where it is offered.
    """

    engine: str
    form: str
    num_layers: int
    alone_db: Mapping[int, float]
    layers: tuple[int, ...]
    loss_db: Mapping[str, float]
    tuned: bool
    offered: bool
    content: bytes | None

    @property
    def told(self) -> str:
        """What an engine's card says of it; nothing where it is not offered."""
        if not self.offered:
            return ""
        tuned = ", the weights tuned on training crops with these layers rounded" if self.tuned else ""
        return (
            f"Layers {', '.join(map(str, self.layers))} of {self.num_layers} behind the first in eight bits, one scale "
            f"for what a layer reads and one a channel for its weights, the others in FP16{tuned}; loses at most "
            f"{max(self.worst_db, 0.0):.3f} dB on a validation set."
        )

    @property
    def worst_db(self) -> float:
        """What the chosen layers lose on the worst set."""
        return max(self.loss_db.values(), default=0.0)

    def __str__(self) -> str:
        verdict = "offered" if self.offered else "not offered"
        return (
            f"{self.engine}: layers {self.layers} of {self.num_layers} in {self.form}{', tuned,' * self.tuned} lose "
            f"{self.worst_db:.3f} dB: {verdict}"
        )


def join_layers(alone_db: Mapping[int, float], loss_db: Callable[[tuple[int, ...]], float]) -> list[int]:
    """Return the layers to run in eight bits, from the least harmful on: as many as stay within the bar together.

    Args:
        alone_db: what each layer that may be chosen loses alone.
        loss_db: what a form with some of them loses.
    """
    chosen: list[int] = []
    for layer in sorted(alone_db, key=lambda number: alone_db[number]):
        together = tuple(sorted((*chosen, layer)))
        alone = len(together) == 1
        if (alone_db[layer] if alone else loss_db(together)) <= INT8_LOSS_DB:
            chosen.append(layer)
    return chosen


def mean_psnr(graph: bytes, scenes: Sequence[Scene]) -> dict[str, float]:
    """Return luma PSNR in dB inside the field of view, averaged over the pictures of each set; on one core.

    The graph runs as it is written: optimised by ONNX Runtime 1.32, two FP8 layers in a row were rounded otherwise, and
    lost 0.38 dB in place of 0.10.
    """
    from streamsr.runtimes.untold_onnxruntime import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    found: dict[str, list[float]] = {}
    for name, low, truth, mask in scenes:
        picture = session.run(None, {"lr": np.ascontiguousarray(low[None, None])})[0][0, 0]
        found.setdefault(name, []).append(psnr_db(picture, truth, mask=mask))
    return {name: float(np.mean(values)) for name, values in found.items()}


def load_scenes(
    data: Path, scale: int, *, most_per_set: int | None = None, split: str = "val", degrades: bool = False
) -> list[Scene]:
    """Return pictures of one side; degraded ones beside them, as sets of their own, where asked for."""
    pairs = load_pairs(data, split, scale, most_per_set=most_per_set)
    made = scenes_of(pairs)
    if degrades:
        rough = load_pairs(data, split, scale, most_per_set=min(JUDGED_FRAMES, most_per_set or JUDGED_FRAMES))
        made += [(f"{name}, degraded", *rest) for name, *rest in scenes_of(degraded(rough, scale))]  # type: ignore[misc]
    return made


def scenes_of(pairs: list[Pair]) -> list[Scene]:
    """Return pairs with their fields of view."""
    return [(pair.dataset, pair.lr, pair.hr, mask) for pair, mask in zip(pairs, field_masks(pairs), strict=True)]


def loss_by_set(engine: Engine, scenes: Sequence[Scene]) -> Callable[[bytes], dict[str, float]]:
    """Return what measures how many dB a form of an engine loses on each set, against the float32 network."""
    exact = mean_psnr(float_student(engine.weights(), scale=engine.scale, eight_bit=True), scenes)
    return lambda graph: {name: exact[name] - psnr for name, psnr in mean_psnr(graph, scenes).items()}


def find_layers(engine: Engine, form: Form, data: Path) -> Finding:
    """Choose the layers of a form on some validation pictures, and measure it on all.

    Where it loses too much on all, the layers that were joined last are left out again, as long as enough are left.
    Where too few layers hold the bar and the form knows a tuning, the least harmful half of them is tuned.

    Raises:
        EngineError: the engine is no student, or ships not what the form is made of.
    """
    if engine.architecture != "student" or form.needs not in engine.precisions:
        raise EngineError(
            f"{engine.name}: expected a student that ships {form.needs} to make {form.name} of, got "
            f"{engine.architecture} in {', '.join(engine.precisions)}; quantise it first"
        )
    makers, degrades = form.prepare(engine, data), is_robust(engine)
    lost = loss_by_set(engine, load_scenes(data, engine.scale, most_per_set=TRIED_EACH, degrades=degrades))
    alone = {layer: max(lost(makers.plain((layer,))).values()) for layer in form.layers_of(engine)}
    chosen = join_layers(alone, lambda layers: max(lost(makers.plain(layers)).values()))
    all_lost = loss_by_set(engine, load_scenes(data, engine.scale, degrades=degrades))
    num_layers = len(behind_the_first(engine))
    enough = math.ceil(LEAST_PART * num_layers)
    content = makers.plain(sorted(chosen))
    found = all_lost(content)
    while max(found.values()) > INT8_LOSS_DB and len(chosen) > enough:
        chosen.pop()
        content = makers.plain(sorted(chosen))
        found = all_lost(content)
    tuned = makers.tuned is not None and len(alone) >= enough and not holds(found, chosen, enough)
    if tuned and makers.tuned is not None:
        chosen = sorted(alone, key=lambda number: alone[number])[:enough]
        content = makers.tuned(sorted(chosen))
        found = all_lost(content)
    offered = holds(found, chosen, enough)
    layers = tuple(sorted(chosen))
    return Finding(
        engine.name, form.name, num_layers, alone, layers, found, tuned, offered, content if offered else None
    )


def holds(loss_db: Mapping[str, float], layers: Sequence[int], enough: int) -> bool:
    """Whether a form is worth offering: it keeps within the bar on every set, and enough layers are in it."""
    return len(layers) >= enough and max(loss_db.values()) <= INT8_LOSS_DB


def ship_form(folder: Path, form: Form, data: Path) -> Finding:
    """Add a form to an engine, or take it away where none holds the bar; return what was found.

    Args:
        folder: of a student.
        form: which.
        data: folder with MANIFEST.tsv.

    Raises:
        EngineError: the engine is no student, or ships not what the form is made of.
    """
    found = find_layers(read_engine(folder), form, data)
    write_form(folder, form, found)
    return found


def write_form(folder: Path, form: Form, found: Finding | None) -> None:
    """Put a form into an engine's folder, card and manifest, or take it out of all; the manifest is replaced last."""
    content = found.content if found else None
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    manifest["files"].pop(form.file, None)
    manifest["precisions"].pop(form.name, None)
    if content is not None:
        replace(folder / form.file, content)
        manifest["files"][form.file] = hashlib.sha256(content).hexdigest()
        manifest["precisions"][form.name] = form.file
    if (folder / CARD).is_file():
        text = (folder / CARD).read_text(encoding="utf-8")
        replace(folder / CARD, with_form(text, form.title, found.told if found else "").encode())
    replace(folder / MANIFEST, json.dumps(manifest, indent=2).encode() + b"\n")
    if content is None:
        (folder / form.file).unlink(missing_ok=True)


def replace(path: Path, content: bytes) -> None:
    """Write a file aside and rename it into place."""
    aside = path.with_name(f".{path.name}.part")
    aside.write_bytes(content)
    aside.replace(path)


def main(arguments: Sequence[str]) -> None:
    """Measure the forms of every engine folder but the last argument, which is the data."""
    *folders, data = map(Path, arguments)
    for folder in folders:
        for form in FORMS:
            if form.needs in read_engine(folder).precisions:
                sys.stdout.write(f"{ship_form(folder, form, data)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
