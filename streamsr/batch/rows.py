"""Pieces of work as the journal keeps them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Entry:
    """A piece of work as it is planned.

    Attributes:
        output: relative to the root, with slashes.
        input: absolute path.
        num_bytes: size of the input; None where it cannot be asked.
        mtime_ns: when it was last changed; None where it cannot be asked.
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
    """Return a row of the table ``work``."""
    owner, sha256, key, kind, message, tries, details, progress = others
    entry = Entry(unpack(output), unpack(source), num_bytes, mtime_ns, settings)
    known = {"owner": owner, "sha256": sha256, "key": key, "kind": kind, "message": message, "tries": tries}
    return Row(entry, state, **known, details=json.loads(details), progress=json.loads(progress))
