"""What does a halo cost, and what does a smaller one show? ``python -m benchmarks.seams [--quick]``.

Every engine of the catalogue enlarges one picture as a whole and in patches of 32x32 with halos from none to the
network's radius (large networks: to 16 px), through `FrameUpscaler`, every patch, without the consistency projection.
The seam error is the difference between the two luma planes in grey levels: the largest, and the root of the mean
square; a sample in between two levels may tip in floating point. The cost is the share of input pixels that the
generator is given beyond the picture's own, on a frame of 640x480. The picture is the rendered scene with the noise of
a camera; large networks, of a million multiply-adds a pixel, get a smaller one. Nothing is timed: there is no first and
last event, nothing to warm.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from benchmarks.card import machine_card, options_of, print_card, print_table, report
from benchmarks.fits import draw, plot_beside
from streamsr.capture.testsrc import EndoscopySource, TestSettings
from streamsr.config import GeneratorSettings
from streamsr.engine import Engine, find_engine, list_engines
from streamsr.frame import Frame
from streamsr.patches import PatchGrid
from streamsr.runtimes import Generator, load_generator
from streamsr.upscaler import FrameUpscaler

HALOS_PX, HALOS_OF_LARGE_PX = (0, 1, 2, 4, 6, 8, 10, 12, 14, 16), (0, 4, 8, 16)
PATCH_PX = 32
SIZE, SIZE_OF_LARGE = (256, 192), (96, 96)
NOISE_LEVELS = 2.0
COST_SIZE = (640, 480)
LARGE = ("srgan",)
"""Architectures that are given the smaller picture."""


def picture_of(width: int, height: int) -> Frame:
    """Return the middle of the rendered scene with camera noise on its luma."""
    with EndoscopySource(TestSettings(width=2 * width, height=2 * height, frames=1)) as source:
        frame = next(item for item in source if isinstance(item, Frame))
    luma, *chroma = (plane[len(plane) // 4 :, plane.shape[1] // 4 :] for plane in frame.planes)
    noise = np.random.default_rng(0).normal(0.0, NOISE_LEVELS, (height, width))
    noisy = np.rint(luma[:height, :width] + noise).clip(16, 235).astype(np.uint8)
    return replace(frame, planes=(noisy, *(plane[: height // 2, : width // 2].copy() for plane in chroma)))


def halos_of(engine: Engine) -> list[int]:
    """Return the halos to try: none to the radius, with the default among them.

    A patch with the radius of a large network is the whole of its small picture, so that one tells nothing.
    """
    if engine.architecture in LARGE:
        return sorted({*HALOS_OF_LARGE_PX, engine.halo_px})
    return sorted({*(halo for halo in HALOS_PX if halo < engine.radius_px), engine.radius_px, engine.halo_px})


def extra_pixels(engine: Engine, halo_px: int) -> float:
    """Return how many pixels more than its own a frame costs in patches, as a part of its own."""
    grid = PatchGrid(*COST_SIZE, engine.scale, halo_px, PATCH_PX)
    width, height = grid.window_size
    return grid.num * width * height / (COST_SIZE[0] * COST_SIZE[1]) - 1.0


def enlarge(generator: Generator, frame: Frame, **launch: Any) -> np.ndarray[Any, np.dtype[np.int16]]:
    """Return the enlarged luma, every pixel made by the generator."""
    upscaler = FrameUpscaler(generator, skip_surround=False, reuse_unchanged=False, consistency=False, **launch)
    return upscaler.upscale(frame).planes[0].astype(np.int16)


def measure(engine: Engine, halos: Sequence[int], size: tuple[int, int]) -> list[dict[str, Any]]:
    """Return the seam error and the cost of every halo."""
    generator = load_generator(engine, GeneratorSettings(engine=engine.name))
    frame = picture_of(*size)
    whole = enlarge(generator, frame, launch="frame")
    rows = []
    for halo_px in halos:
        off = enlarge(generator, frame, launch="patch", patch_px=PATCH_PX, halo_px=halo_px) - whole
        rows.append(
            {
                "engine": engine.name,
                "precision": generator.precision,
                "runtime": generator.runtime,
                "picture": f"{size[0]}x{size[1]}",
                "radius_px": engine.radius_px,
                "halo_px": halo_px,
                "default": halo_px == engine.halo_px,
                "max_levels": int(np.abs(off).max()),
                "rms_levels": round(float(np.sqrt((off.astype(np.float64) ** 2).mean())), 5),
                "samples_off": round(float((off != 0).mean()), 6),
                "extra_pixels": round(extra_pixels(engine, halo_px), 4),
            }
        )
    return rows


def engines_under_test(*, quick: bool) -> list[Engine]:
    """Return the engines that have a network, the lighter architecture first."""
    if quick:
        return [find_engine("tiny-x2")]
    engines = [engine for engine in list_engines() if engine.architecture != "bicubic"]
    return sorted(engines, key=lambda engine: (engine.architecture in LARGE, engine.name))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, draw and write."""
    options = options_of("seams", "Seam error against halo, and what a halo costs.", arguments)
    card, started_s = machine_card(), time.monotonic()
    print_card(card)
    rows: list[dict[str, Any]] = []
    for engine in engines_under_test(quick=options.quick):
        halos = halos_of(engine)
        if options.quick:
            rows += measure(engine, [0, engine.radius_px], (128, 96))
        else:
            rows += measure(engine, halos, SIZE_OF_LARGE if engine.architecture in LARGE else SIZE)
    print_table(rows, ("engine", "precision", "halo_px", "default", "max_levels", "rms_levels", "extra_pixels"))
    result = {
        "question": "seams",
        "quick": options.quick,
        "card": card,
        "patch_px": PATCH_PX,
        "cost_of": f"{COST_SIZE[0]}x{COST_SIZE[1]}",
        "rows": rows,
        "seconds": round(time.monotonic() - started_s, 1),
    }
    plot = plot_beside(options.json)
    result["plot"] = draw_plot(rows, plot) if plot else None
    report(result, options.json)
    return 0


def draw_plot(rows: Sequence[dict[str, Any]], path: Any) -> str | None:
    """Draw the largest and the root mean square difference, and the cost, against the halo; defaults are filled."""
    titles = {
        "max_levels": "largest difference, grey levels",
        "rms_levels": "RMS difference, grey levels",
        "extra_pixels": f"pixels beyond the frame's own, {COST_SIZE[0]}x{COST_SIZE[1]}",
    }
    panels: list[Callable[[Any], None]] = [partial(draw_panel, rows, key, title) for key, title in titles.items()]
    return draw(path, panels, columns=3, title=f"patches of {PATCH_PX}x{PATCH_PX}: seams and cost against the halo")


def draw_panel(rows: Sequence[dict[str, Any]], key: str, title: str, axes: Any) -> None:
    """Draw one line an engine."""
    for name in dict.fromkeys(row["engine"] for row in rows):
        line = [row for row in rows if row["engine"] == name]
        (drawn,) = axes.plot([row["halo_px"] for row in line], [row[key] for row in line], linewidth=1, label=name)
        for row in line:
            if row["default"]:
                axes.plot(row["halo_px"], row[key], "o", color=drawn.get_color(), markersize=5)
    axes.set_xlabel("halo, px (dot: default)")
    axes.set_title(title, fontsize=9)
    if key == "max_levels":
        axes.legend(fontsize=6)


if __name__ == "__main__":
    sys.exit(main())
