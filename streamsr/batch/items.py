"""Files that a run has, and the tasks that are made of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamsr.batch.outputs import Destination
from streamsr.batch.pieces import drop_pieces, piece_path
from streamsr.batch.rows import Entry, Row
from streamsr.batch.tasks import FileTask, JoinTask, PieceTask
from streamsr.capture.spans import Span
from streamsr.config import BatchSettings


@dataclass
class Item:
    """A file that this run has.

    Attributes:
        entry: what it is.
        before: what the journal knew of it.
        sha256: of its content, once known.
        state: of the file when it was hashed.
        spans: its segments where it was cut.
        left: segments that are not done yet.
        tasks: numbers of those that are under way.
    """

    entry: Entry
    before: Row
    sha256: str | None = None
    state: tuple[int, ...] = ()
    spans: tuple[Span, ...] = ()
    left: set[int] = field(default_factory=set)
    tasks: set[int] = field(default_factory=set)


class TaskMaker:
    """Makes the tasks of a run, each with a number and a folder of its own.

    Args:
        destination: where results go.
        settings: of the run.
        run: its id.
    """

    def __init__(self, destination: Destination, settings: BatchSettings, run: str) -> None:
        self._house, self._settings, self._run = destination.house.absolute(), settings, run
        self._number = 0

    def file_task(self, item: Item, segment_s: float | None) -> FileTask:
        """Return the task of a whole file, which finds out whether it is to be cut."""
        return FileTask(**self._base(item), segment_s=segment_s)

    def piece_task(self, item: Item, span: Span) -> PieceTask:
        """Return the task of a segment."""
        return PieceTask(**self._base(item), sha256=item.sha256 or "", state=item.state, span=span)

    def join_task(self, item: Item) -> JoinTask:
        """Return the task of joining a file's segments."""
        return JoinTask(**self._base(item), sha256=item.sha256 or "", state=item.state, spans=item.spans)

    def drop_pieces(self, item: Item) -> None:
        """Remove the finished segments of a file that no longer needs them."""
        pieces, suffix = str(self._house / "pieces"), Path(item.entry.output).suffix
        arguments = (item.sha256 or "", item.entry.settings)
        drop_pieces([piece_path(pieces, *arguments, span, suffix) for span in item.spans])

    def _base(self, item: Item) -> dict[str, Any]:
        """Return what all tasks have."""
        self._number += 1
        return {
            "number": self._number,
            "input": item.entry.input,
            "folder": str(self._house / "work" / self._run / str(self._number)),
            "name": Path(item.entry.output).name,
            "settings": self._settings.upscale,
            "settings_key": item.entry.settings,
            "pieces": str(self._house / "pieces"),
        }
