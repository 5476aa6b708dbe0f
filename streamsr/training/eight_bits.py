"""The two forms of eight bits that TensorRT takes of a student: symmetric INT8 and FP8, and what makes each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamsr.engine import Engine
from streamsr.models.student import Student, StudentSpec
from streamsr.runtimes.onnx_graph import Weights
from streamsr.runtimes.tensorrt_graph import half_student, symmetric_student
from streamsr.runtimes.tensorrt_plans import FORMS as NAMES
from streamsr.runtimes.torch_cpu import load_network
from streamsr.training.data import load_pairs
from streamsr.training.degrade import degraded
from streamsr.training.float8_scales import float8_layers
from streamsr.training.float8_tuning import Float8Student
from streamsr.training.quantise import CALIBRATION_FRAMES, TUNING_STEPS, arrays, tune, tuning_crops
from streamsr.training.ship import ROBUST_LINE

Make = Callable[[Sequence[int]], bytes]
"""Makes the ONNX of a form with some layers, given by their numbers, in eight bits."""

SIXTEENS = 16
"""What FP8 convolutions are taken to want on both sides, not tried on a GPU; other layers run in FP16 and only lose."""


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


def is_robust(engine: Engine) -> bool:
    """Whether an engine was taught degraded input."""
    settings = engine.folder / "train.toml" if engine.folder else None
    return settings is not None and settings.is_file() and ROBUST_LINE in settings.read_text(encoding="utf-8")


SYMMETRIC = Form("int8", "Symmetric INT8", "int8", behind_the_first, prepare_symmetric)
FLOAT8 = Form("fp8", "FP8", "fp32", in_sixteens, prepare_float8)
FORMS = (SYMMETRIC, FLOAT8)
