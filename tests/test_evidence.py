"""The benchmarks of evidence, in a tiny form: they go on where they stopped, and say what they say they say."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("PIL")
pytest.importorskip("jinja2")

from PIL import Image

from benchmarks import downstream, evidence, reflections, video
from benchmarks.classifier import Schooling, answers_of, load_classifier, save_classifier, train_classifier
from benchmarks.enlarged import KeptEngine, all_engines, interpolations, key_of
from benchmarks.evidence_sheets import rendered_sheets
from streamsr.errors import UsageError
from streamsr.evaluation.methods import EngineMethod, Interpolation, Made
from streamsr.evaluation.sheets import CELL_PX, GAP_PX, LABEL_PX
from streamsr.training.data import bicubic_down
from tests.frames import add_frame, make_data, scene, write_manifest
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
    options += ["--sides", "test", "val"]
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
    for name in ("crops.png", "worst.png", "reflections.png"):
        assert (tmp_path / "results" / name).is_file()
    assert found["worst"]["side"] == "test"
    worst = found["worst"][ENGINE]
    assert len(worst) == 6, "every frame's worst crop, as there are fewer than ten"
    assert [row["rms_levels"] for row in worst] == sorted((row["rms_levels"] for row in worst), reverse=True)
    for row in worst:
        assert (data / row["name"]).is_file()
        assert row["luma_psnr_db"] == pytest.approx(20 * np.log10(255 / row["rms_levels"]), abs=0.01)
        assert row["bicubic_psnr_db"] > 0
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


def test_a_stage_that_is_not_in_the_folder_is_said(tmp_path: Path) -> None:
    engines = evidence.ROOT / "engines"
    for name in ("srgan-x4", "srresnet-x4", "srgan-x2"):
        (tmp_path / name).symlink_to(engines / name)
    assert evidence.not_shipped(tmp_path) == [{"engine": "srgan-x2", "stage": "srresnet-x2", "missing": "srresnet-x2"}]
    (tmp_path / "srgan-x4").unlink()
    assert [row["missing"] for row in evidence.not_shipped(tmp_path)] == ["srgan-x4", "srresnet-x2"]
    assert list(evidence.highlight_claims([])) == []


def test_heavy_engines_have_bicubic_on_their_own_frames_beside_them(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "is_heavy", lambda engine: True)
    options = evidence.parse(arguments(data, tmp_path, "--engines", ENGINE, "--heavy-frames", "1"))
    side = evidence.Side("test", options, None, lambda line: None)
    methods = evidence.make_methods(options)
    side.measure(methods)
    rows, _ = side.found(methods)
    sets = evidence.summarise(rows + side.beside_heavy(rows, methods))
    for cells in sets.values():
        assert cells["bicubic-x2"]["luma_psnr_db"]["frames"] == 3
        beside = cells["bicubic-x2, fewer frames"]["luma_psnr_db"]
        assert beside["frames"] == cells[ENGINE]["luma_psnr_db"]["frames"] == 1
        apart = cells[ENGINE]["luma_psnr_db"]["mean"] - beside["mean"]
        assert apart == pytest.approx(cells[ENGINE]["luma_psnr_db"]["gain"]["mean"], abs=1e-5)
    monkeypatch.setattr(evidence, "is_heavy", lambda engine: False)
    assert side.beside_heavy(rows, methods) == []


def test_sheets_of_the_rendered_scene_have_a_row_for_every_engine() -> None:
    names = ["tiny-x2", "fast-x2", "tiny-x4"]
    methods = [method for scale in (2, 4) for method in interpolations(scale)]
    methods += [EngineMethod(engine) for engine in all_engines(names=names)]
    sheets = rendered_sheets(methods)
    sizes = {name: Image.open(io.BytesIO(content)).size for name, content in sheets.items()}
    row_px, cell_px = CELL_PX + 2 * LABEL_PX + GAP_PX, CELL_PX + GAP_PX
    assert sizes == {
        "crops.png": (4 * cell_px, 2 * row_px),
        "worst.png": (2 * 5 * cell_px, 2 * row_px),
        "reflections.png": (6 * cell_px, 2 * row_px),
    }


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


def test_a_clip_is_measured_again_when_anything_it_depends_on_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    make_video(clips / "a.mkv", width=96, height=80, num_frames=2)
    make_video(clips / "b.mkv", width=96, height=80, num_frames=3)
    measured: list[str] = []

    def measure_clip(path: Path, options: Any, write: Any) -> dict[str, Any]:
        measured.append(path.stem)
        return {"size": "96x80", "clean": {"truth-x2": {"flicker": 0.5, "frames": 2}}}

    def run(*more: str) -> list[str]:
        measured.clear()
        paths = [
            "--clips",
            str(clips),
            "--runs",
            str(tmp_path / "runs"),
            "--json",
            str(tmp_path / "results" / "out.json"),
        ]
        assert video.main([*paths, "--heavy-frames", "0", *more], lambda line: None) == 0
        return measured.copy()

    monkeypatch.setattr(video, "measure_clip", measure_clip)
    assert run("--engines", ENGINE) == ["a", "b"]
    assert run("--engines", ENGINE) == []
    assert run("--engines", ENGINE, "--frames", "5") == ["a", "b"]
    assert run("--engines", "fast-x2") == ["a", "b"]
    make_video(clips / "a.mkv", width=96, height=80, num_frames=3)
    assert run("--engines", "fast-x2") == ["a"]
    assert run("--engines", "fast-x2", "--anew") == ["a", "b"]
    monkeypatch.setattr(video, "MEASURES", video.MEASURES[:-1])
    assert run("--engines", "fast-x2") == ["a", "b"]
    (clips / "b.mkv").unlink()
    assert run("--engines", "fast-x2") == []
    assert set(result(tmp_path)["clips"]) == {"a"}


# Downstream.


@pytest.fixture(scope="module")
def marked_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames of ``bkai`` with a bright half that is marked, and of ``capsule``, some of which bleed."""
    folder = tmp_path_factory.mktemp("marked")
    rows = []
    for number, split in enumerate(("train", "train", "test", "test")):
        picture = scene(number, 240, 264)
        picture[:, :132] //= 2
        picture[:, :132] += 40
        row = add_frame(folder, picture, "bkai", split, f"b{number}")
        marks = np.zeros((240, 264), np.uint8)
        marks[:, 132:] = 255
        row["mask"] = row["file"].replace(".png", ".mask.png")
        Image.fromarray(marks).save(folder / row["mask"])
        rows.append(row)
        for kind in ("ble", "non"):
            picture = scene(10 + number, 208, 208)
            if kind == "ble":
                picture[..., 1:] //= 3
            rows.append(add_frame(folder, picture, "capsule", split, f"{kind}{number}"))
    write_manifest(folder, rows)
    return folder


