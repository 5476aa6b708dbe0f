"""The benchmark of TensorRT's forms: what it writes, what it ships, and that what is committed is what is shipped."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("PIL")

from benchmarks import readme, tensorrt_forms
from streamsr.engine import catalogue_folder, read_engine
from streamsr.models.student import StudentSpec
from streamsr.runtimes.onnx_graph import float_student
from streamsr.training import eight_bits, forms
from streamsr.training.data import Pair
from tests.test_tensorrt import noisy, random_student, run_onnx


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with one student without an INT8 form; its pictures are noise, which nothing reaches."""
    engine = random_student(tmp_path / "engines" / "mini-x2", StudentSpec(16, 1, 2))
    low = noisy((1, 1, 24, 32))[0, 0]
    shape = run_onnx(float_student(engine.weights(), scale=2, eight_bit=True), low[None, None]).shape[2:]
    high = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for room in (forms, eight_bits):
        monkeypatch.setattr(room, "load_pairs", lambda data, split, scale, most_per_set=None: [Pair("set", high, low)])
    return tmp_path / "engines"


def test_it_writes_what_the_readme_reads_and_ships_what_it_offers(
    engines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, told = tmp_path / "tensorrt_forms.json", []
    arguments = ["--engines", str(engines), "--data", str(tmp_path), "--json", str(path)]
    assert tensorrt_forms.main(arguments, told.append) == 0
    assert "fp8" not in read_engine(engines / "mini-x2").precisions
    assert tensorrt_forms.main([*arguments, "--form", "fp8", "--ship"], told.append) == 0
    assert len(told) == 3
    result = json.loads(path.read_text())
    assert result["card"]["cores"] >= 1
    float8, symmetric = result["rows"]
    assert symmetric == {"engine": "mini-x2", "form": "int8-symmetric", "offered": False, "why": "ships no int8"}
    assert (float8["offered"], float8["layers"], float8["of"], float8["tuned"]) == (True, [1], 2, False)
    shipped = read_engine(engines / "mini-x2").read_file("fp8")
    assert hashlib.sha256(shipped).hexdigest() == float8["sha256"]
    assert len(shipped) == float8["bytes"]
    assert float8["val_db"].keys() == float8["test_db"].keys() == {"set"}
    monkeypatch.setattr(readme, "RESULTS", tmp_path)
    table = readme.forms_table()
    assert "| `mini-x2` | fp8 | 1 of 2 |" in table
    assert "ships no int8" in table


def test_before_it_was_run_there_is_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readme, "RESULTS", tmp_path)
    assert readme.forms_table() == ""


def test_the_committed_rows_are_those_of_the_shipped_engines() -> None:
    rows = json.loads(tensorrt_forms.RESULT.read_text())["rows"]
    students = {folder.name for folder in tensorrt_forms.students(catalogue_folder(), [])}
    assert {(row["engine"], row["form"]) for row in rows} == {
        (name, form.name) for name in students for form in eight_bits.FORMS
    }
    for row in rows:
        engine = read_engine(catalogue_folder() / row["engine"])
        assert (row["form"] in engine.precisions) is row["offered"]
        if row["offered"]:
            assert engine.files[engine.precisions[row["form"]]] == row["sha256"]
            assert max(row["val_db"].values()) <= forms.INT8_LOSS_DB
            assert len(row["layers"]) >= forms.LEAST_PART * row["of"]
            assert row["bytes"] < 400_000
