"""What the doctor finds of NVIDIA GPUs: which there are, which runtimes can use them, and why others cannot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from streamsr.errors import EngineError
from streamsr.runtimes import FUSED_CAPABILITY
from streamsr.runtimes.lacks import lack_of_capability, lack_of_torch
from streamsr.runtimes.nvidia import Gpu, find_gpus, gpu_of_torch
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
    used, torch_lacks = gpu_in_use(gpus)
    on = f" on {used.name}" if used and len(gpus) > 1 else ""
    yield verdict("cuda", torch_lacks, f"torch{on}; on a GPU --runtime auto takes this or what is faster", WITHOUT)
    yield examine_triton(torch_lacks)
    for name in MODULES:
        remedy = (
            f"pip install 'streamsr[{name}]'; --runtime cuda does without" if used and probe(name).fault else WITHOUT
        )
        asked = "" if name == "tensorrt" else "; asked for as --runtime tensorrt"
        found = f"{name} {probe(name).version}{asked}"
        yield verdict(name, lack_of_library(name, used) or torch_lacks, found, remedy)
    measured = "" if used is None or float(used.capability) >= FUSED_CAPABILITY else "; never measured on this GPU"
    yield verdict("fused", lack_for_fused(used) or torch_lacks, f"NVRTC; for tiny and fast, 8 bits{measured}", WITHOUT)


def gpu_in_use(gpus: Sequence[Gpu]) -> tuple[Gpu | None, str]:
    """Return the GPU that runtimes take, and why they cannot; the best there is where torch can use none.

    The driver lists GPUs that the user hides, and in an order of its own; torch is asked which is the first.
    """
    best = max(gpus, key=lambda gpu: float(gpu.capability), default=None)
    if lack := lack_of_torch(gpus):
        return best, lack
    import torch

    try:
        used = gpu_of_torch(torch.device("cuda"))
    except RuntimeError as cause:  # another program may have it for itself
        return best, " ".join(str(cause).split())[:200]
    return used, lack_of_capability(used)


def examine_triton(torch_lacks: str) -> Finding:
    """Say whether Triton launches kernels on the GPU: that takes a C compiler, which it looks for no earlier."""
    if torch_lacks:
        return Finding("Triton", "missing", torch_lacks, WITHOUT)
    import torch

    from streamsr.runtimes.gpu_ops import TRITON_REMEDY, triton_fault
    from streamsr.runtimes.trials import triton_version

    try:
        fault = triton_fault(torch.device("cuda", torch.cuda.current_device()))
    except RuntimeError as cause:
        return Finding("Triton", "missing", " ".join(str(cause).split())[:200], WITHOUT)
    if fault:
        return Finding("Triton", "missing", fault, f"{TRITON_REMEDY}; torch's own operations do without, slower")
    return Finding("Triton", "ok", f"Triton {triton_version()} launches kernels")


def verdict(runtime: str, lack: str, found: str, remedy: str) -> Finding:
    """Return the finding on a runtime that lacks something, or nothing."""
    topic = f"runtime {runtime}"
    return Finding(topic, "missing", lack, remedy) if lack else Finding(topic, "ok", found)


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
