"""Settings: how a recording is to be encoded, and how each encoder is told so."""

from __future__ import annotations

from dataclasses import dataclass, field

from streamsr.errors import UsageError
from streamsr.sinks.planes import LAYOUTS

AUTO = ("h264_nvenc", "libx264")
"""What ``auto`` tries, in this order: both make H.264, which plays everywhere."""


@dataclass(frozen=True)
class EncoderSettings:
    """How a recording is encoded.

    Attributes:
        codec: a name of `ENCODERS`, or ``auto``.
        crf: constant quality, 0 to 63 (51 for H.264 and HEVC), smaller is better; unused where the codec has none.
        preset: one of the encoder's speed presets; None takes the one in `ENCODERS`. Unused where the codec has none.
        pix_fmt: FFmpeg name of a planar layout, or ``auto`` for the frame's own or the nearest.
        lossless: every sample as it is.
        threads: of the encoder; 0 lets it choose.
        limits: options of the encoder that a container asks for, as (key, value) pairs.
    """

    codec: str = "libx264"
    crf: float = 16
    preset: str | None = None
    pix_fmt: str = "auto"
    lossless: bool = False
    threads: int = 0
    limits: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.codec != "auto" and self.codec not in ENCODERS:
            raise UsageError(f"no encoder {self.codec!r}: choose one of auto, {', '.join(ENCODERS)}")
        if self.pix_fmt != "auto" and self.pix_fmt not in LAYOUTS:
            raise UsageError(f"no pixel format {self.pix_fmt!r}: choose auto or one of {', '.join(LAYOUTS)}")
        self._check_quality()
        self._check_preset()
        if self.threads < 0:
            raise UsageError(f"expected threads of 0 (the encoder's choice) or more, got {self.threads}")

    @property
    def candidates(self) -> tuple[str, ...]:
        """The encoders to try, in this order."""
        return AUTO if self.codec == "auto" else (self.codec,)

    def _check_quality(self) -> None:
        highest = max(ENCODERS[name].highest_crf for name in self.candidates)
        if not 0 <= self.crf <= highest:
            raise UsageError(f"crf: expected 0 to {highest} for {self.codec}, got {self.crf:g}; 16 is the default")

    def _check_preset(self) -> None:
        # Known here, since x264 writes about an unknown one to standard error, past every way of keeping it quiet.
        known = [preset for name in self.candidates for preset in ENCODERS[name].presets]
        if self.preset is not None and known and self.preset not in known:
            expected = ", ".join(dict.fromkeys(known))
            raise UsageError(f"preset: expected one of {expected} for {self.codec}, got {self.preset!r}")


@dataclass(frozen=True)
class Encoder:
    """How one encoder is told what a recording wants.

    Attributes:
        title: for the user.
        quality: its option for `EncoderSettings.crf`; empty where it has none.
        preset: its default speed; empty where it has none.
        fixed: options that are always set.
        lossless: options that make it lossless; None where it cannot be.
        presets: the speeds that it knows.
        highest_crf: the largest value that `quality` takes.
        tags_gray: whether pictures without chroma keep their colour tags.
        live: options that are set instead where pictures come live: out at once and in order, key frames on demand.
    """

    title: str
    quality: str = ""
    preset: str = ""
    fixed: dict[str, str] = field(default_factory=dict)
    lossless: dict[str, str] | None = None
    presets: tuple[str, ...] = ()
    highest_crf: int = 51
    tags_gray: bool = True
    live: dict[str, str] = field(default_factory=dict)


X26X_PRESETS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast"),
    *("medium", "slow", "slower", "veryslow", "placebo"),
)
NVENC_PRESETS = ("p1", "p2", "p3", "p4", "p5", "p6", "p7", "fast", "medium", "slow", "hp", "hq")
AV1_PRESETS = tuple(str(speed) for speed in range(14))
NVENC_LIVE = {"delay": "0", "rc-lookahead": "0", "forced-idr": "1"}
NVENC = {"rc": "vbr", "b": "0", "tune": "hq"}
NVENC_LOSSLESS = {"tune": "lossless", "rc": "constqp", "qp": "0"}

ENCODERS = {
    # x264 codes gray, but never states a matrix with it, and few players show such files.
    "libx264": Encoder(
        "H.264",
        "crf",
        "superfast",
        lossless={"qp": "0"},
        presets=X26X_PRESETS,
        tags_gray=False,
        live={"bf": "0", "rc-lookahead": "0", "forced-idr": "1"},
    ),
    "libx265": Encoder(
        "HEVC",
        "crf",
        "superfast",
        {"x265-params": "log-level=none"},
        {"x265-params": "lossless=1:log-level=none"},
        presets=X26X_PRESETS,
        live={
            "x265-params": "log-level=none:bframes=0:b-adapt=0:rc-lookahead=0:frame-threads=1:scenecut=0",
            "forced-idr": "1",
        },
    ),
    "libsvtav1": Encoder(
        "AV1",
        "crf",
        "10",
        lossless={"svtav1-params": "lossless=1"},
        presets=AV1_PRESETS,
        highest_crf=63,
        live={"svtav1-params": "pred-struct=1:lookahead=0"},
    ),
    "ffv1": Encoder(
        "FFV1, always lossless", fixed={"level": "3", "slicecrc": "1", "g": "1"}, lossless={}, highest_crf=63
    ),
    "prores_ks": Encoder("ProRes 422 HQ", fixed={"profile": "hq"}, highest_crf=63),
    "h264_nvenc": Encoder(
        "H.264 on an NVIDIA GPU", "cq", "p5", NVENC, NVENC_LOSSLESS, presets=NVENC_PRESETS, live=NVENC_LIVE
    ),
    "hevc_nvenc": Encoder(
        "HEVC on an NVIDIA GPU", "cq", "p5", NVENC, NVENC_LOSSLESS, presets=NVENC_PRESETS, live=NVENC_LIVE
    ),
}
"""Encoders that streamsr knows how to ask for a quality, in the order they are listed to the user."""
