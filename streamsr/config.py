"""Frozen settings: built once by the command line or the caller, passed down whole, written into every result."""

from __future__ import annotations

import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

DEFAULT_ENGINE = "fast-x2"


@dataclass(frozen=True)
class GeneratorSettings:
    """Which generator runs, and how.

    Attributes:
        engine: name in the catalogue, path of an engine folder, or ``bicubic-x2``, ``bicubic-x3``, ``bicubic-x4``.
        runtime: ``auto`` takes the fastest that is here.
        precision: ``auto`` takes FP16 on a GPU; on a CPU INT8 where the engine has it and the source is 8-bit, else
            fp32. ``fp8`` is TensorRT's alone.
        threads: CPU threads; None takes all cores.
        gpus: that share the frames of one recording: of those that torch sees, the first so many, or ``all``. A worker
            of an archive and a live session have one each.
        launch: ``auto`` measures once whether patches or the whole frame are faster.
        patch_px: side of a patch's core, the unit of routing; None takes 32.
        halo_px: context round a core; None takes the engine's own, which makes seams vanish.
        skip_surround: leave the black surround to bicubic.
        reuse_unchanged: take over patches whose input did not change since the last frame.
        consistency: project what the generator made, so that brought down again it gives the input back.
    """

    engine: str = DEFAULT_ENGINE
    runtime: Literal["auto", "openvino", "torch", "onnxruntime", "cuda", "tensorrt", "fused"] = "auto"
    precision: Literal["auto", "fp32", "fp16", "bf16", "fp8", "int8"] = "auto"
    threads: int | None = None
    gpus: int | Literal["all"] = 1
    launch: Literal["auto", "frame", "patch"] = "auto"
    patch_px: int | None = None
    halo_px: int | None = None
    skip_surround: bool = True
    reuse_unchanged: bool = True
    consistency: bool = True


@dataclass(frozen=True)
class ReadSettings:
    """How a source is read.

    Attributes:
        rate: frames a second where the source states no times; None assumes 25.
        resize: what a size change in mid-file does: ``parts`` opens a new file, ``fit`` scales to the first size.
        deinterlace: ``auto`` deinterlaces what is flagged as interlaced.
        hwaccel: ``cuda`` decodes on an NVIDIA GPU's own decoder where that takes the file; with a runtime on a GPU
            pictures stay there.
    """

    rate: Fraction | None = None
    resize: Literal["parts", "fit"] = "parts"
    deinterlace: Literal["auto", "on", "off"] = "auto"
    hwaccel: Literal["none", "cuda"] = "none"


@dataclass(frozen=True)
class UpscaleSettings:
    """One upscale job but for its input and output; ``write`` settings are those of the encoder.

    Attributes:
        generator: which generator runs.
        read: how the source is read.
        codec: FFmpeg name of the video encoder.
        crf: constant rate factor; smaller is better and larger.
        preset: the encoder's preset; None takes ours.
        pix_fmt: FFmpeg name, or ``auto`` for the source's own subsampling and depth.
        lossless: encode without loss.
        audio: whether sound and subtitles are copied.
        keep_metadata: copy the container's tags too; they may name a patient.
        overwrite: replace an existing output.
    """

    generator: GeneratorSettings = GeneratorSettings()
    read: ReadSettings = ReadSettings()
    codec: str = "libx264"
    crf: int = 16
    preset: str | None = None
    pix_fmt: str = "auto"
    lossless: bool = False
    audio: Literal["copy", "none"] = "copy"
    keep_metadata: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class BatchSettings:
    """How an archive is enlarged, but for its inputs and where its results go.

    Attributes:
        upscale: each file.
        container: suffix of the results, without its dot.
        segment_s: files longer than twice this are cut at key frames; None cuts none.
        retries: further tries within a run for what fails in a way that may pass.
        ignore_errors: go on with the others after a file that fails; None does where a folder, glob or list is named.
        retry_failed: try again what failed for good in an earlier run.
        shard: (number from 1, how many): the part of the files that is this run's.
    """

    upscale: UpscaleSettings = UpscaleSettings()
    container: Literal["mkv", "mp4", "mov", "dcm"] = "mkv"
    segment_s: float | None = 300.0
    retries: int = 1
    ignore_errors: bool | None = None
    retry_failed: bool = False
    shard: tuple[int, int] | None = None


