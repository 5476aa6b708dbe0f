"""Feature networks: files recognised by their names, features that are the right ones, and our own network's forms."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from streamsr.errors import EngineError, InputNotFound
from streamsr.models.features import (
    FeatureNetwork,
    ScopeFeatures,
    SqueezeNetFeatures,
    VGG19Features,
    vgg19_layers,
    vgg19_shape,
)
from streamsr.quality.feature_files import (
    TORCHVISION_PLACES,
    load_feature_network,
    load_vgg19,
    save_scope_features,
)

WEIGHTS = Path(__file__).resolve().parents[2] / "shared" / "weights"
NORMALISED = WEIGHTS / "vgg19_normalised_relu3_1.safetensors"
SQUEEZENET = WEIGHTS / "squeezenet1.1.safetensors"


def needs(path: Path) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not path.is_file(), reason=f"needs {path.name}")


@pytest.fixture(scope="module")
def torchvision_weights() -> dict[str, Tensor]:
    """Numbers of a VGG-19 of torchvision's names and shapes, cheaply drawn, with a classifier's weight beside."""
    weights = {"classifier.0.weight": torch.zeros(2, 2)}
    for seed, (layer, place) in enumerate(zip(vgg19_layers(), TORCHVISION_PLACES, strict=True)):
        shape = vgg19_shape(layer)
        row = torch.randn(9 * 97, generator=torch.Generator().manual_seed(seed)) * (2 / (9 * shape[1])) ** 0.5
        count = torch.Size(shape).numel()
        weights[f"features.{place}.weight"] = row.repeat(-(-count // len(row)))[:count].reshape(shape).clone()
        weights[f"features.{place}.bias"] = torch.full(shape[:1], 0.01 * seed)
    return weights


@pytest.fixture(scope="module")
def torchvision_file(torchvision_weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vgg") / "vgg19.safetensors"
    save_file(torchvision_weights, path)
    return path


def torchvision_vgg19(weights: dict[str, Tensor], picture: Tensor, *, last: int) -> Tensor:
    """Run the first ``last`` + 1 layers of torchvision's ``vgg19().features`` as its configuration lists them."""
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    features = (picture - mean[:, None, None]) / deviation[:, None, None]
    place = 0
    for width in (64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4, "M"):
        if width == "M":
            features, place = functional.max_pool2d(features, 2), place + 1
        else:
            bias = weights[f"features.{place}.bias"]
            features = functional.conv2d(features, weights[f"features.{place}.weight"], bias, padding=1)
            if place == last:
                break
            features, place = functional.relu(features), place + 2
        if place - 1 == last:
            break
    return features


def test_phi_5_4_is_torchvisions_after_activation_scaled_as_in_the_paper(
    torchvision_weights: dict[str, Tensor], torchvision_file: Path
) -> None:
    picture = torch.rand(1, 3, 32, 32)
    network = load_feature_network(torchvision_file)
    assert (network.name, network.depths) == ("vgg19", ("relu5_4",))
    (found,) = network(picture)
    expected = functional.relu(torchvision_vgg19(torchvision_weights, picture, last=34)) / 12.75
    assert found.shape == (1, 512, 2, 2)
    assert found.std() > 0
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_depths_are_served_in_order_before_and_after_activation(
    torchvision_weights: dict[str, Tensor], torchvision_file: Path
) -> None:
    picture = torch.rand(1, 3, 24, 40)
    before, after = load_vgg19(torchvision_file, depths=("conv2_2", "relu3_1"))(picture)
    torch.testing.assert_close(
        before * 12.75, torchvision_vgg19(torchvision_weights, picture, last=7), atol=1e-4, rtol=1e-4
    )
    assert before.min() < 0
    assert after.min() == 0
    assert (before.shape, after.shape) == ((1, 128, 12, 20), (1, 256, 6, 10))


def test_a_weights_only_state_dict_gives_what_safetensors_gives(
    torchvision_weights: dict[str, Tensor], torchvision_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "vgg19.pth"
    torch.save(torchvision_weights, path)
    picture = torch.rand(1, 3, 16, 16)
    ours, theirs = (load_vgg19(file, depths=("relu2_1",))(picture)[0] for file in (path, torchvision_file))
    assert torch.equal(ours, theirs)


class Evil:
    """What a state dict must not hold."""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features.16.weight": None}, "expected features.16.weight of .* got no such weight"),
        ({"features.2.bias": torch.zeros(63)}, r"expected features.2.bias of \(64,\) .* got \(63,\)"),
        ({"features.0.bias": torch.full((64,), torch.nan)}, "finite numbers in features.0.bias"),
        ({"features.0.weight": None}, "expected weights of torchvision VGG-19"),
    ],
    ids=["missing", "misshapen", "nan", "unknown"],
)
def test_a_wrong_vgg19_file_is_refused_in_one_line(
    change: dict[str, Tensor | None], message: str, torchvision_weights: dict[str, Tensor], tmp_path: Path
) -> None:
    held = {name: tensor for name, tensor in {**torchvision_weights, **change}.items() if tensor is not None}
    save_file(held, tmp_path / "wrong.safetensors")
    with pytest.raises(EngineError, match=message) as caught:
        load_feature_network(tmp_path / "wrong.safetensors")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("num_layers", "last"), [(1, "conv1_1"), (5, "conv3_1"), (15, "conv5_3")])
