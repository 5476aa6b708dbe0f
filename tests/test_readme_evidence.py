"""README's tables of evidence: nothing without its JSON, and every figure from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import readme
from benchmarks.readme_evidence import EVIDENCE
from benchmarks.tables import dense


def cell(mean: float, **more: Any) -> dict[str, Any]:
    return {"mean": mean, "low": mean - 1, "high": mean + 1, "frames": 3, "groups": 2, **more}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    methods = {
        "bicubic-x2": {"luma_psnr_db": cell(30), "invented": cell(0.1)},
        "fast-x2": {"luma_psnr_db": cell(32.5, gain=cell(2.5)), "invented": cell(0.25)},
    }
    claim = {"engine": "srgan-x4", "stage": "srresnet-x4", "figure": "ring_psnr_db", "dataset": "one"}
    evidence = {
        "card": {"date": "2026-01-02"},
        "frames_a_set": {"engines": "all", "heavy": {"frames": 5, "engines": ["srgan-x4"]}},
        "test": {"sets": {"one": methods}, "highlights": [{**claim, "holds": False, **cell(-0.5)}]},
    }
    row = {"accuracy": 0.8, "matthews": 0.6, "bicubic": 0.7, "truth": 0.9, "flips": 0.125}
    compared = {**row, "recovery": 0.5, "low": -0.1, "high": 1.2, "mcnemar": {"better": 5, "worse": 2, "p": 0.45}}
    nothing = {**compared, "recovery": None, "low": None, "high": None}
    downstream = {
        "tasks": {
            "polyp": {"methods": {"truth": {"accuracy": 0.9, "matthews": 0.8}, "fast-x2": compared, "tiny-x2": nothing}}
        }
    }
    figures = {"flicker": cell(0.1), "luma_psnr_db": cell(40), "clips": 2}
    video = {
        "card": {"date": "2026-01-02"},
        "frames": 32,
        "clips": {"a": {}, "b": {}},
        "over_clips": {"crf-28": {"fast-x2": figures}},
    }
    sides = {form: {"one": {"field_of_view": db}} for form, db in (("bicubic", 30.0), ("fp32", 31.5))}
    network = {"macs_per_pixel": 16848, "parameters": 16980, "steps": 3000, "test": sides}
    retrained = {"networks": {"tiny-x2": network}}
    apart = [{"figure": "ring_psnr_db", "dataset": "one", **cell(0.5)}]
    spared = {"model": "srgan-x4", "steps": 300, "sets": {"one": {}}, "differences": apart}
    contents = {
        "evidence": evidence,
        "downstream": downstream,
        "video": video,
        "retrained": retrained,
        "reflections": spared,
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    for name in ("crops.png", "retrained.png"):
        (tmp_path / name).touch()
    return tmp_path


def test_without_their_json_all_tables_are_empty(tmp_path: Path) -> None:
    assert {make(tmp_path) for make in EVIDENCE.values()} == {""}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("evidence-line", "all frames (one 3 of 2 groups); srgan-x4: at most 5 a set; 2026-01-02."),
        ("evidence", "| `fast-x2` | +2.50 (+1.50 to +3.50) |"),
        ("evidence-sheet", "](benchmarks/results/crops.png)"),
        ("quality", "| `bicubic-x2` |"),
        ("invention", "| `fast-x2` |  |  | 0.250 |  | 12.5% |"),
        ("reflections", "| PSNR in the ring |"),
        ("highlights", "| `srgan-x4` less `srresnet-x4`, ring | -0.50 (-1.50 to +0.50) | **short** |"),
        ("spared", "| PSNR in the ring, dB | +0.50 (-0.50 to +1.50) |"),
        ("downstream", "| polyp | `fast-x2` | 0.800 | 0.600 | 0.700 | 0.900 | 0.50 (-0.10 to 1.20) | 5 / 2, p 0.45 |"),
        ("downstream", "nothing was lost (none to none)"),
        ("downstream", "| polyp | `truth` | 0.900 | 0.800 |  |  |  |  |"),
        ("video-line", "2 clips, the first 32 frames of each"),
        ("video", "| CRF 28 | fast-x2 | 0.100 |  |  | 40.00 |"),
        ("retrained", "| `tiny-x2` | 16,848 | 16,980 | 3,000 | +1.50 |"),
        ("retrained-plot", "](benchmarks/results/retrained.png)"),
    ],
)
def test_tables_show_the_figures_of_the_json(results: Path, name: str, shown: str) -> None:
    assert shown in EVIDENCE[name](results)


def test_the_readme_has_every_marker_of_evidence_and_fills_it(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (readme.ROOT / "README.md").read_text(encoding="utf-8")
    for name in EVIDENCE:
        assert f"<!-- {name} -->\n" in text, name
        assert f"<!-- /{name} -->" in text, name
    monkeypatch.setattr(readme, "RESULTS", results)
    only = "a\n<!-- retrained -->\n<!-- /retrained -->\nb"
    filled = readme.filled(only)
    assert "| `tiny-x2` |" in filled
    assert readme.filled(filled) == filled


def test_dense_json_holds_the_same_in_fewer_lines() -> None:
    result = {
        "sets": {"one": {"a": cell(1), "b": {"mean": 2, "gain": cell(0.5)}}},
        "list": [1, 2],
        "empty": {},
        "none": None,
    }
    text = dense(result)
    assert json.loads(text) == result
    assert b'"a": {"mean": 1, "low": 0, "high": 2, "frames": 3, "groups": 2}' in text
    with pytest.raises(ValueError, match="braces"):
        dense({"c": {"d": "x  }"}})
