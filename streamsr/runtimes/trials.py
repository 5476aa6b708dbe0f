"""Choosing between ways to compute the same thing: each is tried on the device, checked, timed, and remembered."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from streamsr.errors import EngineError
from streamsr.plans import cache_folder
from streamsr.plans.building import locked

log = logging.getLogger(__name__)

TOLERANCE = 0.02
"""Largest difference, as a part of the largest value, that half precision in another order of sums may make: bfloat16
rounds to 1/256; a wrong tap or border is off by far more."""

COMPARED = 1 << 22
"""Values at the start, in the middle and at the end of a result that are compared: whole rows with both borders. All of
the largest layer would be several copies of 8.5 GB for the SRGAN at x4 on 1080p."""

RUNS = 7
"""Timed runs of each candidate, of which the median counts."""

BUDGET_S = 20.0
"""No further candidate is tried after so long: libraries compile some of theirs on first use."""

LOCK_S = 5.0
"""What waiting for another program that writes down its choices may take; that is milliseconds."""


def fastest(candidates: Mapping[str, Callable[[], Tensor]], *, budget_s: float = BUDGET_S) -> dict[str, float]:
    """Run every candidate that works and agrees with the first, on the present CUDA stream.

    Args:
        candidates: by name, the first of which is the reference and must work; each enqueues work and returns its
            result.
        budget_s: no further candidate starts after so long.

    Returns:
        Median milliseconds by name, the fastest first; what failed or disagreed is not in it.
    """
    started_s = time.monotonic()
    names = iter(candidates)
    first = next(names)
    expected = parts_of(candidates[first]())
    limit = TOLERANCE * max(1e-6, *(float(part.abs().max()) for part in expected))
    taken_ms = {first: median_ms(candidates[first])}
    for name in names:
        if time.monotonic() - started_s > budget_s:
            log.debug("not tried for want of time: %s", name)
            continue
        try:
            made = parts_of(candidates[name]())
            differences = [float((one - other).abs().max()) for one, other in zip(made, expected, strict=True)]
            if not all(difference <= limit for difference in differences):  # NaN is no agreement
                log.debug("%s disagrees with %s by %s, more than %g", name, first, differences, limit)
                continue
            taken_ms[name] = median_ms(candidates[name])
        except Exception as cause:  # a compiler or a library refuses in its own way; the reference remains
            log.debug("%s cannot run here: %s", name, " ".join(str(cause).split())[:200])
    return dict(sorted(taken_ms.items(), key=lambda entry: entry[1]))


def parts_of(result: Tensor) -> list[Tensor]:
    """Return what of a result is compared, flat, as float32 copies, so that nothing holds the result itself."""
    flat = result.reshape(-1)
    num = len(flat)
    if num <= 3 * COMPARED:
        return [flat.to(torch.float32, copy=True)]
    starts = (0, (num - COMPARED) // 2, num - COMPARED)
    return [flat[start : start + COMPARED].to(torch.float32, copy=True) for start in starts]


def median_ms(call: Callable[[], object], *, runs: int = RUNS) -> float:
    """Return the median time of a call on the present CUDA stream, by device events, after two that warm up."""
    for _ in range(2):
        call()
    marks: list[Any] = [torch.cuda.Event(enable_timing=True) for _ in range(runs + 1)]  # type: ignore[no-untyped-call]
    marks[0].record()
    for mark in marks[1:]:
        call()
        mark.record()
    marks[-1].synchronize()
    times = sorted(float(before.elapsed_time(after)) for before, after in pairwise(marks))
    return times[runs // 2]


@cache
def sources_digest() -> str:
    """Return a name of the runtimes as they are written: with other kernels, other ones may be the fastest."""
    digest = hashlib.sha256()
    for path in sorted(path for path in Path(__file__).parent.iterdir() if path.suffix in (".py", ".cu")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


class Remembered:
    """What was measured before on this machine, in one small file of the user's cache; losing it costs seconds.

    What was measured with other kernels than those there are (`sources_digest`) is not known any more.

    Args:
        file: JSON; None takes ``choices.json`` in the user's cache folder.
        context: everything else that a choice depends on besides its own name: GPU, versions.
    """

    def __init__(self, context: str, file: Path | None = None) -> None:
        self.file, self.context = file or cache_folder() / "choices.json", context

    def read(self, name: str) -> dict[str, float]:
        """Return the milliseconds by candidate, the fastest first; empty where nothing is known."""
        times = self._all().get(f"{self._context()}{name}", {})
        if not isinstance(times, dict) or not all(isinstance(value, float) for value in times.values()):
            return {}
        return dict(sorted(times.items(), key=lambda entry: float(entry[1])))

    def write(self, name: str, times: Mapping[str, float]) -> None:
        """Remember milliseconds by candidate, one program at a time; a cache that cannot be written is done without."""
        aside = self.file.with_name(f"{self.file.name}.{os.getpid()}.part")
        present = self._context()
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with locked(self.file.with_suffix(".lock"), name=self.file.name, watch=lambda told: None, limit_s=LOCK_S):
                of_others = {
                    key: value
                    for key, value in self._all().items()
                    if key.startswith(present) or not key.startswith(f"{self.context} ")
                }
                known = {**of_others, f"{present}{name}": dict(times)}
                aside.write_text(json.dumps(known, indent=1), encoding="utf-8")
                aside.replace(self.file)
        except (OSError, EngineError) as cause:
            log.debug("choices are not remembered: %s", cause)

    def _context(self) -> str:
        return f"{self.context} {sources_digest()} "

    def _all(self) -> dict[str, object]:
        try:
            known = json.loads(self.file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}


def context_of(device: torch.device) -> str:
    """Return what the speed of a kernel depends on: GPU, torch, cuDNN and Triton."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"{name}; torch {torch.__version__}; cuDNN {cudnn_version()}; Triton {triton_version()};"


def triton_version() -> str:
    """Return the version that Triton says it is, for its package has other names too (``triton-windows``).

    Where it cannot be imported, that is ``none``.
    """
    try:
        triton = import_module("triton")
    except Exception:  # a build for another system or torch fails in its own way
        return "none"
    return str(triton.__version__)


def cudnn_version() -> int | None:
    """Return the version of cuDNN as one number; None where torch was built without it."""
    number: int | None = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return number
