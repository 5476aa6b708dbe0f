"""The benchmark of live sessions: ages, reactions and memory are counted right, and a quick run writes its sections."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from array import array
from pathlib import Path

import pytest

from benchmarks import live, readme
from benchmarks.live_sessions import BYPASS, PICTURE, SLATE, NotingView, Sitting, memory_of
from benchmarks.live_trials import Sleeper, Toggler, ages_of, reactions_of
from streamsr.bench.latency import Stretch
from streamsr.errors import InputError
from streamsr.runtimes.nvidia import Gpu
from tests.live_feeds import make_frame

MS = 1_000_000


def sitting_of(*presented: tuple[int, int, int], came_ms: tuple[int, ...] = ()) -> Sitting:
    """Return what was noted of pictures, each (arrived, presented, kind), in milliseconds."""
    view = NotingView()
    for arrived_ms, presented_ms, kind in presented:
        view.arrived_ns.append(arrived_ms * MS)
        view.presented_ns.append(presented_ms * MS)
        view.kinds.append(kind)
    return Sitting(view=view, came_ns=array("q", [at_ms * MS for at_ms in came_ms]), stretch=Stretch(0, 10**12))


def test_a_picture_ages_until_the_next_one_takes_its_place_and_slates_do_not_age() -> None:
    sitting = sitting_of(
        (0, 10, PICTURE), (40, 50, PICTURE), (80, 171, PICTURE), (500, 600, SLATE), (620, 630, PICTURE),
        came_ms=(0, 40, 80, 500),
    )  # fmt: skip
    found = ages_of(sitting, deadline_ms=80.0, period_ms=40.0)
    assert found["age_when_replaced"]["num"] == 3
    assert found["worst_ms"] == [520.0, 131.0, 50.0]
    assert (found["violations"], found["violations_while_the_source_was_late"]) == (2, 1)


def test_bypass_is_counted_from_the_asking_to_the_first_picture_that_is_the_cameras_own() -> None:
    toggler = Toggler(tries=2)
    toggler.asked_ns = [45 * MS, 100 * MS, 125 * MS]
    sitting = sitting_of(
        (0, 10, PICTURE), (40, 50, PICTURE), (80, 90, BYPASS), (120, 130, BYPASS)
    )  # fmt: skip
    found = reactions_of(sitting, toggler)
    assert found["tries"] == 2
    assert found["pictures_before"] == {"0": 1, "1": 1}
    assert found["until_seen"]["max_ms"] == 45.0


def test_only_camera_pictures_of_the_stretch_have_an_added_latency() -> None:
    sitting = sitting_of((0, 10, PICTURE), (40, 55, PICTURE), (60, 61, SLATE), (80, 90, BYPASS))
    sitting.stretch = Stretch(30 * MS, 90 * MS)
    assert sitting.added_ms().tolist() == [15.0, 10.0]


def test_memory_is_compared_from_after_the_first_minute() -> None:
    samples = [(float(at_s), 500.0 if at_s < 60 else 300.0 + at_s / 60) for at_s in range(0, 601, 2)]
    found = memory_of(samples)
    assert found["start_at_s"] == 60.0
    assert found["growth_mib"] == pytest.approx(9.0, abs=0.6)
    assert found["most_mib"] == 500.0


def test_the_sleeper_is_mostly_quick_in_calm_spells_and_often_late_in_stormy_ones() -> None:
    now_s = [0.0]
    sleeper = Sleeper(clock=lambda: now_s[0])
    calm = [sleeper.next_sleep_s() for _ in range(300)]
    now_s[0] = Sleeper.CALM_S + 1
    stormy = [sleeper.next_sleep_s() for _ in range(300)]
    assert sorted(calm)[150] < 0.01
    assert 0.02 < max(calm) <= 0.9
    assert min(stormy) >= 0.02
    assert max(stormy) == 0.9
    assert sleeper.upscale(make_frame(1)).planes[0].shape == (96, 128)


def test_a_quick_run_writes_its_sections_and_goals_and_keeps_those_of_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "live.json"
    before = {"sections": {"bypass": {"most_pictures_before": 2}}}
    path.write_text(json.dumps(before))
    assert live.main(["--quick", "--only", "slow,clip,gpu", "--json", str(path)]) == 0
    written = json.loads(path.read_text())
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1]) == written
    assert written["sections"]["clip"] == {"left_out": "no --clip was given"}
    assert written["sections"]["slow"]["age_when_replaced"]["num"] > 25
    assert written["sections"]["bypass"] == before["sections"]["bypass"]
    goals = {row["section"]: row["reached"] for row in written["goals"]}
    assert goals["bypass"] is False
    assert goals["slow"] is (written["sections"]["slow"]["violations"] == 0)
    assert goals["clip"] is goals["gpu"] is goals["none"] is None


def test_a_gpu_of_another_machine_leaves_the_rest_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "live.json"
    before = {"card": {"processor": "Other"}, "minutes": 10.0, "sections": {"slow": {"violations": 0}}}
    path.write_text(json.dumps(before))
    shares = {"fast-x2": 0.875, "bicubic-x2": 0.125}
    figures = {"gpu": "NVIDIA Made Up", "seconds": 60.0, "added_latency": {"p99_ms": 12.5}, "rung_shares": shares}
    monkeypatch.setitem(live.SECTIONS, "gpu", lambda plan: figures)
    assert live.main(["--quick", "--only", "gpu", "--json", str(path)]) == 0
    capsys.readouterr()
    written = json.loads(path.read_text())
    assert {key: written[key] for key in ("card", "minutes")} == {"card": before["card"], "minutes": 10.0}
    assert written["sections"]["gpu"]["gpu"] == "NVIDIA Made Up"
    monkeypatch.setattr(readme, "RESULTS", tmp_path)
    *_, latency, bicubic = (row.split(" | ") for row in readme.live_table().splitlines())
    assert latency[:4] == ["| 1080p60 on a GPU: added latency p99, ms (NVIDIA Made Up)", "16.667", "12.5", "1.0"]
    assert (bicubic[2], bicubic[-1]) == ("0.125", "**short** |"), "quick where nothing was enlarged is no speed"


def test_a_gpu_that_torch_cannot_use_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "find_gpus", lambda: [Gpu("NVIDIA Made Up", "5.0", "580.1")])
    monkeypatch.setattr(live, "gpu_runs_torch", lambda: False)
    with pytest.raises(live.LeftOut, match=r"NVIDIA Made Up .*: torch cannot use it"):
        live.measure_gpu(live.Plan(1.0))


def test_a_session_that_never_settles_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def sit(*made: object, seconds: float) -> Sitting:
        raise InputError("the engines were not warm")

    monkeypatch.setattr(live, "find_gpus", lambda: [Gpu("NVIDIA Made Up", "9.0", "580.1")])
    monkeypatch.setattr(live, "gpu_runs_torch", lambda: True)
    monkeypatch.setattr(live, "long_clip", lambda folder, *size, rate: folder / "clip.mp4")
    monkeypatch.setattr(live, "sit", sit)
    assert live.measure("gpu", live.Plan(1.0), {}) == {"left_out": "the engines were not warm"}


def test_without_pyav_it_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "av.py").write_text("raise ImportError('not here')")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), str(readme.ROOT)))}
    command = [sys.executable, "-m", "benchmarks.live", "--quick", "--only", "gpu"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=readme.ROOT, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "benchmarks.live: expected PyAV for every section, got ImportError: not here; pip install av"
    ]


def test_a_section_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert live.main(["--quick", "--only", "none,fast"]) == 2
    assert "got fast" in capsys.readouterr().err


NOT_MEASURED = "| 1080p60 | 16.667 |  |  |  | not measured |"


def test_the_readmes_line_says_what_made_the_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readme, "RESULTS", tmp_path)
    card = {"cores": 2, "processor": "Some", "date": "2026-01-02"}
    sections: dict[str, object] = {"none": {"rung_shares": {"bicubic-x2": 0.1, "tiny-x2": 0.9}}, "slow": {}}
    (tmp_path / "live.json").write_text(json.dumps({"card": card, "sections": sections}))
    line = "On 2 cores (Some; 2026-01-02); the rendered pictures were 90% tiny-x2, 10% bicubic-x2"
    assert readme.live_line() == f"{line}:"
    sections["clip"] = {"rung_shares": {"fast-x2": 1.0}}
    (tmp_path / "live.json").write_text(json.dumps({"card": card, "sections": sections}))
    assert readme.live_line() == f"{line}; those of the real clip were 100% fast-x2:"


def test_the_readmes_table_says_what_falls_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    goals = [
        {"section": "none", "goal": "p50, ms", "most": 33.0, "got": 12.5, "reached": True},
        {"section": "slow", "goal": "older", "most": 0, "got": 2, "reached": False},
        {"section": "gpu", "goal": "1080p60", "most": 16.667, "got": None, "reached": None},
    ]
    monkeypatch.setattr(readme, "RESULTS", tmp_path)
    assert readme.live_table() == ""
    sections = {"none": {"seconds": 600.0, "cores_busy_with_others": 0.25}}
    (tmp_path / "live.json").write_text(json.dumps({"goals": goals, "sections": sections}))
    rows = readme.live_table().splitlines()
    assert rows[2:] == ["| p50, ms | 33 | 12.5 | 10.0 | 0.2 |  |", "| older | 0 | 2 |  |  | **short** |", NOT_MEASURED]
    assert (
        readme.filled("a <!-- live -->\nold\n<!-- /live --> b")
        == f"a <!-- live -->\n{readme.live_table()}\n<!-- /live --> b"
    )
