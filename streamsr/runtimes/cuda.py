"""PyTorch on an NVIDIA GPU as a runtime: half precision, channels last, CUDA graphs, no build step."""

from __future__ import annotations

import torch
from torch import Tensor

from streamsr.engine import Engine
from streamsr.errors import EngineError
from streamsr.models.srgan import SRGANGenerator
from streamsr.models.student import Student
from streamsr.runtimes.cuda_networks import Chooser, SRGANOnDevice, StudentOnDevice
from streamsr.runtimes.gpu_faults import guarded
from streamsr.runtimes.gpu_generator import DeviceNetwork, GpuGenerator
from streamsr.runtimes.torch_cpu import load_network

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


class CudaGenerator(GpuGenerator):
    """A network run by PyTorch, cuDNN and a few Triton kernels on one GPU.

    Args:
        engine: which network.
        precision: ``fp16``, ``bf16`` or ``fp32``.
        device: ``cuda``, ``cuda:1`` and so on; ``cpu`` runs the same without graphs, for tests.
        graphs: capture every shape in a CUDA graph.
        compiled: let ``torch.compile`` write the kernels (minutes of tuning a shape) instead of ours.

    Raises:
        EngineError: no GPU that torch can use, too old a one, or another precision.
    """

    runtime = "cuda"

    def __init__(
        self,
        engine: Engine,
        *,
        precision: str = "fp16",
        device: str = "cuda",
        graphs: bool = True,
        compiled: bool = False,
    ) -> None:
        if precision not in DTYPES:
            raise EngineError(f"{engine.name}: cuda runs fp16, bf16 or fp32, got {precision}; choose one of these")
        super().__init__(engine, precision=precision, device=device, graphs=graphs)
        with guarded(engine.name):
            self.network = network_on(engine, self.device, DTYPES[precision], compiled=compiled)
        way = "torch.compile" if compiled else "CUDA graphs" if self.graphs else "eager"
        self.description = f"torch {torch.__version__} {precision}, {self.place}, {way}"


class CompiledNetwork:
    """The plain network behind ``torch.compile``, which chooses and writes the kernels.

    Args:
        network: float32.
        scale: enlargement of each side.
        device: where it runs.
        dtype: of weights and features.
    """

    def __init__(self, network: torch.nn.Module, scale: int, *, device: torch.device, dtype: torch.dtype) -> None:
        self.scale, self.dtype, self.chooser = scale, dtype, Chooser()
        self.network = network.to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        # Our own graph goes round it, so its mode is the one that tunes and captures nothing.
        self.run = torch.compile(self._run, mode="max-autotune-no-cudagraphs", dynamic=False)

    def enlarge(self, pictures: Tensor, out: Tensor) -> None:
        """Enlarge pictures; see `streamsr.runtimes.gpu_generator.GpuGenerator.enlarge`."""
        out.copy_(self.run(pictures, out.dtype == torch.uint8))

    def _run(self, pictures: Tensor, levels: bool) -> Tensor:
        samples = pictures.to(self.dtype)
        samples = samples / 255 if pictures.dtype == torch.uint8 else samples
        enlarged: Tensor = self.network(samples.contiguous(memory_format=torch.channels_last)).float()
        return enlarged.mul(255.0).round().clamp(0, 255) if levels else enlarged


def network_on(engine: Engine, device: torch.device, dtype: torch.dtype, *, compiled: bool) -> DeviceNetwork:
    """Return an engine's network on a device.

    Raises:
        EngineError: the weights are not those of the architecture.
    """
    network = load_network(engine)
    if compiled:
        return CompiledNetwork(network, engine.scale, device=device, dtype=dtype)
    if isinstance(network, Student):
        return StudentOnDevice(network, device=device, dtype=dtype)
    assert isinstance(network, SRGANGenerator)
    return SRGANOnDevice(network, device=device, dtype=dtype)
