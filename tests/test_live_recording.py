"""Live recording: what was presented is read back from the files, after stopping, failing and being killed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from streamsr.config import RecordSettings
from streamsr.display.shown import Shown
from streamsr.engine import find_engine
from streamsr.errors import UsageError
from streamsr.frame import Colour, Frame, PlaneLayout
from streamsr.sidecar import INTERPOLATED_STATEMENT, STATEMENT, file_sha256, live_marks_of
from streamsr.sinks import LiveRecorder, live_file, live_recording, live_series, offered, preroll
from streamsr.sinks.live_encoder import LiveEncoder
from streamsr.sinks.offered import QUEUE_PICTURES
from streamsr.sinks.video_track import KEYFRAME_S
from tests.videos import draw_picture, read_number

BT709 = Colour(matrix=1, full_range=False, primaries=1, transfer=1)
PERIOD_NS = 40_000_000
SMALL = RecordSettings(reserve_bytes=0)
PATIENCE_S = 20.0
"""Bounds a wait that would hang where something is broken."""


def make_shown(
    number: int,
    at_ns: int,
    *,
    size: tuple[int, int] = (64, 48),
    colour: Colour = BT709,
    layout: PlaneLayout | None = None,
    slate: bool = False,
    **told: Any,
) -> Shown:
    """Make a presented picture with its number in the pixels."""
    layout = layout or PlaneLayout()
    width, height = layout.chroma_size(*size)
    chroma = np.full((height, width), 128, np.uint8)
    luma = draw_picture(number, width=size[0], height=size[1])
    frame = Frame((luma, chroma, chroma), layout, colour, number, Fraction(1, 25), arrived_ns=at_ns)
    given: dict[str, Any] = {"rung": "slate" if slate else "fast-x2"} | told
    return Shown(number, frame, None if slate else frame, **given)


def wait_for(happened: Callable[[], Any]) -> None:
    ends = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.002)


class Director:
    """Offers pictures one after the other, 40 ms apart, waiting for the recorder where the display would not."""

    def __init__(self, recorder: LiveRecorder, *, start_ns: int | None = None) -> None:
        self.recorder = recorder
        self.at_ns = time.monotonic_ns() if start_ns is None else start_ns
        self.number = 0

    def show(self, num: int, *, step_ns: int = PERIOD_NS, **told: Any) -> None:
        for _ in range(num):
            wait_for(lambda: len(self.recorder._waiting) < 5)
            self.recorder.offer(make_shown(self.number, self.at_ns, **told))
            self.number += 1
            self.at_ns += step_ns

    def settle(self) -> None:
        wait_for(lambda: not self.recorder._waiting)


def record(folder: Path, play: Callable[[Director], None], settings: RecordSettings = SMALL, **given: Any) -> Any:
    """Record what a director plays; return the recorder after it was stopped and left."""
    with LiveRecorder(settings, **given) as recorder:
        recorder.start(folder)
        play(Director(recorder))
        assert recorder.stop(PATIENCE_S)
    return recorder


def pictures(path: Path) -> list[tuple[int, int]]:
    """Return (number, milliseconds) of every picture that can be decoded, up to the first damage."""
    found = []
    with av.open(str(path)) as container, contextlib.suppress(av.error.InvalidDataError):
        for frame in container.decode(video=0):
            luma = frame.reformat(format="gray", threads=1).to_ndarray()
            found.append((read_number(luma), round(frame.pts * frame.time_base * 1000)))
    return found


def numbers(path: Path) -> list[int]:
    return [number for number, _ in pictures(path)]


def sidecar_of(recorder: LiveRecorder) -> dict[str, Any]:
    assert recorder.sidecar is not None
    told: dict[str, Any] = json.loads(recorder.sidecar.read_text())
    return told


# What is written


@pytest.mark.parametrize("container", ["mkv", "mp4"])
def test_every_picture_is_written_once_in_order_at_its_own_time(container: Any, tmp_path: Path) -> None:
    steps_ms = [40, 40, 33, 700, 17, 40, 41, 39, 250, 40]

    def play(director: Director) -> None:
        for step_ms in steps_ms * 3:
            director.show(1, step_ns=step_ms * 1_000_000)

    recorder = record(tmp_path, play, replace(SMALL, container=container))
    (path,) = recorder.files
    assert path.parent == tmp_path
    assert path.name.startswith("enlarged-")
    assert path.name.endswith(f"Z-001.{container}")
    times = [sum((steps_ms * 3)[:number]) for number in range(30)]
    assert pictures(path) == list(enumerate(times))
    assert recorder.status().dropped == 0


def test_pictures_of_one_moment_get_rising_times(tmp_path: Path) -> None:
    recorder = record(tmp_path, lambda director: director.show(5, step_ns=0))
    assert pictures(recorder.files[0]) == [(number, number) for number in range(5)]


@pytest.mark.parametrize("rate", [4, 25, 120])
def test_key_frames_come_by_the_clock_at_any_rate(rate: int, tmp_path: Path) -> None:
    recorder = record(tmp_path, lambda director: director.show(5 * rate, step_ns=10**9 // rate))
    with av.open(str(recorder.files[0])) as container:
        keys = [float(p.pts * p.time_base) for p in container.demux(video=0) if p.size and p.is_keyframe]
    assert len(keys) >= 3
    assert max(later - earlier for earlier, later in pairwise(keys)) <= KEYFRAME_S + 1 / rate


@pytest.mark.parametrize("container", ["mkv", "mp4"])
def test_colour_tags_and_marks_are_in_the_file(container: Any, tmp_path: Path) -> None:
    colour = Colour(matrix=5, full_range=True, primaries=5, transfer=6)
    marks = {"comment": "AI-ENHANCED x2"}
    settings = replace(SMALL, container=container)
    recorder = record(tmp_path, lambda director: director.show(3, colour=colour), settings, marks=marks)
    with av.open(str(recorder.files[0])) as file:
        track = file.streams.video[0].codec_context
        assert (track.colorspace, track.color_range, track.color_primaries, track.color_trc) == (5, 2, 5, 6)
        assert {name.lower(): value for name, value in file.metadata.items()}["comment"] == "AI-ENHANCED x2"


@pytest.mark.parametrize("codec", ["libx265", "libsvtav1", "ffv1"])
def test_other_encoders_give_every_picture_too(codec: str, tmp_path: Path) -> None:
    recorder = record(tmp_path, lambda director: director.show(12), replace(SMALL, codec=codec, crf=30))
    assert numbers(recorder.files[0]) == list(range(12))


def test_a_closed_file_knows_how_long_it_is(tmp_path: Path) -> None:
    recorder = record(tmp_path, lambda director: director.show(50))
    with av.open(str(recorder.files[0])) as file:
        assert file.duration is not None
        assert 1.9 <= file.duration / 1e6 <= 2.1
    assert recorder.status().seconds == pytest.approx(49 * 0.04)


# Files that follow each other


@pytest.mark.parametrize(
    "change",
    [{"size": (96, 64)}, {"colour": Colour(5, False, 5, 6)}, {"layout": PlaneLayout((0, 0))}],
    ids=["size", "colour", "layout"],
)
def test_a_change_of_shape_begins_a_new_file_and_loses_no_picture(change: dict[str, Any], tmp_path: Path) -> None:
    def play(director: Director) -> None:
        director.show(7)
        director.show(6, **change)
        director.show(5)

    recorder = record(tmp_path, play)
    assert [len(numbers(path)) for path in recorder.files] == [7, 6, 5]
    assert [pair for path in recorder.files for pair in pictures(path)] == [(n, 40 * n) for n in range(18)]
    assert sidecar_of(recorder)["signal_gaps"] == []


def test_slates_are_not_recorded_and_the_gap_shows_in_times_and_sidecar(tmp_path: Path) -> None:
    def play(director: Director) -> None:
        director.show(6)
        director.show(4, slate=True, step_ns=500_000_000)
        director.show(5)

    recorder = record(tmp_path, play)
    before, after = map(pictures, recorder.files)
    assert before == [(number, 40 * number) for number in range(6)]
    assert after == [(number, 6 * 40 + 2000 + 40 * (number - 10)) for number in range(10, 15)]
    told = sidecar_of(recorder)
    assert told["signal_gaps"] == [{"from_s": 0.2, "to_s": 2.24}]
    assert told["holes"] == []
    assert told["frames"] == {"written": 11, "generated": 11, "dropped": 0}


def test_a_large_file_is_continued_at_a_key_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_series, "FILE_BYTES", 2000)
    monkeypatch.setattr(live_series, "HASH_S", 0.0)
    recorder = record(tmp_path, lambda director: director.show(180))
    assert len(recorder.files) >= 3
    assert [pair for path in recorder.files for pair in pictures(path)] == [(n, 40 * n) for n in range(180)]
    assert [path.name[-7:-4] for path in recorder.files] == [f"{n + 1:03d}" for n in range(len(recorder.files))]
    assert [entry["sha256"] for entry in sidecar_of(recorder)["files"]] == [file_sha256(p) for p in recorder.files]


def test_takes_of_one_second_do_not_overwrite_each_other(tmp_path: Path) -> None:
    with LiveRecorder(SMALL) as recorder:
        director, paths, sidecars = Director(recorder), [], []
        for _ in range(3):
            recorder.start(tmp_path)
            director.show(4)
            assert recorder.stop(PATIENCE_S)
            paths += recorder.files
            sidecars.append(recorder.sidecar)
    assert [numbers(path) for path in paths] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert len(set(sidecars)) == 3


# Killed


CHILD = """
import sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from streamsr.config import RecordSettings
from streamsr.sinks import LiveRecorder
from tests.test_live_recording import make_shown, PERIOD_NS
with LiveRecorder(RecordSettings(reserve_bytes=0, container={container!r})) as recorder:
    recorder.start(Path({folder!r}))
    begin_ns = time.monotonic_ns()
    for number in range(14_000):
        while len(recorder._waiting) > 1:
            time.sleep(0.001)
        recorder.offer(make_shown(number, begin_ns + number * PERIOD_NS))
        print(number, flush=True)
        time.sleep(0.002)
