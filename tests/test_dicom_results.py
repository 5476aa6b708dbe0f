"""Derived DICOM objects: what they keep, what they say of themselves, what is refused, and an independent validator."""

from __future__ import annotations

import json
import shutil
import subprocess
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

pytest.importorskip("pydicom")

import pydicom

from streamsr.capture import open_source
from streamsr.dicom.attributes import Derivation, Place
from streamsr.dicom.objects import read_object
from streamsr.dicom.syntaxes import H264_LEVEL_41, H264_LEVEL_42, HEVC_LEVEL_51, choose_syntax
from streamsr.dicom.writing import write_derived
from streamsr.errors import InputError, Interrupted, OutputError, OutputExists, UsageError
from streamsr.frame import Frame
from streamsr.job import upscale_file
from streamsr.sinks import dicom_recording
from streamsr.sinks.dicom_recording import DicomSink, limited
from streamsr.sinks.recording import RESERVE_BYTES
from streamsr.sinks.settings import EncoderSettings
from tests.dicom_objects import H264, HEVC, MPEG2, PATIENT, make_dicom
from tests.test_cli import one_line, run
from tests.videos import make_video, read_number, read_numbers

DERIVATION = Derivation("Enlarged x2 in a test", synthetic=True, model="streamsr test")
BOTH = ("h264", "hevc")
EXPECTED_COMPLAINT = "(0x0008,0x001c)"
"""Synthetic Data is younger than the validator's dictionary."""


def upscale(source: Path, target: Path, *options: str) -> Any:
    """Enlarge with the command line and return the object's data set."""
    assert run("upscale", source, "-m", "bicubic-x2", "-o", target, "-q", *options) == 0
    return pydicom.dcmread(target)


def frames_of(path: Path) -> list[Frame]:
    with open_source(path) as source:
        frames = [item for item in source if isinstance(item, Frame)]
    assert source.report.complete
    return frames


def seconds_of(path: Path) -> list[Fraction]:
    return [frame.pts * frame.time_base for frame in frames_of(path)]


def complaints(path: Path) -> list[str]:
    """Return the errors that dciodvfy finds, but for the expected one."""
    done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    assert "VideoEndoscopicImage" in lines
    return [line for line in lines if line.startswith("Error") and EXPECTED_COMPLAINT not in line]


# There and back


@pytest.mark.parametrize(
    ("uid", "changes"),
    [
        pytest.param(MPEG2, {"codec": "mpeg2video", "suffix": ".ts"}, id="mpeg2"),
        pytest.param(H264, {}, id="h264-mp4"),
        pytest.param(H264, {"suffix": ".ts"}, id="h264-ts"),
        pytest.param(H264, {"suffix": ".h264", "container_format": "h264", "FrameTime": "50"}, id="h264-bare"),
        pytest.param(HEVC, {"codec": "libx265", "options": {"x265-params": "log-level=none"}}, id="hevc"),
        pytest.param(H264, {"pts": [0, 1, 4, 5, 9], "num_frames": 5}, id="variable"),
        pytest.param(H264, {"rate": Fraction(30000, 1001)}, id="ntsc"),
    ],
)
def test_there_and_back_keeps_pictures_and_times(tmp_path, uid, changes):
    source = make_dicom(tmp_path / "in.dcm", uid, **changes)
    made = upscale(source, tmp_path / "out.dcm")
    before, after = frames_of(source), frames_of(tmp_path / "out.dcm")
    assert [read_number(frame.planes[0], 2) for frame in after] == list(range(len(before)))
    start_s = before[0].seconds
    assert seconds_of(tmp_path / "out.dcm") == [frame.pts * frame.time_base for frame in before] or start_s > 0
    steps = [later.seconds - before[0].seconds for later in before]
    assert [frame.seconds - after[0].seconds for frame in after] == pytest.approx(steps, abs=1e-9)
    assert made.NumberOfFrames == len(before)
    assert (made.Rows, made.Columns) == (96, 128)
    assert list(tmp_path.glob(".*")) == []


