"""How a run stands, for whoever shows it: counts, workers, rates and what is left."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from streamsr.job import JobProgress

JOINING = "joining"
"""The part of a file at which its segments become one."""


@dataclass
class Desk:
    """What one worker is at.

    Attributes:
        name: of its file.
        part: which segment, in words; empty for a whole file.
        progress: the newest; None before there is any.
        num_bytes: of its share of the file.
        worker: who it is: cores or GPU, or a machine of a cluster; empty until it has told.
    """

    name: str
    part: str = ""
    progress: JobProgress | None = None
    num_bytes: int = 0
    worker: str = ""

    @property
    def share(self) -> float:
        """How much of it is done, 0 to 1; 0 where that is not known."""
        if self.progress is None or not self.progress.num_frames:
            return 0.0
        return min(1.0, self.progress.shown / self.progress.num_frames)

    @property
    def rate(self) -> float:
        """Frames a second."""
        return self.progress.shown / self.progress.elapsed_s if self.progress and self.progress.elapsed_s > 0 else 0.0


@dataclass
class Board:
    """How a run stands.

    Attributes:
        root: of the results.
        workers: who works, in one line.
        num_files: that are this run's.
        num_before: that were done when it began.
        num_done: that it made.
        num_failed: that it could not make, those that failed before included.
        num_elsewhere: that another run is at.
        num_frames: made so far.
        todo_bytes: size of what there was to do.
        done_bytes: size of what is done of it.
        desks: by task number.
        started_s: on the monotonic clock.
    """

    root: Path
    workers: str
    num_files: int
    num_before: int = 0
    num_done: int = 0
    num_failed: int = 0
    num_elsewhere: int = 0
    num_frames: int = 0
    todo_bytes: int = 0
    done_bytes: int = 0
    desks: dict[int, Desk] = field(default_factory=dict)
    started_s: float = field(default_factory=time.monotonic)

    @property
    def elapsed_s(self) -> float:
        """Since the run began."""
        return time.monotonic() - self.started_s

    @property
    def rate(self) -> float:
        """Frames a second of all workers now."""
        return sum(desk.rate for desk in self.desks.values())

    @property
    def left_s(self) -> float | None:
        """How long the rest will take at the pace so far, by the size of the files; None before that is known."""
        done = self.done_bytes + sum(desk.share * desk.num_bytes for desk in self.desks.values())
        if done <= 0 or self.elapsed_s < 1:
            return None
        return max(0.0, (self.todo_bytes - done) * self.elapsed_s / done)


class BatchDisplay(Protocol):
    """What shows a run."""

    def update(self, board: Board) -> None:
        """Take how the run stands; called several times a second."""

    def finish(self, name: str, details: Mapping[str, Any], incomplete: str | None) -> None:
        """Say that a file is made."""

    def fail(self, name: str, kind: str, message: str, *, again: bool) -> None:
        """Say that a file could not be made, and whether it is tried again."""

    def note(self, line: str) -> None:
        """Say something about the run as a whole."""

    def end(self, board: Board, report: Mapping[str, Any]) -> None:
        """Say how the run went."""


def clock(seconds: float | None) -> str:
    """Return a duration as hours, minutes and seconds.

    >>> clock(3725.2), clock(None)
    ('1:02:05', '-:--')
    """
    if seconds is None:
        return "-:--"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
