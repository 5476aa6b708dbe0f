"""What a run leaves for its reader: ``report.json``, and the same as a page that opens without a network."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from streamsr.batch.failures import KINDS
from streamsr.batch.journal import Journal
from streamsr.batch.page import render_page
from streamsr.batch.planning import Plan
from streamsr.batch.rows import Row, merge_rows
from streamsr.config import BatchSettings
from streamsr.engine import Engine
from streamsr.errors import OutputError
from streamsr.sidecar import plain, statement_of, versions
from streamsr.sinks.drafts import explain


def make_report(
    journal: Journal,
    run: str,
    plan: Plan,
    engine: Engine,
    settings: BatchSettings,
    *,
    workers: str,
    seconds: float,
    elsewhere: Sequence[Row] = (),
) -> dict[str, Any]:
    """Return how a run went, with every piece of work of its that a journal knows.

    Args:
        journal: open.
        run: id of the run.
        plan: of the run.
        engine: which generator.
        settings: of the run.
        workers: who worked, in one line.
        seconds: how long the run took.
        elsewhere: what other journals of these results have ended.
    """
    ours = {row.entry.output: row for row in journal.rows()}
    known = merge_rows(ours.values(), elsewhere) | {output: ours[output] for output in plan.todo if output in ours}
    rows = [row for output, row in known.items() if output in plan.entries]
    made = [output for _, name, output, what in journal.events() if name == run and what == "done"]
    files = [_describe(row) for row in rows]
    for output, (kind, message) in plan.refused.items():
        entry = plan.entries[output]
        files = [file for file in files if file["output"] != output]
        files.append(_failure(entry.input, output, kind, message))
    failures = [file for file in files if file["kind"] is not None]
    kinds = Counter(file["kind"] for file in failures)
    return {
        "statement": statement_of(engine),
        "run": run,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(seconds, 1),
        "workers": workers,
        "engine": engine.name,
        "scale": engine.scale,
        "settings": asdict(settings),
        "versions": versions(),
        "counts": {
            "files": len(plan.entries),
            "made": len(made),
            "made_before": len([file for file in files if file["state"] == "done"]) - len(made),
            "failed": sum(file["state"] == "failed" for file in files),
            "incomplete": kinds["incomplete"],
            "left": sum(file["state"] not in ("done", "failed") for file in files),
        },
        "failures": {kind: kinds[kind] for kind in KINDS if kinds[kind]},
        "files": files,
    }


def _describe(row: Row) -> dict[str, Any]:
    details = row.details if row.state == "done" else {}
    return {
        "input": row.entry.input,
        "output": row.entry.output,
        "state": row.state,
        "kind": row.kind if row.state in ("done", "failed") else None,
        "message": row.message,
        "tries": row.tries,
        "key": row.key,
        "input_sha256": row.sha256,
        "frames": details.get("frames"),
        "seconds": details.get("seconds"),
        "skipped": details.get("skipped"),
        "runtime": details.get("runtime"),
        "picture": details.get("picture"),
        "notices": details.get("notices", []),
        "files": [{name: file[name] for name in ("to", "bytes", "sha256")} for file in details.get("files", [])],
        "thumbnails": details.get("thumbnails"),
    }


def _failure(source: str, output: str, kind: str, message: str) -> dict[str, Any]:
    nothing = dict.fromkeys(("key", "input_sha256", "frames", "seconds", "skipped", "runtime", "picture", "thumbnails"))
    known = {"input": source, "output": output, "state": "failed", "kind": kind, "message": message, "tries": 0}
    return {**nothing, **known, "notices": [], "files": []}


def write_report(root: Path, report: Mapping[str, Any], shard: tuple[int, int] | None) -> tuple[Path, Path]:
    """Write both forms; return where they are. The pictures are in the page alone.

    Raises:
        OutputError: they cannot be written.
    """
    stem = "report" if shard is None else f"report-{shard[0]}-of-{shard[1]}"
    bare = {**report, "files": [_without_pictures(file) for file in report["files"]]}
    as_json, as_page = root / f"{stem}.json", root / f"{stem}.html"
    _write(as_json, json.dumps(plain(bare), indent=1) + "\n")
    _write(as_page, render_page(report))
    return as_json, as_page


def _without_pictures(file: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in file.items() if name != "thumbnails"}


def _write(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.part")
    try:
        aside.write_text(text, encoding="utf-8", errors="backslashreplace")
        aside.replace(path)
    except OSError as cause:
        if isinstance(cause, OutputError):
            raise
        raise explain(cause, path) from cause


def exit_code_of(files: Sequence[Mapping[str, Any]]) -> int:
    """Return 1 where a file failed, was incomplete or is not done, else 0."""
    return int(any(file["kind"] is not None or file["state"] != "done" for file in files))
