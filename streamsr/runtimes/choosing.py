"""Choosing a runtime on a GPU: what is there is measured once on each GPU, and remembered in the user's cache.

What is remembered holds for the same network, GPU, driver and versions; anything else is measured anew. A runtime that
cannot be made ready is left out, with a line that says why and what runs instead.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

import numpy as np

from streamsr.engine import Engine
from streamsr.errors import EngineError
from streamsr.plans import cache_folder
from streamsr.runtimes.base import Generator, Pictures
from streamsr.runtimes.nvidia import Gpu

log = logging.getLogger(__name__)

RUNS = 9
"""Timed launches of each runtime, of which the median counts, after `WARM_UP`."""

WARM_UP = 3
LUMA_SIZE, RGB_SIZE = (1080, 1920), (480, 640)
"""(H, W) of the frame that is measured: frames are launched whole on a GPU."""

PACKAGES = ("streamsr", "torch", "triton", "tensorrt", "tensorrt-rtx", "torch-tensorrt")


@dataclass(frozen=True)
class Choice:
    """What was measured.

    Attributes:
        measured_ms: median time of a launch by runtime, the fastest first.
        left_out: runtime -> why it could not be measured, in one line.
    """

    measured_ms: dict[str, float]
    left_out: dict[str, str]


def fastest_generator(
    candidates: Mapping[str, Callable[[], Generator]],
    *,
    facts: Mapping[str, str],
    shape: tuple[int, int, int, int],
    dtype: type[np.generic],
    memory: Path | None = None,
) -> Generator:
    """Return the fastest generator that can be made ready here, measured or remembered.

    Args:
        candidates: by name of the runtime, what makes its generator; may raise EngineError or ImportError.
        facts: everything that could change the order.
        shape: (N, C, H, W) of the pictures that are measured.
        dtype: uint8 or float32, of the samples to come.
        memory: file of what was measured; None takes ``runtimes.json`` in the user's cache folder.

    Raises:
        EngineError: not one of them can be made ready.
    """
    memory = cache_folder() / "runtimes.json" if memory is None else memory
    key = digest({**facts, "runtimes": ",".join(sorted(candidates)), "shape": str(shape), "dtype": np.dtype(dtype).str})
    choice = recall(memory, key)
    for name in choice.measured_ms if choice else ():
        try:
            return candidates[name]()
        except Exception as cause:  # as in measure_all
            log.warning("runtime %s was the fastest and is gone: %s", name, " ".join(str(cause).split())[:300])
    made, choice = measure_all(candidates, shape, dtype)
    if not made:
        reasons = "; ".join(f"{name}: {why}" for name, why in choice.left_out.items())
        raise EngineError(f"expected a runtime that works on this GPU, got none ({reasons}); use --runtime openvino")
    fastest = next(iter(choice.measured_ms))
    for name, why in choice.left_out.items():
        log.warning("runtime %s is left out, %s is used: %s", name, fastest, why)
    log.info("runtimes measured, ms a launch: %s", choice.measured_ms)
    remember(memory, key, choice, facts)
    return made[fastest]


def measure_all(
    candidates: Mapping[str, Callable[[], Generator]], shape: tuple[int, int, int, int], dtype: type[np.generic]
) -> tuple[dict[str, Generator], Choice]:
    """Make every candidate ready and measure it; return those that work and how fast they are."""
    made: dict[str, Generator] = {}
    taken_ms: dict[str, float] = {}
    left_out: dict[str, str] = {}
    for name, make in candidates.items():
        try:
            generator = make()
            taken_ms[name] = round(launch_ms(generator, shape, dtype), 4)
            made[name] = generator
        except Exception as cause:  # a library of another version may raise anything; the other runtimes still run
            left_out[name] = " ".join(str(cause).split())[:300] or type(cause).__name__
    return made, Choice(dict(sorted(taken_ms.items(), key=lambda entry: entry[1])), left_out)


def launch_ms(generator: Generator, shape: tuple[int, int, int, int], dtype: type[np.generic]) -> float:
    """Return the median time of a launch on noise: by device events where the pictures may stay on a GPU, as frames do
    in a job; else from host memory to host memory.
    """
    if getattr(generator, "is_gpu", False):
        taken: float = cast(Any, generator).launch_ms(shape, np.dtype(dtype))
        return taken
    samples = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    pictures: Pictures = samples if dtype is np.uint8 else (samples / np.float32(255)).astype(np.float32)
    taken_ms = []
    for run in range(WARM_UP + RUNS):
        started_ns = time.perf_counter_ns()
        generator.generate(pictures)
        if run >= WARM_UP:
            taken_ms.append((time.perf_counter_ns() - started_ns) / 1e6)
    return sorted(taken_ms)[RUNS // 2]


def measured_shape(engine: Engine) -> tuple[int, int, int, int]:
    """Return (N, C, H, W) of the frame that an engine is measured on."""
    return (1, 1, *LUMA_SIZE) if engine.colour == "luma" else (1, 3, *RGB_SIZE)


def facts_of(engine: Engine, precision: str, gpu: Gpu) -> dict[str, str]:
    """Return everything that could change which runtime is fastest."""
    weights = engine.files.get(engine.precisions.get("fp32", ""), "")
    return {
        "engine": engine.name,
        "weights_sha256": weights,
        "precision": precision,
        **asdict(gpu),
        **dict(versions()),
    }


def versions() -> Iterator[tuple[str, str]]:
    """Yield the packages that runtimes are made of, and their versions."""
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            yield package, version(package)


def digest(facts: Mapping[str, str]) -> str:
    """Return the name of some facts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def read_memory(path: Path) -> dict[str, Any]:
    """Return what a memory file holds; nothing where it cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def recall(path: Path, key: str) -> Choice | None:
    """Return what was measured under a key; None where nothing was, or it does not hold."""
    entry = read_memory(path).get(key)
    if not isinstance(entry, dict) or not isinstance(entry.get("measured_ms"), dict):
        return None
    times = {str(name): float(ms) for name, ms in entry["measured_ms"].items() if isinstance(ms, (int, float))}
    return Choice(times, {}) if times else None


def remember(path: Path, key: str, choice: Choice, facts: Mapping[str, str]) -> None:
    """Add what was measured to the memory file, written aside and renamed; where that fails, it is measured again."""
    content = {**read_memory(path), key: {**asdict(choice), "facts": dict(facts)}}
    aside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        number, aside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(number, "w", encoding="ascii") as file:
            json.dump(content, file, indent=1)
        Path(aside).replace(path)
    except OSError as cause:
        log.warning("%s: what was measured is not kept (%s): it is measured at every start", path, cause.strerror)
        if aside is not None:
            Path(aside).unlink(missing_ok=True)
