"""Display: what is burnt in, what a person sees of two versions of a picture, what keys mean, what a snapshot holds."""

from __future__ import annotations

import numpy as np
import pytest

from streamsr.colour import to_rgb8
from streamsr.display.overlay import CAPITAL_SHARE, PATIENCE, BadgePlace, badge_text, burn_badge
from streamsr.display.slate import blank_frame, no_signal_lines, opening_lines, slate, spoken_age
from streamsr.frame import Colour, Frame, PlaneLayout
from tests.live_doubles import HD, random_frame, shown_endoscopy

LAYOUTS = [PlaneLayout(shift, bits) for shift in (None, (1, 1), (1, 0), (0, 0), (0, 1)) for bits in (8, 10, 16)]


def changed_box(before: Frame, after: Frame) -> tuple[int, int, int, int]:
    """Return (left, top, right, bottom) of what differs in luma."""
    rows, columns = np.nonzero(before.planes[0] != after.planes[0])
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.pix_fmt)
@pytest.mark.parametrize("matrix", [1, 6, 9, 10])
@pytest.mark.parametrize("full_range", [False, True])
def test_a_badge_is_white_on_dark_in_every_layout_matrix_and_range(
    layout: PlaneLayout, matrix: int, full_range: bool
) -> None:
    colour = Colour(matrix, full_range, 1, 1)
    frame = random_frame(161, 121, layout=layout, colour=colour)
    before = [plane.copy() for plane in frame.planes]
    burnt = burn_badge(frame, badge_text(2))
    assert all(np.array_equal(plane, copy) for plane, copy in zip(frame.planes, before, strict=True))
    assert [(plane.shape, plane.dtype) for plane in burnt.planes] == [(plane.shape, plane.dtype) for plane in before]
    left, top, right, bottom = changed_box(frame, burnt)
    inside = burnt.planes[0][top:bottom, left:right] / layout.peak
    white, black = (1.0, 0.0) if full_range else (235 / 255, 16 / 255)
    assert inside.max() == pytest.approx(white, abs=0.02)
    assert np.percentile(inside, 20) < black + 0.35


@pytest.mark.parametrize("size", [(320, 320), (640, 640), (1920, 1080), (3840, 2160)])
def test_a_badge_grows_with_the_picture_and_covers_little_of_it(size: tuple[int, int]) -> None:
    frame = random_frame(*size)
    left, top, right, bottom = changed_box(frame, burn_badge(frame, badge_text(4)))
    assert (right - left) * (bottom - top) < 0.045 * size[0] * size[1]
    assert bottom - top >= 3 * CAPITAL_SHARE * min(size)
    assert right <= size[0]
    assert left > size[0] / 2
    assert bottom < size[1] / 4


@pytest.mark.parametrize("size", [(1, 1), (2, 16), (40, 8), (64, 64), (66, 130)])
def test_a_badge_fits_pictures_that_are_too_small_for_it(size: tuple[int, int]) -> None:
    frame = random_frame(*size)
    burnt = burn_badge(frame, "an alarm with a very long text - " + "word " * 20, alarm=True)
    assert burnt.planes[0].shape == frame.planes[0].shape
    assert not np.array_equal(burnt.planes[0], frame.planes[0])


def test_an_alarm_is_red() -> None:
    rgb = to_rgb8(burn_badge(blank_frame(320, 240), "GENERATOR FAILED", alarm=True)).astype(int)
    red = (rgb[..., 0] > 150) & (rgb[..., 1] < 90) & (rgb[..., 2] < 90)
    assert red[:40, 160:].sum() > 500
    assert not red[120:].any()


def test_chroma_that_a_badge_does_not_change_is_shared() -> None:
    frame = blank_frame(320, 240, colour=HD)
    neutral = frame.with_planes((frame.planes[0] + 16, *(np.full_like(plane, 128) for plane in frame.planes[1:])))
    badge, alarm = burn_badge(neutral, "x"), burn_badge(neutral, "x", alarm=True)
    assert [badge.planes[index] is neutral.planes[index] for index in range(3)] == [False, True, True]
    assert [alarm.planes[index] is neutral.planes[index] for index in range(3)] == [False, False, False]


def test_a_badge_finds_the_black_surround_and_leaves_the_picture_whole() -> None:
    shown = shown_endoscopy(1, width=640, height=480)[0]
    burnt = burn_badge(shown.picture, badge_text(2), place=BadgePlace())
    touched = burnt.planes[0] != shown.picture.planes[0]
    assert touched.any()
    assert shown.picture.planes[0][touched].max() <= 20


def test_a_badge_stays_for_a_flash_and_moves_when_its_place_is_lost() -> None:
    dark = blank_frame(320, 240)
    bright_right = dark.with_planes(
        (np.pad(dark.planes[0][:, :160], ((0, 0), (0, 160)), constant_values=99), *dark.planes[1:])
    )
    flash = random_frame(320, 240)
    place = BadgePlace()
    first = place.choose(dark, 80, 30)
    assert first[0] > 160
    assert all(place.choose(flash, 80, 30) == first for _ in range(PATIENCE - 1))
    assert place.choose(dark, 80, 30) == first
    found = [place.choose(bright_right, 80, 30) for _ in range(3 * PATIENCE)]
    assert found[0] == first
    assert found[-1][0] + 80 <= 160
    assert len(set(found)) == 2


def test_a_badge_of_another_text_stays_in_the_same_corner() -> None:
    place, dark = BadgePlace(), blank_frame(320, 240)
    small, large = place.choose(dark, 60, 30), place.choose(dark, 100, 30)
    assert small[0] + 60 == large[0] + 100
    assert small[1] == large[1]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.pix_fmt)
def test_a_slate_is_blue_and_says_its_text_in_every_layout(layout: PlaneLayout) -> None:
    like = blank_frame(321, 241, layout)
    drawn = slate(like, no_signal_lines(3.24))
    assert [plane.shape for plane in drawn.planes] == [plane.shape for plane in like.planes]
    assert drawn.layout == layout
    assert drawn.arrived_ns > 0
    rgb = to_rgb8(drawn)
    if layout.chroma_shift is not None:
        assert tuple(rgb[70, 10]) == pytest.approx((18, 31, 56), abs=3)
    assert (rgb.min(axis=2) > 240).sum() > 500


def test_slates_of_two_ages_differ_so_that_none_looks_frozen() -> None:
    like = blank_frame(320, 240)
    one, other = (slate(like, no_signal_lines(age)) for age in (3.2, 3.3))
    assert not np.array_equal(one.planes[0], other.planes[0])
    assert np.array_equal(one.planes[0][:120], other.planes[0][:120])


def test_a_calm_slate_has_no_stripes() -> None:
    like = blank_frame(320, 240)
    striped, calm = (to_rgb8(slate(like, opening_lines("/dev/video0"), alarm=alarm)) for alarm in (True, False))
    assert np.ptp(calm[:8].reshape(-1, 3), axis=0).max() == 0
    assert (striped[:8, :, 0] > 200).any()


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (97, 33), (1920, 1080)])
def test_a_slate_fits_every_size(size: tuple[int, int]) -> None:
    drawn = slate(blank_frame(*size), no_signal_lines(None, "überlanger Hinweis " * 9))
    assert (drawn.width, drawn.height) == size


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-1.0, "0.0 s"), (3.24, "3.2 s"), (59.99, "59.9 s"), (65.0, "1 min 05 s"), (3725.0, "1 h 02 min")],
)
def test_ages_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert spoken_age(seconds) == said
    assert said in no_signal_lines(seconds)[1]
