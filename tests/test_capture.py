from __future__ import annotations

import gc
import os
from contextlib import suppress
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.format import VideoFormat
from hypothesis import given
from hypothesis import strategies as st

from streamsr.capture import open_source, probe
from streamsr.capture.base import SourceReport, TrackPacket
from streamsr.capture.decode import Decoder
from streamsr.capture.files import FileSource
from streamsr.capture.planes import choose_layout, describe_chroma_change, make_planar, view_planes
from streamsr.capture.tags import BT601_525, BT601_625, BT709, BT2020, Tags, decide_colour
from streamsr.capture.times import RisingTimes, Splicer
from streamsr.capture.upright import Turn, turn_of_matrix
from streamsr.errors import InputError, InputNotFound, UsageError
from streamsr.frame import Frame, PlaneLayout, Siting
from tests.videos import colourless, draw_picture, make_video, read_number

CLIPS = Path(__file__).parents[2] / "shared" / "clips"
TICKS_25 = 512
"""Units a frame in an MP4 of 25 frames a second as FFmpeg writes it (1/12800 s)."""


def read_all(path: Path, **options: Any) -> tuple[list[Frame], list[TrackPacket], FileSource]:
    with FileSource(path, **options) as source:
        items = list(source)
    frames = [item for item in items if isinstance(item, Frame)]
    return frames, [item for item in items if isinstance(item, TrackPacket)], source


def notices(source: FileSource) -> str:
    return "\n".join((*source.info.notices, *source.report.notices))


def numbers(frames: list[Frame]) -> list[int]:
    return [read_number(frame.planes[0]) for frame in frames]


# Opening


def test_missing_file_is_named_and_not_found(tmp_path):
    with pytest.raises(InputNotFound, match=r"gone\.mp4: no such file"):
        FileSource(tmp_path / "gone.mp4")


def test_a_transport_file_without_one_sound_picture_is_one_line(tmp_path):
    content = bytearray(make_video(tmp_path / "a.ts").read_bytes())
    noise = np.random.default_rng(0)
    for place in range(3 * 188, len(content)):
        if place % 188 >= 4 and noise.random() < 0.1:
            content[place] = noise.integers(256)
    (tmp_path / "a.ts").write_bytes(content)
    with pytest.raises(InputError, match="none that can be decoded"):
        FileSource(tmp_path / "a.ts")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.mp4", b"", "empty file"),
        ("letter.mp4", b"Dear colleague,\nplease find enclosed.\n", "text: not a video"),
        ("letter.txt", b"Dear colleague,\nplease find enclosed.\n" * 40, "not a video"),
        ("noise.mp4", np.random.default_rng(0).bytes(4000), "not a video"),
        ("cut.mkv", b"\x1aE\xdf\xa3" + bytes(range(200)), "damaged"),
    ],
)
def test_what_is_no_video_is_told_apart_in_one_line(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        FileSource(path)
    assert name in str(caught.value)
    assert "expected" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folder_and_forbidden_file_are_input_errors(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="folder"):
        FileSource(tmp_path)
    path = make_video(tmp_path / "a.mkv", num_frames=1)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match="permission"):
        FileSource(path)


def test_a_pipe_is_refused_without_waiting_for_its_writer(tmp_path):
    pipe = tmp_path / "live.mkv"
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes on this system")
    os.mkfifo(pipe)
    with pytest.raises(InputError, match=r"live\.mkv: expected a file, found a pipe"):
        FileSource(pipe)


def test_a_device_is_refused():
    if not Path("/dev/null").is_char_device():
        pytest.skip("no devices that are files on this system")
    with pytest.raises(InputError, match="expected a file, found a device"):
        FileSource("/dev/null")


def test_an_empty_name_is_called_empty():
    with pytest.raises(InputError, match="got an empty name"):
        open_source("")


def test_mp4_without_moov_says_recording_cut(tmp_path):
    data = make_video(tmp_path / "whole.mp4").read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: data.index(b"moov") - 4])
    with pytest.raises(InputError, match=r"no index \(recording cut\?\)"):
        FileSource(path)


def test_audio_only_and_frameless_files_hold_no_video(tmp_path):
    sound = tmp_path / "sound.wav"
    with av.open(str(sound), "w") as container:
        track = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        tone.sample_rate = 8000
        container.mux(track.encode(tone))
    with pytest.raises(InputError, match="no video: expected a video track, found audio"):
        FileSource(sound)
    for name in ("none.mp4", "none.mkv"):
        with pytest.raises(InputError, match="no video"):
            FileSource(make_video(tmp_path / name, num_frames=0))


@pytest.mark.parametrize("options", [{"resize": "crop"}, {"deinterlace": "maybe"}, {"rate": Fraction(0)}])
def test_impossible_options_are_usage_errors(tmp_path, options):
    with pytest.raises(UsageError, match="expected"):
        FileSource(make_video(tmp_path / "a.mkv", num_frames=1), **options)


def test_names_with_colons_and_percents_are_plain_names(tmp_path):
    for name in ("12:30:05 colon.mkv", "50%d.mkv"):
        path = tmp_path / name
        make_video(tmp_path / "a.mkv", num_frames=2).rename(path)
        frames, _, source = read_all(path)
        assert len(frames) == 2
        assert source.info.name == str(path)


