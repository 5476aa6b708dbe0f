"""Building a plan in a process of its own: one builder at a time for a plan, watched, bounded in time, killed whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from streamsr.errors import EngineError

BUILD_LIMIT_S = 900.0
"""What building may take: TensorRT times hundreds of kernels for a large network on a slow GPU, minutes at most."""

LOOK_S = 0.1
"""Between two looks at a builder or a lock."""

LAST_WORDS = 300
"""Characters of what a failed builder said that are shown."""


@dataclass(frozen=True)
class BuildProgress:
    """How far a plan is.

    Attributes:
        name: of the engine.
        step: what the builder is at, in its own words; ``waiting for another program`` while another one builds.
        elapsed_s: since the wait began.
    """

    name: str
    step: str
    elapsed_s: float


def run_builder(
    name: str,
    command: Callable[[Path], Sequence[str]],
    folder: Path,
    *,
    watch: Callable[[BuildProgress], None],
    limit_s: float = BUILD_LIMIT_S,
) -> bytes:
    """Run a builder to its end and return the plan that it wrote.

    The builder writes ``plan`` into the folder, and may write one line, replaced as it goes on, into ``progress``. Its
    standard error is shown where it fails.

    Args:
        name: of the engine.
        command: given the folder, returns the builder's command line.
        folder: to build in; exists and is the builder's own.
        watch: called a few times a second.
        limit_s: after which the builder and its children are killed.

    Raises:
        EngineError: it failed, was killed, took too long, or wrote nothing.
        OSError: it cannot be started.
    """
    started_s = time.monotonic()
    log = folder / "log"
    with log.open("wb") as output:
        builder = subprocess.Popen(
            list(command(folder)),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # so that its children can be killed with it
        )
        try:
            while (code := wait(builder)) is None:
                elapsed_s = time.monotonic() - started_s
                if elapsed_s > limit_s:
                    raise EngineError(
                        f"{name}: expected its plan to be built within {limit_s:g} s, it was not; "
                        "free the machine and run again, or use --runtime cuda"
                    )
                watch(BuildProgress(name, last_line(folder / "progress"), elapsed_s))
        finally:
            kill(builder)
    try:
        content = (folder / "plan").read_bytes()
    except OSError:
        content = b""
    if code or not content:
        how = f"was killed by signal {-code}" if code < 0 else f"failed with code {code}" if code else "wrote nothing"
        said = last_line(log) or "it said nothing"
        raise EngineError(f"{name}: expected its plan to be built, the builder {how}: {said}; use --runtime cuda")
    return content


def wait(builder: subprocess.Popen[bytes]) -> int | None:
    """Return the exit code of a builder, or None where it is still at work after a while."""
    with suppress(subprocess.TimeoutExpired):
        return builder.wait(LOOK_S)
    return None


def kill(builder: subprocess.Popen[bytes]) -> None:
    """End a builder and all that it started."""
    if builder.poll() is None:
        if sys.platform == "win32":
            builder.kill()
        else:
            with suppress(ProcessLookupError):
                os.killpg(builder.pid, signal.SIGKILL)
    builder.wait()


def last_line(path: Path) -> str:
    """Return the last line of a file that says something, shortened; empty where there is none."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    spoken = [" ".join(line.split()) for line in lines if line.strip()]
    return spoken[-1][:LAST_WORDS] if spoken else ""


@contextmanager
def locked(path: Path, *, name: str, watch: Callable[[BuildProgress], None], limit_s: float) -> Iterator[None]:
    """Hold the lock on a file for the body; it goes when the program ends, however it ends.

    Args:
        path: of the file; made where it is not there, and left there (`remove_free_lock` removes it).
        name: of the engine that is waited for.
        watch: called a few times a second while another program holds the lock.
        limit_s: what waiting may take.

    Raises:
        EngineError: another program held it for too long.
        OSError: the file cannot be made, or this file system has no locks.
    """
    started_s = time.monotonic()
    while True:
        with path.open("ab") as file:
            while not try_lock(file):
                elapsed_s = time.monotonic() - started_s
                if elapsed_s > limit_s:
                    raise EngineError(
                        f"{name}: expected another program to finish its plan within {limit_s:g} s, it did not; "
                        "end that program and run again"
                    )
                watch(BuildProgress(name, "waiting for another program that builds the same plan", elapsed_s))
                time.sleep(LOOK_S)
            if is_there(file, path):
                yield
                return


def is_there(file: IO[bytes], path: Path) -> bool:
    """Whether an open file is the one that has a name now: a lock on one that was removed keeps nobody out."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def remove_free_lock(path: Path) -> None:
    """Remove the file of a lock, unless somebody holds it or (on Windows) has it open.

    Raises:
        OSError: it cannot be removed.
    """
    with path.open("ab") as file:
        if not try_lock(file):
            return
        if sys.platform != "win32":
            path.unlink(missing_ok=True)
    if sys.platform == "win32":
        with suppress(PermissionError):
            path.unlink(missing_ok=True)


def try_lock(file: IO[bytes]) -> bool:
    """Take the lock on an open file, without waiting; whether it was free."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True
