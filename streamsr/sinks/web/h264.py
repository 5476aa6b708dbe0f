"""H.264 for thin links: every picture coded at once, none held back, a key picture whenever a viewer needs one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.error import FFmpegError
from av.video.frame import PictureType

from streamsr.errors import OutputError
from streamsr.frame import Frame, PlaneLayout
from streamsr.sinks.planes import fill

OPTIONS: Mapping[str, str] = {
    "preset": "ultrafast",
    "tune": "zerolatency",
    "profile": "baseline",
    "crf": "23",
    "maxrate": "6M",
    "bufsize": "1M",
    "forced-idr": "1",
    # Without them a decoder may hold pictures back for reordering that never comes.
    "x264-params": "annexb=1:repeat-headers=1:bframes=0:scenecut=0",
}
"""x264 at its fastest: one picture in, one out; at most 6 Mb/s, a sixth of a second of it in one picture."""

LONGEST_GROUP = 250
"""Pictures between key pictures where nobody asks for one."""

LAYOUT = PlaneLayout((1, 1), 8)
TICKS = Fraction(1, 1000)


@dataclass(frozen=True)
class Packet:
    """One coded picture.

    Attributes:
        data: in Annex B form, parameter sets included where it is a key picture.
        is_key: whether a decoder may begin with it.
    """

    data: bytes
    is_key: bool


class H264Encoder:
    """Codes frames, of whatever size and colour comes; begins anew by itself when those change. Owned by one thread."""

    def __init__(self) -> None:
        self._context: Any = None
        self._shape: tuple[Any, ...] = ()
        self._number = 0

    def encode(self, frame: Frame, *, key: bool = False) -> Packet:
        """Code a frame.

        Args:
            frame: odd sides are padded by repeating the edge, since 4:2:0 needs even ones.
            key: make it a key picture.

        Raises:
            OutputError: x264 refused, or FFmpeg was built without it.
        """
        try:
            return self._encode(frame, key)
        except (FFmpegError, ValueError) as cause:
            self.close()
            raise OutputError(f"H.264: {frame.width}x{frame.height} could not be coded ({cause}); use JPEG") from cause

    def close(self) -> None:
        """Let go of the encoder; the next frame opens another one."""
        self._context = None

    def _encode(self, frame: Frame, key: bool) -> Packet:
        shape = (frame.width, frame.height, frame.colour)
        if self._context is None or self._shape != shape:
            self._context, self._shape, self._number = _open(frame), shape, 0
        picture = av.VideoFrame(self._context.width, self._context.height, LAYOUT.pix_fmt)
        fill(picture, frame, LAYOUT)
        picture.pts, picture.time_base = self._number * 40, TICKS
        picture.pict_type = PictureType.I if key else PictureType.NONE
        self._number += 1
        packets = self._context.encode(picture)
        return Packet(b"".join(bytes(packet) for packet in packets), any(packet.is_keyframe for packet in packets))


def _open(frame: Frame) -> Any:
    context: Any = av.CodecContext.create("libx264", "w")
    context.width, context.height = frame.width + frame.width % 2, frame.height + frame.height % 2
    context.pix_fmt, context.time_base, context.framerate = LAYOUT.pix_fmt, TICKS, Fraction(25)
    colour = frame.colour
    context.colorspace, context.color_range = colour.matrix, 2 if colour.full_range else 1
    context.color_primaries, context.color_trc = colour.primaries, colour.transfer
    context.gop_size, context.max_b_frames = LONGEST_GROUP, 0
    context.options = dict(OPTIONS)
    context.open()
    return context
