"""How near are the x4 students to networks of natural images? ``python -m benchmarks.yardstick --runs RUNS``.

Two networks of the 2026 efficient super-resolution challenge and a probe were measured on frames of the same five sets
that are not here (`PUBLISHED`, luma PSNR inside the field of view). What can be had here is the probe, by its recipe:
``--train`` trains it (L1-like loss, Adam at 1e-3 down a cosine, 12,280 steps of 16 crops of 32x32 pixels, no branches).
Without ``--train`` it is measured on our test sides beside the shipped students; how far a student stands above the
probe here, less how far a published network stood above it there, is the nearest to a comparison that the data allow.
The result is ``results/yardstick.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.card import ROOT, machine_card
from benchmarks.retrained import psnr_by_set
from streamsr.models.student import SPECS, Student
from streamsr.training.networks import load_weights
from streamsr.training.pretrain import Pretraining
from streamsr.training.record import read_run
from streamsr.training.run import BEST
from streamsr.training.settings import PretrainSettings

RESULT = ROOT / "benchmarks" / "results" / "yardstick.json"
SCALE = 4
STUDENTS = ("fast-x4", "quality-x4")

PUBLISHED: dict[str, dict[str, float]] = {
    "bicubic": {"bkai": 31.13, "capsule": 35.28, "clinicdb": 34.94, "colondb": 42.95, "laparoscopy": 32.31},
    "SPAN, 150 k MAC": {"bkai": 32.68, "capsule": 37.55, "clinicdb": 37.65, "colondb": 45.36, "laparoscopy": 33.63},
    "DISP, 163 k MAC": {"bkai": 32.78, "capsule": 37.63, "clinicdb": 37.79, "colondb": 45.41, "laparoscopy": 33.69},
    "probe": {"bkai": 32.44, "capsule": 37.17, "clinicdb": 37.59, "colondb": 45.02, "laparoscopy": 33.56},
}
"""The data's own yardstick, on frames of further groups of the same sets; dB."""


class Probe(Student):
    """The probe's network: ``fast-x4`` without branches."""

    scale = SCALE

    def __init__(self) -> None:
        super().__init__(SPECS["fast-x4"])


def settings_of(data: Path, runs: Path) -> PretrainSettings:
    """Return the probe's recipe."""
    return PretrainSettings(
        model="fast-x4",
        data=str(data),
        output=str(runs / "probe-x4"),
        steps=12_280,
        batch=16,
        patch_px=32,
        learning_rate=1e-3,
        warm_steps=0,
        validate_every=6_140,
        checkpoint_every=500,
        log_every=500,
        finetune_steps=0,
        device="cpu",
    )


def shipped(name: str) -> dict[str, float]:
    """Return set -> luma PSNR in dB of a shipped engine's float form on the test side."""
    metrics = json.loads((ROOT / "engines" / name / "metrics.json").read_text(encoding="utf-8"))
    return {key: row["field_of_view"] for key, row in metrics["test"]["fp32"].items()}


def apart(ours: dict[str, float], theirs: dict[str, float]) -> dict[str, float]:
    """Return set -> how far one stands above the other, in dB."""
    return {name: round(ours[name] - theirs[name], 3) for name in theirs}


def comparison(here: dict[str, dict[str, float]]) -> dict[str, dict[str, dict[str, float]]]:
    """Return student -> published network -> set -> how far it stands above it, by way of the probe, in dB."""
    return {
        student: {
            network: apart(apart(here[student], here["probe"]), apart(PUBLISHED[network], PUBLISHED["probe"]))
            for network in PUBLISHED
            if network not in ("bicubic", "probe")
        }
        for student in STUDENTS
    }


def main(write: Callable[[str], Any] = print) -> int:
    """Train the probe, or measure it beside the students and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.yardstick", description=__doc__)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "yardstick", help="folder of the run")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--train", action="store_true", help="train the probe instead of measuring")
    arguments = parser.parse_args()
    if arguments.train:
        Pretraining(settings_of(arguments.data, arguments.runs), Probe()).run()
        return 0
    run = arguments.runs / "probe-x4"
    probe = Probe()
    load_weights(str(run / BEST), probe)
    measured = psnr_by_set(probe.eval(), SCALE, arguments.data, "test", None)
    here = {
        form: {key: row["field_of_view"] for key, row in by_set.items()}
        for form, by_set in {"bicubic": measured["bicubic"], "probe": measured["fp32"]}.items()
    } | {name: shipped(name) for name in STUDENTS}
    record = read_run(run)
    result = {
        "question": "yardstick",
        "quick": False,
        "card": machine_card(),
        "minutes": round(record.seconds / 60, 1),
        "steps": record.settings.steps,
        "here": here,
        "published": PUBLISHED,
        "above": comparison(here),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    for student, by_network in result["above"].items():  # type: ignore[attr-defined]
        for network, figures in by_network.items():
            write(f"{student:11} {network:16} {figures}")
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    raise SystemExit(main())
