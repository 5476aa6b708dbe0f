"""The Triton kernels without a GPU: their tests once more, in a program of its own with Triton's interpreter."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from streamsr.runtimes import gpu_ops

ROOT = Path(__file__).resolve().parents[1]
LEAST_PASSED = 110
FILES = ("test_cuda.py", "test_distance_ops.py", "test_patch_ops.py", "test_plane_ops.py")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton")
@pytest.mark.skipif(gpu_ops.interpreted(), reason="runs in the interpreter already")
def test_kernels_give_what_torch_gives_in_the_interpreter() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "pytest", "-m", "kernels", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *(f"tests/{name}" for name in FILES)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    summary = re.search(r"(\d+) passed", done.stdout)
    assert summary is not None, done.stdout[-3000:]
    assert int(summary[1]) >= LEAST_PASSED, "kernels must not be skipped in the interpreter"
