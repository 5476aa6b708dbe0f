"""The SRGAN discriminator of Ledig et al. 2017, arXiv 1609.04802v5, figure 4: true picture or generated."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

LEAK = 0.2
"""Slope of LeakyReLU below zero, section 2.1.1 of the paper."""

WIDTHS = (64, 64, 128, 128, 256, 256, 512, 512)
"""Channels of the eight convolutions; every second one strides by two."""


class SRGANDiscriminator(nn.Module):
    """Tells true high-resolution pictures from generated ones.

    Eight 3x3 convolutions of 64 to 512 channels, strides 1 and 2 in turn, each with LeakyReLU 0.2 and all but the first
    with batch normalisation; a dense layer of 1024 with LeakyReLU; a dense layer of 1. The paper's last sigmoid is
    `score`; training works on the logits, whose losses stay finite. Pictures are brought to [-1, 1] inside, the
    paper's range for HR. Convolutions in front of a batch normalisation carry no bias. It has 23,563,649 parameters at
    96 px and 38,243,713 at 128 px (published: 23.6 and 38.2 million).

    Args:
        size_px: side of the square HR pictures, a multiple of 16.

    Raises:
        ValueError: the side is no positive multiple of 16.
    """

    def __init__(self, *, size_px: int) -> None:
        super().__init__()
        if size_px < 16 or size_px % 16:
            raise ValueError(f"expected a side that is a multiple of 16 px, got {size_px}; crop to 96 or 128")
        self.size_px = size_px
        layers: list[nn.Module] = [nn.Conv2d(3, WIDTHS[0], 3, padding=1), nn.LeakyReLU(LEAK)]
        for place, (inputs, outputs) in enumerate(pairwise(WIDTHS)):
            stride = 1 if place % 2 else 2
            layers += [
                nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.LeakyReLU(LEAK),
            ]
        self.features = nn.Sequential(*layers)
        num_features = WIDTHS[-1] * (size_px // 16) ** 2
        self.verdict = nn.Sequential(nn.Linear(num_features, 1024), nn.LeakyReLU(LEAK), nn.Linear(1024, 1))

    def forward(self, rgb: Tensor) -> Tensor:
        """Judge pictures.

        Args:
            rgb: (N, 3, size_px, size_px) float in [0, 1].

        Returns:
            (N, 1) logits; above zero where the picture looks true.

        Raises:
            ValueError: the pictures are of another size.
        """
        if tuple(rgb.shape[1:]) != (3, self.size_px, self.size_px):
            raise ValueError(f"expected pictures of (N, 3, {self.size_px}, {self.size_px}), got {tuple(rgb.shape)}")
        logits: Tensor = self.verdict(self.features(2.0 * rgb - 1.0).flatten(1))
        return logits

    def score(self, rgb: Tensor) -> Tensor:
        """Return the probability, (N, 1) float32 in [0, 1], that each of (N, 3, size_px, size_px) pictures is true."""
        return torch.sigmoid(self(rgb).float())
