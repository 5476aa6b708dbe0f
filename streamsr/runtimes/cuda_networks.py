"""The networks as the ``cuda`` runtime runs them: half precision, channels last, what can be fused is fused.

Each layer has several ways to be computed (`Method`): cuDNN on columns packed by some factor, with or without its own
ReLU, or one Triton kernel with everything that follows the convolution. Which is fastest depends on GPU and size, so
each role is tried once a size, when it first runs, and remembered. On the CPU there is one way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from streamsr.models.srgan import SRGANGenerator
from streamsr.models.student import Student
from streamsr.runtimes.gpu_ops import (
    bias_activation_,
    bias_prelu_shuffle,
    convolve_3x3,
    finish_student,
    first_layer,
    interleave,
    uses_triton,
    write_phases,
)
from streamsr.runtimes.packing import (
    channels_last,
    in_front_of_shuffle,
    pack_columns,
    parities_first,
    rows_of_taps,
)
from streamsr.runtimes.trials import Remembered, context_of, fastest

Tile = tuple[int, int, int, int]

TILES: tuple[Tile, ...] = ((8, 16, 1, 4), (8, 32, 1, 8), (8, 16, 3, 4), (8, 32, 4, 8))
"""Rows, columns, pipeline depth and warps of the Triton convolution's tiles that are tried."""


@dataclass(frozen=True)
class Method:
    """One way to compute a layer.

    Attributes:
        kind: ``plain`` for a convolution and one kernel for all that follows, ``fused`` for cuDNN's convolution with
            bias and ReLU, ``triton`` for our own.
        factor: columns packed into channels.
        tile: of the Triton kernel.
    """

    kind: str
    factor: int = 1
    tile: Tile | None = None

    def __str__(self) -> str:
        return f"triton {'x'.join(map(str, self.tile))}" if self.tile else f"{self.kind} {self.factor}"


