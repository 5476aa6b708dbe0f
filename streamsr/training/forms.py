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
from streamsr.models.student import Student, StudentSpec
from streamsr.quality.fidelity import psnr_db
from streamsr.runtimes.onnx_graph import Weights, float_student
from streamsr.runtimes.tensorrt_graph import half_student, symmetric_student
from streamsr.runtimes.tensorrt_plans import FORMS as NAMES
from streamsr.runtimes.torch_cpu import load_network
from streamsr.training.data import Pair, field_masks, load_pairs
from streamsr.training.degrade import degraded
from streamsr.training.float8_scales import float8_layers
from streamsr.training.float8_tuning import Float8Student
from streamsr.training.quantise import (
    CALIBRATION_FRAMES,
    INT8_LOSS_DB,
    TUNING_STEPS,
    arrays,
    tune,
    tuning_crops,
)
from streamsr.training.ship import JUDGED_FRAMES, ROBUST_LINE

Luma = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Scene = tuple[str, Luma, Luma, Mask]
"""Name of the set, low resolution, truth, field of view."""

Make = Callable[[Sequence[int]], bytes]
"""Makes the ONNX of a form with some layers, given by their numbers, in eight bits."""

LEAST_PART = 0.5
"""Of the layers behind the first."""

TRIED_EACH = 6
"""Validation pictures of each set on which layers are chosen; the result is then measured on all."""

SIXTEENS = 16
"""FP8 convolutions of TensorRT take channels in sixteens on both sides; others run in FP16, and only lose."""


@dataclass(frozen=True)
class Makers:
    """What makes a form of one engine.

    Attributes:
        plain: of its weights as they are.
        tuned: of weights that were tuned with the same layers rounded; None where there is no tuning.
    """

    plain: Make
    tuned: Make | None = None


@dataclass(frozen=True)
class Form:
    """One way of running some layers of a student in eight bits.

    Attributes:
        precision: that users ask for.
        title: for people.
        needs: a precision that an engine must ship for it.
        layers_of: the layers of an engine that may be chosen.
        prepare: given an engine and the data, returns what makes the form of it.
    """

    precision: str
    title: str
    needs: str
    layers_of: Callable[[Engine], Sequence[int]]
    prepare: Callable[[Engine, Path], Makers]

    @property
    def name(self) -> str:
        """What a manifest calls it."""
        return NAMES[self.precision]

    @property
    def file(self) -> str:
        """Name of its file in an engine's folder."""
        return f"model.{self.name}.onnx"


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
    def worst_db(self) -> float:
        """What the chosen layers lose on the worst set."""
        return max(self.loss_db.values(), default=0.0)

    def __str__(self) -> str:
        verdict = "offered" if self.offered else "not offered"
        return (
            f"{self.engine}: layers {self.layers} of {self.num_layers} in {self.form}{', tuned,' * self.tuned} lose "
            f"{self.worst_db:.3f} dB: {verdict}"
        )


def prepare_symmetric(engine: Engine, data: Path) -> Makers:
    """Return what makes symmetric INT8 of the INT8 form that an engine ships."""
    quantised = engine.read_file("int8")
    return Makers(lambda layers: symmetric_student(quantised, scale=engine.scale, layers=layers))


def prepare_float8(engine: Engine, data: Path) -> Makers:
    """Return what makes FP8 of an engine's float weights, its scales from training frames."""
    shown = load_pairs(data, "train", engine.scale, most_per_set=CALIBRATION_FRAMES)
    frames = [pair.lr for pair in (degraded(shown, engine.scale) if is_robust(engine) else shown)]
    network = load_network(engine)
    assert isinstance(network, Student)
    scales = float8_layers(network, frames)

    def plain(layers: Sequence[int]) -> bytes:
        return of(engine.weights(), layers)

    def of(weights: Weights, layers: Sequence[int]) -> bytes:
        chosen = {layer: scales[layer] for layer in layers}
        return half_student(weights, scale=engine.scale, samples="uint8", float8=chosen)

    def tuned(layers: Sequence[int]) -> bytes:
        rounded = Float8Student(network, {layer: scales[layer] for layer in layers})
        crops = tuning_crops(data, engine.scale, degrades=is_robust(engine))
        tune(rounded, ((low, network(low).detach()) for low, _ in crops), steps=TUNING_STEPS)
        return of(arrays(rounded.student), layers)

    return Makers(plain, tuned)


def behind_the_first(engine: Engine) -> Sequence[int]:
    """Return the layers of a student that read activations."""
    return range(1, engine.depth + 2)


def in_sixteens(engine: Engine) -> Sequence[int]:
    """Return those of them whose channels come in sixteens: at x2 all but the last."""
    spec = StudentSpec(engine.channels, engine.depth, engine.scale)
    ends = [spec.channels] * engine.depth + [spec.scale**2]
    return [layer for layer, outputs in enumerate(ends, 1) if spec.channels % SIXTEENS == outputs % SIXTEENS == 0]


SYMMETRIC = Form("int8", "INT8, symmetric", "int8", behind_the_first, prepare_symmetric)
FLOAT8 = Form("fp8", "FP8", "fp32", in_sixteens, prepare_float8)
FORMS = (SYMMETRIC, FLOAT8)


def is_robust(engine: Engine) -> bool:
    """Whether an engine was taught degraded input."""
    settings = engine.folder / "train.toml" if engine.folder else None
    return settings is not None and settings.is_file() and ROBUST_LINE in settings.read_text(encoding="utf-8")


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
    write_form(folder, form, found.content)
    return found


def write_form(folder: Path, form: Form, content: bytes | None) -> None:
    """Put a form into an engine's folder and manifest, or take it out of both; the manifest is replaced last."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    manifest["files"].pop(form.file, None)
    manifest["precisions"].pop(form.name, None)
    if content is not None:
        replace(folder / form.file, content)
        manifest["files"][form.file] = hashlib.sha256(content).hexdigest()
        manifest["precisions"][form.name] = form.file
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
