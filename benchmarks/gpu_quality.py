"""What half precision, INT8 and FP8 cost: levels apart from fp32, and decibels lost against the original."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from benchmarks.gpu_timing import Section, inputs_of, real_pictures
from benchmarks.gpu_ways import left_out_where_refused, runtimes_of
from streamsr.engine import Engine, list_engines
from streamsr.runtimes.torch_cpu import TorchGenerator

FIRST = ("fast-x2", "tiny-x2", "quality-x2", "srgan-x4", "fast-x4", "tiny-x4", "quality-x4", "srgan-x2")
"""Engines in the order of their weight; the rest of the catalogue follows."""

LR_SIZE = (96, 120)
"""Height and width of what is enlarged: one for all engines, so that the ways to compute a layer are tried once."""

MOST_PICTURES = 12
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def compare_precisions(section: Section) -> None:
    """Compare every engine of the catalogue, in every runtime and precision that serves it, with fp32 on the CPU."""
    real = real_pictures(section.frames)[:MOST_PICTURES]
    rank = {name: place for place, name in enumerate(FIRST)}
    shipped = [engine for engine in list_engines() if engine.architecture != "bicubic"]
    engines = sorted(shipped, key=lambda engine: rank.get(engine.name, len(rank)))
    section.note("pictures", {"real": len(real), "engines": [engine.name for engine in engines]})
    size = (24, 32) if section.quick else LR_SIZE
    for engine in engines:
        with section.step(engine.name):
            pairs = pairs_of(section, engine, real, size)
            reference = TorchGenerator(engine)
            expected = [levels_of(reference.generate(as_given(engine, small))) for small, _ in pairs]
            for way in runtimes_of(section, engine):
                key = f"{engine.name} {way.name}"
                with section.step(key), left_out_where_refused(section, key):
                    generator = way.make()
                    made = [levels_of(generator.generate(as_given(engine, small))) for small, _ in pairs]
                    loss = precision_loss(made, expected, [target for _, target in pairs])
                    section.note(key, {"engine": engine.name, "precision": generator.precision, **loss})


def pairs_of(
    section: Section, engine: Engine, real: list[NDArray[np.uint8]], size: tuple[int, int]
) -> list[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    """Return pictures brought down, (1, C, h, w) uint8, and the originals, (1, C, H, W) in levels.

    Smooth random ones stand in where there is no real picture.
    """
    height, width = (engine.scale * side for side in size)
    pictures: list[NDArray[Any]] = [np.asarray(picture, np.float32) for picture in real]
    if not pictures:
        made = inputs_of(section, 3, height, width, torch.uint8, 4)[1::2]
        pictures = [picture[0].permute(1, 2, 0).float().cpu().numpy() for picture in made]
    pairs = []
    for picture in pictures[: 2 if section.quick else None]:
        target = middle_of(picture, height, width)
        channels = (target @ LUMA)[None] if engine.colour == "luma" else target.transpose(2, 0, 1)
        original = torch.from_numpy(np.ascontiguousarray(channels, np.float32))[None]
        pairs.append((brought_down(original, engine.scale), original.numpy()))
    return pairs


def middle_of(picture: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Return the middle of a picture, (H, W, 3), repeated as tiles where it is too small."""
    tall, wide = picture.shape[:2]
    tiled = np.tile(picture, (-(-height // tall), -(-width // wide), 1))
    top, left = ((have - want) // 2 for have, want in zip(tiled.shape, (height, width), strict=False))
    return tiled[top : top + height, left : left + width]


def brought_down(original: Tensor, scale: int) -> NDArray[np.uint8]:
    """Return a picture of 1/scale the size, each sample the mean of those that it stands for."""
    small: NDArray[np.uint8] = functional.avg_pool2d(original, scale).round().clamp(0, 255).to(torch.uint8).numpy()
    return small


def as_given(engine: Engine, small: NDArray[np.uint8]) -> NDArray[Any]:
    """Return a picture as the device path gives it to an engine: luma as samples, RGB as float32 in [0, 1]."""
    return small if engine.colour == "luma" else small.astype(np.float32) / np.float32(255)


def levels_of(made: NDArray[Any]) -> NDArray[np.int64]:
    """Return what an engine made in whole levels of 8 bits; not the generator's memory any more."""
    levels = made if made.dtype == np.uint8 else np.clip(np.rint(made * 255.0), 0, 255)
    return levels.astype(np.int64)


def precision_loss(
    made: list[NDArray[np.int64]], expected: list[NDArray[np.int64]], targets: list[NDArray[np.float32]]
) -> dict[str, Any]:
    """Return the largest difference in levels, the part of samples that differ, and the loss in decibels.

    >>> zeros, original = np.zeros((1, 1, 2, 2), np.int64), np.full((1, 1, 2, 2), 4, np.float32)
    >>> precision_loss([zeros], [zeros + 2], [original])["worst_loss_db"]
    6.0206
    """
    largest, differing, losses = 0, [], []
    for ours, reference, target in zip(made, expected, targets, strict=True):
        largest = max(largest, int(np.abs(ours - reference).max()))
        differing.append(float((ours != reference).mean()))
        errors = [max(float(((levels - target) ** 2).mean()), 1e-9) for levels in (ours, reference)]
        losses.append(10 * float(np.log10(errors[0] / errors[1])))
    return {
        "pictures": len(made),
        "largest_difference_levels": largest,
        "part_of_samples_that_differ": round(float(np.mean(differing)), 6),
        "worst_loss_db": round(max(losses), 5),
        "mean_loss_db": round(float(np.mean(losses)), 6),
    }
