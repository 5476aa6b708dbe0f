"""Encoders: which there are, which open on this machine, and which fits a picture.

An encoder that is listed may still not open (no such GPU, a driver too old, a build without it), so each is tried by
encoding two small frames; nothing else is believed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Any

import av
from av.error import FFmpegError

from streamsr.errors import UsageError
from streamsr.frame import PlaneLayout
from streamsr.sinks.planes import LAYOUTS, SUBSAMPLING, describe_change, loss

PROBE_SIZE_PX = (256, 192)
"""Width and height of a probe: above every encoder's smallest picture (hevc_nvenc refuses 128 pixels)."""

AUTO = ("h264_nvenc", "libx264")
"""What ``auto`` tries, in this order: both make H.264, which plays everywhere."""


@dataclass(frozen=True)
class EncoderSettings:
    """How a recording is encoded.

    Attributes:
        codec: a name of `ENCODERS`, or ``auto``.
        crf: constant quality, 0 to 63 (51 for H.264 and HEVC), smaller is better; unused where the codec has none.
        preset: the encoder's speed preset; None takes the one in `ENCODERS`.
        pix_fmt: FFmpeg name of a planar layout, or ``auto`` for the frame's own or the nearest.
        lossless: every sample as it is.
        threads: of the encoder; 0 lets it choose.
    """

    codec: str = "libx264"
    crf: float = 16
    preset: str | None = None
    pix_fmt: str = "auto"
    lossless: bool = False
    threads: int = 0

    def __post_init__(self) -> None:
        if self.codec != "auto" and self.codec not in ENCODERS:
            raise UsageError(f"no encoder {self.codec!r}: choose one of auto, {', '.join(ENCODERS)}")
        if self.pix_fmt != "auto" and self.pix_fmt not in LAYOUTS:
            raise UsageError(f"no pixel format {self.pix_fmt!r}: choose auto or one of {', '.join(LAYOUTS)}")
        if not 0 <= self.crf <= 63:
            raise UsageError(f"expected a crf from 0 to 63, got {self.crf:g}")
        if self.threads < 0:
            raise UsageError(f"expected threads of 0 (the encoder's choice) or more, got {self.threads}")


@dataclass(frozen=True)
class Encoder:
    """How one encoder is told what a recording wants.

    Attributes:
        title: for the user.
        quality: its option for `EncoderSettings.crf`; empty where it has none.
        preset: its default speed; empty where it has none.
        fixed: options that are always set.
        lossless: options that make it lossless; None where it cannot be.
    """

    title: str
    quality: str = ""
    preset: str = ""
    fixed: dict[str, str] = field(default_factory=dict)
    lossless: dict[str, str] | None = None


NVENC = {"rc": "vbr", "b": "0", "tune": "hq"}

ENCODERS = {
    "libx264": Encoder("H.264", "crf", "superfast", lossless={"qp": "0"}),
    "libx265": Encoder(
        "HEVC", "crf", "superfast", {"x265-params": "log-level=none"}, {"x265-params": "lossless=1:log-level=none"}
    ),
    "libsvtav1": Encoder("AV1", "crf", "10", lossless={"svtav1-params": "lossless=1"}),
    "ffv1": Encoder("FFV1, always lossless", fixed={"level": "3", "slicecrc": "1", "g": "1"}, lossless={}),
    "prores_ks": Encoder("ProRes 422 HQ", fixed={"profile": "hq"}),
    "h264_nvenc": Encoder(
        "H.264 on an NVIDIA GPU", "cq", "p5", NVENC, {"tune": "lossless", "rc": "constqp", "qp": "0"}
    ),
    "hevc_nvenc": Encoder("HEVC on an NVIDIA GPU", "cq", "p5", NVENC, {"tune": "lossless", "rc": "constqp", "qp": "0"}),
}
"""Encoders that streamsr knows how to ask for a quality, in the order they are listed to the user."""


@dataclass(frozen=True)
class Encoding:
    """An encoder and the picture it will be given.

    Attributes:
        codec: a name of `ENCODERS`.
        layout: what the encoder is given.
        width: even where the encoder needs it, in pixels.
        height: even where the encoder needs it, in pixels.
        options: FFmpeg options of the encoder.
        threads: of the encoder; 0 lets it choose.
        notices: how this differs from the frame, one line each.
    """

    codec: str
    layout: PlaneLayout
    width: int
    height: int
    options: dict[str, str]
    threads: int = 0
    notices: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        """Codec, pixel format and options in one line, for the sidecar."""
        options = " ".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.codec} {self.layout.pix_fmt} {self.width}x{self.height} {options}".rstrip()


def available_encoders() -> dict[str, str | None]:
    """Try every encoder; return name to None where it works, else to the reason why not."""
    return {name: probe_encoder(name) for name in ENCODERS}


def probe_encoder(
    name: str,
    pix_fmt: str | None = None,
    *,
    width: int = PROBE_SIZE_PX[0],
    height: int = PROBE_SIZE_PX[1],
    options: dict[str, str] | None = None,
) -> str | None:
    """Encode two gray frames; return None where that works, else the reason in FFmpeg's words.

    Args:
        name: FFmpeg's name of the encoder.
        pix_fmt: the pixel format to open it with; None takes the first one it lists.
        width: of the frames in pixels.
        height: of the frames in pixels.
        options: of the encoder.
    """
    chosen = ENCODERS[name].fixed if options is None and name in ENCODERS else options or {}
    return _probe(name, pix_fmt, width, height, tuple(sorted(chosen.items())))


