"""Would residual groups, or colour, pay in a student? ``python -m benchmarks.variants --all [--runs RUNS]``.

Nothing is timed but the training itself. ``quality`` is trained with its seven layers in a plain chain and with six of
them as three residual groups; ``fast`` on luma, its picture coloured by the input enlarged by bicubic interpolation,
and on RGB: each pair alike, see `benchmarks.retrained.budget`, about five to fifteen minutes a network and core. Then
all are measured on the same reduced RGB files of validation and test sides, and on what a video would hold of these:
8-bit luma and chroma of half the size (``4:2:0``), which is what streamsr is given. The validation side decides.

``--train NAME`` trains one; without ``--all`` every finished run in RUNS is measured. The result is
``results/variants.json``: multiply-adds, minutes of training, and PSNR of luma and of RGB by set, of both inputs,
inside the field of view.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch import nn

from benchmarks.card import ROOT, machine_card
from benchmarks.retrained import as_run, cost, drawn, is_finished, train
from streamsr.capture.planes import BICUBIC_ACCURATE
from streamsr.errors import UsageError
from streamsr.evaluation.writing import write_files
from streamsr.quality.fidelity import psnr_db
from streamsr.quality.perceptual import in_colour
from streamsr.training.data import ColourSpace, Samples, bicubic_up, field_masks, load_pairs, luma_of
from streamsr.training.networks import colour_of, load_weights, scale_of
from streamsr.training.pretrain import enlarge
from streamsr.training.record import read_run
from streamsr.training.run import BEST
from streamsr.training.ship import JUDGED_FRAMES

RESULT = ROOT / "benchmarks" / "results" / "variants.json"

TRIALS = {"residual groups": ("quality", "quality-groups"), "colour": ("fast", "fast-rgb")}
"""Question -> the student as it is, and as it might be."""

MEASURES = ("luma", "rgb", "luma, 4:2:0", "rgb, 4:2:0")
"""What is measured: the first two of the files as they are, the others of what a video holds of them."""

CONTENDERS = [f"{name}-x{scale}" for scale in (2, 4) for pair in TRIALS.values() for name in pair]


def measure(run: Path, data: Path) -> dict[str, Any]:
    """Return what a run cost, and its PSNR on both sides, see `psnr_by_set`."""
    record = read_run(run)
    network = drawn(record.settings.model)
    load_weights(str(run / BEST), network)
    scale, colour = scale_of(network), colour_of(network)
    sides = {
        side: psnr_by_set(as_run(network).eval(), scale, colour, data, side, most)
        for side, most in (("val", JUDGED_FRAMES), ("test", None))
    }
    return {**cost(network), "steps": record.settings.steps, "minutes": round(record.seconds / 60, 1), **sides}


def psnr_by_set(
    network: nn.Module, scale: int, colour: ColourSpace, data: Path, side: str, most: int | None
) -> dict[str, dict[str, float]]:
    """Return measure -> set -> mean PSNR in dB inside the field of view, of luma and RGB, and of these from video."""
    pairs = load_pairs(data, side, scale, colour="rgb", most_per_set=most)
    figures: dict[str, dict[str, list[float]]] = {measure: {} for measure in MEASURES}
    for pair, mask in zip(pairs, field_masks(pairs), strict=True):
        filmed = through_video(pair.lr)
        for source, measures in ((pair.lr, MEASURES[:2]), (filmed, MEASURES[2:])):
            if colour == "rgb":
                shown = enlarge(network, source)
                luma = luma_of(shown)
            else:
                luma = enlarge(network, luma_of(source))
                shown = coloured(luma, bicubic_up(source, scale))
            found = (psnr_db(luma, luma_of(pair.hr), mask=mask), psnr_db(shown, pair.hr, mask=mask))
            for measure, decibels in zip(measures, found, strict=True):
                figures[measure].setdefault(pair.dataset, []).append(decibels)
    return {
        name: {key: round(float(np.mean(values)), 5) for key, values in by_set.items()}
        for name, by_set in figures.items()
    }


def through_video(rgb: Samples) -> Samples:
    """Return an (h, w, 3) uint8 RGB picture as it comes out of 8-bit 4:2:0 planes (BT.601, studio range)."""
    height, width = (side // 2 * 2 for side in rgb.shape[:2])
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb[:height, :width]), format="rgb24")
    planes = frame.reformat(format="yuv420p", dst_colorspace="itu601", interpolation=BICUBIC_ACCURATE, threads=1)
    back = planes.reformat(format="rgb24", src_colorspace="itu601", interpolation=BICUBIC_ACCURATE, threads=1)
    made = np.array(back.to_ndarray(), np.uint8)
    margins = [(0, rgb.shape[0] - height), (0, rgb.shape[1] - width), (0, 0)]
    return np.ascontiguousarray(np.pad(made, margins, mode="edge"))


def coloured(luma: Samples, rgb: Samples) -> Samples:
    """Return a luma network's picture, (H, W), in the colour of another, (H, W, 3), all uint8."""
    return np.ascontiguousarray(np.rint(in_colour(luma, rgb)), np.uint8)


def gains(networks: dict[str, Any]) -> dict[str, Any]:
    """Return question -> scale -> side -> measure -> set -> dB that the variant is above the student."""
    found: dict[str, Any] = {}
    for question, (ours, other) in TRIALS.items():
        for scale in (2, 4):
            names = [f"{name}-x{scale}" for name in (ours, other)]
            if not all(name in networks for name in names):
                continue
            here, there = (networks[name] for name in names)
            found.setdefault(question, {})[f"x{scale}"] = {
                side: {
                    measure: {key: round(there[side][measure][key] - value, 3) for key, value in by_set.items()}
                    for measure, by_set in here[side].items()
                }
                for side in ("val", "test")
            }
    return found


def main(arguments: Sequence[str] | None = None, write: Callable[[str], Any] = print) -> int:
    """Train what is asked for, measure every finished run and write the result.

    Raises:
        UsageError: no run is finished.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.variants", description=__doc__)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "retrained", help="folder of the runs")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--train", choices=CONTENDERS, help="train this one instead of measuring")
    what.add_argument("--all", action="store_true", help="train every one that is not trained, then measure")
    options = parser.parse_args(arguments)
    wanted = [options.train] if options.train else CONTENDERS if options.all else []
    for name in wanted:
        if not is_finished(options.runs / name):
            write(f"{name}: training")
            train(name, options.data, options.runs)
    if options.train:
        return 0
    finished = [name for name in CONTENDERS if is_finished(options.runs / name)]
    if not finished:
        raise UsageError(f"{options.runs}: expected a finished run, got none; train them with --all or name --runs")
    if missing := [name for name in CONTENDERS if name not in finished]:
        write(f"not trained, and left out: {', '.join(missing)}")
    torch.set_num_threads(1)
    networks = {name: measure(options.runs / name, options.data) for name in finished}
    above = gains(networks)
    about = {"question": "variants", "quick": False, "card": machine_card(), "trials": TRIALS}
    result = {**about, "networks": networks, "above": above}
    write_files({RESULT: (json.dumps(result, indent=1) + "\n").encode()})
    for question, by_scale in above.items():
        for scale, by_side in by_scale.items():
            for side, by_measure in by_side.items():
                write(f"{question} {scale} {side}: {by_measure}")
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except UsageError as cause:
        raise SystemExit(f"variants: {cause}") from None
