"""What the NVIDIA path must reach: each goal once, how it is read from a result, and what a result makes of it.

The goals are those for an H200. Our runtimes are ``cuda``, ``fused`` and ``tensorrt``, in FP16 or what an engine ships
below it; where a goal is about one figure, the best of them counts, as ``--runtime auto`` would take it, and it is
named. What torch does by itself is what they are compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

Sections = Mapping[str, Mapping[str, Any]]
"""A result's sections by name, as `benchmarks.gpu` writes them."""

OURS = ("cuda", "fused", "tensorrt fp16", "tensorrt int8", "tensorrt fp8")
COMPILED = "torch.compile max-autotune"
PROJECTED = ", projected"
"""Behind a runtime's name where the device path projected its pictures, as jobs do."""

MOST_MEAN_LEVELS = 1.0
"""A way whose picture is further from fp32's than this in the mean does not compute the network, and does not count."""

LINE, TRACE, ROUTING = "line:fast-x2", "trace:fast-x2", "routing:srgan-x4"
PICTURE = "gpu_trace.png"
"""Of the trace, beside the result."""

MOST, BELOW, LEAST = "at most", "below", "at least"
REACHED, MISSED, NOT_MEASURED = "reached", "missed", "not measured"


class NotMeasured(Exception):
    """A result does not hold what a goal is about."""


@dataclass(frozen=True)
class Figure:
    """What a goal is compared with.

    Attributes:
        value: None where there is nothing that could miss the goal.
        by: what it was reached with, or why there is no value.
    """

    value: float | None
    by: str = ""


@dataclass(frozen=True)
class Goal:
    """One thing that must be reached.

    Attributes:
        what: in words.
        unit: of figure and limit; empty for a ratio or a number.
        bound: `MOST`, `BELOW` or `LEAST`.
        limit: that still counts as reached.
        read: returns the figure from a result's sections; raises `NotMeasured` where it is not there.
    """

    what: str
    unit: str
    bound: str
    limit: float
    read: Callable[[Sections], Figure]


def found(sections: Sections, name: str, *keys: str) -> Any:
    """Return what a section holds under some keys.

    Raises:
        NotMeasured: it holds nothing there.
    """
    value: Any = sections.get(name)
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    if value is None:
        raise NotMeasured(f"{name}: {', '.join(keys)}")
    return value


def least_of(figures: Iterable[tuple[str, float]]) -> Figure:
    """Return the smallest of some figures, each behind what it was reached with.

    Raises:
        NotMeasured: there is none.
    """
    ordered = sorted(figures, key=lambda pair: pair[1])
    if not ordered:
        raise NotMeasured("nothing of ours ran")
    return Figure(ordered[0][1], ordered[0][0])


def most_of(figures: Iterable[tuple[str, float]]) -> Figure:
    """Return the largest of some figures; see `least_of`."""
    return negative(least_of((by, -value) for by, value in figures))


def negative(figure: Figure) -> Figure:
    """Return a figure with the other sign."""
    return Figure(None if figure.value is None else -figure.value, figure.by)


def is_right(way: Any) -> bool:
    """Whether something in a section is a way that was timed and that computes the network."""
    if not isinstance(way, Mapping) or "p50_ms" not in way:
        return False
    return bool(way.get("is_finite", True)) and way.get("levels_off", {}).get("mean", 0.0) <= MOST_MEAN_LEVELS


def times_of(sections: Sections, name: str, *, ours: bool = True) -> list[tuple[str, float]]:
    """Return the medians of a section's ways: ours, or the others'."""
    ways = sections.get(name, {}).items()
    return [(way, float(told["p50_ms"])) for way, told in ways if is_right(told) and (way in OURS) == ours]


def frame_ms(engine: str) -> Callable[[Sections], Figure]:
    """Return what reads how long the fastest of our runtimes takes for a whole frame."""
    return lambda sections: least_of(times_of(sections, f"network:{engine}"))


def fused_ms(engine: str) -> Callable[[Sections], Figure]:
    """Return what reads how long the fused kernel takes for a whole frame."""
    return lambda sections: least_of(pair for pair in times_of(sections, f"network:{engine}") if pair[0] == "fused")


def fused_over_others(engine: str) -> Callable[[Sections], Figure]:
    """Return what reads the fused kernel's time over that of the fastest other way, ours or not."""

    def read(sections: Sections) -> Figure:
        name = f"network:{engine}"
        others = [pair for pair in times_of(sections, name) if pair[0] != "fused"]
        other, fused = least_of(others + times_of(sections, name, ours=False)), fused_ms(engine)(sections)
        return Figure(float(fused.value or 0) / float(other.value or 1), f"against {other.by}")

    return read


