"""Spans of a file between two key frames: found without decoding, and read as sources of their own.

A span begins with the picture of a key frame and ends before that of a later one, in presentation order. In an open
group of pictures the leading ones are shown before their key frame and refer to the group before it: they belong to the
span that ends there, which is decoded on until they are out, and every span is decoded from one key frame earlier, so
that nothing in it lacks what it refers to.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

from av.error import FFmpegError
from av.packet import Packet
from av.stream import Stream

from streamsr.capture.base import TrackPacket
from streamsr.capture.files import FileSource
from streamsr.capture.opening import NO_TIMESTAMPS, choose_video, open_container
from streamsr.frame import Frame


@dataclass(frozen=True)
class Span:
    """A part of a file's pictures.

    Attributes:
        start: pts of the first one, a key frame.
        stop: pts behind the last one; None at the end of the file.
        entry: pts of the key frame at which decoding begins.
        num_frames: how many there are.
    """

    start: int
    stop: int | None
    entry: int
    num_frames: int

    def holds(self, pts: int) -> bool:
        """Whether a picture belongs to it."""
        return pts >= self.start and (self.stop is None or pts < self.stop)


@dataclass(frozen=True)
class PacketTimes:
    """The packets of a video track, in the order in which they lie in the file.

    Attributes:
        shown: pts of each.
        keys: pts of the key frames.
        time_base: seconds a unit.
        last_duration: how long the picture is shown that is shown last; 0 where nothing says so.
    """

    shown: tuple[int, ...]
    keys: tuple[int, ...]
    time_base: Fraction
    last_duration: int = 0


def read_times(path: Path) -> PacketTimes | None:
    """Read the times of a file's pictures without decoding any.

    Returns:
        None where they are not beyond doubt: pictures without a time, with the same time, hidden by an edit list or
        damaged; decode times that fall; no key frame at the beginning.

    Raises:
        InputError: it cannot be opened or holds no video.
    """
    with open_container(path) as container:
        track, _ = choose_video(container, path)
        if container.format.flags & NO_TIMESTAMPS:
            return None
        try:
            stamps = [_stamp(packet) for packet in container.demux(track) if packet.size]
        except FFmpegError:
            return None
        return _sound_times(stamps, track.time_base or Fraction(1, 1000))


@dataclass(frozen=True)
class _Stamp:
    """What is kept of a packet: millions fit into memory."""

    __slots__ = ("decoded", "doubtful", "duration", "is_key", "shown")
    shown: int | None
    decoded: int | None
    duration: int
    is_key: bool
    doubtful: bool


def _stamp(packet: Packet[Any]) -> _Stamp:
    doubtful = packet.is_discard or packet.is_corrupt
    return _Stamp(packet.pts, packet.dts, packet.duration or 0, packet.is_keyframe, doubtful)


def _sound_times(stamps: list[_Stamp], time_base: Fraction) -> PacketTimes | None:
    if any(stamp.shown is None or stamp.doubtful for stamp in stamps):
        return None
    shown = [stamp.shown for stamp in stamps if stamp.shown is not None]
    keys = [stamp.shown for stamp in stamps if stamp.is_key and stamp.shown is not None]
    decoded = [stamp.decoded for stamp in stamps if stamp.decoded is not None]
    rises = all(later >= earlier for earlier, later in pairwise(decoded))
    if not rises or len(set(shown)) != len(shown) or keys[:1] != shown[:1] or keys != sorted(keys):
        return None
    last = max(stamps, key=lambda stamp: stamp.shown or 0)
    return PacketTimes(tuple(shown), tuple(keys), time_base, last.duration)


def cut(times: PacketTimes, length_s: float) -> list[Span]:
    """Cut at key frames into spans of a length or a little more; the last may be half as long again.

    >>> times = PacketTimes(tuple(range(10)), (0, 2, 4, 6, 8), Fraction(1))
    >>> [(span.start, span.stop, span.entry, span.num_frames) for span in cut(times, 4)]
    [(0, 4, 0, 4), (4, None, 2, 6)]
    """
    shown, end = sorted(times.shown), max(times.shown)
    length = length_s / times.time_base
    starts = [shown[0]]
    for key in times.keys[1:]:
        if key - starts[-1] >= length and end - key >= length / 2:
            starts.append(key)
    places = [bisect_left(shown, start) for start in starts] + [len(shown)]
    return [
        Span(
            start,
            starts[number + 1] if number + 1 < len(starts) else None,
            times.keys[max(0, bisect_left(times.keys, start) - 1)],
            places[number + 1] - places[number],
        )
        for number, start in enumerate(starts)
    ]


class SpanSource(FileSource):
    """A span of a file as a `Source`, without the tracks that pass through.

    Args:
        path: the file.
        span: which part.
        deinterlace: ``off`` where pictures are known not to be interlaced; see `FileSource`.
        threads: for decoding; 0 lets FFmpeg choose.

    Raises:
        InputError: it cannot be opened, or the span is not found in it.
    """

    def __init__(self, path: str | Path, span: Span, *, deinterlace: str = "auto", threads: int = 0) -> None:
        self.span = span
        self._times_given: list[tuple[int, int]] = []
        super().__init__(path, deinterlace=deinterlace, threads=threads)

    @property
    def shown(self) -> list[tuple[int, int]]:
        """Time and duration of every frame given out so far."""
        return self._times_given

    def _open(self, rate: Fraction | None, fits: bool, deinterlace: str, threads: int) -> None:
        track, _ = choose_video(self._container, self._path)
        if _lands(self._path, self.span.entry):
            self._container.seek(self.span.entry, stream=track)
        super()._open(rate, fits, deinterlace, threads)

    def _packets(self, tracks: list[Stream]) -> Iterator[Packet[Any]]:
        """Give the video's packets from the one at which decoding begins."""
        found = False
        for packet in super()._packets(tracks[:1]):
            found = found or (packet.is_keyframe and packet.pts == self.span.entry)
            if found:
                yield packet

    def _read(self, *, timed: bool) -> Generator[Frame | TrackPacket, None, None]:
        given, self._tracks = 0, ()
        for item in super()._read(timed=timed):
            if not isinstance(item, Frame) or item.pts < self.span.start:
                continue
            if not self.span.holds(item.pts):
                break
            if not given:
                self.report.gaps.clear()  # of leading pictures before the span, which lack what they refer to
            given += 1
            self._times_given.append((item.pts, item.duration))
            yield item
        if given != self.span.num_frames:
            self.report.gaps.append(f"{self.span.num_frames - given} pictures of the span could not be decoded")

    def _stated_frames(self) -> int | None:
        return self.span.num_frames

    def _conclude(self) -> None:
        """Say nothing: the end of a span is not that of the file."""


def _lands(path: Path, pts: int) -> bool:
    """Whether seeking to a key frame comes to it or to one before it, which not every container can."""
    with open_container(path) as container:
        track, _ = choose_video(container, path)
        try:
            container.seek(pts, stream=track)
            first = next((packet for packet in container.demux(track) if packet.size), None)
        except FFmpegError:
            return False
        return first is not None and first.pts is not None and first.is_keyframe and first.pts <= pts


class PassingSource(FileSource):
    """A file as a `Source` that gives its first frame alone, and every packet of the tracks that pass through."""

    _found = False

    def _packets(self, tracks: list[Stream]) -> Iterator[Packet[Any]]:
        for packet in super()._packets(tracks):
            if not (self._found and packet.stream_index == self._video.index):
                yield packet

    def _read(self, *, timed: bool) -> Generator[Frame | TrackPacket, None, None]:
        for item in super()._read(timed=timed):
            if isinstance(item, Frame):
                if self._found:
                    continue
                self._found = True
            yield item

    def _conclude(self) -> None:
        """Say nothing: most pictures were left out on purpose."""
