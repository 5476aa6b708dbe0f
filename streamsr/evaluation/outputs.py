"""What an evaluation's files are called, so that the next one does not measure them."""

from __future__ import annotations

from collections.abc import Iterable

REPORT, FIGURES_FILE, TABLES, SHEET = "report.html", "evaluation.json", "figures.txt", "crops.png"


def worst_sheet(engine: str) -> str:
    """Return what the sheet of an engine's worst crops is called."""
    return f"worst-{engine}.png"


def left_by_evaluation(names: Iterable[str]) -> set[str]:
    """Return which files of a folder an evaluation left there; none where it holds no report with its figures.

    >>> sorted(left_by_evaluation(["a.png", "crops.png", "evaluation.json", "report.html", "worst-fast-x2.png"]))
    ['crops.png', 'evaluation.json', 'report.html', 'worst-fast-x2.png']
    >>> left_by_evaluation(["a.png", "crops.png"])
    set()
    """
    there = set(names)
    if not {REPORT, FIGURES_FILE} <= there:
        return set()
    sheets = {name for name in there if name.startswith("worst-") and name.endswith(".png")}
    return there & {REPORT, FIGURES_FILE, TABLES, SHEET} | sheets
