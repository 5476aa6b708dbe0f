"""Why NVIDIA GPUs are not used, in one line each; torch is imported only where there is one."""

from __future__ import annotations

import os
from collections.abc import Sequence

from streamsr.runtimes.nvidia import VISIBLE, Gpu, find_gpus

LEAST_CAPABILITY = 7.0
"""The first GPUs with matrix units (Volta); below, half precision is slower than a processor's own units."""


def lack_of_torch(gpus: Sequence[Gpu]) -> str:
    """Return why torch can use none of the GPUs there are; empty where it can."""
    best = max(gpus, key=lambda gpu: float(gpu.capability), default=None)
    if best is None:
        return "no NVIDIA GPU"
    if hides_gpus():
        return f"{best.name} is hidden by {VISIBLE}"
    if lack := lack_of_capability(best):
        return lack
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built for no GPU"
    if not torch.cuda.is_available():
        shown = f", {VISIBLE}={os.environ[VISIBLE]}" if VISIBLE in os.environ else ""
        return (
            f"torch {torch.__version__} for CUDA {torch.version.cuda} cannot use {best.name}: "
            f"driver {best.driver or 'unknown'}{shown}"
        )
    return ""


def lack_of_capability(gpu: Gpu) -> str:
    """Return why a GPU is too old; empty where it is not."""
    if float(gpu.capability) >= LEAST_CAPABILITY:
        return ""
    return f"{gpu.name} has compute capability {gpu.capability}, {LEAST_CAPABILITY} is the least"


def hides_gpus() -> bool:
    """Whether the user hides all GPUs from programs; then there are none to speak of."""
    return os.environ.get(VISIBLE, "0").strip() in ("", "-1")


def why_on_processor(precision: str) -> str:
    """Return why ``auto`` leaves the GPUs there are alone; empty where there is none, or the user hides all.

    Args:
        precision: that was asked for.
    """
    gpus = find_gpus()
    if not gpus or hides_gpus():
        return ""
    if precision == "int8":
        return f"--precision int8 with --runtime auto is the processor's; --runtime tensorrt tries it on {gpus[0].name}"
    return lack_of_torch(gpus)
