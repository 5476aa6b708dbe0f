"""Where results go: a tree that mirrors the inputs', or names made by a template; never two inputs in one place."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from streamsr.batch.inputs import Found
from streamsr.engine import Engine
from streamsr.errors import UsageError

MIRROR = "%(folder)s/%(stem)s_%(engine)s.%(ext)s"
"""The template where none is given."""

FIELDS = ("folder", "stem", "name", "ext", "engine", "scale")

HOUSE = ".streamsr"
"""The folder below the results' root that holds the journal, finished segments and work that is under way."""


@dataclass(frozen=True)
class Destination:
    """Where results go.

    Attributes:
        root: the folder of all results and of the journal.
        template: names below it.
    """

    root: Path
    template: str = MIRROR

    @property
    def house(self) -> Path:
        """The folder of the journal and of what is under way."""
        return self.root / HOUSE


def parse_destination(output: str) -> Destination:
    """Return the destination that ``-o`` names: a folder, or a template whose folders without fields are the root.

    >>> parse_destination("out/%(folder)s/%(stem)s_x2.%(ext)s")
    Destination(root=PosixPath('out'), template='%(folder)s/%(stem)s_x2.%(ext)s')

    Raises:
        UsageError: a field that there is not, or a template without a name in it.
    """
    if "%(" not in output:
        return Destination(Path(output))
    parts = PurePath(output).parts
    first = next(place for place, part in enumerate(parts) if "%(" in part)
    destination = Destination(Path(*parts[:first]), str(PurePath(*parts[first:])))
    _fill(destination.template, dict.fromkeys(FIELDS, "x"))
    return destination


def name_outputs(
    files: Sequence[Found],
    destination: Destination,
    engine: Engine,
    *,
    ext: str,
    known: Mapping[str, str] | None = None,
) -> dict[str, Found]:
    """Give each input a name of its own.

    Where two inputs of different folders would meet, each keeps its folder's name below what their folders share; where
    they lie in one folder, their suffixes become part of their names; so too with a template that has the folder in
    it. Without a template, an earlier run's names are kept.

    Args:
        files: the inputs.
        destination: where to.
        engine: part of the names.
        ext: suffix of the results, without its dot.
        known: input to output, as an earlier run of this destination named them.

    Returns:
        Output, relative to the root, to input.

    Raises:
        UsageError: the template gives two inputs one name.
    """
    before = (known or {}) if destination.template == MIRROR else {}
    named = {str(file.path): _named(destination.template, file, engine, ext) for file in files}
    clashes = _clashes(named)
    for name in clashes if "%(folder)s" in destination.template else []:
        group = [file for file in files if named[str(file.path)] == name]
        named |= _part(group, destination.template, engine, ext)
    if clashes := _clashes(named):
        first, second = [path for path, name in named.items() if name == clashes[0]][:2]
        raise UsageError(
            f"{destination.root / clashes[0]}: expected one input for each output, got {first} and {second}; "
            + _way_out(destination.template, Path(first), Path(second))
        )
    taken = {output for path, output in before.items() if path in named}
    outputs: dict[str, Found] = {}
    for file in files:
        path = str(file.path)
        output = before.get(path, named[path])
        if path not in before and output in taken:
            output = _named(MIRROR, Found(file.path, Path(*file.path.parts[1:])), engine, ext)
        outputs[output] = file
    return outputs


def _clashes(named: Mapping[str, str]) -> list[str]:
    return [name for name, number in Counter(named.values()).items() if number > 1]


def _way_out(template: str, first: Path, second: Path) -> str:
    """Return what in a template keeps two inputs apart that have one name."""
    differing = {"%(folder)s": first.parent != second.parent, "%(name)s": first.name != second.name}
    fields = [field for field, differs in differing.items() if differs and field not in template]
    return f"put {' and '.join(fields)} into the template" if fields else "name one of them in a run of its own"


def _part(group: Sequence[Found], template: str, engine: Engine, ext: str) -> dict[str, str]:
    """Return names that keep inputs apart which would have one."""
    shared = os.path.commonpath([file.path.parent for file in group])
    relative = {str(file.path): file.path.relative_to(shared) for file in group}
    stems = Counter(path.with_suffix("") for path in relative.values())
    return {
        str(file.path): _named(
            template
            if stems[(path := relative[str(file.path)]).with_suffix("")] == 1
            else template.replace("%(stem)s", "%(name)s"),
            Found(file.path, path),
            engine,
            ext,
        )
        for file in group
    }


def _named(template: str, file: Found, engine: Engine, ext: str) -> str:
    folder = file.relative.parent
    values = {
        "folder": str(folder),
        "stem": file.path.stem,
        "name": file.path.name,
        "ext": ext,
        "engine": engine.name,
        "scale": str(engine.scale),
    }
    return _fill(template, values)


def _fill(template: str, values: Mapping[str, str]) -> str:
    """Return a template with its fields filled in, as a plain relative path.

    Raises:
        UsageError: it has other fields, is no path below the root, or has no suffix.
    """
    try:
        path = PurePath(template % values)
    except (KeyError, ValueError, TypeError) as cause:
        raise UsageError(
            f"{template}: expected fields such as {_listed(FIELDS)}, got {cause}; write %% for a percent sign"
        ) from cause
    if path.is_absolute() or ".." in path.parts or not path.suffix or path.parts[0] == HOUSE:
        raise UsageError(f"{template}: expected names below one folder that end in .%(ext)s, got {path}")
    return path.as_posix()


def _listed(fields: Iterable[str]) -> str:
    return ", ".join(f"%({field})s" for field in fields)
