"""Transfer syntaxes that hold video (PS3.5, 8.2.5 to 8.2.11), and which of them has room for a picture and a rate.

A syntax names a profile and a level, and the level bounds the picture: H.264 counts macroblocks of 16x16 (Rec. ITU-T
H.264, table A-1), HEVC luma samples (Rec. ITU-T H.265, tables A.8 and A.9).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import isqrt

from streamsr.errors import UsageError

VIDEO = {
    "1.2.840.10008.1.2.4.100": "mpeg2video",
    "1.2.840.10008.1.2.4.101": "mpeg2video",
    "1.2.840.10008.1.2.4.102": "h264",
    "1.2.840.10008.1.2.4.103": "h264",
    "1.2.840.10008.1.2.4.104": "h264",
    "1.2.840.10008.1.2.4.105": "h264",
    "1.2.840.10008.1.2.4.106": "h264",
    "1.2.840.10008.1.2.4.107": "hevc",
    "1.2.840.10008.1.2.4.108": "hevc",
}
"""Every transfer syntax of video, and the codec that FFmpeg should find in it. A ``.1`` behind says fragmentable."""

METHODS = {"mpeg2video": "ISO_13818_2", "h264": "ISO_14496_10", "hevc": "ISO_23008_2"}
"""Lossy Image Compression Method (PS3.3, C.7.6.1.1.5.1) by codec."""


@dataclass(frozen=True)
class VideoSyntax:
    """A transfer syntax that can be written.

    Attributes:
        uid: where the bitstream is one fragment.
        fragmentable_uid: where it is more, above 4 GB.
        title: for the user.
        codec: FFmpeg's name of the decoder.
        profiles: of the bitstream, as FFmpeg names them.
        level: highest of the bitstream, as FFmpeg counts it.
        unit_px: side of what the level counts.
        most_units: in a picture.
        most_units_s: in a second.
        bit_rate_kbit: highest of the bitstream, a second.
        buffer_kbit: of the decoder.
    """

    uid: str
    fragmentable_uid: str
    title: str
    codec: str
    profiles: tuple[str, ...]
    level: int
    unit_px: int
    most_units: int
    most_units_s: int
    bit_rate_kbit: int
    buffer_kbit: int

    def units(self, width: int, height: int) -> int:
        """Return what the level counts in a picture of this size."""
        return -(-width // self.unit_px) * -(-height // self.unit_px)

    def refusal(self, width: int, height: int, rate: Fraction) -> str | None:
        """Return None where a video fits, else what is too much.

        >>> H264_LEVEL_41.refusal(1920, 1080, Fraction(30))
        >>> H264_LEVEL_41.refusal(1920, 1080, Fraction(60))
        'holds 1920x1080 up to 30.1 fps'
        """
        units = self.units(width, height)
        if units > self.most_units or max(width, height) > isqrt(8 * self.most_units) * self.unit_px:
            return f"holds pictures up to {self.most_units * self.unit_px**2 / 1e6:.1f} million pixels"
        if units * rate > self.most_units_s:
            return f"holds {width}x{height} up to {int(10 * self.most_units_s / units) / 10:g} fps"
        return None


H264_LEVEL_41 = VideoSyntax(
    "1.2.840.10008.1.2.4.102",
    "1.2.840.10008.1.2.4.102.1",
    "H.264 High Profile / Level 4.1",
    "h264",
    profiles=("High", "Main", "Constrained Baseline", "Progressive High", "Constrained High"),
    level=41,
    unit_px=16,
    most_units=8192,
    most_units_s=245_760,
    bit_rate_kbit=62_500,
    buffer_kbit=78_125,
)
H264_LEVEL_42 = VideoSyntax(
    "1.2.840.10008.1.2.4.104",
    "1.2.840.10008.1.2.4.104.1",
    "H.264 High Profile / Level 4.2 for 2D video",
    "h264",
    profiles=H264_LEVEL_41.profiles,
    level=42,
    unit_px=16,
    most_units=8704,
    most_units_s=522_240,
    bit_rate_kbit=62_500,
    buffer_kbit=78_125,
)
HEVC_LEVEL_51 = VideoSyntax(
    "1.2.840.10008.1.2.4.107",
    "1.2.840.10008.1.2.4.107",
    "HEVC Main Profile / Level 5.1",
    "hevc",
    profiles=("Main",),
    level=153,  # 30 times the level
    unit_px=1,
    most_units=8_912_896,
    most_units_s=534_773_760,
    bit_rate_kbit=40_000,  # of the Main tier
    buffer_kbit=40_000,
)
WRITTEN = (H264_LEVEL_41, H264_LEVEL_42, HEVC_LEVEL_51)
"""What is written, the one that most readers know first."""


def codec_of(uid: str) -> str | None:
    """Return the codec of a transfer syntax of video; None for any other syntax."""
    return VIDEO.get(uid) or VIDEO.get(uid.removesuffix(".1"))


def choose_syntax(codecs: tuple[str, ...], width: int, height: int, rate: Fraction) -> VideoSyntax:
    """Return the first transfer syntax that holds a video.

    Args:
        codecs: those that may be used, as FFmpeg names their decoders.
        width: of the picture, in pixels.
        height: of the picture, in pixels.
        rate: frames a second.

    Raises:
        UsageError: none holds it.
    """
    reasons = []
    for syntax in WRITTEN:
        if syntax.codec in codecs:
            reason = syntax.refusal(width, height, rate)
            if reason is None:
                return syntax
            reasons.append(f"{syntax.title} {reason}")
    raise UsageError(
        f"no DICOM video holds {width}x{height} at {float(rate):g} fps: {'; '.join(reasons)}; "
        "take a smaller scale, or write .mkv"
    )


def match_syntax(codec: str, profile: str | None, level: int, width: int, height: int, rate: Fraction) -> VideoSyntax:
    """Return the transfer syntax of a bitstream that is there.

    Args:
        codec: FFmpeg's name of its decoder.
        profile: as FFmpeg names it; None where it is not known.
        level: as FFmpeg counts it.
        width: of the picture, in pixels.
        height: of the picture, in pixels.
        rate: frames a second.

    Raises:
        UsageError: none holds it.
    """
    for syntax in WRITTEN:
        known = syntax.codec == codec and profile in syntax.profiles and level <= syntax.level
        if known and syntax.refusal(width, height, rate) is None:
            return syntax
    titles = ", ".join(syntax.title for syntax in WRITTEN)
    raise UsageError(
        f"no DICOM video holds {codec} of profile {profile}, level {level}, {width}x{height} at {float(rate):g} fps: "
        f"expected one of {titles}; encode it again"
    )
