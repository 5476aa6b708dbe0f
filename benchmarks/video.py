"""Do enlarged videos flicker, and what does compression do to them? ``python -m benchmarks.video [--clips DIR]``.

Nothing is timed. The frames of each clip are taken for the truth, brought down and enlarged; flicker, warp error and
change error (`streamsr.quality.temporal`) are means over the steps from frame to frame, of luma in grey levels, beside
those of the truth and of the reduced video itself (``camera``). Motion and rest are found in the clean reduced video,
for all methods alike. The clips were compressed themselves, so their own noise is a coder's. Engines of SRGAN's size
get the first ``--heavy-frames`` frames, and so does bicubic interpolation once more, beside them.

For compression the reduced frames are coded as H.264 (x264, medium, 4:2:0) at CRF 18, 23 and 28 and enlarged by bicubic
interpolation, ``fast-x2`` and ``fast-x2-robust``, projected and as made; luma PSNR is against the clip inside the field
of view. The result is ``results/video.json``; it is written after every clip. A clip that is there with the same key
(the clip, weights, options and code) is not measured again unless ``--anew``; others are not kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.card import ROOT, machine_card
from benchmarks.enlarged import (
    RUNS,
    KeptEngine,
    all_engines,
    code_of,
    digest_of,
    interpolations,
    is_heavy,
    key_of_method,
)
from benchmarks.tables import dense
from streamsr.capture import open_source
from streamsr.colour import to_rgb8
from streamsr.evaluation.methods import Method, Samples
from streamsr.evaluation.subjects import VIDEOS
from streamsr.evaluation.writing import write_files
from streamsr.frame import Frame
from streamsr.quality.fidelity import field_of_view, psnr_db
from streamsr.quality.intervals import Resampler
from streamsr.quality.temporal import Motion, motion_between, steadiness
from streamsr.training.data import bicubic_down, luma_of
from streamsr.training.degrade import h264_frames

RESULT = ROOT / "benchmarks" / "results" / "video.json"
CODED = ("fast-x2", "fast-x2-robust")
CRFS = (18, 23, 28)
MULTIPLE = 8
"""Sides are cut to a multiple of it, so that what is brought down by 4 is even, as 4:2:0 wants."""

KEYFRAME_EVERY = 25
MEASURES = ("quality/fidelity.py", "quality/temporal.py", "training/degrade.py", "../benchmarks/video.py")
"""Rooms that the figures depend on besides the pictures."""

Figures = dict[str, float]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.video", description=__doc__)
    parser.add_argument("--clips", type=Path, default=ROOT.parent / "shared" / "clips")
    parser.add_argument("--frames", type=int, default=32, help="of each clip, from its first on")
    parser.add_argument(
        "--heavy-frames", type=int, default=4, help="the same for engines of SRGAN's size; 0: leave out"
    )
    parser.add_argument("--engines", nargs="+", help="only these; all")
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument("--json", type=Path, default=RESULT)
    parser.add_argument("--anew", action="store_true", help="measure every clip again")
    return parser.parse_args(arguments)


def read_frames(path: Path, most: int) -> list[Samples]:
    """Return the first frames of a clip, (H, W, 3) uint8 RGB, cut to a multiple of 8."""
    frames: list[Samples] = []
    with open_source(path) as source:
        for frame in source:
            if isinstance(frame, Frame):
                rgb = to_rgb8(frame)
                height, width = (side // MULTIPLE * MULTIPLE for side in rgb.shape[:2])
                frames.append(np.ascontiguousarray(rgb[:height, :width]))
            if len(frames) == most:
                break
    return frames


def measure(
    truths: list[Samples], inputs: list[Samples], motions: list[Motion], method: Method, write: Callable[[str], Any]
) -> Figures:
    """Return the figures of a method: means over steps, and luma PSNR in dB over frames.

    Args:
        truths: (H, W) uint8 luma of the frames.
        inputs: (h, w, 3) uint8 RGB, as coded; at most as many, and these are measured.
        motions: between the clean inputs.
        method: what enlarges.
        write: takes a line about how it goes.
    """
    steps: list[Figures] = []
    psnr: list[float] = []
    before: Samples | None = None
    for number, lr in enumerate(inputs):
        luma = method.enlarge(lr).luma
        psnr.append(psnr_db(luma, truths[number], mask=field_of_view(truths[number])))
        if before is not None:
            pair = truths[number - 1], truths[number]
            steps.append(vars(steadiness(before, luma, motions[number - 1], scale=method.scale, truth=pair)))
        before = luma
    found = {**means(steps, ("flicker", "warp_error", "change_error")), "luma_psnr_db": round(float(np.mean(psnr)), 5)}
    write(f"  {method.name:24} {found}")
    return {**found, "frames": len(inputs)}


def own(frames: list[Samples], motions: list[Motion], scale: int) -> Figures:
    """Return flicker and warp error of luma frames themselves."""
    steps = [
        vars(steadiness(first, second, motion, scale=scale))
        for first, second, motion in zip(frames, frames[1:], motions, strict=False)
    ]
    return {**means(steps, ("flicker", "warp_error", "moved_px", "rests", "trusted")), "frames": len(frames)}


def means(steps: list[Figures], names: Sequence[str]) -> Figures:
    """Return means over steps; a figure that no step has is left out."""
    columns = {name: [step[name] for step in steps if np.isfinite(step[name])] for name in names}
    return {name: round(float(np.mean(values)), 5) for name, values in columns.items() if values}


def key_of_clip(path: Path, options: argparse.Namespace) -> str:
    """Return digits that change with everything that the figures of a clip depend on."""
    methods = [key_of_method(method) for method in (*make_methods(options), *coded_methods(options))]
    counts = {"frames": options.frames, "heavy_frames": options.heavy_frames}
    clip = hashlib.sha256(path.read_bytes()).hexdigest()
    return digest_of({"clip": clip, "methods": methods, "code": code_of(MEASURES), **counts})


def measure_clip(path: Path, options: argparse.Namespace, write: Callable[[str], Any]) -> dict[str, Any]:
    """Return condition -> method -> figures of a clip."""
    frames = read_frames(path, options.frames)
    truths = [luma_of(frame) for frame in frames]
    methods = list(make_methods(options))
    found: dict[str, Any] = {"size": f"{frames[0].shape[1]}x{frames[0].shape[0]}", "clean": {}}
    for scale in sorted({method.scale for method in methods}):
        inputs = [bicubic_down(frame, scale) for frame in frames]
        lumas = [luma_of(lr) for lr in inputs]
        motions = [motion_between(first, second) for first, second in pairwise(lumas)]
        found["clean"][f"camera-x{scale}"] = own(lumas, motions, 1)
        found["clean"][f"truth-x{scale}"] = own(truths, motions, scale)
        for method in (each for each in methods if each.scale == scale):
            kept = inputs[: options.heavy_frames] if _heavy(method) else inputs
            found["clean"][method.name] = measure(truths, kept, motions, method, write)
            if len(kept) < len(inputs):
                beside = interpolations(scale)[0]
                found["clean"][f"{beside.name}, first frames"] = measure(truths, kept, motions, beside, write)
        if scale == 2:
            found |= measure_coded(truths, inputs, motions, options, write)
    return found


def measure_coded(
    truths: list[Samples],
    inputs: list[Samples],
    motions: list[Motion],
    options: argparse.Namespace,
    write: Callable[[str], Any],
) -> dict[str, Any]:
    """Return ``crf-N`` -> method -> figures, of inputs that were coded."""
    found: dict[str, Any] = {}
    for crf in CRFS:
        coded = h264_frames(inputs, crf=crf, keyframe_every=KEYFRAME_EVERY)
        write(f"  CRF {crf}")
        row = found[f"crf-{crf}"] = {"camera-x2": own([luma_of(lr) for lr in coded], motions, 1)}
        for method in [interpolations(2)[0], *coded_methods(options)]:
            row[method.name] = measure(truths, coded, motions, method, write)
    return found


def coded_methods(options: argparse.Namespace) -> Iterator[Method]:
    """Give the engines that read compressed input, projected and as made."""
    for engine in all_engines(names=CODED):
        for consistency in (True, False):
            yield KeptEngine(engine, options.runs / "enlarged", consistency=consistency)


def make_methods(options: argparse.Namespace) -> Iterator[Method]:
    """Give every method that reads the clean input."""
    engines = all_engines(names=options.engines)
    engines = [engine for engine in engines if options.heavy_frames or not is_heavy(engine)]
    for scale in sorted({engine.scale for engine in engines}):
        yield from interpolations(scale)
        for engine in engines:
            if engine.scale == scale:
                yield KeptEngine(engine, options.runs / "enlarged")


def _heavy(method: Method) -> bool:
    return isinstance(method, KeptEngine) and is_heavy(method.engine)


def over_clips(clips: dict[str, Any]) -> dict[str, Any]:
    """Return condition -> method -> figure -> mean of the clips and its 95 % interval over clips.

    Methods that no condition of a clip has are left out of that clip alone.
    """
    found: dict[str, Any] = {}
    conditions = dict.fromkeys(name for clip in clips.values() for name in clip if name not in ("size", "key"))
    for condition in conditions:
        rows = [clip.get(condition, {}) for clip in clips.values()]
        found[condition] = {
            method: _over([row[method] for row in rows if method in row])
            for method in dict.fromkeys(name for row in rows for name in row)
        }
    return found


def _over(rows: list[Figures]) -> dict[str, Any]:
    draws = Resampler([str(number) for number in range(len(rows))])
    figures: dict[str, Any] = {}
    for name in dict.fromkeys(key for row in rows for key in row if key != "frames"):
        interval = draws.interval([row.get(name, float("nan")) for row in rows])
        if interval is not None:
            figures[name] = {key: round(getattr(interval, key), 5) for key in ("mean", "low", "high")}
    return {**figures, "clips": len(rows)}


def result_of(clips: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Return the result."""
    return {
        "question": "video",
        "quick": False,
        "card": machine_card(),
        "frames": options.frames,
        "heavy_frames": options.heavy_frames,
        "clips": clips,
        "over_clips": over_clips(clips),
    }


def main(arguments: Sequence[str] | None = None, write: Callable[[str], Any] = print) -> int:
    """Measure the clips and write the result."""
    options = parse(arguments)
    paths = sorted(path for path in options.clips.iterdir() if path.suffix in VIDEOS)
    keys = {path: key_of_clip(path, options) for path in paths}
    before: dict[str, Any] = {}
    if options.json.is_file() and not options.anew:
        before = json.loads(options.json.read_text())["clips"]
    clips = {path.stem: before[path.stem] for path in paths if before.get(path.stem, {}).get("key") == keys[path]}
    for path in paths:
        if path.stem not in clips:
            write(path.name)
            clips[path.stem] = {"key": keys[path], **measure_clip(path, options, write)}
            write_files({options.json: dense(result_of(clips, options))})
    if set(before) - set(clips):
        write_files({options.json: dense(result_of(clips, options))})
    for condition, methods in over_clips(clips).items():
        for name, figures in methods.items():
            shown = "  ".join(f"{key} {cell['mean']:.3f}" for key, cell in figures.items() if key != "clips")
            write(f"{condition:8} {name:24} {shown}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
