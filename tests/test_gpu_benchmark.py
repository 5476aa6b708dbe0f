"""The benchmark of GPUs: every goal is read where it is written, sections are kept and merged, nothing is invented."""

from __future__ import annotations

import inspect
import json
import re
import sys
from argparse import Namespace
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import gpu, gpu_goals, gpu_quality, gpu_ways, readme
from benchmarks.gpu_engines import random_engine
from benchmarks.gpu_goals import COMPILED, GOALS, LINE, PROJECTED, ROUTING, TRACE, rows_of
from benchmarks.gpu_tables import NOTHING, gpu_part
from benchmarks.gpu_timing import Section
from benchmarks.gpu_trace import device_events, draw_trace, overlap_of
from streamsr.errors import EngineError, GpuFault
from streamsr.runtimes.nvidia import Gpu

ENGINES = ("tiny-x2", "fast-x2", "quality-x2", "srgan-x4")


def way(p50_ms: float, **more: Any) -> dict[str, Any]:
    """Return what is told of a way whose picture is right."""
    times = {"p50_ms": p50_ms, "p99_ms": 1.1 * p50_ms, "tflops": 1.0}
    return {**times, "is_finite": True, "levels_off": {"max": 1.0, "mean": 0.01}, **more}


def line_of(p50_ms: float, *, part: float, ratio: float, allocated: int) -> dict[str, Any]:
    return {
        "paced": {"p50_ms": p50_ms, "p99_ms": 2 * p50_ms},
        "in_flight": {"frames_a_second": 400.0, "part_of_it": part, "slowest_stage": "compute"},
        "against_the_plain_way": {"ratio": ratio},
        "allocations": {"frames": 32, "device": allocated, "host": 0},
    }


def result_of(*, good: bool) -> dict[str, Any]:
    """Return a made-up result that reaches every goal, or misses every one."""
    fast, worse = (1.0, 1.0) if good else (3.0, 100.0)
    sections: dict[str, dict[str, Any]] = {
        "ceilings": {
            "matrix product float16": {"p50_ms": 1.4, "tflops": 700.0},
            "matrix product bfloat16": {"p50_ms": 1.3, "tflops": 800.0},
        },
        "network:srgan-x4": {"cuda": way(4.0 * fast, tflops=330.0 / fast), "cuda bf16": way(0.1, tflops=9000.0)},
        "patches:srgan-x4": {
            "patches": {"extra_arithmetic": 2.5},
            "cuda: frame": way(4.0),
            "cuda: patches alone": way(1.0),
            "cuda: patches with cut and stitch": way(11.0 if good else 11.6),
        },
        LINE: {
            "engine": {"name": "fast-x2"},
            "cuda": line_of(0.1, part=0.1, ratio=2.5 / fast, allocated=0),
            f"cuda{PROJECTED}": line_of(3.9 * fast, part=0.95 / fast, ratio=9.0, allocated=int(fast) - 1),
        },
        TRACE: {"trace": {"runtime": "cuda", "picture": "gpu_trace.png", "copies_beside_compute": 0.9 / fast}},
        ROUTING: {
            "engine": {"name": "srgan-x4"},
            "0.05 of the picture": {"ratio": 3.0},
            "1 of the picture": {"ratio": 0.99 / fast},
            "comparison": way(0.01),
        },
        "quality": {
            "pictures": {"real": 3},
            "fast-x2 cuda": {"precision": "fp16", "worst_loss_db": 0.001, "largest_difference_levels": 1},
            "srgan-x4 cuda": {
                "precision": "fp16",
                "worst_loss_db": 0.009 * worse,
                "largest_difference_levels": round(fast),
            },
            "fast-x2 tensorrt int8": {
                "precision": "int8",
                "worst_loss_db": 0.04 * worse,
                "largest_difference_levels": 9,
            },
        },
    }
    for name, limit_ms in (("tiny-x2", 0.4), ("fast-x2", 1.2), ("quality-x2", 2.0)):
        ours = {"cuda": way(0.9 * limit_ms * fast), "tensorrt fp16": {"left out": "not installed"}}
        sections[f"network:{name}"] = {**ours, "torch eager": way(2 * limit_ms), "cuda in 2 bands": way(1.5)}
    sections["network:tiny-x2"]["fused"] = way(0.19 * (1 if good else 20))
    for name in ("tiny-x2", "fast-x2", "srgan-x4"):
        sections[f"compiled:{name}"] = {"cuda": way(1.0 * fast), "fused": way(4.0), COMPILED: way(1.1)}
    return {"quick": False, "card": {"gpu": "NVIDIA Made Up"}, "sections": sections}


