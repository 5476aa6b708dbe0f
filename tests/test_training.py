"""Runs: resumed bit for bit after a kill, checkpoints that survive, the best kept, teachers, degradations, features."""

from __future__ import annotations

import copy
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("PIL")

from PIL import Image
from safetensors.torch import load_file

from streamsr.errors import DiskFull, InputError, OutputError, UsageError
from streamsr.models.srgan import SRGANGenerator
from streamsr.models.student import BranchedStudent, StudentSpec
from streamsr.quality.feature_files import load_feature_network
from streamsr.training import features as features_room
from streamsr.training import networks
from streamsr.training.checkpoint import KEEP, load_checkpoint, save_checkpoint
from streamsr.training.commands import train
from streamsr.training.curves import append_line, draw_curves, read_log
from streamsr.training.data import bicubic_up, field_masks, load_pairs
from streamsr.training.features import FeatureTraining, reduced_at_random
from streamsr.training.losses import charbonnier, log_squared
from streamsr.training.networks import save_weights
from streamsr.training.pretrain import Distilling, Pretraining, enlarge, psnr_on_device, through_codec
from streamsr.training.run import BEST, Run
from streamsr.training.settings import DistillSettings, FeatureSettings, PretrainSettings
from streamsr.training.step_graph import StepGraph
from tests.frames import make_data

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


class Killed(BaseException):
    """Ends a run where a kill would: nothing catches it."""


@pytest.fixture(autouse=True)
def small_networks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make ``mini-x2`` and ``mini-x4`` trainable, without curves; undo the number of threads that runs set."""
    for scale in (2, 4):
        monkeypatch.setitem(
            networks.NETWORKS, f"mini-x{scale}", lambda scale=scale: BranchedStudent(StudentSpec(16, 1, scale))
        )
    monkeypatch.setattr("streamsr.training.run.draw_curves", lambda folder: None)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"), splits=("train", "val"))


def settings_for(data: Path, output: Path, **changes: Any) -> PretrainSettings:
    small = PretrainSettings(
        model="mini-x2",
        data=str(data),
        output=str(output),
        steps=6,
        finetune_steps=2,
        batch=2,
        patch_px=16,
        warm_steps=2,
        validate_every=3,
        validation_frames=1,
        checkpoint_every=2,
        log_every=2,
        device="cpu",
    )
    return replace(small, **changes)


def state_of(folder: Path) -> dict[str, Any]:
    """Return the newest checkpoint, without the time it took."""
    state = load_checkpoint(folder / "checkpoints")
    assert state is not None
    return {name: value for name, value in state.items() if name != "seconds"}


def assert_equal(ours: Any, theirs: Any, where: str = "state") -> None:
    """Assert that two checkpoints are equal to the last bit."""
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key in ours:
            assert_equal(ours[key], theirs[key], f"{where}.{key}")
    elif isinstance(ours, Tensor):
        assert torch.equal(ours, theirs), where
    else:
        assert ours == theirs, where


def kill_at(run: Run[Any], step: int) -> None:
    """End a run in the middle of a step, counted from 0."""
    take_step = run.take_step

    def killed() -> dict[str, Tensor]:
        losses = take_step()
        if run.step == step:
            raise Killed
        return losses

    run.take_step = killed  # type: ignore[method-assign]


# Resuming.


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks.NETWORKS, "mini-x2", lambda: BranchedStudent(StudentSpec(16, 1, 2)))
        Pretraining(settings_for(data, folder)).run()
    return folder


@pytest.mark.parametrize("step", range(6))
def test_a_run_killed_at_any_step_and_resumed_is_the_undisturbed_run(
    data: Path, tmp_path: Path, undisturbed: Path, step: int
) -> None:
    run = Pretraining(settings_for(data, tmp_path))
    kill_at(run, step)
    with pytest.raises(Killed):
        run.run()
    resumed = Pretraining(settings_for(data, tmp_path))
    assert resumed.step == max(step // 2 * 2, step // 3 * 3), "a checkpoint goes before a validation too"
    resumed.run()
    assert_equal(state_of(tmp_path), state_of(undisturbed))
    assert (tmp_path / BEST).read_bytes() == (undisturbed / BEST).read_bytes()
    told = [[line for line in read_log(folder) if "step" in line] for folder in (tmp_path, undisturbed)]
    for ours, theirs in zip(*told, strict=True):
        assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}


class Clock:
    """Goes on by so many seconds with every step that a run takes."""

    def __init__(self, run: Run[Any], seconds: float) -> None:
        self.run, self.seconds = run, seconds

    def __call__(self) -> float:
        return 1000.0 + self.seconds * self.run.step


@pytest.mark.parametrize("killed_at", [2, 5])
def test_checkpoints_are_written_by_time_too_and_change_nothing(data: Path, tmp_path: Path, killed_at: int) -> None:
    """Steps of 20 seconds: a checkpoint of the default 45 is due after every third, in the middle of a log's line."""
    rare: dict[str, Any] = {"checkpoint_every": 100, "log_every": 4, "validate_every": 100, "steps": 8}
    Pretraining(settings_for(data, tmp_path / "whole", **rare)).run()
    run = Pretraining(settings_for(data, tmp_path / "killed", **rare))
    assert run.settings.checkpoint_seconds == 45.0
    run.clock = Clock(run, 20.0)
    kill_at(run, killed_at)
    with pytest.raises(Killed):
        run.run()
    resumed = Pretraining(settings_for(data, tmp_path / "killed", **rare))
    assert resumed.step == (0 if killed_at == 2 else 3)
    resumed.clock = Clock(resumed, 20.0)
    resumed.run()
    assert_equal(state_of(tmp_path / "killed"), state_of(tmp_path / "whole"))
    told = [[line for line in read_log(tmp_path / name) if "step" in line] for name in ("killed", "whole")]
    assert [line["step"] for line in told[0]] == [4, 6, 8, 8]
    for ours, theirs in zip(*told, strict=True):
        assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}


