"""From the figures of frames to those of data sets: means and 95 % intervals over groups, and the gain over bicubic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from rich.table import Column, Table

from streamsr.evaluation.figures import FIGURES
from streamsr.evaluation.subjects import counted
from streamsr.quality.intervals import Interval, Resampler

Row = dict[str, Any]
"""One frame by one method: name, dataset, group, method, scale, and the figures that could be measured."""

KEPT_DIGITS = 6
"""Decimals that are kept."""

QUALITY = ("luma_psnr_db", "luma_ssim", "rgb_psnr_db", "lpips_like")
TRUST = ("lr_within_level", "invented", "found", "ring_psnr_db")
MAIN = QUALITY + TRUST
STEADY = ("warp_error", "flicker", "change_error")
"""Figures of the tables that are printed; the others stand in the JSON and the report."""


def summarise(rows: list[Row]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return data set -> method -> figure -> mean, its interval, and ``gain`` over bicubic with its own interval.

    A gain is the mean difference, frame by frame, to bicubic interpolation of the same scale, so that what makes frames
    hard for both cancels.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        ours = [row for row in rows if row["dataset"] == dataset]
        by_method: dict[str, list[Row]] = {}
        for row in ours:
            by_method.setdefault(row["method"], []).append(row)
        found[dataset] = {}
        for method, members in by_method.items():
            reference = {row["name"]: row for row in by_method.get(f"bicubic-x{members[0]['scale']}", [])}
            found[dataset][method] = _figures(members, reference)
    return found


def _figures(members: list[Row], reference: dict[str, Row]) -> dict[str, Any]:
    draws = Resampler([row["group"] for row in members])
    found: dict[str, Any] = {}
    for figure in FIGURES:
        values = [row.get(figure, float("nan")) for row in members]
        interval = draws.interval(values)
        if interval is None:
            continue
        found[figure] = written(interval)
        if not reference or members[0]["method"].startswith("bicubic"):
            continue
        base = [reference.get(row["name"], {}).get(figure, float("nan")) for row in members]
        gain = draws.interval(list(np.subtract(values, base)))
        if gain is not None:
            found[figure]["gain"] = written(gain)
    return found


def written(interval: Interval) -> dict[str, Any]:
    """Return an interval as JSON holds it."""
    numbers = {name: round(getattr(interval, name), KEPT_DIGITS) for name in ("mean", "low", "high")}
    return {**numbers, "frames": interval.frames, "groups": interval.groups}


def shown(cell: dict[str, Any] | None, digits: int, *, interval: bool = False) -> str:
    """Return a mean, and its interval where asked.

    >>> shown({"mean": 1.0, "low": 0.5, "high": 2.0}, 2, interval=True)
    '1.00 [0.50, 2.00]'
    """
    if cell is None:
        return ""
    text = f"{cell['mean']:.{digits}f}"
    return f"{text} [{cell['low']:.{digits}f}, {cell['high']:.{digits}f}]" if interval else text


def tables(summary: dict[str, dict[str, dict[str, Any]]]) -> Iterator[Table]:
    """Give a table for each data set: a method a row, the main figures, means with intervals."""
    for dataset, methods in summary.items():
        figures = used(methods.values(), MAIN + STEADY)
        counts = next(iter(methods.values()))
        first = next(iter(counts.values()), {"frames": 0, "groups": 0})
        title = f"{dataset}: {counted(first['frames'], 'frame')} of {counted(first['groups'], 'group')}"
        names = Column("", no_wrap=True, min_width=max(map(len, methods)))
        table = Table(names, *(FIGURES[figure].title for figure in figures), title=title, title_justify="left")
        for method, cells in methods.items():
            table.add_row(method, *(_two_lines(cells.get(each), FIGURES[each].digits) for each in figures))
        yield table


def _two_lines(cell: dict[str, Any] | None, digits: int) -> str:
    """Return a mean, and its interval below it where there is more than a frame."""
    several = cell is not None and cell["frames"] > 1
    return shown(cell, digits, interval=several).replace(" [", "\n\\[", 1)


def used(methods: Iterable[dict[str, Any]], figures: Iterable[str]) -> list[str]:
    """Return the figures that any method has."""
    rows = list(methods)
    return [figure for figure in figures if any(figure in row for row in rows)]
