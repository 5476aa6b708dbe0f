"""ONNX Runtime without its telemetry: ``from streamsr.runtimes.untold_onnxruntime import onnxruntime``.

By its release notes, from 1.29 on its wheels for Linux report every session (names of files and graphs, hashes of
weights) to their makers unless this variable is set before they are loaded. Nothing that streamsr starts tells anybody
what it works on.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

__all__ = ["onnxruntime"]
