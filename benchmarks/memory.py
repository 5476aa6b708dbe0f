"""How much memory does it take, and does it grow? ``python -m benchmarks.memory [--quick] [--minutes 60]``.

Without ``--minutes``: peak and steady resident memory against the frame size; each size is enlarged by a program of its
own, as `upscale_file` does by default but with every patch computed. First event: the call with the name of the clip;
last event: the closed file. Steady is the median over the second half of the frames.

With ``--minutes``: a live session shows a rendered source at its own pace, 25 frames a second, for so long; the memory
of the program and of all that it started is noted every two seconds. Growth is between the end of the first minute in
which frames count, which is discarded, and the end. What is not run keeps its last figures in the JSON, whose
``seconds`` are those of the sizes: what a run without ``--minutes`` takes.

`measure_memory` and `family_kib` are what other benchmarks measure with.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.card import machine_card, options_of, print_card, print_table, report
from benchmarks.fits import plot_beside
from benchmarks.turns import Company
from streamsr.config import UpscaleSettings
from streamsr.job import JobProgress, upscale_file

SETTLED = 0.5
"""The first part of a clip does not count: shapes are compiled, and allocators take what they will need (40 MiB, most
of it in 500 frames). What still grows behind it are the stage clocks, nine durations of four bytes a frame, up to
`streamsr.timing.WINDOW`."""

PAGE_KIB = os.sysconf("SC_PAGE_SIZE") / 1024


def resident_kib() -> float:
    """Return the resident memory of this program in KiB."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE_KIB


def peak_kib() -> float:
    """Return the most resident memory that this program has had, in KiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def measure_memory(clip: Path, settings: UpscaleSettings, folder: Path) -> dict[str, Any]:
    """Enlarge a long clip and return how resident memory went with the frames.

    Every patch is computed (no reuse), so that every frame allocates what a frame can allocate.

    Returns:
        ``slope_kib_a_frame`` is the least-squares slope behind the settled part; ``growth_mib`` the difference between
        the medians of the last and the first fifth of it.
    """
    samples: list[tuple[int, float]] = []

    def watch(progress: JobProgress) -> None:
        samples.append((progress.shown, resident_kib()))

    generator = replace(settings.generator, reuse_unchanged=False, skip_surround=False)
    result = upscale_file(clip, folder / "long.mkv", settings=replace(settings, generator=generator), watch=watch)
    settled = [sample for sample in samples if sample[0] >= SETTLED * result.frames_out]
    frames, kib = (np.array(values, float) for values in zip(*settled, strict=True))
    fifth = max(1, len(settled) // 5)
    moved = len(set(frames.tolist())) > 1
    return {
        "num_frames": result.frames_out,
        "samples": len(settled),
        "resident_mib": round(float(np.median(kib)) / 1024, 1),
        "slope_kib_a_frame": round(float(np.polyfit(frames, kib, 1)[0]), 3) if moved else 0.0,
        "growth_mib": round(float(np.median(kib[-fifth:]) - np.median(kib[:fifth])) / 1024, 2),
    }


def family_kib() -> float:
    """Return the resident memory of this program and of all that it started, in KiB; shared pages count in each."""
    parents: dict[int, int] = {}
    pages: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                fields = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            except OSError:  # it has ended meanwhile
                continue
            parents[int(folder.name)], pages[int(folder.name)] = int(fields[1]), int(fields[21])
    return sum(pages[pid] for pid in pages if _descends(pid, os.getpid(), parents)) * PAGE_KIB


def _descends(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    while pid and pid != ancestor:
        pid = parents.get(pid, 0)
    return pid == ancestor


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
    from benchmarks import memory_runs  # which measures with what is above

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
