"""Segments: each enlarged by itself and kept under its key until its file is whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from streamsr.batch.key import work_key
from streamsr.batch.resting import refuse_change, state_of
from streamsr.batch.tasks import JoinTask, PieceTask
from streamsr.capture.spans import Span, SpanSource
from streamsr.engine import find_engine
from streamsr.job import Job, JobProgress
from streamsr.sidecar import sidecar_path, write_sidecar

TELLING = ("deinterlac", "interlaced", "size changed", "rebased", "times made", "hidden")
"""Words of notices about what reaches over the border of a segment: then the file is done whole."""


@dataclass(frozen=True)
class KeptPiece:
    """A finished segment.

    Attributes:
        path: of its video.
        details: its sidecar, with ``shown``: time and duration of every picture, in the source's time base.
    """

    path: Path
    details: dict[str, Any]


def piece_path(folder: str, sha256: str, settings_key: str, span: Span, suffix: str) -> Path:
    """Return where a segment lies once it is done; its sidecar beside it says that it is."""
    return Path(folder) / (work_key(sha256, settings_key, segment=(span.start, span.stop)) + suffix)


def path_of(task: PieceTask | JoinTask, span: Span) -> Path:
    """Return where a segment of a task's file lies once it is done."""
    return piece_path(task.pieces, task.sha256, task.settings_key, span, Path(task.name).suffix)


def make_piece(task: PieceTask, tell: Callable[[JobProgress], None]) -> str | None:
    """Enlarge a segment, unless it is there already.

    Returns:
        None when it lies under its key, else why its file is to be done whole.

    Raises:
        InputError: the file is not the one that was hashed, or cannot be read.
        StreamsrError: see `streamsr.job.upscale_file`.
    """
    refuse_change(task.input, task.state)
    kept = path_of(task, task.span)
    if sidecar_path(kept).is_file():
        return None
    engine, settings = find_engine(task.settings.generator.engine), replace(task.settings, audio="none")
    draft = Path(task.folder) / kept.name
    source = SpanSource(task.input, task.span, deinterlace=settings.read.deinterlace)
    with source:
        job = Job(f"{Path(task.input).name} from {task.span.start} on", source, draft, engine, settings)
        failure = job.run(tell)
        if failure is not None:
            raise failure
        details = job.describe(None)
        odd = _oddity(job, [*source.info.notices, *source.report.notices])
    if odd is not None:
        return odd
    refuse_change(task.input, task.state)
    kept.parent.mkdir(parents=True, exist_ok=True)
    draft.replace(kept)
    made_from = {"input": task.input, "state": list(task.state), "settings": task.settings_key}
    write_sidecar(sidecar_path(kept), {**details, "shown": source.shown, "made_from": made_from})
    return None


def read_pieces(task: JoinTask) -> list[KeptPiece]:
    """Return the finished segments of a file, in order.

    Raises:
        InputError: the file is not the one that they were made from.
    """
    refuse_change(task.input, task.state)
    paths = [path_of(task, span) for span in task.spans]
    return [KeptPiece(path, json.loads(sidecar_path(path).read_text(encoding="ascii"))) for path in paths]


def drop_pieces(paths: list[Path]) -> None:
    """Remove segments whose file is whole."""
    for path in paths:
        sidecar_path(path).unlink(missing_ok=True)
        path.unlink(missing_ok=True)


def drop_orphans(folder: Path, wanted: Collection[tuple[str, str]], *, alone: bool) -> None:
    """Remove segments that no work will ask for: their source has changed or is gone, or its file is not to be made.

    Args:
        folder: of the finished segments.
        wanted: absolute path of the source and key of the settings of all that is not done.
        alone: whether no other run is at it; then what has no sidecar is left by a dead one.
    """
    for sidecar in folder.glob("*.json"):
        try:
            made_from = json.loads(sidecar.read_text(encoding="ascii"))["made_from"]
            source, state = made_from["input"], tuple(made_from["state"])
            if (source, made_from["settings"]) in wanted and state_of(source) == state:
                continue
        except (OSError, ValueError, KeyError, TypeError):
            pass  # damaged: nothing can be made of it
        drop_pieces([sidecar.with_name(sidecar.name.removesuffix(".json"))])
    for path in folder.iterdir() if alone and folder.is_dir() else ():
        if path.suffix != ".json" and not sidecar_path(path).exists():
            path.unlink(missing_ok=True)


def _oddity(job: Job, notices: list[str]) -> str | None:
    """Return why a segment made by itself may not be what it would be in the whole file."""
    told = [notice for notice in notices if any(word in notice for word in TELLING)]
    if told:
        return f"cannot be cut: {told[0]}"
    if not job.complete or len(job.sink.report.paths) != 1:
        return "cannot be cut: " + (job.source.report.gaps[0] if job.source.report.gaps else "its picture changes")
    return None
