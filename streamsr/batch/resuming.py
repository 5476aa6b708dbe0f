"""Go on without being told what with: the inputs and settings of the last run, from the journal."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from streamsr.batch.journal import Journal
from streamsr.batch.outputs import Destination
from streamsr.batch.planning import journal_path, other_journals
from streamsr.config import BatchSettings, GeneratorSettings, ReadSettings, UpscaleSettings
from streamsr.errors import UsageError


def last_run(
    destination: Destination, *, retry_failed: bool, shard: tuple[int, int] | None
) -> tuple[list[str], list[str], Destination, BatchSettings]:
    """Return inputs, lists, destination and settings of the last run in a folder.

    Args:
        destination: the folder.
        retry_failed: try what failed for good again this time.
        shard: which one goes on; None does what all shards have left.

    Raises:
        UsageError: there was none, or other shards are still at work.
    """
    runs = _runs(journal_path(destination, shard))
    if shard is None:
        paths = other_journals(destination, journal_path(destination, None))
        others = [run for path in paths for run in _runs(path)]
        if any(run["alive"] for run in others):
            raise UsageError(f"{destination.root}: expected shards that have ended, some are at work; wait for them")
        runs = sorted([*runs, *others], key=lambda run: float(run["started"]))
    if not runs:
        raise UsageError(f"{destination.root}: expected an earlier run to go on with, found none; name inputs")
    stated = runs[-1]["settings"]
    settings = replace(_settings(stated["batch"]), retry_failed=retry_failed, shard=shard)
    return stated["inputs"], stated["lists"], Destination(destination.root, stated["template"]), settings


def _runs(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with Journal(path, only_read=True) as journal:
        return journal.runs()


def _settings(stated: dict[str, Any]) -> BatchSettings:
    upscale = stated["upscale"]
    rate = upscale["read"]["rate"]
    read = ReadSettings(**{**upscale["read"], "rate": None if rate is None else Fraction(rate)})
    whole = UpscaleSettings(**{**upscale, "generator": GeneratorSettings(**upscale["generator"]), "read": read})
    shard = stated["shard"]
    return BatchSettings(**{**stated, "upscale": whole, "shard": None if shard is None else (shard[0], shard[1])})
