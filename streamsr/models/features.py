"""Feature networks for perceptual losses and distances: frozen ImageNet trunks, and our own trained on endoscopy.

Each reads RGB in [0, 1] and returns a list of features, shallow to deep, one for each name in its ``depths``. None
waits for the device, so all can be captured in a CUDA graph. Weights come from `streamsr.quality.feature_files`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

VGG19_STAGES = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
"""Width and number of convolutions between the max poolings; Simonyan and Zisserman 2015, table 1, column E."""

PAPER_FEATURE_SCALE = 1 / 12.75
"""Ledig et al. 2017, section 3.2: brings VGG features near the size of the pixel error."""


class FeatureNetwork(nn.Module):
    """A network whose inner layers are what one wants.

    Attributes:
        name: what cards and messages call it.
        depths: names of the features that ``forward`` returns, shallow to deep.
        smallest_px: the least side of a picture.
    """

    name = "features"
    smallest_px = 16
    depths: tuple[str, ...] = ()

    def frozen(self) -> FeatureNetwork:
        """Return itself in evaluation mode, its parameters without gradients."""
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        return self.eval()

    def train(self, mode: bool = True) -> FeatureNetwork:
        """Switch to training mode, unless the network is frozen."""
        super().train(mode and any(parameter.requires_grad for parameter in self.parameters()))
        return self

    def check(self, rgb: Tensor) -> None:
        """Refuse what is no batch of RGB pictures of sufficient size.

        Raises:
            ValueError: the pictures are too small, or not RGB.
        """
        if rgb.ndim != 4 or rgb.shape[1] != 3 or min(rgb.shape[2:]) < self.smallest_px:
            least = self.smallest_px
            raise ValueError(f"expected pictures of (N, 3, {least} or more, {least} or more), got {tuple(rgb.shape)}")


def vgg19_layers() -> list[str]:
    """Return the 16 convolutions in order: ``conv1_1``, ``conv1_2``, ``conv2_1``, ..., ``conv5_4``."""
    return [f"conv{stage}_{place}" for stage, (_, num) in enumerate(VGG19_STAGES, 1) for place in range(1, num + 1)]


def vgg19_shape(layer: str) -> tuple[int, int, int, int]:
    """Return the shape (outputs, inputs, 3, 3) of the weight of a VGG-19 convolution."""
    stage, place = int(layer[4]), int(layer[6])
    outputs = VGG19_STAGES[stage - 1][0]
    inputs = outputs if place > 1 else 3 if stage == 1 else VGG19_STAGES[stage - 2][0]
    return outputs, inputs, 3, 3


class VGG19Features(FeatureNetwork):
    """VGG-19 as far as the deepest feature asked for.

    Args:
        depths: ``convI_J`` for a feature before its activation, ``reluI_J`` after it; shallow to deep.
            ``("relu5_4",)`` is phi_5,4 of Ledig et al. 2017.
        feature_scale: what all features are multiplied by.

    Raises:
        ValueError: a name that VGG-19 does not have.
    """

    name = "vgg19"

    def __init__(self, depths: Iterable[str] = ("relu5_4",), *, feature_scale: float = PAPER_FEATURE_SCALE) -> None:
        super().__init__()
        self.depths, self.feature_scale = tuple(depths), feature_scale
        layers = vgg19_layers()
        asked = [depth.replace("relu", "conv") for depth in self.depths]
        if not asked or not set(asked) <= set(layers):
            raise ValueError(f"expected depths such as conv3_4 or relu5_4, got {', '.join(self.depths) or 'none'}")
        self.preprocess = nn.Conv2d(3, 3, 1)
        with torch.no_grad():
            deviation = torch.tensor(IMAGENET_DEVIATION)
            self.preprocess.weight.copy_(torch.diag(1 / deviation)[:, :, None, None])
            assert self.preprocess.bias is not None
            self.preprocess.bias.copy_(-torch.tensor(IMAGENET_MEAN) / deviation)
        self.layers = nn.ModuleDict()
        for layer in layers[: max(layers.index(layer) for layer in asked) + 1]:
            outputs, inputs, _, _ = vgg19_shape(layer)
            self.layers[layer] = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.frozen()

    def forward(self, rgb: Tensor) -> list[Tensor]:
        """Return the features at ``depths``, each (N, C, H / 2^k, W / 2^k), of (N, 3, H, W) pictures in [0, 1]."""
        self.check(rgb)
        with torch.autocast(rgb.device.type, enabled=False):  # bf16 would round the means away
            activated: Tensor = self.preprocess(rgb.float())
        found = {}
        for layer, convolution in self.layers.items():
            if layer.endswith("_1") and layer != "conv1_1":
                activated = functional.max_pool2d(activated, 2)
            found[layer] = convolution(activated)
            activated = functional.relu(found[layer])
            found[layer.replace("conv", "relu")] = activated
        return [found[depth] * self.feature_scale for depth in self.depths]


class Fire(nn.Module):
    """Iandola et al. 2016: a 1x1 convolution squeezes, then 1x1 and 3x3 convolutions side by side expand."""

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, 2 * expanded, H, W) activated features."""
        squeezed = functional.relu(self.squeeze(features))
        return functional.relu(torch.cat([self.expand1x1(squeezed), self.expand3x3(squeezed)], dim=1))


