"""The error tree. Every message says what was expected, what came, and what to do next, in one line.

    StreamsrError                     exit code 1
    ├── UsageError (ValueError)       2   an option or argument that cannot be
    ├── InputError                    3   a source that cannot be opened or holds no video
    │   ├── InputNotFound (FileNotFoundError)
    │   └── InputUnsupported              it can be read, and holds nothing that can be enlarged
    ├── EngineError                   4   a generator that is missing, damaged or cannot run here
    │   ├── EngineNotFound (LookupError)
    │   ├── EngineTampered
    │   └── GpuFault                      the GPU failed or lacks memory; a processor may still do it
    ├── OutputError (OSError)         5   a result that cannot be written
    │   ├── OutputExists (FileExistsError)   2
    │   └── DiskFull
    ├── ResultDiffers                 1   a result that is not what its source or its sidecar says
    └── Interrupted                   130 asked to stop before the end

The end of a video is no error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

COMMANDING = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""What a terminal obeys in place of showing it: C0 and C1 controls, ends of lines, and turns of the direction."""


def printable(text: str) -> str:
    r"""Return a text in one line with everything that a terminal would obey escaped; names of files may hold any of it.

    >>> print(printable("a\nb\x1b[31m.mkv"))
    a\nb\x1b[31m.mkv
    """
    return COMMANDING.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


class StreamsrError(Exception):
    """Anything streamsr raises on purpose; as text it is one line that a terminal shows as it is.

    Attributes:
        exit_code: what the command line returns when this ends a command.
    """

    exit_code = 1

    def __str__(self) -> str:
        return printable(super().__str__())


class UsageError(StreamsrError, ValueError):
    """An option or argument that cannot be."""

    exit_code = 2


class InputError(StreamsrError):
    """A source that cannot be opened, or holds no video."""

    exit_code = 3


class InputNotFound(InputError, FileNotFoundError):
    """A source that is not there."""


class InputUnsupported(InputError):
    """A source that can be read and holds no video, or none that can be decoded."""


class EngineError(StreamsrError):
    """A generator that cannot be used."""

    exit_code = 4


class EngineNotFound(EngineError, LookupError):
    """A generator that the catalogue does not hold."""


class EngineTampered(EngineError):
    """Weights or a manifest whose hash is not the stated one."""


class GpuFault(EngineError):
    """A GPU that failed, was lost or has too little memory; the same generator may still run on a processor."""


class GpuMemoryFault(GpuFault):
    """A GPU that has too little memory for what it was asked; with less at a time it may go on."""


class OutputError(StreamsrError, OSError):
    """A result that cannot be written."""

    exit_code = 5


class OutputExists(OutputError, FileExistsError):
    """A result that is already there and may not be replaced."""

    exit_code = 2


class DiskFull(OutputError):
    """No space left for the result."""


class ResultDiffers(StreamsrError):
    """A result that is not what its source, or what was written down about it, says."""


class Interrupted(StreamsrError):
    """The user asked to stop before the end."""

    exit_code = 130


@contextmanager
def needing_extra(name: str) -> Iterator[None]:
    """Turn a missing package into one line.

    Args:
        name: of the extra, and of the command that needs it.

    Raises:
        EngineError: a package of the extra is missing.
    """
    try:
        yield
    except ImportError as cause:
        raise EngineError(
            f"{name}: expected the packages of the extra {name!r}, got {cause}; pip install 'streamsr[{name}]'"
        ) from cause
