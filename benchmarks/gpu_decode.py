"""How fast is a file decoded, alone and before a network: in software, by NVDEC, by NVDEC with planes that stay.

Timed from the open source's first frame to its last, which is waited for where it lies on the GPU; and from the start
of capture, upscaling and a sink that forgets to their end. Opening is timed apart. The clip is rendered and encoded
here, so that it moves and no file is needed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.clips import long_clip
from benchmarks.gpu_engines import engine_of
from benchmarks.gpu_timing import Section
from benchmarks.gpu_ways import generator_on
from streamsr.capture import open_source
from streamsr.capture.base import KeepingSource, Source
from streamsr.device.upscaler import DeviceUpscaler
from streamsr.device_frame import DevicePlane
from streamsr.frame import Frame
from streamsr.pipeline import Pipeline
from streamsr.sinks.null import NullSink

WAYS = ("software", "downloaded", "staying")
"""By the processor; by NVDEC, and copied to host memory; by NVDEC, and left on the GPU."""

STAYS = "decoded pictures stay on the GPU"
DECODED = {"downloaded": "decoded by the GPU (NVDEC)", "staying": STAYS}
NUM_COMPARED = 8


def time_decode(section: Section, name: str = "fast-x2") -> None:
    """Time decoding alone and before a network, each way there is, in turn.

    Args:
        section: where; on the CPU the first way alone is timed.
        name: of the engine.
    """
    width, height, num_frames = (128, 96, 24) if section.quick else (1920, 1080, 300)
    with section.step("clip"):
        started = time.monotonic()
        path = long_clip(section.work, width, height, num_frames, num_different=8 if section.quick else 40)
        section.note("clip", {"width": width, "height": height, "frames": num_frames, "codec": "h264"})
        section.note("seconds_to_make_it", round(time.monotonic() - started, 1))
    ways = [way for way in WAYS[: 3 if section.device.type == "cuda" else 1] if served(section, path, way)]
    with section.step("same pictures"):
        section.note("levels_off_software", {way: levels_off(section, path, way) for way in ways[1:]})
    engine, stand_in = engine_of(name, section.work)
    section.note("engine", {"name": name, "random_weights": stand_in, "scale": engine.scale})
    upscaler = DeviceUpscaler(generator_on(section, engine), reuse_unchanged=False)
    runs: dict[str, Callable[[Source], None]] = {
        "decoding": decode,
        "whole line": lambda source: run_line(source, upscaler),
    }
    for what, run in runs.items():
        with section.step(what):
            section.note(what, in_turn(section, path, ways, run))


def opened(section: Section, path: Path, way: str) -> Source:
    """Return the clip as a source, decoded one way."""
    source = open_source(path, hwaccel="none" if way == "software" else "cuda")
    if way == "staying" and isinstance(source, KeepingSource):
        source.keep_on(str(section.device))
    return source


def served(section: Section, path: Path, way: str) -> bool:
    """Return whether a way is really taken; note why where it is not."""
    with opened(section, path, way) as source:
        if way == "software" or DECODED[way] in source.info.notices:
            return True
        section.note(f"{way}: left out", list(source.info.notices))
        return False


def levels_off(section: Section, path: Path, way: str) -> int:
    """Return how far the first frames are from those that the processor decodes, at most."""
    with opened(section, path, "software") as expected, opened(section, path, way) as made:
        pairs = zip(frames_of(expected), frames_of(made), range(NUM_COMPARED), strict=False)
        return max(
            int(np.abs(np.asarray(plane).astype(int) - other).max())
            for frame, found, _ in pairs
            for plane, other in zip(found.planes, frame.planes, strict=True)
        )


def frames_of(source: Source) -> Iterator[Frame]:
    """Return the frames of a source, as they come."""
    return (item for item in source if isinstance(item, Frame))


def decode(source: Source) -> None:
    """Read a source to its end, and wait for its last frame where that lies on the GPU."""
    for last in deque(frames_of(source), maxlen=1):
        for plane in last.planes:
            if isinstance(plane, DevicePlane) and plane.ready is not None:
                plane.ready.synchronize()


def run_line(source: Source, upscaler: DeviceUpscaler) -> None:
    """Run a source through an upscaler into a sink that forgets."""
    with NullSink() as sink, Pipeline(source, upscaler, sink) as line:
        line.join()


def in_turn(section: Section, path: Path, ways: list[str], run: Callable[[Source], None]) -> dict[str, Any]:
    """Run each way by turns, after one round of warming up; return frames and processor time by way."""
    rates: dict[str, list[float]] = {way: [] for way in ways}
    processor: dict[str, list[float]] = {way: [] for way in ways}
    opening: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(1 + (1 if section.quick else 5)):
        for way in ways:
            started = time.perf_counter()
            with opened(section, path, way) as source:
                begun, begun_cpu = time.perf_counter(), time.process_time()
                run(source)
                taken, taken_cpu = time.perf_counter() - begun, time.process_time() - begun_cpu
                num = source.report.num_frames
            if turn:
                rates[way].append(num / taken)
                processor[way].append(1e3 * taken_cpu / num)
                opening[way].append(begun - started)
    return {
        way: {
            "frames_a_second": round(float(np.median(rates[way])), 1),
            "each": [round(rate, 1) for rate in rates[way]],
            "against_software": round(float(np.median(np.divide(rates[way], rates["software"]))), 3),
            "processor_ms_a_frame": round(float(np.median(processor[way])), 3),
            "seconds_to_open": round(float(np.median(opening[way])), 3),
        }
        for way in ways
    }
