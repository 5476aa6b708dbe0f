"""DICOM objects that hold video: read as an ordinary source, and written as objects derived from one.

`is_dicom` needs nothing; everything else needs pydicom, the extra ``dicom``.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from streamsr.errors import UsageError

__all__ = ["is_dicom", "need_pydicom"]

PREAMBLE_BYTES = 128


def is_dicom(path: Path) -> bool:
    """Return whether a file begins as DICOM files do (PS3.10, 7.1), whatever its name; what cannot be read does not."""
    try:
        if not path.is_file():
            return False  # opening a pipe would wait for its writer
        with path.open("rb") as file:
            return file.read(PREAMBLE_BYTES + 4)[PREAMBLE_BYTES:] == b"DICM"
    except (OSError, ValueError):
        return False


def need_pydicom() -> ModuleType:
    """Return pydicom.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import pydicom
    except ModuleNotFoundError as missing:
        raise UsageError("DICOM needs pydicom: pip install 'streamsr[dicom]'") from missing
    return pydicom
