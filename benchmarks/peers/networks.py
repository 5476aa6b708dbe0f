"""Published networks for luma, in plain torch, written from their papers, to be trained beside our students.

Each reads luma (N, 1, H, W) in [0, 1] and writes (N, 1, scale * H, scale * W), not clamped; three channels where it
says RGB. Costs are multiply-adds a low-resolution pixel; biases, activations and attention products are left out, as
the papers do. All pad with zeros.
``colours=3`` gives the RGB form, whose parameter counts are the published ones; ``branched=True`` gives the training
form whose 3x3 convolutions are sums of branches, as ours are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from streamsr.models.student import BranchedConv


class Branches(BranchedConv):
    """A 3x3 convolution as a sum of branches (SPAN's Conv3XC), collapsed in weight space at every step."""

    def forward(self, features: Tensor) -> Tensor:
        """Filter (N, inputs, H, W) to (N, outputs, H, W)."""
        with torch.autocast(features.device.type, enabled=False):
            weight, bias = self.collapsed()
        return functional.conv2d(features, weight, bias, padding=1)

    def plain(self) -> nn.Conv2d:
        """Return the one convolution that computes the same."""
        weight, bias = self.collapsed()
        convolution = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1).to(weight)
        convolution.load_state_dict({"weight": weight, "bias": bias})
        return convolution


def conv3(inputs: int, outputs: int, *, branched: bool = False) -> nn.Module:
    """Return a 3x3 convolution, zero-padded, plain or as a sum of branches."""
    return Branches(inputs, outputs) if branched else nn.Conv2d(inputs, outputs, 3, padding=1)


class Peer(nn.Module):
    """What every peer has: a scale, a cost, and a reach.

    Attributes:
        colours: 1 luma, 3 RGB.
    """

    colours = 1

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    @property
    def macs_per_pixel(self) -> int:
        """Multiply-adds a low-resolution pixel: one a weight, since every layer runs at low resolution.

        A strided deconvolution scatters every input feature through its whole kernel once, so it counts so too: that
        is what its polyphase form costs.
        """
        counted = 0
        for layer in self.modules():
            if isinstance(layer, Branches):
                counted += layer.direct.weight.numel() - _inner_weights(layer)
            elif isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                counted += layer.weight.numel()
        return counted

    @property
    def published_macs_per_pixel(self) -> int:
        """Multiply-adds as the field's comparison tables count them; differs for FSRCNN alone."""
        return self.macs_per_pixel

    @property
    def receptive_radius_px(self) -> int:
        """Low-resolution pixels on each side of a pixel that its output depends on."""
        raise NotImplementedError

    def collapse(self) -> Peer:
        """Make every sum of branches the one convolution it equals, in place; return the network itself."""
        with torch.no_grad():
            for parent in list(self.modules()):
                for name, child in list(parent.named_children()):
                    if isinstance(child, Branches):
                        setattr(parent, name, child.plain())
        return self


def _inner_weights(branches: Branches) -> int:
    """Return how many weights of convolution modules inside a sum of branches `modules()` counts by itself."""
    return sum(layer.weight.numel() for layer in branches.modules() if isinstance(layer, nn.Conv2d))


