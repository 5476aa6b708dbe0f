"""The catalogue of generators: find one, verify its files against their stated hashes, refuse what does not hold.

An engine is a folder with ``engine.json`` (the manifest), ``model.safetensors`` (weights), optionally
``model.int8.onnx`` (the same network quantised), ``metrics.json`` and ``card.md``. Weights are data, never code: they
are read by safetensors or an ONNX parser, after their SHA-256 has been found equal to the manifest's.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamsr.errors import EngineError, EngineNotFound, EngineTampered

MANIFEST = "engine.json"
BICUBIC_SCALES = (2, 3, 4)
_REQUIRED = {
    "name": str,
    "architecture": str,
    "scale": int,
    "colour": str,
    "kind": str,
    "channels": int,
    "depth": int,
    "radius_px": int,
    "halo_px": int,
    "files": dict,
    "precisions": dict,
}

_LARGEST = {"channels": 1024, "depth": 256, "radius_px": 2048, "halo_px": 2048}
"""Far more than any network here has; larger figures would only make a reader run out of memory."""


@dataclass(frozen=True)
class Engine:
    """One generator of the catalogue.

    Attributes:
        name: its name, for example ``fast-x2``.
        architecture: ``student``, ``srgan`` or ``bicubic``.
        scale: enlargement of each side.
        colour: ``luma`` where the network reads and writes luma alone, ``rgb`` where it works on colour.
        kind: ``fidelity``, ``adversarial`` or ``interpolation``.
        channels: width of the body.
        depth: layers (student) or residual blocks (srgan).
        radius_px: input pixels on each side of a pixel that its output depends on.
        halo_px: default context round a patch.
        files: file name -> SHA-256.
        precisions: ``fp32``, ``int8``, or a form for TensorRT (``int8-symmetric``, ``fp8``) -> file name.
        folder: where the files are; None for interpolation.
    """

    name: str
    architecture: str
    scale: int
    colour: str
    kind: str
    channels: int = 0
    depth: int = 0
    radius_px: int = 0
    halo_px: int = 0
    files: dict[str, str] = field(default_factory=dict)
    precisions: dict[str, str] = field(default_factory=dict)
    folder: Path | None = None

    def read_file(self, precision: str) -> bytes:
        """Return the verified bytes of the file that holds a precision.

        Raises:
            EngineError: there is no such precision, or its file cannot be read.
            EngineTampered: the file's hash is not the manifest's.
        """
        if self.folder is None or precision not in self.precisions:
            raise EngineError(
                f"{self.name}: expected one of the precisions {', '.join(sorted(self.precisions)) or 'none'}, "
                f"got {precision}; choose one of these with --precision"
            )
        path = self.folder / self.precisions[precision]
        try:
            content = path.read_bytes()
        except OSError as cause:
            raise EngineError(
                f"{path}: expected the weights of {self.name}, got {cause.strerror}; reinstall"
            ) from cause
        found, expected = hashlib.sha256(content).hexdigest(), self.files[path.name]
        if found != expected:
            raise EngineTampered(
                f"{path}: expected SHA-256 {expected[:16]}..., found {found[:16]}...; the file was changed or damaged, "
                "reinstall it"
            )
        return content

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """Return the verified float32 weights by name.

        Raises:
            EngineError: the file is no safetensors file.
            EngineTampered: the file's hash is not the manifest's, or the weights are not what the manifest says.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            tensors = load(self.read_file("fp32"))
        except SafetensorError as cause:
            raise EngineError(
                f"{self.name}: expected weights in safetensors form, got {cause}; reinstall it"
            ) from cause
        weights = {name: np.asarray(tensor, np.float32) for name, tensor in tensors.items()}
        if self.architecture == "student":
            self._check_student(weights)
        return weights

    def _check_student(self, weights: dict[str, NDArray[np.float32]]) -> None:
        """Check that the manifest tells the truth about the weights: a wrong radius would leave seams in silence."""
        widths = [1, *[self.channels] * (self.depth + 1), self.scale**2]
        expected: dict[str, tuple[int, ...]] = {}
        for layer, (inputs, outputs) in enumerate(pairwise(widths)):
            expected[f"layers.{layer}.weight"] = (outputs, inputs, 3, 3)
            expected[f"layers.{layer}.bias"] = (outputs,)
        found = {name: tensor.shape for name, tensor in weights.items()}
        if found != expected or self.radius_px != self.depth + 2 or self.colour != "luma":
            raise EngineTampered(
                f"{self.name}: expected weights of {self.channels} channels, depth {self.depth}, scale {self.scale} "
                f"and a radius of {self.depth + 2} px, as the manifest says; got others; reinstall it"
            )

    def verify(self) -> None:
        """Check every file of the engine against the manifest.

        Raises:
            EngineError: a file is missing.
            EngineTampered: a file's hash is not the manifest's, or the weights are not what the manifest says.
        """
        for precision in self.precisions:
            self.read_file(precision)
        if "fp32" in self.precisions:
            self.weights()


