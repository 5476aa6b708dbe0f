"""Enlarged pictures, kept: what several benchmarks need of the slow engines is computed once.

A picture is kept as PNG under a name that holds everything it depends on: the engine's weights, the form that ran, the
code of the projection, and the picture that was enlarged. Nothing of it is committed; the folder can be deleted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.card import ROOT
from streamsr.engine import Engine, read_engine
from streamsr.evaluation.methods import EngineMethod, Interpolation, Made, Method, Samples, coloured
from streamsr.training.data import luma_of

RUNS = ROOT / "runs"
PROJECTION = ("consistency.py", "correction.py", "reducer.py", "models/reduction.py", "training/measure.py")
"""Rooms that an enlarged picture depends on besides the weights."""


class KeptEngine(EngineMethod):
    """An engine whose pictures are kept in a folder.

    Args:
        engine: which.
        folder: of all kept pictures.
        consistency: project the result.
    """

    def __init__(self, engine: Engine, folder: Path, *, consistency: bool = True) -> None:
        super().__init__(engine, consistency=consistency)
        self.key = key_of(engine, self.precision, consistency=consistency)
        self.folder = folder / self.key
        if not consistency:
            self.name += ", as made"

    def enlarge(self, lr: Samples) -> Made:
        """Enlarge (h, w, 3) uint8 RGB, or read what was made of it before."""
        digest = hashlib.sha256(np.ascontiguousarray(lr).tobytes() + str(lr.shape).encode()).hexdigest()[:24]
        path = self.folder / f"{digest}.png"
        kept: Any = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
        if kept is not None:
            if self.native == "luma":
                return coloured(np.asarray(kept, np.uint8), lr, self.scale)
            rgb = np.ascontiguousarray(kept[..., ::-1], np.uint8)
            return Made(luma_of(rgb), rgb)
        made = super().enlarge(lr)
        self.folder.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{digest}.png")
        cv2.imwrite(str(aside), made.luma if self.native == "luma" else made.rgb[..., ::-1])
        aside.replace(path)
        return made


def key_of(engine: Engine, precision: str, *, consistency: bool) -> str:
    """Return a name that changes with everything that an engine's pictures depend on."""
    weights = engine.files[engine.precisions[precision]][:12]
    return f"{engine.name}-{precision}-{weights}-{code_of(PROJECTION) if consistency else 'as-made'}"


@lru_cache
def code_of(rooms: tuple[str, ...]) -> str:
    """Return eight digits that change with the code of some rooms of ``streamsr``, or of ``../benchmarks``."""
    content = b"".join((ROOT / "streamsr" / room).read_bytes() for room in rooms)
    return hashlib.sha256(content).hexdigest()[:8]


def key_of_method(method: Method) -> str:
    """Return a name that changes with everything that a method's pictures depend on."""
    return method.key if isinstance(method, KeptEngine) else method.name


def digest_of(told: object) -> str:
    """Return twelve digits that change with anything in what JSON can hold."""
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


def is_heavy(engine: Engine) -> bool:
    """Return whether an engine takes seconds for a frame."""
    return engine.architecture == "srgan"


def all_engines(folder: Path = ROOT / "engines", names: Iterable[str] | None = None) -> list[Engine]:
    """Return the engines of a folder, or some of them, by name."""
    wanted = None if names is None else set(names)
    engines = [read_engine(path.parent) for path in sorted(folder.glob("*/engine.json"))]
    return [engine for engine in engines if wanted is None or engine.name in wanted]


def interpolations(scale: int) -> list[Method]:
    """Return bicubic and Lanczos interpolation."""
    return [Interpolation("bicubic", scale), Interpolation("lanczos", scale)]