def test_a_result_that_reaches_every_goal_says_so() -> None:
    rows = rows_of(result_of(good=True))
    assert [row["goal"] for row in rows] == [goal.what for goal in GOALS]
    assert {row["verdict"] for row in rows} == {"reached"}, [row for row in rows if not row["reached"]]
    assert all(row["figure"] is not None for row in rows)
    assert json.loads(json.dumps(rows)) == rows


def test_a_result_that_misses_every_goal_says_so() -> None:
    rows = rows_of(result_of(good=False))
    assert {row["verdict"] for row in rows} == {"missed"}, [row for row in rows if row["reached"] is not False]


def test_goals_stand_at_what_must_be_reached() -> None:
    limits = {row["goal"]: (row["bound"], row["limit"]) for row in rows_of({"quick": False, "sections": {}})}
    assert len(limits) == len(GOALS), "no two goals have one name"
    assert limits["`quality-x2`, 1080p luma"] == ("at most", 2.0)
    assert limits["planes to planes, 1080p x2 at 60/s, p99"] == ("at most", 8.0)
    assert limits["allocations after warm-up"] == ("at most", 0.0)


@pytest.mark.parametrize("sections", [{}, {"ceilings": {"left out": "no time left"}, "quality": {"pictures": {}}}])
def test_what_is_missing_was_not_measured(sections: dict[str, Any]) -> None:
    for row in rows_of({"quick": False, "sections": sections}):
        assert (row["figure"], row["reached"], row["verdict"]) == (None, None, "not measured")


@pytest.mark.parametrize("missing", list(result_of(good=True)["sections"]))
def test_each_section_is_missed_by_its_goals_alone(missing: str) -> None:
    result = result_of(good=True)
    del result["sections"][missing]
    verdicts = [row["verdict"] for row in rows_of(result)]
    assert 1 <= verdicts.count("not measured") < len(GOALS)
    assert "missed" not in verdicts


def test_a_quick_run_has_figures_and_no_verdict() -> None:
    rows = rows_of({**result_of(good=True), "quick": True})
    assert {row["verdict"] for row in rows} == {"not measured"}
    assert all(row["figure"] is not None for row in rows)


def row_named(result: dict[str, Any], words: str) -> dict[str, Any]:
    (row,) = (row for row in rows_of(result) if words in row["goal"])
    return row


def test_a_wrong_kernel_is_no_fast_one() -> None:
    result = result_of(good=True)
    for wrong in (way(0.01, is_finite=False), way(0.01, levels_off={"max": 255.0, "mean": 60.0})):
        result["sections"]["network:fast-x2"]["fused"] = wrong
        row = row_named(result, "`fast-x2`, 1080p luma")
        assert (row["by"], row["figure"]) == ("cuda", 1.08)


def test_bands_and_torch_alone_are_none_of_ours() -> None:
    result = result_of(good=True)
    result["sections"]["network:fast-x2"] |= {"torch graph": way(0.1), "cuda in 4 bands": way(0.1)}
    assert row_named(result, "`fast-x2`, 1080p luma")["by"] == "cuda"
    result["sections"]["network:tiny-x2"]["torch graph"] = way(0.19)
    row = row_named(result, "over the fastest other way")
    assert (row["verdict"], row["by"]) == ("missed", "against torch graph"), "level is not under"


def test_what_no_engine_ships_cannot_miss() -> None:
    result = result_of(good=True)
    del result["sections"]["quality"]["fast-x2 tensorrt int8"]
    row = row_named(result, "INT8")
    assert (row["figure"], row["by"], row["verdict"]) == (None, "not offered here", "reached")


