"""Write a video as a DICOM object, derived from another one or from none."""

from __future__ import annotations

import io
import os
import secrets
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO
from uuid import NAMESPACE_DNS, uuid5

from streamsr import __version__
from streamsr.dicom import need_pydicom
from streamsr.dicom.attributes import Derivation, Place, describe_derived
from streamsr.dicom.bitstreams import Bitstream, read_bitstream
from streamsr.dicom.fragments import DELIMITER, ITEM, PIXEL_DATA, UNDEFINED, find_fragments
from streamsr.dicom.objects import read_attributes, syntax_of
from streamsr.dicom.syntaxes import H264_LEVEL_41, VideoSyntax, match_syntax
from streamsr.errors import InputError, OutputExists, StreamsrError

IMPLEMENTATION_UID = f"2.25.{uuid5(NAMESPACE_DNS, 'streamsr').int}"
LARGEST_FRAGMENT = 0xFFFFFFFE
"""Bytes: the largest even length that 32 bits hold and that does not mean "undefined"."""

COPY_BYTES = 1 << 20


def new_place() -> Place:
    """Return a new series, and a new study for what has none.

    Raises:
        UsageError: pydicom is missing.
    """
    need_pydicom()
    from pydicom.uid import generate_uid

    return Place(study_uid=str(generate_uid(prefix=None)), series_uid=str(generate_uid(prefix=None)))


def read_source(path: Path) -> tuple[Any, int]:
    """Return the attributes of a source object, and the bytes of its bitstream.

    Raises:
        InputError: it is no DICOM object with video, or says not what it is.
        UsageError: pydicom is missing.
    """
    with path.open("rb") as file:
        data_set = read_attributes(file, path)
        syntax_of(data_set, path)
        fragments = find_fragments(file, path)
    with _refusing_damage(path):
        for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID"):
            if not data_set.get(keyword):
                raise InputError(f"{path}: expected a DICOM object with a {keyword}, found none; write .mkv instead")
    return data_set, fragments.num_bytes


def write_derived(
    source: str | Path | None,
    video: str | Path,
    out: str | Path,
    *,
    derivation: Derivation,
    place: Place | None = None,
    overwrite: bool = False,
    largest_fragment: int = LARGEST_FRAGMENT,
) -> VideoSyntax:
    """Write a video as a Video Endoscopic Image derived from a source object, aside, then renamed into place.

    Args:
        source: the DICOM object that it was made from; patient and study are its. None makes an object that names no
            patient and stands in a study of its own.
        video: an MP4 or MPEG-TS file with H.264 or HEVC, which becomes the bitstream as it is.
        out: the object; it may be ``video`` itself.
        derivation: how the video was made.
        place: where it is filed; None makes a new series.
        overwrite: whether ``out`` may be replaced.
        largest_fragment: bytes; a longer bitstream becomes several fragments, in a syntax that allows them.

    Returns:
        The transfer syntax.

    Raises:
        InputError: the source cannot be read.
        UsageError: no DICOM video can hold this one, or pydicom is missing.
        OutputExists: ``out`` is there and may not be replaced.
        OSError: it cannot be written.
    """
    need_pydicom()
    video, out = Path(video), Path(out)
    if out.exists() and not overwrite:
        raise OutputExists(f"{out} is already there: choose another name, or allow it to be overwritten")
    found = read_bitstream(video)
    syntax = match_syntax(found.codec, found.profile, found.level, found.width, found.height, found.rate)
    data_set, num_bytes = (None, 0) if source is None else read_source(Path(source))
    uid = syntax.fragmentable_uid if found.num_bytes > largest_fragment else syntax.uid
    with _refusing_damage(source):
        head = _encode(describe_derived(data_set, num_bytes, found, syntax, derivation, place or new_place()), uid)
    _write(head, video, out, largest_fragment)
    return syntax


def check_source(path: Path, derivation: Derivation) -> None:
    """Try all that will be taken from a source object, so that a damaged one is refused before work begins.

    Raises:
        InputError: it cannot be taken.
        UsageError: pydicom is missing.
    """
    data_set, num_bytes = read_source(path)
    stand_in = Bitstream("h264", "High", 41, 16, 16, Fraction(25), (Fraction(0),), num_bytes=1, has_sound=True)
    with _refusing_damage(path):
        _encode(
            describe_derived(data_set, num_bytes, stand_in, H264_LEVEL_41, derivation, new_place()), H264_LEVEL_41.uid
        )


@contextmanager
def _refusing_damage(source: str | Path | None) -> Iterator[None]:
    """Turn what pydicom raises on a source's damaged values, which is no closed list, into one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except StreamsrError:
        raise
    except Exception as cause:
        raise InputError(
            f"{source}: expected attributes that can be copied, found damaged ones ({type(cause).__name__}); "
            "write .mkv instead"
        ) from cause


def _encode(made: Any, uid: str) -> bytes:
    """Return the file up to its pixel data."""
    from pydicom.dataset import FileMetaDataset

    meta: Any = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = made.SOPClassUID, made.SOPInstanceUID
    meta.TransferSyntaxUID, meta.ImplementationClassUID = uid, IMPLEMENTATION_UID
    meta.ImplementationVersionName = f"STREAMSR_{__version__}"[:16]
    made.file_meta = meta
    head = io.BytesIO()
    made.save_as(head, enforce_file_format=True)
    return head.getvalue()


def _write(head: bytes, video: Path, out: Path, largest_fragment: int) -> None:
    aside = out.with_name(f".{secrets.token_hex(8)}.part")  # never longer than a name that the disk holds
    try:
        with aside.open("xb") as file, video.open("rb") as bits:
            file.write(head + PIXEL_DATA + b"OB\0\0" + UNDEFINED)
            file.write(ITEM + bytes(4))  # no offset table: a video is not addressed by frame
            _encapsulate(file, bits, video.stat().st_size, largest_fragment)
            file.write(DELIMITER + bytes(4))
            file.flush()
            os.fsync(file.fileno())
        aside.replace(out)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def _encapsulate(file: BinaryIO, bits: BinaryIO, num_bytes: int, largest_fragment: int) -> None:
    """Write a bitstream as fragments of even length (PS3.5, A.4)."""
    left = num_bytes
    while left > 0:
        size = min(left, largest_fragment)
        file.write(ITEM + (size + size % 2).to_bytes(4, "little"))
        if size == num_bytes:
            shutil.copyfileobj(bits, file, COPY_BYTES)
        else:
            for start in range(0, size, COPY_BYTES):
                file.write(bits.read(min(COPY_BYTES, size - start)))
        file.write(bytes(size % 2))
        left -= size