def catalogue_folder() -> Path:
    """Return where the engines are: inside an installed package, else beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "engines"
    return inside if inside.is_dir() else package.parent / "engines"


def list_engines() -> list[Engine]:
    """Return every engine of the catalogue by name, interpolation last; broken ones are left out."""
    engines = []
    for manifest in sorted(catalogue_folder().glob(f"*/{MANIFEST}")):
        try:
            engines.append(read_engine(manifest.parent))
        except EngineError:
            continue
    return engines + [bicubic_engine(scale) for scale in BICUBIC_SCALES]


def bicubic_engine(scale: int) -> Engine:
    """Return the reference: bicubic interpolation, which adds nothing."""
    return Engine(f"bicubic-x{scale}", "bicubic", scale, "luma", "interpolation", radius_px=3, halo_px=3)


def find_engine(name: str) -> Engine:
    """Return an engine by its name in the catalogue or by the path of its folder.

    Raises:
        EngineNotFound: there is no such engine.
        EngineError: its manifest is unreadable or incomplete.
    """
    if name.startswith("bicubic"):
        for scale in BICUBIC_SCALES:
            if name in (f"bicubic-x{scale}", "bicubic" if scale == 2 else ""):
                return bicubic_engine(scale)
    for folder in (catalogue_folder() / name, Path(name)):
        if (folder / MANIFEST).is_file():
            return read_engine(folder)
    names = ", ".join(engine.name for engine in list_engines())
    raise EngineNotFound(f"{name}: expected the name of an engine or the path of its folder; there are {names}")


def read_engine(folder: Path) -> Engine:
    """Read an engine's manifest.

    Raises:
        EngineError: the manifest is unreadable, or a field is missing or of the wrong kind.
    """
    path = folder / MANIFEST
    try:
        manifest: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise EngineError(f"{path}: expected a manifest in JSON, got {cause}; reinstall the engine") from cause
    if not isinstance(manifest, dict):
        raise EngineError(f"{path}: expected a JSON object, got {type(manifest).__name__}; reinstall the engine")
    for key, kind in _REQUIRED.items():
        if not isinstance(manifest.get(key), kind) or isinstance(manifest[key], bool):
            raise EngineError(
                f"{path}: expected {key} to be {kind.__name__}, got {manifest.get(key)!r}; reinstall the engine"
            )
    for key, largest in _LARGEST.items():
        if not 0 <= manifest[key] <= largest:
            raise EngineError(f"{path}: expected {key} of 0 to {largest}, got {manifest[key]}; reinstall the engine")
    check_files(path, manifest)
    return Engine(**{key: manifest[key] for key in _REQUIRED}, folder=folder)


def check_files(path: Path, manifest: dict[str, Any]) -> None:
    """Check that the files a manifest names are plain names with hashes, and that every precision is one of them.

    Raises:
        EngineError: they are not.
    """
    for name, digest in manifest["files"].items():
        if Path(name).name != name or not isinstance(digest, str) or len(digest) != 64:
            raise EngineError(f"{path}: expected plain file names with SHA-256, got {name!r}: {digest!r}; reinstall it")
    for precision, name in manifest["precisions"].items():
        if not isinstance(name, str) or name not in manifest["files"]:
            raise EngineError(f"{path}: expected a hash for {precision} ({name!r}), got none; reinstall the engine")
    if manifest["scale"] not in (2, 3, 4) or manifest["colour"] not in ("luma", "rgb"):
        raise EngineError(
            f"{path}: expected scale 2, 3 or 4 and colour luma or rgb, got {manifest['scale']} and "
            f"{manifest['colour']!r}; reinstall the engine"
        )
