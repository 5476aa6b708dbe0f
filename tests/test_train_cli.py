"""``streamsr train``: exit codes, one line for every failure, progress for people and for programs."""

from __future__ import annotations

import errno
import json
import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("PIL")
pytest.importorskip("onnx")

from streamsr.engine import read_engine
from streamsr.models.features import ScopeFeatures
from streamsr.models.srgan import SRGANGenerator
from streamsr.models.student import BranchedStudent, StudentSpec
from streamsr.quality import feature_files
from streamsr.quality.feature_files import TORCHVISION_PLACES, save_scope_features
from streamsr.training import networks
from streamsr.training.curves import read_log
from streamsr.training.pretrain import Pretraining
from tests.frames import make_data, read_rows, write_manifest
from tests.test_cli import one_line, run

SHORT = {
    "steps": 4,
    "batch": 2,
    "patch_px": 16,
    "validate_every": 2,
    "validation_frames": 1,
    "checkpoint_every": 2,
    "log_every": 1,
    "device": "cpu",
}


@pytest.fixture(autouse=True)
def small_networks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small networks and no curves; undo the number of threads that runs set."""
    monkeypatch.setitem(networks.NETWORKS, "tiny-x2", lambda: BranchedStudent(StudentSpec(16, 1, 2)))
    monkeypatch.setitem(networks.NETWORKS, "srgan-x2", lambda: SRGANGenerator(scale=2, num_blocks=1))
    monkeypatch.setattr("streamsr.models.discriminator.WIDTHS", (8,) * 8)
    monkeypatch.setattr("streamsr.training.run.draw_curves", lambda folder: None)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"), sets=("one", "two"))


def settings_file(tmp_path: Path, frames: Path, **changes: Any) -> Path:
    """Write the settings of a short run and return their path."""
    values = {"model": "tiny-x2", "data": str(frames), "output": str(tmp_path / "run"), **SHORT, **changes}
    path = tmp_path / "run.toml"
    path.write_text("\n".join(f"{name} = {json.dumps(value)}" for name, value in values.items()))
    return path


# What is shown.


def test_a_run_that_is_done_is_0_and_shows_losses_psnr_and_its_folder(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", "pretrain", settings_file(tmp_path, data)) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert captured.err == ""
    assert lines[0].startswith("bicubic: one 3")
    assert lines[1] == "tiny-x2 on CPU, 1 thread, from step 0 of 4"
    assert [line.split()[1] for line in lines[2:-1]] == ["1/4", "2/4", "2/4", "3/4", "4/4", "4/4"]
    assert "losses loss 0." in lines[2]
    assert "psnr_db one" in lines[4]
    assert all("s to go" in line for line in lines[2:-1])
    assert lines[-1] == str(tmp_path / "run")
    assert (tmp_path / "run" / "best.safetensors").is_file()


def test_a_stopped_run_says_where_it_goes_on(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "pretrain", settings_file(tmp_path, data, steps=2)) == 0
    assert run("train", "pretrain", settings_file(tmp_path, data)) == 0
    assert "from step 2 of 4" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["pretrain", "gan"])
def test_every_line_of_json_is_an_object(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    changes = {"model": "srgan-x2", "feature_weight": 0.0} if kind == "gan" else {}
    assert run("train", kind, settings_file(tmp_path, data, **changes), "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[:-1] == read_log(tmp_path / "run")
    assert lines[-1] == {"folder": str(tmp_path / "run")}
    assert {"bicubic", "settings", "losses", "psnr_db"} <= {key for line in lines for key in line}


def test_frames_that_are_left_out_are_told_once_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # as outside of a test
    data = make_data(tmp_path / "data", sets=("one",), splits=("train", "val"))
    rows = read_rows(data)
    write_manifest(data, [rows[0], rows[0], *rows[2:]])
    assert run("train", "pretrain", settings_file(tmp_path, data, warm_steps=1, finetune_steps=1)) == 0
    assert one_line(capsys.readouterr().err) == f"WARNING: {data}: left out of train: 1 exact copies"


def test_numbers_that_are_hardly_meant_are_said(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # as outside of a test
    assert run("train", "pretrain", settings_file(tmp_path, data, warm_steps=9, finetune_steps=1)) == 0
    assert "warm_steps of 9 for 4 steps: the rate never reaches" in one_line(capsys.readouterr().err)


def test_distill_trains_from_a_teacher(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    networks.save_weights(tmp_path / "teacher.safetensors", networks.build_network("tiny-x2"))
    teacher = {"teacher": "tiny-x2", "teacher_weights": str(tmp_path / "teacher.safetensors")}
    assert run("train", "distill", settings_file(tmp_path, data, **teacher)) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "run")


def test_features_trains_the_feature_network(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = settings_file(tmp_path, data, model="scope-features", patch_px=32, validate_every=4)
    assert run("train", "features", settings) == 0
    assert "right dataset" in capsys.readouterr().out
    assert (tmp_path / "run" / "features.safetensors").is_file()


def test_vgg19_is_used_instead_of_the_settings_features(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "vgg19.safetensors"
    save_scope_features(ScopeFeatures((8, 8)), path)  # stands for the file, which holds 80 MB
    monkeypatch.setattr(feature_files, "load_vgg19", lambda path: None)
    settings = settings_file(tmp_path, data, model="srgan-x2", features="/nowhere/f.safetensors", steps=2)
    assert run("train", "gan", settings, "--vgg19", path) == 0
    lines = read_log(tmp_path / "run")
    assert lines[1]["settings"]["features"] == str(path)
    assert "features" in lines[2]["losses"]


def test_another_network_given_as_vgg19_is_4(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "vgg19.safetensors"
    save_scope_features(ScopeFeatures((8, 8)), path)
    settings = settings_file(tmp_path, data, model="srgan-x2")
    assert run("train", "gan", settings, "--vgg19", path) == 4
    assert "expected a VGG-19, got scope-features" in one_line(capsys.readouterr().err)
    assert run("train", "gan", settings, "--vgg19", tmp_path / "none.pth") == 3
    assert "none.pth: expected a file of weights" in one_line(capsys.readouterr().err)


class Pickled:
    """What a file of weights must not hold."""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"features.0.weight": torch.zeros(64, 3, 3, 3)}, "got one whose weights end at conv1_1"),
        (
            {f"features.{place}.weight": torch.zeros(2, 2) for place in TORCHVISION_PLACES},
            "expected features.0.weight of",
        ),
        ([torch.zeros(1)], "expected a state dict of tensors alone, got other objects"),
        ({"features.0.weight": Pickled()}, "expected a state dict of tensors alone, got Weights only load failed"),
        ({}, "got 0 others"),
    ],
    ids=["short", "misshapen", "list", "code", "empty"],
)
def test_a_file_that_is_no_whole_vgg19_is_4_and_one_line(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], content: Any, words: str
) -> None:
    path = tmp_path / "vgg19.pth"
    torch.save(content, path)
    assert run("train", "gan", settings_file(tmp_path, data, model="srgan-x2"), "--vgg19", path) == 4
    line = one_line(capsys.readouterr().err)
    assert "vgg19.pth: " in line
    assert words in line


# What goes wrong.


@pytest.mark.parametrize(
    ("kind", "changes", "code", "words"),
    [
        ("pretrain", {"step": 3}, 2, "run.toml: expected the keys"),
        ("pretrain", {"steps": "many"}, 2, "expected steps of type int, got 'many'"),
        ("pretrain", {"steps": 0}, 2, "expected steps of 1 or more"),
        ("pretrain", {"model": "giant-x9"}, 2, "expected a model among"),
        ("pretrain", {"start": "/nowhere/w.safetensors"}, 2, "expected weights of the network"),
        ("pretrain", {"data": "/nowhere"}, 3, "MANIFEST.tsv: expected the list of frames"),
        ("pretrain", {"patch_px": 400}, 3, "expected frames of 400 px or more, got 67"),
        ("pretrain", {"output": "/dev/null/run"}, 5, "expected a folder to write to"),
        ("gan", {"model": "tiny-x2"}, 2, "expected a model on RGB"),
        ("gan", {"model": "srgan-x2", "features": "/nowhere/f"}, 3, "expected a file of weights"),
        ("distill", {"teacher": "giant-x9"}, 2, "expected a model among"),
        ("features", {}, 2, "expected the model scope-features"),
    ],
)
def test_what_cannot_be_is_one_line_and_its_exit_code(
    tmp_path: Path,
    data: Path,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    changes: dict[str, Any],
    code: int,
    words: str,
) -> None:
    assert run("train", kind, settings_file(tmp_path, data, **changes)) == code
    line = one_line(capsys.readouterr().err)
    assert line.startswith("streamsr: ")
    assert words in line


@pytest.mark.parametrize(
    "arguments",
    [
        ("train",),
        ("train", "nonsense"),
        ("train", "pretrain"),
        ("train", "pretrain", "a.toml", "b.toml"),
        ("train", "pretrain", "a.toml", "--vgg19", "v.pth"),
        ("train", "pretrain", "/nowhere/a.toml"),
        ("train", "ship"),
    ],
)
def test_arguments_that_cannot_be_are_2(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_full_disk_is_5_and_names_the_checkpoint_that_is_kept(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("train", "pretrain", settings_file(tmp_path, data, steps=2)) == 0

    def refuse(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", refuse)
    assert run("train", "pretrain", settings_file(tmp_path, data)) == 5
    assert "No space left on device; kept step-00000002.pt; free space and resume" in one_line(capsys.readouterr().err)


def test_other_settings_for_a_begun_run_are_2_and_named(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", "pretrain", settings_file(tmp_path, data, steps=2)) == 0
    capsys.readouterr()
    assert run("train", "pretrain", settings_file(tmp_path, data, batch=3)) == 2
    assert "expected the settings of its checkpoint, batch = 2, got batch = 3; put" in one_line(capsys.readouterr().err)


def test_a_damaged_checkpoint_is_2_and_names_it(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = settings_file(tmp_path, data)
    assert run("train", "pretrain", settings) == 0
    newest = tmp_path / "run" / "checkpoints" / "step-00000004.pt"
    newest.write_bytes(b"nothing of the kind")
    capsys.readouterr()
    assert run("train", "pretrain", settings) == 2
    assert "step-00000004.pt: expected a training checkpoint" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_130_and_the_run_goes_on_from_its_checkpoint(
    tmp_path: Path,
    data: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    take_step = Pretraining.take_step

    def interrupted(self: Pretraining) -> dict[str, torch.Tensor]:
        if self.step == 3:
            signal.raise_signal(number)
        return take_step(self)

    monkeypatch.setattr(Pretraining, "take_step", interrupted)
    settings = settings_file(tmp_path, data)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    try:
        assert run("train", "pretrain", settings) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    line = one_line(capsys.readouterr().err)
    assert line == "streamsr: interrupted at step 3; the same command goes on from the last checkpoint, if there is one"
    monkeypatch.setattr(Pretraining, "take_step", take_step)
    assert run("train", "pretrain", settings) == 0
    assert "from step 2 of 4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("missing", "arguments"),
    [("PIL", ("pretrain", "run.toml")), ("PIL", ("features", "run.toml")), ("onnx", ("ship", "run"))],
)
def test_a_missing_package_of_the_extra_is_4_and_says_what_to_install(
    tmp_path: Path,
    data: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    missing: str,
    arguments: tuple[str, str],
) -> None:
    settings_file(tmp_path, data, **({"model": "scope-features"} if arguments[0] == "features" else {}))
    users = ("data", "degrade", "pretrain", "features", "quantise", "ship")
    for room in (*(f"training.{name}" for name in users), "runtimes.onnx_graph"):
        monkeypatch.delitem(sys.modules, f"streamsr.{room}", raising=False)
    for name in [name for name in sys.modules if name.split(".")[0] == missing]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, missing, None)
    assert run("train", arguments[0], tmp_path / arguments[1]) == 4
    line = one_line(capsys.readouterr().err)
    assert "expected the packages of the extra 'train'" in line
    assert missing in line
    assert line.endswith("pip install 'streamsr[train]'")


# Shipping.


def test_ship_prints_the_engine_and_refuses_what_is_no_run(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamsr.training.quantise.TUNING_STEPS", 1)
    monkeypatch.setattr("streamsr.training.ship.INT8_LOSS_DB", 3.0)
    engines = tmp_path / "engines"
    assert run("train", "pretrain", settings_file(tmp_path, data)) == 0
    capsys.readouterr()
    assert run("train", "ship", tmp_path / "run", "--engines", engines) == 5
    assert "expected the folder of engines, got none" in one_line(capsys.readouterr().err)
    engines.mkdir()
    assert run("train", "ship", tmp_path / "run", "--engines", engines, "--name", "mine-x2") == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(engines / "mine-x2")
    assert (engines / "mine-x2" / "engine.json").is_file()
    assert "int8" in read_engine(engines / "mine-x2").precisions
    assert run("train", "ship", tmp_path / "run", "--engines", engines, "--no-int8") == 0
    assert read_engine(engines / "tiny-x2").precisions == {"fp32": "model.safetensors"}
    capsys.readouterr()
    assert run("train", "ship", tmp_path / "engines", "--engines", engines) == 2
    assert "expected the folder of a run" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("arguments", [("ship", "run"), ("measure", "engine", "--data", "data")])
def test_half_of_the_perceptual_distance_is_2(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", *arguments, "--squeezenet", "s.safetensors") == 2
    assert "expected --squeezenet and --lpips-linear together" in one_line(capsys.readouterr().err)


def test_measuring_what_is_no_engine_is_4(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "measure", tmp_path, "--data", data) == 4
    assert "engine.json: expected a manifest" in one_line(capsys.readouterr().err)


def test_help_names_every_kind_of_run_and_loads_nothing_heavy() -> None:
    program = (
        "import sys; sys.argv = ['streamsr', 'train', '--help']\nfrom streamsr.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'cv2', 'openvino', 'onnxruntime', 'PIL', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert all(kind in done.stdout for kind in ("pretrain", "gan", "distill", "features", "ship"))
