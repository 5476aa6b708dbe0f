"""LiveEncoder: presented pictures of one shape into packets: out at once, in order, at their real times.

What encoding costs, measured with one thread on one core of a virtual machine: libx264 superfast takes 3.4 ms for
640x640 and 4.4 ms for 1280x720 of surgery (4 and 5 % of two cores at 25 frames a second); veryfast takes 1.7 times as
much for a quarter less data, ultrafast half for a tenth to a third more.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import av
from av.video.frame import PictureType

from streamsr.config import RecordSettings, usable_cores
from streamsr.frame import Frame
from streamsr.sinks.encoders import choose_encoding
from streamsr.sinks.live_log import Moment
from streamsr.sinks.settings import ENCODERS, EncoderSettings
from streamsr.sinks.tracks import close_quietly
from streamsr.sinks.video_track import KEYFRAME_S, add_video_track, make_picture, shape_of

TIME_BASE = Fraction(1, 1000)
"""Milliseconds, which is what Matroska stores."""

NOMINAL_RATE = Fraction(25)
"""What the encoder's rate control starts from; times are real ones, whatever the rate."""

KEYFRAME_LIMIT = 1000
"""Frames without a key frame at most; far above what `KEYFRAME_S` allows, so that time alone decides."""

HEAVY_PX = 1280 * 1024
"""Pixels above which x264 and x265 encode with their fastest preset: 1080p60 would fill a core with the next one."""


@dataclass(frozen=True)
class Coded:
    """One encoded picture.

    Attributes:
        packet: the PyAV packet, times in `TIME_BASE`.
        at_ms: its time on `time.monotonic`'s clock in milliseconds.
        is_key: whether decoding may begin with it.
        moment: what is remembered of the picture.
        encoder: what made it; a file holds the packets of one encoder.
    """

    packet: Any
    at_ms: int
    is_key: bool
    moment: Moment
    encoder: LiveEncoder


class LiveEncoder:
    """Encodes pictures of one shape; owned by the recording thread.

    There are no B-frames and no look-ahead, so that a kill costs no more than what the file had not flushed. Key frames
    come every `KEYFRAME_S` seconds of real time, at any rate. x264 holds one picture back, to know how long it lasts.

    Args:
        first: the first picture, for size, layout, colour and sample aspect.
        settings: codec, quality and preset.

    Attributes:
        shape: of the pictures, as `shape_of` says.
        colour: what their samples mean, for the sidecar.
        encoding: encoder, layout and size, for the sidecar.
        track: the PyAV stream that files copy their track from.

    Raises:
        UsageError: the encoder does not work here, or cannot hold such pictures.
    """

    def __init__(self, first: Frame, settings: RecordSettings) -> None:
        self.shape, self.colour = shape_of(first), first.colour
        wanted = encoder_settings(settings, first.width, first.height)
        found = choose_encoding(wanted, first.layout, first.width, first.height)
        self.encoding = replace(found, options=found.options | ENCODERS[found.codec].live)
        # A container in memory that never gets a packet: it gives the encoder its place before there is a file.
        self._nowhere = av.open(io.BytesIO(), "w", format="matroska")
        self.track = add_video_track(
            self._nowhere,
            self.encoding,
            first,
            rate=NOMINAL_RATE,
            time_base=TIME_BASE,
            options={"g": str(KEYFRAME_LIMIT)},
        )
        self._nowhere.start_encoding()
        self._moments: dict[int, Moment] = {}
        self._key_ms: int | None = None

    def encode(self, frame: Frame, at_ms: int, moment: Moment) -> list[Coded]:
        """Encode the next picture.

        Args:
            frame: of this encoder's shape; not needed after this returns.
            at_ms: its time, above the last one's.
            moment: what is to be remembered of it.

        Returns:
            What came out: mostly the picture before.
        """
        picture = make_picture(frame, self.encoding)
        picture.pts, picture.time_base = at_ms, TIME_BASE
        if self._key_ms is None or at_ms - self._key_ms >= KEYFRAME_S * 1000:
            picture.pict_type, self._key_ms = PictureType.I, at_ms
        self._moments[at_ms] = moment
        return self._name(self.track.encode(picture))

    def drain(self) -> list[Coded]:
        """Return what the encoder still holds; it takes no more pictures."""
        try:
            return self._name(self.track.encode(None))
        finally:
            self.close()

    def abandon(self) -> int:
        """Let go of what the encoder still holds, for which there is no time; return how many pictures that are."""
        self.close()
        return len(self._moments)

    def close(self) -> None:
        """Give its memory free as soon as no file needs `track`; without this only Python's cycle collector would."""
        close_quietly(self._nowhere)

    def _name(self, packets: list[Any]) -> list[Coded]:
        return [
            Coded(packet, packet.pts, bool(packet.is_keyframe), self._moments.pop(packet.pts), self)
            for packet in packets
        ]


def encoder_settings(settings: RecordSettings, width: int, height: int) -> EncoderSettings:
    """Return how pictures of a size are encoded live: few threads, so that the generator keeps its cores."""
    preset = settings.preset
    if preset is None and settings.codec in ("libx264", "libx265") and width * height > HEAVY_PX:
        preset = "ultrafast"
    threads = 1 if usable_cores() <= 2 else 2
    return EncoderSettings(codec=settings.codec, crf=settings.crf, preset=preset, threads=threads)
