"""The ways to run a network on a GPU: our runtimes, wherever they serve it, and how torch runs it by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu_timing import Section
from streamsr.engine import Engine
from streamsr.errors import EngineError, GpuFault
from streamsr.plans import BuildProgress
from streamsr.runtimes.cuda import CudaGenerator
from streamsr.runtimes.cuda_networks import Chooser
from streamsr.runtimes.fused import FusedGenerator, check_device, serves
from streamsr.runtimes.gpu_generator import GpuGenerator
from streamsr.runtimes.nvidia import gpu_of_torch
from streamsr.runtimes.tensorrt import TensorRTGenerator
from streamsr.runtimes.tensorrt_library import find_library
from streamsr.runtimes.torch_cpu import load_network

TENSORRT_FORMS = {"fp16": "fp32", "int8": "int8-symmetric", "fp8": "fp8"}
"""Precisions that are tried in TensorRT, and the form that an engine must ship for each; see `Engine.precisions`."""

LEFT_FOR_TIMING = 0.35
"""Part of a section's time before which no plan is built any longer: the others are still to be timed in turn."""


@dataclass(frozen=True)
class Way:
    """One way to run a network.

    Attributes:
        name: in the result: the runtime, and the precision where that does not go without saying.
        make: makes the generator; raises `EngineError` with one line where it does not serve here.
    """

    name: str
    make: Callable[[], GpuGenerator]


class PlainNetwork:
    """The network as torch runs it: channels last, one kernel after the other.

    Args:
        engine: which network.
        device: where it runs.
        dtype: of weights and features.
    """

    def __init__(self, engine: Engine, device: torch.device, dtype: torch.dtype) -> None:
        self.scale, self.dtype, self.chooser = engine.scale, dtype, Chooser()
        network: nn.Module = load_network(engine)
        self.network = network.to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def enlarge(self, pictures: Tensor, out: Tensor) -> None:
        """Enlarge pictures; see `streamsr.runtimes.gpu_generator.GpuGenerator.enlarge`."""
        samples = pictures.to(self.dtype)
        samples = samples / 255 if pictures.dtype == torch.uint8 else samples
        made = self.network(samples.contiguous(memory_format=torch.channels_last)).float()
        out.copy_(made.mul_(255).round_().clamp_(0, 255) if out.dtype == torch.uint8 else made)


def generator_on(section: Section, engine: Engine, **options: Any) -> CudaGenerator:
    """Return the ``cuda`` runtime, or its stand-in on the CPU."""
    if section.device.type != "cuda":
        return CudaGenerator(engine, precision="fp32", device="cpu")
    return CudaGenerator(engine, **options)


def plain_on(section: Section, engine: Engine, *, graphs: bool) -> GpuGenerator:
    """Return the network as torch runs it, in half precision, each kernel launched or all in one graph."""
    generator = generator_on(section, engine, graphs=graphs)
    dtype = torch.float16 if generator.is_gpu else torch.float32
    generator.network = PlainNetwork(engine, section.device, dtype)
    return generator


def runtimes_of(section: Section, engine: Engine) -> list[Way]:
    """Return our runtimes in the precisions that they may run an engine in, ``cuda`` first.

    Whether TensorRT is there and serves the GPU shows when it is made.
    """
    found = [Way("cuda", lambda: generator_on(section, engine))]
    if serves(engine):
        found.append(Way("fused", lambda: fused_on(section, engine)))
    for precision, form in TENSORRT_FORMS.items():
        if form in engine.precisions:
            found.append(Way(f"tensorrt {precision}", tensorrt_on(section, engine, precision)))
    return found


def fused_on(section: Section, engine: Engine) -> GpuGenerator:
    """Return the ``fused`` runtime.

    Raises:
        EngineError: it does not serve here.
    """
    check_device(section.device)
    return FusedGenerator(engine, device=section.device)


def tensorrt_on(section: Section, engine: Engine, precision: str) -> Callable[[], GpuGenerator]:
    """Return what makes the ``tensorrt`` runtime, which says in one line why it does not serve here."""

    def watch(progress: BuildProgress) -> None:
        if section.left < LEFT_FOR_TIMING:
            raise EngineError(f"no time to build its plan: {progress.elapsed_s:.0f} s were not enough")

    def make() -> GpuGenerator:
        library = find_library()
        if section.device.type != "cuda":
            raise EngineError(f"{library.title} {library.version}: expected an NVIDIA GPU, got the CPU")
        gpu = gpu_of_torch(section.device)
        if refused := library.refuse_gpu(gpu.capability):
            raise EngineError(f"{library.title} {library.version}: {refused}")
        return TensorRTGenerator(engine, precision=precision, library=library, watch=watch)

    return make


@contextmanager
def left_out_where_refused(section: Section, name: str) -> Iterator[None]:
    """Note in one line why a way does not serve here; a GPU that failed is another matter and goes on."""
    try:
        yield
    except GpuFault:
        raise
    except EngineError as cause:
        section.note(name, {"left out": " ".join(str(cause).split())})
