"""Choosing a runtime on a GPU: what is there is measured once on each GPU, and remembered in the user's cache.

What is remembered holds for the same network, GPU, driver and versions; anything else is measured anew. A runtime that
cannot be made ready, or makes other pictures than ``cuda``, is left out, and a line says why and what runs instead, in
every run. Where the cause may pass (no memory, no room, no time), nothing is remembered.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import math
import os
import re
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
from streamsr.errors import EngineError, GpuFault, GpuMemoryFault
from streamsr.plans import cache_folder
from streamsr.plans.building import locked
from streamsr.runtimes.base import Generator, Pictures, tell
from streamsr.runtimes.gpu_faults import guarded
from streamsr.runtimes.nvidia import Gpu
from streamsr.runtimes.trials import LOCK_S, sources_digest, triton_version
from streamsr.worker import Stopped

log = logging.getLogger(__name__)

RUNS = 9
"""Timed launches of each runtime, of which the median counts, after `WARM_UP`."""

WARM_UP = 3
LUMA_SIZE, RGB_SIZE = (1080, 1920), (480, 640)
"""(H, W) of the frame that is measured: frames are launched whole on a GPU."""

REFERENCE = "cuda"
"""Whose pictures the others' are compared with; its own kernels are with cuDNN's (`streamsr.runtimes.trials`)."""

SMOOTH_LEVELS, NOISE_LEVELS = 2.0, 1.0
"""Grey levels of 8 bits that a runtime may be off `REFERENCE`: anywhere on waves, and in the mean on noise, on which
half precision alone is two off here and there. A wrong tap, border or order of samples is off by far more."""

ENDED = (Stopped, ConnectionError)
"""What ends a wait for a plan from without (a line that stops, a run that is gone): says nothing of the runtime."""

REFUSALS = (EngineError, ImportError, AttributeError, TypeError)
"""What a runtime that does not serve this network, GPU or version of its library raises."""

PASSING = re.compile(r"within \S+ s\b|(?<!shared )memory|killed|No space left", re.IGNORECASE)
"""Words of refusals that another run may not meet: a limit of time, a builder that found no memory or was ended."""

PACKAGES = ("streamsr", "torch", "tensorrt", "tensorrt-rtx", "torch-tensorrt")


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
        GpuFault: the GPU failed for good while they were tried.
    """
    memory = cache_folder() / "runtimes.json" if memory is None else memory
    key = digest({**facts, "runtimes": ",".join(sorted(candidates)), "shape": str(shape), "dtype": np.dtype(dtype).str})
    if known := recall(memory, key):
        generator, left_out = remembered(candidates, known)
        if generator is not None:
            tell_left_out(generator, left_out)
            return generator
    generator, choice, stays = measure_all(candidates, shape, dtype)
    if generator is None:
        reasons = "; ".join(f"{name}: {why}" for name, why in choice.left_out.items())
        raise EngineError(f"expected a runtime that works on this GPU, got none ({reasons}); use --runtime openvino")
    tell_left_out(generator, choice.left_out)
    log.info("runtimes measured, ms a launch: %s", choice.measured_ms)
    if stays:
        remember(memory, key, choice, facts)
    return generator


def remembered(
    candidates: Mapping[str, Callable[[], Generator]], choice: Choice
) -> tuple[Generator | None, dict[str, str]]:
    """Make the fastest ready of what was measured before.

    Returns:
        It, or None where all are gone; and what is left out, why: then as now.

    Raises:
        GpuFault: the GPU failed for good.
    """
    left_out = dict(choice.left_out)
    for name in choice.measured_ms:
        try:
            return candidates[name](), left_out
        except ENDED:
            raise
        except Exception as cause:  # as in measure_all
            left_out[name] = f"it was measured before and is gone: {one_line(cause)}"
        give_back(name)
    return None, left_out


def tell_left_out(generator: Generator, left_out: Mapping[str, str]) -> None:
    """Say which runtimes are left out, why, and what is used."""
    for name, why in left_out.items():
        line = f"runtime {name} is left out, {generator.runtime} is used: {why}"
        log.warning("%s", line)
        tell(generator, line)


def one_line(cause: Exception) -> str:
    """Return what an exception says, shortened."""
    return " ".join(str(cause).split())[:300] or type(cause).__name__


def stays_so(cause: BaseException) -> bool:
    """Whether what refused a runtime refuses it in the next run too: not so of a lack of memory, room or time."""
    if isinstance(cause, EngineError) and PASSING.search(str(cause)):
        return False
    if not isinstance(cause, REFUSALS):
        return False
    origin: BaseException | None = cause
    while origin is not None:
        if isinstance(origin, (GpuFault, OSError, MemoryError)):
            return False
        origin = origin.__cause__
    return True


