"""Drafts: a file that is written under a hidden name beside its target and gets its name when it is complete."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from av.error import FFmpegError

from streamsr.errors import DiskFull, OutputError, OutputExists, StreamsrError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

KEPT = "what was written is kept as"
"""What a failed recording says of its partial file, before its name."""


class Draft:
    """A file in the making. Made, it exists and is empty; it ends by `publish`, `keep_partial` or `discard`.

    Args:
        target: the name it gets when it is complete.
        overwrite: whether a file of that name may be replaced.
        kept_suffix: of what is kept when it does not become complete; None is the target's own.

    Attributes:
        path: where it is written meanwhile, ``.<stem>.<token>.part<suffix>`` in the same folder.

    Raises:
        OutputExists: the target is there and may not be replaced.
        OutputError: the folder is missing or cannot be written to.
    """

    def __init__(self, target: Path, *, overwrite: bool, kept_suffix: str | None = None) -> None:
        self.target, self.overwrite = target, overwrite
        self._kept_suffix = target.suffix if kept_suffix is None else kept_suffix
        refuse_taken(target, overwrite=overwrite)
        self.path = target.parent / f".{target.stem}.{secrets.token_hex(4)}.part{target.suffix}"
        try:
            self.path.open("xb").close()
        except OSError as cause:
            raise explain(cause, target) from cause

    @property
    def size_bytes(self) -> int:
        """What is on the disk now."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    @property
    def free_bytes(self) -> int:
        """Space left on its disk."""
        return shutil.disk_usage(self.path.parent).free

    def publish(self) -> Path:
        """Give it its name, durably; return the name.

        Raises:
            OutputExists: a file of that name appeared meanwhile.
            OutputError: it cannot be renamed.
        """
        try:
            self._sync()
            if self.overwrite:
                self.path.replace(self.target)
            else:
                self._link()
            sync_folder(self.target.parent)
        except FileExistsError as cause:
            raise OutputExists(f"{self.target} appeared while it was being made: it was not replaced") from cause
        except OSError as cause:
            raise explain(cause, self.target) from cause
        return self.target

    def keep_partial(self) -> Path:
        """Give what there is the name that says it is not complete; return that name."""
        kept = self.partial_name()
        with contextlib.suppress(OSError):
            self._sync()
        try:
            self.path.replace(kept)
        except OSError:
            return self.path
        sync_folder(kept.parent)
        return kept

    def partial_name(self) -> Path:
        """Return ``<stem>.partial<suffix>``, numbered where an earlier one is in the way and may not be replaced."""
        name = self.target.with_name(f"{self.target.stem}.partial{self._kept_suffix}")
        number = 2
        while not self.overwrite and name.exists():
            name = self.target.with_name(f"{self.target.stem}.partial-{number}{self._kept_suffix}")
            number += 1
        return name

    def discard(self) -> None:
        """Remove it."""
        self.path.unlink(missing_ok=True)

    def _sync(self) -> None:
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())

    def _link(self) -> None:
        """Rename without replacing: a hard link fails where the name is taken; disks without links are asked first."""
        try:
            os.link(self.path, self.target)
        except FileExistsError:
            raise
        except OSError:
            refuse_taken(self.target, overwrite=False)
            self.path.replace(self.target)
        else:
            self.path.unlink()


def refuse_taken(target: Path, *, overwrite: bool) -> None:
    """Check that a name is free.

    Raises:
        OutputExists: it is taken and may not be replaced.
        OutputError: it is a folder, or cannot be a name.
    """
    with explained(target):
        is_folder, is_taken = target.is_dir(), target.exists()
    if is_folder:
        raise OutputError(f"expected a file name to write to, got the folder {target}: add a file name")
    if is_taken and not overwrite:
        raise OutputExists(f"{target} is already there: choose another name, or allow it to be overwritten with -y")


@contextmanager
def explained(target: Path) -> Iterator[None]:
    """Turn what the system says about writing into this project's errors."""
    try:
        yield
    except StreamsrError:
        raise
    except (OSError, FFmpegError) as cause:
        raise explain(cause, target) from cause


def explain(cause: OSError | FFmpegError, target: Path) -> OutputError:
    """Say in one line what went wrong with a file, and what to do."""
    folder = target.parent
    if cause.errno in FULL:
        return DiskFull(f"no space left for {target}: free some, or write to another disk")
    if cause.errno == errno.ENAMETOOLONG:
        return OutputError(f"cannot write {target}: {cause.strerror}; choose a shorter one (drafts add 15 characters)")
    if isinstance(cause, FileNotFoundError) and folder.is_dir():
        return OutputError(f"cannot write {target}: {folder} takes no new files; choose another folder")
    if isinstance(cause, FileNotFoundError):
        return OutputError(f"expected the folder {folder} to write {target.name} to, found none: create it")
    if isinstance(cause, (PermissionError, NotADirectoryError)) or cause.errno == errno.EROFS:
        return OutputError(f"cannot write {target}: {cause.strerror}; choose a folder that can be written to")
    return OutputError(f"cannot write {target}: {cause.strerror or cause}")


def is_full(error: BaseException | None) -> bool:
    """Whether a failure, or what caused it, is a disk without space."""
    while error is not None:
        if isinstance(error, DiskFull) or (isinstance(error, OSError) and error.errno in FULL):
            return True
        error = error.__cause__
    return False


def sync_folder(folder: Path) -> None:
    """Make a rename durable where the system can (not on Windows)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
