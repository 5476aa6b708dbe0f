"""A student as an OpenVINO graph in fp32, samples of the caller's type at both ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamsr.runtimes.untold_openvino import op, ov

Weights = Mapping[str, NDArray[np.float32]]


def bilinear_kernel(scale: int) -> NDArray[np.float64]:
    """Return the skip of a student, (scale * scale, 1, 3, 3); see `streamsr.models.student.bilinear_taps`."""
    offsets = (np.arange(scale) + 0.5) / scale - 0.5
    taps = np.stack([np.maximum(-offsets, 0), 1 - np.abs(offsets), np.maximum(offsets, 0)], axis=1)
    kernel: NDArray[np.float64] = np.einsum("pi,qj->pqij", taps, taps).reshape(scale * scale, 1, 3, 3)
    return kernel


def build_student(weights: Weights, *, scale: int, shape: tuple[int, ...], dtype: type[Any]) -> Any:
    """Build a student for one shape.

    Args:
        weights: ``layers.K.weight`` and ``layers.K.bias`` of a `streamsr.models.student.Student`.
        scale: enlargement of each side.
        shape: (N, 1, H, W).
        dtype: np.uint8 for samples 0..255, rounded half to even and clamped inside the graph; np.float32 for [0, 1].

    Returns:
        An `openvino.Model` from (N, 1, H, W) to (N, 1, scale * H, scale * W), both of ``dtype``.
    """
    eight_bit = dtype is np.uint8
    peak = 255.0 if eight_bit else 1.0
    picture = op.parameter(ov.PartialShape(list(shape)), dtype, name="lr")
    samples = op.convert(picture, "f32") if eight_bit else picture
    num_layers = len(weights) // 2
    features: Any = samples
    for index in range(num_layers):
        weight = weights[f"layers.{index}.weight"] * (1.0 / peak if index == 0 else 1.0)
        bias = weights[f"layers.{index}.bias"]
        last = index == num_layers - 1
        if last:  # the sum with the skip is in the caller's units
            weight, bias = weight * peak, bias * peak
        features = op.add(convolve(features, weight, pad=1), constant(bias.reshape(1, -1, 1, 1)))
        features = features if last else op.relu(features)
    total = op.add(features, convolve(replicate(samples), bilinear_kernel(scale), pad=0))
    if eight_bit:
        total = op.convert(op.clamp(op.round(total, "half_to_even"), 0.0, 255.0), "u8")
    return ov.Model([op.result(op.depth_to_space(total, "depth_first", scale))], [picture], "student")


def end_in_phases(model: Any) -> Any:
    """Return a student without its pixel shuffle.

    Args:
        model: with a DepthToSpace at its end, from `build_student` or an engine's INT8 form.

    Returns:
        An `openvino.Model` to (N, H, W, scale * scale), the samples that each pixel becomes, row by row.
    """
    shuffles = [node for node in model.get_ordered_ops() if node.get_type_name() == "DepthToSpace"]
    channels_last = op.constant(np.array([0, 2, 3, 1], np.int64))
    phases = op.transpose(shuffles[-1].input_value(0), channels_last)
    return ov.Model([op.result(phases)], model.get_parameters(), "phases")


def constant(values: Any) -> Any:
    """Return a float32 constant."""
    return op.constant(np.asarray(values, np.float32))


def convolve(features: Any, weight: Any, *, pad: int) -> Any:
    """Return a convolution of stride one with zeros around."""
    return op.convolution(features, constant(weight), [1, 1], [pad, pad], [pad, pad], [1, 1])


def replicate(samples: Any) -> Any:
    """Return pictures with their border repeated once."""
    margins = op.constant(np.array([0, 0, 1, 1], np.int64))
    return op.pad(samples, margins, margins, "edge")
