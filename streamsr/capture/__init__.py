"""Capture: where frames come from."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from streamsr.capture.base import Source, SourceInfo

if TYPE_CHECKING:
    from streamsr.capture.files import FileSource

__all__ = ["open_source", "probe"]

TEST_PREFIX = "testsrc:"


def open_source(
    name: str | Path,
    *,
    rate: Fraction | float | None = None,
    resize: str = "parts",
    deinterlace: str = "auto",
    threads: int = 0,
    hwaccel: str = "none",
) -> Source:
    """Open a source by its name.

    Args:
        name: a path of a video file or of a DICOM object with video, or ``testsrc:endoscopy[:key=value,...]`` for the
            rendered test picture (see
            `streamsr.capture.testsrc.open_test_source` for its keys).
        rate: frames a second of a file without times; others ignore it.
        resize: ``parts`` or ``fit``, for a change of size in mid-file.
        deinterlace: ``auto``, ``on`` or ``off``.
        threads: for decoding; 0 lets FFmpeg choose.
        hwaccel: ``cuda`` decodes video files on an NVIDIA GPU where it can; ``none`` in software.

    Returns:
        The open source; use it in a ``with``.

    Raises:
        InputError: it cannot be opened or holds no video.
        UsageError: an option or a test source that cannot be.
    """
    if str(name).startswith(TEST_PREFIX):
        from streamsr.capture.testsrc import open_test_source

        return open_test_source(str(name).removeprefix(TEST_PREFIX))
    return _open_file(name, rate=rate, resize=resize, deinterlace=deinterlace, threads=threads, hwaccel=hwaccel)


def probe(name: str | Path) -> SourceInfo:
    """Open a source, and return what is known of it before its first frame.

    Raises:
        InputError: it cannot be opened or holds no video.
    """
    with open_source(name) as source:
        return source.info


def _open_file(
    name: str | Path, *, rate: Fraction | float | None, resize: str, deinterlace: str, threads: int, hwaccel: str
) -> FileSource:
    from streamsr.capture.files import FileSource
    from streamsr.dicom import is_dicom

    exact = None if rate is None else Fraction(rate).limit_denominator(1001)
    if is_dicom(Path(name)):
        from streamsr.capture.dicom_files import DicomSource

        return DicomSource(name, rate=exact, resize=resize, deinterlace=deinterlace, threads=threads, hwaccel=hwaccel)
    return FileSource(name, rate=exact, resize=resize, deinterlace=deinterlace, threads=threads, hwaccel=hwaccel)
