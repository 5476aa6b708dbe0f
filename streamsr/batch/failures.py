"""What kinds of failure there are, and which may pass."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from streamsr.batch.rows import Row
from streamsr.batch.tasks import Failed
from streamsr.errors import InputError, InputUnsupported, OutputError, OutputExists, UsageError, printable
from streamsr.sinks.drafts import KEPT, is_full

KINDS = ("unreadable", "incomplete", "unsupported", "engine", "disk", "taken")
"""The source cannot be opened; it had damage, and what could be decoded is there; it, or what is asked of it, cannot be
done at all; the generator or the worker failed; the result cannot be written; its
name has another file, or a result of other settings."""

PASSING = frozenset({"engine", "disk"})
"""Kinds that another try may mend; the others depend on the source's content and the settings alone."""

MOST_LINES = 20
"""Files that are named where there are many; the report has all."""

MOST_TRIES = 6
"""Tries over all runs after which work that fails in a way that may pass is left alone too."""


def named(name: str, kind: str, message: str) -> str:
    """Return why a file failed in one line that names it."""
    name, message = printable(name), printable(message)
    return f"{kind}: {message if Path(name).name in message else f'{name}: {message}'}"


def failed_lines(rows: Collection[Row]) -> list[str]:
    """Return which files are not tried again, and what tries them, as lines."""
    if not rows:
        return []
    lines = [
        f"not tried again after {row.tries} {'try' if row.tries == 1 else 'tries'}: "
        + named(row.entry.input, row.kind or "engine", row.message or "failed")
        for row in list(rows)[:MOST_LINES]
    ]
    more = [f"and {len(rows) - MOST_LINES} more"] if len(rows) > MOST_LINES else []
    return [*lines, *more, f"{len(rows)} not tried again before they change; --retry-failed tries them"]


def message_of(error: BaseException) -> str:
    """Return what an error says, but for the partial file that it names: a run removes the folder that it lies in.

    >>> message_of(OutputError("no space left for a.mkv; what was written is kept as a.partial.mkv; free some space"))
    'no space left for a.mkv; free some space'
    """
    return re.sub(rf"; {KEPT} [^;]*", "", str(error))


def failure_of(error: BaseException) -> Failed:
    """Return an error as the end of a task."""
    return Failed(kind_of(error), message_of(error), full=is_full(error))


def kind_of(error: BaseException) -> str:
    """Return which kind of failure an error is."""
    if isinstance(error, OutputExists):
        return "taken"
    if isinstance(error, OutputError):
        return "disk"
    if isinstance(error, (UsageError, InputUnsupported)):
        return "unsupported"
    if isinstance(error, InputError):
        return "unreadable"
    return "disk" if isinstance(error, OSError) else "engine"
