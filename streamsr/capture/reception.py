"""Read a live source with PyAV: packets to whoever keeps them, pictures decoded past damage and made into frames."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import av
from av.codec.context import ThreadType
from av.container import InputContainer
from av.video.frame import VideoFrame

from streamsr.capture.addresses import Address, exact_rate
from streamsr.capture.base import SourceInfo
from streamsr.capture.decode import picture_pts
from streamsr.capture.delivery import Arrivals, Delivery
from streamsr.capture.devices import describe_modes
from streamsr.capture.keeping import OriginalKeeper
from streamsr.capture.opening import NO_TIMESTAMPS, TEXT_DEMUXERS, choose_video, list_tracks, stated_rate
from streamsr.capture.pictures import FrameMaker, Sampling
from streamsr.capture.times import JUMP_BACK_S
from streamsr.capture.unparsed import FORMATS, OPTION, SCANNED, SoundSplitter, begins_key_frame
from streamsr.config import usable_cores
from streamsr.errors import InputError
from streamsr.frame import Colour, PlaneLayout

DEFAULT_RATE = Fraction(25)
JUMP_AHEAD_S = 10
"""A step between two pictures beyond which their times belong to different recordings."""

MOST_ERRORS = 64
"""Read errors in a row, without a packet between them, after which a source counts as lost."""

MOST_DOUBTS = 3
"""Openings in a row that found no video before a network source is said to have none."""

PACKETLESS = frozenset({"rawvideo", "wrapped_avframe"})
"""Codecs whose packets are the pictures themselves: kept coded, without loss, or the disk would be full in minutes."""

MOST_THREADS = 4
"""Slices decoded at once; whole frames side by side would each cost a frame of delay."""


class SourceLost(Exception):
    """A source that gives no more.

    Attributes:
        proof: so many openings in a row that end like this show that waiting will not mend it; 0 where none do.
    """

    def __init__(self, text: str, *, proof: int = 0) -> None:
        super().__init__(text)
        self.proof = proof


class Reception:
    """One opening of a source that FFmpeg can read. Owned by the thread that reads.

    Args:
        address: of the source.
        delivery: takes the frames.
        keeper: takes the packets.

    Attributes:
        address: with what was learnt of the source, for the next opening.

    Raises:
        SourceLost: it cannot be opened, or holds no video.
    """

    def __init__(self, address: Address, delivery: Delivery, keeper: OriginalKeeper) -> None:
        self._delivery, self._keeper = delivery, keeper
        self._container, self.address = open_live(address)
        try:
            self._begin()
        except InputError as cause:
            raise SourceLost(str(cause), proof=1) from cause

    def run(self) -> None:
        """Read to the end.

        Raises:
            SourceLost: it failed before.
        """
        try:
            for packet in self._packets():
                self._take(packet, time.monotonic_ns())
            self._finish()
        finally:
            if self._keeper.end_source():
                self._container.close()

    def _begin(self) -> None:
        address, container = self.address, self._container
        self._video, notices = choose_video(container, address.shown)
        tracks, left_out = list_tracks(container)
        context = self._video.codec_context
        context.thread_type, context.thread_count = ThreadType.SLICE, min(MOST_THREADS, usable_cores())
        self._context: Any = context
        timed = not container.format.flags & NO_TIMESTAMPS
        rate = stated_rate(self._video, timed=timed) or exact_rate(address) or DEFAULT_RATE
        time_base = self._video.time_base or Fraction(1, 1000) if timed else 1 / rate
        self._sampling = Sampling(
            codec=context.name,
            time_base=time_base,
            rate=rate,
            timed=timed,
            sample_aspect=self._video.sample_aspect_ratio or Fraction(1),
            deinterlace=address.deinterlace,
        )
        self._packetless = context.name in PACKETLESS
        self._tracks = [self._video, *(track.template for track in tracks if track.kind == "audio")]
        recorded = (
            address.kind == "network" and bool(container.duration) and not container.format.name.startswith("hls")
        )
        self._splitters = {track.index: SoundSplitter(track) for track in self._tracks[1:] if address.whole}
        self._delivery.open(paced=address.paced or recorded)
        for notice in notices + left_out:
            self._delivery.note(notice)
        asked = dict(address.options).get("video_size")
        if address.kind == "device" and asked not in (None, f"{context.width}x{context.height}"):
            self._delivery.note(f"{asked} was asked for, the device gives {context.width}x{context.height}")
        if recorded and not address.paced:
            self._delivery.note("a recording, not a live source: played at its own pace")
        self._facts = self._know()
        self._shape: tuple[int, int, str] | None = None
        self._start_stretch()
        self._keeper.begin_source([] if self._packetless else self._tracks, rate)

    def _know(self) -> SourceInfo:
        sampling = self._sampling
        duration = self._container.duration if self.address.kind == "file" and not self.address.loop else None
        return SourceInfo(
            name=self.address.shown,
            width=self._context.width,
            height=self._context.height,
            layout=PlaneLayout(),
            colour=Colour(1, False, 1, 1),
            time_base=sampling.time_base,
            rate=sampling.rate,
            duration_s=None if duration is None else duration / 1e6,
            codec=sampling.codec,
            pix_fmt=str(self._context.pix_fmt),
        )

    def _start_stretch(self) -> None:
        self._maker = FrameMaker(self._sampling, self._delivery.note)
        self._arrivals = Arrivals()
        self._last_s: Fraction | None = None

    def _packets(self) -> Iterator[Any]:
        """Read packets, going on past errors that pass."""
        num_errors = 0
        while True:
            try:
                for packet in self._container.demux(self._tracks):
                    if packet.size == 0 and packet.pts is None and packet.dts is None:
                        continue
                    num_errors = 0
                    yield packet
                return
            except av.error.FFmpegError as cause:
                num_errors += 1
                if num_errors > MOST_ERRORS or not isinstance(cause, av.error.InvalidDataError):
                    raise SourceLost(f"{self.address.shown}: {reason_of(cause, self.address)}") from cause
                self._delivery.damage()

    def _take(self, packet: Any, arrived_ns: int) -> None:
        self._delivery.alive()
        if packet.stream_index != self._video.index:
            self._take_sound(packet, arrived_ns)
            return
        if packet.is_corrupt:
            self._delivery.damage()
        pictures = self._decode(packet)
        differing = [picture for picture in pictures if self._differs(picture)]
        if differing:
            self._keeper.renew()
        if not self._packetless and self._keeper.is_wanted:
            self._mark_key_frame(packet, pictures)
            self._keeper.take(packet, is_video=True, arrived_ns=arrived_ns)
        for picture in pictures:
            self._show(picture, arrived_ns)

    def _take_sound(self, packet: Any, arrived_ns: int) -> None:
        splitter = self._splitters.get(packet.stream_index)
        if not self._keeper.is_wanted:
            return
        for piece in [packet] if splitter is None else splitter.split(packet):
            self._keeper.take(piece, is_video=False, arrived_ns=arrived_ns)

    def _mark_key_frame(self, packet: Any, pictures: list[VideoFrame]) -> None:
        """Say what the parser, where it is not used, would have said."""
        if not self.address.whole or packet.is_keyframe:
            return
        codec = self._sampling.codec
        if codec in SCANNED:
            packet.is_keyframe = begins_key_frame(bytes(packet), codec)
        else:
            packet.is_keyframe = any(picture.key_frame for picture in pictures)

    def _decode(self, packet: Any) -> list[VideoFrame]:
        try:
            return list(self._context.decode(packet))
        except av.error.FFmpegError:
            if packet is not None:
                self._delivery.damage()
            return []

    def _differs(self, picture: VideoFrame) -> bool:
        """Return whether a picture is of another size, format or recording than those before it."""
        before, self._shape = self._shape, (picture.width, picture.height, picture.format.name)
        return self._jumps(picture) or before not in (None, self._shape)

    def _jumps(self, picture: VideoFrame) -> bool:
        pts = picture_pts(picture)
        if pts is None or self._last_s is None or not self._sampling.timed:
            return False
        return not -JUMP_BACK_S < pts * self._sampling.time_base - self._last_s < JUMP_AHEAD_S

    def _show(self, picture: VideoFrame, arrived_ns: int) -> None:
        if picture.is_corrupt:
            self._delivery.damage()
        self._watch_time(picture)
        if self._packetless:
            self._keeper.take_picture(picture, arrived_ns=arrived_ns)
        self._arrivals.add(arrived_ns)
        try:
            for frame in self._maker.make(picture):
                self._delivery.give(frame, self._facts, self._arrivals.take())
        except InputError as cause:
            raise SourceLost(str(cause), proof=1) from cause

    def _watch_time(self, picture: VideoFrame) -> None:
        """Begin a new stretch where the source's clock jumps."""
        if self._jumps(picture):
            self._flush()
            self._start_stretch()
            self._delivery.jump()
            self._delivery.note("the source's clock jumps: times are joined")
        pts = picture_pts(picture)
        self._last_s = None if pts is None else pts * self._sampling.time_base

    def _finish(self) -> None:
        for picture in self._decode(None):
            self._show(picture, time.monotonic_ns())
        self._flush()

    def _flush(self) -> None:
        for frame in self._maker.flush():
            self._delivery.give(frame, self._facts, self._arrivals.take())


