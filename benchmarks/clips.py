"""The clips under test: rendered ones, and real ones where they lie beside the checkout."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.video.frame import VideoFrame

from benchmarks.card import ROOT
from streamsr.capture.clips import write_clip
from streamsr.capture.testsrc import EndoscopySource, TestSettings

REAL = ROOT.parent / "shared" / "clips"
REAL_NAMES = ("laparoscopy_1280x720", "colonoscopy_480x360_overlay")
CAMERA = {"crf": "20", "preset": "fast"}
"""How clips are compressed: about what a recorder leaves."""


def rendered_clip(folder: Path, width: int, height: int, num_frames: int) -> Path:
    """Render an endoscopy into a file and return its path."""
    source = EndoscopySource(TestSettings(width=width, height=height, frames=num_frames))
    path = folder / f"rendered_{width}x{height}_{num_frames}.mp4"
    with source:
        return write_clip(path, source, audio=False, options=CAMERA)


def real_clips(folder: Path, width: int, height: int, num_frames: int) -> dict[str, Path]:
    """Return the real clips there are, scaled to a size (from their own shape, unlike a camera's), by name."""
    made = {}
    for name in REAL_NAMES:
        source = REAL / f"{name}.mp4"
        if source.is_file():
            with av.open(str(source)) as container:
                frames = [frame for frame, _ in zip(container.decode(video=0), range(num_frames), strict=False)]
            target = folder / f"{name}_to_{width}x{height}.mp4"
            write_pictures(target, [frame.reformat(width, height, "yuv420p") for frame in frames], num_frames)
            made[name] = target
    return made


def long_clip(
    folder: Path, width: int, height: int, num_frames: int, *, num_different: int = 40, rate: int = 25
) -> Path:
    """Write a clip that shows the same pictures to and fro, so that rendering takes no time."""
    source = EndoscopySource(TestSettings(width=width, height=height, frames=num_different))
    short = folder / f"short_{width}x{height}.mkv"
    with source:
        write_clip(short, source, audio=False)
    with av.open(str(short)) as container:
        frames = list(container.decode(video=0))
    path = folder / f"long_{width}x{height}_{num_frames}.mp4"
    write_pictures(path, [*frames, *frames[-2:0:-1]], num_frames, rate=rate)
    return path


def write_pictures(path: Path, pictures: list[VideoFrame], num_frames: int, *, rate: int = 25) -> None:
    """Encode pictures, from the first again when they end, as a recorder would."""
    with av.open(str(path), "w") as container:
        track: Any = container.add_stream("libx264", rate=rate, options=dict(CAMERA))
        track.width, track.height, track.pix_fmt = pictures[0].width, pictures[0].height, "yuv420p"
        for number in range(num_frames):
            picture = pictures[number % len(pictures)]
            picture.pts, picture.time_base = number, Fraction(1, rate)
            container.mux(track.encode(picture))
        container.mux(track.encode(None))
