"""Checks: a result that is not what its source says is found out, when it is made and later."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import pytest

from streamsr.batch.auditing import audit
from streamsr.batch.checking import check_result
from streamsr.batch.contents import without_adts
from streamsr.batch.page import render_page
from streamsr.config import ReadSettings
from streamsr.errors import InputNotFound, ResultDiffers
from tests.archives import BICUBIC, TINY, make_archive, run_archive
from tests.test_cli import run
from tests.videos import make_video


def check(source: Path, result: Path, num_frames: int = 20, **options: Any) -> dict[str, Any]:
    values = {"read": ReadSettings(), "offset_s": 0.0, "num_frames": num_frames, "sound": True, **options}
    return check_result(str(source), [result], **values)


def remux(path: Path, result: Path, change: Callable[[Any, int], bool]) -> Path:
    """Copy a file; ``change`` sees each packet and its number in its track, and says whether it is kept."""
    numbers: dict[int, int] = {}
    with av.open(str(path)) as source, av.open(str(result), "w") as target:
        tracks = {track.index: target.add_stream_from_template(track) for track in source.streams}
        for packet in source.demux():
            number = numbers[packet.stream_index] = numbers.get(packet.stream_index, -1) + 1
            if packet.size and change(packet, number):
                packet.stream = tracks[packet.stream_index]
                target.mux(packet)
    return result


def is_video(packet: Any) -> bool:
    return bool(packet.stream.type == "video")


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return make_video(tmp_path / "a.mkv", num_frames=20, audio=True, options={"g": "1", "bf": "0"})


def test_a_copy_is_what_its_source_says(video: Path, tmp_path: Path) -> None:
    found = check(video, remux(video, tmp_path / "copy.mkv", lambda packet, number: True))
    assert found["frames"] == 20
    assert found["sound"][0]["codec"] == "aac"


def test_a_missing_picture_is_found_out(video: Path, tmp_path: Path) -> None:
    short = remux(video, tmp_path / "b.mkv", lambda packet, number: not (is_video(packet) and number == 7))
    with pytest.raises(ResultDiffers, match="20 pictures"):
        check(video, short)


def test_a_picture_at_another_time_is_found_out(video: Path, tmp_path: Path) -> None:
    def late(packet: Any, number: int) -> bool:
        if is_video(packet) and number == 7:
            packet.pts, packet.dts = packet.pts + 2, packet.dts + 2
        return True

    with pytest.raises(ResultDiffers, match="picture 7"):
        check(video, remux(video, tmp_path / "b.mkv", late))


@pytest.mark.parametrize("container", ["mkv", "mp4"])
def test_missing_sound_is_found_out(container: str, video: Path, tmp_path: Path) -> None:
    short = remux(video, tmp_path / f"b.{container}", lambda packet, number: is_video(packet) or number != 5)
    with pytest.raises(ResultDiffers, match="sound track 0"):
        check(video, short)
    mute = make_video(tmp_path / "mute.mkv", num_frames=20)
    with pytest.raises(ResultDiffers, match="1 sound tracks, found 0"):
        check(video, mute)
    assert check(video, mute, notices=["audio track 1 (aac) left out: .x files do not hold it"])["sound"] == []


def test_an_end_that_comes_too_soon_is_found_out(video: Path, tmp_path: Path) -> None:
    slow = make_video(tmp_path / "slow.mkv", num_frames=20, rate="5", audio=True)
    with pytest.raises(ResultDiffers):
        check(slow, video)


def test_damage_in_the_result_is_found_out(video: Path, tmp_path: Path) -> None:
    made = run_archive(video, out=tmp_path / "out", upscale=replace(BICUBIC, codec="libsvtav1"))[1].made[0]
    path = tmp_path / "out" / made
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
    path.write_bytes(data)
    with pytest.raises(ResultDiffers):
        check(video, path)


def test_a_result_that_fails_its_check_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from streamsr.batch import perform
    from streamsr.batch.tasks import Failed, FileTask

    video = make_video(tmp_path / "a.mkv", **TINY)

    def differs(*arguments: Any, **options: Any) -> dict[str, Any]:
        raise ResultDiffers("a.mkv: expected 4 pictures, found 3")

    monkeypatch.setattr(perform, "check_result", differs)
    folder = tmp_path / "work"
    task = FileTask(1, str(video), str(folder), "b.mkv", BICUBIC, "key", str(tmp_path / "pieces"))
    outcome = perform.perform(task, lambda progress: None)
    assert outcome == Failed("engine", "a.mkv: expected 4 pictures, found 3")


def test_adts_headers_are_taken_off_and_nothing_else_is() -> None:
    assert without_adts(b"\xff\xf1" + bytes(5) + b"sound of AAC") == b"sound of AAC"
    assert without_adts(b"\xff\xf0" + bytes(7) + b"sound of AAC") == b"sound of AAC"
    assert without_adts(b"sound of AAC") == b"sound of AAC"


@pytest.mark.parametrize("name", ["a.ts", "a.mp4", "a.mov", "a.avi", "a.webm"])
@pytest.mark.parametrize("container", ["mkv", "mp4"])
def test_every_container_passes_its_check(name: str, container: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"num_frames": 12, "audio": True}
    if name == "a.avi":
        options |= {"codec": "mpeg4", "audio_codec": "pcm_s16le"}
    elif name == "a.webm":
        options |= {"codec": "libvpx-vp9", "audio_codec": "libopus"}
    video = make_video(tmp_path / name, **options)
    code, witness = run_archive(
        video, out=tmp_path / "out", container=container, upscale=replace(BICUBIC, codec="libx264"), num_workers=1
    )
    assert (code, witness.failed) == (0, [])


# --- later


@pytest.fixture
def results(tmp_path: Path) -> Path:
    archive = make_archive(tmp_path / "in", 3)
    assert run_archive(archive, out=tmp_path / "out")[0] == 0
    return tmp_path / "out"


def differing(target: Path, **options: Any) -> dict[str, list[str]]:
    return {finding.path.name: finding.differs for finding in audit(target, **options) if not finding.intact}


def test_results_as_they_were_made_are_intact(results: Path) -> None:
    findings = list(audit(results, deep=True))
    assert len(findings) == 3
    assert all(finding.intact and not finding.notes for finding in findings)
    one = results / "part 0/clip 0_bicubic-x2.mkv"
    for target in (one, one.with_name(one.name + ".json")):
        assert [finding.intact for finding in audit(target)] == [True]


def test_what_was_changed_is_said(results: Path, tmp_path: Path) -> None:
    name = "clip 0_bicubic-x2.mkv"
    path = results / "part 0" / name
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert "expected SHA-256" in differing(results)[name][0]
    path.write_bytes(data[:-9])
    assert "bytes" in differing(results)[name][0]
    path.write_bytes(data)
    sidecar = path.with_name(name + ".json")
    text = sidecar.read_text()
    sidecar.write_text(text.replace('"crf": 16', '"crf": 17'))
    assert differing(results)[name][0].startswith("sidecar")
    sidecar.write_text("{")
    assert differing(results)[name]
    sidecar.write_text(text)
    make_video(tmp_path / "in/part 0/clip 0.mkv", **{**TINY, "num_frames": 5})
    assert differing(results)[name][0].startswith("source clip 0.mkv")


def test_what_is_gone_is_said(results: Path) -> None:
    name = "clip 0_bicubic-x2.mkv"
    path = results / "part 0" / name
    path.unlink()
    assert "expected a file" in differing(results)[name][0]
    path.with_name(name + ".json").unlink()
    assert differing(results)[name] == [f"{name} and its sidecar are gone"]


def test_a_sidecar_that_is_gone_is_said_to_be_gone_alone(
    results: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    name = "clip 0_bicubic-x2.mkv"
    path = results / "part 0" / name
    path.with_name(name + ".json").unlink()
    assert differing(results)[name] == [f"{name}.json is gone; what is known of it is in the journal"]
    (finding,) = audit(path)
    assert not finding.intact
    monkeypatch.chdir(results.parent)
    assert run("verify", results.name) == 1
    lines = [line for line in capfd.readouterr().out.splitlines() if not line.startswith(" ")]
    assert all(line.startswith(f"{results.name}/") for line in lines[:-1]), "every path is as the user wrote it"
    path.write_bytes(b"x")
    assert len(differing(results)[name]) == 2


def test_without_a_journal_sources_are_looked_for_where_one_says(results: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(results / "part 0", moved)
    (finding,) = audit(moved)
    assert finding.intact
    assert "not found" in finding.notes[0]
    (finding,) = audit(moved, sources=tmp_path / "in", deep=True)
    assert finding.intact
    assert finding.notes == []
    with pytest.raises(InputNotFound):
        list(audit(tmp_path / "in"))


def test_long_paths_break_behind_their_slashes(results: Path) -> None:
    report = json.loads((results / "report.json").read_text())
    report["files"] = [{**file, "thumbnails": None} for file in report["files"]]
    report["files"][0] |= {
        "input": "/archive/part 1/x.mp4",
        "kind": "disk",
        "message": "/archive/part 1/x.mp4: cannot write /out/x.mkv",
    }
    page = render_page(report)
    assert "<td>/<wbr>archive/<wbr>part 1/<wbr>x.mp4</td>" in page
    assert "<td>cannot write /<wbr>out/<wbr>x.mkv</td>" in page
    assert "</<wbr>" not in page, "no slash of a tag is broken"


def test_the_page_shows_hostile_names_as_they_are(results: Path) -> None:
    report = json.loads((results / "report.json").read_text())
    report["files"] = [{**file, "thumbnails": None} for file in report["files"]]
    report["files"][0]["input"] = "<script>alert(1)</script>"
    page = render_page(report)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
