"""The pipe between reader and feed: whatever goes in comes out, and garbage is refused."""

from __future__ import annotations

import json
import os
import threading
from contextlib import contextmanager, suppress
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsr.capture.base import SourceInfo
from streamsr.capture.forms import form_of_info, frame_of, head_of_frame, info_of
from streamsr.capture.outlet import Outlet
from streamsr.capture.wire import MARK, PREFIX, Sending, WireError, WireReader, widen
from streamsr.frame import Colour, Frame, PlaneLayout, Siting

COLOUR = Colour(matrix=9, full_range=True, primaries=9, transfer=14, siting=Siting.TOP_LEFT, assumed=("matrix",))
LAYS = ("whole", "padded", "mirrored", "transposed", "bottom up")


@contextmanager
def pipe():
    reading, writing = os.pipe()
    widen(writing)
    os.set_blocking(writing, False)
    try:
        yield WireReader(reading), writing
    finally:
        for descriptor in (reading, writing):
            with suppress(OSError):
                os.close(descriptor)


def lay(samples, how):
    """Return an array of the same samples that lies otherwise in memory."""
    if how == "padded":
        wide = np.full((samples.shape[0], samples.shape[1] + 7), 99, samples.dtype)
        wide[:, : samples.shape[1]] = samples
        return wide[:, : samples.shape[1]]
    if how == "mirrored":
        return np.ascontiguousarray(samples[:, ::-1])[:, ::-1]
    if how == "transposed":
        return np.ascontiguousarray(samples.T).T
    if how == "bottom up":
        return np.ascontiguousarray(samples[::-1])[::-1]
    return samples


@st.composite
def frames(draw):
    layout = PlaneLayout(
        draw(st.sampled_from([None, (1, 1), (1, 0), (0, 0), (0, 1)])), draw(st.sampled_from([8, 10, 12, 16]))
    )
    width, height = draw(st.integers(1, 65)), draw(st.integers(1, 33))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    sizes = [(height, width), *([layout.chroma_size(width, height)[::-1]] * 2 if layout.chroma_shift else [])]
    how = draw(st.sampled_from(LAYS))
    return Frame(
        planes=tuple(lay(random.integers(0, layout.peak, size, layout.dtype, endpoint=True), how) for size in sizes),
        layout=layout,
        colour=replace(COLOUR, siting=draw(st.sampled_from(list(Siting)))),
        pts=draw(st.integers(-(1 << 62), 1 << 62)),
        time_base=draw(st.fractions(Fraction(1, 10**9), 10)),
        duration=3,
        sequence=draw(st.integers(0, 1 << 40)),
        sample_aspect=Fraction(16, 11),
        captured_ns=1 << 61,
        arrived_ns=(1 << 61) - 1,
    )


@given(frame=frames())
@settings(deadline=None, max_examples=80)
def test_every_frame_comes_out_as_it_went_in(frame):
    with pipe() as (reader, writing):
        assert Sending(head_of_frame(frame), frame.planes).advance(writing, 5.0)
        message = reader.read(5.0)
    came = frame_of(message)
    assert replace(came, planes=()) == replace(frame, planes=())
    assert len(came.planes) == len(frame.planes)
    for plane, sent in zip(came.planes, frame.planes, strict=True):
        assert plane.dtype == sent.dtype
        assert np.array_equal(plane, sent)


@given(data=st.binary(min_size=1, max_size=200))
@settings(deadline=None)
def test_garbage_is_refused_or_waited_for(data):
    with pipe() as (reader, writing):
        os.write(writing, data)
        os.close(writing)
        with pytest.raises((WireError, EOFError)):
            reader.read(5.0)


