"""README's tables of evidence, from ``results/evidence.json``, ``downstream.json``, ``video.json``, ``retrained.json``.

A table whose JSON is not there is empty: nothing is shown that was not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import FEWER, load, markdown

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


def in_order(result: Any) -> list[str]:
    """Return the methods of the evidence: those of all frames, then heavy engines behind bicubic on their frames."""
    sets, heavy = result["test"]["sets"], result["frames_a_set"]["heavy"]["engines"]
    names = methods_of(sets)
    found = [name for name in names if name not in heavy and FEWER not in name]
    for name in (each for each in names if FEWER in each):
        scale = name.removesuffix(FEWER).rpartition("-x")[2]
        found += [name, *(each for each in names if each in heavy and each.endswith(f"-x{scale}"))]
    return [*found, *(name for name in names if name not in found)]


def mean_of_sets(sets: dict[str, dict[str, Cells]], method: str, figure: str) -> float | None:
    """Return the mean of the means of the sets, None where a set has none."""
    cells = [methods.get(method, {}).get(figure) for methods in sets.values()]
    return None if None in cells else sum(cell["mean"] for cell in cells if cell) / len(cells)


def shown(value: float | None, digits: int) -> str:
    """Return a number, or nothing."""
    return "" if value is None else f"{value:.{digits}f}"


def surely(sets: dict[str, dict[str, Cells]], method: str, figure: str, better: str) -> str:
    """Return in how many sets the whole interval of the paired gain over bicubic is better, and in how many worse.

    >>> surely({"one": {"a": {"f": {"gain": {"low": 0.1, "high": 0.2}}}}}, "a", "f", "less")
    ' (0/1)'
    """
    gains = [methods.get(method, {}).get(figure, {}).get("gain") for methods in sets.values()]
    above = sum(gain["low"] > 0 for gain in gains if gain)
    below = sum(gain["high"] < 0 for gain in gains if gain)
    if not any(gains):
        return ""
    return f" ({above}/{below})" if better == "more" else f" ({below}/{above})"


def quality_table(results: Path) -> str:
    """Return the other figures of quality: means of the sets' means on the test sides."""
    columns = {
        "rgb_psnr_db": ("PSNR RGB", 2, "more"),
        "luma_ssim": ("SSIM Y", 4, "more"),
        "rgb_ssim": ("SSIM RGB", 4, "more"),
        "lpips_like": ("LPIPS-like", 4, "less"),
        "lr_psnr_db": ("PSNR of LR", 2, "more"),
    }
    return _means_table(results, columns)


def invention_table(results: Path) -> str:
    """Return what was added: consistency, Fourier agreement and, where it was measured, flips of a classifier."""
    columns = {
        "lr_within_level": ("LR within a level", 4, "more"),
        "fourier_cutoff": ("Fourier cut-off", 3, "more"),
        "invented": ("invented", 3, "less"),
        "found": ("found", 3, "more"),
        "suspect": ("suspect", 3, "less"),
    }
    downstream = read(results, "downstream")
    tasks = downstream["tasks"] if downstream else {}
    heads = [f"{task} flips" for task in tasks]

    def flips(method: str) -> list[str]:
        rows = [tasks[task]["methods"].get(method, {}) for task in tasks]
        return [f"{row['flips']:.1%} of {row['patches']}" if "flips" in row else "" for row in rows]

    return _means_table(results, columns, heads, flips)


def reflections_table(results: Path) -> str:
    """Return what becomes of reflections: means of the sets' means on the test sides."""
    columns = {
        "highlight_psnr_db": ("PSNR inside", 2, "more"),
        "ring_psnr_db": ("PSNR in the ring", 2, "more"),
        "ring_overshoot": ("overshoot", 3, "less"),
        "highlight_overlap": ("overlap", 3, "more"),
    }
    return _means_table(results, columns)


