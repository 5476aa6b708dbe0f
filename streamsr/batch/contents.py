"""What files hold, read with PyAV alone: when pictures are shown, and the packets of sound."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

from av.container import InputContainer
from av.error import FFmpegError

from streamsr.capture.base import SourceReport
from streamsr.capture.decode import read_packets
from streamsr.capture.opening import list_tracks, open_container
from streamsr.dicom import is_dicom
from streamsr.errors import ResultDiffers

Keep = Callable[[int, float, Any], None]
"""Takes the number of a picture, when it is shown, in seconds, and the decoded picture."""

ADTS_SYNC = 0xFFF
"""The first 12 bits of a header that transport files put before every AAC frame, and other containers take away."""


@dataclass(frozen=True)
class Times:
    """When the pictures of a video are shown.

    Attributes:
        seconds: of each, rising.
        end_s: when the last one's time is over; None where its duration is not known.
    """

    seconds: tuple[Fraction, ...]
    end_s: Fraction | None

    @property
    def slack_s(self) -> Fraction:
        """By how much two ends may differ: half a picture, or what steps differ by where the rate is not constant.

        MP4 states how long a picture lasts by decode times, which are those of other pictures where pictures are
        reordered.
        """
        steps = [later - earlier for earlier, later in pairwise(self.seconds)]
        return max(max(steps) - min(steps), min(steps) / 2) if steps else Fraction(1)


@dataclass
class Content:
    """What a file holds.

    Attributes:
        times: of its pictures.
        sound: of each sound track, the hashes of its packets, in order.
        sound_sha256: of each sound track, the hash of all its bytes together.
    """

    times: Times
    sound: list[list[bytes]] = field(default_factory=list)
    sound_sha256: list[str] = field(default_factory=list)


def is_plain(path: Path) -> bool:
    """Whether a source is a file whose times are those of its own packets; DICOM may say others."""
    return path.is_file() and not is_dicom(path)


@contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """Open a file, or the video inside a DICOM object.

    Raises:
        InputError: it cannot be opened.
        UsageError: pydicom is missing.
    """
    if not is_dicom(path):
        with open_container(path) as container:
            yield container
        return
    from streamsr.dicom.objects import read_object

    inside, file = read_object(path).open_bitstream()
    try:
        with inside:
            yield inside
    finally:
        file.close()


def content_of(path: Path, first: int = 0, keep: Keep | None = None) -> Content:
    """Decode a result to its end.

    Args:
        path: the file.
        first: number of its first picture.
        keep: takes each picture.

    Raises:
        ResultDiffers: it cannot be decoded to its end.
        InputError: it cannot be opened.
    """
    seconds: list[Fraction] = []
    ends: list[Fraction] = []
    sound: dict[int, list[bytes]] = {}
    whole: dict[int, Any] = {}

    def show(shown_s: Fraction, picture: Any) -> None:
        if keep is not None:
            keep(first + len(seconds), float(shown_s), picture)
        seconds.append(shown_s)

    try:
        with opened(path) as container:
            video = container.streams.video[0]
            video.codec_context.thread_type = "AUTO"
            for track in container.streams.audio:
                sound[track.index], whole[track.index] = [], hashlib.sha256()
            for packet in container.demux(video, *container.streams.audio):
                if not packet.size:
                    continue
                if packet.stream_index == video.index:
                    ends.append(((packet.pts or 0) + (packet.duration or 0)) * packet.time_base)
                    _decode(packet, video, show)
                else:
                    data = bytes(packet)
                    sound[packet.stream_index].append(hashlib.sha256(data).digest())
                    whole[packet.stream_index].update(data)
            _decode(None, video, show)
    except FFmpegError as cause:
        raise ResultDiffers(f"{path.name}: expected to be decoded to its end, got {cause.strerror}") from cause
    if not seconds:
        raise ResultDiffers(f"{path.name}: expected pictures, found none")
    hashes = [digest.hexdigest() for digest in whole.values()]
    return Content(Times(tuple(seconds), max(ends, default=None)), list(sound.values()), hashes)


def _decode(packet: Any, video: Any, show: Callable[[Fraction, Any], None]) -> None:
    for picture in video.codec_context.decode(packet):
        if picture.is_corrupt or picture.pts is None:
            raise ResultDiffers("expected whole pictures with a time, got a damaged one; do it again")
        show(picture.pts * Fraction(video.time_base), picture)


@dataclass(frozen=True)
class Sound:
    """A sound track: its codec, the hashes of its packets, and that of all its bytes together."""

    codec: str
    packets: list[bytes]
    sha256: str


def sound_of(path: Path) -> list[Sound]:
    """Return the sound tracks of a file that can be copied, without headers that belong to transport files alone."""
    with opened(path) as container:
        tracks = [track for track in list_tracks(container)[0] if track.kind == "audio"]
        found: dict[int, list[bytes]] = {track.index: [] for track in tracks}
        whole = {track.index: hashlib.sha256() for track in tracks}
        bare = {track.index for track in tracks if track.codec == "aac" and not track.template.codec_context.extradata}
        for packet in read_packets(container, [track.template for track in tracks], SourceReport()) if tracks else ():
            if packet.size:
                data = bytes(packet)
                data = without_adts(data) if packet.stream_index in bare else data
                found[packet.stream_index].append(hashlib.sha256(data).digest())
                whole[packet.stream_index].update(data)
        return [Sound(track.codec, found[track.index], whole[track.index].hexdigest()) for track in tracks]


def without_adts(data: bytes) -> bytes:
    """Return an AAC frame without its ADTS header (ISO/IEC 13818-7, 6.2): 7 bytes, or 9 with a checksum."""
    if len(data) < 9 or (data[0] << 4 | data[1] >> 4) != ADTS_SYNC:
        return data
    return data[7 if data[1] & 1 else 9 :]
