"""A student as an ONNX graph: in float, and quantised (QDQ: unsigned 8-bit activations, signed 8-bit weights).

The quantised graph is what an engine ships as its INT8 form. Every convolution has 8-bit inputs: the picture's own
samples for the first layer and the skip (exact), activations after ReLU with one scale a layer, weights with one scale
a channel. Biases stay float, as TensorRT wants them. The skip's weights are ``k / (2 * scale) ** 2`` for small whole k,
so they are exact too, and no grey level is lost to quantisation of the picture itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

OPSET = 17
IR_VERSION = 9

Weights = Mapping[str, NDArray[np.float32]]


class GraphBuilder:
    """Collects the nodes and constants of one ONNX graph."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def constant(self, name: str, values: Any, dtype: type[Any] = np.float32) -> str:
        """Add a constant, once, and return its name."""
        self.constants.setdefault(name, numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def convolution(self, features: str, weight: str, output: str, *, bias: str | None = None, pad: int = 1) -> str:
        """Add a 3x3 convolution of stride one."""
        inputs = [features, weight] if bias is None else [features, weight, bias]
        return self.node("Conv", inputs, output, kernel_shape=[3, 3], pads=[pad] * 4)

    def dequantised(self, values: str, scale: str, zero: str, output: str, **attributes: Any) -> str:
        """Add the change from 8-bit values to real ones."""
        return self.node("DequantizeLinear", [values, scale, zero], output, **attributes)

    def model(self, scale: int, dtype: int) -> bytes:
        """Return the checked model from ``lr`` (N, 1, H, W) to ``sr`` (N, 1, scale * H, scale * W)."""
        small = helper.make_tensor_value_info("lr", dtype, ["n", 1, "h", "w"])
        large = helper.make_tensor_value_info("sr", dtype, ["n", 1, "sh", "sw"])
        graph = helper.make_graph(self.nodes, "student", [small], [large], list(self.constants.values()))
        model: ModelProto = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="streamsr"
        )
        checker.check_model(model)
        content: bytes = model.SerializeToString()
        return content


def skip_kernel(scale: int) -> NDArray[np.int64]:
    """Return the bilinear skip in units of ``1 / (2 * scale) ** 2``: (scale * scale, 1, 3, 3) whole numbers."""
    places = 2 * np.arange(scale) + 1 - scale  # in units of 1 / (2 * scale) pixels from the pixel's middle
    taps = np.stack([np.maximum(-places, 0), 2 * scale - np.abs(places), np.maximum(places, 0)], axis=1)
    kernel: NDArray[np.int64] = np.einsum("pi,qj->pqij", taps, taps).reshape(scale * scale, 1, 3, 3)
    return kernel


def float_student(weights: Weights, *, scale: int, eight_bit: bool) -> bytes:
    """Return a student in float32, with uint8 samples at both ends or float32 samples in [0, 1]."""
    graph = GraphBuilder()
    peak = 255.0 if eight_bit else 1.0
    samples = graph.node("Cast", ["lr"], "samples", to=TensorProto.FLOAT) if eight_bit else "lr"
    num_layers = len(weights) // 2
    features = samples
    for index in range(num_layers):
        last = index == num_layers - 1
        weight = weights[f"layers.{index}.weight"] * ((1.0 / peak if index == 0 else 1.0) * (peak if last else 1.0))
        bias = weights[f"layers.{index}.bias"] * (peak if last else 1.0)
        weight_name, bias_name = graph.constant(f"w{index}", weight), graph.constant(f"b{index}", bias)
        features = graph.convolution(features, weight_name, f"conv{index}", bias=bias_name)
        features = features if last else graph.node("Relu", [features], f"relu{index}")
    pads = graph.constant("pads", [0, 0, 1, 1, 0, 0, 1, 1], np.int64)
    padded = graph.node("Pad", [samples, pads], "padded", mode="edge")
    kernel = graph.constant("skip", skip_kernel(scale) / (2.0 * scale) ** 2)
    total = graph.node("Add", [features, graph.convolution(padded, kernel, "skip_conv", pad=0)], "sum")
    if eight_bit:
        limits = [graph.constant("black", 0.0), graph.constant("white", 255.0)]
        clamped = graph.node("Clip", [graph.node("Round", [total], "rounded"), *limits], "clamped")
        total = graph.node("Cast", [clamped], "levels", to=TensorProto.UINT8)
    graph.node("DepthToSpace", [total], "sr", blocksize=scale, mode="CRD")
    return graph.model(scale, TensorProto.UINT8 if eight_bit else TensorProto.FLOAT)


def quantised_student(
    weights: Weights,
    *,
    scale: int,
    activation_clips: Sequence[float],
    weight_scales: Sequence[NDArray[np.float32]],
) -> bytes:
    """Return a student in INT8 with uint8 samples at both ends.

    Args:
        weights: ``layers.K.weight`` and ``layers.K.bias``, float32.
        scale: enlargement of each side.
        activation_clips: for each layer but the last, the activation that 255 stands for.
        weight_scales: for each layer, (outputs,) real value of one step of its 8-bit weights.
    """
    graph = GraphBuilder()
    zero = graph.constant("zero", 0, np.uint8)
    one = graph.constant("one", 1.0)
    features = graph.dequantised("lr", one, zero, "samples")
    num_layers = len(weights) // 2
    for index in range(num_layers):
        last = index == num_layers - 1
        unit = (1.0 / 255.0 if index == 0 else 1.0) * (255.0 if last else 1.0)
        weight = quantised_weight(graph, f"w{index}", weights[f"layers.{index}.weight"], weight_scales[index], unit)
        bias = graph.constant(f"b{index}", weights[f"layers.{index}.bias"] * (255.0 if last else 1.0))
        features = graph.convolution(features, weight, f"conv{index}", bias=bias)
        if not last:
            step = graph.constant(f"a{index}_step", activation_clips[index] / 255.0)
            rectified = graph.node("Relu", [features], f"relu{index}")
            levels = graph.node("QuantizeLinear", [rectified, step, zero], f"a{index}_levels")
            features = graph.dequantised(levels, step, zero, f"a{index}")
    pads = graph.constant("pads", [0, 0, 1, 1, 0, 0, 1, 1], np.int64)
    padded = graph.dequantised(graph.node("Pad", ["lr", pads], "padded", mode="edge"), one, zero, "padded_samples")
    steps = np.full(scale * scale, 1.0 / (2 * scale) ** 2, np.float32)
    kernel = quantised_weight(graph, "skip", skip_kernel(scale) * steps[0], steps, 1.0)
    total = graph.node("Add", [features, graph.convolution(padded, kernel, "skip_conv", pad=0)], "sum")
    graph.node(
        "DepthToSpace", [graph.node("QuantizeLinear", [total, one, zero], "levels")], "sr", blocksize=scale, mode="CRD"
    )
    return graph.model(scale, TensorProto.UINT8)


def quantised_weight(
    graph: GraphBuilder, name: str, weight: NDArray[Any], scales: NDArray[np.float32], unit: float
) -> str:
    """Add 8-bit weights, one scale an output channel, that stand for ``weight * unit``; return their real values."""
    levels = np.clip(np.rint(weight / scales.reshape(-1, 1, 1, 1)), -127, 127)
    zeros = graph.constant(f"{name}_zero", np.zeros(len(scales)), np.int8)
    steps = graph.constant(f"{name}_step", scales * unit)
    return graph.dequantised(graph.constant(f"{name}_levels", levels, np.int8), steps, zeros, name, axis=0)
