"""The processor's peaks: the fastest large products and convolutions that its best runtime can be brought to run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamsr.runtimes.untold_openvino import op, ov

Layer = Callable[[Any], Any]

CONVOLUTIONS = ((64, 64), (64, 128), (128, 32), (128, 64), (256, 32), (256, 64), (512, 32))
"""(channels, side in pixels) of 3x3 convolutions; which is fastest depends on caches, so several are tried."""

PRODUCTS = ((512, 512), (1024, 1024), (2048, 1024), (2048, 2048))
"""(rows, inner and outer side) of matrix products."""

LAYERS = 4
"""Layers behind one another in one graph, so that what enters and leaves it hardly counts."""


def peak_candidates(threads: int, *, quick: bool = False) -> dict[str, tuple[Callable[[], None], float]]:
    """Return, by name, calls that run a graph and how many GMAC each has.

    Args:
        threads: of the processor.
        quick: one small graph of each kind.
    """
    core, found = ov.Core(), {}
    for kind in ("fp32", "int8"):
        for channels, side in CONVOLUTIONS[:1] if quick else CONVOLUTIONS:
            model, gmac = convolutions(channels, side, int8=kind == "int8")
            found[f"{kind} convolution {channels}x{side}x{side}"] = (runner(core, model, threads), gmac)
        for rows, side in PRODUCTS[:1] if quick else PRODUCTS:
            model, gmac = products(rows, side, int8=kind == "int8")
            found[f"{kind} product {rows}x{side}x{side}"] = (runner(core, model, threads), gmac)
    return found


def runner(core: Any, model: Any, threads: int) -> Callable[[], None]:
    """Compile a graph with one float32 input and return a call that runs it once; it has run before."""
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    samples = ov.Tensor(np.random.default_rng(0).random(tuple(model.input(0).shape), np.float32))  # its own copy
    request.set_input_tensor(samples)
    request.infer()

    def run() -> None:
        request.infer()

    return run


def convolutions(channels: int, side: int, *, int8: bool) -> tuple[Any, float]:
    """Return a graph of 3x3 convolutions with as many outputs as inputs, and its GMAC."""
    weight = weights((channels, channels, 3, 3), int8=int8)

    def layer(features: Any) -> Any:
        return op.convolution(features, weight, [1, 1], [1, 1], [1, 1], [1, 1])

    model = chain([1, channels, side, side], layer, int8=int8)
    return model, LAYERS * 9 * channels**2 * side**2 / 1e9


def products(rows: int, side: int, *, int8: bool) -> tuple[Any, float]:
    """Return a graph of matrix products (rows, side) x (side, side), and its GMAC."""
    weight = weights((side, side), int8=int8)

    def layer(features: Any) -> Any:
        return op.matmul(features, weight, False, True)

    return chain([rows, side], layer, int8=int8), LAYERS * rows * side**2 / 1e9


def chain(shape: list[int], layer: Layer, *, int8: bool) -> Any:
    """Return a graph of `LAYERS` layers with ReLU, of which only the largest sample leaves it."""
    features = entry = op.parameter(shape, np.float32)
    for _ in range(LAYERS):
        features = op.relu(layer(eight_bit(features) if int8 else features))
    axes = op.constant(np.arange(1, len(shape), dtype=np.int64))
    return ov.Model([op.result(op.reduce_max(features, axes, False))], [entry], "peak")


def eight_bit(features: Any) -> Any:
    """Return features in [0, 1] rounded to 256 levels."""
    low, high = (op.constant(np.array(value, np.float32)) for value in (0.0, 1.0))
    return op.fake_quantize(features, low, high, low, high, 256)


def weights(shape: tuple[int, ...], *, int8: bool) -> Any:
    """Return random weights: float32, or 8-bit with one step an output."""
    random = np.random.default_rng(1)
    if not int8:
        values: NDArray[np.float32] = (random.standard_normal(shape) * 0.02).astype(np.float32)
        return op.constant(values)
    levels = op.convert(op.constant(random.integers(-127, 128, shape).astype(np.int8)), "f32")
    steps = np.full((shape[0], *[1] * (len(shape) - 1)), 1e-3, np.float32)
    return op.multiply(levels, op.constant(steps))
