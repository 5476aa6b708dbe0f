"""The kept original: packets bit for bit, files that survive a kill, and a display that no disk can hold up."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest

from streamsr.capture.feeds import open_feed
from streamsr.capture.listening import FeedState
from streamsr.capture.segments import lossless_format
from streamsr.config import FeedSettings
from streamsr.errors import InputError
from tests.feeders import Memory, Server, chunks_of, packet_hashes, running
from tests.videos import make_video, read_numbers

PACED = FeedSettings(pace=True)
ZERO_LATENCY = (("g", "5"), ("preset", "ultrafast"), ("tune", "zerolatency"), ("qp", "20"))


def kept_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("original-*.mkv"), key=lambda path: path.stem.rpartition("-")[2])


def test_kept_packets_are_those_of_the_source_bit_for_bit(tmp_path):
    source = make_video(tmp_path / "a.mkv", num_frames=30, audio=True, options={"bf": "2", "g": "10"})
    folder = tmp_path / "kept"
    folder.mkdir()
    memory, feed = Memory(), open_feed(str(source), PACED)
    feed.keep_original(str(folder))
    with running(feed, memory):
        memory.wait_state(FeedState.ENDED)
    (kept,) = kept_files(folder)
    assert packet_hashes(kept, "video") == packet_hashes(source, "video")
    assert packet_hashes(kept, "audio") == packet_hashes(source, "audio")
    assert read_numbers(kept) == list(range(30))
    assert str(kept) in memory.wait_state(FeedState.KEPT).text


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"g": "5", "bf": "2"}),
        ("libx265", {"x265-params": "keyint=5:bframes=0:log-level=none"}),
        ("mpeg2video", {"g": "5"}),
    ],
)
def test_a_transport_stream_is_kept_whole_though_it_is_read_unparsed(tmp_path, codec, options):
    source = make_video(tmp_path / "a.ts", codec=codec, num_frames=20, audio=True, options=options)
    folder = tmp_path / "kept"
    folder.mkdir()
    memory = Memory()
    feed = open_feed(str(source), FeedSettings(pace=True, input_format="mpegts"))
    assert feed.address.whole
    feed.keep_original(str(folder))
    with running(feed, memory):
        memory.wait_state(FeedState.ENDED)
    (kept,) = kept_files(folder)
    assert read_numbers(kept) == read_numbers(source) == memory.numbers
    assert packet_times(kept, "video") == pytest.approx(packet_times(source, "video"), abs=0.002)
    sound, whole = packet_times(kept, "audio"), packet_times(source, "audio")
    assert len(whole) - 4 <= len(sound) <= len(whole)  # what came before the first key frame is not kept
    assert sound == pytest.approx(whole[-len(sound) :], abs=0.002)
    with av.open(str(kept)) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) == 1024 * len(sound)


def packet_times(path: Path, kind: str) -> list[float]:
    """Return when the packets of one kind are shown, from the first picture on, in seconds."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux() if packet.size]
        start_s = min(float(p.pts * p.time_base) for p in packets if p.stream.type == "video")
        return [float(p.pts * p.time_base) - start_s for p in packets if p.stream.type == kind]


def test_keeping_begins_with_a_key_frame_and_ends_when_told(tmp_path):
    memory = Memory()
    with Server(chunks_of()) as server, running(feed := open_feed(server.url), memory):
        memory.wait_frames(4)
        feed.keep_original(str(tmp_path))
        memory.wait_frames(15)
        feed.keep_original(None)
        memory.wait_state(FeedState.KEPT)
        memory.wait_frames(5)
    (kept,) = kept_files(tmp_path)
    numbers = read_numbers(kept)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert numbers[0] % 5 == 0  # every fifth is a key frame
    assert set(numbers) <= set(memory.numbers)


def test_a_reconnect_begins_a_new_file(tmp_path):
    memory, server = Memory(), Server(chunks_of())
    feed = open_feed(server.url)
    feed.keep_original(str(tmp_path))
    with running(feed, memory):
        memory.wait_frames(10)
        server.kill()
        memory.wait_state(FeedState.RETRYING)
        with Server(chunks_of(), port=server.port):
            memory.wait_frames(10)
            feed.keep_original(None)
            memory.wait_state(FeedState.KEPT, 2)
    assert len(kept_files(tmp_path)) == 2
    assert all(len(read_numbers(path)) >= 5 for path in kept_files(tmp_path))


@pytest.mark.parametrize("form", ["mjpeg", "mpegts"])
def test_a_size_change_begins_a_new_file(tmp_path, form):
    codec, pix_fmt, options = ("mjpeg", "yuvj420p", ()) if form == "mjpeg" else ("libx264", "yuv420p", ZERO_LATENCY)
    small, large = (
        chunks_of(form, codec, num=20, size=size, pix_fmt=pix_fmt, options=options) for size in ((64, 48), (96, 80))
    )
    memory = Memory()
    with Server(small + large, every=None, http=False) as server:
        feed = open_feed(server.url, FeedSettings(input_format=form))
        feed.keep_original(str(tmp_path))
        with running(feed, memory):
            memory.wait_state(FeedState.KEPT, 2)
    for path, width in zip(kept_files(tmp_path)[:2], (64, 96), strict=True):
        with av.open(str(path)) as container:
            assert container.streams.video[0].codec_context.width == width
            assert {frame.width for frame in container.decode(video=0)} == {width}
        assert read_numbers(path) == list(range(20))


