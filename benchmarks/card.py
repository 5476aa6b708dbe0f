"""The machine card, and what every benchmark shares: its options, its table and its last line of JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from streamsr.sidecar import versions

RESULTS = Path(__file__).resolve().parent / "results"
ROOT = RESULTS.parents[1]
MATRIX_FLAGS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


def machine_card() -> dict[str, Any]:
    """Return what the figures depend on: processor, cores, memory, system, versions and commit."""
    info = _first_processor()
    return {
        "processor": info.get("model name", platform.processor() or platform.machine()),
        "model": " ".join(info.get(key, "?") for key in ("cpu family", "model", "stepping")),
        "instructions": [flag for flag in MATRIX_FLAGS if flag in info.get("flags", "").split()],
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "virtual": "hypervisor" in info.get("flags", "").split(),
        "versions": versions(),
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _first_processor() -> dict[str, str]:
    try:
        block = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in block.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def options_of(
    question: str,
    description: str,
    arguments: Sequence[str] | None,
    add: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
) -> argparse.Namespace:
    """Parse the options that every benchmark has.

    Args:
        question: name of the file; names the result.
        description: one line.
        arguments: of the command line; None takes the program's own.
        add: adds what one benchmark alone has.

    Returns:
        ``quick`` (bool) and ``json`` (path, None where nothing is to be written).
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{question}", description=description)
    parser.add_argument("--quick", action="store_true", help="small and short: shows that it runs, measures nothing")
    parser.add_argument("--json", type=Path, help=f"where the result goes (default: results/{question}.json)")
    add(parser)
    options = parser.parse_args(arguments)
    if options.json is None and not options.quick:
        options.json = RESULTS / f"{question}.json"
    return options


def report(result: dict[str, Any], path: Path | None) -> None:
    """Write a result, and print it as one line of JSON."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))


def print_card(card: dict[str, Any]) -> None:
    """Print the machine card."""
    for key, value in card.items():
        shown = value if isinstance(value, (str, int, float)) else " ".join(map(str, _flat(value)))
        print(f"{key:13} {shown}")


def _flat(value: Any) -> list[str]:
    return [f"{key} {item}" for key, item in value.items()] if isinstance(value, dict) else list(value)


def print_table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Print some columns of some rows, aligned."""
    cells = [[_shown(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(line[place]) for line in [list(columns), *cells]) for place in range(len(columns))]
    for line in [list(columns), *cells]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _shown(value: Any) -> str:
    return "-" if value is None else str(value)
