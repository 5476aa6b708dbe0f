"""Segments: a file that was cut and joined is the file that was done whole; what cannot be cut is done whole."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from streamsr.batch.outputs import HOUSE
from streamsr.config import UpscaleSettings
from streamsr.errors import Interrupted
from streamsr.sidecar import file_sha256
from tests.archives import BICUBIC, TINY, Witness, run_archive
from tests.test_spans import HEVC, OPEN, UNEVEN
from tests.videos import make_video

X264 = replace(BICUBIC, codec="libx264", lossless=True)
X265 = replace(BICUBIC, codec="libx265", lossless=True)
CODED = replace(BICUBIC, codec="libx264")

FILES: dict[str, tuple[str, dict[str, Any], UpscaleSettings, str]] = {
    "b-frames": ("a.mp4", {"options": {"g": "7", "bf": "2"}, "audio": True}, BICUBIC, "mkv"),
    "open": ("a.mkv", {"options": OPEN, "audio": True, "audio_codec": "libopus"}, BICUBIC, "mkv"),
    "open-ts": ("a.ts", {"options": OPEN, "audio": True}, X264, "mkv"),
    "open-to-mp4": ("a.mp4", {"options": OPEN, "audio": True}, X264, "mp4"),
    "open-hevc": ("a.mkv", {"codec": "libx265", "options": HEVC}, X265, "mp4"),
    "uneven": ("a.mkv", {"options": OPEN, "pts": UNEVEN, "time_base": Fraction(1, 1000), "audio": True}, X264, "mkv"),
    "uneven-to-mp4": ("a.mkv", {"options": OPEN, "pts": UNEVEN, "time_base": Fraction(1, 1000)}, X264, "mp4"),
    "no-sound": ("a.mp4", {"options": {"g": "5"}, "audio": True}, replace(BICUBIC, audio="none"), "mkv"),
    "ntsc": ("a.mov", {"options": {"g": "5", "bf": "2"}, "rate": Fraction(30000, 1001)}, X264, "mov"),
}


def both(video: Path, tmp_path: Path, upscale: UpscaleSettings, container: str = "mkv") -> tuple[Path, Path, Witness]:
    """Enlarge a file whole and in segments; return both results and what was shown of the second."""
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    assert run_archive(video, out=whole, upscale=upscale, container=container, segment_s=None)[0] == 0
    code, witness = run_archive(video, out=parted, upscale=upscale, container=container, segment_s=0.2)
    assert (code, witness.failed) == (0, [])
    name = f"{video.stem}_bicubic-x2.{container}"
    return whole / name, parted / name, witness


def content(path: Path) -> dict[str, Any]:
    """Return what a player sees of a file: pictures with their times, sound, what the tracks state."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        context = video.codec_context
        frames = [(frame.pts, frame.to_ndarray(format="yuv420p")) for frame in container.decode(video)]
        stated = {
            "size": (context.width, context.height, context.pix_fmt, context.name, context.codec_tag),
            "colour": (context.colorspace, context.color_range, context.color_primaries, context.color_trc),
            "rate": video.average_rate,
            "time_base": video.time_base,
            "metadata": {key: value for key, value in container.metadata.items() if key != "encoder"},
        }
    with av.open(str(path)) as container:
        sound = [(packet.pts, bytes(packet)) for packet in container.demux(*container.streams.audio) if packet.size]
    return {"frames": frames, "stated": stated, "sound": sound if container.streams.audio else []}


def segments_of(path: Path) -> int:
    return len(json.loads(path.with_name(path.name + ".json").read_text()).get("segments", ()))


@pytest.mark.parametrize("name", FILES)
def test_joined_segments_are_the_file_done_whole(name: str, tmp_path: Path) -> None:
    file, changes, upscale, container = FILES[name]
    video = make_video(tmp_path / file, **{"num_frames": 20, **changes})
    whole, parted, _ = both(video, tmp_path, upscale, container)
    assert segments_of(parted) >= 2, "it was not cut"
    ours, theirs = content(parted), content(whole)
    assert len(theirs["frames"]) == 20
    assert [pts for pts, _ in ours["frames"]] == [pts for pts, _ in theirs["frames"]]
    for (_, mine), (_, other) in zip(ours["frames"], theirs["frames"], strict=True):
        assert np.array_equal(mine, other)
    assert ours["sound"] == theirs["sound"]
    assert ours["stated"] == theirs["stated"]
    assert not list((parted.parent / HOUSE / "pieces").iterdir()), "segments are removed when their file is whole"


