"""An archive from its inputs to its report: the one way in for the command line and for programs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from av.error import FFmpegError

from streamsr.batch.board import BatchDisplay
from streamsr.batch.failures import failed_lines
from streamsr.batch.inputs import Discovery, find_inputs
from streamsr.batch.journal import Journal
from streamsr.batch.local import LocalExecutor, share_out
from streamsr.batch.outputs import Destination
from streamsr.batch.pieces import drop_orphans
from streamsr.batch.planning import (
    Plan,
    ended_elsewhere,
    journal_path,
    make_plan,
    other_journals,
    recover,
    refuse_company,
)
from streamsr.batch.publish import make_root
from streamsr.batch.report import exit_code_of, make_report, write_report
from streamsr.batch.run import BatchRun
from streamsr.batch.tasks import Executor
from streamsr.capture.opening import open_container
from streamsr.choices import refuse_several_gpus
from streamsr.config import BatchSettings, usable_cores
from streamsr.engine import Engine, find_engine
from streamsr.errors import DiskFull, Interrupted, OutputError, StreamsrError, UsageError
from streamsr.runtimes import GPU_RUNTIMES, count_gpus

MakeExecutor = Callable[[int], Executor]
"""Makes what runs tasks, given how many pieces of work there are at most."""


def enlarge_archive(
    names: Sequence[str],
    destination: Destination,
    settings: BatchSettings,
    display: BatchDisplay,
    *,
    lists: Sequence[str] = (),
    make_executor: MakeExecutor | None = None,
    num_workers: int | None = None,
) -> int:
    """Enlarge an archive, or go on with it.

    What an earlier run finished is not done again, what a dead one was at is free, and what another has is waited for.

    Args:
        names: files, folders and globs.
        destination: where results go.
        settings: how.
        display: shows how it goes.
        lists: files with a name in each line.
        make_executor: makes what runs tasks; None takes processes on this machine.
        num_workers: of these; None takes one a GPU, else one a core.

    Returns:
        0, or 1 where a file failed, was incomplete or is not done.

    Raises:
        EngineError: the engine is missing or damaged.
        InputError: a name, a list or a folder cannot be read.
        UsageError: two inputs have one output, nothing was found, shards of another division are at work, or several
            GPUs are asked for.
        OutputError: the results' folder cannot be used.
        DiskFull: a disk has no space left; nothing has lost a try.
        Interrupted: Ctrl-C; the same command goes on.
    """
    generator = settings.upscale.generator
    refuse_several_gpus(generator.gpus, "each worker has a GPU, and files are dealt out to all of them")
    engine = find_engine(generator.engine)
    discovery = find_inputs(names, lists=lists, root=destination.root)
    _refuse_nothing(names, discovery)
    if settings.ignore_errors is None:
        settings = replace(settings, ignore_errors=discovery.forgiving)
    make_root(destination.root, destination.house)
    path = journal_path(destination, settings.shard)
    with Journal(path, shared_disk=settings.shard is not None) as journal:
        run = journal.begin_run(
            {
                "batch": asdict(settings),
                "inputs": [str(Path(name).absolute()) for name in names],
                "lists": [name if name == "-" else str(Path(name).absolute()) for name in lists],
                "template": destination.template,
            }
        )
        if discovery.num_results:
            display.note(results_line(discovery))
        try:
            try:
                refuse_company(destination, settings.shard, run)
            except UsageError:
                journal.forget_run(run)  # `--continue` goes on with runs that began
                raise
            recover(journal, run, destination)
            plan = make_plan(discovery, destination, engine, settings, journal)
            make = make_executor or (lambda most: local_executor(engine, settings, num_workers, most))
            _drop_orphans(destination, journal, run)
            executor = make(_most_pieces(plan, settings))
            return _run(plan, destination, engine, settings, journal, run, executor, display)
        finally:
            journal.end_run(run)
            shutil.rmtree(destination.house / "work" / run, ignore_errors=True)


def _run(
    plan: Plan,
    destination: Destination,
    engine: Engine,
    settings: BatchSettings,
    journal: Journal,
    run: str,
    executor: Executor,
    display: BatchDisplay,
) -> int:
    started_s = time.monotonic()
    for output, (kind, message) in plan.refused.items():
        display.fail(plan.entries[output].input, kind, message, again=False)
    for line in failed_lines(plan.failed.values()):
        display.note(line)
    batch = BatchRun(plan, destination, settings, journal=journal, run=run, executor=executor, display=display)
    try:
        batch.run()
    except KeyboardInterrupt as cause:
        board = batch.board
        raise Interrupted(
            f"interrupted after {board.num_before + board.num_done} of {board.num_files} files; what is done is kept: "
            "the same command goes on"
        ) from cause
    except OutputError as error:
        raise (_full(batch, batch.full) if batch.full is not None else error) from error
    report = make_report(
        journal,
        run,
        plan,
        engine,
        settings,
        workers=executor.description,
        seconds=time.monotonic() - started_s,
        elsewhere=ended_elsewhere(destination, journal.path),
    )
    _, page = write_report(destination.root, report, settings.shard)
    display.end(batch.board, {**report, "page": page})
    if batch.full is not None:
        raise _full(batch, batch.full)
    return exit_code_of(report["files"])


def _drop_orphans(destination: Destination, journal: Journal, run: str) -> None:
    """Remove segments that nothing waits for; where another run may be at it, only those that none can use."""
    rows, runs = journal.rows(), journal.runs()
    for path in other_journals(destination, journal.path):
        with Journal(path, only_read=True) as other:
            rows, runs = [*rows, *other.rows()], [*runs, *other.runs()]
    wanted = {(row.entry.input, row.entry.settings) for row in rows if row.state != "done"}
    alone = not any(one["alive"] for one in runs if one["id"] != run)
    drop_orphans(destination.house / "pieces", wanted, alone=alone)


def _full(batch: BatchRun, message: str) -> DiskFull:
    board = batch.board
    done = f"{board.num_before + board.num_done} of {board.num_files} files are done"
    return DiskFull(f"{message}: the run stopped, {done}; the same command goes on when there is space")


def _refuse_nothing(names: Sequence[str], discovery: Discovery) -> None:
    if not discovery.files and not discovery.closed:
        others = f" among {discovery.num_left_alone} other files" if discovery.num_left_alone else ""
        ours = f"; {results_line(discovery)}" if discovery.num_results else "; name files or their folder"
        raise UsageError(f"{', '.join(names)}: expected videos, found none{others}{ours}")


def results_line(discovery: Discovery) -> str:
    """Say that results were left out, and how they are done."""
    number = discovery.num_results
    return f"{number} result{'s' * (number > 1)} of streamsr left out of folders and globs; name them to do them"


def local_executor(engine: Engine, settings: BatchSettings, num_workers: int | None, most: int) -> Executor:
    """Return processes on this machine, one a GPU where the generator runs on it."""
    runtime = settings.upscale.generator.runtime
    wants_gpu = engine.architecture != "bicubic" and (
        runtime in GPU_RUNTIMES or (runtime == "auto" and settings.upscale.generator.precision != "int8")
    )
    return LocalExecutor(share_out(num_workers, num_gpus=count_gpus() if wants_gpu else 0, most=most))


def _most_pieces(plan: Plan, settings: BatchSettings) -> int:
    """Return how many tasks there may be at once: where files are few, long ones count by their segments."""
    if settings.segment_s is None or len(plan.todo) >= usable_cores():
        return max(1, len(plan.todo))
    return sum(_pieces_of(Path(plan.entries[output].input), settings.segment_s) for output in plan.todo) or 1


def _pieces_of(path: Path, segment_s: float) -> int:
    try:
        with open_container(path) as container:
            seconds = (container.duration or 0) / 1e6
    except (StreamsrError, FFmpegError, OSError):
        return 1
    return max(1, int(seconds / segment_s)) if seconds > 2 * segment_s else 1
