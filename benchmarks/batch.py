"""Find what distributing an archive costs: over processes, over Ray, in the journal, and a frame at each step.

    python -m benchmarks.batch [--only scaling,ray,costs,codecs]

The first event timed is the call of `streamsr.batch.archive.enlarge_archive` on clips that nobody has done, the last
one its return, with every result checked, published and reported. Workers are started before and have done a file. All
candidates run in turn, round by round, on the same clips. Sections:

``scaling``  one worker on one core against two workers on a core each. The ideal is twice the first. Two cores of one
             machine share its memory, and often one processor core: ``ceiling`` is what two processes that only compute
             reach of twice one, same run. One worker on both cores is measured beside them.
``ray``      two workers on a core each against a Ray cluster of this machine with two cores, a task a core.
``costs``    the journal's share of a run of many short clips; what a frame costs to read, hash, check and join.
``codecs``   what a frame costs the processor to decode and to encode, for two sizes of pictures.

What is not run keeps its last figures in the JSON; each section says at which commit it was measured, and beside how
much other work.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.batch_runs import Bench, codec_costs, frame_costs, timed_journal
from benchmarks.card import machine_card, options_of, print_card, print_table, report
from benchmarks.turns import Company
from streamsr.batch.local import LocalExecutor, Place

SECTIONS = ("scaling", "ray", "costs", "codecs")
LEAST_SCALING, MOST_RAY, MOST_JOURNAL = 0.9, 0.10, 0.01

SPIN = (
    "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nfor _ in range(int(sys.argv[2])): sum(range(100000))"
)
"""A process that only computes, on one core."""


def rounds_of(calls: Mapping[str, Callable[[], float]], num: int) -> dict[str, list[float]]:
    """Call everything once a round; return the seconds of each."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(num):
        for name, call in calls.items():
            taken[name].append(call())
    return taken


def spin(cores: Sequence[int], loops: int) -> float:
    """Let a process compute on each of some cores; return the seconds until all have ended."""
    started = time.perf_counter()
    processes = [subprocess.Popen([sys.executable, "-c", SPIN, str(core), str(loops)]) for core in cores]
    for process in processes:
        process.wait()
    return time.perf_counter() - started


def measure_scaling(bench: Bench, num_rounds: int) -> dict[str, Any]:
    """Measure one worker against two."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        return {"skipped": "needs two cores"}
    loops = 20 if bench.quick else 2000
    with ExitStack() as stack:
        one, two, both = (
            bench.warmed(LocalExecutor([Place(tuple(part)) for part in parts]), stack)
            for parts in ([cores[:1]], [cores[:1], cores[1:]], [cores])
        )
        taken = rounds_of(
            {
                "one": lambda: bench.run(one),
                "two": lambda: bench.run(two),
                "one_on_both": lambda: bench.run(both),
                "spin_one": lambda: spin(cores[:1], loops),
                "spin_two": lambda: spin(cores, loops),
            },
            num_rounds,
        )
    of_ideal = [one_s / (2 * two_s) for one_s, two_s in zip(taken["one"], taken["two"], strict=True)]
    ceilings = [one_s / two_s for one_s, two_s in zip(taken["spin_one"], taken["spin_two"], strict=True)]
    return {
        "seconds": {name: [round(value, 3) for value in values] for name, values in taken.items()},
        "fps": {name: round(bench.frames / float(np.median(taken[name])), 1) for name in ("one", "two", "one_on_both")},
        "of_ideal": round(float(np.median(of_ideal)), 3),
        "ceiling": round(float(np.median(ceilings)), 3),
        "of_ceiling": round(float(np.median(of_ideal) / np.median(ceilings)), 3),
        "two_over_one_on_both": round(float(np.median(taken["one_on_both"]) / np.median(taken["two"])), 3),
    }


def measure_ray(bench: Bench, num_rounds: int) -> dict[str, Any]:
    """Measure Ray against processes of our own."""
    try:
        import ray

        from streamsr.batch.ray_cluster import RayExecutor
    except ImportError:
        return {"skipped": "needs Ray"}
    cores = sorted(os.sched_getaffinity(0))[:2]
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(num_cpus=len(cores), include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        with ExitStack() as stack:
            local = bench.warmed(LocalExecutor([Place((core,)) for core in cores]), stack)
            remote = bench.warmed(RayExecutor(None, most=len(cores) + 1), stack)
            taken = rounds_of({"local": lambda: bench.run(local), "ray": lambda: bench.run(remote)}, num_rounds)
    finally:
        ray.shutdown()
    ratios = [ray_s / local_s for ray_s, local_s in zip(taken["ray"], taken["local"], strict=True)]
    return {
        "seconds": {name: [round(value, 3) for value in values] for name, values in taken.items()},
        "fps": {name: round(bench.frames / float(np.median(values)), 1) for name, values in taken.items()},
        "cost": round(float(np.median(ratios)) - 1, 4),
        "version": ray.__version__,
    }


def measure_costs(bench: Bench, num_rounds: int) -> dict[str, Any]:
    """Measure the journal in runs of the clips, and what a frame costs at each further step."""
    cores, spent = sorted(os.sched_getaffinity(0))[:2], list[float]()
    walls: list[float] = []
    with ExitStack() as stack:
        executor = bench.warmed(LocalExecutor([Place((core,)) for core in cores]), stack)
        restore = timed_journal(spent)
        try:
            walls = [bench.run(executor) for _ in range(num_rounds)]
        finally:
            restore()
        cut = replace(bench.settings, segment_s=0.1 if bench.quick else 1.0)
        whole_s, parted_s = bench.run(executor), bench.run(executor, settings=cut)
    seconds = sum(spent)
    return {
        "journal_share": round(seconds / sum(walls), 5),
        "journal_ms_a_file": round(1e3 * seconds / (num_rounds * bench.num_clips), 3),
        "files": num_rounds * bench.num_clips,
        "segmented_over_whole": round(parted_s / whole_s, 3),
        **frame_costs(bench),
    }


def measure_codecs(bench: Bench, num_rounds: int) -> dict[str, Any]:
    """Measure what stays with the processor where GPUs enlarge, of the clips' size and of a larger one."""
    sizes = ((128, 96, 10), (256, 192, 5)) if bench.quick else ((320, 240, 100), (1280, 720, 30))
    return {"sizes": [codec_costs(bench, *size) for size in sizes]}


