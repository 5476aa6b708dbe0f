"""What kinds of failure there are, and which may pass."""

from __future__ import annotations

import re

from streamsr.batch.tasks import Failed
from streamsr.errors import InputError, InputUnsupported, OutputError, UsageError
from streamsr.sinks.drafts import KEPT, is_full

KINDS = ("unreadable", "incomplete", "unsupported", "engine", "disk")
"""The source cannot be opened; it had damage, and what could be decoded is there; it, or what is asked of it, cannot be
done at all; the generator or the worker failed; the result cannot be written."""

PASSING = frozenset({"engine", "disk"})
"""Kinds that another try may mend; the others depend on the source's content and the settings alone."""

MOST_TRIES = 6
"""Tries over all runs after which work that fails in a way that may pass is left alone too."""


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
    if isinstance(error, OutputError):
        return "disk"
    if isinstance(error, (UsageError, InputUnsupported)):
        return "unsupported"
    if isinstance(error, InputError):
        return "unreadable"
    return "disk" if isinstance(error, OSError) else "engine"