def test_a_part_of_the_slowest_stage_is_of_the_fastest_runtime() -> None:
    result = result_of(good=True)
    line = result["sections"][LINE]
    line[f"fused{PROJECTED}"] = deepcopy(line[f"cuda{PROJECTED}"])
    line[f"fused{PROJECTED}"]["in_flight"] = {
        "frames_a_second": 900.0,
        "part_of_it": 0.8,
        "slowest_stage": "download",
    }
    row = row_named(result, "slowest stage")
    assert (row["figure"], row["by"], row["verdict"]) == (0.8, "fused, download", "missed")


# sections


@pytest.mark.parametrize("part", [*gpu.PARTS, *gpu.COMPILED], ids=lambda part: part.name)
def test_every_section_has_what_measures_it(part: gpu.Part) -> None:
    wanted = 2 if ":" in part.name else 1
    inspect.signature(gpu.function_of(part.name)).bind(*[None] * wanted)


def test_what_the_goals_read_fits_its_budget() -> None:
    read = set(result_of(good=True)["sections"])
    assert read <= {part.name for part in (*gpu.PARTS, *gpu.COMPILED)}
    for parts, budget_s in ((gpu.PARTS, gpu.BUDGET_S), (gpu.COMPILED, gpu.COMPILE_BUDGET_S)):
        assert sum(part.limit_s for part in parts if part.name in read) <= budget_s < 600


