"""Run: the loop that every kind of training shares - schedule, average, validation, checkpoints, log, curves."""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from streamsr.errors import OutputError, UsageError
from streamsr.training.changes import changes_between, made_of
from streamsr.training.checkpoint import load_checkpoint, save_checkpoint, saying_what_is_kept
from streamsr.training.curves import append_line, draw_curves
from streamsr.training.networks import is_finite, load_weights, save_weights
from streamsr.training.settings import RunSettings
from streamsr.training.step_graph import StepGraph

log = logging.getLogger(__name__)

Settings = TypeVar("Settings", bound=RunSettings)

BEST = "best.safetensors"
"""The averaged weights of the best validation, in training form."""


def learning_rate_at(settings: RunSettings, step: int) -> float:
    """Return the rate of a step: warming up, then a cosine down to a thousandth."""
    warm = min(1.0, (step + 1) / max(settings.warm_steps, 1))
    cosine = 0.5 * (1 + math.cos(math.pi * step / settings.steps))
    return settings.learning_rate * warm * (0.001 + 0.999 * cosine)


def pick_device(name: str) -> torch.device:
    """Return the device that settings name.

    Raises:
        UsageError: a GPU is asked for and none can be used.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("expected a GPU for device = cuda, got none; set device to auto or cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


class Run(ABC, Generic[Settings]):
    """One run: networks, optimisers and place in the schedule; goes on from its newest checkpoint.

    The random numbers of a step are drawn from (seed, step), so that a run that was killed and resumed is the run that
    was not, wherever a checkpoint was due.

    Args:
        settings: the run.

    Raises:
        UsageError: the newest checkpoint is damaged, or of another network.
    """

    def __init__(self, settings: Settings) -> None:
        torch.set_num_threads(settings.threads)
        torch.manual_seed(settings.seed)
        self.settings, self.folder = settings, Path(settings.output)
        self.checkpoints = self.folder / "checkpoints"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as cause:
            raise OutputError(f"{self.folder}: expected a folder to write to, got {cause.strerror}") from cause
        self.device = pick_device(settings.device)
        torch.backends.cudnn.benchmark = not settings.deterministic
        torch.backends.cudnn.deterministic = settings.deterministic
        self.step, self.seconds, self.best = 0, 0.0, -math.inf
        self.judged = 0
        self.changed: dict[str, tuple[Any, Any]] = {}
        self.clock: Callable[[], float] = time.monotonic
        self._losses: dict[str, Tensor] = {}
        self._losses_since = 0
        self._saved_at = -math.inf
        self.networks: dict[str, nn.Module] = {}
        self.optimisers: dict[str, Optimizer] = {}
        self.report: Callable[[dict[str, Any]], None] = lambda line: log.info("%s", json.dumps(line))
        self.decay = torch.zeros((), device=self.device)
        self._graphs: dict[str, StepGraph] = {}

    @abstractmethod
    def prepare(self) -> None:
        """Load the data and whatever else the steps need."""

    @abstractmethod
    def take_step(self) -> dict[str, Tensor]:
        """Take one optimiser step and return its losses as detached scalars on the device."""

    @abstractmethod
    def validate(self) -> dict[str, Any]:
        """Return figures of the averaged network; ``score``, higher is better, picks the best weights."""

    @property
    def phase(self) -> str:
        """Name what kind of step the next one is; every phase is captured by itself."""
        return "all"

    @property
    def averaged(self) -> nn.Module:
        """Return the network that is validated and kept."""
        return self.networks["average"]

    def mixed(self, *, enabled: bool = True) -> torch.autocast:
        """Return a context of bfloat16 arithmetic; casts are not kept: they could not outlive a captured graph."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled, cache_enabled=False)

    def make_optimiser(self, network: nn.Module, *, betas: tuple[float, float] = (0.9, 0.99)) -> Optimizer:
        """Return Adam over a network; on a GPU with its rate and step count on the device, to be captured."""
        on_gpu = self.device.type == "cuda"
        rate: Any = torch.tensor(self.settings.learning_rate, device=self.device) if on_gpu else 1.0
        return torch.optim.Adam(network.parameters(), rate, betas=betas, capturable=on_gpu, fused=on_gpu or None)

    def descend(self, loss: Tensor, name: str) -> None:
        """Step a network down a loss's gradient, its norm clipped to 1."""
        optimiser = self.optimisers[name]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.networks[name].parameters(), 1.0)
        optimiser.step()

    @torch.no_grad()
    def update_average(self, name: str) -> None:
        """Move the averaged network towards a network."""
        ours, theirs = (floats_of(network) for network in (self.networks["average"], self.networks[name]))
        torch._foreach_mul_(ours, self.decay)
        torch._foreach_add_(ours, torch._foreach_mul(theirs, 1 - self.decay))

    def resume(self) -> None:
        """Take up the newest checkpoint, if there is one.

        Raises:
            UsageError: it is damaged, or of another network.
        """
        state = load_checkpoint(self.checkpoints)
        if state is None:
            return
        try:
            self.take_up(state)
        except (KeyError, TypeError, AttributeError, RuntimeError) as cause:  # torch's for tensors of other shapes
            line = " ".join(str(cause).split())[:160]
            raise UsageError(
                f"{self.folder}: expected a checkpoint of this network, got {line}; name another output folder"
            ) from cause
        log.info("resumed at step %d", self.step)

    def take_up(self, state: dict[str, Any]) -> None:
        """Put networks, optimisers and the place in the schedule where a checkpoint says."""
        if state["model"] != self.settings.model or set(state["networks"]) != set(self.networks):
            raise UsageError(
                f"{self.folder}: expected a checkpoint of {self.settings.model} with {', '.join(self.networks)}, got "
                f"{state['model']} with {', '.join(state['networks'])}; name another output folder"
            )
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])
        for name, optimiser in self.optimisers.items():
            groups = optimiser.state_dict()["param_groups"]
            optimiser.load_state_dict({"state": state["optimisers"][name], "param_groups": groups})
        self.step, self.seconds, self.best = state["step"], state["seconds"], state["best"]
        self.judged, self._losses_since = state["judged"], state["losses_since"]
        self._losses = {name: total.to(self.device) for name, total in state["losses"].items()}
        self.changed = changes_between(self.folder, state["made_of"], made_of(self.settings))
        if self.changed:
            log.warning("%s: goes on with other settings: %s", self.folder, told(self.changed))

    def save(self) -> None:
        """Write a checkpoint of the whole run.

        Raises:
            OutputError: it cannot be written; the earlier ones are intact.
        """
        state = {
            "model": self.settings.model,
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "optimisers": {name: optimiser.state_dict()["state"] for name, optimiser in self.optimisers.items()},
            "step": self.step,
            "seconds": self.seconds,
            "best": self.best,
            "judged": self.judged,
            "losses": self._losses,
            "losses_since": self._losses_since,
            "made_of": made_of(self.settings),
        }
        save_checkpoint(self.checkpoints, self.step, state)
        self._saved_at = self.clock()

    def run(self) -> nn.Module:
        """Train to the end and return the best averaged network, in training form.

        Raises:
            InputError: the data cannot be used.
            UsageError: the losses or the weights are no longer finite; the last checkpoint is intact.
            OutputError: something cannot be written; the last checkpoint is intact.
        """
        for line in self.settings.oddities():
            log.warning("%s: %s; mend the settings unless that is meant", self.folder, line)
        with saying_what_is_kept(self.folder, self.checkpoints):
            self.prepare()
            start = {"settings": asdict(self.settings), "device": device_name(self.device), "resumed_at": self.step}
            self.note({**start, "changed": self.changed} if self.changed else start)
            self.go_on()
            draw_curves(self.folder)
            best = copy.deepcopy(self.averaged)
            if (self.folder / BEST).is_file():
                load_weights(str(self.folder / BEST), best)
            self.finish(best)
        return best

    def finish(self, best: nn.Module) -> None:
        """Write what a kind of run leaves besides its weights."""

    def go_on(self) -> None:
        """Take the steps that are left, validating and writing checkpoints.

        A validation that is due is preceded by a checkpoint, so that a kill costs no more than the validation.
        """
        started = self.clock() - self.seconds
        self._saved_at = self.clock()
        while self.step < self.settings.steps or self.judged < self.step:
            until = min(self.settings.steps, self.next_multiple(self.settings.checkpoint_every))
            if self.judgement_is_due:
                self.judge()
                self.save()
                continue
            self.take_steps(until)
            self.seconds = self.clock() - started
            if self.step == until or self.judgement_is_due or self.is_stale:
                self.save()

    @property
    def judgement_is_due(self) -> bool:
        """Whether the network is to be validated before the next step."""
        last = self.step == self.settings.steps
        return self.judged < self.step and (last or self.step % self.settings.validate_every == 0)

    @property
    def is_stale(self) -> bool:
        """Whether the last checkpoint is too old."""
        return self.clock() - self._saved_at >= self.settings.checkpoint_seconds

    def next_multiple(self, every: int) -> int:
        """Return the next step that is a multiple of a number."""
        return (self.step // every + 1) * every

    def take_steps(self, until: int) -> None:
        """Take steps up to the next line of the log, validation, change of phase, stale checkpoint or ``until``."""
        settings, phase = self.settings, self.phase
        until = min(until, self.next_multiple(settings.log_every), self.next_multiple(settings.validate_every))
        step = self.step_of(phase)
        while self.step < until and self.phase == phase:
            torch.manual_seed(settings.seed * 1_000_003 + self.step)
            self.set_rates()
            for name, loss in step().items():
                self._losses[name] = self._losses.get(name, 0.0) + loss
            self.step += 1
            if self.is_stale:
                break
        means = self.mean_losses()
        if self.step == until or self.phase != phase:
            self.note({"step": self.step, "seconds": round(self.seconds, 1), "losses": means})
            self._losses, self._losses_since = {}, self.step

    def mean_losses(self) -> dict[str, float]:
        """Return the mean losses of the steps since the last line of the log.

        Raises:
            UsageError: a loss or a weight is not finite.
        """
        means = {name: float(total) / (self.step - self._losses_since) for name, total in self._losses.items()}
        if not all(math.isfinite(mean) for mean in means.values()):
            raise UsageError(f"step {self.step}: expected finite losses, got {means}; lower learning_rate and resume")
        if not all(is_finite(network) for network in self.networks.values()):
            raise UsageError(f"step {self.step}: expected finite weights, got NaN; lower learning_rate and resume")
        return means

    def step_of(self, phase: str) -> Any:
        """Return what takes a step of a phase: the captured graph on a GPU, the method itself elsewhere."""
        if self.device.type != "cuda":
            return self.take_step
        if phase not in self._graphs:
            self.set_rates()
            self._graphs.clear()
            self._graphs[phase] = StepGraph(self.take_step, self.networks.values(), self.optimisers.values())
        return self._graphs[phase]

    def set_rates(self) -> None:
        """Set the rates of the next step and the decay of the average."""
        rate = learning_rate_at(self.settings, self.step)
        for name, optimiser in self.optimisers.items():
            for group in optimiser.param_groups:
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(rate * self.rate_factor(name))
                else:
                    group["lr"] = rate * self.rate_factor(name)
        self.decay.fill_(min(self.settings.ema_decay, (self.step + 1) / (self.step + 11)))

    def rate_factor(self, name: str) -> float:
        """Return a network's rate as a multiple of the schedule's."""
        return 1.0

    def judge(self) -> None:
        """Validate the averaged network, and keep it if it is the best so far."""
        figures = self.validate()
        self.note({"step": self.step, "seconds": round(self.seconds, 1), **figures})
        if figures["score"] > self.best:
            self.best = figures["score"]
            save_weights(self.folder / BEST, self.averaged)
        self.judged = self.step
        draw_curves(self.folder)

    def note(self, line: dict[str, Any]) -> None:
        """Append a line to the run's log."""
        append_line(self.folder, line)
        self.report(line)


def told(changes: dict[str, tuple[Any, Any]]) -> str:
    """Return what has changed in one line."""
    return ", ".join(f"{key} = {now}, which was {before}" for key, (before, now) in changes.items())


def floats_of(network: nn.Module) -> list[Tensor]:
    """Return a network's floating-point tensors, parameters and buffers."""
    return [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]


def device_name(device: torch.device) -> str:
    """Return the name of the processor or the GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'' if threads == 1 else 's'}"
