"""OpenVINO as a runtime: the default on every CPU, in INT8 for 8-bit samples and fp32 for deeper ones."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from streamsr.config import usable_cores
from streamsr.engine import Engine
from streamsr.errors import EngineError, StreamsrError
from streamsr.runtimes.base import Pictures
from streamsr.runtimes.openvino_graph import build_student, end_in_phases
from streamsr.runtimes.untold_openvino import ov

COMPILED_SHAPES = 12
"""Compiled shapes kept; a compile takes tens of milliseconds and each holds its own activations."""

PHASE_WORDS = {2: np.uint16, 4: np.uint32}
"""By scale, the word that holds the neighbouring samples of one phase row, so that they move at once."""


@cache
def shared_core() -> Any:
    """Return the one OpenVINO core of this process.

    On processors with AMX its CPU plugin gives the thread that compiles first a stack for signals and unmaps it when
    the last core goes, in whatever thread that happens; the next interrupt would then end the process by a
    segmentation fault. So the core never goes.
    """
    return ov.Core()


@dataclass(frozen=True)
class Launch:
    """A shape made ready.

    Attributes:
        request: an OpenVINO infer request, owned by the generator's thread.
        phases: (N, H, W, scale * scale) uint8 that the request writes; None where it writes the picture itself.
    """

    request: Any
    phases: Pictures | None


def shuffle_phases(phases: Pictures, out: Pictures, scale: int) -> None:
    """Put the phases of every pixel in their places: the pixel shuffle, outside the graph.

    OpenVINO's own costs a tenth of a student at x2 and a quarter at x4, because it first turns its input from channels
    last; this is one strided copy, in which the interpreter lock is released.

    Args:
        phases: (N, H, W, scale * scale) uint8, C-contiguous.
        out: (N, 1, scale * H, scale * W) uint8, C-contiguous, written.
        scale: 2 or 4.
    """
    num, height, width, _ = phases.shape
    word = PHASE_WORDS[scale]
    rows = out.reshape(num, height, scale, width * scale).view(word)
    rows[...] = phases.view(word).transpose(0, 1, 3, 2)


class OpenVINOGenerator:
    """A network compiled by OpenVINO for this CPU, once for each shape that it is asked for.

    Shapes are compiled static; the newest `COMPILED_SHAPES` are kept. Samples come out of the caller's array without a
    copy (one that may not be written to is copied, since OpenVINO takes no other), and the interpreter lock is released
    while the network runs.

    Args:
        engine: which network.
        precision: ``fp32``, ``bf16`` or ``int8``.
        threads: CPU threads; None takes every core this program may use.

    Raises:
        EngineError: the engine has no such precision.
    """

    runtime = "openvino"

    def __init__(self, engine: Engine, *, precision: str = "int8", threads: int | None = None) -> None:
        if precision not in ("fp32", "bf16", "int8"):
            raise EngineError(f"{engine.name}: openvino runs fp32, bf16 or int8, got {precision}; use --precision auto")
        self.engine, self.precision = engine, precision
        self.scale, self.radius_px = engine.scale, engine.radius_px
        self.channels = 1 if engine.colour == "luma" else 3
        self.threads = threads or usable_cores()
        self.weights = engine.weights() if engine.architecture == "student" else {}
        self.quantised = engine.read_file("int8") if precision == "int8" else b""
        self.core = shared_core()
        self.description = f"OpenVINO {ov.__version__.split('-')[0]} {precision}, CPU, {self.threads} threads"
        self._launches: OrderedDict[tuple[Any, ...], Launch] = OrderedDict()

    def generate(self, pictures: Pictures, out: Pictures | None = None) -> Pictures:
        """Enlarge pictures; see `streamsr.runtimes.base.Generator.generate`."""
        num, channels, height, width = pictures.shape
        if out is None:
            out = np.empty((num, channels, height * self.scale, width * self.scale), pictures.dtype)
        with self._explained():
            launch = self._launch(pictures.shape, pictures.dtype)
            request, phases = launch.request, launch.phases
            request.set_input_tensor(ov.Tensor(pictures, shared_memory=bool(pictures.flags.writeable)))
            if phases is None:
                request.set_output_tensor(ov.Tensor(out, shared_memory=True))
            request.infer()
        if phases is not None:
            shuffle_phases(phases, out, self.scale)
        return out

    def _launch(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Launch:
        key = (shape, dtype.str)
        if key in self._launches:
            self._launches.move_to_end(key)
            return self._launches[key]
        self._launches[key] = self._prepared(shape, dtype)
        if len(self._launches) > COMPILED_SHAPES:
            self._launches.popitem(last=False)
        return self._launches[key]

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what OpenVINO says of a network into one of our errors; some damage it only meets as text or a list."""
        try:
            yield
        except StreamsrError:
            raise
        except (RuntimeError, ValueError, TypeError, LookupError) as cause:
            line = " ".join(str(cause).split())[:200]
            raise EngineError(f"{self.engine.name}: expected a network that OpenVINO runs, got {line}") from cause

    def _prepared(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Launch:
        model = self._model(shape, dtype)
        in_phases = dtype == np.uint8 and self.scale in PHASE_WORDS
        if in_phases:
            model = end_in_phases(model)
        request = self.core.compile_model(model, "CPU", self._properties()).create_infer_request()
        if not in_phases:
            return Launch(request, None)
        phases: Pictures = np.empty((shape[0], *shape[2:], self.scale**2), np.uint8)
        request.set_output_tensor(ov.Tensor(phases, shared_memory=True))
        return Launch(request, phases)

    def _model(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        if self.engine.architecture != "student":
            return self._converted(shape, dtype)
        if self.precision == "int8" and dtype == np.uint8:
            model = self.core.read_model(self.quantised, b"")
            model.reshape(list(shape))
            return model
        return build_student(self.weights, scale=self.scale, shape=shape, dtype=dtype.type)

    def _converted(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        import torch

        from streamsr.runtimes.torch_cpu import load_network

        if dtype != np.float32:
            raise EngineError(f"{self.engine.name}: expected float32 samples for a colour network, got {dtype}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the converter traces, which torch is giving up
            return ov.convert_model(load_network(self.engine), example_input=torch.zeros(shape), input=list(shape))

    def _properties(self) -> dict[str, Any]:
        # Without the precision hint a CPU with bf16 units would run fp32 graphs in bf16.
        return {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": self.threads,
            "INFERENCE_PRECISION_HINT": "bf16" if self.precision == "bf16" else "f32",
        }
