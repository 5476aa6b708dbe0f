"""How fast is the NVIDIA path, and does it reach its goals? Networks, patches, host to host, quality, a trace.

Device work is timed by device events round one launch; end to end from the planes of a frame in host memory to its
enlarged planes in host memory. The machine's own ceilings, a large matrix product and a large copy, are measured in
the same run. Every section runs in a program of its own, so that an error on the GPU spoils nothing but its section,
and results are written as they come. Sections that are not run keep what they held in the JSON where it was measured
on the same card; each says when it was measured, and on what. What must be reached is in `benchmarks.gpu_goals`.

    python -m benchmarks.gpu [--quick] [--out FILE] [--frames FOLDER] [--budget-s 460] [--only NAME ...] [--compile]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.card import RESULTS, machine_card, print_table
from benchmarks.gpu_goals import rows_of
from streamsr.errors import EngineError, UsageError
from streamsr.runtimes.nvidia import Gpu, find_gpus

ROOT = Path(__file__).resolve().parents[1]

BUDGET_S, COMPILE_BUDGET_S = 460.0, 540.0
ASKED_S = 90.0
"""What loading torch to ask for the GPU's name may take, from a cold disk."""

LEAST_S = 15.0
"""With less time left nothing more is begun."""


@dataclass(frozen=True)
class Part:
    """One section.

    Attributes:
        name: ``what`` or ``what:engine``.
        limit_s: after so long, and what the sections before it left, it is ended; what it has written counts.
        measure: ``module.function`` in this folder, called with the section, and the engine's name where there is one.
    """

    name: str
    limit_s: float
    measure: str


PARTS = (
    Part("ceilings", 25, "gpu_ceilings.measure_ceilings"),
    Part("network:tiny-x2", 40, "gpu_networks.time_network"),
    Part("network:fast-x2", 40, "gpu_networks.time_network"),
    Part("network:srgan-x4", 60, "gpu_networks.time_network"),
    Part("line:fast-x2", 65, "gpu_line.time_line"),
    Part("quality", 45, "gpu_quality.compare_precisions"),
    Part("network:quality-x2", 35, "gpu_networks.time_network"),
    Part("patches:srgan-x4", 35, "gpu_networks.time_patches"),
    Part("trace:fast-x2", 25, "gpu_trace.trace_line"),
    Part("routing:srgan-x4", 40, "gpu_routing.time_routing"),
    Part("line:tiny-x2", 50, "gpu_line.time_line"),
    Part("decode:fast-x2", 70, "gpu_decode.time_decode"),
)
"""In the order of their weight: what does not fit the budget is left out. One line here is all that a section needs."""

