"""Options that several commands share: how a video is read, enlarged and written."""

from __future__ import annotations

from typing import Annotated

import typer

from streamsr.choices import PRECISIONS, RUNTIMES, choice, parse_gpus, parse_rate
from streamsr.config import GeneratorSettings, ReadSettings, UpscaleSettings

Model = Annotated[str, typer.Option("-m", "--model", help="Engine: fast-x2, tiny-x2, bicubic-x2, ... or a folder.")]
Runtime = Annotated[str, typer.Option(help="auto, openvino, cuda, tensorrt, fused, torch or onnxruntime.")]
Precision = Annotated[str, typer.Option(help="auto, int8, fp8, fp16, bf16 or fp32.")]
Gpus = Annotated[str, typer.Option(metavar="N", help="GPUs that share the frames of a recording, or all.")]
OneGpu = Annotated[str, typer.Option("--gpus", hidden=True)]
Launch = Annotated[str, typer.Option(help="auto (measured once), frame or patch.")]
Patch = Annotated[int | None, typer.Option(min=8, max=1024, help="Side of a patch's core, px; 32.")]
Halo = Annotated[int | None, typer.Option(min=0, max=256, help="Context round a patch, px; the radius.")]
NoConsistency = Annotated[
    bool, typer.Option("--no-consistency", help="Keep what the generator makes, though it may not match the input.")
]
Codec = Annotated[str, typer.Option(help="libx264, libx265, libsvtav1, ffv1, prores_ks, h264_nvenc, auto, ...")]
Crf = Annotated[int, typer.Option(min=0, max=63, help="Quality; smaller is better and larger.")]
Preset = Annotated[str | None, typer.Option(help="The encoder's preset.")]
PixFmt = Annotated[str, typer.Option(help="Pixel format; auto keeps the source's.")]
Lossless = Annotated[bool, typer.Option("--lossless", help="Encode without loss.")]
Audio = Annotated[str, typer.Option(help="copy or none.")]
KeepMetadata = Annotated[bool, typer.Option("--keep-metadata", help="Copy tags; they may name a patient.")]
Rate = Annotated[str | None, typer.Option(help="Frames a second of a source without times.")]
Resize = Annotated[str, typer.Option(help="A size change makes new parts, or is scaled to fit.")]
Deinterlace = Annotated[str, typer.Option(help="auto, on or off.")]
HwAccel = Annotated[str, typer.Option("--hwaccel", help="Decode in software (none) or on an NVIDIA GPU (cuda).")]
Overwrite = Annotated[bool, typer.Option("-y", "--overwrite", help="Replace existing results.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Only errors.")]


def upscale_settings(
    *,
    model: str,
    runtime: str,
    precision: str,
    launch: str,
    consistency: bool,
    codec: str,
    crf: int,
    preset: str | None,
    pix_fmt: str,
    lossless: bool,
    audio: str,
    keep_metadata: bool,
    rate: str | None,
    resize: str,
    deinterlace: str,
    overwrite: bool,
    hwaccel: str = "none",
    threads: int | None = None,
    gpus: str = "1",
    patch: int | None = None,
    halo: int | None = None,
) -> UpscaleSettings:
    """Return the settings that options stand for.

    Raises:
        UsageError: a value that cannot be.
    """
    return UpscaleSettings(
        generator=GeneratorSettings(
            engine=model,
            runtime=choice("runtime", runtime, RUNTIMES),
            precision=choice("precision", precision, PRECISIONS),
            threads=threads,
            gpus=parse_gpus(gpus),
            launch=choice("launch", launch, ("auto", "frame", "patch")),
            patch_px=patch,
            halo_px=halo,
            consistency=consistency,
        ),
        read=ReadSettings(
            rate=None if rate is None else parse_rate(rate),
            resize=choice("resize", resize, ("parts", "fit")),
            deinterlace=choice("deinterlace", deinterlace, ("auto", "on", "off")),
            hwaccel=choice("hwaccel", hwaccel, ("none", "cuda")),
        ),
        codec=codec,
        crf=crf,
        preset=preset,
        pix_fmt=pix_fmt,
        lossless=lossless,
        audio=choice("audio", audio, ("copy", "none")),
        keep_metadata=keep_metadata,
        overwrite=overwrite,
    )
