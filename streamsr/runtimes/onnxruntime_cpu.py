"""ONNX Runtime as a runtime: for comparison, and where OpenVINO is not to be had."""

from __future__ import annotations

import numpy as np

from streamsr.config import usable_cores
from streamsr.engine import Engine
from streamsr.errors import EngineError
from streamsr.runtimes.base import Pictures
from streamsr.runtimes.untold_onnxruntime import onnxruntime


class ONNXRuntimeGenerator:
    """A student run by ONNX Runtime's CPU provider, shapes dynamic.

    Args:
        engine: which student.
        precision: ``fp32`` or ``int8``.
        threads: CPU threads; None takes every core this program may use.

    Raises:
        EngineError: the engine is no student, or the precision is another.
    """

    runtime = "onnxruntime"
    channels = 1

    def __init__(self, engine: Engine, *, precision: str = "fp32", threads: int | None = None) -> None:
        if engine.architecture != "student" or precision not in ("fp32", "int8"):
            raise EngineError(
                f"{engine.name}: onnxruntime runs students in fp32 or int8, got {engine.architecture} in {precision}; "
                "use --runtime openvino"
            )
        self.engine, self.precision = engine, precision
        self.scale, self.radius_px = engine.scale, engine.radius_px
        self.threads = threads or usable_cores()
        self.description = f"ONNX Runtime {onnxruntime.__version__} {precision}, CPU, {self.threads} threads"
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}

    def generate(self, pictures: Pictures, out: Pictures | None = None) -> Pictures:
        """Enlarge pictures; see `streamsr.runtimes.base.Generator.generate`."""
        session = self._session(pictures.dtype.str)
        try:
            result: Pictures = session.run(None, {"lr": pictures})[0]
            if out is None:
                return result
            np.copyto(out, result)
        except Exception as cause:  # its errors share no class but this
            raise self._refusal(cause) from cause
        return out

    def _session(self, dtype: str) -> onnxruntime.InferenceSession:
        if dtype not in self._sessions:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self.threads
            options.log_severity_level = 3
            model = self._model(dtype)
            try:
                session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            except Exception as cause:
                raise self._refusal(cause) from cause
            self._sessions[dtype] = session
        return self._sessions[dtype]

    def _refusal(self, cause: Exception) -> EngineError:
        line = " ".join(str(cause).split())[:200]
        return EngineError(f"{self.engine.name}: expected a network ONNX Runtime runs, got {line}")

    def _model(self, dtype: str) -> bytes:
        eight_bit = np.dtype(dtype) == np.uint8
        if self.precision == "int8" and eight_bit:
            return self.engine.read_file("int8")
        from streamsr.runtimes.onnx_graph import float_student

        return float_student(self.engine.weights(), scale=self.scale, eight_bit=eight_bit)
