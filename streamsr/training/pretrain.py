"""Train a student towards the truth: bf16 steps under Charbonnier loss, then float32 steps under squared error."""

from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from streamsr.errors import UsageError
from streamsr.models.student import SPECS, BranchedStudent, Student
from streamsr.quality.fidelity import psnr_db
from streamsr.training.checkpoint import load_checkpoint, save_checkpoint
from streamsr.training.data import CropSampler, LumaPair, bicubic_up, field_masks, load_pairs

log = logging.getLogger(__name__)

CHARBONNIER_EPSILON = 1e-3


@dataclass(frozen=True)
class PretrainSettings:
    """What a run is made of; one TOML file of these keys.

    Attributes:
        model: name in `streamsr.models.student.SPECS`.
        data: folder with MANIFEST.tsv.
        output: folder for checkpoints, log and weights.
        steps: optimiser steps altogether.
        finetune_steps: how many of them, the last, run in float32 under squared error.
        batch: crops a step.
        patch_px: side of the low-resolution crop.
        learning_rate: Adam's first rate; falls along a cosine to a thousandth.
        ema_decay: decay of the moving average of the weights that is validated and shipped.
        validate_every: steps between validations.
        checkpoint_every: steps between checkpoints.
        seed: crops and first weights are a function of it.
        threads: CPU threads.
    """

    model: str
    data: str
    output: str
    steps: int = 40_000
    finetune_steps: int = 3_000
    batch: int = 16
    patch_px: int = 48
    learning_rate: float = 1e-3
    ema_decay: float = 0.999
    validate_every: int = 4_000
    checkpoint_every: int = 1_000
    seed: int = 1
    threads: int = 1


def learning_rate_at(settings: PretrainSettings, step: int) -> float:
    """Return the rate of a step: 500 steps of warming up, then a cosine down to a thousandth."""
    warm = min(1.0, (step + 1) / 500)
    cosine = 0.5 * (1 + math.cos(math.pi * step / settings.steps))
    return settings.learning_rate * warm * (0.001 + 0.999 * cosine)


def loss_of(output: Tensor, truth: Tensor, *, squared: bool) -> Tensor:
    """Return the Charbonnier loss sqrt(e^2 + eps^2) (Lai et al. 2017), or the mean squared error."""
    error = output.float() - truth
    return error.square().mean() if squared else (error.square() + CHARBONNIER_EPSILON**2).sqrt().mean()


def validate(student: Student, pairs: list[LumaPair], masks: list[Any]) -> dict[str, float]:
    """Return the luma PSNR in dB inside the field of view, averaged over the frames of each set, and ``mean``."""
    student.eval()
    figures: dict[str, list[float]] = {}
    with torch.inference_mode():
        for pair, mask in zip(pairs, masks, strict=True):
            figures.setdefault(pair.dataset, []).append(psnr_db(enlarge(student, pair.lr), pair.hr, mask=mask))
    means = {name: sum(values) / len(values) for name, values in figures.items()}
    return {**means, "mean": sum(means.values()) / len(means)}


def enlarge(student: nn.Module, lr: Any) -> Any:
    """Enlarge (h, w) uint8 luma with a network on the whole frame; rounds half to even."""
    output = student(torch.from_numpy(lr)[None, None].float() / 255.0)[0, 0]
    return (output * 255.0).round().clamp(0, 255).to(torch.uint8).numpy()


def bicubic_figures(pairs: list[LumaPair], masks: list[Any], scale: int) -> dict[str, float]:
    """Return the same figures as `validate` for bicubic interpolation."""
    figures: dict[str, list[float]] = {}
    for pair, mask in zip(pairs, masks, strict=True):
        figures.setdefault(pair.dataset, []).append(psnr_db(bicubic_up(pair.lr, scale), pair.hr, mask=mask))
    means = {name: sum(values) / len(values) for name, values in figures.items()}
    return {**means, "mean": sum(means.values()) / len(means)}


class Pretraining:
    """One run: network, optimiser, average and place in the schedule; goes on from its newest checkpoint.

    Args:
        settings: the run.

    Raises:
        UsageError: there is no such model.
        ValueError: the newest checkpoint is damaged, or of another network.
    """

    def __init__(self, settings: PretrainSettings) -> None:
        if settings.model not in SPECS:
            raise UsageError(f"expected a model among {', '.join(SPECS)}, got {settings.model!r}; mend the settings")
        torch.set_num_threads(settings.threads)
        torch.manual_seed(settings.seed)
        self.settings, self.folder = settings, Path(settings.output)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.spec = SPECS[settings.model]
        self.network = BranchedStudent(self.spec)
        self.average = BranchedStudent(self.spec)
        self.average.load_state_dict(self.network.state_dict())
        self.optimiser = torch.optim.Adam(self.network.parameters(), settings.learning_rate, betas=(0.9, 0.99))
        self.step = 0
        self.seconds = 0.0
        self.best = -math.inf
        self.resume()

    def resume(self) -> None:
        """Take up the newest checkpoint, if there is one."""
        state = load_checkpoint(self.folder / "checkpoints")
        if state is None:
            return
        if state["model"] != self.settings.model:
            raise ValueError(f"{self.folder}: expected a checkpoint of {self.settings.model}, got {state['model']}")
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds, self.best = state["step"], state["seconds"], state["best"]
        log.info("resumed at step %d", self.step)

    def save(self) -> None:
        """Write a checkpoint of the whole run."""
        state = {
            "model": self.settings.model,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "best": self.best,
        }
        save_checkpoint(self.folder / "checkpoints", self.step, state)

    def run(self) -> Student:
        """Train to the end and return the averaged, collapsed network."""
        settings, scale = self.settings, self.spec.scale
        pairs = load_pairs(Path(settings.data), "train", scale)
        sampler = CropSampler(
            pairs, scale=scale, patch_px=settings.patch_px, batch=settings.batch, seed=settings.seed + self.step
        )
        validation = load_pairs(Path(settings.data), "val", scale, most_per_set=8)
        masks = field_masks(validation)
        self.note({"bicubic": bicubic_figures(validation, masks, scale), "settings": asdict(settings)})
        started, running = time.monotonic() - self.seconds, 0.0
        for lr, hr in sampler:
            if self.step >= settings.steps:
                break
            running = 0.99 * running + 0.01 * self.take_step(lr, hr)
            self.seconds = time.monotonic() - started
            if self.step % settings.validate_every == 0 or self.step == settings.steps:
                figures = validate(self.average.collapse(), validation, masks)
                self.best = max(self.best, figures["mean"])
                self.note({"step": self.step, "seconds": round(self.seconds), "loss": running, "psnr_db": figures})
            if self.step % settings.checkpoint_every == 0 or self.step == settings.steps:
                self.save()
        return self.average.collapse()

    def take_step(self, lr: Tensor, hr: Tensor) -> float:
        """Take one optimiser step and return its loss."""
        squared = self.step >= self.settings.steps - self.settings.finetune_steps
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate_at(self.settings, self.step)
        with torch.autocast("cpu", torch.bfloat16, enabled=not squared):
            output = self.network(lr)
        loss = loss_of(output, hr, squared=squared)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        decay = min(self.settings.ema_decay, self.step / (self.step + 10))
        with torch.no_grad():
            for ours, theirs in zip(self.average.parameters(), self.network.parameters(), strict=True):
                ours.lerp_(theirs, 1 - decay)
        return float(loss.detach())

    def note(self, line: dict[str, Any]) -> None:
        """Append a line to the run's log."""
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        log.info("%s", json.dumps(line))
