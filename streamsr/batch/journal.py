"""The journal: who does what, what is done and what failed, in one SQLite file beside the results.

    waiting ──► running ──► publishing ──► done
       ▲           │  │                     (kind ``incomplete`` where the source had damage)
       └───────────┘  └──► failed

Every arrow is one transaction. Before results get their names, what is renamed to what stands in the journal with
hashes; a run that finds a dead one's ``publishing`` ends the renaming, so nothing is done again and nothing is lost.
"""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from streamsr.batch.owners import Owner, is_alive, this_owner
from streamsr.batch.rows import Again, DamagedRow, Entry, Row, pack, row_of, run_of, unpack
from streamsr.errors import OutputError
from streamsr.sidecar import plain

SCHEMA = """
CREATE TABLE IF NOT EXISTS run (
    id TEXT PRIMARY KEY, machine TEXT NOT NULL, pid INTEGER NOT NULL, ticks INTEGER NOT NULL,
    started REAL NOT NULL, beat REAL NOT NULL, ended REAL, settings TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS work (
    output BLOB PRIMARY KEY, input BLOB NOT NULL, bytes INTEGER, mtime_ns INTEGER, settings TEXT NOT NULL,
    state TEXT NOT NULL, owner TEXT, sha256 TEXT, key TEXT, kind TEXT, message TEXT, tries INTEGER NOT NULL DEFAULT 0,
    details TEXT NOT NULL DEFAULT '{}', progress TEXT NOT NULL DEFAULT '{}');
CREATE TABLE IF NOT EXISTS event (
    at REAL NOT NULL, run TEXT NOT NULL, output BLOB NOT NULL, what TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS work_state ON work (state);
"""

BUSY_S = 60.0
"""How long another run's transaction is waited for; each takes milliseconds."""
AGAIN_S = 0.01
"""Between two tries where SQLite does not wait by itself."""


