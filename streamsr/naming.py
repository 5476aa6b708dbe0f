"""Where results go: names made from the source and the engine; the source itself is never a target."""

from __future__ import annotations

from pathlib import Path

from streamsr.engine import Engine
from streamsr.errors import OutputError, StreamsrError, UsageError


def output_path(source: str, output: str | Path | None, engine: Engine, *, several: bool = False) -> Path:
    """Return where a result goes.

    Args:
        source: file name or URL of the source.
        output: a file, or a folder (existing, or written with a slash at its end); None is beside the source, or the
            present folder where the source is no file.
        engine: part of the name that is made.
        several: whether there are several sources, so that ``output`` has to be a folder.

    Raises:
        UsageError: several sources cannot go into one file, or the result would replace its source.
        OutputError: the folder that is asked for cannot be made, or a name is longer than the system holds.
    """
    try:
        return _output_path(source, output, engine, several=several)
    except StreamsrError:
        raise
    except OSError as cause:
        raise OutputError(
            f"{source}: expected names that the system holds, got {cause.strerror}; shorten it"
        ) from cause


def _output_path(source: str, output: str | Path | None, engine: Engine, *, several: bool) -> Path:
    path = Path(source)
    is_file = path.is_file()
    stem = path.stem if is_file else source.replace(":", "-").split(",")[0].replace("/", "-")
    name = f"{stem}_{engine.name}.mkv"
    if output is None:
        made = (path.parent if is_file else Path()) / name
    elif is_folder(output) or (several and not Path(output).suffix):
        made = make_folder(Path(output)) / name
    elif several:
        raise UsageError(f"{output}: expected a folder for several inputs, got a file name; name a folder with -o")
    else:
        made = Path(output)
    if is_file and made.exists() and made.samefile(path):
        raise UsageError(f"{made}: expected an output other than the input, got the same file; name another with -o")
    return made


def is_folder(output: str | Path) -> bool:
    """Return whether an output is a folder: there already, or written with a slash at its end."""
    return str(output).endswith("/") or Path(output).is_dir()


def make_folder(folder: Path) -> Path:
    """Make a folder with all above it where it is missing, and return it.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise OutputError(
            f"{folder}: expected a folder for results, got {cause.strerror}; name another with -o"
        ) from cause
    return folder
