"""``streamsr evaluate``: measure engines on one's own pictures or videos, and leave a report."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from streamsr.choices import choice
from streamsr.config import DEFAULT_ENGINE
from streamsr.errors import Interrupted, UsageError, needing_extra

if TYPE_CHECKING:
    from streamsr.evaluation.run import Evaluation, EvaluationSettings
    from streamsr.quality.perceptual import LpipsLike

EXIT_SOME_LEFT_OUT = 1

PLAIN_INTERVAL_S = 5.0
"""Seconds between two lines where there is no terminal."""


def evaluate(
    place: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Of pictures or videos, or with MANIFEST.tsv; or one file.")
    ],
    models: Annotated[
        list[str] | None, typer.Option("-m", "--model", help=f"Engine, as often as wanted; {DEFAULT_ENGINE}.")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for report, figures and sheets.")] = Path(
        "streamsr-evaluation"
    ),
    split: Annotated[str, typer.Option(help="Side of a folder with MANIFEST.tsv: train, val or test.")] = "test",
    most: Annotated[int | None, typer.Option(min=1, help="At most so many files of a set, evenly spread; all.")] = None,
    frames: Annotated[int, typer.Option(min=1, help="Frames of a video, from its first on.")] = 24,
    squeezenet: Annotated[Path | None, typer.Option(help="Trunk of the LPIPS-like distance.")] = None,
    lpips_linear: Annotated[Path | None, typer.Option(help="Its linear layers.")] = None,
    no_consistency: Annotated[
        bool, typer.Option("--no-consistency", help="Measure what the generator makes, without the projection.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("-y", "--overwrite", help="Replace an earlier evaluation.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only what was left out, and errors.")] = False,
) -> None:
    """Measure engines on your own pictures or videos: brought down, enlarged, compared with themselves."""
    with needing_extra("evaluate"):
        from streamsr.evaluation.figures import load_distance
        from streamsr.evaluation.run import EvaluationSettings
        from streamsr.evaluation.writing import content_of, refuse_existing, refuse_unwritable, write_evaluation
    if bool(squeezenet) != bool(lpips_linear):
        raise UsageError("expected --squeezenet and --lpips-linear together, got one of them; name both or none")
    refuse_existing(output, overwrite=overwrite)
    refuse_unwritable(output)
    settings = EvaluationSettings(
        engines=tuple(models or [DEFAULT_ENGINE]),
        split=choice("split", split, ("train", "val", "test")),
        most_per_set=most,
        frames=frames,
        consistency=not no_consistency,
    )
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    with showing(quiet=quiet or as_json) as display:
        result = measured(place, settings, load_distance(squeezenet, lpips_linear), display)
    content = content_of(result)
    files = write_evaluation(result, content, output)
    if as_json:
        typer.echo(json.dumps(content))
    elif not quiet:
        show(result, content["sets"], files)
    if not result.complete:
        raise Interrupted(f"interrupted; what was measured until then is in {output}")
    if result.told.left_out:
        raise typer.Exit(EXIT_SOME_LEFT_OUT)


class EvaluationDisplay(Protocol):
    """What shows how an evaluation goes."""

    def say(self, line: str) -> None:
        """Show a line that the user should read."""

    def advance(self, name: str, done: int, total: int) -> None:
        """Show how far it is."""


class PlainEvaluation:
    """Lines of text on standard error, where there is no terminal.

    Args:
        quiet: show only what was left out.
    """

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self._next_s = time.monotonic() + PLAIN_INTERVAL_S

    def say(self, line: str) -> None:
        """Print a line."""
        if not self.quiet or line.startswith("left out"):
            typer.echo(line, err=True)

    def advance(self, name: str, done: int, total: int) -> None:
        """Print a line when enough time has passed."""
        if not self.quiet and time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + PLAIN_INTERVAL_S
            typer.echo(f"{done} of {total}: {name}", err=True)


@contextmanager
def showing(*, quiet: bool) -> Iterator[EvaluationDisplay]:
    """Choose a display: a bar on a terminal, else lines."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield PlainEvaluation(quiet=quiet)
        return
    columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console) as bars:
        task = bars.add_task("reading", total=None)

        class Bar:
            def say(self, line: str) -> None:
                bars.console.print(line, highlight=False, markup=False)

            def advance(self, name: str, done: int, total: int) -> None:
                bars.update(task, description=name, completed=done, total=total)

        yield Bar()


def measured(
    place: Path, settings: EvaluationSettings, distance: LpipsLike | None, display: EvaluationDisplay
) -> Evaluation:
    """Evaluate, shown."""
    from streamsr.evaluation.run import evaluate as run

    return run(place, settings, distance=distance, say=display.say, advance=display.advance)


def show(result: Evaluation, summary: dict[str, dict[str, dict[str, object]]], files: list[Path]) -> None:
    """Print the tables, what was left out, and where everything is."""
    from streamsr.doctor import wide_console
    from streamsr.evaluation.summary import tables

    console = wide_console()
    for table in tables(summary):
        console.print(table)
    if result.told.left_out:
        console.print(f"left out: {len(result.told.left_out)}, named above and in the report", highlight=False)
    for path in files:
        console.print(str(path), highlight=False, markup=False, soft_wrap=True)
