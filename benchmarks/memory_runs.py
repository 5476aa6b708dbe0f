"""The runs of `benchmarks.memory`: files of several sizes in programs of their own, and paced frames for an hour."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.card import ROOT
from benchmarks.clips import long_clip
from benchmarks.fits import draw, line_through
from benchmarks.live_sessions import Sitting, figures_of, memory_of, sit
from benchmarks.resident import peak_kib, resident_kib
from streamsr.bench.sessions import make_session
from streamsr.config import LiveSettings, UpscaleSettings
from streamsr.job import JobProgress, upscale_file

SIZES = ((320, 240), (640, 480), (1280, 720), (1920, 1080))
PIXELS_A_CLIP, FRAMES = 12e6, (40, 150)
"""A clip has so many input pixels in all, but at least and at most so many frames."""

PACED = "testsrc:endoscopy:size=320x240"
"""At 25 frames a second."""

MOST_GROWTH_MIB = 10.0
"""Of memory that still counts as flat: clocks and logs that are kept fill up to their bounds."""

MOST_POINTS = 360
"""Samples of an hour that are kept for the plot."""


def measure_sizes(sizes: tuple[tuple[int, int], ...], *, most_frames: int = FRAMES[1]) -> dict[str, Any]:
    """Enlarge a clip of every size, each in a program of its own, and lay lines through peak and steady memory."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure_size(Path(folder), width, height, most_frames) for width, height in sizes]
    megapixels = [row["megapixels"] for row in rows]
    lines = {key: line_through(megapixels, [row[key] for row in rows]) for key in ("peak_mib", "steady_mib")}
    return {"rows": rows, "lines": lines}


def measure_size(folder: Path, width: int, height: int, most_frames: int) -> dict[str, Any]:
    """Make a clip and let a fresh program enlarge it."""
    least, most = FRAMES
    num_frames = min(most_frames, max(least, min(most, round(PIXELS_A_CLIP / (width * height)))))
    clip = long_clip(folder, width, height, num_frames, num_different=4)
    command = [sys.executable, "-m", "benchmarks.memory", "--one", str(clip)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{width}x{height}: the program that was measured failed: {done.stderr[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {"size": f"{width}x{height}", "megapixels": width * height / 1e6, **found}


def measure_one(clip: Path) -> dict[str, Any]:
    """Enlarge one clip in this program and return its memory in MiB.

    Every patch is computed, with the default settings otherwise. ``before_mib`` is what the program and its libraries
    take before the first call, ``peak_mib`` the most at any moment, ``steady_mib`` the median over the second half of
    the frames. The kernel counts its own peak a little late, so that a sample may lie above it.
    """
    before, samples = resident_kib(), list[tuple[int, float]]()

    def watch(progress: JobProgress) -> None:
        samples.append((progress.shown, resident_kib()))

    settings = UpscaleSettings(overwrite=True)
    generator = replace(settings.generator, reuse_unchanged=False, skip_surround=False)
    result = upscale_file(clip, clip.with_suffix(".mkv"), settings=replace(settings, generator=generator), watch=watch)
    steady = [kib for shown, kib in samples if shown >= result.frames_out / 2]
    return {
        "num_frames": result.frames_out,
        "before_mib": round(before / 1024, 1),
        "peak_mib": round(max(peak_kib(), *(kib for _, kib in samples)) / 1024, 1),
        "steady_mib": round(float(np.median(steady)) / 1024, 1),
    }


def measure_paced(seconds: float, source: str = PACED) -> dict[str, Any]:
    """Let a live session show a source at its own pace and return how memory went, of it and of all that it started.

    Noting when frames came and were shown takes 25 bytes a frame, 2 MiB an hour.
    """
    settings = LiveSettings()
    sitting: Sitting = sit(lambda view, hear: make_session(source, settings, view, hear=hear), seconds=seconds)
    figures = figures_of(sitting)
    every = max(1, len(sitting.memory) // MOST_POINTS)
    minutes, mib = np.array(sitting.memory).T / np.array([[60.0], [1.0]])
    settled = minutes >= min(1.0, 0.1 * float(minutes[-1]))
    line = line_through(minutes[settled].tolist(), mib[settled].tolist())
    return {
        "source": source,
        "minutes": round(figures["seconds"] / 60, 2),
        "frames": figures["frames_in"],
        "shown": figures["shown"],
        "dropped_share": figures["dropped_share"],
        **memory_of(sitting.memory),
        "slope_mib_an_hour": None if line is None else round(60 * line["slope"], 3),
        "samples": [[round(at_s, 1), round(kept, 2)] for at_s, kept in sitting.memory[::every]],
    }


def goals_of(sections: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what was to be reached of what was measured: no growth."""
    if "paced" not in sections:
        return []
    paced = sections["paced"]
    text, got = f"memory grown in {paced['minutes']:g} minutes of paced frames, MiB", paced["growth_mib"]
    return [{"goal": text, "most": MOST_GROWTH_MIB, "got": got, "reached": got <= MOST_GROWTH_MIB}]


def draw_plot(sizes: dict[str, Any] | None, paced: dict[str, Any] | None, path: Path) -> str | None:
    """Draw what was measured: memory against the frame size, and over the paced time."""
    panels: list[Callable[[Any], None]] = [partial(draw_sizes, sizes)] if sizes else []
    panels += [partial(draw_paced, paced)] if paced else []
    return draw(path, panels, columns=2, title="resident memory, MiB")


def draw_sizes(sizes: dict[str, Any], axes: Any) -> None:
    """Draw peak and steady memory against the size."""
    xs = [row["megapixels"] for row in sizes["rows"]]
    for key, line in sizes["lines"].items():
        (drawn,) = axes.plot(xs, [row[key] for row in sizes["rows"]], "o", label=key.removesuffix("_mib"))
        if line:
            ends = [min(xs), max(xs)]
            axes.plot(ends, [line["intercept"] + line["slope"] * x for x in ends], color=drawn.get_color(), linewidth=1)
    axes.set_xlabel("input megapixels", fontsize=8)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=7)


def draw_paced(paced: dict[str, Any], axes: Any) -> None:
    """Draw memory over the time of the session."""
    axes.plot([at_s / 60 for at_s, _ in paced["samples"]], [mib for _, mib in paced["samples"]], linewidth=1)
    axes.set_xlabel(f"minutes of {paced['source']}", fontsize=8)
    axes.set_ylim(bottom=0)