FIRES = (
    *((64, 16, 64), (128, 16, 64), (128, 32, 128), (256, 32, 128)),
    *((256, 48, 192), (384, 48, 192), (384, 64, 256), (512, 64, 256)),
)
"""Input, squeezed and expanded channels of fires 2 to 9 of SqueezeNet 1.1."""


class SqueezeNetFeatures(FeatureNetwork):
    """SqueezeNet 1.1 without its classifier, read at the seven slices of LPIPS, all after activation.

    Slices end after the first convolution and after fires 3, 5, 6, 7, 8, 9 (as the paper numbers them, from 2): 64,
    128, 256, 384, 384, 512 and 512 channels at 1/2 to 1/16 of the size.
    """

    name = "squeezenet1.1"
    depths = ("relu1", "fire3", "fire5", "fire6", "fire7", "fire8", "fire9")
    smallest_px = 32
    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(IMAGENET_DEVIATION).reshape(1, 3, 1, 1), persistent=False)
        self.stem = nn.Conv2d(3, 64, 3, stride=2)
        self.fires = nn.ModuleDict({f"fire{place}": Fire(*size) for place, size in enumerate(FIRES, 2)})
        self.frozen()

    def forward(self, rgb: Tensor) -> list[Tensor]:
        """Return the features at ``depths`` of (N, 3, H, W) pictures in [0, 1]."""
        self.check(rgb)
        features: Tensor = functional.relu(self.stem((rgb - self.mean) / self.deviation))
        found = [features]
        for name, fire in self.fires.items():
            if name in ("fire2", "fire4", "fire6"):
                features = functional.max_pool2d(features, 3, stride=2, ceil_mode=True)
            features = fire(features)
            if name in self.depths:
                found.append(features)
        return found


SCOPE_HEADS = {"dataset": 5, "polyp": 1, "bleeding": 1, "rotation": 4}
"""Logits of each training task: which set, polyp in the crop, bleeding in the crop, turned by 0/90/180/270 degrees."""

SCOPE_WIDTHS = (32, 64, 128, 256)


def _convolution(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)]


class ScopeFeatures(FeatureNetwork):
    """Our own feature network, in the manner of VGG, trained on crops of endoscopy.

    Each stage is two 3x3 convolutions with batch normalisation, the features being read in front of the second ReLU;
    between stages, mean pooling by two (no gradient is lost to pixels that were not the largest). In training a neck
    of one more stage and dense heads follow, so that the deepest features need not be the answer itself; `fold` leaves
    them behind and folds batch normalisation into the convolutions.

    Args:
        widths: channels of the stages.
        heads: logits of each training task.
        folded: make the form that `fold` returns.
    """

    name = "scope-features"

    def __init__(
        self, widths: tuple[int, ...] = SCOPE_WIDTHS, *, heads: dict[str, int] = SCOPE_HEADS, folded: bool = False
    ) -> None:
        super().__init__()
        self.widths, self.folded = tuple(widths), False
        self.depths = tuple(f"stage{place}" for place in range(1, len(widths) + 1))
        self.stages = nn.ModuleList(
            nn.Sequential(*_convolution(inputs, outputs), nn.ReLU(), *_convolution(outputs, outputs))
            for inputs, outputs in pairwise((3, *widths))
        )
        deepest = widths[-1]
        self.neck = nn.Sequential(nn.ReLU(), nn.AvgPool2d(2), *_convolution(deepest, deepest), nn.ReLU())
        self.tasks = nn.ModuleDict({task: nn.Linear(2 * deepest, num) for task, num in heads.items()})
        if folded:
            self._fold()

    def forward(self, rgb: Tensor) -> list[Tensor]:
        """Return the features of every stage, (N, C, H / 2^k, W / 2^k), of (N, 3, H, W) pictures in [0, 1]."""
        return self.features(rgb)

    def features(self, rgb: Tensor) -> list[Tensor]:
        """Do what ``forward`` does."""
        self.check(rgb)
        found: list[Tensor] = []
        activated = (rgb - 0.5) * 4.0
        for stage in self.stages:
            if found:
                activated = functional.avg_pool2d(functional.relu(found[-1]), 2)
            found.append(stage(activated))
        return found

    def heads(self, rgb: Tensor) -> dict[str, Tensor]:
        """Return the logits of every task, (N, number of answers), for (N, 3, H, W) crops in [0, 1].

        Raises:
            ValueError: the network is folded, so it has no heads.
        """
        if self.folded:
            raise ValueError("expected a network in training, got a folded one, which has no heads; train a new one")
        deepest = self.neck(self.features(rgb)[-1])
        pooled = torch.cat([deepest.mean(dim=(2, 3)), deepest.amax(dim=(2, 3))], dim=1)
        return {task: head(pooled) for task, head in self.tasks.items()}

    def fold(self) -> ScopeFeatures:
        """Return an equal frozen network of plain convolutions, without neck and heads."""
        folded = copy.deepcopy(self)
        folded._fold()
        return folded

    def _fold(self) -> None:
        self.eval()
        for stage in self.stages:
            assert isinstance(stage, nn.Sequential)
            for place in (0, 3):
                convolution, normalisation = stage[place], stage[place + 1]
                if isinstance(convolution, nn.Conv2d) and isinstance(normalisation, nn.BatchNorm2d):
                    stage[place] = nn.utils.fuse_conv_bn_eval(convolution, normalisation)
                    stage[place + 1] = nn.Identity()
        self.neck, self.tasks, self.folded = nn.Sequential(), nn.ModuleDict(), True
        self.frozen()