def _means_table(
    results: Path,
    columns: dict[str, tuple[str, int, str]],
    more_heads: Iterable[str] = (),
    more: Callable[[str], list[str]] = lambda method: [],
) -> str:
    result = read(results, "evidence")
    if result is None:
        return ""
    sets = result["test"]["sets"]
    there = {figure for methods in sets.values() for cells in methods.values() for figure in cells}
    kept = {figure: words for figure, words in columns.items() if figure in there}
    rows = []
    for name in in_order(result):
        figures = [
            shown(mean, digits) + surely(sets, name, figure, better) if mean is not None else ""
            for figure, (_, digits, better) in kept.items()
            for mean in (mean_of_sets(sets, name, figure),)
        ]
        rows.append([f"`{name}`", *figures, *more(name)])
    return markdown(["mean of the sets", *(title for title, _, _ in kept.values()), *more_heads], rows)


def worst_table(results: Path) -> str:
    """Return of the ten worst crops of every engine the worst, and how many of them are worse than bicubic's."""
    result = read(results, "evidence")
    if result is None or "worst" not in result:
        return ""
    rows = []
    for name, crops in result["worst"].items():
        if name == "side" or not crops:
            continue
        first, behind = crops[0], sum(crop["luma_psnr_db"] < crop["bicubic_psnr_db"] for crop in crops)
        figures = [f"{first['rms_levels']:.1f}", f"{first['luma_psnr_db']:.1f}", f"{first['bicubic_psnr_db']:.1f}"]
        rows.append([f"`{name}`", first["dataset"], *figures, f"{behind} of {len(crops)}"])
    return markdown(["worst crop", "set", "RMS, levels", "PSNR Y, dB", "bicubic, dB", "below bicubic"], rows)


def highlights_table(results: Path) -> str:
    """Return how far adversarial engines are above their fidelity stage in and around reflections, set by set.

    Stages whose engines are not shipped are said.
    """
    result = read(results, "evidence")
    claims = result["test"]["highlights"] if result else []
    absent = result.get("not_shipped", []) if result else []
    if not claims and not absent:
        return ""
    sets = list(dict.fromkeys(row["dataset"] for row in claims))
    rows = []
    for engine, stage, figure in dict.fromkeys((row["engine"], row["stage"], row["figure"]) for row in claims):
        found = {row["dataset"]: row for row in claims if (row["engine"], row["figure"]) == (engine, figure)}
        where = "inside" if figure == "highlight_psnr_db" else "ring"
        cells = [spread(found[name], 2, sign=True) if name in found else "" for name in sets]
        short = "" if all(row["holds"] for row in found.values()) else "**short**"
        rows.append([f"`{engine}` less `{stage}`, {where}", *cells, short])
    for row in absent:
        rows.append([f"`{row['engine']}` less `{row['stage']}`", *("" for _ in sets), f"{row['missing']}: not shipped"])
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
    """Return accuracy, Matthews' coefficient, loss, gain, recovery and McNemar's test of every method."""
    result = read(results, "downstream")
    if result is None:
        return ""
    rows = []
    for task, found in result["tasks"].items():
        for name, row in found["methods"].items():
            right = [f"{row['patches']}", f"{row['accuracy']:.3f}", f"{row['matthews']:.3f}"]
            rows.append([task, f"`{name}`", *right, *_beside_bicubic(name, row)])
    head = ["", "", "patches", "accuracy", "MCC", "bicubic lost", "gained", "recovery", "better / worse, p"]
    return markdown(head, rows)


def _beside_bicubic(name: str, row: Cells) -> list[str]:
    """Return what bicubic lost of the truth and what was gained on it, in points; recovery; and who was right."""
    if name == "truth" or name.startswith("bicubic"):
        return ["", "", "", ""]
    test = row["mcnemar"]
    split = f"{test['better']} / {test['worse']}, {test['p']:.2g}"
    lost = points(*(row[key] for key in ("gap", "gap_low", "gap_high")))
    return [lost, points(*row["gain_over_bicubic"]), recovery(row), split]


def points(mean: float, low: float, high: float) -> str:
    """Return parts of one as percentage points, with their interval.

    >>> points(0.021, -0.004, 0.05)
    '+2.1 (-0.4 to +5.0)'
    """
    return spread({"mean": 100 * mean, "low": 100 * low, "high": 100 * high}, 1, sign=True)


