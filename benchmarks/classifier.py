"""A small classifier of patches for `benchmarks.downstream`: drawn, trained on full resolution, then left as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from streamsr.quality.downstream import Answers

Patches = NDArray[np.uint8]

STEP_PATCHES = 64
"""Patches a step."""


LIGHT, COLOUR = 0.3, 0.15
"""By what part training pictures become brighter or darker, and each of their channels besides."""


@dataclass(frozen=True)
class Schooling:
    """How a classifier is trained; the same for every seed.

    Attributes:
        epochs: passes over the training patches.
        learning_rate: the largest, reached after a third of the steps (one cycle).
    """

    epochs: int = 10
    learning_rate: float = 2e-3


class PatchClassifier(nn.Module):
    """Four convolutions, three of them strided, means over the patch, one logit; any patch of 16 px or more.

    Args:
        width: channels of the first layer; the others have two and three times as many.
    """

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        shape = ((3, width, 5, 2), (width, 2 * width, 3, 2), (2 * width, 3 * width, 3, 2), (3 * width, 3 * width, 3, 1))
        layers: list[nn.Module] = []
        for inputs, outputs, kernel, stride in shape:
            layers.append(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False))
            layers += [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)
        self.answer = nn.Linear(6 * width, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return (N,) logits of (N, 3, H, W) RGB in [0, 1]."""
        features = self.layers(pictures - 0.5)
        pooled = torch.cat((features.mean(dim=(2, 3)), features.amax(dim=(2, 3))), dim=1)
        logits: Tensor = self.answer(pooled)[:, 0]
        return logits


def train_classifier(
    patches: Patches,
    labels: Answers,
    *,
    seed: int,
    schooling: Schooling,
    report: Callable[[str], None] = lambda line: None,
) -> PatchClassifier:
    """Train a classifier; both answers weigh alike, however many patches show each.

    Args:
        patches: (N, H, W, 3) uint8 RGB.
        labels: (N,) bool.
        seed: of weights, order and mirroring.
        schooling: how.
        report: takes a line after every pass.
    """
    torch.manual_seed(seed)
    network = PatchClassifier()
    optimiser = torch.optim.AdamW(network.parameters(), schooling.learning_rate, weight_decay=1e-2)
    steps = -(-len(patches) // STEP_PATCHES) * schooling.epochs
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, schooling.learning_rate, total_steps=steps)
    weight = torch.tensor(float((~labels).sum()) / max(float(labels.sum()), 1.0))
    for epoch in range(schooling.epochs):
        losses = []
        for chosen in torch.randperm(len(patches)).split(STEP_PATCHES):  # type: ignore[no-untyped-call]
            pictures = varied(_tensor(patches[chosen.numpy()]))
            wanted = torch.from_numpy(labels[chosen.numpy()]).float()
            loss = functional.binary_cross_entropy_with_logits(network(pictures), wanted, pos_weight=weight)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            rate.step()
            losses.append(float(loss.detach()))
        report(f"  seed {seed}, pass {epoch + 1} of {schooling.epochs}: loss {np.mean(losses):.4f}")
    return network.eval()


def varied(pictures: Tensor) -> Tensor:
    """Mirror each picture or not, change light and colour, and cut a random eighth of its sides away.

    Without it the classifier learns the light and colour of the training videos by heart.
    """
    for dimension in (2, 3):
        flip = torch.rand(len(pictures)) < 0.5
        pictures[flip] = pictures[flip].flip(dimension)
    light = 1 + LIGHT * (2 * torch.rand(len(pictures), 1, 1, 1) - 1)
    colour = 1 + COLOUR * (2 * torch.rand(len(pictures), 3, 1, 1) - 1)
    side = pictures.shape[2] - pictures.shape[2] // 8
    top, left = (int(torch.randint(pictures.shape[2] - side + 1, ())) for _ in range(2))
    return (pictures * light * colour)[:, :, top : top + side, left : left + side].clamp(0, 1)


def _tensor(patches: Patches) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(patches.transpose(0, 3, 1, 2))).float() / 255


@torch.inference_mode()
def answers_of(network: PatchClassifier, patches: Patches) -> Answers:
    """Return (N,) bool answers to (N, H, W, 3) uint8 RGB."""
    logits = [network(_tensor(part)) for part in np.array_split(patches, max(1, len(patches) // 256))]
    return np.asarray(torch.cat(logits).numpy() > 0)


def save_classifier(network: PatchClassifier, path: Path) -> None:
    """Write the weights as safetensors, aside, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, str(aside))
    aside.replace(path)


def load_classifier(path: Path) -> PatchClassifier:
    """Read the weights that `save_classifier` wrote."""
    network = PatchClassifier()
    network.load_state_dict(load_file(str(path)))
    return network.eval()
