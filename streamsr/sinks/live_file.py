"""LiveFile: one file of a live recording, on the disk at most half a second after its pictures, whatever kills us."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError

from streamsr.sidecar import FileHash, describe_colour
from streamsr.sinks.containers import MOV_FLAGS, muxer_of, muxer_options, unwritten_bytes
from streamsr.sinks.live_encoder import TIME_BASE, Coded, LiveEncoder

FLUSH_MS = 500
"""Pictures that are in memory only, in milliseconds at most: a Matroska cluster or an MP4 fragment is written whole."""

FLUSHING = {
    "matroska": {"cluster_time_limit": str(FLUSH_MS), "flush_packets": "1"},
    "mp4": {
        "movflags": f"{MOV_FLAGS}+frag_keyframe+delay_moov",  # fragments, though an older FFmpeg cannot join them later
        "frag_duration": str(FLUSH_MS * 1000),
        "flush_packets": "1",
    },
}
"""Muxer options that put every cluster or fragment on the disk as soon as it is complete."""


class LiveFile:
    """Writes the packets of one encoder; owned by the recording thread.

    It has its final name from the start: after a kill it is there, plays up to the last flush, and the sidecar says
    that it was in progress. Closed, it has an index and a duration as any other file.

    Args:
        path: where to write; must not exist.
        encoder: whose packets it will get.
        origin_ms: the recording's zero on `time.monotonic`'s clock in milliseconds.
        marks: tags, such as the one that says a generator made the picture.

    Attributes:
        hash: takes the SHA-256 once the file is finished; None before.
        num_bytes: of the packets so far.

    Raises:
        OSError: it cannot be made.
        FFmpegError: it cannot be made.
    """

    def __init__(self, path: Path, encoder: LiveEncoder, *, origin_ms: int, marks: Mapping[str, str]) -> None:
        self.path, self.encoder, self.origin_ms = path, encoder, origin_ms
        self.hash: FileHash | None = None
        self.num_bytes, self.num_packets = 0, 0
        self.first_ms: int | None = None
        self.last_ms = 0
        path.open("xb").close()
        self._identity = _identity(path)
        muxer = muxer_of(path)
        options = muxer_options(muxer, TIME_BASE) | FLUSHING[muxer]
        self._container: Any = av.open(str(path.absolute()), "w", format=muxer, container_options=options)
        try:
            self._container.metadata.update(marks)
            self._track = self._container.add_stream_from_template(encoder.track)
            self._track.time_base = TIME_BASE
            if encoder.encoding.codec in ("libx265", "hevc_nvenc"):
                self._track.codec_context.codec_tag = "hvc1"  # as in `add_video_track`; a template does not keep it
            self._container.start_encoding()
        except (OSError, ValueError, FFmpegError):
            self._container.close()
            raise

    @property
    def is_there(self) -> bool:
        """Whether the name still leads to this file; what is written to a deleted one is lost without an error."""
        try:
            return _identity(self.path) == self._identity
        except OSError:
            return False

    @property
    def unwritten_bytes(self) -> int:
        """What closing it still has to write."""
        return unwritten_bytes(self.num_bytes, self.num_packets, self._size_bytes())

    @property
    def span_ms(self) -> int:
        """From the first picture to the last one."""
        return 0 if self.first_ms is None else self.last_ms - self.first_ms

    def write(self, coded: Coded) -> None:
        """Write a picture."""
        packet = coded.packet
        packet.pts = packet.dts = coded.at_ms - self.origin_ms  # nothing is reordered
        packet.time_base, packet.stream = TIME_BASE, self._track
        self.num_bytes += packet.size
        self.num_packets += 1
        self._container.mux(packet)
        self.first_ms = coded.at_ms if self.first_ms is None else self.first_ms
        self.last_ms = coded.at_ms

    def sync(self) -> None:
        """Put what was flushed where a power failure leaves it alone."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def finish(self) -> None:
        """Write what is in memory and the index, close the file and make it durable."""
        self.hash = FileHash(self.path)
        self._container.close()
        self.sync()

    def describe(self) -> dict[str, Any]:
        """Return what the sidecar says of it; the hash is None until it is known."""
        encoding, first_ms = self.encoder.encoding, self.first_ms if self.first_ms is not None else self.origin_ms
        return {
            "name": self.path.name,
            "kind": "enlarged",
            "bytes": self._size_bytes(),
            "sha256": self.hash.hexdigest if self.hash else None,
            "pictures": self.num_packets,
            "first_s": (first_ms - self.origin_ms) / 1000,
            "last_s": (first_ms + self.span_ms - self.origin_ms) / 1000,
            "width": encoding.width,
            "height": encoding.height,
            "pix_fmt": encoding.layout.pix_fmt,
            "colour": describe_colour(self.encoder.colour),
            "encoder": encoding.description,
            "notices": list(encoding.notices),
        }

    def _size_bytes(self) -> int:
        try:
            return self.path.stat().st_size
        except OSError:
            return 0


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return (found.st_dev, found.st_ino)
