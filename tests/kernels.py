"""Which tests of Triton kernels can run here."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from streamsr.runtimes import gpu_ops

runs_triton = pytest.mark.skipif(
    not (find_spec("triton") and (torch.cuda.is_available() or gpu_ops.interpreted())),
    reason="needs Triton with a GPU, or with TRITON_INTERPRET=1",
)
