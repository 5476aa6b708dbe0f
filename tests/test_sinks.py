"""The sinks room: what is written is read back with PyAV and compared with what went in."""
# ruff: noqa: PT012 - a sink is left by an exception inside `raises`, after it has been given frames

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from itertools import chain
from math import floor
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition

from streamsr.capture.base import Attachment, SourceInfo, TrackInfo
from streamsr.errors import DiskFull, Interrupted, OutputError, OutputExists, UsageError
from streamsr.frame import Colour, Frame, PlaneLayout, Siting
from streamsr.sinks import EncoderSettings, NullSink, RecordingSink, available_encoders, probe_encoder
from streamsr.sinks import recording as recording_room
from streamsr.sinks.base import SourceFacts
from streamsr.sinks.containers import MOV_FLAGS
from streamsr.sinks.drafts import explain
from streamsr.sinks.encoders import choose_encoding
from streamsr.sinks.planes import LAYOUTS, fit_planes
from streamsr.sinks.settings import ENCODERS

BT709 = Colour(matrix=1, full_range=False, primaries=1, transfer=1)
BT601 = Colour(matrix=5, full_range=False, primaries=5, transfer=6)
TB90K = Fraction(1, 90_000)
YUV420P = PlaneLayout()
LOSSLESS = EncoderSettings(codec="ffv1")


def make_frame(
    sequence: int,
    pts: int,
    time_base: Fraction = TB90K,
    *,
    layout: PlaneLayout = YUV420P,
    colour: Colour = BT709,
    size: tuple[int, int] = (64, 48),
    duration: int = 0,
    aspect: Fraction = Fraction(1),
    strided: bool = False,
) -> Frame:
    """Make a frame of noise that is the same for the same sequence number."""
    rng = np.random.default_rng(sequence)
    sizes = [size] + [layout.chroma_size(*size)] * (0 if layout.chroma_shift is None else 2)
    pad = 5 if strided else 0
    planes = tuple(
        rng.integers(0, layout.peak + 1, (height, width + pad), layout.dtype)[:, :width] for width, height in sizes
    )
    return Frame(planes, layout, colour, pts, time_base, duration, sequence, aspect)


def facts_of(frame: Frame, **known: Any) -> SourceInfo:
    """Describe a source whose frames are already of this size (scale 1)."""
    given = {"rate": Fraction(25), "sample_aspect": frame.sample_aspect} | known
    return SourceInfo("made", frame.width, frame.height, frame.layout, frame.colour, frame.time_base, **given)


def record(
    path: Path,
    frames: list[Frame],
    *,
    packets: Sequence[tuple[int, Any]] = (),
    facts: SourceInfo | None = None,
    **options: Any,
) -> RecordingSink:
    """Write frames, after packets."""
    with RecordingSink(path, facts=facts or facts_of(frames[0]), scale=1, **options) as sink:
        for track, packet in packets:
            sink.pass_through(track, packet)
        for frame in frames:
            sink.show(frame)
    return sink


