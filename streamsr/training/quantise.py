"""INT8 forms of students: scales from training frames, then a short tuning of the weights under rounding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

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

TUNING_STEPS = 150
"""Optimiser steps under rounding, of 8 crops."""

CALIBRATION_FRAMES = 8
"""Training frames of each set from which INT8 scales are chosen."""

HISTOGRAM_BINS = 4096

DEAD = 0.01
"""Share of its layer's largest range below which a channel counts as never active."""


@dataclass(frozen=True)
class Scales:
    """What 8-bit values stand for.

    Attributes:
        activation_clips: for each layer but the last, the activation that 255 stands for.
        weight_scales: for each layer, (outputs,) float32, the real value of one step of its weights.
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
    rounded = RoundedStudent(*spread(student, [pair.lr for pair in shown]))
    tune(rounded, tuning_crops(data, scale, degrades=degrades), steps=TUNING_STEPS if steps is None else steps)
    scales = rounded.scales()
    return quantised_student(
        arrays(rounded.student),
        scale=scale,
        activation_clips=scales.activation_clips,
        weight_scales=scales.weight_scales,
    )


def tuning_crops(data: Path, scale: int, *, degrades: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Return batches of training crops, low and high resolution, the same ones each time."""
    bank = FrameBank(load_pairs(data, "train", scale, most_per_set=200), scale=scale, device=torch.device("cpu"))
    torch.manual_seed(7)
    patch_px = min(48, bank.smallest_px)
    return iter(CropSampler(bank, patch_px=patch_px, batch=8, degrade=robust if degrades else None))


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


def calibrate(student: Student, frames: Sequence[NDArray[np.uint8]]) -> Scales:
    """Choose scales from low-resolution training frames: for each layer the clip of least squared error.

    Args:
        student: the float network.
        frames: (H, W) uint8 luma.
    """
    largest = [1e-6] * (student.spec.depth + 1)
    for frame in frames:
        largest = [max(top, float(now.max())) for top, now in zip(largest, rectified(student, frame), strict=True)]
    histograms = [torch.zeros(HISTOGRAM_BINS, dtype=torch.float64) for _ in largest]
    for frame in frames:
        for histogram, now, top in zip(histograms, rectified(student, frame), largest, strict=True):
            histogram += torch.histc(now, HISTOGRAM_BINS, 0.0, top).double()
    clips = tuple(best_clip(histogram, top) for histogram, top in zip(histograms, largest, strict=True))
    return Scales(clips, tuple(weight_scales(weight) for weight, _ in student.weights()))


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


def spread(student: Student, frames: Sequence[NDArray[np.uint8]]) -> tuple[Student, Scales]:
    """Fill the 8-bit range of every channel, and give channels that are never active to those that need most.

    A ReLU passes a factor on, so every channel is scaled to its layer's clip and what reads it is scaled back (Nagel
    et al. 2019 equalise weights so). A dead channel takes the upper half of the one whose rounding costs most: 8 bits
    clip the lower half where the copy, its bias less by the clip, begins, so the sum has twice the levels. It costs
    nothing to run: before tuning, fast-x2 lost 0.078 dB on colondb without it and 0.032 with it.

    Args:
        student: the float network; not changed.
        frames: (H, W) uint8 luma to choose from.

    Returns:
        The network, right under the clips alone, and its scales.
    """
    made = Student(student.spec)
    made.load_state_dict(student.state_dict())
    ranges = channel_ranges(student, frames)
    clips = []
    with torch.no_grad():
        weights = made.weights()
        for tops, (weight, bias), (reader, _) in zip(ranges, weights[:-1], weights[1:], strict=True):
            cost = reader.square().sum(dim=(0, 2, 3)) * tops.square()
            dead = (tops < DEAD * tops.max()).nonzero()[:, 0]
            halved = cost.argsort(descending=True)[: len(dead)]
            needed = tops.clone()
            needed[halved] /= 2
            clip = float(needed.max())
            factor = (needed / clip).clamp(min=2 * DEAD)
            weight /= factor.reshape(-1, 1, 1, 1)
            bias /= factor
            reader *= factor.reshape(1, -1, 1, 1)
            weight[dead], bias[dead], reader[:, dead] = weight[halved], bias[halved] - clip, reader[:, halved]
            clips.append(clip)
    return made, Scales(tuple(clips), tuple(weight_scales(weight) for weight, _ in made.weights()))


def channel_ranges(student: Student, frames: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
    """Return, for every layer but the last, (channels,) the clip of least squared error of each channel."""
    largest = [torch.full((student.spec.channels,), 1e-6) for _ in range(student.spec.depth + 1)]
    for frame in frames:
        now = [layer[0].amax(dim=(1, 2)) for layer in rectified(student, frame)]
        largest = [torch.maximum(top, seen) for top, seen in zip(largest, now, strict=True)]
    histograms = [torch.zeros(len(tops), HISTOGRAM_BINS, dtype=torch.float64) for tops in largest]
    for frame in frames:
        for rows, layer, tops in zip(histograms, rectified(student, frame), largest, strict=True):
            for row, channel, top in zip(rows, layer[0], tops, strict=True):
                row += torch.histc(channel, HISTOGRAM_BINS, 0.0, float(top)).double()
    return [
        torch.tensor([best_clip(row, float(top)) for row, top in zip(rows, tops, strict=True)])
        for rows, tops in zip(histograms, largest, strict=True)
    ]


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
            step = self.clips[index] / 255.0
            scaled = torch.minimum(features / step, torch.tensor(255.0))
            features = (scaled + (scaled.round() - scaled).detach()) * step
        weight, bias = weights[-1]
        residual = functional.conv2d(features, self.rounded(weight, len(weights) - 1), bias, padding=1)
        return add_skip(luma, residual, self.student.skip_taps)

    def rounded(self, weight: Tensor, index: int) -> Tensor:
        """Return weights rounded to their steps, with the gradient of the weights themselves."""
        steps = self.steps[index].reshape(-1, 1, 1, 1)
        nearest = (weight / steps).round().clamp(-127, 127) * steps
        return weight + (nearest - weight).detach()

    def groups(self, rate: float) -> list[dict[str, Any]]:
        """Return weights and clips; clips take a tenth of their size a thousand times slower."""
        return [{"params": self.student.parameters(), "lr": rate}, {"params": [self.clips], "lr": rate * 10}]

    def scales(self) -> Scales:
        """Return the present scales."""
        return Scales(tuple(float(clip) for clip in self.clips.detach()), tuple(steps.numpy() for steps in self.steps))


class Rounded(Protocol):
    """A network under rounding."""

    def __call__(self, luma: Tensor) -> Tensor:
        """Enlarge luma as the rounded network does, with gradients."""

    def groups(self, rate: float) -> list[dict[str, Any]]:
        """Return what is trained, each part with its first rate."""


def tune(rounded: Rounded, batches: Iterator[tuple[Tensor, Tensor]], *, steps: int, rate: float = 5e-5) -> None:
    """Train the weights under rounding towards the truth; the rate falls linearly to zero.

    The loss is `streamsr.training.losses.log_squared`.

    Args:
        rounded: the network; changed in place.
        batches: (low, high) resolution crops, see `streamsr.training.data.CropSampler`.
        steps: optimiser steps.
        rate: Adam's first rate for the weights.
    """
    optimiser = torch.optim.Adam(rounded.groups(rate))
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.01, steps)
    for _, (low, high) in zip(range(steps), batches, strict=False):
        optimiser.zero_grad()
        log_squared(rounded(low), high).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
