"""What a DICOM object says about the video in it. Nothing that names a patient is read here."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer

from streamsr.dicom import need_pydicom
from streamsr.dicom.fragments import FragmentFile, Fragments, find_fragments
from streamsr.dicom.syntaxes import codec_of
from streamsr.errors import InputError

TIMING = (
    "NumberOfFrames",
    "FrameTime",
    "FrameTimeVector",
    "CineRate",
    "RecommendedDisplayFrameRate",
)
HIGHEST_RATE = 1000
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,mpegts,mpeg,mpegvideo,h264,hevc"
"""FFmpeg's names of what PS3.5 lets a bitstream be: MP4, MPEG-TS, MPEG-PS and bare ones. Lists of other files, which
FFmpeg would go and open, are not among them."""

BUFFER_BYTES = 256 << 10


@dataclass(frozen=True)
class VideoObject:
    """A DICOM object with a video in it.

    Attributes:
        path: of the object.
        syntax_uid: its transfer syntax.
        syntax: the name of that.
        codec: that the syntax promises, as FFmpeg names its decoder.
        fragments: where the bitstream is.
        num_frames: as the object says; None where it does not.
        rate: frames a second, as the object says; None where it does not.
        rate_from: the attribute that says so.
        frame_times_us: when each picture is shown, in microseconds; empty unless the object lists them.
    """

    path: Path
    syntax_uid: str
    syntax: str
    codec: str
    fragments: Fragments
    num_frames: int | None
    rate: Fraction | None
    rate_from: str
    frame_times_us: tuple[int, ...]

    def open_bitstream(self) -> tuple[InputContainer, FragmentFile]:
        """Open what is inside with PyAV, which reads it where it lies.

        Returns:
            The container, and the file under it, which is to be closed after it.

        Raises:
            InputError: it is not what the object says.
        """
        file = FragmentFile(self.path, self.fragments)
        try:
            container: InputContainer = av.open(
                file, "r", metadata_errors="replace", buffer_size=BUFFER_BYTES, options={"format_whitelist": FORMATS}
            )
        except (av.error.FFmpegError, ValueError) as cause:
            file.close()
            lead = "the object was cut" if not self.fragments.whole else getattr(cause, "strerror", None) or str(cause)
            raise InputError(
                f"{self.path}: expected {self.syntax} in the DICOM object, found no readable video ({lead}); "
                "copy or export it again"
            ) from cause
        return container, file


def read_object(path: Path) -> VideoObject:
    """Read what a DICOM object says about its video; the bitstream itself is left alone.

    Raises:
        InputError: no DICOM object, one without video, or one that cannot be read.
        UsageError: pydicom is missing.
    """
    try:
        with path.open("rb") as file:
            data_set = read_attributes(file, path, TIMING)
            uid, title = syntax_of(data_set, path)
            fragments = find_fragments(file, path)
    except OSError as cause:
        raise InputError(f"{path}: cannot be read ({cause.strerror}): expected a DICOM object; check it") from cause
    if not fragments.starts:
        raise InputError(f"{path}: expected {title}, found a DICOM object without a picture; copy or export it again")
    rate, rate_from, times_us = _timing(data_set)
    return VideoObject(
        path=path,
        syntax_uid=uid,
        syntax=title,
        codec=str(codec_of(uid)),
        fragments=fragments,
        num_frames=_count(data_set),
        rate=rate,
        rate_from=rate_from,
        frame_times_us=times_us,
    )


def read_attributes(file: Any, path: Path, keywords: tuple[str, ...] | None = None) -> Any:
    """Return a DICOM object's attributes before its pixel data, and leave the file at that.

    Args:
        file: open, at its beginning.
        path: for messages.
        keywords: what is read; None reads all.

    Raises:
        InputError: it is damaged.
        UsageError: pydicom is missing.
    """
    pydicom = need_pydicom()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pydicom.dcmread(
                file, stop_before_pixels=True, specific_tags=None if keywords is None else list(keywords)
            )
    except OSError:
        raise
    except Exception as cause:  # what pydicom raises on damage is no closed list
        raise InputError(
            f"{path}: expected a DICOM object, found a damaged one ({type(cause).__name__}); copy it again"
        ) from cause


def syntax_of(data_set: Any, path: Path) -> tuple[str, str]:
    """Return the transfer syntax of an object that was read, and its name.

    Raises:
        InputError: it is none of video.
    """
    uid = str(getattr(data_set.file_meta, "TransferSyntaxUID", "") or "")
    title = str(getattr(data_set.file_meta.get("TransferSyntaxUID"), "name", "") or uid) if uid else "none"
    if codec_of(uid) is None:
        shown = "".join(mark if mark.isprintable() else "?" for mark in title[:80])
        raise InputError(
            f"{path}: expected DICOM video (MPEG-2, H.264 or HEVC), found the transfer syntax {shown}; "
            "export it as video first"
        )
    return uid, title


def _count(data_set: Any) -> int | None:
    given = _numbers(data_set, "NumberOfFrames")
    return int(given[0]) if given and 1 <= given[0] < 2**31 else None


def _timing(data_set: Any) -> tuple[Fraction | None, str, tuple[int, ...]]:
    """Return rate, the attribute it comes from, and the times of the pictures where each has its own."""
    steps_ms = _numbers(data_set, "FrameTimeVector")
    if len(steps_ms) > 1 and min(steps_ms) >= 0 and _is_rate(1000 * (len(steps_ms) - 1), sum(steps_ms[1:])):
        rate = _exact(1000 * (len(steps_ms) - 1) / sum(steps_ms[1:]))
        # The first step is from nowhere to the first picture (PS3.3, C.7.6.5): time starts with that.
        times_ms = accumulate([0.0, *steps_ms[1:]])
        return rate, "FrameTimeVector", tuple(round(time_ms * 1000) for time_ms in times_ms)
    for keyword in ("FrameTime", "CineRate", "RecommendedDisplayFrameRate"):
        given = _numbers(data_set, keyword)
        parts = (1000.0, given[0]) if given and keyword == "FrameTime" else (given[0], 1.0) if given else (0.0, 1.0)
        if _is_rate(*parts):
            return _exact(parts[0] / parts[1]), keyword, ()
    return None, "", ()


def _is_rate(amount: float, seconds: float) -> bool:
    return seconds > 0 and amount > 0 and 1e-3 <= amount / seconds <= HIGHEST_RATE


def _exact(rate: float) -> Fraction:
    """Return a rate, as the film or broadcast rate that its decimals stand for.

    >>> _exact(1000 / 33.3667), _exact(1000 / 33.33), _exact(25.0)
    (Fraction(30000, 1001), Fraction(30, 1), Fraction(25, 1))
    """
    for base in (1000, 1001):
        near = Fraction(round(rate * base / 1000) * 1000, base)
        if near > 0 and abs(float(near) / rate - 1) < 2e-4:
            return near
    return Fraction(rate).limit_denominator(1001)


def _numbers(data_set: Any, keyword: str) -> list[float]:
    """Return the finite numbers of an attribute; none where it is missing or is no number."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = data_set.get(keyword)
            values = [value] if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__") else value
            found = [float(number) for number in values if number not in (None, "")]
    except Exception:  # what pydicom raises on a damaged value is no closed list; such a value says nothing
        return []
    return found if all(map(math.isfinite, found)) else []
