"""Decode past damage: one bad packet costs its picture, never the rest, and every lost picture is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from streamsr.capture.base import SourceReport

MOST_DEMUX_ERRORS = 32
"""Read errors in a row, without a packet between them, after which the rest of a file counts as unreadable."""

SALVAGE_PACKETS = 600
"""Packets kept to decode the last group of pictures again: 20 s at 30 frames a second, a few MB."""

SALVAGE_TRIES = 4
_HIDDEN_PICTURES = frozenset({"vp8", "vp9", "av1", "libdav1d", "libaom-av1"})
"""Codecs with packets that show nothing, so that a packet without a picture is no loss."""


def read_packets(container: InputContainer, tracks: list[Stream], report: SourceReport) -> Iterator[Packet[Any]]:
    """Read packets to the end, going on past read errors.

    Args:
        container: an open file.
        tracks: those to read.
        report: read errors go to its gaps; one that does not pass makes it truncated.
    """
    errors, place_s = 0, 0.0
    while True:
        try:
            for packet in container.demux(*tracks):
                if packet.size == 0 and packet.dts is None and packet.pts is None:
                    continue
                errors = 0
                place_s = _seconds(packet.pts, packet.time_base) if packet.pts is not None else place_s
                yield packet
            return
        except av.error.FFmpegError as cause:
            errors += 1
            if errors == 1:
                report.gaps.append(f"unreadable data after {place_s:.2f} s ({cause.strerror})")
            if errors >= MOST_DEMUX_ERRORS:
                report.truncated = True
                return


class Decoder:
    """Decodes the packets of one video track, in presentation order, past errors.

    With several threads an error surfaces some packets late, so errors do not tell what was lost: every packet sent is
    remembered by its time, and in a damaged file those that no picture came for are the lost ones.

    Args:
        track: an open video track.
        report: damaged pictures go to its gaps as they come, lost ones when all is decoded, one line each.
        threads: for decoding; 0 lets FFmpeg choose.
    """

    def __init__(self, track: VideoStream, report: SourceReport, *, threads: int = 0) -> None:
        self._context = track.codec_context
        self._context.thread_count = threads
        self._context.thread_type = "AUTO"
        self._time_base = track.time_base or Fraction(1, 1000)
        self._report = report
        self._waiting: Counter[int] = Counter()
        self._groups: list[list[Packet[Any]]] = [[]]
        self._last_pts: int | None = None
        self._damage_seen = False
        self._num_untimed_errors = 0
        self.num_packets = 0
        self.num_hidden = 0
        self.num_pictures = 0
        self.end_pts: int | None = None

    def decode(self, packet: Packet[Any]) -> Iterator[VideoFrame]:
        """Give out the pictures that a packet makes ready."""
        self._remember(packet)
        yield from map(self._take, self._send(packet))

    def drain(self) -> Iterator[VideoFrame]:
        """Give out the pictures still inside, and write the lost ones into the report."""
        yield from map(self._take, self._send(None))
        yield from map(self._take, self._salvage())
        self._report_lost()

    def _remember(self, packet: Packet[Any]) -> None:
        if self.num_packets == 0 and not packet.is_keyframe:
            self._damage_seen = True
        self.num_packets += 1
        if packet.is_keyframe:
            self._groups.append([])
            while sum(map(len, self._groups[1:])) > self._context.thread_count:
                self._groups.pop(0)
        self._groups[-1].append(packet)
        if sum(map(len, self._groups)) > SALVAGE_PACKETS:
            self._groups = [[]]
        self.num_hidden += packet.is_discard
        if packet.pts is None or packet.is_discard:
            return
        self._waiting[packet.pts] += 1
        end_pts = packet.pts + (packet.duration or 0)
        self.end_pts = end_pts if self.end_pts is None else max(self.end_pts, end_pts)

    def _send(self, packet: Packet[Any] | None) -> list[VideoFrame]:
        try:
            return self._context.decode(packet)
        except av.error.FFmpegError:
            self._damage_seen = True
            self._num_untimed_errors += packet is not None and packet.pts is None
            return []

    def _take(self, frame: VideoFrame) -> VideoFrame:
        self.num_pictures += 1
        pts = picture_pts(frame)
        if pts is not None:
            self._last_pts = pts
            self._waiting[pts] -= 1
            if self._waiting[pts] <= 0:
                del self._waiting[pts]
        if frame.is_corrupt:
            self._damage_seen = True
            place = "an unknown time" if pts is None else f"{_seconds(pts, self._time_base):.2f} s"
            self._report.gaps.append(f"picture at {place} is damaged")
        return frame

    def _salvage(self) -> list[VideoFrame]:
        """Decode the last pictures again without the packets at the very end.

        FFmpeg's threads hold the last pictures when a file ends; an error among them ends the draining, and the sound
        pictures behind it would be lost. A recording that was cut has its damage exactly there.
        """
        recent = [packet for group in self._groups for packet in group]
        for num_withheld in range(1, SALVAGE_TRIES + 1):
            last_pts = self._last_pts
            if last_pts is None or not self._counts or not any(pts > last_pts for pts in self._waiting):
                return []
            self._context.flush_buffers()
            # One after the other: those that were shown before are dropped at once, for each holds a picture's memory.
            fresh = [
                frame
                for packet in [*recent[:-num_withheld], None]
                for frame in self._send(packet)
                if (picture_pts(frame) or last_pts) > last_pts
            ]
            if fresh:
                self._damage_seen = True
                return fresh
        return []

    @property
    def _counts(self) -> bool:
        return self._context.name not in _HIDDEN_PICTURES

    def _report_lost(self) -> None:
        lost = sorted(self._waiting)
        # Two packets a picture is how some files store the fields of interlaced video: nothing is lost there.
        if self._damage_seen and self._counts and len(lost) < max(self.num_pictures, 1):
            lines = [f"picture at {_seconds(pts, self._time_base):.2f} s could not be decoded" for pts in lost]
            self._report.gaps.extend(lines)
        if self._num_untimed_errors:
            self._report.gaps.append(f"{self._num_untimed_errors} packets without a time could not be decoded")


def picture_pts(frame: VideoFrame) -> int | None:
    """Return when a decoded picture is shown: its pts, or the decode time of files that have nothing else (AVI)."""
    return frame.pts if frame.pts is not None else frame.dts


def _seconds(pts: int, time_base: Fraction) -> float:
    return float(pts * time_base)
