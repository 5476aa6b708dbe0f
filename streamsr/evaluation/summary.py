"""From the figures of frames to those of data sets: means and 95 % intervals over groups, and the gain over bicubic."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Column, Table

from streamsr.evaluation.figures import FIGURES, Figure
from streamsr.evaluation.subjects import counted
from streamsr.quality.intervals import Interval, Resampler

Row = dict[str, Any]
"""One frame by one method: name, dataset, group, method, scale, and the figures that could be measured."""

Summary = dict[str, dict[str, dict[str, Any]]]
"""Data set -> method -> figure -> mean and interval, see `summarise`."""

TEXT_WIDTH = 160
"""Columns of the tables that are written to a file."""

KEPT_DIGITS = 6
"""Decimals that are kept."""

REFLECTIONS = ("highlight_psnr_db", "ring_psnr_db", "ring_overshoot", "highlight_overlap")
TOPICS: dict[str, tuple[str, ...]] = {
    "fidelity": ("luma_psnr_db", "luma_ssim", "rgb_psnr_db", "rgb_ssim", "whole_psnr_db", "lpips_like"),
    "trust": ("lr_psnr_db", "lr_within_level", "fourier_cutoff", "invented", "found", "suspect"),
    "reflections": REFLECTIONS,
    "over time": ("warp_error", "flicker", "change_error"),
}
"""Every figure by what it tells: the tables of the report."""

PRINTED: dict[str, tuple[str, ...]] = {
    "fidelity": ("luma_psnr_db", "luma_ssim", "rgb_psnr_db", "lpips_like"),
    "trust": ("lr_within_level", "invented", "found", "ring_psnr_db", *TOPICS["over time"]),
}
"""Figures of the tables that are printed; the others stand in the JSON and the report."""

GAINED = "luma_psnr_db"
"""Figure whose gain over bicubic interpolation has a column of its own."""

OVER_BICUBIC = Figure(
    "over bicubic",
    2,
    "more",
    "mean difference of PSNR Y to bicubic interpolation of the same scale, frame by frame, in dB",
)


def summarise(rows: list[Row]) -> Summary:
    """Return data set -> method -> figure -> mean, its interval, and ``gain`` over bicubic with its own interval.

    A gain is the mean difference, frame by frame, to bicubic interpolation of the same scale, so that what makes frames
    hard for both cancels.
    """
    found: Summary = {}
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


def tables(summary: Summary) -> Iterator[Table]:
    """Give two tables for each data set: a method a row, the main figures, means with intervals."""
    for dataset, methods in summary.items():
        for topic, columns in by_topic(methods, PRINTED):
            names = Column("", no_wrap=True, min_width=max(map(len, methods)))
            heads = [figure.title for figure, _ in columns]
            table = Table(names, *heads, title=title_of(dataset, methods, topic), title_justify="left")
            for number, name in enumerate(methods):
                if not any(cells[number] for _, cells in columns):
                    continue
                table.add_row(name, *(_two_lines(cells[number], figure.digits) for figure, cells in columns))
            yield table


def title_of(dataset: str, methods: dict[str, dict[str, Any]], topic: str) -> str:
    """Return what stands above a table."""
    first = next(iter(next(iter(methods.values())).values()), {"frames": 0, "groups": 0})
    return f"{dataset}, {topic}: {counted(first['frames'], 'frame')} of {counted(first['groups'], 'group')}"


def by_topic(
    methods: dict[str, dict[str, Any]], topics: dict[str, tuple[str, ...]]
) -> Iterator[tuple[str, list[tuple[Figure, list[dict[str, Any] | None]]]]]:
    """Give the columns of every topic that a data set has figures of: the figure, and a cell for each method.

    Behind PSNR comes its gain over bicubic interpolation, which says more than two means beside each other: what makes
    frames hard for both methods cancels.
    """
    for topic, figures in topics.items():
        columns: list[tuple[Figure, list[dict[str, Any] | None]]] = []
        for name in used(methods.values(), figures):
            cells = [found.get(name) for found in methods.values()]
            columns.append((FIGURES[name], cells))
            gains = [cell.get("gain") if cell else None for cell in cells]
            if name == GAINED and any(gains):
                columns.append((OVER_BICUBIC, gains))
        if columns:
            yield topic, columns


def as_text(summary: Summary) -> str:
    """Return the tables as they are printed."""
    console = Console(file=io.StringIO(), width=TEXT_WIDTH)
    with console.capture() as held:
        for table in tables(summary):
            console.print(table)
    return held.get()


def _two_lines(cell: dict[str, Any] | None, digits: int) -> str:
    """Return a mean, and its interval below it where there is more than a frame."""
    several = cell is not None and cell["frames"] > 1
    return shown(cell, digits, interval=several).replace(" [", "\n\\[", 1)


def used(methods: Iterable[dict[str, Any]], figures: Iterable[str]) -> list[str]:
    """Return the figures that any method has."""
    rows = list(methods)
    return [figure for figure in figures if any(figure in row for row in rows)]