def open_live(address: Address) -> tuple[InputContainer, Address]:
    """Open a source with PyAV, in bounded time as far as FFmpeg heeds it.

    A web server's transport stream is only known as such once it is open, and is opened once more.

    Returns:
        The source, and its address with what was learnt.

    Raises:
        SourceLost: it cannot be opened.
    """
    container = _open(address)
    if container.format.name in TEXT_DEMUXERS:
        raise SourceLost(f"{address.shown}: expected a video, found text; check the name", proof=1)
    if address.target.startswith("http") and container.format.name in FORMATS and not address.whole:
        container.close()
        address = replace(address, whole=True)
        container = _open(address)
    return container, address


def _open(address: Address) -> InputContainer:
    try:
        return av.open(
            address.target,
            format=address.demuxer,
            options={**(OPTION if address.whole else {}), **dict(address.options)},
            metadata_errors="replace",
            timeout=None if address.may_stall else (address.open_timeout_s, address.read_timeout_s),
        )
    except av.error.FFmpegError as cause:
        text = f"{address.shown}: cannot be opened: {reason_of(cause, address, opening=True)}"
        offers = describe_modes(address.target) if address.kind == "device" else ""
        text += f"; it offers {offers}" if offers else ""
        raise SourceLost(text, proof=proof_of(cause, address)) from cause


