"""Benchmarks of live latency: the arithmetic of sightings, what is read back, and what is said where it cannot be."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsr.bench import browser, views
from streamsr.bench.film import RecordedPicture, compare_times
from streamsr.bench.latency import Stretch
from streamsr.bench.observing import Ledger
from streamsr.bench.sightings import Stamp, corner_of, match, read_corner, usual_interval_ms
from streamsr.bench.views import BenchSettings, measure_views
from streamsr.capture.framecode import NUM_BITS
from streamsr.capture.testsrc import EndoscopySource, TestSettings
from streamsr.errors import InputError, UsageError
from tests.live_feeds import make_frame

PERIOD_NS = 40_000_000
CODES = 1 << NUM_BITS
TINY = BenchSettings("testsrc:endoscopy:size=128x96", "bicubic-x2", seconds=1.0)
"""Bicubic is a session without a generator: nothing to warm."""


def arrivals_of(num: int, first: int = 0) -> list[Stamp]:
    return [Stamp((first + place) % CODES, place * PERIOD_NS) for place in range(num)]


@given(
    first=st.integers(0, CODES - 1),
    delays_ms=st.lists(st.one_of(st.none(), st.integers(0, 39)), min_size=1, max_size=60),
    looks=st.integers(1, 3),
)
def test_every_frame_that_was_seen_has_its_delay_and_every_other_is_missed(
    first: int, delays_ms: list[int | None], looks: int
) -> None:
    arrivals = arrivals_of(len(delays_ms), first)
    sightings = [
        Stamp(arrival.code, arrival.at_ns + delay_ms * 1_000_000 + look)
        for arrival, delay_ms in zip(arrivals, delays_ms, strict=True)
        if delay_ms is not None
        for look in range(looks)
    ]
    found = match(arrivals, sightings, begin_ns=0, end_ns=len(arrivals) * PERIOD_NS)
    assert found.latencies_ms == tuple(float(delay) for delay in delays_ms if delay is not None)
    assert found.missed == delays_ms.count(None)
    assert (found.frames, found.out_of_order, found.unknown) == (len(delays_ms), 0, 0)


def test_numbers_that_come_again_belong_to_the_newest_frame_that_carries_them() -> None:
    arrivals = arrivals_of(CODES + 10)
    sightings = [Stamp(arrival.code, arrival.at_ns + 5_000_000) for arrival in arrivals]
    found = match(arrivals, sightings, begin_ns=0, end_ns=(CODES + 10) * PERIOD_NS)
    assert set(found.latencies_ms) == {5.0}
    assert found.frames == CODES + 10


def test_an_older_frame_is_out_of_order_and_a_number_that_never_came_is_unknown() -> None:
    arrivals = arrivals_of(5)
    late = 4 * PERIOD_NS
    sightings = [Stamp(code, late + place) for place, code in enumerate((2, 1, 1, 3, 999, 4))]
    found = match(arrivals, sightings, begin_ns=0, end_ns=5 * PERIOD_NS)
    assert (found.seen, found.missed, found.out_of_order, found.unknown) == (3, 2, 1, 1)


def test_only_frames_of_the_stretch_count() -> None:
    arrivals = arrivals_of(10)
    sightings = [Stamp(arrival.code, arrival.at_ns + 1_000_000) for arrival in arrivals]
    found = match(arrivals, sightings, begin_ns=3 * PERIOD_NS, end_ns=7 * PERIOD_NS)
    assert (found.frames, found.seen) == (4, 4)


@pytest.mark.parametrize("scale", [1.0, 1.125, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("number", [0, 5, 8191, CODES - 1])
def test_a_number_is_read_at_any_size_of_the_picture(scale: float, number: int) -> None:
    import cv2

    luma = EndoscopySource(TestSettings(width=160, height=128)).frame(number).planes[0]
    size = (round(160 * scale), round(128 * scale))
    large = cv2.resize(luma, size, interpolation=cv2.INTER_CUBIC)
    assert read_corner(corner_of(large, scale)) == number


def test_a_corner_without_a_number_is_told_from_one_with_number_zero() -> None:
    assert read_corner(np.zeros((40, 40), np.uint8)) is None
    assert read_corner(np.full((40, 40), 235, np.uint8)) is None
    assert read_corner(np.zeros((3, 3), np.uint8)) is None


def test_a_source_without_numbers_is_refused() -> None:
    ledger = Ledger()
    for number in range(3):
        ledger.note(make_frame(number))
    with pytest.raises(InputError, match="numbered frames"):
        ledger.arrivals()


def test_the_usual_interval_is_no_outlier() -> None:
    assert usual_interval_ms([0, 4_000_000, 8_000_000, 900_000_000, 904_000_000]) == 4.0
    assert usual_interval_ms([7]) == 0.0


@given(
    kept=st.lists(st.booleans(), min_size=2, max_size=40),
    origin_ms=st.floats(0, 1e6),
    off_ms=st.lists(st.floats(-5, 5), min_size=40, max_size=40),
)
def test_times_of_a_recording_are_off_by_what_they_are_off(
    kept: list[bool], origin_ms: float, off_ms: list[float]
) -> None:
    arrivals = arrivals_of(len(kept))
    recorded = [
        RecordedPicture(arrival.code, origin_ms + arrival.at_ns / 1e6 + off)
        for arrival, keep, off in zip(arrivals, kept, off_ms, strict=False)
        if keep
    ]
    found = compare_times(arrivals, recorded, Stretch(0, len(kept) * PERIOD_NS))
    offs = [off for off, keep in zip(off_ms, kept, strict=False) if keep]
    assert found.errors_ms == pytest.approx([abs(off - offs[0]) for off in offs], abs=1e-6)
    assert (found.out_of_order, found.unreadable) == (0, 0)


def test_recorded_pictures_that_stand_in_the_wrong_order_are_counted() -> None:
    recorded = [RecordedPicture(code, 40.0 * place) for place, code in enumerate((0, 2, 1, None, 3))]
    found = compare_times(arrivals_of(5), recorded, Stretch(0, 5 * PERIOD_NS))
    assert (len(found.errors_ms), found.out_of_order, found.unreadable) == (3, 1, 1)


def command(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "streamsr", "bench", "latency", *options]
    return subprocess.run(
        line, env={**os.environ, **environment}, capture_output=True, text=True, timeout=240, check=False
    )


def options_of(view: str) -> list[str]:
    return ["--view", view, "--source", TINY.source, "-m", TINY.engine, "-t", str(TINY.seconds)]


def check_row(row: dict[str, Any], view: str) -> None:
    assert row["view"] == view
    assert row["frames"] >= 10
    assert row["seen"] + row["missed"] == row["frames"]
    assert row["seen"] >= row["frames"] / 2
    times = row["added_latency"]
    assert 0 < times["p50_ms"] <= times["p95_ms"] <= times["p99_ms"] <= times["max_ms"]
    assert times["num"] == row["seen"]


def test_the_null_view_is_measured_and_the_session_states_the_same() -> None:
    done = command(*options_of("none"), "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    (row,) = told["views"]
    check_row(row, "none")
    assert row["out_of_order"] == 0
    assert row["claimed_latency"]["p50_ms"] == pytest.approx(row["added_latency"]["p50_ms"], abs=2)
    assert row["by_rung"].keys() == {"bicubic-x2"}


def test_a_recording_has_the_times_of_arrival_to_a_millisecond() -> None:
    result = measure_views(["record"], TINY)
    (row,) = result.rows
    assert row["seen"] >= row["frames"] / 2 >= 5
    assert row["out_of_order"] == 0
    assert row["time_error"]["max_ms"] <= 1.001
    assert row["files"] == 1


@pytest.mark.needs_display
@pytest.mark.skipif(not shutil.which("Xvfb"), reason="needs Xvfb")
@pytest.mark.slow
def test_the_window_is_read_back_from_a_virtual_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    (row,) = measure_views(["window"], TINY).rows
    check_row(dict(row), "window")
    assert row["interval_ms"] > 0


@pytest.mark.needs_browser
@pytest.mark.slow
def test_the_page_is_read_back_from_a_browser() -> None:
    try:
        browser.require_browser()
    except UsageError as cause:
        pytest.skip(str(cause))
    (row,) = measure_views(["web"], TINY).rows
    check_row(dict(row), "web")
    assert 0 < row["clock_error_ms"] < 1000


def test_what_a_machine_lacks_leaves_a_row_out_with_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(browser, "find_spec", lambda name: None)
    result = measure_views(["window", "web"], TINY)
    assert not result.rows
    assert "install xvfb" in result.left_out["window"]
    assert "pip install playwright" in result.left_out["web"]


def test_where_nothing_could_be_measured_the_command_says_so_and_fails(tmp_path: Path) -> None:
    done = command(*options_of("window"), DISPLAY="", PATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("streamsr: --view window: ")
    assert "set DISPLAY or install xvfb" in done.stderr


def test_a_view_that_is_none_is_refused() -> None:
    done = command("--view", "hologram")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == ("streamsr: --view: expected one of none, window, web, record, all, got 'hologram'\n")


def test_the_other_programs_error_is_told_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 4, "", "streamsr: no such engine\n")

    class Screen:
        def __enter__(self) -> str:
            return ":1"

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr("streamsr.bench.screen.virtual_screen", Screen)
    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(Exception, match="no such engine"):
        views.measure_under_virtual_screen(TINY)
