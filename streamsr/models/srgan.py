"""The SRGAN generator (SRResNet) of Ledig et al. 2017, arXiv 1609.04802v5, figure 4, and its folded form."""

from __future__ import annotations

import copy
import math
from itertools import pairwise

from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """3x3 convolution, batch normalisation, PReLU, 3x3 convolution, batch normalisation, sum.

    Args:
        channels: width of the block.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.PReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return the features plus their change, same shape."""
        change: Tensor = self.body(features)
        return features + change


class SRGANGenerator(nn.Module):
    """The residual generator: RGB in, RGB out at ``scale`` times the size.

    9x9 convolution to 64 channels and PReLU; ``num_blocks`` residual blocks; 3x3 convolution and batch normalisation
    with the long skip; one stage of 3x3 convolution to 256, pixel shuffle by 2 and PReLU for each factor of two; 9x9
    convolution to RGB. There is no skip from the picture itself. With 16 blocks it has 1,547,350 parameters at x4 and
    1,399,637 at x2 (convolutions in
    front of a batch normalisation carry no bias).

    Args:
        scale: 2 or 4.
        num_blocks: B in the paper, 16 there.

    Raises:
        ValueError: the scale is neither 2 nor 4.
    """

    def __init__(self, *, scale: int = 4, num_blocks: int = 16) -> None:
        super().__init__()
        if scale not in (2, 4):
            raise ValueError(f"expected a scale of 2 or 4, got {scale}")
        self.scale, self.num_blocks = scale, num_blocks
        self.head = nn.Sequential(nn.Conv2d(3, 64, 9, padding=4), nn.PReLU())
        self.blocks = nn.Sequential(*(ResidualBlock(64) for _ in range(num_blocks)))
        self.neck = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64))
        stages: list[nn.Module] = []
        for _ in range(scale.bit_length() - 1):
            stages += [nn.Conv2d(64, 256, 3, padding=1), nn.PixelShuffle(2), nn.PReLU()]
        self.enlarge = nn.Sequential(*stages)
        self.tail = nn.Conv2d(64, 3, 9, padding=4)

    @property
    def receptive_radius_px(self) -> int:
        """Input pixels on each side of a pixel that its output depends on, rounded up.

        4 for the head, 2 a block, 1 for the neck; each enlarging stage adds 1 at the size it starts from, and the
        tail 4 at full size: 39.5 at x4 with 16 blocks.
        """
        enlarging = 1.0 if self.scale == 2 else 1.5
        return math.ceil(4.0 + 2 * self.num_blocks + 1 + enlarging + 4 / self.scale)

    @property
    def macs_per_pixel(self) -> int:
        """Multiply-adds per input pixel: 2,218,176 at x4, 1,441,728 at x2, with 16 blocks."""
        body = 81 * 3 * 64 + (2 * self.num_blocks + 1) * 9 * 64 * 64
        enlarging = 9 * 64 * 256 * (1 if self.scale == 2 else 5)
        return body + enlarging + 81 * 64 * 3 * self.scale**2

    def forward(self, rgb: Tensor) -> Tensor:
        """Enlarge pictures.

        Args:
            rgb: (N, 3, H, W) float in [0, 1].

        Returns:
            (N, 3, scale * H, scale * W) float, not clamped.
        """
        features: Tensor = self.head(rgb)
        features = features + self.neck(self.blocks(features))
        enlarged: Tensor = self.tail(self.enlarge(features))
        return enlarged


def fold_batch_norm(generator: SRGANGenerator) -> SRGANGenerator:
    """Return an equal generator in evaluation mode whose batch normalisations are folded into the convolutions.

    With running mean m, variance v, gain g and shift b, ``g (w*x + c - m) / sqrt(v + eps) + b`` is a convolution of
    weight ``w g / sqrt(v + eps)`` and bias ``(c - m) g / sqrt(v + eps) + b``.
    """
    folded = copy.deepcopy(generator).eval()
    for block in folded.modules():
        if isinstance(block, nn.Sequential):
            for place, (layer, following) in enumerate(pairwise(list(block))):
                if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                    block[place] = nn.utils.fuse_conv_bn_eval(layer, following)
                    block[place + 1] = nn.Identity()
    for parameter in folded.parameters():
        parameter.requires_grad_(False)
    return folded


def count_parameters(network: nn.Module) -> int:
    """Return the number of trainable numbers of a network."""
    return sum(parameter.numel() for parameter in network.parameters())
