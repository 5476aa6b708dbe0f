"""What every source gives: frames in presentation order, packets that pass through, and a report afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from streamsr.frame import Colour, Frame, PlaneLayout


@dataclass(frozen=True)
class TrackInfo:
    """A track that passes through untouched.

    Attributes:
        index: its index in the source.
        kind: ``audio``, ``subtitle``, ``attachment`` or ``data``.
        codec: FFmpeg codec name.
        template: the PyAV stream to copy parameters from; only valid while the source is open.
    """

    index: int
    kind: str
    codec: str
    template: Any = field(compare=False, repr=False)


@dataclass(frozen=True)
class TrackPacket:
    """A packet of a track that passes through.

    Attributes:
        track: `TrackInfo.index` of its track.
        packet: the PyAV packet, with the source's times.
    """

    track: int
    packet: Any


@dataclass(frozen=True)
class Attachment:
    """A file inside the container, for example a font of the subtitles."""

    name: str
    mimetype: str
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class SourceInfo:
    """What is known of a source before its first frame.

    Attributes:
        name: file name or URL, for messages.
        width: of the upright picture, in pixels.
        height: of the upright picture, in pixels.
        layout: subsampling and bit depth that frames will have.
        colour: what their samples mean.
        time_base: of every frame's pts.
        rate: frames a second, nominal; a guess where the rate varies.
        sample_aspect: width of a pixel over its height, upright.
        num_frames: as the container says; None where it does not.
        duration_s: as the container says; None where it does not.
        start_s: smallest start time of any track in seconds; negative where a track starts before zero.
        codec: of the video track.
        pix_fmt: of the video track, FFmpeg's name, before any conversion.
        tracks: those that pass through.
        attachments: files inside the container.
        metadata: the container's tags (title, creation time, ...).
        notices: what was decided or assumed, one line each, for the user.
    """

    name: str
    width: int
    height: int
    layout: PlaneLayout
    colour: Colour
    time_base: Fraction
    rate: Fraction
    sample_aspect: Fraction = Fraction(1)
    num_frames: int | None = None
    duration_s: float | None = None
    start_s: float = 0.0
    codec: str = "rawvideo"
    pix_fmt: str = "yuv420p"
    tracks: tuple[TrackInfo, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


@dataclass
class SourceReport:
    """What happened while reading; complete when iteration has ended.

    Attributes:
        num_frames: frames given out.
        gaps: what could not be decoded, one line each, with its time.
        truncated: the source ended before it should have.
        notices: what was decided on the way (a size change, interlacing found, times rebased, ...), one line each.
    """

    num_frames: int = 0
    gaps: list[str] = field(default_factory=list)
    truncated: bool = False
    notices: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether everything the source holds was given out."""
        return not self.gaps and not self.truncated


class Source(Protocol):
    """A place frames come from; a context manager that owns what it opened.

    Iterating gives `Frame`s with strictly rising pts and `sequence` 0, 1, 2, ..., with `TrackPacket`s between them,
    once. The end of the video ends the iteration; it is no error.
    """

    @property
    def info(self) -> SourceInfo:
        """What is known before the first frame."""

    @property
    def report(self) -> SourceReport:
        """What happened so far."""

    def __iter__(self) -> Iterator[Frame | TrackPacket]:
        """Give out the frames and packets, once."""

    def __enter__(self) -> Source:
        """Return itself, open."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""


@runtime_checkable
class KeepingSource(Source, Protocol):
    """A source whose frames' planes can stay on a GPU where its decoder makes them."""

    def keep_on(self, device: str) -> None:
        """Let planes stay on a GPU, as `streamsr.device_frame.DevicePlane`s; before any iteration.

        What is known of the source may change in its notices. Where planes cannot stay, they come in host memory as
        before.

        Args:
            device: torch's name of the GPU that reads them.
        """