def test_probe_reads_what_is_known_before_the_first_frame(tmp_path):
    path = make_video(tmp_path / "a.mp4", audio=True, num_frames=20, metadata={"title": "Doe, Jane"})
    info = probe(path)
    assert (info.width, info.height, info.rate, info.num_frames) == (64, 48, 25, 20)
    assert (info.codec, info.pix_fmt, info.layout) == ("h264", "yuv420p", PlaneLayout())
    assert [(track.kind, track.codec) for track in info.tracks] == [("audio", "aac")]
    assert info.metadata["title"] == "Doe, Jane"
    assert info.duration_s == pytest.approx(0.8, abs=0.06)


# Frames and their samples


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.mov", "a.ts", "a.avi", "a.nut"])
def test_frames_come_once_each_in_presentation_order(tmp_path, name):
    frames, _, source = read_all(make_video(tmp_path / name, num_frames=30, options={"bf": "2"}))
    assert numbers(frames) == list(range(30))
    assert [frame.sequence for frame in frames] == list(range(30))
    assert all(later.pts > earlier.pts for earlier, later in pairwise(frames))
    assert all(frame.captured_ns for frame in frames)
    assert source.report.num_frames == 30
    assert source.report.complete


def test_source_gives_its_items_once(tmp_path):
    with FileSource(make_video(tmp_path / "a.mkv", num_frames=3)) as source:
        assert len(list(source)) == 3
        assert list(source) == []


LAYOUTS = [
    ("yuv420p", (1, 1), 8),
    ("yuv422p", (1, 0), 8),
    ("yuv444p", (0, 0), 8),
    ("yuv440p", (0, 1), 8),
    ("gray", None, 8),
    ("yuv420p10le", (1, 1), 10),
    ("yuv422p10le", (1, 0), 10),
    ("yuv444p12le", (0, 0), 12),
    ("gray16le", None, 16),
]


@pytest.mark.parametrize(("pix_fmt", "shift", "bits"), LAYOUTS)
def test_planar_pictures_keep_every_sample(tmp_path, pix_fmt, shift, bits):
    picture = noise_picture(pix_fmt, 66, 50)
    frames, _, source = read_all(store(tmp_path, picture))
    assert source.info.layout == PlaneLayout(shift, bits)
    assert_planes_equal(frames[0].planes, planes_of(picture))


@pytest.mark.parametrize(
    ("packed", "planar"),
    [
        ("nv12", "yuv420p"),
        ("yuyv422", "yuv422p"),
        ("uyvy422", "yuv422p"),
        ("p010le", "yuv420p10le"),
        ("yuv420p10be", "yuv420p10le"),
        ("yuva420p", "yuv420p"),
    ],
)
def test_packed_pictures_are_rearranged_without_loss(packed, planar):
    original = noise_picture(planar, 66, 50)
    frame = original.reformat(format=packed, threads=1)
    layout = choose_layout(frame.format)
    colour = decide_colour(Tags(), layout=layout, height=50)
    assert layout.pix_fmt == planar
    assert_planes_equal(view_planes(make_planar(frame, layout, colour), layout), planes_of(original))


@pytest.mark.parametrize(
    ("pix_fmt", "expected"),
    [
        ("yuv411p", "yuv422p"),
        ("yuv410p", "yuv420p"),
        ("yuv420p9le", "yuv420p10le"),
        ("yuv422p14le", "yuv422p16le"),
        ("gray14le", "gray16le"),
        ("rgb24", "yuv444p"),
        ("gbrp10le", "yuv444p10le"),
        ("pal8", "yuv444p"),
        ("ya8", "gray"),
        ("monob", "gray"),
        ("yuvj422p", "yuv422p"),
    ],
)
def test_other_formats_go_to_the_nearest_layout_that_keeps_all(pix_fmt, expected):
    assert choose_layout(VideoFormat(pix_fmt, 64, 64)).pix_fmt == expected


def test_accelerator_formats_are_refused():
    with pytest.raises(InputError, match="memory"):
        choose_layout(VideoFormat("cuda", 64, 64))


@pytest.mark.parametrize("colour_range", [1, 2])
def test_rearranging_leaves_the_range_alone(colour_range):
    picture = noise_picture("yuv422p", 66, 50)
    layout = PlaneLayout((1, 0))
    colour = decide_colour(Tags(1, colour_range, 1, 1), layout=layout, height=50)
    packed = picture.reformat(format="yuyv422", threads=1)
    packed.color_range = colour_range
    assert_planes_equal(view_planes(make_planar(packed, layout, colour), layout), planes_of(picture))


@pytest.mark.parametrize(("height", "kr", "kb", "matrix"), [(720, 0.2126, 0.0722, 1), (480, 0.299, 0.114, 6)])
def test_rgb_becomes_full_range_444_by_the_stated_matrix(tmp_path, height, kr, kb, matrix):
    rgb = np.zeros((height, 64, 3), np.uint8)
    rgb[:, :32], rgb[:, 32:] = (200, 30, 60), (20, 180, 90)
    path = make_video(tmp_path / "a.avi", codec="rawvideo", pix_fmt="bgr24", pictures=[rgb[:, :, ::-1].copy()],
                      num_frames=1, width=64, height=height, rate=30)  # fmt: skip
    frames, _, source = read_all(path)
    colour = frames[0].colour
    assert (colour.matrix, colour.full_range) == (matrix, True)
    assert "RGB becomes YUV 4:4:4" in notices(source)
    for x in (8, 56):
        red, green, blue = (float(value) for value in rgb[4, x])
        y = kr * red + (1 - kr - kb) * green + kb * blue
        expected = (y, (blue - y) / (2 * (1 - kb)) + 128, (red - y) / (2 * (1 - kr)) + 128)
        found = [float(plane[4, x]) for plane in frames[0].planes]
        assert found == pytest.approx(expected, abs=1.01)