def test_a_derived_object_belongs_to_its_patient_and_names_its_source(tmp_path):
    made = upscale(make_dicom(tmp_path / "in.dcm"), tmp_path / "out.dcm")
    for keyword in (
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "PatientSex",
        "StudyInstanceUID",
        "AccessionNumber",
    ):
        assert str(made[keyword].value) == PATIENT[keyword]
    assert made.SOPClassUID == made.file_meta.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.1.1.77.1.1.1"
    assert made.SOPInstanceUID == made.file_meta.MediaStorageSOPInstanceUID
    assert made.SOPInstanceUID != PATIENT["SOPInstanceUID"]
    assert made.SeriesInstanceUID != PATIENT["SeriesInstanceUID"]
    assert list(made.ImageType) == ["DERIVED", "PRIMARY"]
    assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == PATIENT["SOPInstanceUID"]
    assert made.ReferencedSeriesSequence[0].SeriesInstanceUID == PATIENT["SeriesInstanceUID"]
    scope, ours = made.ContributingEquipmentSequence
    assert (scope.Manufacturer, scope.ManufacturerModelName) == ("Scope Works", "Scope 9")
    assert (ours.Manufacturer, ours.ManufacturerModelName) == ("streamsr", "streamsr bicubic-x2")
    assert "bicubic-x2" in made.DerivationDescription
    assert made.SyntheticData == "NO"  # interpolation draws nothing
    assert made.PhotometricInterpretation == "YBR_PARTIAL_420"
    assert made.file_meta.TransferSyntaxUID == H264


def test_a_generators_object_says_that_its_content_is_synthetic(tmp_path):
    source = make_dicom(tmp_path / "in.dcm", num_frames=2)
    assert run("upscale", source, "-m", "tiny-x2", "-o", tmp_path / "out.dcm", "-q") == 0
    made = pydicom.dcmread(tmp_path / "out.dcm")
    assert made.SyntheticData == "YES"
    assert "camera did not record" in made.DerivationDescription
    assert "SHA-256" in made.DerivationDescription
    again = upscale(tmp_path / "out.dcm", tmp_path / "again.dcm")
    assert again.SyntheticData == "YES", "interpolation draws nothing, and takes nothing away"


def test_an_object_without_a_source_names_nobody(tmp_path):
    video = make_video(tmp_path / "in.mp4", metadata={"title": "Zebedee"})
    made = upscale(video, tmp_path / "out.dcm")
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "AccessionNumber"):
        assert keyword in made
        assert not made[keyword].value
    assert "SourceImageSequence" not in made
    assert "BurnedInAnnotation" not in made, "whether names stand in the pictures is not known"
    assert len(made.ContributingEquipmentSequence) == 1
    assert list(made.LossyImageCompressionMethod) == ["ISO_14496_10", "ISO_14496_10"]
    assert b"Zebedee" not in (tmp_path / "out.dcm").read_bytes()


def test_lossy_compression_is_a_history(tmp_path):
    known = {"LossyImageCompressionRatio": [12, 8], "LossyImageCompressionMethod": ["ISO_10918_1", "ISO_13818_2"]}
    made = upscale(make_dicom(tmp_path / "in.dcm", **known), tmp_path / "out.dcm")
    assert list(made.LossyImageCompressionMethod) == ["ISO_10918_1", "ISO_13818_2", "ISO_14496_10"]
    assert [float(ratio) for ratio in made.LossyImageCompressionRatio][:2] == [12, 8]
    bits = read_object(tmp_path / "out.dcm").fragments.num_bytes
    assert float(made.LossyImageCompressionRatio[2]) == pytest.approx(96 * 128 * 3 * 10 / bits, rel=0.01)
    again = upscale(tmp_path / "out.dcm", tmp_path / "again.dcm")
    assert len(again.LossyImageCompressionRatio) == len(again.LossyImageCompressionMethod) == 4
    purposes = [item.PurposeOfReferenceCodeSequence[0].CodeValue for item in again.ContributingEquipmentSequence]
    assert purposes == ["109101", "109102", "109102"]  # acquired once, processed twice


def test_a_compression_that_the_source_keeps_quiet_about_is_worked_out(tmp_path):
    source = make_dicom(tmp_path / "in.dcm")
    made = upscale(source, tmp_path / "out.dcm")
    assert float(made.LossyImageCompressionRatio[0]) == pytest.approx(64 * 48 * 3 * 10 / source.stat().st_size, 0.01)
    video = make_video(tmp_path / "v.mp4", options={"profile": "high"})
    sized = make_dicom(tmp_path / "sized.dcm", MPEG2, Rows=480, Columns=640, NumberOfFrames=10)
    write_derived(sized, video, tmp_path / "a.dcm", derivation=DERIVATION)
    made = pydicom.dcmread(tmp_path / "a.dcm")
    assert list(made.LossyImageCompressionMethod) == ["ISO_13818_2", "ISO_14496_10"]
    bits = read_object(sized).fragments.num_bytes
    assert float(made.LossyImageCompressionRatio[0]) == pytest.approx(640 * 480 * 3 * 10 / bits, rel=0.01)


