"""DICOM objects as sources: every syntax of video, every way of cutting it up, and what is no video."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydicom")

from streamsr.capture import open_source, probe
from streamsr.capture.addresses import find_address
from streamsr.capture.live_opening import SourceLost, open_live
from streamsr.config import FeedSettings
from streamsr.dicom import is_dicom
from streamsr.dicom.fragments import FragmentFile, find_fragments
from streamsr.dicom.objects import read_object
from streamsr.errors import InputError, UsageError
from streamsr.frame import Frame
from tests.dicom_objects import H264, HEVC, MPEG2, PATIENT, make_dicom, make_object
from tests.test_cli import one_line, run
from tests.videos import make_video, read_number, read_numbers

RAW: dict[str, Any] = {"suffix": ".h264", "container_format": "h264"}
SYNTAXES = [
    pytest.param(MPEG2, {"codec": "mpeg2video", "suffix": ".mpg", "container_format": "mpeg"}, id="mpeg2-ps"),
    pytest.param(MPEG2 + ".1", {"codec": "mpeg2video", "suffix": ".ts"}, id="mpeg2-ts-fragmentable"),
    pytest.param(MPEG2[:-1] + "1", {"codec": "mpeg2video", "suffix": ".m2v"}, id="mpeg2-hl-bare"),
    pytest.param(H264, {}, id="h264-mp4"),
    pytest.param(H264 + ".1", {"suffix": ".ts"}, id="h264-ts-fragmentable"),
    pytest.param(H264[:-1] + "3", RAW, id="h264-bd-bare"),
    pytest.param(H264[:-1] + "4", {"container_options": {"movflags": "+faststart"}}, id="h264-42"),
    pytest.param(H264[:-1] + "5", {}, id="h264-3d"),
    pytest.param(H264[:-1] + "6", {}, id="h264-stereo"),
    pytest.param(HEVC, {"codec": "libx265", "options": {"x265-params": "log-level=none"}}, id="hevc-mp4"),
    pytest.param(
        HEVC[:-1] + "8",
        {"codec": "libx265", "suffix": ".ts", "pix_fmt": "yuv420p10le", "options": {"x265-params": "log-level=none"}},
        id="hevc-main10-ts",
    ),
]


def read_all(path: Path, **options: Any) -> tuple[list[Frame], Any]:
    with open_source(path, **options) as source:
        frames = [item for item in source if isinstance(item, Frame)]
    return frames, source


def numbers(frames: list[Frame]) -> list[int]:
    shift = frames[0].layout.bit_depth - 8
    return [read_number((frame.planes[0] >> shift).astype("uint8")) for frame in frames]


def notices(source: Any) -> str:
    return "\n".join((*source.info.notices, *source.report.notices))


@pytest.mark.parametrize(("uid", "changes"), SYNTAXES)
def test_every_syntax_gives_the_pictures_and_times_of_its_bitstream(tmp_path, uid, changes):
    changes = dict(changes)
    suffix = changes.pop("suffix", ".mp4")
    video = make_video(tmp_path / f"bare{suffix}", **changes)
    made = make_object(tmp_path / "x.dcm", video.read_bytes(), uid, FrameTime="40")
    frames, source = read_all(made)
    bare, _ = read_all(video)
    assert numbers(frames) == list(range(10))
    assert [frame.pts for frame in frames] == [frame.pts for frame in bare]
    assert [frame.time_base for frame in frames] == [frame.time_base for frame in bare]
    assert source.report.complete
    assert "DICOM object" in notices(source)


def test_a_gpus_decoder_is_not_asked_for_objects_and_that_is_said(tmp_path):
    frames, source = read_all(make_dicom(tmp_path / "x.dcm"), hwaccel="cuda")
    assert numbers(frames) == list(range(10))
    assert "decoded in software: the GPU's decoder is given files alone" in notices(source)


@pytest.mark.parametrize("sizes", [[7] * 900, [1001], [999, 1, 3, 2000], [4096] * 3], ids=str)
@pytest.mark.parametrize("suffix", [".mp4", ".ts"])
def test_fragments_of_any_length_are_put_together(tmp_path, sizes, suffix):
    bits = make_video(tmp_path / f"v{suffix}").read_bytes()
    made = make_object(tmp_path / "x.dcm", bits, H264 + ".1", sizes=sizes)
    found = read_object(made)
    with FragmentFile(made, found.fragments) as file:
        assert file.read() == bits
        file.seek(-10, 2)
        assert file.read(100) == bits[-10:]
        for place in range(0, len(bits), 997):
            assert file.seek(place) == place
            assert file.read(1500) == bits[place : place + 1500]
    frames, source = read_all(made)
    assert numbers(frames) == list(range(10))
    assert source.report.complete


def test_an_object_is_known_by_its_content_whatever_its_name(tmp_path):
    made = make_dicom(tmp_path / "x.dcm")
    named = made.rename(tmp_path / "IM000001")
    assert is_dicom(named)
    assert numbers(read_all(named)[0]) == list(range(10))
    assert not is_dicom(tmp_path)
    assert not is_dicom(tmp_path / "gone")
    video = make_video(tmp_path / "v.mp4").rename(tmp_path / "v.dcm")
    assert numbers(read_all(video)[0]) == list(range(10))


@pytest.mark.parametrize(
    ("attributes", "rate", "said"),
    [
        ({"FrameTime": "50"}, Fraction(20), "FrameTime"),
        ({"FrameTime": "33.3667"}, Fraction(30000, 1001), "FrameTime"),
        ({"CineRate": 15}, Fraction(15), "CineRate"),
        ({"RecommendedDisplayFrameRate": 10}, Fraction(10), "RecommendedDisplayFrameRate"),
        ({"FrameTime": "50", "CineRate": 15}, Fraction(20), "FrameTime"),
        ({"FrameTime": "0", "CineRate": 15}, Fraction(15), "CineRate"),
        ({"FrameTimeVector": [-1, -3], "CineRate": 15}, Fraction(15), "CineRate"),
        ({}, Fraction(25), "assuming 25 fps"),
    ],
)
def test_times_are_the_objects_where_the_bitstream_has_none(tmp_path, attributes, rate, said):
    made = make_dicom(tmp_path / "x.dcm", **RAW, options={"x264-params": "force-cfr=0"}, **attributes)
    frames, source = read_all(made)
    assert said in notices(source)
    assert [frame.pts * frame.time_base for frame in frames] == [number / rate for number in range(10)]


def test_each_picture_has_the_time_that_the_vector_gives_it(tmp_path):
    steps = [0, 40, 40, 100, 20, 40.5]
    made = make_dicom(tmp_path / "x.dcm", **RAW, FrameTimeVector=steps)
    frames, source = read_all(made)
    times_ms = [float(1000 * frame.pts * frame.time_base) for frame in frames]
    assert times_ms[:6] == [0, 40, 80, 180, 200, 240.5]
    assert all(later > earlier for earlier, later in pairwise(times_ms))
    assert len(frames) == 10
    assert "FrameTimeVector" in notices(source)


def test_the_bitstreams_own_times_count_before_the_objects(tmp_path):
    frames, _ = read_all(make_dicom(tmp_path / "x.dcm", FrameTime="500"))
    assert [frame.seconds for frame in frames] == pytest.approx([number / 25 for number in range(10)])


def test_a_rate_that_is_given_counts_before_the_objects(tmp_path):
    frames, _ = read_all(make_dicom(tmp_path / "x.dcm", **RAW, FrameTime="40"), rate=10)
    assert frames[1].seconds == pytest.approx(0.1)


def test_a_cut_object_gives_what_is_there_and_is_incomplete(tmp_path):
    made = make_dicom(tmp_path / "x.dcm", suffix=".ts", num_frames=60, NumberOfFrames=60)
    content = made.read_bytes()
    made.write_bytes(content[: len(content) * 6 // 10])
    frames, source = read_all(made)
    assert 10 < len(frames) < 60
    assert source.report.truncated
    assert "60 frames" in notices(source)
    assert run("upscale", made, "-m", "bicubic-x2", "-q") == 1


def test_an_object_that_ends_without_its_delimiter_is_incomplete(tmp_path):
    bits = make_video(tmp_path / "v.mp4").read_bytes()
    frames, source = read_all(make_object(tmp_path / "x.dcm", bits, delimited=False))
    assert len(frames) == 10
    assert source.report.truncated


@pytest.mark.parametrize("part", [0.02, 0.3, 0.9])
def test_a_cut_mp4_is_one_line_and_3(tmp_path, part, capsys):
    made = make_dicom(tmp_path / "x.dcm", num_frames=30)
    content = made.read_bytes()
    made.write_bytes(content[: max(140, int(len(content) * part))])
    assert run("upscale", made, "-m", "bicubic-x2") == 3
    assert "x.dcm" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("uid", "named"),
    [
        ("1.2.840.10008.1.2.4.50", "JPEG Baseline"),
        ("1.2.840.10008.1.2.4.90", "JPEG 2000"),
        ("1.2.840.10008.1.2.1", "Explicit VR Little Endian"),
        ("1.2.3.4", "1.2.3.4"),
    ],
)
@pytest.mark.parametrize("command", ["upscale", "probe"])
def test_a_syntax_that_is_no_video_is_named_and_3(tmp_path, uid, named, command, capsys):
    made = make_object(tmp_path / "x.dcm", b"\xff\xd8\xff\xd9", uid)
    assert run(command, made) == 3
    line = one_line(capsys.readouterr().err)
    assert "expected DICOM video" in line
    assert named in line
    assert "export" in line


def test_an_object_without_a_picture_is_3(tmp_path, capsys):
    assert run("probe", make_object(tmp_path / "x.dcm", b"")) == 3
    assert "without a picture" in one_line(capsys.readouterr().err)
    made = make_dicom(tmp_path / "y.dcm")
    content = made.read_bytes()
    made.write_bytes(content[: content.index(b"\xe0\x7f\x10\x00OB")])
    assert run("probe", made) == 3
    assert "pixel data" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("content", ["no DICOM at all\n" * 30, "", "#EXTM3U\n/etc/passwd\n"])
def test_text_named_dcm_is_3(tmp_path, content, capsys):
    text = tmp_path / "x.dcm"
    text.write_text(content)
    assert run("upscale", text) == 3
    one_line(capsys.readouterr().err)


def test_a_list_of_other_files_inside_an_object_is_not_followed(tmp_path, capsys):
    video = make_video(tmp_path / "secret.ts")
    for inside in (f"#EXTM3U\n#EXTINF:1,\n{video}\n#EXT-X-ENDLIST\n", f"ffconcat version 1.0\nfile '{video}'\n"):
        assert run("upscale", make_object(tmp_path / "x.dcm", inside.encode()), "-m", "bicubic-x2") == 3
        assert "no readable video" in one_line(capsys.readouterr().err)


def test_another_codec_than_the_syntax_says_is_told(tmp_path):
    frames, source = read_all(make_dicom(tmp_path / "x.dcm", HEVC))
    assert len(frames) == 10
    assert "its bitstream is h264" in notices(source)


def test_another_number_of_frames_than_the_object_says_is_told(tmp_path):
    _, source = read_all(make_dicom(tmp_path / "x.dcm", NumberOfFrames=12))
    assert source.report.complete
    assert "says 12 frames, its bitstream holds 10" in notices(source)


def test_missing_pydicom_names_the_extra(tmp_path, monkeypatch, capsys):
    made = make_dicom(tmp_path / "x.dcm")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    for arguments in (("upscale", made), ("probe", made)):
        assert run(*arguments) == UsageError.exit_code
        assert "pip install 'streamsr[dicom]'" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("options", [[], ["--keep-metadata"]])
def test_nothing_of_the_patient_reaches_an_ordinary_result(tmp_path, options, capsys):
    made = make_dicom(tmp_path / "x.dcm", NumberOfFrames=10)
    assert run("upscale", made, "-m", "bicubic-x2", "-o", tmp_path / "out.mkv", *options) == 0
    assert run("probe", made, "--json") == 0
    said = capsys.readouterr()
    written = (tmp_path / "out.mkv").read_bytes() + (tmp_path / "out.mkv.json").read_bytes()
    written += (said.out + said.err).encode()
    for value in (value for value in PATIENT.values() if isinstance(value, str) and len(value) > 2):
        for word in value.split("^"):
            assert word.encode() not in written, word
    assert read_numbers(tmp_path / "out.mkv", 2) == list(range(10))
    assert json.loads((tmp_path / "out.mkv.json").read_text())["frames"]["in"] == 10


def test_a_large_object_is_read_where_it_lies(tmp_path):
    made = make_object(tmp_path / "x.dcm", b"", delimited=False)
    size = 3 << 30
    with made.open("ab") as file:
        file.write(b"\xfe\xff\x00\xe0" + size.to_bytes(4, "little"))
        start = file.tell()
        file.truncate(start + size)  # a hole: nothing lies on the disk
    with made.open("ab") as file:
        file.write(b"end!\xfe\xff\xdd\xe0\0\0\0\0"[4:])
    tracemalloc.start()
    found = read_object(made)
    with FragmentFile(made, found.fragments) as file:
        file.seek(size - 4)
        assert file.read(100) == bytes(4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.fragments.num_bytes == size
    assert found.fragments.whole
    assert peak < 8 << 20


def test_pixel_data_that_is_not_encapsulated_is_refused(tmp_path):
    made = make_object(tmp_path / "x.dcm", b"abcd")
    content = bytearray(made.read_bytes())
    place = content.index(b"\xe0\x7f\x10\x00OB\0\0") + 8
    content[place : place + 4] = (12).to_bytes(4, "little")
    made.write_bytes(content)
    with pytest.raises(InputError, match="encapsulated"):
        read_object(made)
    with made.open("rb") as file:
        file.seek(place - 8)
        with pytest.raises(InputError, match="encapsulated"):
            find_fragments(file, made)


def test_live_plays_an_object_at_its_rate(tmp_path):
    made = make_dicom(tmp_path / "x.dcm", **RAW, FrameTime="50")
    container, address = open_live(find_address(str(made), FeedSettings(pace=True)))
    with container:
        assert len(list(container.decode(video=0))) == 10
    assert address.rate == "20"
    bad = make_object(tmp_path / "bad.dcm", b"abcd", "1.2.840.10008.1.2.1")
    with pytest.raises(SourceLost, match=r"^bad\.dcm: expected DICOM video"):
        open_live(find_address(str(bad), FeedSettings(pace=True)))


def test_probe_knows_an_object(tmp_path):
    info = probe(make_dicom(tmp_path / "x.dcm", suffix=".ts", NumberOfFrames=10))
    assert (info.width, info.height, info.num_frames, info.codec) == (64, 48, 10, "h264")


def test_damaged_objects_never_hang_and_never_fail_unforeseen(tmp_path):
    command = [sys.executable, "-W", "error", "-m", "tests.dicom_objects", str(tmp_path), "300"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Traceback" not in done.stderr
