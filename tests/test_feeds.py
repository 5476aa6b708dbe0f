"""Live feeds: what comes arrives in order, and whatever breaks is noticed, told, bounded in time and mended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

from streamsr.capture import feeds
from streamsr.capture.damage import Damage
from streamsr.capture.feeds import open_feed
from streamsr.capture.listening import FeedState
from streamsr.config import FeedSettings
from streamsr.errors import InputError, UsageError
from tests.feeders import (
    LONG_S,
    Memory,
    Server,
    chunks_of,
    free_port,
    is_alive,
    push,
    running,
    standard_input,
    wait_until,
)
from tests.videos import make_video, read_number

ROOT = Path(__file__).resolve().parents[1]
PATTERN = "lavfi:testsrc2=size=128x96:rate=25"
QUICK = FeedSettings(open_timeout_s=5.0, read_timeout_s=1.0)


def rises(values) -> bool:
    return all(later > earlier for earlier, later in pairwise(values))


def check_order(memory: Memory) -> None:
    """Check that frames rise in place, time and stamps, and that stamps are of this clock."""
    frames = memory.frames
    assert rises(frame.sequence for frame in frames)
    assert rises(frame.pts * frame.time_base for frame in frames)
    now_ns = time.monotonic_ns()
    assert all(0 < frame.arrived_ns <= frame.captured_ns <= now_ns for frame in frames)


@pytest.mark.parametrize("form", ["mpegts", "nut", "matroska"])
def test_frames_of_a_server_arrive_in_order_and_complete(form):
    memory = Memory()
    with Server(chunks_of(form), every=None) as server, running(open_feed(server.url, QUICK), memory):
        memory.wait_frames(12)
    check_order(memory)
    assert memory.numbers == list(range(memory.numbers[0], memory.numbers[0] + len(memory.frames)))
    assert memory.states[0] is FeedState.OPENED
    info = memory.events[0].info
    assert info is not None
    assert (info.width, info.height, info.rate) == (64, 48, 25)


def test_a_server_that_is_killed_and_restarted_is_found_again():
    memory, server = Memory(), Server(chunks_of())
    feed = open_feed(server.url, QUICK)
    with running(feed, memory):
        memory.wait_frames(5)
        server.kill()
        memory.wait_state(FeedState.RETRYING, 2)
        num_before = len(memory.frames)
        with Server(chunks_of(), port=server.port):
            memory.wait_frames(5)
    assert memory.states.index(FeedState.LOST) < memory.states.index(FeedState.RETRYING)
    assert memory.states.count(FeedState.OPENED) == 2
    assert feed.num_reconnects == 1
    check_order(memory)
    before, after = memory.frames[num_before - 1], memory.frames[num_before]
    gap_s = (after.arrived_ns - before.arrived_ns) / 1e9
    assert after.seconds - before.seconds == pytest.approx(gap_s, abs=0.5)  # times go on as long as it really was


def test_waits_between_tries_stay_short_enough_to_see_a_return_within_two_seconds():
    waits_s, wait_s = [], feeds.BACK_OFF_S
    for _ in range(50):
        waits_s.append(wait_s)
        wait_s = min(wait_s * feeds.BACK_OFF_GROWS, feeds.MOST_BACK_OFF_S)
    assert waits_s[0] < waits_s[1]
    assert max(waits_s) <= 1.5


def test_a_black_hole_is_given_up_and_tried_again():
    memory = Memory()
    settings = FeedSettings(open_timeout_s=0.3, read_timeout_s=0.3)
    with Server((), answers=False) as server, running(open_feed(server.url, settings), memory):
        memory.wait_state(FeedState.RETRYING, 2)
    assert not memory.frames
    assert any("nothing came" in line for line in memory.told)


def test_a_server_that_falls_silent_is_lost():
    silent = chunks_of()[:20] + (b"",) * 10_000
    memory = Memory()
    with Server(silent) as server, running(open_feed(server.url, FeedSettings(read_timeout_s=0.3)), memory):
        memory.wait_state(FeedState.LOST)
        memory.wait_state(FeedState.RETRYING)
    assert "nothing came" in memory.wait_state(FeedState.LOST).text


def count_damage(told) -> int:
    """Return how many pictures count as damaged where what is told happens in its order."""
    counted = []
    damage = Damage(lambda: counted.append(1))
    for what, pts in told:
        if what == "gap":
            damage.gap()
        elif what == "packet":
            damage.packet(pts)
        else:
            damage.picture(pts, is_damaged=what == "damaged")
    return len(counted)


@pytest.mark.parametrize(
    ("told", "number"),
    [
        ([("packet", 1), ("packet", 1), ("damaged", 1)], 1),  # flagged, refused by the decoder, and shown damaged
        ([("packet", 3), ("sound", 1), ("sound", 2), ("damaged", 3)], 1),  # its picture comes later
        ([("gap", None), ("packet", 1), ("damaged", 1)], 1),
        ([("gap", None), ("gap", None), ("gap", None), ("damaged", 4)], 1),
        ([("gap", None), ("sound", 1), ("damaged", 2)], 2),
        ([("packet", None), ("damaged", None), ("packet", None), ("damaged", None)], 2),
        ([("damaged", 1), ("damaged", 2), ("packet", 3)], 3),
    ],
)
def test_one_damaged_picture_counts_once(told, number):
    assert count_damage(told) == number


def test_damage_costs_pictures_and_is_counted():
    chunks, places = list(chunks_of()), range(10, len(chunks_of()), 10)
    for number in places:
        chunks[number] = bytes(
            byte ^ 0x5A if place > 376 and place % 188 > 20 else byte for place, byte in enumerate(chunks[number])
        )
    memory = Memory()
    feed = open_feed((server := Server(tuple(chunks))).url, QUICK)
    with server, running(feed, memory):
        memory.wait_frames(150)
    assert 0 < feed.num_damaged <= len(places) * (1 + len(memory.frames) // len(chunks))
    assert feed.num_reconnects == 0
    assert any("damaged" in line for line in memory.told)
    check_order(memory)


def test_udp_is_received_and_found_again_after_silence():
    port = free_port(socket.SOCK_DGRAM)
    sending = threading.Event()
    sending.set()
    ending = threading.Event()

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            number = 0
            while not ending.wait(0.04):
                data = chunks_of()[number % 200]
                for start in range(0, len(data) if sending.is_set() else 0, 1316):
                    sender.sendto(data[start : start + 1316], ("127.0.0.1", port))
                number += 1

    memory, thread = Memory(), threading.Thread(target=send, name="test-sender")
    thread.start()
    try:
        with running(open_feed(f"udp://127.0.0.1:{port}", FeedSettings(read_timeout_s=0.4)), memory):
            memory.wait_frames(5)
            sending.clear()
            memory.wait_state(FeedState.RETRYING)
            sending.set()
            memory.wait_frames(5)
    finally:
        ending.set()
        thread.join(LONG_S)
    assert FeedState.LOST in memory.states
    check_order(memory)


@pytest.mark.parametrize(
    ("url", "form", "listen"),
    [
        ("rtsp://127.0.0.1:{}/live", "rtsp", {"rtsp_flags": "listen", "listen_timeout": "10"}),
        ("rtmp://127.0.0.1:{}/app/key", "flv", {"listen": "1"}),
    ],
    ids=["rtsp", "rtmp"],
)
def test_rtsp_and_rtmp_are_received_and_found_again(url, form, listen):
    url, memory = url.format(free_port()), Memory()
    settings = FeedSettings(open_timeout_s=10.0, options=tuple(listen.items()))
    with running(feed := open_feed(url, settings), memory):
        for opening in (1, 2):
            ending = threading.Event()
            options = {"rtsp_transport": "tcp"} if form == "rtsp" else {}
            pusher = threading.Thread(target=push, args=(url, form, ending, options), name="test-pusher")
            pusher.start()
            memory.wait_state(FeedState.OPENED, opening)
            memory.wait_frames(5)
            ending.set()
            pusher.join(LONG_S)
            memory.wait_state(FeedState.RETRYING, opening)
    check_order(memory)
    assert feed.num_reconnects == 1
    assert memory.numbers[:5] == [0, 1, 2, 3, 4]


def test_a_path_that_vanishes_is_lost_and_taken_up_when_it_is_back(tmp_path):
    path = tmp_path / "camera"
    memory, feed = Memory(), None
    ending = threading.Event()

    def write() -> None:
        with path.open("wb", buffering=0) as pipe:
            for chunk in chunks_of():
                if ending.wait(0.04):
                    return
                pipe.write(chunk)

    def plug() -> threading.Thread:
        os.mkfifo(path)
        ending.clear()
        thread = threading.Thread(target=write, name="test-writer")
        thread.start()
        return thread

    writer = plug()
    feed = open_feed(str(path), QUICK)
    with running(feed, memory):
        memory.wait_frames(5)
        path.unlink()
        ending.set()
        writer.join(LONG_S)
        memory.wait_state(FeedState.RETRYING, 2)
        writer = plug()
        memory.wait_frames(5)
        ending.set()
    writer.join(LONG_S)
    assert feed.num_reconnects == 1
    check_order(memory)


def test_a_stalled_standard_input_is_told_and_goes_on():
    memory = Memory()
    with standard_input() as pipe:
        feed = open_feed("-", FeedSettings(input_format="mpegts", read_timeout_s=0.3))
        with running(feed, memory):
            for chunk in chunks_of()[:20]:
                os.write(pipe, chunk)
            memory.wait_state(FeedState.LOST)
            pid, num_before = feed.reader_pid, len(memory.frames)
            for chunk in chunks_of()[20:40]:
                os.write(pipe, chunk)
                time.sleep(0.01)
            memory.wait(lambda: len(memory.frames) > num_before)
            assert feed.reader_pid == pid  # whoever reads a pipe anew loses what was read before
            os.close(pipe)
            memory.wait_state(FeedState.ENDED)
    assert any("before the silence: not shown" in line for line in memory.told)  # the one that FFmpeg held meanwhile
    states = [state for state in memory.states if state is not FeedState.NOTICE]
    assert states[:4] == [FeedState.OPENED, FeedState.LOST, FeedState.OPENED, FeedState.ENDED]
    check_order(memory)


@pytest.mark.parametrize(
    ("settings", "form"),
    [
        (FeedSettings(size=(64, 48), rate=25, input_format="yuv420p"), ("rawvideo", "rawvideo")),
        (FeedSettings(input_format="mjpeg", rate=25), ("mjpeg", "mjpeg")),
        (FeedSettings(input_format="nut"), ("nut", "libx264")),
        (FeedSettings(), ("matroska", "ffv1")),
    ],
    ids=["raw", "mjpeg", "nut", "matroska"],
)
def test_standard_input_takes_every_form(settings, form):
    container, codec = form
    options = {} if codec != "libx264" else {"options": (("g", "5"), ("tune", "zerolatency"), ("qp", "20"))}
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    chunks = chunks_of(container, codec, num=20, pix_fmt=pix_fmt, **({"options": ()} | options))
    memory = Memory()
    with standard_input() as pipe, running(open_feed("-", settings), memory):
        for chunk in chunks:
            os.write(pipe, chunk)
            time.sleep(0.02)
        os.close(pipe)
        memory.wait_state(FeedState.ENDED)
    assert memory.numbers
    assert memory.numbers[-1] == 19
    assert rises(memory.numbers)


def test_a_picture_of_a_transport_stream_waits_for_one_packet_at_most():
    chunks = chunks_of()
    memory = Memory()
    with standard_input() as pipe, running(open_feed("-", FeedSettings(input_format="mpegts")), memory):
        for chunk in chunks[:40]:
            os.write(pipe, chunk)
        memory.wait(lambda: memory.frames and memory.numbers[-1] >= 38)  # FFmpeg's parser would hold 38 back as well


def test_a_reader_that_is_killed_is_replaced():
    memory, feed = Memory(), open_feed(PATTERN)
    with running(feed, memory):
        memory.wait_frames(3)
        os.kill(feed.reader_pid, signal.SIGKILL)
        memory.wait_state(FeedState.RETRYING)
        memory.wait_frames(3)
    assert "signal 9" in memory.wait_state(FeedState.LOST).text
    assert feed.num_reconnects == 1
    check_order(memory)


def test_a_reader_that_hangs_is_ended_and_replaced():
    memory, feed = Memory(), open_feed(PATTERN, FeedSettings(read_timeout_s=0.3))
    with running(feed, memory):
        memory.wait_frames(3)
        hung = feed.reader_pid
        os.kill(hung, signal.SIGSTOP)
        memory.wait_state(FeedState.OPENED, 2)
        memory.wait_frames(3)
        assert not is_alive(hung)
    check_order(memory)


def test_a_program_that_is_killed_leaves_no_reader():
    program = (
        "from streamsr.capture.feeds import open_feed\n"
        "class Quiet:\n"
        "    def receive(self, frame):\n"
        "        frame.sequence or print(feed.reader_pid, flush=True)\n"
        "    def tell(self, event): pass\n"
        "feed = open_feed('lavfi:testsrc2=size=128x96:rate=25')\n"
        "feed.run(Quiet())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
    wait_until(lambda: not is_alive(pid))


def stop_before_running() -> None:
    memory, feed = Memory(), open_feed("testsrc:endoscopy")
    feed.stop()
    feed.run(memory)
    assert not memory.frames


def stop_while_opening() -> None:
    memory = Memory()
    with Server((), answers=False) as server, running(feed := open_feed(server.url), memory):
        wait_until(lambda: feed.reader_pid is not None)


def stop_while_reading() -> None:
    memory = Memory()
    with running(open_feed(PATTERN), memory):
        memory.wait_frames(2)


def stop_between_tries() -> None:
    memory = Memory()
    with Server(chunks_of()) as server, running(open_feed(server.url, QUICK), memory):
        memory.wait_frames(2)
        server.kill()
        memory.wait_state(FeedState.RETRYING, 3)


def stop_while_hung() -> None:
    memory, feed = Memory(), open_feed(PATTERN, FeedSettings(read_timeout_s=60.0))
    with running(feed, memory):
        memory.wait_frames(2)
        os.kill(feed.reader_pid, signal.SIGSTOP)


def stop_while_stalled() -> None:
    memory = Memory()
    with standard_input(), running(open_feed("-", FeedSettings(open_timeout_s=0.3)), memory):
        memory.wait_state(FeedState.LOST)


@pytest.mark.parametrize(
    "state",
    [
        stop_before_running,
        stop_while_opening,
        stop_while_reading,
        stop_between_tries,
        stop_while_hung,
        stop_while_stalled,
    ],
    ids=lambda state: state.__name__,
)
def test_stopping_works_from_every_state(state):
    state()
    wait_until(lambda: not children())


def children() -> list[str]:
    """Return the readers that this program started and that still run."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            words = (folder / "cmdline").read_bytes()
        except (OSError, IndexError):
            continue
        if parent == os.getpid() and b"streamsr.capture.reader" in words and is_alive(int(folder.name)):
            found.append(folder.name)
    return found


