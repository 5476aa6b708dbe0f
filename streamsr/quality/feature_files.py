"""Weight files of feature networks: recognised by their keys, checked name by name.

Those of torch are read by its restricted unpickler (``weights_only``), which makes tensors and plain values and nothing
else; the others are safetensors.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from streamsr.errors import EngineError, InputNotFound
from streamsr.models.features import (
    FeatureNetwork,
    Fire,
    ScopeFeatures,
    SqueezeNetFeatures,
    VGG19Features,
    vgg19_layers,
    vgg19_shape,
)

Weights = dict[str, Tensor]

TORCHVISION_PLACES = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)
"""N of ``features.N.weight`` for the 16 convolutions of torchvision's VGG-19 (without batch normalisation)."""

NORMALISED_LAYERS = ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1")
NORMALISED_DEPTHS = ("conv1_2", "conv2_2", "conv3_1")
KNOWN = "torchvision VGG-19, normalised VGG-19 to relu3_1, SqueezeNet 1.1 or scope-features"


def load_feature_network(path: Path | str, *, depths: Iterable[str] | None = None) -> FeatureNetwork:
    """Load a feature network, frozen, on the CPU; which one it is shows in the names of its weights.

    Args:
        path: safetensors, or a ``.pth`` state dict, of torchvision's VGG-19, the normalised VGG-19 to relu3_1,
            SqueezeNet 1.1 with the names of the ONNX model zoo, or our own `ScopeFeatures`.
        depths: which VGG-19 features to serve; relu5_4 (phi_5,4) of torchvision's and conv1_2, conv2_2, conv3_1 of
            the normalised one when None. The other networks serve all of theirs.

    Raises:
        InputNotFound: there is no such file.
        EngineError: the file cannot be read, is of another network, or lacks or misshapes a weight.
    """
    path = Path(path)
    weights, notes = read_weights(path)
    if notes.get("network") == ScopeFeatures.name:
        return _scope_features(path, weights, notes)
    if "features.0.weight" in weights:
        return _vgg19(path, weights, depths or ("relu5_4",))
    if "preprocess_1x1.weight" in weights:
        return _normalised_vgg19(path, weights, depths or NORMALISED_DEPTHS)
    if "squeezenet0_conv0_weight" in weights:
        return _squeezenet(path, weights)
    raise EngineError(f"{path}: expected weights of {KNOWN}, got {len(weights)} others; name another file")


def load_vgg19(path: Path | str, *, depths: Iterable[str] = ("relu5_4",)) -> VGG19Features:
    """Load a user's torchvision VGG-19, or the normalised one for depths up to relu3_1.

    Raises:
        InputNotFound: there is no such file.
        EngineError: it is no VGG-19, or does not hold a depth that is asked for.
    """
    network = load_feature_network(path, depths=depths)
    if not isinstance(network, VGG19Features):
        raise EngineError(f"{path}: expected a VGG-19, got {network.name}; name another file")
    return network


def save_scope_features(network: ScopeFeatures, path: Path, *, notes: Mapping[str, str] | None = None) -> None:
    """Write our own feature network, folded, so that `load_feature_network` knows it.

    Args:
        network: in training form or folded.
        path: of the safetensors file; written aside, then renamed.
        notes: what the header says besides, such as the data and the number of steps.
    """
    folded = network if network.folded else network.fold()
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in folded.state_dict().items()}
    widths = ",".join(map(str, folded.widths))
    aside = path.with_name(f".{path.name}.part")
    with aside.open("wb") as file:
        file.write(save(weights, {**(notes or {}), "network": ScopeFeatures.name, "widths": widths}))
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def read_weights(path: Path) -> tuple[Weights, dict[str, str]]:
    """Read the tensors of a safetensors file or a weights-only state dict, and the header's notes.

    Raises:
        InputNotFound: there is no such file.
        EngineError: it can be read as neither.
    """
    if not path.is_file():
        raise InputNotFound(f"{path}: expected a file of weights, got none; check the path")
    if path.suffix in (".pth", ".pt"):
        return _read_state_dict(path), {}
    try:
        with safe_open(path, "pt") as file:  # type: ignore[no-untyped-call, unused-ignore]
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as cause:
        raise EngineError(f"{path}: expected safetensors, got {cause}; name another file") from cause


def _read_state_dict(path: Path) -> Weights:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as cause:  # the reader raises whatever its archive, its parser or its allow-list does
        reason = str(cause).partition("\n")[0][:120]
        raise EngineError(f"{path}: expected a state dict of tensors alone, got {reason}; convert the file") from cause
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise EngineError(f"{path}: expected a state dict of tensors alone, got other objects; convert the file")
    return state


