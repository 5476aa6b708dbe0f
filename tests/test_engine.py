"""The catalogue of engines: what is listed, what is refused, and that weights are data, never code."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from streamsr import engine as catalogue
from streamsr.engine import find_engine, list_engines, read_engine
from streamsr.errors import EngineError, EngineNotFound, EngineTampered
from streamsr.models.student import Student, StudentSpec
from streamsr.runtimes.torch_cpu import load_network
from streamsr.training.ship import write_engine

SPEC = StudentSpec(16, 1, 2)
INT8 = b"not read by these tests"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    write_engine(tmp_path / "mini-x2", Student(SPEC), INT8)
    return tmp_path / "mini-x2"


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "engine.json"
    manifest = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in manifest.items() if value is not None}))


def assert_one_line(caught: pytest.ExceptionInfo[EngineError], *parts: str) -> None:
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_a_written_engine_reads_back_and_verifies(folder: Path) -> None:
    engine = read_engine(folder)
    assert (engine.name, engine.architecture, engine.scale, engine.colour) == ("mini-x2", "student", 2, "luma")
    assert (engine.channels, engine.depth, engine.radius_px, engine.halo_px) == (16, 1, 3, 3)
    engine.verify()
    assert engine.read_file("int8") == INT8
    weights = engine.weights()
    assert weights["layers.0.weight"].shape == (16, 1, 3, 3)
    assert all(values.dtype == np.float32 for values in weights.values())


def test_an_engine_is_found_by_the_path_of_its_folder(folder: Path) -> None:
    assert find_engine(str(folder)) == read_engine(folder)


def test_an_unknown_name_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(EngineNotFound) as caught:
        find_engine("fast-x7")
    assert_one_line(caught, "fast-x7", "bicubic-x2", *(engine.name for engine in list_engines()))
    assert isinstance(caught.value, LookupError)
    assert caught.value.exit_code == 4


def test_the_catalogue_is_in_order_of_names_with_interpolation_last() -> None:
    names = [engine.name for engine in list_engines()]
    assert names[-3:] == ["bicubic-x2", "bicubic-x3", "bicubic-x4"]
    assert names[:-3] == sorted(names[:-3])
    assert "fast-x2" in names


def test_the_catalogue_leaves_out_a_broken_engine_and_keeps_the_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.parent / "broken").mkdir()
    (folder.parent / "broken" / "engine.json").write_text("{")
    monkeypatch.setattr(catalogue, "catalogue_folder", lambda: folder.parent)
    assert [engine.name for engine in list_engines()][:-3] == ["mini-x2"]
    with pytest.raises(EngineError, match="broken"):
        find_engine("broken")


def test_every_shipped_engine_has_the_files_that_its_manifest_states() -> None:
    shipped = [engine for engine in list_engines() if engine.folder is not None]
    assert shipped
    for engine in shipped:
        engine.verify()
        load_network(engine)


@pytest.mark.parametrize("name", ["bicubic-x2", "bicubic-x3", "bicubic-x4", "bicubic"])
def test_interpolation_is_an_engine_without_files(name: str) -> None:
    engine = find_engine(name)
    assert engine.architecture == "bicubic"
    assert engine.scale == (2 if name == "bicubic" else int(name[-1]))
    assert engine.folder is None


@pytest.mark.parametrize(("precision", "name"), [("fp32", "model.safetensors"), ("int8", "model.int8.onnx")])
def test_weights_with_one_bit_turned_are_refused(folder: Path, precision: str, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    engine = read_engine(folder)
    with pytest.raises(EngineTampered) as caught:
        engine.read_file(precision)
    assert_one_line(caught, name, "SHA-256", engine.files[name][:16], "reinstall")
    with pytest.raises(EngineTampered):
        engine.verify()


def test_a_manifest_with_another_hash_is_refused(folder: Path) -> None:
    files = read_engine(folder).files
    edit(folder, files=files | {"model.safetensors": "0" * 64})
    with pytest.raises(EngineTampered, match="0000000000000000"):
        read_engine(folder).weights()


def test_missing_weights_are_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(EngineError) as caught:
        read_engine(folder).weights()
    assert_one_line(caught, "model.safetensors", "No such file", "reinstall")
    assert not isinstance(caught.value, EngineTampered)


def test_a_precision_that_an_engine_has_not_is_refused_with_those_it_has(folder: Path) -> None:
    with pytest.raises(EngineError) as caught:
        read_engine(folder).read_file("int4")
    assert_one_line(caught, "int4", "fp32", "int8")


def test_a_missing_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="expected a manifest"):
        read_engine(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '"engine"', "\x00\x01"])
def test_a_manifest_that_is_no_json_object_is_refused(folder: Path, text: str) -> None:
    (folder / "engine.json").write_text(text)
    with pytest.raises(EngineError) as caught:
        read_engine(folder)
    assert_one_line(caught, "engine.json", "JSON")


@pytest.mark.parametrize(
    "key", ["name", "architecture", "scale", "colour", "kind", "channels", "depth", "radius_px", "files", "precisions"]
)
def test_a_manifest_without_a_field_is_refused_by_its_name(folder: Path, key: str) -> None:
    edit(folder, **{key: None})
    with pytest.raises(EngineError) as caught:
        read_engine(folder)
    assert_one_line(caught, "engine.json", f"expected {key} to be")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"scale": "2"}, "expected scale to be int"),
        ({"scale": 5}, "expected scale 2, 3 or 4"),
        ({"colour": "cmyk"}, "'cmyk'"),
        ({"files": {"../model.safetensors": "0" * 64}}, "plain file names"),
        ({"files": {"model.safetensors": "short"}}, "plain file names"),
        ({"precisions": {"fp32": "other.safetensors"}}, "expected a hash for fp32"),
        ({"precisions": {"fp32": ["model.safetensors"]}}, "expected a hash for fp32"),
        ({"depth": 10**20}, "expected depth of 0 to 256"),
        ({"halo_px": -1}, "expected halo_px of 0 to"),
        ({"scale": True}, "expected scale to be int"),
    ],
)
def test_a_manifest_with_a_wrong_field_is_refused(folder: Path, changes: dict[str, Any], complaint: str) -> None:
    edit(folder, **changes)
    with pytest.raises(EngineError) as caught:
        read_engine(folder)
    assert_one_line(caught, complaint)


def test_weights_of_another_network_are_refused(folder: Path) -> None:
    edit(folder, depth=3)
    with pytest.raises(EngineError) as caught:
        load_network(read_engine(folder))
    assert_one_line(caught, "expected weights of 16 channels, depth 3")


def test_an_architecture_that_is_not_known_is_refused(folder: Path) -> None:
    edit(folder, architecture="transformer")
    with pytest.raises(EngineError) as caught:
        load_network(read_engine(folder))
    assert_one_line(caught, "transformer")


class Trap:
    """Leaves a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return (open, (str(self.mark), "w"))


