"""What a video file that is to become a DICOM object holds: codec, profile, level, size and times, from its packets."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av

from streamsr.errors import UsageError

CONTAINERS = ("mp4", "mpegts")
"""What H.264 and HEVC lie in (PS3.5, 8.2.7 to 8.2.11), as FFmpeg names them."""

FORMATS = frozenset({"yuv420p", "yuvj420p"})


@dataclass(frozen=True)
class Bitstream:
    """A video file, as far as a DICOM object states it.

    Attributes:
        codec: FFmpeg's name of the decoder.
        profile: as FFmpeg names it.
        level: as FFmpeg counts it.
        width: in pixels.
        height: in pixels.
        rate: frames a second, over the whole length.
        times_s: of the pictures, rising.
        num_bytes: of the file.
        has_sound: whether there are tracks of sound.
    """

    codec: str
    profile: str | None
    level: int
    width: int
    height: int
    rate: Fraction
    times_s: tuple[Fraction, ...]
    num_bytes: int
    has_sound: bool

    @property
    def is_constant(self) -> bool:
        """Whether all pictures follow at one distance, to a millisecond."""
        steps = [later - earlier for earlier, later in pairwise(self.times_s)]
        return not steps or max(abs(step - 1 / self.rate) for step in steps) < Fraction(1, 1000)


def read_bitstream(path: Path) -> Bitstream:
    """Read what a video file holds; its packets are read, no picture is decoded.

    Raises:
        UsageError: it is no MP4 or MPEG-TS with 8-bit 4:2:0 pictures of square pixels.
        FFmpegError: it cannot be read.
    """
    with av.open(str(path.absolute())) as container:
        names = container.format.name.split(",")
        if not set(names) & set(CONTAINERS) or len(container.streams.video) != 1:
            raise UsageError(
                f"expected an MP4 or MPEG-TS file with one video track, got {container.format.name}; convert it first"
            )
        video = container.streams.video[0]
        context = video.codec_context
        if context.pix_fmt not in FORMATS:
            raise UsageError(f"DICOM video is 8-bit 4:2:0: expected yuv420p, got {context.pix_fmt}; encode it again")
        if (video.sample_aspect_ratio or 1) != 1:
            raise UsageError(f"DICOM video has square pixels: expected 1:1, got {video.sample_aspect_ratio}")
        ticks = sorted(packet.pts for packet in container.demux(video) if packet.pts is not None and packet.size)
        if not ticks:
            raise UsageError("expected a video with pictures, got none; make it again")
        time_base = video.time_base or Fraction(1)
        length_s = (ticks[-1] - ticks[0]) * time_base
        rate = (len(ticks) - 1) / length_s if length_s else Fraction(video.average_rate or 25)
        return Bitstream(
            codec=context.name,
            profile=context.profile,
            level=context.level,
            width=context.width,
            height=context.height,
            rate=rate,
            times_s=tuple(tick * time_base for tick in ticks),
            num_bytes=path.stat().st_size,
            has_sound=bool(container.streams.audio),
        )