COMPILED = (
    Part("compiled:fast-x2", 150, "gpu_networks.time_compiled"),
    Part("compiled:tiny-x2", 140, "gpu_networks.time_compiled"),
    Part("compiled:srgan-x4", 250, "gpu_networks.time_compiled"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, or one section of it in this program."""
    options = parse(arguments)
    if options.section:
        run_section(options)
        return 0
    known = (*PARTS, *(COMPILED if options.compile else ()))
    if unknown := [name for name in options.only if not any(part.name.startswith(name) for part in known)]:
        told = ", ".join(part.name for part in known)
        print(f"--only: expected beginnings of {told}, got {', '.join(unknown)}", file=sys.stderr)
        return UsageError.exit_code
    gpu = gpu_here(options.device)
    if gpu is None:
        print("benchmarks.gpu: expected an NVIDIA GPU and its driver, got none; --device cpu tries it", file=sys.stderr)
        return EngineError.exit_code
    parts = [part for part in known if wanted(part, options.only)]
    options.quick |= options.device == "cpu"  # a processor stands in for a GPU, and measures nothing
    with tempfile.TemporaryDirectory() as folder:
        if options.out is None:
            options.out = Path(folder) / "gpu.json" if options.quick else RESULTS / "gpu.json"
        options.out = options.out.absolute()  # sections run in programs that begin elsewhere
        options.frames = options.frames and options.frames.absolute()
        result = run_parts(parts, gpu, options)
    print_tables(result)
    print(json.dumps({key: told for key, told in result.items() if key != "sections"}))
    return 0


def run_parts(parts: Sequence[Part], gpu: Gpu, options: argparse.Namespace) -> dict[str, Any]:
    """Run sections one after the other, write what they say as it comes, and return the whole result."""
    found = card(gpu, options.commit)
    result = {
        "question": "gpu",
        "quick": options.quick,
        "card": found,
        "sections": kept_sections(options.out, found, quick=options.quick),
    }
    budget_s = options.budget_s or (COMPILE_BUDGET_S if options.compile else BUDGET_S)
    sections, started_s = result["sections"], time.monotonic()
    for place, part in enumerate(parts):
        limit_s = share_s(parts, place, time.monotonic() - started_s, budget_s)
        if limit_s >= LEAST_S:
            sections[part.name] = {**in_its_own_program(part, limit_s, options), **stamp(found)}
        else:
            sections.setdefault(part.name, {"left out": "no time left"})
        result["sections"] = in_order(sections)
        result["goals"] = rows_of(result)
        result["seconds"] = round(time.monotonic() - started_s, 1)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="How fast is the NVIDIA path?")
    parser.add_argument("--quick", action="store_true", help="small and short: shows that it runs, measures nothing")
    parser.add_argument("--out", type=Path, help="where the result goes (results/gpu.json; nowhere with --quick)")
    parser.add_argument("--frames", type=Path, help="folder of real pictures, PNG or npz of (H, W, 3) uint8 RGB")
    parser.add_argument(
        "--budget-s", type=float, help=f"seconds for everything ({BUDGET_S:g}; with --compile {COMPILE_BUDGET_S:g})"
    )
    parser.add_argument("--only", nargs="*", default=[], help="sections, or beginnings of their names")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too; it tunes for minutes")
    parser.add_argument("--commit", default="", help="of the code, where there is no git")
    parser.add_argument("--device", default="cuda", help="cpu tries the code without a GPU")
    parser.add_argument("--section", help=argparse.SUPPRESS)
    parser.add_argument("--limit-s", type=float, default=math.inf, help=argparse.SUPPRESS)
    parser.add_argument("--part", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def wanted(part: Part, only: Sequence[str]) -> bool:
    """Whether a section was asked for."""
    return not only or any(part.name.startswith(name) for name in only)


def share_s(parts: Sequence[Part], place: int, spent_s: float, budget_s: float) -> float:
    """Return how long a section may take: its limit and what those before it left, within the budget.

    >>> share_s([Part("a", 30, ""), Part("b", 20, "")], 1, spent_s=10, budget_s=60)
    40
    """
    its_end_s = sum(part.limit_s for part in parts[: place + 1])
    return min(max(parts[place].limit_s, its_end_s - spent_s), budget_s - spent_s)


def gpu_here(device: str) -> Gpu | None:
    """Return the GPU that is measured, or the processor that stands in for it; None where there is no GPU.

    Torch is asked, which sees what the user shows it, in CUDA's order; the driver only where torch cannot say.
    """
    if device == "cpu":
        return Gpu(f"CPU: {machine_card()['processor']}", "", "")
    return gpu_of(device) or next(iter(find_gpus()), None)


def gpu_of(device: str) -> Gpu | None:
    """Return what torch calls a GPU; None where it can use none.

    It is asked in a program of its own, which leaves the GPU alone for those that measure.
    """
    code = "import benchmarks.gpu as gpu, sys; gpu.print_gpu(sys.argv[1])"
    command = [sys.executable, "-c", code, device]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=ASKED_S, check=True)
        return Gpu(**json.loads(done.stdout.splitlines()[-1]))
    except (OSError, subprocess.SubprocessError, ValueError, LookupError, TypeError):
        return None


def print_gpu(device: str) -> None:
    """Print what torch calls a GPU, as one line of JSON."""
    import torch

    from streamsr.runtimes.nvidia import gpu_of_torch

    print(json.dumps(asdict(gpu_of_torch(torch.device(device)))))


def card(gpu: Gpu, commit: str) -> dict[str, Any]:
    """Return the machine card with the GPU."""
    found = machine_card()
    driver = gpu.driver or asked_driver()
    return {**found, "commit": commit or found["commit"], "gpu": gpu.name, "driver": driver}


def asked_driver() -> str:
    """Return the driver's version as its own tool says it; empty where there is none."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.partition("\n")[0].strip()


def stamp(found: Mapping[str, Any]) -> dict[str, str]:
    """Return when a section was measured, and on what."""
    on = f"{found['gpu']}, driver {found['driver'] or 'unknown'}, torch {found['versions']['torch']}"
    return {"measured": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()), "on": on, "commit": found["commit"]}


def kept_sections(file: Path, found: Mapping[str, Any], *, quick: bool) -> dict[str, Any]:
    """Return the sections of an earlier result of the same card; those measured now replace them."""
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
        gpu, was_quick, sections = before["card"]["gpu"], before["quick"], dict(before["sections"])
    except (OSError, ValueError, LookupError, TypeError):
        return {}
    if gpu == found["gpu"] and was_quick == quick:
        return sections
    print(f"{file}: not kept, since it is of {'a quick run on ' * was_quick}{gpu}", flush=True)
    return {}


def in_order(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Return sections in the order of the parts, unknown ones last."""
    rank = {part.name: place for place, part in enumerate((*PARTS, *COMPILED))}
    return {name: sections[name] for name in sorted(sections, key=lambda name: rank.get(name, len(rank)))}


def in_its_own_program(part: Part, limit_s: float, options: argparse.Namespace) -> dict[str, Any]:
    """Run a section and return what it wrote, with how it ended."""
    print(f"== {part.name}, {limit_s:.0f} s at most", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "part.json"
        command = [sys.executable, "-m", "benchmarks.gpu", "--section", part.name, "--part", str(file)]
        command += ["--work", folder, "--out", str(options.out), "--device", options.device]
        command += ["--limit-s", f"{limit_s:.1f}"]
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
        return None
    finally:
        if program.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
            program.wait()


def run_section(options: argparse.Namespace) -> None:
    """Run one section in this program."""
    began_s = time.monotonic()  # loading torch counts
    import logging

    import torch

    from benchmarks.gpu_timing import Section

    logging.basicConfig(level=logging.WARNING, format="  %(name)s: %(message)s")
    logging.getLogger("streamsr").setLevel(logging.DEBUG)  # says what was tried and why it was dropped
    section = Section(
        torch.device(options.device),
        options.quick,
        options.frames,
        options.work,
        options.out.parent,
        options.part,
        options.limit_s,
        began_s,
    )
    section.pictures.mkdir(parents=True, exist_ok=True)
    engine = options.section.partition(":")[2]
    with section.step(options.section):
        measure = function_of(options.section)
        measure(section, engine) if engine else measure(section)


def function_of(name: str) -> Callable[..., None]:
    """Return what measures a section."""
    (part,) = (part for part in (*PARTS, *COMPILED) if part.name == name)
    module, _, function = part.measure.partition(".")
    found: Callable[..., None] = getattr(import_module(f"benchmarks.{module}"), function)
    return found


def print_tables(result: Mapping[str, Any]) -> None:
    """Print what matters most: times of all ways, what failed, what was left out, and the goals."""
    rows, reasons = list[dict[str, Any]](), dict[str, list[str]]()
    for name, section in result["sections"].items():
        for way, told in section.items():
            if way.endswith("error"):
                rows.append({"section": name, "way": f"{way}: {told['what'][:100]}"})
            elif isinstance(told, dict) and "left out" in told:
                reasons.setdefault(told["left out"], []).append(f"{name} {way}")
            elif isinstance(told, dict) and "p50_ms" in told:
                rows.append({"section": name, "way": way, **told, "off": told.get("levels_off", {}).get("max")})
            elif isinstance(told, dict) and "paced" in told:
                rows.append({"section": name, "way": f"{way}: paced", **told["paced"], **told.get("in_flight", {})})
    print_table(rows, ("section", "way", "p50_ms", "p99_ms", "tflops", "frames_a_second", "off"))
    for reason, places in reasons.items():
        print(f"left out: {places[0]}{f' and {len(places) - 1} more' * (len(places) > 1)}: {reason}")
    print()
    print_table(result["goals"], ("goal", "bound", "limit", "unit", "figure", "by", "verdict"))


if __name__ == "__main__":
    raise SystemExit(main())