def recovery(row: Cells) -> str:
    """Return a recovery with its interval; no number by itself where it is not shown that anything was lost."""
    low, high = ("none" if row[key] is None else f"{row[key]:.2f}" for key in ("low", "high"))
    lost = row["recovery"] is not None and row["gap_low"] is not None and row["gap_low"] > 0
    point = f"{row['recovery']:.2f}" if lost else "loss not shown"
    return point if (low, high) == ("none", "none") else f"{point} ({low} to {high})"


def video_table(results: Path) -> str:
    """Return flicker and warp error with their intervals over clips, change error and luma PSNR: means of the clips."""
    result = read(results, "video")
    if result is None:
        return ""
    rows = []
    for condition, methods in result["over_clips"].items():
        for name, figures in methods.items():
            cells = [spread(figures.get(figure), 2) for figure in ("flicker", "warp_error")]
            for figure in ("change_error", "luma_psnr_db"):
                cells.append(shown(figures[figure]["mean"] if figure in figures else None, 2))
            rows.append([condition.replace("crf-", "CRF "), name, *cells])
    return markdown(["input", "", "flicker", "warp error", "change error", "luma PSNR"], rows)


def video_line(results: Path) -> str:
    """Return what the table of video was measured on."""
    result = read(results, "video")
    if result is None:
        return ""
    clips, few = len(result["clips"]), result.get("heavy_frames")
    slow = f" ({few} for engines of SRGAN's size, and for the bicubic of *first frames* beside them)" if few else ""
    return f"{clips} clips, the first {result['frames']} frames of each{slow}; {result['card']['date']}."


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


VARIANTS = {"residual groups": "`quality` in residual groups", "colour": "`fast` on RGB"}
"""How README names what `benchmarks.variants` tries."""


def variants_table(results: Path) -> str:
    """Return how far variants of students are above these, as mean of the sets, and what they cost."""
    result = read(results, "variants")
    if result is None:
        return ""
    rows, measures = [], list[str]()
    for question, by_scale in result["above"].items():
        ours, other = result["trials"][question]
        for scale, by_side in by_scale.items():
            macs = [result["networks"][f"{name}-{scale}"]["macs_per_pixel"] for name in (ours, other)]
            for side, by_measure in by_side.items():
                cells = [f"{float(np.mean(list(by_set.values()))):+.3f}" for by_set in by_measure.values()]
                rows.append([f"{VARIANTS[question]}, {scale}, {side}", f"{macs[0]:,}", f"{macs[1]:,}", *cells])
                measures = [name.replace("rgb", "RGB") for name in by_measure]
    return markdown(["variant less the student", "MAC of the student", "of the variant", *measures], rows)


def picture(name: str, words: str) -> Callable[[Path], str]:
    """Return what shows a picture of the results, where it was made."""

    def shown_picture(results: Path) -> str:
        return f"![{words}](benchmarks/results/{name})" if (results / name).is_file() else ""

    return shown_picture


EVIDENCE: dict[str, Callable[[Path], str]] = {
    "evidence-line": evidence_line,
    "evidence": evidence_table,
    "evidence-sheet": picture("crops.png", "The rendered scene: input, interpolations, engines, truth"),
    "worst": worst_table,
    "worst-sheet": picture("worst.png", "The rendered scene: where every engine is furthest from the truth"),
    "quality": quality_table,
    "invention": invention_table,
    "reflections": reflections_table,
    "reflections-sheet": picture("reflections.png", "The rendered scene, where reflections are densest"),
    "highlights": highlights_table,
    "spared": spared_table,
    "downstream": downstream_table,
    "video-line": video_line,
    "video": video_table,
    "retrained": retrained_table,
    "variants": variants_table,
    "retrained-plot": picture("retrained.png", "Gain over bicubic interpolation against multiply-adds"),
}
"""Name of the marker -> what makes the table of the folder of results."""