def test_pictures_may_change_size_and_format_in_mid_feed():
    small = chunks_of("mjpeg", "mjpeg", num=15, size=(64, 48), pix_fmt="yuvj420p", options=())
    large = chunks_of("mjpeg", "mjpeg", num=15, size=(96, 80), pix_fmt="yuvj422p", options=())
    memory = Memory()
    settings = FeedSettings(input_format="mjpeg", rate=25)
    with Server(small + large, every=None, http=False) as server, running(open_feed(server.url, settings), memory):
        memory.wait_state(FeedState.CHANGED, 2)
        memory.wait_frames(3)
    first, second = (memory.wait_state(FeedState.CHANGED, times).info for times in (1, 2))
    assert {(info.width, info.height, info.layout.pix_fmt) for info in (first, second)} == {
        (64, 48, "yuv420p"),
        (96, 80, "yuv422p"),
    }
    assert FeedState.LOST not in memory.states
    check_order(memory)
    assert {frame.width for frame in memory.frames} == {64, 96}
    assert all(read_number(frame.planes[0]) < 15 for frame in memory.frames)


def test_a_colour_change_is_told():
    tagged = [
        make_chunks_tagged("bt709"),
        make_chunks_tagged("smpte170m"),
    ]
    memory = Memory()
    with Server(tagged[0] + tagged[1]) as server, running(open_feed(server.url, QUICK), memory):
        memory.wait_state(FeedState.CHANGED, 2)
    assert {frame.colour.matrix for frame in memory.frames} == {1, 6}


