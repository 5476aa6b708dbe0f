"""Pieces of work as the journal keeps them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any


class DamagedRow(ValueError):
    """A row of the journal that holds what no run writes."""


@dataclass(frozen=True)
class Entry:
    """A piece of work as it is planned.

    Attributes:
        output: relative to the root, with slashes.
        input: absolute path.
        num_bytes: size of the input; None where it cannot be asked.
        mtime_ns: when it was last changed; None where it cannot be asked, or the input may not be read.
        settings: `streamsr.batch.key.settings_key`.
    """

    output: str
    input: str
    num_bytes: int | None
    mtime_ns: int | None
    settings: str


@dataclass(frozen=True)
class Row:
    """A piece of work as the journal knows it.

    Attributes:
        entry: what it is.
        state: ``waiting``, ``running``, ``publishing``, ``done`` or ``failed``.
        owner: run that has it, or had it last.
        sha256: of the input's content, once known.
        key: `streamsr.batch.key.work_key`, once known.
        kind: class of the failure, or ``incomplete`` for a result of a damaged source.
        message: of the failure, one line.
        tries: how often it failed.
        details: files with hashes, figures and times of the result.
        progress: how far it is, while it runs.
    """

    entry: Entry
    state: str
    owner: str | None = None
    sha256: str | None = None
    key: str | None = None
    kind: str | None = None
    message: str | None = None
    tries: int = 0
    details: dict[str, Any] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Again:
    """Known work that is to be done again.

    Attributes:
        row: as it was looked at.
        anew: whether it may fail as often as if it were new.
    """

    row: Row
    anew: bool


NONE = type(None)
FIGURES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("frames",), (int,)),
    **dict.fromkeys(("skipped", "fps", "share"), (int, float)),
    **dict.fromkeys(("seconds",), (int, float, NONE)),
    **dict.fromkeys(("runtime", "incomplete"), (str, NONE)),
    **dict.fromkeys(("picture", "thumbnails"), (dict, NONE)),
    **dict.fromkeys(("notices", "parts"), (list,)),
}
"""Types of what is told of work, done and under way."""

TOLD = frozenset({"files", "frames", "seconds", "skipped"})
"""What is known of every result."""

RANKS = ("waiting", "failed", "running", "publishing", "done")
"""States from the one that says least of what became of a piece of work."""


def merge_rows(*journals: Iterable[Row]) -> dict[str, Row]:
    """Return what several journals know, by output: of two that know one, the one that is further counts."""
    found: dict[str, Row] = {}
    for row in (row for rows in journals for row in rows):
        known = found.get(row.entry.output)
        if known is None or RANKS.index(row.state) > RANKS.index(known.state):
            found[row.entry.output] = row
    return dict(sorted(found.items()))


def pack(name: str) -> bytes:
    """Return a name as its bytes on the disk: names need not be valid Unicode, and SQLite's text must be."""
    return os.fsencode(name)


def unpack(name: bytes) -> str:
    """Return the name whose bytes these are."""
    return os.fsdecode(name)


def row_of(
    output: bytes,
    source: bytes,
    num_bytes: int | None,
    mtime_ns: int | None,
    settings: str,
    state: str,
    *others: Any,
) -> Row:
    """Return a row of the table ``work``.

    Raises:
        DamagedRow: it holds what no run writes.
    """
    owner, sha256, key, kind, message, tries, details, progress = others
    expect(bytes, output, source)
    expect(str, settings, state, details, progress)
    expect((str, NONE), owner, sha256, key, kind, message)
    expect((int, NONE), num_bytes, mtime_ns)
    expect(int, tries)
    if state not in RANKS:
        raise DamagedRow(f"the state {state!r}")
    entry = Entry(unpack(output), unpack(source), num_bytes, mtime_ns, settings)
    if not is_inside(entry.output):
        raise DamagedRow(f"the result {entry.output!r} outside its folder")
    known = {"owner": owner, "sha256": sha256, "key": key, "kind": kind, "message": message, "tries": tries}
    made, under_way = read_figures(details), read_figures(progress)
    expect_files(made.get("files", []))
    if state in ("publishing", "done") and (lacking := sorted(TOLD - made.keys())):
        raise DamagedRow(f"a result without {lacking[0]}")
    return Row(entry, state, **known, details=made, progress=under_way)


def run_of(name: str, machine: str, pid: int, ticks: int, *others: Any) -> dict[str, Any]:
    """Return a row of the table ``run``, its settings read.

    Raises:
        DamagedRow: it holds what no run writes.
    """
    started, beat, ended, settings = others
    expect(str, name, machine, settings)
    expect(int, pid, ticks)
    expect((int, float), started, beat)
    expect((int, float, NONE), ended)
    known = {"id": name, "machine": machine, "pid": pid, "ticks": ticks, "started": started}
    return {**known, "beat": beat, "ended": ended, "settings": read_object(settings)}


def expect(kinds: Any, *values: object) -> None:
    """Check the types of values.

    Raises:
        DamagedRow: one has another.
    """
    for value in values:
        if not isinstance(value, kinds):
            raise DamagedRow(f"the value {str(value)[:40]!r}")


def read_figures(text: str) -> dict[str, Any]:
    """Return the figures of a piece of work, those that are read again of the types that they have.

    Raises:
        DamagedRow: one has another.
    """
    found = read_object(text)
    for name in found.keys() & FIGURES.keys():
        expect(FIGURES[name], found[name])
    expect(str, *found.get("notices", ()), *found.get("parts", ()))
    if pictures := found.get("thumbnails"):
        expect(str, pictures.get("original"), pictures.get("enlarged"))
    return found


def expect_files(files: object) -> None:
    """Check the files of a result: what was or is to be renamed to what, below the root alone.

    Raises:
        DamagedRow: they are none, or lie outside.
    """
    expect(list, files)
    for file in files if isinstance(files, list) else ():
        expect(dict, file)
        expect(str, *(file.get(name) for name in ("from", "to", "sha256")))
        expect(int, file.get("bytes"))
        if not (is_inside(file["from"]) and is_inside(file["to"])):
            raise DamagedRow(f"the file {file['to']!r} outside its folder")


def is_inside(name: str) -> bool:
    """Whether a name is that of a file below the root.

    >>> is_inside("a/b.mkv"), is_inside("../b.mkv"), is_inside("/b.mkv")
    (True, False, False)
    """
    path = PurePath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def read_object(text: str) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        DamagedRow: it is none.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as cause:
        raise DamagedRow(f"text that is no JSON ({cause})") from cause
    if not isinstance(found, dict):
        raise DamagedRow(f"the value {str(found)[:40]!r}")
    return found
