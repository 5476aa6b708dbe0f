"""INT8 forms of students: scales from training frames, then a short tuning of the weights under rounding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from streamsr.models.student import Student, add_skip
from streamsr.runtimes.onnx_graph import quantised_student
from streamsr.training.crops import CropSampler, FrameBank
from streamsr.training.data import load_pairs
from streamsr.training.degrade import degraded, robust
from streamsr.training.losses import log_squared

INT8_LOSS_DB = 0.05
"""What an INT8 form may lose on any validation set."""

TUNING_STEPS = 400
"""Optimiser steps under rounding, of 8 crops: after 200 fast-x2 lost up to 0.064 dB on validation frames."""

CALIBRATION_FRAMES = 8
"""Training frames of each set from which INT8 scales are chosen."""

HISTOGRAM_BINS = 4096


@dataclass(frozen=True)
class Scales:
    """What 8-bit values stand for.

    Attributes:
        activation_clips: for each layer but the last, the activation that 255 stands for.
        weight_scales: for each layer, (outputs,) float32, the real value of one step of its weights. Both are one
            shorter where the last layer stays in float.
    """

    activation_clips: tuple[float, ...]
    weight_scales: tuple[NDArray[np.float32], ...]


def int8_form(student: Student, data: Path, *, degrades: bool = False, steps: int | None = None) -> bytes:
    """Return a student's INT8 form, its scales from training frames, its weights tuned on training crops.

    Args:
        student: the float network.
        data: folder with MANIFEST.tsv.
        degrades: whether frames and crops are degraded, as robust weights know them.
        steps: optimiser steps under rounding; `TUNING_STEPS` when None.
    """
    scale = student.spec.scale
    shown = load_pairs(data, "train", scale, most_per_set=CALIBRATION_FRAMES)
    shown = degraded(shown, scale) if degrades else shown
    rounded = RoundedStudent(student, calibrate(student, [pair.lr for pair in shown], float_last=True))
    bank = FrameBank(load_pairs(data, "train", scale, most_per_set=200), scale=scale, device=torch.device("cpu"))
    torch.manual_seed(7)
    patch_px = min(48, bank.smallest_px)
    sampler = CropSampler(bank, patch_px=patch_px, batch=8, degrade=robust if degrades else None)
    tune(rounded, iter(sampler), steps=TUNING_STEPS if steps is None else steps)
    scales = rounded.scales()
    return quantised_student(
        arrays(rounded.student),
        scale=scale,
        activation_clips=scales.activation_clips,
        weight_scales=scales.weight_scales,
    )


def arrays(network: nn.Module) -> dict[str, NDArray[np.float32]]:
    """Return a network's weights by name, as they are stored."""
    return {
        name: tensor.detach().cpu().numpy().astype(np.float32)
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def weight_scales(weight: Tensor) -> NDArray[np.float32]:
    """Return the step of each output channel that rounds its weights with the least squared error.

    Args:
        weight: (outputs, inputs, 3, 3) float32.

    Returns:
        (outputs,) float32; clips between 0.75 and 1 of the largest weight are searched.
    """
    rows = weight.detach().reshape(weight.shape[0], -1).double()
    largest = rows.abs().amax(dim=1).clamp(min=1e-12)
    candidates = largest[None] * torch.linspace(0.75, 1.0, 26, dtype=torch.float64)[:, None] / 127
    rounded = (rows[None] / candidates[..., None]).round().clamp(-127, 127) * candidates[..., None]
    best = (rounded - rows[None]).square().sum(dim=2).argmin(dim=0)
    return candidates.gather(0, best[None])[0].float().numpy()


def calibrate(student: Student, frames: Sequence[NDArray[np.uint8]], *, float_last: bool = False) -> Scales:
    """Choose scales from low-resolution training frames: for each layer the clip of least squared error.

    Args:
        student: the float network.
        frames: (H, W) uint8 luma.
        float_last: whether the last layer stays in float.
    """
    largest = [1e-6] * (student.spec.depth + 1)
    for frame in frames:
        largest = [max(top, float(now.max())) for top, now in zip(largest, rectified(student, frame), strict=True)]
    histograms = [torch.zeros(HISTOGRAM_BINS, dtype=torch.float64) for _ in largest]
    for frame in frames:
        for histogram, now, top in zip(histograms, rectified(student, frame), largest, strict=True):
            histogram += torch.histc(now, HISTOGRAM_BINS, 0.0, top).double()
    clips = tuple(best_clip(histogram, top) for histogram, top in zip(histograms, largest, strict=True))
    steps = tuple(weight_scales(weight) for weight, _ in student.weights())
    return Scales(clips[:-1], steps[:-1]) if float_last else Scales(clips, steps)


def best_clip(histogram: Tensor, top: float) -> float:
    """Return the clip in [0.3 top, top] that rounds a histogram over [0, top] to 256 levels with the least error."""
    middle = (torch.arange(len(histogram), dtype=torch.float64) + 0.5) * top / len(histogram)
    candidates = top * torch.linspace(0.3, 1.0, 71, dtype=torch.float64)
    rounded = (middle[None] * 255 / candidates[:, None]).round().clamp(0, 255) * candidates[:, None] / 255
    errors = (histogram * (rounded - middle).square())[:, 1:].sum(dim=1)  # bin 0 holds the zeros, exact for any clip
    return float(candidates[errors.argmin()])


def rectified(student: Student, frame: NDArray[np.uint8]) -> list[Tensor]:
    """Return the activations of every layer but the last for one (H, W) uint8 frame."""
    features = torch.tensor(frame)[None, None].float() / 255.0
    outputs = []
    with torch.inference_mode():
        for weight, bias in student.weights()[:-1]:
            features = functional.relu(functional.conv2d(features, weight, bias, padding=1))
            outputs.append(features)
    return outputs


class RoundedStudent(nn.Module):
    """A student whose weights and activations are rounded as INT8 rounds them, with gradients passed straight through.

    The clips are trained too (their gradient is that of Esser et al. 2020, "Learned step size quantization", through
    the clamp). Weight steps follow the weights at every step.

    Args:
        student: the float network to start from; not changed.
        scales: first scales.
    """

    def __init__(self, student: Student, scales: Scales) -> None:
        super().__init__()
        self.spec = student.spec
        self.student = Student(student.spec)
        self.student.load_state_dict(student.state_dict())
        self.clips = nn.Parameter(torch.tensor(scales.activation_clips))
        self.steps = [torch.from_numpy(steps) for steps in scales.weight_scales]

    def forward(self, luma: Tensor) -> Tensor:
        """Enlarge luma: (N, 1, H, W) float32 in [0, 1] to (N, 1, scale * H, scale * W), not clamped."""
        weights = self.student.weights()
        features = luma
        for index, (weight, bias) in enumerate(weights[:-1]):
            features = functional.relu(functional.conv2d(features, self.rounded(weight, index), bias, padding=1))
            if index < len(self.clips):
                step = self.clips[index] / 255.0
                scaled = torch.minimum(features / step, torch.tensor(255.0))
                features = (scaled + (scaled.round() - scaled).detach()) * step
        weight, bias = weights[-1]
        residual = functional.conv2d(features, self.rounded(weight, len(weights) - 1), bias, padding=1)
        return add_skip(luma, residual, self.student.skip_taps)

    def rounded(self, weight: Tensor, index: int) -> Tensor:
        """Return weights rounded to their steps, if the layer has any, with the gradient of the weights themselves."""
        if index >= len(self.steps):
            return weight
        steps = self.steps[index].reshape(-1, 1, 1, 1)
        nearest = (weight / steps).round().clamp(-127, 127) * steps
        return weight + (nearest - weight).detach()

    def scales(self) -> Scales:
        """Return the present scales."""
        return Scales(tuple(float(clip) for clip in self.clips.detach()), tuple(steps.numpy() for steps in self.steps))


def tune(rounded: RoundedStudent, batches: Iterator[tuple[Tensor, Tensor]], *, steps: int, rate: float = 5e-5) -> None:
    """Train the weights under rounding towards the truth; the rate falls linearly to zero.

    The loss is `streamsr.training.losses.log_squared`.

    Args:
        rounded: the network; changed in place.
        batches: (low, high) resolution crops, see `streamsr.training.data.CropSampler`.
        steps: optimiser steps.
        rate: Adam's first rate for the weights; clips take a tenth of their size a thousand times slower.
    """
    optimiser = torch.optim.Adam(
        [{"params": rounded.student.parameters(), "lr": rate}, {"params": [rounded.clips], "lr": rate * 10}]
    )
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.01, steps)
    for _, (low, high) in zip(range(steps), batches, strict=False):
        optimiser.zero_grad()
        log_squared(rounded(low), high).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