def test_a_vector_of_frame_times_stands_for_a_variable_rate(tmp_path):
    made = upscale(make_dicom(tmp_path / "in.dcm", pts=[0, 1, 4, 5, 9], num_frames=5), tmp_path / "out.dcm")
    assert [float(step) for step in made.FrameTimeVector] == [0, 40, 120, 40, 160]
    assert made.FrameIncrementPointer == 0x00181065
    constant = upscale(make_dicom(tmp_path / "c.dcm", rate=Fraction(30000, 1001)), tmp_path / "d.dcm")
    assert float(constant.FrameTime) == pytest.approx(33.3667, abs=1e-4)
    assert constant.FrameIncrementPointer == 0x00181063
    assert constant.CineRate == 30


def test_sound_passes_where_dicom_holds_it(tmp_path):
    upscale(make_dicom(tmp_path / "in.dcm", audio=True), tmp_path / "out.dcm")
    with open_source(tmp_path / "out.dcm") as source:
        assert [track.codec for track in source.info.tracks] == ["aac"]
    video = make_video(tmp_path / "in.mkv", audio=True, audio_codec="flac", subtitles=["a"])
    result = upscale_file(video, tmp_path / "flac.dcm", settings=settings("bicubic-x2"))
    assert any("holds no flac" in notice for notice in result.notices)
    with open_source(tmp_path / "flac.dcm") as source:
        assert source.info.tracks == ()


def test_ten_bits_become_eight_and_it_is_said(tmp_path):
    video = make_video(tmp_path / "in.mkv", codec="ffv1", pix_fmt="yuv420p10le")
    result = upscale_file(video, tmp_path / "out.dcm", settings=settings("bicubic-x2"))
    assert any("8" in notice and "10" in notice for notice in result.notices)
    assert frames_of(tmp_path / "out.dcm")[0].layout.bit_depth == 8


def test_a_change_of_size_makes_a_second_object_of_the_series(tmp_path):
    first = make_video(tmp_path / "1.ts").read_bytes()
    second = make_video(tmp_path / "2.ts", width=96, height=64).read_bytes()
    (tmp_path / "in.ts").write_bytes(first + second)
    one = upscale(tmp_path / "in.ts", tmp_path / "out.dcm")
    two = pydicom.dcmread(tmp_path / "out.part2.dcm")
    assert one.SeriesInstanceUID == two.SeriesInstanceUID
    assert one.StudyInstanceUID == two.StudyInstanceUID
    assert one.SOPInstanceUID != two.SOPInstanceUID
    assert (one.InstanceNumber, two.InstanceNumber) == (1, 2)
    assert (two.Rows, two.Columns) == (128, 192)


def settings(engine: str, **changes: Any) -> Any:
    from streamsr.config import GeneratorSettings, UpscaleSettings

    return UpscaleSettings(generator=GeneratorSettings(engine=engine), **changes)


# What fits, and what does not


@pytest.mark.parametrize(
    ("size", "rate", "expected"),
    [
        ((1920, 1080), 30, H264_LEVEL_41),
        ((1280, 1280), 38, H264_LEVEL_41),
        ((1280, 1280), 39, H264_LEVEL_42),
        ((1344, 1344), 34, H264_LEVEL_41),
        ((1280, 720), 60, H264_LEVEL_41),
        ((1920, 1080), 60, H264_LEVEL_42),
        ((1920, 1080), 65, HEVC_LEVEL_51),
        ((2048, 2048), 30, HEVC_LEVEL_51),
        ((3840, 2160), 60, HEVC_LEVEL_51),
        ((4096, 16), 25, H264_LEVEL_41),
        ((4112, 16), 25, H264_LEVEL_42),
        ((8192, 64), 25, HEVC_LEVEL_51),
    ],
)
def test_the_smallest_syntax_that_holds_a_video_is_taken(size, rate, expected):
    assert choose_syntax(BOTH, *size, Fraction(rate)) is expected