def test_a_section_may_use_what_those_before_it_left_and_no_more_than_there_is() -> None:
    parts = [gpu.Part("a", 30, ""), gpu.Part("b", 20, ""), gpu.Part("c", 50, "")]
    assert gpu.share_s(parts, 0, 0, 100) == 30
    assert gpu.share_s(parts, 1, 5, 100) == 45
    assert gpu.share_s(parts, 1, 31, 100) == 20
    assert gpu.share_s(parts, 2, 70, 100) == 30


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Sections do not run: each says that it did."""
    ran: list[str] = []

    def pretend(part: gpu.Part, limit_s: float, options: Namespace) -> dict[str, Any]:
        ran.append(part.name)
        return {"cuda": way(0.1 * len(ran)), "ended": "in time", "seconds": 1.0}

    monkeypatch.setattr(gpu, "in_its_own_program", pretend)
    monkeypatch.setattr(gpu, "gpu_of", lambda device: Gpu("NVIDIA Made Up", "9.0", "580.1"))
    return ran


def test_sections_that_were_not_asked_for_are_kept(
    programs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "deep" / "gpu.json"
    assert gpu.main(["--out", str(path), "--only", "network", "ceilings"]) == 0
    first = json.loads(path.read_text())
    assert gpu.main(["--out", str(path), "--compile", "--only", "compiled", "network:fast"]) == 0
    written = json.loads(path.read_text())
    assert programs[-4:] == ["network:fast-x2", "compiled:fast-x2", "compiled:tiny-x2", "compiled:srgan-x4"]
    assert list(written["sections"]) == [*first["sections"], *programs[-3:]]
    assert written["sections"]["network:tiny-x2"] == first["sections"]["network:tiny-x2"]
    assert written["sections"]["network:fast-x2"]["cuda"] != first["sections"]["network:fast-x2"]["cuda"]
    for section in written["sections"].values():
        assert section["on"].startswith("NVIDIA Made Up, driver 580.1, torch ")
        assert section["measured"].endswith(" UTC")
    assert written["goals"] == rows_of(written)
    printed = capsys.readouterr().out.splitlines()
    assert any("`fast-x2`, 1080p luma" in line and line.endswith("reached") for line in printed)
    assert json.loads(printed[-1])["goals"] == written["goals"]


@pytest.mark.parametrize(
    "change", [{"card": {"gpu": "NVIDIA Other"}}, {"quick": True}, {"card": {}}, {"sections": None}]
)
def test_what_another_card_or_a_quick_run_measured_is_not_kept(
    programs: list[str], tmp_path: Path, change: dict[str, Any]
) -> None:
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps({**result_of(good=True), **change}))
    assert gpu.main(["--out", str(path), "--only", "ceilings"]) == 0
    assert list(json.loads(path.read_text())["sections"]) == ["ceilings"]


def test_what_finds_no_time_is_left_out_or_keeps_what_it_had(programs: list[str], tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps(result_of(good=True)))
    assert gpu.main(["--out", str(path), "--budget-s", "14"]) == 0
    sections = json.loads(path.read_text())["sections"]
    assert not programs
    assert sections["network:tiny-x2"] == result_of(good=True)["sections"]["network:tiny-x2"]
    assert sections["line:tiny-x2"] == {"left out": "no time left"}


def test_an_unknown_section_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--only", "compiled"]) == 2
    assert "got compiled" in capsys.readouterr().err


def test_without_a_gpu_it_is_4_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(gpu, "find_gpus", list)
    monkeypatch.setattr(gpu, "gpu_of", lambda device: None)
    assert gpu.main([]) == 4
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_gpu_is_named_that_torch_uses_and_not_the_drivers_first(monkeypatch: pytest.MonkeyPatch) -> None:
    first, used = Gpu("NVIDIA First", "8.9", "580.1"), Gpu("NVIDIA Shown", "9.0", "580.1")
    monkeypatch.setattr(gpu, "find_gpus", lambda: [first, used])
    said = f"a warning\n{json.dumps(asdict(used))}\n"

    def run(command: list[str], **options: Any) -> Any:
        assert command[-1] == "cuda:1"
        assert "env" not in options, "it is to see what this program sees"
        return SimpleNamespace(stdout=said)

    monkeypatch.setattr(gpu.subprocess, "run", run)
    assert gpu.gpu_here("cuda:1") == used
    said = ""
    assert gpu.gpu_here("cuda:1") == first


def test_torch_is_asked_in_a_program_of_its_own() -> None:
    if not torch.cuda.is_available():
        assert gpu.gpu_of("cuda") is None
        return
    found = gpu.gpu_of("cuda")
    assert found is not None
    assert found.name == torch.cuda.get_device_name("cuda")


def test_a_section_that_takes_too_long_is_ended_with_what_it_started(tmp_path: Path) -> None:
    assert gpu.run_bounded([sys.executable, "-c", "import time; time.sleep(60)"], 0.2) is None
    assert gpu.run_bounded([sys.executable, "-c", "raise SystemExit(3)"], 20.0) == 3


# ways


def section_on_cpu(folder: Path) -> Section:
    return Section(torch.device("cpu"), True, None, folder, folder, folder / "part.json")


def test_a_section_writes_its_picture_of_a_network_in_every_way_that_runs_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gpu.json"
    assert gpu.main(["--device", "cpu", "--only", "network:tiny-x2", "--out", str(path)]) == 0
    written = json.loads(path.read_text())
    told = written["sections"]["network:tiny-x2"]
    assert written["quick"], "a processor measures nothing"
    assert (told["ended"], told["rounds"]) == ("in time", 2)
    for name in ("cuda", "torch eager", "torch graph", "cuda in 2 bands"):
        assert told[name]["num"] == 6
        assert told[name]["levels_off"]["max"] <= 1
    for name in ("fused", "tensorrt fp16", "tensorrt int8", "tensorrt fp8"):
        assert "\n" not in told[name]["left out"]
    assert row_named(written, "`tiny-x2`, 1080p luma")["by"] == "cuda"


def test_precisions_of_tensorrt_are_those_that_an_engine_ships(tmp_path: Path) -> None:
    engine = random_engine("tiny-x2", tmp_path / "tiny-x2")
    section = section_on_cpu(tmp_path)
    assert [found.name for found in gpu_ways.runtimes_of(section, engine)] == ["cuda", "fused", "tensorrt fp16"]
    engine.precisions["int8-symmetric"] = engine.precisions["fp8"] = "model.onnx"
    names = [found.name for found in gpu_ways.runtimes_of(section, engine)]
    assert names[2:] == ["tensorrt fp16", "tensorrt int8", "tensorrt fp8"]
    assert set(names) <= set(gpu_goals.OURS)


def test_what_refuses_is_left_out_and_what_fails_is_an_error(tmp_path: Path) -> None:
    section = section_on_cpu(tmp_path)
    with gpu_ways.left_out_where_refused(section, "tensorrt fp16"):
        raise EngineError("not  here")
    assert section.result == {"tensorrt fp16": {"left out": "not here"}}
    with section.step("fused"), gpu_ways.left_out_where_refused(section, "fused"):
        raise GpuFault("lost")
    assert section.result["fused: error"]["what"] == "GpuFault: lost"


def test_no_plan_is_built_for_longer_than_there_is_time(tmp_path: Path) -> None:
    section = section_on_cpu(tmp_path)
    assert section.left == 1.0
    section.limit_s, section.began_s = 10.0, section.began_s - 9.0
    assert 0.0 < section.left < gpu_ways.LEFT_FOR_TIMING


# quality and overlap


def test_loss_is_told_against_fp32_and_the_original() -> None:
    original = [np.full((1, 1, 4, 4), 100.0, np.float32)]
    reference = [np.full((1, 1, 4, 4), 98, np.int64)]
    nearer = reference[0].copy()
    nearer[0, 0, 0] += 1
    better = gpu_quality.precision_loss([nearer], reference, original)
    assert (better["largest_difference_levels"], better["part_of_samples_that_differ"]) == (1, 0.25)
    assert better["worst_loss_db"] < 0
    worse = gpu_quality.precision_loss([reference[0] - 2], reference, original)
    assert worse["worst_loss_db"] == pytest.approx(6.0206, abs=1e-4)


def test_small_pictures_are_repeated_and_large_ones_cut(tmp_path: Path) -> None:
    engine = random_engine("srgan-x2", tmp_path / "srgan-x2", num_blocks=1)
    real: list[Any] = [np.full((5, 7, 3), 9, np.uint8), np.full((400, 300, 3), 7, np.uint8)]
    pairs = gpu_quality.pairs_of(section_on_cpu(tmp_path), engine, real, (24, 32))
    assert [(small.shape, original.shape) for small, original in pairs] == [((1, 3, 24, 32), (1, 3, 48, 64))] * 2
    assert [int(small.max()) for small, _ in pairs] == [9, 7]
    given = gpu_quality.as_given(engine, pairs[0][0])
    assert given.dtype == np.float32
    assert np.array_equal(gpu_quality.levels_of(given), pairs[0][0])


def test_overlap_is_the_part_of_the_copies_in_which_something_is_computed() -> None:
    events = [
        ("copy in", 0.0, 10.0, "HtoD"),
        ("compute", 5.0, 20.0, "one"),
        ("compute", 10.0, 5.0, "two"),
        ("copy out", 20.0, 10.0, "DtoH"),
    ]
    told = overlap_of(events)
    assert told["copies_beside_compute"] == 0.5
    assert told["lanes_us"] == {"copy in": 10, "compute": 25, "copy out": 10}
    assert overlap_of(events[1:3])["copies_beside_compute"] is None
    assert overlap_of([]) == {"events": 0}


def test_the_trace_is_drawn_from_what_ran_on_the_device(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    kinds = {"kernel": "conv", "gpu_memcpy": "Memcpy HtoD (Pinned -> Device)", "cpu_op": "aten::conv2d"}
    found = [{"ph": "X", "cat": kind, "name": name, "ts": 5.0, "dur": 3.0} for kind, name in kinds.items()]
    events = device_events({"traceEvents": [*found, {"ph": "i", "name": "mark"}]})
    assert sorted(event[0] for event in events) == ["compute", "copy in"]
    draw_trace(events, tmp_path / "trace.png", title="made up")
    assert (tmp_path / "trace.png").read_bytes().startswith(b"\x89PNG")


# README


@pytest.fixture
def measured(tmp_path: Path) -> dict[str, Any]:
    """A made-up result as it is written: some goals reached, one missed, one not measured."""
    result = result_of(good=True)
    sections = result["sections"]
    sections["ceilings"] |= {"device copy": {"tb_a_second": 4.25}, "host copies": {"upload": {"gb_a_second": 51.2}}}
    sections["network:fast-x2"]["cuda"] |= {"p50_ms": 1.375, "p99_ms": 1.4, "tflops": 226.7}
    sections["network:fast-x2"]["ended"] = "in time"
    del sections["network:quality-x2"]
    sections["ceilings"]["measured"], sections[LINE]["measured"] = "2026-12-01 10:00:00 UTC", "2026-12-03 11:00:00 UTC"
    result["card"] = {"gpu": "NVIDIA Made Up", "driver": "", "versions": {"torch": "9.9"}, "date": "2026-12-03"}
    result["goals"] = rows_of(result)
    (tmp_path / "gpu.json").write_text(json.dumps(result))
    return result


def test_the_readme_names_the_card_and_says_what_falls_short(measured: dict[str, Any], tmp_path: Path) -> None:
    line, goals, networks, lines = gpu_part(tmp_path).split("\n\n")
    assert line.startswith("On one NVIDIA Made Up (driver unknown, torch 9.9; 2026-12-01 to 2026-12-03), ")
    assert "700 TFLOP/s in FP16, 800 TFLOP/s in BF16, 4.2 TB/s between device memories, 51 GB/s upload" in line
    assert "| `fast-x2`, 1080p luma | at most 1.2 ms | 1.375 | cuda | **missed** |" in goals.splitlines()
    assert "| `quality-x2`, 1080p luma | at most 2 ms |  |  | not measured |" in goals.splitlines()
    assert "| allocations after warm-up | at most 0 | 0 | cuda | reached |" in goals.splitlines()
    assert len(goals.splitlines()) == 2 + len(GOALS)
    assert "| `fast-x2` | cuda | 1.375 | 1.400 | 227 | 1 |" in networks.splitlines()
    assert "| `fast-x2` | cuda | 0.10 | 0.20 | 400 | 0.10 of compute | 2.5 |" in lines.splitlines()
    (tmp_path / "gpu_trace.png").write_bytes(b"")
    assert gpu_part(tmp_path).endswith("(benchmarks/results/gpu_trace.png)")


def test_every_figure_of_the_readme_is_from_the_json(measured: dict[str, Any], tmp_path: Path) -> None:
    for row in measured["goals"]:
        row["figure"], row["by"], row["verdict"] = None, "", "not measured"
    measured["sections"] = {}
    (tmp_path / "gpu.json").write_text(json.dumps(measured))
    told = [row.split("|")[3:] for row in gpu_part(tmp_path).splitlines()[4:]]
    assert len(told) == len(GOALS)
    assert {cell for row in told for cell in row} == {"  ", " not measured ", ""}


@pytest.mark.parametrize("quick", [None, True])
def test_the_readme_says_where_nothing_was_measured(
    measured: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: bool | None
) -> None:
    monkeypatch.setattr(readme, "RESULTS", tmp_path)
    before = readme.filled("<!-- gpu -->\nold\n<!-- /gpu -->")
    assert "On one NVIDIA Made Up" in before
    if quick:
        (tmp_path / "gpu.json").write_text(json.dumps({**measured, "quick": True}))
    else:
        (tmp_path / "gpu.json").unlink()
    assert readme.filled(before) == f"<!-- gpu -->\n{NOTHING}\n<!-- /gpu -->", "old figures do not stay"


def test_the_readmes_commands_are_understood() -> None:
    section = (readme.ROOT / "README.md").read_text(encoding="utf-8").split("\n## NVIDIA\n")[1]
    commands = re.findall(r"(?m)^python -m benchmarks\.gpu(.*?)(?: *#.*)?$", section)
    assert len(commands) == 2
    for command in commands:
        options = gpu.parse(command.split())
        assert all(any(part.name.startswith(name) for part in gpu.COMPILED) for name in options.only)
