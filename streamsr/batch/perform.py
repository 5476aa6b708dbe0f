"""What a worker does with a task: the job, the check against the source, and hashes, in the task's own folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from streamsr.batch.checking import check_result
from streamsr.batch.contents import is_plain
from streamsr.batch.failures import failure_of
from streamsr.batch.key import work_key
from streamsr.batch.pieces import make_piece
from streamsr.batch.resting import changed, refuse_change, state_of
from streamsr.batch.tasks import Cut, Failed, FileTask, JoinTask, Made, MadeFile, Outcome, PieceMade, PieceTask, Task
from streamsr.batch.thumbnails import Thumbnails
from streamsr.batch.uniting import unite
from streamsr.capture.opening import open_container
from streamsr.capture.spans import cut, read_times
from streamsr.engine import find_engine
from streamsr.errors import ResultDiffers, StreamsrError
from streamsr.job import JobProgress, run_job, unexpected
from streamsr.sidecar import file_sha256, sidecar_path, write_sidecar

Tell = Callable[[JobProgress], None]


def perform(task: Task, tell: Tell) -> Outcome:
    """Do a task.

    Args:
        task: what is to be done.
        tell: called several times a second with the progress; what it raises ends the task.

    Returns:
        How it ended; failures too.
    """
    before = task.state if isinstance(task, (PieceTask, JoinTask)) else state_of(task.input)
    outcome = _attempt(task, tell)
    if before and state_of(task.input) != before:  # whatever came of it, that is why, or it cannot be trusted
        return failure_of(changed(task.input))
    return outcome


def _attempt(task: Task, tell: Tell) -> Outcome:
    try:
        return _perform(task, tell)
    except StreamsrError as error:
        return failure_of(error)
    except OSError as cause:
        failed = failure_of(cause)
        return replace(failed, message=f"{task.input}: {cause.strerror or cause}: expected room and rights to work")
    except Exception as cause:  # nobody foresaw it: this file is lost, the next is not
        return Failed("engine", str(unexpected(task.input, cause)))


def _perform(task: Task, tell: Tell) -> Outcome:
    folder = Path(task.folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if isinstance(task, PieceTask):
        return _do_piece(task, tell)
    if isinstance(task, JoinTask):
        return _do_join(task, tell)
    assert isinstance(task, FileTask)
    return _do_file(task, tell)


def _do_file(task: FileTask, tell: Tell) -> Outcome:
    before = state_of(task.input)
    spans = _spans_of(task)
    if len(spans) > 1:
        sha256 = file_sha256(Path(task.input))
        refuse_change(task.input, before)
        return Cut(sha256, before, tuple(spans))
    engine = find_engine(task.settings.generator.engine)
    result = run_job(task.input, Path(task.folder) / task.name, engine, replace(task.settings, overwrite=False), tell)
    return _finish(task, result.details, list(result.outputs), before)


def _do_piece(task: PieceTask, tell: Tell) -> Outcome:
    odd = make_piece(task, tell)
    return PieceMade(task.span.num_frames) if odd is None else Failed("engine", f"{task.input}: {odd}", whole=True)


def _do_join(task: JoinTask, tell: Tell) -> Outcome:
    try:
        details, path = unite(task)
        return _finish(task, details, [path], task.state)
    except ResultDiffers as error:
        return Failed("engine", str(error), whole=True)


def _spans_of(task: FileTask) -> list[Any]:
    """Return the segments of a file; none where it is short, or where cutting might change something."""
    path, read = Path(task.input), task.settings.read
    if Path(task.name).suffix == ".dcm":
        return []  # an object is made in one go
    if task.segment_s is None or read.deinterlace == "on" or read.resize != "parts" or not is_plain(path):
        return []
    with open_container(path) as container:
        stated_s = None if container.duration is None else container.duration / 1e6
    if stated_s is not None and stated_s < 2 * task.segment_s:
        return []  # without reading it all
    times = read_times(path)
    if times is None or float((max(times.shown) - min(times.shown)) * times.time_base) < 2 * task.segment_s:
        return []
    return cut(times, task.segment_s)


def _finish(task: Task, details: dict[str, Any], paths: list[Path], before: tuple[int, ...]) -> Made:
    """Check a result, complete its sidecar and hash it."""
    frames, notices = details["frames"], details["notices"]
    thumbnails = Thumbnails(task.input, frames["in"])
    checked = check_result(
        task.input,
        paths,
        read=task.settings.read,
        offset_s=details["time"]["offset_s"],
        num_frames=frames["in"],
        sound=task.settings.audio == "copy",
        notices=notices,
        keep=thumbnails.keep,
    )
    refuse_change(task.input, before)
    sha256 = details["input"]["sha256"]
    key = work_key(sha256, task.settings_key)
    content = {**details, "batch": {"key": key, "checked": checked}}
    sidecar = sidecar_path(paths[0])
    write_sidecar(sidecar, content)
    files = [MadeFile(one["name"], one["bytes"], one["sha256"]) for one in details["outputs"]]
    files.append(MadeFile(sidecar.name, sidecar.stat().st_size, file_sha256(sidecar)))
    return Made(tuple(files), sha256, key, _lack(frames), _figures(details, thumbnails))


def _figures(details: dict[str, Any], thumbnails: Thumbnails) -> dict[str, Any]:
    """Return what the journal and the report keep of a sidecar."""
    return {
        "frames": details["frames"]["out"],
        "seconds": details["time"]["seconds_taken"],
        "skipped": details["patches"]["skipped"] / max(details["patches"]["total"], 1),
        "runtime": details["engine"]["runtime"],
        "picture": details["picture"],
        "notices": list(dict.fromkeys(details["notices"])),
        "thumbnails": thumbnails.made(details["engine"]["scale"]),
    }


def _lack(frames: dict[str, Any]) -> str | None:
    """Return what a source lacked, in one line; None where it was whole."""
    if frames["complete"]:
        return None
    gaps = frames["gaps"]
    more = f" and {len(gaps) - 1} more" if len(gaps) > 1 else ""
    return f"{gaps[0]}{more}" if gaps else "the source ends before it should"
