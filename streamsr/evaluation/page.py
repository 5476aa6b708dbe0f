"""The report: one HTML file that holds everything and loads nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from streamsr import __version__
from streamsr.evaluation.crops import TRUTH, Crop
from streamsr.evaluation.figures import FIGURES
from streamsr.evaluation.run import Evaluation
from streamsr.evaluation.sheets import DIFFERENCE_GAIN, data_address, difference
from streamsr.evaluation.subjects import counted
from streamsr.evaluation.summary import OVER_BICUBIC, TOPICS, Summary, by_topic, shown, title_of, used


def page(result: Evaluation, summary: Summary) -> str:
    """Return the report of an evaluation as HTML."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    crop_template = environment.get_template("crop.html")

    def figure(crop: Crop) -> Markup:
        return Markup(crop_template.render(**_crop(crop)))

    return environment.get_template("page.html").render(
        place=result.place.name or str(result.place),
        version=__version__,
        date=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        summary_line=_summary_line(result),
        tables=list(_tables(summary)),
        seams=list(_seams(result)),
        compared=result.gallery.compared,
        worst=result.gallery.worst,
        left_out=result.told.left_out,
        notes=result.told.notes,
        meanings=[(each.title, each.meaning) for each in (*map(FIGURES.__getitem__, _figures(summary)), OVER_BICUBIC)],
        figure=figure,
    )


def _summary_line(result: Evaluation) -> str:
    engines = ", ".join(f"{name} ({precision})" for name, precision in result.precisions.items()) or "no engine"
    frames = len({row["name"] for row in result.rows})
    projected = "made consistent with their input" if result.settings.consistency else "not made consistent"
    end = "" if result.complete else " Interrupted: only a part was measured."
    return f"{counted(frames, 'frame')}; {engines}, {projected}.{end}"


def _figures(summary: Summary) -> list[str]:
    return used([cells for methods in summary.values() for cells in methods.values()], FIGURES)


def _tables(summary: Summary) -> Iterator[dict[str, Any]]:
    for dataset, methods in summary.items():
        for topic, columns in by_topic(methods, TOPICS):
            rows = [
                {"name": name, "cells": [_cell(cells[number], figure.digits) for figure, cells in columns]}
                for number, name in enumerate(methods)
                if any(cells[number] for _, cells in columns)
            ]
            title = title_of(dataset, methods, topic)
            yield {"title": title, "heads": [figure for figure, _ in columns], "rows": rows}


def _cell(cell: dict[str, Any] | None, digits: int) -> dict[str, str]:
    if cell is None:
        return {"mean": "", "interval": ""}
    interval = f"{cell['low']:.{digits}f} to {cell['high']:.{digits}f}" if cell["frames"] > 1 else ""
    return {"mean": shown(cell, digits), "interval": interval}


def _seams(result: Evaluation) -> Iterator[tuple[str, str, str, str]]:
    for dataset, engines in result.seams.items():
        for name, found in engines.items():
            ratio = f"{found['ratio']:.3f}" if "ratio" in found else "no border"
            yield dataset, name, f"{found['step_levels']:.0f}", ratio


def _crop(crop: Crop) -> dict[str, Any]:
    """Return what the template of a crop shows: bicubic against the engine, or what there is."""
    pictures = dict(crop.pictures)
    methods = [name for name in pictures if name in crop.psnr_db]
    best = [name for name in methods if not name.startswith(("bicubic", "lanczos"))]
    left = methods[0]
    right = best[0] if best else TRUTH
    for name in best:
        pictures[f"{name} less truth, x{DIFFERENCE_GAIN}"] = difference(pictures[name], pictures[TRUTH])
    return {
        "pictures": {name: data_address(picture) for name, picture in pictures.items()},
        "left": left,
        "right": right,
        "title": f"{crop.dataset}: {crop.name}, at {crop.left}, {crop.top}",
        "figures": ", ".join(f"{name} {value:.1f} dB" for name, value in crop.psnr_db.items()),
    }
