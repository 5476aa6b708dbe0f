"""What is wrong with a GPU: none that serves, too little memory, or one that failed, each as one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from streamsr.errors import EngineError, GpuFault, GpuMemoryFault

FAULTS = ("CUDA error", "CUDA driver error", "CUDNN_STATUS", "CUBLAS_STATUS", "Triton Error [CUDA]")
"""Words of torch and Triton for what the driver, cuDNN and cuBLAS report."""

SCARCE = ("out of memory", "STATUS_ALLOC_FAILED", "ALLOCATION_FAILED", "unable to find an engine to execute")
"""Words of the driver, cuBLAS and cuDNN for too little memory; the last are cuDNN's for no room to work in."""

LEAST_CAPABILITY = (7, 0)
"""The first GPUs with matrix units, Volta; torch's builds and half precision are of no use below."""


def check_gpu(device: torch.device, runtime: str = "cuda") -> torch.device:
    """Return a GPU with its number, or refuse one that torch cannot use.

    Args:
        device: the GPU; without a number the present one.
        runtime: that was asked for, named in what is said.

    Raises:
        EngineError: says what is missing.
    """
    if not torch.cuda.is_available():
        built = torch.version.cuda
        got = (
            "a torch built without CUDA" if built is None else f"torch for CUDA {built} and no GPU or driver it can use"
        )
        raise EngineError(
            f"{runtime}: expected an NVIDIA GPU, its driver and a CUDA build of torch, got {got}; "
            "install what is missing or use --runtime auto"
        )
    device = numbered(device)
    found = torch.cuda.get_device_capability(device)
    if found < LEAST_CAPABILITY:
        raise EngineError(
            f"{runtime}: expected a GPU of compute capability 7.0 or more, got {found[0]}.{found[1]} "
            f"({torch.cuda.get_device_name(device)}); use --runtime openvino"
        )
    return device


def numbered(device: torch.device) -> torch.device:
    """Return a GPU with its number: which one is present differs between threads, and from one moment to the next.

    Raises:
        EngineError: there is no such GPU.
    """
    if device.index is None:
        return torch.device(device.type, torch.cuda.current_device())
    if device.index >= torch.cuda.device_count():
        raise EngineError(
            f"cuda: expected one of {torch.cuda.device_count()} GPUs, got number {device.index}; use cuda:0"
        )
    return device


@contextmanager
def guarded(name: str) -> Iterator[None]:
    """Turn a GPU's faults into ours.

    Args:
        name: of the engine.

    Raises:
        GpuMemoryFault: out of memory; the cause is chained.
        GpuFault: the GPU reported another error; likewise.
    """
    try:
        yield
    except RuntimeError as cause:
        if not is_gpu_fault(cause):
            raise
        line = " ".join(str(cause).split())[:160]
        if isinstance(cause, torch.OutOfMemoryError) or any(words in line for words in SCARCE):
            raise GpuMemoryFault(f"{name}: expected enough GPU memory, got {line}; use --launch patch") from cause
        raise GpuFault(f"{name}: the GPU failed: {line}; run again, or use --runtime openvino") from cause


def is_gpu_fault(cause: BaseException) -> bool:
    """Whether an error is the GPU's: after most of them nothing more runs on it in this program."""
    fault = getattr(torch, "AcceleratorError", None)
    if isinstance(cause, torch.OutOfMemoryError) or (fault is not None and isinstance(cause, fault)):
        return True
    return any(words in str(cause) for words in (*FAULTS, *SCARCE))