class Journal:
    """One journal, open; a context manager. Owned by one thread.

    Args:
        path: of the file; made where it is missing.
        shared_disk: whether the folder may lie on a network disk, where SQLite's write-ahead log does not work.
        only_read: for looking at it.

    Raises:
        OutputError: it cannot be made or is no journal; and so every method where it is damaged or cannot be written.
    """

    def __init__(self, path: Path, *, shared_disk: bool = False, only_read: bool = False) -> None:
        self.path = path
        self._usual = "FULL" if shared_disk else "NORMAL"
        mode = "?mode=ro" if only_read else ""
        with self._explained():
            self._base = sqlite3.connect(f"{path.absolute().as_uri()}{mode}", uri=True, timeout=BUSY_S)
            self._base.isolation_level = None
        if only_read:
            return
        try:
            with self._explained():
                self._make("TRUNCATE" if shared_disk else "WAL")
        except OutputError:
            self.close()
            raise

    def _make(self, mode: str) -> None:
        """Set the way of writing and make the tables, however many others do so at this moment.

        SQLite does not wait for a lock where the way of writing changes: it says at once that the file is locked
        (https://sqlite.org/c3ref/busy_handler.html, on deadlocks), so we wait.
        """
        until_s = time.monotonic() + BUSY_S
        while True:
            try:
                self._base.execute(f"PRAGMA journal_mode={mode}")
                self._base.execute(f"PRAGMA synchronous={self._usual}")
                self._base.executescript(SCHEMA)
                return
            except sqlite3.OperationalError as cause:
                if "locked" not in str(cause) or time.monotonic() > until_s:
                    raise
                time.sleep(AGAIN_S)

    # --- runs

    def begin_run(self, settings: Mapping[str, Any]) -> str:
        """Enter this process as a run; return its id."""
        run, owner, now = uuid.uuid4().hex[:12], this_owner(), time.time()
        with self._change() as base:
            base.execute(
                "INSERT INTO run VALUES (?, ?, ?, ?, ?, ?, NULL, ?)",
                (run, owner.machine, owner.pid, owner.started, now, now, json.dumps(plain(settings))),
            )
        return run

    def beat(self, run: str, progress: Mapping[str, Mapping[str, Any]]) -> None:
        """Give a sign of life, with the progress of what the run has, by output."""
        with self._change() as base:
            base.execute("UPDATE run SET beat = ? WHERE id = ?", (time.time(), run))
            for output, content in progress.items():
                base.execute(
                    "UPDATE work SET progress = ? WHERE output = ? AND owner = ? AND state = 'running'",
                    (json.dumps(plain(content)), pack(output), run),
                )

    def end_run(self, run: str) -> None:
        """Give back what the run still has, and say that it ended."""
        with self._change() as base:
            base.execute("UPDATE work SET state = 'waiting' WHERE owner = ? AND state = 'running'", (run,))
            base.execute("UPDATE run SET ended = ? WHERE id = ?", (time.time(), run))

    def forget_run(self, run: str) -> None:
        """Take out a run that was refused before it did anything."""
        with self._change() as base:
            base.execute("DELETE FROM run WHERE id = ?", (run,))

    def runs(self) -> list[dict[str, Any]]:
        """Return every run, the first one first: id, started, ended, settings, and whether it lives."""
        columns, now = "id, machine, pid, ticks, started, beat, ended, settings", time.time()
        with self._explained():
            stated = [run_of(*row) for row in self._base.execute(f"SELECT {columns} FROM run ORDER BY started")]
        return [
            {
                "id": run["id"],
                "machine": run["machine"].split(" ")[0],
                "pid": run["pid"],
                "started": run["started"],
                "ended": run["ended"],
                "settings": run["settings"],
                "alive": run["ended"] is None
                and is_alive(Owner(run["machine"], run["pid"], run["ticks"]), beat_s=run["beat"], now_s=now),
            }
            for run in stated
        ]

    def take_over(self, run: str) -> list[Row]:
        """Free what dead runs were at; return what they were publishing, which is now this run's to end."""
        with self._change() as base:
            dead = [entry["id"] for entry in self.runs() if entry["ended"] is None and not entry["alive"]]
            taken: list[Row] = []
            for name in dead:
                base.execute("UPDATE work SET state = 'waiting' WHERE owner = ? AND state = 'running'", (name,))
                taken += self.rows("WHERE owner = ? AND state = 'publishing'", (name,))
                base.execute("UPDATE work SET owner = ? WHERE owner = ? AND state = 'publishing'", (run, name))
                base.execute("UPDATE run SET ended = beat WHERE id = ?", (name,))
        return taken

    # --- work

    def plan(self, entries: Iterable[Entry], *, again: Mapping[str, Again] | None = None) -> None:
        """Enter work that is new.

        Args:
            entries: all that is to be done.
            again: outputs that are known and are to be done again; others, and those that another run has touched
                since they were looked at, are left as they are.
        """
        wanted = again or {}
        with self._change() as base:
            for entry in entries:
                values = (pack(entry.input), entry.num_bytes, entry.mtime_ns, entry.settings, pack(entry.output))
                base.execute(
                    "INSERT OR IGNORE INTO work (input, bytes, mtime_ns, settings, output, state)"
                    " VALUES (?, ?, ?, ?, ?, 'waiting')",
                    values,
                )
                if entry.output in wanted:
                    known = wanted[entry.output]
                    tries = "tries = 0," if known.anew else ""
                    base.execute(
                        f"UPDATE work SET input = ?, bytes = ?, mtime_ns = ?, settings = ?, {tries} state = 'waiting',"
                        " kind = NULL, message = NULL WHERE output = ? AND state = ? AND owner IS ? AND tries = ?",
                        (*values, known.row.state, known.row.owner, known.row.tries),
                    )

    def touch(self, entry: Entry) -> None:
        """Note the new time of an input whose content is the same."""
        with self._change() as base:
            base.execute(
                "UPDATE work SET input = ?, bytes = ?, mtime_ns = ? WHERE output = ?",
                (pack(entry.input), entry.num_bytes, entry.mtime_ns, pack(entry.output)),
            )

    def claim(self, run: str, output: str) -> bool:
        """Take a piece of work that waits; return whether it is this run's now."""
        with self._change() as base:
            taken = base.execute(
                "UPDATE work SET state = 'running', owner = ?, progress = '{}' WHERE output = ? AND state = 'waiting'",
                (run, pack(output)),
            ).rowcount
            if taken:
                self._log(run, output, "claimed")
        return bool(taken)

    def publishing(self, run: str, output: str, *, sha256: str, key: str, details: Mapping[str, Any]) -> bool:
        """Say that a result is about to get its name; return False where the work is no longer this run's.

        This outlives a power cut, for names follow it; the other transactions outlive the end of the program alone, and
        what is lost of them is found out from this one.
        """
        with self._lasting(), self._change() as base:
            return bool(
                base.execute(
                    "UPDATE work SET state = 'publishing', sha256 = ?, key = ?, details = ?"
                    " WHERE output = ? AND owner = ? AND state = 'running'",
                    (sha256, key, json.dumps(plain(details)), pack(output), run),
                ).rowcount
            )

    def finish(self, run: str, output: str, *, incomplete: str | None = None) -> None:
        """Say that a result has its name.

        Args:
            run: this one.
            output: which.
            incomplete: what the source lacked, in one line; None where it was whole.
        """
        kind = None if incomplete is None else "incomplete"
        with self._change() as base:
            base.execute(
                "UPDATE work SET state = 'done', kind = ?, message = ?, progress = '{}'"
                " WHERE output = ? AND owner = ? AND state = 'publishing'",
                (kind, incomplete, pack(output), run),
            )
            self._log(run, output, "done")

    def fail(self, run: str, output: str, kind: str, message: str, *, again: bool) -> None:
        """Say that a piece of work failed, and whether it is to be tried once more."""
        with self._change() as base:
            base.execute(
                "UPDATE work SET state = ?, kind = ?, message = ?, tries = tries + 1, progress = '{}'"
                " WHERE output = ? AND owner = ? AND state IN ('running', 'publishing')",
                ("waiting" if again else "failed", kind, message, pack(output), run),
            )
            self._log(run, output, f"failed: {kind}")

    def release(self, run: str, output: str) -> None:
        """Give back a piece of work that is not to blame for what ended it."""
        with self._change() as base:
            base.execute(
                "UPDATE work SET state = 'waiting', progress = '{}'"
                " WHERE output = ? AND owner = ? AND state IN ('running', 'publishing')",
                (pack(output), run),
            )

    def rows(self, where: str = "", values: tuple[Any, ...] = ()) -> list[Row]:
        """Return work, in the order of its outputs."""
        columns = "output, input, bytes, mtime_ns, settings, state, owner, sha256, key, kind, message, tries, details"
        with self._explained():
            found = self._base.execute(f"SELECT {columns}, progress FROM work {where} ORDER BY output", values)
            return [row_of(*columns) for columns in found]

    def events(self) -> list[tuple[float, str, str, str]]:
        """Return all that happened: time, run, output, what."""
        with self._explained():
            found = self._base.execute("SELECT at, run, output, what FROM event ORDER BY rowid")
            return [(at, run, unpack(output), what) for at, run, output, what in found]

    def _log(self, run: str, output: str, what: str) -> None:
        self._base.execute("INSERT INTO event VALUES (?, ?, ?, ?)", (time.time(), run, pack(output), what))

    @contextmanager
    def _lasting(self) -> Iterator[None]:
        """Write what the body changes through to the disk."""
        with self._explained():
            self._base.execute("PRAGMA synchronous=FULL")
        try:
            yield
        finally:
            with self._explained():
                self._base.execute(f"PRAGMA synchronous={self._usual}")

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """Make a transaction of the body."""
        with self._explained():
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield self._base
            except BaseException:
                if self._base.in_transaction:  # some failures have ended it already
                    self._base.execute("ROLLBACK")
                raise
            self._base.execute("COMMIT")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what SQLite says, and what does not fit in a row, into one of our errors."""
        try:
            yield
        except (sqlite3.Error, DamagedRow) as cause:
            line = " ".join(str(cause).split())[:200]
            raise OutputError(
                f"{self.path}: expected a journal that can be read and written, got {line}; check the disk; a journal "
                "that is damaged may be moved away: the results are then made again with -y, or in another folder"
            ) from cause

    def close(self) -> None:
        """Close it."""
        self._base.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
