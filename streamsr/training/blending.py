"""Blend an adversarial engine with the fidelity engine that it was trained from: less drawn, nearer to the truth.

Both stand at two ends of one training, and networks between them give pictures between theirs (network interpolation,
Wang et al. 2018, ESRGAN, section 3.4). A blend is a choice: it is farther from the truth in the perceptual distance and
nearer in error, round reflections too. So, unlike a run that is shipped, it replaces what is there, and its card says
so.

Between the ends the colour of the whole picture drifts, at x4 by up to four grey levels of red: batch normalisation
does not blend. The bias of the last convolution is set so that on training crops the mean of each channel is the
input's.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from streamsr.engine import Engine, read_engine
from streamsr.errors import UsageError
from streamsr.models.srgan import SRGANGenerator
from streamsr.training.card import with_blend, with_quality
from streamsr.training.data import Pair, bicubic_down, load_pairs
from streamsr.training.measure import Perceptual, measure_engine
from streamsr.training.networks import load_weights
from streamsr.training.pretrain import enlarge
from streamsr.training.run import floats_of
from streamsr.training.ship import judged, put_in_place, replace, write_srgan

CENTRED_FRAMES = 8
"""Training frames of each set on which colour is centred."""

CENTRED_PX = 64
"""Side of the crop of each, in input pixels."""

EDGE_PX = 4
"""Input pixels at a crop's border that are left out: the reduction sees beyond it there."""


def blend_engine(there: Path, stage: Path, part: float, data: Path, *, perceptual: Perceptual | None = None) -> None:
    """Put a blend in the place of an adversarial engine, measured anew.

    Args:
        there: folder of the adversarial engine.
        stage: folder of the fidelity engine that it was trained from.
        part: of the adversarial weights in the blend, 0 to 1; the rest is the stage's.
        data: folder of the data.
        perceptual: weights of the LPIPS-like distance.

    Raises:
        UsageError: the engines cannot be blended, or the part cannot be.
        EngineError: one of them is damaged.
    """
    engine, start = read_engine(there), read_engine(stage)
    refuse_others(engine, start, part)
    if not (there / "card.md").is_file():
        raise UsageError(f"{there}: expected an engine with its card.md, got none; ship it anew")
    if "**Blend.**" in (there / "card.md").read_text(encoding="utf-8"):
        raise UsageError(f"{there}: expected undiluted weights, got a blend already; ship the run anew first")
    blended, first = loaded(engine), loaded(start)
    with torch.no_grad():
        for ours, theirs in zip(floats_of(blended), floats_of(first), strict=True):
            ours.lerp_(theirs, 1 - part)
        recentre(blended, load_pairs(data, "train", engine.scale, colour="rgb", most_per_set=CENTRED_FRAMES))
    with tempfile.TemporaryDirectory(prefix=".making-", dir=there.parent) as made_in:
        folder = Path(made_in) / there.name
        write_srgan(folder, blended, kind=engine.kind)
        sides = judged(folder, data, perceptual, robust=False)
        metrics = {**sides, "test": measure_engine(folder, data, split="test", perceptual=perceptual)}
        replace(folder / "metrics.json", json.dumps(metrics, indent=1).encode() + b"\n")
        text = with_blend((there / "card.md").read_text(encoding="utf-8"), part, start.name)
        replace(folder / "card.md", with_quality(text, metrics).encode())
        for kept in there.glob("stage-*.toml"):
            shutil.copy(kept, folder / kept.name)
        put_in_place(folder, there)


def recentre(generator: SRGANGenerator, pairs: Sequence[Pair]) -> None:
    """Move the last bias so that what is brought down again has the mean of its input, channel by channel.

    Args:
        generator: changed.
        pairs: from the middle of each, crops of `CENTRED_PX` input pixels are taken.
    """
    shifts = []
    for pair in pairs:
        top, left = (max(0, (side - CENTRED_PX) // 2) for side in pair.lr.shape[:2])
        lr = np.ascontiguousarray(pair.lr[top : top + CENTRED_PX, left : left + CENTRED_PX])
        back = bicubic_down(enlarge(generator, lr), generator.scale)
        inside = slice(EDGE_PX, -EDGE_PX), slice(EDGE_PX, -EDGE_PX)
        shifts.append((back[inside].astype(np.float64) - lr[inside]).mean(axis=(0, 1)))
    bias = generator.tail.bias
    assert bias is not None
    bias -= torch.from_numpy(np.mean(shifts, axis=0) / 255.0).to(bias)


def loaded(engine: Engine) -> SRGANGenerator:
    """Return the generator of an engine, its weights verified."""
    engine.verify()
    generator = SRGANGenerator(scale=engine.scale, num_blocks=engine.depth)
    assert engine.folder is not None
    load_weights(str(engine.folder / engine.precisions["fp32"]), generator)
    return generator.eval()


def refuse_others(engine: Engine, start: Engine, part: float) -> None:
    """Refuse engines that are no two ends of one training.

    Raises:
        UsageError: they are not, or the part cannot be.
    """
    shapes = [(each.architecture, each.scale, each.depth) for each in (engine, start)]
    kinds = (engine.kind, start.kind)
    if kinds != ("adversarial", "fidelity") or shapes[0] != shapes[1] or engine.architecture != "srgan":
        raise UsageError(
            f"expected an adversarial SRGAN engine and its fidelity stage, got {engine.name} ({engine.kind}) and "
            f"{start.name} ({start.kind}); name two engines of one training"
        )
    if not 0 <= part <= 1:
        raise UsageError(f"expected a part of 0 to 1, got {part:g}; 1 keeps the adversarial weights")
