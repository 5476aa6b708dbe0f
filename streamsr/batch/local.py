"""Local processes: one a GPU, or a share of the cores each, that no other one uses."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from streamsr.batch.tasks import Ended, Event, Lost, Task, Told
from streamsr.config import usable_cores
from streamsr.errors import EngineError
from streamsr.runtimes.nvidia import VISIBLE, visible_name

BYTES_A_WORKER = 3 << 29
"""Memory that one worker may need: the program and its libraries, and some large pictures in each queue."""

LEAVE_S = 5.0


@dataclass(frozen=True)
class Place:
    """What a worker has for itself.

    Attributes:
        cores: numbers of its processor cores; empty where the system cannot keep a process to some.
        gpu: number of its GPU; None where it has none.
    """

    cores: tuple[int, ...]
    gpu: int | None = None

    @property
    def description(self) -> str:
        """In a few words."""
        return f"GPU {self.gpu}" if self.gpu is not None else "core " + " ".join(map(str, self.cores))


def share_out(num_workers: int | None, *, num_gpus: int, most: int) -> list[Place]:
    """Return the places of the workers: cores are given out once, and each GPU to as many workers as asked for.

    Args:
        num_workers: how many; None takes one a GPU, or one a core as far as there is memory.
        num_gpus: how many GPUs the generator may run on; 0 keeps it on the processor.
        most: pieces of work there are; more workers would be idle.

    >>> [len(place.cores) for place in share_out(1, num_gpus=0, most=5)] == [usable_cores()]
    True
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(usable_cores()))
    number = num_workers or num_gpus or min(len(cores), max(1, free_bytes() // BYTES_A_WORKER))
    number = max(1, min(number, most, max(len(cores), num_gpus)))
    return [
        Place(tuple(cores[place::number]) or (cores[place % len(cores)],), place % num_gpus if num_gpus else None)
        for place in range(number)
    ]


def free_bytes() -> int:
    """Return how much memory may be used; much where the system does not say."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 1 << 40


class Worker:
    """One process and the task that it is at.

    Args:
        place: what it has for itself.

    Raises:
        EngineError: it cannot be started.

    Attributes:
        task: number of its task; None while it waits for one.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.task: int | None = None
        ours, theirs = socket.socketpair()
        cores = ",".join(map(str, place.cores))
        environment = {**os.environ, "OMP_NUM_THREADS": str(max(len(place.cores), 1))}
        if place.gpu is not None:
            environment[VISIBLE] = visible_name(place.gpu)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "streamsr.batch.worker", str(theirs.fileno()), cores],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=environment,
            )
        except OSError as cause:
            ours.close()
            raise EngineError(
                f"{sys.executable}: expected to start a worker, got {cause.strerror}; free memory and processes, and "
                "the same command goes on"
            ) from cause
        finally:
            theirs.close()
        self.connection = Connection(ours.detach())

    def start(self, task: Task) -> None:
        """Give it a task; a dead one is found out when it is asked for news."""
        self.task = task.number
        try:
            self.connection.send(task)
        except (BrokenPipeError, ConnectionResetError):
            return

    def news(self) -> tuple[str, Any] | None:
        """Return the next message; None where the worker is dead."""
        try:
            message: tuple[str, Any] = self.connection.recv()
        except (EOFError, OSError):
            return None
        return message

    def end(self) -> str:
        """End it at once; say how it ended."""
        self._process.kill() if self._process.poll() is None else None
        code = self._process.wait(LEAVE_S)
        self.connection.close()
        return f"the worker was ended by signal {-code}" if code < 0 else f"the worker ended with {code}"


class LocalExecutor:
    """Workers on this machine; see `streamsr.batch.tasks.Executor`. A worker that dies is replaced.

    Args:
        places: one for each worker.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self._places = list(places)
        self._workers: list[Worker] = []

    @property
    def description(self) -> str:
        """Who works, in one line."""
        number = len(self._places)
        return f"{number} worker{'s' * (number > 1)}: " + ", ".join(place.description for place in self._places)

    @property
    def num_free(self) -> int:
        """How many tasks could start at once."""
        return sum(worker.task is None for worker in self._workers)

    def submit(self, task: Task) -> None:
        """Start a task."""
        next(worker for worker in self._workers if worker.task is None).start(task)

    def wait(self, timeout_s: float) -> list[Event]:
        """Return what happened; empty where nothing did for so long."""
        by_connection = {worker.connection: worker for worker in self._workers}
        events: list[Event] = []
        for ready in wait(list(by_connection), timeout_s):
            events += self._hear(by_connection[ready])  # type: ignore[index]
        return events

    def _hear(self, worker: Worker) -> list[Event]:
        message, number = worker.news(), worker.task
        if message is None:
            reason = worker.end()
            self._workers[self._workers.index(worker)] = Worker(worker.place)
            return [] if number is None else [Lost(number, reason)]
        kind, content = message
        if kind == "told" and number is not None:
            return [Told(number, worker.place.description, content)]
        if kind == "ended" and number is not None:
            worker.task = None
            return [Ended(number, content)]
        return []

    def __enter__(self) -> LocalExecutor:
        self._workers = [Worker(place) for place in self._places]
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._workers:
            worker.end()