class _Picker:
    """Takes tensors out of a file by name and shape, or says which is missing or misshapen."""

    def __init__(self, path: Path, weights: Weights, what: str) -> None:
        self.path, self.weights, self.what = path, weights, what

    def pick(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Return a tensor as float32."""
        found = self.weights.get(name)
        got = "no such weight" if found is None else tuple(found.shape)
        if found is None or got != shape:
            raise self.refusal(f"{name} of {shape}", str(got))
        tensor = found.to(torch.float32)
        if not bool(torch.isfinite(tensor).all()):
            raise self.refusal(f"finite numbers in {name}", "NaN or infinity")
        return tensor

    def refusal(self, expected: str, got: str) -> EngineError:
        return EngineError(f"{self.path}: expected {expected} for {self.what}, got {got}; name another file")

    def fill(self, module: torch.nn.Module, prefix: str) -> None:
        """Fill every parameter of a module from the file's weights of the same name behind a prefix."""
        with torch.no_grad():
            for ours, parameter in module.named_parameters():
                parameter.copy_(self.pick(prefix + ours, tuple(parameter.shape)))


def _vgg19_network(picker: _Picker, depths: Iterable[str], feature_scale: float | None = None) -> VGG19Features:
    options = {} if feature_scale is None else {"feature_scale": feature_scale}
    try:
        return VGG19Features(depths, **options)
    except ValueError as cause:
        raise EngineError(f"{picker.path}: {cause}; ask for other depths") from cause


def _vgg19(path: Path, weights: Weights, depths: Iterable[str]) -> VGG19Features:
    picker = _Picker(path, weights, "torchvision VGG-19")
    places = dict(zip(vgg19_layers(), TORCHVISION_PLACES, strict=True))
    held = [layer for layer, place in places.items() if f"features.{place}.weight" in weights]
    if held == list(places)[: len(held)] and len(held) < len(places):
        raise _too_short(path, held[-1], depths)
    for layer, place in places.items():  # all sixteen, also beyond the depths: VGG-16 begins alike
        picker.pick(f"features.{place}.weight", vgg19_shape(layer))
        picker.pick(f"features.{place}.bias", vgg19_shape(layer)[:1])
    network = _vgg19_network(picker, depths)
    for layer, convolution in network.layers.items():
        picker.fill(convolution, f"features.{places[layer]}.")
    return network


def _too_short(path: Path, last: str, depths: Iterable[str]) -> EngineError:
    return EngineError(
        f"{path}: expected a VGG-19 that reaches {', '.join(depths)}, got one whose weights end at {last}; name the "
        "file of the whole network"
    )


def _normalised_vgg19(path: Path, weights: Weights, depths: Iterable[str]) -> VGG19Features:
    picker = _Picker(path, weights, "normalised VGG-19 to relu3_1")
    network = _vgg19_network(picker, depths, 1.0)
    if not set(network.layers) <= set(NORMALISED_LAYERS):
        raise _too_short(path, NORMALISED_LAYERS[-1], depths)
    network.name = "vgg19-normalised"
    picker.fill(network.preprocess, "preprocess_1x1.")
    for layer, convolution in network.layers.items():
        picker.fill(convolution, f"{layer}.")
    return network


def _squeezenet(path: Path, weights: Weights) -> SqueezeNetFeatures:
    picker, network = _Picker(path, weights, "SqueezeNet 1.1"), SqueezeNetFeatures()
    picker.fill(network.stem, "squeezenet0_conv0_")
    number = 1
    for fire in network.fires.values():
        assert isinstance(fire, Fire)
        for convolution in (fire.squeeze, fire.expand1x1, fire.expand3x3):
            picker.fill(convolution, f"squeezenet0_conv{number}_")
            number += 1
    return network


def _scope_features(path: Path, weights: Weights, notes: Mapping[str, str]) -> ScopeFeatures:
    picker = _Picker(path, weights, ScopeFeatures.name)
    try:
        widths = tuple(int(width) for width in notes.get("widths", "").split(","))
    except ValueError as cause:
        raise picker.refusal("the widths of its stages in the header", repr(notes.get("widths"))) from cause
    if not 1 <= len(widths) <= 6 or not all(0 < width <= 2048 for width in widths):
        raise picker.refusal("one to six widths up to 2048", str(widths))
    network = ScopeFeatures(widths, folded=True)
    picker.fill(network, "")
    return network
