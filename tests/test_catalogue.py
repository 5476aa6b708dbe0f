"""The failure catalogue of files: what each case is, and what the user gets; every row a test."""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from streamsr.config import GeneratorSettings, ReadSettings, UpscaleSettings
from streamsr.errors import InputError, InputNotFound
from streamsr.job import JobResult, upscale_file
from tests.videos import make_video, read_numbers

BICUBIC = UpscaleSettings(generator=GeneratorSettings(engine="bicubic-x2"))


def enlarge(video: Path, name: str = "out.mkv", *, settings: UpscaleSettings = BICUBIC) -> JobResult:
    return upscale_file(video, video.parent / name, settings=settings)


def times_of(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


def tags_of(path: Path) -> tuple[int, int, int, int]:
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        return context.colorspace, context.color_range, context.color_primaries, context.color_trc


def assert_times_kept(source: Path, result: JobResult, *, offset_s: float = 0.0) -> None:
    before, after = times_of(source), times_of(result.outputs[0])
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):  # Matroska stores whole milliseconds
        assert abs(float(old) + offset_s - float(new)) <= 0.00051


def test_truncated_mp4_without_moov(tmp_path: Path) -> None:
    video = make_video(tmp_path / "whole.mp4", num_frames=20)
    content = video.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(content[: content.rindex(b"moov") - 4])
    with pytest.raises(InputError, match=r"cut\.mp4.*no index \(recording cut\?\)"):
        enlarge(cut)
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize(("content", "words"), [(b"", "empty file"), (b"patient notes\n" * 40, "not a video")])
def test_text_or_zero_bytes(tmp_path: Path, content: bytes, words: str) -> None:
    video = tmp_path / "notes.mp4"
    video.write_bytes(content)
    with pytest.raises(InputError, match=words):
        enlarge(video)
    assert not list(tmp_path.glob("*out*"))


def test_truncated_faststart(tmp_path: Path) -> None:
    video = make_video(
        tmp_path / "whole.mp4", num_frames=60, width=160, height=128, container_options={"movflags": "+faststart"}
    )
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(video.read_bytes()[: int(video.stat().st_size * 0.6)])
    result = enlarge(cut)
    assert not result.complete
    assert 0 < result.frames_out < 60
    assert result.frames_out == result.frames_in == len(read_numbers(result.outputs[0], 2))
    assert any("of 60 frames" in notice for notice in result.notices)


def test_corrupt_packets(tmp_path: Path) -> None:
    video = make_video(tmp_path / "whole.ts", num_frames=60, width=160, height=128, container_format="mpegts")
    content = bytearray(video.read_bytes())
    for packet in range(len(content) // 2 // 188, len(content) // 2 // 188 + 6):
        content[packet * 188 + 4 : packet * 188 + 188] = bytes(np.random.default_rng(packet).bytes(184))
    broken = tmp_path / "broken.ts"
    broken.write_bytes(content)
    result = enlarge(broken)
    assert result.frames_out == result.frames_in > 30
    assert not result.complete
    assert result.gaps
    assert any(character.isdigit() for character in result.gaps[0])


def test_audio_only(tmp_path: Path) -> None:
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as container:
        track = container.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48000, 0
        container.mux([*track.encode(frame), *track.encode(None)])
    with pytest.raises(InputError, match="no video"):
        enlarge(sound)
    assert not list(tmp_path.glob("*out*"))


def test_zero_frames(tmp_path: Path) -> None:
    empty = tmp_path / "empty.mkv"
    with av.open(str(empty), "w") as container:
        track = container.add_stream("libx264", rate=25)
        track.width, track.height, track.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    with pytest.raises(InputError, match="no video"):
        enlarge(empty)
    assert not list(tmp_path.glob("*out*"))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputNotFound, match="no such file"):
        enlarge(tmp_path / "gone.mp4")


def test_size_change_makes_a_new_part(tmp_path: Path) -> None:
    one = make_video(tmp_path / "one.ts", num_frames=8, container_format="mpegts")
    two = make_video(tmp_path / "two.ts", num_frames=6, width=96, height=64, first_number=8, container_format="mpegts")
    both = tmp_path / "both.ts"
    both.write_bytes(one.read_bytes() + two.read_bytes())
    result = enlarge(both)
    assert [path.name for path in result.outputs] == ["out.mkv", "out.part2.mkv"]
    assert read_numbers(result.outputs[0], 2) == list(range(8))
    assert read_numbers(result.outputs[1], 2) == list(range(8, 14))
    assert any("size changed" in notice for notice in result.notices)


