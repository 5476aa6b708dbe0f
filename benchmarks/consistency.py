"""What does the consistency projection cost? ``python -m benchmarks.consistency [--quick]``.

A frame goes through the same `FrameUpscaler` with and without the projection, in turn, whole frame, nothing skipped and
nothing reused. First event: the call with the decoded frame; last: its enlarged planes are there. The shares of samples
given back within a level, before and after, are those of these frames; of camera pictures they stand in
``engines/*/metrics.json`` (``within_level``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np

from benchmarks.card import machine_card, options_of, print_card, print_table, report
from benchmarks.turns import in_turn
from streamsr.capture.testsrc import EndoscopySource, TestSettings
from streamsr.config import GeneratorSettings
from streamsr.engine import find_engine
from streamsr.frame import Colour, Frame, PlaneLayout
from streamsr.runtimes import load_generator
from streamsr.upscaler import FrameUpscaler

ENGINES = ("tiny-x2", "fast-x2", "fast-x2-robust", "quality-x2", "tiny-x4", "fast-x4", "quality-x4")
SIZES = ((320, 240), (640, 480))
RGB_ENGINES = ("srresnet-x2", "srgan-x2", "srresnet-x4", "srgan-x4")
RGB_SIZES = ((160, 120),)
"""Their networks do some thirty times the arithmetic of fast-x4 for a pixel."""
BUDGET_S = 12.0


def measure(name: str, width: int, height: int, *, rounds: int) -> dict[str, Any]:
    """Return the cost with and without the projection, and the median ratio of neighbouring calls."""
    generator = load_generator(find_engine(name), GeneratorSettings(engine=name, runtime="openvino"))
    upscalers = {
        asked: FrameUpscaler(generator, launch="frame", skip_surround=False, reuse_unchanged=False, consistency=asked)
        for asked in (False, True)
    }
    frames = {asked: cycle(frames_of(width, height)) for asked in upscalers}
    calls = {
        "with" if asked else "without": partial(upscale_next, upscaler, frames[asked])
        for asked, upscaler in upscalers.items()
    }
    for call in calls.values():
        call()
    timings = in_turn(calls, rounds=rounds, budget_s=BUDGET_S)
    count = upscalers[True].consistency
    ratios = np.array(timings["with"].walls_ms) / np.array(timings["without"].walls_ms)
    return {
        "engine": name,
        "size": f"{width}x{height}",
        "without_ms": timings["without"].summary()["p50_ms"],
        "with_ms": timings["with"].summary()["p50_ms"],
        "ratio": round(float(np.median(ratios)), 3),
        "within_level_before": round(count.share_before, 5),
        "within_level": round(count.share, 5),
        "rounds": len(ratios),
    }


def upscale_next(upscaler: FrameUpscaler, source: Iterator[Frame]) -> None:
    """Enlarge the next frame."""
    upscaler.upscale(next(source))


def frames_of(width: int, height: int) -> list[Frame]:
    """Return eight moving gray frames of the synthetic scene."""
    with EndoscopySource(TestSettings(width=width, height=height, frames=8)) as source:
        frames = [frame for frame in source if isinstance(frame, Frame)]
    gray = Colour(6, False, 6, 6)
    return [
        Frame((np.array(frame.planes[0]),), PlaneLayout(None), gray, frame.sequence, Fraction(1, 25))
        for frame in frames
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write."""
    options = options_of("consistency", "Cost of the consistency projection.", arguments)
    card = machine_card()
    print_card(card)
    cases = [(name, size) for name in ENGINES for size in SIZES] + [
        (n, size) for n in RGB_ENGINES for size in RGB_SIZES
    ]
    cases, rounds = ([("tiny-x2", (128, 96))], 3) if options.quick else (cases, 60)
    rows = [measure(name, *size, rounds=rounds) for name, size in cases]
    print_table(rows, tuple(rows[0]))
    report({"question": "consistency", "quick": options.quick, "card": card, "rows": rows}, options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
