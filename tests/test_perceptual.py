"""The LPIPS-like distance: its formula on a tiny trunk, and its order of pictures with the real weights."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from streamsr.errors import EngineError, InputNotFound
from streamsr.models.features import FeatureNetwork
from streamsr.quality.perceptual import LUMA_WEIGHTS, LpipsLike, distance_between, in_colour

WEIGHTS = Path(__file__).resolve().parents[2] / "shared" / "weights"
FILES = (WEIGHTS / "squeezenet1.1.safetensors", WEIGHTS / "lpips_linear_v0.1.safetensors")
needs_weights = pytest.mark.skipif(not all(path.is_file() for path in FILES), reason="needs the feature weights")


class TinyTrunk(FeatureNetwork):
    """The picture itself, and its means of 2x2."""

    depths = ("whole", "halved")

    def forward(self, rgb: Tensor) -> list[Tensor]:
        return [rgb, functional.avg_pool2d(rgb, 2)]


@pytest.fixture
def tiny() -> LpipsLike:
    return LpipsLike(TinyTrunk(), [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 0.0, 10.0])])


@pytest.fixture(scope="module")
def real() -> LpipsLike:
    return LpipsLike.from_files(*FILES)


def scene(size: int = 64) -> Tensor:
    """A smooth coloured ground with fine bright lines on it, (1, 3, size, size)."""
    random = torch.Generator().manual_seed(5)
    ground = functional.interpolate(torch.rand(1, 3, 5, 5, generator=random), size=(size, size), mode="bicubic")
    lines = (torch.rand(1, 1, size, size, generator=random) > 0.97).float()
    vessels = functional.max_pool2d(lines, (1, 5), stride=1, padding=(0, 2))
    return (0.2 + 0.5 * ground + 0.25 * vessels).clamp(0, 1)


def blurred(picture: Tensor, sigma: float) -> Tensor:
    taps = torch.exp(-0.5 * (torch.arange(-8, 9) / sigma) ** 2)
    kernel = torch.outer(taps, taps) / taps.sum() ** 2
    padded = functional.pad(picture, (8, 8, 8, 8), mode="reflect")
    return functional.conv2d(padded, kernel.expand(3, 1, 17, 17), groups=3)


def noisy(picture: Tensor, sigma: float) -> Tensor:
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(9))
    return (picture + sigma * noise).clamp(0, 1)


def test_distance_is_the_weighted_squared_difference_of_unit_features(tiny: LpipsLike) -> None:
    red, grey = torch.tensor([0.5, 0.0, 0.0]), torch.tensor([0.2, 0.2, 0.2])
    pictures = [colour[None, :, None, None].expand(1, 3, 4, 4) for colour in (red, grey)]
    part = 1 / 3**0.5
    expected = (1 - part) ** 2 + (2 + 3) * part**2 + 10 * part**2
    assert tiny(*pictures).item() == pytest.approx(expected, rel=1e-6)


def test_distance_sums_depths_and_keeps_pictures_apart(tiny: LpipsLike) -> None:
    truth = torch.rand(3, 3, 8, 8)
    changed = truth.clone()
    changed[1, 0] = 1 - changed[1, 0]
    distance = tiny(changed, truth)
    assert distance.shape == (3,)
    assert distance[0] == distance[2] == 0
    assert distance[1] > 0
    assert tiny(changed[1:2], truth[1:2]).item() == pytest.approx(distance[1].item())


def test_a_mask_counts_only_what_lies_in_it(tiny: LpipsLike) -> None:
    truth = torch.rand(2, 3, 8, 8)
    changed = truth.clone()
    changed[:, 2, :, 4:] = 1 - changed[:, 2, :, 4:]
    left = torch.zeros(1, 1, 8, 8)
    left[..., :4] = 1
    assert torch.equal(tiny(changed, truth, left), torch.zeros(2))
    torch.testing.assert_close(tiny(changed, truth, 1 - left), tiny(changed[..., 4:], truth[..., 4:]))
    assert torch.isnan(tiny(changed, truth, 0 * left)).all()


def test_black_pictures_have_finite_gradients_and_no_distance(tiny: LpipsLike) -> None:
    picture = torch.zeros(1, 3, 8, 8, requires_grad=True)
    distance = tiny(picture, torch.zeros(1, 3, 8, 8))
    distance.sum().backward()
    assert distance.item() == 0
    assert picture.grad is not None
    assert torch.isfinite(picture.grad).all()


def test_autocast_does_not_change_the_figure(tiny: LpipsLike) -> None:
    pictures = torch.rand(2, 1, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        under = tiny(*pictures)
    assert torch.equal(under, tiny(*pictures))


def test_pictures_of_two_shapes_and_missing_weights_are_refused(tiny: LpipsLike) -> None:
    with pytest.raises(ValueError, match="one shape"):
        tiny(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 9))
    with pytest.raises(ValueError, match="expected weights for 2 depths"):
        LpipsLike(TinyTrunk(), [torch.ones(3)])


@needs_weights
def test_wrong_files_are_refused_in_one_line(tmp_path: Path) -> None:
    linear = load_file(FILES[1])
    linear["squeeze.lin3.model.1.weight"] = torch.zeros(1, 383, 1, 1)
    save_file(linear, tmp_path / "wrong.safetensors")
    with pytest.raises(EngineError, match=r"expected squeeze.lin3.model.1.weight of .* got \(1, 383, 1, 1\)"):
        LpipsLike.from_files(FILES[0], tmp_path / "wrong.safetensors")
    with pytest.raises(EngineError, match="got no such weight"):
        LpipsLike.from_files(FILES[0], FILES[0])
    with pytest.raises(InputNotFound):
        LpipsLike.from_files(tmp_path / "none.safetensors", FILES[1])


@needs_weights
def test_equal_pictures_have_no_distance_and_the_distance_is_symmetric(real: LpipsLike) -> None:
    picture, other = scene(), blurred(scene(), 2)
    assert real(picture, picture).item() == 0
    torch.testing.assert_close(real(picture, other), real(other, picture))
    assert real(picture, other).item() > 0.01


@needs_weights
@pytest.mark.parametrize("spoil", [blurred, noisy])
def test_distance_grows_with_blur_and_with_noise(real: LpipsLike, spoil: object) -> None:
    amounts = (0.6, 1.0, 2.0, 4.0) if spoil is blurred else (0.01, 0.03, 0.08, 0.2)
    assert callable(spoil)
    distances = [real(spoil(scene(), amount), scene()).item() for amount in amounts]
    assert all(near < far for near, far in pairwise((0.0, *distances))), distances


@needs_weights
def test_a_shift_in_brightness_is_nearer_than_blur_of_the_same_error(real: LpipsLike) -> None:
    """The known order that made the distance: squared error calls these two equal, people and features do not."""
    truth = scene()
    soft = blurred(truth, 2.0)
    shifted = truth + (soft - truth).square().mean().sqrt()
    assert (shifted - truth).square().mean().item() == pytest.approx((soft - truth).square().mean().item(), rel=1e-4)
    assert 3 * real(shifted, truth).item() < real(soft, truth).item()


@needs_weights
def test_a_spoilt_surround_does_not_count_outside_the_field_of_view(real: LpipsLike) -> None:
    """But for what the deepest features see from the field: they look about a hundred pixels across its border."""
    truth = scene(160)
    spoilt = truth.clone()
    spoilt[..., :20] = noisy(truth, 0.2)[..., :20]
    field = torch.ones(1, 1, 160, 160)
    field[..., :90] = 0
    assert real(spoilt, truth, field) < 0.1 * real(spoilt, truth)


def test_colour_of_an_unrounded_luma_keeps_it_and_the_colour_differences() -> None:
    random = np.random.default_rng(0)
    rgb = random.integers(90, 160, (9, 7, 3), dtype=np.uint8)
    luma = 16 + rgb @ LUMA_WEIGHTS + random.uniform(-9, 9, (9, 7))
    made = in_colour(luma, rgb)
    np.testing.assert_allclose(16 + made @ LUMA_WEIGHTS, luma, atol=1e-9)
    assert np.ptp(made - rgb, axis=2).max() < 1e-9, "red, green and blue move together"
    np.testing.assert_allclose(in_colour(16 + rgb @ LUMA_WEIGHTS, rgb), rgb, atol=1e-9)


def test_distance_takes_integers_and_unrounded_pictures_alike(tiny: LpipsLike) -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 256, (24, 24, 3), dtype=np.uint8)
    picture = random.integers(0, 256, (24, 24, 3), dtype=np.uint8)
    figure = distance_between(tiny, picture, truth)
    assert figure > 0
    assert distance_between(tiny, picture.astype(np.float64), truth) == figure
    assert distance_between(tiny, truth + 0.25, truth) > 0
    assert distance_between(tiny, truth, truth) == 0
