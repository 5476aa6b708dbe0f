"""Training pictures: the manifest, checked, and pairs of truth and reduction decoded once."""

from __future__ import annotations

import csv
import hashlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from streamsr.errors import InputError
from streamsr.quality.fidelity import field_of_view

log = logging.getLogger(__name__)

Samples = NDArray[np.uint8]
ColourSpace = Literal["luma", "rgb"]

LUMA_601 = np.array([65.481, 128.553, 24.966]) / 255.0
"""ITU-R BT.601 studio-range luma of 8-bit RGB: 16 + LUMA_601 . (R, G, B)."""

SPLITS = {"train", "val", "test"}
"""Sides of the data."""

SMALLEST_SIDE_PX = 128
"""Frames with a shorter side hold no crop worth training on and are left out."""


@dataclass(frozen=True)
class Pair:
    """One frame: the truth and its reduced picture.

    Attributes:
        dataset: name of the set it comes from.
        hr: (scale * h, scale * w) studio-range luma or (scale * h, scale * w, 3) RGB, uint8.
        lr: (h, w) or (h, w, 3) uint8: hr brought down.
        file: its name in the manifest.
        marks: (scale * h, scale * w) bool, a finding drawn by an expert; None where there is none.
    """

    dataset: str
    hr: Samples
    lr: Samples
    file: str = ""
    marks: NDArray[np.bool_] | None = None


def luma_of(rgb: Samples) -> Samples:
    """Return (H, W) uint8 studio-range BT.601 luma of (H, W, 3) uint8 RGB, rounded to nearest."""
    return np.rint(rgb.astype(np.float64) @ LUMA_601 + 16.0).astype(np.uint8)


