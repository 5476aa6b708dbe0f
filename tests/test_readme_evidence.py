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
        "fast-x2": {"luma_psnr_db": cell(32.5, gain=cell(2.5)), "invented": cell(0.25, gain=cell(1.5))},
        "srgan-x2": {"luma_psnr_db": cell(31, gain=cell(0.5)), "found": cell(0.5, gain=cell(2))},
        "fast-x4": {"luma_psnr_db": cell(28.5, gain=cell(1.5))},
        "bicubic-x2, fewer frames": {"luma_psnr_db": cell(30.5)},
    }
    crops = [
        {"dataset": "one", "rms_levels": 14.26, "luma_psnr_db": psnr, "bicubic_psnr_db": 25.04} for psnr in (24.96, 26)
    ]
    claim = {"engine": "srgan-x4", "stage": "srresnet-x4", "figure": "ring_psnr_db", "dataset": "one"}
    evidence = {
        "card": {"date": "2026-01-02"},
        "frames_a_set": {"engines": "all", "heavy": {"frames": 5, "engines": ["srgan-x2", "srgan-x4"]}},
        "not_shipped": [{"engine": "srgan-x2", "stage": "srresnet-x2", "missing": "srresnet-x2"}],
        "worst": {"side": "test", "fast-x2": crops, "tiny-x2": []},
        "test": {"sets": {"one": methods}, "highlights": [{**claim, "holds": False, **cell(-0.5)}]},
    }
    row = {"patches": 40, "accuracy": 0.8, "matthews": 0.6, "bicubic": 0.7, "truth": 0.9, "flips": 0.125}
    back = {"recovery": 0.5, "low": -0.1, "high": 1.2, "gap": 0.2, "gap_low": 0.05, "gap_high": 0.3}
    split = {"gain_over_bicubic": [0.1, -0.021, 0.2], "mcnemar": {"better": 5, "worse": 2, "p": 0.45}}
    compared = {**row, **back, **split}
    unsure = {**compared, "gap_low": 0.0}
    nothing = {**compared, "recovery": None, "low": None, "high": None, "gap": -0.1, "gap_low": -0.2, "gap_high": -0.05}
    asked = {
        "truth": {"patches": 40, "accuracy": 0.9, "matthews": 0.8},
        "fast-x2": compared,
        "unsure-x2": unsure,
        "tiny-x2": nothing,
    }
    downstream = {"tasks": {"polyp": {"methods": asked}}}
    figures = {"flicker": cell(0.1), "luma_psnr_db": cell(40), "clips": 2}
    video = {
        "card": {"date": "2026-01-02"},
        "frames": 32,
        "heavy_frames": 4,
        "clips": {"a": {}, "b": {}},
        "over_clips": {"crf-28": {"fast-x2": figures}},
    }
    sides = {form: {"one": {"field_of_view": db}} for form, db in (("bicubic", 30.0), ("fp32", 31.5))}
    network = {"macs_per_pixel": 16848, "parameters": 16980, "steps": 3000, "test": sides}
    retrained = {"networks": {"tiny-x2": network}}
    above = {side: {"luma": {"one": 0.01, "two": 0.03}, "rgb": {"one": -0.5}} for side in ("val", "test")}
    variants = {
        "trials": {"colour": ["fast", "fast-rgb"]},
        "networks": {"fast-x2": {"macs_per_pixel": 75168}, "fast-rgb-x2": {"macs_per_pixel": 78048}},
        "above": {"colour": {"x2": above}},
    }
    apart = [{"figure": "ring_psnr_db", "dataset": "one", **cell(0.5)}]
    spared = {"model": "srgan-x4", "steps": 300, "sets": {"one": {}}, "differences": apart}
    contents = {
        "evidence": evidence,
        "downstream": downstream,
        "video": video,
        "retrained": retrained,
        "variants": variants,
        "reflections": spared,
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    for name in ("crops.png", "reflections.png", "retrained.png", "worst.png"):
        (tmp_path / name).touch()
    return tmp_path


def test_without_their_json_all_tables_are_empty(tmp_path: Path) -> None:
    assert {make(tmp_path) for make in EVIDENCE.values()} == {""}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("evidence-line", "all frames (one 3 of 2 groups); srgan-x2, srgan-x4: at most 5 a set; 2026-01-02."),
        ("evidence", "| `fast-x2` | +2.50 (+1.50 to +3.50) |"),
        ("evidence-sheet", "](benchmarks/results/crops.png)"),
        ("quality", "| `bicubic-x2` |"),
        ("invention", "| mean of the sets | invented | found | polyp flips |"),
        ("invention", "| `bicubic-x2` | 0.100 |  |  |"),
        ("invention", "| `fast-x2` | 0.250 (0/1) |  | 12.5% of 40 |"),
        ("invention", "| `srgan-x2` |  | 0.500 (1/0) |  |"),
        ("invention", "| `fast-x4` |  |  |  |\n| `bicubic-x2, fewer frames` |  |  |  |\n| `srgan-x2` |"),
        ("worst", "| `fast-x2` | one | 14.3 | 25.0 | 25.0 | 1 of 2 |"),
        ("worst-sheet", "](benchmarks/results/worst.png)"),
        ("reflections-sheet", "](benchmarks/results/reflections.png)"),
        ("reflections", "| mean of the sets |"),
        ("highlights", "| `srgan-x2` less `srresnet-x2` |  | srresnet-x2: not shipped |"),
        ("highlights", "| `srgan-x4` less `srresnet-x4`, ring | -0.50 (-1.50 to +0.50) | **short** |"),
        ("spared", "| PSNR in the ring, dB | +0.50 (-0.50 to +1.50) |"),
        (
            "downstream",
            "| polyp | `fast-x2` | 40 | 0.800 | 0.600 | +20.0 (+5.0 to +30.0) | +10.0 (-2.1 to +20.0) | 0.50",
        ),
        ("downstream", "| 0.50 (-0.10 to 1.20) | 5 / 2, 0.45 |"),
        ("downstream", "| +20.0 (+0.0 to +30.0) | +10.0 (-2.1 to +20.0) | loss not shown (-0.10 to 1.20) | 5"),
        ("downstream", "| -10.0 (-20.0 to -5.0) | +10.0 (-2.1 to +20.0) | loss not shown | 5"),
        ("downstream", "| polyp | `truth` | 40 | 0.900 | 0.800 |  |  |  |  |"),
        ("video-line", "2 clips, the first 32 frames of each (4 for engines of SRGAN's size"),
        ("video", "| CRF 28 | fast-x2 | 0.10 (-0.90 to 1.10) |  |  | 40.00 |"),
        ("retrained", "| `tiny-x2` | 16,848 | 16,980 | 3,000 | +1.50 |"),
        ("variants", "| `fast` on RGB, x2, val | 75,168 | 78,048 | +0.020 | -0.500 |"),
        ("variants", "| of the variant | luma | RGB |"),
        ("retrained-plot", "](benchmarks/results/retrained.png)"),
    ],
)
def test_tables_show_the_figures_of_the_json(results: Path, name: str, shown: str) -> None:
    assert shown in EVIDENCE[name](results)


def test_a_result_without_what_came_later_gives_tables_too(results: Path) -> None:
    evidence = json.loads((results / "evidence.json").read_text())
    for name in ("not_shipped", "worst"):
        del evidence[name]
    evidence["test"]["highlights"] = []
    (results / "evidence.json").write_text(json.dumps(evidence))
    assert EVIDENCE["worst"](results) == EVIDENCE["highlights"](results) == ""
    assert "`fast-x2`" in EVIDENCE["invention"](results)


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
