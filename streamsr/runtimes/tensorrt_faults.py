"""Whether what TensorRT refused is the GPU's fault: the library says False or None and nothing more."""

from __future__ import annotations

import re

import torch

from streamsr.errors import EngineError, GpuFault, GpuMemoryFault
from streamsr.runtimes.gpu_faults import guarded

OLD = re.compile(r"driver version is insufficient|old cuda", re.IGNORECASE)
"""Words of the library for a driver or a CUDA that is too old: it names CUDA, and the GPU is whole."""

SCARCE = re.compile(
    r"out ?of ?memory|insufficient (gpu |device )?memory|(could not|cannot|failed to|unable to) (be )?allocate",
    re.IGNORECASE,
)
"""Words of the library for too little memory."""

FAILED = re.compile(
    r"\bcuda (runtime|driver|error|initialization|failure)\b|\bcuda(_error_|error)|\b(cudnn|cublas)(_status_\w+)?\b"
    r"|platform \(cuda\)|illegal (memory access|address|instruction)|misaligned address|launch (failure|timed out)"
    r"|\becc\b|\b(device|gpu) memory\b",
    re.IGNORECASE,
)
"""Words of the library for a failure of the GPU."""

UNFIT = re.compile(r"\bserialization\b|\bapi usage\b", re.IGNORECASE)
"""Words of the library for a plan of another version, or damaged, and for what it was asked wrongly."""

NAMES = re.compile(r"\w*CudaEngine\w*", re.IGNORECASE)
"""Names of the library's own that look like a failure's words: its errors begin with the function they come from."""


def refusal(name: str, expected: str, said: str, otherwise: str) -> EngineError:
    """Return the error for what a library refused: a fault of the GPU where it is one.

    Work that was enqueued before may have failed meanwhile, which the library does not always tell; so it is waited
    for, but not while a graph is captured, which that would spoil.

    Args:
        name: of the library.
        expected: what it was asked for.
        said: its last error; empty where there is none.
        otherwise: what to do where the GPU is whole.
    """
    try:
        with guarded(name):
            used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
            if used and not torch.cuda.is_current_stream_capturing():
                torch.cuda.current_stream().synchronize()
    except GpuFault as fault:
        return fault
    words = NAMES.sub("", said)
    if OLD.search(words) or UNFIT.search(words):
        return EngineError(f"{name}: expected {expected}, got {said}; {otherwise}")
    if SCARCE.search(words):
        return GpuMemoryFault(f"{name}: expected enough GPU memory, got {said}; use --launch patch")
    if FAILED.search(words):
        return GpuFault(f"{name}: the GPU failed: {said}; run again, or use --runtime openvino")
    return EngineError(f"{name}: expected {expected}, got {said or 'no reason'}; {otherwise}")
