"""How a run shows itself: a table of its workers on a terminal, plain lines elsewhere, JSON for machines."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from streamsr.batch.board import JOINING, BatchDisplay, Board, Desk, clock
from streamsr.batch.failures import named
from streamsr.errors import printable

PLAIN_INTERVAL_S = 10.0
MOST_DESKS = 16
"""Workers that the table shows; those of a large cluster do not fit on a screen."""
WIDEST = {"worker": 16, "file": 40}
"""Characters of columns at most; many cores, and the names of machines, take more."""


def head_line(board: Board) -> str:
    """Return how a run stands in one line."""
    done = board.num_before + board.num_done
    parts = [f"{done}/{board.num_files} files", f"{board.num_failed} failed", f"{board.num_frames} frames"]
    parts += [f"{board.num_elsewhere} done by another run"] if board.num_elsewhere else []
    parts += [f"{board.rate:.1f} fps", f"{clock(board.elapsed_s)} so far", f"{clock(board.left_s)} left"]
    return ", ".join(parts)


def table_of(board: Board) -> Table:
    """Return a line for each worker."""
    table = Table(box=None, pad_edge=False)
    for title in ("worker", "file", "part", "done", "frames", "fps", "skipped"):
        table.add_column(title, no_wrap=True, max_width=WIDEST.get(title), overflow="ellipsis")
    for desk in list(board.desks.values())[:MOST_DESKS]:
        table.add_row(*cells_of(desk))
    if len(board.desks) > MOST_DESKS:
        table.add_row(f"and {len(board.desks) - MOST_DESKS} more")
    return table


def cells_of(desk: Desk) -> list[str]:
    """Return the line of a worker."""
    progress, known = desk.progress, [desk.worker, printable(Path(desk.name).name), desk.part]
    if progress is None:
        return [*known, "", "" if desk.part == JOINING else "starting", "", ""]
    total = "" if progress.num_frames is None else f"/{progress.num_frames}"
    figures = [f"{desk.share:.0%}", f"{progress.shown}{total}", f"{desk.rate:.1f}", f"{progress.skipped:.0%}"]
    return [*known, *figures]


def done_line(name: str, details: Mapping[str, Any], incomplete: str | None) -> str:
    """Return how a file went in one line."""
    seconds = details.get("seconds") or 0.0
    rate = details["frames"] / seconds if seconds else 0.0
    state = f" INCOMPLETE ({incomplete}):" if incomplete else ""
    return f"{name}:{state} {details['frames']} frames, {rate:.1f} fps, {details['skipped']:.0%} skipped"


def failed_line(name: str, kind: str, message: str, *, again: bool) -> str:
    """Return why a file failed in one line."""
    return named(name, kind, message) + ("; trying again" if again else "")


def end_lines(board: Board, report: Mapping[str, Any]) -> list[str]:
    """Return how a run went."""
    counts = report["counts"]
    parts = [f"{counts['made']} made", f"{counts['made_before']} made before", f"{counts['failed']} failed"]
    parts += [f"{counts['incomplete']} incomplete"] if counts["incomplete"] else []
    parts += [f"{counts['left']} left"] if counts["left"] else []
    kinds = ", ".join(f"{kind} {number}" for kind, number in report["failures"].items())
    lines = [f"{counts['files']} files: {', '.join(parts)} in {clock(board.elapsed_s)}"]
    lines += [f"  failures: {kinds}"] if kinds else []
    return [*lines, f"  report: {report['page']}"]


class TableDisplay:
    """A table of the workers on a terminal, with a line above it for each file."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def update(self, board: Board) -> None:
        """Draw the table anew."""
        self._live.update(Group(Text(head_line(board), style="bold"), table_of(board)))

    def finish(self, name: str, details: Mapping[str, Any], incomplete: str | None) -> None:
        """Print the line of a file."""
        self._print(done_line(name, details, incomplete), "yellow" if incomplete else None)

    def fail(self, name: str, kind: str, message: str, *, again: bool) -> None:
        """Print why a file failed."""
        self._print(failed_line(name, kind, message, again=again), "red")

    def note(self, line: str) -> None:
        """Print it."""
        self._print(line, "yellow")

    def end(self, board: Board, report: Mapping[str, Any]) -> None:
        """Print how the run went."""
        self._live.update(Text(""))
        for line in end_lines(board, report):
            self._print(line, None)

    def _print(self, line: str, style: str | None) -> None:
        self._live.console.print(printable(line), style=style, highlight=False, markup=False, soft_wrap=True)


class LineDisplay:
    """Lines of text: one for each file, and how the run stands every few seconds."""

    def __init__(self, console: Console, errors: Console, *, quiet: bool = False) -> None:
        self._console, self._errors, self._quiet = console, errors, quiet
        self._next_s = time.monotonic() + PLAIN_INTERVAL_S

    def update(self, board: Board) -> None:
        """Print how the run stands when enough time has passed."""
        if not self._quiet and time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + PLAIN_INTERVAL_S
            self._print(self._console, head_line(board))

    def finish(self, name: str, details: Mapping[str, Any], incomplete: str | None) -> None:
        """Print the line of a file."""
        if not self._quiet or incomplete:
            self._print(self._console, done_line(name, details, incomplete))

    def fail(self, name: str, kind: str, message: str, *, again: bool) -> None:
        """Print why a file failed."""
        self._print(self._errors, failed_line(name, kind, message, again=again))

    def note(self, line: str) -> None:
        """Print it where errors go, so that it can be told from results."""
        if not self._quiet:
            self._print(self._errors, line)

    def end(self, board: Board, report: Mapping[str, Any]) -> None:
        """Print how the run went."""
        for line in () if self._quiet else end_lines(board, report):
            self._print(self._console, line)

    def _print(self, console: Console, line: str) -> None:
        console.print(printable(line), highlight=False, markup=False, soft_wrap=True)


class JsonLines:
    """One JSON object a line: ``progress`` once a second, ``done`` and ``failed`` for files, ``note``, ``report``."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next_s = 0.0

    def update(self, board: Board) -> None:
        """Print how the run stands once a second."""
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + 1.0
            done, left_s = board.num_before + board.num_done, board.left_s
            self._print(
                "progress", files=board.num_files, done=done, failed=board.num_failed, fps=board.rate, left_s=left_s
            )

    def finish(self, name: str, details: Mapping[str, Any], incomplete: str | None) -> None:
        """Print that a file is made."""
        figures = {key: value for key, value in details.items() if key not in ("thumbnails", "files")}
        self._print("done", output=name, **{**figures, "incomplete": incomplete})

    def fail(self, name: str, kind: str, message: str, *, again: bool) -> None:
        """Print why a file failed."""
        self._print("failed", input=name, kind=kind, error=message, again=again)

    def note(self, line: str) -> None:
        """Print it as a note."""
        self._print("note", text=line)

    def end(self, board: Board, report: Mapping[str, Any]) -> None:
        """Print how the run went."""
        self._print("report", counts=report["counts"], failures=report["failures"], report=report["page"])

    def _print(self, event: str, **content: Any) -> None:
        line = json.dumps({"event": event, **content}, default=str)
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def open_batch_display(*, as_json: bool = False, quiet: bool = False) -> Iterator[BatchDisplay]:
    """Choose and start a display: JSON when asked for, a table on a terminal, else plain lines."""
    console, errors = Console(), Console(stderr=True)
    if as_json:
        yield JsonLines(console)
    elif quiet or not console.is_terminal:
        yield LineDisplay(console, errors, quiet=quiet)
    else:
        with Live(console=console, refresh_per_second=4) as live:
            yield TableDisplay(live)