def test_a_vgg19_that_ends_before_the_depth_asked_for_is_refused_by_its_end(
    num_layers: int, last: str, torchvision_weights: dict[str, Tensor], tmp_path: Path
) -> None:
    names = [f"features.{place}.{kind}" for place in TORCHVISION_PLACES[:num_layers] for kind in ("weight", "bias")]
    held = {name: torchvision_weights[name] for name in names}
    save_file(held, tmp_path / "short.safetensors")
    message = f"expected a VGG-19 that reaches relu5_4, got one whose weights end at {last}; name the file"
    with pytest.raises(EngineError, match=message) as caught:
        load_vgg19(tmp_path / "short.safetensors")
    assert "\n" not in str(caught.value)


@needs(NORMALISED)
def test_the_normalised_vgg19_is_refused_beyond_its_end() -> None:
    with pytest.raises(EngineError, match=r"reaches relu5_4, got one whose weights end at conv3_1; name"):
        load_vgg19(NORMALISED)


def test_missing_unreadable_and_pickled_files_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputNotFound, match="check the path"):
        load_feature_network(tmp_path / "none.safetensors")
    for name in ("noise.safetensors", "noise.pth"):
        (tmp_path / name).write_bytes(b"\x13" * 100)
    torch.save({"features.0.weight": Evil()}, tmp_path / "evil.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    torch.save({"state_dict": {"features.0.weight": torch.zeros(1)}}, tmp_path / "nested.pth")
    for name in ("noise.safetensors", "noise.pth", "evil.pth", "list.pt", "nested.pth"):
        with pytest.raises(EngineError, match="expected") as caught:
            load_feature_network(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_depth_that_vgg19_lacks_is_refused(torchvision_file: Path) -> None:
    for depths in (("relu6_1",), ("pool4",), ()):
        with pytest.raises(ValueError, match="expected depths such as"):
            VGG19Features(depths)
    with pytest.raises(EngineError, match="relu5_5"):
        load_vgg19(torchvision_file, depths=("relu5_5",))


@needs(NORMALISED)
def test_normalised_vgg19_runs_to_relu3_1_and_no_further() -> None:
    network = load_feature_network(NORMALISED)
    assert network.name == "vgg19-normalised"
    assert network.depths == ("conv1_2", "conv2_2", "conv3_1")
    held = load_file(NORMALISED)
    picture = torch.rand(2, 3, 16, 16)
    features = functional.conv2d(picture, held["preprocess_1x1.weight"], held["preprocess_1x1.bias"])
    bgr = 255 * picture.flip(1) - torch.tensor([103.939, 116.779, 123.68])[:, None, None]
    torch.testing.assert_close(features, bgr, atol=1e-3, rtol=0)
    for layer in ("conv1_1", "conv1_2"):
        features = functional.conv2d(
            functional.relu(features) if layer == "conv1_2" else features,
            held[f"{layer}.weight"],
            held[f"{layer}.bias"],
            padding=1,
        )
    torch.testing.assert_close(network(picture)[0], features, rtol=1e-4, atol=1e-4)
    assert network(picture)[2].shape == (2, 256, 4, 4)
    with pytest.raises(EngineError, match="reaches relu3_2, got one whose weights end at conv3_1"):
        load_vgg19(NORMALISED, depths=("relu3_2",))


@needs(SQUEEZENET)
def test_squeezenet_classifies_with_the_weights_as_they_were_mapped() -> None:
    """Its last convolution on our last features answers alike for a picture and its mirror, and not for noise."""
    network = load_feature_network(SQUEEZENET)
    assert isinstance(network, SqueezeNetFeatures)
    held = load_file(SQUEEZENET)
    torch.manual_seed(0)
    smooth = functional.interpolate(torch.rand(1, 3, 7, 7), size=(127, 127), mode="bicubic").clamp(0, 1)
    found = network(torch.cat([smooth, smooth.flip(3), torch.rand(1, 3, 127, 127)]))
    assert [features.shape[1] for features in found] == [64, 128, 256, 384, 384, 512, 512]
    assert [features.shape[2] for features in found] == [63, 31, 15, 7, 7, 7, 7]
    logits = functional.conv2d(found[-1], held["squeezenet0_conv25_weight"], held["squeezenet0_conv25_bias"])
    answer = functional.normalize(functional.relu(logits).mean(dim=(2, 3)), dim=1)
    assert answer[0] @ answer[1] > 0.85
    assert answer[0] @ answer[1] > answer[0] @ answer[2]


@needs(SQUEEZENET)
def test_a_squeezenet_without_a_fire_is_refused(tmp_path: Path) -> None:
    held = load_file(SQUEEZENET)
    del held["squeezenet0_conv17_bias"]
    save_file(held, tmp_path / "less.safetensors")
    with pytest.raises(EngineError, match="expected squeezenet0_conv17_bias"):
        load_feature_network(tmp_path / "less.safetensors")


def trained(widths: tuple[int, ...] = (8, 16, 16, 32)) -> ScopeFeatures:
    """A network whose batch normalisations have seen something."""
    torch.manual_seed(2)
    network = ScopeFeatures(widths)
    for _ in range(3):
        network.heads(torch.rand(4, 3, 32, 32) ** 2)
    return network


def test_scope_features_has_heads_for_its_tasks_and_learns_one_of_them() -> None:
    network = trained()
    turned = torch.linspace(0, 1, 32)[None, None, :, None].expand(4, 3, 32, 32)
    crops = torch.stack([torch.rot90(crop, turn, (1, 2)) for turn, crop in enumerate(turned)])
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(25):
        logits = network.heads(crops)
        loss = functional.cross_entropy(logits["rotation"], torch.arange(4))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert {task: tuple(answer.shape) for task, answer in logits.items()} == {
        "dataset": (4, 5),
        "polyp": (4, 1),
        "bleeding": (4, 1),
        "rotation": (4, 4),
    }
    assert logits["rotation"].argmax(dim=1).tolist() == [0, 1, 2, 3]


def test_folding_changes_no_feature_and_leaves_plain_convolutions() -> None:
    network = trained()
    folded = network.fold()
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())
    pictures = torch.rand(2, 3, 48, 40)
    network.eval()
    for ours, theirs in zip(folded(pictures), network.features(pictures), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        assert ours.min() < 0 < ours.max()
    assert [tuple(features.shape[1:]) for features in folded(pictures)] == [
        (8, 48, 40),
        (16, 24, 20),
        (16, 12, 10),
        (32, 6, 5),
    ]
    assert all(parameter.requires_grad for parameter in network.parameters())
    with pytest.raises(ValueError, match="has no heads"):
        folded.heads(pictures)


def test_saved_scope_features_come_back_equal_and_a_wrong_header_is_refused(tmp_path: Path) -> None:
    network, path = trained(), tmp_path / "scope.safetensors"
    save_scope_features(network, path, notes={"steps": "3"})
    loaded = load_feature_network(path)
    assert isinstance(loaded, ScopeFeatures)
    pictures = torch.rand(1, 3, 32, 32)
    for ours, theirs in zip(loaded(pictures), network.fold()(pictures), strict=True):
        assert torch.equal(ours, theirs)
    for widths in ("8,16,16,33", "eight", "", "0"):
        save_file(load_file(path), tmp_path / "wrong.safetensors", {"network": "scope-features", "widths": widths})
        with pytest.raises(EngineError, match="for scope-features"):
            load_feature_network(tmp_path / "wrong.safetensors")


def small_networks() -> list[FeatureNetwork]:
    torch.manual_seed(1)
    return [VGG19Features(("conv1_2", "relu2_1")), SqueezeNetFeatures(), trained().fold()]


@pytest.mark.parametrize("place", range(3), ids=["vgg19", "squeezenet", "scope"])
def test_frozen_networks_pass_gradients_to_the_picture_alone_and_stay_in_evaluation(place: int) -> None:
    network = small_networks()[place]
    assert not network.train().training
    picture = torch.rand(1, 3, 32, 32, requires_grad=True)
    found = network(picture)
    assert len(found) == len(network.depths)
    sum((features.square().mean() for features in found), torch.zeros(())).backward()
    assert picture.grad is not None
    assert picture.grad.any()
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("place", range(3), ids=["vgg19", "squeezenet", "scope"])
def test_frozen_networks_run_in_bf16_and_channels_last(place: int) -> None:
    network = small_networks()[place]
    picture = torch.rand(2, 3, 32, 48)
    plain = network(picture)
    network.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = network(picture.contiguous(memory_format=torch.channels_last))
    for ours, theirs in zip(rounded, plain, strict=True):
        assert (ours.float() - theirs).abs().mean() < 0.02 * theirs.abs().mean()


@pytest.mark.parametrize("shape", [(1, 1, 64, 64), (3, 64, 64), (1, 3, 15, 64)])
def test_what_is_no_batch_of_rgb_is_refused(shape: tuple[int, ...]) -> None:
    for network in small_networks():
        with pytest.raises(ValueError, match="expected pictures of"):
            network(torch.rand(shape))
