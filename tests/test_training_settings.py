"""Settings files that are refused, the rate's schedule, weights on disk, and networks that train on 32x32 patches."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("PIL")

from streamsr.errors import UsageError
from streamsr.models.srgan import SRGANGenerator
from streamsr.models.student import BranchedStudent, Student, StudentSpec
from streamsr.training.losses import charbonnier
from streamsr.training.networks import (
    NETWORKS,
    build_network,
    colour_of,
    is_finite,
    load_weights,
    plain,
    save_weights,
    scale_of,
)
from streamsr.training.run import learning_rate_at, pick_device
from streamsr.training.settings import KINDS, GanSettings, PretrainSettings, read_settings

PLACES = 'model = "tiny-x2"\ndata = "d"\noutput = "o"\n'
ENGINES = Path(__file__).resolve().parents[1] / "engines"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_with_three_keys_gives_the_defaults_of_its_kind(tmp_path: Path, kind: str) -> None:
    settings = read_settings(written(tmp_path, PLACES), KINDS[kind])
    assert settings == KINDS[kind](model="tiny-x2", data="d", output="o")


def test_every_key_is_read_and_whole_numbers_serve_as_fractions(tmp_path: Path) -> None:
    values: dict[str, Any] = {"steps": 7, "learning_rate": 1, "compiled": True, "degradation": "robust"}
    text = 'steps = 7\nlearning_rate = 1\ncompiled = true\ndegradation = "robust"\ncoded_share = 0.25\n'
    settings = read_settings(written(tmp_path, PLACES + text), PretrainSettings)
    assert settings == PretrainSettings(model="tiny-x2", data="d", output="o", coded_share=0.25, **values)
    assert type(settings.learning_rate) is float


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (PLACES + "step = 3\n", "expected the keys batch, .*got step; remove"),
        (PLACES + "[more]\nsteps = 3\n", "got more; remove"),
        ('model = "tiny-x2"\n', "got no data, output; add what is missing"),
        (PLACES + 'steps = "9"\n', "expected steps of type int, got '9'"),
        (PLACES + "steps = 9.0\n", "expected steps of type int, got 9.0"),
        (PLACES + "steps = true\n", "expected steps of type int, got True"),
        (PLACES + "learning_rate = [1e-3]\n", "expected learning_rate of type float"),
        (PLACES + "compiled = 1\n", "expected compiled of type bool, got 1"),
        ("model = [", "expected settings in TOML"),
        ("\x00\x01", "expected settings in TOML"),
    ],
)
def test_a_file_that_cannot_be_is_refused_in_one_line_that_names_it(tmp_path: Path, text: str, words: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UsageError, match=words) as caught:
        read_settings(path, PretrainSettings)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_a_folder_or_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x80")
    for path in (tmp_path / "none.toml", tmp_path, tmp_path / "binary.toml"):
        words = "expected settings in TOML" if path.suffix and path.is_file() else "expected a file of settings"
        with pytest.raises(UsageError, match=words):
            read_settings(path, PretrainSettings)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 0}, "expected steps of 1 or more, got 0"),
        ({"batch": -1}, "batch of 1 or more"),
        ({"patch_px": 0}, "patch_px of 1 or more"),
        ({"log_every": 0}, "log_every of 1 or more"),
        ({"checkpoint_every": 0}, "checkpoint_every of 1 or more"),
        ({"threads": 0}, "threads of 1 or more"),
        ({"warm_steps": -1}, "warm_steps of 0 or more"),
        ({"seed": -1}, "seed of 0 to 1e"),
        ({"learning_rate": float("nan")}, "learning_rate of 0 to 1, got nan"),
        ({"ema_decay": 1.5}, "ema_decay of 0 to 1"),
        ({"device": "gpu"}, "device of auto, cpu or cuda, got 'gpu'"),
        ({"finetune_steps": -1}, "finetune_steps of 0 or more"),
        ({"finetune_loss": "ssim"}, "finetune_loss squared or psnr, got 'ssim'"),
        ({"fft_weight": float("inf")}, "fft_weight of 0 or more, got inf"),
        ({"degradation": "dirty"}, "degradation of clean or robust"),
        ({"degradation": "robust", "coded_share": 1.2}, "coded_share of 0 to 1"),
        ({"coded_share": 0.2}, "coded_share of 0 for clean"),
        ({"degradation": "robust", "patch_px": 33}, "even patch_px of 4 or more"),
    ],
)
def test_numbers_that_cannot_be_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        replace(PretrainSettings(model="tiny-x2", data="d", output="o"), **changes)


def test_adversarial_settings_are_the_papers_by_default_and_refuse_what_cannot_be() -> None:
    settings = GanSettings(model="srgan-x4", data="d", output="o")
    assert (settings.feature_weight, settings.adversarial_weight, settings.pixel_weight) == (1.0, 1e-3, 0.0)
    assert settings.squared_features
    with pytest.raises(UsageError, match="adversarial_weight of 0 or more"):
        replace(settings, adversarial_weight=-1e-3)
    with pytest.raises(UsageError, match="squeezenet and lpips_linear together"):
        replace(settings, squeezenet="s.safetensors")


def test_settings_beside_every_shipped_engine_can_be_read() -> None:
    found = sorted(ENGINES.glob("*/train.toml"))
    assert found
    for path in found:
        kind = re.match(r"# streamsr train (\w+)", path.read_text(encoding="utf-8"))
        settings = read_settings(path, KINDS[kind[1] if kind else "pretrain"])
        assert settings.model in NETWORKS


def test_the_rate_rises_then_falls_along_a_cosine_to_a_thousandth() -> None:
    settings = PretrainSettings(model="m", data="d", output="o", steps=1000, warm_steps=100, learning_rate=2e-3)
    rates = [learning_rate_at(settings, step) for step in range(1000)]
    assert rates[0] == pytest.approx(2e-3 / 100, rel=1e-3)
    assert max(rates) < 2e-3
    assert rates[500] == pytest.approx(2e-3 * (0.001 + 0.999 * 0.5))
    assert learning_rate_at(settings, 1000) == pytest.approx(2e-6)
    peak = rates.index(max(rates))
    assert 90 <= peak <= 100
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match="expected a GPU for device = cuda, got none"):
        pick_device("cuda")


# Networks.


def test_the_engines_of_the_catalogue_can_be_trained() -> None:
    names = "srgan-x4 srgan-x2 srresnet-x4 quality-x2 quality-x4 fast-x2 fast-x4 tiny-x2 tiny-x4 fast-x2-robust"
    assert set(names.split()) <= set(NETWORKS)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_trains_on_32x32_patches(name: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = build_network(name)
    scale, channels = int(name.split("-x")[1][0]), 3 if name.startswith("sr") else 1
    assert scale_of(network) == scale
    assert colour_of(network) == ("rgb" if channels == 3 else "luma")
    low = torch.rand(1, channels, 32, 32)
    output = network(low)
    assert output.shape == (1, channels, 32 * scale, 32 * scale)
    charbonnier(output, torch.rand_like(output)).backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name
        assert parameter.grad.any(), parameter_name


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(UsageError, match=r"expected a model among tiny-x2, .* got 'giant-x9'"):
        build_network("giant-x9")


def test_plain_students_are_collapsed_and_generators_are_themselves() -> None:
    generator = SRGANGenerator(scale=2, num_blocks=1)
    assert plain(generator) is generator
    branched = BranchedStudent(StudentSpec(16, 1, 2))
    collapsed = plain(branched)
    assert isinstance(collapsed, Student)
    low = torch.rand(1, 1, 8, 8)
    torch.testing.assert_close(collapsed(low), branched(low))


def test_a_student_starts_from_an_engines_collapsed_weights(tmp_path: Path) -> None:
    torch.manual_seed(5)
    shipped = Student(StudentSpec(16, 1, 2))
    save_weights(tmp_path / "model.safetensors", shipped)
    branched = BranchedStudent(StudentSpec(16, 1, 2))
    load_weights(str(tmp_path / "model.safetensors"), branched)
    low = torch.rand(1, 1, 8, 8)
    torch.testing.assert_close(branched(low), shipped(low))
    branched(low).sum().backward()
    for name, parameter in branched.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), f"{name} still learns"


def test_an_engines_weights_of_another_student_are_refused(tmp_path: Path) -> None:
    save_weights(tmp_path / "model.safetensors", Student(StudentSpec(16, 2, 2)))
    with pytest.raises(UsageError, match=r"model\.safetensors: expected weights of the network"):
        load_weights(str(tmp_path / "model.safetensors"), BranchedStudent(StudentSpec(16, 1, 2)))


def small_generator(seed: int, num_blocks: int = 1) -> SRGANGenerator:
    torch.manual_seed(seed)
    return SRGANGenerator(scale=2, num_blocks=num_blocks)


def test_weights_come_back_as_they_were_written(tmp_path: Path) -> None:
    ours, theirs = small_generator(0), small_generator(1)
    ours(torch.rand(1, 3, 8, 8))  # moves the statistics of the batch normalisations
    save_weights(tmp_path / "w.safetensors", ours)
    load_weights(str(tmp_path / "w.safetensors"), theirs)
    ours.eval(), theirs.eval()
    low = torch.rand(1, 3, 8, 8)
    assert torch.equal(ours(low), theirs(low))
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_weights_of_another_network_or_none_are_refused(tmp_path: Path) -> None:
    save_weights(tmp_path / "deeper.safetensors", small_generator(0, num_blocks=2))
    save_weights(tmp_path / "student.safetensors", BranchedStudent(StudentSpec(16, 1, 2)))
    (tmp_path / "text.safetensors").write_text("no weights at all")
    network = small_generator(0)
    for name in ("deeper", "student", "text", "missing"):
        with pytest.raises(UsageError, match=f"{name}.safetensors: expected weights of the network") as caught:
            load_weights(str(tmp_path / f"{name}.safetensors"), network)
        assert "\n" not in str(caught.value)
    wider = BranchedStudent(StudentSpec(32, 1, 2))
    with pytest.raises(UsageError, match=r"expected weights of the network, got .*size mismatch") as caught:
        load_weights(str(tmp_path / "student.safetensors"), wider)
    assert "\n" not in str(caught.value)


def test_weights_that_cannot_be_written_leave_those_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, small_generator(0))
    before = path.read_bytes()

    def refuse(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(OSError, match="No space left"):
        save_weights(path, small_generator(1))
    assert path.read_bytes() == before
    assert [left.name for left in tmp_path.iterdir()] == ["w.safetensors"]


def test_one_nan_among_the_weights_is_seen() -> None:
    network = nn.Linear(3, 3)
    assert is_finite(network)
    with torch.no_grad():
        network.weight[1, 1] = torch.nan
    assert not is_finite(network)


def test_numbers_that_are_hardly_meant_are_said_and_those_of_long_runs_are_not() -> None:
    common = {"model": "tiny-x2", "data": "d", "output": "o"}
    assert PretrainSettings(**common).oddities() == []
    assert GanSettings(**common, warm_steps=400, steps=401).oddities() == []
    lines = PretrainSettings(**common, steps=400).oddities()
    assert [line.split(" for ")[0] for line in lines] == ["warm_steps of 500", "finetune_steps of 3000"]
    assert PretrainSettings(**common, steps=400, warm_steps=399, finetune_steps=400).oddities() == []
