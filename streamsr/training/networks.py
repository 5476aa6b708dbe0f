"""The networks that can be trained, by name, and the way from training form to weights on disk and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from streamsr.errors import UsageError
from streamsr.models.srgan import SRGANGenerator
from streamsr.models.student import SPECS, BranchedStudent, Student
from streamsr.training.checkpoint import written_aside
from streamsr.training.data import ColourSpace

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    **{name: (lambda spec=spec: BranchedStudent(spec)) for name, spec in SPECS.items()},  # type: ignore[misc]
    "fast-x2-robust": lambda: BranchedStudent(SPECS["fast-x2"]),
    **{
        f"{name}-x{scale}": (lambda scale=scale: SRGANGenerator(scale=scale))  # type: ignore[misc]
        for name in ("srresnet", "srgan")
        for scale in (2, 4)
    },
}
"""Name -> the network in training form, freshly drawn."""


def build_network(name: str) -> nn.Module:
    """Return a freshly drawn network.

    Raises:
        UsageError: there is no such network.
    """
    if name not in NETWORKS:
        raise UsageError(f"expected a model among {', '.join(NETWORKS)}, got {name!r}; mend the settings")
    return NETWORKS[name]()


def scale_of(network: nn.Module) -> int:
    """Return how far a network enlarges."""
    return network.spec.scale if isinstance(network, BranchedStudent) else int(network.scale)  # type: ignore[arg-type]


def colour_of(network: nn.Module) -> ColourSpace:
    """Return what a network reads and writes."""
    return "rgb" if isinstance(network, SRGANGenerator) or getattr(network, "colours", 1) == 3 else "luma"


def plain(network: nn.Module) -> nn.Module:
    """Return the network as it will run: branches collapsed; itself where there are none."""
    return network.collapse() if isinstance(network, BranchedStudent) else network


def save_weights(path: Path, network: nn.Module) -> None:
    """Write a network's tensors as float32 safetensors, aside and renamed.

    Raises:
        OSError: there is no room.
    """
    tensors = {name: tensor.detach().float().cpu().contiguous() for name, tensor in network.state_dict().items()}
    content = save({name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")})
    with written_aside(path) as aside:
        aside.write_bytes(content)


def load_weights(path: str, network: nn.Module) -> None:
    """Fill a network from `save_weights`' file, or from the ``model.safetensors`` of an engine.

    An engine holds a student collapsed; its training form is made of it, with freshly drawn branches.

    Raises:
        UsageError: the file is unreadable or of another network.
    """
    try:
        tensors = load_file(path)
        if isinstance(network, BranchedStudent) and "layers.0.weight" in tensors:
            collapsed = Student(network.spec)
            collapsed.load_state_dict(tensors)
            network.absorb(collapsed)
            return
        found = network.load_state_dict(tensors, strict=False)
    except (OSError, SafetensorError, RuntimeError) as cause:
        line = " ".join(str(cause).split())[:160]
        raise UsageError(f"{path or 'no file'}: expected weights of the network, got {line}; mend the path") from cause
    missing = [name for name in found.missing_keys if not name.endswith("num_batches_tracked")]
    if missing or found.unexpected_keys:
        raise UsageError(f"{path}: expected weights of the network, got others; mend the path")


def is_finite(network: nn.Module) -> bool:
    """Return whether every weight is a finite number."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in network.state_dict().values())
