"""Containers: one file being written by FFmpeg's muxer, with its video track and the tracks that pass through.

What the containers do to time, measured: Matroska stores whole milliseconds, so each pts leaves as the source's pts
rounded to the nearest one (never further off than 0.5 ms, however long the file); MP4 and MOV store the source's pts
exactly, in ticks of the source's time base. All three hold variable frame rates, colour tags, siting and sample aspect.
"""

from __future__ import annotations

import io
from fractions import Fraction
from math import ceil, floor
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError

from streamsr.errors import UsageError
from streamsr.frame import Colour, Frame, Siting
from streamsr.sinks.base import SinkReport, SourceFacts
from streamsr.sinks.encoders import Encoding
from streamsr.sinks.planes import fill
from streamsr.sinks.tracks import PassingTracks, Tags

MUXERS = {".mkv": "matroska", ".mp4": "mp4", ".m4v": "mp4", ".mov": "mov"}
"""Suffix to FFmpeg's muxer. Others either hold no variable frame rate (AVI) or lose the colour tags (MPEG-TS)."""

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

SITING_NAMES = {
    Siting.LEFT: "left",
    Siting.CENTRE: "center",
    Siting.TOP_LEFT: "topleft",
    Siting.TOP: "top",
    Siting.BOTTOM_LEFT: "bottomleft",
    Siting.BOTTOM: "bottom",
}
"""The sitings that H.264 and its followers can state; those on the right have no code."""

KEYFRAME_S = 2
"""Longest time between key frames: what a viewer waits for when seeking, and what a power failure can cost."""


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
        options = _muxer_options(muxer, first.time_base)
        self.container = av.open(str(path.absolute()), "w", format=muxer, container_options=options)
        try:
            self.container.metadata.update(tags.kept(facts.metadata))
            self.container.metadata.update(tags.marks)
            self.video = self._add_video(first, facts.rate)
            self.tracks = PassingTracks(self.container, muxer, facts=facts, tags=tags, report=report)
            self.container.start_encoding()
        except BaseException:
            self.container.close()
            raise

    def write_frame(self, frame: Frame) -> None:
        """Encode a frame of the shape this file was opened with, at its own time."""
        encoding = self.encoding
        picture = av.VideoFrame(encoding.width, encoding.height, encoding.layout.pix_fmt)
        fill(picture, frame, encoding.layout)
        picture.pts, picture.time_base = frame.pts + round(self.offset_s / frame.time_base), frame.time_base
        picture.duration = frame.duration
        _tag_colour(picture, frame.colour)
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
        """Return what closing still has to write: packets held in memory, and an index entry each (64 bytes at most).

        Args:
            size_bytes: of the file on the disk now.
        """
        return max(0, self.num_bytes - size_bytes) + 64 * self.num_packets

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            self.num_packets += 1
            self.num_bytes += packet.size
            self.container.mux(packet)

    def _add_video(self, first: Frame, rate: Fraction) -> Any:
        encoding, colour = self.encoding, first.colour
        # frame_duration: the last frame's duration reaches the muxer, which cannot know it otherwise.
        options = {"g": str(keyframe_distance(rate)), "flags": "+frame_duration"} | encoding.options
        if first.layout.chroma_shift in ((1, 1), (1, 0)) and colour.siting in SITING_NAMES:
            options["chroma_sample_location"] = SITING_NAMES[colour.siting]
        video: Any = self.container.add_stream(
            encoding.codec,
            rate=rate,
            options=options,
            width=encoding.width,
            height=encoding.height,
            time_base=first.time_base,
        )
        context = video.codec_context
        context.pix_fmt, context.time_base = encoding.layout.pix_fmt, first.time_base
        context.sample_aspect_ratio = first.sample_aspect
        context.thread_count = encoding.threads
        if "265" in encoding.codec or encoding.codec == "hevc_nvenc":
            context.codec_tag = "hvc1"  # what players of one large vendor insist on; Matroska ignores it
        _tag_colour(context, colour)
        return video


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


def keyframe_distance(rate: Fraction) -> int:
    """Return the frames from one key frame to the next at most, 12 to 250."""
    return min(250, max(12, floor(rate * KEYFRAME_S)))


def _muxer_options(muxer: str, time_base: Fraction) -> dict[str, str]:
    if muxer == "matroska":
        # Times before zero are the codecs' warm-up only (see choose_offset): moving them would move the pictures too.
        return {"avoid_negative_ts": "disabled"}
    # FFmpeg's own time scale for edit lists is 1000 a second, which would round a start offset.
    scale = time_base.denominator
    while scale < 10_000:
        scale *= 2
    return {"movflags": MOV_FLAGS, "movie_timescale": str(scale), "video_track_timescale": str(scale)}


def _tag_colour(target: Any, colour: Colour) -> None:
    """Tag an encoder, or a picture for encoders that read the tags there (ProRes); PyAV 16's lacks two of them."""
    target.color_range, target.colorspace = 2 if colour.full_range else 1, colour.matrix
    if hasattr(target, "color_primaries"):
        target.color_primaries, target.color_trc = colour.primaries, colour.transfer
