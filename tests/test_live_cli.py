"""``streamsr live`` as a user runs it: exit codes, one-line refusals, the summary, stopping from any state."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamsr.config import LiveSettings
from streamsr.engine import catalogue_folder, find_engine
from streamsr.errors import UsageError
from streamsr.live.opening import choose_rungs
from streamsr.live_commands import summarise

SOURCE = "testsrc:endoscopy:size=128x96,rate=25"


def live(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "streamsr", "live", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **options)


def test_a_session_ends_by_itself_and_says_how_it_went() -> None:
    done = live(SOURCE, "--view", "none", "-m", "tiny-x2", "-t", "8", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["frames_in"] > 10
    assert set(told["added_latency"]) == {"num", "p50_ms", "p95_ms", "p99_ms", "max_ms"}
    assert told["added_latency"]["num"] > 10
    assert told["shown"] + sum(told["dropped"].values()) == pytest.approx(told["frames_in"], abs=2)
    assert told["ladder"] == ["tiny-x2", "bicubic-x2"]
    assert told["bypass_intervals"] == []
    assert told["reconnects"] == 0
    assert sum(told["by_rung"].values()) == told["shown"]
    assert 0 <= told["shown_late"] <= told["shown"]


def test_a_session_of_a_set_time_without_a_picture_is_a_failure_in_one_line() -> None:
    done = live("tcp://127.0.0.1:9", "--view", "none", "-m", "bicubic-x2", "-t", "1.5", "--json")
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["frames_in"] == 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("streamsr: tcp://127.0.0.1:9: expected a picture within 1.5 s, got none")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nowhere.mkv", "--view", "none"], 3, "nowhere.mkv"),
        ([SOURCE, "--view", "wall"], 2, "--view"),
        ([SOURCE, "--on-overrun", "queue"], 2, "--on-overrun"),
        ([SOURCE, "-m", "no-such-engine"], 4, "no-such-engine"),
        ([SOURCE, "--view", "none", "--lighter", "tiny-x4"], 2, "tiny-x4"),
        ([SOURCE, "--input-opt", "novalue"], 2, "KEY=VALUE"),
        ([SOURCE, "--keep-original"], 2, "--record"),
        ([SOURCE, "--size", "big"], 2, "--size"),
        ([SOURCE, "--size", "64x64"], 2, "leave one out"),
        ([SOURCE, "--rate", "50"], 2, "leave one out"),
        ([SOURCE, "-f", "mjpeg"], 2, "-f"),
        ([SOURCE, "--view", "none", "--key", "x=bypass"], 2, "--view window"),
        (["rtsp://127.0.0.1/x", "--size", "64x64"], 2, "--size"),
        (["-", "-f", "mpegts", "--size", "64x64"], 2, "--size"),
        (["lavfi:testsrc2", "--rate", "5"], 2, "--rate"),
        ([SOURCE, "--view", "web", "--host", "0.0.0.0"], 2, "TLS"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments: list[str], code: int, words: str) -> None:
    done = live(*arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_tampered_weights_are_refused_before_anything_is_shown(tmp_path: Path) -> None:
    folder = tmp_path / "tiny-x2"
    shutil.copytree(catalogue_folder() / "tiny-x2", folder)
    weights = folder / "model.int8.onnx"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    done = live(SOURCE, "--view", "none", "-m", str(folder), "-t", "1")
    assert done.returncode == 4
    assert "SHA-256" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_ends_it_in_time_with_the_summary(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "streamsr", "live", SOURCE, "--view", "none", "-m", "tiny-x2", "--json"]
    heard = signal.signal(number, signal.SIG_DFL)  # else a deaf parent's children are deaf too
    try:
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(number, heard)
    with running:
        assert running.stderr is not None
        for line in running.stderr:
            if "ready" in line:
                break
        running.send_signal(number)
        started = time.monotonic()
        try:
            output, _ = running.communicate(timeout=30)
        finally:
            running.kill()
        assert time.monotonic() - started < 10
    assert running.returncode == 130
    assert json.loads(output)["frames_in"] > 0


CLOSED_TERMINAL = """
import fcntl, signal, sys, termios
signal.signal(signal.SIGHUP, signal.SIG_DFL)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
sys.argv[0] = "streamsr"
from streamsr.__main__ import main
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs pseudo-terminals")
def test_a_closed_terminal_ends_it_and_recording_and_original_are_complete(tmp_path: Path) -> None:
    import pty

    keyboard, terminal = pty.openpty()
    options = ("-m", "bicubic-x2", "--record", str(tmp_path), "--keep-original")
    command = [sys.executable, "-c", CLOSED_TERMINAL, "live", SOURCE, "--view", "none", *options]
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True) as running:
        os.close(terminal)
        try:
            deadline = time.monotonic() + 60
            while len([path for path in tmp_path.glob("*.mkv") if path.stat().st_size > 1000]) < 2:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            os.close(keyboard)
            assert running.wait(30) == 130
        finally:
            running.kill()
    told = json.loads(next(tmp_path.glob("recording-*.json")).read_text())
    assert told["in_progress"] is False
    assert {file["kind"] for file in told["files"] if file["sha256"]} == {"enlarged", "original"}