"""


def kill_while_recording(folder: Path, container: str, number: int) -> int:
    """Record in a child process and kill it some moments after it offered a picture; return the last one it offered."""
    code = CHILD.format(root=str(Path(__file__).parents[1]), folder=str(folder), container=container)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        while child.stdout.readline() not in (f"{number}\n", ""):
            pass
        time.sleep(random.uniform(0, 0.02))
        child.send_signal(signal.SIGKILL)
        told = child.stdout.read().split("\n")[:-1]  # what is behind the last line break may be cut
        assert child.wait(PATIENCE_S) == -signal.SIGKILL
    return int(told[-1]) if told else number


@pytest.mark.parametrize("container", ["mkv"] * 5 + ["mp4"] * 2)
def test_a_kill_at_any_moment_costs_no_more_than_the_last_second(container: str, tmp_path: Path) -> None:
    last = kill_while_recording(tmp_path, container, random.randrange(60, 500))
    (path,) = tmp_path.glob(f"enlarged-*.{container}")
    found = pictures(path)
    assert found == [(number, 40 * number) for number in range(len(found))]
    assert last - len(found) <= 1.5 * 25
    (sidecar,) = tmp_path.glob("recording-*.json")
    told = json.loads(sidecar.read_text())
    assert told["in_progress"] is True
    assert told["statement"] == STATEMENT
    assert [(file["name"], file["sha256"]) for file in told["files"]] == [(path.name, None)]


def test_the_sidecar_is_kept_current(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_series, "SIDECAR_S", 0.0)
    with LiveRecorder(SMALL) as recorder:
        recorder.start(tmp_path)
        Director(recorder).show(60)
        wait_for(lambda: recorder.sidecar and sidecar_of(recorder)["frames"]["written"] >= 58)
        told = sidecar_of(recorder)
        assert told["in_progress"] is True
        assert told["files"][0]["bytes"] > 0
        assert told["files"][0]["sha256"] is None
    assert sidecar_of(recorder)["in_progress"] is False


def test_pictures_reach_the_disk_at_least_twice_a_second(tmp_path: Path) -> None:
    with LiveRecorder(SMALL) as recorder:
        recorder.start(tmp_path)
        director = Director(recorder)
        for second in range(1, 5):
            director.show(25)
            director.settle()
            oldest_flushed = second * 25 - 25 * live_file.FLUSH_MS // 1000 - 4  # one held, one that ends the cluster
            wait_for(lambda oldest=oldest_flushed: len(pictures(recorder.files[0])) >= oldest)


# A slow encoder, and stopping


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An encoder that does nothing until the gate is opened."""
    opened, encode = threading.Event(), LiveEncoder.encode

    def wait_and_encode(self: LiveEncoder, *given: Any) -> Any:
        assert opened.wait(PATIENCE_S)
        return encode(self, *given)

    monkeypatch.setattr(LiveEncoder, "encode", wait_and_encode)
    return opened


