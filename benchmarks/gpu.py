"""How fast is the NVIDIA path? Networks on whole frames, patches, host memory to host memory, quality, a trace.

Device work is timed by device events round one launch; end to end from the planes of a frame in host memory to its
enlarged planes in host memory. The machine's own ceilings, a large matrix product and a large copy, are measured in
the same run. Every section runs in a program of its own, so that an error on the GPU spoils nothing but its section,
and results are written as they come.

    python -m benchmarks.gpu [--quick] [--out FILE] [--frames FOLDER] [--budget-s 400] [--only NAME ...] [--compile]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.card import RESULTS, machine_card, print_table

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Part:
    """One section.

    Attributes:
        name: ``what`` or ``what:engine``.
        limit_s: after so long it is ended; what it has written counts.
    """

    name: str
    limit_s: float


PARTS = (
    Part("ceilings", 45),
    Part("network:tiny-x2", 70),
    Part("network:fast-x2", 70),
    Part("network:quality-x2", 60),
    Part("network:srgan-x4", 90),
    Part("line:fast-x2", 75),
    Part("quality", 60),
    Part("trace:fast-x2", 45),
    Part("patches:srgan-x4", 75),
    Part("line:tiny-x2", 60),
)
"""In the order of their weight: what does not fit the budget is left out."""

COMPILED = (Part("compiled:fast-x2", 150), Part("compiled:tiny-x2", 150), Part("compiled:srgan-x4", 240))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, or one section of it in this program."""
    options = parse(arguments)
    if options.section:
        run_section(options)
        return 0
    parts = [part for part in (*PARTS, *(COMPILED if options.compile else ())) if wanted(part, options.only)]
    result: dict[str, Any] = {"question": "gpu", "quick": options.quick, "card": card(options.commit), "sections": {}}
    started = time.monotonic()
    for part in parts:
        left_s = options.budget_s - (time.monotonic() - started)
        if left_s < 15:
            result["sections"][part.name] = {"left out": "no time left"}
        else:
            result["sections"][part.name] = in_its_own_program(part, min(part.limit_s, left_s), options)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print_tables(result)
    print(json.dumps(result))
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="How fast is the NVIDIA path?")
    parser.add_argument("--quick", action="store_true", help="small and short: shows that it runs, measures nothing")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu.json", help="where the result goes")
    parser.add_argument("--frames", type=Path, help="folder of real pictures, PNG or npz of (H, W, 3) uint8 RGB")
    parser.add_argument("--budget-s", type=float, default=420.0, help="seconds for everything")
    parser.add_argument("--only", nargs="*", default=[], help="sections, or beginnings of their names")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too; it tunes for minutes")
    parser.add_argument("--commit", default="", help="of the code, where there is no git")
    parser.add_argument("--device", default="cuda", help="cpu tries the code without a GPU")
    parser.add_argument("--section", help=argparse.SUPPRESS)
    parser.add_argument("--part", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def wanted(part: Part, only: Sequence[str]) -> bool:
    """Whether a section was asked for."""
    return not only or any(part.name.startswith(name) for name in only)


def card(commit: str) -> dict[str, Any]:
    """Return the machine card."""
    found = machine_card()
    return {**found, "commit": commit or found["commit"]}


def in_its_own_program(part: Part, limit_s: float, options: argparse.Namespace) -> dict[str, Any]:
    """Run a section and return what it wrote, with how it ended."""
    print(f"== {part.name}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "part.json"
        command = [sys.executable, "-m", "benchmarks.gpu", "--section", part.name, "--part", str(file)]
        command += ["--work", folder, "--out", str(options.out), "--device", options.device]
        command += ["--quick"] * options.quick + (["--frames", str(options.frames)] if options.frames else [])
        started = time.monotonic()
        code = run_bounded(command, limit_s)
        try:
            found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = {}
    ended = "in time" if code == 0 else f"ended after {limit_s:.0f} s" if code is None else f"failed with {code}"
    return {**found, "ended": ended, "seconds": round(time.monotonic() - started, 1)}


def run_bounded(command: list[str], limit_s: float) -> int | None:
    """Run a program and return its exit code; None where it and all that it started had to be ended."""
    program = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        return program.wait(limit_s)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.wait()
        return None


def run_section(options: argparse.Namespace) -> None:
    """Run one section in this program."""
    import logging

    import torch

    from benchmarks import gpu_ceilings, gpu_line, gpu_networks
    from benchmarks.gpu_timing import Section

    logging.basicConfig(level=logging.WARNING, format="  %(name)s: %(message)s")
    logging.getLogger("streamsr").setLevel(logging.DEBUG)  # says what was tried and why it was dropped
    what, _, engine = options.section.partition(":")
    device = torch.device(options.device)
    section = Section(device, options.quick, options.frames, options.work, options.out.parent, options.part)
    section.pictures.mkdir(parents=True, exist_ok=True)
    runs: dict[str, Callable[[], None]] = {
        "ceilings": lambda: gpu_ceilings.measure_ceilings(section),
        "network": lambda: gpu_networks.time_network(section, engine),
        "patches": lambda: gpu_networks.time_patches(section, engine),
        "compiled": lambda: gpu_networks.time_compiled(section, engine),
        "line": lambda: gpu_line.time_line(section, engine),
        "quality": lambda: gpu_line.compare_precisions(section, ("tiny-x2", "fast-x2", "quality-x2", "fast-x4")),
        "trace": lambda: gpu_line.trace_line(section, engine),
    }
    with section.step(options.section):
        runs[what]()


def print_tables(result: dict[str, Any]) -> None:
    """Print what matters most."""
    rows = []
    for name, section in result["sections"].items():
        for way, times in section.items():
            if isinstance(times, dict) and "p50_ms" in times:
                off = times.get("levels_off", {}).get("max")
                rows.append({"section": name, "way": way, **times, "off": off})
            elif way.endswith("error"):
                rows.append({"section": name, "way": f"{way}: {times['what'][:100]}"})
    print_table(rows, ("section", "way", "p50_ms", "p99_ms", "tflops", "frames_a_second", "off"))


if __name__ == "__main__":
    raise SystemExit(main())
