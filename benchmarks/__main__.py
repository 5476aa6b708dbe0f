"""Run every benchmark that fits, then write README's tables: ``python -m benchmarks [--quick] [--minutes 10]``.

The benchmarks run one after the other, each in a program of its own, the weightiest first. One that took longer the
last time than what is left of the minutes is left out and named; its last result stays. So does that of one that
fails. A result holds its own machine card; plots lie beside the results. ``--quick`` shows that they run, in under a
minute: nothing is measured and nothing is written. Benchmarks of GPUs, of trained weights and of live sessions, and the
hour of ``python -m benchmarks.memory --minutes 60``, are run by themselves.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import readme
from benchmarks.card import RESULTS, ROOT
from streamsr.errors import UsageError

QUESTIONS = {
    "against_scripts": 145.0,
    "against_libraries": 130.0,
    "latency": 70.0,
    "scaling": 65.0,
    "memory": 50.0,
    "seams": 120.0,
    "consistency": 150.0,
    "cpu_runtimes": 430.0,
    "pipeline": 540.0,
}
"""In the order of their weight: how many seconds each takes where no result says so. The first six fit ten minutes."""

QUICK = ("against_scripts", "against_libraries", "latency", "scaling", "seams", "memory")


def seconds_of(question: str, results: Path = RESULTS) -> float:
    """Return how long a benchmark takes: as long as the last time, or what is stated."""
    path = results / f"{question}.json"
    last = json.loads(path.read_text(encoding="utf-8")).get("seconds") if path.is_file() else None
    return QUESTIONS[question] if last is None else float(last)


def run(question: str, *, quick: bool) -> bool:
    """Run one benchmark in a program of its own and return whether it did well; what it prints is passed on."""
    command = [sys.executable, "-m", f"benchmarks.{question}", *(["--quick"] if quick else [])]
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def run_all(questions: Sequence[str], *, quick: bool, budget_s: float) -> dict[str, str]:
    """Run what fits and return how each went: ``done``, ``failed`` or ``left out``."""
    started_s, outcome = time.monotonic(), dict[str, str]()
    for question in questions:
        left_s = budget_s - (time.monotonic() - started_s)
        if not quick and seconds_of(question) > left_s:
            outcome[question] = "left out"
            continue
        print(f"\n=== {question}", flush=True)
        outcome[question] = "done" if run(question, quick=quick) else "failed"
    return outcome


def report(outcome: Mapping[str, str]) -> None:
    """Print how each went, and what to do about it."""
    print()
    for question, went in outcome.items():
        hint = {"done": "", "failed": ": see above", "left out": f": python -m benchmarks.{question}"}[went]
        print(f"{question:20} {went}{hint}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Run every benchmark that fits.")
    parser.add_argument("--quick", action="store_true", help="small and short: shows that they run, measures nothing")
    parser.add_argument("--minutes", type=float, default=10.0, help="that all may take together")
    parser.add_argument("--only", help="some of them, with commas between")
    options = parser.parse_args(arguments)
    questions = options.only.split(",") if options.only else list(QUICK if options.quick else QUESTIONS)
    if unknown := set(questions) - set(QUESTIONS):
        print(f"--only: expected some of {', '.join(QUESTIONS)}, got {', '.join(sorted(unknown))}", file=sys.stderr)
        return UsageError.exit_code
    outcome = run_all(questions, quick=options.quick, budget_s=60 * options.minutes)
    report(outcome)
    if not options.quick:
        readme.write()
    return int("failed" in outcome.values())


if __name__ == "__main__":
    sys.exit(main())
