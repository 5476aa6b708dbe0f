"""Engines for GPU benchmarks: those of the catalogue, and stand-ins of the same shape with random weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn

from streamsr.engine import MANIFEST, Engine, find_engine, read_engine
from streamsr.errors import EngineNotFound
from streamsr.models.srgan import SRGANGenerator
from streamsr.models.student import SPECS, Student


def engine_of(name: str, folder: Path) -> tuple[Engine, bool]:
    """Return an engine, and whether its weights are random because the catalogue has none of its name.

    Args:
        name: ``srgan-x4``, ``srgan-x2`` or one of `streamsr.models.student.SPECS`.
        folder: where a stand-in is written.
    """
    try:
        return find_engine(name), False
    except EngineNotFound:
        return random_engine(name, folder / name), True


def random_engine(name: str, folder: Path, *, num_blocks: int = 16) -> Engine:
    """Write and return an engine of random weights; how long it takes does not depend on them.

    Args:
        name: as for `engine_of`; says what network.
        folder: of the engine; its name is the engine's.
        num_blocks: residual blocks of an SRGAN.
    """
    torch.manual_seed(0)
    if name.startswith("srgan"):
        network: nn.Module = SRGANGenerator(scale=int(name[-1]), num_blocks=num_blocks)
        assert isinstance(network, SRGANGenerator)
        radius_px = network.receptive_radius_px
        shape = {"architecture": "srgan", "colour": "rgb", "channels": 64, "depth": num_blocks, "halo_px": 10}
    else:
        spec = SPECS[name]
        network, radius_px = Student(spec), spec.receptive_radius_px
        shape = {"architecture": "student", "colour": "luma", "channels": spec.channels, "depth": spec.depth}
        shape["halo_px"] = radius_px
    folder.mkdir(parents=True, exist_ok=True)
    content = save({key: value.contiguous() for key, value in network.state_dict().items()})
    (folder / "model.safetensors").write_bytes(content)
    manifest = {
        "name": name,
        "scale": int(name[-1]),
        "kind": "fidelity",
        "radius_px": radius_px,
        "files": {"model.safetensors": hashlib.sha256(content).hexdigest()},
        "precisions": {"fp32": "model.safetensors"},
        **shape,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return read_engine(folder)