def test_pickled_weights_are_refused_and_never_run(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "unpickled"
    content = pickle.dumps({"layers.0.weight": Trap(mark)})
    pickle.loads(content)["layers.0.weight"].close()
    assert mark.exists()  # the trap works where something does unpickle
    mark.unlink()
    (folder / "model.safetensors").write_bytes(content)
    engine = read_engine(folder)
    with pytest.raises(EngineTampered):
        engine.weights()
    edit(folder, files=engine.files | {"model.safetensors": hashlib.sha256(content).hexdigest()})
    with pytest.raises(EngineError, match="safetensors") as caught:
        read_engine(folder).weights()
    assert_one_line(caught)
    assert not mark.exists()


def test_no_module_of_the_engine_path_imports_pickle() -> None:
    package = Path(catalogue.__file__).parent
    rooms = [package / "engine.py", *sorted((package / "runtimes").glob("*.py"))]
    for room in rooms:
        text = room.read_text(encoding="utf-8")
        assert "pickle" not in text, room
        assert "torch.load(" not in text, room


@pytest.mark.parametrize("change", [{"radius_px": 2}, {"channels": 48}, {"depth": 2}, {"colour": "rgb"}])
def test_a_manifest_that_lies_about_its_weights_is_refused(folder: Path, change: dict[str, Any]) -> None:
    edit(folder, **change)
    with pytest.raises(EngineTampered) as caught:
        read_engine(folder).weights()
    assert_one_line(caught, "as the manifest says")
