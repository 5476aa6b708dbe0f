"""Scales of a student's FP8 layers: of the activations from training frames, of the weights from themselves.

FP8 keeps three bits of mantissa whatever the size, so a scale decides little: where between two powers of two values
lie. The scale of least squared error is searched within an octave. Clipping gains nothing and can cost much: without
headroom, scales from training frames lost 0.13 dB where 0.08 was lost with it (``tiny-x2``, five layers, one set).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streamsr.models.student import Student
from streamsr.runtimes.float8 import LARGEST, rounded
from streamsr.runtimes.tensorrt_graph import Float8Layer
from streamsr.training.quantise import rectified

FACTORS = 2.0 ** np.linspace(0.0, 1.0, 17)[:-1]
"""Scales to try, over the one that puts the largest value at the top; an octave further on all comes again."""

HEADROOM = 2.0
"""How much larger than any seen an activation may be before it is clipped; FP8 reaches over fifteen octaves."""

SAMPLES = 200_000
"""Activations of a layer that a scale is chosen from, evenly spread."""


def float8_layers(student: Student, frames: Sequence[NDArray[np.uint8]]) -> dict[int, Float8Layer]:
    """Return the scales of every layer but the first, by its number.

    Args:
        student: the float network.
        frames: (H, W) uint8 luma to choose from.
    """
    seen: list[list[NDArray[np.float32]]] = [[] for _ in range(student.spec.depth + 1)]
    largest = [0.0] * len(seen)
    for frame in frames:
        for index, layer in enumerate(rectified(student, frame)):
            largest[index] = max(largest[index], float(layer.max()))
            seen[index].append(layer.numpy().ravel()[:: max(1, layer.numel() * len(frames) // SAMPLES)])
    weights = [weight.detach().numpy() for weight, _ in student.weights()]
    return {
        index: Float8Layer(float(best_steps(np.concatenate(kept)[None], HEADROOM * top)[0]), best_steps(weight))
        for index, (kept, top, weight) in enumerate(zip(seen, largest, weights[1:], strict=True), 1)
    }


def best_steps(values: NDArray[np.float32], top: float = 0.0) -> NDArray[np.float32]:
    """Return what 1.0 stands for in each row, so that rounding to FP8 has the least squared error and clips nothing.

    Args:
        values: (rows, ...) float32.
        top: the largest value to expect where it is not among them.

    Returns:
        (rows,) float32.
    """
    rows = values.reshape(len(values), -1).astype(np.float64)
    steps = np.maximum(np.abs(rows).max(axis=1), max(top, 1e-12)) / LARGEST * FACTORS[:, None]
    errors = [np.square(rounded(rows / step[:, None]) * step[:, None] - rows).sum(axis=1) for step in steps]
    best: NDArray[np.float32] = steps[np.argmin(errors, axis=0), np.arange(len(rows))].astype(np.float32)
    return best