def test_a_file_whose_reader_is_killed_plays_up_to_its_last_second(tmp_path):
    memory = Memory()
    with Server(chunks_of()) as server, running(feed := open_feed(server.url), memory):
        feed.keep_original(str(tmp_path))
        memory.wait_frames(75)
        last = memory.numbers[-1]
        os.kill(feed.reader_pid, signal.SIGKILL)
        told = memory.wait_state(FeedState.KEPT)
    assert told.cut_short
    assert "cut short" in told.text
    numbers = read_numbers(kept_files(tmp_path)[0])
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert numbers[-1] >= last - 25


def test_a_large_file_is_continued_at_a_key_frame_without_a_loss(tmp_path, monkeypatch):
    from streamsr.capture import keeping

    monkeypatch.setattr(keeping, "SEGMENT_BYTES", 1)
    told = []
    source = make_video(tmp_path / "a.mkv", num_frames=30, options={"g": "10", "bf": "0"})
    keeper = keeping.OriginalKeeper(lambda kind, text: told.append(kind), reserve_bytes=0, preroll_s=0.0)
    keeper.keep(str(tmp_path))
    with av.open(str(source)) as container:
        video = container.streams.video[0]
        keeper.begin_source([video], video.average_rate)
        for number, packet in enumerate(container.demux(video)):
            if packet.size:
                keeper.take(packet, is_video=True, arrived_ns=number * 40_000_000)
        assert keeper.end_source()
    keeper.close(5.0)
    assert [read_numbers(path) for path in kept_files(tmp_path)] == [list(range(at, at + 10)) for at in (0, 10, 20)]
    assert told == ["keeping", "kept"] * 3


def test_a_full_disk_ends_keeping_and_not_the_feed(tmp_path):
    memory = Memory()
    feed = open_feed("lavfi:testsrc2=size=128x96", FeedSettings(reserve_bytes=1 << 60))
    feed.keep_original(str(tmp_path))
    with running(feed, memory):
        memory.wait(lambda: any("no longer kept" in line for line in memory.told))
        memory.wait_frames(5)
    assert not kept_files(tmp_path)


def test_a_disk_that_fills_up_ends_keeping_and_not_the_feed(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    try:
        memory = Memory()
        feed = open_feed("lavfi:testsrc2=size=320x240", FeedSettings(reserve_bytes=0))
        feed.keep_original(str(disk))
        with running(feed, memory):
            memory.wait(lambda: any("no space left" in line for line in memory.told))
            memory.wait_frames(5)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_source_without_packets_is_kept_without_loss(tmp_path):
    memory = Memory()
    feed = open_feed("testsrc:endoscopy:size=128x96,frames=12,rate=50")
    feed.keep_original(str(tmp_path))
    with running(feed, memory):
        memory.wait_state(FeedState.ENDED)
    (kept,) = kept_files(tmp_path)
    with av.open(str(kept)) as container:
        pictures = list(container.decode(video=0))
    assert len(pictures) == 12
    for picture, frame in zip(pictures, memory.frames, strict=True):
        planes = [np.frombuffer(plane, np.uint8).reshape(plane.height, -1) for plane in picture.planes]
        for kept_plane, plane in zip(planes, frame.planes, strict=True):
            assert np.array_equal(kept_plane[:, : plane.shape[1]], plane)
    assert any("without loss" in line for line in memory.told)


def test_preroll_begins_before_the_moment_of_asking(tmp_path):
    memory = Memory()
    with Server(chunks_of()) as server:
        feed = open_feed(server.url, FeedSettings(preroll_s=1.0))
        with running(feed, memory):
            memory.wait_frames(60)
            asked_at = memory.numbers[-1]
            feed.keep_original(str(tmp_path))
            memory.wait_frames(5)
    numbers = read_numbers(kept_files(tmp_path)[0])
    assert asked_at - 40 <= numbers[0] <= asked_at - 20
    assert numbers[0] % 5 == 0


def test_stopping_completes_the_file_and_begins_no_other(tmp_path):
    memory, feed = Memory(), open_feed("lavfi:testsrc2=size=320x240:rate=100")
    feed.keep_original(str(tmp_path))
    with running(feed, memory):
        memory.wait_frames(20)
    assert not any("do not rise" in line for line in memory.told)  # the file's times are not the frames'
    (kept,) = kept_files(tmp_path)
    assert "cut short" not in memory.wait_state(FeedState.KEPT).text
    with av.open(str(kept)) as container:
        assert container.duration  # which is written last
        assert sum(1 for _ in container.decode(video=0)) >= 20


def test_a_folder_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="expected a folder"):
        open_feed("testsrc:endoscopy").keep_original("/nowhere/at/all")


@pytest.mark.parametrize("name", ["yuyv422", "rgb24", "nv12", "gray", "yuv420p10le", "bgra", "rgb48le"])
def test_lossless_coding_keeps_every_sample(name):
    source = av.VideoFrame(32, 24, name)
    random = np.random.default_rng(0)
    for plane in source.planes:
        noise = random.integers(0, 256, plane.buffer_size, np.uint8)
        if "10le" in name:
            noise[1::2] &= 3
        plane.update(noise.tobytes())
    there = source.reformat(format=lossless_format(source.format), threads=1)
    back = there.reformat(format=name, threads=1)
    assert np.array_equal(back.to_ndarray(), source.to_ndarray())
