"""What does degraded input cost, and what do robust weights give? ``python -m benchmarks.robustness [--data DIR]``.

Nothing is timed. The reduced luma of at most 20 frames of each set, validation and test side, is degraded with fixed
seeds, one fault at a time (`FAULTS`); bicubic interpolation, ``fast-x2`` and ``fast-x2-robust`` enlarge it, with and
without the consistency projection, as they run on a CPU. Luma PSNR against the undegraded truth, inside the field of
view, goes to ``results/robustness.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.card import ROOT, machine_card
from streamsr.engine import read_engine
from streamsr.quality.fidelity import psnr_db
from streamsr.training.data import Pair, Samples, bicubic_up, field_masks, load_pairs
from streamsr.training.degrade import bicubic_down, gaussian_blur, h264_frames
from streamsr.training.jpeg import jpeg
from streamsr.training.measure import Enlarge, enlarger_of, projected

RESULT = ROOT / "benchmarks" / "results" / "robustness.json"
ENGINES = ("fast-x2", "fast-x2-robust")
SCALE = 2
FRAMES_A_SET = 20

Degrade = Callable[[list[Pair]], list[Samples]]
"""Pairs of luma to as many reduced pictures, (h, w) uint8."""


def noisy(pairs: list[Pair], *, deviation: float) -> list[Samples]:
    """Add Gaussian noise of a deviation in grey levels; a frame's place in the list is its seed."""
    made = []
    for seed, pair in enumerate(pairs):
        noise = np.random.default_rng(seed).normal(0, deviation, pair.lr.shape)
        made.append(np.rint(pair.lr + noise).clip(0, 255).astype(np.uint8))
    return made


def blurred(pairs: list[Pair], *, sigma_px: float) -> list[Samples]:
    """Blur the truth by a Gaussian of so many high-resolution pixels, then bring it down."""
    sigma = torch.tensor([sigma_px])
    return [samples_of(bicubic_down(gaussian_blur(tensor_of(pair.hr), sigma), SCALE)) for pair in pairs]


def jpeg_coded(pairs: list[Pair], *, quality: int) -> list[Samples]:
    """Code reduced pictures as JPEG."""
    return [samples_of(jpeg(tensor_of(pair.lr), torch.tensor([float(quality)]))) for pair in pairs]


def h264_coded(pairs: list[Pair], *, crf: int) -> list[Samples]:
    """Code reduced pictures as H.264, every one a key frame: stills of one size are no video."""
    made: dict[str, Samples] = {}
    for shape in {pair.lr.shape for pair in pairs}:
        same = [pair for pair in pairs if pair.lr.shape == shape]
        coded = h264_frames([pair.lr for pair in same], crf=crf, keyframe_every=1)
        made |= {pair.file: frame for pair, frame in zip(same, coded, strict=True)}
    return [made[pair.file] for pair in pairs]


FAULTS: dict[str, Degrade] = {
    "clean": lambda pairs: [pair.lr for pair in pairs],
    "noise of 2 levels": partial(noisy, deviation=2.0),
    "noise of 5 levels": partial(noisy, deviation=5.0),
    "blur of 1.5 px": partial(blurred, sigma_px=1.5),
    "JPEG quality 80": partial(jpeg_coded, quality=80),
    "JPEG quality 60": partial(jpeg_coded, quality=60),
    "H.264 CRF 23": partial(h264_coded, crf=23),
    "H.264 CRF 28": partial(h264_coded, crf=28),
}
"""Name -> how the reduced pictures are degraded."""


def tensor_of(luma: Samples) -> torch.Tensor:
    """Return (1, 1, H, W) float32 in [0, 1] of (H, W) uint8."""
    return torch.from_numpy(luma)[None, None].float() / 255


def samples_of(luma: torch.Tensor) -> Samples:
    """Return (H, W) uint8 of (1, 1, H, W) in [0, 1]."""
    return (luma[0, 0] * 255).round().clamp(0, 255).to(torch.uint8).numpy()


def measure_side(side: str, data: Path, enlargers: dict[str, Enlarge]) -> dict[str, dict[str, dict[str, float]]]:
    """Return fault -> form -> set -> mean luma PSNR in dB."""
    pairs = load_pairs(data, side, SCALE, most_per_set=FRAMES_A_SET)
    masks = field_masks(pairs)
    figures: dict[str, dict[str, dict[str, list[float]]]] = {}
    for fault, degrade in FAULTS.items():
        for pair, mask, lr in zip(pairs, masks, degrade(pairs), strict=True):
            pictures = {"bicubic": bicubic_up(lr, SCALE)}
            for name, enlarge in enlargers.items():
                pictures[name] = enlarge(lr)
                pictures[f"{name}, projected"] = projected(lr, pictures[name], SCALE)
            for form, picture in pictures.items():
                by_set = figures.setdefault(fault, {}).setdefault(form, {})
                by_set.setdefault(pair.dataset, []).append(psnr_db(picture, pair.hr, mask=mask))
    return {
        fault: {
            form: {name: round(float(np.mean(values)), 4) for name, values in by_set.items()}
            for form, by_set in forms.items()
        }
        for fault, forms in figures.items()
    }


def main(write: Callable[[str], Any] = print) -> int:
    """Measure both sides, write the result and print the mean of the sets for every fault and form."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.robustness", description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--engines", type=Path, default=ROOT / "engines")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    engines = {name: read_engine(arguments.engines / name) for name in ENGINES}
    enlargers = {
        name: enlarger_of(engine, "int8" if "int8" in engine.precisions else "fp32") for name, engine in engines.items()
    }
    sides = {side: measure_side(side, arguments.data, enlargers) for side in ("val", "test")}
    result = {"question": "robustness", "quick": False, "card": machine_card(), "frames_a_set": FRAMES_A_SET, **sides}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    for side, faults in sides.items():
        for fault, forms in faults.items():
            means = "  ".join(f"{form} {np.mean(list(by_set.values())):.2f}" for form, by_set in forms.items())
            write(f"{side:4}  {fault:18} {means}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
