"""The pipe between the process that reads a source and the one that shows it: heads in JSON, planes as they lie.

A message is a mark, the lengths of its head and of its samples, the head, the samples. Nothing in it can be executed,
and what does not fit the form is refused before any memory is taken for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from streamsr.errors import InputError
from streamsr.frame import Plane

MARK = b"srw1"
PREFIX = struct.Struct("<4sII")
MOST_HEAD_BYTES = 1 << 16
MOST_SAMPLE_BYTES = 1 << 29
"""8192x4320 in 16 bits 4:4:4 and its row padding, twice over."""

WANT = "expected a message of the reader"


class WireError(InputError):
    """What came through the pipe is no message."""


@dataclass(frozen=True)
class Message:
    """One message.

    Attributes:
        head: what it says.
        samples: (N,) uint8, the planes one after another as ``head["planes"]`` says; empty without.
    """

    head: dict[str, Any]
    samples: NDArray[np.uint8]


def widen(descriptor: int) -> None:
    """Let a pipe hold as much as an ordinary user may ask for, 1 MiB by default, so that a small picture fits whole."""
    with contextlib.suppress(OSError, AttributeError):
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, 1 << 20)  # type: ignore[attr-defined,unused-ignore]


class Sending:
    """A message on its way into a pipe; samples are copied once, by the system.

    Args:
        head: what it says; ``planes`` is added.
        planes: (H, W) each, of one type, rows strided or not; they must stay as they are until it is complete.
    """

    def __init__(self, head: dict[str, Any], planes: Sequence[Plane] = ()) -> None:
        laid = [_lay(plane) for plane in planes]
        shapes = [[*plane.shape, row_bytes] for plane, (_, row_bytes) in zip(planes, laid, strict=True)]
        text = json.dumps({**head, "planes": shapes} if shapes else head, separators=(",", ":")).encode()
        prefix = PREFIX.pack(MARK, len(text), sum(view.nbytes for view, _ in laid))
        self._parts = [memoryview(prefix + text), *(view for view, _ in laid)]

    def advance(self, descriptor: int, timeout_s: float) -> bool:
        """Write what the pipe takes in a time; return whether all is written.

        Args:
            descriptor: of the pipe, non-blocking.
            timeout_s: how long to wait for room.

        Raises:
            OSError: nobody reads any more.
        """
        until_s = time.monotonic() + timeout_s
        while self._parts:
            try:
                self._advance(os.writev(descriptor, self._parts))
            except BlockingIOError:
                left_s = until_s - time.monotonic()
                if left_s <= 0:
                    return False
                room = select.poll()
                room.register(descriptor, select.POLLOUT)
                room.poll(max(1, round(left_s * 1000)))
        return True

    def _advance(self, num_bytes: int) -> None:
        while self._parts and num_bytes >= self._parts[0].nbytes:
            num_bytes -= self._parts.pop(0).nbytes
        if num_bytes:
            self._parts[0] = self._parts[0][num_bytes:]


def unpack_planes(message: Message, dtype: type[np.uint8] | type[np.uint16]) -> tuple[Plane, ...]:
    """View the planes of a message.

    Args:
        message: as it came.
        dtype: of its samples.

    Returns:
        (H, W) each; views that keep the message's samples alive.

    Raises:
        WireError: the shapes do not fit the samples.
    """
    planes, start, width_bytes = [], 0, np.dtype(dtype).itemsize
    for shape in message.head.get("planes", []):
        if not (isinstance(shape, list) and len(shape) == 3 and all(type(side) is int and side > 0 for side in shape)):
            raise WireError(f"{WANT}, got a plane of {shape!r}; open the source again")
        height, width, row_bytes = shape
        end = start + row_bytes * (height - 1) + width * width_bytes
        if (
            row_bytes < width * width_bytes
            or end > message.samples.size
            or start % width_bytes
            or row_bytes % width_bytes
        ):
            raise WireError(f"{WANT}, got a plane of {shape} in {message.samples.size} bytes; open the source again")
        plane: Plane = np.ndarray((height, width), dtype, message.samples.data, start, (row_bytes, width_bytes))
        planes.append(plane)
        start = end
    if start != message.samples.size:
        raise WireError(f"{WANT}, got {message.samples.size - start} bytes too many; open the source again")
    return tuple(planes)


class WireReader:
    """Reads messages with bounded waits. Owned by one thread.

    Args:
        descriptor: of the pipe; made non-blocking.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        os.set_blocking(descriptor, False)
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._begin()

    def read(self, timeout_s: float) -> Message | None:
        """Read a message; None where none was complete in time, and what came of it is kept for the next call.

        Raises:
            EOFError: the other end is closed.
            WireError: what came is no message.
        """
        until_s = time.monotonic() + timeout_s
        while True:
            message = self._advance()
            if message is not None:
                return message
            left_s = until_s - time.monotonic()
            if left_s <= 0 or not self._poll.poll(max(1, round(left_s * 1000))):
                return None

    def _begin(self) -> None:
        self._lengths: tuple[int, int] | None = None
        self._head: dict[str, Any] | None = None
        self._expect(PREFIX.size)

    def _expect(self, num_bytes: int) -> None:
        buffer: Any = np.empty(num_bytes, np.uint8)
        self._buffer: NDArray[np.uint8] = buffer
        self._view, self._filled = memoryview(buffer), 0

    def _advance(self) -> Message | None:
        """Read what is there; return a message once it is complete."""
        while self._filled < self._buffer.size:
            try:
                num_bytes = os.readv(self.descriptor, [self._view[self._filled :]])
            except BlockingIOError:
                return None
            if num_bytes == 0:
                raise EOFError
            self._filled += num_bytes
            if self._filled == self._buffer.size:
                message = self._step()
                if message is not None:
                    return message
        return None

    def _step(self) -> Message | None:
        """Take a complete part: prefix, then head, then samples."""
        if self._lengths is None:
            self._lengths = _lengths_of(bytes(self._buffer))
            self._expect(self._lengths[0])
            return None
        if self._head is None:
            self._head = _head_of(bytes(self._buffer))
            if self._lengths[1]:
                self._expect(self._lengths[1])
                return None
            self._expect(0)
        message = Message(self._head, self._buffer)
        self._begin()
        return message


def _lengths_of(prefix: bytes) -> tuple[int, int]:
    mark, head_bytes, sample_bytes = PREFIX.unpack(prefix)
    if mark != MARK or not 0 < head_bytes <= MOST_HEAD_BYTES or sample_bytes > MOST_SAMPLE_BYTES:
        raise WireError(f"{WANT}, got {prefix.hex()}; open the source again")
    return head_bytes, sample_bytes


def _head_of(text: bytes) -> dict[str, Any]:
    try:
        head = json.loads(text)
    except ValueError:
        head = None
    if not isinstance(head, dict):
        raise WireError(f"{WANT}, got a head that is no JSON object; open the source again")
    return head


def _lay(plane: Plane) -> tuple[memoryview, int]:
    """View a plane's bytes from its first to its last sample, padding of rows included, and return its row length."""
    if plane.strides[1] != plane.itemsize or plane.strides[0] < plane.shape[1] * plane.itemsize:
        plane = np.ascontiguousarray(plane)  # mirrored or transposed
    row_bytes = plane.strides[0] if plane.shape[0] > 1 else plane.shape[1] * plane.itemsize
    num_bytes = row_bytes * (plane.shape[0] - 1) + plane.shape[1] * plane.itemsize
    flat: Any = as_strided(plane[:1].view(np.uint8)[0], (num_bytes,), (1,), writeable=False)
    return memoryview(flat), row_bytes
