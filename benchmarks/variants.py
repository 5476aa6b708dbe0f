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

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.card import ROOT, machine_card
from benchmarks.retrained import as_run, cost, drawn, trained
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

BLUE_LESS_LUMA = np.array([-0.168736, -0.331264, 0.5]) * (224 / 255)
RED_LESS_LUMA = np.array([0.5, -0.418688, -0.081312]) * (224 / 255)
"""Rec. ITU-R BT.601 colour differences of 8-bit RGB, in levels of studio range."""

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
        luma = enlarge(network, luma_of(pair.lr)) if colour == "luma" else None  # the same of files and of video
        for source, measures in ((pair.lr.astype(np.float64), MEASURES[:2]), (as_video(pair.lr), MEASURES[2:])):
            if luma is None:
                shown = picture_of(network, source)
            else:
                shown = coloured(luma, bicubic_up(np.rint(source).astype(np.uint8), scale))
            judged = luma_of(shown) if luma is None else luma
            found = (psnr_db(judged, luma_of(pair.hr), mask=mask), psnr_db(shown, pair.hr, mask=mask))
            for measure, decibels in zip(measures, found, strict=True):
                figures[measure].setdefault(pair.dataset, []).append(decibels)
    return {
        name: {key: round(float(np.mean(values)), 5) for key, values in by_set.items()}
        for name, by_set in figures.items()
    }


def as_video(rgb: Samples) -> NDArray[np.float64]:
    """Return what 8-bit 4:2:0 planes (BT.601, studio range) hold of an (h, w, 3) uint8 RGB picture.

    Returns:
        (h, w, 3) in [0, 255], not rounded, as streamsr gives it to networks on RGB; its luma is the picture's, rounded.
    """
    blue, red = (chroma_of(rgb, luma_weights) for luma_weights in (BLUE_LESS_LUMA, RED_LESS_LUMA))
    grey = (luma_of(rgb).astype(np.float64) - 16) * (255 / 219)
    change = np.stack([1.402 * red, -0.344136 * blue - 0.714136 * red, 1.772 * blue], axis=2) * (255 / 224)
    return np.asarray((grey[..., None] + change).clip(0, 255), np.float64)


def chroma_of(rgb: Samples, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a colour difference in levels, rounded at half the size and enlarged again by interpolation."""
    height, width = rgb.shape[:2]
    half = ((width + 1) // 2, (height + 1) // 2)
    small = np.rint(cv2.resize(rgb.astype(np.float64) @ weights, half, interpolation=cv2.INTER_AREA))
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.float64)


@torch.inference_mode()
def picture_of(network: nn.Module, rgb: NDArray[np.float64]) -> Samples:
    """Enlarge an (h, w, 3) picture in [0, 255] by a network on RGB; rounded to uint8."""
    planes = torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1), np.float32))[None] / 255
    made = (network(planes)[0] * 255).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(made.permute(1, 2, 0).numpy())


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
    options, finished = trained("variants", __doc__, CONTENDERS, arguments, write)
    if options.train:
        return 0
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
