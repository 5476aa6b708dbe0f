"""Read transport streams and RTP without FFmpeg's parsers, which hold every picture back until the next one begins.

A transport packet or an RTP access unit holds one whole picture already, so the parser only costs a frame of delay
(40 ms at 25 frames a second). What it would have said is found here: where key frames are, and where the frames of
sound end, of which one packet may hold several.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from av.packet import Packet

OPTION = {"fflags": "+noparse"}

FORMATS = frozenset({"mpegts", "rtsp", "rtp"})
"""Demuxers whose packets hold whole pictures."""

_KEYS = {"h264": (0x1F, 0, {5, 7}), "hevc": (0x3F, 1, set(range(16, 22)) | {32, 33})}
"""Mask and shift of a unit's type, and the types that begin a key frame: pictures one can start at, and the parameter
sets that precede them (Rec. ITU-T H.264, table 7-1; H.265, table 7-1)."""

_SEQUENCE_HEADER = 0xB3
"""Of MPEG-1 and MPEG-2 video (ISO/IEC 13818-2, table 6-1)."""

SCANNED = frozenset({*_KEYS, "mpeg1video", "mpeg2video"})
"""Codecs whose key frames `begins_key_frame` knows."""

_SEARCHED_BYTES = 1 << 14
"""Parameter sets and the first slice come first; the rest of a large picture is not looked at."""

MOST_DRIFT = 3
"""Frames of sound by which a packet's time may differ from the count's before it is believed again."""


def begins_key_frame(data: bytes, codec: str) -> bool:
    """Return whether a packet of H.264, HEVC or MPEG video begins a key frame.

    Args:
        data: of the packet, units behind start codes.
        codec: FFmpeg's name, one of `SCANNED`.
    """
    head = data[:_SEARCHED_BYTES]
    place = head.find(b"\0\0\1")
    while 0 <= place < len(head) - 3:
        byte = head[place + 3]
        if codec in _KEYS:
            mask, shift, types = _KEYS[codec]
            if (byte >> shift) & mask in types:
                return True
        elif byte == _SEQUENCE_HEADER:
            return True
        place = head.find(b"\0\0\1", place + 3)
    return False


class SoundSplitter:
    """Cuts packets of one track of sound into frames and gives each its time.

    Args:
        track: an open track; its codec's parser is used.
    """

    def __init__(self, track: Any) -> None:
        self._track = track
        self._next: int | None = None

    def split(self, packet: Any) -> Iterator[Packet[Any]]:
        """Give the frames that a packet completes."""
        step = self._step()
        if step is None:
            yield packet
            return
        if packet.pts is not None and (self._next is None or abs(packet.pts - self._next) > MOST_DRIFT * step):
            self._next = packet.pts
        for piece in self._track.codec_context.parse(bytes(packet)):
            piece.stream, piece.time_base = self._track, packet.time_base
            piece.pts = piece.dts = self._next
            piece.duration, piece.is_keyframe = step, True
            self._next = None if self._next is None else self._next + step
            yield piece

    def _step(self) -> int | None:
        """Return how long a frame is, in the track's time base; None where that is not known."""
        context = self._track.codec_context
        if not (context.frame_size and context.sample_rate and self._track.time_base):
            return None
        return int(context.frame_size / context.sample_rate / self._track.time_base + 0.5)
