"""The video track of a file: what it states once, its encoder, and the pictures that the encoder is given."""

from __future__ import annotations

from fractions import Fraction
from math import floor
from typing import Any

import av

from streamsr.frame import Colour, Frame, Siting
from streamsr.sinks.encoders import Encoding
from streamsr.sinks.planes import fill

SITING_NAMES = {
    Siting.LEFT: "left",
    Siting.CENTRE: "center",
    Siting.TOP_LEFT: "topleft",
    Siting.TOP: "top",
    Siting.BOTTOM_LEFT: "bottomleft",
    Siting.BOTTOM: "bottom",
}
"""The sitings that H.264 and its followers can state; those on the right have no code."""

KEYFRAME_S = 2
"""Longest time between key frames: what a viewer waits for when seeking, and what a power failure can cost."""


def shape_of(frame: Frame) -> tuple[Any, ...]:
    """Return what a video track states once, so that it cannot change within a file."""
    colour = frame.colour
    tags = (colour.matrix, colour.full_range, colour.primaries, colour.transfer, colour.siting)
    return (frame.width, frame.height, frame.layout, tags, frame.sample_aspect)


def add_video_track(
    container: Any, encoding: Encoding, first: Frame, *, rate: Fraction, time_base: Fraction, options: dict[str, str]
) -> Any:
    """Add a video track with its encoder to an output container; return the PyAV stream.

    Args:
        container: before its header is written.
        encoding: encoder, layout and size of the picture.
        first: the first frame, for colour and sample aspect.
        rate: frames a second, nominal.
        time_base: of the times that pictures will carry.
        options: further ones of the encoder; those of ``encoding`` win.
    """
    options = options | encoding.options
    if first.layout.chroma_shift in ((1, 1), (1, 0)) and first.colour.siting in SITING_NAMES:
        options["chroma_sample_location"] = SITING_NAMES[first.colour.siting]
    video: Any = container.add_stream(
        encoding.codec, rate=rate, options=options, width=encoding.width, height=encoding.height, time_base=time_base
    )
    context = video.codec_context
    context.pix_fmt, context.time_base = encoding.layout.pix_fmt, time_base
    context.sample_aspect_ratio = first.sample_aspect
    context.thread_count = encoding.threads
    if "265" in encoding.codec or encoding.codec == "hevc_nvenc":
        context.codec_tag = "hvc1"  # what players of one large vendor insist on; Matroska ignores it
    _tag_colour(context, first.colour)
    return video


def make_picture(frame: Frame, encoding: Encoding) -> Any:
    """Return a frame as the encoder takes it, tagged, without a time."""
    picture = av.VideoFrame(encoding.width, encoding.height, encoding.layout.pix_fmt)
    fill(picture, frame, encoding.layout)
    _tag_colour(picture, frame.colour)
    return picture


def keyframe_distance(rate: Fraction) -> int:
    """Return the frames from one key frame to the next at most, 12 to 250."""
    return min(250, max(12, floor(rate * KEYFRAME_S)))


def _tag_colour(target: Any, colour: Colour) -> None:
    """Tag an encoder, or a picture for encoders that read the tags there (ProRes); PyAV 16's lacks two of them."""
    target.color_range, target.colorspace = 2 if colour.full_range else 1, colour.matrix
    if hasattr(target, "color_primaries"):
        target.color_primaries, target.color_trc = colour.primaries, colour.transfer