def bicubic_down(hr: Samples, scale: int) -> Samples:
    """Bring a picture down with the antialiased bicubic filter (a = -0.5) that the field's benchmarks use."""
    height, width = hr.shape[:2]
    return np.array(Image.fromarray(hr).resize((width // scale, height // scale), Image.Resampling.BICUBIC))


def bicubic_up(lr: Samples, scale: int) -> Samples:
    """Enlarge a picture with bicubic interpolation (a = -0.5), the reference every generator has to beat."""
    height, width = lr.shape[:2]
    return np.array(Image.fromarray(lr).resize((width * scale, height * scale), Image.Resampling.BICUBIC))


def read_manifest(data: Path) -> list[dict[str, str]]:
    """Read the rows of a data folder's MANIFEST.tsv.

    Raises:
        InputError: it is missing, or lacks a column or a field.
    """
    path = data / "MANIFEST.tsv"
    try:
        with path.open(newline="", encoding="utf-8") as manifest:
            rows = list(csv.DictReader(manifest, delimiter="\t"))
    except (OSError, ValueError, csv.Error) as cause:
        reason = cause.strerror if isinstance(cause, OSError) else cause
        raise InputError(f"{path}: expected the list of frames, got {reason}; name another data folder") from cause
    if not rows or not {"dataset", "split", "file"} <= set(rows[0]):
        raise InputError(
            f"{path}: expected rows with dataset, split and file, got {len(rows)} rows without; mend the list"
        )
    for number, row in enumerate(rows, 2):
        sizes = [row.get(name) or "1" for name in ("width", "height")]
        if not (row["dataset"] and row["split"] and row["file"] and all(size.isdecimal() for size in sizes)):
            raise InputError(f"{path}: expected dataset, split, file and whole sizes in line {number}; mend the list")
    if unknown := sorted({str(row["split"]) for row in rows} - SPLITS):
        raise InputError(f"{path}: expected sides {', '.join(sorted(SPLITS))}, got {', '.join(unknown)}; mend the list")
    for key in ("file", "sha256"):
        sides: dict[str, str] = {}
        for row in rows:
            if row.get(key) and sides.setdefault(row[key], row["split"]) != row["split"]:
                raise InputError(f"{path}: expected every picture on one side, got {row['file']} on two; mend the list")
    return rows


def load_pairs(
    data: Path,
    split: str,
    scale: int,
    *,
    colour: ColourSpace = "luma",
    most_per_set: int | None = None,
    with_marks: bool = False,
) -> list[Pair]:
    """Decode one side of the data once, on every core.

    The reduction is made from RGB and rounded to 8 bit, as a file would hold it; its luma is what luma networks get, so
    that every network sees the same reduced file. Frames that teach nothing (short sides, no colour, exact copies of
    another) are left out with one logged line; another names the groups that training shares with other sides.

    Args:
        data: folder with MANIFEST.tsv (columns dataset, split, file; used where present: group; checked: width, height,
            sha256).
        split: ``train``, ``val`` or ``test``.
        scale: how far to bring the truth down.
        colour: what the pairs hold.
        most_per_set: take at most so many frames of a set, evenly spread.
        with_marks: read the masks beside the frames too.

    Raises:
        InputError: the manifest is missing or lacks a column, a file is missing, unreadable or not the one it lists, or
            nothing is left.
    """
    listed = read_manifest(data)
    rows = sorted(chosen_rows(listed, split, most_per_set), key=lambda row: row["dataset"])
    if split == "train" and (shared := groups_on_two_sides(listed)):
        log.warning("%s: on more than one side, so validation may flatter: %s", data, ", ".join(shared))
    with ThreadPoolExecutor(
        max_workers=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    ) as pool:
        found = list(pool.map(lambda row: _read_pair(data, row, scale, colour, with_marks), rows))
    left_out = Counter(item for item in found if isinstance(item, str))
    seen: set[str] = set()
    pairs = []
    for item in found:
        if isinstance(item, str):
            continue
        pair, digest = item
        if digest in seen:
            left_out["exact copies"] += 1
            continue
        seen.add(digest)
        pairs.append(pair)
    if left_out:
        log.warning("%s: left out of %s: %s", data, split, ", ".join(f"{n} {why}" for why, n in left_out.items()))
    if not pairs:
        raise InputError(
            f"{data}: expected frames of the side {split!r}, got none that can be used; see its MANIFEST.tsv"
        )
    return pairs


def groups_on_two_sides(rows: Iterable[dict[str, str]]) -> list[str]:
    """Return the groups (an exam, a sequence, a surgery) that have frames on more than one side, as ``set/group``."""
    sides: dict[str, set[str]] = {}
    for row in rows:
        if row.get("group"):
            sides.setdefault(f"{row['dataset']}/{row['group']}", set()).add(row["split"])
    return sorted(name for name, found in sides.items() if len(found) > 1)


def chosen_rows(rows: Iterable[dict[str, str]], split: str, most_per_set: int | None) -> list[dict[str, str]]:
    """Return the rows of a side, at most so many of a set, evenly spread."""
    by_set: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        if row["split"] == split:
            by_set.setdefault(row["dataset"], []).append(row)
    chosen = []
    for members in by_set.values():
        stride = 1 if most_per_set is None else max(1, len(members) // most_per_set)
        chosen += members[::stride][:most_per_set]
    return chosen


def _read_pair(
    data: Path, row: dict[str, str], scale: int, colour: ColourSpace, with_marks: bool
) -> tuple[Pair, str] | str:
    """Return a row's pair and the hash of its file, or why it is left out."""
    rgb, digest = read_listed(data, row)
    height, width = (side // scale * scale for side in rgb.shape[:2])
    if min(height, width) < SMALLEST_SIDE_PX:
        return f"frames with a side below {SMALLEST_SIDE_PX} px"
    if not np.ptp(rgb, axis=2).any():
        return "frames without colour"
    hr = np.ascontiguousarray(rgb[:height, :width])
    lr = bicubic_down(hr, scale)
    marks = read_marks(data / row["mask"], hr.shape[:2]) if with_marks and row.get("mask") else None
    convert: Callable[[Samples], Samples] = luma_of if colour == "luma" else np.ascontiguousarray
    return Pair(row["dataset"], convert(hr), convert(lr), row["file"], marks), digest


def read_listed(data: Path, row: dict[str, str]) -> tuple[Samples, str]:
    """Read a listed frame as (H, W, 3) uint8 RGB, with its SHA-256.

    Raises:
        InputError: it is missing, unreadable, or not the file that the manifest lists.
    """
    path = data / row["file"]
    try:
        content = path.read_bytes()
        with Image.open(path) as picture:
            rgb: Samples = np.array(picture.convert("RGB"))
    except Exception as cause:  # Pillow raises many kinds for broken files
        line = " ".join(str(cause).split())[:120]
        raise InputError(f"{path}: expected a picture, got {line}; mend the file or take its row out") from cause
    digest = hashlib.sha256(content).hexdigest()
    size = (int(row.get("width") or rgb.shape[1]), int(row.get("height") or rgb.shape[0]))
    if (row.get("sha256") or digest).lower() != digest or size != (rgb.shape[1], rgb.shape[0]):
        raise InputError(
            f"{path}: expected the {size[0]}x{size[1]} picture of the manifest, got {rgb.shape[1]}x{rgb.shape[0]} "
            f"with SHA-256 {digest[:12]}...; restore the file or mend the manifest"
        )
    return rgb, digest


def read_marks(path: Path, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Read a mask beside a frame as (H, W) bool, cut to a shape.

    Raises:
        InputError: it is missing, unreadable or smaller.
    """
    try:
        with Image.open(path) as picture:
            marks = np.asarray(picture.convert("L"))[: shape[0], : shape[1]] > 127
    except Exception as cause:  # Pillow raises many kinds for broken files
        line = " ".join(str(cause).split())[:120]
        raise InputError(f"{path}: expected the mask of a frame, got {line}; mend the file or its row") from cause
    if marks.shape != tuple(shape):
        raise InputError(
            f"{path}: expected a mask of {shape[1]}x{shape[0]}, got {marks.shape[1]}x{marks.shape[0]}; mend the file"
        )
    return np.ascontiguousarray(marks)


def field_masks(pairs: list[Pair]) -> list[NDArray[np.bool_]]:
    """Return the field of view of every truth."""
    cv2.setNumThreads(1)
    return [field_of_view(pair.hr if pair.hr.ndim == 2 else luma_of(pair.hr)) for pair in pairs]


def mean_by_set(pairs: list[Pair], values: list[Any]) -> dict[str, float]:
    """Return the mean of a figure over the frames of each set, and ``mean``, that of the sets."""
    figures: dict[str, list[float]] = {}
    for pair, value in zip(pairs, values, strict=True):
        figures.setdefault(pair.dataset, []).append(float(value))
    means = {name: sum(these) / len(these) for name, these in figures.items()}
    return {**means, "mean": sum(means.values()) / len(means)}