def test_alpha_is_dropped_and_said(tmp_path):
    frames, _, source = read_all(make_video(tmp_path / "a.mkv", codec="ffv1", pix_fmt="yuva420p"))
    assert len(frames[0].planes) == 3
    assert "alpha dropped" in source.info.notices


@pytest.mark.parametrize(
    ("pix_fmt", "said"),
    [
        ("yuv411p", "chroma resampled from 4:1:1 to 4:2:2"),
        ("yuv410p", "chroma resampled from 4:1:0 to 4:2:0"),
        ("yuv440p", None),
        ("yuv420p", None),
        ("yuva422p", None),
        ("nv12", None),
        ("gray", None),
        ("rgb24", None),
    ],
)
def test_a_change_of_subsampling_is_described(pix_fmt, said):
    assert describe_chroma_change(VideoFormat(pix_fmt)) == said


def test_resampled_chroma_of_the_source_is_said(tmp_path):
    info = probe(store(tmp_path, noise_picture("yuv411p", 64, 48)))
    assert info.layout == PlaneLayout((1, 0))
    assert "chroma resampled from 4:1:1 to 4:2:2" in info.notices


def test_odd_sizes_keep_their_last_row_and_column(tmp_path):
    path = make_video(tmp_path / "a.mkv", codec="ffv1", width=65, height=49, num_frames=2)
    frames, _, _ = read_all(path)
    assert [plane.shape for plane in frames[0].planes] == [(49, 65), (25, 33), (25, 33)]
    assert np.array_equal(frames[1].planes[0], draw_picture(1, width=65, height=49))


def test_planes_are_views_that_outlive_the_file(tmp_path):
    picture = noise_picture("yuv420p", 64, 48)
    layout = PlaneLayout()
    view = view_planes(picture, layout)[0]
    assert np.shares_memory(view, np.frombuffer(picture.planes[0], np.uint8))
    colour = decide_colour(Tags(), layout=layout, height=48)
    assert make_planar(picture, layout, colour) is picture
    frames, _, source = read_all(make_video(tmp_path / "a.mkv", codec="ffv1", num_frames=40))
    del source
    gc.collect()
    assert all(np.array_equal(frame.planes[0], draw_picture(index)) for index, frame in enumerate(frames))


# Time


def test_variable_rate_keeps_every_time(tmp_path):
    pts = [0, 40, 41, 200, 1000, 1033]
    frames, _, source = read_all(make_video(tmp_path / "a.mkv", pts=pts, time_base=Fraction(1, 1000)))
    assert [frame.pts for frame in frames] == pts
    assert frames[0].time_base == source.info.time_base == Fraction(1, 1000)
    assert source.info.rate <= 240


def test_ntsc_rate_is_exact(tmp_path):
    frames, _, source = read_all(make_video(tmp_path / "a.mp4", rate=Fraction(30000, 1001), num_frames=4))
    assert source.info.rate == Fraction(30000, 1001)
    assert [frame.pts * frame.time_base for frame in frames] == [n * Fraction(1001, 30000) for n in range(4)]


def test_negative_times_are_kept(tmp_path):
    pts = [-3, -1, 0, 2, 5]
    path = make_video(tmp_path / "a.ts", pts=pts, container_options={"avoid_negative_ts": "disabled"})
    frames, _, source = read_all(path)
    assert [frame.pts for frame in frames] == [value * 3600 for value in pts]
    assert source.info.start_s == pytest.approx(-0.12)


def test_pictures_hidden_by_an_edit_list_are_counted_not_shown(tmp_path):
    frames, _, source = read_all(make_video(tmp_path / "a.mp4", pts=[-2, -1, 0, 1, 2]))
    assert numbers(frames) == [2, 3, 4]
    assert "2 pictures are hidden" in notices(source)
    assert source.report.complete


def test_repeated_times_are_parted_and_the_rest_left_alone(tmp_path):
    path = make_video(tmp_path / "a.mkv", codec="ffv1", pts=[0, 1, 1, 2, 3])
    frames, _, source = read_all(path)
    assert numbers(frames) == [0, 1, 2, 3, 4]
    assert [frame.pts for frame in frames] == [0, 40, 60, 80, 120]
    assert "warning: times do not rise at 0.06 s: rebased" in notices(source)


def test_joined_recordings_go_on_where_the_first_ended(tmp_path):
    parts = [make_video(tmp_path / f"{first}.ts", first_number=first, num_frames=20, audio=True) for first in (0, 20)]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames, packets, source = read_all(path)
    assert numbers(frames) == list(range(40))
    steps = {later.pts - earlier.pts for earlier, later in pairwise(frames[:20])}
    assert steps == {3600}
    assert 3600 <= frames[20].pts - frames[19].pts <= 2 * 3600
    assert frames[39].pts - frames[20].pts == 19 * 3600
    times = [packet.packet.pts for packet in packets]
    assert times == sorted(times)
    per_part = len(times) // 2
    first_lead, second_lead = times[0] - frames[0].pts, times[per_part] - frames[20].pts
    assert abs(second_lead - first_lead) <= 1
    assert "clock jumps back" in notices(source)


