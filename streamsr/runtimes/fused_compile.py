"""CUDA source to a kernel that runs: NVRTC, which PyTorch brings along, and the driver, both called directly.

No toolkit and no header is needed. Compiled kernels are kept in the user's cache under the hash of everything that
they depend on, and are checked against a hash of their own before they are loaded.
"""

from __future__ import annotations

import ctypes
import hashlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import torch

from streamsr.errors import EngineError, GpuFault
from streamsr.plans import cache_folder

NAME = "enlarge"
MAX_DYNAMIC_SHARED_BYTES = 8
"""``CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`` of the driver's cuda.h."""

SHARED_BYTES_OPTIN = 97
"""``CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN``."""

DIGEST_BYTES = 32


@cache
def nvrtc_library() -> ctypes.CDLL:
    """Load NVRTC as PyTorch's packages or the system hold it.

    Raises:
        EngineError: there is none.
    """
    major = (torch.version.cuda or "").split(".")[0]
    packages = Path(torch.__file__).parents[1]
    windows = sys.platform == "win32"
    pattern = f"nvrtc64_{major}*_0.dll" if windows else f"libnvrtc.so.{major}*"
    folders = (
        packages / "torch" / "lib",
        *sorted(packages.glob("nvidia/*/lib")),
        *sorted(packages.glob("nvidia/*/bin")),
    )
    names = [str(path) for folder in folders for path in sorted(folder.glob(pattern))]
    if not windows:
        names = [f"libnvrtc.so.{number}" for number in ([major] if major else ["13", "12"])] + names
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise EngineError(f"fused: expected NVRTC of CUDA {major or '12 or 13'}, got none; install a CUDA build of PyTorch")


def compile_cubin(source: str, macros: Mapping[str, int], architecture: str) -> bytes:
    """Compile a kernel.

    Args:
        source: CUDA C++ without includes.
        macros: to define.
        architecture: for example ``sm_90``.

    Returns:
        The cubin.

    Raises:
        EngineError: there is no NVRTC, or it refused the source.
    """
    library, program = nvrtc_library(), ctypes.c_void_p()
    options = [f"--gpu-architecture={architecture}", "-std=c++17", *(f"-D{name}={macros[name]}" for name in macros)]
    arguments = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"fused_kernel.cu", 0, None, None)
    size = ctypes.c_size_t()
    try:
        if library.nvrtcCompileProgram(program, len(options), arguments) != 0:
            library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            library.nvrtcGetProgramLog(program, log)
            line = " ".join(log.value.decode(errors="replace").split())[:300]
            raise EngineError(
                f"fused: expected a kernel that compiles for {architecture}, got {line}; use --runtime cuda"
            )
        if library.nvrtcGetCUBINSize(program, ctypes.byref(size)) != 0:
            raise EngineError(f"fused: expected machine code for {architecture} from NVRTC, got none; upgrade torch")
        cubin = ctypes.create_string_buffer(size.value)
        library.nvrtcGetCUBIN(program, cubin)
        return cubin.raw
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def cached_cubin(source: str, macros: Mapping[str, int], architecture: str, *, folder: Path | None = None) -> bytes:
    """Return a compiled kernel from the cache, or compile it and keep it there.

    Args:
        source: CUDA C++ without includes.
        macros: to define.
        architecture: for example ``sm_90``.
        folder: the cache; None takes the user's. Where it cannot be written, nothing is kept.

    Raises:
        EngineError: see `compile_cubin`.
    """
    key = repr((source, sorted(macros.items()), architecture, torch.version.cuda)).encode()
    path = (folder or cache_folder() / "kernels") / f"{hashlib.sha256(key).hexdigest()}.cubin"
    try:
        content = path.read_bytes()
        if hashlib.sha256(content[DIGEST_BYTES:]).digest() == content[:DIGEST_BYTES]:
            return content[DIGEST_BYTES:]
    except OSError:
        pass
    cubin = compile_cubin(source, macros, architecture)
    _keep(path, hashlib.sha256(cubin).digest() + cubin)
    return cubin


@cache
def driver_library() -> ctypes.CDLL:
    """Load the CUDA driver's library.

    Raises:
        EngineError: there is none.
    """
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        return ctypes.CDLL(name)
    except OSError as cause:
        raise EngineError(f"fused: expected an NVIDIA driver ({name}), got {cause}; use --runtime openvino") from cause


def check(code: int) -> None:
    """Check what a call of the driver returned.

    Raises:
        GpuFault: it is an error.
    """
    if code != 0:
        name = ctypes.c_char_p()
        driver_library().cuGetErrorName(code, ctypes.byref(name))
        line = (name.value or b"an unknown error").decode()
        raise GpuFault(f"fused: expected the CUDA driver to run the kernel, got {line}; use --runtime cuda")


def shared_memory_bytes(device_index: int) -> int:
    """Return how much shared memory a block may have on a GPU.

    Raises:
        EngineError: there is no such GPU.
    """
    driver, device, count = driver_library(), ctypes.c_int(), ctypes.c_int()
    check(driver.cuInit(0))
    check(driver.cuDeviceGet(ctypes.byref(device), device_index))
    check(driver.cuDeviceGetAttribute(ctypes.byref(count), SHARED_BYTES_OPTIN, device))
    return count.value


def _keep(path: Path, content: bytes) -> None:
    """Write a file so that no reader ever sees half of it; a cache that cannot be written is none."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as draft:
            draft.write(content)
        Path(draft.name).replace(path)
    except OSError:
        pass


class LoadedKernel:
    """A compiled kernel in the memory of the current device, kept until the program ends.

    Args:
        cubin: machine code for this device.
        shared_bytes: dynamic shared memory of a block.
        threads: threads of a block.
        name: of the kernel.

    Raises:
        EngineError: the driver refused it.
    """

    def __init__(self, cubin: bytes, *, shared_bytes: int, threads: int, name: str = NAME) -> None:
        self.driver, self.shared_bytes, self.threads = driver_library(), shared_bytes, threads
        self.device = torch.cuda.current_device()
        torch.cuda.current_stream().synchronize()  # the device's context exists and is current from here on
        module, self.function, self.context = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
        check(self.driver.cuCtxGetCurrent(ctypes.byref(self.context)))
        check(self.driver.cuModuleLoadData(ctypes.byref(module), cubin))
        check(self.driver.cuModuleGetFunction(ctypes.byref(self.function), module, name.encode()))
        check(self.driver.cuFuncSetAttribute(self.function, MAX_DYNAMIC_SHARED_BYTES, shared_bytes))

    def launch(self, blocks: int, pointers: Sequence[int], integers: Sequence[int]) -> None:
        """Launch on the current CUDA stream of the kernel's device; may be captured in a graph.

        Args:
            blocks: number of thread blocks.
            pointers: device addresses, the first arguments.
            integers: 32-bit integers, the arguments after them.

        Raises:
            EngineError: the driver refused the launch.
        """
        values = [*map(ctypes.c_void_p, pointers), *map(ctypes.c_int, integers)]
        arguments = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        size = (blocks, 1, 1, self.threads, 1, 1, self.shared_bytes)
        with torch.cuda.device(self.device):  # another device that was current is so again behind this
            cuda_stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
            check(self.driver.cuCtxSetCurrent(self.context))  # a thread that has not used the GPU before has none
            check(self.driver.cuLaunchKernel(self.function, *size, cuda_stream, arguments, None))
