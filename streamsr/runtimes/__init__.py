"""Runtimes: the same networks on different executors, behind one protocol."""

from __future__ import annotations

from streamsr.config import GeneratorSettings
from streamsr.engine import Engine
from streamsr.errors import EngineError
from streamsr.runtimes.base import Generator

__all__ = ["Generator", "load_generator"]


def load_generator(engine: Engine, settings: GeneratorSettings, *, bit_depth: int = 8) -> Generator:
    """Make an engine ready to run on this machine.

    ``auto`` takes OpenVINO, the fastest on every CPU measured (``benchmarks/cpu_runtimes``), and INT8 where the
    engine has it and the samples are 8-bit; deeper samples run in fp32, which keeps their lower bits.

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
    runtime = "openvino" if settings.runtime == "auto" else settings.runtime
    precision: str = settings.precision
    if precision == "auto":
        quantised = "int8" in engine.precisions and bit_depth == 8 and runtime != "torch"
        precision = "int8" if quantised else "fp32"
    if precision == "int8" and bit_depth != 8:
        raise EngineError(f"{engine.name}: int8 expects 8-bit samples, got {bit_depth}-bit; use --precision fp32")
    try:
        return _make(engine, runtime, precision, settings.threads)
    except ImportError as cause:
        raise EngineError(
            f"{runtime}: expected the runtime to be installed, got {cause}; install it or use --runtime auto"
        ) from cause


def _make(engine: Engine, runtime: str, precision: str, threads: int | None) -> Generator:
    if runtime == "openvino":
        from streamsr.runtimes.openvino_cpu import OpenVINOGenerator

        return OpenVINOGenerator(engine, precision=precision, threads=threads)
    if runtime == "onnxruntime":
        from streamsr.runtimes.onnxruntime_cpu import ONNXRuntimeGenerator

        return ONNXRuntimeGenerator(engine, precision=precision, threads=threads)
    from streamsr.runtimes.torch_cpu import TorchGenerator

    return TorchGenerator(engine, precision=precision, threads=threads)
