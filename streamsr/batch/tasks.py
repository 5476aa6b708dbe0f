"""What a worker is given and what it gives back: plain frozen data that travels between processes and machines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from streamsr.capture.spans import Span
from streamsr.config import UpscaleSettings
from streamsr.job import JobProgress


@dataclass(frozen=True)
class Task:
    """One piece of work.

    Attributes:
        number: of the task, unique in its run.
        input: absolute path of the source.
        folder: of this task alone, for what it writes; on a disk that the run sees too.
        name: of the result's file.
        settings: generator, encoder and reading.
        settings_key: `streamsr.batch.key.settings_key`.
        pieces: folder of the finished segments of all files.
    """

    number: int
    input: str
    folder: str
    name: str
    settings: UpscaleSettings
    settings_key: str
    pieces: str


@dataclass(frozen=True)
class FileTask(Task):
    """A whole file.

    Attributes:
        segment_s: files that are longer than twice this are cut; None cuts none.
    """

    segment_s: float | None = None


@dataclass(frozen=True)
class PieceTask(Task):
    """A segment of a file.

    Attributes:
        sha256: of the file's content.
        state: of the file when it was hashed, see `streamsr.batch.resting.state_of`.
        span: which part.
    """

    sha256: str = ""
    state: tuple[int, ...] = ()
    span: Span = field(kw_only=True)


@dataclass(frozen=True)
class JoinTask(Task):
    """The segments of a file, all done, into one recording.

    Attributes:
        sha256: of the file's content.
        state: of the file when it was hashed, see `streamsr.batch.resting.state_of`.
        spans: the parts, in order.
    """

    sha256: str = ""
    state: tuple[int, ...] = ()
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True)
class MadeFile:
    """A file in the task's folder that is ready to get its name: durable and hashed."""

    name: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class Made:
    """A result that was checked against its source.

    Attributes:
        files: the recording, its further parts and its sidecar, in the order in which they are to get their names.
        sha256: of the source's content.
        key: `streamsr.batch.key.work_key`.
        incomplete: what the source lacked, in one line; None where it was whole.
        details: figures for the journal and the report.
    """

    files: tuple[MadeFile, ...]
    sha256: str
    key: str
    incomplete: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cut:
    """A file that is better done in segments.

    Attributes:
        sha256: of its content.
        state: of the file when it was hashed.
        spans: the parts, in order.
    """

    sha256: str
    state: tuple[int, ...]
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class PieceMade:
    """A segment that lies under its key."""

    num_frames: int


@dataclass(frozen=True)
class Failed:
    """Work that could not be done.

    Attributes:
        kind: one of `streamsr.batch.failures.KINDS`.
        message: one line.
        whole: whether the file is to be done whole instead: it cannot be cut after all.
        full: whether a disk has no space left, so that no other file can be made either.
    """

    kind: str
    message: str
    whole: bool = False
    full: bool = False


Outcome: TypeAlias = "Made | Cut | PieceMade | Failed"


@dataclass(frozen=True)
class Told:
    """How far a task is."""

    number: int
    worker: str
    progress: JobProgress


@dataclass(frozen=True)
class Ended:
    """How a task ended."""

    number: int
    outcome: Outcome


@dataclass(frozen=True)
class Lost:
    """A task whose worker died, and how."""

    number: int
    reason: str


Event: TypeAlias = "Told | Ended | Lost"


class Executor(Protocol):
    """What runs tasks; a context manager. The run gives it no more than it has room for and asks it for news."""

    @property
    def description(self) -> str:
        """Who works, in one line."""

    @property
    def num_free(self) -> int:
        """How many tasks could start at once."""

    def submit(self, task: Task) -> None:
        """Start a task."""

    def wait(self, timeout_s: float) -> list[Event]:
        """Return what happened; empty where nothing did for so long."""

    def __enter__(self) -> Executor:
        """Start the workers."""

    def __exit__(self, *error: object) -> None:
        """End the workers at once, whatever they are at."""
