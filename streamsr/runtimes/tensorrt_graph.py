"""Students and SRGAN generators as strongly typed FP16 graphs in ONNX, as TensorRT takes them.

The types written here are the types that run: TensorRT-RTX and TensorRT 11 know no precision flags. Three things keep
FP16 within a grey level of fp32. Samples enter as ``level / 256``, which is exact, and the first layer's weights carry
the rest. Grey levels leave as ``level - 128``, so that their step in FP16 is a sixteenth and not an eighth. Deeper
samples pass through the skip in float32. An SRGAN's batch normalisation is folded; its PReLU has one slope a layer, so
it is a leaky ReLU, which commutes with the pixel shuffle in front of it and fuses with the convolution; and its 9x9
tail at full size is an equal 5x5 convolution in front of the last pixel shuffle, with 12 channels where there were 3,
which spares the 64 channels at full size.

Students come in two forms of eight bits besides, symmetric INT8 and FP8 (E4M3), each with some layers left in FP16:
which layers bear it is found by measurement (`streamsr.training.forms`), and an engine ships what was found.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, checker, helper, load_from_string, numpy_helper

from streamsr.engine import Engine
from streamsr.errors import EngineError
from streamsr.runtimes.float8 import encoded
from streamsr.runtimes.onnx_graph import GraphBuilder, Weights, skip_kernel
from streamsr.runtimes.tensorrt_plans import FORMS

Samples = Literal["uint8", "float16", "float32"]
"""Of the pictures at both ends: grey levels, or [0, 1]."""

OPSET = 19
"""The first that quantises FP16, and the first that has FP8."""

IR_VERSION = 9
EPSILON = 1e-5
"""Added to the variance by PyTorch's batch normalisation."""

TYPES = {"uint8": TensorProto.UINT8, "float16": TensorProto.FLOAT16, "float32": TensorProto.FLOAT}
SYMMETRIC_PEAK = 127
"""The largest level of a symmetric INT8 activation: half of the 255 that other runtimes have behind a ReLU."""

LEAST_STEP = 2.0**-14
"""The smallest step of FP8 values: the smallest that FP16 holds with all its bits."""


@dataclass(frozen=True)
class Float8Layer:
    """What the FP8 values of one layer stand for.

    Attributes:
        input_step: what 1.0 stands for in what it reads.
        weight_steps: (outputs,) what 1.0 stands for in the weights of each output channel.
    """

    input_step: float
    weight_steps: NDArray[np.float32]