def part_of_ceiling(engine: str) -> Callable[[Sections], Figure]:
    """Return what reads a network's rate over that of the larger matrix product of the same run."""

    def read(sections: Sections) -> Figure:
        dtypes = ("float16", "bfloat16")
        ceiling = max(float(found(sections, "ceilings", f"matrix product {dtype}", "tflops")) for dtype in dtypes)
        fastest = frame_ms(engine)(sections)
        return Figure(float(found(sections, f"network:{engine}", fastest.by, "tflops")) / ceiling, fastest.by)

    return read


def patches_over_arithmetic(engine: str) -> Callable[[Sections], Figure]:
    """Return what reads the time of patches, cut and stitch included, over their arithmetic's part of the frame's."""

    def read(sections: Sections) -> Figure:
        section = found(sections, f"patches:{engine}")
        extra = float(found(sections, f"patches:{engine}", "patches", "extra_arithmetic"))

        def fastest(what: str) -> Figure:
            ways = {way: section.get(f"{way}: {what}") for way in OURS}
            return least_of((way, float(told["p50_ms"])) for way, told in ways.items() if is_right(told))

        frame, patches = fastest("frame"), fastest("patches with cut and stitch")
        return Figure(float(patches.value or 0) / (extra * float(frame.value or 1)), patches.by)

    return read


def line_figures(sections: Sections, *keys: str, behind: str = "") -> list[tuple[str, float]]:
    """Return a figure of the device path for each runtime that has it; `PROJECTED` behind its name as jobs run it."""
    told = []
    for way in OURS:
        with suppress(NotMeasured):
            told.append((way, float(found(sections, LINE, way + behind, *keys))))
    return told


def paced_ms(percentile: str) -> Callable[[Sections], Figure]:
    """Return what reads a percentile of the device path's latency, of the runtime with the least median."""

    def read(sections: Sections) -> Figure:
        fastest = least_of(line_figures(sections, "paced", "p50_ms", behind=PROJECTED)).by
        return Figure(float(found(sections, LINE, fastest + PROJECTED, "paced", percentile)), fastest)

    return read


def part_of_slowest_stage(sections: Sections) -> Figure:
    """Return the throughput of the fastest runtime over that of its slowest stage, as jobs run it."""
    fastest = most_of(line_figures(sections, "in_flight", "frames_a_second", behind=PROJECTED)).by
    told = found(sections, LINE, fastest + PROJECTED, "in_flight")
    return Figure(float(told["part_of_it"]), f"{fastest}, {told['slowest_stage']}")


def times_of_plain(sections: Sections) -> Figure:
    """Return how often the throughput of a plain loop goes into that of the best runtime."""
    return most_of(line_figures(sections, "against_the_plain_way", "ratio"))


def times_of_compiled(engine: str) -> Callable[[Sections], Figure]:
    """Return what reads how often ours goes into the time of ``torch.compile`` in one section."""

    def read(sections: Sections) -> Figure:
        name = f"compiled:{engine}"
        compiled = [pair[1] for pair in times_of(sections, name, ours=False) if pair[0] == COMPILED]
        if not compiled:
            raise NotMeasured(name)
        ours = least_of(times_of(sections, name))
        return Figure(compiled[0] / float(ours.value or 1), ours.by)

    return read


def worst_quality(precisions: tuple[str, ...], key: str) -> Callable[[Sections], Figure]:
    """Return what reads the worst figure of all engines in some precisions; without any of them nothing is offered."""

    def read(sections: Sections) -> Figure:
        rows = {name: told for name, told in found(sections, "quality").items() if isinstance(told, Mapping)}
        if not any("worst_loss_db" in told for told in rows.values()):
            raise NotMeasured("quality")
        told = {name: row for name, row in rows.items() if row.get("precision") in precisions and key in row}
        if not told:
            if "fp16" in precisions:
                raise NotMeasured("quality")
            return Figure(None, "not offered here")
        worst = most_of((name, float(row[key])) for name, row in told.items())
        return Figure(worst.value, f"{worst.by}, the worst of {len(told)}")

    return read


def allocated(sections: Sections) -> Figure:
    """Return the most blocks that any runtime's device path allocated after warm-up, on the device or the host."""
    counts = [
        (way, float(told["allocations"].get("device", 0) + told["allocations"].get("host", 0)))
        for name, section in sections.items()
        if name.startswith("line:")
        for way, told in section.items()
        if isinstance(told, Mapping) and "allocations" in told
    ]
    return most_of(counts)


