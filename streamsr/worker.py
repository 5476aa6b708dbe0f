"""One thread, one bounded queue, one failure path.

A `Line` owns the stop event and the first failure; a `Channel` joins two stages; a `Worker` runs one stage. Stage code
never sees a queue, and nothing here ever looks at what passes through.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from streamsr.errors import StreamsrError

log = logging.getLogger(__name__)

Item = TypeVar("Item")


class Stopped(Exception):
    """The line was stopped; a stage that sees it lets go of what it holds and returns."""


class Line:
    """What the stages of one line share: whether to stop, and the first failure, which wins.

    Thread-safe. Channels made by `channel` wake up when the line stops.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wakers: list[threading.Condition] = []
        self._stopped = False
        self.failure: BaseException | None = None

    @property
    def stopped(self) -> bool:
        """Whether the line is to end now."""
        return self._stopped

    def check(self) -> None:
        """End what is called within a stage and takes long, where the line is to end.

        Raises:
            Stopped: it is.
        """
        if self._stopped:
            raise Stopped

    def channel(self, size: int) -> Channel[Item]:
        """Make a channel of this line that holds at most ``size`` items."""
        return Channel(self, size)

    def condition(self) -> threading.Condition:
        """Make a condition that is notified when the line stops."""
        made = threading.Condition()
        with self._lock:
            self._wakers.append(made)
        return made

    def stop(self) -> None:
        """Ask every stage to end; returns at once."""
        self._stopped = True
        with self._lock:
            wakers = list(self._wakers)
        for waker in wakers:
            with waker:
                waker.notify_all()

    def fail(self, stage: str, cause: BaseException) -> None:
        """Record a failure and stop the line; later failures are only logged."""
        with self._lock:
            first = self.failure is None
            if first:
                self.failure = cause
        if not first:
            log.warning("%s failed after the line had stopped: %s", stage, cause)
        self.stop()


class Channel(Generic[Item]):
    """A bounded queue from one producer to one consumer.

    Args:
        line: whose stop wakes every wait.
        size: how many items it holds; a put waits while it is full.
    """

    def __init__(self, line: Line, size: int) -> None:
        self.line, self.size = line, size
        self.changed = line.condition()
        self._items: deque[Item] = deque()
        self._ended = False

    def put(self, item: Item) -> None:
        """Add an item, waiting for room.

        Raises:
            Stopped: the line stopped.
        """
        with self.changed:
            self.changed.wait_for(lambda: self.line.stopped or len(self._items) < self.size)
            if self.line.stopped:
                raise Stopped
            self._items.append(item)
            self.changed.notify_all()

    def end(self) -> None:
        """Say that nothing more comes; what is queued is still delivered."""
        with self.changed:
            self._ended = True
            self.changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        """Take items until the end.

        Raises:
            Stopped: the line stopped.
        """
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.line.stopped or self._items or self._ended)
                if self.line.stopped:
                    raise Stopped
                if not self._items:
                    return
                item = self._items.popleft()
                self.changed.notify_all()
            yield item


class Latest(Generic[Item]):
    """A place for one item between one producer and one consumer: the newest wins, and what it replaced is counted.

    Args:
        line: whose stop wakes every wait.

    Attributes:
        num_dropped: items that were replaced before anyone took them.
    """

    def __init__(self, line: Line) -> None:
        self.line = line
        self.changed = line.condition()
        self.num_dropped = 0
        self._items: list[Item] = []

    @property
    def is_filled(self) -> bool:
        """Whether an item waits to be taken."""
        return bool(self._items)

    def put(self, item: Item) -> None:
        """Leave an item, in place of one that nobody took; never waits."""
        with self.changed:
            self.num_dropped += len(self._items)
            self._items = [item]
            self.changed.notify_all()

    def take(self, timeout_s: float) -> Item | None:
        """Take the item, waiting for one; None where none came in time.

        Raises:
            Stopped: the line stopped.
        """
        with self.changed:
            self.changed.wait_for(lambda: self.line.stopped or self._items, timeout_s)
            if self.line.stopped:
                raise Stopped
            return self._items.pop() if self._items else None


class Worker:
    """A thread that runs one stage once and reports how it ended to its line.

    Args:
        name: the stage; also the thread's name.
        line: where a failure goes.
        work: the stage; `Stopped` ends it quietly, any other exception fails the line.
        finish: runs last in the thread, whatever happened; ends the stage's channel.
    """

    def __init__(self, name: str, line: Line, work: Callable[[], None], finish: Callable[[], None]) -> None:
        self.name, self.line = name, line
        # The thread alone holds the work, and lets go of it when it ends: it often holds who made the worker.
        self.thread = threading.Thread(target=self._run, args=(work, finish), name=f"streamsr-{name}", daemon=False)

    def start(self) -> None:
        """Start the thread."""
        self.thread.start()

    @property
    def started(self) -> bool:
        """Whether the thread was ever started."""
        return self.thread.ident is not None

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the thread; return whether it ended."""
        self.thread.join(timeout)
        return not self.thread.is_alive()

    def _run(self, work: Callable[[], None], finish: Callable[[], None]) -> None:
        try:
            work()
        except Stopped:
            pass
        except StreamsrError as cause:
            self.line.fail(self.name, cause)
        except Exception as cause:
            log.debug("%s failed", self.name, exc_info=True)
            self.line.fail(self.name, cause)
        except BaseException as cause:
            self.line.fail(self.name, cause)
        finally:
            finish()
