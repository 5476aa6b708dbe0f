"""What overlaps: a few frames in flight under torch's profiler, as figures, as a trace and as a picture."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_engines import engine_of
from benchmarks.gpu_goals import PICTURE
from benchmarks.gpu_line import frames_of
from benchmarks.gpu_timing import Section
from benchmarks.gpu_ways import generator_on
from streamsr.device.upscaler import DeviceUpscaler

TRACE_FILE = "gpu_trace.json.gz"


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
    with gzip.open(section.pictures / TRACE_FILE, "wb") as packed:
        packed.write(raw.read_bytes())
    events = device_events(json.loads(raw.read_text(encoding="utf-8")))
    section.note("trace", {"engine": engine.name, "runtime": "cuda", **overlap_of(events)})
    if not events:
        return
    with section.step("picture"):
        place = torch.cuda.get_device_name(section.device)
        draw_trace(
            events, section.pictures / PICTURE, title=f"{engine.name}, 1080p to 2160p, frames in flight, {place}"
        )
        section.add("trace", picture=PICTURE)


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
    """Return how long each lane was busy, for how long at least one was and two were, and what copies cost nothing.

    ``copies_beside_compute`` is the part of the copies' time in which something was computed, too.
    """
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
    computing = covered((start, start + taken) for lane, start, taken, _ in events if lane == "compute")
    copying = covered((start, start + taken) for lane, start, taken, _ in events if lane != "compute")
    copied_us = sum(end - start for start, end in copying)
    longest = sorted(kernels.items(), key=lambda entry: -entry[1])[:12]
    return {
        "events": len(events),
        "span_us": round(edges[-1][0] - edges[0][0]),
        "busy_us": round(busy),
        "two_at_once_us": round(shared),
        "lanes_us": lanes,
        "copies_beside_compute": round(shared_us(copying, computing) / copied_us, 3) if copied_us else None,
        "longest_kernels_us": {kernel: round(taken) for kernel, taken in longest},
    }


def covered(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return spans of time as few that do not overlap.

    >>> covered([(4, 6), (0, 2), (1, 3)])
    [(0, 3), (4, 6)]
    """
    found: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def shared_us(some: list[tuple[float, float]], others: list[tuple[float, float]]) -> float:
    """Return for how long two lists of spans, each without overlap, are both under way.

    >>> shared_us([(0, 3), (4, 6)], [(2, 5)])
    2
    """
    return sum(max(min(end, other[1]) - max(start, other[0]), 0) for start, end in some for other in others)


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
