"""Checkpoints: written aside, flushed, renamed; the last three kept; weights only, nothing unpickled."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

KEEP = 3


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write a checkpoint so that a kill at any moment leaves the previous ones intact.

    Args:
        folder: where checkpoints live; made when missing.
        step: the number of finished steps; part of the name.
        state: tensors, numbers and strings, nested in dicts and lists.

    Returns:
        The path of the new checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, aside = folder / f"step-{step:08d}.pt", folder / f".step-{step:08d}.part"
    with aside.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    for old in sorted(folder.glob("step-*.pt"))[:-KEEP]:
        old.unlink()
    return path


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Return the newest checkpoint of a folder, or None where there is none.

    Raises:
        ValueError: the newest checkpoint cannot be read as plain tensors and numbers.
    """
    found = sorted(folder.glob("step-*.pt"))
    if not found:
        return None
    try:
        state: dict[str, Any] = torch.load(found[-1], map_location="cpu", weights_only=True)
    except Exception as cause:
        raise ValueError(f"{found[-1]}: expected a training checkpoint, got an unreadable file ({cause})") from cause
    return state
