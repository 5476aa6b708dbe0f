"""How a job shows itself: a live bar on a terminal, plain lines elsewhere, JSON for machines, nothing when quiet."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from streamsr.errors import printable
from streamsr.job import JobProgress, JobResult

NAME_WIDTH, BAR_WIDTH = 16, 8
"""Columns of name and bar: with the figures they fill a terminal of 80."""

PLAIN_INTERVAL_S = 5.0
"""Seconds between two lines where there is no terminal."""


class Display(Protocol):
    """What shows the progress of jobs."""

    def update(self, progress: JobProgress) -> None:
        """Take the progress of the present job."""

    def finish(self, result: JobResult) -> None:
        """Say how a job went."""

    def fail(self, name: str, error: BaseException) -> None:
        """Say why a job could not be done, in one line."""


class FramesColumn(ProgressColumn):
    """Frames, frames a second, patches skipped and frames lost of a job."""

    def render(self, task: Task) -> Text:
        """Return the figures of the newest progress."""
        progress: JobProgress | None = task.fields.get("job")
        if progress is None:
            return Text("starting")
        return Text(figures(progress), style="cyan")


def figures(progress: JobProgress) -> str:
    """Return frames done, frames a second, patches skipped and gaps in a few words; before them, what is compiled."""
    if progress.step:
        return progress.step
    total = "" if progress.num_frames is None else f"/{progress.num_frames}"
    rate = progress.shown / progress.elapsed_s if progress.elapsed_s > 0 else 0.0
    gaps = f" {progress.gaps} gaps" if progress.gaps else ""
    return f"{progress.shown}{total} frames {rate:.1f} fps {progress.skipped:.0%} skipped 0 drops{gaps}"


class BarDisplay:
    """A live bar on a terminal.

    Args:
        console: where to draw.
        bars: a started rich progress.
    """

    def __init__(self, console: Console, bars: Progress) -> None:
        self.console, self.bars = console, bars
        self._tasks: dict[str, Any] = {}
        self._runtime = ""

    def update(self, progress: JobProgress) -> None:
        """Move the bar of the present job; name what runs it when that is new."""
        if progress.runtime not in ("", self._runtime):
            self._runtime = progress.runtime
            self.bars.console.print(progress.runtime, style="dim", highlight=False, markup=False)
        if progress.name not in self._tasks:
            self._tasks[progress.name] = self.bars.add_task(
                printable(Path(progress.name).name), total=progress.num_frames
            )
        total, done = progress.num_frames, progress.shown
        self.bars.update(self._tasks[progress.name], total=total, completed=done, job=progress)

    def finish(self, result: JobResult) -> None:
        """Print the lines of a finished job above the bar."""
        for line in summary(result):
            self.bars.console.print(line, highlight=False, markup=False)

    def fail(self, name: str, error: BaseException) -> None:
        """Print the line of a failed job above the bar."""
        self.bars.console.print(named(name, error), style="red", highlight=False, markup=False)


class PlainDisplay:
    """Lines of text, one every few seconds.

    Args:
        console: where to print results and progress.
        errors: where to print errors.
    """

    def __init__(self, console: Console, errors: Console, *, quiet: bool = False) -> None:
        self.console, self.errors, self.quiet = console, errors, quiet
        self._next_s = time.monotonic() + PLAIN_INTERVAL_S
        self._runtime = ""

    def update(self, progress: JobProgress) -> None:
        """Print a line when enough time has passed; name what runs the job when that is new."""
        if not self.quiet and progress.runtime not in ("", self._runtime):
            self._runtime = progress.runtime
            self.console.print(
                f"{printable(progress.name)}: {progress.runtime}", highlight=False, markup=False, soft_wrap=True
            )
        if not self.quiet and time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + PLAIN_INTERVAL_S
            self.console.print(
                f"{printable(progress.name)}: {figures(progress)}", highlight=False, markup=False, soft_wrap=True
            )

    def finish(self, result: JobResult) -> None:
        """Print the lines of a finished job."""
        for line in () if self.quiet and result.complete else summary(result):
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def fail(self, name: str, error: BaseException) -> None:
        """Print the line of a failed job."""
        self.errors.print(named(name, error), highlight=False, markup=False, soft_wrap=True)


class JsonDisplay:
    """One JSON object a line: ``progress`` once a second, then ``result`` or ``error`` for each job."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._next_s = 0.0

    def update(self, progress: JobProgress) -> None:
        """Print the progress once a second."""
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + 1.0
            self._print({"event": "progress", **vars(progress)})

    def finish(self, result: JobResult) -> None:
        """Print the result."""
        self._print(
            {
                "event": "result",
                "name": result.name,
                "outputs": [str(path) for path in result.outputs],
                "sidecar": str(result.sidecar),
                "frames_in": result.frames_in,
                "frames_out": result.frames_out,
                "complete": result.complete,
                "seconds": round(result.seconds, 3),
                "runtime": result.details["engine"]["runtime"],
                "patches": result.details["patches"],
                "consistency": result.details["consistency"],
                "timings": result.details["timings"],
                "notices": list(result.notices),
                "gaps": list(result.gaps),
            }
        )

    def fail(self, name: str, error: BaseException) -> None:
        """Print the error."""
        code = getattr(error, "exit_code", 1)
        self._print({"event": "error", "name": name, "error": str(error), "exit_code": code})

    def _print(self, content: dict[str, Any]) -> None:
        self.console.print(json.dumps(content, default=str), highlight=False, markup=False, soft_wrap=True)


