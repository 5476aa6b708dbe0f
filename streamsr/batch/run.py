"""A run: claims work, gives it to the executor, publishes what comes back, and alone writes the journal."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import Any

from streamsr.batch.board import JOINING, BatchDisplay, Board, Desk
from streamsr.batch.failures import PASSING, failure_of
from streamsr.batch.items import Item, TaskMaker
from streamsr.batch.journal import Journal
from streamsr.batch.outputs import Destination
from streamsr.batch.planning import Plan, recover
from streamsr.batch.publish import plan_files, publish, refuse_strangers, remove_folder
from streamsr.batch.rows import pack
from streamsr.batch.tasks import (
    Cut,
    Ended,
    Event,
    Executor,
    Failed,
    JoinTask,
    Lost,
    Made,
    Outcome,
    PieceMade,
    PieceTask,
    Task,
    Told,
)
from streamsr.config import BatchSettings
from streamsr.errors import OutputError

WAIT_S, BEAT_S = 0.2, 1.0


class BatchRun:
    """One run over a plan; `run` does it all.

    Args:
        plan: what is to be done.
        destination: where results go.
        settings: how.
        journal: open; this run's alone in this process.
        run: id of this run in the journal.
        executor: entered by `run`.
        display: shows it.

    Attributes:
        board: how it stands.
        full: why it stopped early where a disk has no space left, one line; None else.
    """

    def __init__(
        self,
        plan: Plan,
        destination: Destination,
        settings: BatchSettings,
        *,
        journal: Journal,
        run: str,
        executor: Executor,
        display: BatchDisplay,
    ) -> None:
        self.plan, self.destination, self.settings = plan, destination, settings
        self.journal, self.id, self.executor, self.display = journal, run, executor, display
        sizes = [plan.entries[output].num_bytes or 0 for output in plan.todo]
        self.board = Board(
            destination.root,
            executor.description,
            len(plan.entries),
            num_before=len(plan.finished),
            num_failed=len(plan.failed) + len(plan.refused),
            todo_bytes=sum(sizes),
        )
        self._todo = deque(plan.todo)
        self._elsewhere: set[str] = set()
        self._ready: deque[tuple[Item, Task]] = deque()
        self._tasks: dict[int, tuple[Item, Task]] = {}
        self._items: dict[str, Item] = {}
        self._failures: dict[str, int] = {}
        self._maker = TaskMaker(destination, settings, run)
        self._stopping = False
        self.full: str | None = None
        self._beat_s = self._polled_s = 0.0

    def run(self) -> None:
        """Do everything that can be done; failures of files are in the journal, others are raised.

        Raises:
            OutputError: the journal cannot be written.
        """
        if not self._todo:
            return
        with self.executor:
            while self._has_more():
                self._fill()
                for event in self.executor.wait(WAIT_S):
                    self._hear(event)
                self._beat()
                self.display.update(self.board)

    def _has_more(self) -> bool:
        if self._stopping:
            return bool(self._tasks)
        return bool(self._tasks or self._ready or self._todo or self._elsewhere)

    # --- giving out work

    def _fill(self) -> None:
        """Give out tasks while there is room and work."""
        while self.executor.num_free > 0:
            found = self._next()
            if found is None:
                return
            item, task = found
            self._tasks[task.number] = found
            item.tasks.add(task.number)
            self.board.desks[task.number] = self._desk(item, task)
            self.executor.submit(task)

    def _next(self) -> tuple[Item, Task] | None:
        if self._stopping:
            return None
        if self._ready:
            return self._ready.popleft()
        while self._todo:
            output = self._todo.popleft()
            if self.journal.claim(self.id, output):
                (row,) = self.journal.rows("WHERE output = ?", (pack(output),))
                before = row if row.details else self.plan.before.get(output, row)
                item = self._items[output] = Item(self.plan.entries[output], before)
                return item, self._maker.file_task(item, self.settings.segment_s)
            self._elsewhere.add(output)
        self._look_elsewhere()
        return None

    def _look_elsewhere(self) -> None:
        """See what became of work that another run had: once a second, and what it left is free again."""
        if not self._elsewhere or time.monotonic() - self._polled_s < BEAT_S:
            return
        self._polled_s = time.monotonic()
        recover(self.journal, self.id, self.destination)
        states = {row.entry.output: row for row in self.journal.rows()}
        for output in sorted(self._elsewhere):
            row = states[output]
            if row.state == "waiting":
                self._todo.append(output)
            elif row.state == "done":
                self.board.num_before += 1
            elif row.state == "failed":
                self.board.num_failed += 1
            else:
                continue
            self._elsewhere.discard(output)
        self.board.num_elsewhere = len(self._elsewhere)

    def _desk(self, item: Item, task: Task) -> Desk:
        num_bytes = item.entry.num_bytes or 0
        if isinstance(task, PieceTask):
            place = item.spans.index(task.span) + 1
            return Desk(item.entry.input, f"segment {place} of {len(item.spans)}", None, num_bytes // len(item.spans))
        if isinstance(task, JoinTask):
            return Desk(item.entry.input, JOINING)
        return Desk(item.entry.input, "", None, num_bytes)

    # --- taking in what comes back

    def _hear(self, event: Event) -> None:
        found = self._tasks.get(event.number)
        if found is None:
            return
        if isinstance(event, Told):
            desk = self.board.desks[event.number]
            desk.progress, desk.worker = event.progress, event.worker
            return
        item, task = found
        del self._tasks[event.number]
        self.board.desks.pop(event.number, None)
        item.tasks.discard(event.number)
        outcome: Outcome = event.outcome if isinstance(event, Ended) else _lost(item, event)
        if isinstance(outcome, Failed):
            remove_folder(Path(task.folder))  # before the journal is written: it may need the room
        if self._items.get(item.entry.output) is item:  # else its file has failed meanwhile
            self._take(item, task, outcome)
        remove_folder(Path(task.folder))

    def _take(self, item: Item, task: Task, outcome: Outcome) -> None:
        if isinstance(outcome, Cut):
            item.sha256, item.state, item.spans = outcome.sha256, outcome.state, outcome.spans
            item.left = set(range(len(item.spans)))
            self._ready.extend((item, self._maker.piece_task(item, span)) for span in item.spans)
        elif isinstance(outcome, PieceMade) and isinstance(task, PieceTask):
            item.left.discard(item.spans.index(task.span))
            self.board.done_bytes += (item.entry.num_bytes or 0) // len(item.spans)
            self.board.num_frames += outcome.num_frames
            if not item.left:
                self._ready.appendleft((item, self._maker.join_task(item)))
        elif isinstance(outcome, Made):
            try:
                self._publish(item, task, outcome)
            except OutputError as error:
                remove_folder(Path(task.folder))
                self._fail(item, task, failure_of(error))
        elif isinstance(outcome, Failed):
            self._fail(item, task, outcome)

    def _publish(self, item: Item, task: Task, made: Made) -> None:
        root, output = self.destination.root.absolute(), item.entry.output
        files = plan_files(root, Path(task.folder), made.files, output)
        earlier = {str(file["to"]): str(file["sha256"]) for file in item.before.details.get("files", ())}
        if not self.settings.upscale.overwrite:
            refuse_strangers(root, files, earlier)
        details = {**made.details, "files": files, "incomplete": made.incomplete, "made": time.time()}
        if self.journal.publishing(self.id, output, sha256=made.sha256, key=made.key, details=details):
            publish(root, files)
            self.journal.finish(self.id, output, incomplete=made.incomplete)
            for name in set(earlier) - {str(file["to"]) for file in files}:
                (root / name).unlink(missing_ok=True)
        self._forget(item)
        self.board.num_done += 1
        self.board.num_frames += 0 if item.spans else int(made.details.get("frames", 0))
        self.board.done_bytes += 0 if item.spans else item.entry.num_bytes or 0
        self.display.finish(output, details, made.incomplete)
        self._stopping |= made.incomplete is not None and not self.settings.ignore_errors

    def _fail(self, item: Item, task: Task, failed: Failed) -> None:
        """Try again, do the file whole, or give it up."""
        output = item.entry.output
        if failed.whole:
            self._drop(item)
            self._maker.drop_pieces(item)
            item.spans, item.left = (), set()
            self._ready.append((item, self._maker.file_task(item, None)))
            return
        if failed.full:
            self._stop_full(item, failed.message)
            return
        number = self._failures[output] = self._failures.get(output, 0) + 1
        again = failed.kind in PASSING and number <= self.settings.retries
        if again and isinstance(task, PieceTask):  # the others of its file go on
            self._ready.appendleft((item, self._maker.piece_task(item, task.span)))
            self.display.fail(item.entry.input, failed.kind, failed.message, again=True)
            return
        self._drop(item)
        self.journal.fail(self.id, output, failed.kind, failed.message, again=again)
        self._forget(item, keep_pieces=failed.kind in PASSING)
        self.display.fail(item.entry.input, failed.kind, failed.message, again=again)
        if again:
            self._todo.append(output)
            return
        self.board.num_failed += 1
        self.board.done_bytes += item.entry.num_bytes or 0
        self._stopping |= not self.settings.ignore_errors

    def _stop_full(self, item: Item, message: str) -> None:
        """Give out no more work; what the full disk ended waits for the next run and has lost no try."""
        self._drop(item)
        self.journal.release(self.id, item.entry.output)
        self._forget(item, keep_pieces=True)
        self.full = self.full or message
        self._stopping = True

    def _drop(self, item: Item) -> None:
        """Give up the tasks of a file; those that are under way end by themselves and are not heard."""
        self._ready = deque(found for found in self._ready if found[0] is not item)
        for number in item.tasks:
            self.board.desks.pop(number, None)
        self._tasks = {number: found for number, found in self._tasks.items() if number not in item.tasks}
        item.tasks.clear()

    def _forget(self, item: Item, *, keep_pieces: bool = False) -> None:
        self._items.pop(item.entry.output, None)
        if not keep_pieces:
            self._maker.drop_pieces(item)

    def _beat(self) -> None:
        """Give a sign of life with the progress, once a second."""
        if time.monotonic() - self._beat_s < BEAT_S:
            return
        self._beat_s = time.monotonic()
        progress: dict[str, dict[str, Any]] = {}
        for number, (item, _) in self._tasks.items():
            desk = self.board.desks[number]
            shown = desk.progress.shown if desk.progress else 0
            skipped = desk.progress.skipped if desk.progress else 0.0
            known = progress.setdefault(item.entry.output, {"shown": 0, "fps": 0.0, "parts": []})
            known["shown"] += shown
            known["fps"] += desk.rate
            known["skipped"] = skipped
            num = max(len(item.spans), 1)
            known.setdefault("share", (len(item.spans) - len(item.left)) / num)
            known["share"] += desk.share / num
            known["parts"] += [desk.part] if desk.part else []
        self.journal.beat(self.id, progress)


def _lost(item: Item, event: Lost) -> Failed:
    return Failed("engine", f"{item.entry.input}: {event.reason}; its file may be more than this machine can do")
