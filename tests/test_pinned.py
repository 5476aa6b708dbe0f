"""Pinned memory: given out again once nobody holds it, registered and let go of without a word to a failed GPU."""

from __future__ import annotations

import gc
import logging
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from streamsr.runtimes import pinned
from streamsr.runtimes.pinned import PinnedPool, pinned_empty


class Driver:
    """The CUDA driver's registration of host memory."""

    CONTEXT = 77

    def __init__(self) -> None:
        self.answer = 0
        self.registered: dict[int, int] = {}
        self.fails_to_undo = False
        self.present: list[int] = []

    def cuCtxGetCurrent(self, context: Any) -> int:  # noqa: N802
        context._obj.value = self.CONTEXT
        return 0

    def cuCtxPushCurrent_v2(self, context: Any) -> int:  # noqa: N802
        self.present.append(context.value)
        return 0

    def cuCtxPopCurrent_v2(self, context: Any) -> int:  # noqa: N802
        context._obj.value = self.present.pop()
        return 0

    def cuMemHostRegister_v2(self, address: Any, num_bytes: Any, flags: int) -> int:  # noqa: N802
        assert address.value % 4096 == 0, "pages that two registrations share cannot be registered twice"
        if self.answer == 0:
            self.registered[address.value] = num_bytes.value
        return self.answer

    def cuMemHostUnregister(self, address: Any) -> int:  # noqa: N802
        if self.fails_to_undo:
            return 719
        assert self.present == [self.CONTEXT], "a thread of the sink has no context of its own"
        del self.registered[address.value]
        return 0


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    found = Driver()
    monkeypatch.setattr(pinned, "driver_library", lambda: found)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(synchronize=lambda: None))
    return found


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.float32, torch.float64])
def test_memory_is_zeros_of_the_shape_that_can_be_written(dtype: torch.dtype) -> None:
    made = pinned_empty((3, 5), dtype, pins=False)
    assert (made.shape, made.dtype, int(made.count_nonzero())) == ((3, 5), dtype, 0)
    made[2, 4] = 7
    assert made.numpy()[2, 4] == 7


def test_a_buffer_comes_again_only_when_no_part_of_it_is_held() -> None:
    pool = PinnedPool(100, torch.int16, pins=False)
    buffer = pool.take()
    part = buffer[10:40].view(3, 10).numpy().view(np.uint16)[1:]
    part[...] = 9
    del buffer
    assert pool.num_free == 0
    other = pool.take()
    other.fill_(1)
    assert (part == 9).all()
    address = part.ctypes.data
    del part
    assert pool.num_free == 1
    again = pool.take()
    assert again[20:].numpy().ctypes.data == address
    assert again.data_ptr() != other.data_ptr()


def test_buffers_come_back_from_any_thread_and_after_the_pool_is_gone() -> None:
    pool = PinnedPool(8, torch.uint8, pins=False)
    held = [pool.take() for _ in range(20)]

    def let_go() -> None:
        while held:
            held.pop()

    threads = [threading.Thread(target=let_go) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    assert pool.num_free == 20
    last = pool.take()
    del pool
    last.fill_(3)
    assert last.tolist() == [3] * 8


def test_pages_are_registered_once_and_undone_when_all_are_gone(driver: Driver) -> None:
    pool = PinnedPool(5000, torch.uint8, pins=True)
    buffer = pool.take()
    assert list(driver.registered.values()) == [5000]
    del buffer
    buffer = pool.take()
    assert len(driver.registered) == 1
    del pool
    assert len(driver.registered) == 1
    del buffer
    assert not driver.registered


def test_a_failed_gpu_is_no_matter_when_memory_is_let_go_of(driver: Driver) -> None:
    buffer = pinned_empty((10,), torch.uint8, pins=True)
    driver.fails_to_undo = True
    del buffer
    gc.collect()


def test_memory_that_cannot_be_pinned_is_said_and_used_all_the_same(
    driver: Driver, caplog: pytest.LogCaptureFixture
) -> None:
    driver.answer = 2
    with caplog.at_level(logging.WARNING):
        buffer = pinned_empty((10,), torch.uint8, pins=True)
    assert "cannot be pinned" in caplog.text
    assert buffer.tolist() == [0] * 10


@pytest.mark.needs_cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_copies_from_and_to_a_gpu_are_asynchronous() -> None:
    size: Any = (64 << 20,)
    host, there = pinned_empty(size, torch.uint8, pins=True), torch.empty(size, dtype=torch.uint8, device="cuda")
    assert host.is_pinned()
    stream = torch.cuda.Stream()
    done = torch.cuda.Event()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)
        there.copy_(host, non_blocking=True)
        done.record()
    assert not done.query(), "the host must not have waited"
    stream.synchronize()
