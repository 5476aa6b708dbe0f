"""Damaged journals, lists and sidecars of archives: one clear refusal, or what could be read; nothing written outside.

Seeds are fixed. ``STREAMSR_FUZZ=10`` runs ten times as many.
"""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from streamsr.batch.auditing import Finding, audit
from streamsr.batch.inputs import find_inputs
from streamsr.batch.journal import Journal
from streamsr.batch.outputs import HOUSE, Destination
from streamsr.batch.resuming import last_run
from streamsr.batch.rows import DamagedRow, row_of
from streamsr.batch.status import read_status, status_lines
from streamsr.config import BatchSettings
from streamsr.errors import InputError, InputNotFound, OutputError
from tests.archives import make_archive, run_archive
from tests.mutations import damaged, damaged_text
from tests.test_fuzz import MORE, assert_refused_in_one_line, refusal_of

JOURNALS = 60 * MORE
SIDECARS = 80 * MORE
LISTS = 200 * MORE
TEXTS_OF_JOURNALS = (("run", "settings"), ("work", "details"), ("work", "progress"), ("work", "state"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of one clip, ``in`` and ``out``, enlarged."""
    folder = tmp_path_factory.mktemp("archive")
    run_archive(make_archive(folder / "in", 1), out=folder / "out")
    with sqlite3.connect(journal_in(folder)) as base:
        base.execute("PRAGMA journal_mode=DELETE")  # one file, without the log beside it
    base.close()
    return folder


@pytest.fixture
def archive(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "archive"))


def journal_in(folder: Path) -> Path:
    """Return where the journal is."""
    return folder / "out" / HOUSE / "journal.sqlite"


def readings(folder: Path) -> list[Callable[[], object]]:
    """Return all that reads a journal without doing any work."""
    out = folder / "out"
    return [
        lambda: status_lines(read_status(out)),
        lambda: list(audit(out)),
        lambda: last_run(Destination(out), BatchSettings(), ()),
    ]


def files_in(folder: Path) -> set[Path]:
    """Return every file but those that SQLite keeps beside a journal."""
    return {path for path in folder.rglob("*") if not path.name.startswith("journal")}


def spoil_text(path: Path, seed: int) -> None:
    """Damage one text in a journal, which stays a sound database."""
    table, column = TEXTS_OF_JOURNALS[seed % len(TEXTS_OF_JOURNALS)]
    with sqlite3.connect(path) as base:
        base.execute(f"UPDATE work SET owner = NULL, state = '{('waiting', 'done', 'publishing')[seed % 3]}'")
        (text,) = base.execute(f"SELECT {column} FROM {table} LIMIT 1").fetchone()
        text = damaged_text(text, seed).encode(errors="replace").decode()
        base.execute(f"UPDATE {table} SET {column} = ?", (text,))
    base.close()


def test_damaged_journals_are_refused_in_one_line_or_read(archive: Path) -> None:
    path, refusals = journal_in(archive), list[str]()
    content, before = path.read_bytes(), files_in(archive)
    for seed in range(JOURNALS):
        path.write_bytes(random.Random(seed).randbytes(3000) if seed % 10 == 0 else damaged(content, seed))
        refusals += [refusal_of(read) for read in readings(archive)]
    assert files_in(archive) == before
    assert_refused_in_one_line(refusals, least=0.25)


def test_damaged_texts_in_a_journal_are_refused_in_one_line_or_read(archive: Path) -> None:
    path, refusals = journal_in(archive), list[str]()
    content, before = path.read_bytes(), files_in(archive)
    for seed in range(3 * JOURNALS):
        path.write_bytes(content)
        spoil_text(path, seed)
        refusals += [refusal_of(read) for read in readings(archive)]
    assert files_in(archive) == before
    assert_refused_in_one_line(refusals, least=0.25)


def test_a_run_over_a_damaged_journal_ends_in_one_line_and_touches_nothing_outside(archive: Path) -> None:
    path, refusals = journal_in(archive), list[str]()
    content, outside = path.read_bytes(), files_in(archive / "in")
    for seed in range(JOURNALS // 4):
        path.write_bytes(damaged(content, seed))
        for beside in path.parent.glob("journal.sqlite-*"):
            beside.unlink()
        refusals.append(refusal_of(lambda: run_archive(archive / "in", out=archive / "out")))
    assert {found.name for found in archive.iterdir()} == {"in", "out"}
    assert files_in(archive / "in") == outside
    assert_refused_in_one_line(refusals, least=0.2)


@pytest.mark.parametrize("name", ["../elsewhere.mkv", "/elsewhere.mkv", "a/../../elsewhere.mkv", "", "a\0.mkv"])
def test_a_journal_that_names_files_outside_its_folder_is_damaged(name: str) -> None:
    good = {"from": "a.mkv", "to": "b.mkv", "bytes": 1, "sha256": "0"}
    figures = {"frames": 1, "seconds": 1.0, "skipped": 0.0}
    start, end = (b"b.mkv", b"/in/a.mkv", 1, 1, "key", "done", None, None, None, None, None, 0), "{}"
    assert row_of(*start, json.dumps({**figures, "files": [good]}), end).state == "done"
    for place in ("from", "to"):
        with pytest.raises(DamagedRow):
            row_of(*start, json.dumps({**figures, "files": [{**good, place: name}]}), end)
    with pytest.raises(DamagedRow):
        row_of(name.encode(), *start[1:], "{}", end)


def test_a_journal_of_other_data_says_what_to_do(archive: Path) -> None:
    journal_in(archive).write_bytes(b"no journal at all, but long enough to be looked at" * 99)
    for read in (*readings(archive), lambda: Journal(journal_in(archive))):
        with pytest.raises(OutputError, match="moved away") as raised:
            read()
        assert raised.value.exit_code == 5


def test_damaged_sidecars_are_said_to_differ_or_pass(archive: Path) -> None:
    sidecar = next((archive / "out").rglob("*.mkv.json"))
    text, differing = sidecar.read_text(), 0
    journal_in(archive).unlink()  # which knows the sidecar's hash, so that nothing in it would be read
    for seed in range(SIDECARS):
        sidecar.write_text(damaged_text(text, seed), encoding="utf-8", errors="replace")
        found = list[Finding]()
        with suppress(InputNotFound):  # it says no longer that it is a sidecar, and there is no other
            found += audit(archive / "out", sources=archive / "in", deep=True)
        differing += any(not finding.intact for finding in found)
        assert all("\n" not in line for finding in found for line in (*finding.differs, *finding.notes))
    assert differing > SIDECARS / 8


def test_damaged_lists_are_refused_in_one_line_or_name_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = "# archive\na.mkv\nsub folder/b.mkv\n" + str(tmp_path / "c.mkv") + "\nclips/*.mp4\n"
    path, refusals = tmp_path / "list.txt", list[str]()
    for seed in range(LISTS):
        path.write_bytes(random.Random(seed).randbytes(400) if seed % 10 == 0 else damaged(text.encode(), seed))
        refusals.append(refusal_of(lambda: find_inputs([], lists=[str(path)], root=tmp_path / "out")))
    assert_refused_in_one_line(refusals, least=0.1)


@pytest.mark.parametrize("content", [b"a\0b.mkv\n", bytes(range(256)) * 20])
def test_a_list_of_other_data_is_refused_with_its_name(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "list.bin").write_bytes(content)
    with pytest.raises(InputError, match=r"list\.bin: expected a list of files") as raised:
        find_inputs([], lists=[str(tmp_path / "list.bin")], root=tmp_path)
    assert raised.value.exit_code == 3


def test_names_in_a_list_may_hold_what_some_call_ends_of_lines(tmp_path: Path) -> None:
    name = tmp_path / "a\x1cb\u2028c.mkv"
    name.write_bytes(b"")
    (tmp_path / "list.txt").write_text(f"{name}\r\n", newline="")
    found = find_inputs([], lists=[str(tmp_path / "list.txt")], root=tmp_path / "out")
    assert [file.path for file in found.files] == [name]
