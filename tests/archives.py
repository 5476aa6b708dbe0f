"""Archives to try `streamsr batch` on: tiny numbered clips, and what comes of them in a form that can be compared."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av

from streamsr.batch.archive import enlarge_archive
from streamsr.batch.board import Board
from streamsr.batch.journal import Journal
from streamsr.batch.outputs import parse_destination
from streamsr.config import BatchSettings, GeneratorSettings, UpscaleSettings
from tests.videos import make_video

TINY = {"width": 32, "height": 32, "num_frames": 4, "codec": "ffv1"}
BICUBIC = UpscaleSettings(GeneratorSettings(engine="bicubic-x2"), codec="ffv1")


class Witness:
    """A display that remembers what it was shown."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.failed: list[tuple[str, str, str, bool]] = []
        self.notes: list[str] = []
        self.report: dict[str, Any] = {}

    def update(self, board: Board) -> None:
        pass

    def finish(self, name: str, details: Mapping[str, Any], incomplete: str | None) -> None:
        self.made.append(name)

    def fail(self, name: str, kind: str, message: str, *, again: bool) -> None:
        self.failed.append((Path(name).name, kind, message, again))

    def note(self, line: str) -> None:
        self.notes.append(line)

    def end(self, board: Board, report: Mapping[str, Any]) -> None:
        self.report = dict(report)


def run_archive(*names: Path, out: Path, upscale: UpscaleSettings = BICUBIC, **options: Any) -> tuple[int, Witness]:
    """Enlarge an archive in this process, with two workers; return the exit code and what was shown."""
    witness = Witness()
    keys = ("segment_s", "retries", "ignore_errors", "retry_failed", "shard", "container")
    settings = BatchSettings(upscale, **{key: options.pop(key) for key in keys if key in options})
    destination = parse_destination(str(options.pop("output", out)))
    options = {"num_workers": 2, **options}
    code = enlarge_archive([str(name) for name in names], destination, settings, witness, **options)
    return code, witness


def make_archive(folder: Path, number: int = 4) -> Path:
    """Make clips in folders below a folder."""
    for place in range(number):
        home = folder / f"part {place % 3}"
        home.mkdir(parents=True, exist_ok=True)
        make_video(home / f"clip {place}.mkv", **TINY, first_number=place)
    return folder


def start_batch(*arguments: str | Path) -> subprocess.Popen[bytes]:
    """Start the command in a process group of its own."""
    command = [sys.executable, "-m", "streamsr", "batch", *map(str, arguments)]
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    return subprocess.Popen(
        command,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": path},
    )


def ended(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Wait for the end of a command; return its exit code and what it printed."""
    text = process.communicate(timeout=120)[0].decode()
    return process.returncode, text


def tree_of(root: Path) -> dict[str, str]:
    """Return every file that a user sees, and what is in it but for what differs from run to run.

    A Matroska file has a random number of its own, so its packets are compared, with their times; sidecars hold how
    long things took, and the hash of that file.
    """
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_dir() or name.startswith((".streamsr/journal", "report.")):
            continue
        found[name] = _digest(path)
    return found


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    if path.suffix == ".json":
        content = json.loads(path.read_text())
        kept = {key: content[key] for key in ("input", "engine", "settings", "frames", "patches", "batch", "failure")}
        digest.update(json.dumps(kept, sort_keys=True).encode())
    else:
        with av.open(str(path)) as container:
            for packet in container.demux():
                digest.update(f"{packet.stream_index} {packet.pts} {packet.dts} {packet.duration}".encode())
                digest.update(bytes(packet))
    return digest.hexdigest()


def events_of(out: Path) -> list[tuple[str, str]]:
    """Return what happened to each result, in order."""
    with Journal(out / ".streamsr" / "journal.sqlite", only_read=True) as journal:
        return [(output, what) for _, _, output, what in journal.events()]
