"""YUV and RGB: the standards' own numbers, and generators that change nothing change no sample."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsr.colour import RgbBridge, coding_of, from_rgb8, rgb_from_yuv, to_rgb8, yuv_from_rgb
from streamsr.errors import InputError, UsageError
from streamsr.frame import Colour, Frame, PlaneLayout, Siting
from tests.test_upscaler import frame_of, noise_planes

BT709, BT601 = (Colour(matrix, False, matrix, matrix) for matrix in (1, 6))
SHIFTS = [(1, 1), (1, 0), (0, 1), (0, 0)]


@pytest.mark.parametrize(
    ("colour", "rgb", "yuv"),
    [
        # 75 % and 100 % bars as Rec. ITU-R BT.601-7 and BT.709-6 quantise them (limited range, 8 bits).
        (BT601, (255, 0, 0), (81, 90, 240)),
        (BT601, (0, 255, 0), (145, 54, 34)),
        (BT601, (0, 0, 255), (41, 240, 110)),
        (BT709, (255, 0, 0), (63, 102, 240)),
        (BT709, (0, 255, 0), (173, 42, 26)),
        (BT709, (0, 0, 255), (32, 240, 118)),
        (BT709, (255, 255, 255), (235, 128, 128)),
        (BT709, (0, 0, 0), (16, 128, 128)),
        (Colour(6, True, 6, 6), (255, 0, 0), (76, 85, 255)),
        (Colour(6, True, 6, 6), (255, 255, 255), (255, 128, 128)),
        (Colour(9, False, 9, 14), (255, 0, 0), (74, 97, 240)),
    ],
)
def test_pure_colours_have_the_samples_of_the_standard(
    colour: Colour, rgb: tuple[int, ...], yuv: tuple[int, ...]
) -> None:
    layout = PlaneLayout((0, 0), 8)
    planes = from_rgb8(np.full((4, 4, 3), rgb, np.uint8), layout=layout, colour=colour)
    assert tuple(int(plane[0, 0]) for plane in planes) == yuv
    shown = to_rgb8(frame_of(planes, layout, colour))
    assert np.abs(shown[0, 0].astype(int) - rgb).max() <= 2


def test_ten_bit_limited_range_is_four_times_eight_bit() -> None:
    coding = coding_of(BT709, 10)
    assert coding.luma == (64, 876)
    assert coding.chroma == (512, 896)
    assert coding_of(Colour(1, True, 1, 1), 10).luma == (0, 1023)


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    shift=st.sampled_from(SHIFTS),
    depth=st.sampled_from([8, 10]),
    matrix=st.sampled_from([1, 4, 6, 7, 9]),
    full_range=st.booleans(),
    siting=st.sampled_from(list(Siting)),
    seed=st.integers(0, 99),
)
def test_an_identity_generator_changes_no_sample_by_more_than_one_even_in_chroma_noise(
    width: int,
    height: int,
    shift: tuple[int, int],
    depth: int,
    matrix: int,
    full_range: bool,
    siting: Siting,
    seed: int,
) -> None:
    layout, colour = PlaneLayout(shift, depth), Colour(matrix, full_range, 1, 1, siting)
    planes = noise_planes(layout, width, height, seed)
    bridge = RgbBridge(layout, colour, width, height, 1)
    for before, after in zip(planes, bridge.planes_of(bridge.rgb_of(planes), planes), strict=True):
        assert after.dtype == before.dtype
        assert np.abs(before.astype(int) - after).max() <= 1


def test_yuv_to_rgb_and_back_is_the_same_without_rounding_or_clamping() -> None:
    samples = np.random.default_rng(0).uniform(-50, 300, (3, 9, 7)).astype(np.float32)
    for colour in (BT601, BT709):
        coding = coding_of(colour, 8)
        rgb = rgb_from_yuv(samples[0], samples[1], samples[2], coding)
        assert rgb.min() < 0
        assert rgb.max() > 1
        np.testing.assert_allclose(yuv_from_rgb(rgb, coding), samples, atol=1e-3)


def test_what_an_rgb_generator_changes_reaches_the_chroma() -> None:
    layout = PlaneLayout()
    planes = tuple(np.full(size, 128, np.uint8) for size in ((16, 16), (8, 8), (8, 8)))
    bridge = RgbBridge(layout, BT709, 16, 16, 1)
    rgb = bridge.rgb_of(planes)
    rgb[0] += 0.1
    luma, blue, red = bridge.planes_of(rgb, planes)
    # By H.273: dY' = 219 * Kr * 0.1, dCb = 224 * -Kr * 0.1 / (2 (1 - Kb)), dCr = 224 * 0.1 / 2.
    assert (luma == 133).all()
    assert (blue == 125).all()
    assert (red == 139).all()


def test_gray_goes_through_rgb_as_three_equal_channels() -> None:
    layout = PlaneLayout(None, 8)
    planes = noise_planes(layout, 9, 7)
    bridge = RgbBridge(layout, BT709, 9, 7, 1)
    rgb = bridge.rgb_of(planes)
    np.testing.assert_array_equal(rgb[0], rgb[2])
    (luma,) = bridge.planes_of(rgb, planes)
    np.testing.assert_array_equal(luma, planes[0])


def test_a_smooth_picture_survives_preview_and_back() -> None:
    y, x = np.mgrid[:48, :64]
    pixels = np.stack([60 + x, 50 + y, 120 + (x + y) // 2], axis=-1).astype(np.uint8)
    for shift in SHIFTS:
        layout = PlaneLayout(shift, 8)
        frame = frame_of(from_rgb8(pixels, layout=layout, colour=BT709), layout, BT709)
        shown = to_rgb8(frame)
        assert shown.shape == (48, 64, 3)
        assert shown.flags.c_contiguous
        assert np.abs(shown[2:-2, 2:-2].astype(int) - pixels[2:-2, 2:-2]).max() <= 3


def test_a_preview_honours_the_matrix() -> None:
    layout = PlaneLayout((0, 0), 8)
    planes = from_rgb8(np.full((2, 2, 3), (200, 40, 30), np.uint8), layout=layout, colour=BT709)
    right, wrong = (to_rgb8(frame_of(planes, layout, colour))[0, 0].astype(int) for colour in (BT709, BT601))
    assert np.abs(right - (200, 40, 30)).max() <= 1
    assert np.abs(wrong - (200, 40, 30)).max() > 8


def test_matrices_that_are_not_luma_and_colour_difference_are_refused() -> None:
    frame: Frame = frame_of(noise_planes(PlaneLayout((0, 0)), 4, 4), PlaneLayout((0, 0)), Colour(0, True, 1, 1))
    with pytest.raises(InputError, match="got 0"):
        to_rgb8(frame)


def test_arrays_that_are_no_picture_are_refused() -> None:
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)):
        with pytest.raises(UsageError, match="uint8 RGB"):
            from_rgb8(wrong, layout=PlaneLayout(), colour=BT709)
