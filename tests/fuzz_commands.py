"""Run commands on damaged files, one after another: ``python -m tests.fuzz_commands KIND SOURCE FIRST LAST``.

In a process of its own, so that a crash of a codec or a runtime is seen. Every case runs the command line from its
arguments to its exit code, prints its number before it begins and how it ended after it: ``code N``, or what should not
be. What a case may write is a folder of its own; everything beside it must stay as it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2  # noqa: F401 (before PyAV)

from streamsr import cli
from streamsr.engine import MANIFEST
from tests.mutations import damaged

FORESEEN = (0, 1, 3, 4)
"""Exit codes that a damaged source or engine may give."""

UNFORESEEN = ("Traceback", "failed unexpectedly")


def damaged_video(source: Path, folder: Path, seed: int) -> list[str]:
    """Return how a damaged video is enlarged."""
    (folder / source.name).write_bytes(damaged(source.read_bytes(), seed))
    target = folder / "out" / f"large.{('mkv', 'mp4', 'mov')[seed % 3]}"
    return ["upscale", str(folder / source.name), "-o", str(target), "-m", "bicubic-x2", "--preset", "ultrafast"]


def damaged_network(source: Path, folder: Path, seed: int) -> list[str]:
    """Return how a video is enlarged by an engine whose network is damaged, though its hash is the stated one."""
    shutil.copytree(source, folder / "engine")
    content = damaged((source / "model.int8.onnx").read_bytes(), seed)
    manifest = json.loads((source / MANIFEST).read_text())
    manifest["files"]["model.int8.onnx"] = hashlib.sha256(content).hexdigest()
    (folder / "engine" / "model.int8.onnx").write_bytes(content)
    (folder / "engine" / MANIFEST).write_text(json.dumps(manifest))
    shutil.copy(source.with_name("clip.mkv"), folder / "clip.mkv")
    runtime = ("openvino", "onnxruntime")[seed % 2]
    options = ["--runtime", runtime, "--precision", "int8", "--launch", "frame", "--threads", "1"]
    return [
        "upscale",
        str(folder / "clip.mkv"),
        "-o",
        str(folder / "out" / "a.mkv"),
        "-m",
        str(folder / "engine"),
        *options,
    ]


def damaged_pictures(source: Path, folder: Path, seed: int) -> list[str]:
    """Return how damaged pictures are measured."""
    for number, picture in enumerate(sorted(source.iterdir())):
        (folder / "in").mkdir(exist_ok=True)
        (folder / "in" / picture.name).write_bytes(damaged(picture.read_bytes(), 10 * seed + number))
    return ["evaluate", str(folder / "in"), "-o", str(folder / "out" / "report"), "-m", "bicubic-x2", "-q"]


KINDS: dict[str, Callable[[Path, Path, int], list[str]]] = {
    "video": damaged_video,
    "network": damaged_network,
    "pictures": damaged_pictures,
}


def run(arguments: list[str]) -> tuple[int, str]:
    """Run the command line; return its exit code and what it printed."""
    sys.argv, printed = ["streamsr", *arguments], io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0), printed.getvalue()


def tree(folder: Path) -> dict[str, bytes | None]:
    """Return what lies in a folder, but for what may be written."""
    found = (path for path in folder.rglob("*") if folder / "out" not in (path, *path.parents))
    return {str(path): path.read_bytes() if path.is_file() else None for path in found}


def case(kind: str, source: Path, folder: Path, seed: int) -> str:
    """Run one case; return how it ended."""
    (folder / "out").mkdir()
    arguments = KINDS[kind](source, folder, seed)
    before = tree(folder)
    code, printed = run(arguments)
    lines = [line for line in printed.splitlines() if line.strip() and not line.startswith("left out: ")]
    if code not in FORESEEN or any(word in printed for word in UNFORESEEN):
        return f"unforeseen {code}: {printed!r}"
    if code in (3, 4) and (len(lines) != 1 or len(lines[0]) > 1000):
        return f"long-winded: {printed!r}"
    if tree(folder) != before:
        return f"wrote outside: {sorted(tree(folder).keys() ^ before.keys())}"
    hidden = [path.name for path in (folder / "out").rglob(".*")]
    return f"left behind: {hidden}" if hidden else f"code {code}"


def main() -> None:
    """Run the cases that the command line names."""
    kind, source, first, last = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "temporary").mkdir()
        tempfile.tempdir = os.environ["TMPDIR"] = str(root / "temporary")
        for seed in range(first, last):
            print(f"case {seed}", flush=True)
            (root / "case").mkdir()
            print(case(kind, source, root / "case", seed), flush=True)
            shutil.rmtree(root / "case")
            assert {left.name for left in root.iterdir()} == {"temporary"}
            left = [path.name for path in (root / "temporary").rglob("*")]
            assert not left, f"left behind: {left}"


if __name__ == "__main__":
    main()
