"""Curves of a run: losses and validation figures against steps, as a PNG beside the weights."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

LOG = "log.jsonl"


def append_line(folder: Path, line: dict[str, Any]) -> None:
    """Append to a run's log, on a line of its own also where a full disk cut the last one short."""
    with (folder / LOG).open("ab+") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - 1, 0))
        start = "" if file.read() in (b"", b"\n") else "\n"
        file.write(f"{start}{json.dumps(line)}\n".encode())


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's log, less those that were cut short and those of steps that were taken again."""
    lines: list[dict[str, Any]] = []
    for text in (folder / LOG).read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if "resumed_at" in line:
            lines = [before for before in lines if before.get("step", 0) <= line["resumed_at"]]
        lines.append(line)
    # A validation that was noted, but followed by no checkpoint, is made and noted again.
    return list(
        {(line["step"], *line) if "step" in line else (place,): line for place, line in enumerate(lines)}.values()
    )


def draw_curves(folder: Path, *, name: str = "curves.png") -> Path | None:
    """Draw a run's log: every loss above, every set's validation PSNR below.

    Args:
        folder: the run's.
        name: of the picture in it.

    Returns:
        The picture's path; None where matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    lines = read_log(folder)
    figure = Figure(figsize=(8, 7), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    losses = [line for line in lines if "losses" in line]
    for key in sorted({key for line in losses for key in line["losses"]}):
        points = [(line["step"], line["losses"][key]) for line in losses if key in line["losses"]]
        above.plot(*zip(*points, strict=True), label=key, linewidth=0.8)
    above.set_yscale("symlog", linthresh=1e-4)
    above.set_ylabel("loss")
    if losses:
        above.legend(fontsize=8)
    bicubic: dict[str, float] = next((line["bicubic"] for line in lines if "bicubic" in line), {})
    for kind, label in (("psnr_db", "PSNR over bicubic, dB"), ("right", "share of right answers")):
        judged = [line for line in lines if kind in line]
        for key in sorted({key for line in judged for key in line[kind]}):
            points = [(line["step"], line[kind][key] - bicubic.get(key, 0.0)) for line in judged if key in line[kind]]
            below.plot(*zip(*points, strict=True), label=key, marker=".")
        if judged:
            below.set_ylabel(f"validation: {label}")
            below.legend(fontsize=8)
    below.set_xlabel("step")
    figure.savefig(folder / name, dpi=100)
    return folder / name
