"""Teach the feature network of the domain: which set, polyp or not, bleeding or not, and how much detail was lost.

The last task needs no labels: a crop is brought down by 1, 2, 3 or 4 and enlarged again, and the network has to tell by
how much, for which it has to know fine detail.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from streamsr.errors import InputError, UsageError
from streamsr.models.features import ScopeFeatures
from streamsr.quality.feature_files import save_scope_features
from streamsr.training.crops import Crops, CropSampler, FrameBank
from streamsr.training.data import load_pairs
from streamsr.training.run import Run
from streamsr.training.settings import FeatureSettings

FINDING_SHARE = 0.05
"""Share of a crop that an expert has to have marked for it to show a finding; crops between 0 and this count little."""

REDUCTIONS = 4
"""A crop is brought down by 1 to this."""

HEADS = {"dataset": 5, "polyp": 1, "bleeding": 1, "reduction": REDUCTIONS}
"""Logits of each task."""

JUDGED_BATCHES = 20
"""Batches of the validation side that a validation draws."""


class FeatureTraining(Run[FeatureSettings]):
    """A run of the feature network.

    Args:
        settings: the run; ``model`` names nothing else than ``scope-features``.

    Raises:
        UsageError: ``model`` names something else.
    """

    def __init__(self, settings: FeatureSettings) -> None:
        if settings.model != ScopeFeatures.name:
            raise UsageError(f"expected the model {ScopeFeatures.name}, got {settings.model!r}; mend the settings")
        super().__init__(settings)
        network = ScopeFeatures(heads=HEADS)
        self.networks["network"] = network.to(
            self.device,
            memory_format=torch.channels_last,  # type: ignore[call-overload]
        )
        self.networks["average"] = copy.deepcopy(network).requires_grad_(False)
        self.optimisers["network"] = self.make_optimiser(network)
        self.resume()

    def finish(self, best: nn.Module) -> None:
        """Write ``features.safetensors``: plain convolutions, without heads."""
        assert isinstance(best, ScopeFeatures)
        save_scope_features(best.fold().cpu(), self.folder / "features.safetensors")

    def prepare(self) -> None:
        """Load both sides to the device; bleeding is told by the names of the capsule's frames.

        Raises:
            InputError: the sides hold other sets, or there are too many.
        """
        self.samplers = {side: self.sampler_of(side) for side in ("train", "val")}
        ours, theirs = (self.samplers[side].bank.names for side in ("train", "val"))
        if ours != theirs or len(ours) > HEADS["dataset"]:
            raise InputError(
                f"{self.settings.data}: expected the same {HEADS['dataset']} sets at most on both sides, got "
                f"{', '.join(ours)} and {', '.join(theirs)}; mend the manifest"
            )
        self.bleeding = {
            side: torch.tensor([_bleeds(file) for file in sampler.bank.files], device=self.device)
            for side, sampler in self.samplers.items()
        }
        self.is_capsule, self.has_marks = (
            torch.tensor([rule(name) for name in self.samplers["train"].bank.names], device=self.device)
            for rule in (lambda name: name == "capsule", lambda name: name in ("bkai", "clinicdb", "colondb"))
        )

    def sampler_of(self, side: str) -> CropSampler:
        """Return crops of a side at full resolution."""
        most = None if side == "train" else self.settings.validation_frames
        pairs = load_pairs(Path(self.settings.data), side, 1, colour="rgb", with_marks=True, most_per_set=most)
        bank = FrameBank(pairs, scale=1, device=self.device)
        return CropSampler(bank, patch_px=self.settings.patch_px, batch=self.settings.batch)

    def take_step(self) -> dict[str, Tensor]:
        """Take one optimiser step."""
        losses, _ = self.losses_of(self.networks["network"], "train")
        self.descend(torch.stack(list(losses.values())).sum(), "network")
        self.update_average("network")
        return {name: loss.detach() for name, loss in losses.items()}

    def losses_of(self, network: nn.Module, side: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the loss of every task, and the share of right answers, on a fresh batch of a side."""
        crops = self.samplers[side].draw()
        pictures, reduction = reduced_at_random(crops.hr)
        with self.mixed():
            answers = {name: logits.float() for name, logits in network.heads(pictures).items()}  # type: ignore[operator]
        losses, right = {}, {}
        for name, labels in (("dataset", crops.datasets), ("reduction", reduction)):
            losses[name] = functional.cross_entropy(answers[name], labels)
            right[name] = (answers[name].argmax(dim=1) == labels).float().mean()
        for name, labels, counted in self.findings(crops, side):
            each = functional.binary_cross_entropy_with_logits(answers[name][:, 0], labels, reduction="none")
            total = counted.sum().clamp(min=1.0)
            losses[name] = (each * counted).sum() / total
            right[name] = (((answers[name][:, 0] > 0) == (labels > 0.5)) * counted).sum() / total
        return losses, right

    def findings(self, crops: Crops, side: str) -> list[tuple[str, Tensor, Tensor]]:
        """Return the yes-or-no tasks: name, (B,) labels, and (B,) weights, 0 where the set does not know."""
        sure = (crops.marked == 0) | (crops.marked > FINDING_SHARE)
        polyp = (crops.marked > FINDING_SHARE).float()
        bleeding = self.bleeding[side][crops.frames].float()
        return [
            ("polyp", polyp, (self.has_marks[crops.datasets] & sure).float()),
            ("bleeding", bleeding, self.is_capsule[crops.datasets].float()),
        ]

    @torch.inference_mode()
    def validate(self) -> dict[str, Any]:
        """Return the share of right answers of every task on crops of the validation side, and ``score``."""
        network, sums = self.averaged.eval(), dict[str, float]()
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self.settings.seed)
            for _ in range(JUDGED_BATCHES):
                for name, share in self.losses_of(network, "val")[1].items():
                    sums[name] = sums.get(name, 0.0) + float(share) / JUDGED_BATCHES
        return {"right": sums, "score": sum(sums.values())}


def _bleeds(file: str) -> bool:
    return Path(file).name.startswith("ble")


def reduced_at_random(crops: Tensor) -> tuple[Tensor, Tensor]:
    """Return crops brought down by 1 to 4 and enlarged again, and (B,) by how much less one."""
    by = torch.randint(REDUCTIONS, (len(crops),), device=crops.device)
    size, pictures = crops.shape[-1], crops
    for times in range(2, REDUCTIONS + 1):
        low = functional.interpolate(crops, size=size // times, mode="bicubic", antialias=True)
        blurred = functional.interpolate(low, size=size, mode="bicubic").clamp(0, 1)
        pictures = torch.where((by == times - 1)[:, None, None, None], blurred, pictures)
    return pictures, by
