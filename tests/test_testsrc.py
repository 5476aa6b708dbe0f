from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from streamsr.capture import open_source
from streamsr.capture.framecode import draw_frame_code
from streamsr.capture.testsrc import CYCLE, REST, EndoscopySource, TestSettings, read_frame_code, write_clip
from streamsr.errors import InputError, UsageError
from streamsr.frame import Frame, PlaneLayout, Siting
from tests.videos import read_numbers

SMALL = TestSettings(width=160, height=120, frames=6, seed=3)


@pytest.fixture(scope="module")
def small() -> EndoscopySource:
    return EndoscopySource(SMALL)


def average(plane: np.ndarray, scale: int) -> np.ndarray:
    height, width = plane.shape
    return plane.reshape(height // scale, scale, width // scale, scale).astype(float).mean(axis=(1, 3))


def test_open_source_reads_the_options():
    name = "testsrc:endoscopy:size=160x120,rate=30000/1001,frames=3,seed=2,scale=4,audio=1"
    with open_source(name) as source:
        assert isinstance(source, EndoscopySource)
        assert source.settings == TestSettings(160, 120, Fraction(30000, 1001), 3, 2, 4, True)
        frames = list(source)
    assert [frame.pts for frame in frames if isinstance(frame, Frame)] == [0, 1, 2]
    assert (source.info.num_frames, source.info.time_base) == (3, Fraction(1001, 30000))
    assert source.report.num_frames == 3


@pytest.mark.parametrize(
    "name",
    [
        "testsrc:bars",
        "testsrc:endoscopy:colour=1",
        "testsrc:endoscopy:size=big",
        "testsrc:endoscopy:size=161x120",
        "testsrc:endoscopy:size=64x48",
        "testsrc:endoscopy:rate=1/0",
        "testsrc:endoscopy:frames=0",
        "testsrc:endoscopy:scale=3",
    ],
)
def test_impossible_test_sources_are_usage_errors(name):
    with pytest.raises(UsageError, match="expected"):
        open_source(name)


def test_frames_are_tagged_like_a_device_of_their_size(small):
    assert small.info.layout == PlaneLayout((1, 1), 8)
    colour = small.frame(0).colour
    assert (colour.matrix, colour.full_range, colour.siting, colour.assumed) == (5, False, Siting.LEFT, ())
    assert [plane.shape for plane in small.frame(0).planes] == [(120, 160), (60, 80), (60, 80)]
    luma, u, v = small.frame(0).planes
    assert luma.min() >= 16
    assert luma.max() <= 235
    assert min(u.min(), v.min()) >= 16
    assert max(u.max(), v.max()) <= 240


def test_pictures_depend_on_the_seed_alone(small):
    again, other = EndoscopySource(SMALL), EndoscopySource(TestSettings(width=160, height=120, seed=4))
    for number in (0, 5):
        for one, two, three in zip(
            small.frame(number).planes, again.frame(number).planes, other.frame(number).planes, strict=True
        ):
            assert np.array_equal(one, two)
            assert not np.array_equal(one, three)


@pytest.mark.parametrize("scale", [2, 4])
def test_frames_are_the_truth_brought_down_by_areas(scale):
    source = EndoscopySource(TestSettings(width=160, height=120, truth_scale=scale, seed=1))
    truth, frame = source.truth_frame(7), source.frame(7)
    assert [plane.shape for plane in truth] == [(120 * scale, 160 * scale)] + [(60 * scale, 80 * scale)] * 2
    assert np.abs(average(truth[0], scale) - frame.planes[0]).max() <= 0.51
    for large, small_plane in zip(truth[1:], frame.planes[1:], strict=True):
        assert np.abs(average(large, scale) - small_plane).mean() < 1.5


def test_chroma_stays_sited_left_when_brought_down():
    from streamsr.capture.surround import bring_down

    for scale in (2, 4):
        width = 16 * scale
        large = np.tile(np.arange(width, dtype=np.uint8) * 2, (8 * scale, 1))
        flat = np.zeros((16 * scale, 2 * width), np.uint8)
        small = bring_down((flat, large, large), scale)[1]
        at = scale * np.arange(16) + (scale - 1) / 4
        assert np.abs(small[3, 1:-1] - 2 * at[1:-1]).max() <= 1


def test_numbers_are_readable_from_frames_and_truth(small):
    for number in (0, 1, 77, 16383):
        assert read_frame_code(small.frame(number).planes[0]) == number
        assert read_frame_code(small.truth_frame(number)[0], scale=2) == number
    assert read_frame_code(small.frame(16384 + 9).planes[0]) == 9


def test_numbers_survive_enlarging_depth_and_noise():
    import cv2

    chance = np.random.default_rng(0)
    for number in (0, 5461, 10922, 16383):
        luma = np.full((60, 80), 90, np.uint8)
        draw_frame_code(luma, number)
        large = cv2.resize(luma, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
        noisy = np.clip(large + chance.normal(0, 25, large.shape), 0, 255).astype(np.uint8)
        assert read_frame_code(noisy, scale=4) == number
        assert read_frame_code(luma.astype(np.uint16) << 2) == number


def test_pictures_without_a_number_are_refused():
    with pytest.raises(InputError, match="not numbered"):
        read_frame_code(np.full((60, 80), 90, np.uint8))
    with pytest.raises(InputError, match="check the scale"):
        read_frame_code(np.full((60, 80), 90, np.uint8), scale=2)


def test_camera_moves_and_rests(small):
    def without_number(number: int) -> list[np.ndarray]:
        planes = [plane.copy() for plane in small.frame(number).planes]
        draw_frame_code(planes[0], 0)
        return planes

    first = CYCLE - REST
    resting = [without_number(number) for number in (first, first + 4, CYCLE)]
    for planes in resting[1:]:
        assert all(np.array_equal(one, two) for one, two in zip(resting[0], planes, strict=True))
    moving = without_number(first // 2), without_number(first // 2 + 1)
    assert np.mean(moving[0][0] != moving[1][0]) > 0.2
    assert len({small.frame(number).planes[0].tobytes() for number in range(first, CYCLE)}) == REST


def test_scene_has_lumen_highlights_surround_and_text():
    source = EndoscopySource(TestSettings(width=320, height=240, frames=1))
    luma, u, v = source.frame(0).planes
    field = luma[20:220, 100:300]
    assert field.min() < 22, "the lumen is dark"
    assert luma.max() == 235, "highlights are clipped"
    assert np.mean(field > 225) < 0.03
    assert 0.25 < np.mean(luma == 16) < 0.55, "the surround is black"
    assert np.ptp(luma[5:70, 4:72]) > 100, "the panel holds text"
    assert np.median(v[20:100, 55:140]) > 140 > np.median(u[20:100, 55:140]), "the mucosa is red"
    corner = luma[2:12, 80:92]
    assert (corner == 16).all()
    panel_later = source.frame(33).planes[0][:150, :75]
    assert np.array_equal(panel_later, luma[:150, :75])


def test_clip_is_lossless_numbered_and_sounds(tmp_path):
    source = EndoscopySource(SMALL)
    path = write_clip(tmp_path / "clip.mkv", source)
    assert read_numbers(path) == list(range(6))
    with open_source(path) as back:
        frames = [item for item in back if isinstance(item, Frame)]
    assert [(track.kind, track.codec) for track in back.info.tracks] == [("audio", "aac")]
    assert back.info.colour == source.info.colour
    for number, frame in enumerate(frames):
        for one, two in zip(frame.planes, source.frame(number).planes, strict=True):
            assert np.array_equal(one, two)


def test_lossy_clip_keeps_its_numbers_and_may_be_silent(tmp_path):
    with EndoscopySource(SMALL) as source:
        path = write_clip(tmp_path / "clip.mp4", source, audio=False, options={"crf": "35"})
    assert read_numbers(path) == list(range(6))
    with open_source(path) as back:
        assert back.info.tracks == ()