def test_an_encoder_that_hangs_costs_pictures_and_never_the_display(gate: threading.Event, tmp_path: Path) -> None:
    with LiveRecorder(SMALL) as recorder:
        recorder.start(tmp_path)
        begin_ns = time.monotonic_ns()
        recorder.offer(make_shown(0, begin_ns))
        wait_for(lambda: not recorder._waiting)
        for number in range(1, 200):  # would never end if offering waited
            recorder.offer(make_shown(number, begin_ns + number * PERIOD_NS))
        assert recorder.status().dropped == 199 - QUEUE_PICTURES
        gate.set()
        wait_for(lambda: not recorder._waiting)
        recorder.offer(make_shown(200, begin_ns + 200 * PERIOD_NS))
        assert recorder.stop(PATIENCE_S)
    kept = [*range(QUEUE_PICTURES + 1), 200]
    assert numbers(recorder.files[0]) == kept
    told = sidecar_of(recorder)
    assert told["frames"] == {"written": len(kept), "generated": len(kept), "dropped": 199 - QUEUE_PICTURES}
    assert told["holes"] == [{"from_s": QUEUE_PICTURES * 0.04, "to_s": 8.0, "pictures": 199 - QUEUE_PICTURES}]


def test_waiting_pictures_take_no_more_memory_than_stated(
    gate: threading.Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offered, "QUEUE_BYTES", 5 * 64 * 48 * 3 // 2)
    with LiveRecorder(SMALL) as recorder:
        recorder.start(tmp_path)
        recorder.offer(make_shown(0, 10**9))
        wait_for(lambda: not recorder._waiting)
        for number in range(1, 20):
            recorder.offer(make_shown(number, 10**9 + number * PERIOD_NS))
        assert recorder.status().dropped == 19 - 5
        gate.set()


def test_stopping_returns_although_the_encoder_hangs(gate: threading.Event, tmp_path: Path) -> None:
    with LiveRecorder(SMALL) as recorder:
        recorder.start(tmp_path)
        recorder.offer(make_shown(0, time.monotonic_ns()))
        wait_for(lambda: not recorder._waiting)
        started_s = time.monotonic()
        assert recorder.stop() is False
        assert time.monotonic() - started_s < PATIENCE_S / 2
        assert recorder.status().active is False
        gate.set()
        assert recorder.stop(PATIENCE_S)
    assert numbers(recorder.files[0]) == [0]


def test_stopping_drops_what_a_slow_encoder_has_no_time_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = LiveEncoder.encode
    monkeypatch.setattr(LiveEncoder, "encode", lambda *given: time.sleep(0.05) or encode(*given))
    monkeypatch.setattr(live_recording, "DRAIN_S", 0.2)
    with LiveRecorder(SMALL) as recorder:
        recorder.start(tmp_path)
        begin_ns = time.monotonic_ns()
        for number in range(QUEUE_PICTURES):
            recorder.offer(make_shown(number, begin_ns + number * PERIOD_NS))
    dropped, kept = recorder.status().dropped, numbers(recorder.files[0])
    assert dropped > 0
    assert kept == list(range(QUEUE_PICTURES - dropped))
    assert sidecar_of(recorder)["frames"] == {"written": len(kept), "generated": len(kept), "dropped": dropped}


def test_stopping_lets_go_of_what_an_encoder_holds_when_there_is_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_recording, "DRAIN_S", 0.0)
    monkeypatch.setattr(LiveEncoder, "drain", lambda encoder: pytest.fail("it may take for ever"))
    with LiveRecorder(SMALL) as recorder:
        recorder.start(tmp_path)
        Director(recorder).show(10)
        wait_for(lambda: not recorder._waiting)
    kept, told = numbers(recorder.files[0]), sidecar_of(recorder)
    assert kept == list(range(9))  # x264 holds one picture
    assert told["frames"] == {"written": 9, "generated": 9, "dropped": 1}
    assert told["files"][0]["sha256"]


