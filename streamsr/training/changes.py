"""Changes: what a settings file may change before a run goes on from its checkpoint, and what makes it another run."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from streamsr.errors import UsageError
from streamsr.training.settings import RunSettings

FREE = frozenset(
    {"output", "threads", "log_every", "checkpoint_every", "checkpoint_seconds", "device", "compiled", "deterministic"}
)
"""Keys that say where and how a run goes, not what it learns; they may change without a word."""

SCHEDULE = frozenset({"steps", "learning_rate", "warm_steps", "finetune_steps", "validate_every"})
"""Keys that a run may go on with, changed on purpose: longer, or slower after losses were not finite. It is said."""

FILES = ("start", "teacher_weights", "features", "squeezenet", "lpips_linear")
"""Keys that name files: what is in them counts, wherever they lie."""

Made = dict[str, Any]
"""Key -> value, of a file its hash."""


def made_of(settings: RunSettings) -> Made:
    """Return what makes a run: its settings but for `FREE` ones, and the hashes of the manifest and other files."""
    made = {key: value for key, value in asdict(settings).items() if key not in FREE}
    made["data"] = hash_of(Path(settings.data) / "MANIFEST.tsv")
    return made | {key: hash_of(Path(made[key])) for key in FILES if made.get(key)}


def hash_of(path: Path) -> str:
    """Return the start of a file's SHA-256; of a missing one, that it is missing."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError:
        return f"no {path.name}"
    return f"SHA-256 {digest.hexdigest()[:12]}"


def changes_between(folder: Path, before: Made, now: Made) -> dict[str, tuple[Any, Any]]:
    """Return what of the `SCHEDULE` has changed: key -> before and now.

    Raises:
        UsageError: something else has, so that it would be another run.
    """
    keys = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if others := [key for key in keys if key not in SCHEDULE]:
        raise UsageError(
            f"{folder}: expected the settings of its checkpoint, {listed(others, before)}, got {listed(others, now)}; "
            "put them back to go on, or name another output folder"
        )
    return {key: (before[key], now[key]) for key in keys}


def listed(keys: list[str], made: Made) -> str:
    """Return some keys and their values in one line."""
    return ", ".join(f"{key} = {made.get(key, 'none')}" for key in keys)