def test_splicer_never_lets_decode_times_of_a_track_overlap():
    splicer = Splicer()
    moved: list[int] = []
    for track, pts in [(0, 0), (1, 500), (0, 1000), (1, 1500), (0, 0), (1, 0), (1, 10)]:
        packet = av.Packet(b"x")
        packet.pts = packet.dts = pts
        packet.time_base, packet.duration = Fraction(1, 1000), 1000
        splicer.move(packet, track)
        moved += [packet.dts] if track == 1 else []
    assert splicer.offsets_s == [0, Fraction(5, 2)]
    assert moved == [500, 1500, 2500, 2510]
    packet = av.Packet(b"x")
    packet.pts, packet.dts, packet.time_base = -1200, -1200, Fraction(1, 1000)
    splicer.offsets_s.append(Fraction(2))
    splicer.move(packet, 1)
    assert packet.dts == packet.pts == 2511


def test_raw_bitstream_takes_its_stated_rate_or_the_users(tmp_path):
    path = make_video(tmp_path / "a.h264", rate=30, num_frames=12)
    frames, _, source = read_all(path)
    assert numbers(frames) == list(range(12))
    assert [frame.pts * frame.time_base for frame in frames] == [Fraction(n, 30) for n in range(12)]
    assert "assuming 30 fps (its bitstream says so); set --rate" in source.info.notices
    frames, _, source = read_all(path, rate=Fraction(50))
    assert frames[-1].seconds == pytest.approx(11 / 50)
    assert "assuming" not in notices(source).replace("assuming BT", "")


def test_raw_pictures_without_a_rate_are_taken_at_25(tmp_path):
    path = make_video(
        tmp_path / "a.mjpeg", codec="mjpeg", pix_fmt="yuvj420p", container_format="mjpeg", rate=30, num_frames=3
    )
    frames, _, source = read_all(path)
    assert [frame.seconds for frame in frames] == pytest.approx([0, 0.04, 0.08])
    assert "assuming 25 fps; set --rate" in source.info.notices


def test_missing_times_follow_the_last_by_one_picture():
    times = RisingTimes(10)
    assert [times.next(pts) for pts in (None, None, 25, None, 30, 60)] == [0, 10, 25, 35, 40, 60]


@given(st.lists(st.none() | st.integers(-1000, 1000), max_size=40), st.integers(1, 50))
def test_times_always_rise_and_rising_ones_are_untouched(stamps, ticks):
    times = RisingTimes(ticks)
    given_out = [times.next(stamp) for stamp in stamps]
    assert all(later > earlier for earlier, later in pairwise(given_out))
    rising = sorted({stamp for stamp in stamps if stamp is not None})
    untouched = RisingTimes(ticks)
    assert [untouched.next(stamp) for stamp in rising] == rising


def test_splicer_moves_all_tracks_by_one_offset():
    splicer = Splicer()
    stamps = [(0, 0), (0, 1000), (1, 10), (0, 2000), (1, 2010), (1, 5), (0, 7), (0, 1007), (1, 4000), (1, 9)]
    moved = []
    for track, dts in stamps:
        packet = av.Packet(b"x")
        packet.dts = packet.pts = dts
        packet.time_base, packet.duration = Fraction(1, 1000), 1000 if track == 0 else 20
        splicer.move(packet, track)
        moved.append(packet.dts)
    assert splicer.offsets_s[1] == Fraction(3000 - (5 - 10), 1000)
    assert moved[:9] == [0, 1000, 10, 2000, 2010, 3010, 3012, 4012, 7005]
    assert moved[9] == 7025 + 10


# Colour


@pytest.mark.parametrize(
    ("size", "rate", "family", "said"),
    [
        ((1280, 720), 25, BT709, "assuming BT.709 (HD)"),
        ((720, 576), 25, BT601_625, "assuming BT.601 (SD)"),
        ((720, 480), 30, BT601_525, "assuming BT.601 (SD)"),
        ((640, 480), 25, BT601_525, "assuming BT.601 (SD)"),
        ((504, 388), 25, BT601_625, "assuming BT.601 (SD)"),
    ],
)
def test_untagged_colour_is_decided_by_height(tmp_path, size, rate, family, said):
    width, height = size
    info = probe(make_video(tmp_path / "a.mkv", width=width, height=height, rate=rate, num_frames=1))
    assert (info.colour.matrix, info.colour.primaries, info.colour.transfer) == family
    assert not info.colour.full_range
    assert set(info.colour.assumed) == {"matrix", "range", "primaries", "transfer"}
    assert said in info.notices


def test_stated_colour_is_never_overruled(tmp_path):
    tags = {"matrix": 1, "colour_range": 2, "primaries": 5, "transfer": 13}
    info = probe(make_video(tmp_path / "a.mkv", num_frames=1, **tags))
    colour = info.colour
    assert (colour.matrix, colour.full_range, colour.primaries, colour.transfer) == (1, True, 5, 13)
    assert colour.assumed == ()
    assert not any("assuming" in line for line in info.notices)


