"""README's tables of evidence, from ``results/evidence.json``, ``downstream.json``, ``video.json``, ``retrained.json``.

A table whose JSON is not there is empty: nothing is shown that was not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.tables import load, markdown

Cells = dict[str, Any]


def read(results: Path, question: str) -> Any:
    """Return a result, None where it was not measured."""
    path = results / f"{question}.json"
    return load(path) if path.is_file() else None


def methods_of(sets: dict[str, dict[str, Cells]]) -> list[str]:
    """Return the methods of all data sets in their order, bicubic interpolation's scale by scale."""
    return list(dict.fromkeys(name for methods in sets.values() for name in methods))


def spread(cell: Cells | None, digits: int, *, sign: bool = False) -> str:
    """Return a mean and its interval.

    >>> spread({"mean": 1.0, "low": 0.5, "high": 2.0}, 1, sign=True)
    '+1.0 (+0.5 to +2.0)'
    """
    if cell is None:
        return ""
    form = f"{'+' if sign else ''}.{digits}f"
    return f"{cell['mean']:{form}} ({cell['low']:{form}} to {cell['high']:{form}})"


def evidence_line(results: Path) -> str:
    """Return what the tables of evidence were measured on."""
    result = read(results, "evidence")
    if result is None:
        return ""
    frames, heavy = result["frames_a_set"]["engines"], result["frames_a_set"]["heavy"]
    counts = []
    for name, methods in result["test"]["sets"].items():
        cell = methods[next(iter(methods))]["luma_psnr_db"]
        counts.append(f"{name} {cell['frames']} of {cell['groups']} {'groups' if cell['groups'] > 1 else 'group'}")
    slow = f"; {', '.join(heavy['engines'])}: at most {heavy['frames']} a set" if heavy["engines"] else ""
    most = "all frames" if frames == "all" else f"at most {frames} frames a set"
    return f"Test sides, {most} ({', '.join(counts)}){slow}; {result['card']['date']}."


def evidence_table(results: Path) -> str:
    """Return luma PSNR over bicubic interpolation on the test sides, with its interval, for each set."""
    result = read(results, "evidence")
    if result is None:
        return ""
    sets = result["test"]["sets"]
    rows = []
    for name in methods_of(sets):
        gains = [methods.get(name, {}).get("luma_psnr_db", {}).get("gain") for methods in sets.values()]
        if any(gains):
            rows.append([f"`{name}`", *(spread(gain, 2, sign=True) for gain in gains)])
    return markdown(["dB over bicubic", *sets], rows)


def mean_of_sets(sets: dict[str, dict[str, Cells]], method: str, figure: str) -> float | None:
    """Return the mean of the means of the sets, None where a set has none."""
    cells = [methods.get(method, {}).get(figure) for methods in sets.values()]
    return None if None in cells else sum(cell["mean"] for cell in cells if cell) / len(cells)


def shown(value: float | None, digits: int) -> str:
    """Return a number, or nothing."""
    return "" if value is None else f"{value:.{digits}f}"


def quality_table(results: Path) -> str:
    """Return the other figures of quality: means of the sets' means on the test sides."""
    columns = {
        "rgb_psnr_db": ("PSNR RGB", 2),
        "luma_ssim": ("SSIM Y", 4),
        "rgb_ssim": ("SSIM RGB", 4),
        "lpips_like": ("LPIPS-like", 4),
        "lr_psnr_db": ("PSNR of LR", 2),
    }
    return _means_table(results, columns)


def invention_table(results: Path) -> str:
    """Return what was added: consistency, Fourier agreement and, where it was measured, flips of a classifier."""
    columns = {
        "lr_within_level": ("LR within a level", 4),
        "fourier_cutoff": ("Fourier cut-off", 3),
        "invented": ("invented", 3),
        "suspect": ("suspect patches", 3),
    }
    downstream = read(results, "downstream")
    tasks = downstream["tasks"] if downstream else {}
    heads = [f"{task} flips" for task in tasks]

    def flips(method: str) -> list[str]:
        rows = [tasks[task]["methods"].get(method, {}) for task in tasks]
        return [f"{row['flips']:.1%}" if "flips" in row else "" for row in rows]

    return _means_table(results, columns, heads, flips)


def reflections_table(results: Path) -> str:
    """Return what becomes of reflections: means of the sets' means on the test sides."""
    columns = {
        "highlight_psnr_db": ("PSNR inside", 2),
        "ring_psnr_db": ("PSNR in the ring", 2),
        "ring_overshoot": ("overshoot", 3),
        "highlight_overlap": ("overlap", 3),
    }
    return _means_table(results, columns)


def _means_table(
    results: Path,
    columns: dict[str, tuple[str, int]],
    more_heads: Iterable[str] = (),
    more: Callable[[str], list[str]] = lambda method: [],
) -> str:
    result = read(results, "evidence")
    if result is None:
        return ""
    sets = result["test"]["sets"]
    rows = []
    for name in methods_of(sets):
        figures = [shown(mean_of_sets(sets, name, figure), digits) for figure, (_, digits) in columns.items()]
        rows.append([f"`{name}`", *figures, *more(name)])
    return markdown(["mean of the sets", *(title for title, _ in columns.values()), *more_heads], rows)


