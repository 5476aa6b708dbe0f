"""Runtimes: the same networks on different executors, behind one protocol."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from streamsr.config import GeneratorSettings
from streamsr.engine import Engine
from streamsr.errors import EngineError, UsageError
from streamsr.runtimes import tensorrt_library
from streamsr.runtimes.base import Generator, notices_of, tell
from streamsr.runtimes.lacks import LEAST_CAPABILITY, lack_of_torch, why_on_processor
from streamsr.runtimes.nvidia import find_gpus, gpu_of_torch

__all__ = ["LEAST_CAPABILITY", "Generator", "load_generator", "notices_of", "tell"]

GPU_RUNTIMES = ("cuda", "tensorrt", "fused")
"""Runtimes whose generators are a `streamsr.runtimes.device.DeviceGenerator`."""

FUSED_CAPABILITY = 9.0
"""GPUs from which ``auto`` tries the fused kernel (Hopper); it runs from 8.0 on and was measured on 9.0."""


def load_generator(engine: Engine, settings: GeneratorSettings, *, bit_depth: int = 8) -> Generator:
    """Make an engine ready to run on this machine.

    ``auto`` takes an NVIDIA GPU where torch can use one, in FP16 and in the runtime that is fastest there. Else it
    takes OpenVINO, the fastest on every CPU measured (``benchmarks/cpu_runtimes``), and INT8 where the engine has it
    and the samples are 8-bit; deeper samples run in fp32, which keeps their lower bits. FP8 is TensorRT's alone. Where
    there is a GPU and it is not used, a notice says why.

    Args:
        engine: which generator.
        settings: runtime, precision and threads.
        bit_depth: of the samples to come.

    Raises:
        EngineError: the runtime is not installed, or cannot run this engine in this precision.
    """
    if engine.architecture == "bicubic":
        from streamsr.runtimes.bicubic import BicubicGenerator

        return BicubicGenerator(engine.scale)
    runtime: str = settings.runtime
    if runtime == "auto" and settings.precision == "fp8":
        if not gpu_runs_torch():
            got = why_on_processor("fp8") or lack_of_torch(find_gpus()) or "none that torch can use"
            raise EngineError(f"{engine.name}: fp8 runs in tensorrt on an NVIDIA GPU, got {got}; use --precision auto")
        runtime = "tensorrt"
    unused = ""
    if runtime == "auto":
        if settings.precision != "int8" and gpu_runs_torch():
            try:
                return fastest_on_gpu(engine, settings, bit_depth=bit_depth)
            except (EngineError, ImportError, RuntimeError) as cause:  # torch reports a GPU it cannot have as the last
                unused = " ".join(str(cause).split())[:300]
        else:
            unused = why_on_processor(settings.precision)
        runtime = "openvino"
    precision: str = settings.precision
    if precision == "auto" and runtime in GPU_RUNTIMES:
        precision = "fp16"
    if precision == "auto":
        quantised = "int8" in engine.precisions and bit_depth == 8 and runtime != "torch"
        precision = "int8" if quantised else "fp32"
    refuse_unfit(engine, runtime, precision, bit_depth=bit_depth)
    if precision == "fp16" and settings.runtime == "auto":
        got = unused or lack_of_torch(find_gpus()) or "none that torch can use"
        raise EngineError(f"{engine.name}: expected an NVIDIA GPU for fp16, got {got}; use --precision auto")
    try:
        generator = _make(engine, runtime, precision, settings.threads)
    except ImportError as cause:
        raise EngineError(
            f"{runtime}: expected the runtime to be installed, got {cause}; install it or use --runtime auto"
        ) from cause
    if unused:
        tell(generator, f"no GPU is used, {generator.description} is: {unused}")
    return generator


def refuse_unfit(engine: Engine, runtime: str, precision: str, *, bit_depth: int) -> None:
    """Refuse a precision that does not hold samples of a bit depth.

    Raises:
        EngineError: it does not.
    """
    if precision in ("int8", "fp8") and bit_depth != 8:
        other = "fp32" if precision == "int8" else "fp16"
        raise EngineError(
            f"{engine.name}: {precision} expects 8-bit samples, got {bit_depth}-bit; use --precision {other}"
        )
    if runtime == "fused" and (bit_depth != 8 or precision != "fp16"):
        raise EngineError(
            f"{engine.name}: fused expects 8-bit samples and fp16, got {bit_depth} bits and {precision}; "
            "use --runtime cuda"
        )


def gpu_runs_torch() -> bool:
    """Whether there is an NVIDIA GPU and a torch that can use it; torch is not imported where there is none."""
    if not any(float(gpu.capability) >= LEAST_CAPABILITY for gpu in find_gpus()):
        return False
    import torch

    return torch.cuda.is_available()


def count_gpus() -> int:
    """Return how many GPUs torch sees, which is not told of those that the user hides; 0 where it can use none."""
    if not gpu_runs_torch():
        return 0
    import torch

    return torch.cuda.device_count()


def usable_gpus() -> list[int]:
    """Return the numbers of the GPUs that runtimes here can use, the present one first."""
    if not gpu_runs_torch():
        return []
    import torch

    least, present = (int(LEAST_CAPABILITY), 0), torch.cuda.current_device()
    numbers = [each for each in range(torch.cuda.device_count()) if torch.cuda.get_device_capability(each) >= least]
    return sorted(numbers, key=lambda number: number != present)


def refuse_missing_gpus(asked: int | str) -> None:
    """Refuse a number of GPUs that there are not; nothing is looked for where one is asked for.

    Args:
        asked: how many, or ``all`` there are, of which there may be none.

    Raises:
        UsageError: it is neither.
        EngineError: there are fewer.
    """
    if asked in (1, "all"):
        return
    if not isinstance(asked, int) or asked < 1:
        raise UsageError(f"--gpus: expected a number of GPUs from 1 on, or all, got {asked!r}")
    found = len(usable_gpus())
    if asked > found:
        some = f"{asked} GPUs" if found else "GPUs that torch can use"
        raise EngineError(
            f"--gpus: expected {some}, got {found or 'none'}; {'use --gpus all' if found else 'leave --gpus out'}"
        )


def load_alike(engine: Engine, first: Generator, asked: int | str) -> list[Any]:
    """Make an engine ready on other GPUs as it is on one: in the same runtime and precision.

    Args:
        engine: which generator.
        first: on the present GPU.
        asked: on how many GPUs in all, or ``all`` that can run it; see `refuse_missing_gpus`.

    Returns:
        The first and the others, each a `streamsr.runtimes.device.DeviceGenerator`.

    Raises:
        EngineError: one of a number of GPUs that was asked for cannot run it.
    """
    made: list[Any] = [first]
    if asked == 1:
        return made
    for number in usable_gpus()[1 : None if asked == "all" else int(asked)]:
        try:
            made.append(_make(engine, first.runtime, first.precision, None, device=f"cuda:{number}"))
        except EngineError as cause:
            if asked != "all":
                raise EngineError(f"GPU {number}: {cause}") from cause
            tell(first, f"--gpus all: GPU {number} is left out: {cause}")
    return made


def fastest_on_gpu(engine: Engine, settings: GeneratorSettings, *, bit_depth: int) -> Generator:
    """Return the fastest runtime on the GPU; where there is but one, nothing is measured.

    Raises:
        EngineError: none of them works.
    """
    precision = "fp16" if settings.precision == "auto" else settings.precision
    names = gpu_candidates(engine, precision, bit_depth=bit_depth)
    if len(names) == 1:
        return _make(engine, names[0], precision, settings.threads)
    import numpy as np
    import torch

    from streamsr.runtimes.choosing import facts_of, fastest_generator, measured_shape

    return fastest_generator(
        {name: partial(_make, engine, name, precision, settings.threads) for name in names},
        facts=facts_of(engine, precision, gpu_of_torch(torch.device("cuda"))),
        shape=measured_shape(engine),
        dtype=np.uint8 if engine.colour == "luma" and bit_depth == 8 else np.float32,
    )


def gpu_candidates(engine: Engine, precision: str, *, bit_depth: int) -> list[str]:
    """Return the runtimes that may be the fastest on the GPU that torch uses."""
    import torch

    names = ["cuda"]
    if precision != "fp16":
        return names
    if tensorrt_library.is_installed():
        names.append("tensorrt")
    from streamsr.runtimes.fused import serves

    if bit_depth == 8 and serves(engine) and float(gpu_of_torch(torch.device("cuda")).capability) >= FUSED_CAPABILITY:
        names.append("fused")
    return names


def _make_on_gpu(engine: Engine, runtime: str, precision: str, device: str) -> Generator:
    if runtime == "tensorrt":
        from streamsr.runtimes.tensorrt import TensorRTGenerator

        return TensorRTGenerator(engine, precision=precision, device=device)
    if runtime == "fused":
        from streamsr.runtimes.fused import FusedGenerator

        return FusedGenerator(engine, device=device)
    from streamsr.runtimes.cuda import CudaGenerator

    return CudaGenerator(engine, precision=precision, device=device)


def _told_of_triton(generator: Generator) -> Generator:
    """Note where Triton's kernels cannot run on a generator's GPU, round which they are used whatever its runtime."""
    if getattr(generator, "is_gpu", False):
        from streamsr.runtimes.gpu_ops import TRITON_REMEDY, triton_fault

        if fault := triton_fault(cast(Any, generator).device):
            tell(generator, f"torch's own operations are used, which are slower: {fault}; {TRITON_REMEDY}")
    return generator


def _make(engine: Engine, runtime: str, precision: str, threads: int | None, device: str = "cuda") -> Generator:
    if runtime in GPU_RUNTIMES:
        from streamsr.runtimes.gpu_faults import guarded

        with guarded(engine.name):
            return _told_of_triton(_make_on_gpu(engine, runtime, precision, device))
    if runtime == "openvino":
        from streamsr.runtimes.openvino_cpu import OpenVINOGenerator

        return OpenVINOGenerator(engine, precision=precision, threads=threads)
    if runtime == "onnxruntime":
        from streamsr.runtimes.onnxruntime_cpu import ONNXRuntimeGenerator

        return ONNXRuntimeGenerator(engine, precision=precision, threads=threads)
    from streamsr.runtimes.torch_cpu import TorchGenerator

    return TorchGenerator(engine, precision=precision, threads=threads)
