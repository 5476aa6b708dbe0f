"""Pinned host memory that outlives a GPU's failure: pages of our own, registered with the driver.

Torch's allocator of pinned memory asks the GPU, when a block is given back, for an event on every CUDA stream that used
it. Behind an error that stays, after which every call fails, that ends the program from inside a destructor. Nothing
here speaks to the GPU when memory is let go of but to undo the registration, whose failure is of no consequence. The
driver is asked and not the CUDA runtime, which would keep a refusal and hand it to the next kernel as its error.
"""

from __future__ import annotations

import ctypes
import logging
import math
import mmap
import weakref
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamsr.runtimes.fused_compile import driver_library

log = logging.getLogger(__name__)

PORTABLE = 1
"""``CU_MEMHOSTREGISTER_PORTABLE`` of cuda.h: pinned for every GPU."""


class Pages:
    """Whole pages of memory of their own.

    Args:
        num_bytes: at least so many.
        pins: whether they are registered, so that copies to and from a GPU are asynchronous.

    Attributes:
        store: the memory.
        is_pinned: whether they are registered.
    """

    def __init__(self, num_bytes: int, *, pins: bool) -> None:
        private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
        self.store = mmap.mmap(-1, max(num_bytes, 1), **private)
        self.address = int(np.frombuffer(self.store, np.uint8).ctypes.data)
        self.is_pinned = False
        if pins:
            self._context = present_context()
            code = driver_library().cuMemHostRegister_v2(
                ctypes.c_void_p(self.address), ctypes.c_size_t(len(self.store)), PORTABLE
            )
            self.is_pinned = code == 0
            if not self.is_pinned:
                log.warning("%d bytes of host memory cannot be pinned (error %d): copies are slower", num_bytes, code)

    def __del__(self) -> None:
        if getattr(self, "is_pinned", False):
            with suppress(Exception):  # the program is ending, or the GPU failed: there is nothing to undo
                self._undo()

    def _undo(self) -> None:
        """Undo the registration, in a thread that may have no CUDA context of its own."""
        driver, before = driver_library(), ctypes.c_void_p()
        if driver.cuCtxPushCurrent_v2(self._context) == 0:
            driver.cuMemHostUnregister(ctypes.c_void_p(self.address))
            driver.cuCtxPopCurrent_v2(ctypes.byref(before))


def present_context() -> ctypes.c_void_p:
    """Return this thread's CUDA context: torch's, which the CUDA runtime makes present when it is first called."""
    torch.cuda.current_stream().synchronize()
    context = ctypes.c_void_p()
    driver_library().cuCtxGetCurrent(ctypes.byref(context))
    return context


class PinnedPool:
    """Buffers of one size, each given out again when nobody holds any part of it any more.

    A buffer must not be in use by a GPU when it is let go of. May be let go of in any thread.

    Args:
        num_samples: of a buffer.
        dtype: of a sample.
        pins: False where there is no GPU.
    """

    def __init__(self, num_samples: int, dtype: torch.dtype, *, pins: bool) -> None:
        self.num_samples, self.dtype, self.pins = num_samples, dtype, pins
        self._free = Returned()

    @property
    def num_free(self) -> int:
        """Buffers that nobody holds."""
        return len(self._free)

    def take(self) -> Tensor:
        """Return a buffer, (num_samples,), of any content."""
        try:
            pages = self._free.pop()
        except IndexError:
            pages = Pages(self.num_samples * self.dtype.itemsize, pins=self.pins)
        return lent(pages, self._free)[: self.num_samples * self.dtype.itemsize].view(self.dtype)


class Returned(list[Pages]):
    """Pages that were given back; a list that can be held weakly."""


def pinned_empty(shape: Sequence[int], dtype: torch.dtype, *, pins: bool) -> Tensor:
    """Return a tensor of zeros in memory of its own.

    Args:
        shape: of it.
        dtype: of an element.
        pins: False where there is no GPU.
    """
    num_bytes = math.prod(shape) * dtype.itemsize
    return lent(Pages(num_bytes, pins=pins), None)[:num_bytes].view(dtype).view(*shape)


def lent(pages: Pages, home: Returned | None) -> Tensor:
    """Return pages as bytes; they go back home, where that is still there, once nobody holds a part of these bytes."""
    lease: NDArray[np.uint8] = np.frombuffer(pages.store, np.uint8)
    place = None if home is None else weakref.ref(home)
    weakref.finalize(lease, give_back, pages, place).atexit = False
    return torch.from_numpy(lease)


def give_back(pages: Pages, place: weakref.ref[Returned] | None) -> None:
    """Put pages back where they came from; without such a place they are gone."""
    home = None if place is None else place()
    if home is not None:
        home.append(pages)