def read_times(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


def read_times_until_damage(path: Path) -> list[Fraction]:
    """Read what a player shows of a file whose last packet may be cut."""
    times = []
    with av.open(str(path)) as container, contextlib.suppress(av.error.InvalidDataError):
        for frame in container.decode(video=0):
            times.append(frame.pts * frame.time_base)
    return times


def read_planes(path: Path, layout: PlaneLayout) -> list[list[np.ndarray[Any, Any]]]:
    with av.open(str(path)) as container:
        return [
            [
                np.frombuffer(plane, layout.dtype).reshape(plane.height, -1)[:, : plane.width].copy()
                for plane in picture.planes
            ]
            for picture in container.decode(video=0)
        ]


def times_of(frames: list[Frame], suffix: str, offset: Fraction = Fraction(0)) -> list[Fraction]:
    """Return the times that must come back: exact, or rounded to Matroska's millisecond."""
    exact = [frame.pts * frame.time_base + offset for frame in frames]
    return exact if suffix != ".mkv" else [Fraction(floor(time * 1000 + Fraction(1, 2)), 1000) for time in exact]


VARIABLE = [0, 3003, 6006, 9500, 20_000, 20_500, 33_333, 40_000, 90_000, 93_003, 96_006, 250_000]
TIMELINES = {
    "25 a second": (Fraction(1, 25), list(range(30))),
    "30000/1001": (Fraction(1001, 30_000), list(range(30))),
    "variable": (TB90K, VARIABLE),
    "an hour late": (TB90K, [pts + 90_000 * 3600 + 7 for pts in VARIABLE]),
    "a little late": (TB90K, [pts + 3003 for pts in VARIABLE]),
    "nanoseconds": (Fraction(1, 10**9), [41_234_567 * number for number in range(20)]),
    "MPEG-TS clock past 26 hours": (TB90K, [pts + 2**33 for pts in VARIABLE]),
}


# The contract of every sink


@pytest.fixture(params=["null", "recording"])
def sink(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    first = make_frame(0, 0)
    return NullSink() if request.param == "null" else RecordingSink(tmp_path / "a.mkv", facts=facts_of(first), scale=1)


def test_every_sink_counts_its_frames_and_ends_complete(sink: Any) -> None:
    with sink as entered:
        assert entered is sink
        for number in range(5):
            sink.show(make_frame(number, number * 3600))
    assert (sink.report.num_frames, sink.report.complete) == (5, True)


def test_every_sink_left_by_an_exception_lets_it_through_and_is_not_complete(sink: Any) -> None:
    with pytest.raises(Interrupted), sink:
        sink.show(make_frame(0, 0))
        raise Interrupted("asked to stop")
    assert (sink.report.num_frames, sink.report.complete) == (1, False)


def test_every_sink_takes_packets_of_tracks_it_does_not_know(sink: Any) -> None:
    with sink:
        sink.pass_through(7, av.Packet(b"data"))
        sink.show(make_frame(0, 0))
        sink.pass_through(7, av.Packet(b"data"))
    assert sink.report.complete


def test_every_sink_without_frames_ends_well_and_leaves_no_file(sink: Any, tmp_path: Path) -> None:
    with sink:
        pass
    assert sink.report.num_frames == 0
    assert list(tmp_path.iterdir()) == []


def test_source_info_fits_what_a_recording_asks_for() -> None:
    facts: SourceFacts = facts_of(make_frame(0, 0))
    assert facts.rate == 25


# Time


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov"])
@pytest.mark.parametrize("name", TIMELINES)
def test_every_pts_leaves_as_it_came(name: str, suffix: str, tmp_path: Path) -> None:
    time_base, all_pts = TIMELINES[name]
    frames = [make_frame(number, pts, time_base) for number, pts in enumerate(all_pts)]
    sink = record(tmp_path / f"a{suffix}", frames)
    assert sink.report.offset_s == 0
    assert read_times(sink.paths[0]) == times_of(frames, suffix)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_negative_times_move_by_one_stated_offset(suffix: str, tmp_path: Path) -> None:
    frames = [make_frame(number, pts - 45_001) for number, pts in enumerate(VARIABLE)]
    sink = record(tmp_path / f"a{suffix}", frames)
    assert sink.report.offset_s == pytest.approx(45_001 / 90_000)
    assert read_times(sink.paths[0]) == times_of(frames, suffix, Fraction(45_001, 90_000))
    assert any("before zero" in notice for notice in sink.report.notices)


def test_a_track_that_starts_before_zero_moves_the_pictures_by_whole_ticks(tmp_path: Path) -> None:
    frames = [make_frame(number, number, Fraction(1, 25)) for number in range(10)]
    sink = record(tmp_path / "a.mp4", frames, facts=facts_of(frames[0], start_s=-0.5))
    assert sink.report.offset_s == pytest.approx(13 / 25)
    assert read_times(sink.paths[0]) == [Fraction(number + 13, 25) for number in range(10)]


def test_b_frames_are_written_and_come_back_in_order(tmp_path: Path) -> None:
    frames = [make_smooth_frame(number) for number in range(40)]
    sink = record(tmp_path / "a.mp4", frames)
    with av.open(str(sink.paths[0])) as container:
        packet_pts = [packet.pts for packet in container.demux(video=0) if packet.size]
    assert packet_pts != sorted(packet_pts)
    assert read_times(sink.paths[0]) == times_of(frames, ".mp4")


def make_smooth_frame(number: int) -> Frame:
    """Make a frame of a moving gradient: noise would get no B-frames."""
    luma = np.add.outer(np.arange(48), np.arange(64) + 2 * number).astype(np.uint8)
    chroma = np.full((24, 32), 128, np.uint8)
    return Frame((luma, chroma, chroma), PlaneLayout(), BT709, number * 3600, TB90K, 3600, number)


def test_the_last_frame_keeps_its_duration(tmp_path: Path) -> None:
    frames = [make_frame(number, number * 3600, duration=3600) for number in range(9)]
    frames.append(make_frame(9, 9 * 3600, duration=45_000))
    sink = record(tmp_path / "a.mp4", frames)
    with av.open(str(sink.paths[0])) as container:
        assert container.streams.video[0].duration == 9 * 3600 + 45_000


# Samples and colour


@pytest.mark.parametrize("name", ["yuv420p", "yuv422p", "yuv444p", "gray", "yuv420p10le", "yuv422p10le", "yuv444p10le"])
@pytest.mark.parametrize("codec", ["libx264", "ffv1"])
@pytest.mark.parametrize("full_range", [False, True])
def test_lossless_gives_back_every_bit(name: str, codec: str, full_range: bool, tmp_path: Path) -> None:
    layout, colour = LAYOUTS[name], Colour(1, full_range, 1, 1)
    frames = [make_frame(number, number * 3600, layout=layout, colour=colour, strided=True) for number in range(4)]
    sink = record(tmp_path / "a.mkv", frames, settings=EncoderSettings(codec=codec, lossless=True))
    stored_as = "gray stored as 4:2:0 for libx264"
    assert sink.report.notices == ([stored_as] if (name, codec) == ("gray", "libx264") else [])
    read = read_planes(sink.paths[0], layout)
    assert len(read) == len(frames)
    for frame, planes in zip(frames, read, strict=True):
        for sent, came in zip(frame.planes, planes, strict=False):  # H.264 gets gray with neutral chroma
            np.testing.assert_array_equal(sent, came)


@pytest.mark.parametrize("name", ["gray12le", "yuv420p12le", "yuv444p16le", "gray16le", "yuv440p"])
def test_ffv1_gives_back_deep_and_rare_layouts(name: str, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    frame = make_frame(3, 0, layout=layout, size=(63, 47))
    sink = record(tmp_path / "a.mkv", [frame], settings=LOSSLESS)
    for sent, came in zip(frame.planes, read_planes(sink.paths[0], layout)[0], strict=True):
        np.testing.assert_array_equal(sent, came)


def test_lossless_hevc_and_av1_give_back_every_bit(tmp_path: Path) -> None:
    for codec in ("libx265", "libsvtav1"):
        if probe_encoder(codec) is not None:
            continue
        frames = [make_frame(number, number * 3600) for number in range(3)]
        settings = EncoderSettings(codec=codec, lossless=True)
        sink = record(tmp_path / f"{codec}.mkv", frames, settings=settings)
        for frame, planes in zip(frames, read_planes(sink.paths[0], frame_layout := frames[0].layout), strict=True):
            assert frame_layout.bit_depth == 8
            for sent, came in zip(frame.planes, planes, strict=True):
                np.testing.assert_array_equal(sent, came)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov"])
@pytest.mark.parametrize(
    "colour",
    [BT709, BT601, Colour(6, True, 6, 6), Colour(9, False, 9, 14), Colour(5, True, 1, 13)],
    ids=["709", "601-625", "601-525 full", "2020", "webcam"],
)
def test_colour_tags_are_written_in_the_bitstream_and_read_back(colour: Colour, suffix: str, tmp_path: Path) -> None:
    sink = record(tmp_path / f"a{suffix}", [make_frame(number, number * 3600, colour=colour) for number in range(3)])
    with av.open(str(sink.paths[0])) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
        track = container.streams.video[0].codec_context
        found = [(track.colorspace, track.color_range == 2, track.color_primaries, track.color_trc)]
        bare: Any = av.CodecContext.create("h264", "r")  # knows nothing of the container
        bare.extradata = track.extradata
        for packet in [*packets, None]:
            for _ in bare.decode(None if packet is None else av.Packet(packet)):
                found.append((bare.colorspace, bare.color_range == 2, bare.color_primaries, bare.color_trc))
    assert len(found) == 4
    assert set(found) == {(colour.matrix, colour.full_range, colour.primaries, colour.transfer)}


@pytest.mark.parametrize(
    ("siting", "element"), [(Siting.LEFT, (1, 2)), (Siting.CENTRE, (2, 2)), (Siting.TOP_LEFT, (1, 1))]
)
def test_chroma_siting_is_written(siting: Siting, element: tuple[int, int], tmp_path: Path) -> None:
    colour = Colour(1, False, 1, 1, siting)
    sink = record(tmp_path / "a.mkv", [make_frame(0, 0, colour=colour)])
    across, down = element  # Matroska: 0x55B7 ChromaSitingHorz and 0x55B8 ChromaSitingVert, 1 co-sited, 2 half
    written = sink.paths[0].read_bytes()
    assert bytes([0x55, 0xB7, 0x81, across]) in written
    assert bytes([0x55, 0xB8, 0x81, down]) in written


def test_chroma_siting_without_a_code_is_said(tmp_path: Path) -> None:
    colour = Colour(1, False, 1, 1, Siting.RIGHT)
    sink = record(tmp_path / "a.mkv", [make_frame(0, 0, colour=colour)])
    assert any("siting right" in notice for notice in sink.report.notices)
    assert bytes([0x55, 0xB7, 0x81]) not in sink.paths[0].read_bytes()


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_sample_aspect_is_kept(suffix: str, tmp_path: Path) -> None:
    aspect = Fraction(16, 11)
    sink = record(tmp_path / f"a{suffix}", [make_frame(number, number * 3600, aspect=aspect) for number in range(3)])
    with av.open(str(sink.paths[0])) as container:
        assert container.streams.video[0].sample_aspect_ratio == aspect


def test_odd_sizes_are_padded_by_one_repeated_pixel_and_said(tmp_path: Path) -> None:
    frame = make_frame(1, 0, size=(63, 47))
    sink = record(tmp_path / "a.mkv", [frame], settings=EncoderSettings(lossless=True))
    luma = read_planes(sink.paths[0], frame.layout)[0][0]
    assert luma.shape == (48, 64)
    np.testing.assert_array_equal(luma[:47, :63], frame.planes[0])
    np.testing.assert_array_equal(luma[:47, 63], frame.planes[0][:, -1])
    np.testing.assert_array_equal(luma[47, :63], frame.planes[0][-1])
    assert any("padded from 63x47 to 64x48" in notice for notice in sink.report.notices)


@pytest.mark.parametrize(("name", "codec"), [("yuv444p", "libx264"), ("gray", "ffv1"), ("yuv420p", "ffv1")])
def test_odd_sizes_are_kept_where_the_encoder_holds_them(name: str, codec: str, tmp_path: Path) -> None:
    frame = make_frame(1, 0, size=(63, 47), layout=LAYOUTS[name])
    sink = record(tmp_path / "a.mkv", [frame], settings=EncoderSettings(codec=codec))
    assert sink.report.notices == []
    with av.open(str(sink.paths[0])) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (63, 47)


def test_depth_the_encoder_lacks_is_reduced_by_rounding_and_said(tmp_path: Path) -> None:
    frame = make_frame(1, 0, layout=PlaneLayout((1, 1), 12))
    settings = EncoderSettings(codec="libx264", pix_fmt="auto", crf=0)
    sink = record(tmp_path / "a.mkv", [frame], settings=settings)
    assert any("reduced from 12-bit to 10-bit" in notice for notice in sink.report.notices)
    with av.open(str(sink.paths[0])) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p10le"
    fitted = fit_planes(frame, PlaneLayout((1, 1), 10))[0].astype(int)
    np.testing.assert_array_equal(fitted, np.minimum(np.rint(frame.planes[0] / 4), 1023))


def test_chroma_the_encoder_lacks_is_resampled_and_said(tmp_path: Path) -> None:
    if probe_encoder("prores_ks") is not None:
        pytest.skip("no ProRes encoder")
    frame = make_frame(1, 0)
    sink = record(tmp_path / "a.mov", [frame], settings=EncoderSettings(codec="prores_ks"))
    assert any("4:2:0 to 4:2:2" in notice for notice in sink.report.notices)
    assert any("widened from 8-bit to 10-bit" in notice for notice in sink.report.notices)


@pytest.mark.parametrize("siting", list(Siting))
@pytest.mark.parametrize(
    ("source", "target"),
    [((0, 0), (1, 1)), ((0, 0), (1, 0)), ((1, 1), (0, 0)), ((1, 0), (1, 1)), ((1, 1), (1, 0)), ((1, 0), (0, 1))],
)
def test_resampled_chroma_stays_where_it_was(siting: Siting, source: tuple[int, int], target: tuple[int, int]) -> None:
    """A ramp keeps its value at every place, whatever the siting: 4 levels a pixel across, 2 down."""
    ramp = lambda shift: chroma_ramp(shift, siting, (20, 16))  # noqa: E731
    luma = np.zeros((16, 20), np.uint8)
    frame = Frame((luma, ramp(source), ramp(source)), PlaneLayout(source), Colour(1, False, 1, 1, siting), 0, TB90K)
    came = fit_planes(frame, PlaneLayout(target))[1].astype(int)
    expected = ramp(target).astype(int)
    assert came.shape == expected.shape
    assert np.abs(came - expected)[2:-2, 2:-2].max() <= 1  # rounding; the border repeats


def chroma_ramp(shift: tuple[int, int], siting: Siting, size: tuple[int, int]) -> np.ndarray[Any, Any]:
    places = []
    for axis in (0, 1):
        step = 1 << shift[axis]
        places.append(np.arange(size[axis] // step) * step + ((step - 1) / 2 + siting.value[axis] if step > 1 else 0))
    return np.rint(20 + np.add.outer(2 * places[1], 4 * places[0])).astype(np.uint8)


@pytest.mark.parametrize("full_range", [False, True])
def test_colourless_stays_colourless_in_another_depth(full_range: bool) -> None:
    neutral = np.full((2, 2), 128, np.uint8)
    frame = Frame((neutral,) * 3, PlaneLayout((0, 0)), Colour(1, full_range, 1, 1), 0, TB90K)
    _, *chroma = fit_planes(frame, PlaneLayout((0, 0), 10))
    assert [int(sample) for plane in chroma for sample in plane.flat] == [512] * 8


def test_full_range_white_stays_white_in_another_depth() -> None:
    white = np.full((2, 2), 255, np.uint8)
    frame = Frame((white,), PlaneLayout(None), Colour(1, True, 1, 1), 0, TB90K)
    assert fit_planes(frame, PlaneLayout(None, 10))[0].max() == 1023
    assert (fit_planes(frame, PlaneLayout((1, 1), 10))[1] == 512).all()


# Encoders and settings


@pytest.mark.parametrize(
    "settings",
    [{"codec": "h266"}, {"crf": 99}, {"crf": -1}, {"pix_fmt": "rgb24"}, {"threads": -1}],
)
def test_settings_that_cannot_be_are_refused_at_once(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        EncoderSettings(**settings)


@pytest.mark.parametrize(
    ("codec", "highest"), [("libx264", 51), ("libx265", 51), ("h264_nvenc", 51), ("auto", 51), ("libsvtav1", 63)]
)
def test_crf_goes_as_far_as_the_encoder_takes_it(codec: str, highest: int) -> None:
    assert EncoderSettings(codec=codec, crf=highest).crf == highest
    with pytest.raises(UsageError, match=f"crf: expected 0 to {highest} for {codec}, got {highest + 1}"):
        EncoderSettings(codec=codec, crf=highest + 1)


@pytest.mark.parametrize(("codec", "preset"), [("libx264", "warp"), ("libsvtav1", "superfast"), ("auto", "warp")])
def test_an_unknown_preset_is_named_as_what_was_refused(codec: str, preset: str) -> None:
    with pytest.raises(UsageError, match=f"preset: expected one of .* for {codec}, got '{preset}'") as caught:
        EncoderSettings(codec=codec, preset=preset)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1"])
def test_every_preset_that_is_offered_opens(codec: str) -> None:
    fixed = ENCODERS[codec].fixed
    first, last = ENCODERS[codec].presets[0], ENCODERS[codec].presets[-1]
    for preset in (first, last, ENCODERS[codec].preset):
        assert probe_encoder(codec, width=64, height=64, options={"preset": preset} | fixed) is None


def test_a_preset_of_the_other_candidate_is_not_tried_and_writes_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    settings = EncoderSettings(codec="auto", preset="p5")
    with contextlib.suppress(UsageError):
        choose_encoding(settings, YUV420P, 64, 48)
    assert capfd.readouterr() == ("", "")


def test_a_size_the_encoder_cannot_hold_is_named_as_what_was_refused(capfd: pytest.CaptureFixture[str]) -> None:
    for codec in ("libx264", "libsvtav1"):
        with pytest.raises(UsageError, match=f"{codec} refuses the size 20000x16"):
            choose_encoding(EncoderSettings(codec=codec), YUV420P, 20_000, 16)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (EncoderSettings(codec="prores_ks", lossless=True), "no lossless mode"),
        (EncoderSettings(codec="libsvtav1", pix_fmt="yuv444p"), "cannot hold yuv444p"),
    ],
)
def test_an_encoding_that_cannot_be_is_refused_before_anything_is_made(
    settings: EncoderSettings, says: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=says):
        record(tmp_path / "a.mkv", [make_frame(0, 0)], settings=settings)
    assert list(tmp_path.iterdir()) == []


def test_lossless_is_refused_where_the_codec_would_drop_bits(tmp_path: Path) -> None:
    frame = make_frame(0, 0, layout=PlaneLayout((1, 1), 12))
    with pytest.raises(UsageError, match="cannot hold yuv420p12le"):
        record(tmp_path / "a.mkv", [frame], settings=EncoderSettings(lossless=True))


def test_probing_tells_what_works_from_what_does_not() -> None:
    assert probe_encoder("libx264") is None
    assert probe_encoder("libx264", "yuv420p12le") is not None
    assert probe_encoder("no_such_encoder") is not None
    encoders = available_encoders()
    assert encoders["libx264"] is None
    assert encoders["ffv1"] is None
    assert set(encoders) >= {"libx265", "libsvtav1", "prores_ks", "h264_nvenc", "hevc_nvenc"}


def test_auto_finds_an_encoder(tmp_path: Path) -> None:
    sink = record(tmp_path / "a.mkv", [make_frame(0, 0)], settings=EncoderSettings(codec="auto"))
    assert sink.report.encoder.split()[0] in ("h264_nvenc", "libx264")


def test_an_asked_pixel_format_is_written(tmp_path: Path) -> None:
    frame = make_frame(0, 0, layout=PlaneLayout((1, 0), 10))
    sink = record(tmp_path / "a.mkv", [frame], settings=EncoderSettings(pix_fmt="yuv420p"))
    with av.open(str(sink.paths[0])) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
    assert len(sink.report.notices) == 2


def test_gray_is_coded_without_colour_planes(tmp_path: Path) -> None:
    frame = make_frame(0, 0, layout=PlaneLayout(None))
    sink = record(tmp_path / "a.mkv", [frame], settings=EncoderSettings(codec="ffv1"))
    with av.open(str(sink.paths[0])) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "gray"


@pytest.mark.parametrize("codec", ["libx264", "libx265", "ffv1", "libsvtav1"])
def test_gray_is_written_with_its_matrix(codec: str, tmp_path: Path) -> None:
    frame = make_frame(0, 0, layout=PlaneLayout(None), colour=BT601)
    sink = record(tmp_path / "a.mkv", [frame], settings=EncoderSettings(codec=codec))
    with av.open(str(sink.paths[0])) as container:
        assert next(container.decode(video=0)).colorspace == 5
        assert container.streams.video[0].codec_context.colorspace == 5


@pytest.mark.parametrize("num_frames", [1, 2])
def test_one_or_two_pictures_of_x265_get_decode_times(tmp_path: Path, num_frames: int) -> None:
    for number in range(12):  # without mending, many are garbage, and some of it is refused by the muxer
        frames = [make_frame(pts, pts) for pts in range(num_frames)]
        sink = record(tmp_path / f"{number}.mp4", frames, settings=EncoderSettings(codec="libx265"))
        with av.open(str(sink.paths[0])) as container:
            times = [(packet.pts, packet.dts) for packet in container.demux(video=0) if packet.size]
        assert all(pts == dts for pts, dts in times)
        assert len(times) == num_frames


def test_lossless_h264_holds_gray_beside_neutral_chroma(tmp_path: Path) -> None:
    frame = make_frame(0, 0, layout=PlaneLayout(None))
    sink = record(tmp_path / "a.mkv", [frame], settings=EncoderSettings(lossless=True))
    luma, *chroma = read_planes(sink.paths[0], YUV420P)[0]
    assert np.array_equal(luma, frame.planes[0])
    assert all(np.all(plane == 128) for plane in chroma)


def test_encoders_write_nothing_to_the_terminal() -> None:
    lines = ["from streamsr.sinks import available_encoders", "available_encoders()"]
    ran = subprocess.run([sys.executable, "-c", "; ".join(lines)], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("", "")


# Names, interruption and full disks


@pytest.mark.parametrize("name", ["a.avi", "a.ts", "a", "a.xyz"])
def test_containers_that_cannot_hold_a_recording_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.mkv"):
        record(tmp_path / name, [make_frame(0, 0)])
    assert list(tmp_path.iterdir()) == []


def test_a_codec_the_container_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.mp4 files hold no prores_ks"):
        record(tmp_path / "a.mp4", [make_frame(0, 0)], settings=EncoderSettings(codec="prores_ks"))
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.mkv").write_bytes(b"precious")
    with pytest.raises(OutputExists, match="-y"):
        record(tmp_path / "a.mkv", [make_frame(0, 0)])
    assert (tmp_path / "a.mkv").read_bytes() == b"precious"
    assert len(list(tmp_path.iterdir())) == 1


def test_an_existing_file_is_replaced_when_allowed(tmp_path: Path) -> None:
    (tmp_path / "a.mkv").write_bytes(b"old")
    record(tmp_path / "a.mkv", [make_frame(0, 0)], overwrite=True)
    assert len(read_times(tmp_path / "a.mkv")) == 1


def test_an_existing_file_survives_a_run_that_fails_although_it_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.mkv").write_bytes(b"old")
    facts = facts_of(make_frame(0, 0))
    with pytest.raises(Interrupted), RecordingSink(tmp_path / "a.mkv", facts=facts, scale=1, overwrite=True) as sink:
        sink.show(make_frame(0, 0))
        raise Interrupted("stop")
    assert (tmp_path / "a.mkv").read_bytes() == b"old"
    assert len(read_times(tmp_path / "a.partial.mkv")) == 1


@pytest.mark.parametrize("links", [True, False], ids=["with hard links", "without"])
def test_a_file_that_appears_meanwhile_is_not_replaced(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", refuse_link)
    facts = facts_of(make_frame(0, 0))
    sink = RecordingSink(tmp_path / "a.mkv", facts=facts, scale=1)
    with pytest.raises(OutputExists, match="partial"), sink:
        sink.show(make_frame(0, 0))
        (tmp_path / "a.mkv").write_bytes(b"theirs")
    assert (tmp_path / "a.mkv").read_bytes() == b"theirs"
    assert sink.paths == [tmp_path / "a.partial.mkv"]
    assert len(read_times(sink.paths[0])) == 1


def refuse_link(*_: Any) -> None:
    raise OSError(errno.EPERM, "no hard links here")


def test_a_disk_without_hard_links_gets_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", refuse_link)
    sink = record(tmp_path / "a.mkv", [make_frame(0, 0)])
    assert [path.name for path in tmp_path.iterdir()] == ["a.mkv"]
    assert sink.report.complete


@pytest.mark.parametrize("place", ["missing/a.mkv", "file/a.mkv"])
def test_a_folder_that_is_none_is_one_line(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError) as caught:
        record(tmp_path / place, [make_frame(0, 0)])
    assert "a.mkv" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [240, 300])
def test_a_name_that_is_too_long_is_one_line(length: int, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="choose a shorter one") as caught:
        record(tmp_path / f"{'n' * (length + 5)}.mkv", [make_frame(0, 0)])
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_and_takes_no_files_is_not_called_missing(tmp_path: Path) -> None:
    gone = FileNotFoundError(errno.ENOENT, "No such file or directory")
    assert f"{tmp_path} takes no new files" in str(explain(gone, tmp_path / "a.mkv"))
    assert "create it" in str(explain(gone, tmp_path / "missing" / "a.mkv"))


def test_a_folder_as_target_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mkv").mkdir()
    with pytest.raises(OutputError, match="folder"):
        record(tmp_path / "a.mkv", [make_frame(0, 0)], overwrite=True)


def test_nothing_has_the_final_name_while_it_is_written(tmp_path: Path) -> None:
    facts = facts_of(make_frame(0, 0))
    with RecordingSink(tmp_path / "a.mkv", facts=facts, scale=1) as sink:
        sink.show(make_frame(0, 0))
        (draft,) = tmp_path.iterdir()
        assert draft.name.startswith(".a.")
    assert [path.name for path in tmp_path.iterdir()] == ["a.mkv"]


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
@pytest.mark.parametrize("cause", [Interrupted("stop"), RuntimeError("broken"), KeyboardInterrupt()], ids=repr)
def test_leaving_by_an_exception_keeps_every_frame_under_the_partial_name(
    cause: BaseException, suffix: str, tmp_path: Path
) -> None:
    frames = [make_frame(number, number * 3600) for number in range(30)]
    sink = RecordingSink(tmp_path / f"a{suffix}", facts=facts_of(frames[0]), scale=1)
    with pytest.raises(type(cause)), sink:
        for frame in frames:
            sink.show(frame)
        raise cause
    assert [path.name for path in tmp_path.iterdir()] == [f"a.partial{suffix}"]
    assert read_times(sink.paths[0]) == times_of(frames, suffix)


def test_an_earlier_partial_file_is_not_lost(tmp_path: Path) -> None:
    for _ in range(2):
        facts = facts_of(make_frame(0, 0))
        with pytest.raises(Interrupted), RecordingSink(tmp_path / "a.mkv", facts=facts, scale=1) as sink:
            sink.show(make_frame(0, 0))
            raise Interrupted("stop")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.partial-2.mkv", "a.partial.mkv"]


def test_an_interrupt_before_the_first_frame_leaves_nothing(tmp_path: Path) -> None:
    facts = facts_of(make_frame(0, 0))
    with pytest.raises(Interrupted), RecordingSink(tmp_path / "a.mkv", facts=facts, scale=1):
        raise Interrupted("stop")
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, sys
sys.path.insert(0, {tests!r})
from test_sinks import RecordingSink, facts_of, make_frame
from pathlib import Path
sink = RecordingSink(Path({path!r}), facts=facts_of(make_frame(0, 0)), scale=1)
sink.__enter__()
for number in range(260):
    sink.show(make_frame(number, number * 3600, size=(64, 48)))
os._exit(9)
"""


def skip_without_fragments(suffix: str) -> None:
    if suffix == ".mp4" and "hybrid" not in MOV_FLAGS:
        pytest.skip("this FFmpeg writes MP4 in one piece only")


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_killed_run_leaves_a_draft_that_plays(suffix: str, tmp_path: Path) -> None:
    skip_without_fragments(suffix)
    code = KILLED.format(tests=str(Path(__file__).parent), path=str(tmp_path / f"a{suffix}"))
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    (draft,) = tmp_path.iterdir()
    times = read_times_until_damage(draft)
    assert 100 <= len(times) <= 260  # what the encoder and the last fragment held is gone
    assert times == [Fraction(number, 25) for number in range(len(times))]


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
@pytest.mark.parametrize("reserve", [1 << 20, 1 << 16, None], ids=["reserve", "small reserve", "no reserve"])
def test_a_full_disk_is_said_and_what_fits_is_kept(
    suffix: str, reserve: int | None, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_without_fragments(suffix)
    monkeypatch.setattr(recording_room, "RESERVE_BYTES", -(1 << 40) if reserve is None else reserve)
    settings = EncoderSettings(crf=0, preset="ultrafast")
    facts = facts_of(make_frame(0, 0, size=(160, 128)))
    sink = RecordingSink(small_disk / f"a{suffix}", facts=facts, scale=1, settings=settings)
    with pytest.raises(DiskFull, match="no space left") as caught, sink:
        for number in range(400):
            sink.show(make_frame(number, number * 3600, size=(160, 128)))
    assert [path.name for path in small_disk.iterdir()] == [f"a.partial{suffix}"]
    assert "\n" not in str(caught.value)
    times = read_times_until_damage(sink.paths[0]) if reserve is None else read_times(sink.paths[0])
    assert 0 < len(times) <= sink.report.num_frames < 400
    assert times == [Fraction(number, 25) for number in range(len(times))]
    if reserve is not None:
        assert "a.partial" in str(caught.value)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_an_error_while_closing_keeps_the_partial_file_and_says_so(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finish(self: Any, *, drain: bool = True) -> None:
        self.container.close()
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(recording_room.MovieFile, "finish", finish)
    expected = OutputError if code == errno.EIO else DiskFull
    with pytest.raises(expected, match=r"kept as .*a\.partial\.mkv"):
        record(tmp_path / "a.mkv", [make_frame(number, number * 3600) for number in range(60)])
    assert [path.name for path in tmp_path.iterdir()] == ["a.partial.mkv"]


# Changes of shape


def test_a_change_of_size_begins_a_new_part_with_untouched_times(tmp_path: Path) -> None:
    frames = [make_frame(number, number * 3600) for number in range(4)]
    frames += [make_frame(number, number * 3600, size=(96, 64)) for number in range(4, 9)]
    frames += [make_frame(number, number * 3600) for number in range(9, 11)]
    sink = record(tmp_path / "a.mkv", frames)
    assert [path.name for path in sink.paths] == ["a.mkv", "a.part2.mkv", "a.part3.mkv"]
    assert list(chain.from_iterable(map(read_times, sink.paths))) == times_of(frames, ".mkv")
    assert len(read_times(sink.paths[1])) == 5
    assert any("96x64" in notice and "a.part2.mkv" in notice for notice in sink.report.notices)
    assert sink.report.num_bytes == sum(path.stat().st_size for path in sink.paths)


@pytest.mark.parametrize(
    "change",
    [{"colour": BT601}, {"aspect": Fraction(4, 3)}, {"layout": PlaneLayout((1, 0), 10)}],
    ids=["colour", "aspect", "layout"],
)
def test_what_a_file_states_once_begins_a_new_part_when_it_changes(change: dict[str, Any], tmp_path: Path) -> None:
    sink = record(tmp_path / "a.mkv", [make_frame(0, 0), make_frame(1, 3600, **change), make_frame(2, 7200, **change)])
    assert [len(read_times(path)) for path in sink.paths] == [1, 2]


def test_parts_of_an_interrupted_run_all_have_partial_names(tmp_path: Path) -> None:
    facts = facts_of(make_frame(0, 0))
    with pytest.raises(Interrupted), RecordingSink(tmp_path / "a.mkv", facts=facts, scale=1) as sink:
        sink.show(make_frame(0, 0))
        sink.show(make_frame(1, 3600, size=(96, 64)))
        raise Interrupted("stop")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.part2.partial.mkv", "a.partial.mkv"]


def test_a_part_that_is_already_there_is_refused_before_work_begins(tmp_path: Path) -> None:
    (tmp_path / "a.part2.mkv").write_bytes(b"precious")
    with pytest.raises(OutputExists, match=r"a\.part2\.mkv"):
        record(tmp_path / "a.mkv", [make_frame(0, 0)])


# Tracks, attachments and metadata


SUBTITLES = "1\n00:00:00,100 --> 00:00:00,500\nPolyp\n\n2\n00:00:00,600 --> 00:00:00,900\nCaecum\n"


def make_audio(path: Path, codec: str, *, start: int = 0, disposition: Disposition = Disposition.default) -> Path:
    """Write one second of a tone, whose first packet is at ``start`` samples of 48 kHz, less the priming."""
    options = {"avoid_negative_ts": "disabled"} if start < 0 else {}
    with av.open(str(path), "w", container_options=options) as container:
        container.metadata["title"] = "Jane Doe 1970-01-01"
        track: Any = container.add_stream(codec, rate=48_000)
        track.codec_context.layout, track.disposition = "mono", disposition.value
        track.metadata.update({"language": "deu", "title": "Dr Doe dictates"})
        for number in range(25):
            tone = np.sin(np.arange(1920) / 20 + number)[None].astype(np.float32)
            layout = "s16" if codec.startswith("pcm") else "fltp"
            samples = (tone * 8000).astype(np.int16) if layout == "s16" else tone * 0.2
            heard = av.AudioFrame.from_ndarray(samples, layout, "mono")
            heard.sample_rate, heard.pts, heard.time_base = 48_000, start + number * 1920, Fraction(1, 48_000)
            container.mux(track.encode(heard))
        container.mux(track.encode(None))
    return path


def read_packets(path: Path) -> list[tuple[Fraction, bytes]]:
    with av.open(str(path)) as container:
        return [
            (packet.pts * packet.time_base, bytes(packet))
            for packet in container.demux()
            if packet.size and packet.stream.type != "video"
        ]


def record_with_tracks(path: Path, source: Path, **options: Any) -> RecordingSink:
    """Record 30 frames beside every track of a file, attachments included."""
    with av.open(str(source)) as container:
        tracks = tuple(
            TrackInfo(track.index, track.type, track.codec_context.name, track)
            for track in container.streams
            if track.type in ("audio", "subtitle")
        )
        frames = [make_frame(number, number * 3600) for number in range(30)]
        packets = [(packet.stream.index, packet) for packet in container.demux(*(track.template for track in tracks))]
        known = {"tracks": tracks, "metadata": dict(container.metadata)} | options.pop("known", {})
        return record(path, frames, packets=packets, facts=facts_of(frames[0], **known), **options)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
@pytest.mark.parametrize("source", ["aac.mp4", "aac.mkv", "libopus.mkv", "libmp3lame.mp4", "pcm_s16le.wav", "flac.mkv"])
def test_audio_is_copied_packet_for_packet_at_its_times(source: str, suffix: str, tmp_path: Path) -> None:
    made = make_audio(tmp_path / f"in-{source}", source.split(".")[0])
    sink = record_with_tracks(tmp_path / f"a{suffix}", made)
    sent, came = read_packets(made), read_packets(sink.paths[0])
    assert b"".join(data for _, data in came) == b"".join(data for _, data in sent)
    tolerance = Fraction(1, 1000) if ".mkv" in (suffix, made.suffix) else Fraction(1, 48_000)
    if not source.startswith("pcm"):  # readers cut raw samples into packets as they please
        assert len(came) == len(sent)
        assert max(abs(a - b) for (a, _), (b, _) in zip(sent, came, strict=True)) <= tolerance
    assert read_times(sink.paths[0])[:2] == [0, Fraction(1, 25)]
    assert sink.report.offset_s == 0
    assert sink.report.notices == []


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_audio_with_transport_headers_is_rewrapped_for_files(suffix: str, tmp_path: Path) -> None:
    made = make_audio(tmp_path / "in.ts", "aac")
    sink = record_with_tracks(tmp_path / f"a{suffix}", made)
    assert sink.report.notices == []
    with av.open(str(made)) as sent, av.open(str(sink.paths[0])) as came:
        heard = [np.concatenate([f.to_ndarray() for f in file.decode(audio=0)], axis=1) for file in (sent, came)]
    np.testing.assert_array_equal(*heard)


def test_sound_and_picture_stay_together_when_they_are_moved(tmp_path: Path) -> None:
    made = make_audio(tmp_path / "in.mkv", "flac", start=-24_000)
    sink = record_with_tracks(tmp_path / "a.mp4", made)
    assert sink.report.offset_s == pytest.approx(0.5)
    assert read_times(sink.paths[0])[0] == Fraction(1, 2)
    sent, came = read_packets(made), read_packets(sink.paths[0])
    assert sent[0][0] == Fraction(-1, 2)
    assert came[0][0] == 0


def test_a_packet_whose_time_falls_back_is_left_out_alone(tmp_path: Path) -> None:
    made = make_audio(tmp_path / "in.mkv", "flac")
    with av.open(str(made)) as container:
        track = container.streams.audio[0]
        packets = [packet for packet in container.demux(track) if packet.size]
        packets[5].pts = packets[5].dts = 3
        frames = [make_frame(number, number * 3600) for number in range(30)]
        facts = facts_of(frames[0], tracks=(TrackInfo(0, "audio", "flac", track),))
        sink = record(tmp_path / "a.mkv", frames, packets=[(0, packet) for packet in packets], facts=facts)
    assert any("1 packets of track 0 left out" in notice for notice in sink.report.notices)
    assert len(read_packets(sink.paths[0])) == len(packets) - 1
    assert len(read_times(sink.paths[0])) == 30


def make_subtitles(tmp_path: Path) -> Path:
    made = tmp_path / "in.srt"
    made.write_text(SUBTITLES)
    return made


def test_subtitles_are_copied_into_matroska(tmp_path: Path) -> None:
    made = make_subtitles(tmp_path)
    sink = record_with_tracks(tmp_path / "a.mkv", made)
    assert read_packets(sink.paths[0]) == read_packets(made)


def test_a_track_the_container_cannot_hold_is_left_out_and_named(tmp_path: Path) -> None:
    sink = record_with_tracks(tmp_path / "a.mp4", make_subtitles(tmp_path))
    assert sink.report.notices == ["subtitle track 0 (srt) left out: .mp4 files do not hold it"]
    assert len(read_times(sink.paths[0])) == 30
    assert sink.report.complete


def test_attachments_are_copied_into_matroska_and_named_elsewhere(tmp_path: Path) -> None:
    font = Attachment("a.ttf", "font/ttf", b"glyphs" * 9)
    made = make_subtitles(tmp_path)
    sink = record_with_tracks(tmp_path / "a.mkv", made, known={"attachments": (font,)})
    with av.open(str(sink.paths[0])) as container:
        (attached,) = container.streams.attachments
        assert (attached.metadata["filename"], attached.metadata["mimetype"]) == ("a.ttf", "font/ttf")
        assert bytes(attached.data) == font.data
    sink = record_with_tracks(tmp_path / "a.mp4", made, known={"attachments": (font,)})
    assert any("attachment a.ttf left out" in notice for notice in sink.report.notices)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_metadata_that_may_name_a_patient_stays_behind(suffix: str, tmp_path: Path) -> None:
    made = make_audio(tmp_path / "in.mkv", "aac")
    sink = record_with_tracks(tmp_path / f"a{suffix}", made, marks={"ENHANCED_BY": "streamsr fast-x2"})
    assert b"Doe" not in sink.paths[0].read_bytes()
    with av.open(str(sink.paths[0])) as container:
        assert container.metadata["ENHANCED_BY"] == "streamsr fast-x2"
        assert container.streams.audio[0].language == "deu"


def test_what_a_track_is_for_is_kept(tmp_path: Path) -> None:
    made = make_audio(tmp_path / "in.mkv", "aac", disposition=Disposition.comment)
    sink = record_with_tracks(tmp_path / "a.mkv", made)
    with av.open(str(sink.paths[0])) as container:
        assert Disposition.comment in container.streams.audio[0].disposition


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_metadata_is_kept_when_asked(suffix: str, tmp_path: Path) -> None:
    made = make_audio(tmp_path / "in.mkv", "aac")
    sink = record_with_tracks(tmp_path / f"a{suffix}", made, keep_metadata=True)
    with av.open(str(sink.paths[0])) as container:
        assert container.metadata["title"] == "Jane Doe 1970-01-01"
        assert b"Dr Doe dictates" in sink.paths[0].read_bytes()


def test_tracks_go_on_in_the_next_part(tmp_path: Path) -> None:
    made = make_audio(tmp_path / "in.mkv", "flac")
    with av.open(str(made)) as container:
        track = container.streams.audio[0]
        packets = [packet for packet in container.demux(track) if packet.size]
        facts = facts_of(make_frame(0, 0), tracks=(TrackInfo(0, "audio", "flac", track),))
        with RecordingSink(tmp_path / "a.mkv", facts=facts, scale=1) as sink:
            for number, packet in enumerate(packets):
                sink.show(make_frame(number, number * 9600, size=(64, 48) if number < 5 else (96, 64)))
                sink.pass_through(0, packet)
    assert [len(read_packets(path)) for path in sink.paths] == [5, len(packets) - 5]
    assert list(chain.from_iterable(map(read_packets, sink.paths))) == read_packets(made)
