"""A demonstration without any patient: render an endoscopy, enlarge it, and compare with the rendered truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from streamsr.capture.testsrc import EndoscopySource, TestSettings, write_clip
from streamsr.choices import parse_size
from streamsr.colour import to_rgb8
from streamsr.config import GeneratorSettings, UpscaleSettings
from streamsr.doctor import wide_console
from streamsr.engine import Engine, find_engine
from streamsr.errors import OutputExists, UsageError
from streamsr.frame import Frame
from streamsr.job import JobResult, upscale_file
from streamsr.progress import routed
from streamsr.quality.fidelity import field_of_view, psnr_db, ssim
from streamsr.runtimes import load_generator
from streamsr.upscaler import FrameUpscaler

RATE = 25
MEASURED_FRAMES = 12
"""Frames, evenly spread, on which quality is measured."""

CROP_PX = 96
"""Side of the crop, in input pixels, that the side-by-side shows from near."""

LABEL_PX = 40
"""Height of the labels above the columns."""

Pixels = NDArray[np.uint8]


def run_demo(folder: Path, *, engine: str, seconds: float, size: str, overwrite: bool = False) -> dict[str, Any]:
    """Render a clip, enlarge it, measure it, and leave clip, result and side-by-side in a folder.

    Args:
        folder: made when missing.
        engine: name of the engine.
        seconds: length of the clip.
        size: of the clip to be enlarged, for example ``320x240``.
        overwrite: replace the results of an earlier demonstration.

    Returns:
        Paths, and the quality and speed of bicubic interpolation and of the engine.

    Raises:
        UsageError: the size is none, or the engine's scale is one that the truth is not rendered for.
        OutputExists: results are there already.
    """
    wanted = find_engine(engine)
    if wanted.scale not in (2, 4):
        raise UsageError(f"{engine}: expected an engine of scale 2 or 4 for the demonstration, got {wanted.scale}")
    width, height = parse_size(size)
    settings = TestSettings(width, height, Fraction(RATE), round(seconds * RATE), truth_scale=wanted.scale, audio=True)
    clip, picture = folder / "endoscopy.mkv", folder / f"endoscopy_{wanted.name}.png"
    if clip.exists() and not overwrite:
        raise OutputExists(f"{clip}: expected no file there, got one; replace it with -y or choose a folder with -o")
    folder.mkdir(parents=True, exist_ok=True)
    with EndoscopySource(settings) as source:
        write_clip(clip, source)
    generator = GeneratorSettings(engine=wanted.name)
    job = upscale_file(clip, folder, settings=UpscaleSettings(generator=generator, overwrite=overwrite))
    quality, sheet = measure(settings, wanted, generator)
    cv2.imwrite(str(picture), sheet[:, :, ::-1])
    return describe_demo(clip, picture, job, quality)


def measure(
    settings: TestSettings, engine: Engine, generator: GeneratorSettings
) -> tuple[dict[str, dict[str, float]], Pixels]:
    """Compare bicubic interpolation and the engine with the truth, inside the field of view, on luma.

    Returns:
        PSNR in dB and SSIM of both, and the side-by-side of the middle frame, (H, W, 3) uint8 RGB.
    """
    names = ("bicubic", engine.name)
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    sheet: Pixels | None = None
    with EndoscopySource(settings) as source:
        bicubic = find_engine(f"bicubic-x{engine.scale}")
        upscalers = [FrameUpscaler(load_generator(each, generator)) for each in (bicubic, engine)]
        for number in spread(settings.frames, MEASURED_FRAMES):
            small = source.frame(number)
            large = [upscaler.upscale(small) for upscaler in upscalers]
            truth = large[0].with_planes(source.truth_frame(number))
            field = field_of_view(truth.planes[0])
            for name, frame in zip(names, large, strict=True):
                pair = frame.planes[0], truth.planes[0]
                figures[name].append((psnr_db(*pair, mask=field), ssim(*pair, mask=field)))
            if sheet is None and number >= settings.frames // 3:
                sheet = side_by_side(small, {"bicubic": large[0], engine.name: large[1], "truth": truth})
    means = {name: np.mean(values, axis=0) for name, values in figures.items()}
    quality = {
        name: {"psnr_db": round(float(db), 3), "ssim": round(float(like), 5)} for name, (db, like) in means.items()
    }
    assert sheet is not None
    return quality, sheet


def spread(num: int, most: int) -> Iterator[int]:
    """Give at most so many numbers below ``num``, evenly spread, rising."""
    yield from sorted({round(place) for place in np.linspace(0, num - 1, min(num, most))})


def side_by_side(small: Frame, large: dict[str, Frame]) -> Pixels:
    """Return a labelled sheet: whole pictures above, a crop of each from near below."""
    scale = next(iter(large.values())).width // small.width
    nearest = replace(small, planes=tuple(plane.repeat(scale, 0).repeat(scale, 1) for plane in small.planes))
    pictures = {"camera": to_rgb8(nearest), **{name: to_rgb8(frame) for name, frame in large.items()}}
    height, width = pictures["camera"].shape[:2]
    side = min(CROP_PX * scale, height, width)
    top, left = (height - side) // 3, (width - side) // 3
    columns = []
    for name, picture in pictures.items():
        crop = cv2.resize(
            picture[top : top + side, left : left + side], (width, width), interpolation=cv2.INTER_NEAREST
        )
        label = np.zeros((LABEL_PX, width, 3), np.uint8)
        cv2.putText(label, name, (8, LABEL_PX - 12), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255, 255, 255), 2, cv2.LINE_AA)
        column = np.concatenate([label, picture, crop])
        columns.append(np.pad(column, ((0, 0), (0, 4), (0, 0))))
    return np.concatenate(columns, axis=1)


def describe_demo(clip: Path, picture: Path, job: JobResult, quality: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Return what the demonstration left and found."""
    patches = job.details["patches"]
    return {
        "clip": str(clip),
        "result": str(job.outputs[0]),
        "sidecar": str(job.sidecar),
        "side_by_side": str(picture),
        "quality": quality,
        "frames": job.frames_out,
        "frames_per_second": round(job.frames_out / job.seconds, 2),
        "patches": patches,
        "runtime": job.details["engine"]["runtime"],
    }


def print_demo(result: dict[str, Any]) -> None:
    """Print what the demonstration found."""
    console = wide_console()
    table = Table(
        "", "PSNR (dB)", "SSIM", title="luma of generated pictures against the rendered truth, before encoding"
    )
    for name, figures in result["quality"].items():
        table.add_row(name, f"{figures['psnr_db']:.2f}", f"{figures['ssim']:.4f}")
    console.print(table)
    console.print(
        f"{result['frames']} frames at {result['frames_per_second']:.1f} a second (decode and encode included), "
        f"{routed(result['patches'])}; {result['runtime']}",
        highlight=False,
    )
    for name in ("clip", "result", "sidecar", "side_by_side"):
        console.print(f"{name.replace('_', ' '):13}{result[name]}", highlight=False, soft_wrap=True)
