"""What does the 2017 loss give, beside the house recipe? ``python -m benchmarks.paper_loss --runs RUNS [--data DIR]``.

Nothing is timed but the training itself. ``--train STAGE`` trains one stage: ``pixels`` goes on from ``srresnet-x4``
with squared error alone; from its weights, with the same crops, rate, steps and seed, ``paper`` has the loss of Ledig
et al. 2017 (squared error of VGG-19 features and 1e-3 of the adversarial loss), ``house`` the recipe of the shipped
adversarial weights, ``house-unspared`` the same without the care for spots of reflection. Crops are 32x32 pixels, as
those of the 2017 experiment. Without ``--train`` the stages in RUNS, and ``shipped``, the house recipe's weights as
they are in ``engines/srgan-x4`` (more steps, on a GPU), are measured on the same frames of the test sides, before any
projection. The result, settings included, is ``results/paper_loss.json``: luma PSNR, the LPIPS-like distance, and PSNR
inside highlights and in the ring around them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.card import ROOT, machine_card
from streamsr.quality.fidelity import psnr_db
from streamsr.quality.perceptual import LpipsLike, distance_between, in_colour
from streamsr.quality.specular import find_highlights, measure_highlights
from streamsr.training.data import Pair, Samples, bicubic_up, field_masks, load_pairs, luma_of
from streamsr.training.gan import AdversarialTraining
from streamsr.training.networks import build_network, load_weights
from streamsr.training.pretrain import Pretraining, enlarge
from streamsr.training.record import read_run, settings_text
from streamsr.training.run import BEST
from streamsr.training.settings import GanSettings, PretrainSettings

RESULT = ROOT / "benchmarks" / "results" / "paper_loss.json"
START = ROOT / "engines" / "srresnet-x4" / "model.safetensors"
SHIPPED = ROOT / "engines" / "srgan-x4"
STAGES = ("pixels", "paper", "house", "house-unspared")
SCALE = 4
FRAMES_A_SET = 8
"""Test frames of each set: the generator takes seconds for one."""


def pixel_settings(data: Path, runs: Path) -> PretrainSettings:
    """Return the settings of the first stage: squared error from the first step to the last."""
    return PretrainSettings(
        model="srresnet-x4",
        data=str(data),
        output=str(runs / "pixels"),
        start=str(START),
        steps=150,
        finetune_steps=150,
        batch=4,
        patch_px=32,
        learning_rate=1e-4,
        warm_steps=10,
        ema_decay=0.98,
        validate_every=150,
        validation_frames=1,
        checkpoint_every=50,
        log_every=10,
        device="cpu",
    )


def adversarial_settings(stage: str, data: Path, weights: Path, runs: Path) -> GanSettings:
    """Return the settings of an adversarial stage; but for the losses they are the same."""
    paper = GanSettings(
        model="srgan-x4",
        data=str(data),
        output=str(runs / stage),
        start=str(runs / "pixels" / BEST),
        features=str(weights / "vgg19_normalised_relu3_1.safetensors"),
        steps=300,
        batch=4,
        patch_px=32,
        learning_rate=1e-4,
        warm_steps=10,
        ema_decay=0.98,
        validate_every=300,
        validation_frames=1,
        checkpoint_every=50,
        log_every=10,
        device="cpu",
    )
    if stage == "paper":
        return paper
    house = replace(
        paper,
        feature_weight=0.1,
        squared_features=False,
        pixel_weight=0.1,
        adversarial_weight=5e-3,
        consistency_weight=1.0,
        spare_highlights=True,
    )
    return house if stage == "house" else replace(house, spare_highlights=False)


def train(stage: str, data: Path, weights: Path, runs: Path) -> None:
    """Train one stage."""
    if stage == "pixels":
        Pretraining(pixel_settings(data, runs)).run()
    else:
        AdversarialTraining(adversarial_settings(stage, data, weights, runs)).run()


def measure(enlarge_frame: Callable[[Samples], Samples], pairs: list[Pair], distance: LpipsLike) -> dict[str, Any]:
    """Return set -> figure -> mean over its frames; highlights over those that have some."""
    rows: dict[str, list[dict[str, float]]] = {}
    for pair, mask in zip(pairs, field_masks(pairs), strict=True):
        picture = enlarge_frame(pair.lr)
        luma = luma_of(picture)
        row = {
            "luma_psnr_db": psnr_db(luma, luma_of(pair.hr), mask=mask),
            "lpips_like": distance_between(distance, in_colour(luma, picture), pair.hr),
        }
        masks = {"picture_mask": find_highlights(picture), "truth_mask": find_highlights(pair.hr)}
        if highlights := measure_highlights(picture, pair.hr, **masks, field=mask):
            row |= {
                "highlight_psnr_db": highlights.inside_psnr_db,
                "ring_psnr_db": highlights.ring_psnr_db,
                "ring_overshoot": highlights.overshoot,
            }
        rows.setdefault(pair.dataset, []).append(row)
    return {name: _means(these) for name, these in rows.items()}


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of every figure over the rows that have it, and how many there are."""
    keys = dict.fromkeys(key for row in rows for key in row)
    means = {key: round(float(np.mean([row[key] for row in rows if key in row])), 5) for key in keys}
    return {**means, "frames": len(rows), "frames_with_highlights": sum("ring_psnr_db" in row for row in rows)}


