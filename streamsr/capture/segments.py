"""One file of an untouched original: packets as they came, or pictures without packets coded without loss."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.codec.context import ThreadType
from av.stream import Stream
from av.video.format import VideoFormat
from av.video.frame import VideoFrame

from streamsr.capture.planes import is_rgb

CLUSTER_MS = 500
"""What Matroska gathers before it writes: what a kill costs at most."""

CLUSTER_BYTES = 2 << 20
"""And at most so much, but for a single picture that is larger: `space.TAIL_BYTES` leaves room for it."""

OPTIONS = {
    "cluster_time_limit": str(CLUSTER_MS),
    "cluster_size_limit": str(CLUSTER_BYTES),
    "flush_packets": "1",
    # A track that falls silent must not hold the others back; the default is 10 s. In microseconds.
    "max_interleave_delta": str(CLUSTER_MS * 1000),
    "avoid_negative_ts": "make_zero",
}

LOSSLESS = {"slices": "4", "slicecrc": "1", "context": "0"}
"""FFV1, version 3, in slices that are coded side by side and checked when read."""


class Segment:
    """A Matroska file that plays up to its last half second whenever writing ends. Owned by the thread that keeps.

    Args:
        folder: where it is made, under a name of its own.

    Attributes:
        path: of the file.
        num_packets: written so far.
        num_bytes: written so far, headers apart.
        num_refused: packets that Matroska would not take.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.path = reserve_name(folder)
        self.num_packets = self.num_bytes = self.num_refused = 0
        self._container = av.open(str(self.path), "w", format="matroska", container_options=dict(OPTIONS))

    def close(self) -> None:
        """Write what is held, then the index."""
        self._container.close()

    def _mux(self, packet: Any) -> None:
        num_bytes = packet.size
        self._container.mux(packet)
        self.num_packets += 1
        self.num_bytes += num_bytes


class PacketSegment(Segment):
    """Packets as they came.

    Args:
        folder: where it is made.
        tracks: open ones of the source, the video first.
    """

    def __init__(self, folder: Path, tracks: list[Stream]) -> None:
        super().__init__(folder)
        try:
            self._tracks = {track.index: self._container.add_stream_from_template(track) for track in tracks}
        except BaseException:
            self._container.close()
            self.path.unlink(missing_ok=True)
            raise
        self._start_ns = 0

    def write(self, packet: Any, arrived_ns: int) -> None:
        """Write a packet of one of the tracks, which is no longer of use to anybody else.

        Raises:
            OSError: the disk is full, or failed.
        """
        self._start_ns = self._start_ns or arrived_ns
        if packet.pts is None and packet.dts is None:
            # A bare bitstream: when it came is the only time there is.
            packet.pts = packet.dts = round(Fraction(arrived_ns - self._start_ns, 10**9) / packet.time_base)
        # A decode time that Matroska did not state is left to the muxer, which knows how far pictures are reordered.
        packet.stream = self._tracks[packet.stream_index]
        try:
            self._mux(packet)
        except av.error.FFmpegError as cause:
            if isinstance(cause, OSError):
                raise
            self.num_refused += 1


class PictureSegment(Segment):
    """Pictures without packets, as FFV1: every sample is kept.

    Args:
        folder: where it is made.
        first: the first picture.
        rate: frames a second, nominal.
    """

    def __init__(self, folder: Path, first: VideoFrame, rate: Fraction) -> None:
        super().__init__(folder)
        self._pix_fmt = lossless_format(first.format)
        self._start_ns = 0
        video: Any = self._container.add_stream("ffv1", rate=rate, options=dict(LOSSLESS))
        video.width, video.height, video.pix_fmt = first.width, first.height, self._pix_fmt
        context = video.codec_context
        context.time_base = Fraction(1, 1000)
        context.thread_type, context.thread_count = ThreadType.SLICE, 2
        context.colorspace, context.color_range = first.colorspace, first.color_range
        self._video = video

    def write(self, picture: VideoFrame, arrived_ns: int) -> None:
        """Code a picture, at the moment it came.

        Raises:
            OSError: the disk is full, or failed.
        """
        self._start_ns = self._start_ns or arrived_ns
        coded = picture.reformat(format=self._pix_fmt, threads=1)  # the picture itself where it has the format
        coded.pts, coded.time_base = (arrived_ns - self._start_ns) // 10**6, Fraction(1, 1000)
        for packet in self._video.encode(coded):
            self._mux(packet)

    def close(self) -> None:
        """Write what is held, then the index."""
        try:
            for packet in self._video.encode(None):
                self._mux(packet)
        finally:
            super().close()


def lossless_format(source: VideoFormat) -> str:
    """Return a pixel format that FFV1 codes and that holds every sample of another one."""
    coded = {form.name for form in av.Codec("ffv1", "w").video_formats or ()}
    if source.name in coded:
        return source.name
    if is_rgb(source):
        deep = max(part.bits for part in source.components) > 8
        return "gbrp16le" if deep else "bgra" if any(part.is_alpha for part in source.components) else "bgr0"
    from streamsr.capture.planes import choose_layout

    return choose_layout(source).pix_fmt


def reserve_name(folder: Path) -> Path:
    """Make an empty file of the next free name ``original-<UTC time>-<number>.mkv`` in a folder, and return it.

    Raises:
        OSError: the folder takes none.
    """
    stamp = datetime.fromtimestamp(time.time(), tz=timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    number = 1 + sum(1 for _ in folder.glob("original-*.mkv"))
    while True:
        path = folder / f"original-{stamp}-{number:03d}.mkv"
        try:
            path.open("xb").close()
        except FileExistsError:
            number += 1
        else:
            return path
