"""Make small test videos, with the frame number readable from the pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from streamsr.capture.framecode import draw_frame_code, read_frame_code

__all__ = ["VideoSpec", "colourless", "draw_picture", "make_audio", "make_video", "read_number", "read_numbers"]

read_number = read_frame_code
AUDIO_RATE = 48_000


@dataclass(frozen=True)
class VideoSpec:
    """A small video.

    ``pts`` gives the time of each picture in units of ``time_base``; else they follow at ``rate``. ``matrix``,
    ``colour_range``, ``primaries`` and ``transfer`` are H.273 code points; 2 (range: 0) writes no tag. ``pictures``
    overrides the drawn ones: uint8 arrays in ``pix_fmt`` as `av.VideoFrame.from_ndarray` takes them.
    """

    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    width: int = 64
    height: int = 48
    rate: Fraction = Fraction(25)
    num_frames: int = 10
    first_number: int = 0
    pts: Sequence[int] | None = None
    time_base: Fraction | None = None
    matrix: int = 2
    colour_range: int = 0
    primaries: int = 2
    transfer: int = 2
    sample_aspect: Fraction | None = None
    rotation: int | None = None
    audio: bool = False
    audio_codec: str = "aac"
    subtitles: Sequence[str] = ()
    attachment: bytes | None = None
    cover: bool = False
    interlaced: bool = False
    metadata: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    container_format: str | None = None
    container_options: dict[str, str] = field(default_factory=dict)
    pictures: Sequence[NDArray[Any]] | None = None


def make_video(path: Path, spec: VideoSpec | None = None, **changes: Any) -> Path:
    """Write a video and return its path; ``changes`` are fields of `VideoSpec`."""
    if "rate" in changes:
        changes["rate"] = Fraction(changes["rate"])
    spec = spec or VideoSpec(**changes)
    with av.open(str(path), "w", format=spec.container_format, options=dict(spec.container_options)) as container:
        video = _add_video(container, spec)
        container.metadata.update(spec.metadata)
        cover = _add_cover(container) if spec.cover else None
        audio = container.add_stream(spec.audio_codec, rate=AUDIO_RATE, layout="mono") if spec.audio else None
        words = _open_subtitles(path, spec) if spec.subtitles else None
        word_track = None if words is None else container.add_stream_from_template(words.streams.subtitles[0])
        if spec.attachment is not None:
            container.add_attachment("note.txt", "text/plain", spec.attachment)
        if cover is not None:
            _mux_cover(container, cover)
        if audio is not None:
            for packet in make_audio(audio, duration_s=spec.num_frames / float(spec.rate)):
                container.mux(packet)
        if words is not None:
            _mux_subtitles(container, words, word_track)
        container.start_encoding()
        for frame in _frames(spec):
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path


def draw_picture(number: int, *, width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    """Draw (H, W) luma: a ramp that moves with the number, and the number as cells where there is room."""
    ramp = (np.arange(height)[:, None] * 2 + np.arange(width)[None, :] + 5 * number) % 160 + 40
    luma = ramp.astype(np.uint8)
    if width >= 40 and height >= 40:
        draw_frame_code(luma, number)
    return luma


def read_numbers(path: Path, scale: int = 1) -> list[int]:
    """Read the numbers of a file's pictures with PyAV alone."""
    with av.open(str(path)) as container:
        frames = container.decode(container.streams.video[0])
        return [read_number(frame.reformat(format="gray", threads=1).to_ndarray(), scale) for frame in frames]


