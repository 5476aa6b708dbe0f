"""Planes in host memory to planes in host memory: latency, throughput, the plain way, and what overlaps."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.gpu_engines import engine_of
from benchmarks.gpu_networks import generator_on
from benchmarks.gpu_timing import Section, inputs_of, measured, real_pictures, summary
from streamsr.device_upscaler import DeviceUpscaler
from streamsr.engine import Engine
from streamsr.frame import Colour, Frame, PlaneLayout
from streamsr.runtimes.fused import FusedGenerator, serves
from streamsr.runtimes.gpu_generator import tuned_convolutions
from streamsr.runtimes.torch_cpu import TorchGenerator, load_network

FRAMES_A_SECOND = 60
NUM_FRAMES = 16
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
    """Time the device path with one engine, host memory to host memory."""
    engine, stand_in = engine_of(name, section.work)
    section.note("engine", {"name": name, "random_weights": stand_in, "scale": engine.scale})
    frames = frames_of(section)
    upscaler = DeviceUpscaler(generator_on(section, engine), reuse_unchanged=False)
    with section.step("first frames"):
        started = time.monotonic()
        list(upscaler.upscale_all(frames))
        section.note("seconds_to_be_ready", round(time.monotonic() - started, 2))
    with section.step("stages"):
        section.note("stages", stages_of(section, upscaler, frames))
    with section.step("paced"):
        section.note("paced at 60 a second", paced(upscaler.upscale, frames, seconds=0.2 if section.quick else 10.0))
    with section.step("unpaced"):
        section.note("one at a time", one_at_a_time(upscaler.upscale, frames, num=8 if section.quick else 200))
    with section.step("throughput"):
        section.note("in flight", throughput(section, upscaler, frames))
    with section.step("against the plain way"):
        section.note("against the plain way", against_plain(section, engine, upscaler, frames))
    with section.step("with consistency"):
        projecting = DeviceUpscaler(generator_on(section, engine), reuse_unchanged=False, consistency=True)
        list(projecting.upscale_all(frames))
        section.note("with consistency: stages", stages_of(section, projecting, frames))
        num = 8 if section.quick else 100
        section.note("with consistency: one at a time", one_at_a_time(projecting.upscale, frames, num=num))
    if section.device.type == "cuda" and serves(engine):
        with section.step("fused"):
            fused = DeviceUpscaler(FusedGenerator(engine), reuse_unchanged=False)
            list(fused.upscale_all(frames))
            section.note("fused: stages", stages_of(section, fused, frames))
            section.note("fused: one at a time", one_at_a_time(fused.upscale, frames, num=200))
            section.note("fused: paced at 60 a second", paced(fused.upscale, frames, seconds=4.0))
            section.note("fused: in flight", throughput(section, fused, frames))


def stages_of(section: Section, upscaler: DeviceUpscaler, frames: list[Frame]) -> dict[str, Any]:
    """Measure every stage alone: host copy, upload, compute, download."""
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
        "download": lambda: host_out.copy_(slot.device_out, non_blocking=True),
    }
    generator = upscaler.generator
    found: dict[str, Any] = {"host copy": summary(copies)}
    with torch.cuda.stream(generator.cuda_stream) if generator.is_gpu else nullcontext():
        for stage, call in calls.items():
            found[stage] = measured(call, device=section.device, runs=runs)
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


def throughput(section: Section, upscaler: DeviceUpscaler, frames: list[Frame]) -> dict[str, Any]:
    """Measure frames a second with several in flight, against the slowest stage alone."""
    num, rates = 20 if section.quick else 300, []
    for _ in range(2 if section.quick else 5):
        started = time.perf_counter()
        for _ in upscaler.upscale_all(frames[place % len(frames)] for place in range(num)):
            pass
        rates.append(num / (time.perf_counter() - started))
    rate = float(np.median(rates))
    found: dict[str, Any] = {"frames_a_second": round(rate, 1), "runs": [round(value, 1) for value in rates]}
    for where in ("stages", "fused: stages"):
        stages = section.result.get(where)
        if stages:
            slowest = max(("host copy", "upload", "compute", "download"), key=lambda stage: stages[stage]["p50_ms"])
            most = 1e3 / stages[slowest]["p50_ms"]
            found.update(slowest_stage=slowest, its_frames_a_second=round(most, 1), part_of_it=round(rate / most, 3))
    return found


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


def compare_precisions(section: Section, names: tuple[str, ...]) -> None:
    """Compare half precision with fp32 (on the CPU) on real pictures: levels, and decibels against the original."""
    real = real_pictures(section.frames)
    section.note("pictures", len(real))
    if not real:
        real = [picture[0].permute(1, 2, 0).cpu().numpy() for picture in inputs_of(section, 3, 96, 128, torch.uint8, 4)]
    for name in names:
        engine, stand_in = engine_of(name, section.work)
        if stand_in or engine.colour != "luma":
            continue
        for precision in ("fp16", "bf16") if section.device.type == "cuda" else ("fp32",):
            with section.step(f"{name} {precision}"):
                generator = generator_on(section, engine, precision=precision)
                section.note(f"{name} {precision}", precision_loss(engine, generator, real))


def precision_loss(engine: Engine, generator: Any, pictures: list[Any]) -> dict[str, Any]:
    """Return the largest difference in levels, the part of samples that differ, and the worst loss in decibels."""
    reference, scale = TorchGenerator(engine), engine.scale
    largest, differing, losses = 0, [], []
    for picture in pictures:
        luma = picture.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
        tall, wide = (side // (8 * scale) * 8 * scale for side in luma.shape)
        target = torch.from_numpy(luma[:tall, :wide])[None, None]
        small = functional.avg_pool2d(target, scale).round().clamp(0, 255).to(torch.uint8).numpy()
        made, expected = generator.generate(small).astype(int), reference.generate(small).astype(int)
        largest = max(largest, int(np.abs(made - expected).max()))
        differing.append(float((made != expected).mean()))
        errors = [float(((levels - target.numpy()) ** 2).mean()) for levels in (made, expected)]
        losses.append(10 * float(np.log10(errors[0] / errors[1])))
    return {
        "pictures": len(pictures),
        "largest_difference_levels": largest,
        "part_of_samples_that_differ": round(float(np.mean(differing)), 6),
        "worst_loss_db": round(max(losses), 5),
        "mean_loss_db": round(float(np.mean(losses)), 6),
    }


def trace_line(section: Section, name: str) -> None:
    """Record a few frames in flight with torch's profiler; write the trace, its summary and a picture."""
    engine, _ = engine_of(name, section.work)
    frames = frames_of(section)
    upscaler = DeviceUpscaler(generator_on(section, engine), reuse_unchanged=False)
    list(upscaler.upscale_all(frames))
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if section.device.type == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as profiler:
        list(upscaler.upscale_all(frames))
        if section.device.type == "cuda":
            torch.cuda.synchronize()
    raw = section.work / "trace.json"
    profiler.export_chrome_trace(str(raw))
    with gzip.open(section.pictures / "trace.json.gz", "wb") as packed:
        packed.write(raw.read_bytes())
    events = device_events(json.loads(raw.read_text(encoding="utf-8")))
    section.note("trace", overlap_of(events))
    if not events:
        return
    with section.step("picture"):
        draw_trace(events, section.pictures / "trace.png", title=f"{engine.name}, 1080p to 2160p, frames in flight")