def test_partly_tagged_colour_is_filled_from_what_is_stated():
    layout = PlaneLayout()
    by_matrix = decide_colour(Tags(matrix=1), layout=layout, height=480)
    assert (by_matrix.matrix, by_matrix.primaries, by_matrix.transfer) == BT709
    assert by_matrix.assumed == ("range", "primaries", "transfer")
    by_primaries = decide_colour(Tags(primaries=9, transfer=16), layout=layout, height=1080)
    assert (by_primaries.matrix, by_primaries.primaries, by_primaries.transfer) == (BT2020[0], 9, 16)
    assert by_primaries.siting is Siting.TOP_LEFT


def test_rgb_matrix_on_yuv_samples_counts_as_missing():
    colour = decide_colour(Tags(matrix=0), layout=PlaneLayout(), height=1080)
    assert colour.matrix == 1
    assert "matrix" in colour.assumed


def test_jpeg_is_full_range_and_sited_in_the_middle(tmp_path):
    info = probe(make_video(tmp_path / "a.mkv", codec="mjpeg", pix_fmt="yuvj420p", num_frames=1))
    assert info.colour.full_range
    assert info.colour.siting is Siting.CENTRE
    assert info.layout == PlaneLayout()
    assert "assuming" not in "".join(info.notices)


def test_gray_needs_no_matrix_and_says_nothing(tmp_path):
    info = probe(make_video(tmp_path / "a.mkv", codec="ffv1", pix_fmt="gray", num_frames=1))
    assert info.layout.chroma_shift is None
    assert info.notices == ()


# Interlacing


def comb(plane: np.ndarray) -> float:
    lines = plane.astype(float)
    return float(np.abs(lines[1:-1] - (lines[:-2] + lines[2:]) / 2).mean())


