"""Display: what is burnt in, what a person sees of two versions of a picture, what keys mean, what a snapshot holds."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from time import monotonic_ns

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsr.capture.testsrc import read_frame_code
from streamsr.colour import to_rgb8
from streamsr.display import viewport
from streamsr.display.commands import SESSION_COMMANDS, Command
from streamsr.display.compose import compose
from streamsr.display.decoration import Around, pill
from streamsr.display.hand import Hand, MouseAct, MouseEvent
from streamsr.display.keys import DEFAULT_KEYS, MEANINGS, bind, key_name, list_keys, parse_key_option
from streamsr.display.overlay import CAPITAL_SHARE, GLASS_BOX, PATIENCE, BadgePlace, badge_text, burn_badge
from streamsr.display.panel import clock, recording_line, status_rows
from streamsr.display.panes import panes
from streamsr.display.shown import Shown
from streamsr.display.slate import blank_frame, no_signal_lines, opening_lines, slate, spoken_age
from streamsr.display.status import LiveStatus, RecordingStatus, SourceState
from streamsr.display.viewport import Picture, render
from streamsr.display.viewstate import LARGEST_ZOOM, Arrangement, ViewState
from streamsr.errors import InputError, OutputError, UsageError
from streamsr.frame import Colour, Frame, PlaneLayout, Siting
from streamsr.sidecar import INTERPOLATED_STATEMENT, STATEMENT
from streamsr.snapshot import write_snapshot
from streamsr.timing import Percentiles
from tests.live_doubles import HD, enlarged, random_frame, shown_endoscopy, shown_slate

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
    dark = blank_frame(640, 480)
    field = cv2.circle(np.full((480, 640), 16, np.uint8), (400, 240), 238, 150, -1)
    frame = dark.with_planes((field, *dark.planes[1:]))
    touched = burn_badge(frame, badge_text(2), place=BadgePlace()).planes[0] != field
    assert touched.any()
    assert field[touched].max() == 16


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


def test_a_badge_leaves_burnt_in_figures_that_come_and_go_for_a_corner_that_is_black() -> None:
    dark, place = blank_frame(320, 240), BadgePlace()
    luma = dark.planes[0].copy()
    luma[:60, 200:] = luma[180:, 200:] = luma[:60, :120] = 99
    figures = dark.with_planes((luma, *dark.planes[1:]))
    first = place.choose(dark, 80, 30)
    found = [place.choose(figures if number % 3 else dark, 80, 30) for number in range(4 * PATIENCE)]
    assert found[0] == first
    assert found[-1][0] < 120
    assert found[-1][1] > 180, "the one corner that stays black"
    assert len(set(found)) == 2


def test_what_a_codec_leaves_in_the_black_is_no_picture() -> None:
    dark = blank_frame(320, 240)
    luma = dark.planes[0].copy()
    luma[10:240:20, 10:320:37] = 24
    specked, plain = BadgePlace(), BadgePlace()
    assert specked.choose(dark.with_planes((luma, *dark.planes[1:])), 80, 30) == plain.choose(dark, 80, 30)
    luma[:, 160:] = 99
    assert BadgePlace().choose(dark.with_planes((luma, *dark.planes[1:])), 80, 30)[0] < 160


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


# What is seen of a frame


def smooth_frame(layout: PlaneLayout, colour: Colour, *, size: tuple[int, int] = (96, 64)) -> Frame:
    """Return a frame whose samples change slowly, so that filters of any kind agree on it."""
    frame = random_frame(*size, layout=layout, colour=colour)
    blurred = (cv2.GaussianBlur(plane, (0, 0), 6, borderType=cv2.BORDER_REPLICATE) for plane in frame.planes)
    return frame.with_planes(tuple(blurred))


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.pix_fmt)
@pytest.mark.parametrize("colour", [Colour(1, False, 1, 1), Colour(6, True, 1, 1), Colour(9, False, 9, 16)])
def test_a_whole_frame_is_rendered_in_the_colours_of_the_exact_conversion(layout: PlaneLayout, colour: Colour) -> None:
    frame = smooth_frame(layout, colour)
    difference = np.abs(render(frame, (0, 0, 96, 64), (96, 64)).astype(int) - to_rgb8(frame))
    assert difference.max() <= 4
    assert difference.mean() < 1


@pytest.mark.parametrize("siting", list(Siting))
def test_chroma_is_rendered_where_its_siting_says(siting: Siting) -> None:
    colour = replace(HD, siting=siting)
    frame = smooth_frame(PlaneLayout((1, 1)), colour)
    ramp = np.linspace(40, 210, 48, dtype=np.float32)
    ramps = (np.tile(ramp, (32, 1)), np.tile(np.linspace(40, 210, 32, dtype=np.float32)[:, None], (1, 48)))
    sloped = frame.with_planes((np.full_like(frame.planes[0], 120), *(np.rint(one).astype(np.uint8) for one in ramps)))
    difference = render(sloped, (0, 0, 96, 64), (96, 64)).astype(int) - to_rgb8(sloped)
    assert np.abs(difference[4:-4, 4:-4]).max() <= 3


@pytest.mark.parametrize("layout", LAYOUTS[:5], ids=lambda layout: layout.pix_fmt)
@pytest.mark.parametrize("size", [(96, 70), (192, 140), (48, 34), (101, 71)])
def test_bands_do_not_show(layout: PlaneLayout, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    frame, whole = random_frame(96, 70, layout=layout), (0, 0, 96, 70)
    monkeypatch.setattr(viewport, "BAND_ROWS", 1000)
    at_once = render(frame, whole, size)
    monkeypatch.setattr(viewport, "BAND_ROWS", 8)
    assert np.abs(render(frame, whole, size).astype(int) - at_once).max() <= 1
    there = np.zeros((size[1], size[0], 3), np.uint8)
    assert render(frame, whole, size, there) is there
    assert np.array_equal(there, render(frame, whole, size))


@pytest.mark.parametrize("size", [(160, 90), (240, 135), (300, 200), (70, 50), (200, 30)])
def test_a_picture_is_made_smaller_without_a_shift_or_moire(size: tuple[int, int]) -> None:
    """Against plain averages over areas."""
    frame = smooth_frame(PlaneLayout(None), HD, size=(384, 216))
    fine = np.indices((216, 384)).sum(axis=0) % 2 * 60 + 60  # a checkerboard, whose average is flat
    board = frame.with_planes((fine.astype(np.uint8),))
    expected = to_rgb8(frame.with_planes((cv2.resize(frame.planes[0], size, interpolation=cv2.INTER_AREA),)))
    assert np.abs(render(frame, (0, 0, 384, 216), size).astype(int) - expected).max() <= 3
    if max(384 / size[0], 216 / size[1]) >= 2:
        assert np.ptp(render(board, (0, 0, 384, 216), size)[2:-2, 2:-2]) <= 40


def test_an_unknown_matrix_is_shown_all_the_same() -> None:
    frame = random_frame(32, 16, colour=Colour(10, False, 9, 1))
    assert render(frame, (0, 0, 32, 16), (64, 32)).shape == (32, 64, 3)


# How a view changes


commands = st.lists(st.sampled_from(list(Command)), max_size=40)


@given(commands)
def test_what_is_visible_never_leaves_the_picture(given_commands: list[Command]) -> None:
    state = ViewState()
    for command in given_commands:
        state = state.after(command)
    left, top, right, bottom = state.visible
    assert -1e-9 <= left < right <= 1 + 1e-9
    assert -1e-9 <= top < bottom <= 1 + 1e-9
    assert 1 <= state.zoom <= LARGEST_ZOOM
    assert 0 <= state.line <= 1


@given(st.floats(1, 8), st.floats(0.2, 5), st.floats(0, 1), st.floats(0, 1))
def test_zooming_keeps_the_point_under_the_mouse_where_the_edges_allow(
    zoom: float, factor: float, across: float, down: float
) -> None:
    before = ViewState(zoom=zoom).centred((0.5, 0.5))
    left, top, right, bottom = before.visible
    at = (left + across * (right - left), top + down * (bottom - top))
    after = before.zoomed(factor, at)
    for axis, share in enumerate((across, down)):
        first, last = after.visible[axis], after.visible[axis + 2]
        moved = first + share * (last - first)
        free = first > 1e-9 and last < 1 - 1e-9
        assert not free or moved == pytest.approx(at[axis], abs=1e-6)


@pytest.mark.parametrize(
    "command",
    [
        *(Command.FREEZE, Command.OVERLAY, Command.HELP, Command.FULL_SCREEN),
        *(Command.SIDE_BY_SIDE, Command.SPLIT, Command.ORIGINAL),
    ],
)
def test_a_switch_pressed_twice_changes_nothing(command: Command) -> None:
    assert ViewState().after(command) != ViewState()
    assert ViewState().after(command).after(command) == ViewState()


@pytest.mark.parametrize("command", sorted(SESSION_COMMANDS, key=lambda command: command.value))
def test_commands_of_the_session_change_no_view(command: Command) -> None:
    assert ViewState(zoom=2.0).after(command) == ViewState(zoom=2.0)


def test_arrows_move_the_line_where_there_is_nothing_to_pan_and_pan_where_there_is() -> None:
    whole = ViewState(arrangement=Arrangement.SPLIT)
    assert whole.after(Command.PAN_LEFT).line < 0.5
    near = replace(whole, zoom=2.0).after(Command.PAN_LEFT)
    assert near.line == 0.5
    assert near.centre[0] < 0.5


def test_zooming_out_again_shows_the_whole_picture_exactly() -> None:
    state = ViewState()
    for command in (Command.ZOOM_IN, Command.ZOOM_IN, Command.PAN_RIGHT, Command.ZOOM_OUT, Command.ZOOM_OUT):
        state = state.after(command)
    assert state == ViewState()


# What a view shows


def luma_of(picture: Picture) -> Picture:
    gray: Picture = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return gray


def test_the_enlarged_picture_is_shown_sample_for_sample() -> None:
    shown = shown_endoscopy(1, width=320, height=240)[0]
    drawn = compose(shown, ViewState(), (640, 480), now_ns=0)
    assert np.abs(drawn.astype(int) - to_rgb8(shown.picture)).mean() < 1
    assert read_frame_code(luma_of(drawn), 2) == shown.number


@pytest.mark.parametrize("size", [(640, 480), (1000, 480), (640, 900), (321, 123), (40, 40), (1, 1)])
@pytest.mark.parametrize("arrangement", list(Arrangement))
def test_a_view_has_the_size_of_its_window_whatever_it_shows(size: tuple[int, int], arrangement: Arrangement) -> None:
    shown = shown_endoscopy(1)[0]
    state = ViewState(arrangement=arrangement, zoom=3.0, overlay=True, frozen=True, help=True)
    around = Around(LiveStatus(recording=RecordingStatus(active=True)), "notice", (("q", "quit"),))
    assert compose(shown, state, size, now_ns=0, around=around).shape == (size[1], size[0], 3)


def test_a_window_of_another_shape_gets_black_bars_and_the_same_picture() -> None:
    shown = shown_endoscopy(1, width=320, height=240)[0]
    alone, wide = (compose(shown, ViewState(), size, now_ns=0) for size in ((640, 480), (900, 480)))
    assert np.array_equal(wide[:, 130:770], alone)
    assert not wide[:, :130].any()
    assert not wide[:, 770:].any()


def test_pixels_that_are_not_square_are_shown_in_their_aspect() -> None:
    shown = shown_endoscopy(1, width=320, height=240)[0]
    wide = replace(shown, picture=replace(shown.picture, sample_aspect=Fraction(3, 2)))
    pane = panes(wide, ViewState(), (1000, 400))[0]
    assert (pane.width, pane.height) == (800, 400)


def two_versions() -> Shown:
    """Return a presentation whose original is dark and whose enlargement is bright."""
    original = blank_frame(320, 240, PlaneLayout(None))
    dark = original.with_planes((np.full((240, 320), 60, np.uint8),))
    return Shown(0, original.with_planes((np.full((480, 640), 200, np.uint8),)), dark, "fast-x2")


def is_bright(picture: Picture) -> list[bool]:
    """Return whether each column, in the middle of the height, is of the enlarged version."""
    return [bool(level > 128) for level in picture[150, :, 0]]


@pytest.mark.parametrize("zoom", [1.0, 4.0])
@pytest.mark.parametrize("line", [0.0, 0.25, 0.8, 1.0])
def test_the_split_shows_the_original_left_of_the_line_and_the_enlarged_right(line: float, zoom: float) -> None:
    state = ViewState(arrangement=Arrangement.SPLIT, line=line, zoom=zoom)
    bright, at = is_bright(compose(two_versions(), state, (640, 480), now_ns=0)), round(640 * line)
    assert not any(bright[: max(at - 3, 0)])
    assert all(bright[at + 3 :])


def test_side_by_side_shows_the_original_left_and_the_enlarged_right() -> None:
    bright = is_bright(compose(two_versions(), ViewState(arrangement=Arrangement.SIDE_BY_SIDE), (800, 300), now_ns=0))
    assert not any(bright[:398])
    assert all(bright[402:])


def test_original_alone_shows_the_original_alone() -> None:
    assert not any(
        is_bright(compose(two_versions(), ViewState(arrangement=Arrangement.ORIGINAL), (640, 480), now_ns=0))
    )


@pytest.mark.parametrize("zoom", [1.0, 1.9, 3.7, 11.3])
def test_both_versions_show_the_same_place_at_every_zoom(zoom: float) -> None:
    shown = shown_endoscopy(1, width=320, height=240)[0]
    state = ViewState(arrangement=Arrangement.SIDE_BY_SIDE, zoom=zoom).centred((0.7, 0.43))
    drawn = compose(shown, state, (2 * 640 + 4, 480), now_ns=0)
    left, right = (luma_of(half)[60:400].astype(np.float32) for half in (drawn[:, :640], drawn[:, 644:]))
    (across, down), _ = cv2.phaseCorrelate(left, right, cv2.createHanningWindow((640, 340), cv2.CV_32F))
    assert abs(across) < 1
    assert abs(down) < 1


def test_a_slate_stands_alone_in_every_arrangement() -> None:
    shown = shown_slate(0)
    plain = compose(shown, ViewState(), (640, 480), now_ns=0)
    for arrangement in Arrangement:
        assert np.array_equal(compose(shown, ViewState(arrangement=arrangement, zoom=4.0), (640, 480), now_ns=0), plain)


def test_a_frozen_picture_is_framed_and_says_its_age() -> None:
    shown, now_ns = shown_endoscopy(1)[0], monotonic_ns()
    live = compose(shown, ViewState(), (640, 480), now_ns=now_ns)
    one, later = (compose(shown, ViewState(frozen=True), (640, 480), now_ns=now_ns + ns) for ns in (0, 2 * 10**9))
    assert (one[0] == (242, 174, 26)).all()
    assert not np.array_equal(one, live)
    assert not np.array_equal(one[:60], later[:60])
    assert np.array_equal(one[60:], later[60:])


def red_pixels(picture: Picture) -> int:
    return int(((picture[..., 0] > 150) & (picture[..., 1] < 60) & (picture[..., 2] < 60)).sum())


def test_an_alarm_is_seen_where_the_badge_may_not_be() -> None:
    shown = replace(two_versions(), alarm="generator failed")
    hidden = ViewState(arrangement=Arrangement.ORIGINAL)
    assert red_pixels(compose(shown, hidden, (640, 480), now_ns=0)) > 500
    assert red_pixels(compose(two_versions(), hidden, (640, 480), now_ns=0)) == 0
    frozen = compose(
        two_versions(), ViewState(frozen=True), (640, 480), now_ns=0, around=Around(LiveStatus(alarm="no signal"))
    )
    assert red_pixels(frozen) > 500


def test_a_recording_is_seen_while_it_runs() -> None:
    running = Around(LiveStatus(recording=RecordingStatus(active=True, seconds=65)))
    assert red_pixels(compose(two_versions(), ViewState(), (640, 480), now_ns=0, around=running)) > 500
    assert red_pixels(compose(two_versions(), ViewState(), (640, 480), now_ns=0)) == 0


def test_zooming_in_says_what_the_picture_is_though_the_badge_is_out_of_sight() -> None:
    whole, near = (compose(two_versions(), ViewState(zoom=zoom), (640, 480), now_ns=0) for zoom in (1.0, 2.0))
    assert np.ptp(whole) == 0
    assert np.ptp(near[430:]) > 100


def width_of_label(picture: Picture, row: int) -> int:
    """Return how wide what is drawn over an even picture is in a row."""
    drawn = np.flatnonzero(picture[row, :, 0] != picture[row, 0, 0])
    return int(np.ptp(drawn)) + 1 if len(drawn) else 0


def test_zooming_in_says_it_in_the_words_of_the_badge_unless_that_is_off() -> None:
    capital_px, row = 8, 480 - 8 - 4
    said = {
        True: f"{badge_text(2)}  zoom 2.0",
        False: "ENHANCED  zoom 2.0",
    }
    for badge, words in said.items():
        around = Around(LiveStatus(badge=badge))
        near = compose(two_versions(), ViewState(zoom=2.0), (640, 480), now_ns=0, around=around)
        wide = pill(words, GLASS_BOX, capital_px).size[0]
        assert width_of_label(near, row) == pytest.approx(wide, abs=6)  # whose corners are round


def test_the_enlarged_half_of_a_split_says_who_made_it_in_the_words_of_the_badge() -> None:
    capital_px, row, line = 8, 480 - 8 - 4, 0.4
    for badge, words in ((True, badge_text(2)), (False, "ENHANCED")):
        state, around = ViewState(arrangement=Arrangement.SPLIT, line=line), Around(LiveStatus(badge=badge))
        drawn = compose(two_versions(), state, (640, 480), now_ns=0, around=around)
        right = drawn[:, round(640 * line) + 4 :]
        lit = np.flatnonzero(right[row, :, 0] != right[row, -1, 0])
        assert np.ptp(lit) + 1 == pytest.approx(pill(words, GLASS_BOX, capital_px).size[0], abs=6)


def test_figures_never_cover_what_a_slate_says() -> None:
    shown, status = shown_slate(0), LiveStatus(frames_in=9, state=SourceState.LOST, runtime="openvino", rung="fast-x2")
    for size in ((640, 480), (320, 240), (1600, 900)):
        plain, laid = (
            compose(shown, ViewState(overlay=overlay), size, now_ns=0, around=Around(status))
            for overlay in (False, True)
        )
        said = slice(round(0.36 * size[1]), None)
        assert np.array_equal(plain[said], laid[said])
    assert not np.array_equal(plain, laid)


# What the panel says


def test_the_panel_says_rung_latency_rates_drops_source_and_recording() -> None:
    status = LiveStatus(
        state=SourceState.RECONNECTING,
        signal_age_s=2.5,
        rung="bicubic-x2",
        reason="too slow",
        max_latency_ms=80,
        frames_in=10,
        dropped={"overrun": 3, "late": 0},
        reconnects=2,
        skipped=0.43,
        added_latency=Percentiles(9, 21.4, 24.0, 31.0, 55.0),
        recording=RecordingStatus(active=True, seconds=125, files=2, dropped=1),
    )
    said = dict(status_rows(status))
    assert said["rung"] == "bicubic-x2 (too slow)"
    assert said["added latency"] == "p50 21  p95 24  p99 31 ms"
    assert said["slowest"] == "55 ms of 80 allowed"
    assert said["dropped"] == "3 of 10 (overrun 3)"
    assert said["skipped"] == "43 % of patches"
    assert said["source"] == "reconnecting, last picture 2.5 s ago, opened again 2x"
    assert said["recording"] == "02:05, files 2, 1 dropped"
    assert "runs on" not in said


def test_a_recording_that_stopped_by_itself_says_why() -> None:
    assert recording_line(RecordingStatus()) == "off"
    assert recording_line(RecordingStatus(trouble="disk nearly full")) == "stopped: disk nearly full"
    assert [clock(seconds) for seconds in (0, 61.9, 3725)] == ["00:00", "01:01", "1:02:05"]


# Keys


def test_every_command_has_a_key_and_a_meaning() -> None:
    assert set(DEFAULT_KEYS.values()) == set(Command) == set(MEANINGS)


@pytest.mark.parametrize(
    ("code", "platform", "name"),
    [
        (-1, "linux", ""),
        (ord("b"), "linux", "b"),
        (ord("B"), "linux", "b"),
        (32, "linux", "space"),
        (27, "darwin", "esc"),
        (13, "linux", "enter"),
        (0xFF51, "linux", "left"),
        (0x100000 | 0xFF51, "linux", "left"),
        (0xFF55, "linux", "pageup"),
        (0xFFC2, "linux", "f5"),
        (0xFFB7, "linux", "7"),
        (0x250000, "win32", "left"),
        (0x740000, "win32", "f5"),
        (0xF702, "darwin", "left"),
        (0xF708, "darwin", "f5"),
        (0xE9, "linux", ""),
    ],
)
def test_keys_have_one_name_on_every_platform(code: int, platform: str, name: str) -> None:
    assert key_name(code, platform) == name


def test_a_pedal_gets_a_command_and_a_key_loses_its_own() -> None:
    bound = bind([parse_key_option("PageUp=bypass"), parse_key_option("F5=snapshot"), parse_key_option("b=none")])
    assert bound["pageup"] is Command.BYPASS
    assert bound["f5"] is Command.SNAPSHOT
    assert "b" not in bound
    assert parse_key_option("==zoom-out") == ("=", "zoom-out")
    assert ("pageup", MEANINGS[Command.BYPASS]) in list_keys(bound)


@pytest.mark.parametrize("option", ["", "b", "=", "b=", "=bypass", "pedal=bypass", "é=bypass", "b=fly", "f25=bypass"])
def test_a_key_that_cannot_be_is_refused_in_one_line(option: str) -> None:
    with pytest.raises(UsageError, match=r"--key.*expected") as refused:
        bind([parse_key_option(option)])
    assert "\n" not in str(refused.value)


def test_a_window_that_no_key_quits_is_refused() -> None:
    with pytest.raises(UsageError, match="a key that quits"):
        bind([("q", "none"), ("esc", "bypass")])


# The mouse


def drag(state: ViewState, *points: tuple[int, int]) -> ViewState:
    """Press at the first point, move over the others and let go."""
    hand, shown = Hand(), two_versions()
    acts = [MouseAct.PRESS, *[MouseAct.MOVE] * (len(points) - 1), MouseAct.RELEASE]
    for act, (x, y) in zip(acts, [*points, points[-1]], strict=True):
        state = hand.apply(MouseEvent(act, x, y), state, panes(shown, state, (640, 480)))
    return hand.apply(MouseEvent(MouseAct.MOVE, 0, 0), state, panes(shown, state, (640, 480)))


def test_dragging_the_line_moves_it_and_dragging_elsewhere_pans() -> None:
    split = ViewState(arrangement=Arrangement.SPLIT, zoom=2.0)
    assert drag(split, (322, 100), (200, 100), (160, 90)) == replace(split, line=0.25)
    panned = drag(split, (100, 100), (164, 148))
    assert panned.line == 0.5
    assert panned.centre == pytest.approx((0.45, 0.45))


def test_the_whole_picture_cannot_be_dragged_away() -> None:
    assert drag(ViewState(), (100, 100), (600, 400)) == ViewState()


def test_the_wheel_zooms_about_the_mouse() -> None:
    places = panes(two_versions(), ViewState(), (640, 480))
    state = Hand().apply(MouseEvent(MouseAct.WHEEL, 0, 0, notches=3.0), ViewState(), places)
    assert state.zoom == pytest.approx(1.25**3)
    assert state.visible[:2] == pytest.approx((0.0, 0.0))
    assert Hand().apply(MouseEvent(MouseAct.WHEEL, 0, 0, notches=-3.0), state, places) == ViewState()


# Snapshots


FACTS = {"name": "fast-x2", "weights_sha256": "00"}


def chunks_of(png: bytes) -> dict[bytes, list[bytes]]:
    """Return the chunks of a PNG file by their names; their checksums are checked."""
    found: dict[bytes, list[bytes]] = {}
    place = 8
    while place < len(png):
        size = int.from_bytes(png[place : place + 4], "big")
        kind, data = png[place + 4 : place + 8], png[place + 8 : place + 8 + size]
        assert zlib.crc32(kind + data) == int.from_bytes(png[place + 8 + size : place + 12 + size], "big")
        found.setdefault(kind, []).append(data)
        place += 12 + size
    return found


@pytest.mark.parametrize("depth", [8, 10])
def test_a_snapshot_holds_the_cameras_picture_exactly_and_says_what_made_the_other(tmp_path: Path, depth: int) -> None:
    original = random_frame(64, 48, layout=PlaneLayout((1, 1), depth))
    shown = Shown(7, enlarged(original), original, "fast-x2", stages_ms={"decode": 1.5})
    folder = tmp_path / "made"
    paths = write_snapshot(shown, LiveStatus(source="tower"), folder, FACTS)
    assert sorted(folder.iterdir()) == sorted(paths)
    read = cv2.imread(str(paths[0]), cv2.IMREAD_UNCHANGED)[..., ::-1]
    assert read.dtype == (np.uint8 if depth == 8 else np.uint16)
    if depth == 8:
        assert np.array_equal(read, to_rgb8(original))
    else:
        assert np.abs(read / 257 - to_rgb8(original)).max() <= 0.51
    content = json.loads(paths[2].read_text())
    assert content["statement"] == STATEMENT
    assert content["engine"] == FACTS
    assert content["picture"]["rung"] == "fast-x2"
    assert content["picture"]["stages_ms"] == {"decode": 1.5}
    for kind, path in zip(("original", "enhanced"), paths[:2], strict=True):
        assert content["files"][kind]["sha256"] == sha256(path.read_bytes()).hexdigest()
    plain, marked = (chunks_of(path.read_bytes()) for path in paths[:2])
    assert b"TrainedAlgorithmic" not in b"".join(plain.get(b"iTXt", []))
    assert b"TrainedAlgorithmic" in b"".join(marked[b"iTXt"])
    assert marked[b"cICP"] == [bytes((1, 1, 0, 1))]
    assert any(STATEMENT.encode() in text for text in marked[b"tEXt"])


def test_a_snapshot_of_a_bicubic_picture_does_not_claim_a_generator(tmp_path: Path) -> None:
    original = random_frame(32, 16)
    paths = write_snapshot(Shown(0, enlarged(original), original, "bicubic-x2"), LiveStatus(), tmp_path, {})
    assert json.loads(paths[2].read_text())["statement"] == INTERPOLATED_STATEMENT
    assert b"TrainedAlgorithmic" not in paths[1].read_bytes()


def test_snapshots_of_one_moment_do_not_replace_each_other(tmp_path: Path) -> None:
    original = random_frame(32, 16)
    shown = Shown(0, enlarged(original), original, "fast-x2")
    paths = {path for _ in range(5) for path in write_snapshot(shown, LiveStatus(), tmp_path, {})}
    assert len(paths) == 15 == len(list(tmp_path.iterdir()))


def test_a_slate_is_no_snapshot_and_a_folder_that_cannot_be_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got a slate"):
        write_snapshot(shown_slate(0), LiveStatus(), tmp_path, {})
    (tmp_path / "file").touch()
    original = random_frame(32, 16)
    with pytest.raises(OutputError, match="expected to write a snapshot"):
        write_snapshot(Shown(0, enlarged(original), original, "fast-x2"), LiveStatus(), tmp_path / "file", {})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
