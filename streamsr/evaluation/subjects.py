"""What is measured: the pictures and videos of a folder, or one side of a data folder with a manifest.

The truth is read from the file; the low resolution is made from it. A frame that cannot be used is left out, with one
line, and the rest is measured.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamsr.capture import open_source
from streamsr.colour import to_rgb8
from streamsr.errors import InputError, InputNotFound, StreamsrError
from streamsr.evaluation.images import SMALLEST_SIDE_PX, read_picture
from streamsr.evaluation.outputs import left_by_evaluation
from streamsr.frame import Frame
from streamsr.quality.fidelity import is_lit
from streamsr.training.data import chosen_rows, luma_of, read_manifest

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
VIDEOS = {".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".h264", ".h265", ".hevc"}

KIN = "intervals are too narrow if some are of one examination"
KINDS_NAMED = 6
"""Endings that are named of files that are not looked at."""


@dataclass(frozen=True)
class Subject:
    """One truth.

    Attributes:
        file: its name below the folder.
        dataset: what it is averaged with.
        group: what it is alike with: an examination, a sequence, a video.
        truth: (H, W, 3) uint8 RGB.
        number: of the frame in its video; None of a picture.
        follows: whether it is the frame after the subject before it.
    """

    file: str
    dataset: str
    group: str
    truth: NDArray[np.uint8]
    number: int | None = None
    follows: bool = False

    @property
    def name(self) -> str:
        """The file, and the number of the frame behind ``#``."""
        return self.file if self.number is None else f"{self.file}#{self.number}"


@dataclass(frozen=True)
class Item:
    """One file to be measured.

    Attributes:
        path: of the file.
        name: below the folder.
        dataset: see `Subject`.
        group: see `Subject`.
        row: of the manifest; None where there is none.
    """

    path: Path
    name: str
    dataset: str
    group: str
    row: dict[str, str] | None = None

    @property
    def is_video(self) -> bool:
        """Whether it is read as a video."""
        return self.path.suffix.lower() in VIDEOS


@dataclass
class Told:
    """What the user should know, in the order in which it came up.

    Attributes:
        left_out: (name, why) of what could not be measured.
        notes: (name, what was done) of what was measured otherwise than it lies there; name may be empty.
        say: called with each line.
    """

    left_out: list[tuple[str, str]]
    notes: list[tuple[str, str]]
    say: Callable[[str], None]

    def leave_out(self, name: str, error: StreamsrError) -> None:
        """Take down what is left out; the path before an error's words is the name's, and not said twice."""
        why = str(error)
        folder, named, rest = why.partition(f"{name}: ")
        if named and (not folder or folder.endswith(os.sep)):
            why = rest
        self.left_out.append((name, why))
        self.say(f"left out: {name}: {why}")

    def note(self, name: str, what: str) -> None:
        """Take down what was done."""
        self.notes.append((name, what))
        self.say(f"note: {name}: {what}" if name else f"note: {what}")


def find_items(
    place: Path, *, split: str = "test", most_per_set: int | None = None, told: Told | None = None
) -> list[Item]:
    """List what a folder holds, but for what an earlier evaluation left in it.

    Args:
        place: a folder, one picture or one video. Of a folder with MANIFEST.tsv one side is measured, by its sets and
            groups. Elsewhere the set is the first subfolder (the folder itself for files in it), the group the second
            one, or the file by itself.
        split: side of a data folder.
        most_per_set: at most so many files of a set, evenly spread.
        told: where to tell what was not looked at.

    Raises:
        InputNotFound: there is nothing at the place.
        InputError: nothing in it can be measured, or its manifest is damaged.
    """
    if not place.exists():
        raise InputNotFound(f"{place}: expected a folder of pictures or videos, got nothing there; check the path")
    if place.is_file():
        return [Item(place, place.name, place.stem, place.name)]
    told = told or Told([], [], lambda line: None)
    others = ""
    if (place / "MANIFEST.tsv").is_file():
        rows = chosen_rows(read_manifest(place), split, most_per_set)
        items = [_listed(place, row) for row in rows]
    else:
        paths, others = _files(place, told)
        items = _thinned([_found(place, path) for path in paths], most_per_set)
        loose = sum(item.group == item.name and item.path.suffix.lower() in PICTURES for item in items)
        if loose > 1:
            told.note("", f"{loose} pictures in no group's folder count as groups: {KIN}")
    if not items:
        kinds = " ".join(sorted(PICTURES | VIDEOS))
        got = others or "none"
        raise InputError(f"{place}: expected pictures or videos ({kinds}), got {got}; name another folder")
    if others:
        told.note("", f"{others} not looked at")
    return sorted(items, key=lambda item: item.dataset)


def _files(place: Path, told: Told) -> tuple[list[Path], str]:
    """Return the pictures and videos below a folder in their order, and in words what other files it holds.

    Hidden files, masks and what an evaluation left are neither.
    """
    found = []
    others: Counter[str] = Counter()

    def refuse(cause: OSError) -> None:
        name = Path(str(cause.filename)).relative_to(place).as_posix()
        told.leave_out(
            name, InputError(f"expected a folder that can be read, got {cause.strerror}; open it or move it")
        )

    for parent, folders, names in os.walk(place, onerror=refuse):
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        for name in sorted({*names} - left_by_evaluation(names)):
            path = Path(parent, name)
            if name.startswith(".") or path.stem.endswith(".mask"):
                continue
            if path.suffix.lower() in PICTURES | VIDEOS:
                found.append(path)
            else:
                others[path.suffix.lower() or "without an ending"] += 1
    return found, _in_words(others)


