"""The students: small luma networks of plain 3x3 convolutions, drawn for CPU and GPU alike.

A student reads luma and writes luma at ``scale`` times the size. Its layers are

    conv 1 -> C, ReLU, depth x (conv C -> C, ReLU), conv C -> scale * scale, + skip, pixel shuffle

where the skip is bilinear interpolation, written as a fixed 3x3 convolution of the image in front of the same
pixel shuffle, so that nothing runs at full size but the shuffle. All convolutions pad with zeros; the skip
replicates the border. In training every convolution is a sum of branches (`BranchedConv`) that collapses, exactly,
to one 3x3 convolution: the branches cost nothing afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class StudentSpec:
    """The shape of a student.

    Attributes:
        channels: width C of the body; a multiple of 16, so that vector and matrix units are filled.
        depth: number of C -> C layers.
        scale: enlargement of each side, 2 or 4.
    """

    channels: int
    depth: int
    scale: int

    @property
    def receptive_radius_px(self) -> int:
        """Input pixels on each side of a pixel that its output depends on: one for every 3x3 layer."""
        return self.depth + 2

    @property
    def macs_per_pixel(self) -> int:
        """Multiply-adds per input pixel, biases and the fixed skip left out."""
        return 9 * self.channels * (1 + self.depth * self.channels + self.scale**2)


SPECS: dict[str, StudentSpec] = {
    f"{name}-x{scale}": StudentSpec(channels, depth, scale)
    for name, channels, depth in (("tiny", 16, 7), ("fast", 32, 8), ("quality", 48, 7))
    for scale in (2, 4)
}
"""All are one plain chain on luma. Residual groups in ``quality``, whose additions would have to be quantised too, and
``fast`` on RGB were trained alike and measured beside them: `benchmarks.variants`."""


def bilinear_taps(scale: int) -> Tensor:
    """Return bilinear enlargement as a 3x3 convolution in front of a pixel shuffle.

    Output sample ``p`` of ``scale`` (in one dimension) lies at ``(p + 0.5) / scale - 0.5`` input pixels from the
    input pixel that carries it (half-pixel centres), so it mixes that pixel and one neighbour linearly.

    Args:
        scale: enlargement of each side.

    Returns:
        (scale * scale, 1, 3, 3) float32; every row sums to one and is a multiple of ``1 / (2 * scale) ** 2``.
    """
    offsets = (torch.arange(scale, dtype=torch.float64) + 0.5) / scale - 0.5
    taps = torch.stack([(-offsets).clamp(min=0), 1 - offsets.abs(), offsets.clamp(min=0)], dim=1)
    kernels = torch.einsum("pi,qj->pqij", taps, taps).reshape(scale * scale, 1, 3, 3)
    return kernels.to(torch.float32)


class Student(nn.Module):
    """A collapsed student: plain convolutions, ready to run or to export.

    Args:
        spec: the shape of the network.
    """

    skip_taps: Tensor

    def __init__(self, spec: StudentSpec) -> None:
        super().__init__()
        self.spec = spec
        widths = [1, *[spec.channels] * (spec.depth + 1), spec.scale**2]
        self.layers = nn.ModuleList(nn.Conv2d(inputs, outputs, 3, padding=1) for inputs, outputs in pairwise(widths))
        self.register_buffer("skip_taps", bilinear_taps(spec.scale), persistent=False)

    def forward(self, luma: Tensor) -> Tensor:
        """Enlarge luma.

        Args:
            luma: (N, 1, H, W) float32 in [0, 1].

        Returns:
            (N, 1, scale * H, scale * W) float32, not clamped.
        """
        return run_layers(luma, self.weights(), self.skip_taps)

    def weights(self) -> list[tuple[Tensor, Tensor]]:
        """Return (weight, bias) of every layer: (outputs, inputs, 3, 3) and (outputs,) float32."""
        return [(layer.get_parameter("weight"), layer.get_parameter("bias")) for layer in self.layers]


class BranchedConv(nn.Module):
    """A 3x3 convolution as a sum of branches that is collapsed in weight space at every step.

    The branches are a 3x3 convolution, a 1x1 convolution, and a 1x1 - 3x3 - 1x1 chain of twice the width (the
    "Conv3XC" of SPAN, Wan et al. 2024, without inner biases, so that the sum is exact up to the zero border). Only
    small weight tensors are multiplied, so a training step costs what a plain convolution costs.

    Args:
        inputs: input channels.
        outputs: output channels.
        gain: width of the chain as a multiple of the input channels.
    """

    def __init__(self, inputs: int, outputs: int, *, gain: int = 2) -> None:
        super().__init__()
        middle = max(gain * inputs, 4)
        self.direct = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.point = nn.Parameter(torch.randn(outputs, inputs) * inputs**-0.5 * 0.1)
        self.widen = nn.Parameter(torch.randn(middle, inputs) * inputs**-0.5)
        self.cross = nn.Parameter(torch.randn(middle, middle, 3, 3) * (9 * middle) ** -0.5)
        self.narrow = nn.Parameter(torch.randn(outputs, middle) * middle**-0.5 * 0.1)

    def collapsed(self) -> tuple[Tensor, Tensor]:
        """Return the one convolution that equals the branches: weight (outputs, inputs, 3, 3), bias (outputs,)."""
        widened = torch.einsum("mnij,nc->mcij", self.cross, self.widen)
        chain = torch.einsum("om,mcij->ocij", self.narrow, widened)
        centre = functional.pad(self.point[:, :, None, None], (1, 1, 1, 1))
        bias = self.direct.bias
        assert bias is not None
        merged = self.direct.weight + chain + centre
        return merged.contiguous(memory_format=torch.channels_last), bias

    @torch.no_grad()
    def absorb(self, weight: Tensor, bias: Tensor) -> None:
        """Become a sum of branches that equals one convolution: the 3x3 branch makes up for what the others hold.

        Args:
            weight: (outputs, inputs, 3, 3).
            bias: (outputs,).
        """
        assert self.direct.bias is not None
        held, _ = self.collapsed()
        self.direct.weight += weight.to(held) - held
        self.direct.bias.copy_(bias)


class BranchedStudent(nn.Module):
    """A student in training form; see `Student` for what it computes.

    Args:
        spec: the shape of the network.
    """

    skip_taps: Tensor

    def __init__(self, spec: StudentSpec) -> None:
        super().__init__()
        self.spec = spec
        widths = [1, *[spec.channels] * (spec.depth + 1), spec.scale**2]
        self.layers = nn.ModuleList(BranchedConv(inputs, outputs) for inputs, outputs in pairwise(widths))
        self.register_buffer("skip_taps", bilinear_taps(spec.scale), persistent=False)

    def collapsed_weights(self) -> list[tuple[Tensor, Tensor]]:
        """Return (weight, bias) of every layer's collapsed convolution."""
        return [layer.collapsed() for layer in self.layers if isinstance(layer, BranchedConv)]

    def forward(self, luma: Tensor) -> Tensor:
        """Enlarge luma: (N, 1, H, W) in [0, 1] to (N, 1, scale * H, scale * W), not clamped."""
        return run_layers(luma, self.collapsed_weights(), self.skip_taps)

    def collapse(self) -> Student:
        """Return the plain network that computes the same."""
        student = Student(self.spec)
        with torch.no_grad():
            for layer, (weight, bias) in zip(student.layers, self.collapsed_weights(), strict=True):
                assert isinstance(layer, nn.Conv2d)
                assert layer.bias is not None
                layer.weight.copy_(weight)
                layer.bias.copy_(bias)
        return student

    def absorb(self, student: Student) -> None:
        """Become the training form of a collapsed student of the same shape; see `BranchedConv.absorb`."""
        for layer, (weight, bias) in zip(self.layers, student.weights(), strict=True):
            assert isinstance(layer, BranchedConv)
            layer.absorb(weight, bias)


def run_layers(luma: Tensor, weights: list[tuple[Tensor, Tensor]], skip_taps: Tensor) -> Tensor:
    """Run a student given as a list of convolutions (see `Student.forward` for shapes)."""
    features = luma.contiguous(memory_format=torch.channels_last)
    for weight, bias in weights[:-1]:
        features = functional.relu(functional.conv2d(features, weight, bias, padding=1), inplace=True)
    return add_skip(luma, functional.conv2d(features, *weights[-1], padding=1), skip_taps)


def add_skip(luma: Tensor, residual: Tensor, skip_taps: Tensor) -> Tensor:
    """Add the interpolated picture to the last layer's output and shuffle the phases into place.

    Args:
        luma: (N, 1, H, W), the picture.
        residual: (N, scale * scale, H, W), the last layer's output.
        skip_taps: (scale * scale, 1, 3, 3), see `bilinear_taps`.

    Returns:
        (N, 1, scale * H, scale * W) of luma's dtype.
    """
    skip = functional.conv2d(functional.pad(luma, (1, 1, 1, 1), mode="replicate"), skip_taps)
    scale = round(skip_taps.shape[0] ** 0.5)
    return functional.pixel_shuffle(residual.to(luma.dtype) + skip.to(luma.dtype), scale)