def make_chunks_tagged(matrix: str) -> tuple[bytes, ...]:
    options = (("g", "5"), ("tune", "zerolatency"), ("colorspace", matrix), ("color_range", "tv"))
    return chunks_of(num=25, options=options)


def test_a_slow_listener_costs_frames_and_they_are_counted():
    memory = Memory(receive=lambda frame: time.sleep(0.2))
    feed = open_feed("lavfi:testsrc2=size=1280x720:rate=50", FeedSettings(read_timeout_s=5.0))
    with running(feed, memory):
        memory.wait_frames(8)
    check_order(memory)
    assert feed.num_dropped > 0
    assert memory.frames[-1].sequence + 1 == len(memory.frames) + feed.num_dropped
    ages_s = [(later.arrived_ns - earlier.arrived_ns) / 1e9 for earlier, later in pairwise(memory.frames)]
    assert max(ages_s) > 0.1  # what comes is new, not what waited


def test_a_file_is_played_at_its_own_pace_and_ends(tmp_path):
    path = make_video(tmp_path / "a.mkv", num_frames=15)
    memory = Memory()
    with running(open_feed(str(path), FeedSettings(pace=True)), memory):
        memory.wait_state(FeedState.ENDED)
    assert memory.numbers == list(range(15))
    first, last = memory.frames[0], memory.frames[-1]
    assert (last.arrived_ns - first.arrived_ns) / 1e9 > 0.9 * (last.seconds - first.seconds)