def test_quick_steps_are_followed_by_no_checkpoint_of_their_own(data: Path, tmp_path: Path) -> None:
    rare: dict[str, Any] = {"checkpoint_every": 100, "log_every": 100, "validate_every": 100}
    run = Pretraining(settings_for(data, tmp_path, **rare))
    run.clock = Clock(run, 0.1)
    saved: list[int] = []
    run.save = lambda: saved.append(run.step)  # type: ignore[method-assign]
    run.run()
    assert saved == [6, 6], "before and after the last validation"


def test_a_run_killed_in_a_validation_loses_no_step_and_validates_again(
    data: Path, tmp_path: Path, undisturbed: Path
) -> None:
    run = Pretraining(settings_for(data, tmp_path))

    def killed() -> dict[str, Any]:
        raise Killed

    run.validate = killed  # type: ignore[method-assign]
    with pytest.raises(Killed):
        run.run()
    resumed = Pretraining(settings_for(data, tmp_path))
    assert (resumed.step, resumed.judged) == (3, 0)
    resumed.run()
    assert_equal(state_of(tmp_path), state_of(undisturbed))
    assert (tmp_path / BEST).read_bytes() == (undisturbed / BEST).read_bytes()


def test_a_run_killed_between_a_validation_and_its_checkpoint_tells_of_it_once(
    data: Path, tmp_path: Path, undisturbed: Path
) -> None:
    run = Pretraining(settings_for(data, tmp_path))
    judge = run.judge

    def killed() -> None:
        judge()
        raise Killed

    run.judge = killed  # type: ignore[method-assign]
    with pytest.raises(Killed):
        run.run()
    Pretraining(settings_for(data, tmp_path)).run()
    judged = [line["step"] for line in read_log(tmp_path) if "psnr_db" in line]
    assert judged == [3, 6]
    assert_equal(state_of(tmp_path), state_of(undisturbed))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch": 3}, "batch = 2, got batch = 3; put them back"),
        ({"seed": 2, "patch_px": 20}, "patch_px = 16, seed = 1, got patch_px = 20, seed = 2"),
        ({"degradation": "robust"}, "degradation = clean, got degradation = robust"),
        ({"ema_decay": 0.5}, r"ema_decay = 0\.999, got ema_decay = 0\.5"),
        ({"data": "/nowhere"}, r"data = SHA-256 [0-9a-f]{12}, got data = no MANIFEST\.tsv"),
    ],
)
def test_settings_that_make_it_another_run_are_refused_by_name(
    data: Path, tmp_path: Path, undisturbed: Path, changes: dict[str, Any], words: str
) -> None:
    shutil.copytree(undisturbed, tmp_path / "run")
    with pytest.raises(UsageError, match=f"expected the settings of its checkpoint, {words}") as caught:
        Pretraining(replace(settings_for(data, tmp_path / "run"), **changes))
    assert "\n" not in str(caught.value)
    assert "name another output folder" in str(caught.value)
    assert_equal(state_of(tmp_path / "run"), state_of(undisturbed))


