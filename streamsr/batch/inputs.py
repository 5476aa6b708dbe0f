"""What there is to do: files, folders with all below them, globs and lists, each found once."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from streamsr.dicom import is_dicom
from streamsr.errors import InputError, InputNotFound
from streamsr.sidecar import is_result

SUFFIXES = frozenset(
    (
        *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".wmv", ".asf", ".flv", ".ts", ".m2ts", ".mts", ".mpg"),
        *(".mpeg", ".vob", ".mxf", ".ogv", ".3gp", ".dv", ".h264", ".264", ".h265", ".265", ".hevc", ".nut", ".dcm"),
    )
)
"""What is taken for a video in a folder, and DICOM without a suffix; a file that is named is always taken."""


@dataclass(frozen=True)
class Found:
    """A file to be enlarged.

    Attributes:
        path: absolute.
        relative: below the folder that was named, so that trees can be mirrored; the bare name of a file that was
            named itself.
    """

    path: Path
    relative: Path


@dataclass
class Discovery:
    """What was found.

    Attributes:
        files: each once, in the order of their names.
        num_left_alone: files in folders that are no videos by their name.
        num_results: files in folders that streamsr made, as the sidecars beside them say.
        closed: folders below the one that was named that cannot be read, and why, one line each.
        forgiving: whether a folder, a glob or a list was named, where one bad file must not stop the others.
    """

    files: list[Found] = field(default_factory=list)
    num_left_alone: int = 0
    num_results: int = 0
    closed: dict[str, str] = field(default_factory=dict)
    forgiving: bool = False


def find_inputs(names: Sequence[str], *, lists: Sequence[str] = (), root: Path) -> Discovery:
    """Find every input.

    Args:
        names: files, folders and globs.
        lists: files with a name in each line; ``-`` is standard input.
        root: the folder of the results; it and the results that lie in the inputs' folders are no inputs.

    Raises:
        InputNotFound: a name that is neither there nor a glob that finds something.
        InputError: a list or a folder that cannot be read.
    """
    found = Discovery(forgiving=bool(lists))
    for name in names:
        found.files += _expand(name, root.absolute(), found)
    for line in (line for file in lists for line in read_list(file)):
        try:
            found.files += _expand(line, root.absolute(), found)
        except InputNotFound:  # one name of many: it fails by itself, later
            found.files.append(Found(Path(line).absolute(), Path(Path(line).name)))
    unique = {os.path.realpath(file.path): file for file in reversed(found.files)}
    found.files = sorted(unique.values(), key=lambda file: os.fsencode(file.path))
    return found


def read_list(name: str) -> list[str]:
    """Return the names in a list: one a line, empty lines and lines that begin with # left out.

    Raises:
        InputError: it cannot be read, or is no text.
    """
    try:
        content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as cause:
        raise InputError(f"{name}: expected a list of files, got {cause.strerror}; check the name") from cause
    if b"\0" in content:
        raise InputError(f"{name}: expected a list of files, a name in each line, got a zero byte; check the file")
    lines = (os.fsdecode(line.removesuffix(b"\r")) for line in content.split(b"\n"))
    return [line for line in lines if line.strip() and not line.startswith("#")]


def _expand(name: str, root: Path, found: Discovery) -> Iterator[Found]:
    path = Path(name).absolute()
    if os.path.isdir(path):  # noqa: PTH112 (which says no of a name that is too long)
        found.forgiving = True
        yield from _walk(path, root, found)
    elif os.path.lexists(path) or not glob.has_magic(name):
        if not os.path.lexists(path):
            raise InputNotFound(f"{name}: no such file or folder: expected videos; check the name")
        yield Found(path, Path(path.name))
    else:
        yield from _glob(name, root, found)


def _glob(name: str, root: Path, found: Discovery) -> Iterator[Found]:
    """Give the files that a glob finds, below the part of it that has no wildcard."""
    fixed = Path(*_fixed_parts(Path(name).absolute()))
    found.forgiving = True
    hits = sorted(glob.iglob(str(Path(name).absolute()), recursive=True))  # noqa: PTH207 (Path takes no absolute pattern)
    if not hits:
        raise InputNotFound(f"{name}: no file fits: expected videos; check the pattern")
    for hit in map(Path, hits):
        if hit.is_dir():
            if "**" not in name:
                yield from (Found(file.path, file.path.relative_to(fixed)) for file in _walk(hit, root, found))
        elif _is_source(hit, fixed, root, found):
            yield Found(hit, hit.relative_to(fixed))


def _fixed_parts(path: Path) -> Iterator[str]:
    for part in path.parts[:-1]:
        if glob.has_magic(part):
            return
        yield part


def _walk(folder: Path, root: Path, found: Discovery) -> Iterator[Found]:
    """Give the videos of a folder and of all below it; links to folders are not followed."""

    def refuse(cause: OSError) -> None:
        message = f"{cause.filename}: expected a folder of videos, got {cause.strerror}; check its permissions"
        if Path(cause.filename) == folder:
            raise InputError(message)
        found.closed[str(cause.filename)] = message

    for place, folders, names in os.walk(folder, onerror=refuse):
        here = Path(place)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and here / name != root)
        for name in sorted(names):
            if _is_source(here / name, folder, root, found):
                yield Found(here / name, (here / name).relative_to(folder))


def _is_source(path: Path, base: Path, root: Path, found: Discovery) -> bool:
    """Whether a file that nobody named is an input: a video by its name, no hidden file, no result of ours."""
    if path.name.startswith(".") or (base in root.parents and root in path.parents):
        return False
    if not (path.suffix.lower() in SUFFIXES or (not path.suffix and is_dicom(path))):
        found.num_left_alone += 1
        return False
    if is_result(path):
        found.num_results += 1
        return False
    return True