def reason_of(cause: av.error.FFmpegError, address: Address, *, opening: bool = False) -> str:
    """Say what FFmpeg met, in words that hold no part of the address."""
    if isinstance(cause, (av.error.ExitError, av.error.TimeoutError)):
        return f"nothing came within {address.open_timeout_s if opening else address.read_timeout_s:g} s"
    if isinstance(cause, av.error.EOFError):
        return "it ended before its first picture"
    if isinstance(cause, av.error.InvalidDataError):
        return "expected video, found other data; check the source and --input-format"
    if cause.errno == errno.EBUSY:
        return "it is busy: close the program that uses it"
    if address.kind == "device" and cause.errno == errno.EINVAL:
        return "it does not offer this size, rate or format; see streamsr devices"
    return str(cause.strerror or "it failed")


def proof_of(cause: av.error.FFmpegError, address: Address) -> int:
    """Return how many openings in a row must end with an error to show that waiting will not mend it; 0: none do."""
    if isinstance(cause, av.error.InvalidDataError):
        # A network source may have been met in the middle of damage.
        return MOST_DOUBTS if address.recurs else 1
    if isinstance(cause, av.error.EOFError):
        return 0 if address.recurs else 1
    lasting = (
        av.error.HTTPClientError,
        av.error.LookupError,
        av.error.FileNotFoundError,
        av.error.PermissionError,
        av.error.ArgumentError,
    )
    return int(isinstance(cause, lasting) or cause.errno == errno.EBUSY)
