"""Go on without being told what with: the inputs and settings of the last run, from the journal."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from streamsr.batch.journal import Journal
from streamsr.batch.outputs import MIRROR, Destination
from streamsr.batch.planning import journal_path, other_journals
from streamsr.config import BatchSettings, GeneratorSettings, ReadSettings, UpscaleSettings
from streamsr.errors import UsageError

PLACES: dict[str, Callable[[BatchSettings], object]] = {
    "container": lambda settings: settings.container,
    "model": lambda settings: settings.upscale.generator.engine,
    "runtime": lambda settings: settings.upscale.generator.runtime,
    "precision": lambda settings: settings.upscale.generator.precision,
    "launch": lambda settings: settings.upscale.generator.launch,
    "no_consistency": lambda settings: not settings.upscale.generator.consistency,
    "codec": lambda settings: settings.upscale.codec,
    "crf": lambda settings: settings.upscale.crf,
    "preset": lambda settings: settings.upscale.preset,
    "pix_fmt": lambda settings: settings.upscale.pix_fmt,
    "lossless": lambda settings: settings.upscale.lossless,
    "audio": lambda settings: settings.upscale.audio,
    "keep_metadata": lambda settings: settings.upscale.keep_metadata,
    "rate": lambda settings: settings.upscale.read.rate,
    "resize": lambda settings: settings.upscale.read.resize,
    "deinterlace": lambda settings: settings.upscale.read.deinterlace,
}
"""Where an option that decides what results are stands in the settings."""

NEWER = {"segment": "segment_s", "retries": "retries", "ignore_errors": "ignore_errors"}
"""Options that change no result, and their settings: those of the command count where they stand in it."""


def last_run(
    destination: Destination, given: BatchSettings, asked: Collection[str]
) -> tuple[list[str], list[str], Destination, BatchSettings]:
    """Return inputs, lists, destination and settings of the last run in a folder.

    Args:
        destination: the folder.
        given: the settings of this command; its shard goes on, and without one what all shards have left is done.
        asked: options that stand in the command itself.

    Raises:
        UsageError: there was none, other shards are still at work, or an option contradicts the run's.
    """
    shard = given.shard
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
    settings = _settings(stated["batch"])
    _refuse_other(settings, given, asked)
    if destination.template not in (MIRROR, stated["template"]):
        raise UsageError(
            f"-o: expected the names of the run that goes on, {stated['template']}, got {destination.template}; "
            "give the folder alone"
        )
    upscale = replace(settings.upscale, overwrite=settings.upscale.overwrite or given.upscale.overwrite)
    newer: dict[str, Any] = {field: getattr(given, field) for name, field in NEWER.items() if name in asked}
    settings = replace(settings, upscale=upscale, retry_failed=given.retry_failed, shard=shard, **newer)
    return stated["inputs"], stated["lists"], Destination(destination.root, stated["template"]), settings


def _refuse_other(stated: BatchSettings, given: BatchSettings, asked: Collection[str]) -> None:
    for name, place in PLACES.items():
        if name in asked and place(given) != place(stated):
            raise UsageError(
                f"--{name.replace('_', '-')}: expected {_worded(place(stated))} as in the run that goes on, got "
                f"{_worded(place(given))}; leave it out, or name the inputs and another folder"
            )


def _worded(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)


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
