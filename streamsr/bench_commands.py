"""``streamsr bench``: what this machine really does, measured from outside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamsr.choices import RUNTIMES, choice
from streamsr.config import DEFAULT_ENGINE
from streamsr.errors import UsageError

if TYPE_CHECKING:
    from streamsr.bench.views import BenchResult

bench_app = typer.Typer(no_args_is_help=True, help="Measure what this machine does.")

VIEWS = ("none", "window", "web", "record")
SOURCE = "testsrc:endoscopy:size=320x320"
PARTS = ("p50", "p95", "p99", "max")


@bench_app.command()
def latency(
    view: Annotated[str, typer.Option(help="none, window, web, record or all.")] = "all",
    source: Annotated[str, typer.Option(help="Numbered frames: testsrc:endoscopy, or a recording of it.")] = SOURCE,
    model: Annotated[str, typer.Option("-m", "--model", help="Engine: fast-x2, tiny-x2, ...")] = DEFAULT_ENGINE,
    runtime: Annotated[str, typer.Option(help="auto, openvino, cuda, tensorrt, fused, torch or onnxruntime.")] = "auto",
    seconds: Annotated[float, typer.Option("-t", "--seconds", min=0.1, help="For how long frames count.")] = 20.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Measure added latency end to end: numbers drawn into the source's pixels are read back from what is shown.

    A picture counts from the arrival of its data here to the moment at which its number is first seen: handed to a
    view, on the screen, on a page's canvas. Recordings are compared by the times in their files. No badge is burnt in:
    it might cover the number.
    """
    views = VIEWS if choice("view", view, (*VIEWS, "all")) == "all" else (view,)
    choice("runtime", runtime, RUNTIMES)
    from streamsr.bench.views import BenchSettings, measure_views

    settings = BenchSettings(source=source, engine=model, runtime=runtime, seconds=seconds)
    result = measure_views(views, settings)
    if as_json:
        typer.echo(json.dumps({**vars(settings), "views": result.rows, "left_out": result.left_out}))
    else:
        show(result)
    if not result.rows:
        raise UsageError(f"--view {view}: " + "; ".join(result.left_out.values()))


def show(result: BenchResult) -> None:
    """Print what was measured as a table, in milliseconds."""
    rows = [cells_of(row) for row in result.rows]
    if rows:
        widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
        for row in (dict(zip(rows[0], rows[0], strict=True)), *rows):
            typer.echo("  ".join(value.ljust(widths[name]) for name, value in row.items()).rstrip())
        typer.echo(
            "\nms from a frame's arrival to its first sighting; it may have been there up to 'every' earlier."
            " 'stated' is the p50 that the session itself tells. Of a recording: how far its times are off."
        )
    for name, why in result.left_out.items():
        typer.echo(f"{name} left out: {why}")


def cells_of(row: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of a view's row."""
    times = row.get("added_latency") or row["time_error"]
    stated = f"{row['claimed_latency']['p50_ms']:.1f}" if "claimed_latency" in row else ""
    every = f"{row['interval_ms']:.1f}" if row.get("interval_ms") else ""
    return {
        "view": row["view"],
        "seen": row["seen_at"],
        **{part: f"{times[f'{part}_ms']:.1f}" for part in PARTS},
        "every": every,
        "stated": stated,
        "frames": str(row["frames"]),
        "missed": str(row["missed"]),
        "disordered": str(row["out_of_order"]),
        "rungs": " ".join(f"{name} {number}" for name, number in row["by_rung"].items()),
    }