class Layer:
    """One convolution and what follows it: bias, activation, sum, pixel shuffle.

    Args:
        weight: (outputs, inputs, n, n) float32.
        bias: (outputs,) float32.
        device: where it runs.
        dtype: of features and weights.
        relu: whether ReLU follows.
        slope: of the PReLU that follows.
        shuffle: whether a pixel shuffle by two follows; outputs as `parities_first` leaves them.
        factors: packings to try.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        *,
        device: torch.device,
        dtype: torch.dtype,
        relu: bool = False,
        slope: float | None = None,
        shuffle: bool = False,
        factors: Sequence[int] = (1, 2),
    ) -> None:
        self.weight = weight.detach().to(device, torch.float32)
        self.bias = bias.detach().to(device, torch.float32).contiguous()
        self.dtype, self.relu, self.slope, self.shuffle, self.factors = dtype, relu, slope, shuffle, tuple(factors)
        self._packed: dict[int, tuple[Tensor, Tensor]] = {}
        self._taps: Tensor | None = None

    def __str__(self) -> str:
        outputs, inputs, side = self.weight.shape[:3]
        follows = "relu" if self.relu else "shuffle" if self.shuffle else "linear" if self.slope is None else "prelu"
        return f"{inputs}-{outputs} {side}x{side} {follows} {str(self.dtype).removeprefix('torch.')}"

    def methods(self, width: int) -> list[Method]:
        """Return the ways to compute this layer on pictures of a width, the reference first."""
        found = [Method("plain", factor) for factor in self.factors if width % factor == 0 or factor == 1]
        own = [Method("fused", method.factor) for method in found] if self.relu else []
        if self.weight.shape[2] == 3 and self.weight.shape[1] % 16 == 0 and uses_triton(self.weight):
            found += [Method("triton", tile=tile) for tile in TILES]
        return found + own

    def run(self, features: Tensor, method: Method, residual: Tensor | None = None) -> Tensor:
        """Return (N, H, W, outputs), or twice the size and a quarter of them, of (N, H, W, inputs) features."""
        if method.tile is not None:
            return self._run_triton(features, method.tile, residual)
        num, height, width, inputs = features.shape
        factor = method.factor
        weight, bias = self._weight_of(factor)
        packed = features.view(num, height, width // factor, factor * inputs).permute(0, 3, 1, 2)
        margins = (weight.shape[2] // 2, weight.shape[3] // 2)
        if method.kind == "fused":
            made = torch.cudnn_convolution_relu(packed, weight, bias, (1, 1), margins, (1, 1), 1)
        else:
            made = functional.conv2d(packed, weight, None, padding=margins)
        flat = made.permute(0, 2, 3, 1).contiguous().view(num, height, width, -1)
        return flat if method.kind == "fused" else self._follow(flat, residual)

    def _follow(self, made: Tensor, residual: Tensor | None) -> Tensor:
        """Apply what follows the convolution."""
        slope = 0.0 if self.relu else self.slope
        if self.shuffle:
            return bias_prelu_shuffle(made, self.bias, 1.0 if slope is None else slope)
        bias_activation_(made, self.bias, slope, residual)
        return made

    def _run_triton(self, features: Tensor, tile: Tile, residual: Tensor | None) -> Tensor:
        if self._taps is None:
            self._taps = rows_of_taps(self.weight).to(self.dtype)
        return convolve_3x3(
            features,
            self._taps,
            self.bias,
            tile=tile,
            relu=self.relu,
            slope=self.slope,
            residual=residual,
            shuffle=self.shuffle,
        )

    def _weight_of(self, factor: int) -> tuple[Tensor, Tensor]:
        """Return weight and bias for columns packed by a factor, made once."""
        if factor not in self._packed:
            weight = channels_last(pack_columns(self.weight, factor), self.dtype)
            self._packed[factor] = (weight, self.bias.repeat(factor).to(self.dtype))
        return self._packed[factor]


class Chooser:
    """Remembers the fastest method of every role and size.

    Args:
        remembered: what was measured in earlier programs; None remembers nothing.

    Attributes:
        chosen: role and shape -> method.
        measured: role and shape -> milliseconds by method, the fastest first; empty on the CPU.
    """

    def __init__(self, remembered: Remembered | None = None) -> None:
        self.remembered = remembered
        self.chosen: dict[tuple[object, ...], Method] = {}
        self.measured: dict[tuple[object, ...], dict[str, float]] = {}

    def run(self, role: str, layer: Layer, features: Tensor, residual: Tensor | None = None) -> Tensor:
        """Run a layer the fastest way known for its role and size; try all ways the first time."""
        key = (role, *features.shape)
        if key not in self.chosen:
            self.chosen[key] = self._choose(key, layer, features, residual)
        return layer.run(features, self.chosen[key], residual)

    def _choose(self, key: tuple[object, ...], layer: Layer, features: Tensor, residual: Tensor | None) -> Method:
        methods = {str(method): method for method in layer.methods(features.shape[2])}
        if not features.is_cuda or len(methods) == 1:
            return next(iter(methods.values()))
        name = f"{layer} {'x'.join(map(str, key[1:]))}"
        known = self.remembered.read(name) if self.remembered else {}
        if next(iter(known), None) not in methods:
            calls: dict[str, Callable[[], Tensor]] = {
                name: partial(layer.run, features, method, residual) for name, method in methods.items()
            }
            known = fastest(calls)
            if self.remembered:
                self.remembered.write(name, known)
        self.measured[key] = known
        return methods[next(iter(known))]

    def summary(self) -> dict[str, dict[str, float]]:
        """Return what was measured, by role and size, the fastest method first."""
        return {
            f"{role} {'x'.join(map(str, shape))}": {name: round(taken_ms, 4) for name, taken_ms in times.items()}
            for (role, *shape), times in self.measured.items()
        }


class StudentOnDevice:
    """A student: bytes in, bytes out, four kinds of kernel.

    Args:
        student: collapsed, float32.
        device: where it runs.
        dtype: of features.
    """

    def __init__(self, student: Student, *, device: torch.device, dtype: torch.dtype) -> None:
        self.scale, self.dtype, self.chooser = student.spec.scale, dtype, Chooser(Remembered(context_of(device)))
        weights = student.weights()
        self.taps = student.skip_taps.to(device).contiguous()
        self.first_weight = weights[0][0].detach().reshape(-1, 9).T.contiguous().to(device)
        self.first_bias = weights[0][1].detach().to(device).contiguous()
        self.body = [
            Layer(weight, bias, device=device, dtype=dtype, relu=True, factors=(1, 2, 4))
            for weight, bias in weights[1:-1]
        ]
        self.last = Layer(*weights[-1], device=device, dtype=dtype, factors=(1, 2, 4, 8))

    def enlarge(self, pictures: Tensor, out: Tensor) -> None:
        """Enlarge pictures; see `streamsr.runtimes.cuda.CudaGenerator.enlarge`."""
        features = first_layer(pictures, self.first_weight, self.first_bias, dtype=self.dtype)
        for layer in self.body:
            features = self.chooser.run("body", layer, features)
        residual = self.chooser.run("last", self.last, features)
        finish_student(residual, pictures, self.taps, out, scale=self.scale)


class SRGANOnDevice:
    """The SRGAN generator; its tail runs in front of the last pixel shuffle.

    Args:
        network: with its batch normalisations folded, float32.
        device: where it runs.
        dtype: of features.
    """

    def __init__(self, network: SRGANGenerator, *, device: torch.device, dtype: torch.dtype) -> None:
        self.scale, self.dtype, self.chooser = network.scale, dtype, Chooser(Remembered(context_of(device)))
        self.head = convolution(network.head[0], network.head[1], device, dtype, factors=(1, 4, 8))
        self.blocks = []
        for block in network.blocks:
            first, _, activation, second, _ = block.body  # type: ignore[misc]
            self.blocks.append(
                (convolution(first, activation, device, dtype), convolution(second, None, device, dtype))
            )
        self.neck = convolution(network.neck[0], None, device, dtype)
        stages = list(network.enlarge)
        pairs = list(zip(stages[::3], stages[2::3], strict=True))
        self.stages = [convolution(conv, act, device, dtype, shuffle=True) for conv, act in pairs[:-1]]
        self.last_stage = convolution(*pairs[-1], device, dtype, parities=True, factors=(1,))
        assert network.tail.bias is not None
        tail = in_front_of_shuffle(network.tail.weight.detach())
        bias = network.tail.bias.detach().repeat_interleave(4)
        self.tail = Layer(tail, bias, device=device, dtype=dtype, factors=(1, 2, 4))

    def enlarge(self, pictures: Tensor, out: Tensor) -> None:
        """Enlarge pictures; see `streamsr.runtimes.cuda.CudaGenerator.enlarge`."""
        run = self.chooser.run
        features = run("head", self.head, interleave(pictures, dtype=self.dtype))
        changed = features
        for first, second in self.blocks:
            changed = run("second", second, run("first", first, changed), changed)
        features = run("neck", self.neck, changed, features)
        del changed
        for stage in self.stages:
            features = run("stage", stage, features)
        features = run("last stage", self.last_stage, features)
        write_phases(run("tail", self.tail, features), out)


def convolution(
    layer: nn.Module,
    activation: nn.Module | None,
    device: torch.device,
    dtype: torch.dtype,
    *,
    shuffle: bool = False,
    parities: bool = False,
    factors: Sequence[int] = (1, 2),
) -> Layer:
    """Return a convolution of the network and the PReLU behind it.

    Args:
        layer: the convolution, with a bias.
        activation: of one slope; None for none.
        device: where it runs.
        dtype: of features.
        shuffle: whether a pixel shuffle lies between the two.
        parities: whether a pixel shuffle lies between the two that is left out; outputs are reordered as for one.
        factors: packings to try.
    """
    weight, bias = layer.get_parameter("weight").detach(), layer.get_parameter("bias").detach()
    if shuffle or parities:
        weight, bias = parities_first(weight), parities_first(bias)
    slope = None if activation is None else float(activation.get_parameter("weight").item())
    return Layer(weight, bias, device=device, dtype=dtype, slope=slope, shuffle=shuffle, factors=factors)
