"""Give results their names, so that it can be ended by whoever finds it half done."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from streamsr.batch.tasks import MadeFile
from streamsr.errors import OutputError, OutputExists
from streamsr.sidecar import file_sha256
from streamsr.sinks.drafts import explain, sync_folder


def plan_files(root: Path, folder: Path, files: Sequence[MadeFile], output: str) -> list[dict[str, Any]]:
    """Return what is to be renamed to what, for the journal, relative to the root.

    Args:
        root: of the results.
        folder: where the files are, below it.
        files: of one result.
        output: name of the result's first file, relative to the root, with slashes.
    """
    place = Path(output).parent
    return [
        {
            "from": (folder / file.name).relative_to(root).as_posix(),
            "to": (place / file.name).as_posix(),
            "bytes": file.num_bytes,
            "sha256": file.sha256,
        }
        for file in files
    ]


def refuse_strangers(root: Path, files: Sequence[Mapping[str, Any]], ours: Mapping[str, str]) -> None:
    """Check that no name is taken by a file that is not an earlier result of the same work.

    Args:
        root: of the results.
        files: see `plan_files`.
        ours: name to hash of the earlier result's files.

    Raises:
        OutputExists: one is.
    """
    for file in files:
        path = root / file["to"]
        if path.exists() and file["to"] not in ours and file_sha256(path) != file["sha256"]:
            raise OutputExists(f"{path} is already there: choose another folder, or allow it to be replaced with -y")


def publish(root: Path, files: Sequence[Mapping[str, Any]]) -> None:
    """Rename every file; those that have their names already are left.

    Args:
        root: of the results.
        files: see `plan_files`.

    Raises:
        OutputError: one cannot be renamed, or is neither here nor there.
    """
    for file in files:
        source, target = root / file["from"], root / file["to"]
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.exists():
                source.replace(target)
                sync_folder(target.parent)
            elif not target.exists():
                raise OutputError(f"{target}: expected a result to be renamed, found none at {source}; run this again")
        except OSError as cause:
            if isinstance(cause, OutputError):
                raise
            raise explain(cause, target) from cause


def remove_folder(folder: Path) -> None:
    """Remove a task's folder and what lies in it."""
    shutil.rmtree(folder, ignore_errors=True)


def make_root(root: Path, house: Path) -> None:
    """Make the folders of the results.

    Raises:
        OutputError: they cannot be made or written to.
    """
    try:
        house.mkdir(parents=True, exist_ok=True)
        if not os.access(house, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as cause:
        raise OutputError(
            f"{root}: expected a folder for results, got {cause.strerror}; name another with -o"
        ) from cause