def test_lossy_segments_join_into_a_file_that_plays_and_seeks(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4", num_frames=40, options=OPEN, audio=True, width=96, height=64)
    whole, parted, _ = both(video, tmp_path, CODED, "mp4")
    assert segments_of(parted) >= 3
    ours, theirs = content(parted), content(whole)
    for (pts, mine), (other_pts, other) in zip(ours["frames"], theirs["frames"], strict=True):
        assert pts == other_pts
        assert np.abs(mine.astype(int) - other.astype(int)).mean() < 3
    with av.open(str(parted)) as container:
        track = container.streams.video[0]
        container.seek(ours["frames"][30][0], stream=track)
        found = next(frame.pts for frame in container.decode(track))
        assert found is not None
        assert 0 < found <= ours["frames"][30][0]


def test_a_learned_generator_gives_the_same_segments(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4", num_frames=20, options={"g": "5", "bf": "2"})
    generator = replace(BICUBIC.generator, engine="tiny-x2", precision="int8", launch="frame")
    upscale = replace(BICUBIC, generator=generator)
    for out, segment_s in (("whole", None), ("parted", 0.2)):
        assert run_archive(video, out=tmp_path / out, upscale=upscale, segment_s=segment_s)[0] == 0
    whole, parted = (content(tmp_path / out / "a_tiny-x2.mkv") for out in ("whole", "parted"))
    for (pts, mine), (other_pts, other) in zip(parted["frames"], whole["frames"], strict=True):
        assert pts == other_pts
        assert np.array_equal(mine, other)


def test_interlaced_pictures_reach_over_borders_and_are_not_cut(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.ts", codec="mpeg2video", interlaced=True, num_frames=20, options={"g": "5"})
    whole, parted, _ = both(video, tmp_path, BICUBIC)
    assert segments_of(parted) == 0
    for (_, mine), (_, other) in zip(content(parted)["frames"], content(whole)["frames"], strict=True):
        assert np.array_equal(mine, other)
    assert not list((parted.parent / HOUSE).glob("pieces/*"))


def test_short_files_are_not_cut(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mkv", **{**TINY, "num_frames": 20})
    out = tmp_path / "out"
    assert run_archive(video, out=out, segment_s=0.5)[0] == 0
    assert segments_of(out / "a_bicubic-x2.mkv") == 0


def test_a_segment_that_is_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from streamsr.batch import local, pieces
    from streamsr.batch.tasks import FileTask, PieceTask, Task

    video = make_video(tmp_path / "a.mkv", **{**TINY, "num_frames": 30})
    out, made = tmp_path / "out", []
    start = local.Worker.start

    def start_until_two(self: local.Worker, task: Task) -> None:
        made.append(task)
        if sum(isinstance(one, PieceTask) for one in made) == 3:
            raise KeyboardInterrupt
        start(self, task)

    with monkeypatch.context() as patched:
        patched.setattr(local.Worker, "start", start_until_two)
        with pytest.raises(Exception, match="goes on"):
            run_archive(video, out=out, segment_s=0.2, num_workers=1)
    kept = {path: path.stat().st_mtime_ns for path in (out / HOUSE / "pieces").glob("*.mkv")}
    assert kept
    times: list[int] = []
    drop = pieces.drop_pieces
    monkeypatch.setattr(
        "streamsr.batch.items.drop_pieces",
        lambda paths: (times.extend(path.stat().st_mtime_ns for path in paths if path in kept), drop(paths)),
    )
    assert run_archive(video, out=out, segment_s=0.2, num_workers=1)[0] == 0
    assert sorted(times) == sorted(kept.values())
    assert isinstance(made[0], FileTask)


@pytest.mark.parametrize("vanishes", [False, True])
def test_a_source_that_is_replaced_between_segments_fails_and_leaves_none(
    vanishes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from streamsr.batch import local
    from streamsr.batch.tasks import PieceTask, Task

    video = make_video(tmp_path / "a.mkv", **{**TINY, "num_frames": 30})
    other = make_video(tmp_path / "other.mkv", **{**TINY, "num_frames": 30}, first_number=7)
    out, made = tmp_path / "out", []
    start = local.Worker.start

    def start_and_replace(self: local.Worker, task: Task) -> None:
        made.append(task)
        if sum(isinstance(one, PieceTask) for one in made) == 3 and other.exists():
            video.unlink() if vanishes else other.replace(video)
            other.unlink(missing_ok=True)
        start(self, task)

    monkeypatch.setattr(local.Worker, "start", start_and_replace)
    code, witness = run_archive(video, out=out, segment_s=0.2, num_workers=1)
    assert (code, witness.made) == (1, [])
    ((_, kind, message, again),) = witness.failed
    assert (kind, "a file that rests" in message, again) == ("unreadable", True, False)
    assert not list(out.glob("*.mkv"))
    assert not list((out / HOUSE / "pieces").iterdir()), "its segments are of no use"
    if not vanishes:
        code, witness = run_archive(video, out=out, segment_s=0.2)
        assert (code, len(witness.made)) == (0, 1), "it rests now"
        assert sidecar_of(out / "a_bicubic-x2.mkv")["input"]["sha256"] == file_sha256(video)


def test_a_changed_source_is_hashed_anew_before_it_is_cut(tmp_path: Path) -> None:
    video, out = make_video(tmp_path / "a.mkv", **{**TINY, "num_frames": 30}), tmp_path / "out"
    assert run_archive(video, out=out, segment_s=0.2)[0] == 0
    make_video(video, **{**TINY, "num_frames": 32})
    assert run_archive(video, out=out, segment_s=0.2)[0] == 0
    known = sidecar_of(out / "a_bicubic-x2.mkv")
    assert known["segments"]
    assert known["input"]["sha256"] == file_sha256(video)


@pytest.mark.parametrize("change", ["changed", "gone"])
def test_segments_that_nothing_waits_for_are_removed_by_the_next_run(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, out = tmp_path / "in", tmp_path / "out"
    archive.mkdir()
    video = make_video(archive / "a.mkv", **{**TINY, "num_frames": 30})
    make_video(archive / "b.mkv", **{**TINY, "num_frames": 30}, first_number=5)
    interrupt_after(2, archive, out, monkeypatch)
    pieces = out / HOUSE / "pieces"
    assert len(list(pieces.glob("*.mkv"))) >= 1
    (pieces / "half.mkv").write_bytes(b"left by a kill")
    assert run_archive(archive / "b.mkv", out=out, segment_s=0.2, num_workers=1)[0] == 0
    assert list(pieces.glob("*.mkv")), "its file still waits"
    assert not (pieces / "half.mkv").exists()
    make_video(video, **{**TINY, "num_frames": 3}) if change == "changed" else video.unlink()
    assert run_archive(archive, out=out, segment_s=0.2, num_workers=1)[0] == 0
    assert not list(pieces.iterdir())


def interrupt_after(number: int, archive: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run until some segments are done, then as if Ctrl-C were pressed."""
    from streamsr.batch import local
    from streamsr.batch.tasks import PieceTask, Task

    given: list[Task] = []
    start = local.Worker.start

    def start_some(self: local.Worker, task: Task) -> None:
        given.append(task)
        if sum(isinstance(one, PieceTask) for one in given) > number:
            raise KeyboardInterrupt
        start(self, task)

    with monkeypatch.context() as patched:
        patched.setattr(local.Worker, "start", start_some)
        with pytest.raises(Interrupted):
            run_archive(archive, out=out, segment_s=0.2, num_workers=1)


def sidecar_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.with_name(path.name + ".json").read_text())
    return found
