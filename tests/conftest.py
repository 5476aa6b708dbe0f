"""Fixtures every test gets."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Fail a test that leaves one of our threads alive."""
    yield
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("streamsr-")]
    assert not left, f"threads left alive: {left}"