def test_patches_lie_in_the_field_and_are_wholly_unmarked_or_mostly_marked(marked_data: Path) -> None:
    (frame, _) = downstream.read_frames(marked_data, "train", ("bkai",))
    places = downstream.places_in("polyp", frame, 16)
    assert {place.label for place in places} == {True, False}
    assert len(places) == 2 * downstream.MOST_PATCHES
    for place in places:
        assert frame.marks is not None
        share = place.cut(frame.marks.astype(np.uint8)).mean()
        assert share >= 0.5 if place.label else share == 0
        assert min(place.top, place.left) >= 12
    assert places == downstream.places_in("polyp", frame, 16), "the same for every method"


def test_bleeding_is_told_by_the_names_and_asked_of_the_middle(marked_data: Path) -> None:
    frames = downstream.read_frames(marked_data, "test", ("capsule",))
    places = [place for frame in frames for place in downstream.places_in("bleeding", frame, 64)]
    assert [(place.label, place.top, place.left, place.side) for place in places] == [
        (True, 8, 8, 192),
        (False, 8, 8, 192),
    ] * 2


def test_a_classifier_learns_what_can_be_seen_and_is_kept(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels = np.arange(64) % 2 == 0
    patches = random.integers(60, 120, (64, 32, 32, 3), dtype=np.uint8)
    patches[labels, ..., 0] += 100
    network = train_classifier(patches, labels, seed=0, schooling=Schooling(epochs=12))
    assert (answers_of(network, patches) == labels).mean() > 0.9
    save_classifier(network, tmp_path / "a.safetensors")
    again = load_classifier(tmp_path / "a.safetensors")
    assert np.array_equal(answers_of(again, patches), answers_of(network, patches))
    twice = train_classifier(patches, labels, seed=0, schooling=Schooling(epochs=1))
    once = train_classifier(patches, labels, seed=0, schooling=Schooling(epochs=1))
    assert all(torch.equal(a, b) for a, b in zip(once.parameters(), twice.parameters(), strict=True)), "a seed decides"


def test_the_key_of_a_classifier_changes_with_data_training_and_code(
    marked_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = downstream.parse(arguments(marked_data, tmp_path))
    patches, labels = downstream.training_patches("polyp", options)
    key = downstream.key_of(patches, labels, Schooling())
    assert downstream.key_of(*downstream.training_patches("polyp", options), Schooling()) == key
    darker = patches - (patches == patches.max())
    keys = [
        key,
        downstream.key_of(patches, labels, Schooling(learning_rate=1e-3)),
        downstream.key_of(darker, labels, Schooling()),
        downstream.key_of(patches, ~labels, Schooling()),
        downstream.key_of(patches.reshape(len(patches), 32, 128, 3), labels, Schooling()),
    ]
    monkeypatch.setattr(downstream, "CODE", ("../benchmarks/downstream.py",))
    keys.append(downstream.key_of(patches, labels, Schooling()))
    assert len(set(keys)) == len(keys)


def test_downstream_asks_every_method_the_same_and_keeps_its_classifiers(
    marked_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = arguments(marked_data, tmp_path, "--engines", ENGINE, "--epochs", "1", "--seeds", "3")
    before = torch.get_num_threads()
    try:
        assert downstream.main(options, lambda line: None) == 0
        found = result(tmp_path)
        monkeypatch.setattr(downstream, "train_classifier", None)
        assert downstream.main(options, lambda line: None) == 0
    finally:
        torch.set_num_threads(before)
    assert result(tmp_path)["tasks"] == found["tasks"]
    assert list(found["tasks"]) == ["polyp", "bleeding"]
    methods = found["tasks"]["bleeding"]["methods"]
    assert list(methods) == ["truth", "bicubic-x2", "lanczos-x2", ENGINE]
    row = methods[ENGINE]
    assert (row["patches"], row["frames"], row["groups"], row["yes"]) == (4, 4, 4, 2)
    assert len(row["accuracy_by_seed"]) == 3
    assert row["bicubic"] == methods["bicubic-x2"]["accuracy"]
    assert row["truth"] == methods["truth"]["accuracy"]
    assert methods["bicubic-x2"]["mcnemar"] == {"better": 0, "worse": 0, "p": 1.0}
    gap = row["truth"] - row["bicubic"]
    assert (row["recovery"] is None) == (gap <= 1e-9)
    assert found["tasks"]["polyp"]["methods"][ENGINE]["accuracy_by_set"].keys() == {"bkai"}


# Reflections in training.


class TinyTrained:
    """A run that was trained: bicubic interpolation, sharper with the care for reflections."""

    is_engine, scale, native = True, 2, "rgb"

    def __init__(self, name: str, run: Path) -> None:
        self.name, spare = name, run.name == "house"
        shared = {"model": "srgan-x2", "steps": 3, "seed": int(run.name == "seeded"), "output": str(run)}
        self.settings = SimpleNamespace(**shared, spare_highlights=spare)
        self.method = Interpolation("lanczos" if spare else "bicubic", 2)

    def enlarge(self, lr: Any) -> Made:
        return self.method.enlarge(lr)


def test_two_runs_are_compared_in_and_around_reflections(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflections, "TrainedMethod", TinyTrained)
    options = arguments(data, tmp_path, "--before", "plain", "--after", "house", "--frames", "2")
    before = torch.get_num_threads()
    try:
        assert reflections.main(options, lambda line: None) == 0
        with pytest.raises(UsageError, match="alike, got True and False; name"):
            reflections.main(arguments(data, tmp_path, "--before", "house", "--after", "plain"), lambda line: None)
        with pytest.raises(UsageError, match="got False and True, and seed 1 and 0; name"):
            reflections.main(arguments(data, tmp_path, "--before", "seeded", "--after", "house"), lambda line: None)
    finally:
        torch.set_num_threads(before)
    found = result(tmp_path)
    assert list(found["sets"]["one"]) == ["bicubic-x2", "before", "after"]
    apart = {(row["figure"], row["dataset"]): row["mean"] for row in found["differences"]}
    sets = found["sets"]["one"]
    assert apart["luma_psnr_db", "one"] == pytest.approx(
        sets["after"]["luma_psnr_db"]["mean"] - sets["before"]["luma_psnr_db"]["mean"], abs=1e-5
    )
    assert (tmp_path / "runs" / "evidence" / "reflections-training.png").is_file()
