"""Training: aligned pairs, resumable runs, checkpoints that survive, settings that are refused, INT8 forms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("PIL")
pytest.importorskip("onnx")

from streamsr.config import GeneratorSettings
from streamsr.engine import read_engine
from streamsr.errors import InputError, UsageError
from streamsr.models.student import BranchedStudent, StudentSpec
from streamsr.quality.fidelity import psnr_db
from streamsr.runtimes import load_generator
from streamsr.training.__main__ import read_settings
from streamsr.training.checkpoint import KEEP, load_checkpoint, save_checkpoint
from streamsr.training.data import CropSampler, bicubic_down, load_pairs
from streamsr.training.pretrain import Pretraining, PretrainSettings, enlarge
from streamsr.training.quantise import best_clip, calibrate
from streamsr.training.ship import quantise, write_engine


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A small data folder: smooth coloured noise in two sets and three sides."""
    folder = tmp_path / "data"
    folder.mkdir()
    random = np.random.default_rng(0)
    rows = ["dataset\tsplit\tgroup\tfile"]
    for dataset in ("one", "two"):
        for split in ("train", "val", "test"):
            for number in range(3):
                noise = random.uniform(0, 255, (13, 15, 3)).astype(np.float32)
                picture = cv2.resize(noise, (131, 122), interpolation=cv2.INTER_CUBIC).clip(60, 255).astype(np.uint8)
                name = f"{dataset}-{split}-{number}.png"
                cv2.imwrite(str(folder / name), picture)
                rows.append(f"{dataset}\t{split}\tg{number}\t{name}")
    (folder / "MANIFEST.tsv").write_text("\n".join(rows) + "\n")
    return folder


def settings_for(data: Path, output: Path) -> PretrainSettings:
    return PretrainSettings(
        model="tiny-x2",
        data=str(data),
        output=str(output),
        steps=6,
        finetune_steps=2,
        batch=2,
        patch_px=24,
        validate_every=6,
        checkpoint_every=2,
    )


def test_pairs_are_the_truth_and_its_reduction(data: Path) -> None:
    pairs = load_pairs(data, "train", 4)
    assert len(pairs) == 6
    for pair in pairs:
        assert pair.hr.shape == (120, 128)
        assert np.array_equal(pair.lr, bicubic_down(pair.hr, 4))


def test_crops_stay_aligned_through_turns_and_mirrors(data: Path) -> None:
    sampler = CropSampler(load_pairs(data, "train", 2), scale=2, patch_px=24, batch=16, seed=3)
    low, high = next(iter(sampler))
    assert low.shape == (16, 1, 24, 24)
    assert high.shape == (16, 1, 48, 48)
    down = torch.nn.functional.avg_pool2d(high, 2)
    assert float((down - low)[..., 2:-2, 2:-2].abs().max()) < 0.05


def test_a_run_goes_on_from_its_newest_checkpoint(data: Path, tmp_path: Path) -> None:
    settings = settings_for(data, tmp_path / "run")
    first = Pretraining(replace(settings, steps=4, validate_every=4))
    first.run()
    second = Pretraining(settings)
    assert second.step == 4
    for ours, theirs in zip(second.network.parameters(), first.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    second.run()
    assert second.step == 6


def test_a_run_is_a_function_of_its_seed(data: Path, tmp_path: Path) -> None:
    runs = [Pretraining(settings_for(data, tmp_path / name)).run() for name in ("a", "b")]
    for ours, theirs in zip(runs[0].parameters(), runs[1].parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_checkpoint_of_another_network_is_refused(data: Path, tmp_path: Path) -> None:
    settings = settings_for(data, tmp_path / "run")
    Pretraining(settings).save()
    with pytest.raises(ValueError, match="expected a checkpoint of fast-x2, got tiny-x2"):
        Pretraining(replace(settings, model="fast-x2"))


def test_the_last_checkpoints_are_kept_and_no_part_is_left(tmp_path: Path) -> None:
    for step in range(1, 6):
        save_checkpoint(tmp_path, step, {"step": step})
    assert [path.name for path in sorted(tmp_path.iterdir())] == [f"step-{step:08d}.pt" for step in (3, 4, 5)]
    assert KEEP == 3
    state = load_checkpoint(tmp_path)
    assert state is not None
    assert state["step"] == 5


def test_a_damaged_checkpoint_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "step-00000001.pt").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="expected a training checkpoint"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('model = "tiny-x2"\ndata = "d"\noutput = "o"\nstep = 3\n', "got step; remove"),
        ('model = "tiny-x2"\n', "add what is missing"),
        ("model = [", "expected settings in TOML"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=words):
        read_settings(path)


def test_a_run_without_its_data_or_of_an_unknown_model_is_refused(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "nowhere", tmp_path / "run")
    with pytest.raises(InputError, match=r"MANIFEST\.tsv.*expected"):
        Pretraining(settings).run()
    with pytest.raises(UsageError, match="expected a model among"):
        Pretraining(replace(settings, model="giant-x9"))


def test_the_best_clip_keeps_the_bulk_and_gives_up_a_lone_outlier() -> None:
    histogram = torch.zeros(4096, dtype=torch.float64)
    histogram[:1600] = 1000.0
    histogram[-1] = 1.0
    assert best_clip(histogram, 1.0) < 0.6


def test_the_int8_form_is_near_its_network(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(4)
    student = BranchedStudent(StudentSpec(channels=16, depth=2, scale=2)).collapse()
    pairs = load_pairs(data, "val", 2)
    assert len(calibrate(student, [pair.lr for pair in pairs]).activation_clips) == 3
    int8, tuned = quantise(student, data, tuning_steps=2)
    write_engine(tmp_path / "mini-x2", tuned, int8)
    engine = read_engine(tmp_path / "mini-x2")
    generator = load_generator(engine, GeneratorSettings(precision="int8"))
    luma = np.ascontiguousarray(pairs[0].lr)
    with torch.inference_mode():
        expected = enlarge(tuned, luma)
    assert psnr_db(generator.generate(luma[None, None])[0, 0], expected) > 35
