"""Frozen settings: built once by the command line or the caller, passed down whole, written into every result."""

from __future__ import annotations

import os
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

DEFAULT_ENGINE = "fast-x2"


@dataclass(frozen=True)
class GeneratorSettings:
    """Which generator runs, and how.

    Attributes:
        engine: name in the catalogue, path of an engine folder, or ``bicubic-x2``, ``bicubic-x3``, ``bicubic-x4``.
        runtime: ``auto`` takes the fastest that is here.
        precision: ``auto`` takes FP16 on a GPU; on a CPU INT8 where the engine has it and the source is 8-bit, else
            fp32.
        threads: CPU threads; None takes all cores.
        launch: ``auto`` measures once whether patches or the whole frame are faster.
        patch_px: side of a patch's core, the unit of routing; None takes 32.
        halo_px: context round a core; None takes the engine's own, which makes seams vanish.
        skip_surround: leave the black surround to bicubic.
        reuse_unchanged: take over patches whose input did not change since the last frame.
        consistency: project what the generator made, so that brought down again it gives the input back.
    """

    engine: str = DEFAULT_ENGINE
    runtime: Literal["auto", "openvino", "torch", "onnxruntime", "cuda", "tensorrt", "fused"] = "auto"
    precision: Literal["auto", "fp32", "fp16", "bf16", "int8"] = "auto"
    threads: int | None = None
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
    """

    rate: Fraction | None = None
    resize: Literal["parts", "fit"] = "parts"
    deinterlace: Literal["auto", "on", "off"] = "auto"


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


def usable_cores() -> int:
    """Return how many processor cores this program may use; where the system does not say, how many there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