Event = tuple[str, float, float, str]
"""Lane, start and duration in microseconds, name."""

LANES = {"HtoD": "copy in", "DtoH": "copy out"}


def device_events(trace: dict[str, Any]) -> list[Event]:
    """Return what ran on the device."""
    found: list[Event] = []
    for event in trace.get("traceEvents", []):
        if event.get("ph") != "X" or event.get("cat") not in ("kernel", "gpu_memcpy", "gpu_memset"):
            continue
        lane = next((lane for word, lane in LANES.items() if word in event["name"]), "compute")
        found.append((lane, float(event["ts"]), float(event["dur"]), event["name"]))
    return sorted(found, key=lambda event: event[1])


def overlap_of(events: list[Event]) -> dict[str, Any]:
    """Return how long each lane was busy, and for how long at least one and at least two were."""
    if not events:
        return {"events": 0}
    edges = sorted([(start, 1) for _, start, _, _ in events] + [(start + taken, -1) for _, start, taken, _ in events])
    busy = shared = 0.0
    depth, before = 0, edges[0][0]
    for place, change in edges:
        busy += (place - before) * (depth > 0)
        shared += (place - before) * (depth > 1)
        depth, before = depth + change, place
    names = ("copy in", "compute", "copy out")
    lanes = {lane: round(sum(event[2] for event in events if event[0] == lane)) for lane in names}
    kernels: dict[str, float] = {}
    for lane, _, taken, kernel in events:
        if lane == "compute":
            kernels[kernel[:90]] = kernels.get(kernel[:90], 0.0) + taken
    longest = sorted(kernels.items(), key=lambda entry: -entry[1])[:12]
    return {
        "events": len(events),
        "span_us": round(edges[-1][0] - edges[0][0]),
        "busy_us": round(busy),
        "two_at_once_us": round(shared),
        "lanes_us": lanes,
        "longest_kernels_us": {kernel: round(taken) for kernel, taken in longest},
    }


def draw_trace(events: list[Event], file: Path, *, title: str, most_us: float = 6000.0) -> None:
    """Draw the lanes over time, a few frames from the middle of the recording."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    middle = (events[0][1] + events[-1][1]) / 2
    shown = [event for event in events if middle <= event[1] < middle + most_us]
    figure, axes = pyplot.subplots(figsize=(12, 2.6), layout="constrained")
    colours = {"copy in": "#3b7dd8", "compute": "#d8703b", "copy out": "#3ba55d"}
    for row, lane in enumerate(("copy out", "compute", "copy in")):
        spans = [((start - middle) / 1e3, taken / 1e3) for kind, start, taken, _ in shown if kind == lane]
        axes.broken_barh(spans, (row - 0.35, 0.7), facecolors=colours[lane], edgecolors="white", linewidth=0.2)
    axes.set_yticks(range(3), ["copy out", "compute", "copy in"])
    axes.set_xlabel("milliseconds")
    axes.set_title(title, fontsize=10)
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
