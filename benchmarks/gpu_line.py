"""Planes in host memory to planes in host memory: stages, latency, throughput, allocations, and the plain way."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.gpu_engines import engine_of
from benchmarks.gpu_timing import Section, inputs_of, measured, summary
from benchmarks.gpu_ways import left_out_where_refused, runtimes_of
from streamsr.consistency import MEASURED_TURNS
from streamsr.device.upscaler import DeviceUpscaler
from streamsr.engine import Engine
from streamsr.frame import Colour, Frame, PlaneLayout
from streamsr.runtimes.gpu_generator import tuned_convolutions
from streamsr.runtimes.torch_cpu import load_network

FRAMES_A_SECOND = 60
NUM_FRAMES = 16
PACED_S = 6.0
LEAST_LEFT = 0.1
"""Part of a section's time before which nothing more is begun."""

LAYOUT = PlaneLayout((1, 1), 8)
COLOUR = Colour(1, False, 1, 1)


def frames_of(section: Section, *, num: int = NUM_FRAMES) -> list[Frame]:
    """Return frames of 1080p 4:2:0, 8 bits, in host memory: half noise, half real."""
    height, width = (54, 96) if section.quick else (1080, 1920)
    pictures = [picture[0].cpu().numpy() for picture in inputs_of(section, 3, height, width, torch.uint8, num)]
    return [
        Frame(
            (picture[0], picture[1, ::2, ::2].copy(), picture[2, ::2, ::2].copy()),
            LAYOUT,
            COLOUR,
            place,
            Fraction(1, FRAMES_A_SECOND),
            sequence=place,
        )
        for place, picture in enumerate(pictures)
    ]