def test_a_file_that_loops_never_goes_back_in_time(tmp_path):
    path = make_video(tmp_path / "a.mkv", num_frames=6)
    memory = Memory()
    with running(open_feed(str(path), FeedSettings(pace=True, loop=True)), memory):
        memory.wait_frames(16)
    check_order(memory)
    assert memory.numbers[:12] == [0, 1, 2, 3, 4, 5] * 2


def test_the_rendered_picture_has_no_end_unless_one_is_given():
    memory = Memory()
    with running(open_feed("testsrc:endoscopy:size=128x96,frames=5,rate=50"), memory):
        memory.wait_state(FeedState.ENDED)
    assert memory.numbers == [0, 1, 2, 3, 4]
    info = memory.wait_state(FeedState.OPENED).info
    assert info is not None
    assert info.num_frames == 5


def test_interlaced_pictures_are_deinterlaced(tmp_path):
    path = make_video(tmp_path / "a.ts", codec="mpeg2video", interlaced=True, num_frames=10, options={"qscale": "2"})
    memory = Memory()
    with running(open_feed(str(path), FeedSettings(pace=True)), memory):
        memory.wait_state(FeedState.ENDED)
    assert any("deinterlacing" in line for event in memory.events if event.info for line in event.info.notices)
    assert memory.numbers == list(range(10))


