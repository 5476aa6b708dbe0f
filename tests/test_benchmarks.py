"""Benchmarks run in a tiny form and write what they say they write; nothing here looks at a time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2

# isort: split
import av
import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from benchmarks import (
    against_libraries,
    against_scripts,
    cpu_runtimes,
    latency,
    memory,
    memory_runs,
    pipeline,
    resident,
    scaling,
    seams,
)
from benchmarks.card import RESULTS, machine_card
from benchmarks.clips import rendered_clip
from benchmarks.comparing import DEFAULT, PLAIN, WHOLE, goal, rows_of, warmed
from benchmarks.direct_loop import enlarge_directly
from benchmarks.fits import line_through
from benchmarks.installed import Unavailable, no_module, no_program
from benchmarks.libraries import LIBRARIES, Job
from benchmarks.piped import enlarge_through_pipes
from benchmarks.students import random_engine
from benchmarks.turns import Timings, in_turn
from streamsr.job import upscale_file
from streamsr.models.student import StudentSpec
from streamsr.runtimes.torch_cpu import TorchGenerator


def run(benchmark: Any, path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert benchmark.main(["--quick", "--json", str(path)]) == 0
    written: dict[str, Any] = json.loads(path.read_text())
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1]) == written
    assert written["quick"] is True
    assert written["card"]["cores"] >= 1
    return written


def test_cpu_runtimes_measures_every_runtime_and_launch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(cpu_runtimes, tmp_path / "deep" / "result.json", capsys)
    (table,) = result["tables"]
    names = {row["candidate"] for row in table["rows"]}
    launches = ("frame", "strips", "patches")
    expected = {f"{runtime} {kind} {launch}" for runtime, kind in cpu_runtimes.RUNTIMES for launch in launches}
    assert names | {note.split(" ", 2)[2].split(":")[0] for note in result["notes"]} == expected
    assert cpu_runtimes.REFERENCE in names
    assert table["gmac"] == pytest.approx(9 * 16 * (1 + 16 + 4) * 64 * 48 / 1e9, abs=1e-3)
    for row in table["rows"]:
        assert row["p10_ms"] <= row["p50_ms"] <= row["p90_ms"]
        assert ("share_of_int8_peak" in row) == (" int8 " in row["candidate"])
    for kind in ("fp32", "int8"):
        assert table["peaks"][kind]["gmac_s"] == max(table["peaks"][kind]["all_gmac_s"].values())


def test_pipeline_measures_the_line_its_stages_its_memory_and_the_naive_script(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(pipeline, tmp_path / "result.json", capsys)
    (case,) = result["speed"]
    assert set(case["runs"]) == {"alone", "whole", "routed", "naive"}
    assert set(case["stages_alone"]) == {"capture", "upscaler", "sink"}
    whole, routed = case["runs"]["whole"][0], case["runs"]["routed"][0]
    assert whole["skipped"]["generated"] == whole["skipped"]["total"]
    assert routed["skipped"]["generated"] < routed["skipped"]["total"]
    assert case["whole_of_alone"] == pytest.approx(case["whole_fps"] / case["alone_fps"], rel=0.05)
    assert result["memory"]["num_frames"] == 40


def test_scripts_are_compared_with_ours_or_skipped_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(against_scripts, tmp_path / "result.json", capsys)
    (case,) = result["cases"]
    scripts = {against_scripts.NAIVE, against_scripts.PIPED}
    skipped = {entry["name"] for entry in case["skipped"]}
    assert {row["name"] for row in case["rows"]} == {DEFAULT, WHOLE} | scripts - skipped
    assert skipped == ({against_scripts.PIPED} if no_program("ffmpeg", "ffprobe") else set())
    assert len(result["goals"]) == len(scripts - skipped)
    assert all(entry["reached"] == (entry["got"] >= 2.0) for entry in result["goals"])


def test_libraries_are_compared_with_ours_or_skipped_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(against_libraries, tmp_path / "result.json", capsys)
    (alone,), (files,) = result["alone"], result["end_to_end"]
    names = {library.name for library in LIBRARIES}
    for case, others in ((alone, names), (files, names | {f"ffmpeg {flags}" for flags in against_libraries.FLOORS})):
        measured, skipped = {row["name"] for row in case["rows"]}, {entry["name"] for entry in case["skipped"]}
        assert measured | skipped == others | {DEFAULT, WHOLE, PLAIN}
        assert not measured & skipped
        assert {"openvino fp32", "onnxruntime int8"} <= measured
        assert all(entry["reason"] for entry in case["skipped"])
    assert [entry["least"] for entry in result["goals"]] == [0.9]


def test_libraries_run_the_network_that_ours_runs(tmp_path: Path) -> None:
    engine = random_engine(tmp_path / "mini-x2", StudentSpec(16, 1, 2))
    luma = np.random.default_rng(1).integers(0, 256, (24, 32), dtype=np.uint8)
    expected = TorchGenerator(engine).generate(luma[None, None].copy())[0, 0].astype(np.int16)
    num_checked = 0
    for library in LIBRARIES:
        try:
            enlarged = library.make(Job(engine, 32, 24, tmp_path))(luma)
        except (Unavailable, cv2.error):
            continue
        assert enlarged.dtype == np.uint8
        assert enlarged.shape == (48, 64)
        if library.same_network and "int8" not in library.name:
            assert np.abs(enlarged - expected).max() <= (1 if "fp32" in library.name else 8), library.name
            num_checked += 1
    assert num_checked >= 2


def test_seams_vanish_at_the_radius_and_show_without_a_halo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(seams, tmp_path / "seams.json", capsys)
    none, radius = result["rows"]
    assert (none["halo_px"], none["extra_pixels"]) == (0, 0.0)
    assert none["max_levels"] > 1
    assert none["rms_levels"] > 0
    assert (radius["max_levels"], radius["rms_levels"], radius["samples_off"]) == (0, 0.0, 0.0)
    assert radius["extra_pixels"] == pytest.approx((32 + 2 * radius["halo_px"]) ** 2 / 32**2 - 1, abs=1e-3)
    assert (tmp_path / "seams.png").read_bytes().startswith(b"\x89PNG")


def test_seams_try_every_engine_with_its_default_and_its_radius() -> None:
    for engine in seams.engines_under_test(quick=False):
        halos = seams.halos_of(engine)
        assert halos[0] == 0
        assert engine.halo_px in halos
        width, _ = seams.SIZE_OF_LARGE
        assert max(halos) == (16 if 32 + 2 * engine.radius_px > width else max(engine.radius_px, engine.halo_px))


def test_scaling_measures_every_section_and_draws_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(scaling, tmp_path / "scaling.json", capsys)
    sections = result["sections"]
    assert list(sections) == ["size", "scale", "patch", "halo", "batch", "threads", "active", "sources"]
    for name, section in sections.items():
        xs = [row["x"] for row in section["rows"]]
        assert (section["line"] is None) == (len(set(xs)) < 3), name
        assert all(row["p10_ms"] <= row["p50_ms"] <= row["p90_ms"] for row in section["rows"])
    assert [row["x"] for row in sections["scale"]["rows"]] == [4, 9, 16]
    still, little, more = (row["x"] for row in sections["active"]["rows"])
    assert still == 0 < little < more < 1
    assert (tmp_path / result["plot"]).read_bytes().startswith(b"\x89PNG")


def test_scaling_refuses_a_section_that_it_has_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert scaling.main(["--quick", "--only", "size,colour"]) == 2
    assert "got colour" in capsys.readouterr().err


def test_latency_tells_every_stage_without_the_first_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(latency, tmp_path / "latency.json", capsys)
    rows = {row["stage"]: row for row in result["rows"]}
    assert set(rows) == {
        "frame",
        "capture",
        "upscale",
        "sink",
        "route",
        "cut",
        "generate",
        "stitch",
        "project",
        "chroma",
    }
    assert {row["num"] for row in rows.values()} == {result["num_frames"] - result["discarded"]}
    for row in rows.values():
        assert row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"] <= row["p99.9_ms"] <= row["max_ms"]
    assert rows["frame"]["p50_ms"] >= rows["sink"]["p50_ms"]
    assert (tmp_path / result["plot"]).read_bytes().startswith(b"\x89PNG")


def test_memory_is_measured_in_a_program_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ballast = np.ones(200 << 20, np.uint8)  # of this program, and none of that one's
    result = run(memory, tmp_path / "memory.json", capsys)
    (row,) = result["sections"]["sizes"]["rows"]
    assert row["before_mib"] < row["steady_mib"] <= row["peak_mib"] < resident.peak_kib() / 1024
    assert result["goals"] == []
    assert result["seconds"] > 0
    assert (tmp_path / result["plot"]).read_bytes().startswith(b"\x89PNG")
    assert len(ballast)


def test_paced_memory_keeps_the_sizes_and_says_whether_it_grew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "memory.json"
    row = {"megapixels": 1.0, "peak_mib": 2.0, "steady_mib": 1.0}
    sizes = {"rows": [row], "lines": {"peak_mib": None, "steady_mib": None}, "measured": "before"}
    path.write_text(json.dumps({"sections": {"sizes": sizes}, "seconds": 28.6}))
    paced = memory_runs.measure_paced(1.0, source="testsrc:endoscopy:size=128x96")
    assert paced["frames"] > 0
    assert paced["samples"]
    monkeypatch.setattr(memory_runs, "measure_paced", lambda seconds: {**paced, "growth_mib": 11.0})
    assert memory.main(["--minutes", "1", "--json", str(path)]) == 0
    capsys.readouterr()
    written = json.loads(path.read_text())
    assert written["sections"]["sizes"]["measured"] == "before"
    assert written["seconds"] == 28.6, "an hour of frames is no reason to leave the sizes out the next time"
    (told,) = written["goals"]
    assert (told["got"], told["most"], told["reached"]) == (11.0, 10.0, False)


def test_a_line_tells_slope_intercept_and_how_well_it_fits() -> None:
    assert line_through([1, 2, 4], [5, 7, 11]) == {"slope": 2.0, "intercept": 3.0, "r2": 1.0}
    bent = line_through([0, 1, 2], [0, 1, 4])
    assert bent is not None
    assert bent["r2"] == pytest.approx(1 - (2 / 3) / (26 / 3), abs=1e-4)
    assert line_through([1, 2], [1, 2]) is None


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="yuv420p").astype(np.int16) for frame in container.decode(video=0)]


def test_others_give_the_pictures_that_ours_gives(tmp_path: Path) -> None:
    engine = random_engine(tmp_path / "mini-x2", StudentSpec(16, 1, 2))
    clip = rendered_clip(tmp_path, 128, 96, 6)
    plain = against_libraries.ours_of(engine)[PLAIN]
    settings = replace(plain, generator=replace(plain.generator, precision="fp32"))
    upscale_file(clip, tmp_path / "ours.mkv", settings=settings)
    ours = decoded(tmp_path / "ours.mkv")
    (library,) = [library for library in LIBRARIES if library.name == "openvino fp32"]
    enlarge_directly(clip, tmp_path / "direct.mkv", 2, lambda *size: library.make(Job(engine, *size, tmp_path)))
    direct = decoded(tmp_path / "direct.mkv")
    assert len(direct) == len(ours) == 6
    for mine, theirs in zip(ours, direct, strict=True):
        assert mine.shape == theirs.shape == (3 * 96, 256)
        assert np.abs(mine - theirs)[:192].mean() < 0.5
        assert np.abs(mine - theirs)[192:].mean() < 1.5  # another filter for chroma
    if no_program("ffmpeg", "ffprobe") is None:
        assert enlarge_through_pipes(clip, tmp_path / "piped.mkv", engine) == 6
        piped = decoded(tmp_path / "piped.mkv")
        assert len(piped) == 6
        assert all(np.abs(mine - theirs).mean() < 6 for mine, theirs in zip(ours, piped, strict=True))


def test_rows_tell_the_median_of_the_ratios_of_each_round() -> None:
    ours, theirs = Timings([10.0, 20.0, 10.0], [0.0] * 3), Timings([30.0, 20.0, 20.0], [0.0] * 3)
    rows = rows_of({DEFAULT: ours, "theirs": theirs}, num_frames=10)
    assert rows[1]["default_times"] == 2.0  # of 3, 1 and 2
    assert rows[1]["p50_ms"] == 2.0
    assert [row["ours"] for row in rows] == [True, False]
    assert goal("as fast", 2.0, rows[1]["default_times"])["reached"]


def test_what_fails_is_skipped_with_its_reason() -> None:
    def fail() -> None:
        raise RuntimeError("no\nsuch unit")

    skipped: list[dict[str, str]] = []
    assert warmed({"works": lambda: None, "fails": fail}, skipped) == ["works"]
    assert skipped == [{"name": "fails", "reason": "RuntimeError: no such unit"}]
    assert no_module("no_such_module_anywhere") is not None
    assert no_program("no-such-program-anywhere") == "no-such-program-anywhere: not on PATH"


def test_without_quick_the_result_goes_where_the_readme_reads_it() -> None:
    options = cpu_runtimes.options_of("cpu_runtimes", "", [])
    assert options.json == RESULTS / "cpu_runtimes.json"
    assert cpu_runtimes.options_of("cpu_runtimes", "", ["--quick"]).json is None


def test_every_committed_result_is_json_with_a_card() -> None:
    for path in sorted(RESULTS.glob("*.json")):
        result = json.loads(path.read_text())
        assert set(machine_card()) <= set(result["card"]), path
        assert result["question"] == path.stem
        assert result["quick"] is False


def test_in_turn_calls_every_candidate_once_a_round_and_begins_with_another_each_time() -> None:
    called: list[str] = []
    timings = in_turn({name: lambda name=name: called.append(name) for name in "abc"}, rounds=4, budget_s=60)  # type: ignore[misc]
    assert called == list("abcbcacababc")
    assert {name: len(timing.walls_ms) for name, timing in timings.items()} == {"a": 4, "b": 4, "c": 4}
    called.clear()
    in_turn({"a": lambda: called.append("a")}, rounds=3, budget_s=0, settle=True)
    assert called == ["a", "a"]
