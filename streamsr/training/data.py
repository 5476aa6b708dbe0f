"""Training pictures: the manifest, luma pairs decoded once, and batches of aligned crops."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from streamsr.errors import InputError
from streamsr.quality.fidelity import field_of_view

LUMA_601 = np.array([65.481, 128.553, 24.966]) / 255.0
"""ITU-R BT.601 studio-range luma of 8-bit RGB: 16 + LUMA_601 . (R, G, B)."""


@dataclass(frozen=True)
class LumaPair:
    """One frame: the truth and its reduced picture.

    Attributes:
        dataset: name of the set it comes from.
        hr: (scale * h, scale * w) uint8 studio-range luma.
        lr: (h, w) uint8 studio-range luma, hr brought down by the named degradation.
    """

    dataset: str
    hr: NDArray[np.uint8]
    lr: NDArray[np.uint8]


def read_luma(path: Path) -> NDArray[np.uint8]:
    """Read a picture as (H, W) uint8 studio-range BT.601 luma."""
    rgb = np.asarray(Image.open(path).convert("RGB"), dtype=np.float64)
    return np.rint(rgb @ LUMA_601 + 16.0).astype(np.uint8)


def bicubic_down(hr: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Bring luma down with the antialiased bicubic filter (a = -0.5) that the field's benchmarks use."""
    height, width = hr.shape
    return np.array(Image.fromarray(hr).resize((width // scale, height // scale), Image.Resampling.BICUBIC))


def bicubic_up(lr: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Enlarge luma with bicubic interpolation (a = -0.5), the reference every generator has to beat."""
    height, width = lr.shape
    return np.array(Image.fromarray(lr).resize((width * scale, height * scale), Image.Resampling.BICUBIC))


def read_manifest(data: Path) -> list[dict[str, str]]:
    """Read the rows of a data folder's MANIFEST.tsv.

    Raises:
        InputError: it is missing, or lacks a column.
    """
    path = data / "MANIFEST.tsv"
    try:
        with path.open(newline="", encoding="utf-8") as manifest:
            rows = list(csv.DictReader(manifest, delimiter="\t"))
    except OSError as cause:
        raise InputError(
            f"{path}: expected the list of frames, got {cause.strerror}; name another data folder"
        ) from cause
    if not rows or not {"dataset", "split", "file"} <= set(rows[0]):
        raise InputError(
            f"{path}: expected rows with dataset, split and file, got {len(rows)} rows without; mend the list"
        )
    return rows


def load_pairs(data: Path, split: str, scale: int, *, most_per_set: int | None = None) -> list[LumaPair]:
    """Decode one side of the data into luma pairs.

    Args:
        data: folder with MANIFEST.tsv (columns dataset, split, file, ...).
        split: ``train``, ``val`` or ``test``.
        scale: how far to bring the truth down.
        most_per_set: take at most so many frames of a set, evenly spread.

    Raises:
        InputError: the manifest is missing or lacks a column.
    """
    rows = [row for row in read_manifest(data) if row["split"] == split]
    pairs = []
    for dataset in sorted({row["dataset"] for row in rows}):
        files = [row["file"] for row in rows if row["dataset"] == dataset]
        stride = 1 if most_per_set is None else max(1, len(files) // most_per_set)
        for file in files[::stride][:most_per_set]:
            luma = read_luma(data / file)
            height, width = (side // scale * scale for side in luma.shape)
            hr = np.ascontiguousarray(luma[:height, :width])
            pairs.append(LumaPair(dataset, hr, bicubic_down(hr, scale)))
    return pairs


class CropSampler:
    """Endless batches of aligned crops, every set drawn equally often, crops of the dark surround left out.

    Args:
        pairs: the frames to draw from.
        scale: enlargement.
        patch_px: side of the low-resolution crop.
        batch: crops a batch.
        seed: the draw is a function of it.
    """

    def __init__(self, pairs: list[LumaPair], *, scale: int, patch_px: int, batch: int, seed: int) -> None:
        self.scale, self.patch_px, self.batch = scale, patch_px, batch
        self.rng = np.random.default_rng(seed)
        self.sets = [[pair for pair in pairs if pair.dataset == name] for name in sorted({p.dataset for p in pairs})]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            crops = [self.draw() for _ in range(self.batch)]
            yield (
                torch.from_numpy(np.stack([lr for lr, _ in crops]))[:, None].float() / 255.0,
                torch.from_numpy(np.stack([hr for _, hr in crops]))[:, None].float() / 255.0,
            )

    def draw(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Draw one crop, turned and mirrored at random; a crop that is mostly unlit is drawn again."""
        size, scale, rng = self.patch_px, self.scale, self.rng
        for _ in range(8):
            frames = self.sets[rng.integers(len(self.sets))]
            pair = frames[rng.integers(len(frames))]
            top, left = (int(rng.integers(side - size + 1)) for side in pair.lr.shape)
            lr = pair.lr[top : top + size, left : left + size]
            if float(np.mean(lr > 32)) > 0.6:
                break
        hr = pair.hr[top * scale : (top + size) * scale, left * scale : (left + size) * scale]
        turn, mirror = int(rng.integers(4)), bool(rng.integers(2))
        lr, hr = np.rot90(lr, turn), np.rot90(hr, turn)
        return (lr[:, ::-1], hr[:, ::-1]) if mirror else (lr, hr)


def field_masks(pairs: list[LumaPair]) -> list[NDArray[np.bool_]]:
    """Return the field of view of every truth."""
    cv2.setNumThreads(1)
    return [field_of_view(pair.hr) for pair in pairs]