def worst_routed(sections: Sections) -> Figure:
    """Return the least speed of frames whose patches are routed over whole frames, and where that was."""
    told = found(sections, ROUTING)
    ratios = {what: row["ratio"] for what, row in told.items() if isinstance(row, Mapping) and "ratio" in row}
    return least_of((what, float(ratio)) for what, ratio in ratios.items())


def overlap(sections: Sections) -> Figure:
    """Return the part of the copies' time that costs nothing, since something is computed meanwhile."""
    trace = found(sections, TRACE, "trace")
    shown = trace.get("picture") or "no picture was drawn"
    return Figure(float(found(sections, TRACE, "trace", "copies_beside_compute")), f"{trace['runtime']}, {shown}")


GOALS: tuple[Goal, ...] = (
    Goal("`srgan-x4`, 640x480, of the measured matrix ceiling", "", LEAST, 0.4, part_of_ceiling("srgan-x4")),
    Goal(
        "`srgan-x4` in 32x32 patches, over their arithmetic's part of the frame's time",
        "",
        MOST,
        1.15,
        patches_over_arithmetic("srgan-x4"),
    ),
    Goal("`quality-x2`, 1080p luma", "ms", MOST, 2.0, frame_ms("quality-x2")),
    Goal("`fast-x2`, 1080p luma", "ms", MOST, 1.2, frame_ms("fast-x2")),
    Goal("`tiny-x2`, 1080p luma", "ms", MOST, 0.4, frame_ms("tiny-x2")),
    Goal("`tiny-x2` in `fused`, 1080p luma", "ms", MOST, 0.2, fused_ms("tiny-x2")),
    Goal("`tiny-x2` in `fused`, over the fastest other way", "", BELOW, 1.0, fused_over_others("tiny-x2")),
    Goal("planes to planes, 1080p x2 at 60/s, p50", "ms", MOST, 4.0, paced_ms("p50_ms")),
    Goal("planes to planes, 1080p x2 at 60/s, p99", "ms", MOST, 8.0, paced_ms("p99_ms")),
    Goal("frames in flight, of the slowest stage's throughput", "", LEAST, 0.9, part_of_slowest_stage),
    Goal("throughput over a plain FP16 loop's", "", LEAST, 2.0, times_of_plain),
    Goal("`tiny-x2`, speed over `torch.compile` in a CUDA graph", "", LEAST, 1.0, times_of_compiled("tiny-x2")),
    Goal("`fast-x2`, speed over `torch.compile` in a CUDA graph", "", LEAST, 1.0, times_of_compiled("fast-x2")),
    Goal("`srgan-x4`, speed over `torch.compile` in a CUDA graph", "", LEAST, 1.0, times_of_compiled("srgan-x4")),
    Goal("FP16, loss against fp32", "dB", MOST, 0.01, worst_quality(("fp16",), "worst_loss_db")),
    Goal("FP16, apart from fp32", "levels", MOST, 1.0, worst_quality(("fp16",), "largest_difference_levels")),
    Goal("INT8 and FP8, loss against fp32", "dB", MOST, 0.05, worst_quality(("int8", "fp8"), "worst_loss_db")),
    Goal("allocations after warm-up", "", MOST, 0.0, allocated),
    Goal("routing, speed over whole frames where it helps least", "", LEAST, 0.98, worst_routed),
    Goal("part of the copies' time beside computing", "", LEAST, 0.5, overlap),
)
"""In the order in which they are told."""


def rows_of(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what a result makes of every goal, in rows for JSON: goal, limit, figure, reached and verdict.

    A quick run measures nothing, so its figures have no verdict.
    """
    rows = []
    for goal in GOALS:
        try:
            figure = goal.read(result["sections"])
            reached = None if result["quick"] else holds(goal, figure)
        except NotMeasured:
            figure, reached = Figure(None), None
        rows.append(
            {
                "goal": goal.what,
                "bound": goal.bound,
                "limit": goal.limit,
                "unit": goal.unit,
                "figure": None if figure.value is None else round(figure.value, 4),
                "by": figure.by,
                "reached": reached,
                "verdict": NOT_MEASURED if reached is None else REACHED if reached else MISSED,
            }
        )
    return rows


def holds(goal: Goal, figure: Figure) -> bool:
    """Whether a figure reaches a goal; nothing that could miss it does."""
    if figure.value is None:
        return True
    if goal.bound == LEAST:
        return figure.value >= goal.limit
    return figure.value < goal.limit if goal.bound == BELOW else figure.value <= goal.limit