@dataclass(frozen=True)
class FeedSettings:
    """How a live source is opened and read.

    Attributes:
        size: (width, height) asked of a device, or of a raw pipe; None takes what it offers.
        rate: frames a second asked of a device or stated for a pipe; None takes what it offers.
        input_format: FFmpeg demuxer or the device's pixel format (``mjpeg``, ``yuyv422``, ``v4l2``, ``mpegts``, ...).
        options: further FFmpeg options, as (key, value) pairs.
        pace: play a file at its own pace; other sources are live by themselves.
        loop: begin a paced file anew at its end.
        deinterlace: ``auto`` deinterlaces what is flagged as interlaced.
        open_timeout_s: an opening that takes longer is given up.
        read_timeout_s: a source that gives nothing for longer is closed and opened again.
        reserve_bytes: disk space that keeping the original leaves free; keeping ends before it is touched.
        preroll_s: seconds before the moment of asking that a kept original begins with.
    """

    size: tuple[int, int] | None = None
    rate: Fraction | None = None
    input_format: str | None = None
    options: tuple[tuple[str, str], ...] = ()
    pace: bool = False
    loop: bool = False
    deinterlace: Literal["auto", "on", "off"] = "auto"
    open_timeout_s: float = 3.0
    read_timeout_s: float = 1.0
    reserve_bytes: int = 256 << 20
    preroll_s: float = 0.0


@dataclass(frozen=True)
class WebSettings:
    """Where the page is served, and to whom.

    Attributes:
        host: address to listen on; any but a loopback address needs a token and TLS, or ``insecure``.
        port: 0 takes a free one.
        token: that the URL must carry; None makes a random one.
        tls_cert: PEM file of the certificate.
        tls_key: PEM file of its key.
        insecure: serve beyond this machine without TLS all the same.
        jpeg_quality: of the pictures, 1 to 100.
    """

    host: str = "127.0.0.1"
    port: int = 8008
    token: str | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    insecure: bool = False
    jpeg_quality: int = 88


@dataclass(frozen=True)
class RecordSettings:
    """What is recorded live.

    Attributes:
        folder: where to; None records only when asked by a key, into the working folder.
        from_start: whether recording begins with the session.
        keep_original: write the source's own packets beside the enlarged video.
        preroll_s: seconds before the moment of asking that a recording begins with.
        container: ``mkv`` or ``mp4`` (fragmented).
        codec: FFmpeg name of the encoder.
        crf: constant rate factor.
        preset: the encoder's preset; None takes the fastest that is sensible.
        reserve_bytes: space kept free on the disk; recording stops before it is touched.
    """

    folder: Path | None = None
    from_start: bool = False
    keep_original: bool = False
    preroll_s: float = 0.0
    container: Literal["mkv", "mp4"] = "mkv"
    codec: str = "libx264"
    crf: int = 18
    preset: str | None = None
    reserve_bytes: int = 256 << 20


@dataclass(frozen=True)
class LiveSettings:
    """One live session but for its source.

    Attributes:
        generator: the best rung.
        lighter: names of the engines below it, best first; None takes the catalogue's lighter students of that scale.
        feed: how the source is read.
        view: what shows the pictures.
        max_latency_ms: from arrival to presentation; None takes two periods of the source.
        on_overrun: what a slow machine costs: ``drop-oldest`` drops frames, ``bypass`` shows them through bicubic.
        badge: burn "AI-ENHANCED" into pictures that a generator made.
        record: what is recorded.
        web: of the page.
        metrics_port: where Prometheus text is served on the loopback address; None serves none.
        seconds: after which the session ends by itself; None runs until it is asked to stop.
        keys: (key, command) pairs that replace or add to the window's own.
    """

    generator: GeneratorSettings = GeneratorSettings()
    lighter: tuple[str, ...] | None = None
    feed: FeedSettings = FeedSettings()
    view: Literal["window", "web", "none"] = "window"
    max_latency_ms: float | None = None
    on_overrun: Literal["drop-oldest", "bypass"] = "drop-oldest"
    badge: bool = True
    record: RecordSettings = RecordSettings()
    web: WebSettings = WebSettings()
    metrics_port: int | None = None
    seconds: float | None = None
    keys: tuple[tuple[str, str], ...] = ()


def usable_cores() -> int:
    """Return how many processor cores this program may use; where the system does not say, how many there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
