"""Rungs: each way to enlarge in a thread of its own, so that none can hold up the picture.

A rung is asked by `submit` and answers through a `Ticket`. Its thread builds what enlarges when it is first asked,
and anew after a failure. What hangs inside a runtime cannot be ended from outside: such a thread is abandoned, another
takes its place, and the session says at its end that one is left.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import cv2
import numpy as np

from streamsr.errors import EngineError
from streamsr.frame import Frame, Plane
from streamsr.plans import telling_builds
from streamsr.worker import Latest, Line, Stopped, Worker

log = logging.getLogger(__name__)

WARM_CALLS = 4
"""Calls that warm a rung: the first compiles and measures launch shapes, the rest tell what a frame costs."""

IDLE_S = 1.0
"""Between two looks of an idle thread at whether it was left behind."""

SANITY_CELLS = 16
"""Cells on a side in which a result is compared with its input."""

SANITY_LEVELS = 40
"""8-bit levels by which the mean of a cell may differ: projection keeps it within one, unprojected students within
about five; a network that returns NaN, zeros or noise is off by far more wherever the picture is not black."""


class Enlarger(Protocol):
    """What a rung's thread builds and calls; `fallback.make_upscaler` makes it."""

    @property
    def description(self) -> str:
        """What runs the generator, in one line."""

    def upscale(self, frame: Frame) -> Frame:
        """Enlarge one frame."""


@dataclass
class Ticket:
    """One piece of work for a rung; written by the rung's thread before ``done`` is set, read after.

    Attributes:
        frame: to be enlarged.
        calls: how often; more than one to warm the rung.
        submitted_ns: `time.monotonic_ns` when it was handed over.
        result: the enlarged frame; None where it failed.
        costs_ms: of each call.
        stages_ms: of the last call, by stage.
        error: why it failed.
        done: whether it is over.
    """

    frame: Frame
    calls: int = 1
    submitted_ns: int = field(default_factory=time.monotonic_ns)
    result: Frame | None = None
    costs_ms: list[float] = field(default_factory=list)
    stages_ms: dict[str, float] = field(default_factory=dict)
    error: str = ""
    done: bool = False


