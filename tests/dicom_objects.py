"""Make DICOM objects of test videos, and damage them: `python -m tests.dicom_objects FOLDER 300` opens 300 of those."""

from __future__ import annotations

import io
import random
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.videos import make_video

PATIENT = {
    "PatientName": "Zebedee^Quentin",
    "PatientID": "MRN-7734-XYZZY",
    "PatientBirthDate": "19410229",
    "PatientSex": "O",
    "StudyInstanceUID": "2.25.111",
    "SeriesInstanceUID": "2.25.222",
    "SOPInstanceUID": "2.25.333",
    "StudyDate": "20240101",
    "StudyTime": "101112",
    "AccessionNumber": "ACC42",
    "StudyID": "S1",
    "SeriesNumber": 3,
    "ReferringPhysicianName": "Plugh^Doctor",
    "Manufacturer": "Scope Works",
    "ManufacturerModelName": "Scope 9",
    "InstitutionName": "Hollow Hospital",
}
"""Attributes whose values stand nowhere else."""

H264, H264_42, HEVC, MPEG2 = (f"1.2.840.10008.1.2.4.{number}" for number in (102, 104, 107, 100))


def make_object(
    path: Path,
    bits: bytes,
    uid: str = H264,
    *,
    sizes: Sequence[int] | None = None,
    delimited: bool = True,
    **attributes: Any,
) -> Path:
    """Write a Video Endoscopic Image around a bitstream and return its path.

    Args:
        path: of the object.
        bits: the bitstream.
        uid: the transfer syntax.
        sizes: of the fragments, the last of which takes the rest; None makes one.
        delimited: whether the object ends as it should.
        attributes: further ones, or others than `PATIENT`.
    """
    from pydicom.dataset import Dataset, FileMetaDataset

    data_set: Any = Dataset()
    for keyword, value in {**PATIENT, **attributes}.items():
        if value is not None:
            setattr(data_set, keyword, value)
    data_set.SOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.1.1"
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = uid
    head = io.BytesIO()
    data_set.save_as(head, enforce_file_format=True, implicit_vr=False, little_endian=True)
    parts = [head.getvalue(), b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff", b"\xfe\xff\x00\xe0\0\0\0\0"]
    start = 0
    for size in [*(sizes or ()), len(bits)]:
        piece = bits[start : start + size]
        start += size
        if piece:
            parts += [b"\xfe\xff\x00\xe0", len(piece).to_bytes(4, "little"), piece]
    parts += [b"\xfe\xff\xdd\xe0\0\0\0\0"] if delimited else []
    path.write_bytes(b"".join(parts))
    return path


def make_dicom(path: Path, uid: str = H264, *, suffix: str = ".mp4", **changes: Any) -> Path:
    """Make a video and an object around it; ``changes`` in capitals are attributes, others fields of `VideoSpec`."""
    attributes = {key: changes.pop(key) for key in list(changes) if key[0].isupper()}
    video = make_video(path.with_suffix(suffix), **changes)
    made = make_object(path, video.read_bytes(), uid, **attributes)
    video.unlink()
    return made


def damage(content: bytes, random_source: random.Random) -> bytes:
    """Return a file damaged as disks, networks and enemies do."""
    damaged = bytearray(content)
    head = random_source.random() < 0.5
    for _ in range(random_source.choice((1, 2, 8, 40))):
        end = min(len(damaged), 1800) if head else len(damaged)
        place = random_source.randrange(132, end)
        kind = random_source.randrange(5)
        if kind == 0:
            damaged[place] = random_source.randrange(256)
        elif kind == 1:
            damaged[place : place + 4] = random_source.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xfe\xff\xdd\xe0"))
        elif kind == 2:
            del damaged[place : place + random_source.choice((1, 2, 100))]
        elif kind == 3:
            damaged[place:place] = damaged[place : place + random_source.choice((1, 8, 64))]
        else:
            damaged[place : place + 2] = random_source.randbytes(2)
        if len(damaged) < 200:
            break
    if random_source.random() < 0.2:
        del damaged[random_source.randrange(132, len(damaged)) :]
    return bytes(damaged)


def main(folder: Path, num_tries: int) -> int:
    """Open damaged objects to their end; print what failed otherwise than by one of our errors, and count that."""
    from streamsr.capture import open_source
    from streamsr.dicom.attributes import Derivation
    from streamsr.dicom.writing import check_source
    from streamsr.errors import StreamsrError

    raw = {"options": {"profile": "high"}, "container_format": "h264", "suffix": ".h264"}
    makes: list[dict[str, Any]] = [
        {"FrameTime": "40"},
        {"suffix": ".ts", "NumberOfFrames": 10},
        {**raw, "FrameTimeVector": [0, 40, 40, 50, 60]},
    ]
    whole = [make_dicom(folder / f"{number}.dcm", **make).read_bytes() for number, make in enumerate(makes)]
    num_failed = 0
    for number in range(num_tries):
        random_source = random.Random(number)
        bad = folder / "bad.dcm"
        bad.write_bytes(damage(whole[number % len(whole)], random_source))
        try:
            with open_source(bad, threads=1) as source:
                for _ in source:
                    pass
            check_source(bad, Derivation("", synthetic=True, model="m"))
        except StreamsrError as error:
            if "\n" in str(error):
                num_failed += 1
                print(f"{number}: more than one line: {error}")
        except Exception:
            num_failed += 1
            print(f"{number}: {traceback.format_exc()}")
    return num_failed


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
