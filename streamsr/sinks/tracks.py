"""The tracks that pass through a recording: which the container holds, and their packets, moved but not changed."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
from av.bitstream import BitStreamFilterContext
from av.error import FFmpegError

from streamsr.sinks.base import PassingTrack, SinkReport, SourceFacts

TECHNICAL_TAGS = frozenset({"encoder", "major_brand", "minor_version", "compatible_brands", "duration"})
"""Tags of the source's own muxer, wrong for any other file."""


@dataclass(frozen=True)
class Tags:
    """What is written about a file besides its pictures.

    Attributes:
        keep_metadata: whether the source's tags and track titles, which may name a patient, are copied.
        marks: tags of this project, such as the one that says a generator made the picture.
    """

    keep_metadata: bool = False
    marks: Mapping[str, str] = field(default_factory=dict)

    def kept(self, metadata: Mapping[str, str]) -> dict[str, str]:
        """Return those of the source's tags that are copied."""
        wanted = metadata.items() if self.keep_metadata else ()
        return {name: value for name, value in wanted if name.lower() not in TECHNICAL_TAGS}


@dataclass
class _Track:
    """A passing track as it is written: where its packets go, and the filter its packets need."""

    output: Any
    packet_filter: BitStreamFilterContext | None
    num_refused: int = 0


class PassingTracks:
    """The passing tracks of one output file. What its container does not hold is left out, with a notice.

    Args:
        container: the PyAV output container, before its header is written.
        muxer: FFmpeg's name of it.
        facts: of the source.
        tags: what is copied of each track's metadata; language and disposition always are.
        report: where notices go.
    """

    def __init__(self, container: Any, muxer: str, *, facts: SourceFacts, tags: Tags, report: SinkReport) -> None:
        self.report = report
        self._tracks: dict[int, _Track] = {}
        for track in facts.tracks:
            if track.kind == "attachment":
                continue
            reason = why_not_held(muxer, track)
            if reason is None:
                self._tracks[track.index] = _add_track(container, muxer, track, tags)
            else:
                report.note(f"{track.kind} track {track.index} ({track.codec}) left out: {reason}")
        for file in facts.attachments:
            if muxer == "matroska":
                container.add_attachment(file.name, file.mimetype, file.data)
            else:
                report.note(f"attachment {file.name} left out: only .mkv files hold attachments")

    def write(self, track: int, packet: Any, offset_s: Fraction, mux: Callable[[list[Any]], None]) -> None:
        """Move a packet in time and write it; one the muxer refuses is counted, and costs nothing but itself.

        Args:
            track: its index in the source.
            packet: the PyAV packet; changed in place.
            offset_s: added to its times.
            mux: writes packets.
        """
        found = self._tracks.get(track)
        if found is None or not packet.size:
            return
        ticks = round(offset_s / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts + ticks
        packet.dts = None if packet.dts is None else packet.dts + ticks
        try:
            for part in [packet] if found.packet_filter is None else found.packet_filter.filter(packet):
                part.stream = found.output
                mux([part])
        except (ValueError, PermissionError):  # FFmpeg's EINVAL, invalid data, and the MP4 muxer's bare -1
            found.num_refused += 1

    def note_refused(self) -> None:
        """Tell the report how many packets could not be written."""
        for index, track in self._tracks.items():
            if track.num_refused:
                text = f"{track.num_refused} packets of track {index} left out: damaged, or their times do not rise"
                self.report.note(text)


def _add_track(container: Any, muxer: str, track: PassingTrack, tags: Tags) -> _Track:
    source = track.template
    output = container.add_stream_from_template(source)
    output.disposition = source.disposition.value  # PyAV 16 takes no flag here
    output.metadata.clear()
    output.metadata.update(tags.kept(source.metadata))
    if "language" in source.metadata:
        output.metadata["language"] = source.metadata["language"]
    # AAC from a transport stream carries its header in every packet; with delay_moov the muxer does not strip it.
    adts = muxer in ("mp4", "mov") and track.codec == "aac" and not source.codec_context.extradata
    return _Track(output, BitStreamFilterContext("aac_adtstoasc", source) if adts else None)


def why_not_held(muxer: str, track: PassingTrack) -> str | None:
    """Return None where a container holds a track, else why not; found out by writing a header into memory."""
    container = av.open(io.BytesIO(), "w", format=muxer)
    try:
        container.add_stream_from_template(track.template)
        container.start_encoding()
    except (ValueError, FFmpegError):
        return f"{'.mkv' if muxer == 'matroska' else '.' + muxer} files do not hold it"
    finally:
        close_quietly(container)
    return None


def close_quietly(container: Any) -> None:
    """Close a file that nobody will read; some muxers refuse to end one without packets."""
    with contextlib.suppress(ValueError, OSError, FFmpegError):
        container.close()