class PlainLoop:
    """What a user would write: torch, FP16, channels last, a copy in, the network, a copy out, and wait.

    Args:
        engine: a luma student.
        device: where it runs.
    """

    def __init__(self, engine: Engine, device: torch.device) -> None:
        self.device, self.scale = device, engine.scale
        self.dtype = torch.float16 if device.type == "cuda" else torch.float32
        network = load_network(engine)
        self.network = network.to(device, self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def upscale(self, frame: Frame) -> Frame:
        """Enlarge one frame: luma by the network, chroma by bicubic interpolation."""
        with torch.no_grad(), tuned_convolutions(on=self.device.type == "cuda"):
            luma = self._to_device(frame.planes[0])
            planes = [self._to_host(self.network(luma))]
            for plane in frame.planes[1:]:
                large = functional.interpolate(self._to_device(plane), scale_factor=self.scale, mode="bicubic")
                planes.append(self._to_host(large))
        return frame.with_planes(tuple(planes))

    def _to_device(self, plane: Any) -> Tensor:
        return torch.from_numpy(plane).to(self.device).to(self.dtype)[None, None] / 255

    def _to_host(self, real: Tensor) -> Any:
        return real[0, 0].float().mul(255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()


def time_line(section: Section, name: str) -> None:
    """Time the device path with one engine, host memory to host memory, in every runtime that serves it.

    Each runs as jobs do, with the consistency projection (``RUNTIME, projected``), and without.
    """
    engine, stand_in = engine_of(name, section.work)
    section.note("engine", {"name": name, "random_weights": stand_in, "scale": engine.scale})
    frames, ways = frames_of(section), runtimes_of(section, engine)
    for projected in (False, True):
        for way in ways:
            key = f"{way.name}, projected" if projected else way.name
            if section.left < LEAST_LEFT:
                section.note(key, {"left out": "no time left"})
                continue
            with section.step(key), left_out_where_refused(section, key):
                upscaler = DeviceUpscaler(way.make(), reuse_unchanged=False, consistency=projected)
                measure_line(section, key, upscaler, frames)
                if not projected:
                    section.add(key, against_the_plain_way=against_plain(section, engine, upscaler, frames))


def measure_line(section: Section, key: str, upscaler: DeviceUpscaler, frames: list[Frame]) -> None:
    """Measure stages, latency, throughput and allocations, and note them under a key as they come."""
    quick, started_s = section.quick, time.monotonic()
    list(upscaler.upscale_all(frames))
    section.add(key, seconds_to_be_ready=round(time.monotonic() - started_s, 2))
    stages = stages_of(section, upscaler, frames)
    section.add(key, stages=stages)
    section.add(key, paced=paced(upscaler.upscale, frames, seconds=0.2 if quick else PACED_S))
    section.add(key, one_at_a_time=one_at_a_time(upscaler.upscale, frames, num=8 if quick else 150))
    section.add(key, in_flight=throughput(section, upscaler, frames, stages))
    if section.device.type == "cuda":
        section.add(key, allocations=allocations(upscaler, frames))


def allocations(upscaler: DeviceUpscaler, frames: list[Frame]) -> dict[str, int]:
    """Count what is allocated on the device and in pinned host memory for frames of a kind that went before."""
    for _ in upscaler.upscale_all(frames):
        pass
    before = allocated_so_far()
    for _ in upscaler.upscale_all([*frames, *frames]):
        pass
    after = allocated_so_far()
    return {"frames": 2 * len(frames), **{where: after[where] - before[where] for where in after}}


def allocated_so_far() -> dict[str, int]:
    """Return how many blocks torch's allocators have given out on the device and asked CUDA for on the host."""
    found = {"device": int(torch.cuda.memory_stats()["allocation.all.allocated"])}
    told: Any = getattr(torch.cuda, "host_memory_stats", dict)()
    return {**found, "host": int(told["num_host_alloc"])} if "num_host_alloc" in told else found


def stages_of(section: Section, upscaler: DeviceUpscaler, frames: list[Frame]) -> dict[str, Any]:
    """Measure every stage alone: host copy, upload, compute, download, and what each takes a frame.

    Where frames are projected, some also measure how well they give their input back (`MEASURED_TURNS`).
    """
    slot, runs = upscaler._free[-1], 5 if section.quick else 100
    host_out = torch.empty(slot.device_out.shape, dtype=slot.device_out.dtype, pin_memory=upscaler.generator.is_gpu)
    small = slot.enlarger.small
    copies = []
    for place in range(runs):
        started = time.perf_counter_ns()
        for plane, target in zip(frames[place % len(frames)].planes, small.planes(slot.host_in), strict=True):
            np.copyto(target.numpy(), plane)
        copies.append((time.perf_counter_ns() - started) / 1e6)
    calls: dict[str, Callable[[], object]] = {
        "upload": lambda: slot.device_in.copy_(slot.host_in, non_blocking=True),
        "compute": slot.launch,
        "compute, measured": slot._launch_measured,
        "download": lambda: host_out.copy_(slot.device_out, non_blocking=True),
    }
    generator = upscaler.generator
    found: dict[str, Any] = {"host copy": summary(copies)}
    with torch.cuda.stream(generator.cuda_stream) if generator.is_gpu else nullcontext():
        for stage, call in calls.items():
            found[stage] = measured(call, device=section.device, runs=runs)
    times = {stage: found[stage]["p50_ms"] for stage in found}
    rest = 1 - 1 / MEASURED_TURNS
    times["compute"] = rest * times["compute"] + (1 - rest) * times.pop("compute, measured")
    found["a_frame_ms"] = {stage: round(taken_ms, 4) for stage, taken_ms in times.items()}
    found["bytes"] = {"in": slot.device_in.nbytes, "out": slot.device_out.nbytes}
    return found


def paced(upscale: Callable[[Frame], Frame], frames: list[Frame], *, seconds: float) -> dict[str, Any]:
    """Give a frame every 1/60 s, as a camera would, and time each from its planes to its enlarged planes."""
    num = max(int(seconds * FRAMES_A_SECOND), 3)
    taken_ms, late = [], 0
    begin = time.perf_counter() + 0.05
    for place in range(num):
        due = begin + place / FRAMES_A_SECOND
        while (left := due - time.perf_counter()) > 0:
            time.sleep(max(left - 2e-4, 0))
        late += time.perf_counter() - due > 2e-3
        started = time.perf_counter_ns()
        upscale(frames[place % len(frames)])
        taken_ms.append((time.perf_counter_ns() - started) / 1e6)
    return {**summary(taken_ms), "started_late": late}


def one_at_a_time(upscale: Callable[[Frame], Frame], frames: list[Frame], *, num: int) -> dict[str, Any]:
    """Time frames one after the other, as fast as they go."""
    taken_ms = []
    for place in range(num):
        started = time.perf_counter_ns()
        upscale(frames[place % len(frames)])
        taken_ms.append((time.perf_counter_ns() - started) / 1e6)
    return {**summary(taken_ms), "frames_a_second": round(1e3 / float(np.median(taken_ms)), 1)}


def throughput(
    section: Section, upscaler: DeviceUpscaler, frames: list[Frame], stages: dict[str, Any]
) -> dict[str, Any]:
    """Measure frames a second with several in flight, against the slowest stage alone."""
    num, rates = 20 if section.quick else 200, []
    for _ in range(2 if section.quick else 5):
        started = time.perf_counter()
        for _ in upscaler.upscale_all(frames[place % len(frames)] for place in range(num)):
            pass
        rates.append(num / (time.perf_counter() - started))
    rate = float(np.median(rates))
    slowest, taken_ms = max(stages["a_frame_ms"].items(), key=lambda pair: float(pair[1]))
    most = 1e3 / taken_ms
    return {
        "frames_a_second": round(rate, 1),
        "runs": [round(value, 1) for value in rates],
        "slowest_stage": slowest,
        "its_frames_a_second": round(most, 1),
        "part_of_it": round(rate / most, 3),
    }


def against_plain(section: Section, engine: Engine, upscaler: DeviceUpscaler, frames: list[Frame]) -> dict[str, Any]:
    """Measure the plain loop and ours in turn."""
    plain = PlainLoop(engine, section.device)
    for frame in frames[:4]:
        plain.upscale(frame)
    num = 8 if section.quick else 64
    rates: dict[str, list[float]] = {"plain": [], "ours": []}
    for _ in range(2 if section.quick else 5):
        chosen = [frames[place % len(frames)] for place in range(num)]
        started = time.perf_counter()
        for frame in chosen:
            plain.upscale(frame)
        rates["plain"].append(num / (time.perf_counter() - started))
        started = time.perf_counter()
        for _ in upscaler.upscale_all(chosen):
            pass
        rates["ours"].append(num / (time.perf_counter() - started))
    ratios = [ours / other for ours, other in zip(rates["ours"], rates["plain"], strict=True)]
    made, expected = upscaler.upscale(frames[1]), plain.upscale(frames[1])
    off = np.abs(made.planes[0].astype(int) - expected.planes[0].astype(int))
    return {
        "frames_a_second": {way: round(float(np.median(values)), 1) for way, values in rates.items()},
        "ratio": round(float(np.median(ratios)), 2),
        "ratios": [round(ratio, 2) for ratio in ratios],
        "luma_levels_off": {"max": int(off.max()), "mean": round(float(off.mean()), 5)},
    }