def highlights_table(results: Path) -> str:
    """Return how far adversarial engines are above their fidelity stage in and around reflections, set by set."""
    result = read(results, "evidence")
    claims = result["test"]["highlights"] if result else []
    if not claims:
        return ""
    sets = list(dict.fromkeys(row["dataset"] for row in claims))
    rows = []
    for engine, stage, figure in dict.fromkeys((row["engine"], row["stage"], row["figure"]) for row in claims):
        found = {row["dataset"]: row for row in claims if (row["engine"], row["figure"]) == (engine, figure)}
        where = "inside" if figure == "highlight_psnr_db" else "ring"
        cells = [spread(found[name], 2, sign=True) if name in found else "" for name in sets]
        short = "" if all(row["holds"] for row in found.values()) else "**short**"
        rows.append([f"`{engine}` less `{stage}`, {where}", *cells, short])
    return markdown(["dB", *sets, ""], rows)


def spared_table(results: Path) -> str:
    """Return what sparing reflections in training changes: after less before, set by set."""
    result = read(results, "reflections")
    if result is None:
        return ""
    words = {
        "highlight_psnr_db": ("PSNR inside, dB", 2),
        "ring_psnr_db": ("PSNR in the ring, dB", 2),
        "ring_overshoot": ("overshoot, levels", 3),
        "highlight_overlap": ("overlap", 3),
        "luma_psnr_db": ("PSNR Y, dB", 2),
    }
    apart = {(row["figure"], row["dataset"]): row for row in result["differences"]}
    sets = list(result["sets"])
    rows = [
        [title, *(spread(apart.get((figure, name)), digits, sign=True) for name in sets)]
        for figure, (title, digits) in words.items()
    ]
    return markdown([f"`{result['model']}`, {result['steps']} steps", *sets], rows)


def downstream_table(results: Path) -> str:
    """Return accuracy, Matthews' coefficient, recovery and McNemar's test of every method."""
    result = read(results, "downstream")
    if result is None:
        return ""
    rows = []
    for task, found in result["tasks"].items():
        for name, row in found["methods"].items():
            rows.append(
                [task, f"`{name}`", f"{row['accuracy']:.3f}", f"{row['matthews']:.3f}", *_beside_bicubic(name, row)]
            )
    head = ["", "", "accuracy", "MCC", "bicubic", "truth", "recovery", "better / worse than bicubic"]
    return markdown(head, rows)


def _beside_bicubic(name: str, row: Cells) -> list[str]:
    """Return bicubic's and the truth's accuracy on the same patches, recovery, and who was right where they differ."""
    if name == "truth" or name.startswith("bicubic"):
        return ["", "", "", ""]
    test = row["mcnemar"]
    split = f"{test['better']} / {test['worse']}, p {test['p']:.2g}"
    return [f"{row['bicubic']:.3f}", f"{row['truth']:.3f}", recovery(row), split]


def recovery(row: Cells) -> str:
    """Return a recovery with its interval, or that there was nothing to give back."""
    low, high = ("none" if row[key] is None else f"{row[key]:.2f}" for key in ("low", "high"))
    point = "nothing was lost" if row["recovery"] is None else f"{row['recovery']:.2f}"
    return f"{point} ({low} to {high})"


def video_table(results: Path) -> str:
    """Return flicker, warp error, change error and luma PSNR on the clips: means of the clips."""
    result = read(results, "video")
    if result is None:
        return ""
    rows = []
    for condition, methods in result["over_clips"].items():
        for name, figures in methods.items():
            cells = []
            for figure, digits in (("flicker", 3), ("warp_error", 3), ("change_error", 3), ("luma_psnr_db", 2)):
                cells.append(shown(figures[figure]["mean"] if figure in figures else None, digits))
            rows.append([condition.replace("crf-", "CRF "), name, *cells])
    return markdown(["input", "", "flicker", "warp error", "change error", "luma PSNR"], rows)


def video_line(results: Path) -> str:
    """Return what the table of video was measured on."""
    result = read(results, "video")
    if result is None:
        return ""
    clips = len(result["clips"])
    return f"{clips} clips, the first {result['frames']} frames of each; {result['card']['date']}."


def retrained_table(results: Path) -> str:
    """Return what networks that were trained alike cost and gain over bicubic interpolation on the test sides."""
    result = read(results, "retrained")
    if result is None:
        return ""
    networks = result["networks"]
    sets = sorted({name for row in networks.values() for name in row["test"]["bicubic"]})
    rows = []
    for name, row in networks.items():
        test = row["test"]
        gains = [test["fp32"][each]["field_of_view"] - test["bicubic"][each]["field_of_view"] for each in sets]
        cost = [f"{row['macs_per_pixel']:,}", f"{row['parameters']:,}", f"{row['steps']:,}"]
        rows.append([f"`{name}`", *cost, *(f"{gain:+.2f}" for gain in gains)])
    return markdown(["network", "MAC a pixel", "parameters", "steps", *sets], rows)


def picture(name: str, words: str) -> Callable[[Path], str]:
    """Return what shows a picture of the results, where it was made."""

    def shown_picture(results: Path) -> str:
        return f"![{words}](benchmarks/results/{name})" if (results / name).is_file() else ""

    return shown_picture


EVIDENCE: dict[str, Callable[[Path], str]] = {
    "evidence-line": evidence_line,
    "evidence": evidence_table,
    "evidence-sheet": picture("crops.png", "The rendered scene: input, interpolations, engines, truth"),
    "quality": quality_table,
    "invention": invention_table,
    "reflections": reflections_table,
    "highlights": highlights_table,
    "spared": spared_table,
    "downstream": downstream_table,
    "video-line": video_line,
    "video": video_table,
    "retrained": retrained_table,
    "retrained-plot": picture("retrained.png", "Gain over bicubic interpolation against multiply-adds"),
}
"""Name of the marker -> what makes the table of the folder of results."""
