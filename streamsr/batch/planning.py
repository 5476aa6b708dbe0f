"""What is still to be done: the inputs against the journal, before anything is claimed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from streamsr.batch.failures import MOST_TRIES, PASSING
from streamsr.batch.inputs import Discovery, Found
from streamsr.batch.journal import Journal
from streamsr.batch.key import settings_key
from streamsr.batch.outputs import Destination, name_outputs
from streamsr.batch.publish import publish, remove_folder
from streamsr.batch.rows import Again, Entry, Row, merge_rows
from streamsr.config import BatchSettings
from streamsr.engine import Engine
from streamsr.errors import OutputError, UsageError
from streamsr.sidecar import file_sha256, sidecar_path

JOURNAL = "journal"


@dataclass
class Plan:
    """What a run has before it.

    Attributes:
        entries: all that belongs to it.
        todo: outputs that are still to be made, in order.
        before: what any journal knew of these outputs.
        finished: outputs that are made.
        failed: outputs that failed in a way that another try does not mend, or too often, with what is known of them.
        refused: output to the kind of failure and why it is not touched, one line.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    todo: list[str] = field(default_factory=list)
    before: dict[str, Row] = field(default_factory=dict)
    finished: list[str] = field(default_factory=list)
    failed: dict[str, Row] = field(default_factory=dict)
    refused: dict[str, tuple[str, str]] = field(default_factory=dict)


def journal_path(destination: Destination, shard: tuple[int, int] | None) -> Path:
    """Return where the journal is; each shard has one of its own, since shards run on machines of their own."""
    name = JOURNAL if shard is None else f"{JOURNAL}-{shard[0]}-of-{shard[1]}"
    return destination.house / f"{name}.sqlite"


def other_journals(destination: Destination, ours: Path) -> list[Path]:
    """Return the journals of other shards."""
    return [path for path in sorted(destination.house.glob(f"{JOURNAL}*.sqlite")) if path != ours]


def refuse_company(destination: Destination, shard: tuple[int, int] | None, run: str) -> None:
    """Check that no run is at work that divides the files in another way, which would do some of them twice.

    Shards of one division have nothing in common, and runs with one journal share the work in it.

    Args:
        destination: the results.
        shard: of this run.
        run: id of this run, in its journal already: of two runs that begin at once, one at least sees the other.

    Raises:
        UsageError: one is.
    """
    ours = journal_path(destination, shard)
    for path in other_journals(destination, ours):
        if shard is not None and path.name.endswith(f"-of-{shard[1]}.sqlite"):
            continue
        with Journal(path, only_read=True) as other:
            if not any(entry["alive"] and entry["id"] != run for entry in other.runs()):
                continue
        which = path.stem.removeprefix(JOURNAL).strip("-").replace("-of-", "/")
        raise UsageError(
            f"{destination.root}: expected no other runs, or runs with a --shard of one division, found "
            f"{f'shard {which}' if which else 'one without --shard'} at work; wait for it"
        )


def parse_shard(text: str) -> tuple[int, int]:
    """Return a shard from ``3/8``.

    Raises:
        UsageError: it is none.
    """
    number, slash, total = text.partition("/")
    if not (slash and number.isdecimal() and total.isdecimal() and 1 <= int(number) <= int(total)):
        raise UsageError(f"--shard: expected a part such as 1/8 (the last is 8/8), got {text!r}")
    return int(number), int(total)


def in_shard(output: str, shard: tuple[int, int] | None) -> bool:
    """Whether a result belongs to a shard: by a hash of its name, so that every machine agrees without asking."""
    if shard is None:
        return True
    return int.from_bytes(hashlib.sha256(os.fsencode(output)).digest()[:8], "big") % shard[1] == shard[0] - 1


def recover(journal: Journal, run: str, destination: Destination) -> None:
    """End what dead runs were publishing, free what they were at, and remove what they left.

    Raises:
        OutputError: a result cannot be renamed for want of rights.
    """
    for row in journal.take_over(run):
        try:
            publish(destination.root, row.details["files"])
        except OutputError as error:
            journal.fail(run, row.entry.output, "disk", str(error), again=True)
        else:
            journal.finish(run, row.entry.output, incomplete=row.details.get("incomplete"))
    alive = {entry["id"] for entry in journal.runs() if entry["alive"]}
    for folder in (destination.house / "work").glob("*"):
        if folder.name not in alive and not _belongs_elsewhere(destination, journal.path, folder.name):
            remove_folder(folder)


def _belongs_elsewhere(destination: Destination, ours: Path, run: str) -> bool:
    """Whether a run is known to the journal of another shard, which alone may remove what it left."""
    for path in other_journals(destination, ours):
        with Journal(path, only_read=True) as other:
            if any(entry["id"] == run for entry in other.runs()):
                return True
    return False


