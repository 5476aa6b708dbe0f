"""Ray as an executor: a task of Ray's a file or segment, on every machine that sees the same disks (extra ``ray``).

Only the run writes the journal and gives results their names; a task writes into a folder of its own. So a machine that
is lost costs what it was at, which is tried elsewhere, and nothing that it may still write can do harm.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from streamsr.batch.failures import KINDS
from streamsr.batch.tasks import Ended, Event, Executor, Failed, Lost, Outcome, Task, Told
from streamsr.config import BatchSettings
from streamsr.errors import UsageError
from streamsr.job import JobProgress
from streamsr.runtimes import GPU_RUNTIMES

COUNT_INTERVAL_S = 2.0
"""How often the cluster is asked how large it is; machines may come and go."""

AHEAD = 1
"""Tasks that wait with Ray for the next free place, so that none is idle while the run gives its result a name."""

TELL_INTERVAL_S = 1.0

WAIT_S, RETRY_S = 20.0, 0.5
"""How long a cluster that was just started is waited for, and how often it is asked."""


def ray_executor(address: str | None, settings: BatchSettings, num_workers: int | None) -> Callable[[int], Executor]:
    """Return what makes the executor once it is known how much work there is.

    Args:
        address: of the cluster; None takes that of ``RAY_ADDRESS``, else starts one here.
        settings: of the run.
        num_workers: tasks at once at most; None takes as many as the cluster has room for.

    Raises:
        UsageError: Ray is not installed.
    """
    try:
        import ray  # noqa: F401
    except ImportError as cause:
        raise UsageError("--executor ray: expected Ray, found none; install streamsr[ray]") from cause
    generator = settings.upscale.generator
    never = generator.engine.startswith("bicubic") or generator.precision == "int8"
    gpus = 1 if generator.runtime in GPU_RUNTIMES else None if generator.runtime == "auto" and not never else 0
    return lambda most: RayExecutor(address, most=min(most, num_workers or most), gpus_a_task=gpus)


class RayExecutor:
    """Tasks on a Ray cluster; see `streamsr.batch.tasks.Executor`.

    Args:
        address: of the cluster; None takes that of ``RAY_ADDRESS``, else starts one here.
        most: tasks at once.
        cpus_a_task: cores that a task has for itself.
        gpus_a_task: GPUs that a task has for itself; 0 keeps it on the processor, None takes one where there are any.
    """

    def __init__(self, address: str | None, *, most: int, cpus_a_task: int = 1, gpus_a_task: int | None = 0) -> None:
        self.address, self.most = address, most
        self.cpus_a_task, self.gpus_a_task = cpus_a_task, gpus_a_task
        self._under_way: dict[Any, int] = {}
        self._room, self._counted_s = 0, -COUNT_INTERVAL_S
        self._ours = False
        self._ledger: Any = None
        self._news: Any = None

    @property
    def description(self) -> str:
        """Who works, in one line."""
        return f"Ray at {self.address or os.environ.get('RAY_ADDRESS') or 'this machine'}"

    @property
    def num_free(self) -> int:
        """How many tasks could start at once, as far as the cluster is known to have room."""
        import ray

        if time.monotonic() - self._counted_s >= COUNT_INTERVAL_S:
            self._counted_s = time.monotonic()
            held = ray.cluster_resources()
            self._room = int(held.get("CPU", 0) // self.cpus_a_task)
            if self.gpus_a_task:
                self._room = min(self._room, int(held.get("GPU", 0) // self.gpus_a_task))
        return min(self._room + AHEAD, self.most) - len(self._under_way)

    def submit(self, task: Task) -> None:
        """Start a task."""
        reference = self._remote.remote(task, self.cpus_a_task, self._ledger)
        self._under_way[reference] = task.number

    def wait(self, timeout_s: float) -> list[Event]:
        """Return what happened; empty where nothing did for so long."""
        import ray

        if not self._under_way:
            time.sleep(timeout_s)
            return []
        if self._news is None:
            self._news = self._ledger.take.remote()
        references = list(self._under_way)
        ready, _ = ray.wait(references, num_returns=len(references), timeout=0)
        if not ready:
            ready, _ = ray.wait(references, num_returns=1, timeout=timeout_s)
        return [*self._told(), *(self._end(reference) for reference in ready)]

    def _told(self) -> list[Event]:
        """Return the progress that the tasks have told since it was last asked for."""
        import ray

        ready, _ = ray.wait([self._news], timeout=0)
        if not ready:
            return []
        reference, self._news = self._news, None
        try:
            told = ray.get(reference)
        except ray.exceptions.RayError:  # the machine with the ledger is gone, and only the display misses it
            self._ledger = self._make_ledger()
            return []
        return [Told(number, machine, progress) for number, (machine, progress) in told.items()]

    def _end(self, reference: Any) -> Event:
        import ray

        number = self._under_way.pop(reference)
        try:
            outcome: Outcome = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            line = " ".join(str(error.cause).split())[:200]
            return Ended(number, Failed(KINDS[3], f"a worker cannot do its work: {line}; install streamsr there too"))
        except ray.exceptions.RayError as error:
            self._counted_s = -COUNT_INTERVAL_S
            return Lost(number, f"Ray lost it ({type(error).__name__})")
        return Ended(number, outcome)

    def _make_ledger(self) -> Any:
        import ray

        return ray.remote(num_cpus=0)(Ledger).remote()

    def __enter__(self) -> RayExecutor:
        """Join the cluster, or start one."""
        import ray

        if not ray.is_initialized():
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            options: dict[str, Any] = (
                {} if self.address or os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}
            )
            if self.address:
                wait_for(self.address)
            try:
                with keeping_sigterm():
                    ray.init(address=self.address, log_to_driver=False, logging_level="ERROR", **options)
            except (ConnectionError, ValueError, RuntimeError) as cause:
                line = " ".join(str(cause).split())[:200]
                raise UsageError(f"--ray-address: expected a Ray cluster, got {line}; start it first") from cause
            self._ours = True
        if self.gpus_a_task is None:
            self.gpus_a_task = int(ray.cluster_resources().get("GPU", 0) > 0)
        # Retries are the run's: every try has a folder of its own, which what Ray tries again would not have.
        task = ray.remote(num_cpus=self.cpus_a_task, num_gpus=self.gpus_a_task, max_retries=0)
        self._remote: Any = task(perform_here)
        self._ledger = self._make_ledger()
        return self

    def __exit__(self, *error: object) -> None:
        import ray

        for reference in self._under_way:
            ray.cancel(reference, force=True)
        self._under_way.clear()
        if self._ours:
            ray.shutdown()


@contextmanager
def keeping_sigterm() -> Iterator[None]:
    """Give SIGTERM its meaning back after the body; Ray's own ends the program with a trace, and the run with it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def wait_for(address: str, timeout_s: float = WAIT_S) -> None:
    """Wait until something answers at a cluster's address; Ray itself would wait for minutes.

    Raises:
        UsageError: nothing does, or it is no address; ``auto`` and ``local`` are Ray's own to find.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if address in ("auto", "local"):
        return
    if not (host and colon and port.isdecimal() and int(port) < 1 << 16):
        raise UsageError(f"--ray-address: expected HOST:PORT, got {address}; ray start --head says it")
    until_s, line = time.monotonic() + timeout_s, "no answer"
    while (left_s := until_s - time.monotonic()) > 0:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=left_s).close()
            return
        except OSError as cause:
            line = cause.strerror or str(cause)
            time.sleep(min(RETRY_S, max(0.0, until_s - time.monotonic())))
    raise UsageError(
        f"--ray-address: expected a Ray cluster at {address}, got {line} for {timeout_s:g} s; start it first"
    )


class Ledger:
    """Where tasks write their progress down, and the run reads it."""

    def __init__(self) -> None:
        self._told: dict[int, tuple[str, JobProgress]] = {}

    def tell(self, number: int, machine: str, progress: JobProgress) -> None:
        """Take the progress of a task."""
        self._told[number] = (machine, progress)

    def take(self) -> dict[int, tuple[str, JobProgress]]:
        """Give out what is new."""
        told, self._told = self._told, {}
        return told


def perform_here(task: Task, num_cores: int, ledger: Any) -> Outcome:
    """Do a task in a process of Ray's."""
    import platform

    import ray

    from streamsr.batch.cores import keep_to_cores

    keep_to_cores(num_cores)  # before any library counts its threads
    from streamsr.batch.perform import perform

    machine, told_s = f"{platform.node()} {ray.get_runtime_context().get_node_id()}", 0.0

    def tell(progress: JobProgress) -> None:
        nonlocal told_s
        if time.monotonic() - told_s >= TELL_INTERVAL_S:
            told_s = time.monotonic()
            ledger.tell.remote(task.number, machine, progress)

    return perform(task, tell)