class Fsrcnn(Peer):
    """FSRCNN (Dong, Loy, Tang 2016, arXiv 1608.00367): shrink, map, expand, 9x9 deconvolution; no skip.

    PReLU a channel; convolutions drawn as He et al. 2015 for PReLU, the deconvolution with deviation 0.001 (sec. 4.1).

    Args:
        scale: enlargement.
        features: d of the paper.
        shrunk: s of the paper.
        mappings: m of the paper.
    """

    def __init__(self, scale: int, *, features: int = 56, shrunk: int = 12, mappings: int = 4) -> None:
        super().__init__(scale)
        layers: list[nn.Module] = [nn.Conv2d(1, features, 5, padding=2), nn.PReLU(features)]
        layers += [nn.Conv2d(features, shrunk, 1), nn.PReLU(shrunk)]
        for _ in range(mappings):
            layers += [conv3(shrunk, shrunk), nn.PReLU(shrunk)]
        layers += [nn.Conv2d(shrunk, features, 1), nn.PReLU(features)]
        self.body = nn.Sequential(*layers)
        self.deconvolution = nn.ConvTranspose2d(features, 1, 9, stride=scale, padding=4, output_padding=scale - 1)
        self.mappings = mappings
        for layer in self.body:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, a=0.25)
        nn.init.normal_(self.deconvolution.weight, std=0.001)

    def forward(self, luma: Tensor) -> Tensor:
        """Enlarge luma."""
        enlarged: Tensor = self.deconvolution(self.body(luma))
        return enlarged

    @property
    def published_macs_per_pixel(self) -> int:
        """Multiply-adds with the deconvolution counted as a 9x9 convolution at output size, as tables count it."""
        deconvolution = self.deconvolution.weight.numel()
        return self.macs_per_pixel + deconvolution * (self.scale**2 - 1)

    @property
    def receptive_radius_px(self) -> int:
        """5x5, `mappings` 3x3, and what of the 9x9 deconvolution's 4 output pixels reaches over an input pixel."""
        return 2 + self.mappings + max(4 // self.scale, (self.scale + 3) // self.scale)


class Espcn(Peer):
    """ESPCN (Shi et al. 2016, arXiv 1609.05158): 5x5 to 64, 3x3 to 32, 3x3 to scale^2, shuffle; no skip.

    The paper's figures use tanh, which it found better than ReLU (sec. 3.2); so does this.
    """

    def __init__(self, scale: int) -> None:
        super().__init__(scale)
        self.layers = nn.Sequential(
            *(nn.Conv2d(1, 64, 5, padding=2), nn.Tanh()),
            *(conv3(64, 32), nn.Tanh()),
            *(conv3(32, scale**2), nn.PixelShuffle(scale)),
        )

    def forward(self, luma: Tensor) -> Tensor:
        """Enlarge luma."""
        enlarged: Tensor = self.layers(luma)
        return enlarged

    @property
    def receptive_radius_px(self) -> int:
        """2 of the 5x5 and 1 of each 3x3 convolution."""
        return 4


class Compact(Peer):
    """Compact, SRVGGNetCompact of Real-ESRGAN (Wang et al. 2021): plain 3x3 convolutions, PReLU, nearest skip.

    Args:
        scale: enlargement.
        channels: width.
        depth: number of convolutions between the first and the last.
        colours: 1 luma, 3 RGB.
    """

    def __init__(self, scale: int, *, channels: int = 64, depth: int = 16, colours: int = 1) -> None:
        super().__init__(scale)
        self.colours = colours
        layers = [conv3(colours, channels), nn.PReLU(channels)]
        for _ in range(depth):
            layers += [conv3(channels, channels), nn.PReLU(channels)]
        self.layers = nn.Sequential(*layers, conv3(channels, colours * scale**2), nn.PixelShuffle(scale))
        self.depth = depth

    def forward(self, luma: Tensor) -> Tensor:
        """Enlarge luma."""
        enlarged: Tensor = self.layers(luma) + functional.interpolate(luma, scale_factor=self.scale, mode="nearest")
        return enlarged

    @property
    def receptive_radius_px(self) -> int:
        """One a convolution."""
        return self.depth + 2


class AttentionBlock(nn.Module):
    """SPAN's block: three convolutions, then a product with an attention that has no parameters (eq. 2 to 4).

    Args:
        channels: width.
        branched: convolutions as sums of branches.
    """

    def __init__(self, channels: int, *, branched: bool) -> None:
        super().__init__()
        self.first, self.second, self.third = (conv3(channels, channels, branched=branched) for _ in range(3))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the block's output and its first convolution's, both (N, channels, H, W)."""
        first = self.first(features)
        third = self.third(functional.silu(self.second(functional.silu(first))))
        return (third + features) * (torch.sigmoid(third) - 0.5), first


class Span(Peer):
    """SPAN (Wan et al. 2024, arXiv 2311.12770): six parameter-free attention blocks, four features joined; no skip.

    The luma form takes the mean of the published RGB means; the published range of 255 inside the network is kept. The
    output is brought back by the same range and mean, which the last convolution could hold as well: without it 150
    first steps ended at five times the error, and at equal steps that would be unfair to SPAN.

    Args:
        scale: enlargement.
        channels: width; 48 in the paper, 28 in the NTIRE 2024 to 2026 challenges.
        colours: 1 luma, 3 RGB.
        branched: the training form.
    """

    MEAN, RANGE = 0.42, 255.0

    def __init__(self, scale: int, *, channels: int = 28, colours: int = 1, branched: bool = False) -> None:
        super().__init__(scale)
        self.colours = colours
        self.enter = conv3(colours, channels, branched=branched)
        self.blocks = nn.ModuleList(AttentionBlock(channels, branched=branched) for _ in range(6))
        self.leave = conv3(channels, channels, branched=branched)
        self.join = nn.Conv2d(4 * channels, channels, 1)
        self.enlarge = nn.Sequential(conv3(channels, colours * scale**2), nn.PixelShuffle(scale))

    def forward(self, luma: Tensor) -> Tensor:
        """Enlarge luma."""
        entered = self.enter((luma - self.MEAN) * self.RANGE)
        features, outputs, firsts = entered, [], []
        for block in self.blocks:
            features, first = block(features)
            outputs.append(features)
            firsts.append(first)
        joined = self.join(torch.cat((entered, self.leave(features), outputs[0], firsts[-1]), dim=1))
        enlarged: Tensor = self.enlarge(joined) / self.RANGE + self.MEAN
        return enlarged

    @property
    def receptive_radius_px(self) -> int:
        """One a 3x3 convolution: first, 18 in blocks, one after them, last."""
        return 21


class ResidualGroup(nn.Module):
    """Four 3x3 convolutions with SiLU between them, and the input added.

    Args:
        channels: width.
        branched: convolutions as sums of branches.
    """

    def __init__(self, channels: int, *, branched: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(conv3(channels, channels, branched=branched) for _ in range(4))

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, channels, H, W) for (N, channels, H, W)."""
        inner = features
        for layer in self.layers:
            inner = functional.silu(layer(inner))
        return features + inner


class Disp(Peer):
    """Like DISP of the NTIRE 2026 efficient challenge: plain 3x3 convolutions, SiLU, residual groups, nearest skip.

    Drawn from its published shape (18 convolutions of 32 channels and a 1x1, 163,168 multiply-adds a pixel for x4
    RGB), not from its code: the order inside a group and the skip are ours.

    Args:
        scale: enlargement.
        channels: width.
        colours: 1 luma, 3 RGB.
        branched: the training form.
    """

    def __init__(self, scale: int, *, channels: int = 32, colours: int = 1, branched: bool = False) -> None:
        super().__init__(scale)
        self.colours = colours
        self.enter = conv3(colours, channels, branched=branched)
        self.groups = nn.Sequential(*(ResidualGroup(channels, branched=branched) for _ in range(4)))
        self.mix = nn.Conv2d(channels, channels, 1)
        self.enlarge = nn.Sequential(conv3(channels, colours * scale**2), nn.PixelShuffle(scale))

    def forward(self, luma: Tensor) -> Tensor:
        """Enlarge luma."""
        entered = self.enter(luma)
        residual = self.enlarge(entered + self.mix(self.groups(entered)))
        enlarged: Tensor = residual + functional.interpolate(luma, scale_factor=self.scale, mode="nearest")
        return enlarged

    @property
    def receptive_radius_px(self) -> int:
        """One a 3x3 convolution: first, 16 in groups, last."""
        return 18


class PlainBlock(nn.Module):
    """SRResNet's residual block without batch normalisation: 3x3, ReLU, 3x3, and the input added.

    Args:
        channels: width.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(conv3(channels, channels), nn.ReLU(), conv3(channels, channels))

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, channels, H, W) for (N, channels, H, W)."""
        change: Tensor = self.layers(features)
        return features + change


class SmallResnet(Peer):
    """SRResNet's body (Ledig et al. 2017, figure 4: residual blocks, a long skip) at the cost of a student.

    Luma, without batch normalisation, as BasicSR's MSRResNet and EDSR (Lim et al. 2017) have it, and with a student's
    tail in place of convolutions at full size, which alone would cost ten times as much; so it is a relative of the
    published network, whose full form is the engine ``srresnet-x4``. Nearest skip.

    Args:
        scale: enlargement.
        channels: width; 64 in the paper.
        blocks: residual blocks; 16 in the paper.
    """

    def __init__(self, scale: int, *, channels: int = 24, blocks: int = 6) -> None:
        super().__init__(scale)
        self.enter = nn.Sequential(conv3(1, channels), nn.ReLU())
        self.blocks = nn.Sequential(*(PlainBlock(channels) for _ in range(blocks)), conv3(channels, channels))
        self.enlarge = nn.Sequential(conv3(channels, scale**2), nn.PixelShuffle(scale))
        self.num_blocks = blocks

    def forward(self, luma: Tensor) -> Tensor:
        """Enlarge luma."""
        entered = self.enter(luma)
        residual: Tensor = self.enlarge(entered + self.blocks(entered))
        return residual + functional.interpolate(luma, scale_factor=self.scale, mode="nearest")

    @property
    def receptive_radius_px(self) -> int:
        """One a 3x3 convolution: first, two a block, one after them, last."""
        return 2 * self.num_blocks + 3


class StudentGroup(nn.Module):
    """Two of a student's layers, and the input added before the last activation.

    Args:
        channels: width.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (conv3(channels, channels, branched=True) for _ in range(2))

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, channels, H, W) for (N, channels, H, W)."""
        return functional.relu(features + self.second(functional.relu(self.first(features))))


class StudentVariant(Peer):
    """What our students are not: one with residual groups, or one on RGB; else as `streamsr.models.student.Student`.

    Args:
        scale: enlargement.
        channels: width.
        depth: number of channels -> channels layers.
        groups: how many residual groups are made of those layers, two each; the rest stay plain, after them.
        colours: 1 luma, 3 RGB.
    """

    def __init__(self, scale: int, *, channels: int, depth: int, groups: int = 0, colours: int = 1) -> None:
        super().__init__(scale)
        layers: list[nn.Module] = [conv3(colours, channels, branched=True), nn.ReLU()]
        layers += [StudentGroup(channels) for _ in range(groups)]
        for _ in range(depth - 2 * groups):
            layers += [conv3(channels, channels, branched=True), nn.ReLU()]
        last = conv3(channels, colours * scale**2, branched=True)
        self.layers = nn.Sequential(*layers, last, nn.PixelShuffle(scale))
        self.colours, self.depth = colours, depth

    def forward(self, luma: Tensor) -> Tensor:
        """Enlarge (N, colours, H, W)."""
        skip = functional.interpolate(luma, scale_factor=self.scale, mode="bilinear", align_corners=False)
        enlarged: Tensor = self.layers(luma) + skip
        return enlarged

    @property
    def receptive_radius_px(self) -> int:
        """One a convolution."""
        return self.depth + 2


FAMILIES: dict[str, Callable[[int], Peer]] = {
    "fsrcnn": Fsrcnn,
    "fsrcnn-wide": partial(Fsrcnn, features=68, shrunk=16),  # 18,600 multiply-adds: no fewer than tiny-x4's 18,576
    "espcn": Espcn,
    "compact": Compact,
    "span-28": partial(Span, channels=28, branched=True),
    "span-32": partial(Span, channels=32, branched=True),
    "disp": partial(Disp, branched=True),
    # Relatives at the cost of fast, 75,168 multiply-adds at x2 and 78,624 at x4, or a little below.
    "compact-s": partial(Compact, channels=32, depth=8),
    "span-s": partial(Span, channels=20, branched=True),
    "resnet-s": SmallResnet,
    # Our students as they might have been, at their cost but for three times the first and the last layer on RGB.
    "quality-groups": partial(StudentVariant, channels=48, depth=7, groups=3),
    "fast-rgb": partial(StudentVariant, channels=32, depth=8, colours=3),
}
"""Every family in its training form, by the enlargement."""

PEERS: dict[str, Callable[[], Peer]] = {
    f"{family}-x{scale}": partial(make, scale) for family, make in FAMILIES.items() for scale in (2, 4)
}
"""Every peer by name, such as ``fsrcnn-x2``; called without arguments, as its weights and card name it."""
