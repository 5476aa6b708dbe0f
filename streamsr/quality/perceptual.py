"""A perceptual distance in the manner of LPIPS: how different two pictures look to a classifier's features.

Zhang et al. 2018 ("The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", equation 1) compare the
features of SqueezeNet 1.1, each brought to unit length over its channels, weigh the squared differences by channel,
average over the picture and sum over seven depths. Here the channel weights are those of LPIPS v0.1, but the trunk is
not proven to be the one they were fitted on: the figures are LPIPS-like, and never to be called LPIPS.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from streamsr.errors import EngineError
from streamsr.models.features import FeatureNetwork, SqueezeNetFeatures
from streamsr.quality.feature_files import load_feature_network, read_weights

UNIT_EPSILON = 1e-10
"""Keeps features that are zero in all channels zero, as in LPIPS v0.1."""

LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114]) * 219 / 255
"""Studio-range luma levels a level of 8-bit red, green and blue (Rec. ITU-R BT.601): 16 + LUMA_WEIGHTS . (R, G, B)."""


class LpipsLike(nn.Module):
    """LPIPS-like distance, trunk not proven the one LPIPS was fitted on. Smaller is more alike; 0 for equals.

    Pictures in [0, 1] are scaled inside the trunk by ImageNet's means and deviations, which is LPIPS v0.1's scaling.
    Everything runs in float32, also under autocast.

    Args:
        trunk: features, shallow to deep.
        channel_weights: for each depth (C,) float32, at least 0.

    Raises:
        ValueError: the number of weights is not that of depths.
    """

    name = "LPIPS-like"

    def __init__(self, trunk: FeatureNetwork, channel_weights: list[Tensor]) -> None:
        super().__init__()
        if len(channel_weights) != len(trunk.depths):
            raise ValueError(f"expected weights for {len(trunk.depths)} depths, got {len(channel_weights)}")
        self.trunk = trunk
        self.channel_weights = nn.ParameterList(
            nn.Parameter(weights.float().reshape(1, -1, 1, 1), requires_grad=False) for weights in channel_weights
        )

    @classmethod
    def from_files(cls, trunk: Path | str, linear: Path | str) -> LpipsLike:
        """Load the trunk and the linear layers.

        Args:
            trunk: SqueezeNet 1.1, see `load_feature_network`.
            linear: LPIPS v0.1's linear layers, ``squeeze.linK.model.1.weight`` of (1, C, 1, 1).

        Raises:
            InputNotFound: a file is missing.
            EngineError: a file is of something else.
        """
        network = load_feature_network(trunk)
        if not isinstance(network, SqueezeNetFeatures):
            raise EngineError(f"{trunk}: expected SqueezeNet 1.1, got {network.name}; name another file")
        held, _ = read_weights(Path(linear))
        found = []
        for depth, channels in enumerate((64, 128, 256, 384, 384, 512, 512)):
            name = f"squeeze.lin{depth}.model.1.weight"
            if name not in held or tuple(held[name].shape) != (1, channels, 1, 1):
                got = tuple(held[name].shape) if name in held else "no such weight"
                raise EngineError(f"{linear}: expected {name} of (1, {channels}, 1, 1), got {got}; name another file")
            found.append(held[name])
        return cls(network, found)

    def forward(self, picture: Tensor, truth: Tensor, mask: Tensor | None = None) -> Tensor:
        """Measure the distance of pictures.

        Args:
            picture: (N, 3, H, W) float RGB in [0, 1].
            truth: the same shape, RGB in [0, 1].
            mask: (N or 1, 1, H, W) weights in [0, 1], such as the field of view; everywhere when None. It is brought to
                each depth by area averaging.

        Returns:
            (N,) float32, at least 0; NaN where the mask is empty.

        Raises:
            ValueError: the shapes differ.
        """
        if picture.shape != truth.shape:
            raise ValueError(f"expected pictures of one shape, got {tuple(picture.shape)} and {tuple(truth.shape)}")
        with torch.autocast(picture.device.type, enabled=False):
            ours, theirs = self.trunk(picture.float()), self.trunk(truth.float())
            distance = picture.new_zeros(len(picture), dtype=torch.float32)
            for weights, mine, yours in zip(self.channel_weights, ours, theirs, strict=True):
                difference = ((unit_length(mine) - unit_length(yours)).square() * weights).sum(dim=1, keepdim=True)
                distance = distance + _spatial_mean(difference, mask)
        return distance


def in_colour(luma: NDArray[Any], rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return a picture of one luma and another picture's colour differences, unrounded, for `LpipsLike`.

    Luma must be rounded before in all pictures that are compared, or in none: in RGB a rounded luma is a dither of one
    pattern on all three channels, which the distance takes for grain; it flatters by 3 to 12 %.

    Args:
        luma: (H, W) studio-range luma, BT.601, in 8-bit levels: float as the network makes it, or whole as recorded.
        rgb: (H, W, 3) uint8, the picture that gives the colour: the input, enlarged by interpolation.

    Returns:
        (H, W, 3) float64 RGB in [0, 255]. Red, green and blue are ``rgb`` moved by the same number of levels, but for
        clipping: that leaves both colour differences.
    """
    moved = (luma.astype(np.float64) - (rgb @ LUMA_WEIGHTS + 16.0)) * (255 / 219)
    return np.asarray((rgb + moved[..., None]).clip(0, 255), np.float64)


def distance_between(distance: LpipsLike, picture: NDArray[Any], truth: NDArray[Any]) -> float:
    """Return the distance of two (H, W, 3) RGB pictures in 8-bit levels, integers or unrounded."""
    with torch.inference_mode():
        ours, theirs = (torch.from_numpy(np.ascontiguousarray(each)).float() / 255 for each in (picture, truth))
        return float(distance(ours.permute(2, 0, 1)[None], theirs.permute(2, 0, 1)[None]))


def unit_length(features: Tensor) -> Tensor:
    """Bring (N, C, H, W) features to unit length over the channels at every place; zeros stay zeros."""
    return features * torch.rsqrt(features.square().sum(dim=1, keepdim=True) + UNIT_EPSILON)


def _spatial_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return the (N,) weighted means of (N, 1, h, w) values."""
    if mask is None:
        return values.mean(dim=(1, 2, 3))
    height, width = values.shape[2:]
    weights = functional.adaptive_avg_pool2d(mask.float(), (height, width)).expand_as(values)
    return (values * weights).sum(dim=(1, 2, 3)) / weights.sum(dim=(1, 2, 3))