@lru_cache(maxsize=256)
def _probe(name: str, pix_fmt: str | None, width: int, height: int, options: tuple[tuple[str, str], ...]) -> str | None:
    silence_encoders()
    try:
        context: Any = av.CodecContext.create(name, "w")
        context.width, context.height = width, height
        context.pix_fmt = pix_fmt or _first_format(name)
        context.time_base, context.framerate = Fraction(1, 25), Fraction(25)
        context.options = dict(options)
        for pts in range(2):
            picture = av.VideoFrame(width, height, context.pix_fmt)
            for plane in picture.planes:
                plane.update(b"\x80" * plane.buffer_size)
            picture.pts, picture.time_base = pts, Fraction(1, 25)
            context.encode(picture)
        context.encode(None)
    except (FFmpegError, ValueError) as refusal:
        return getattr(refusal, "strerror", None) or str(refusal)
    return None


def silence_encoders() -> None:
    """Keep SVT-AV1 from writing its banner to standard error: it listens to nothing but this variable."""
    os.environ.setdefault("SVT_LOG", "1")


def _first_format(name: str) -> str:
    return next(iter(formats_of(name)), "yuv420p")


def formats_of(name: str) -> list[str]:
    """Return the pixel formats an encoder lists that a frame can be fitted to, in its order.

    Raises:
        ValueError: FFmpeg has no such encoder.
    """
    return [entry.name for entry in av.Codec(name, "w").video_formats or () if entry.name in LAYOUTS]


def choose_encoding(settings: EncoderSettings, layout: PlaneLayout, width: int, height: int) -> Encoding:
    """Find the encoder, the pixel format and the size for a picture, by trying them.

    The frame's own layout is taken where the encoder opens with it; else the nearest in the order of `planes.loss`. A
    side that the encoder refuses because it is odd grows by one pixel.

    Args:
        settings: what is wanted.
        layout: of the frames.
        width: of the frames in pixels.
        height: of the frames in pixels.

    Raises:
        UsageError: the encoder does not work here, or cannot keep what `settings` says is to be kept.
    """
    refusals = []
    for codec in AUTO if settings.codec == "auto" else (settings.codec,):
        found = _try_codec(codec, settings, layout, width, height)
        if isinstance(found, Encoding):
            return found
        refusals.append(found)
    working = [name for name, reason in available_encoders().items() if reason is None]
    raise UsageError(f"{'; '.join(refusals)}: choose one of the encoders that work here: {', '.join(working)}")


def _try_codec(codec: str, settings: EncoderSettings, layout: PlaneLayout, width: int, height: int) -> Encoding | str:
    """Return the encoding, or why this codec cannot do it."""
    options, reason = _options(codec, settings), None
    try:
        targets = _targets(codec, settings, layout)
    except ValueError:
        return f"FFmpeg was built without {codec}"
    if not targets:
        return f"{codec} cannot hold {settings.pix_fmt if settings.pix_fmt != 'auto' else layout.pix_fmt} pictures"
    for target in targets:
        for size in _sizes(width, height):
            reason = probe_encoder(codec, target.pix_fmt, width=size[0], height=size[1], options=options)
            if reason is None:
                notices = _notices(codec, layout, target, (width, height), size)
                return Encoding(codec, target, *size, options, settings.threads, notices)
    shown = " ".join(f"{name}={value}" for name, value in options.items())
    return f"{codec} does not open for {width}x{height} {layout.pix_fmt} {shown} ({reason})"


def _targets(codec: str, settings: EncoderSettings, layout: PlaneLayout) -> list[PlaneLayout]:
    """Return the layouts to try, nearest first; with lossless only those that hold every sample."""
    listed = [LAYOUTS[name] for name in formats_of(codec)]
    if settings.pix_fmt != "auto":
        return [target for target in listed if target.pix_fmt == settings.pix_fmt]
    kept = [target for target in listed if loss(layout, target)[0] < 9]
    if settings.lossless:
        kept = [target for target in kept if target == layout]
    return sorted(kept, key=lambda target: loss(layout, target))[:2]


def _sizes(width: int, height: int) -> list[tuple[int, int]]:
    even = (width + width % 2, height + height % 2)
    return [(width, height)] if even == (width, height) else [(width, height), even]


def _options(codec: str, settings: EncoderSettings) -> dict[str, str]:
    encoder = ENCODERS[codec]
    options = dict(encoder.fixed)
    preset = settings.preset or encoder.preset
    if encoder.preset:
        options["preset"] = preset
    if not settings.lossless:
        return options | ({encoder.quality: f"{settings.crf:g}"} if encoder.quality else {})
    if encoder.lossless is None:
        raise UsageError(f"{codec} has no lossless mode: choose ffv1, libx264 or libx265, or drop lossless")
    return options | encoder.lossless


def _notices(
    codec: str, layout: PlaneLayout, target: PlaneLayout, size: tuple[int, int], padded: tuple[int, int]
) -> tuple[str, ...]:
    notices = [f"{change} for {codec}" for change in describe_change(layout, target)]
    if padded != size:
        held = SUBSAMPLING[target.chroma_shift]
        notices.append(
            f"picture padded from {size[0]}x{size[1]} to {padded[0]}x{padded[1]} by repeating its edge:"
            f" {codec} holds no odd sizes at {held}"
        )
    return tuple(notices)
