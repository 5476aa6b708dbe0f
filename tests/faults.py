"""Faults for a job's stages, each at one place and one moment, and what a job leaves behind."""

from __future__ import annotations

import errno
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from streamsr.capture.base import Source, TrackPacket
from streamsr.errors import EngineError, InputError, OutputError
from streamsr.frame import Frame
from streamsr.sinks import RecordingSink
from streamsr.sinks.containers import MovieFile
from streamsr.sinks.drafts import Draft

SHARED_MEMORY = Path("/dev/shm")

STALL_S = 0.2
SLOW_S = 0.004

RAISED: dict[str, Callable[[], BaseException]] = {
    "exception": lambda: RuntimeError("broke on purpose"),
    "refusal": lambda: EngineError("refused on purpose"),
    "input": lambda: InputError("unreadable on purpose"),
    "output": lambda: OutputError(errno.EIO, "not written on purpose"),
    "full disk": lambda: OSError(errno.ENOSPC, "No space left on device"),
    "out of memory": lambda: MemoryError("no memory on purpose"),
    "lookup": lambda: KeyError("missing on purpose"),
    "recursion": lambda: RecursionError("too deep on purpose"),
}
"""Kind of fault -> what is raised."""

WAITS = {"stall": STALL_S, "slow": SLOW_S}
"""Kind of fault -> seconds lost, once or at every item; the job must still be whole."""


@dataclass
class Fault:
    """What goes wrong, and when.

    Attributes:
        kind: a key of `RAISED` or `WAITS`, or ``shape`` or ``nan``.
        at: the call of its place, from 0, at which it happens.
        struck: whether it happened.
    """

    kind: str
    at: int
    calls: int = 0
    struck: bool = False
    raised: BaseException | None = None

    def strikes(self) -> bool:
        """Count a call; wait or raise where it is time; return whether the caller is to spoil its result."""
        number, self.calls = self.calls, self.calls + 1
        if self.kind == "slow":
            time.sleep(SLOW_S)
        if number != self.at:
            return False
        self.struck = True
        if self.kind == "stall":
            time.sleep(STALL_S)
        if self.kind in RAISED:
            self.raised = RAISED[self.kind]()
            raise self.raised
        return self.kind not in WAITS


class FaultySource:
    """A source that fails at a frame, or whose frame then has another size than before, or that fails when closed."""

    def __init__(self, source: Source, fault: Fault, place: str) -> None:
        self._source, self._fault, self._place = source, fault, place

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def __enter__(self) -> FaultySource:
        self._source.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._source.__exit__(kind, error, trace)
        if self._place == "source close":
            self._fault.strikes()

    def __iter__(self) -> Iterator[Frame | TrackPacket]:
        for item in self._source:
            if self._place == "source" and isinstance(item, Frame) and self._fault.strikes():
                item = item.with_planes((item.planes[0][:-2], *item.planes[1:]))
            yield item


class FaultyGenerator:
    """A generator that fails at a call, gives numbers that are none, or a picture of another shape."""

    def __init__(self, generator: Any, fault: Fault, *, channels: int = 1) -> None:
        self._generator, self._fault, self.channels = generator, fault, channels

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generator, name)

    def generate(self, pictures: Any, out: Any = None) -> Any:
        spoil = self._fault.strikes()
        if spoil and self._fault.kind == "shape":
            pictures = pictures[..., :-1]
        made = self._generator.generate(pictures, out)
        if spoil and self._fault.kind == "nan":
            made[..., 1, 1] = np.nan
        return made


def faulty_sink(fault: Fault, place: str) -> type[RecordingSink]:
    """Return a recording sink that fails when it opens (``sink open``), at ``show`` or at ``pass through``."""

    class FaultySink(RecordingSink):
        def __enter__(self) -> RecordingSink:
            if place == "sink open":
                fault.strikes()
            return super().__enter__()

        def show(self, frame: Frame) -> None:
            if place == "show" and fault.strikes():
                frame = replace(frame, planes=(frame.planes[0][:-2], *frame.planes[1:]))
            super().show(frame)

        def pass_through(self, track: int, packet: Any) -> None:
            if place == "pass through":
                fault.strikes()
            super().pass_through(track, packet)

    return FaultySink


def faulty_movie(fault: Fault) -> type[MovieFile]:
    """Return a file whose encoder fails when it is to give what it still holds."""

    class Drained:
        def __init__(self, video: Any) -> None:
            self._video = video

        def encode(self, picture: Any) -> Any:
            fault.strikes()
            return self._video.encode(picture)

    class FaultyMovie(MovieFile):
        def finish(self, *, drain: bool = True) -> None:
            self.video = Drained(self.video)
            super().finish(drain=drain)

    return FaultyMovie


def faulty_draft(fault: Fault) -> type[Draft]:
    """Return a draft that fails when it is to get its name."""

    class FaultyDraft(Draft):
        def publish(self) -> Path:
            fault.strikes()
            return super().publish()

    return FaultyDraft


@dataclass(frozen=True)
class Held:
    """What a process holds of its system: open descriptors, shared memory, children and Python's threads."""

    descriptors: tuple[str, ...]
    shared_memory: tuple[str, ...]
    children: tuple[str, ...]
    threads: tuple[str, ...]

    @classmethod
    def now(cls) -> Held:
        """Return what is held now, rubbish collected."""
        gc.collect()
        names = []
        for link in Path("/proc/self/fd").iterdir():
            with suppress(OSError):  # the one that lists
                names.append(str(link.readlink()))
        shared = [path.name for path in SHARED_MEMORY.iterdir()] if SHARED_MEMORY.is_dir() else []
        tasks = Path(f"/proc/self/task/{os.getpid()}/children")
        children = tasks.read_text().split() if tasks.is_file() else []
        threads = sorted(thread.name for thread in threading.enumerate())
        return cls(tuple(sorted(names)), tuple(sorted(shared)), tuple(children), tuple(threads))
