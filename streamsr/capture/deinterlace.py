"""Deinterlace with bwdif, one frame out for each frame in."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

import av
from av.filter import Graph
from av.video.frame import VideoFrame

Token = TypeVar("Token")

SMALLEST_PX = (3, 4)
"""Width and height below which bwdif refuses a picture."""


class Deinterlacer(Generic[Token]):
    """A bwdif filter graph that carries a token beside each picture.

    bwdif needs the next picture to finish one, so each comes out one call later, the last by `flush`. Its own times are
    not used: it doubles the time base, while the token's times are the source's. A progressive picture between
    interlaced ones passes unchanged unless ``everything`` is set. A change of size or format starts a new graph.

    Args:
        everything: treat every picture as interlaced, whatever its flag says.
    """

    def __init__(self, *, everything: bool = False) -> None:
        self._which = "all" if everything else "interlaced"
        self._graph: Graph | None = None
        self._shape: tuple[int, int, str] | None = None
        self._tokens: deque[Token] = deque()

    def push(self, frame: VideoFrame, token: Token) -> Iterator[tuple[VideoFrame, Token]]:
        """Take the next picture; give out those that are ready.

        Args:
            frame: planar 4:2:0, 4:2:2, 4:4:4, 4:4:0 or gray.
            token: given back with the same picture.
        """
        shape = (frame.width, frame.height, frame.format.name)
        if shape != self._shape:
            yield from self.flush()
        if frame.width < SMALLEST_PX[0] or frame.height < SMALLEST_PX[1]:
            yield frame, token
            return
        if self._graph is None:
            self._graph, self._shape = self._build(frame), shape
        self._tokens.append(token)
        self._graph.push(frame)
        yield from self._pull(self._graph)

    def flush(self) -> Iterator[tuple[VideoFrame, Token]]:
        """Give out what is still inside; the next `push` starts afresh."""
        graph, self._graph, self._shape = self._graph, None, None
        if graph is not None:
            graph.push(None)
            yield from self._pull(graph)

    def _build(self, frame: VideoFrame) -> Graph:
        graph = Graph()
        door = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
        bwdif = graph.add("bwdif", f"mode=send_frame:parity=auto:deint={self._which}")
        exit_ = graph.add("buffersink")
        door.link_to(bwdif)
        bwdif.link_to(exit_)
        graph.configure()
        return graph

    def _pull(self, graph: Graph) -> Iterator[tuple[VideoFrame, Token]]:
        while True:
            try:
                frame = graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            if isinstance(frame, VideoFrame):
                yield frame, self._tokens.popleft()