@pytest.mark.parametrize(
    ("codecs", "size", "rate"),
    [
        (BOTH, (7680, 4320), 30),
        (BOTH, (3840, 2160), 65),
        (BOTH, (8448, 64), 25),
        (("h264",), (3840, 2160), 30),
    ],
)
def test_what_no_syntax_holds_is_refused_with_the_reason(codecs, size, rate):
    with pytest.raises(UsageError, match=r"no DICOM video holds .* holds .*\.mkv") as caught:
        choose_syntax(codecs, *size, Fraction(rate))
    assert f"{size[0]}x{size[1]} at {rate} fps" in str(caught.value)


def test_too_large_a_result_is_refused_before_it_is_made(tmp_path, capsys):
    video = make_video(tmp_path / "in.mp4", width=1920, height=1080, num_frames=1)
    assert run("upscale", video, "-m", "bicubic-x4", "-o", tmp_path / "out.dcm") == 2
    assert "no DICOM video holds 7680x4320" in one_line(capsys.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--lossless"], "lossless"),
        (["--codec", "ffv1"], "H.264 or HEVC"),
        (["--pix-fmt", "yuv444p"], "yuv420p"),
    ],
)
def test_settings_that_dicom_cannot_have_are_2(tmp_path, options, said, capsys):
    video = make_video(tmp_path / "in.mp4")
    assert run("upscale", video, "-m", "bicubic-x2", "-o", tmp_path / "out.dcm", *options) == 2
    assert said in one_line(capsys.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_pixels_that_are_not_square_are_2(tmp_path, capsys):
    video = make_video(tmp_path / "in.mp4", sample_aspect=Fraction(16, 11))
    assert run("upscale", video, "-m", "bicubic-x2", "-o", tmp_path / "out.dcm") == 2
    assert "square pixels" in one_line(capsys.readouterr().err)


def test_hevc_is_taken_where_h264_is_too_small():
    asked = EncoderSettings()
    assert limited(asked, H264_LEVEL_42).codec == "libx264"
    assert limited(asked, HEVC_LEVEL_51).codec == "libx265"
    assert limited(EncoderSettings(codec="h264_nvenc"), HEVC_LEVEL_51).codec == "hevc_nvenc"
    assert dict(limited(asked, H264_LEVEL_42).limits)["level"] == "4.2"


@pytest.mark.parametrize(
    ("codec", "uid", "profile", "level"), [("libx264", H264, "High", 41), ("libx265", HEVC, "Main", 153)]
)
@pytest.mark.parametrize("preset", ["superfast", "slow"])
def test_the_bitstream_states_the_profile_and_level_of_its_syntax(tmp_path, codec, uid, profile, level, preset):
    video = make_video(tmp_path / "in.mp4", num_frames=3)
    made = upscale(video, tmp_path / "out.dcm", "--codec", codec, "--preset", preset)
    assert made.file_meta.TransferSyntaxUID == uid
    container, file = read_object(tmp_path / "out.dcm").open_bitstream()
    with file, container:
        context = container.streams.video[0].codec_context
        assert (context.profile, context.level) == (profile, level)
        assert container.format.name.startswith("mov,mp4")


# How it is written


def test_a_bitstream_above_a_fragments_length_becomes_several(tmp_path):
    video = make_video(tmp_path / "v.mp4", options={"profile": "high"})
    write_derived(None, video, tmp_path / "out.dcm", derivation=DERIVATION, largest_fragment=1000)
    found = read_object(tmp_path / "out.dcm")
    assert found.syntax_uid == H264 + ".1"
    assert len(found.fragments.starts) == -(-video.stat().st_size // 1000)
    assert all(size % 2 == 0 for size in found.fragments.sizes)
    assert len(frames_of(tmp_path / "out.dcm")) == 10


def test_a_name_as_long_as_drafts_allow_is_written(tmp_path):
    name = "n" * (255 - 15 - len(".dcm")) + ".dcm"
    upscale(make_video(tmp_path / "in.mp4", num_frames=2), tmp_path / name)
    assert len(frames_of(tmp_path / name)) == 2


def test_a_transport_file_is_wrapped_as_it_is(tmp_path):
    video = make_video(tmp_path / "v.ts", options={"profile": "high"})
    write_derived(None, video, tmp_path / "out.dcm", derivation=DERIVATION)
    assert video.read_bytes() in (tmp_path / "out.dcm").read_bytes()
    assert len(frames_of(tmp_path / "out.dcm")) == 10


def test_an_object_is_not_replaced_unless_asked(tmp_path, capsys):
    video = make_video(tmp_path / "v.mp4", options={"profile": "high"})
    target = tmp_path / "out.dcm"
    target.write_text("precious")
    with pytest.raises(OutputExists):
        write_derived(None, video, target, derivation=DERIVATION)
    assert run("upscale", video, "-m", "bicubic-x2", "-o", target) == 2
    assert "-y" in one_line(capsys.readouterr().err)
    assert target.read_text() == "precious"
    upscale(video, target, "-y")
    source = make_dicom(tmp_path / "in.dcm")
    assert run("upscale", source, "-m", "bicubic-x2", "-o", source, "-y") == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pix_fmt": "yuv444p"}, "4:2:0"),
        ({"codec": "mpeg4"}, "no DICOM video holds mpeg4"),
        ({"options": {"profile": "high", "level": "5.1"}}, "level 51"),
    ],
)
def test_a_video_that_dicom_does_not_hold_is_refused(tmp_path, changes, said):
    video = make_video(tmp_path / "v.mp4", **changes)
    with pytest.raises(UsageError, match=said):
        write_derived(None, video, tmp_path / "out.dcm", derivation=DERIVATION)
    with pytest.raises(UsageError, match="MP4 or MPEG-TS"):
        write_derived(None, make_video(tmp_path / "v.mkv"), tmp_path / "out.dcm", derivation=DERIVATION)
    assert not list(tmp_path.glob("*.dcm"))