def measure_weights(path: Path, pairs: list[Pair], distance: LpipsLike) -> dict[str, Any]:
    """Return what an SRGAN's weights give; see `measure`."""
    network = build_network(f"srgan-x{SCALE}")
    load_weights(str(path), network)
    network.eval()
    return measure(lambda lr: enlarge(network, lr), pairs, distance)


def measure_stage(run: Path, pairs: list[Pair], distance: LpipsLike) -> dict[str, Any]:
    """Return the settings of a run, what it took and what its best weights give."""
    record = read_run(run)
    return {
        "settings": settings_text(record).splitlines(),
        "minutes": round(record.seconds / 60, 1),
        "test": measure_weights(run / BEST, pairs, distance),
    }


def main(write: Callable[[str], Any] = print) -> int:
    """Train one stage, or measure every stage and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper_loss", description=__doc__)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "paper_loss", help="folder of the runs")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--weights", type=Path, default=ROOT.parent / "shared" / "weights")
    parser.add_argument("--train", choices=STAGES, help="train this stage instead of measuring")
    arguments = parser.parse_args()
    if arguments.train:
        train(arguments.train, arguments.data, arguments.weights, arguments.runs)
        return 0
    torch.set_num_threads(1)
    pairs = load_pairs(arguments.data, "test", SCALE, colour="rgb", most_per_set=FRAMES_A_SET)
    files = (arguments.weights / "squeezenet1.1.safetensors", arguments.weights / "lpips_linear_v0.1.safetensors")
    distance = LpipsLike.from_files(*files)
    stages: dict[str, Any] = {"bicubic": {"test": measure(lambda lr: bicubic_up(lr, SCALE), pairs, distance)}}
    for stage in STAGES:
        if (arguments.runs / stage / BEST).is_file():
            stages[stage] = measure_stage(arguments.runs / stage, pairs, distance)
            write(f"{stage:15} {stages[stage]['minutes']:5} min")
    shipped = (SHIPPED / "train.toml").read_text(encoding="utf-8").splitlines()
    stages["shipped"] = {
        "settings": shipped,
        "test": measure_weights(SHIPPED / "model.safetensors", pairs, distance),
    }
    result = {"question": "paper_loss", "quick": False, "card": machine_card(), "stages": stages}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    for stage, row in stages.items():
        for name, figures in row["test"].items():
            write(f"{stage:15} {name:12} {figures}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
