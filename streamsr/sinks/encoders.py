"""Encoders: which there are, which open on this machine, and which fits a picture.

An encoder that is listed may still not open (no such GPU, a driver too old, a build without it), so each is tried by
encoding two small frames; nothing else is believed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import av
from av.error import FFmpegError

from streamsr.errors import UsageError
from streamsr.frame import PlaneLayout
from streamsr.sinks.planes import LAYOUTS, SUBSAMPLING, describe_change, loss
from streamsr.sinks.settings import ENCODERS, EncoderSettings

PROBE_SIZE_PX = (256, 192)
"""Width and height of a probe: above every encoder's smallest picture (hevc_nvenc refuses 128 pixels)."""

NEEDS_GPU = "needs an NVIDIA GPU with an encoder"


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
    """Encode two gray frames; return None where that works, else the reason, mostly in FFmpeg's words.

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
        # FFmpeg's "operation not permitted" is its word for a driver that it cannot load.
        if name.endswith("_nvenc") and isinstance(refusal, PermissionError):
            return NEEDS_GPU
        return getattr(refusal, "strerror", None) or str(refusal)
    return None


def silence_encoders() -> None:
    """Keep SVT-AV1 from writing to standard error: it listens to nothing but this variable."""
    os.environ.setdefault("SVT_LOG", "0")


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
    for codec in settings.candidates:
        found = _try_codec(codec, settings, layout, width, height)
        if isinstance(found, Encoding):
            return found
        refusals.append(found)
    raise UsageError("; ".join(refusals))


def _try_codec(codec: str, settings: EncoderSettings, layout: PlaneLayout, width: int, height: int) -> Encoding | str:
    """Return the encoding, or why this codec cannot do it."""
    options, reason = _options(codec, settings), None
    if settings.preset is not None and ENCODERS[codec].presets and settings.preset not in ENCODERS[codec].presets:
        return f"{codec} has no preset {settings.preset!r}: choose another, or name the codec"
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
    return _blame(codec, targets[0], width, height, options, reason)


def _blame(
    codec: str, target: PlaneLayout, width: int, height: int, options: dict[str, str], reason: str | None
) -> str:
    """Say what was refused: the encoder itself, the size, the format or the options."""
    if probe_encoder(codec) is not None:
        working = [name for name, refusal in available_encoders().items() if refusal is None]
        return f"{codec} does not open ({reason}): choose one of the encoders that work here: {', '.join(working)}"
    if probe_encoder(codec, target.pix_fmt, options=options) is None:
        return f"{codec} refuses the size {width}x{height} ({reason}): choose another scale, or ffv1"
    if probe_encoder(codec, target.pix_fmt) is None:
        shown = " ".join(f"{name}={value}" for name, value in options.items())
        return f"{codec} refuses {shown} ({reason}): choose another preset or crf"
    return f"{codec} refuses {target.pix_fmt} pictures ({reason}): choose another pixel format"


def _targets(codec: str, settings: EncoderSettings, layout: PlaneLayout) -> list[PlaneLayout]:
    """Return the layouts to try, nearest first; with lossless only those that hold every sample."""
    listed = [LAYOUTS[name] for name in formats_of(codec)]
    if settings.pix_fmt != "auto":
        return [target for target in listed if target.pix_fmt == settings.pix_fmt]
    kept = [target for target in listed if loss(layout, target)[0] < 9]
    if layout.chroma_shift is None and not ENCODERS[codec].tags_gray:
        kept = [target for target in kept if target.chroma_shift is not None]
    if settings.lossless:
        kept = [target for target in kept if _holds(target, layout)]
    return sorted(kept, key=lambda target: loss(layout, target))[:2]


def _holds(target: PlaneLayout, layout: PlaneLayout) -> bool:
    """Return whether a layout keeps every sample as it is; gray may get neutral chroma beside it."""
    return target.bit_depth == layout.bit_depth and layout.chroma_shift in (target.chroma_shift, None)


def _sizes(width: int, height: int) -> list[tuple[int, int]]:
    even = (width + width % 2, height + height % 2)
    return [(width, height)] if even == (width, height) else [(width, height), even]


def _options(codec: str, settings: EncoderSettings) -> dict[str, str]:
    encoder = ENCODERS[codec]
    options = encoder.fixed | dict(settings.limits)
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
