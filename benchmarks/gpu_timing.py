"""Timing on a GPU by device events, the pictures it is timed on, and results that are written as they come."""

from __future__ import annotations

import json
import math
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

Call = Callable[[], object]


@dataclass
class Section:
    """One part of the benchmark: what it is asked for, and its result, written at every step.

    Attributes:
        device: ``cuda``, or ``cpu`` to try the code.
        quick: small and short.
        frames: folder of pictures; None where there are none.
        work: folder for stand-in engines.
        pictures: folder for what is drawn.
        file: where the result goes.
        limit_s: after so long it is ended from outside.
        began_s: when its program began, `time.monotonic`.
        result: so far.
    """

    device: torch.device
    quick: bool
    frames: Path | None
    work: Path
    pictures: Path
    file: Path
    limit_s: float = math.inf
    began_s: float = field(default_factory=time.monotonic)
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """The part of its time that is left, from 1 to 0."""
        return max(1.0 - (time.monotonic() - self.began_s) / self.limit_s, 0.0)

    def note(self, key: str, value: Any) -> None:
        """Add to the result and write it."""
        self.result[key] = value
        self.file.write_text(json.dumps(self.result), encoding="utf-8")
        print(f"  {key}: {json.dumps(value)[:300]}", flush=True)

    def add(self, key: str, **figures: Any) -> None:
        """Add figures to what is noted under a key."""
        self.note(key, {**self.result.get(key, {}), **figures})

    @contextmanager
    def step(self, key: str) -> Iterator[None]:
        """Run a part whose failure is noted and does not end the section."""
        started = time.monotonic()
        try:
            yield
        except Exception as cause:
            lines = traceback.format_exc().strip().splitlines()
            self.note(f"{key}: error", {"what": f"{type(cause).__name__}: {cause}"[:400], "where": lines[-8:]})
        print(f"  ({key}: {time.monotonic() - started:.1f} s)", flush=True)


def event_times_ms(call: Call, *, runs: int, device: torch.device, between: Callable[[int], object]) -> list[float]:
    """Return how long each of some calls takes on the present CUDA stream, by device events.

    Args:
        call: enqueues work.
        runs: how many times.
        device: where; on the CPU the wall clock is read.
        between: enqueues what comes before each call and is not timed, given the number of the call.
    """
    if device.type != "cuda":
        times = []
        for run in range(runs):
            between(run)
            started = time.perf_counter_ns()
            call()
            times.append((time.perf_counter_ns() - started) / 1e6)
        return times
    starts: list[Any] = [torch.cuda.Event(enable_timing=True) for _ in range(runs)]  # type: ignore[no-untyped-call]
    ends: list[Any] = [torch.cuda.Event(enable_timing=True) for _ in range(runs)]  # type: ignore[no-untyped-call]
    for run, (start, end) in enumerate(zip(starts, ends, strict=True)):
        between(run)
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return [float(start.elapsed_time(end)) for start, end in zip(starts, ends, strict=True)]


def measured(
    call: Call, *, device: torch.device, runs: int, between: Callable[[int], object] = lambda run: None
) -> dict[str, float]:
    """Return median, p99 and spread of a call, after warm-up."""
    event_times_ms(call, runs=max(runs // 5, 2), device=device, between=between)
    return summary(event_times_ms(call, runs=runs, device=device, between=between))


def summary(times_ms: Sequence[float]) -> dict[str, float]:
    """Return number, p10, p50, p90, p99 and the largest of some times."""
    p10, p50, p90, p99 = (round(float(value), 4) for value in np.percentile(times_ms, (10, 50, 90, 99)))
    largest = round(float(max(times_ms)), 4)
    return {"num": len(times_ms), "p10_ms": p10, "p50_ms": p50, "p90_ms": p90, "p99_ms": p99, "max_ms": largest}


def real_pictures(folder: Path | None) -> list[NDArray[np.uint8]]:
    """Return the pictures of a folder, (H, W, 3) uint8 RGB: PNG files, and ``.npz`` files of such arrays."""
    found: list[NDArray[np.uint8]] = []
    for path in sorted(folder.iterdir()) if folder is not None and folder.is_dir() else []:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                found += [arrays[name] for name in arrays.files]
        elif path.suffix == ".png":
            import cv2

            loaded: Any = cv2.imread(str(path), cv2.IMREAD_COLOR)
            found.append(np.ascontiguousarray(loaded[:, :, ::-1]))
    return found


def inputs_of(
    section: Section, channels: int, height: int, width: int, dtype: torch.dtype, num: int = 8
) -> list[Tensor]:
    """Return pictures to rotate among, (1, C, H, W) on the device: half noise, half real ones where there are some.

    Real ones are brought to the size by repeating them as tiles; without any, smooth random ones stand in.
    """
    torch.manual_seed(0)
    real = real_pictures(section.frames)
    made = []
    for place in range(num):
        if place % 2 == 0:
            picture = torch.rand(1, 3, height, width)
        elif real:
            tile = torch.from_numpy(real[place // 2 % len(real)]).permute(2, 0, 1)[None].float() / 255
            repeats = (1, 1, -(-height // tile.shape[2]), -(-width // tile.shape[3]))
            picture = tile.repeat(repeats)[:, :, :height, :width]
        else:
            rough = torch.rand(1, 3, max(height // 24, 2), max(width // 24, 2))
            picture = functional.interpolate(rough, (height, width), mode="bicubic").clamp(0, 1)
        picture = picture[:, :channels]
        picture = (picture * 255).round() if dtype == torch.uint8 else picture
        made.append(picture.to(dtype).to(section.device).contiguous())
    return made
