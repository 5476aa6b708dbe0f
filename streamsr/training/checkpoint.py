"""Checkpoints: written aside, flushed, renamed; the last three kept.

They are read by torch's restricted unpickler (``weights_only``), which makes tensors and plain values and nothing else.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from streamsr.errors import DiskFull, OutputError, StreamsrError, UsageError

KEEP = 3


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write a checkpoint so that a kill at any moment leaves the previous ones intact.

    Args:
        folder: where checkpoints live; made when missing.
        step: the number of finished steps; part of the name.
        state: tensors, numbers and strings, nested in dicts and lists.

    Returns:
        The path of the new checkpoint.

    Raises:
        OutputError: it cannot be written; the earlier ones are intact.
    """
    path = folder / f"step-{step:08d}.pt"
    # In memory first: torch makes an error of its own of whatever ends a write, a full disk or an interrupt.
    content = io.BytesIO()
    torch.save(state, content)
    with saying_what_is_kept(path, folder):
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".step-*.part"):
            left.unlink()
        with written_aside(path) as aside, aside.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
    for old in sorted(folder.glob("step-*.pt"))[:-KEEP]:
        old.unlink()
    return path


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Give the name of a file that becomes ``path`` when the body is through, and vanishes when it fails."""
    aside = path.with_name(f".{path.stem}.part")
    try:
        yield aside
        aside.replace(path)
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise


@contextmanager
def saying_what_is_kept(path: Path, checkpoints: Path) -> Iterator[None]:
    """Turn what the body could not write into one line that names the checkpoints that are left.

    Args:
        path: of what is written.
        checkpoints: their folder.

    Raises:
        OutputError: something could not be written; `DiskFull` where there is no room.
    """
    try:
        yield
    except StreamsrError:  # an OutputError is an error of the system too
        raise
    except OSError as cause:
        kept = ", ".join(old.name for old in sorted(checkpoints.glob("step-*.pt"))) or "no checkpoint"
        kind = DiskFull if getattr(cause, "errno", None) == errno.ENOSPC else OutputError
        line = " ".join(str(cause).split())[:120]
        raise kind(f"{path}: expected room to write, got {line}; kept {kept}; free space and resume") from cause


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Return the newest checkpoint of a folder, or None where there is none.

    Raises:
        UsageError: the newest checkpoint cannot be read as plain tensors and numbers.
    """
    found = sorted(folder.glob("step-*.pt"))
    if not found:
        return None
    try:
        state: dict[str, Any] = torch.load(found[-1], map_location="cpu", weights_only=True)
    except Exception as cause:
        line = " ".join(str(cause).split()).split(". ")[0][:160]
        raise UsageError(
            f"{found[-1]}: expected a training checkpoint, got an unreadable file ({line}); remove it to go on from "
            "the one before"
        ) from cause
    return state
