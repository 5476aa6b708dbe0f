"""Archives: every file exactly once, whatever is killed; every failure named; two runs share one folder."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from streamsr.batch.board import Desk
from streamsr.batch.failures import failure_of
from streamsr.batch.items import Item
from streamsr.batch.journal import Journal
from streamsr.batch.outputs import HOUSE, Destination
from streamsr.batch.planning import Plan, journal_path
from streamsr.batch.rows import Again, Entry, Row
from streamsr.batch.run import BatchRun
from streamsr.batch.status import left_s, read_status, status_lines
from streamsr.batch.tasks import Ended, Failed, Task
from streamsr.config import BatchSettings
from streamsr.errors import DiskFull, EngineError, InputNotFound, Interrupted, OutputError, UsageError
from streamsr.job import JobProgress
from streamsr.sinks.drafts import KEPT
from tests.archives import BICUBIC, TINY, Witness, ended, events_of, make_archive, run_archive, start_batch, tree_of
from tests.videos import make_video

KILLS = "STREAMSR_KILLS"
"""How often the run is killed; a hundred take minutes."""

ENGINE = ("-m", "bicubic-x2", "--codec", "ffv1", "-w", "2")


def test_a_tree_is_mirrored_with_sidecars_and_reports(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "in")
    code, witness = run_archive(archive, out=tmp_path / "out")
    assert code == 0
    names = [f"part {place % 3}/clip {place}_bicubic-x2.mkv" for place in range(4)]
    assert sorted(witness.made) == sorted(names)
    for place, name in enumerate(names):
        assert (tmp_path / "out" / name).is_file()
        sidecar = json.loads((tmp_path / "out" / f"{name}.json").read_text())
        assert sidecar["batch"]["checked"]["frames"] == 4
        assert sidecar["input"]["name"] == f"clip {place}.mkv"
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["counts"] == {"files": 4, "made": 4, "made_before": 0, "failed": 0, "incomplete": 0, "left": 0}
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 8
    assert "http" not in page
    assert not list((tmp_path / "out" / HOUSE / "work").iterdir())


def test_the_same_command_again_does_nothing_again(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "in")
    run_archive(archive, out=tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.mkv")}
    make_video(archive / "new.mkv", **TINY)
    code, witness = run_archive(archive, out=tmp_path / "out")
    assert code == 0
    assert witness.made == ["new_bicubic-x2.mkv"]
    assert witness.report["counts"]["made_before"] == 4
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in before.items())


def test_what_was_deleted_or_changed_is_done_again_and_what_was_touched_is_not(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "in")
    run_archive(archive, out=tmp_path / "out")
    (tmp_path / "out/part 0/clip 0_bicubic-x2.mkv").unlink()
    make_video(archive / "part 1/clip 1.mkv", **{**TINY, "num_frames": 6})
    os.utime(archive / "part 2/clip 2.mkv")
    code, witness = run_archive(archive, out=tmp_path / "out")
    assert code == 0
    assert sorted(witness.made) == ["part 0/clip 0_bicubic-x2.mkv", "part 1/clip 1_bicubic-x2.mkv"]
    assert run_archive(archive, out=tmp_path / "out")[1].made == []


def test_other_settings_replace_nothing_unless_allowed(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "in", 1)
    run_archive(archive, out=tmp_path / "out")
    other = replace(BICUBIC, codec="libx264")
    code, witness = run_archive(archive, out=tmp_path / "out", upscale=other)
    assert code == 1
    assert [(kind, "other settings" in message) for _, kind, message, _ in witness.failed] == [("taken", True)]
    code, witness = run_archive(archive, out=tmp_path / "out", upscale=replace(other, overwrite=True))
    assert (code, len(witness.made)) == (0, 1)


def test_a_stranger_in_the_place_of_a_result_is_left_alone(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "in", 1)
    stranger = tmp_path / "out/part 0/clip 0_bicubic-x2.mkv"
    stranger.parent.mkdir(parents=True)
    stranger.write_text("mine")
    code, witness = run_archive(archive, out=tmp_path / "out")
    assert (code, [(kind, again) for _, kind, _, again in witness.failed]) == (1, [("taken", False)])
    code, witness = run_archive(archive, out=tmp_path / "out")
    assert (code, witness.failed, len(witness.notes)) == (1, [], 2), "it is not decoded again as long as it is there"
    assert stranger.read_text() == "mine"
    stranger.unlink()
    assert run_archive(archive, out=tmp_path / "out")[0] == 0


# --- failures


def test_every_failure_is_classified_and_stops_no_other(tmp_path: Path) -> None:
    archive = tmp_path / "in"
    archive.mkdir()
    make_video(archive / "good ü 内视镜.mp4", width=32, height=32)
    whole = make_video(archive / "cut.ts", width=32, height=32, num_frames=40, options={"g": "5", "bf": "0"})
    data = bytearray(whole.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4000] = bytes(4000)
    whole.write_bytes(data)
    (archive / "text.mp4").write_text("no video at all\n" * 9)
    (archive / "empty.mkv").touch()
    broken = make_video(archive / "broken.mp4", width=32, height=32)
    broken.write_bytes(broken.read_bytes()[:900])
    make_sound(archive / "sound.mp4")
    code, witness = run_archive(archive, out=tmp_path / "out")
    assert code == 1
    files = {Path(file["input"]).name: file for file in witness.report["files"]}
    kinds = {name: (file["kind"], file["state"]) for name, file in files.items()}
    assert kinds == {
        "good ü 内视镜.mp4": (None, "done"),
        "cut.ts": ("incomplete", "done"),
        "text.mp4": ("unreadable", "failed"),
        "empty.mkv": ("unreadable", "failed"),
        "broken.mp4": ("unreadable", "failed"),
        "sound.mp4": ("unsupported", "failed"),
    }
    assert witness.report["failures"] == {"unreadable": 3, "incomplete": 1, "unsupported": 1}
    (line,) = [line for line in status_lines(read_status(tmp_path / "out")) if line.startswith("incomplete: ")]
    assert "cut.ts" in line
    assert all("\n" not in file["message"] for file in files.values() if file["message"])
    code, witness = run_archive(archive, out=tmp_path / "out")
    assert (code, witness.made, witness.failed) == (1, [], []), "what stays broken is not tried again"
    assert all(file["tries"] <= 1 for file in witness.report["files"])
    broken.unlink()
    make_video(broken, width=32, height=32)
    assert run_archive(archive, out=tmp_path / "out")[1].made == ["broken_bicubic-x2.mkv"]


def make_sound(path: Path) -> Path:
    import av

    from tests.videos import make_audio

    with av.open(str(path), "w") as container:
        track = container.add_stream("aac", rate=48_000, layout="mono")
        for packet in make_audio(track, duration_s=0.3):
            container.mux(packet)
    return path


def test_an_engine_that_is_not_there_ends_the_run_at_once(tmp_path: Path) -> None:
    from streamsr.errors import EngineNotFound

    archive = make_archive(tmp_path / "in", 1)
    other = replace(BICUBIC, generator=replace(BICUBIC.generator, engine="nothing-x9"))
    with pytest.raises(EngineNotFound):
        run_archive(archive, out=tmp_path / "out", upscale=other)
    assert not (tmp_path / "out").exists()


def test_what_may_pass_is_tried_again_but_not_for_ever(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "in", 1)
    blocked = tmp_path / "out/part 0"
    blocked.parent.mkdir()
    blocked.write_text("a file where a folder must be")
    tries = []
    for _ in range(5):
        code, witness = run_archive(archive, out=tmp_path / "out", retries=1)
        assert code == 1
        tries.append(len(witness.failed))
    assert tries == [2, 2, 2, 0, 0]
    assert witness.notes[0].startswith("not tried again after 6 tries: disk: ")
    assert "clip 0" in witness.notes[0]
    assert witness.notes[-1] == "1 not tried again before they change; --retry-failed tries them"
    blocked.unlink()
    assert run_archive(archive, out=tmp_path / "out")[0] == 1
    assert run_archive(archive, out=tmp_path / "out", retry_failed=True)[0] == 0


def test_a_full_disk_stops_the_run_and_costs_no_try(tmp_path: Path, small_disk: Path) -> None:
    archive = tmp_path / "in"
    archive.mkdir()
    for name in ("a", "b", "c"):
        make_video(archive / f"{name}.mkv", codec="ffv1", num_frames=60, width=256, height=256)
    out = small_disk / "out"
    for _ in range(8):
        with pytest.raises(DiskFull, match="goes on when there is space") as caught:
            run_archive(archive, out=out, num_workers=1)
        assert caught.value.exit_code == 5
        assert "is kept as" not in str(caught.value)
    with Journal(out / HOUSE / "journal.sqlite", only_read=True) as journal:
        assert [(row.state, row.tries) for row in journal.rows()] == [("waiting", 0)] * 3
    claimed = [output for output, what in events_of(out) if what == "claimed"]
    assert len(claimed) == 8, "one file a run is tried, and none of the others"


def test_a_disk_that_fills_stops_the_run_whatever_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from streamsr.batch import local

    started: list[Task] = []
    full = Failed("disk", "no space left for x", full=True)
    monkeypatch.setattr(
        local.Worker, "start", lambda self, task: (started.append(task), setattr(self, "task", task.number))
    )
    monkeypatch.setattr(local.LocalExecutor, "wait", lambda self, timeout_s: [Ended(started[-1].number, full)])
    archive, out = make_archive(tmp_path / "in", 4), tmp_path / "out"
    with pytest.raises(DiskFull, match="0 of 4 files are done"):
        run_archive(archive, out=out, num_workers=1)
    assert len(started) == 1
    with Journal(out / HOUSE / "journal.sqlite", only_read=True) as journal:
        assert [(row.state, row.tries) for row in journal.rows()] == [("waiting", 0)] * 4


def test_no_message_names_a_partial_file_that_is_gone() -> None:
    kept = OutputError(f"no space left for a.mkv; {KEPT} a b.partial.mkv; free some space")
    assert failure_of(kept) == Failed("disk", "no space left for a.mkv; free some space")
    cause = OutputError("cannot write the sidecar")
    cause.__cause__ = OSError(errno.ENOSPC, "no space")
    assert failure_of(cause).full


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_unreadable(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "in")
    (archive / "part 0/clip 0.mkv").chmod(0)
    code, witness = run_archive(archive, out=tmp_path / "out")
    assert (code, [kind for _, kind, _, _ in witness.failed]) == (1, ["unreadable"])
    assert len(witness.made) == 3


def test_a_file_that_may_be_read_since_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, out = make_archive(tmp_path / "in", 1), tmp_path / "out"
    (archive / "text.mp4").write_text("text")
    with monkeypatch.context() as closed:
        closed.setattr("os.access", lambda path, mode: archive not in Path(path).parents)
        assert len(run_archive(archive, out=out)[1].failed) == 1
        code, witness = run_archive(archive, out=out)
        assert (code, witness.failed, witness.report["counts"]["made_before"]) == (1, [], 1)
    code, witness = run_archive(archive, out=out)
    assert (len(witness.failed), witness.made) == (1, []), "chmod changes neither size nor time"
    assert run_archive(archive, out=out)[1].failed == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_closed_folder_fails_by_itself(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "in")
    (archive / "part 0").chmod(0)
    try:
        code, witness = run_archive(archive, out=tmp_path / "out")
    finally:
        (archive / "part 0").chmod(0o700)
    assert (code, [(name, kind) for name, kind, _, _ in witness.failed]) == (1, [("part 0", "unreadable")])
    assert len(witness.made) == 2


def test_files_by_name_stop_at_the_first_failure_and_folders_do_not(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "in")
    clips = sorted(archive.rglob("*.mkv"))
    bad = archive / "a bad one.mkv"
    bad.write_text("text")
    code, witness = run_archive(bad, *clips, out=tmp_path / "out", num_workers=1)
    assert code == 1
    assert (len(witness.failed), len(witness.made)) == (1, 0)
    assert witness.report["counts"]["left"] == 4
    code, witness = run_archive(archive, out=tmp_path / "out", num_workers=1)
    assert (code, len(witness.made)) == (1, 4)


def test_a_dead_worker_costs_its_file_one_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make_archive(tmp_path / "in")
    from streamsr.batch import local

    killed: list[int] = []
    start = local.Worker.start

    def start_and_kill(self: local.Worker, task: object) -> None:
        start(self, task)  # type: ignore[arg-type]
        if not killed:
            killed.append(self._process.pid)
            os.kill(self._process.pid, signal.SIGKILL)

    monkeypatch.setattr(local.Worker, "start", start_and_kill)
    code, witness = run_archive(archive, out=tmp_path / "out")
    assert (code, len(witness.made)) == (0, 4)
    ((_, kind, message, again),) = witness.failed
    assert (kind, again) == ("engine", True)
    assert "signal 9" in message


def test_a_worker_that_cannot_be_started_is_said_and_costs_no_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, out = make_archive(tmp_path / "in", 1), tmp_path / "out"
    with monkeypatch.context() as broken:
        broken.setattr("sys.executable", str(tmp_path / "nothing"))
        with pytest.raises(EngineError, match="expected to start a worker, got No such file"):
            run_archive(archive, out=out)
    with Journal(out / HOUSE / "journal.sqlite", only_read=True) as journal:
        assert [(row.state, row.tries) for row in journal.rows()] == [("waiting", 0)]
    assert run_archive(archive, out=out)[0] == 0


def test_the_share_of_a_file_in_segments_counts_those_under_way(tmp_path: Path) -> None:
    destination, told = make_house(tmp_path / "out"), dict[str, Any]()
    journal = SimpleNamespace(beat=lambda run, progress: told.update(progress))
    executor = SimpleNamespace(description="none")
    parts: Any = {"journal": journal, "run": "r", "executor": executor, "display": Witness()}
    batch = BatchRun(Plan(), destination, BatchSettings(BICUBIC), **parts)
    spans: Any = ("a", "b", "c", "d")
    row: Any = None
    item = Item(Entry("a.mkv", "/a.mkv", 1, 1, "k"), row, spans=spans, left={1, 2, 3})
    for number in (1, 2):
        batch._tasks[number] = (item, row)
        batch.board.desks[number] = Desk("a", progress=JobProgress("a", 100, 60, 50, 0.25, 0, 5.0, "openvino"))
    batch._beat()
    assert told["a.mkv"]["share"] == 0.5, "one is done and two are half done"


# --- kills and company


def begin(archive: Path, out: Path) -> subprocess.Popen[bytes]:
    return start_batch("--continue", archive, "-o", out, *ENGINE, "--segment", "0.2")


def wait_for_work(process: subprocess.Popen[bytes], out: Path, before: set[Path]) -> None:
    """Wait until a run is at its first file, or ends."""
    while process.poll() is None and not {path.parent for path in out.glob(f"{HOUSE}/work/*/*")} - before:
        time.sleep(0.01)


def undisturbed(archive: Path, out: Path) -> tuple[dict[str, str], float, float]:
    """Run the command to its end; return the tree, and how many seconds it started and worked."""
    started_s, process = time.monotonic(), begin(archive, out)
    wait_for_work(process, out, set())
    began_s = time.monotonic()
    assert ended(process)[0] == 0
    return tree_of(out), began_s - started_s, time.monotonic() - began_s


def kill(archive: Path, out: Path, seconds: float, *, at_work: bool) -> bool:
    """Run the command and kill all of it after a time; return whether it had ended by itself.

    Args:
        archive: what is enlarged.
        out: where to.
        seconds: from the start, or from the first file on.
        at_work: whether from the first file on.
    """
    before = set(out.glob(f"{HOUSE}/work/*"))
    process = begin(archive, out)
    if at_work:
        wait_for_work(process, out, before)
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return False
    assert process.returncode == 0
    return True


def test_kills_at_any_moment_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    kills = int(os.environ.get(KILLS, "4"))
    archive = make_archive(tmp_path / "in", 4)
    make_video(archive / "long.mkv", **{**TINY, "num_frames": 20}, audio=True)
    expected, start_s, work_s = undisturbed(archive, tmp_path / "calm")
    dice, out, done, rounds = random.Random(kills), tmp_path / "out", 0, 0
    while done < kills:
        at_work = dice.random() < 0.8  # the others come while it starts
        if kill(archive, out, dice.uniform(0, work_s if at_work else start_s), at_work=at_work):
            rounds += 1
            check_done(out, expected)
            out = tmp_path / f"out {rounds}"
        else:
            done += 1
    assert ended(begin(archive, out))[0] == 0
    check_done(out, expected)


def check_done(out: Path, expected: dict[str, str]) -> None:
    assert tree_of(out) == expected
    finished = [output for output, what in events_of(out) if what == "done"]
    assert sorted(finished) == sorted(set(finished)), "something was finished twice"
    assert not [what for _, what in events_of(out) if what.startswith("failed")]


def test_two_runs_at_once_do_nothing_twice(tmp_path: Path) -> None:
    archive, out = make_archive(tmp_path / "in", 8), tmp_path / "out"
    runs = [start_batch(archive, "-o", out, *ENGINE) for _ in range(2)]
    assert [ended(run)[0] for run in runs] == [0, 0]
    events = events_of(out)
    for what in ("claimed", "done"):
        outputs = [output for output, happened in events if happened == what]
        assert len(outputs) == len(set(outputs)) == 8
    assert len(tree_of(out)) == 16


def test_a_journal_waits_where_sqlite_itself_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.sqlite"
    connect = partial(sqlite3.connect, timeout=0, isolation_level=None, check_same_thread=False)
    other = connect(path)
    other.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr("sqlite3.connect", lambda place, *, uri, timeout: connect(place, uri=uri))
    with monkeypatch.context() as short:
        short.setattr("streamsr.batch.journal.BUSY_S", 0.05)
        with pytest.raises(OutputError, match="locked"):
            Journal(path)
    soon = threading.Timer(0.1, lambda: other.execute("COMMIT"))
    soon.start()
    with Journal(path) as journal:
        assert journal.rows() == []
    soon.join()
    other.close()


def test_a_plan_that_another_run_overtook_does_nothing_again(tmp_path: Path) -> None:
    archive, out = make_archive(tmp_path / "in", 1), tmp_path / "out"
    run_archive(archive, out=out)
    with Journal(out / HOUSE / "journal.sqlite") as journal:
        (row,) = journal.rows()
        stale = replace(row, state="failed", owner="another")
        journal.plan([row.entry], again={row.entry.output: Again(stale, anew=True)})
        assert journal.rows() == [row]
        journal.plan([row.entry], again={row.entry.output: Again(row, anew=True)})
        assert [found.state for found in journal.rows()] == ["waiting"]


def test_what_a_dead_run_was_publishing_is_ended_and_not_done_again(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "in", 2)
    out = tmp_path / "out"
    run_archive(archive, out=out)
    before = tree_of(out)
    work = out / HOUSE / "work/dead/1"
    work.mkdir(parents=True)
    with sqlite3.connect(out / HOUSE / "journal.sqlite") as base:
        output, details = base.execute("SELECT output, details FROM work ORDER BY output LIMIT 1").fetchone()
        files = json.loads(details)
        for file in files["files"]:
            file["from"] = "/".join((HOUSE, "work", "dead", "1", Path(file["to"]).name))
        name = files["files"][0]["to"]
        (out / name).rename(out / files["files"][0]["from"])  # the first file only: the second has its name already
        base.execute("INSERT INTO run VALUES ('dead', 'elsewhere', 1, 1, 0, 0, NULL, '{}')")
        base.execute(
            "UPDATE work SET state = 'publishing', owner = 'dead', details = ? WHERE output = ?",
            (json.dumps(files), output),
        )
    base.close()
    code, witness = run_archive(archive, out=out)
    assert (code, witness.made) == (0, [])
    assert tree_of(out) == before
    assert not (out / HOUSE / "work/dead").exists()


def test_an_interrupt_leaves_what_is_done_and_says_how_to_go_on(tmp_path: Path) -> None:
    archive, out = make_archive(tmp_path / "in", 6), tmp_path / "out"
    run = start_batch(archive, "-o", out, *ENGINE)
    until_s = time.monotonic() + 60
    while not list(out.rglob("*.mkv")) and time.monotonic() < until_s:
        time.sleep(0.02)
    os.kill(run.pid, signal.SIGINT)
    code, text = ended(run)
    assert code in (0, Interrupted.exit_code)
    if code:
        assert "goes on" in text
        with Journal(out / HOUSE / "journal.sqlite", only_read=True) as journal:
            assert {row.state for row in journal.rows()} <= {"done", "waiting"}
    assert run_archive(archive, out=out)[0] == 0


def test_continue_alone_knows_inputs_settings_and_names(tmp_path: Path) -> None:
    archive, out = make_archive(tmp_path / "in", 2), tmp_path / "out"
    first = start_batch(archive, "-o", out / "%(folder)s/%(stem)s_x%(scale)s.%(ext)s", *ENGINE)
    assert ended(first)[0] == 0
    make_video(archive / "more.mkv", **TINY)
    assert ended(start_batch("--continue", "-o", out))[0] == 0
    assert sorted(path.name for path in out.rglob("*.mkv")) == ["clip 0_x2.mkv", "clip 1_x2.mkv", "more_x2.mkv"]


def test_how_long_the_rest_takes_goes_by_size_and_by_the_runs_that_live() -> None:
    def row(name: str, size: int, state: str, **known: Any) -> Row:
        return Row(Entry(name, f"/in/{name}", size, 1, "key"), state, **known)

    rows = [
        row("old", 900, "done", owner="earlier"),
        row("done", 200, "done", owner="us"),
        row("waits", 100, "waiting"),
    ]
    rows += [row("failed", 800, "failed"), row("half", 200, "running", progress={"share": 0.5}, owner="us")]
    living = [{"id": "us", "started": 1000.0}]
    # 200 done and 100 of 200 under way took 30 s; 100 under way and 100 waiting are left.
    assert left_s(rows, living, 1030.0) == pytest.approx(20.0)
    assert left_s(rows, living, 1000.5) is None
    assert left_s(rows, [], 1030.0) is None
    status = {"counts": Counter(running=1, waiting=1), "left_s": 20.0, "runs": [], "working": [], "failed": []}
    assert status_lines(status)[0].endswith("; 0:20 left")


@pytest.mark.parametrize("number", [2, 3])
def test_shards_share_the_files_and_together_do_all(number: int, tmp_path: Path) -> None:
    archive, out = make_archive(tmp_path / "in", 7), tmp_path / "out"
    made: list[str] = []
    for place in range(1, number + 1):
        code, witness = run_archive(archive, out=out, shard=(place, number))
        assert code == 0
        made += witness.made
    assert len(made) == len(set(made)) == 7
    code, witness = run_archive(archive, out=out)
    assert (code, witness.made) == (0, []), "what shards did is done"
    assert witness.report["counts"]["made_before"] == len(witness.report["files"]) == 7
    assert read_status(out)["counts"]["done"] == 7


@pytest.mark.parametrize(("living", "asked"), [((1, 2), None), (None, (1, 2)), ((1, 2), (1, 3))])
def test_runs_that_divide_the_files_in_other_ways_are_refused(
    living: tuple[int, int] | None, asked: tuple[int, int] | None, tmp_path: Path
) -> None:
    archive, out = make_archive(tmp_path / "in", 2), tmp_path / "out"
    with Journal(journal_path(make_house(out), living)) as journal:
        run = journal.begin_run({})
        with pytest.raises(UsageError, match="at work; wait for it"):
            run_archive(archive, out=out, shard=asked)
        with Journal(journal_path(Destination(out), asked), only_read=True) as theirs:
            assert theirs.runs() == [], "the refused one is no run to go on with"
        journal.end_run(run)
    assert run_archive(archive, out=out, shard=asked)[0] == 0


def make_house(out: Path) -> Destination:
    destination = Destination(out)
    destination.house.mkdir(parents=True)
    return destination


def test_continue_alone_does_what_shards_have_left(tmp_path: Path) -> None:
    archive, out = make_archive(tmp_path / "in", 5), tmp_path / "out"
    (archive / "text.mp4").write_text("text")
    for part in ("1/2", "2/2"):
        ended(start_batch(archive, "-o", out, *ENGINE, "--shard", part))
    (out / "part 0/clip 0_bicubic-x2.mkv").unlink()
    code, text = ended(start_batch("--continue", "-o", out))
    assert code == 1
    assert "6 files: 1 made, 4 made before, 1 failed" in text
    assert "not tried again after 1 try: unreadable: " in text
    assert read_status(out)["counts"] | {"failed": 1, "done": 5, "waiting": 0} == read_status(out)["counts"]


def test_nothing_to_do_and_names_that_are_not_there_are_said(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match="among 1 other files"):
        run_archive(tmp_path, out=tmp_path / "out")
    with pytest.raises(InputNotFound, match="no such file"):
        run_archive(tmp_path / "nothing.mp4", out=tmp_path / "out")


def test_results_among_the_inputs_are_left_out_and_said_and_done_when_named(tmp_path: Path) -> None:
    archive, first = make_archive(tmp_path / "in", 1), tmp_path / "first"
    assert run_archive(archive, out=first)[0] == 0
    with pytest.raises(UsageError, match="1 result of streamsr left out"):
        run_archive(first, out=tmp_path / "out")
    make_video(first / "more.mkv", **TINY)
    code, witness = run_archive(first, out=tmp_path / "out")
    assert (code, witness.made) == (0, ["more_bicubic-x2.mkv"])
    assert witness.notes == ["1 result of streamsr left out of folders and globs; name them to do them"]
    (result,) = first.glob("part 0/*.mkv")
    assert len(run_archive(result, out=tmp_path / "out")[1].made) == 1
