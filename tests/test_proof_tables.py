"""README's tables of the proof, empty without results and made of nothing else; and the run of all benchmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as everything
from benchmarks import proof_tables, readme
from benchmarks.card import ROOT
from benchmarks.proof_tables import PROOF_TABLES

CARD = {"cores": 2, "processor": "Some CPU", "instructions": ["avx2"], "versions": {"av": "18"}, "date": "2026-01-02"}


def row(name: str, *, ours: bool = False) -> dict[str, Any]:
    return {"name": name, "ours": ours, "p50_ms": 12.34, "fps": 81.0, "default_times": 1.5, "whole_times": 0.5}


def case(size: str, *names: str) -> dict[str, Any]:
    rows = [row("ours, default", ours=True), *(row(name) for name in names)]
    return {"student": "fast-x2", "size": size, "rows": rows, "skipped": [{"name": "video2x", "reason": "not on PATH"}]}


def halo(halo_px: int, max_levels: int, *, default: bool = False) -> dict[str, Any]:
    facts = {"engine": "srgan-x4", "precision": "fp32", "radius_px": 40, "halo_px": halo_px, "default": default}
    return {**facts, "max_levels": max_levels, "rms_levels": 0.03, "extra_pixels": 1.64}


POINTS = [{"point": "224x126", "p50_ms": 2.0}, {"point": "1920x1080", "p50_ms": 99.0}]
LINE = {"slope": 50.0, "intercept": 1.0, "r2": 0.999}
SECTION = {"x": "input megapixels", "unit": "frame", "rows": POINTS}
STAGE = {"stage": "generate", "p50_ms": 5.0, "p95_ms": 6.0, "p99_ms": 7.0, "p99.9_ms": 8.0, "max_ms": 9.0}
PACED = {"minutes": 60, "source": "testsrc", "frames": 90000, "start_mib": 380, "start_at_s": 60, "end_mib": 381}
RESULTS: dict[str, Any] = {
    "against_scripts": {
        "cases": [case("320x240", "OpenCV and torch")],
        "goals": [{"goal": "times as fast", "least": 2.0, "got": 1.5, "reached": False}],
    },
    "against_libraries": {
        "student": "fast-x2",
        "alone": [case("320x240", "openvino int8", "cv2.dnn fp32")],
        "end_to_end": [case("320x240", "openvino int8", "ffmpeg bicubic")],
        "goals": [{"goal": "of the best", "least": 0.9, "got": 0.95, "reached": True}],
    },
    "scaling": {
        "plot": "scaling.png",
        "sections": {"size": {**SECTION, "line": LINE}, "few": {**SECTION, "line": None}},
    },
    "latency": {
        **{"plot": None, "num_frames": 10000, "discarded": 100, "size": "160x120", "runtime": "OpenVINO"},
        "rows": [STAGE],
    },
    "seams": {
        "plot": "seams.png",
        "rows": [halo(0, 142), halo(4, 1), halo(8, 3), halo(10, 1, default=True), halo(40, 0)],
    },
    "memory": {
        "plot": "memory.png",
        "sections": {
            "sizes": {"rows": [{"size": "320x240", "before_mib": 80, "peak_mib": 250, "steady_mib": 200}]},
            "paced": {**PACED, "growth_mib": 1.0, "samples": [[0.0, 380.0], [45.0, 380.5], [60.0, 381.0]]},
        },
        "goals": [{"goal": "memory grown", "most": 10.0, "got": 1.0, "reached": True}],
    },
}


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(proof_tables, "RESULTS", tmp_path)
    return tmp_path


def test_tables_are_empty_without_results(results: Path) -> None:
    assert {name: make() for name, make in PROOF_TABLES.items()} == dict.fromkeys(PROOF_TABLES, "")


def test_tables_tell_what_the_results_hold(results: Path) -> None:
    for name, result in RESULTS.items():
        (results / f"{name}.json").write_text(json.dumps({"card": CARD, **result}))
    made = {name: make() for name, make in PROOF_TABLES.items()}
    assert made["against-machine"] == "On 2 cores (Some CPU, avx2; av 18; 2026-01-02):"
    assert "| times as fast | at least 2 | 1.50 | **short** |" in made["against-goals"]
    assert "| memory grown | at most 10 | 1.00 |  |" in made["against-goals"]
    assert "| fast-x2 | 320x240 | OpenCV and torch | 81.0 | 1.50 | 0.50 |" in made["against-scripts"]
    assert "| openvino int8 | 12.3 (1.50) | 12.3 (1.50) |" in made["against-libraries"]
    assert "| ffmpeg bicubic |  | 12.3 (1.50) |" in made["against-libraries"]
    assert made["against-skipped"] == "Not compared here: video2x (not on PATH)."
    assert "| few | frame | input megapixels | 224x126: 2.0 | 1920x1080: 99.0 |  |  |  |" in made["scaling"]
    assert made["scaling"].endswith("(benchmarks/results/scaling.png)")
    assert "9,900 frames of 160x120 (the first 100 discarded), OpenVINO, ms:" in made["latency"]
    assert "png" not in made["latency"]
    assert "| `srgan-x4` fp32 | 40 | 142 | 10 | 1 | 0.0300 | 164% | 10 |" in made["seams"]  # at 8 a seam shows again
    assert "380 MiB after 60 s, 381 MiB at the end (+1.0, of it +0.5 in the last quarter" in made["memory"]


def test_readme_has_a_place_for_every_table_and_fills_it_twice_alike(results: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in PROOF_TABLES:
        assert f"<!-- {name} -->\n" in text
        assert f"<!-- /{name} -->" in text
    for name, result in RESULTS.items():
        (results / f"{name}.json").write_text(json.dumps({"card": CARD, **result}))
    once = readme.filled(text)
    assert "| openvino int8 | 12.3 (1.50) | 12.3 (1.50) |" in once
    assert readme.filled(once) == once


def test_every_question_is_a_benchmark() -> None:
    for question in everything.QUESTIONS:
        assert (ROOT / "benchmarks" / f"{question}.py").is_file()


def test_what_does_not_fit_is_left_out_and_what_fails_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    def run(question: str, *, quick: bool) -> bool:
        ran.append(question)
        return question != "seams"

    monkeypatch.setattr(everything, "run", run)
    monkeypatch.setattr(everything, "seconds_of", lambda question: 1e9 if question == "pipeline" else 1.0)
    outcome = everything.run_all(["seams", "pipeline", "memory"], quick=False, budget_s=60)
    assert outcome == {"seams": "failed", "pipeline": "left out", "memory": "done"}
    assert ran == ["seams", "memory"]
    everything.report(outcome)
    assert "pipeline             left out: python -m benchmarks.pipeline" in capsys.readouterr().out
    assert everything.main(["--quick", "--only", "memory"]) == 0
    assert everything.main(["--quick", "--only", "seams"]) == 1
    assert everything.main(["--only", "colour"]) == 2


def test_how_long_a_benchmark_takes_is_what_it_took(tmp_path: Path) -> None:
    assert everything.seconds_of("seams", tmp_path) == everything.QUESTIONS["seams"]
    (tmp_path / "seams.json").write_text('{"seconds": 12.5}')
    assert everything.seconds_of("seams", tmp_path) == 12.5


def test_those_that_compare_fit_ten_minutes() -> None:
    assert sum(everything.QUESTIONS[question] for question in everything.QUICK) <= 600


def test_quick_runs_a_benchmark_in_a_program_of_its_own_and_writes_nothing() -> None:
    before = {path.name: path.stat().st_mtime_ns for path in proof_tables.RESULTS.iterdir()}
    assert everything.run("latency", quick=True)
    assert {path.name: path.stat().st_mtime_ns for path in proof_tables.RESULTS.iterdir()} == before