class Rung:
    """One way to enlarge, in its own thread; made, started and asked by the director.

    Args:
        name: of its engine.
        line: whose stop ends it.
        build: makes what enlarges, given the bit depth of the samples; called in the rung's thread.

    Attributes:
        description: what runs it, in one line; the name until it is built.
        enlarger: what it built; None before, and after a failure.
        num_abandoned: threads of this rung that hang and were left behind.
    """

    def __init__(self, name: str, line: Line, build: Callable[[int], Enlarger]) -> None:
        self.name, self.line, self.description = name, line, name
        self.enlarger: Enlarger | None = None
        self.num_abandoned = 0
        self.abandoned: list[Worker] = []
        self._build = build
        self._changed = line.condition()
        self._ticket: Ticket | None = None
        self._begin()

    @property
    def busy_ns(self) -> int:
        """For how long it has been at work; 0 when idle."""
        ticket = self._ticket
        return 0 if ticket is None or ticket.done else time.monotonic_ns() - ticket.submitted_ns

    @property
    def is_building(self) -> bool:
        """Whether all that it is at is being built and warmed: that takes its time and is no hanging."""
        ticket, left = self._ticket, any(not worker.join(0.0) for worker in self.abandoned)
        return ticket is not None and not ticket.done and ticket.calls > 1 and not left

    @property
    def started(self) -> bool:
        """Whether its thread was ever started."""
        return self._worker.started

    def start(self) -> None:
        """Start the thread."""
        self._worker.start()

    def submit(self, frame: Frame, *, calls: int = 1) -> Ticket | None:
        """Hand over a frame; None where the last one is not done."""
        if self._ticket is not None and not self._ticket.done:
            return None
        self._ticket = ticket = Ticket(frame, calls)
        self._jobs.put(ticket)
        return ticket

    def wait(self, ticket: Ticket, until_ns: int, interrupted: Callable[[], bool]) -> bool:
        """Wait for a ticket; return whether it is done.

        Args:
            ticket: of this rung.
            until_ns: `time.monotonic_ns` at which to give up.
            interrupted: gives up at once where it becomes true and `poke` is called.

        Raises:
            Stopped: the line stopped.
        """
        with self._changed:
            while not (ticket.done or interrupted()):
                left_s = (until_ns - time.monotonic_ns()) / 1e9
                if self.line.stopped:
                    raise Stopped
                if left_s <= 0 or not self._changed.wait(left_s):
                    break
            return ticket.done

    def poke(self) -> None:
        """Wake up `wait`, so that it looks whether it was interrupted."""
        with self._changed:
            self._changed.notify_all()

    def abandon(self) -> None:
        """Leave the thread that hangs to itself and begin with a new one; what it may still return is ignored."""
        log.warning("%s hangs: its thread is left behind", self.name)
        self.num_abandoned += 1
        self.abandoned.append(self._worker)
        self._begin()
        self._worker.start()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread; return whether it and those left behind have ended."""
        deadline = time.monotonic() + timeout_s
        return all(worker.join(max(0.0, deadline - time.monotonic())) for worker in [self._worker, *self.abandoned])

    def _begin(self) -> None:
        self.enlarger, self._ticket = None, None
        self._jobs: Latest[Ticket] = Latest(self.line)
        jobs = self._jobs
        self._worker = Worker(f"rung-{self.name}", self.line, lambda: self._ending_builds(jobs), lambda: None)

    def _ending_builds(self, jobs: Latest[Ticket]) -> None:
        """Run the thread; a plan that it waits for, which takes minutes, does not hold up a session that ends."""
        with telling_builds(lambda progress: self.line.check()):
            self._work(jobs)

    def _work(self, jobs: Latest[Ticket]) -> None:
        enlarger: Enlarger | None = None
        built_for: int | None = None
        while jobs is self._jobs:  # else this thread was left behind, and what it built goes with it
            ticket = jobs.take(IDLE_S)
            if ticket is None:
                continue
            depth = ticket.frame.layout.bit_depth
            try:
                if enlarger is None or built_for != depth:
                    enlarger, built_for = self._build(depth), depth
                if jobs is self._jobs:
                    self.enlarger, self.description = enlarger, enlarger.description
                _fill(ticket, enlarger)
            except Exception as cause:  # a rung that fails costs the picture nothing but its detail
                log.debug("%s failed", self.name, exc_info=True)
                ticket.error = " ".join(str(cause).split())[:200] or type(cause).__name__
                enlarger = None
                if jobs is self._jobs:
                    self.enlarger = None
            with self._changed:
                ticket.done = True
                self._changed.notify_all()


def _fill(ticket: Ticket, enlarger: Enlarger) -> None:
    """Do a ticket's work.

    Raises:
        EngineError: what came out is no enlargement of what went in.
    """
    for left in reversed(range(ticket.calls)):
        frame = _varied(ticket.frame) if left % 2 else ticket.frame
        started = time.perf_counter_ns()
        ticket.result = enlarger.upscale(frame)
        ticket.costs_ms.append((time.perf_counter_ns() - started) / 1e6)
    clocks = getattr(enlarger, "clocks", {})
    ticket.stages_ms = {name: clock.latest_ms for name, clock in clocks.items() if clock.num}
    assert ticket.result is not None
    if not is_sane(ticket.frame, ticket.result):
        ticket.result = None
        raise EngineError("its picture does not match the camera's: expected the same brightness everywhere")


def _varied(frame: Frame) -> Frame:
    """Return a frame whose every sample differs by one level: nothing of the one before can be shown again."""
    return frame.with_planes(tuple(plane ^ 1 for plane in frame.planes))


def is_sane(small: Frame, large: Frame) -> bool:
    """Return whether an enlarged frame is, brought down to a few cells, the frame it was made from.

    Costs 0.1 ms for 640x640: what catches a network that returns NaN, zeros, noise or another moment's picture.
    """
    ratio = large.width // max(small.width, 1)
    if ratio < 1 or (large.width, large.height) != (ratio * small.width, ratio * small.height):
        return False
    limit = SANITY_LEVELS << (small.layout.bit_depth - 8)
    return all(
        float(np.abs(_cells(before) - _cells(after)).max()) <= limit
        for before, after in zip(small.planes, large.planes, strict=True)
    )


def _cells(plane: Plane) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return the means of a grid of cells, as float32."""
    brought = cv2.resize(plane, (SANITY_CELLS, SANITY_CELLS), interpolation=cv2.INTER_AREA)
    cells: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = brought.astype(np.float32)
    return cells
