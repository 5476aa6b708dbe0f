"""What a plan is for: everything that could make it wrong, as a key, a file name and a manifest."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class PlanKey:
    """Everything that could make a plan wrong.

    Attributes:
        engine: name in the catalogue.
        weights_sha256: of the file of weights.
        scale: enlargement of each side.
        shapes: the range of shapes it was built for.
        precision: of the arithmetic.
        samples: type of the pictures at both ends.
        recipe: of the code that wrote and built the network.
        runtime: library that runs it.
        runtime_version: its version.
        gpu: name.
        capability: the GPU's compute capability.
        driver: version of the GPU's driver.
    """

    engine: str
    weights_sha256: str
    scale: int
    shapes: str
    precision: str
    samples: str
    recipe: str
    runtime: str
    runtime_version: str
    gpu: str
    capability: str
    driver: str

    @property
    def stem(self) -> str:
        """The name of its files, without an ending: who it is for a reader, and the hash of everything."""
        content = json.dumps(asdict(self), sort_keys=True).encode()
        name = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in self.engine)
        return f"{name}-{self.precision}-{hashlib.sha256(content).hexdigest()[:16]}"

    def differences(self, other: PlanKey) -> list[str]:
        """Return what another key has otherwise, in words."""
        return [
            f"{field.name.replace('_', ' ')} {getattr(other, field.name) or 'unknown'}, "
            f"here {getattr(self, field.name) or 'unknown'}"
            for field in fields(self)
            if getattr(self, field.name) != getattr(other, field.name)
        ]


def read_manifest(path: Path) -> dict[str, Any]:
    """Return a manifest; empty where it cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def read_key(path: Path) -> PlanKey | None:
    """Return the key in a manifest; None where there is none that holds."""
    stated = read_manifest(path).get("key")
    if not isinstance(stated, dict) or set(stated) != {field.name for field in fields(PlanKey)}:
        return None
    return PlanKey(**stated)
