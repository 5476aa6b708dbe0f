"""The discriminator: the published sizes, a score in 0..1, gradients that reach the picture."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from streamsr.models.discriminator import SRGANDiscriminator
from streamsr.models.srgan import count_parameters


@pytest.fixture
def small() -> SRGANDiscriminator:
    torch.manual_seed(0)
    return SRGANDiscriminator(size_px=32)


@pytest.mark.parametrize(("size_px", "count"), [(96, 23_563_649), (128, 38_243_713)])
def test_discriminator_has_the_published_number_of_parameters(size_px: int, count: int) -> None:
    with torch.device("meta"):
        discriminator = SRGANDiscriminator(size_px=size_px)
    assert count_parameters(discriminator) == count
    assert abs(count / 1e6 - {96: 23.6, 128: 38.2}[size_px]) < 0.05


def test_layers_are_those_of_figure_4(small: SRGANDiscriminator) -> None:
    convolutions = [layer for layer in small.features if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [64, 64, 128, 128, 256, 256, 512, 512]
    assert [layer.stride[0] for layer in convolutions] == [1, 2, 1, 2, 1, 2, 1, 2]
    assert all(layer.kernel_size == (3, 3) for layer in convolutions)
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in small.features) == 7
    assert isinstance(small.features[1], nn.LeakyReLU)
    leaks = [layer.negative_slope for layer in small.modules() if isinstance(layer, nn.LeakyReLU)]
    assert leaks == [0.2] * 9


def test_score_is_the_sigmoid_of_the_logits_and_lies_in_0_to_1(small: SRGANDiscriminator) -> None:
    small.eval()
    with torch.no_grad():
        small.verdict[2].weight.mul_(10_000)
        pictures = torch.rand(4, 3, 32, 32)
        logits, score = small(pictures), small.score(pictures)
    assert logits.shape == score.shape == (4, 1)
    assert logits.abs().max() > 1
    assert 0 <= score.min() <= score.max() <= 1
    assert torch.equal(score, torch.sigmoid(logits))


def test_gradient_reaches_every_pixel_and_every_parameter(small: SRGANDiscriminator) -> None:
    pictures = torch.rand(2, 3, 32, 32, requires_grad=True)
    small(pictures).mul(torch.tensor([[1.0], [-2.0]])).sum().backward()
    assert pictures.grad is not None
    assert (pictures.grad != 0).all()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in small.parameters())


def test_it_learns_to_tell_smooth_pictures_from_rough_ones(small: SRGANDiscriminator) -> None:
    optimiser = torch.optim.Adam(small.parameters(), lr=1e-4)
    smooth = torch.rand(4, 3, 1, 1).expand(4, 3, 32, 32)
    rough = torch.rand(4, 3, 32, 32)
    for _ in range(5):
        loss = nn.functional.softplus(-small(smooth)).mean() + nn.functional.softplus(small(rough)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        assert small.score(smooth).mean() > small.score(rough).mean() + 0.5


def test_pictures_of_another_size_are_refused(small: SRGANDiscriminator) -> None:
    with pytest.raises(ValueError, match="expected pictures of"):
        small(torch.rand(1, 3, 48, 48))
    with pytest.raises(ValueError, match="multiple of 16"):
        SRGANDiscriminator(size_px=40)


def test_channels_last_gives_the_same_logits(small: SRGANDiscriminator) -> None:
    small.eval()
    pictures = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        plain = small(pictures)
        small.to(memory_format=torch.channels_last)
        torch.testing.assert_close(small(pictures.contiguous(memory_format=torch.channels_last)), plain)
