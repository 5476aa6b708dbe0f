"""What the doctor finds of NVIDIA GPUs: which there are, which runtimes can use them, and why others cannot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from streamsr.errors import EngineError
from streamsr.runtimes import FUSED_CAPABILITY, LEAST_CAPABILITY
from streamsr.runtimes.nvidia import Gpu, find_gpus
from streamsr.runtimes.tensorrt_library import MODULES, find_library, probe

WITHOUT = "none is needed: --runtime openvino runs on the processor"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor.

    Attributes:
        topic: what was looked at.
        state: ``ok``; ``missing`` where something optional is not there; ``broken`` where streamsr cannot work.
        detail: what was found.
        remedy: what mends it, or how to do without; empty where it is ``ok``.
    """

    topic: str
    state: str
    detail: str
    remedy: str = ""


def examine_gpus() -> Iterator[Finding]:
    """Say which GPUs there are, and of each of their runtimes whether it can be used here, or why not."""
    gpus = find_gpus()
    for gpu in gpus:
        yield Finding("GPU", "ok", str(gpu))
    if not gpus:
        yield Finding("GPU", "missing", "no NVIDIA GPU or no driver; the processor is used instead", WITHOUT)
    best = max(gpus, key=lambda gpu: float(gpu.capability), default=None)
    torch_lacks = lack_of_torch(best)
    yield verdict("cuda", torch_lacks, "torch; on a GPU --runtime auto takes this or what is faster", WITHOUT)
    for name in MODULES:
        remedy = f"pip install 'streamsr[{name}]'; --runtime cuda does without" if probe(name).fault else WITHOUT
        yield verdict(name, lack_of_library(name, best) or torch_lacks, f"{name} {probe(name).version}", remedy)
    measured = "" if best is None or float(best.capability) >= FUSED_CAPABILITY else "; never measured on this GPU"
    yield verdict("fused", lack_for_fused(best) or torch_lacks, f"NVRTC; for tiny and fast, 8 bits{measured}", WITHOUT)


def verdict(runtime: str, lack: str, found: str, remedy: str) -> Finding:
    """Return the finding on a runtime that lacks something, or nothing."""
    topic = f"runtime {runtime}"
    return Finding(topic, "missing", lack, remedy) if lack else Finding(topic, "ok", found)


def lack_of_torch(gpu: Gpu | None) -> str:
    """Return why torch cannot use the best GPU there is; empty where it can."""
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built for no GPU"
    if gpu is None:
        return "no NVIDIA GPU"
    if float(gpu.capability) < LEAST_CAPABILITY:
        return f"{gpu.name} has compute capability {gpu.capability}, {LEAST_CAPABILITY} is the least"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} for CUDA {torch.version.cuda} cannot use {gpu.name}: driver {gpu.driver}"
    return ""


def lack_of_library(name: str, gpu: Gpu | None) -> str:
    """Return why TensorRT or TensorRT-RTX cannot be used; empty where it can."""
    if fault := probe(name).fault:
        return fault
    if gpu is None:
        return "installed, but no NVIDIA GPU"
    refused = find_library(name).refuse_gpu(gpu.capability)
    return f"{gpu.name}: {refused}" if refused else ""


def lack_for_fused(gpu: Gpu | None) -> str:
    """Return why the fused kernel cannot be used; empty where it can."""
    if gpu is None:
        return "no NVIDIA GPU"
    from streamsr.runtimes.fused import OLDEST_CAPABILITY
    from streamsr.runtimes.fused_compile import nvrtc_library

    if float(gpu.capability) < OLDEST_CAPABILITY[0]:
        return f"{gpu.name} has compute capability {gpu.capability}, {OLDEST_CAPABILITY[0]}.0 is the least"
    try:
        nvrtc_library()
    except EngineError as error:
        return str(error).removeprefix("fused: ")
    return ""
