"""A short tuning of a student's weights while some of its layers round to FP8."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from streamsr.models.student import Student, add_skip
from streamsr.runtimes.float8 import LARGEST
from streamsr.runtimes.tensorrt_graph import Float8Layer


class Float8Student(nn.Module):
    """A student some of whose layers round what they read and their weights to FP8, with gradients passed straight on.

    The others compute in float32: what FP16 adds is a hundredth of what FP8 does.

    Args:
        student: the float network to start from; not changed.
        layers: scales of the layers in FP8, by their numbers; they stay as they are.
    """

    def __init__(self, student: Student, layers: Mapping[int, Float8Layer]) -> None:
        super().__init__()
        self.student = Student(student.spec)
        self.student.load_state_dict(student.state_dict())
        self.input_steps = {index: torch.tensor(layer.input_step) for index, layer in layers.items()}
        self.weight_steps = {
            index: torch.from_numpy(layer.weight_steps).reshape(-1, 1, 1, 1) for index, layer in layers.items()
        }

    def forward(self, luma: Tensor) -> Tensor:
        """Enlarge luma: (N, 1, H, W) float32 in [0, 1] to (N, 1, scale * H, scale * W), not clamped."""
        features = luma
        last = len(self.student.weights()) - 1
        for index, (weight, bias) in enumerate(self.student.weights()):
            if index in self.input_steps:
                features = straight(features, self.input_steps[index])
                weight = straight(weight, self.weight_steps[index])
            features = functional.conv2d(features, weight, bias, padding=1)
            features = features if index == last else functional.relu(features)
        return add_skip(luma, features, self.student.skip_taps)

    def groups(self, rate: float) -> list[dict[str, Any]]:
        """Return the weights."""
        return [{"params": self.student.parameters(), "lr": rate}]


def straight(values: Tensor, step: Tensor) -> Tensor:
    """Return values rounded to FP8, with the gradient of the values; none where they are clipped."""
    inside = (values / step).clamp(-LARGEST, LARGEST)
    nearest = inside.detach().to(torch.float8_e4m3fn).to(values.dtype)
    return (inside + (nearest - inside).detach()) * step