class HalfGraph(GraphBuilder):
    """Collects the nodes and constants of one graph whose arithmetic is FP16.

    Args:
        samples: type of both ends.
    """

    def __init__(self, samples: Samples) -> None:
        super().__init__()
        self.samples = samples

    def cast(self, values: str, samples: str, output: str) -> str:
        """Add a change of type."""
        return self.node("Cast", [values], output, to=TYPES[samples])

    def convolve(self, features: str, name: str, weight: NDArray[Any], bias: NDArray[Any] | None) -> str:
        """Add a convolution of stride one in FP16, zeros around, and return its output."""
        inputs = [features, self.constant(f"{name}_weight", weight, np.float16)]
        if bias is not None:
            inputs.append(self.constant(f"{name}_bias", bias, np.float16))
        side = weight.shape[-1]
        return self.node("Conv", inputs, name, kernel_shape=[side, side], pads=[side // 2] * 4)

    def float8(self, name: str, values: Any) -> str:
        """Add an FP8 constant, once, and return its name."""
        packed = encoded(values)
        kind = TensorProto.FLOAT8E4M3FN
        self.constants.setdefault(name, helper.make_tensor(name, kind, packed.shape, packed.tobytes(), raw=True))
        return name

    def step(self, name: str, values: Any) -> tuple[str, NDArray[np.float16]]:
        """Add what 1.0 in FP8 stands for, and return its name and its values as FP16 holds them."""
        held = np.maximum(values, LEAST_STEP).astype(np.float16)
        return self.constant(name, held, np.float16), held

    def convolve_in_float8(
        self, features: str, name: str, weight: NDArray[Any], bias: NDArray[Any], layer: Float8Layer, gain: float
    ) -> str:
        """Add a convolution whose input and weights are FP8, and return its output in FP16; ``gain`` is in both."""
        zero, (step, _) = self.float8("zero8", 0.0), self.step(f"{name}_input_step", layer.input_step)
        levels = self.node("QuantizeLinear", [features, step, zero], f"{name}_input_levels")
        real = self.dequantised(levels, step, zero, f"{name}_input")
        steps, held = self.step(f"{name}_weight_step", layer.weight_steps * gain)
        codes = self.float8(f"{name}_weight_levels", weight / held.astype(np.float64).reshape(-1, 1, 1, 1))
        zeros = self.float8(f"{name}_weight_zero", np.zeros(len(held)))
        kernel = self.dequantised(codes, steps, zeros, f"{name}_weight", axis=0)
        return self.convolution(real, kernel, name, bias=self.constant(f"{name}_bias", bias, np.float16))

    def first_samples(self) -> tuple[str, float]:
        """Return the picture in FP16 and what the first layer's weights must be multiplied by."""
        if self.samples != "uint8":
            return ("lr" if self.samples == "float16" else self.cast("lr", "float16", "half")), 1.0
        scaled = [self.cast("lr", "float16", "levels"), self.constant("to_unit", 1.0 / 256.0, np.float16)]
        return self.node("Mul", scaled, "unit"), 256.0 / 255.0

    def rounded_levels(self, centred: str) -> str:
        """Return ``level - 128`` in floating point as the nearest grey level, clamped, still in FP16."""
        limits = [self.constant("black", -128.0, np.float16), self.constant("white", 127.0, np.float16)]
        clamped = self.node("Clip", [self.node("Round", [centred], "nearest"), *limits], "clamped")
        return self.node("Add", [clamped, self.constant("middle", 128.0, np.float16)], "grey")

    def finish(self, phases: str, scale: int) -> None:
        """Shuffle the phases into place and write them as samples of the graph's type."""
        if self.samples == "uint8":  # TensorRT has 8-bit samples at the very end alone
            self.node("DepthToSpace", [phases], "enlarged", blocksize=scale, mode="CRD")
            self.cast("enlarged", "uint8", "sr")
        else:
            self.node("DepthToSpace", [phases], "sr", blocksize=scale, mode="CRD")

    def half_model(self, channels: int) -> bytes:
        """Return the checked model from ``lr`` (N, C, H, W) to ``sr`` (N, C, scale * H, scale * W)."""
        small = helper.make_tensor_value_info("lr", TYPES[self.samples], ["n", channels, "h", "w"])
        large = helper.make_tensor_value_info("sr", TYPES[self.samples], ["n", channels, "sh", "sw"])
        graph = helper.make_graph(self.nodes, "generator", [small], [large], list(self.constants.values()))
        model: ModelProto = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="streamsr"
        )
        checker.check_model(model)
        content: bytes = model.SerializeToString()
        return content


def tensorrt_graph(engine: Engine, *, precision: str, samples: Samples) -> bytes:
    """Return an engine's network as ONNX for TensorRT.

    Args:
        engine: a student or an SRGAN generator.
        precision: ``fp16``; ``fp8`` and ``int8`` where the engine ships such a form, which it does where that holds the
            bar.
        samples: type of both ends.

    Raises:
        EngineError: there is no such network, or not in this precision.
        EngineTampered: the weights' hash is not the manifest's.
    """
    form = FORMS.get(precision, "")
    if form in engine.precisions and samples == "uint8":
        return engine.read_file(form)
    if precision == "fp16" and engine.architecture == "student":
        return half_student(engine.weights(), scale=engine.scale, samples=samples)
    if precision == "fp16" and engine.architecture == "srgan":
        return half_srgan(engine.weights(), scale=engine.scale, num_blocks=engine.depth, samples=samples)
    raise EngineError(
        f"{engine.name}: tensorrt runs students and srgan generators in fp16, and 8-bit samples in fp8 and int8 where "
        f"the engine ships a form for it; got {engine.architecture} in {precision} on {samples}; use --precision fp16"
    )


def half_student(
    weights: Weights, *, scale: int, samples: Samples, float8: Mapping[int, Float8Layer] = MappingProxyType({})
) -> bytes:
    """Return a student in FP16, some of its layers in FP8.

    Args:
        weights: ``layers.K.weight`` and ``layers.K.bias``, float32.
        scale: enlargement of each side.
        samples: type of both ends.
        float8: by their numbers, from 1, the layers to run in FP8; layer 0 reads the picture and stays in FP16.
    """
    graph = HalfGraph(samples)
    features, unit = graph.first_samples()
    num_layers = len(weights) // 2
    for index in range(num_layers):
        last = index == num_layers - 1
        weight, bias = weights[f"layers.{index}.weight"], weights[f"layers.{index}.bias"]
        gain = 255.0 if last and samples == "uint8" else 1.0
        weight, bias = weight * (unit if index == 0 else 1.0) * gain, bias * gain
        if index in float8 and index:
            features = graph.convolve_in_float8(features, f"conv{index}", weight, bias, float8[index], gain)
        else:
            features = graph.convolve(features, f"conv{index}", weight, bias)
        features = features if last else graph.node("Relu", [features], f"relu{index}")
    add_skip(graph, features, scale)
    return graph.half_model(weights["layers.0.weight"].shape[1])


def add_skip(graph: HalfGraph, residual: str, scale: int) -> None:
    """Add the interpolated picture to a student's last layer, and the end of the graph.

    The skip of 8-bit samples is exact at x2: ``level - 128`` in sixteenths has at most 12 bits, sign included. That of
    float32 samples runs in float32, or their lower bits were lost.
    """
    kernel = skip_kernel(scale) / (2.0 * scale) ** 2
    picture, dtype = "lr", np.float32 if graph.samples == "float32" else np.float16
    if graph.samples == "uint8":
        halves = [graph.cast("lr", "float16", "skip_levels"), graph.constant("middle", 128.0, np.float16)]
        picture = graph.node("Sub", halves, "centred")
    elif graph.samples == "float32":
        residual = graph.cast(residual, "float32", "residual")
    pads = graph.constant("pads", [0, 0, 1, 1, 0, 0, 1, 1], np.int64)
    padded = graph.node("Pad", [picture, pads], "padded", mode="edge")
    skip = graph.convolution(padded, graph.constant("skip_weight", kernel, dtype), "skip", pad=0)
    total = graph.node("Add", [residual, skip], "sum")
    graph.finish(graph.rounded_levels(total) if graph.samples == "uint8" else total, scale)


def symmetric_student(quantised: bytes, *, scale: int, layers: Collection[int]) -> bytes:
    """Return a student whose chosen layers run in symmetric INT8 and the others in FP16; uint8 at both ends.

    TensorRT takes activations around zero only, of which a ReLU leaves 127 levels, and no 32-bit biases. That costs
    more than most students can spare in all layers at once, so those that lose least are chosen
    (`streamsr.training.forms`). Activations of the others end where their 8 bits ended: a channel that was never
    active may hold the upper half of another, which counts on that (`streamsr.training.quantise.spread`).

    Args:
        quantised: from `streamsr.runtimes.onnx_graph.quantised_student`.
        scale: enlargement of each side.
        layers: numbers of the layers to run in INT8, from 1; layer 0 reads the picture and stays in FP16.
    """
    shipped = {tensor.name: numpy_helper.to_array(tensor) for tensor in load_from_string(quantised).graph.initializer}
    graph = HalfGraph("uint8")
    features, _ = graph.first_samples()
    zero = graph.constant("zero", 0, np.int8)
    num_layers = sum(name.startswith("w") and name.endswith("_levels") for name in shipped)
    for index in range(num_layers):
        levels, steps, bias = (shipped[name] for name in (f"w{index}_levels", f"w{index}_step", f"b{index}"))
        if index in layers and index:
            zeros = graph.constant(f"w{index}_zero", np.zeros(len(steps)), np.int8)
            step, whole = graph.constant(f"w{index}_step", steps), graph.constant(f"w{index}_levels", levels, np.int8)
            real = graph.dequantised(whole, step, zeros, f"w{index}", axis=0)
            made = graph.convolution(features, real, f"conv{index}", bias=graph.constant(f"b{index}", bias))
            features = graph.cast(made, "float16", f"half{index}")
        else:  # the first layer's weights are for whole grey levels, and it reads 1/256 of them
            weight_values = levels * steps.reshape(-1, 1, 1, 1) * (1.0 if index else 256.0)
            features = graph.convolve(features, f"conv{index}", weight_values, bias)
        if index + 1 < num_layers and index + 1 not in layers:  # what 8 bits clip is part of the network
            most = shipped[f"a{index}_step"] * 255.0
            limits = [graph.constant("nothing", 0.0, np.float16), graph.constant(f"a{index}_most", most, np.float16)]
            features = graph.node("Clip", [features, *limits], f"relu{index}")
        elif index + 1 < num_layers:
            features = graph.node("Relu", [features], f"relu{index}")
            step = graph.constant(f"a{index}_step", shipped[f"a{index}_step"] * (255.0 / SYMMETRIC_PEAK))
            wide = graph.cast(features, "float32", f"wide{index}")
            quantised_levels = graph.node("QuantizeLinear", [wide, step, zero], f"a{index}_levels")
            features = graph.dequantised(quantised_levels, step, zero, f"a{index}")
    add_skip(graph, features, scale)
    return graph.half_model(1)


def half_srgan(weights: Weights, *, scale: int, num_blocks: int, samples: Samples) -> bytes:
    """Return an SRGAN generator in FP16, its batch normalisation folded.

    Args:
        weights: of a `streamsr.models.srgan.SRGANGenerator`, float32, as trained.
        scale: 2 or 4.
        num_blocks: residual blocks.
        samples: type of both ends.
    """
    graph = HalfGraph(samples)
    features, unit = graph.first_samples()
    head = graph.convolve(features, "head", weights["head.0.weight"] * unit, weights["head.0.bias"])
    long_skip = features = leaky(graph, head, "head_relu", weights["head.1.weight"])
    for index in range(num_blocks):
        place = f"blocks.{index}.body"
        change = graph.convolve(features, f"block{index}_a", *folded(weights, f"{place}.0", f"{place}.1"))
        change = leaky(graph, change, f"block{index}_relu", weights[f"{place}.2.weight"])
        change = graph.convolve(change, f"block{index}_b", *folded(weights, f"{place}.3", f"{place}.4"))
        features = graph.node("Add", [features, change], f"block{index}")
    features = graph.convolve(features, "neck", *folded(weights, "neck.0", "neck.1"))
    features = graph.node("Add", [long_skip, features], "body")
    for stage in range(scale.bit_length() - 1):
        place = f"enlarge.{3 * stage}"
        if stage:
            features = graph.node("DepthToSpace", [features], f"shuffle{stage}", blocksize=2, mode="CRD")
        features = graph.convolve(features, f"enlarge{stage}", weights[f"{place}.weight"], weights[f"{place}.bias"])
        features = leaky(graph, features, f"enlarge{stage}_relu", weights[f"enlarge.{3 * stage + 2}.weight"])
    add_tail(graph, features, weights["tail.weight"], weights["tail.bias"])
    return graph.half_model(3)


def add_tail(graph: HalfGraph, features: str, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
    """Add the tail of an SRGAN in front of the last pixel shuffle, and the end of the graph."""
    gain, middle = (255.0, 128.0) if graph.samples == "uint8" else (1.0, 0.0)
    phases = np.repeat(bias * gain - middle, 4)
    total = graph.convolve(features, "tail", unshuffled(weight) * gain, phases)
    if graph.samples == "float32":
        total = graph.cast(total, "float32", "tail_float")
    graph.finish(graph.rounded_levels(total) if graph.samples == "uint8" else total, 2)


def unshuffled(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the convolution in front of a pixel shuffle by 2 that equals one behind it.

    Output phase ``p`` reads, through tap ``k`` of a kernel of radius r, the sample ``2y + p + k - r`` behind the
    shuffle: phase ``(p + k - r) mod 2`` of pixel ``y + (p + k - r) // 2`` in front of it. Zeros around stay zeros.

    Args:
        weight: (outputs, C, K, K), K odd.

    Returns:
        (4 * outputs, 4 * C, L, L) where L = 2 * ceil(r / 2) + 1, channels in the order of the shuffle.
    """
    outputs, channels, side, _ = weight.shape
    radius = side // 2
    reach = (radius + 1) // 2
    folded_weight = np.zeros((outputs, 2, 2, channels, 2, 2, 2 * reach + 1, 2 * reach + 1), np.float32)
    for row in range(2):
        for column in range(2):
            for y, x in np.ndindex(side, side):
                (down, down_phase), (right, right_phase) = divmod(row + y - radius, 2), divmod(column + x - radius, 2)
                target = folded_weight[:, row, column, :, down_phase, right_phase]
                target[:, :, down + reach, right + reach] = weight[:, :, y, x]
    return folded_weight.reshape(4 * outputs, 4 * channels, 2 * reach + 1, 2 * reach + 1)


def leaky(graph: HalfGraph, features: str, output: str, slope: NDArray[np.float32]) -> str:
    """Add a PReLU of one slope, which is a leaky ReLU.

    Raises:
        EngineError: it has a slope a channel.
    """
    if slope.size != 1:
        raise EngineError(f"expected PReLUs of one slope, got {slope.size} slopes; use --runtime cuda")
    return graph.node("LeakyRelu", [features], output, alpha=float(slope.reshape(())))


def folded(weights: Weights, convolution: str, norm: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return weight and bias of a convolution and the batch normalisation behind it as one convolution.

    See `streamsr.models.srgan.fold_batch_norm` for the formula.
    """
    gain = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"] + np.float32(EPSILON))
    weight = weights[f"{convolution}.weight"] * gain[:, None, None, None]
    return weight, weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * gain