def test_time_that_stopping_may_take_runs_from_the_first_asking(gate: threading.Event, tmp_path: Path) -> None:
    with LiveRecorder(SMALL) as recorder:
        recorder.start(tmp_path)
        recorder.offer(make_shown(0, time.monotonic_ns()))
        wait_for(lambda: not recorder._waiting)
        recorder.stop(0.0)
        asked_s = recorder._stopped_s
        threading.Timer(0.2, gate.set).start()
    assert recorder._stopped_s == asked_s
    assert not recorder.hangs


HANGING = """
import sys, time
import cv2
from streamsr.config import FeedSettings, GeneratorSettings, LiveSettings, RecordSettings
from streamsr.live_commands import run_live
from streamsr.sinks.live_encoder import LiveEncoder

LiveEncoder.encode = lambda *given: time.sleep(10_000)
record = RecordSettings(folder=__import__("pathlib").Path(sys.argv[1]), from_start=True, reserve_bytes=0)
settings = LiveSettings(generator=GeneratorSettings("bicubic-x2"), view="none", record=record, seconds=2.0)
sys.exit(run_live("testsrc:endoscopy:size=128x96,rate=25", settings, as_json=True, quiet=True))
"""


def test_a_program_ends_though_its_encoder_hangs_for_ever(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HANGING, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["frames_in"] > 0


def nothing(recorder: LiveRecorder, folder: Path) -> None:
    pass


def asked(recorder: LiveRecorder, folder: Path) -> None:
    recorder.start(folder)


def on_a_slate(recorder: LiveRecorder, folder: Path) -> None:
    recorder.start(folder)
    Director(recorder).show(3, slate=True)


def failed(recorder: LiveRecorder, folder: Path) -> None:
    (folder / "file").write_bytes(b"")
    recorder.start(folder / "file" / "below")
    wait_for(lambda: recorder.status().trouble)


def toggled(recorder: LiveRecorder, folder: Path) -> None:
    for _ in range(20):
        recorder.start(folder)
        recorder.stop(0)


@pytest.mark.parametrize("state", [nothing, asked, on_a_slate, failed, toggled], ids=lambda state: state.__name__)
@pytest.mark.parametrize("preroll_s", [0.0, 2.0])
def test_stopping_ends_well_from_any_state(state: Any, preroll_s: float, tmp_path: Path) -> None:
    with LiveRecorder(replace(SMALL, preroll_s=preroll_s)) as recorder:
        state(recorder, tmp_path)
        assert recorder.stop(PATIENCE_S)
        assert recorder.status().active is False
    assert recorder.files == ()
    assert all(json.loads(path.read_text())["in_progress"] is False for path in tmp_path.glob("recording-*.json"))


# Failures


def test_a_full_disk_stops_the_recording_before_the_reserve_and_the_recorder_lives_on(
    small_disk: Path, tmp_path: Path
) -> None:
    settings = RecordSettings(reserve_bytes=1 << 19, crf=1, preset="ultrafast")
    lowest = [1 << 40]
    with LiveRecorder(settings) as recorder:
        recorder.start(small_disk)
        director = Director(recorder)
        while recorder.status().active:
            assert director.number < 2000
            director.show(1, size=(320, 256))
            lowest.append(shutil.disk_usage(small_disk).free)
        trouble = recorder.status().trouble
        assert "free some space" in trouble
        assert "\n" not in trouble
        assert recorder.stop(PATIENCE_S)
        kept = recorder.files
        assert sidecar_of(recorder)["trouble"] == trouble
        director.show(5, size=(320, 256))
        assert recorder.status().active is False  # only asking makes it record again
        recorder.start(tmp_path)
        director.show(5)
        assert recorder.stop(PATIENCE_S)
        assert recorder.status().trouble == ""
    assert min(*lowest, shutil.disk_usage(small_disk).free) >= 1 << 19
    found = numbers(kept[0])
    assert len(found) > 5
    assert found == list(range(len(found)))
    assert len(numbers(recorder.files[0])) == 5


def test_recording_does_not_begin_where_the_reserve_is_touched_already(tmp_path: Path) -> None:
    with LiveRecorder(RecordSettings(reserve_bytes=1 << 60)) as recorder:
        recorder.start(tmp_path)
        wait_for(lambda: recorder.status().trouble)
        Director(recorder).show(3)
        assert recorder.stop(PATIENCE_S)
        assert recorder.status().active is False
    assert list(tmp_path.glob("enlarged-*")) == []


def test_a_folder_that_vanishes_ends_the_recording_with_a_line(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    with LiveRecorder(SMALL) as recorder:
        recorder.start(folder)
        director = Director(recorder)
        director.show(5)
        wait_for(lambda: recorder.files)
        shutil.rmtree(folder)
        director.show(5)
        wait_for(lambda: recorder.status().trouble)
        assert "gone" in recorder.status().trouble
        assert recorder.stop(PATIENCE_S)
        recorder.start(tmp_path / "other")
        director.show(4)
        assert recorder.stop(PATIENCE_S)
        assert len(numbers(recorder.files[0])) == 4


def test_a_file_that_is_deleted_while_it_is_written_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_series, "CHECK_S", 0.0)
    with LiveRecorder(SMALL) as recorder:
        recorder.start(tmp_path)
        director = Director(recorder)
        director.show(5)
        wait_for(lambda: recorder.files)
        recorder.files[0].unlink()
        wait_for(lambda: "gone or replaced" in recorder.status().trouble)


def test_a_disk_that_takes_no_files_is_said_in_a_line(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with LiveRecorder(SMALL) as recorder:
        recorder.start(small_disk)
        wait_for(lambda: recorder.status().trouble)
        assert "Read-only" in recorder.status().trouble
        assert "\n" not in recorder.status().trouble
        assert recorder.status().active is False
        Director(recorder).show(3)


@pytest.mark.parametrize("code", [errno.EROFS, errno.EDQUOT, errno.EACCES, errno.EIO])
def test_what_the_disk_says_becomes_one_line(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    with LiveRecorder(SMALL) as recorder:
        recorder.start(tmp_path)
        director = Director(recorder)
        director.show(5)
        director.settle()
        monkeypatch.setattr(live_file.LiveFile, "write", refuse)
        director.show(5)
        wait_for(lambda: recorder.status().trouble)
        assert "\n" not in recorder.status().trouble
        assert recorder.stop(PATIENCE_S)
        monkeypatch.undo()
        recorder.start(tmp_path)
        director.show(3)
        assert recorder.stop(PATIENCE_S)
        assert len(numbers(recorder.files[0])) == 3


@pytest.mark.parametrize("cause", [ValueError("broken"), RuntimeError("nobody\nforesaw it")], ids=["foreseen", "not"])
@pytest.mark.parametrize("preroll_s", [0.0, 1.0])
def test_an_encoder_that_fails_ends_the_recording_and_asking_again_begins_one(
    cause: Exception, preroll_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = LiveEncoder.encode

    def fail(self: LiveEncoder, frame: Frame, *given: Any) -> Any:
        if frame.pts == 9:
            raise cause
        return encode(self, frame, *given)

    monkeypatch.setattr(LiveEncoder, "encode", fail)
    with LiveRecorder(replace(SMALL, preroll_s=preroll_s)) as recorder:
        recorder.start(tmp_path)
        director = Director(recorder)
        director.show(12)
        wait_for(lambda: recorder.status().trouble)
        assert "\n" not in recorder.status().trouble
        assert recorder.stop(PATIENCE_S)
        kept = numbers(recorder.files[0])
        assert kept == list(range(len(kept)))
        assert len(kept) >= 8  # one picture is held back by the encoder
        recorder.start(tmp_path)
        director.show(6)
        assert recorder.stop(PATIENCE_S)
        assert recorder.status().trouble == ""
        assert numbers(recorder.files[0])[-6:] == list(range(director.number - 6, director.number))


@pytest.mark.parametrize(
    "settings",
    [{"codec": "h266"}, {"codec": "prores_ks", "container": "mp4"}, {"crf": 99}, {"preroll_s": -1.0}],
    ids=str,
)
def test_settings_that_cannot_be_are_refused_at_once(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        LiveRecorder(RecordSettings(**settings))


def test_starting_outside_the_with_block_is_refused(tmp_path: Path) -> None:
    recorder = LiveRecorder(SMALL)
    with pytest.raises(UsageError):
        recorder.start(tmp_path)
    with recorder:
        pass
    with pytest.raises(UsageError):
        recorder.start(tmp_path)


# Pre-roll


@pytest.mark.parametrize("container", ["mkv", "mp4"])
def test_a_recording_begins_the_preroll_earlier_with_a_key_frame(container: Any, tmp_path: Path) -> None:
    with LiveRecorder(replace(SMALL, preroll_s=5.0, container=container)) as recorder:
        director = Director(recorder, start_ns=time.monotonic_ns() - 300 * PERIOD_NS)
        director.show(300)
        director.settle()
        recorder.start(tmp_path)
        director.show(10)
        assert recorder.stop(PATIENCE_S)
    (first, first_ms), *rest = pictures(recorder.files[0])
    assert first_ms == 0
    assert [number for number, _ in rest] == list(range(first + 1, 310))
    assert 5.0 <= sidecar_of(recorder)["preroll_s"] <= 5.0 + KEYFRAME_S + 0.1
    with av.open(str(recorder.files[0])) as file:
        assert next(packet for packet in file.demux(video=0)).is_keyframe


def test_without_preroll_nothing_is_encoded_until_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    begin = LiveEncoder.__init__
    monkeypatch.setattr(LiveEncoder, "__init__", lambda *given: made.append(1) or begin(*given))
    with LiveRecorder(SMALL) as recorder:
        director = Director(recorder)
        director.show(10)
        director.settle()
        assert made == []
        recorder.start(tmp_path)
        director.show(5)
        assert recorder.stop(PATIENCE_S)
    assert numbers(recorder.files[0]) == list(range(10, 15))


def test_a_preroll_whose_encoder_fails_rests_until_a_recording_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def fail(self: LiveEncoder, frame: Frame, *_: Any) -> Any:
        tried.append(frame.pts)
        raise ValueError("broken")

    with LiveRecorder(replace(SMALL, preroll_s=1.0)) as recorder:
        director = Director(recorder)
        monkeypatch.setattr(LiveEncoder, "encode", fail)
        director.show(20)
        director.settle()
        assert tried == [0]
        assert recorder.status().trouble
        monkeypatch.undo()
        recorder.start(tmp_path)
        director.show(5)
        assert recorder.stop(PATIENCE_S)
    assert numbers(recorder.files[0]) == list(range(20, 25))


def test_the_preroll_keeps_no_more_memory_than_stated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preroll, "PREROLL_BYTES", 1)
    with LiveRecorder(replace(SMALL, preroll_s=60.0)) as recorder:
        director = Director(recorder, start_ns=time.monotonic_ns() - 500 * PERIOD_NS)
        director.show(500)
        director.settle()
        wait_for(lambda: recorder.writer._last_ms >= (director.at_ns - PERIOD_NS) // 1_000_000)
        assert 1 <= len(recorder.writer._preroll) <= 25 * KEYFRAME_S + 1


def test_a_preroll_over_a_lost_signal_begins_two_files_and_names_the_gap(tmp_path: Path) -> None:
    with LiveRecorder(replace(SMALL, preroll_s=30.0)) as recorder:
        director = Director(recorder, start_ns=time.monotonic_ns() - 5 * 10**9)
        director.show(10)
        director.show(4, slate=True, step_ns=250_000_000)
        director.show(10)
        director.settle()
        recorder.start(tmp_path)
        director.show(5)
        assert recorder.stop(PATIENCE_S)
    assert [numbers(path) for path in recorder.files] == [list(range(10)), list(range(14, 29))]
    told = sidecar_of(recorder)
    assert told["signal_gaps"] == [{"from_s": 0.36, "to_s": 1.4}]
    assert told["holes"] == []


def test_pictures_older_than_the_preroll_do_not_begin_a_recording(tmp_path: Path) -> None:
    with LiveRecorder(replace(SMALL, preroll_s=2.0)) as recorder:
        director = Director(recorder, start_ns=time.monotonic_ns() - 600 * 10**9)
        director.show(10)
        director.show(1, slate=True)
        director.settle()
        recorder.start(tmp_path)
        director.at_ns = time.monotonic_ns()
        director.show(5)
        assert recorder.stop(PATIENCE_S)
    assert [numbers(path) for path in recorder.files] == [list(range(11, 16))]


# The sidecar


def test_the_sidecar_tells_what_happened(tmp_path: Path) -> None:
    def play(director: Director) -> None:
        director.at_ns -= 10**9  # a second of added latency
        director.show(10, stages_ms={"generate": 7.0})
        director.show(5, rung="bicubic-x2", reason="bypass")
        director.show(4, rung="bicubic-x2", reason="late", alarm="GENERATOR FAILED")
        director.show(3)

    about = {"engine": {"name": "fast-x2", "weights_sha256": "ab"}, "source": "testsrc"}
    settings = replace(SMALL, folder=tmp_path, from_start=True)
    with LiveRecorder(settings, about=about) as recorder:
        play(Director(recorder))
        assert recorder.stop(PATIENCE_S)
    told = sidecar_of(recorder)
    assert told["statement"] == f"13 of 22 pictures, the others by bicubic interpolation: {STATEMENT}"
    assert told["frames"]["generated"] == 13
    assert "from_start" not in told["recording"]  # how the session began stands in its settings
    assert told["engine"] == about["engine"]
    assert told["source"] == "testsrc"
    assert told["versions"]["av"] == av.__version__
    assert told["recording"]["codec"] == "libx264"
    assert str(tmp_path) not in json.dumps(told)  # a folder may name a person
    assert [(spell["rung"], spell["reason"], spell["pictures"]) for spell in told["rungs"]] == [
        ("fast-x2", "", 10),
        ("bicubic-x2", "bypass", 5),
        ("bicubic-x2", "late", 4),
        ("fast-x2", "", 3),
    ]
    assert told["bypass"] == [{"from_s": 0.4, "to_s": 0.56, "pictures": 5}]
    assert told["alarms"] == [{"from_s": 0.6, "to_s": 0.72, "pictures": 4, "alarm": "GENERATOR FAILED"}]
    assert told["timings"]["generate"] == {"num": 10, "p50_ms": 7.0, "p95_ms": 7.0, "p99_ms": 7.0, "max_ms": 7.0}
    assert told["timings"]["added_latency"]["num"] == 22
    assert 0 < told["timings"]["added_latency"]["max_ms"] < 60_000
    (file,), (path,) = told["files"], recorder.files
    found = pictures(path)
    assert (file["name"], file["bytes"]) == (path.name, path.stat().st_size)
    assert file["sha256"] == file_sha256(path)
    assert (file["pictures"], file["first_s"], file["last_s"]) == (22, 0.0, found[-1][1] / 1000)
    assert (file["width"], file["height"], file["colour"]["matrix"]) == (64, 48, 1)
    assert told["frames"]["written"] == len(found) == 22
    assert (told["in_progress"], told["trouble"]) == (False, None)


@pytest.mark.parametrize(("rung", "statement"), [("fast-x2", STATEMENT), ("bicubic-x2", INTERPOLATED_STATEMENT)])
def test_the_sidecar_claims_a_generator_only_where_there_was_one(rung: str, statement: str, tmp_path: Path) -> None:
    told = sidecar_of(record(tmp_path, lambda director: director.show(3, rung=rung)))
    assert told["statement"] == statement


def test_tags_that_are_written_before_anything_is_known_claim_nothing() -> None:
    said = live_marks_of(find_engine("fast-x2"))["comment"]
    assert "may hold AI-enhanced pictures" in said
    assert "see the sidecar" in said


def test_an_original_beside_it_is_waited_for_listed_and_hashed(tmp_path: Path) -> None:
    original = tmp_path / "original-1.mkv"
    with LiveRecorder(SMALL) as recorder:
        recorder.start(tmp_path)
        original.write_bytes(b"begun")
        recorder.note_original(original, over=False)
        Director(recorder).show(3)
        assert not recorder.stop(0.0)
        original.write_bytes(b"complete")
        recorder.note_original(original, over=True)
        assert recorder.stop(PATIENCE_S)
    assert recorder.status().name == recorder.files[-1].name
    found = {file["kind"]: file for file in sidecar_of(recorder)["files"]}
    assert set(found) == {"enlarged", "original"}
    assert found["original"] == {
        "name": original.name,
        "kind": "original",
        "bytes": 8,
        "sha256": file_sha256(original),
        "complete": True,
    }


def test_an_original_that_is_never_closed_is_listed_without_a_hash(tmp_path: Path) -> None:
    original = tmp_path / "original-1.mkv"
    original.write_bytes(b"begun")
    with LiveRecorder(SMALL) as recorder:
        recorder.start(tmp_path)
        recorder.note_original(original, over=False)
        Director(recorder).show(3)
        assert recorder.stop(PATIENCE_S)
    (_, told) = sidecar_of(recorder)["files"]
    assert (told["name"], told["sha256"], told["complete"]) == (original.name, None, False)


def test_an_original_that_was_cut_short_is_hashed_and_not_called_complete(tmp_path: Path) -> None:
    original = tmp_path / "original-1.mkv"
    original.write_bytes(b"cut")
    with LiveRecorder(SMALL) as recorder:
        recorder.start(tmp_path)
        recorder.note_original(original, over=True, cut_short=True)
        Director(recorder).show(3)
        assert recorder.stop(PATIENCE_S)
    (_, told) = sidecar_of(recorder)["files"]
    assert (told["sha256"], told["complete"]) == (file_sha256(original), False)


def test_intervals_are_bounded_and_those_left_out_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamsr.sinks.live_log.MAX_SPELLS", 3)

    def play(director: Director) -> None:
        for number in range(10):
            director.show(1, rung=f"rung {number % 2}")

    told = sidecar_of(record(tmp_path, play))
    assert len(told["rungs"]) == 3
    assert told["intervals_left_out"] == 7


def test_a_file_that_cannot_be_hashed_in_time_says_so_by_having_no_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_recording, "HASH_S", -1.0)
    with LiveRecorder(SMALL) as recorder:
        recorder.start(tmp_path)
        Director(recorder).show(5)
    told = sidecar_of(recorder)
    assert (told["files"][0]["sha256"], told["in_progress"]) == (None, False)
    assert numbers(recorder.files[0]) == list(range(5))
