"""README's part about what was measured on a GPU, from ``results/gpu.json``; where that is missing it says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.gpu_goals import MISSED, PICTURE
from benchmarks.readme_evidence import picture, read
from benchmarks.tables import markdown

NOTHING = "Nothing has been measured with `python -m benchmarks.gpu` yet, so there are no figures of a whole line."


def gpu_part(results: Path) -> str:
    """Return card, goals, networks, device path and trace; one sentence before they are measured."""
    result = read(results, "gpu")
    if result is None or result["quick"]:
        return NOTHING
    shown = picture(PICTURE, "Copies in, computing and copies out of several frames over time")(results)
    parts = (card_line(result), goals_table(result), networks_table(result), lines_table(result), shown)
    return "\n\n".join(filter(None, parts))


def card_line(result: Mapping[str, Any]) -> str:
    """Return what was measured on, when, and its own ceilings."""
    card, sections = result["card"], result["sections"]
    days = sorted({section["measured"][:10] for section in sections.values() if "measured" in section})
    when = " to ".join(dict.fromkeys((days[0], days[-1]))) if days else card["date"]
    versions = f"driver {card['driver'] or 'unknown'}, torch {card['versions']['torch']}"
    ceilings = ", ".join(ceilings_of(sections.get("ceilings", {})))
    return (
        f"On one {card['gpu']} ({versions}; {when}), `python -m benchmarks.gpu`"
        f"{f'; its own ceilings in that run: {ceilings}' if ceilings else ''}. The goals are those for an H200; where "
        "one is about one figure, the best of our runtimes counts and is named:"
    )


def ceilings_of(section: Mapping[str, Any]) -> Iterator[str]:
    """Return what the card can do at most, as far as it was measured."""
    for dtype, name in (("float16", "FP16"), ("bfloat16", "BF16")):
        if told := section.get(f"matrix product {dtype}"):
            yield f"{told['tflops']:.0f} TFLOP/s in {name}"
    if told := section.get("device copy"):
        yield f"{told['tb_a_second']:.1f} TB/s between device memories"
    for way, told in section.get("host copies", {}).items():
        yield f"{told['gb_a_second']:.0f} GB/s {way}"


def goals_table(result: Mapping[str, Any]) -> str:
    """Return what must be reached, and whether it is."""
    rows = []
    for row in result["goals"]:
        figure = "" if row["figure"] is None else f"{row['figure']:g}"
        verdict = f"**{row['verdict']}**" if row["verdict"] == MISSED else row["verdict"]
        rows.append([row["goal"], f"{row['bound']} {row['limit']:g} {row['unit']}".strip(), figure, row["by"], verdict])
    return markdown(["on a GPU", "wanted", "measured", "with", ""], rows)


def networks_table(result: Mapping[str, Any]) -> str:
    """Return how long whole frames take in every way."""
    rows = []
    for name, section in result["sections"].items():
        what, _, engine = name.partition(":")
        for way, told in section.items() if what in ("network", "compiled") else ():
            if isinstance(told, dict) and "tflops" in told:
                where = f"`{engine}`" + ", beside torch.compile" * (what == "compiled")
                off = told.get("levels_off", {}).get("max")
                figures = [f"{told['p50_ms']:.3f}", f"{told['p99_ms']:.3f}", f"{told['tflops']:.0f}"]
                rows.append([where, way, *figures, "" if off is None else f"{off:g}"])
    return markdown(["whole frames", "way", "p50 ms", "p99 ms", "TFLOP/s", "levels off fp32"], rows) if rows else ""


def lines_table(result: Mapping[str, Any]) -> str:
    """Return how long a frame takes from host memory to host memory, and how many go through in a second."""
    rows = []
    for name, section in result["sections"].items():
        for way, told in section.items() if name.startswith("line:") else ():
            if not isinstance(told, dict) or "in_flight" not in told:
                continue
            paced, flight = told["paced"], told["in_flight"]
            plain = told.get("against_the_plain_way", {}).get("ratio")
            rows.append(
                [
                    f"`{name.partition(':')[2]}`",
                    way,
                    f"{paced['p50_ms']:.2f}",
                    f"{paced['p99_ms']:.2f}",
                    f"{flight['frames_a_second']:.0f}",
                    f"{flight['part_of_it']:.2f} of {flight['slowest_stage']}",
                    "" if plain is None else f"{plain:g}",
                ]
            )
    head = ["planes to planes, 1080p x2", "way", "p50 ms", "p99 ms", "frames/s in flight", "of its slowest stage"]
    return markdown([*head, "x plain loop"], rows) if rows else ""


GPU_TABLES: dict[str, Callable[[Path], str]] = {"gpu": gpu_part}
"""Name of the marker -> what makes what stands there, given the folder of results."""
