"""What every sink takes: enlarged frames and passing packets, in order, and a way to end well or badly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from streamsr.frame import Frame, PlaneLayout


class Sink(Protocol):
    """A place frames go to; a context manager.

    Leaving the ``with`` normally completes the result; leaving it by an exception keeps what is playable under the
    sink's own name for partial results.
    """

    def show(self, frame: Frame) -> None:
        """Take the next enlarged frame."""

    def pass_through(self, track: int, packet: Any) -> None:
        """Take the next packet of a track that passes through."""

    def __enter__(self) -> Sink:
        """Return itself, open."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""


@dataclass
class SinkReport:
    """What was written; complete when the ``with`` has been left.

    Attributes:
        num_frames: frames taken.
        num_bytes: size of all files together.
        offset_s: what was added to every time of every track, so that none is negative.
        encoder: codec, pixel format and settings in one line; empty where nothing is encoded.
        complete: whether the sink was left without an error.
        paths: the files, in order; under their partial names where not complete.
        notices: what was decided or left out, one line each, for the user.
    """

    num_frames: int = 0
    num_bytes: int = 0
    offset_s: float = 0.0
    encoder: str = ""
    complete: bool = False
    paths: list[Path] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def note(self, notice: str) -> None:
        """Add a notice once."""
        if notice not in self.notices:
            self.notices.append(notice)


class PassingTrack(Protocol):
    """What a recording needs to know of a track that passes through; `capture.base.TrackInfo` fits."""

    @property
    def index(self) -> int:
        """Its index in the source, as given to `Sink.pass_through`."""

    @property
    def kind(self) -> str:
        """``audio``, ``subtitle``, ``attachment`` or ``data``."""

    @property
    def codec(self) -> str:
        """FFmpeg codec name."""

    @property
    def template(self) -> Any:
        """The PyAV stream to copy parameters from."""


class AttachedFile(Protocol):
    """A file inside the container; `capture.base.Attachment` fits."""

    @property
    def name(self) -> str:
        """Its file name."""

    @property
    def mimetype(self) -> str:
        """Its media type."""

    @property
    def data(self) -> bytes:
        """Its bytes."""


class SourceFacts(Protocol):
    """What a recording needs to know of the source; `capture.base.SourceInfo` fits, without an import either way."""

    @property
    def width(self) -> int:
        """Of the upright picture before it is enlarged, in pixels."""

    @property
    def height(self) -> int:
        """Of the upright picture before it is enlarged, in pixels."""

    @property
    def layout(self) -> PlaneLayout:
        """Subsampling and bit depth that frames will have."""

    @property
    def rate(self) -> Fraction:
        """Frames a second, nominal."""

    @property
    def start_s(self) -> float:
        """Smallest start time of any track, in seconds; may be negative."""

    @property
    def tracks(self) -> Sequence[PassingTrack]:
        """Those that pass through."""

    @property
    def attachments(self) -> Sequence[AttachedFile]:
        """Files inside the container."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """The container's tags."""
