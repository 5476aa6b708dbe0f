"""Whether a source rests: a result must come from one content of its file, from the hash to the last segment."""

from __future__ import annotations

from pathlib import Path

from streamsr.errors import InputError


def state_of(name: str) -> tuple[int, ...]:
    """Return what changes when a file is written to or replaced: size, time and inode; nothing where it is gone."""
    try:
        found = Path(name).stat()
    except OSError:
        return ()  # whoever opens it says what is wrong
    return found.st_size, found.st_mtime_ns, found.st_ino


def refuse_change(name: str, before: tuple[int, ...]) -> None:
    """Check that a file is what it was.

    Raises:
        InputError: it was written to, replaced or removed.
    """
    if state_of(name) != before:
        raise changed(name)


def changed(name: str) -> InputError:
    """Return the failure of a file that did not rest."""
    return InputError(f"{name}: expected a file that rests, it changed while it was read; run this again")
