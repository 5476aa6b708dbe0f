"""Full TensorRT and TensorRT-RTX behind one small class: found without risk, plans loaded, contexts made.

Both are the same API under two names. They differ in what they serve (TensorRT-RTX: GeForce, RTX and the like from
Turing to Blackwell, and no data-centre card), in when kernels are compiled (TensorRT when a plan is built, on the GPU
itself; TensorRT-RTX when a context first meets a shape), and in where they can build (TensorRT-RTX on any machine).
"""

from __future__ import annotations

import importlib
import logging
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

from streamsr.errors import EngineError

log = logging.getLogger(__name__)

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Name of the library, and of the extra that installs it, to the name of its module; the first that works is taken."""

TITLES = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}

REBUILT = "streamsr engine clean, or use --runtime cuda"
"""What to do about a plan that the library refuses."""

PROBE_LIMIT_S = 60.0
"""What importing a library may take; from a cold disk its 230 MB take seconds."""


@dataclass(frozen=True)
class Probe:
    """What was found of a library.

    Attributes:
        name: a key of `MODULES`.
        version: empty where it does not work.
        fault: why it does not work; empty where it does.
    """

    name: str
    version: str
    fault: str


class Library:
    """An imported TensorRT or TensorRT-RTX.

    Args:
        name: a key of `MODULES`.
        module: it.

    Attributes:
        title: its name as its makers write it.
        version: its version.
        logger: what the library speaks to; its lines go to our log, and the last error is kept.
    """

    def __init__(self, name: str, module: Any) -> None:
        self.name, self.module, self.title = name, module, TITLES[name]
        self.version = str(module.__version__)
        self.logger = logger_of(module)
        self._runtime: Any = None

    @property
    def capabilities(self) -> tuple[str, ...]:
        """The compute capabilities that it says it serves; empty where it does not say, which is all from 7.5 on."""
        stated = getattr(self.module, "ComputeCapability", None)
        names = [name for name in dir(stated) if name.startswith("SM")] if self.is_ahead_of_time else []
        numbers = sorted(int(name[2:]) for name in names)
        return tuple(f"{number // 10}.{number % 10}" for number in numbers)

    @property
    def is_ahead_of_time(self) -> bool:
        """Whether it builds plans for GPUs that are not there."""
        return self.name == "tensorrt-rtx"

    def refuse_gpu(self, capability: str) -> str:
        """Return why it does not serve a GPU of a compute capability; empty where it does."""
        if self.capabilities and capability not in self.capabilities:
            return f"{self.name} serves compute capability {', '.join(self.capabilities)}, not {capability}"
        return ""

    def load(self, plan: bytes) -> Any:
        """Return a plan as the library's engine, on the present GPU.

        Raises:
            EngineError: the library refuses it; a `GpuFault` where the GPU failed, or lacks memory.
        """
        if self._runtime is None:  # lives as long as its engines
            self._runtime = self.module.Runtime(self.logger)
        if hasattr(self._runtime, "get_engine_validity"):
            validity, reasons = self._runtime.get_engine_validity(plan)
            if validity == self.module.EngineValidity.INVALID:
                raise self.refusal("a plan that loads here", REBUILT, self._reasons(reasons))
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise self.refusal("a plan that loads here", REBUILT)
        return engine

    def new_context(self, engine: Any) -> Any:
        """Return an execution context whose memory is the caller's to give.

        Raises:
            EngineError: the library refuses it; a `GpuFault` where the GPU failed, or lacks memory.
        """
        strategy = self.module.ExecutionContextAllocationStrategy.USER_MANAGED
        if self.is_ahead_of_time:
            settings = engine.create_runtime_config()
            settings.set_execution_context_allocation_strategy(strategy)
            # Kernels for the very shape, compiled before the first picture and not while a graph is captured.
            eager = self.module.DynamicShapesKernelSpecializationStrategy.EAGER
            settings.dynamic_shapes_kernel_specialization_strategy = eager
            context = engine.create_execution_context(settings)
        else:
            context = engine.create_execution_context(strategy)
        if context is None:
            raise self.refusal("a plan that runs here", REBUILT)
        return context

    def refusal(self, expected: str, otherwise: str, said: str = "") -> EngineError:
        """Return the error for what the library refused just now: a `GpuFault` where the GPU failed or lacks memory.

        Args:
            expected: what it was asked for.
            otherwise: what to do where the GPU is whole.
            said: why, where it gave a reason; else its last error is taken.
        """
        from streamsr.runtimes.tensorrt_faults import refusal

        last = self.logger.take_error()
        return refusal(self.name, expected, said or last, otherwise)

    def _reasons(self, flags: int) -> str:
        """Return why a plan is not valid here, in the library's words."""
        stated = self.module.EngineInvalidityDiagnostics.__members__
        return ", ".join(name.replace("_", " ") for name, flag in stated.items() if int(flags) & int(flag))


def is_installed() -> bool:
    """Whether there is anything to probe; imports nothing."""
    return any(find_spec(module) is not None for module in MODULES.values())


def find_library(name: str | None = None) -> Library:
    """Return the library that is installed and works, full TensorRT before TensorRT-RTX.

    Args:
        name: a key of `MODULES` to take that one alone.

    Raises:
        EngineError: there is none; says what is missing.
    """
    probes = [probe(key) for key in MODULES if name in (None, key)]
    for found in probes:
        if found.version:
            return Library(found.name, importlib.import_module(MODULES[found.name]))
    faults = "; ".join(f"{found.name}: {found.fault}" for found in probes)
    raise EngineError(
        f"tensorrt: expected TensorRT or TensorRT-RTX to be installed, got {faults}; pip install "
        "'streamsr[tensorrt-rtx]' (GeForce and RTX) or 'streamsr[tensorrt]' (all), or use --runtime cuda"
    )


@cache
def probe(name: str) -> Probe:
    """Look whether a library works, in a child process: one with missing parts may raise anything, or crash.

    Args:
        name: a key of `MODULES`.
    """
    module = MODULES[name]
    if find_spec(module) is None:
        return Probe(name, "", "not installed")
    code = f"import {module} as library; library.Builder; print(library.__version__)"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=PROBE_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Probe(name, "", f"did not import within {PROBE_LIMIT_S:g} s")
    if done.returncode == 0 and done.stdout.strip():
        return Probe(name, done.stdout.split()[-1], "")
    said = [line for line in done.stderr.splitlines() if line.strip()]
    how = f"crashed with signal {-done.returncode}" if done.returncode < 0 else "cannot be imported"
    return Probe(name, "", f"{how}: {said[-1].strip()[:160]}" if said else how)


@cache
def logger_of(module: Any) -> Any:
    """Return the one logger of a library: its lines go to our log, and the last error is kept for `take_error`.

    A library keeps the first logger that it is given for the whole program and tells later ones nothing.
    """
    severity = module.ILogger.Severity

    class Logger(module.ILogger):  # type: ignore[misc]
        """Keeps the last error, which the library's calls do not return."""

        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.last_error = ""

        def log(self, level: Any, message: str) -> None:
            """Take one line of the library."""
            line = " ".join(message.split())[:300]
            if level in (severity.ERROR, severity.INTERNAL_ERROR):
                self.last_error = line
            log.log(logging.DEBUG, "%s", line)

        def take_error(self) -> str:
            """Return the last error and forget it, so that it does not explain what fails later."""
            said, self.last_error = self.last_error, ""
            return said

    return Logger()
