"""The losses: their formulas, where their gradients go, and that they stay finite."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from streamsr.models.features import ScopeFeatures, SqueezeNetFeatures, VGG19Features
from streamsr.quality.specular import saturation_mask
from streamsr.training.losses import (
    artefact_loss,
    artefact_map,
    blend_saturated,
    charbonnier,
    consistency_loss,
    discriminator_loss,
    feature_loss,
    fft_l1,
    generator_adversarial_loss,
    log_squared,
    luma_of_rgb,
    mean_squared,
    reduce_bicubic,
)

Loss = Callable[[Tensor, Tensor], Tensor]


def edges(pictures: Tensor) -> list[Tensor]:
    """A feature network of two depths: differences along a row, and means of 4x4."""
    return [pictures[..., 1:] - pictures[..., :-1], functional.avg_pool2d(pictures, 4)]


PICTURE_LOSSES: dict[str, Loss] = {
    "charbonnier": charbonnier,
    "mean_squared": mean_squared,
    "fft_l1": fft_l1,
    "feature_l1": lambda output, truth: feature_loss(edges, output, truth),
    "feature_mse": lambda output, truth: feature_loss(edges, output, truth, form="mse"),
    "artefact": lambda output, truth: artefact_loss(output, 0.5 * (output + truth), truth),
    "consistency": lambda output, truth: consistency_loss(output, reduce_bicubic(truth, 2), 2),
}


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    torch.manual_seed(3)
    truth = torch.rand(2, 3, 16, 24)
    return (truth + 0.1 * torch.randn_like(truth)).requires_grad_(), truth


@pytest.mark.parametrize("name", PICTURE_LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_picture_losses_are_finite_float32_scalars_with_finite_gradients(
    name: str, dtype: torch.dtype, pair: tuple[Tensor, Tensor]
) -> None:
    for output in (pair[0].detach(), pair[1].clone(), torch.zeros_like(pair[1])):
        output = output.to(dtype).requires_grad_()
        loss = PICTURE_LOSSES[name](output, pair[1])
        loss.backward()
        assert loss.shape == ()
        assert loss.dtype == torch.float32
        assert torch.isfinite(loss)
        assert output.grad is not None
        assert torch.isfinite(output.grad).all()


@pytest.mark.parametrize("name", PICTURE_LOSSES)
def test_picture_losses_grow_with_the_error_and_vanish_without(name: str, pair: tuple[Tensor, Tensor]) -> None:
    output, truth = pair[0].detach(), pair[1]
    loss = PICTURE_LOSSES[name]
    floor = 1e-3 if name == "charbonnier" else 0.0
    assert loss(truth, truth).item() == pytest.approx(floor, abs=1e-7)
    assert loss(truth, truth) < loss(truth + 0.5 * (output - truth), truth) < loss(output, truth)


@pytest.mark.parametrize("name", PICTURE_LOSSES)
def test_picture_losses_give_the_same_under_autocast(name: str, pair: tuple[Tensor, Tensor]) -> None:
    output, truth = pair[0].detach(), pair[1]
    plain = PICTURE_LOSSES[name](output, truth)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(PICTURE_LOSSES[name](output, truth), plain)


def test_the_logarithm_of_the_error_weighs_every_crop_alike(pair: tuple[Tensor, Tensor]) -> None:
    output, truth = pair
    psnr = [
        -10 * torch.log10((ours - theirs).square().mean() + 1e-6) for ours, theirs in zip(output, truth, strict=True)
    ]
    expected = -torch.stack(psnr).mean() * torch.log(torch.tensor(10.0)) / 10
    torch.testing.assert_close(log_squared(output, truth), expected)


def test_charbonnier_and_squared_error_are_their_formulas() -> None:
    output, truth = torch.tensor([[[[0.3, 0.9]]]]), torch.tensor([[[[0.0, 0.5]]]])
    assert charbonnier(output, truth, eps=0.4).item() == pytest.approx((0.5 + math.hypot(0.4, 0.4)) / 2)
    assert mean_squared(output, truth).item() == pytest.approx((0.09 + 0.16) / 2)


@pytest.mark.parametrize("loss", [charbonnier, mean_squared], ids=["charbonnier", "mean_squared"])
def test_a_mask_is_the_loss_of_the_pixels_it_leaves(loss: Callable[..., Tensor], pair: tuple[Tensor, Tensor]) -> None:
    output, truth = pair
    mask = torch.zeros(1, 1, 16, 24)
    mask[..., 4:9, 2:20] = 1
    masked = loss(output, truth, mask=mask)
    torch.testing.assert_close(masked, loss(output[..., 4:9, 2:20], truth[..., 4:9, 2:20]))
    (gradient,) = torch.autograd.grad(masked, output)
    assert not gradient[(mask == 0).expand_as(gradient)].any()
    assert loss(output, truth, mask=torch.zeros_like(mask)).item() == 0


def test_spectral_loss_is_the_l1_of_numpys_orthonormal_spectrum(pair: tuple[Tensor, Tensor]) -> None:
    output, truth = pair[0].detach(), pair[1]
    spectrum = np.fft.rfft2((output - truth).double().numpy(), norm="ortho")
    expected = (np.abs(spectrum.real).mean() + np.abs(spectrum.imag).mean()) / 2
    assert fft_l1(output, truth).item() == pytest.approx(expected, rel=1e-5)


def test_feature_loss_sums_the_weighted_depths(pair: tuple[Tensor, Tensor]) -> None:
    output, truth = pair[0].detach(), pair[1]
    first, second = ((ours - aim).abs().mean() for ours, aim in zip(edges(output), edges(truth), strict=True))
    torch.testing.assert_close(feature_loss(edges, output, truth), first + second)
    torch.testing.assert_close(feature_loss(edges, output, truth, weights=[0.5, 3.0]), 0.5 * first + 3 * second)
    with pytest.raises(ValueError, match="expected 2 weights"):
        feature_loss(edges, output, truth, weights=[1.0])


def test_feature_loss_sends_no_gradient_to_the_truth(pair: tuple[Tensor, Tensor]) -> None:
    output, truth = pair[0], pair[1].clone().requires_grad_()
    feature_loss(edges, output, truth).backward()
    assert output.grad is not None
    assert output.grad.any()
    assert truth.grad is None


def test_feature_loss_does_not_see_what_the_mask_leaves_out(pair: tuple[Tensor, Tensor]) -> None:
    output, truth = pair[0].detach(), pair[1]
    mask = torch.ones(2, 1, 16, 24)
    mask[..., 8:16, 8:16] = 0
    spoilt = output.clone()
    spoilt[..., 8:16, 9:15] = 5.0
    pooled = lambda pictures: edges(pictures)[1:]  # noqa: E731
    torch.testing.assert_close(feature_loss(pooled, spoilt, truth, mask), feature_loss(pooled, output, truth, mask))
    assert feature_loss(pooled, spoilt, truth) > 2 * feature_loss(pooled, output, truth)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adversarial_losses_are_cross_entropies_and_stay_finite(dtype: torch.dtype) -> None:
    real = torch.tensor([[2.0], [-3.0], [0.5]], dtype=dtype)
    fake = torch.tensor([[-1.0], [4.0], [0.25]], dtype=dtype)
    entropy = functional.binary_cross_entropy_with_logits
    ones = torch.ones(3, 1)
    torch.testing.assert_close(generator_adversarial_loss(fake), entropy(fake.float(), ones))
    plain = entropy(real.float(), ones) + entropy(fake.float(), 0 * ones)
    torch.testing.assert_close(discriminator_loss(real, fake), plain)
    smoothed = entropy(real.float(), 0.9 * ones) + entropy(fake.float(), 0 * ones)
    torch.testing.assert_close(discriminator_loss(real, fake, smoothing=0.1), smoothed)
    wild = torch.tensor([[-1e4], [1e4]], dtype=dtype, requires_grad=True)
    (generator_adversarial_loss(wild) + discriminator_loss(wild, wild)).backward()
    assert wild.grad is not None
    assert torch.isfinite(wild.grad).all()


@pytest.mark.parametrize("as_bool", [False, True])
def test_blending_shows_the_truth_where_saturated_and_stops_the_gradient_there(
    as_bool: bool, pair: tuple[Tensor, Tensor]
) -> None:
    output, truth = pair
    saturated = torch.zeros(2, 1, 16, 24)
    saturated[:, :, 5:8, 3:6] = 1
    inside = (saturated > 0).expand_as(truth)
    blended = blend_saturated(output, truth, saturated.bool() if as_bool else saturated)
    assert torch.equal(blended[inside], truth[inside])
    assert torch.equal(blended[~inside], output[~inside])
    blended.sum().backward()
    assert output.grad is not None
    assert torch.equal(output.grad, (~inside).float())


def test_artefact_map_is_the_one_of_the_paper(pair: tuple[Tensor, Tensor]) -> None:
    output, truth = pair[0].detach(), pair[1]
    average = truth + 0.08 * torch.randn_like(truth)
    residual, steady = ((truth - picture).abs().sum(1, keepdim=True) for picture in (output, average))
    windows = functional.unfold(functional.pad(residual, (3, 3, 3, 3), mode="reflect"), 7)
    local = windows.var(dim=1).reshape(2, 1, 16, 24)
    expected = residual.var(dim=(-1, -2, -3), keepdim=True) ** 0.2 * local
    expected[residual < steady] = 0
    found = artefact_map(output, average, truth)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
    assert 0.2 < (found == 0).float().mean() < 0.8
    torch.testing.assert_close(artefact_loss(output, average, truth), (expected * (output - truth).abs()).mean())


@pytest.mark.parametrize(("scale", "height", "width"), [(2, 16, 24), (4, 32, 12), (2, 6, 4), (4, 8, 8)])
def test_reduction_is_the_antialiased_bicubic_filter(scale: int, height: int, width: int) -> None:
    torch.manual_seed(1)
    picture = torch.rand(2, 3, height, width)
    expected = functional.interpolate(
        picture, size=(height // scale, width // scale), mode="bicubic", antialias=True, align_corners=False
    )
    torch.testing.assert_close(reduce_bicubic(picture, scale), expected, atol=2e-6, rtol=1e-5)


def test_consistency_is_the_l1_after_reduction_and_needs_whole_multiples(pair: tuple[Tensor, Tensor]) -> None:
    output, truth = pair[0].detach(), pair[1]
    lr = reduce_bicubic(truth, 4)
    torch.testing.assert_close(
        consistency_loss(output, lr + 0.25, 4), (reduce_bicubic(output, 4) - lr - 0.25).abs().mean()
    )
    with pytest.raises(ValueError, match="multiples of 5"):
        reduce_bicubic(output, 5)


def test_luma_of_black_white_and_the_primaries_is_that_of_bt601() -> None:
    colours = torch.tensor([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float32)
    luma = luma_of_rgb(colours[:, :, None, None])
    assert luma.shape == (5, 1, 1, 1)
    expected = torch.tensor([16.0, 235.0, 81.481, 144.553, 40.966])  # Poynton's integers: 16, 235, 81, 145, 41
    torch.testing.assert_close(luma.flatten() * 255, expected)


@pytest.mark.needs_cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_all_losses_and_their_gradients_replay_from_a_cuda_graph() -> None:
    torch.manual_seed(0)
    networks = [SqueezeNetFeatures().cuda(), ScopeFeatures((8, 16)).fold().cuda(), VGG19Features(("relu3_1",)).cuda()]
    truth = torch.rand(2, 3, 64, 64, device="cuda")
    output = torch.rand(2, 3, 64, 64, device="cuda", requires_grad=True)
    output.grad = torch.zeros_like(output)

    def step() -> Tensor:
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
            highlights = saturation_mask(truth, scale=1, grow_px=2)
            seen = blend_saturated(output, truth, highlights)
            total = sum((loss(seen, truth) for loss in PICTURE_LOSSES.values()), output.new_zeros(()))
            for network in networks:
                total = total + feature_loss(network, seen, truth, 1 - highlights)
            logits = luma_of_rgb(output).mean(dim=(2, 3))
            total = total + generator_adversarial_loss(logits) + discriminator_loss(logits, logits)
        assert output.grad is not None
        output.grad.zero_()
        total.backward()
        return total.detach()

    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        output.copy_(torch.rand_like(output))
    graph.replay()
    replayed, gradient = captured.clone(), output.grad.clone()
    torch.testing.assert_close(replayed, step(), rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(gradient, output.grad, rtol=1e-1, atol=1e-4)
