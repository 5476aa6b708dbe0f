"""How does the cost grow, and with what? ``python -m benchmarks.scaling [--quick] [--only size,halo]``.

One thing is varied a section, everything else stays; the points of a section are called in turn, round after round,
after two calls that are not timed. Through each section's medians a straight line is laid (slope, intercept, r²): where
it fits, the cost is that of the pixels and the intercept that of a frame; where it does not, the plot shows why.

``size``      `FrameUpscaler` on whole frames, 224 to 1920 wide, against input megapixels.
``scale``     a student of the default's shape at x2, x3 and x4, random weights, against output pixels an input pixel.
``patch``     patches of 16 to 128 px with the default's halo, against the megapixels launched.
``halo``      patches of 32 px with halos of 0 to 16 px, against the megapixels launched.
``batch``     the generator's call with 1 to 64 patches, against their number.
``threads``   whole frames with one thread to as many as there are cores, against 1 / threads.
``active``    patches of which a part changed since the last frame, against the part that was launched.
``sources``   one to four upscalers in a thread each, against their number; the time until each has made a frame.

First event: the call with a decoded frame (in ``batch``: with uint8 samples); last event: the enlarged samples are
there. The default generator, luma and chroma, without consistency projection, which is no part of the launch.
Megapixels launched are those of all windows, the padding of batches aside.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.card import machine_card, options_of, print_card, print_table, report
from benchmarks.fits import draw, line_through, plot_beside
from benchmarks.scaling_points import SECTIONS, Plan, Section
from benchmarks.students import random_engine
from benchmarks.turns import Company, in_turn
from streamsr.config import DEFAULT_ENGINE
from streamsr.engine import find_engine
from streamsr.errors import UsageError
from streamsr.models.student import StudentSpec

ROUNDS, LEAST_ROUNDS, BUDGET_S = 15, 3, 9.0
WARM_CALLS = 2
"""Calls that are not timed: the first frame of an upscaler is launched whole, the second may need another shape."""


def measure(section: Section, *, rounds: int) -> dict[str, Any]:
    """Time the points of one section in turn and lay a line through their medians."""
    company = Company()
    for call in section.calls.values():
        for _ in range(WARM_CALLS):
            call()
    timings = in_turn(section.calls, rounds=rounds, least=min(rounds, LEAST_ROUNDS), budget_s=BUDGET_S)
    rows: list[dict[str, Any]] = []
    for label, timing in timings.items():
        summary = timing.summary()
        rows.append({"point": label, "x": round(section.xs[label](), 5), **summary, "rounds": len(timing.walls_ms)})
    return {
        "x": section.axis,
        "unit": section.unit,
        "rows": rows,
        "line": line_through([row["x"] for row in rows], [row["p50_ms"] for row in rows]),
        "cores_busy_with_others": company.cores(),
    }


def draw_plot(sections: Mapping[str, dict[str, Any]], path: Path) -> str | None:
    """Draw every section: its medians with their spread, and the line."""
    panels: list[Callable[[Any], None]] = [partial(draw_panel, name, found) for name, found in sections.items()]
    return draw(path, panels, columns=min(4, len(panels)), title="cost of a frame, ms (median, p10 to p90)")


def draw_panel(name: str, found: Mapping[str, Any], axes: Any) -> None:
    """Draw one section."""
    rows = found["rows"]
    xs, middles = [row["x"] for row in rows], [row["p50_ms"] for row in rows]
    below = [row["p50_ms"] - row["p10_ms"] for row in rows]
    above = [row["p90_ms"] - row["p50_ms"] for row in rows]
    axes.errorbar(xs, middles, [below, above], fmt="o", markersize=4, capsize=2)
    title, line = name, found["line"]
    if line is not None:
        ends = [min(xs), max(xs)]
        axes.plot(ends, [line["intercept"] + line["slope"] * x for x in ends], linewidth=1)
        title = f"{name}: {line['intercept']:.3g} + {line['slope']:.3g} x, r² {line['r2']:.3f}"
    axes.set_title(title, fontsize=8)
    axes.set_xlabel(found["x"], fontsize=8)
    axes.set_ylim(bottom=0)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the option that this benchmark has beside the usual ones."""
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, with commas between them")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, draw and write."""
    options = options_of("scaling", "How does the cost grow, and with what?", arguments, add_options)
    names = options.only.split(",")
    if unknown := set(names) - set(SECTIONS):
        print(f"--only: expected some of {', '.join(SECTIONS)}, got {', '.join(sorted(unknown))}", file=sys.stderr)
        return UsageError.exit_code
    card, started_s, rounds = machine_card(), time.monotonic(), 1 if options.quick else ROUNDS
    print_card(card)
    sections: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        quick = options.quick
        engine = (
            random_engine(Path(folder) / "mini-x2", StudentSpec(16, 1, 2)) if quick else find_engine(DEFAULT_ENGINE)
        )
        plan = Plan(engine, Path(folder), quick=quick)
        for name in names:
            with SECTIONS[name](plan) as section:
                sections[name] = measure(section, rounds=rounds)
            show(name, sections[name])
    result = {
        "question": "scaling",
        "quick": options.quick,
        "card": card,
        "engine": engine.name,
        "sections": sections,
        "seconds": round(time.monotonic() - started_s, 1),
    }
    plot = plot_beside(options.json)
    result["plot"] = draw_plot(sections, plot) if plot else None
    report(result, options.json)
    return 0


def show(name: str, found: Mapping[str, Any]) -> None:
    """Print one section."""
    print(f"\n{name}, others kept {found['cores_busy_with_others']} cores busy; line: {found['line']}")
    print_table(found["rows"], ("point", "x", "p10_ms", "p50_ms", "p90_ms", "rounds"))


if __name__ == "__main__":
    sys.exit(main())
