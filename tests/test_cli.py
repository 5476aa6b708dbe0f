"""The command line: exit codes, one-line errors, outputs that are never half-written, and every display."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from streamsr import cli
from streamsr.frame import Frame
from streamsr.interrupt import GRACE_S
from streamsr.job import upscale_file
from tests.videos import make_video, read_numbers


def run(*arguments: str | Path) -> int:
    """Run the command line in this process and return its exit code."""
    sys_argv = sys.argv
    sys.argv = ["streamsr", *map(str, arguments)]
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = sys_argv


def one_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(lines) == 1, text
    assert "Traceback" not in text
    return lines[0]


def test_done_is_0_and_names_the_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = make_video(tmp_path / "a b ü.mp4")
    assert run("upscale", video, "-m", "bicubic-x2") == 0
    made = tmp_path / "a b ü_bicubic-x2.mkv"
    assert read_numbers(made, 2) == list(range(10))
    assert made.name in capsys.readouterr().out
    assert made.with_name(made.name + ".json").is_file()


def test_some_failed_is_1_and_the_others_are_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = make_video(tmp_path / "good.mp4")
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video at all\n" * 9)
    also_good = make_video(tmp_path / "also.mp4")
    assert run("upscale", good, bad, also_good, "-m", "bicubic-x2", "-o", tmp_path / "out/") == 1
    assert sorted(path.name for path in (tmp_path / "out").glob("*.mkv")) == [
        "also_bicubic-x2.mkv",
        "good_bicubic-x2.mkv",
    ]
    assert "bad.mp4" in one_line(capsys.readouterr().err)


HOSTILE = "a\nb\x1b[31mc\x07\u202e.mkv"
SHOWN = r"a\nb\x1b[31mc\x07\u202e"
"""A name with what a terminal obeys, and how it is shown; a right-to-left turn would hide the suffix."""


def obeyed(text: str) -> str:
    """Return what of a text a terminal would obey, but for ends of lines."""
    return "".join(re.findall("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e]", text))


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("upscale", "-m", "bicubic-x2"), 3),
        (("probe",), 3),
        (("live", "--pace", "--view", "none", "-t", "1"), 3),
        (("verify",), 3),
        (("batch", "-m", "bicubic-x2", "-w", "1"), 1),
        (("batch", "status"), 3),
    ],
)
def test_names_that_a_terminal_would_obey_are_escaped_in_errors(
    command: tuple[str, ...],
    code: int,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(HOSTILE).write_bytes(b"no video at all " * 9)
    assert run(*command, HOSTILE) == code
    found = capfd.readouterr()
    assert SHOWN in one_line(found.err)
    assert not obeyed(found.err + found.out)


def test_names_that_a_terminal_would_obey_are_escaped_in_what_is_told_of_results(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    video, out = make_video(tmp_path / HOSTILE, num_frames=4), tmp_path / "out"
    assert run("upscale", video, "-m", "bicubic-x2") == 0
    assert run("probe", video, "-m", "bicubic-x2") == 0
    assert run("batch", video, "-o", out, "-m", "bicubic-x2", "-w", "1") == 0
    assert run("verify", out) == 0
    assert run("batch", "status", out) == 0
    found = capfd.readouterr()
    assert found.out.count(SHOWN) >= 4
    assert not obeyed(found.err + found.out)


def test_incomplete_input_is_1(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "w.mp4", num_frames=60, container_options={"movflags": "+faststart"})
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.7)])
    assert run("upscale", cut, "-m", "bicubic-x2") == 1
    assert list(tmp_path.glob("cut_bicubic-x2.mkv"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("upscale",),
        ("upscale", "a.mp4", "--no-such-option"),
        ("upscale", "a.mp4", "--launch", "sideways"),
        ("upscale", "a.mp4", "--rate", "fast"),
        ("upscale", "a.mp4", "--crf", "99"),
        ("upscale", "a.mp4", "b.mp4", "-o", "one.mkv"),
        ("nonsense",),
    ],
)
def test_usage_is_2(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("option", "value"), [("--codec", "h999"), ("--pix-fmt", "rainbow"), ("--preset", "no-such"), ("-o", "out.xyz")]
)
def test_an_encoder_or_container_that_cannot_be_is_2(
    tmp_path: Path, option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    video = make_video(tmp_path / "a.mp4")
    value = str(tmp_path / value) if option == "-o" else value
    assert run("upscale", video, "-m", "bicubic-x2", option, value) == 2
    one_line(capsys.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_existing_output_is_2_and_untouched_without_y(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = make_video(tmp_path / "a.mp4")
    target = tmp_path / "out.mkv"
    target.write_text("precious")
    assert run("upscale", video, "-m", "bicubic-x2", "-o", target) == 2
    assert "-y" in one_line(capsys.readouterr().err)
    assert target.read_text() == "precious"
    assert run("upscale", video, "-m", "bicubic-x2", "-o", target, "-y") == 0
    assert read_numbers(target, 2) == list(range(10))


def test_the_input_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = make_video(tmp_path / "a.mkv")
    before = video.read_bytes()
    assert run("upscale", video, "-m", "bicubic-x2", "-o", video, "-y") == 2
    one_line(capsys.readouterr().err)
    assert video.read_bytes() == before


def test_input_is_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("upscale", tmp_path / "gone.mp4") == 3
    assert "gone.mp4" in one_line(capsys.readouterr().err)


def test_engine_is_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = make_video(tmp_path / "a.mp4")
    assert run("upscale", video, "-m", "no-such-engine") == 4
    assert "bicubic-x2" in one_line(capsys.readouterr().err)
    assert run("upscale", video, "-m", "fast-x2", "--runtime", "torch", "--precision", "int8") == 4
    one_line(capsys.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_gpus_that_are_not_there_are_4_and_numbers_that_cannot_be_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = make_video(tmp_path / "in.mp4")
    assert run("upscale", video, "--gpus", "99") == 4
    assert "--gpus: expected" in one_line(capsys.readouterr().err)
    for command in ("upscale", "batch", "live"):
        assert run(command, video, "--gpus", "none") == 2
        assert "from 1 on, or all, got 'none'" in one_line(capsys.readouterr().err)
    for command in (("batch", video, "-o", tmp_path / "out"), ("live", video)):
        assert run(*command, "--gpus", "2") == 2
        assert "--gpus: expected 1, since" in one_line(capsys.readouterr().err)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4"]


def test_missing_output_folder_is_5(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = make_video(tmp_path / "a.mp4")
    assert run("upscale", video, "-m", "bicubic-x2", "-o", tmp_path / "no" / "such" / "out.mkv") == 5
    one_line(capsys.readouterr().err)


@pytest.mark.skipif(not Path("/dev/full").exists() or os.geteuid() != 0, reason="needs to mount a tiny disk")
def test_full_disk_is_5_and_keeps_a_playable_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("cannot mount")
    try:
        code = run("upscale", "testsrc:endoscopy:size=320x240,frames=200", "-m", "bicubic-x4", "-o", disk / "out.mkv")
        assert code == 5
        assert not (disk / "out.mkv").exists()
        one_line(capsys.readouterr().err)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def heed_interrupts() -> None:
    """Undo what a shell does to programs it starts in the background: it makes them deaf to Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def interrupted(folder: Path, *numbers: signal.Signals) -> tuple[int, list[str]]:
    """Start a long run, send it signals 0.05 s apart once it writes, and return its exit code and last lines."""
    command = [sys.executable, "-m", "streamsr", "upscale", "testsrc:endoscopy:size=320x240,frames=5000"]
    command += ["-m", "bicubic-x2", "-o", str(folder / "out.mkv"), "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "preexec_fn": heed_interrupts}
    with subprocess.Popen(command, **pipes) as running:  # type: ignore[call-overload]
        assert running.stdout is not None
        for line in running.stdout:
            if json.loads(line).get("shown", 0) > 5:
                break
        for number in numbers:
            running.send_signal(number)
            time.sleep(0.05)
        rest, _ = running.communicate(timeout=60)
    return running.returncode, rest.splitlines()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_is_130_and_keeps_a_playable_part(tmp_path: Path, number: signal.Signals) -> None:
    code, lines = interrupted(tmp_path, number)
    assert code == 130
    last = json.loads(lines[-1])
    assert last["exit_code"] == 130
    assert "out.partial.mkv" in last["error"]
    numbers = read_numbers(tmp_path / "out.partial.mkv", 2)
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.partial.mkv", "out.partial.mkv.json"]


def test_two_interrupts_at_once_still_keep_a_playable_part(tmp_path: Path) -> None:
    code, _ = interrupted(tmp_path, signal.SIGINT, signal.SIGINT)
    assert code == 130
    assert len(read_numbers(tmp_path / "out.partial.mkv", 2)) > 5


HANGING = """
import time
from streamsr import cli

def close_for_ever(standalone_mode):
    try:
        print("ready", flush=True)
        time.sleep(300)
    except KeyboardInterrupt:
        print("closing", flush=True)
        time.sleep(300)

cli.app = close_for_ever
cli.main()
"""


def test_a_second_press_ends_a_job_at_once_whose_end_hangs() -> None:
    command = [sys.executable, "-c", HANGING]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=heed_interrupts) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        running.send_signal(signal.SIGINT)
        assert running.stdout.readline() == "closing\n"
        time.sleep(GRACE_S + 0.2)
        assert running.poll() is None, "it hangs"
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 130