def interlaced_pictures(num_frames: int, pix_fmt: str = "yuv420p") -> list[np.ndarray]:
    """Vertical bars that move by 8 px a field, so that the two fields of a frame comb."""
    made = []
    for index in range(num_frames):
        fields = [np.where(((np.arange(64) + 8 * (2 * index + field)) // 16) % 2, 200, 60) for field in (0, 1)]
        luma = np.stack([fields[row % 2] for row in range(48)]).astype(np.uint8)
        made.append(colourless(luma, pix_fmt).to_ndarray())
    return made


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p10le"])
def test_interlaced_pictures_are_deinterlaced_one_for_one(tmp_path, pix_fmt):
    pictures = interlaced_pictures(8, pix_fmt)
    path = make_video(tmp_path / "a.mkv", interlaced=True, num_frames=8, pictures=pictures, pix_fmt=pix_fmt)
    woven, _, off = read_all(path, deinterlace="off")
    frames, _, source = read_all(path)
    assert [(frame.pts, frame.duration) for frame in frames] == [(frame.pts, frame.duration) for frame in woven]
    assert frames[0].time_base == woven[0].time_base
    assert comb(frames[4].planes[0]) < 0.2 * comb(woven[4].planes[0])
    assert "deinterlacing (bwdif)" in notices(source)
    assert "left as they are" in notices(off)


def test_deinterlacing_starts_at_the_first_flagged_picture(tmp_path):
    still = make_video(tmp_path / "p.ts", num_frames=6)
    woven = make_video(tmp_path / "i.ts", num_frames=6, interlaced=True, pictures=interlaced_pictures(6))
    path = tmp_path / "both.ts"
    path.write_bytes(still.read_bytes() + woven.read_bytes())
    frames, _, source = read_all(path)
    plain, _, _ = read_all(path, deinterlace="off")
    assert len(frames) == len(plain) == 12
    for index in range(6):
        assert_planes_equal(frames[index].planes, plain[index].planes)
    assert comb(frames[8].planes[0]) < 0.2 * comb(plain[8].planes[0])
    assert "deinterlacing (bwdif)" in notices(source)


def test_deinterlacing_on_takes_unflagged_pictures_too(tmp_path):
    path = make_video(tmp_path / "a.mkv", codec="ffv1", num_frames=6, pictures=interlaced_pictures(6))
    auto, _, _ = read_all(path)
    forced, _, _ = read_all(path, deinterlace="on")
    assert len(auto) == len(forced) == 6
    assert comb(forced[3].planes[0]) < 0.2 * comb(auto[3].planes[0])


# Upright


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p"])
def test_rotated_files_come_upright(tmp_path, degrees, pix_fmt):
    lying = [picture_as(np.rot90(draw_picture(n), -degrees // 90), pix_fmt) for n in range(3)]
    height, width = np.rot90(draw_picture(0), -degrees // 90).shape
    path = make_video(
        tmp_path / "a.mp4", rotation=degrees, num_frames=3, pictures=lying, width=width, height=height,
        pix_fmt=pix_fmt, sample_aspect=Fraction(4, 3), options={"qp": "0"},
    )  # fmt: skip
    frames, _, source = read_all(path)
    sideways = degrees in (90, 270)
    assert numbers(frames) == [0, 1, 2]
    assert np.array_equal(frames[2].planes[0], draw_picture(2))
    assert (source.info.width, source.info.height) == (frames[0].width, frames[0].height) == (64, 48)
    assert source.info.sample_aspect == (Fraction(3, 4) if sideways else Fraction(4, 3))
    shift = {"yuv420p": (1, 1), "yuv422p": (0, 1) if sideways else (1, 0)}[pix_fmt]
    assert source.info.layout.chroma_shift == shift
    assert frames[0].planes[1].shape == tuple(reversed(source.info.layout.chroma_size(64, 48)))
    expected = {0: Siting.LEFT, 90: Siting.BOTTOM, 180: Siting.RIGHT, 270: Siting.TOP}[degrees]
    assert frames[0].colour.siting is expected
    assert ("turned upright" in notices(source)) == bool(degrees)


TURNS = [Turn(swap, flip_x=x, flip_y=y) for swap in (False, True) for x in (False, True) for y in (False, True)]


@pytest.mark.parametrize("turn", TURNS, ids=str)
@pytest.mark.parametrize("shift", [(1, 1), (1, 0), (0, 1)])
@pytest.mark.parametrize("siting", [Siting.LEFT, Siting.TOP_LEFT, Siting.CENTRE])
@pytest.mark.parametrize("size", [(8, 6), (7, 5)])
def test_siting_turns_with_the_picture(turn, shift, siting, size):
    """Planes hold their own coordinates: after the turn, chroma still says where it was taken."""
    width, height = size
    layout = PlaneLayout(shift)
    columns, rows = layout.chroma_size(width, height)
    x, y = (offset if part else 0.0 for offset, part in zip(siting.value, shift, strict=True))
    where_x = (np.arange(columns) << shift[0]) + ((1 << shift[0]) - 1) / 2 + x
    where_y = (np.arange(rows) << shift[1]) + ((1 << shift[1]) - 1) / 2 + y
    luma = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=2).astype(float)
    chroma = np.stack(np.meshgrid(where_x, where_y), axis=2)
    turned_luma, turned_chroma = (
        np.stack([turn.plane(plane[:, :, axis]) for axis in (0, 1)], axis=2) for plane in (luma, chroma)
    )
    turned_layout = turn.layout(layout)
    new_width, new_height = turn.size(width, height)
    assert turned_luma.shape[:2] == (new_height, new_width)
    assert turned_chroma.shape[:2] == tuple(reversed(turned_layout.chroma_size(new_width, new_height)))
    new_siting = turn.siting(Siting((x, y)), layout, width=width, height=height)
    new_shift = turned_layout.chroma_shift
    assert new_shift is not None
    step = [(1 << part) for part in new_shift]
    offset = [
        (size - 1) / 2 + (value if part else 0)
        for size, value, part in zip(step, new_siting.value, new_shift, strict=True)
    ]
    middle = [part and value == 0 for part, value in zip(shift, (x, y), strict=True)]
    flips = (turn.flip_y, turn.flip_x) if turn.swap else (turn.flip_x, turn.flip_y)
    exact = not any(part and flip and side % 2 for part, flip, side in zip(middle, flips, size, strict=True))
    # On the inner block, where the position of chroma lies between luma samples, luma is read off a straight line.
    for row in range(1, turned_chroma.shape[0] - 1):
        for column in range(1, turned_chroma.shape[1] - 1):
            at_x, at_y = column * step[0] + offset[0], row * step[1] + offset[1]
            seen = [
                np.interp(at_x, range(new_width), turned_luma[0, :, axis])
                + np.interp(at_y, range(new_height), turned_luma[:, 0, axis])
                - turned_luma[0, 0, axis]
                for axis in (0, 1)
            ]
            assert np.abs(seen - turned_chroma[row, column]).max() <= (0 if exact else 0.5)


def test_display_matrix_of_another_angle_is_no_turn():
    assert turn_of_matrix((46341, 46341, 0, -46341, 46341)) is None
    assert turn_of_matrix((65536, 0, 0, 0, 65536)) == Turn()
    assert turn_of_matrix((-65536, 0, 0, 0, 65536)) == Turn(False, flip_x=True)


def test_mirrored_file_is_mirrored_back(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        track = container.add_stream("libx264", rate=25, options={"qp": "0"})
        track.width, track.height, track.pix_fmt = 64, 48, "yuv420p"
        track.set_display_rotation(0, hflip=True)
        picture = av.VideoFrame.from_ndarray(picture_as(draw_picture(5)[:, ::-1], "yuv420p"), "yuv420p")
        container.mux(track.encode(picture))
        container.mux(track.encode(None))
    frames, _, _ = read_all(path)
    assert np.array_equal(frames[0].planes[0], draw_picture(5))
    assert frames[0].colour.siting is Siting.RIGHT


# Size changes


@pytest.fixture
def two_sizes(tmp_path):
    parts = [
        make_video(tmp_path / "1.ts", num_frames=5),
        make_video(tmp_path / "2.ts", num_frames=5, first_number=5, width=96, height=80),
    ]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def test_size_change_gives_frames_of_the_new_size_and_says_when(two_sizes):
    frames, _, source = read_all(two_sizes)
    assert [(frame.width, frame.height) for frame in frames] == [(64, 48)] * 5 + [(96, 80)] * 5
    assert numbers(frames) == list(range(10))
    assert f"size changed from 64x48 to 96x80 at {frames[5].seconds:.2f} s" in source.report.notices


def test_size_change_is_scaled_away_by_fit(two_sizes):
    frames, _, source = read_all(two_sizes, resize="fit")
    assert {(frame.width, frame.height) for frame in frames} == {(64, 48)}
    assert {plane.shape for frame in frames for plane in frame.planes[1:]} == {(24, 32)}
    assert numbers(frames[:5]) == list(range(5))
    assert np.ptp(frames[7].planes[0]) > 100
    assert "size changed" not in notices(source)


# Tracks


def test_audio_and_subtitles_pass_through_in_file_order(tmp_path):
    path = make_video(
        tmp_path / "a.mkv", audio=True, subtitles=["polyp", "caecum"], attachment=b"protocol", num_frames=25
    )
    frames, packets, source = read_all(path)
    assert len(frames) == 25
    kinds = {track.index: track.kind for track in source.info.tracks}
    assert sorted(kinds.values()) == ["audio", "subtitle"]
    with av.open(str(path)) as container:
        expected = [
            (packet.stream_index, packet.pts, bytes(packet))
            for packet in container.demux(*container.streams.audio, *container.streams.subtitles)
            if packet.size
        ]
    assert [(item.track, item.packet.pts, bytes(item.packet)) for item in packets] == expected
    assert [(item.name, item.data) for item in source.info.attachments] == [("note.txt", b"protocol")]


def test_cover_art_is_never_the_video(tmp_path):
    frames, _, source = read_all(make_video(tmp_path / "a.mp4", cover=True))
    assert numbers(frames) == list(range(10))
    assert any("cover art" in line for line in source.info.notices)


def test_default_video_track_wins_over_the_first(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        tracks = []
        for number in (3, 4):
            track = container.add_stream("ffv1", rate=25)
            track.width, track.height, track.pix_fmt = 64, 48, "yuv420p"
            track.disposition = av.stream.Disposition.default if number == 4 else av.stream.Disposition(0)
            tracks.append((track, number))
        for track, number in tracks:
            container.mux(track.encode(av.VideoFrame.from_ndarray(picture_as(draw_picture(number)), "yuv420p")))
    frames, _, source = read_all(path)
    assert numbers(frames) == [4]
    assert "track 0 is another video: left out" in source.info.notices


def test_where_no_gpu_decodes_software_does_and_it_is_said(tmp_path):
    path = make_video(tmp_path / "a.mkv", num_frames=4)
    plain, _, _ = read_all(path)
    frames, _, source = read_all(path, hwaccel="cuda")
    (note,) = (line for line in source.info.notices if "decoded" in line)
    if not source._video.codec_context.is_hwaccel:
        assert note.startswith("decoded in software: ")
        assert "\n" not in note
    assert [frame.pts for frame in frames] == [frame.pts for frame in plain]
    assert source.info.pix_fmt == "yuv420p"
    for frame, expected in zip(frames, plain, strict=True):
        assert all(map(np.array_equal, frame.planes, expected.planes))
    with pytest.raises(UsageError, match="hwaccel: expected one of none, cuda, got 'vaapi'"):
        open_source(path, hwaccel="vaapi")


def test_timecode_track_is_left_out_and_said(tmp_path):
    path = make_video(tmp_path / "a.mov", metadata={"timecode": "01:00:00:00"})
    _, _, source = read_all(path)
    assert source.info.tracks == ()
    assert any("(data, " in line and "left out" in line for line in source.info.notices)


# Damage


def noisy_video(path: Path, num_frames: int = 60, **changes: Any) -> Path:
    """Pictures of noise, so that every packet is large enough to be hit."""
    chance = np.random.default_rng(4)
    pictures = [chance.integers(0, 255, (72, 64), np.uint8) for _ in range(num_frames)]
    return make_video(path, num_frames=num_frames, pictures=pictures, **changes)


@pytest.fixture(scope="module")
def whole_mp4(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "whole.mp4"
    return noisy_video(path, container_options={"movflags": "faststart"}, options={"g": "12"})


@pytest.mark.parametrize("threads", [1, 4])
def test_truncated_mp4_gives_what_is_there_and_says_so(tmp_path, whole_mp4, threads):
    data = whole_mp4.read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: len(data) // 2])
    whole, _, _ = read_all(whole_mp4)
    frames, _, source = read_all(path, threads=threads)
    assert 25 <= len(frames) < 35
    for frame, original in zip(frames[:-1], whole, strict=False):
        assert frame.pts == original.pts
        assert np.array_equal(frame.planes[0], original.planes[0])
    assert source.info.num_frames == 60
    assert source.report.truncated
    assert f"{len(frames)} of 60 frames" in notices(source)


def test_truncation_costs_no_sound_picture_however_many_threads(tmp_path, whole_mp4):
    data = whole_mp4.read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: len(data) // 2])
    given_out = {threads: [frame.pts for frame in read_all(path, threads=threads)[0]] for threads in (1, 2, 8)}
    assert given_out[2] == given_out[1]
    assert given_out[8] == given_out[1]


def test_mp4_cut_anywhere_raises_nothing_but_input_error(tmp_path, whole_mp4):
    data = whole_mp4.read_bytes()
    path = tmp_path / "cut.mp4"
    num_opened = 0
    for size in range(1, len(data), len(data) // 23):
        path.write_bytes(data[:size])
        with suppress(InputError):
            frames, _, source = read_all(path)
            num_opened += 1
            assert [frame.sequence for frame in frames] == list(range(len(frames)))
            assert source.report.truncated, size
    assert num_opened > 15


def test_truncated_matroska_is_noticed_by_its_duration(tmp_path):
    whole = noisy_video(tmp_path / "a.mkv", options={"g": "12"})
    path = tmp_path / "cut.mkv"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    frames, _, source = read_all(path)
    assert 20 < len(frames) < 40
    assert source.report.truncated
    assert read_all(whole)[2].report.complete


def test_longer_sound_is_no_truncation(tmp_path):
    for name in ("a.mkv", "a.mp4"):
        path = tmp_path / name
        make_video(path, audio=True, num_frames=30, pts=range(10))
        frames, _, source = read_all(path)
        assert len(frames) == 10
        assert source.report.complete, source.report


@pytest.mark.parametrize("threads", [1, 4])
def test_corrupt_packets_cost_their_pictures_and_are_counted_with_times(tmp_path, threads):
    whole = noisy_video(tmp_path / "a.mov", codec="png", pix_fmt="gray", num_frames=20, width=64, height=72)
    data = bytearray(whole.read_bytes())
    with av.open(str(whole)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    for index in (5, 11, 12):
        place = data.index(packets[index])
        data[place : place + 200] = bytes(200)
    path = tmp_path / "corrupt.mov"
    path.write_bytes(data)
    frames, _, source = read_all(path, threads=threads)
    assert [frame.pts for frame in frames] == [TICKS_25 * n for n in range(20) if n not in (5, 11, 12)]
    assert [frame.sequence for frame in frames] == list(range(17))
    assert source.report.gaps == [f"picture at {0.04 * n:.2f} s could not be decoded" for n in (5, 11, 12)]
    assert not source.report.complete
    assert not source.report.truncated


def test_damaged_h264_is_decoded_to_the_end_and_reported(tmp_path, whole_mp4, capfd):
    data = bytearray(whole_mp4.read_bytes())
    with av.open(str(whole_mp4)) as container:
        packets = [(packet.pts, bytes(packet)) for packet in container.demux(video=0) if packet.size]
    pts, content = packets[30]
    place = data.index(content)
    data[place : place + len(content)] = bytes(len(content))
    path = tmp_path / "corrupt.mp4"
    path.write_bytes(data)
    frames, _, source = read_all(path)
    assert len(frames) >= 55
    assert frames[-1].pts == 59 * TICKS_25
    assert any(f"{pts / 12800:.2f} s" in line for line in source.report.gaps), source.report.gaps
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi"])
def test_noise_over_the_file_never_ends_in_a_foreign_error(tmp_path, name):
    data = noisy_video(tmp_path / name, num_frames=20, audio=name != "a.avi").read_bytes()
    path = tmp_path / f"noise-{name}"
    for seed in range(8):
        chance = np.random.default_rng(seed)
        broken = bytearray(data)
        for place in chance.integers(0, len(data) - 40, 6):
            broken[place : place + 32] = chance.bytes(32)
        path.write_bytes(broken)
        with suppress(InputError):
            frames, _, _ = read_all(path)
            assert all(later.pts > earlier.pts for earlier, later in pairwise(frames))


def test_leaving_early_closes_quietly(tmp_path):
    with FileSource(make_video(tmp_path / "a.mkv", num_frames=30, audio=True)) as source:
        first = next(item for item in source if isinstance(item, Frame))
    assert read_number(first.planes[0]) == 0
    assert not source.report.truncated


def test_threads_reach_the_decoder(tmp_path):
    with av.open(str(make_video(tmp_path / "a.mkv", num_frames=1))) as container:
        track = container.streams.video[0]
        Decoder(track, SourceReport(), threads=3)
        assert track.codec_context.thread_count == 3
        assert "AUTO" in str(track.codec_context.thread_type)


@pytest.mark.skipif(not CLIPS.is_dir(), reason="the shared clips are not here")
@pytest.mark.parametrize("name", ["colonoscopy_480x360_overlay.mp4", "surgery_a_504x388.mp4"])
def test_real_clips_decode_as_pyav_alone_does(name):
    path = CLIPS / name
    with av.open(str(path)) as container, open_source(path) as source:
        pictures = container.decode(container.streams.video[0])
        frames = (item for item in source if isinstance(item, Frame))
        for index, (frame, picture) in enumerate(zip(frames, pictures, strict=True)):
            assert frame.pts == picture.pts
            if index % 50 == 0:
                assert_planes_equal(frame.planes, planes_of(picture))
    assert source.report.num_frames == source.info.num_frames
    assert source.report.complete


# Making and comparing pictures


def noise_picture(pix_fmt: str, width: int, height: int) -> Any:
    """A planar picture of noise in the whole range of its depth."""
    frame = av.VideoFrame(width, height, pix_fmt)
    chance = np.random.default_rng(7)
    layout = choose_layout(frame.format)
    for view in view_planes(frame, layout):
        view[:] = chance.integers(0, layout.peak + 1, view.shape)
    return frame


def planes_of(frame: Any) -> list[np.ndarray]:
    return [np.array(view) for view in view_planes(frame, choose_layout(frame.format))]


def picture_as(luma: np.ndarray, pix_fmt: str = "yuv420p") -> np.ndarray:
    return np.asarray(colourless(np.ascontiguousarray(luma), pix_fmt).to_ndarray())


def store(folder: Path, picture: Any) -> Path:
    """Keep a picture as it is: FFV1 where that takes its format, raw samples in NUT where not."""
    path = folder / "kept.nut"
    with av.open(str(path), "w") as container:
        codec = "rawvideo" if picture.format.name.startswith("yuv440") else "ffv1"
        track = container.add_stream(codec, rate=25)
        track.width, track.height, track.pix_fmt = picture.width, picture.height, picture.format.name
        picture.pts = 0
        container.mux(track.encode(picture))
        container.mux(track.encode(None))
    return path


def assert_planes_equal(found: Any, expected: Any) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)