def measure_all(
    candidates: Mapping[str, Callable[[], Generator]], shape: tuple[int, int, int, int], dtype: type[np.generic]
) -> tuple[Generator | None, Choice, bool]:
    """Make every candidate ready, compare what it makes with `REFERENCE`, and measure it.

    No more than two are kept at a time: the memory of those that are slower is given back.

    Returns:
        The fastest that works, how fast all are, and whether what was left out is so for a cause that stays.

    Raises:
        GpuFault: the GPU failed for good, so that no other runtime can be tried on it.
    """
    stays = True
    best: Generator | None = None
    expected: list[Pictures] = []
    taken_ms: dict[str, float] = {}
    left_out: dict[str, str] = {}
    for name in sorted(candidates, key=lambda name: name != REFERENCE):
        generator: Generator | None = None
        try:
            generator = candidates[name]()
            if wrong := differences(generator, trial_pictures(shape, dtype), expected, is_reference=name == REFERENCE):
                left_out[name] = wrong
            else:
                taken = round(launch_ms(generator, shape, dtype), 4)
                best = generator if taken < min(taken_ms.values(), default=math.inf) else best
                taken_ms[name] = taken
                forget_shapes(generator)
        except ENDED:
            raise
        except Exception as cause:  # a library of another version may raise anything; the other runtimes still run
            left_out[name] = one_line(cause)
            stays = stays and stays_so(cause)
        del generator
        give_back(name)
    return best, Choice(dict(sorted(taken_ms.items(), key=lambda entry: entry[1])), left_out), stays


def differences(
    generator: Generator, pictures: tuple[Pictures, Pictures], expected: list[Pictures], *, is_reference: bool
) -> str:
    """Return how a generator's pictures differ from those of `REFERENCE`, in one line; empty where they do not.

    Args:
        generator: what enlarges.
        pictures: waves and noise, see `trial_pictures`.
        expected: what `REFERENCE` makes of them, which it fills; nothing is compared with where it cannot run.
        is_reference: whether this is it.
    """
    if is_reference:
        expected[:] = [generator.generate(picture).copy() for picture in pictures]
    if not expected:
        return ""
    off = []
    for picture, other in zip(pictures, expected, strict=True):
        unit = 1.0 if other.dtype == np.uint8 else 255.0
        made, wanted = (
            np.clip(each, 0, 255 / unit).astype(np.float32) for each in (generator.generate(picture), other)
        )
        off.append(np.abs(made - wanted) * unit)
    at_most, in_the_mean = float(off[0].max()), float(off[1].mean())
    if at_most <= SMOOTH_LEVELS and in_the_mean <= NOISE_LEVELS:  # not so where one is no number
        return ""
    return (
        f"its pictures are not those of {REFERENCE}: {at_most:.1f} levels off on waves (at most {SMOOTH_LEVELS:g}), "
        f"{in_the_mean:.2f} in the mean on noise (at most {NOISE_LEVELS:g})"
    )


def trial_pictures(shape: tuple[int, int, int, int], dtype: type[np.generic]) -> tuple[Pictures, Pictures]:
    """Return waves with an edge, black and white, and noise: (N, C, H, W) uint8, or float32 in [0, 1]."""
    num, channels, height, width = shape
    n, c, y, x = np.ogrid[:num, :channels, :height, :width]
    waves = 120 + 60 * np.sin(x / 9 + y / 31 + n + c / 2) + 40 * np.cos(y / 7 - x / 23)
    waves = np.where(x + y > 0.8 * (height + width), 255, np.where(y < height // 8, 0, waves))
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    first, second = (
        levels if dtype is np.uint8 else (levels / np.float32(255)).astype(np.float32)
        for levels in (np.rint(waves).astype(np.uint8), noise)
    )
    return first, second


def forget_shapes(generator: Generator) -> None:
    """Give back what a generator holds ready for the frame that was measured, which no job may have."""
    if getattr(generator, "is_gpu", False):
        cast(Any, generator).forget_shapes()


def give_back(name: str) -> None:
    """Free the memory of what is gone of a runtime, and see whether the GPU lives: some errors end it for a program.

    Raises:
        GpuFault: it does not; names the runtime.
    """
    with suppress(GpuMemoryFault), guarded(name):
        free_memory()


def free_memory() -> None:
    """Give back the memory of generators that nobody holds any more but they themselves.

    Raises:
        RuntimeError: the GPU failed, now or before.
    """
    gc.collect()
    import torch

    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


def launch_ms(generator: Generator, shape: tuple[int, int, int, int], dtype: type[np.generic]) -> float:
    """Return the median time of a launch on noise: by device events where the pictures may stay on a GPU, as frames do
    in a job; else from host memory to host memory.
    """
    if getattr(generator, "is_gpu", False):
        taken: float = cast(Any, generator).launch_ms(shape, np.dtype(dtype))
        return taken
    _, pictures = trial_pictures(shape, dtype)
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
        "sources": sources_digest(),
        **dict(versions()),
    }


def versions() -> Iterator[tuple[str, str]]:
    """Yield the packages that runtimes are made of, and their versions."""
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            yield package, version(package)
    yield "triton", triton_version()


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
    told = entry.get("left_out")
    left_out = {str(name): str(why) for name, why in told.items()} if isinstance(told, dict) else {}
    return Choice(times, left_out) if times else None


def remember(path: Path, key: str, choice: Choice, facts: Mapping[str, str]) -> None:
    """Add what was measured to the memory file, one program at a time; where that fails, it is measured again."""
    aside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(path.with_suffix(".lock"), name=path.name, watch=lambda progress: None, limit_s=LOCK_S):
            content = {**read_memory(path), key: {**asdict(choice), "facts": dict(facts)}}
            number, aside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            with os.fdopen(number, "w", encoding="ascii") as file:
                json.dump(content, file, indent=1)
            Path(aside).replace(path)
    except (OSError, EngineError) as cause:
        why = getattr(cause, "strerror", None) or cause
        log.warning("%s: what was measured is not kept (%s): it is measured at every start", path, why)
        if aside is not None:
            Path(aside).unlink(missing_ok=True)