def _in_words(others: Counter[str]) -> str:
    """Return how many files of which endings there are.

    >>> _in_words(Counter({".txt": 2, ".gif": 1}))
    '3 files of other kinds (.gif, .txt)'
    """
    if not others:
        return ""
    some = ", ".join(sorted(others)[:KINDS_NAMED]) + (", ..." if len(others) > KINDS_NAMED else "")
    return f"{counted(others.total(), 'file')} of {'another kind' if len(others) == 1 else 'other kinds'} ({some})"


def _found(place: Path, path: Path) -> Item:
    below = path.relative_to(place)
    dataset = below.parts[0] if len(below.parts) > 1 else place.resolve().name
    group = below.parts[1] if len(below.parts) > 2 else below.as_posix()
    return Item(path, below.as_posix(), dataset, group)


def _listed(place: Path, row: dict[str, str]) -> Item:
    return Item(place / row["file"], row["file"], row["dataset"], row.get("group") or row["file"], row)


def _thinned(items: list[Item], most_per_set: int | None) -> list[Item]:
    """Return at most so many items of a set, evenly spread."""
    if most_per_set is None:
        return items
    by_set: dict[str, list[Item]] = {}
    for item in items:
        by_set.setdefault(item.dataset, []).append(item)
    kept: list[Item] = []
    for members in by_set.values():
        stride = max(1, len(members) // most_per_set)
        kept += members[::stride][:most_per_set]
    return kept


def read_subjects(items: list[Item], told: Told, *, frames: int) -> Iterator[Subject]:
    """Read the items one after the other; what cannot be read is told and left out.

    Args:
        items: what to read.
        told: where to tell it.
        frames: of a video, from its first on.
    """
    sizes: set[tuple[int, int]] = set()
    for item in items:
        try:
            for subject in _read_video(item, told, frames) if item.is_video else _read_picture(item, told):
                sizes.add((subject.truth.shape[1], subject.truth.shape[0]))
                yield subject
        except StreamsrError as error:
            told.leave_out(item.name, error)
    if len(sizes) > 1:
        some = ", ".join(f"{width}x{height}" for width, height in sorted(sizes)[:6])
        told.note("", f"{len(sizes)} sizes ({some}{', ...' if len(sizes) > 6 else ''}), each measured as it is")


def _read_picture(item: Item, told: Told) -> Iterator[Subject]:
    """Give a picture.

    Raises:
        InputError: it cannot be read, is not the one of the manifest, or nothing in it is lit.
    """
    truth, done = read_picture(item.path)
    if item.row is not None:
        _refuse_other(item.path, item.row, truth)
    if not is_lit(luma_of(truth)):
        raise InputError(f"{item.path}: expected something lit, got a black picture; every method gives it back")
    for what in done:
        told.note(item.name, what)
    yield Subject(item.name, item.dataset, item.group, truth)


def _refuse_other(path: Path, row: dict[str, str], truth: NDArray[np.uint8]) -> None:
    """Refuse a picture that is not the one of its row.

    Raises:
        InputError: its size or SHA-256 is another.
    """
    height, width = truth.shape[:2]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    listed = (int(row.get("width") or width), int(row.get("height") or height))
    same_size = sorted(listed) == sorted((width, height))  # EXIF may have turned it
    if not same_size or (row.get("sha256") or digest).lower() != digest:
        raise InputError(
            f"{path}: expected the {listed[0]}x{listed[1]} picture of the manifest, got {width}x{height} with SHA-256 "
            f"{digest[:12]}...; restore the file or mend the manifest"
        )


def _read_video(item: Item, told: Told, frames: int) -> Iterator[Subject]:
    """Give the first frames of a video.

    Raises:
        InputError: it cannot be opened, its frames are too small, it holds none, or none in which something is lit.
    """
    number = gaps = 0
    dark: list[int] = []
    before = False
    with open_source(item.path) as source:
        for frame in source:
            if not isinstance(frame, Frame):
                continue
            if min(frame.width, frame.height) < SMALLEST_SIDE_PX:
                raise InputError(
                    f"{item.path}: expected frames of {SMALLEST_SIDE_PX}x{SMALLEST_SIDE_PX} pixels or more, got "
                    f"{frame.width}x{frame.height}; take it out"
                )
            follows = before and len(source.report.gaps) == gaps
            gaps = len(source.report.gaps)
            truth = to_rgb8(frame)
            before = is_lit(luma_of(truth))
            if before:
                yield Subject(item.name, item.dataset, item.group, truth, number, follows)
            else:
                dark.append(number)
            number += 1
            if number == frames:
                break
        lost = list(source.report.gaps)
    if number == 0:
        raise InputError(f"{item.path}: expected frames, got none that could be decoded; take it out")
    for gap in lost:
        told.note(item.name, f"lost: {gap}")
    if dark:
        told.leave_out(
            item.name, InputError(f"nothing is lit in {counted(len(dark), 'frame')}, the first is {dark[0]}")
        )


def counted(count: int, thing: str) -> str:
    """Return a number of things in words.

    >>> counted(1, "frame"), counted(2, "frame")
    ('1 frame', '2 frames')
    """
    return f"{count} {thing}{'' if count == 1 else 's'}"
