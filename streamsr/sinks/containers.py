"""Containers: one file being written by FFmpeg's muxer, with its video track and the tracks that pass through.

What the containers do to time, measured: Matroska stores whole milliseconds, so each pts leaves as the source's pts
rounded to the nearest one (never further off than 0.5 ms, however long the file); MP4 and MOV store the source's pts
exactly, in ticks of the source's time base. All three hold variable frame rates, colour tags, siting and sample aspect.
"""

from __future__ import annotations

import io
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError

from streamsr.errors import UsageError
from streamsr.frame import Frame
from streamsr.sinks.base import SinkReport, SourceFacts
from streamsr.sinks.encoders import Encoding
from streamsr.sinks.tracks import PassingTracks, Tags
from streamsr.sinks.video_track import add_video_track, keyframe_distance, make_picture

MUXERS = {".mkv": "matroska", ".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".dcm": "mp4"}
"""Suffix to FFmpeg's muxer; a DICOM object is an MP4 until it is complete. Others either hold no variable frame rate
(AVI) or lose the colour tags (MPEG-TS)."""

HYBRID_SINCE = (62, 12)
"""libavformat of FFmpeg 8.1. In 8.0 hybrid_fragmented with delay_moov writes files without their first atom."""

MOV_FLAGS = "use_metadata_tags" + (
    "+hybrid_fragmented+delay_moov+frag_keyframe" if av.library_versions["libavformat"][:2] >= HYBRID_SINCE else ""
)
"""MP4 and MOV are written as fragments, so that what is on the disk plays if the power fails, and become an ordinary
file on closing (hybrid_fragmented); delay_moov keeps the start offset and B-frames exact through an edit list."""

PRIMING_S = Fraction(1, 10)
"""Audio up to this long before zero is a codec's warm-up (AAC 21 ms, MP3 25 ms, Opus 7 to 80 ms), decoded and not
played: it stays where it is, and pushes no picture off its time."""


def muxer_of(path: Path) -> str:
    """Return FFmpeg's muxer for a file name.

    Raises:
        UsageError: the suffix is none of those that hold a recording.
    """
    muxer = MUXERS.get(path.suffix.lower())
    if muxer is None:
        names = ", ".join(MUXERS)
        raise UsageError(f"expected a file name that ends in {names}, got {path.name}: use .mkv if unsure")
    return muxer


def refuse_codec(path: Path, codec: str) -> None:
    """Check that a container can hold a codec.

    Raises:
        UsageError: it cannot, or the suffix is unknown.
    """
    muxer = muxer_of(path)
    try:
        with av.open(io.BytesIO(), "w", format=muxer) as container:
            container.add_stream(codec, rate=25)
    except (ValueError, FFmpegError) as cause:
        raise UsageError(f"{path.suffix} files hold no {codec}: choose .mkv, or another codec") from cause


class MovieFile:
    """One file of a recording, open for writing from its first frame on. Owned by the thread that shows frames.

    Args:
        path: where to write.
        muxer: FFmpeg's name.
        encoding: encoder, layout and size of the picture.
        facts: of the source; its tracks' templates must still be open.
        first: the first frame, for time base, colour and sample aspect.
        offset_s: added to every time of every track.
        tags: metadata.
        report: where notices go.
    """

    def __init__(
        self,
        path: Path,
        muxer: str,
        encoding: Encoding,
        *,
        facts: SourceFacts,
        first: Frame,
        offset_s: Fraction,
        tags: Tags,
        report: SinkReport,
    ) -> None:
        self.encoding, self.offset_s = encoding, offset_s
        self.num_frames, self.num_packets, self.num_bytes = 0, 0, 0
        options = muxer_options(muxer, first.time_base)
        self.container = av.open(str(path.absolute()), "w", format=muxer, container_options=options)
        try:
            self.container.metadata.update(tags.kept(facts.metadata))
            self.container.metadata.update(tags.marks)
            # frame_duration: the last frame's duration reaches the muxer, which cannot know it otherwise.
            options_of_track = {"g": str(keyframe_distance(facts.rate)), "flags": "+frame_duration"}
            self.video = add_video_track(
                self.container, encoding, first, rate=facts.rate, time_base=first.time_base, options=options_of_track
            )
            self.tracks = PassingTracks(self.container, muxer, facts=facts, tags=tags, report=report)
            self.container.start_encoding()
        except BaseException:
            self.container.close()
            raise

    def write_frame(self, frame: Frame) -> None:
        """Encode a frame of the shape this file was opened with, at its own time."""
        picture = make_picture(frame, self.encoding)
        picture.pts, picture.time_base = frame.pts + round(self.offset_s / frame.time_base), frame.time_base
        picture.duration = frame.duration
        self._mux(self.video.encode(picture))
        self.num_frames += 1

    def write_packet(self, track: int, packet: Any) -> None:
        """Write a packet of a passing track, moved by the same offset as the pictures."""
        self.tracks.write(track, packet, self.offset_s, self._mux)

    def finish(self, *, drain: bool = True) -> None:
        """Write what the encoder still holds, unless told not to, then the index, and close the file."""
        try:
            if drain:
                packets = self.video.encode(None)
                # x265 leaves the decode times of one or two pictures uninitialised; so few are never reordered.
                for packet in packets if self.num_frames <= 2 else ():
                    packet.dts = packet.pts
                self._mux(packets)
        finally:
            self.container.close()
        self.tracks.note_refused()

    def unwritten_bytes(self, size_bytes: int) -> int:
        """Return what closing still has to write.

        Args:
            size_bytes: of the file on the disk now.
        """
        return unwritten_bytes(self.num_bytes, self.num_packets, size_bytes)

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            self.num_packets += 1
            self.num_bytes += packet.size
            self.container.mux(packet)


def unwritten_bytes(num_bytes: int, num_packets: int, size_bytes: int) -> int:
    """Return what closing a file still has to write: packets held in memory, and an index entry each.

    Args:
        num_bytes: of the packets that were given to the muxer.
        num_packets: how many; an index entry takes 64 bytes at most.
        size_bytes: of the file on the disk now.
    """
    return max(0, num_bytes - size_bytes) + 64 * num_packets


def choose_offset(facts: SourceFacts, first: Frame, packets: list[tuple[int, Any]]) -> Fraction:
    """Return the seconds to add to every time, so that no picture and no played sound lies before zero.

    Zero where nothing is negative; else a whole number of the video's ticks, so that the pictures keep their times
    exactly and every track moves by the same amount.

    Args:
        facts: of the source.
        first: its first frame.
        packets: what passed through before that frame.
    """
    earliest = [first.pts * first.time_base]
    others = [Fraction(facts.start_s).limit_denominator(1_000_000)]
    others += [packet.pts * packet.time_base for _, packet in packets if packet.pts is not None]
    earliest += [time for time in others if time < -PRIMING_S]
    return ceil(max(Fraction(0), -min(earliest)) / first.time_base) * first.time_base


def muxer_options(muxer: str, time_base: Fraction) -> dict[str, str]:
    """Return the options that make a muxer keep times as they are given to it.

    Args:
        muxer: FFmpeg's name.
        time_base: of the video track.
    """
    if muxer == "matroska":
        # Times before zero are the codecs' warm-up only (see choose_offset): moving them would move the pictures too.
        return {"avoid_negative_ts": "disabled"}
    # FFmpeg's own time scale for edit lists is 1000 a second, which would round a start offset.
    scale = time_base.denominator
    while scale < 10_000:
        scale *= 2
    return {"movflags": MOV_FLAGS, "movie_timescale": str(scale), "video_track_timescale": str(scale)}
