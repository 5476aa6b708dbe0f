"""How much memory does it take, and does it grow? ``python -m benchmarks.memory [--quick] [--minutes 60]``.

Without ``--minutes``: peak and steady resident memory against the frame size; each size is enlarged by a program of its
own, as `upscale_file` does by default but with every patch computed. First event: the call with the name of the clip;
last event: the closed file. Steady is the median over the second half of the frames.

With ``--minutes``: a live session shows a rendered source at its own pace, 25 frames a second, for so long; the memory
of the program and of all that it started is noted every two seconds. Growth is between the end of the first minute in
which frames count, which is discarded, and the end. What is not run keeps its last figures in the JSON, whose
``seconds`` are those of the sizes: what a run without ``--minutes`` takes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import memory_runs
from benchmarks.card import machine_card, options_of, print_card, print_table, report
from benchmarks.fits import plot_beside
from benchmarks.turns import Company


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that this benchmark has beside the usual ones."""
    parser.add_argument("--minutes", type=float, help="of paced frames, in place of the sizes")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)


def measured_before(path: Path | None) -> tuple[dict[str, Any], float | None]:
    """Return the sections of an earlier result, which those measured now replace, and how long its sizes took."""
    if path is None or not path.is_file():
        return {}, None
    result = json.loads(path.read_text(encoding="utf-8"))
    return result["sections"], result.get("seconds")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, draw and write."""
    options = options_of("memory", "How much memory does it take, and does it grow?", arguments, add_options)
    if options.one is not None:
        print(json.dumps(memory_runs.measure_one(options.one)))
        return 0
    card, started_s, company = machine_card(), time.monotonic(), Company()
    print_card(card)
    (sections, seconds), found = measured_before(options.json), dict[str, Any]()
    if options.quick or options.minutes is None:
        sizes = ((128, 96),) if options.quick else memory_runs.SIZES
        found["sizes"] = memory_runs.measure_sizes(sizes, most_frames=12 if options.quick else memory_runs.FRAMES[1])
        seconds = round(time.monotonic() - started_s, 1)
        print_table(found["sizes"]["rows"], ("size", "num_frames", "before_mib", "peak_mib", "steady_mib"))
    if options.minutes is not None:
        found["paced"] = memory_runs.measure_paced(60 * options.minutes)
        print({key: value for key, value in found["paced"].items() if key != "samples"})
    when = {"measured": card["date"], "commit": card["commit"], "cores_busy_with_others": company.cores()}
    sections |= {name: {**section, **when} for name, section in found.items()}
    result = {
        "question": "memory",
        "quick": options.quick,
        "card": card,
        "sections": sections,
        "goals": memory_runs.goals_of(sections),
        "seconds": seconds,
    }
    plot = plot_beside(options.json)
    result["plot"] = memory_runs.draw_plot(sections.get("sizes"), sections.get("paced"), plot) if plot else None
    report(result, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
