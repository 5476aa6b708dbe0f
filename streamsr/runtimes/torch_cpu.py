"""PyTorch as a runtime: the reference that every other runtime has to agree with."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from streamsr.config import usable_cores
from streamsr.engine import Engine
from streamsr.errors import EngineError
from streamsr.models.srgan import SRGANGenerator, fold_batch_norm
from streamsr.models.student import Student, StudentSpec
from streamsr.runtimes.base import Pictures


def load_network(engine: Engine) -> nn.Module:
    """Return an engine's network with its verified weights, in evaluation mode, float32, on the CPU.

    Raises:
        EngineError: the weights are not those of the architecture that the manifest names.
        EngineTampered: the weights' hash is not the manifest's.
    """
    if engine.architecture == "student":
        network: nn.Module = Student(StudentSpec(engine.channels, engine.depth, engine.scale))
    elif engine.architecture == "srgan":
        network = SRGANGenerator(scale=engine.scale, num_blocks=engine.depth)
    else:
        raise EngineError(f"{engine.name}: expected a student or srgan network, got {engine.architecture}; upgrade")
    weights = {name: torch.from_numpy(values) for name, values in engine.weights().items()}
    try:
        found = network.load_state_dict(weights, strict=False)
        absent = [
            name for name in found.missing_keys if not name.endswith("num_batches_tracked")
        ]  # training alone uses it
        if absent or found.unexpected_keys:
            raise RuntimeError(f"missing {absent[:3]}, unexpected {found.unexpected_keys[:3]}")
    except RuntimeError as cause:
        line = " ".join(str(cause).split())[:200]
        raise EngineError(f"{engine.name}: expected weights of the network in its manifest, got {line}") from cause
    network.eval()
    return fold_batch_norm(network) if isinstance(network, SRGANGenerator) else network


class TorchGenerator:
    """A network run eagerly by PyTorch on the CPU, channels_last.

    Args:
        engine: which network.
        precision: ``fp32`` or ``bf16``.
        threads: CPU threads; None takes every core this program may use. PyTorch's thread count is the program's.

    Raises:
        EngineError: the precision is another, or the weights do not fit.
    """

    runtime = "torch"

    def __init__(self, engine: Engine, *, precision: str = "fp32", threads: int | None = None) -> None:
        if precision not in ("fp32", "bf16"):
            raise EngineError(f"{engine.name}: torch runs fp32 or bf16, got {precision}; use --runtime openvino")
        self.network = load_network(engine).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.scale, self.radius_px = engine.scale, engine.radius_px
        self.channels = 1 if engine.colour == "luma" else 3
        self.precision = precision
        self.threads = threads or usable_cores()
        self.description = f"torch {torch.__version__} {precision}, CPU, {self.threads} threads"

    def generate(self, pictures: Pictures, out: Pictures | None = None) -> Pictures:
        """Enlarge pictures; see `streamsr.runtimes.base.Generator.generate`."""
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        # PyTorch has no tensors that may not be written to, and decoded planes may not be.
        samples = torch.from_numpy(pictures if pictures.flags.writeable else pictures.copy())
        eight_bit = pictures.dtype == np.uint8
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16"):
            enlarged = self.network(samples.float() / 255.0 if eight_bit else samples).float()
        result = to_eight_bit(enlarged) if eight_bit else enlarged.contiguous().numpy()
        if out is None:
            return result
        np.copyto(out, result)
        return out


def to_eight_bit(picture: Tensor) -> Pictures:
    """Return samples in [0, 1] as uint8, rounded half to even and clamped."""
    samples: Pictures = picture.mul(255.0).round_().clamp_(0, 255).to(torch.uint8).contiguous().numpy()
    return samples
