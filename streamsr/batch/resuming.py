"""Go on without being told what with: the inputs and settings of the last run, from the journal."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import is_dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from streamsr.batch.journal import Journal
from streamsr.batch.outputs import MIRROR, Destination
from streamsr.batch.planning import journal_path, other_journals
from streamsr.config import BatchSettings
from streamsr.errors import UsageError

PLACES: dict[str, Callable[[BatchSettings], object]] = {
    "container": lambda settings: settings.container,
    "model": lambda settings: settings.upscale.generator.engine,
    "runtime": lambda settings: settings.upscale.generator.runtime,
    "precision": lambda settings: settings.upscale.generator.precision,
    "gpus": lambda settings: settings.upscale.generator.gpus,
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
"""Where an option that decides what results are, or is refused, stands in the settings."""

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
        UsageError: there was none, other shards are still at work, an option contradicts the run's, or the journal does
            not hold its settings.
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
    names, lists, template, settings = _read(destination.root, runs[-1]["settings"])
    _refuse_other(settings, given, asked)
    if destination.template not in (MIRROR, template):
        raise UsageError(
            f"-o: expected the names of the run that goes on, {template}, got {destination.template}; "
            "give the folder alone"
        )
    upscale = replace(settings.upscale, overwrite=settings.upscale.overwrite or given.upscale.overwrite)
    newer: dict[str, Any] = {field: getattr(given, field) for name, field in NEWER.items() if name in asked}
    settings = replace(settings, upscale=upscale, retry_failed=given.retry_failed, shard=shard, **newer)
    return names, lists, Destination(destination.root, template), settings


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


def _read(root: Path, stated: dict[str, Any]) -> tuple[list[str], list[str], str, BatchSettings]:
    """Return inputs, lists, template and settings of a run."""
    try:
        names, lists, template = stated["inputs"], stated["lists"], stated["template"]
        if not (fits(names, list[str]) and fits(lists, list[str]) and fits(template, str)):
            raise TypeError("other values than names")
        return names, lists, template, rebuilt(BatchSettings, stated["batch"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as cause:
        raise UsageError(
            f"{root}: expected the settings of the last run in the journal, got {type(cause).__name__}: {cause}; name "
            "the inputs and the options instead"
        ) from cause


def rebuilt(kind: Any, stated: Any) -> Any:
    """Return settings from their JSON form, every value of the type that it is to have.

    Args:
        kind: a dataclass of settings.
        stated: what `dataclasses.asdict` and JSON made of one; fields that it lacks have their defaults.

    Raises:
        TypeError: a value of another type, or a field that there is not.
    """
    hints, values = get_type_hints(kind), {}
    if not fits(stated, dict) or stated.keys() - hints.keys():
        raise TypeError(f"{str(stated)[:40]!r} for {kind.__name__}")
    for name, value in stated.items():
        hint = hints[name]
        if is_dataclass(hint):
            value = rebuilt(hint, value)
        elif Fraction in get_args(hint) and isinstance(value, str):
            value = Fraction(value)
        elif isinstance(value, list):
            value = tuple(value)
        if not fits(value, hint):
            raise TypeError(f"{str(value)[:40]!r} for {name}")
        values[name] = value
    return kind(**values)


def fits(value: object, hint: Any) -> bool:
    """Return whether a value is of an annotated type.

    >>> fits(3, int | None), fits("x", Literal["a", "b"]), fits([1], list[str]), fits(True, int)
    (True, False, False, False)
    """
    origin, inside = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in inside
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in inside)
    if origin is list:
        return isinstance(value, list) and all(fits(one, inside[0]) for one in value)
    if origin is tuple:
        return isinstance(value, tuple) and len(value) == len(inside) and all(map(fits, value, inside))
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return isinstance(value, hint)
