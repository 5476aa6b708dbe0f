"""Spans: together they give every picture of the file once, with its samples and its time, open groups included."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamsr.capture import open_source
from streamsr.capture.spans import SpanSource, cut, read_times
from streamsr.frame import Frame
from tests.videos import make_video

OPEN = {"g": "6", "bf": "3", "x264-params": "open-gop=1:scenecut=0:keyint=6:min-keyint=6:bframes=3:b-adapt=0"}
HEVC = {"x265-params": "open-gop=1:keyint=6:min-keyint=6:bframes=3:log-level=none"}
UNEVEN = [0, 40, 95, 130, 200, 500, 900, 1000, 1010, 1300, 1340, 1400, 1555, 1600, 1700, 1800, 1999, 2000, 2040, 2500]

FILES: dict[str, tuple[str, dict[str, Any]]] = {
    "closed": ("a.mp4", {"options": {"g": "5", "bf": "0"}}),
    "b-frames": ("a.mp4", {"options": {"g": "7", "bf": "2"}, "audio": True}),
    "open": ("a.mkv", {"options": OPEN}),
    "open-mp4": ("a.mp4", {"options": OPEN}),
    "open-ts": ("a.ts", {"options": OPEN}),
    "open-hevc": ("a.mkv", {"codec": "libx265", "options": HEVC}),
    "mpeg2": ("a.mpg", {"codec": "mpeg2video", "options": {"g": "6", "bf": "2"}}),
    "uneven": ("a.mkv", {"options": OPEN, "pts": UNEVEN, "time_base": Fraction(1, 1000)}),
    "intra": ("a.mov", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
}


def pictures(source: Any) -> list[Frame]:
    with source:
        return [item for item in source if isinstance(item, Frame)]


@pytest.mark.parametrize("name", FILES)
def test_spans_give_every_picture_once_as_it_is(name: str, tmp_path: Path) -> None:
    file, changes = FILES[name]
    video = make_video(tmp_path / file, **{"num_frames": 20, **changes})
    times = read_times(video)
    assert times is not None
    spans = cut(times, 0.2)
    assert len(spans) >= 2
    whole = pictures(open_source(video))
    assert len(whole) == 20
    found = [pictures(SpanSource(video, span)) for span in spans]
    assert [len(part) for part in found] == [span.num_frames for span in spans]
    joined = [frame for part in found for frame in part]
    assert [frame.pts for frame in joined] == [frame.pts for frame in whole]
    for ours, theirs in zip(joined, whole, strict=True):
        assert all(np.array_equal(*planes) for planes in zip(ours.planes, theirs.planes, strict=True))


def test_a_span_has_no_tracks_that_pass_and_is_whole(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4", audio=True, num_frames=20, options={"g": "5"})
    times = read_times(video)
    assert times is not None
    span = cut(times, 0.2)[1]
    with SpanSource(video, span) as source:
        assert source.info.tracks == ()
        assert source.info.num_frames == span.num_frames
        assert all(isinstance(item, Frame) for item in source)
        assert source.report.complete


def test_times_in_doubt_are_not_cut(tmp_path: Path) -> None:
    bare = make_video(tmp_path / "raw.h264", container_format="h264")
    assert read_times(bare) is None
    whole = make_video(tmp_path / "a.ts", num_frames=12, options={"g": "4"})
    twice = tmp_path / "twice.ts"
    twice.write_bytes(whole.read_bytes() * 2)
    assert read_times(twice) is None


def test_a_span_that_cannot_be_decoded_says_so(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mkv", num_frames=20, options={"g": "5", "bf": "0"})
    times = read_times(video)
    assert times is not None
    span = cut(times, 0.2)[1]
    wrong = type(span)(span.start, span.stop, span.entry, span.num_frames + 2)
    with SpanSource(video, wrong) as source:
        assert len(list(source)) == span.num_frames
        assert not source.report.complete