@pytest.mark.skipif(sys.platform == "win32", reason="needs process groups")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_whole_group_leaves_the_original_complete(number: int, tmp_path: Path) -> None:
    """As a service manager, `timeout` and a terminal send it: to the reader as well."""
    options = ("-m", "bicubic-x2", "--record", str(tmp_path), "--keep-original")
    command = [sys.executable, "-m", "streamsr", "live", SOURCE, "--view", "none", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as running:
        try:
            deadline = time.monotonic() + 60
            while len([path for path in tmp_path.glob("*.mkv") if path.stat().st_size > 1000]) < 2:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            os.killpg(running.pid, number)
            said, _ = running.communicate(timeout=30)
        finally:
            running.kill()
    assert running.returncode == 130
    assert "cut short" not in said
    assert "opening again" not in said


LOADING = """
import importlib.abc, os, signal, sys

class Interrupting(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPTED"]:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
sys.argv[0] = "streamsr"
from streamsr.__main__ import main
main()
"""


@pytest.mark.parametrize("module", ["typer", "streamsr.cli", "streamsr.live.opening", "streamsr.live.ladder"])
def test_an_interrupt_while_it_loads_is_one_line(module: str) -> None:
    """Each module is interrupted as it is looked for."""
    command = [sys.executable, "-c", LOADING, "live", SOURCE, "--view", "none", "-t", "60"]
    surroundings = {**os.environ, "INTERRUPTED": module}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=surroundings)
    assert done.returncode == 130, done.stderr
    assert done.stderr == "streamsr: interrupted\n"


MAKING_A_CLASS = """
import os, signal, sys, time
from streamsr import cli

class Interrupted:
    def __set_name__(self, owner, name):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)

def make(**options):
    return type("Made", (), {"part": Interrupted()})

cli.app = make
cli.main()
"""


def test_an_interrupt_while_a_class_is_made_is_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MAKING_A_CLASS], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 130, done.stderr
    assert done.stderr == "streamsr: interrupted\n"


@pytest.mark.skipif(sys.platform == "win32", reason="needs pseudo-terminals")
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_a_stopped_terminal_holds_up_neither_the_session_nor_its_end(form: list[str]) -> None:
    import pty
    import termios

    keyboard, terminal = pty.openpty()
    termios.tcflow(terminal, termios.TCOOFF)  # as Ctrl-S
    command = [sys.executable, "-m", "streamsr", "live", SOURCE, "--view", "none", "-m", "tiny-x2", "-t", "3", *form]
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal) as running:
        try:
            assert running.wait(60) == 0
        finally:
            running.kill()
    os.close(keyboard)
    os.close(terminal)


def test_a_recording_is_written_with_the_original_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "taken"
    done = live(SOURCE, "--view", "none", "-m", "tiny-x2", "-t", "8", "--record", str(folder), "--keep-original")
    assert done.returncode == 0, done.stderr
    names = sorted(path.name.split("-")[0] for path in folder.iterdir())
    assert {"enlarged", "original", "recording"} <= set(names), names
    told = json.loads(next(folder.glob("recording-*.json")).read_text())
    assert told["rungs"]
    listed = {file["name"]: (file["bytes"], file["sha256"]) for file in told["files"]}
    assert listed == {
        path.name: (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()) for path in folder.glob("*.mkv")
    }
    assert told["session"]["frames_in"] > 0
    assert not {"rungs", "bypass_intervals", "signal_gaps"} & set(told["session"])  # in another clock's seconds


