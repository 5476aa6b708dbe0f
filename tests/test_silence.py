"""Silence: what a decoder or a demuxer held over a pause of the source is never shown as new."""

from __future__ import annotations

import os
import time
from fractions import Fraction
from pathlib import Path

import pytest

from streamsr.capture.feeds import open_feed
from streamsr.capture.listening import FeedState
from streamsr.capture.silence import Silence
from streamsr.config import FeedSettings
from tests.feeders import Memory, chunks_of, running, standard_input
from tests.videos import make_video

B_FRAMES = (("g", "10"), ("bf", "2"), ("preset", "ultrafast"), ("qp", "20"))
PERIOD_NS = 40_000_000


@pytest.mark.parametrize("form", ["mpegts", "mjpeg"])
def test_a_picture_held_over_a_silence_is_not_shown_and_said(form: str) -> None:
    more = {} if form == "mpegts" else {"codec": "mjpeg", "pix_fmt": "yuvj420p", "options": ()}
    chunks, memory = chunks_of(form, num=40, **more), Memory()  # type: ignore[arg-type]
    with standard_input() as pipe, running(open_feed("-", FeedSettings(input_format=form, rate=None)), memory):
        for part, last in ((chunks[:20], 18), (chunks[20:], 38)):
            for chunk in part:
                os.write(pipe, chunk)
                time.sleep(0.02)
            memory.wait(lambda last=last: last in memory.numbers)
            time.sleep(1.0)  # far more than three periods
        os.close(pipe)
        memory.wait_state(FeedState.ENDED)
    assert 18 in memory.numbers
    assert 19 not in memory.numbers, "it was there before the silence"
    assert 20 in memory.numbers
    assert memory.numbers[-1] == 38, "the last one was there before the silence that the end came after"
    assert sum("before the silence: not shown" in line for line in memory.told) == 2


def test_pictures_that_a_decoder_reorders_are_not_shown_after_a_silence() -> None:
    chunks, memory = chunks_of("nut", num=40, options=B_FRAMES), Memory()
    with standard_input() as pipe, running(open_feed("-", FeedSettings(input_format="nut")), memory):
        os.write(pipe, b"".join(chunks[:20]))
        memory.wait(lambda: memory.numbers and memory.numbers[-1] >= 8)
        time.sleep(1.0)
        last = memory.numbers[-1]
        num_before = len(memory.frames)
        os.write(pipe, b"".join(chunks[20:]))
        os.close(pipe)
        memory.wait_state(FeedState.ENDED)
    assert any("before the silence: not shown" in line for line in memory.told)
    assert memory.numbers[num_before] > last + 1, "those behind it had come already"


def test_a_picture_that_the_deinterlacer_holds_is_not_shown_after_a_silence(tmp_path: Path) -> None:
    options = {"qscale": "2"}
    video = make_video(tmp_path / "a.ts", codec="mpeg2video", interlaced=True, num_frames=20, options=options)
    memory = Memory()
    with standard_input() as pipe, running(open_feed("-", FeedSettings(input_format="mpegts")), memory):
        os.write(pipe, video.read_bytes()[:60000])
        memory.wait(lambda: memory.frames)
        time.sleep(1.0)
        num_before = len(memory.frames)
        os.close(pipe)
        memory.wait_state(FeedState.ENDED)
    assert any("deinterlacing" in line for event in memory.events if event.info for line in event.info.notices)
    assert len(memory.frames) == num_before
    assert any("before the silence: not shown" in line for line in memory.told)


def follow(silence: Silence, at_ns: int, place: int, seconds: Fraction, wait_ns: int) -> None:
    silence.ask(at_ns - wait_ns)
    silence.answer(at_ns)
    silence.packet(place, seconds, at_ns)


def test_a_slow_source_is_not_silent_though_it_states_another_rate() -> None:
    silence, second = Silence(0.04, holds=True), 10**9
    for number in range(5):
        follow(silence, (number + 1) * second, number, Fraction(number), second)
        assert not silence.is_stale(number, (number + 1) * second)
    assert silence.num_silences == 0


def test_what_follows_a_silence_by_the_sources_own_clock_is_new() -> None:
    silence = Silence(0.04, holds=True)
    for number in range(5):
        follow(silence, (number + 1) * PERIOD_NS, number, Fraction(number, 25), PERIOD_NS)
    at_ns = 100 * PERIOD_NS
    follow(silence, at_ns, 100, Fraction(100, 25), 95 * PERIOD_NS)
    assert silence.num_silences == 1
    assert silence.is_stale(4, at_ns), "it came before, and comes out of the decoder now"
    assert not silence.is_stale(100, at_ns)