def test_size_change_can_be_scaled_to_fit(tmp_path: Path) -> None:
    one = make_video(tmp_path / "one.ts", num_frames=8, container_format="mpegts")
    two = make_video(tmp_path / "two.ts", num_frames=6, width=128, height=96, first_number=8, container_format="mpegts")
    both = tmp_path / "both.ts"
    both.write_bytes(one.read_bytes() + two.read_bytes())
    result = enlarge(both, settings=UpscaleSettings(generator=BICUBIC.generator, read=ReadSettings(resize="fit")))
    assert [path.name for path in result.outputs] == ["out.mkv"]
    assert result.frames_out == 14


def test_odd_size(tmp_path: Path) -> None:
    video = make_video(tmp_path / "odd.mkv", width=65, height=49, pix_fmt="yuv444p")
    result = enlarge(video)
    assert result.complete
    with av.open(str(result.outputs[0])) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (130, 98)


def test_variable_frame_rate(tmp_path: Path) -> None:
    pts = [0, 40, 45, 190, 333, 334, 1000, 1200]
    video = make_video(tmp_path / "vfr.mkv", pts=pts, time_base=Fraction(1, 1000))
    result = enlarge(video)
    assert_times_kept(video, result)
    assert [round(time * 1000) for time in times_of(result.outputs[0])] == pts


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_b_frames_and_ntsc_rate(tmp_path: Path, suffix: str) -> None:
    video = make_video(tmp_path / "b.mp4", num_frames=40, rate=Fraction(30000, 1001), options={"bf": "3"})
    result = enlarge(video, f"out{suffix}")
    assert read_numbers(result.outputs[0], 2) == list(range(40))
    assert_times_kept(video, result)


def test_negative_pts(tmp_path: Path) -> None:
    video = make_video(tmp_path / "negative.mp4", pts=list(range(-5, 15)), time_base=Fraction(1, 25))
    first = times_of(video)[0]
    result = enlarge(video)
    assert_times_kept(video, result, offset_s=-float(min(first, 0)))
    assert result.details["time"]["offset_s"] == pytest.approx(-float(min(first, 0)))


def test_missing_pts(tmp_path: Path) -> None:
    video = make_video(tmp_path / "raw.h264", num_frames=12, container_format="h264")
    assumed = enlarge(video)
    assert assumed.frames_out == 12
    assert read_numbers(assumed.outputs[0], 2) == list(range(12))
    assert "assuming 25 fps (its bitstream says so); set --rate" in assumed.notices
    told = enlarge(
        video, "told.mkv", settings=UpscaleSettings(generator=BICUBIC.generator, read=ReadSettings(rate=Fraction(10)))
    )
    assert times_of(told.outputs[0])[-1] == pytest.approx(1.1, abs=0.001)


def test_backward_pts_of_joined_transport_files(tmp_path: Path) -> None:
    one = make_video(tmp_path / "one.ts", num_frames=10, container_format="mpegts")
    two = make_video(tmp_path / "two.ts", num_frames=10, first_number=10, container_format="mpegts")
    both = tmp_path / "both.ts"
    both.write_bytes(one.read_bytes() + two.read_bytes())
    result = enlarge(both)
    assert read_numbers(result.outputs[0], 2) == list(range(20))
    times = times_of(result.outputs[0])
    assert all(later > earlier for earlier, later in pairwise(times))
    assert result.notices


@pytest.mark.parametrize(
    ("pix_fmt", "codec", "expected"),
    [
        ("yuv420p10le", "libx265", "yuv420p10le"),
        ("yuv422p10le", "ffv1", "yuv422p10le"),
        ("yuv422p", "libx264", "yuv422p"),
        ("yuv444p", "libx264", "yuv444p"),
    ],
)
def test_depth_and_subsampling_are_kept(tmp_path: Path, pix_fmt: str, codec: str, expected: str) -> None:
    video = make_video(tmp_path / "deep.mkv", pix_fmt=pix_fmt, codec=codec, width=128, height=96)
    result = enlarge(video)
    with av.open(str(result.outputs[0])) as container:
        assert container.streams.video[0].codec_context.pix_fmt == expected
    assert result.complete