def test_passwords_appear_nowhere():
    refused, lost = Memory(), Memory()
    with (
        Server(chunks_of(), status="401 Unauthorized") as server,
        running(open_feed(with_secrets(server.url), QUICK), refused) as thread,
    ):
        thread.join(LONG_S)
    assert isinstance(refused.error, InputError)
    with Server(chunks_of()) as server, running(open_feed(with_secrets(server.url), QUICK), lost):
        lost.wait_frames(3)
        server.kill()
        lost.wait_state(FeedState.RETRYING, 2)
    names = [event.info.name for event in lost.events if event.info]
    for said in [str(refused.error), *lost.told, *names]:
        assert not any(secret in said for secret in ("nurse", "sesame", "mellon")), said
    assert any("127.0.0.1" in line for line in lost.told)


def with_secrets(url: str) -> str:
    return url.replace("127.0.0.1", "nurse:sesame@127.0.0.1") + "?token=mellon"


def test_what_waiting_cannot_mend_ends_the_first_opening():
    memory = Memory()
    with Server((bytes(range(256)) * 8000,)) as server, running(open_feed(server.url, QUICK), memory) as thread:
        thread.join(LONG_S)
        assert not thread.is_alive()
    assert isinstance(memory.error, InputError)
    assert "\n" not in str(memory.error)


def test_a_feed_runs_once():
    feed = open_feed("testsrc:endoscopy:size=128x96,frames=1")
    feed.run(Memory())
    with pytest.raises(UsageError, match="once"):
        feed.run(Memory())


def test_the_reader_loads_nothing_that_it_does_not_need():
    program = (
        "import sys, streamsr.capture.reader, streamsr.capture.reception, streamsr.capture.rendition\n"
        "heavy = {'torch', 'cv2', 'openvino', 'onnxruntime', 'typer'} & {name.split('.')[0] for name in sys.modules}\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