def make_audio(track: Any, *, duration_s: float) -> list[Any]:
    """Encode a soft tone into an audio track of 48 kHz; return its packets."""
    wave = 0.1 * np.sin(np.arange(int(duration_s * AUDIO_RATE)) * (2 * np.pi * 440 / AUDIO_RATE))
    frame = av.AudioFrame.from_ndarray((wave * 32767).astype(np.int16)[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = AUDIO_RATE, 0, Fraction(1, AUDIO_RATE)
    return [*track.encode(frame), *track.encode(None)]


def _add_video(container: Any, spec: VideoSpec) -> Any:
    video = container.add_stream(spec.codec, rate=spec.rate, options=dict(spec.options))
    video.width, video.height, video.pix_fmt = spec.width, spec.height, spec.pix_fmt
    context = video.codec_context
    context.time_base = spec.time_base or 1 / spec.rate
    video.time_base = context.time_base
    context.colorspace, context.color_range = spec.matrix, spec.colour_range
    context.color_primaries, context.color_trc = spec.primaries, spec.transfer
    if spec.sample_aspect is not None:
        context.sample_aspect_ratio = spec.sample_aspect
    if spec.rotation is not None:
        video.set_display_rotation(spec.rotation)
    if spec.interlaced and spec.codec == "libx264":
        video.options = {**spec.options, "x264-params": "interlaced=1:tff=1"}
    elif spec.interlaced:
        video.options = {**spec.options, "flags": "+ilme+ildct", "top": "1"}
    return video


def _frames(spec: VideoSpec) -> list[Any]:
    times = range(spec.num_frames) if spec.pts is None else spec.pts
    frames = []
    for index, pts in enumerate(times):
        frame = _frame(spec, index)
        frame.pts, frame.time_base = pts, spec.time_base or 1 / spec.rate
        frames.append(frame)
    return frames


def _frame(spec: VideoSpec, index: int) -> Any:
    if spec.pictures is not None:
        frame = av.VideoFrame.from_ndarray(spec.pictures[index], format=spec.pix_fmt)
    else:
        luma = draw_picture(spec.first_number + index, width=spec.width, height=spec.height)
        frame = colourless(luma, spec.pix_fmt, full=_is_full(spec))
    frame.colorspace, frame.color_range = spec.matrix, spec.colour_range
    return frame


def colourless(luma: NDArray[np.uint8], pix_fmt: str, *, full: bool = False) -> Any:
    """Make an `av.VideoFrame` of (H, W) luma without colour; YUV and gray formats keep its samples."""
    height, width = luma.shape
    start = "gray" if pix_fmt == "gray" else "yuvj420p" if full else "yuv420p"
    frame = av.VideoFrame(width, height, start)
    for plane, samples in zip(frame.planes, (luma, 128, 128), strict=False):
        np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width] = samples
    if pix_fmt == start:
        return frame
    own_range = 2 if full else 1
    # More threads than one damage pictures now and then (FFmpeg 8).
    return frame.reformat(format=pix_fmt, src_color_range=own_range, dst_color_range=own_range, threads=1)


def _is_full(spec: VideoSpec) -> bool:
    return spec.colour_range == 2 or "yuvj" in spec.pix_fmt


def _add_cover(container: Any) -> Any:
    cover = container.add_stream("mjpeg", rate=1)
    cover.width, cover.height, cover.pix_fmt = 16, 16, "yuvj420p"
    cover.disposition = av.stream.Disposition.attached_pic
    return cover


def _mux_cover(container: Any, cover: Any) -> None:
    picture = av.VideoFrame.from_ndarray(np.full((16, 16), 90, np.uint8), format="gray").reformat(format="yuvj420p")
    picture.pts = 0
    container.mux(cover.encode(picture))
    container.mux(cover.encode(None))


def _open_subtitles(path: Path, spec: VideoSpec) -> Any:
    """Write the lines as a SubRip file beside the video, one every 0.1 s, and open it."""
    blocks = [
        f"{index + 1}\n00:00:00,{index}00 --> 00:00:00,{index}80\n{text}\n" for index, text in enumerate(spec.subtitles)
    ]
    aside = path.with_suffix(".srt")
    aside.write_text("\n".join(blocks))
    return av.open(str(aside))


def _mux_subtitles(container: Any, words: Any, track: Any) -> None:
    with words:
        for packet in words.demux():
            if packet.pts is not None:
                packet.stream = track
                container.mux(packet)