def test_gray_becomes_neutral_colour_that_plays_everywhere_and_stays_gray_on_request(tmp_path: Path) -> None:
    video = make_video(tmp_path / "gray.mkv", pix_fmt="gray", codec="ffv1")
    with av.open(str(enlarge(video).outputs[0])) as container:
        frame = next(container.decode(video=0))
        assert frame.format.name == "yuv420p"
        assert {int(sample) for sample in bytes(frame.planes[1])} == {128}
    kept = enlarge(video, "kept.mkv", settings=UpscaleSettings(generator=BICUBIC.generator, pix_fmt="gray"))
    assert " gray " in kept.details["picture"]["encoder"]  # FFmpeg decodes 4:0:0 H.264 as 4:2:0 with neutral chroma


def test_full_range(tmp_path: Path) -> None:
    video = make_video(tmp_path / "full.mkv", pix_fmt="yuvj420p", colour_range=2, matrix=6)
    result = enlarge(video)
    assert tags_of(result.outputs[0])[1] == 2
    assert result.details["picture"]["colour"]["range"] == "full"


@pytest.mark.parametrize(
    ("height", "rate", "tags", "words"),
    [
        (48, 25, (5, 1, 5, 6), "assuming BT.601 (SD)"),
        (48, Fraction(30000, 1001), (6, 1, 6, 6), "assuming BT.601 (SD)"),
        (720, 25, (1, 1, 1, 1), "assuming BT.709 (HD)"),
    ],
)
def test_untagged_colour(
    tmp_path: Path, height: int, rate: Fraction, tags: tuple[int, int, int, int], words: str
) -> None:
    video = make_video(tmp_path / "untagged.mkv", height=height, rate=rate, num_frames=3)
    assert tags_of(video)[0] == 2
    result = enlarge(video)
    assert tags_of(result.outputs[0]) == tags
    assert words in result.notices


def test_tagged_colour_is_kept(tmp_path: Path) -> None:
    video = make_video(tmp_path / "tagged.mkv", matrix=5, colour_range=1, primaries=5, transfer=1)
    assert tags_of(enlarge(video).outputs[0]) == (5, 1, 5, 1)


def test_interlaced(tmp_path: Path) -> None:
    video = make_video(tmp_path / "interlaced.mkv", interlaced=True, num_frames=12, width=128, height=96)
    result = enlarge(video)
    assert result.frames_out == 12
    assert any("deinterlacing (bwdif)" in notice for notice in result.notices)
    assert_times_kept(video, result)


def test_rotation(tmp_path: Path) -> None:
    video = make_video(tmp_path / "turned.mp4", rotation=90, width=96, height=64)
    result = enlarge(video)
    with av.open(str(result.outputs[0])) as container:
        frame = next(container.decode(video=0))
        assert (frame.width, frame.height, frame.rotation) == (128, 192, 0)


def test_alpha(tmp_path: Path) -> None:
    video = make_video(tmp_path / "alpha.mkv", codec="ffv1", pix_fmt="bgra")
    result = enlarge(video)
    assert any("alpha dropped" in notice for notice in result.notices)
    assert result.complete


def test_sound_and_subtitles_pass_through_packet_for_packet(tmp_path: Path) -> None:
    video = make_video(tmp_path / "talking.mkv", num_frames=30, audio=True, subtitles=("one", "two"))
    result = enlarge(video)

    def packets(path: Path, kind: str) -> list[tuple[bytes, int]]:
        with av.open(str(path)) as container:
            track = next(track for track in container.streams if track.type == kind)
            return [(bytes(p), round(p.pts * p.time_base * 1000)) for p in container.demux(track) if p.size]

    for kind in ("audio", "subtitle"):
        assert packets(video, kind), kind
        assert packets(result.outputs[0], kind) == packets(video, kind)


def test_metadata_is_left_out_unless_asked_for(tmp_path: Path) -> None:
    video = make_video(tmp_path / "named.mkv", metadata={"title": "Jane Doe 1970"})
    result = enlarge(video)
    assert b"Jane Doe" not in result.outputs[0].read_bytes()
    kept = enlarge(video, "kept.mkv", settings=UpscaleSettings(generator=BICUBIC.generator, keep_metadata=True))
    assert b"Jane Doe" in kept.outputs[0].read_bytes()


def test_result_says_what_made_it(tmp_path: Path) -> None:
    result = enlarge(make_video(tmp_path / "a.mkv"))
    with av.open(str(result.outputs[0])) as container:
        tags = {key.lower(): value for key, value in container.metadata.items()}
    assert "bicubic-x2" in tags["comment"]
    sidecar = json.loads(result.sidecar.read_text())
    assert sidecar["frames"] == {"in": 10, "out": 10, "complete": True, "gaps": [], "truncated": False}
    assert len(sidecar["input"]["sha256"]) == 64
