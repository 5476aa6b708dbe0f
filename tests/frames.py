"""Data folders for training tests, made anew: small coloured frames in sets and sides, with marks and a manifest."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

COLUMNS = ("dataset", "split", "group", "file", "mask", "width", "height", "sha256")
SIZE = (134, 139)
"""Height and width of a frame; neither is a multiple of 2 or of 4 on both sides."""

Rows = list[dict[str, str]]


def scene(seed: int, height: int = SIZE[0], width: int = SIZE[1]) -> NDArray[np.uint8]:
    """Return (height, width, 3) uint8 RGB: bright coloured ground with detail that a reduction by two loses."""
    random = np.random.default_rng(seed)
    ground = cv2.resize(random.uniform(90, 190, (7, 7, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
    detail = cv2.GaussianBlur(random.normal(0, 40, (height, width)), (0, 0), 0.8)
    return np.clip(ground + detail[..., None] * (1.0, 0.8, 0.7), 45, 225).astype(np.uint8)


def make_data(
    folder: Path,
    *,
    sets: tuple[str, ...] = ("one", "two"),
    splits: tuple[str, ...] = ("train", "val", "test"),
    frames: int = 2,
    marked: bool = False,
) -> Path:
    """Fill a folder with frames, the left half of each marked where asked, and MANIFEST.tsv; return it."""
    rows: Rows = []
    for split in splits:
        for name in sets:
            for number in range(frames):
                seed = len(rows)
                rows.append(add_frame(folder, scene(seed), name, split, f"{'ble' if number % 2 else 'non'}{seed}"))
                if marked:
                    rows[-1]["mask"] = add_marks(folder, rows[-1]["file"])
    write_manifest(folder, rows)
    return folder


def add_frame(folder: Path, picture: NDArray[np.uint8], dataset: str, split: str, name: str) -> dict[str, str]:
    """Write a frame as PNG and return its row."""
    path = folder / dataset / split / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    file = path.relative_to(folder).as_posix()
    height, width = picture.shape[:2]
    values = (dataset, split, name, file, "", str(width), str(height), digest)
    return dict(zip(COLUMNS, values, strict=True))


def add_marks(folder: Path, file: str) -> str:
    """Write a mask of the left half beside a frame and return its name."""
    mask = np.zeros(SIZE, np.uint8)
    mask[:, : SIZE[1] // 2] = 255
    name = file.replace(".png", ".mask.png")
    Image.fromarray(mask).save(folder / name)
    return name


def read_rows(folder: Path) -> Rows:
    with (folder / "MANIFEST.tsv").open(newline="", encoding="utf-8") as manifest:
        return list(csv.DictReader(manifest, delimiter="\t"))


def write_manifest(folder: Path, rows: Rows) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(rows[0]), *("\t".join(row.values()) for row in rows)]
    (folder / "MANIFEST.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
