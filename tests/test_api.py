"""The Python API: arrays and PyAV frames in memory, and whole files."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

import streamsr
from streamsr.errors import EngineNotFound, UsageError
from tests.videos import draw_picture, make_video, read_numbers


def gradient(height: int, width: int) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 2, columns * 2, 250 - rows - columns], axis=2).clip(0, 255).astype(np.uint8)


def test_arrays_keep_their_colours_and_double_their_size() -> None:
    picture = gradient(45, 61)
    with streamsr.Upscaler("fast-x2") as upscaler:
        large = upscaler.upscale(picture)
    assert large.shape == (90, 122, 3)
    assert large.dtype == np.uint8
    middle = large.reshape(45, 2, 61, 2, 3).mean(axis=(1, 3))[4:-4, 4:-4]
    assert np.abs(middle - picture[4:-4, 4:-4]).max() < 4


def test_gray_arrays_stay_gray() -> None:
    with streamsr.Upscaler("fast-x2") as upscaler:
        large = upscaler.upscale(draw_picture(3))
    assert large.shape == (96, 128)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le", "gray", "rgb24", "nv12"])
def test_video_frames_keep_their_time_and_tags(pix_fmt: str) -> None:
    frame = av.VideoFrame.from_ndarray(draw_picture(1), format="gray").reformat(format=pix_fmt)
    frame.pts, frame.time_base = 77, Fraction(1, 90000)
    if "rgb" not in pix_fmt:
        frame.colorspace, frame.color_range = 5, 1
    with streamsr.Upscaler("fast-x2") as upscaler:
        large = upscaler.upscale(frame)
    assert (large.width, large.height, large.pts, large.time_base) == (128, 96, 77, Fraction(1, 90000))
    if "rgb" not in pix_fmt and pix_fmt != "gray":
        assert (large.colorspace, large.color_range) == (5, 1)
    assert ("10" in large.format.name) == ("10" in pix_fmt)


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8), "a.png"]
)
def test_other_things_are_refused_in_one_line(wrong: object) -> None:
    with streamsr.Upscaler("bicubic-x2") as upscaler, pytest.raises(UsageError, match="expected") as caught:
        upscaler.upscale(wrong)  # type: ignore[call-overload]
    assert "\n" not in str(caught.value)


def test_unknown_engines_are_refused() -> None:
    with pytest.raises(EngineNotFound, match="there are"):
        streamsr.Upscaler("no-such")


def test_a_file_is_enlarged_and_read_back(tmp_path: Path) -> None:
    result = streamsr.upscale_file(make_video(tmp_path / "a.mp4"), tmp_path / "out.mkv")
    assert read_numbers(result.outputs[0], 2) == list(range(10))
    with streamsr.open_source(result.outputs[0]) as source:
        frames = [item for item in source if hasattr(item, "planes")]
    assert [frame.sequence for frame in frames] == list(range(10))  # type: ignore[union-attr]


def test_precision_and_runtime_can_be_chosen() -> None:
    with (
        streamsr.Upscaler("fast-x2", runtime="torch", precision="fp32") as torch_one,
        streamsr.Upscaler("fast-x2", runtime="openvino", precision="fp32") as other,
    ):
        picture = gradient(33, 47)
        difference = torch_one.upscale(picture).astype(int) - other.upscale(picture)
        assert "torch" in torch_one.description
        assert np.abs(difference).max() <= 2  # one grey level of luma, through the colour matrix


def test_a_buffer_that_is_filled_anew_gives_a_new_picture_and_results_are_the_callers_own() -> None:
    picture = draw_picture(3)
    with streamsr.Upscaler("fast-x2") as upscaler:
        first = upscaler.upscale(picture)
        kept = first.copy()
        picture[:] = 255 - picture
        second = upscaler.upscale(picture)
        assert not np.array_equal(kept, second)
        assert np.array_equal(first, kept)
        second[:] = 0
        assert np.abs(upscaler.upscale(picture).astype(int)).max() > 0
