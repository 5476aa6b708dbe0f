"""Networks: published sizes, receptive radii, exact collapse and exact folding."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from streamsr.models.srgan import SRGANGenerator, count_parameters, fold_batch_norm
from streamsr.models.student import SPECS, BranchedStudent, Student, StudentSpec, bilinear_taps


def reach_px(network: nn.Module, *, channels: int, size: int) -> int:
    """Return how far from the middle the input still moves the middle output, by gradient in float64."""
    picture = torch.rand(1, channels, size, size, dtype=torch.float64, requires_grad=True)
    network = network.double()
    output = network(picture)
    side = output.shape[-1]
    output[..., side // 2, side // 2].sum().backward()
    assert picture.grad is not None
    rows = picture.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
    return int((rows - size // 2).abs().max())


@torch.no_grad()
def randomise(network: nn.Module) -> None:
    """Give batch normalisations random statistics and gains, so that folding has something to get wrong."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor, low in (
                (layer.running_mean, -0.2),
                (layer.running_var, 0.5),
                (layer.weight, 0.5),
                (layer.bias, -0.2),
            ):
                assert tensor is not None
                tensor.copy_(torch.rand_like(tensor) + low)


@pytest.mark.parametrize(("scale", "parameters", "macs"), [(4, 1_547_350, 2_218_176), (2, 1_399_637, 1_441_728)])
def test_srgan_generator_has_the_published_size(scale: int, parameters: int, macs: int) -> None:
    generator = SRGANGenerator(scale=scale)
    assert count_parameters(generator) == parameters
    assert generator.macs_per_pixel == macs


@pytest.mark.parametrize("scale", [2, 4])
def test_srgan_generator_enlarges_and_folds_exactly(scale: int) -> None:
    torch.manual_seed(0)
    generator = SRGANGenerator(scale=scale, num_blocks=2).eval()
    randomise(generator)
    rgb = torch.rand(1, 3, 13, 9)
    folded = fold_batch_norm(generator)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())
    with torch.inference_mode():
        expected = generator(rgb)
        assert expected.shape == (1, 3, 13 * scale, 9 * scale)
        torch.testing.assert_close(folded(rgb), expected, atol=1e-5, rtol=1e-4)


def test_srgan_generator_refuses_other_scales() -> None:
    with pytest.raises(ValueError, match="2 or 4, got 3"):
        SRGANGenerator(scale=3)


@pytest.mark.parametrize("num_blocks", [1, 2, 3])
@pytest.mark.parametrize("scale", [2, 4])
def test_srgan_radius_is_what_the_gradient_says(scale: int, num_blocks: int) -> None:
    torch.manual_seed(1)
    generator = SRGANGenerator(scale=scale, num_blocks=num_blocks).eval()
    radius = generator.receptive_radius_px
    assert reach_px(generator, channels=3, size=2 * radius + 5) == radius


def test_srgan_radius_grows_by_two_a_block_to_40_at_full_depth() -> None:
    radii = [SRGANGenerator(scale=4, num_blocks=num_blocks).receptive_radius_px for num_blocks in range(1, 17)]
    assert [later - earlier for earlier, later in pairwise(radii)] == [2] * 15
    assert radii[-1] == 40


@pytest.mark.parametrize("name", SPECS)
def test_student_radius_is_what_the_gradient_says(name: str) -> None:
    torch.manual_seed(2)
    radius = SPECS[name].receptive_radius_px
    assert reach_px(Student(SPECS[name]), channels=1, size=2 * radius + 5) == radius


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_student_cost_is_that_of_its_convolutions(spec: StudentSpec) -> None:
    student = Student(spec)
    assert spec.macs_per_pixel == sum(layer.weight.numel() for layer in student.layers)  # type: ignore[union-attr, misc]


def test_branches_collapse_exactly() -> None:
    torch.manual_seed(3)
    branched = BranchedStudent(StudentSpec(channels=16, depth=2, scale=2)).double()
    luma = torch.rand(2, 1, 12, 17, dtype=torch.float64)
    student = branched.collapse().double()
    with torch.inference_mode():
        torch.testing.assert_close(student(luma), branched(luma), atol=1e-6, rtol=0)
        layer = branched.layers[1]
        features = torch.rand(1, 16, 8, 8, dtype=torch.float64)
        weight, bias = layer.collapsed()  # type: ignore[operator]
        chain = functional.conv2d(features, layer.widen[:, :, None, None])  # type: ignore[index]
        chain = functional.conv2d(functional.conv2d(chain, layer.cross, padding=1), layer.narrow[:, :, None, None])  # type: ignore[arg-type, index]
        direct = layer.direct(features) + functional.conv2d(features, layer.point[:, :, None, None])  # type: ignore[operator, index]
        torch.testing.assert_close(functional.conv2d(features, weight, bias, padding=1), chain + direct)


@pytest.mark.parametrize("scale", [2, 4])
def test_skip_of_an_untrained_body_is_bilinear_interpolation(scale: int) -> None:
    student = Student(StudentSpec(channels=16, depth=1, scale=scale))
    with torch.no_grad():
        student.layers[-1].weight.zero_()  # type: ignore[union-attr, operator]
        student.layers[-1].bias.zero_()  # type: ignore[union-attr, operator]
    luma = torch.rand(1, 1, 7, 9)
    expected: Tensor = functional.interpolate(luma, scale_factor=scale, mode="bilinear", align_corners=False)
    with torch.inference_mode():
        torch.testing.assert_close(student(luma), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", [2, 4])
def test_skip_taps_are_exact_in_small_integers(scale: int) -> None:
    whole = bilinear_taps(scale) * (2 * scale) ** 2
    assert torch.equal(whole, whole.round())
    assert float(whole.abs().max()) <= 127
    assert torch.equal(whole.sum(dim=(1, 2, 3)), torch.full((scale**2,), float((2 * scale) ** 2)))