def test_a_source_that_does_not_say_what_it_is_is_refused_early(tmp_path, capsys):
    source = make_dicom(tmp_path / "in.dcm", StudyInstanceUID=None)
    assert run("upscale", source, "-m", "bicubic-x2", "-o", tmp_path / "out.dcm") == InputError.exit_code
    assert "StudyInstanceUID" in one_line(capsys.readouterr().err)
    assert not (tmp_path / "out.dcm").exists()


def test_odd_values_of_the_source_are_carried_on(tmp_path):
    source = make_dicom(tmp_path / "in.dcm")
    source.write_bytes(source.read_bytes().replace(b"19410229", b"not a da").replace(b"CS\x02\x00O ", b"CS\x02\x00o "))
    made = upscale(source, tmp_path / "out.dcm")
    assert made.PatientID == PATIENT["PatientID"]
    assert len(frames_of(tmp_path / "out.dcm")) == 10


def test_what_was_interrupted_is_kept_as_a_video(tmp_path):
    video = make_video(tmp_path / "in.mp4", num_frames=30)
    with open_source(video) as source:
        frames = [item for item in source if isinstance(item, Frame)]
        sink = DicomSink(tmp_path / "out.dcm", source=None, derivation=DERIVATION, facts=source.info, scale=1)
        with pytest.raises(Interrupted), sink:  # noqa: PT012
            for frame in frames[:20]:
                sink.show(frame)
            raise Interrupted("enough")
    assert [path.name for path in sink.report.paths] == ["out.partial.mp4"]
    assert not (tmp_path / "out.dcm").exists()
    with av.open(str(tmp_path / "out.partial.mp4")) as container:
        assert len(list(container.decode(video=0))) == 20


def test_pictures_that_cannot_become_an_object_are_kept(tmp_path, monkeypatch, capsys):
    def refuse(*_: Any, **__: Any) -> None:
        raise UsageError("no DICOM video holds this")

    monkeypatch.setattr(dicom_recording, "write_derived", refuse)
    video = make_video(tmp_path / "in.mp4")
    assert run("upscale", video, "-m", "bicubic-x2", "-o", tmp_path / "out.dcm", "-q") == OutputError.exit_code
    assert "out.partial.mp4" in one_line(capsys.readouterr().err)
    assert len(read_numbers(tmp_path / "out.partial.mp4", 2)) == 10
    assert not (tmp_path / "out.dcm").exists()
    assert list(tmp_path.glob(".*")) == []


def test_a_second_object_that_cannot_be_leaves_the_first_a_video_too(tmp_path, monkeypatch):
    def refuse_second(*arguments: Any, place: Place, **options: Any) -> None:
        if place.number == 2:
            raise UsageError("no DICOM video holds this")
        write_derived(*arguments, place=place, **options)

    monkeypatch.setattr(dicom_recording, "write_derived", refuse_second)
    parts = [make_video(tmp_path / f"{side}.ts", width=side).read_bytes() for side in (64, 96)]
    (tmp_path / "in.ts").write_bytes(b"".join(parts))
    assert run("upscale", tmp_path / "in.ts", "-m", "bicubic-x2", "-o", tmp_path / "out.dcm", "-q") == 5
    for kept in ("out.partial.mp4", "out.part2.partial.mp4"):
        with av.open(str(tmp_path / kept)) as container:
            assert len(list(container.decode(video=0))) == 10
    assert list(tmp_path.glob(".*")) == list(tmp_path.glob("*.dcm")) == []


