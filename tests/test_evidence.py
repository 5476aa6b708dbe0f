"""The benchmarks of evidence, in a tiny form: they go on where they stopped, and say what they say they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("PIL")
pytest.importorskip("jinja2")

from benchmarks import evidence, video
from benchmarks.enlarged import KeptEngine, all_engines, key_of
from streamsr.evaluation.methods import EngineMethod, Made
from streamsr.training.data import bicubic_down
from tests.frames import make_data, scene
from tests.videos import make_video

ENGINE = "tiny-x2"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"), splits=("train", "val", "test"), frames=3, marked=True)


def arguments(data: Path, tmp_path: Path, *more: str) -> list[str]:
    paths = ["--data", str(data), "--runs", str(tmp_path / "runs"), "--json", str(tmp_path / "results" / "out.json")]
    return [*paths, *more]


def result(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "results" / "out.json").read_text())
    return found


def test_a_kept_picture_is_the_engines_own_and_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (engine,) = all_engines(names=[ENGINE])
    lr = bicubic_down(scene(1, 96, 128), 2)
    made = KeptEngine(engine, tmp_path).enlarge(lr)
    plain = EngineMethod(engine).enlarge(lr)

    def fail(self: EngineMethod, lr: Any) -> Made:
        raise AssertionError("made again")

    monkeypatch.setattr(EngineMethod, "enlarge", fail)
    again = KeptEngine(engine, tmp_path).enlarge(lr)
    for kept in (made, again):
        assert np.array_equal(kept.luma, plain.luma)
        assert np.array_equal(kept.rgb, plain.rgb)
    with pytest.raises(AssertionError, match="made again"):
        KeptEngine(engine, tmp_path).enlarge(255 - lr)


def test_the_key_changes_with_weights_form_and_projection() -> None:
    engine, other = all_engines(names=["tiny-x2", "fast-x2"])
    keys = {
        key_of(each, form, consistency=asked)
        for each in (engine, other)
        for form in ("int8", "fp32")
        for asked in (True, False)
    }
    assert len(keys) == 8


def test_evidence_measures_every_method_on_both_sides_and_goes_on_where_it_stopped(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = arguments(data, tmp_path, "--engines", ENGINE, "--frames", "2", "--perceptual-frames", "0")
    said: list[str] = []
    assert evidence.main(options, said.append) == 0
    found = result(tmp_path)
    assert found["question"] == "evidence"
    assert set(found["test"]["sets"]) == {"one", "two"}
    cells = found["val"]["sets"]["one"][ENGINE]["luma_psnr_db"]
    assert cells["frames"] == 3, "the few frames of heavy engines are among those of all"
    assert cells["gain"]["low"] <= cells["gain"]["mean"] <= cells["gain"]["high"]
    assert found["frames_a_set"]["engines"] == 2
    assert found["engines"][ENGINE]["form"] == "int8"
    for name in ("crops-x2.png", "reflections-x2.png", f"worst-{ENGINE}.png"):
        assert (tmp_path / "runs" / "evidence" / name).is_file()
    assert (tmp_path / "results" / "crops.png").is_file()
    assert sum("frames" in line for line in said) == 2 * 2 * 3

    def fail(*_: Any) -> Any:
        raise AssertionError("measured again")

    monkeypatch.setattr(evidence.Side, "measure_method", fail)
    assert evidence.main(options, said.append) == 0
    assert result(tmp_path)["test"] == found["test"]


def test_adversarial_weights_are_held_against_their_fidelity_stage() -> None:
    def row(method: str, name: str, value: float) -> dict[str, Any]:
        return {"name": name, "dataset": "d", "group": name, "method": method, "ring_psnr_db": value}

    rows = [row("srresnet-x4", name, 30.0) for name in "ab"] + [row("srgan-x4", name, 29.8) for name in "ab"]
    (claim,) = evidence.highlight_claims(rows)
    assert (claim["figure"], claim["holds"], claim["mean"]) == ("ring_psnr_db", True, -0.2)
    rows[-1]["ring_psnr_db"] = 29.0
    (claim,) = evidence.highlight_claims(rows)
    assert claim["holds"] is False
    assert not list(evidence.highlight_claims(rows[:2]))


# Video.


def test_video_measures_clean_and_compressed_input_and_keeps_clips_that_are_there(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    make_video(clips / "a.mkv", width=96, height=80, num_frames=4)
    more = ["--clips", str(clips), "--engines", ENGINE, "--frames", "3", "--heavy-frames", "0"]
    options = ["--runs", str(tmp_path / "runs"), "--json", str(tmp_path / "results" / "out.json"), *more]
    assert video.main(options, lambda line: None) == 0
    found = result(tmp_path)
    clip = found["clips"]["a"]
    assert list(clip["clean"]) == ["camera-x2", "truth-x2", "bicubic-x2", "lanczos-x2", ENGINE]
    assert clip["clean"][ENGINE]["frames"] == 3
    assert set(clip["crf-28"]) == {
        "camera-x2",
        "bicubic-x2",
        "fast-x2",
        "fast-x2, as made",
        "fast-x2-robust",
        "fast-x2-robust, as made",
    }
    assert clip["crf-28"]["bicubic-x2"]["luma_psnr_db"] <= clip["clean"]["bicubic-x2"]["luma_psnr_db"]
    assert clip["clean"]["truth-x2"]["warp_error"] >= 0
    assert found["over_clips"]["clean"][ENGINE]["clips"] == 1
    make_video(clips / "b.mkv", width=96, height=80, num_frames=2)
    said: list[str] = []
    assert video.main(options, said.append) == 0
    assert "a.mkv" not in said
    assert result(tmp_path)["clips"]["a"] == clip
    assert result(tmp_path)["over_clips"]["clean"][ENGINE]["clips"] == 2