def test_an_existing_sidecar_is_untouched_without_y(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = make_video(tmp_path / "a.mp4")
    notes = tmp_path / "out.mkv.json"
    notes.write_text("mine")
    assert run("upscale", video, "-m", "bicubic-x2", "-o", tmp_path / "out.mkv") == 2
    assert "out.mkv.json" in one_line(capsys.readouterr().err)
    assert notes.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "out.mkv.json"]


def test_names_that_are_no_unicode_are_done_and_written_down(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4")
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/n\xff.mp4")
    os.rename(video, odd)  # noqa: PTH104
    assert run("upscale", odd, "-m", "bicubic-x2", "-o", tmp_path / "out.mkv") == 0
    assert json.loads((tmp_path / "out.mkv.json").read_text())["input"]["bytes"] > 0


def test_a_file_where_a_folder_is_asked_for_is_5(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos = [make_video(tmp_path / name) for name in ("a.mp4", "b.mp4")]
    (tmp_path / "taken").write_text("x")
    assert run("upscale", *videos, "-m", "bicubic-x2", "-o", f"{tmp_path}/taken/") == 5
    one_line(capsys.readouterr().err)


def test_a_failure_nobody_foresaw_is_one_line_and_the_others_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from streamsr.upscaler import FrameUpscaler

    videos = [make_video(tmp_path / "bad.mp4", width=96), make_video(tmp_path / "good.mp4")]
    plain = FrameUpscaler.upscale

    def broken(self: FrameUpscaler, frame: Frame) -> Frame:
        if frame.width == 96:
            raise RuntimeError("the matrix unit caught fire\nand more")
        return plain(self, frame)

    monkeypatch.setattr(FrameUpscaler, "upscale", broken)
    assert run("upscale", *videos, "-m", "bicubic-x2") == 1
    assert "bad.mp4" in one_line(capsys.readouterr().err)
    assert [path.name for path in tmp_path.glob("*.mkv")] == ["good_bicubic-x2.mkv"]


def test_a_name_longer_than_the_system_holds_is_5(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = make_video(tmp_path / "a.mp4")
    assert run("upscale", video, "-m", "bicubic-x2", "-o", tmp_path / f"{'n' * 300}.mkv") == 5
    one_line(capsys.readouterr().err)


def test_a_small_halo_is_warned_of(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4")
    assert run("upscale", video, "--launch", "patch", "--halo", "2") == 0
    assert any(
        "seams may show" in line for line in json.loads((tmp_path / "a_fast-x2.mkv.json").read_text())["notices"]
    )


def test_json_speaks_to_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = make_video(tmp_path / "a.mp4")
    assert run("upscale", video, "-m", "bicubic-x2", "--json") == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["event"] == "result"
    assert result["frames_in"] == result["frames_out"] == 10
    assert set(result["timings"]) >= {"capture", "upscale", "sink"}
    assert {"p50_ms", "p95_ms", "p99_ms", "max_ms"} <= set(result["timings"]["upscale"])


def test_quiet_says_nothing_when_all_is_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("upscale", make_video(tmp_path / "a.mp4"), "-m", "bicubic-x2", "-q") == 0
    output = capsys.readouterr()
    assert output.out == output.err == ""


def test_probe_says_what_is_there_and_what_would_be_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = make_video(tmp_path / "a.mp4", audio=True)
    assert run("probe", video, "--json", "-m", "bicubic-x2") == 0
    description = json.loads(capsys.readouterr().out)
    assert description["source"]["size"] == "64x48"
    assert description["source"]["tracks"] == ["audio: aac"]
    assert "128x96" in description["would do"]["written as"]
    assert "assuming BT.601 (SD)" in description["would do"]["notices"]
    assert run("probe", tmp_path / "gone.mp4") == 3


def test_doctor_finds_every_shipped_engine_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor", "--json") == 0
    findings = {finding["topic"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert findings["engine fast-x2"]["state"] == "ok"
    assert findings["encoder libx264"]["state"] == "ok"
    assert all(finding["remedy"] for finding in findings.values() if finding["state"] == "broken")


def test_doctor_names_a_damaged_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    from streamsr import doctor, engine

    shutil.copytree(engine.catalogue_folder() / "fast-x2", tmp_path / "fast-x2")
    with (tmp_path / "fast-x2" / "model.safetensors").open("ab") as weights:
        weights.write(b"x")
    monkeypatch.setattr(doctor, "catalogue_folder", lambda: tmp_path)
    finding = next(finding for finding in doctor.examine_engines() if finding.topic == "engine fast-x2")
    assert finding.state == "broken"
    assert "SHA-256" in finding.detail


def test_demo_beats_bicubic_and_leaves_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("demo", "-o", f"{tmp_path}/demo/", "--seconds", "0.6", "--size", "160x128", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["quality"]["fast-x2"]["psnr_db"] > result["quality"]["bicubic"]["psnr_db"]
    assert all(Path(result[name]).is_file() for name in ("clip", "result", "sidecar", "side_by_side"))
    assert run("demo", "-o", f"{tmp_path}/demo/", "--seconds", "0.6", "--size", "160x128") == 2


def test_a_terminal_gets_a_bar(tmp_path: Path) -> None:
    import pty

    video = make_video(tmp_path / "a.mp4", num_frames=30)
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "streamsr", "upscale", str(video), "-m", "bicubic-x2"]
    done = subprocess.run(command, stdout=child, stderr=child, timeout=60, check=False)
    os.close(child)
    shown = b""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            piece = os.read(parent, 65536)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(parent)
    assert done.returncode == 0
    assert b"30/30 frames" in shown
    assert b"skipped" in shown


def test_sidecar_is_whole(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4")
    result = upscale_file(video, tmp_path / "out.mkv")
    sidecar = json.loads(result.sidecar.read_text())
    assert sidecar["engine"]["name"] == "fast-x2"
    assert len(sidecar["engine"]["weights_sha256"]) == 64
    assert sidecar["settings"]["generator"]["engine"] == "fast-x2"
    assert sidecar["versions"]["streamsr"]
    assert str(tmp_path) not in result.sidecar.read_text()
    for stage in ("capture", "route", "generate", "chroma", "sink"):
        assert sidecar["timings"][stage]["num"] == 10
