"""Write a source into a small file, for trying things out; results for users are the sinks' business."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from streamsr.capture.base import Source
from streamsr.frame import Frame

TONE_HZ, TONE_LEVEL, AUDIO_RATE = 330, 0.05, 48_000
LOSSLESS = {"libx264": {"qp": "0", "preset": "veryfast"}}


def write_clip(
    path: str | Path,
    source: Source,
    *,
    audio: bool = True,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
) -> Path:
    """Encode the frames of a source into a file, without loss unless ``options`` say otherwise.

    Args:
        path: of the file; the suffix chooses the container.
        source: open, not yet read; frames of one size and layout.
        audio: add a soft AAC tone of the same length.
        codec: an FFmpeg encoder; ``libx264`` and ``ffv1`` lose nothing.
        options: of the encoder, for example ``{"crf": "20"}``.

    Returns:
        The path.
    """
    info = source.info
    chosen = LOSSLESS.get(codec, {}) if options is None else options
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream(codec, rate=info.rate, options=dict(chosen))
        video.width, video.height, video.pix_fmt = info.width, info.height, info.layout.pix_fmt
        video.time_base = video.codec_context.time_base = info.time_base
        _tag(video.codec_context, source)
        tone: Any = container.add_stream("aac", rate=AUDIO_RATE, layout="mono") if audio else None
        end_s = 0.0
        for frame in source:
            if isinstance(frame, Frame):
                end_s = float((frame.pts + frame.duration) * frame.time_base)
                container.mux(video.encode(picture_of(frame)))
        container.mux(video.encode(None))
        if tone is not None:
            container.mux(_encode_tone(tone, end_s))
    return Path(path)


def _tag(context: Any, source: Source) -> None:
    colour = source.info.colour
    context.colorspace, context.color_range = colour.matrix, 2 if colour.full_range else 1
    context.color_primaries, context.color_trc = colour.primaries, colour.transfer


def picture_of(frame: Frame) -> Any:
    """Return a frame as FFmpeg takes it: a fresh `av.VideoFrame` with its samples, its time and its colour."""
    picture = av.VideoFrame(frame.width, frame.height, frame.layout.pix_fmt)
    picture_planes: Any = picture.planes
    for plane, samples in zip(picture_planes, frame.planes, strict=True):
        row = plane.line_size // samples.itemsize
        np.frombuffer(plane, frame.layout.dtype).reshape(plane.height, row)[:, : plane.width] = samples
    picture.pts, picture.time_base = frame.pts, frame.time_base
    picture.colorspace, picture.color_range = frame.colour.matrix, 2 if frame.colour.full_range else 1
    return picture


def _encode_tone(track: Any, duration_s: float) -> list[Any]:
    wave = np.sin(np.arange(int(duration_s * AUDIO_RATE)) * (2 * np.pi * TONE_HZ / AUDIO_RATE))
    samples = (TONE_LEVEL * 32767 * wave).astype(np.int16)[None]
    sound = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
    sound.sample_rate, sound.pts, sound.time_base = AUDIO_RATE, 0, Fraction(1, AUDIO_RATE)
    return [*track.encode(sound), *track.encode(None)]
