"""How an archive stands, read from its journals by whoever asks, from any terminal."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

from streamsr.batch.board import clock
from streamsr.batch.failures import named
from streamsr.batch.journal import Journal
from streamsr.batch.outputs import HOUSE
from streamsr.batch.planning import JOURNAL, shares
from streamsr.batch.rows import Row, merge_rows
from streamsr.errors import InputNotFound

LATEST_FAILURES = 20


def read_status(folder: Path) -> dict[str, Any]:
    """Return how the archive in a folder stands: counts, living runs, what they are at, and failures.

    Raises:
        InputNotFound: the folder has no journal.
    """
    paths = sorted((folder / HOUSE).glob(f"{JOURNAL}*.sqlite"))
    if not paths:
        raise InputNotFound(f"{folder}: expected the results of streamsr batch, found no journal; check the name")
    all_rows, runs = [], []
    for path in paths:
        with Journal(path, only_read=True) as journal:
            all_rows.append(journal.rows())
            runs += [run for run in journal.runs() if run["alive"]]
    rows = list(merge_rows(*all_rows).values())
    alive = {run["id"] for run in runs}
    working = [row for row in rows if row.state in ("running", "publishing")]
    failed = [row for row in rows if row.state == "failed" or row.kind == "incomplete"]
    return {
        "counts": {**shares(rows), "incomplete": sum(row.kind == "incomplete" for row in rows)},
        "left_s": left_s(rows, runs, time.time()),
        "runs": [{name: run[name] for name in ("id", "machine", "pid", "started")} for run in runs],
        "working": [
            {
                "input": row.entry.input,
                "output": row.entry.output,
                "run": row.owner,
                "alive": row.owner in alive,
                **row.progress,
            }
            for row in working
        ],
        "failures": dict(Counter(row.kind for row in failed)),
        "failed": [
            {"input": row.entry.input, "kind": row.kind, "message": row.message, "tries": row.tries} for row in failed
        ],
    }


def left_s(rows: list[Row], runs: list[dict[str, Any]], now_s: float) -> float | None:
    """Return how long the rest will take at the pace of the living runs, by the size of the files.

    Args:
        rows: of all journals; one that is done has the run that did it.
        runs: those that live.
        now_s: of `time.time`.

    Returns:
        Seconds; None where no run lives, or its pace is not known yet.
    """
    alive = {run["id"] for run in runs}
    ours = [(row, row.entry.num_bytes or 0) for row in rows if row.owner in alive]
    half_made = sum(float(row.progress.get("share", 0.0)) * size for row, size in ours if row.state == "running")
    made = half_made + sum(size for row, size in ours if row.state == "done")
    taken_s = now_s - min((float(run["started"]) for run in runs), default=now_s)
    if made <= 0 or taken_s < 1:
        return None
    todo = sum(row.entry.num_bytes or 0 for row in rows if row.state in ("waiting", "running")) - half_made
    return max(0.0, todo * taken_s / made)


def status_lines(status: dict[str, Any]) -> list[str]:
    """Return how an archive stands as lines."""
    counts = status["counts"]
    total = sum(counts[state] for state in ("waiting", "running", "publishing", "done", "failed"))
    at_work = counts["running"] + counts["publishing"]
    lines = [
        f"{total} files: {counts['done']} done ({counts['incomplete']} incomplete), {at_work} under way, "
        f"{counts['waiting']} waiting, {counts['failed']} failed"
        + (f"; {clock(status['left_s'])} left" if status["left_s"] is not None else ""),
        *(f"run {run['id']} on {run['machine']}, process {run['pid']}" for run in status["runs"]),
    ]
    if not status["runs"]:
        left = at_work + counts["waiting"]
        lines.append("no run is at it" + ("; the same command, or --continue, goes on" if left else ""))
    lines += [_working_line(work) for work in status["working"]]
    lines += [
        named(failure["input"], failure["kind"], failure["message"]) for failure in status["failed"][:LATEST_FAILURES]
    ]
    more = len(status["failed"]) - LATEST_FAILURES
    return [*lines, *([f"and {more} more failures"] if more > 0 else [])]


def _working_line(work: dict[str, Any]) -> str:
    if not work["alive"]:
        return f"  {work['output']}: left by a run that ended"
    parts = [f"{work.get('share', 0):.0%}", f"{work.get('fps', 0):.1f} fps", f"{work.get('skipped', 0):.0%} skipped"]
    return f"  {work['output']}: {', '.join([*work.get('parts', []), *parts])}"
