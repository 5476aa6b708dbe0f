"""What an evaluation leaves: figures as JSON and as text, sheets as PNG, the report as HTML."""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

from streamsr.errors import DiskFull, OutputError, OutputExists
from streamsr.evaluation.figures import FIGURES
from streamsr.evaluation.outputs import FIGURES_FILE, REPORT, SHEET, TABLES, worst_sheet
from streamsr.evaluation.page import page
from streamsr.evaluation.run import Evaluation
from streamsr.evaluation.sheets import png, sheet
from streamsr.evaluation.summary import as_text, summarise
from streamsr.sidecar import versions


def refuse_existing(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that holds an evaluation already, unless it may be replaced.

    Raises:
        OutputExists: it holds one.
        OutputError: it is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: expected a folder, got a file; name another with -o")
    if (folder / FIGURES_FILE).exists() and not overwrite:
        raise OutputExists(
            f"{folder / FIGURES_FILE}: expected no file there, got one; replace it with -y or choose a folder with -o"
        )


def refuse_unwritable(folder: Path) -> None:
    """Refuse a folder that nothing can be written into, before hours are spent; nothing is left behind.

    Raises:
        DiskFull: no space is left.
        OutputError: it cannot be written into.
    """
    missing = list(takewhile(lambda each: not each.exists(), (folder, *folder.parents)))
    probe = folder / f".{FIGURES_FILE}.part"
    try:
        write_files({probe: b""})
        probe.unlink()
    finally:
        for each in missing:
            with suppress(OSError):
                each.rmdir()


def content_of(result: Evaluation) -> dict[str, Any]:
    """Return an evaluation as JSON holds it."""
    gallery = result.gallery
    return {
        "place": result.place.name,
        "settings": result.settings_told(),
        "complete": result.complete,
        "precisions": result.precisions,
        "versions": versions(),
        "figures": {
            name: {"title": each.title, "better": each.better, "meaning": each.meaning}
            for name, each in FIGURES.items()
        },
        "sets": summarise(result.rows),
        "seams": result.seams,
        "left_out": [{"name": name, "why": why} for name, why in result.told.left_out],
        "notes": [{"name": name, "what": what} for name, what in result.told.notes],
        "worst": {name: [crop.place() for crop in crops] for name, crops in gallery.worst.items()},
        "frames": [_rounded(row) for row in result.rows],
    }


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in row.items()}


def write_evaluation(result: Evaluation, content: dict[str, Any], folder: Path) -> list[Path]:
    """Write figures, sheets and report; every file aside, then renamed.

    Returns:
        The files, the report first.

    Raises:
        DiskFull: no space is left.
        OutputError: they cannot be written.
    """
    files = {folder / REPORT: page(result, content["sets"]).encode()}
    files[folder / FIGURES_FILE] = (json.dumps(content, indent=1) + "\n").encode()
    files[folder / TABLES] = as_text(content["sets"]).encode()
    files[folder / SHEET] = png(sheet(result.gallery.compared))
    for name, crops in result.gallery.worst.items():
        files[folder / worst_sheet(name)] = png(sheet(crops, difference_of=name))
    write_files(files)
    return list(files)


def write_files(files: dict[Path, bytes]) -> None:
    """Write files aside, flush them, and rename them.

    Raises:
        DiskFull: no space is left.
        OutputError: they cannot be written.
    """
    for path, content in files.items():
        aside = path.with_name(f".{path.name}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with aside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except OSError as cause:
            with suppress(OSError):
                aside.unlink()
            kind = DiskFull if cause.errno == errno.ENOSPC else OutputError
            raise kind(
                f"{path}: expected to write it, got {cause.strerror}; free space or name a folder with -o"
            ) from cause