def test_a_disk_that_holds_the_pictures_but_not_the_object_keeps_the_pictures(small_disk, tmp_path, capsys):
    noise = np.random.default_rng(0).integers(0, 256, (36, 180, 160), np.uint8)
    video = make_video(tmp_path / "in.mp4", width=160, height=120, num_frames=36, pictures=list(noise))
    upscale(video, tmp_path / "out.dcm")
    num_bytes = (tmp_path / "out.dcm").stat().st_size
    assert 1.2 * RESERVE_BYTES < num_bytes < 1.8 * RESERVE_BYTES
    free = num_bytes + RESERVE_BYTES + 100_000
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free - free))
    assert run("upscale", video, "-m", "bicubic-x2", "-o", small_disk / "out.dcm", "-q") == 5
    assert "no space left" in one_line(capsys.readouterr().err)
    assert sorted(path.name for path in small_disk.iterdir()) == ["ballast", "out.partial.mp4", "out.partial.mp4.json"]
    with av.open(str(small_disk / "out.partial.mp4")) as container:
        assert len(list(container.decode(video=0))) == 36


# An independent validator


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
@pytest.mark.parametrize(
    ("changes", "options"),
    [
        pytest.param({}, [], id="h264"),
        pytest.param({"pts": [0, 1, 4, 5, 9], "num_frames": 5}, [], id="variable"),
        pytest.param({}, ["--codec", "libx265"], id="hevc"),
        pytest.param({"BodyPartExamined": "COLON", "PatientAge": "040Y"}, [], id="one-of-its-kind"),
        pytest.param({"BodyPartExamined": "KNEE", "Laterality": "L"}, [], id="one-of-a-pair"),
    ],
)
@pytest.mark.parametrize("derived", [True, False], ids=["derived", "alone"])
def test_dciodvfy_finds_no_error(tmp_path, changes, options, derived):
    source = make_dicom(tmp_path / "in.dcm", **changes)
    if not derived:
        source = make_video(tmp_path / "in.mp4", **{key: value for key, value in changes.items() if key[0].islower()})
    target = tmp_path / "out.dcm"
    upscale(source, target, *options)
    # The validator knows no HEVC: what it is shown then is the same data set under a name that it knows.
    target.write_bytes(target.read_bytes().replace(HEVC.encode(), H264.encode(), 1))
    assert complaints(target) == []


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
def test_dciodvfy_would_find_an_error(tmp_path):
    made = upscale(make_dicom(tmp_path / "in.dcm"), tmp_path / "out.dcm")
    del made.AnatomicRegionSequence
    made.save_as(tmp_path / "less.dcm")
    assert any("AnatomicRegionSequence" in line for line in complaints(tmp_path / "less.dcm"))


@pytest.mark.skipif(find_spec("highdicom") is None, reason="highdicom is not installed")
@pytest.mark.parametrize("options", [[], ["--codec", "libx265"]], ids=["h264", "hevc"])
@pytest.mark.parametrize("sound", [False, True], ids=["silent", "sound"])
def test_highdicoms_tables_of_the_standard_miss_nothing_and_know_everything(tmp_path, options, sound):
    folder = Path(str(find_spec("highdicom").origin)).parent / "_standard"
    tables = (json.loads((folder / f"{name}.json").read_text()) for name in ("iod_module_map", "module_attribute_map"))
    modules, attributes = tables
    made = upscale(make_dicom(tmp_path / "in.dcm", audio=sound), tmp_path / "out.dcm", *options)
    known = set()
    for module in modules["video-endoscopic-image"]:
        for attribute in attributes[module["key"]]:
            keyword, kind, path = attribute["keyword"], attribute["type"], attribute["path"]
            items = [made]
            for step in path:
                items = [inner for item in items for inner in item.get(step) or ()]
            known |= set() if path else {keyword}
            for item in items if path or module["usage"] == "M" else ():
                assert kind != "1" or item.get(keyword) not in (None, ""), (module["key"], path, keyword)
                assert kind != "2" or keyword in item, (module["key"], path, keyword)
    assert {element.keyword for element in made} - known == set()