def named(name: str, error: BaseException) -> str:
    """Return an error's line, with the input that it is about in front where the line does not name it."""
    line, name = str(error), printable(name)
    return line if Path(name).name in line else f"{name}: {line}"


def summary(result: JobResult) -> list[str]:
    """Return how a job went, a line for the result and one for each thing the user should know."""
    rate = result.frames_out / result.seconds if result.seconds > 0 else 0.0
    patches = result.details["patches"]
    state = "" if result.complete else " INCOMPLETE:"
    files = ", ".join(str(path) for path in result.outputs)
    drops = result.frames_in - result.frames_out
    head = f"{files}:{state} {result.frames_out} frames, {rate:.1f} fps, {routed(patches)}, {drops} drops"
    head += agreement(result.details["consistency"])
    lines = [head, *(f"  note: {notice}" for notice in result.notices), *(f"  lost: {gap}" for gap in result.gaps)]
    return [printable(line) for line in lines]


def routed(patches: dict[str, int]) -> str:
    """Return how many patches lay in the surround or did not change, and how many of all the generator was spared."""
    surround, unchanged, skipped = (
        patches[part] / max(patches["total"], 1) for part in ("surround", "unchanged", "skipped")
    )
    return f"patches {surround:.0%} surround, {unchanged:.0%} unchanged, {skipped:.0%} skipped"


def agreement(consistency: dict[str, Any] | None) -> str:
    """Return how well the result gives its input back, as an ending of the summary; empty where that was not seen to.

    >>> agreement({"within_one_level": 0.99998, "max_levels": 1.62})
    ', 99.99% consistent with the input, at most 1.6 levels off'
    """
    if consistency is None:
        return ""
    share = int(consistency["within_one_level"] * 10_000) / 10_000  # never rounded up to all of them
    return f", {share:.2%} consistent with the input, at most {consistency['max_levels']:.1f} levels off"


@contextmanager
def open_display(*, as_json: bool = False, quiet: bool = False) -> Iterator[Display]:
    """Choose and start a display: JSON when asked for, a bar on a terminal, else plain lines."""
    console, errors = Console(), Console(stderr=True)
    if as_json:
        yield JsonDisplay(console)
    elif quiet or not console.is_terminal:
        yield PlainDisplay(console, errors, quiet=quiet)
    else:
        name = TextColumn("{task.description}", table_column=Column(max_width=NAME_WIDTH, no_wrap=True))
        figure = FramesColumn(table_column=Column(no_wrap=True))
        eta = TimeRemainingColumn(compact=True)
        with Progress(name, BarColumn(bar_width=BAR_WIDTH), figure, eta, console=console) as bars:
            yield BarDisplay(console, bars)
