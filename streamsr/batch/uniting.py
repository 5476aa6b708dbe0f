"""A whole recording and its sidecar from the segments of a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from streamsr.batch.pieces import KeptPiece, read_pieces
from streamsr.batch.tasks import JoinTask
from streamsr.capture.base import TrackPacket
from streamsr.capture.spans import PassingSource
from streamsr.engine import find_engine
from streamsr.frame import Frame
from streamsr.sidecar import describe_file, marks_of
from streamsr.sinks.base import SinkReport
from streamsr.sinks.joining import JoinedRecording, Piece
from streamsr.sinks.tracks import Tags


def unite(task: JoinTask) -> tuple[dict[str, Any], Path]:
    """Join the segments of a file in the task's folder.

    Returns:
        The sidecar, which is not written yet, and the recording.

    Raises:
        ResultDiffers: the segments do not fit together.
        InputError: the source cannot be opened.
        OutputError: it cannot be written.
    """
    kept, path = read_pieces(task), Path(task.folder) / task.name
    tags = Tags(task.settings.keep_metadata, marks_of(find_engine(task.settings.generator.engine)))
    pieces = [Piece(one.path, *zip(*one.details["shown"], strict=True)) for one in kept]
    copies = task.settings.audio == "copy"
    with PassingSource(task.input) as source:
        items = iter(source)
        before, first = _until_frame(items)
        rest = ((item.track, item.packet) for item in items if isinstance(item, TrackPacket) and copies)
        facts = source.info if copies else replace(source.info, tracks=(), attachments=())
        with JoinedRecording(path, pieces, facts=facts, first=first, tags=tags, overwrite=False) as recording:
            recording.write(before if copies else [], rest)
        notices = [*source.info.notices, *recording.report.notices]
    return _sidecar(task, kept, recording.report, notices), path


def _until_frame(items: Iterator[Frame | TrackPacket]) -> tuple[list[tuple[int, Any]], Frame]:
    """Return the packets that come before the first frame, and that frame, which every open file has."""
    before: list[tuple[int, Any]] = []
    while not isinstance(item := next(items), Frame):
        before.append((item.track, item.packet))
    return before, item


def _known(task: JoinTask) -> dict[str, Any]:
    path = Path(task.input)
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": task.sha256}


def _sidecar(task: JoinTask, kept: Sequence[KeptPiece], report: SinkReport, notices: list[str]) -> dict[str, Any]:
    """Return the sidecar of the whole from those of its segments."""
    first, all_details = kept[0].details, [one.details for one in kept]
    num_frames = sum(details["frames"]["out"] for details in all_details)
    seconds = sum(details["time"]["seconds_taken"] for details in all_details)
    told = [notice for details in all_details for notice in details["notices"]]
    return {
        **{name: first[name] for name in ("statement", "engine", "versions", "picture", "launch")},
        "input": _known(task),
        "outputs": [describe_file(path) for path in report.paths],
        "settings": asdict(task.settings),
        "frames": {"in": num_frames, "out": num_frames, "complete": True, "gaps": [], "truncated": False},
        "time": {**first["time"], "offset_s": report.offset_s, "seconds_taken": round(seconds, 3)},
        "patches": _sums([details["patches"] for details in all_details]),
        "consistency": _consistency([details["consistency"] for details in all_details]),
        "timings": {},
        "segments": [
            {
                "first_pts": details["shown"][0][0],
                "frames": details["frames"]["out"],
                "seconds_taken": details["time"]["seconds_taken"],
                "runtime": details["engine"]["runtime"],
                "timings": details["timings"],
            }
            for details in all_details
        ],
        "notices": list(dict.fromkeys([*notices, *told])),
        "failure": None,
    }


def _sums(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    return {name: sum(count[name] for count in counts) for name in counts[0]}


def _consistency(found: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """Return how well the whole gives its input back: shares by samples, levels at most."""
    parts = [part for part in found if part is not None]
    if not parts:
        return None
    samples = sum(part["samples"] for part in parts)
    shares = ("within_one_level", "within_one_level_before", "outside_by_clipping")
    means = {name: round(sum(part[name] * part["samples"] for part in parts) / samples, 7) for name in shares}
    most = max(part["max_levels"] for part in parts)
    return {"filter": parts[0]["filter"], "samples": samples, **means, "max_levels": most}
