"""Join pieces of one recording, made apart, into the file that one encoder would have written."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import av

from streamsr.errors import ResultDiffers
from streamsr.frame import Frame
from streamsr.sinks.base import SinkReport, SourceFacts
from streamsr.sinks.containers import choose_offset, muxer_of, muxer_options
from streamsr.sinks.drafts import Draft, explained
from streamsr.sinks.tracks import PassingTracks, Tags


@dataclass(frozen=True)
class Piece:
    """A part of a recording, made apart.

    Attributes:
        path: a file with one video track, whose container may have rounded the times.
        pts: when each picture is shown, rising, in the source's time base.
        durations: how long each is shown, 0 where nothing says so.
    """

    path: Path
    pts: Sequence[int]
    durations: Sequence[int]


class JoinedRecording:
    """One file from pieces; a context manager. Entering makes a hidden draft, leaving well gives it its name.

    Args:
        path: the file; its suffix is that of the pieces.
        pieces: in order.
        facts: of the source, open.
        first: the source's first frame.
        tags: metadata.
        overwrite: whether a file of that name may be replaced.

    Raises:
        ResultDiffers: the pieces were encoded differently, so that no one track holds them.
        OutputError: it cannot be written.
    """

    def __init__(
        self, path: Path, pieces: Sequence[Piece], *, facts: SourceFacts, first: Frame, tags: Tags, overwrite: bool
    ) -> None:
        refuse_different(pieces)
        self.path, self.pieces, self.facts, self.first, self.tags = path, pieces, facts, first, tags
        self.report = SinkReport()
        self._draft = Draft(path, overwrite=overwrite)

    def write(self, before: Sequence[tuple[int, Any]], passing: Iterable[tuple[int, Any]]) -> None:
        """Write everything, in the order of decode times.

        Args:
            before: packets of passing tracks that come before the first frame.
            passing: the others.
        """
        offset_s = choose_offset(self.facts, self.first, list(before))
        self.report.offset_s = float(offset_s)
        muxer, time_base = muxer_of(self.path), self.first.time_base
        options = muxer_options(muxer, time_base)
        with (
            explained(self.path),
            av.open(str(self.pieces[0].path)) as template,
            av.open(str(self._draft.path.absolute()), "w", format=muxer, container_options=options) as container,
        ):
            container.metadata.update(self.tags.kept(self.facts.metadata))
            container.metadata.update(self.tags.marks)
            video: Any = container.add_stream_from_template(template.streams.video[0])
            video.time_base, video.codec_context.framerate = time_base, self.facts.rate
            video.metadata.clear()
            if muxer != "matroska":
                video.codec_context.codec_tag = template.streams.video[0].codec_context.codec_tag
            tracks = PassingTracks(container, muxer, facts=self.facts, tags=self.tags, report=self.report)
            container.start_encoding()
            sound = ((_decode_s(packet), track, packet) for part in (before, passing) for track, packet in part)
            pictures = ((_decode_s(packet), -1, packet) for packet in self._pictures(time_base))
            for _, track, packet in heapq.merge(sound, pictures, key=lambda item: item[0]):
                if track >= 0:
                    tracks.write(track, packet, offset_s, container.mux)
                    continue
                packet.pts += round(offset_s / time_base)
                packet.dts += round(offset_s / time_base)
                packet.stream = video
                container.mux(packet)
            tracks.note_refused()

    def _pictures(self, time_base: Fraction) -> Iterator[Any]:
        """Give the packets of all pieces with their true times, and decode times that rise over all of them."""
        shown = [pts for piece in self.pieces for pts in piece.pts]
        durations = [duration for piece in self.pieces for duration in piece.durations]
        ranks = _ranks(self.pieces)
        delay = max(place - rank for place, rank in enumerate(ranks))
        step = max(1, min((later - earlier for earlier, later in pairwise(shown)), default=1))
        decoded = [shown[0] - step * before for before in range(delay, 0, -1)] + shown
        for place, packet in enumerate(_packets(self.pieces)):
            packet.time_base = time_base
            packet.pts, packet.dts = shown[ranks[place]], decoded[place]
            packet.duration = durations[ranks[place]]
            self.report.num_frames += 1
            yield packet

    def __enter__(self) -> JoinedRecording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._draft.discard()
            return
        self.report.paths.append(self._draft.publish())
        self.report.num_bytes = self.path.stat().st_size
        self.report.complete = True


def refuse_different(pieces: Sequence[Piece]) -> None:
    """Check that one track can hold all pieces.

    Raises:
        ResultDiffers: they differ in what a track states once.
    """
    stated = set()
    for piece in pieces:
        with av.open(str(piece.path)) as container:
            context = container.streams.video[0].codec_context
            size = (context.name, context.width, context.height, context.pix_fmt)
            stated.add((*size, bytes(context.extradata or b"")))
    if len(stated) > 1:
        raise ResultDiffers(f"{pieces[0].path.name}: expected pieces that one track can hold, got different ones")


def _packets(pieces: Sequence[Piece]) -> Iterator[Any]:
    for piece in pieces:
        with av.open(str(piece.path)) as container:
            yield from (packet for packet in container.demux(container.streams.video[0]) if packet.size)


def _ranks(pieces: Sequence[Piece]) -> list[int]:
    """Return the place in presentation order of every packet, in the order in which they lie in the files."""
    ranks: list[int] = []
    for piece in pieces:
        times = [packet.pts for packet in _packets([piece])]
        if len(times) != len(piece.pts) or None in times:
            raise ResultDiffers(f"{piece.path.name}: expected {len(piece.pts)} pictures, found {len(times)}")
        places = {place: rank for rank, place in enumerate(sorted(range(len(times)), key=times.__getitem__))}
        ranks += [len(ranks) + places[place] for place in range(len(times))]
    return ranks


def _decode_s(packet: Any) -> float:
    stamp = packet.pts if packet.dts is None else packet.dts
    return float(stamp * packet.time_base) if stamp is not None else 0.0
