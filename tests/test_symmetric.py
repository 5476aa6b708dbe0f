"""The INT8 form for TensorRT: layers chosen by what they lose, offered only where the bar holds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("PIL")

from streamsr.engine import MANIFEST, Engine, read_engine
from streamsr.errors import EngineError
from streamsr.models.student import StudentSpec
from streamsr.quality.fidelity import psnr_db
from streamsr.runtimes.tensorrt import check_precision
from streamsr.runtimes.tensorrt_graph import SYMMETRIC, tensorrt_graph
from streamsr.training import symmetric
from streamsr.training.symmetric import INT8_LOSS_DB, Scene, choose_layers, ship_symmetric, worst_loss
from tests.test_tensorrt import noisy, quantised, random_student, run_onnx


def test_the_least_harmful_layers_are_joined_as_long_as_the_bar_holds() -> None:
    harm = {1: 0.02, 2: 0.001, 3: 0.2, 4: 0.015, 5: 0.03}
    asked: list[tuple[int, ...]] = []

    def loss_db(layers: tuple[int, ...]) -> float:
        asked.append(layers)
        return sum(harm[layer] for layer in layers)

    assert choose_layers(range(1, 6), loss_db) == (1, 2, 4)
    assert (1, 2, 4, 5) in asked, "a layer that is too much is tried before it is left out"


def test_no_layer_is_chosen_where_each_is_too_much() -> None:
    assert choose_layers(range(1, 4), lambda layers: 0.06 * len(layers)) == ()


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """Return a student that ships an INT8 form."""
    folder = tmp_path / "mini-x2"
    form = quantised(random_student(folder, StudentSpec(16, 1, 2)))
    (folder / "model.int8.onnx").write_bytes(form)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"]["model.int8.onnx"] = hashlib.sha256(form).hexdigest()
    manifest["precisions"]["int8"] = "model.int8.onnx"
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return read_engine(folder)


def scenes(engine: Engine, *, truth: str) -> list[Scene]:
    """Return pictures whose truth is what the float network makes of them, or noise that nothing reaches."""
    low = noisy((1, 1, 24, 32))[0, 0]
    exact = symmetric.float_student(engine.weights(), scale=2, eight_bit=True)
    high = run_onnx(exact, low[None, None])[0, 0]
    if truth == "noise":
        high = np.random.default_rng(0).integers(0, 256, high.shape, dtype=np.uint8)
    return [("set", low, high, np.ones(high.shape, np.bool_))]


def test_the_loss_is_measured_against_the_float_network(engine: Engine) -> None:
    exact = worst_loss(engine, scenes(engine, truth="exact"))
    assert exact((1, 2)) > 1.0, "where the float network is without fault, rounding costs whole decibels"
    assert abs(worst_loss(engine, scenes(engine, truth="noise"))((1, 2))) < INT8_LOSS_DB


def test_a_form_that_holds_the_bar_is_shipped_and_can_be_loaded(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engine.folder is not None
    pictures = scenes(engine, truth="noise")
    monkeypatch.setattr(symmetric, "load_scenes", lambda data, scale, most_per_set: pictures)
    assert ship_symmetric(engine.folder, tmp_path).endswith(": offered")
    shipped = read_engine(engine.folder)
    shipped.verify()
    check_precision(shipped, "int8")
    low = pictures[0][1][None, None]
    made = run_onnx(tensorrt_graph(shipped, precision="int8", samples="uint8"), low)
    exact = run_onnx(symmetric.float_student(engine.weights(), scale=2, eight_bit=True), low)
    assert psnr_db(made[0, 0], exact[0, 0]) > 30.0


def test_a_form_that_no_longer_holds_the_bar_is_taken_away(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engine.folder is not None
    for truth, offered in (("noise", True), ("exact", False)):
        pictures = scenes(engine, truth=truth)
        monkeypatch.setattr(symmetric, "load_scenes", lambda data, scale, most_per_set, made=pictures: made)
        ship_symmetric(engine.folder, tmp_path)
        assert (SYMMETRIC in read_engine(engine.folder).precisions) is offered
        assert (engine.folder / symmetric.FILE).is_file() is offered
    with pytest.raises(EngineError, match="symmetric INT8"):
        check_precision(read_engine(engine.folder), "int8")


def test_an_engine_without_an_int8_form_is_refused(engine: Engine, tmp_path: Path) -> None:
    assert engine.folder is not None
    manifest = (engine.folder / MANIFEST).read_text()
    (engine.folder / MANIFEST).write_text(manifest.replace('"int8":', '"else":'))
    with pytest.raises(EngineError, match="quantise it first"):
        ship_symmetric(engine.folder, tmp_path)