def not_a_folder(folder: Path) -> tuple[str, ...]:
    (folder / "taken").write_text("a file")
    return ("--record", str(folder / "taken"))


def below_a_file(folder: Path) -> tuple[str, ...]:
    (folder / "file").write_text("a file")
    return ("--record", str(folder / "file" / "taken"))


def takes_no_files(folder: Path) -> tuple[str, ...]:
    return ("--record", "/proc/self")


def too_full(folder: Path) -> tuple[str, ...]:
    return ("--record", str(folder), "--reserve", "1e12")


@pytest.mark.parametrize("prepare", [not_a_folder, below_a_file, takes_no_files, too_full])
def test_a_folder_that_cannot_be_recorded_to_is_refused_before_anything_begins(
    prepare: Callable[[Path], tuple[str, ...]], tmp_path: Path
) -> None:
    done = live(SOURCE, "--view", "none", "-m", "tiny-x2", "-t", "600", *prepare(tmp_path))
    assert done.returncode == 5, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


def test_recording_and_original_together_leave_the_reserve_alone(tmp_path: Path) -> None:
    disk, reserve = tmp_path / "disk", 2 << 20
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        source = "testsrc:endoscopy:size=640x480,rate=25"
        options = ("-m", "bicubic-x2", "--record", str(disk), "--keep-original", "--reserve", "2", "--crf", "1")
        command = [sys.executable, "-m", "streamsr", "live", source, "--view", "none", "-t", "12", *options]
        lowest = reserve << 10
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
            while running.poll() is None:
                lowest = min(lowest, shutil.disk_usage(disk).free)
                time.sleep(0.005)
            assert running.stdout is not None
            assert running.stderr is not None
            said = running.stdout.read() + running.stderr.read()
        assert running.returncode == 5
        assert said.count("recording stopped") == 1, said
        assert "2 MiB to stay free" in said
        assert "MiB for recording and original to end in" in said
        assert "no longer kept" not in said, "the original ends with the recording"
        stopped = [path.stat().st_mtime for path in disk.glob("*.mkv")]
        assert len(stopped) == 2
        assert max(stopped) - min(stopped) < 2, said
        assert reserve <= lowest < 24 << 20
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_no_screen_is_said_in_one_line() -> None:
    surroundings = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")}
    done = live(SOURCE, "--view", "window", "-t", "1", env=surroundings)
    assert done.returncode != 0
    assert "--view web" in done.stderr
    assert "Traceback" not in done.stderr


def test_rungs_are_the_engine_and_lighter_students_of_its_scale() -> None:
    def names(engine: str, lighter: tuple[str, ...] | None = None) -> list[str]:
        return [each.name for each in choose_rungs(find_engine(engine), lighter)]

    assert names("fast-x2") == ["fast-x2", "tiny-x2"]
    assert names("tiny-x4") == ["tiny-x4"]
    assert names("srgan-x4") == ["srgan-x4", "fast-x4", "tiny-x4"]
    assert names("quality-x2") == ["quality-x2", "fast-x2", "tiny-x2"]
    assert names("bicubic-x2") == []
    assert names("fast-x2", ()) == ["fast-x2"]
    assert names("quality-x2", ("tiny-x2",)) == ["quality-x2", "tiny-x2"]
    with pytest.raises(UsageError, match="x2"):
        names("fast-x2", ("tiny-x4",))


def test_the_summary_for_a_person_names_what_matters() -> None:
    told = summarise(
        {
            "shown": 90,
            "frames_in": 100,
            "seconds": 4.0,
            "by_rung": {"fast-x2": 80, "bicubic-x2": 10},
            "dropped": {"overrun": 10},
            "added_latency": {"p50_ms": 20.0, "p95_ms": 30.0, "p99_ms": 40.0, "max_ms": 50.0},
            "shown_late": 3,
            "reconnects": 1,
        }
    )
    for part in ("3 past the deadline", "90 of 100", "fast-x2 80", "10 overrun", "p99 40.0 ms", "reconnects: 1"):
        assert part in told


def test_settings_of_a_session_are_frozen() -> None:
    with pytest.raises(AttributeError):
        LiveSettings().badge = False  # type: ignore[misc]
