"""Straight lines through what was measured, and plots: drawn beside the JSON, never on a screen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

LEAST_POINTS = 3
"""Points below which a line says nothing: it goes through any two."""


def line_through(xs: Sequence[float], ys: Sequence[float]) -> dict[str, float] | None:
    """Return the least-squares line ``y = intercept + slope x`` and its r²; None for fewer than three different x."""
    if len(set(xs)) < LEAST_POINTS:
        return None
    x, y = np.array(xs, float), np.array(ys, float)
    slope, intercept = (float(value) for value in np.polyfit(x, y, 1))
    rest, spread = float(((y - intercept - slope * x) ** 2).sum()), float(((y - y.mean()) ** 2).sum())
    r_squared = 1.0 - rest / spread if spread else 1.0
    return {"slope": round(slope, 5), "intercept": round(intercept, 5), "r2": round(r_squared, 5)}


def draw(path: Path, panels: Sequence[Callable[[Any], None]], *, columns: int, title: str) -> str | None:
    """Draw panels into a PNG.

    Args:
        path: of the picture; its folder is made.
        panels: each draws into the axes of matplotlib that it is given.
        columns: of panels.
        title: above all of them.

    Returns:
        The picture's name; None where matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows), layout="constrained")
    all_axes = figure.subplots(rows, columns, squeeze=False).flat
    for axes, panel in zip(all_axes, panels, strict=False):
        panel(axes)
    for axes in list(all_axes)[len(panels) :]:
        axes.set_visible(False)
    figure.suptitle(title, fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    return path.name


def plot_beside(path: Path | None) -> Path | None:
    """Return where the plot of a result goes: beside its JSON, under its name; None where nothing is written."""
    return None if path is None else path.with_suffix(".png")
