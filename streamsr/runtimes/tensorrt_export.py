"""Plans through torch-tensorrt, for installations of TensorRT without its ONNX parser or without the package onnx."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export
from torch.nn import functional

from streamsr.engine import Engine
from streamsr.errors import EngineError
from streamsr.models.student import Student, add_skip
from streamsr.runtimes.tensorrt_plans import ShapeRange
from streamsr.runtimes.torch_cpu import load_network

LEAST_PX = 2
"""The smallest side of a picture here: torch.export keeps sizes 0 and 1 apart from all others."""


class HalfNetwork(nn.Module):
    """A network that computes in FP16 between float32 samples; a student's skip stays float32.

    Args:
        network: float32; changed in place.
    """

    skip_taps: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.is_student = isinstance(network, Student)
        if isinstance(network, Student):
            self.register_buffer("skip_taps", network.skip_taps.clone())
        network.half()

    def forward(self, pictures: Tensor) -> Tensor:
        """Enlarge (N, C, H, W) float32 in [0, 1] to (N, C, scale * H, scale * W) float32, not clamped."""
        if not isinstance(self.network, Student):
            enlarged: Tensor = self.network(pictures.half()).float()
            return enlarged
        features = pictures.half()
        weights = self.network.weights()
        for weight, bias in weights[:-1]:
            features = functional.relu(functional.conv2d(features, weight, bias, padding=1))
        residual = functional.conv2d(features, *weights[-1], padding=1)
        return add_skip(pictures, residual, self.skip_taps)


def exported(engine: Engine) -> ExportedProgram:
    """Return an engine's network as an exported program with free numbers of pictures, rows and columns (from 2 on)."""
    network = HalfNetwork(load_network(engine)).eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    sides = {0: Dim("num", min=1), 2: Dim("height", min=LEAST_PX), 3: Dim("width", min=LEAST_PX)}
    example = torch.zeros(2, 1 if engine.colour == "luma" else 3, 24, 32)
    return export(network, (example,), dynamic_shapes=(sides,))


def build_from_torch(engine: Engine, shapes: ShapeRange) -> bytes:
    """Build a plan with torch-tensorrt: float32 at both ends, FP16 between.

    Args:
        engine: which network.
        shapes: what the plan is to serve, but for pictures of a single row or column.

    Raises:
        EngineError: an operator would fall out of the plan, or it cannot be built.
    """
    import torch_tensorrt

    program = exported(engine)
    num, channels, *sides = shapes.least
    least = (num, channels, *(max(side, LEAST_PX) for side in sides))
    pictures: Any = torch_tensorrt.Input(
        min_shape=least, opt_shape=shapes.usual, max_shape=shapes.most, dtype=torch.float32
    )
    try:
        plan = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
            program,
            arg_inputs=[pictures],
            require_full_compilation=True,
            disable_tf32=True,
            use_explicit_typing=True,  # FP16 where the network says so: the default before it became the only way
        )
    except Exception as cause:  # its errors share no class but this
        line = " ".join(str(cause).split())[:200]
        raise EngineError(
            f"{engine.name}: expected torch-tensorrt to build {shapes}, got {line}; use --runtime cuda"
        ) from cause
    return bytes(plan)
