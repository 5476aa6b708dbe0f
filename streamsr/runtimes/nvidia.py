"""Which NVIDIA GPUs and driver there are, asked of the driver's own libraries: no torch, no CUDA context.

NVML is asked first. Containers are often given the GPU without it; then the CUDA driver is asked, which is always there
where a program can compute, and the kernel module for its version.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""What tells a program which GPUs to use; it sees them in that order and numbers them from 0."""

NAME_BYTES = 96
"""``NVML_DEVICE_NAME_V2_BUFFER_SIZE`` of nvml.h; a driver's version needs fewer."""

MAJOR, MINOR = 75, 76
"""``CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR`` and ``_MINOR`` of cuda.h."""

MODULE_FILES = (Path("/sys/module/nvidia/version"), Path("/proc/driver/nvidia/version"))
"""Where Linux says which version of the driver is loaded: alone, or behind ``Kernel Module``."""


@dataclass(frozen=True)
class Gpu:
    """A GPU as far as compiled code depends on it.

    Attributes:
        name: as the driver says it.
        capability: compute capability, for example ``8.9``.
        driver: version of the driver; empty where it is not known.
    """

    name: str
    capability: str
    driver: str

    def __str__(self) -> str:
        return f"{self.name} (compute capability {self.capability}, driver {self.driver or 'unknown'})"


def find_gpus() -> list[Gpu]:
    """Return the GPUs of this machine in the driver's order; none where there is no driver."""
    with nvml() as library:
        if library is None:
            return gpus_of_cuda()
        number = ctypes.c_uint()
        if library.nvmlDeviceGetCount_v2(ctypes.byref(number)):
            return []
        driver = driver_of(library)
        found = [gpu_at(library, index, driver) for index in range(number.value)]
    return [gpu for gpu in found if gpu is not None]


def driver_version() -> str:
    """Return the version of the driver; empty where there is none."""
    with nvml() as library:
        return module_version() if library is None else driver_of(library)


def gpu_of_torch(device: Any) -> Gpu:
    """Return the GPU behind a ``torch.device``, which counts only those that it was shown."""
    import torch

    major, minor = torch.cuda.get_device_capability(device)
    return Gpu(torch.cuda.get_device_name(device), f"{major}.{minor}", driver_version())


def visible_name(index: int) -> str:
    """Return what `VISIBLE` is to say for a child process to see one GPU of this process alone.

    Args:
        index: as this process numbers it, which sees what its own `VISIBLE` says.
    """
    shown = [name.strip() for name in os.environ.get(VISIBLE, "").split(",")]
    return shown[index] if any(shown) and index < len(shown) else str(index)


@contextmanager
def nvml() -> Iterator[Any]:
    """Open the driver's library for the body; None where there is none that works."""
    try:
        library = ctypes.CDLL("nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1")
    except OSError:
        yield None
        return
    if library.nvmlInit_v2():
        yield None
        return
    try:
        yield library
    finally:
        library.nvmlShutdown()


def gpus_of_cuda() -> list[Gpu]:
    """Return the GPUs that the CUDA driver shows this program; none where there is no driver."""
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return []
    number = ctypes.c_int()
    if library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(number)):
        return []
    found, driver = [], module_version()
    for index in range(number.value):
        device, text = ctypes.c_int(), ctypes.create_string_buffer(NAME_BYTES)
        major, minor = ctypes.c_int(), ctypes.c_int()
        refused = (
            library.cuDeviceGet(ctypes.byref(device), index)
            or library.cuDeviceGetName(text, NAME_BYTES, device)
            or library.cuDeviceGetAttribute(ctypes.byref(major), MAJOR, device)
            or library.cuDeviceGetAttribute(ctypes.byref(minor), MINOR, device)
        )
        if not refused:
            found.append(Gpu(text.value.decode(errors="replace"), f"{major.value}.{minor.value}", driver))
    return found


def module_version() -> str:
    """Return the version of the driver's kernel module; empty where the system does not say."""
    for file in MODULE_FILES:
        try:
            told = file.read_text(encoding="ascii")
        except (OSError, ValueError):
            continue
        if found := re.search(r"(?:^|Kernel Module(?: for \S+)?\s+)(\d+(?:\.\d+)+)", told):
            return found[1]
    return ""


def driver_of(library: Any) -> str:
    """Return the driver's version as an open library says it."""
    text = ctypes.create_string_buffer(NAME_BYTES)
    return "" if library.nvmlSystemGetDriverVersion(text, NAME_BYTES) else text.value.decode(errors="replace")


def gpu_at(library: Any, index: int, driver: str) -> Gpu | None:
    """Return one GPU; None where the driver does not show it."""
    device, text = ctypes.c_void_p(), ctypes.create_string_buffer(NAME_BYTES)
    major, minor = ctypes.c_int(), ctypes.c_int()
    refused = (
        library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device))
        or library.nvmlDeviceGetName(device, text, NAME_BYTES)
        or library.nvmlDeviceGetCudaComputeCapability(device, ctypes.byref(major), ctypes.byref(minor))
    )
    if refused:
        return None
    return Gpu(text.value.decode(errors="replace"), f"{major.value}.{minor.value}", driver)
