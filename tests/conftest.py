"""Fixtures every test gets."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2  # noqa: F401 (before PyAV, whose X11 libraries hang the windows of an OpenCV that is loaded after it)
import pytest

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # for tests that load ONNX Runtime by themselves

SCREENS = "STREAMSR_SCREENS"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what opens windows and browsers, unless it is asked for."""
    if os.environ.get(SCREENS):
        return
    left_out = pytest.mark.skip(reason=f"opens windows or browsers: set {SCREENS}=1")
    for item in items:
        if item.get_closest_marker("needs_browser") or item.get_closest_marker("needs_display"):
            item.add_marker(left_out)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Fail a test that leaves one of our threads alive."""
    yield
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("streamsr-")]
    assert not left, f"threads left alive: {left}"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let torch use one thread: networks as small as those of tests wait for one another on several."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB of its own."""
    folder = tmp_path / "small"
    folder.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("no mount command")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("making a small file system needs more rights")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
