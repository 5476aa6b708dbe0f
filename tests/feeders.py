"""Feeds to break: numbered pictures served on loopback at their own pace, and a listener that remembers."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np

from streamsr.capture.feeds import ProcessFeed
from streamsr.capture.framecode import read_frame_code
from streamsr.capture.listening import FeedEvent, FeedState
from streamsr.frame import Frame
from tests.videos import colourless, draw_picture

RATE = 25
LONG_S = 30.0
"""A bound against hanging, never a measure: a loaded machine takes seconds to start a process."""


FLUSHED = {"flush_packets": "1"}
OPTIONS = {"matroska": {**FLUSHED, "live": "1", "cluster_time_limit": "0"}}


class Memory:
    """A `FeedListener` that remembers what came."""

    def __init__(self, receive: Callable[[Frame], None] | None = None) -> None:
        self.frames: list[Frame] = []
        self.events: list[FeedEvent] = []
        self.error: BaseException | None = None
        self._changed = threading.Condition()
        self._receive = receive

    def receive(self, frame: Frame) -> None:
        if self._receive is not None:
            self._receive(frame)
        with self._changed:
            self.frames.append(frame)
            self._changed.notify_all()

    def tell(self, event: FeedEvent) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        with self._changed:
            self.error = error
            self._changed.notify_all()

    def wait(self, condition: Callable[[], Any]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: condition() or self.error, LONG_S)
            assert condition(), f"in vain; {len(self.frames)} frames, {self.told}, {self.error!r}"

    def wait_frames(self, num: int) -> None:
        """Wait for so many more frames."""
        wanted = len(self.frames) + num
        self.wait(lambda: len(self.frames) >= wanted)

    def wait_state(self, state: FeedState, times: int = 1) -> FeedEvent:
        self.wait(lambda: self.states.count(state) >= times)
        return [event for event in self.events if event.state is state][times - 1]

    @property
    def states(self) -> list[FeedState]:
        return [event.state for event in self.events]

    @property
    def told(self) -> list[str]:
        return [f"{event.state.value}: {event.text}" for event in self.events]

    @property
    def numbers(self) -> list[int]:
        return [read_frame_code(frame.planes[0]) for frame in self.frames]


@contextmanager
def running(feed: ProcessFeed, memory: Memory) -> Iterator[threading.Thread]:
    """Run a feed in a thread; stop it and wait for the thread's end afterwards."""

    def run() -> None:
        try:
            feed.run(memory)
        except BaseException as error:
            memory.fail(error)

    thread = threading.Thread(target=run, name="streamsr-feed")
    thread.start()
    try:
        yield thread
    finally:
        feed.stop()
        thread.join(LONG_S)
        assert not thread.is_alive()


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that ended and was not asked for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], Any]) -> None:
    until_s = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < until_s, "in vain"
        time.sleep(0.02)


@lru_cache(maxsize=16)
def chunks_of(
    container_format: str = "mpegts",
    codec: str = "libx264",
    *,
    num: int = 200,
    size: tuple[int, int] = (64, 48),
    pix_fmt: str = "yuv420p",
    options: tuple[tuple[str, str], ...] = (("g", "5"), ("preset", "ultrafast"), ("tune", "zerolatency"), ("qp", "20")),
) -> tuple[bytes, ...]:
    """Encode numbered pictures; return the bytes that each adds to the container, the header with the first."""
    writer = _Chunks()
    with av.open(
        writer, "w", format=container_format, container_options=OPTIONS.get(container_format, FLUSHED)
    ) as container:
        video: Any = container.add_stream(codec, rate=RATE, options=dict(options))
        video.width, video.height, video.pix_fmt = *size, pix_fmt
        chunks = []
        for number in range(num):
            picture = colourless(draw_picture(number, width=size[0], height=size[1]), pix_fmt)
            picture.pts = number
            for packet in video.encode(picture):
                container.mux(packet)
            chunks.append(writer.take())
    chunks[-1] += writer.take()
    return tuple(chunks)


class _Chunks:
    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: bytes) -> int:
        self._data += data
        return len(data)

    def take(self) -> bytes:
        data = bytes(self._data)
        self._data.clear()
        return data


class Server:
    """Serves chunks at 25 a second to whoever connects, each connection from the chunk that is due; over HTTP or bare.

    Args:
        chunks: what is served, over and over.
        every: connections begin at a multiple of this; None begins each with the first chunk.
        http: whether a header of HTTP/1.0 goes first.
        port: to listen on; 0 takes a free one.
        answers: whether anything is served at all.
        status: of HTTP.
    """

    def __init__(
        self,
        chunks: tuple[bytes, ...],
        *,
        every: int | None = 5,
        http: bool = True,
        port: int = 0,
        answers: bool = True,
        status: str = "200 OK",
    ) -> None:
        self.chunks, self.every, self.http, self.answers, self.status = chunks, every, http, answers, status
        self._listening = socket.create_server(("127.0.0.1", port), reuse_port=False)
        self._listening.settimeout(0.05)
        self.port: int = self._listening.getsockname()[1]
        self._started_s = time.monotonic()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._accept, name="test-server")]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"{'http' if self.http else 'tcp'}://127.0.0.1:{self.port}/live"

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """Close every connection and the port."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(LONG_S)
        self._listening.close()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                connection, _ = self._listening.accept()
                thread = threading.Thread(target=self._serve, args=(connection,), name="test-connection")
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            if not self.answers:
                self._stopping.wait(LONG_S)
                return
            if self.http:
                connection.recv(4096)
                connection.sendall(f"HTTP/1.0 {self.status}\r\nContent-Type: video/mp2t\r\n\r\n".encode())
            started_s, number = time.monotonic(), 0
            if self.every is not None:
                number = -(-round((started_s - self._started_s) * RATE) // self.every) * self.every
                started_s = self._started_s
            while not self._stopping.wait(max(0.0, started_s + number / RATE - time.monotonic())):
                connection.sendall(self.chunks[number % len(self.chunks)])
                number += 1


def push(url: str, container_format: str, ending: threading.Event, options: dict[str, str]) -> None:
    """Send numbered pictures to whoever listens at a URL, at 25 a second, until told to end; connect until it works."""
    while not ending.wait(0.1):
        with suppress(av.error.FFmpegError), av.open(url, "w", format=container_format, options=options) as container:
            video: Any = container.add_stream("libx264", rate=RATE, options={"tune": "zerolatency", "g": "10"})
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            number, started_s = 0, time.monotonic()
            while not ending.wait(max(0.0, started_s + number / RATE - time.monotonic())):
                picture = colourless(draw_picture(number), "yuv420p")
                picture.pts = number
                container.mux(video.encode(picture))
                number += 1


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """Return a port of the loopback address that nobody uses."""
    with socket.socket(socket.AF_INET, kind) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def standard_input() -> Iterator[int]:
    """Put a pipe in place of standard input; give its writing end."""
    reading, writing = os.pipe()
    saved = os.dup(0)
    os.dup2(reading, 0)
    os.close(reading)
    try:
        yield writing
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        with suppress(OSError):
            os.close(writing)


def packet_hashes(path: Path, kind: str) -> list[int]:
    """Return the hashes of a file's packets of one kind, in order."""
    with av.open(str(path)) as container:
        tracks = [track for track in container.streams if track.type == kind]
        return [hash(bytes(packet)) for packet in container.demux(tracks) if packet.size]


def gray(picture: Any) -> np.ndarray[Any, Any]:
    """Return the luma of a decoded picture."""
    return picture.reformat(format="gray", threads=1).to_ndarray()