def goals_of(sections: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what must be reached, and what is."""
    goals: list[dict[str, Any]] = []

    def add(goal: str, wanted: str, got: float | None, reached: bool) -> None:
        goals.append({"goal": goal, "wanted": wanted, "got": got, "reached": reached})

    scaling, ray, costs = (sections.get(name, {}) for name in SECTIONS[:3])
    if "of_ideal" in scaling:
        got = scaling["of_ideal"]
        add("two workers on two cores, of twice one on one", f"at least {LEAST_SCALING:g}", got, got >= LEAST_SCALING)
    if "cost" in ray:
        add("Ray over local processes", f"at most {MOST_RAY:g}", ray["cost"], ray["cost"] <= MOST_RAY)
    if "journal_share" in costs:
        got = costs["journal_share"]
        add("the journal, of a run", f"under {MOST_JOURNAL:g}", got, got < MOST_JOURNAL)
    return goals


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what this benchmark alone has."""
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    parser.add_argument("--rounds", type=int, default=5)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write."""
    options = options_of("batch", "What distributing an archive costs.", arguments, add_options)
    wanted = [name for name in options.only.split(",") if name in SECTIONS]
    num_rounds = 1 if options.quick else options.rounds
    card = machine_card()
    print_card(card)
    earlier = json.loads(options.json.read_text()) if options.json and options.json.is_file() else {}
    sections: dict[str, Any] = dict(earlier.get("sections", {}))
    measures = {"scaling": measure_scaling, "ray": measure_ray, "costs": measure_costs, "codecs": measure_codecs}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), quick=options.quick)
        for name in wanted:
            company = Company()
            sections[name] = measures[name](bench, num_rounds)
            sections[name] |= {"others_cores": company.cores(), "commit": card["commit"], "date": card["date"]}
        clips = {
            "number": bench.num_clips,
            "frames": bench.num_frames,
            "engine": bench.settings.upscale.generator.engine,
        }
    goals = goals_of(sections)
    if goals:
        print_table(goals, ("goal", "wanted", "got", "reached"))
    result = {"question": "batch", "quick": options.quick, "card": card, "clips": clips, "rounds": num_rounds}
    report({**result, "sections": sections, "goals": goals}, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
