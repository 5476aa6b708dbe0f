"""What routing patches on the device saves where part of the picture changes, and costs where all of it does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_engines import engine_of
from benchmarks.gpu_networks import frame_size
from benchmarks.gpu_timing import Section, inputs_of, measured
from benchmarks.gpu_ways import generator_on
from streamsr.device.planes import tiling_of
from streamsr.device.upscaler import DeviceUpscaler
from streamsr.device.worth import WATCHED
from streamsr.frame import Colour, Frame, PlaneLayout
from streamsr.runtimes.patch_ops import compare_windows

PARTS = (0.05, 0.2, 0.5, 1.0)
"""Of the picture that changes from frame to frame: a rectangle of the frame's proportions."""

LAYOUT, COLOUR = PlaneLayout((1, 1), 8), Colour(1, False, 1, 1)


def time_routing(section: Section, name: str) -> None:
    """Time frames of which a part changes, routed and not, in turn; and the comparison alone."""
    engine, stand_in = engine_of(name, section.work)
    height, width = frame_size(section, engine)
    section.note("engine", {"name": name, "random_weights": stand_in, "input": [height, width]})
    num = 24 if section.quick else 100
    for part in PARTS:
        with section.step(f"{part:g} of the picture"):
            upscalers = {
                way: DeviceUpscaler(generator_on(section, engine), consistency=True, routes=way == "routed")
                for way in ("routed", "whole")
            }
            for upscaler in upscalers.values():  # until the router has made up its mind and its launches are ready
                run(upscaler, frames_of(section, height, width, part, 2 * WATCHED))
            rates: dict[str, list[float]] = {way: [] for way in upscalers}
            for _ in range(2 if section.quick else 3):
                for way, upscaler in upscalers.items():
                    rates[way].append(num / run(upscaler, frames_of(section, height, width, part, num)))
            ratios = [routed / whole for routed, whole in zip(rates["routed"], rates["whole"], strict=True)]
            router, count = upscalers["routed"]._router, upscalers["routed"].count
            assert router is not None
            section.note(
                f"{part:g} of the picture",
                {
                    "frames_a_second": {way: round(float(np.median(values)), 1) for way, values in rates.items()},
                    "ratio": round(float(np.median(ratios)), 3),
                    "ratios": [round(ratio, 3) for ratio in ratios],
                    "state": router.worth.state,
                    "core_px": router.worth.core_px,
                    "launched": round(count.launched / count.total, 3),
                },
            )
    with section.step("comparison"):
        section.note("comparison", time_comparison(section, upscalers["routed"]))


def run(upscaler: DeviceUpscaler, frames: Iterator[Frame]) -> float:
    """Enlarge frames with several in flight; return how many seconds it took."""
    started = time.perf_counter()
    for _ in upscaler.upscale_all(frames):
        pass
    return time.perf_counter() - started


def frames_of(section: Section, height: int, width: int, part: float, num: int) -> Iterator[Frame]:
    """Give frames that are all alike but for a rectangle in their middle, which changes from one to the next."""
    pictures = [picture[0].cpu().numpy() for picture in inputs_of(section, 3, height, width, torch.uint8, 4)]
    tall, wide = (max(round(side * part**0.5), 1) for side in (height, width))
    top, left = (height - tall) // 2, (width - wide) // 2
    made = []
    for picture in pictures:
        whole = pictures[1].copy()
        whole[:, top : top + tall, left : left + wide] = picture[:, top : top + tall, left : left + wide]
        made.append((whole[0], whole[1, ::2, ::2].copy(), whole[2, ::2, ::2].copy()))
    for place in range(num):
        yield Frame(made[place % len(made)], LAYOUT, COLOUR, place, Fraction(1, 60), sequence=place)


def time_comparison(section: Section, upscaler: DeviceUpscaler) -> dict[str, Any]:
    """Time the comparison of two frames' luma on the device alone, by device events."""
    router = upscaler._router
    assert router is not None
    small = router.enlarger.small
    now, before = (small.luma(slot.device_in) for slot in list(upscaler._free)[:2])
    mask = torch.zeros(router.grid.num, dtype=torch.uint8, device=now.device)
    tiling, runs = tiling_of(router.grid), 5 if section.quick else 100
    return dict(measured(lambda: compare_windows(now, before, mask, tiling), device=section.device, runs=runs))