def test_settings_that_do_not_change_what_is_learnt_may_change_and_folders_may_move(
    data: Path, tmp_path: Path, undisturbed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(undisturbed, tmp_path / "moved")
    shutil.copytree(data, tmp_path / "data")
    free: dict[str, Any] = {"log_every": 1, "checkpoint_every": 5, "checkpoint_seconds": 9.0, "threads": 2}
    run = Pretraining(settings_for(tmp_path / "data", tmp_path / "moved", device="auto", **free))
    assert (run.step, run.changed, caplog.records) == (6, {}, [])


def test_a_schedule_that_changes_is_told_in_one_line_and_noted(
    data: Path, tmp_path: Path, undisturbed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(undisturbed, tmp_path / "run")
    run = Pretraining(settings_for(data, tmp_path / "run", steps=8, learning_rate=5e-4))
    (record,) = caplog.records
    assert record.getMessage().endswith("learning_rate = 0.0005, which was 0.001, steps = 8, which was 6")
    run.run()
    start = [line for line in read_log(tmp_path / "run") if "settings" in line][-1]
    assert start["changed"] == {"learning_rate": [0.001, 0.0005], "steps": [6, 8]}
    assert state_of(tmp_path / "run")["step"] == 8


def test_a_file_that_a_run_needs_is_known_by_its_contents(data: Path, tmp_path: Path) -> None:
    write_teacher(tmp_path)
    changes: dict[str, Any] = {"start": str(tmp_path / "teacher.safetensors")}
    Pretraining(settings_for(data, tmp_path / "run", **changes)).save()
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes((tmp_path / "teacher.safetensors").read_bytes())
    assert Pretraining(settings_for(data, tmp_path / "run", start=str(moved))).changed == {}
    save_weights(moved, BranchedStudent(StudentSpec(16, 1, 2)))
    with pytest.raises(UsageError, match=r"start = SHA-256 [0-9a-f]{12}, got start = SHA-256 [0-9a-f]{12}; put"):
        Pretraining(settings_for(data, tmp_path / "run", start=str(moved)))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_process_that_is_killed_and_started_again_is_the_undisturbed_run(data: Path, tmp_path: Path) -> None:
    """Kill the real program with SIGKILL after its first checkpoint, wherever it is then."""
    settings = settings_for(
        data, tmp_path / "killed", model="tiny-x2", steps=36, checkpoint_every=6, validate_every=18, finetune_steps=10
    )
    lines = [f"{name} = {json.dumps(value)}" for name, value in vars(settings).items()]
    (tmp_path / "run.toml").write_text("\n".join(lines))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    command = [sys.executable, "-m", "streamsr.training", "pretrain", str(tmp_path / "run.toml")]
    started = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed" / "checkpoints").glob("step-*.pt")) and time.monotonic() < deadline:
        assert started.poll() is None
        time.sleep(0.005)
    started.send_signal(signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL
    assert 6 <= state_of(tmp_path / "killed")["step"] < 36
    train("pretrain", tmp_path / "run.toml")
    whole = Pretraining(replace(settings, output=str(tmp_path / "whole")))
    whole.run()
    assert_equal(state_of(tmp_path / "killed"), state_of(tmp_path / "whole"))
    assert (tmp_path / "killed" / BEST).read_bytes() == (tmp_path / "whole" / BEST).read_bytes()


def test_a_run_is_a_function_of_its_seed(data: Path, tmp_path: Path, undisturbed: Path) -> None:
    for name, seed in (("same", 1), ("other", 2)):
        Pretraining(settings_for(data, tmp_path / name, seed=seed)).run()
    assert_equal(state_of(tmp_path / "same"), state_of(undisturbed))
    ours, theirs = (state_of(folder)["networks"]["network"] for folder in (tmp_path / "other", undisturbed))
    assert all(not torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_finished_run_that_is_started_again_changes_nothing(data: Path, tmp_path: Path, undisturbed: Path) -> None:
    Pretraining(settings_for(data, tmp_path)).run()
    before = {path: path.read_bytes() for path in [*(tmp_path / "checkpoints").iterdir(), tmp_path / BEST]}
    Pretraining(settings_for(data, tmp_path)).run()
    assert before == {path: path.read_bytes() for path in [*(tmp_path / "checkpoints").iterdir(), tmp_path / BEST]}


def test_the_log_has_the_settings_the_losses_and_the_psnr_beside_bicubic(data: Path, undisturbed: Path) -> None:
    lines = read_log(undisturbed)
    assert lines[0].keys() == {"bicubic"}
    assert lines[1]["settings"] == vars(settings_for(data, undisturbed))
    assert lines[1]["device"] == "CPU, 1 thread"
    assert [line["step"] for line in lines if "losses" in line] == [2, 3, 4, 6]
    judged = [line for line in lines if "psnr_db" in line]
    assert [line["step"] for line in judged] == [3, 6]
    assert judged[0]["psnr_db"].keys() == {"one", "two", "mean"}


def test_validation_is_the_psnr_of_the_averaged_network_inside_the_field_of_view(
    data: Path, tmp_path: Path, undisturbed: Path
) -> None:
    run = Pretraining(settings_for(data, undisturbed))
    run.prepare()
    pairs = load_pairs(data, "val", 2, most_per_set=1)
    by_hand = {}
    for pair, mask in zip(pairs, field_masks(pairs), strict=True):
        picture = enlarge(run.averaged.collapse(), pair.lr)  # type: ignore[operator]
        error = picture.astype(float) - pair.hr
        by_hand[pair.dataset] = 10 * np.log10(255**2 / np.mean(error[mask] ** 2))
    last = next(line for line in reversed(read_log(undisturbed)) if "psnr_db" in line)
    assert last["psnr_db"] == pytest.approx({**by_hand, "mean": np.mean(list(by_hand.values()))})
    assert last["score"] == last["psnr_db"]["mean"]


def test_rgb_pictures_are_judged_by_their_luma() -> None:
    truth = np.zeros((40, 40, 3), np.uint8)
    picture = truth.copy()
    picture[..., 2] = 51  # raises luma by 51 * 24.966 / 255 = 4.99, so by 5 levels
    pair = load_pairs.__globals__["Pair"]("one", truth, truth[::2, ::2])
    psnr = psnr_on_device(picture, pair, np.ones((40, 40), bool), torch.device("cpu"))
    assert psnr == pytest.approx(10 * np.log10(255**2 / 25))


def test_training_brings_the_network_above_bicubic(data: Path, tmp_path: Path) -> None:
    longer: dict[str, Any] = {"steps": 200, "finetune_steps": 20, "batch": 4, "patch_px": 24, "warm_steps": 20}
    often: dict[str, Any] = {"validate_every": 200, "checkpoint_every": 200, "log_every": 60}
    Pretraining(settings_for(data, tmp_path, learning_rate=6e-3, ema_decay=0.9, **longer, **often)).run()
    lines = read_log(tmp_path)
    psnr = next(line["psnr_db"] for line in lines if "psnr_db" in line)
    assert all(psnr[name] > reference for name, reference in lines[0]["bicubic"].items())
    losses = [line["losses"]["loss"] for line in lines if "losses" in line and line["step"] <= 180]
    assert losses == sorted(losses, reverse=True)


# Checkpoints.


def test_the_last_checkpoints_are_kept_and_parts_left_by_a_kill_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".step-00000001.part").write_bytes(b"half a checkpoint")
    for step in range(1, 6):
        save_checkpoint(tmp_path, step, {"step": step})
    assert [path.name for path in sorted(tmp_path.iterdir())] == [f"step-{step:08d}.pt" for step in (3, 4, 5)]
    assert KEEP == 3
    state = load_checkpoint(tmp_path)
    assert state == {"step": 5}


def test_no_checkpoint_is_no_state(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "nowhere") is None


FULL: list[tuple[OSError, type[OutputError]]] = [
    (OSError(errno.ENOSPC, "No space left on device"), DiskFull),
    (OSError(errno.EIO, "Input/output error"), OutputError),
]


def failing(cause: BaseException) -> Callable[[int], None]:
    """Return an ``os.fsync`` that fails: what was written until then is half a file."""

    def sync(file: int) -> None:
        raise cause

    return sync


def test_an_interrupt_while_a_checkpoint_is_written_is_one_and_leaves_the_earlier_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, 1, {"step": 1})
    monkeypatch.setattr("streamsr.training.checkpoint.os.fsync", failing(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, 2, {"step": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001.pt"]
    assert load_checkpoint(tmp_path) == {"step": 1}


@pytest.mark.parametrize(("cause", "kind"), FULL, ids=["full", "broken"])
def test_a_full_disk_ends_a_run_in_one_line_and_leaves_the_earlier_checkpoints(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: OSError, kind: type[OutputError]
) -> None:
    Pretraining(settings_for(data, tmp_path, steps=4)).run()
    before = state_of(tmp_path)
    monkeypatch.setattr("streamsr.training.checkpoint.os.fsync", failing(cause))
    with pytest.raises(kind, match=r"step-00000006\.pt: expected room to write, .*; kept step-00000002") as caught:
        Pretraining(settings_for(data, tmp_path)).run()
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert_equal(state_of(tmp_path), before)
    assert [path.name for path in sorted((tmp_path / "checkpoints").iterdir())] == [
        "step-00000002.pt",
        "step-00000003.pt",
        "step-00000004.pt",
    ]


@pytest.mark.parametrize("room", ["save_weights", "append_line", "draw_curves"])
def test_a_disk_that_is_full_for_weights_log_or_curves_ends_a_run_in_one_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: str
) -> None:
    def refuse(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run = Pretraining(settings_for(data, tmp_path))
    run.prepare = lambda: None  # type: ignore[method-assign]
    run.take_step = lambda: {"loss": torch.ones(())}  # type: ignore[method-assign]
    run.validate = lambda: {"score": 1.0}  # type: ignore[method-assign]
    monkeypatch.setattr(f"streamsr.training.run.{room}", refuse)
    with pytest.raises(DiskFull, match=r"expected room to write, got .*No space left.*; kept") as caught:
        run.run()
    assert "\n" not in str(caught.value)


def test_an_output_folder_that_cannot_be_made_is_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="expected a folder to write to"):
        Pretraining(settings_for(data, tmp_path / "file" / "run"))


def test_a_damaged_checkpoint_is_refused_by_name_and_the_one_before_serves(data: Path, tmp_path: Path) -> None:
    Pretraining(settings_for(data, tmp_path, steps=4)).run()
    newest = tmp_path / "checkpoints" / "step-00000004.pt"
    newest.write_bytes(newest.read_bytes()[:-5000])
    with pytest.raises(UsageError, match=r"step-00000004\.pt: expected a training checkpoint.*remove it") as caught:
        Pretraining(settings_for(data, tmp_path))
    assert "\n" not in str(caught.value)
    newest.unlink()
    assert Pretraining(settings_for(data, tmp_path)).step == 3


class Planted:
    """Pickled, it would run a command."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("planted",)


def test_a_checkpoint_that_holds_code_is_refused_and_runs_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"step": Planted()}, tmp_path / "step-00000001.pt")
    with pytest.raises(UsageError, match="expected a training checkpoint"):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "planted").exists()


def test_a_checkpoint_of_another_network_is_refused_and_kept(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Pretraining(settings_for(data, tmp_path)).save()
    kept = state_of(tmp_path)
    with pytest.raises(UsageError, match=r"expected a checkpoint of mini-x4 .* got mini-x2"):
        Pretraining(settings_for(data, tmp_path, model="mini-x4"))
    monkeypatch.setitem(networks.NETWORKS, "mini-x2", lambda: BranchedStudent(StudentSpec(32, 1, 2)))
    with pytest.raises(UsageError, match=r"expected a checkpoint of this network, got .*size mismatch") as caught:
        Pretraining(settings_for(data, tmp_path))
    assert "\n" not in str(caught.value)
    assert_equal(state_of(tmp_path), kept)


@pytest.mark.parametrize("state", [{"step": 3}, [1, 2], {"model": "mini-x2", "networks": 5}])
def test_a_file_of_something_else_in_a_checkpoints_place_is_refused(data: Path, tmp_path: Path, state: Any) -> None:
    save_checkpoint(tmp_path / "checkpoints", 3, state)
    with pytest.raises(UsageError, match="expected a checkpoint of this network"):
        Pretraining(settings_for(data, tmp_path))


# What goes wrong in a run.


def test_losses_that_are_not_finite_end_a_run_and_the_last_checkpoint_stays(data: Path, tmp_path: Path) -> None:
    run = Pretraining(settings_for(data, tmp_path))
    loss_of = run.loss_of
    run.loss_of = lambda *given, **options: loss_of(*given, **options) * (torch.nan if run.step == 3 else 1)  # type: ignore[method-assign]
    with pytest.raises(UsageError, match=r"step 4: expected finite losses, got .*nan.*; lower learning_rate"):
        run.run()
    assert state_of(tmp_path)["step"] == 3
    assert Pretraining(settings_for(data, tmp_path)).step == 3


def test_weights_that_are_not_finite_are_neither_kept_nor_written_to_a_checkpoint(data: Path, tmp_path: Path) -> None:
    run = Pretraining(settings_for(data, tmp_path, validate_every=4))
    loss_of = run.loss_of

    def poisoned(output: Tensor, *given: Any, **options: Any) -> Tensor:
        """Return a finite loss whose gradient is not: that of the root of zero."""
        loss = loss_of(output, *given, **options)
        return loss + (output * 0).sum().sqrt() if run.step == 3 else loss

    run.loss_of = poisoned  # type: ignore[method-assign]
    with pytest.raises(UsageError, match="step 4: expected finite weights, got NaN"):
        run.run()
    assert state_of(tmp_path)["step"] == 2
    assert not (tmp_path / BEST).exists()


@pytest.mark.parametrize("missing", ["train", "val"])
def test_a_run_without_one_of_its_sides_is_refused(tmp_path: Path, missing: str) -> None:
    data = make_data(tmp_path, sets=("one",), splits=tuple({"train", "val"} - {missing}), frames=1)
    with pytest.raises(InputError, match=f"expected frames of the side '{missing}'"):
        Pretraining(settings_for(data, tmp_path / "run")).run()


def test_an_unknown_model_and_frames_smaller_than_a_crop_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a model among"):
        Pretraining(settings_for(data, tmp_path, model="giant-x9"))
    with pytest.raises(InputError, match="expected frames of 68 px or more, got 67"):
        Pretraining(settings_for(data, tmp_path, patch_px=68)).run()


# Average, best, curves.


def test_the_average_moves_by_its_decay_which_warms_up(data: Path, tmp_path: Path) -> None:
    run = Pretraining(settings_for(data, tmp_path, ema_decay=0.25))
    run.prepare()
    aims = {name: tensor.clone().double() for name, tensor in run.averaged.state_dict().items()}
    for step in range(6):
        run.set_rates()
        run.take_step()
        run.step += 1
        decay = min(0.25, (step + 1) / (step + 11))
        for name, tensor in run.networks["network"].state_dict().items():
            aims[name] = aims[name] * decay + tensor.double() * (1 - decay)
    moved = {name: tensor.double() for name, tensor in run.averaged.state_dict().items()}
    torch.testing.assert_close(moved, aims, atol=1e-6, rtol=1e-5)
    now = run.networks["network"].state_dict()
    assert any(not torch.equal(now[name].double(), tensor) for name, tensor in moved.items())


def test_the_best_by_validation_is_kept_and_returned(data: Path, tmp_path: Path) -> None:
    run = Pretraining(settings_for(data, tmp_path, validate_every=2))
    scores, seen = iter((1.0, 5.0, 3.0)), []

    def scripted() -> dict[str, Any]:
        seen.append(copy.deepcopy(run.averaged.state_dict()))
        return {"score": next(scores)}

    run.validate = scripted  # type: ignore[method-assign]
    returned = run.run()
    assert_equal(load_file(tmp_path / BEST), dict(seen[1]))
    assert_equal(dict(returned.state_dict()), dict(seen[1]))
    assert not torch.equal(next(iter(seen[1].values())), next(iter(seen[2].values())))
    assert state_of(tmp_path)["best"] == 5.0


def coloured(path: Path) -> int:
    """Count the pixels of a picture that are neither black, white nor grey: the curves."""
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return int((np.ptp(np.asarray(picture.convert("RGB")).astype(int), axis=2) > 60).sum())


def test_curves_are_drawn_beside_the_weights(undisturbed: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert coloured(undisturbed / "curves.png") > 500
    append_line(tmp_path, {"bicubic": {"one": 30.0}})
    assert draw_curves(tmp_path) == tmp_path / "curves.png"
    assert coloured(tmp_path / "curves.png") == 0, "nothing to draw, nothing drawn"


def test_curves_take_sets_that_come_and_go_and_a_missing_library_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append_line(tmp_path, {"step": 1, "psnr_db": {"one": 30.0}})
    append_line(tmp_path, {"step": 2, "psnr_db": {"one": 31.0, "two": 32.0}})
    assert draw_curves(tmp_path) is not None
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert draw_curves(tmp_path) is None


def test_a_log_leaves_out_lines_that_were_cut_and_steps_that_were_taken_again(tmp_path: Path) -> None:
    for step in (0, 2, 4, 6):
        append_line(tmp_path, {"step": step} if step else {"settings": {}, "resumed_at": 0})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')
    append_line(tmp_path, {"settings": {}, "resumed_at": 4})
    append_line(tmp_path, {"step": 5})
    assert [line.get("step", "start") for line in read_log(tmp_path)] == ["start", 2, 4, "start", 5]


# Teachers.


def distill_settings(data: Path, output: Path, **changes: Any) -> DistillSettings:
    teacher = output.parent / "teacher.safetensors"
    values = {**vars(settings_for(data, output)), "teacher": "mini-x2", "teacher_weights": str(teacher), **changes}
    return DistillSettings(**values)


def write_teacher(folder: Path, *, scale: int = 2) -> BranchedStudent:
    torch.manual_seed(11)
    teacher = BranchedStudent(StudentSpec(16, 1, scale))
    save_weights(folder / "teacher.safetensors", teacher)
    return teacher


def test_the_loss_has_the_distance_from_the_teacher_at_its_weight_until_the_last_steps(
    data: Path, tmp_path: Path
) -> None:
    teacher = write_teacher(tmp_path)
    run = Distilling(distill_settings(data, tmp_path / "run", teacher_weight=0.75))
    run.prepare()
    crops = run.sampler.draw()
    output = torch.rand_like(crops.hr)
    alone = Pretraining.loss_of(run, output, crops, exact=False)
    apart = (output - teacher(crops.lr)).abs().mean()
    torch.testing.assert_close(run.loss_of(output, crops, exact=False), alone + 0.75 * apart, rtol=1e-3, atol=0)
    assert torch.equal(run.loss_of(output, crops, exact=True), (output - crops.hr).square().mean())


def test_the_last_steps_lower_what_the_settings_say(data: Path, tmp_path: Path) -> None:
    run = Pretraining(settings_for(data, tmp_path / "run", finetune_loss="psnr"))
    run.prepare()
    crops = run.sampler.draw()
    output = torch.rand_like(crops.hr)
    assert torch.equal(run.loss_of(output, crops, exact=True), log_squared(output, crops.hr))
    assert torch.equal(run.loss_of(output, crops, exact=False), charbonnier(output, crops.hr))


def test_robust_weights_are_judged_on_degraded_frames_the_same_every_time(data: Path, tmp_path: Path) -> None:
    judged = []
    for name in ("one", "two"):
        run = Pretraining(settings_for(data, tmp_path / name, degradation="robust", validation_frames=4))
        run.prepare()
        judged.append(run.validation)
    clean = load_pairs(data, "val", 2, most_per_set=4)
    assert [pair.file for pair in judged[0]] == [pair.file for pair in clean]
    for first, second, pair in zip(*judged, clean, strict=True):
        assert np.array_equal(first.lr, second.lr)
        assert np.array_equal(first.hr, pair.hr)
        assert first.lr.shape == pair.lr.shape
    assert any(not np.array_equal(ours.lr, pair.lr) for ours, pair in zip(judged[0], clean, strict=True))


def test_a_student_comes_nearer_to_its_teacher(data: Path, tmp_path: Path) -> None:
    teacher = write_teacher(tmp_path).collapse()
    changes: dict[str, Any] = {"steps": 40, "finetune_steps": 0, "learning_rate": 3e-3, "ema_decay": 0.5}
    changes |= {"validate_every": 40, "checkpoint_every": 40}
    pair = load_pairs(data, "val", 2)[0]

    def distance(weight: float) -> float:
        settings = distill_settings(data, tmp_path / f"run-{weight}", teacher_weight=weight, **changes)
        student = Distilling(settings).run()
        pictures = [enlarge(each, pair.lr).astype(float) for each in (student, teacher)]
        return float(np.abs(pictures[0] - pictures[1]).mean())

    assert distance(50.0) < 0.7 * distance(0.0)


def test_a_teacher_that_enlarges_otherwise_or_reads_other_colours_is_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_teacher(tmp_path, scale=4)
    with pytest.raises(UsageError, match="expected a teacher of x2 on luma, got mini-x4"):
        Distilling(distill_settings(data, tmp_path / "run", teacher="mini-x4"))
    monkeypatch.setitem(networks.NETWORKS, "srresnet-x2", lambda: SRGANGenerator(scale=2, num_blocks=1))
    save_weights(tmp_path / "teacher.safetensors", networks.build_network("srresnet-x2"))
    with pytest.raises(UsageError, match="expected a teacher of x2 on luma, got srresnet-x2"):
        Distilling(distill_settings(data, tmp_path / "run", teacher="srresnet-x2"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"teacher": ""}, "expected a model among"),
        ({"teacher_weights": ""}, "no file: expected weights of the network"),
        ({"teacher_weights": "/nowhere/w.safetensors"}, "w.safetensors: expected weights of the network"),
    ],
)
def test_a_teacher_that_is_not_there_is_refused(
    data: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        Distilling(distill_settings(data, tmp_path / "run", **changes))


# Where a run starts, and what it is shown.


def test_a_run_starts_from_the_weights_it_is_given(data: Path, tmp_path: Path) -> None:
    teacher = write_teacher(tmp_path)
    run = Pretraining(settings_for(data, tmp_path / "run", start=str(tmp_path / "teacher.safetensors")))
    for name in ("network", "average"):
        assert_equal(dict(run.networks[name].state_dict()), dict(teacher.state_dict()))
    with pytest.raises(UsageError, match="expected weights of the network"):
        Pretraining(settings_for(data, tmp_path / "other", start="/nowhere/w.safetensors"))


def test_a_robust_run_is_shown_degraded_pictures_and_trains(data: Path, tmp_path: Path) -> None:
    run = Pretraining(settings_for(data, tmp_path, degradation="robust", coded_share=0.5, batch=16))
    run.prepare()
    crops = run.sampler.draw()
    reference = nn.functional.interpolate(crops.hr, scale_factor=0.5, mode="bicubic", antialias=True)
    apart = (crops.lr - reference).abs().mean(dim=(1, 2, 3)) * 255
    assert float(apart.max()) > 2, "some crops are degraded"
    run.run()
    assert state_of(tmp_path)["step"] == 6


def test_a_robust_run_is_a_function_of_its_seed_too(data: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        run = Pretraining(settings_for(data, tmp_path / name, degradation="robust", coded_share=0.5))
        if name == "b":
            kill_at(run, 3)
            with pytest.raises(Killed):
                run.run()
            run = Pretraining(run.settings)
        run.run()
    assert_equal(state_of(tmp_path / "a"), state_of(tmp_path / "b"))


@pytest.mark.parametrize("colour", ["luma", "rgb"])
def test_the_stated_share_of_frames_goes_through_h264_and_the_rest_stays(data: Path, colour: Any) -> None:
    pairs = load_pairs(data, "train", 2, colour=colour)
    same, none = through_codec(pairs, 0.0, seed=1)
    assert same == pairs
    assert none == set()
    changed, every = through_codec(pairs, 1.0, seed=1)
    assert every == {pair.file for pair in pairs}
    some, part = through_codec(pairs, 0.5, seed=3)
    assert 0 < len(part) < 4
    for before, after, now in zip(pairs, changed, some, strict=True):
        assert before.file == after.file == now.file
        assert before.hr is after.hr
        assert 0.2 < np.abs(after.lr.astype(int) - before.lr).mean() < 12
        assert np.array_equal(now.lr, before.lr) == (now.file not in part)


def test_bicubic_enlargement_is_pillows() -> None:
    small = np.random.default_rng(0).integers(0, 256, (9, 7), dtype=np.uint8)
    large = np.asarray(Image.fromarray(small).resize((28, 36), Image.Resampling.BICUBIC))
    assert np.array_equal(bicubic_up(small, 4), large)


# The feature network of the domain.


@pytest.fixture(scope="module")
def endoscopy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames of a set with marks and of the capsule's, whose names tell of bleeding."""
    folder = tmp_path_factory.mktemp("endoscopy")
    return make_data(folder, sets=("capsule", "clinicdb"), splits=("train", "val"), marked=True)


def feature_settings(data: Path, output: Path, **changes: Any) -> FeatureSettings:
    values = vars(settings_for(data, output, patch_px=32, batch=4, log_every=1))
    names = FeatureSettings.__dataclass_fields__
    kept = {name: value for name, value in values.items() if name in names}
    return FeatureSettings(**{**kept, "model": "scope-features", "steps": 4, "validate_every": 4, **changes})


@pytest.fixture
def quick_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features_room, "JUDGED_BATCHES", 2)


@pytest.mark.usefixtures("quick_features")
def test_a_feature_run_writes_features_that_losses_can_load(endoscopy: Path, tmp_path: Path) -> None:
    best = FeatureTraining(feature_settings(endoscopy, tmp_path)).run()
    network = load_feature_network(tmp_path / "features.safetensors")
    rgb = torch.rand(1, 3, 32, 32)
    found = network(rgb)
    assert [features.shape[1] for features in found] == [32, 64, 128, 256]
    expected = best.fold()(rgb)  # type: ignore[operator]
    torch.testing.assert_close(found, expected)
    lines = read_log(tmp_path)
    assert lines[1]["losses"].keys() == {"dataset", "reduction", "polyp", "bleeding"}
    right = next(line["right"] for line in lines if "right" in line)
    assert all(0 <= share <= 1 + 1e-6 for share in right.values())
    assert not any(path.suffix == ".part" for path in tmp_path.rglob("*"))


@pytest.mark.usefixtures("quick_features")
def test_a_feature_run_that_was_killed_goes_on_as_if_it_had_not_been(endoscopy: Path, tmp_path: Path) -> None:
    FeatureTraining(feature_settings(endoscopy, tmp_path / "whole")).run()
    run = FeatureTraining(feature_settings(endoscopy, tmp_path / "killed"))
    kill_at(run, 3)
    with pytest.raises(Killed):
        run.run()
    FeatureTraining(feature_settings(endoscopy, tmp_path / "killed")).run()
    assert_equal(state_of(tmp_path / "killed"), state_of(tmp_path / "whole"))
    assert_equal(*(load_file(tmp_path / name / "features.safetensors") for name in ("whole", "killed")))


def test_findings_are_told_by_marks_and_names_where_the_set_knows(endoscopy: Path, tmp_path: Path) -> None:
    run = FeatureTraining(feature_settings(endoscopy, tmp_path, batch=64))
    run.prepare()
    crops = run.samplers["train"].draw()
    files = [run.samplers["train"].bank.files[frame] for frame in crops.frames]
    (_, polyp, polyp_counts), (_, bleeding, bleeding_counts) = run.findings(crops, "train")
    for place, file in enumerate(files):
        capsule = file.startswith("capsule/")
        share = float(crops.marked[place])
        assert bool(bleeding_counts[place]) == capsule
        assert bool(bleeding[place]) == ("/ble" in file)
        assert bool(polyp_counts[place]) == (not capsule and (share == 0 or share > 0.05))
        assert bool(polyp[place]) == (share > 0.05)
    assert {"capsule", "clinicdb"} == {file.split("/")[0] for file in files}


def test_a_crop_is_blurred_by_what_it_was_reduced() -> None:
    torch.manual_seed(0)
    crops = torch.rand(64, 3, 24, 24)
    pictures, by = reduced_at_random(crops)
    assert sorted(by.unique().tolist()) == [0, 1, 2, 3]
    kept = [float((pictures[by == times]).std()) for times in range(4)]
    assert torch.equal(pictures[by == 0], crops[by == 0])
    assert kept == sorted(kept, reverse=True)


def test_feature_runs_that_cannot_be_are_refused(endoscopy: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected the model scope-features, got 'vgg'"):
        FeatureTraining(feature_settings(endoscopy, tmp_path / "a", model="vgg"))
    uneven = make_data(tmp_path / "data", sets=("one", "two"), splits=("train", "val"), frames=1)
    manifest = uneven / "MANIFEST.tsv"
    manifest.write_text("\n".join(line for line in manifest.read_text().splitlines() if "one/val" not in line))
    with pytest.raises(InputError, match="expected the same 5 sets at most on both sides, got one, two and two"):
        FeatureTraining(feature_settings(uneven, tmp_path / "b")).run()


# What only a GPU can show.


@pytest.mark.needs_cuda
@needs_gpu
def test_capturing_a_step_leaves_no_trace_and_its_replays_are_the_steps() -> None:
    def made() -> tuple[nn.Module, torch.optim.Optimizer, Callable[[], dict[str, Tensor]]]:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 3)).cuda()
        optimiser = torch.optim.Adam(network.parameters(), torch.tensor(1e-2, device="cuda"), capturable=True)
        picture = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(1)).cuda()

        def step() -> dict[str, Tensor]:
            optimiser.zero_grad(set_to_none=True)
            loss = network(picture).square().mean()
            loss.backward()
            optimiser.step()
            return {"loss": loss.detach()}

        return network, optimiser, step

    network, optimiser, step = made()
    before = copy.deepcopy(network.state_dict())
    graph = StepGraph(step, [network], [optimiser])
    assert_equal(dict(network.state_dict()), dict(before))
    assert all(not value.any() for state in optimiser.state.values() for value in state.values())
    eager, _, eager_step = made()
    losses = [(float(graph()["loss"]), float(eager_step()["loss"])) for _ in range(5)]
    assert [ours for ours, _ in losses] == pytest.approx([theirs for _, theirs in losses], rel=1e-4)
    torch.testing.assert_close(dict(network.state_dict()), dict(eager.state_dict()), rtol=1e-3, atol=1e-5)


@pytest.mark.needs_cuda
@needs_gpu
def test_a_run_on_a_gpu_that_was_killed_goes_on_as_if_it_had_not_been(data: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"device": "cuda", "deterministic": True, "steps": 12, "checkpoint_every": 4}
    Pretraining(settings_for(data, tmp_path / "whole", **changes)).run()
    run = Pretraining(settings_for(data, tmp_path / "killed", **changes))
    save, steps = run.save, iter((4, 8))

    def killed() -> None:
        save()
        if run.step == next(steps, 0) == 8:
            raise Killed

    run.save = killed  # type: ignore[method-assign]
    with pytest.raises(Killed):
        run.run()
    resumed = Pretraining(settings_for(data, tmp_path / "killed", **changes))
    assert resumed.step == 8
    resumed.run()
    assert_equal(state_of(tmp_path / "killed"), state_of(tmp_path / "whole"))


@pytest.mark.needs_cuda
@needs_gpu
def test_a_gpu_trains_as_a_cpu_does(data: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"steps": 60, "batch": 8, "validate_every": 60, "checkpoint_every": 60}
    psnr = []
    for device in ("cpu", "cuda"):
        Pretraining(settings_for(data, tmp_path / device, device=device, **changes)).run()
        psnr.append(next(line["psnr_db"]["mean"] for line in read_log(tmp_path / device) if "psnr_db" in line))
    assert psnr[1] == pytest.approx(psnr[0], abs=0.5)


@pytest.mark.parametrize(("second", "words"), [("trian", "got trian"), ("val", "on two")])
def test_a_manifest_that_mixes_or_misnames_sides_is_refused(tmp_path: Path, second: str, words: str) -> None:
    rows = [f"one\t{split}\tg\tsame.png" for split in ("train", second)]
    (tmp_path / "MANIFEST.tsv").write_text("\n".join(["dataset\tsplit\tgroup\tfile", *rows]) + "\n")
    with pytest.raises(InputError, match=words):
        load_pairs(tmp_path, "train", 2)