def make_plan(
    discovery: Discovery, destination: Destination, engine: Engine, settings: BatchSettings, journal: Journal
) -> Plan:
    """Compare the inputs with the journal, and enter what is new.

    An input whose size and time are those in the journal is taken to be the same; where only the time differs, its
    content is hashed.

    Raises:
        UsageError: two inputs have one output.
    """
    rows = merge_rows(journal.rows(), ended_elsewhere(destination, journal.path))
    key, plan = settings_key(engine, settings.upscale, settings.container), Plan()
    known = {row.entry.input: output for output, row in rows.items() if row.entry.settings == key}
    outputs = name_outputs(discovery.files, destination, engine, ext=settings.container, known=known)
    again: dict[str, Again] = {}
    for folder, message in discovery.closed.items():
        plan.entries[folder] = Entry(folder, folder, None, None, key)
        plan.refused[folder] = ("unreadable", message)
    for output, found in outputs.items():
        if not in_shard(output, settings.shard):
            continue
        entry = plan.entries[output] = entry_of(output, found, key)
        row = rows.get(output)
        if row is None or row.state in ("waiting", "running", "publishing"):
            plan.todo.append(output)
            if row is not None and row.state == "waiting" and row.entry != entry:
                again[output] = Again(row, anew=True)
        elif row.state == "done":
            _weigh_done(plan, again, entry, row, destination, settings, journal)
        else:
            _weigh_failed(plan, again, entry, row, destination, settings)
    plan.before = {output: rows[output] for output in plan.todo if output in rows}
    journal.plan((plan.entries[output] for output in plan.todo), again=again)
    return plan


def entry_of(output: str, found: Found, key: str) -> Entry:
    """Return what the journal is to know of an input.

    That it may be read leaves no trace in its size and time, so the time of one that may not be is left out.
    """
    try:
        state = found.path.stat()
    except OSError:
        return Entry(output, str(found.path), None, None, key)
    mtime_ns = state.st_mtime_ns if os.access(found.path, os.R_OK) else None
    return Entry(output, str(found.path), state.st_size, mtime_ns, key)


def ended_elsewhere(destination: Destination, ours: Path) -> list[Row]:
    """Return what the journals of other shards, or of no shard, have ended, well or not."""
    ended: list[Row] = []
    for path in other_journals(destination, ours):
        with Journal(path, only_read=True) as other:
            ended += other.rows("WHERE state IN ('done', 'failed')")
    return ended


def _weigh_done(
    plan: Plan,
    again: dict[str, Again],
    entry: Entry,
    row: Row,
    destination: Destination,
    settings: BatchSettings,
    journal: Journal,
) -> None:
    """Decide whether what was made is what is asked for now."""
    output = entry.output
    if missing(destination.root, row.details.get("files", ())):
        _do_again(plan, again, row, anew=True)
    elif row.entry.settings != entry.settings:
        if settings.upscale.overwrite:
            _do_again(plan, again, row, anew=True)
        else:
            plan.refused[output] = (
                "taken",
                f"{destination.root / output} was made with other settings: it was not replaced; name another folder, "
                "or allow it with -y",
            )
    elif _is_same(entry, row):
        if row.entry != entry and entry.mtime_ns is not None:
            journal.touch(entry)
        plan.finished.append(output)
    else:
        _do_again(plan, again, row, anew=True)


def _weigh_failed(
    plan: Plan, again: dict[str, Again], entry: Entry, row: Row, destination: Destination, settings: BatchSettings
) -> None:
    """Decide whether what failed is worth another try."""
    first = destination.root / entry.output
    is_free = row.kind == "taken" and not (first.exists() or sidecar_path(first).exists())
    may_replace = row.kind == "taken" and settings.upscale.overwrite
    changed = entry != row.entry or is_free or may_replace
    may_pass = row.kind in PASSING and row.tries < MOST_TRIES
    if settings.retry_failed or changed or may_pass:
        _do_again(plan, again, row, anew=settings.retry_failed or changed)
    else:
        plan.failed[entry.output] = row


def _do_again(plan: Plan, again: dict[str, Again], row: Row, *, anew: bool) -> None:
    plan.todo.append(row.entry.output)
    again[row.entry.output] = Again(row, anew)


def _is_same(entry: Entry, row: Row) -> bool:
    if entry.num_bytes != row.entry.num_bytes:
        return False
    if entry.mtime_ns is None:  # it may not be read: what was made of it stays
        return True
    return entry.mtime_ns == row.entry.mtime_ns or file_sha256(Path(entry.input)) == row.sha256


def missing(root: Path, files: Iterable[Mapping[str, object]]) -> list[str]:
    """Return which of a result's files are gone."""
    return [str(file["to"]) for file in files if not (root / str(file["to"])).is_file()]


def shares(rows: Sequence[Row]) -> dict[str, int]:
    """Return how many pieces of work are in each state."""
    counts = dict.fromkeys(("waiting", "running", "publishing", "done", "failed"), 0)
    for row in rows:
        counts[row.state] += 1
    return counts