@pytest.mark.parametrize(
    "change",
    [
        {"planes": [[4, 4, 4]]},
        {"planes": [[4, 4, 4], [2, 2, 2], [2, 2, 3]]},
        {"planes": [[4, -4, 4], [2, 2, 2], [2, 2, 2]]},
        {"planes": [[1 << 40, 4, 4], [2, 2, 2], [2, 2, 2]]},
        {"planes": [[4, 4, 3], [2, 2, 2], [2, 2, 2]]},
        {"planes": [[2, 8, 8], [2, 2, 2], [2, 2, 2]]},
        {"planes": "many"},
        {"layout": [[1, 1], 9]},
        {"layout": [[3, 1], 8]},
        {"time_base": "1/0"},
        {"pts": "soon"},
        {"colour": {}},
    ],
    ids=str,
)
def test_a_frame_that_cannot_be_is_refused(change):
    planes = tuple(np.zeros(size, np.uint8) for size in ((4, 4), (2, 2), (2, 2)))
    frame = Frame(planes, PlaneLayout(), COLOUR, pts=0, time_base=Fraction(1, 25))
    head = {**head_of_frame(frame), "planes": [[4, 4, 4], [2, 2, 2], [2, 2, 2]], **change}
    text = json.dumps(head).encode()
    with pipe() as (reader, writing):
        os.write(writing, PREFIX.pack(MARK, len(text), 24) + text + bytes(24))
        message = reader.read(5.0)
    with pytest.raises(WireError):
        frame_of(message)


def test_lengths_beyond_reason_take_no_memory():
    with pipe() as (reader, writing):
        os.write(writing, PREFIX.pack(MARK, 10, (1 << 32) - 1))
        with pytest.raises(WireError, match="expected a message"):
            reader.read(5.0)


def test_a_message_may_come_in_pieces_and_after_a_wait():
    text = b'{"kind":"notice"}'
    data = PREFIX.pack(MARK, len(text), 0) + text
    with pipe() as (reader, writing):
        for byte in data[:-1]:
            os.write(writing, bytes([byte]))
            assert reader.read(0.0) is None
        os.write(writing, data[-1:] + data)
        assert reader.read(5.0).head == reader.read(5.0).head == {"kind": "notice"}


def test_what_is_known_of_a_source_survives_the_way():
    info = SourceInfo(
        name="camera",
        width=5,
        height=3,
        layout=PlaneLayout(None, 10),
        colour=COLOUR,
        time_base=Fraction(1, 90000),
        rate=Fraction(30000, 1001),
        sample_aspect=Fraction(4, 3),
        num_frames=None,
        duration_s=1.5,
        codec="h264",
        pix_fmt="gray10le",
        notices=("assuming BT.601 (SD)",),
    )
    assert info_of(json.loads(json.dumps(form_of_info(info)))) == info
    with pytest.raises(WireError):
        info_of({**form_of_info(info), "rate": "fast"})


def test_of_waiting_pictures_the_newest_is_sent_and_no_word_is_lost():
    plane = np.zeros((600, 1000), np.uint8)  # two do not fit into the pipe
    reading, writing = os.pipe()
    outlet = Outlet(writing)
    for number in range(20):
        outlet.give(Frame((plane,), PlaneLayout(None), COLOUR, pts=0, time_base=Fraction(1), sequence=number))
        outlet.tell("notice", str(number))
    closing = threading.Thread(target=outlet.close, args=(10.0,))
    closing.start()
    reader, numbers, notices = WireReader(reading), [], []
    while len(notices) < 20:
        head = reader.read(5.0).head
        (notices if head["kind"] == "notice" else numbers).append(int(head.get("sequence", head.get("text", -1))))
    closing.join()
    os.close(reading)
    os.close(writing)
    assert notices == list(range(20))
    assert numbers == sorted(numbers)
    assert numbers[-1] == 19
    assert len(numbers) < 20


def test_a_pipe_that_nobody_reads_any_more_holds_nobody_up():
    reading, writing = os.pipe()
    outlet = Outlet(writing)
    os.close(reading)
    for _ in range(3):
        outlet.give(Frame((np.zeros((9, 9), np.uint8),), PlaneLayout(None), COLOUR, pts=0, time_base=Fraction(1)))
    outlet.close(10.0)
    os.close(writing)
