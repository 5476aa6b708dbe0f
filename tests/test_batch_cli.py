"""``streamsr batch``, ``batch status`` and ``verify`` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console
from rich.live import Live

from streamsr.batch.board import Board, Desk
from streamsr.batch.telling import TableDisplay
from streamsr.job import JobProgress
from tests.archives import TINY, make_archive
from tests.test_cli import one_line, run
from tests.videos import make_video

ENGINE = ("-m", "bicubic-x2", "--codec", "ffv1", "-w", "1")


def test_an_archive_is_done_and_its_status_and_results_can_be_asked(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    archive, out = make_archive(tmp_path / "in", 2), tmp_path / "out"
    assert run("batch", archive, "-o", out, *ENGINE) == 0
    text = capfd.readouterr().out
    assert "clip 0_bicubic-x2.mkv: 4 frames" in text
    assert "2 files: 2 made, 0 made before, 0 failed" in text
    assert run("batch", "status", out) == 0
    assert "2 files: 2 done" in capfd.readouterr().out
    assert run("verify", out) == 0
    assert "2 of 2 results are intact" in capfd.readouterr().out
    (out / "part 0/clip 0_bicubic-x2.mkv").write_bytes(b"x")
    assert run("verify", out, "--json") == 1
    findings = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [finding["intact"] for finding in findings] == [False, True]
    assert run("verify", out) == 1
    assert "remove it" in one_line(capfd.readouterr().err)
    (out / "part 0/clip 0_bicubic-x2.mkv").unlink()
    assert run("batch", archive, "-o", out, *ENGINE) == run("verify", out) == 0


def test_failures_are_said_and_counted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    archive, out = make_archive(tmp_path / "in", 1), tmp_path / "out"
    (archive / "text.mp4").write_text("text")
    assert run("batch", archive, "-o", out, *ENGINE) == 1
    found = capfd.readouterr()
    assert one_line(found.err).startswith("unreadable: ")
    assert "failures: unreadable 1" in found.out
    assert run("batch", "status", out, "--json") == 0
    status = json.loads(capfd.readouterr().out)
    assert status["counts"] == {"waiting": 0, "running": 0, "publishing": 0, "done": 1, "failed": 1, "incomplete": 0}
    assert status["failed"][0]["kind"] == "unreadable"


def test_json_lines_are_json(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    video = make_video(tmp_path / "a.mkv", **TINY)
    assert run("batch", video, "-o", tmp_path / "out", *ENGINE, "--json") == 0
    events = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [event["event"] for event in events if event["event"] != "progress"] == ["done", "report"]
    assert events[-1]["counts"]["made"] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "expected inputs"),
        (("in", "--shard", "3"), "--shard"),
        (("in", "--executor", "magic"), "--executor"),
        (("in", "--container", "avi"), "--container"),
        (("gone.mp4",), "no such file"),
        (("--continue", "-o", "nowhere"), "earlier run"),
        (("in", "-o", "%(nothing)s.mkv"), "expected fields"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    arguments: tuple[str, ...],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(make_archive(tmp_path / "in", 1).parent)
    code = run("batch", "run", *arguments) if not arguments else run("batch", *arguments, "-m", "bicubic-x2")
    assert code in (2, 3)
    assert words in one_line(capfd.readouterr().err)


def test_a_folder_without_a_journal_has_no_status(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("batch", "status", tmp_path) == 3
    assert "no journal" in one_line(capfd.readouterr().err)


def test_the_table_shows_every_worker() -> None:
    console = Console(force_terminal=True, width=120, record=True)
    board = Board(Path("out"), "2 workers", 9, num_before=3, num_done=2, num_failed=1, todo_bytes=100, done_bytes=20)
    progress = JobProgress("a", 100, 60, 50, 0.25, 0, 5.0, "openvino")
    board.desks = {1: Desk("/x/study one.mp4", "segment 2 of 5", progress, 50, "core 0"), 2: Desk("/x/b.mkv")}
    with Live(console=console, auto_refresh=False) as live:
        display = TableDisplay(live)
        display.update(board)
        live.refresh()
        display.fail("/x/c.mp4", "unreadable", "/x/c.mp4: not a video", again=False)
    text = console.export_text()
    for words in (
        "5/9 files, 1 failed",
        "study one.mp4",
        "segment 2 of 5",
        "50/100",
        "10.0",
        "25%",
        "starting",
        "core 0",
    ):
        assert words in text
    assert "unreadable: /x/c.mp4: not a video" in text


@pytest.mark.parametrize(("engine", "words"), [("bicubic-x2", "by bicubic interpolation"), ("tiny-x2", "by a learned")])
def test_sidecars_and_reports_say_whether_a_generator_drew(engine: str, words: str, tmp_path: Path) -> None:
    video, out = make_video(tmp_path / "a.mkv", **TINY), tmp_path / "out"
    assert run("batch", video, "-o", out, "-m", engine, "--codec", "ffv1", "-q") == 0
    assert run("upscale", video, "-o", tmp_path / "b.mkv", "-m", engine, "--codec", "ffv1", "-q") == 0
    for path in (out / f"a_{engine}.mkv.json", out / "report.json", tmp_path / "b.mkv.json"):
        assert words in json.loads(path.read_text())["statement"]
    assert run("verify", out) == 0


@pytest.mark.parametrize(
    ("options", "word"),
    [(("--crf", "22"), "--crf"), (("-m", "tiny-x2"), "--model"), (("--no-consistency",), "--no-consistency")],
)
def test_continue_refuses_what_contradicts_the_run(
    options: tuple[str, ...], word: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    video, out = make_video(tmp_path / "a.mkv", **TINY), tmp_path / "out"
    assert run("batch", video, "-o", out, *ENGINE, "-q") == 0
    assert run("batch", "--continue", "-o", out, *options) == 2
    assert f"{word}: expected" in one_line(capfd.readouterr().err)
    assert run("batch", "--continue", "-o", out / "%(name)s.%(ext)s") == 2
    assert "folder alone" in one_line(capfd.readouterr().err)
    assert run("batch", "--continue", "-o", out, "-m", "bicubic-x2", "--crf", "16", "--retries", "0", "-q") == 0
