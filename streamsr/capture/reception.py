"""Read a live source with PyAV: packets to whoever keeps them, pictures decoded past damage and made into frames."""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
from av.codec.context import ThreadType
from av.video.frame import VideoFrame

from streamsr.capture.addresses import Address, exact_rate
from streamsr.capture.base import SourceInfo
from streamsr.capture.damage import Damage
from streamsr.capture.decode import picture_pts
from streamsr.capture.delivery import Arrivals, Delivery
from streamsr.capture.keeping import OriginalKeeper
from streamsr.capture.live_opening import SourceLost, open_live, reason_of
from streamsr.capture.opening import NO_TIMESTAMPS, choose_video, list_tracks, stated_rate
from streamsr.capture.pictures import FrameMaker, Sampling
from streamsr.capture.silence import HOLDING, Silence
from streamsr.capture.times import JUMP_BACK_S
from streamsr.capture.unparsed import SCANNED, SoundSplitter, begins_key_frame
from streamsr.config import usable_cores
from streamsr.errors import InputError
from streamsr.frame import Colour, PlaneLayout

DEFAULT_RATE = Fraction(25)
JUMP_AHEAD_S = 10
"""A step between two pictures beyond which their times belong to different recordings."""

MOST_ERRORS = 64
"""Read errors in a row, without a packet between them, after which a source counts as lost."""

PACKETLESS = frozenset({"rawvideo", "wrapped_avframe"})
"""Codecs whose packets are the pictures themselves: kept coded, without loss, or the disk would be full in minutes."""

MOST_THREADS = 4
"""Slices decoded at once; whole frames side by side would each cost a frame of delay."""


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
            self._silence.ask(time.monotonic_ns())
            for packet in self._packets():
                now_ns = time.monotonic_ns()
                self._silence.answer(now_ns)
                self._take(packet, now_ns)
                self._silence.ask(time.monotonic_ns())
            self._finish()
        finally:
            if self._keeper.end_source():
                self._container.close()

    def _begin(self) -> None:
        """Choose the tracks, and make what turns their packets into frames."""
        address, container = self.address, self._container
        self._damage = Damage(self._delivery.damage)
        self._video, notices = choose_video(container, address.shown)
        tracks, left_out = list_tracks(container)
        self._tracks = [self._video, *(track.template for track in tracks if track.kind == "audio")]
        self._splitters = {track.index: SoundSplitter(track) for track in self._tracks[1:] if address.whole}
        context = self._video.codec_context
        context.thread_type, context.thread_count = ThreadType.SLICE, min(MOST_THREADS, usable_cores())
        self._context: Any = context
        self._packetless = context.name in PACKETLESS
        self._sampling = self._sample()
        self._facts = self._know()
        self._shape: tuple[int, int, str] | None = None
        is_hls = container.format.name.startswith("hls")
        self._comes_in_time = address.kind != "file" and not is_hls  # a disk that is slow is no camera that pauses
        self._silence = Silence(1 / float(self._sampling.rate), holds=container.format.name in HOLDING)
        self._start_stretch()
        recorded = address.kind == "network" and bool(container.duration) and not is_hls
        self._delivery.open(paced=address.paced or recorded)
        for notice in notices + left_out + self._surprises(recorded):
            self._delivery.note(notice)
        self._keeper.begin_source([] if self._packetless else self._tracks, self._sampling.rate)

    def _sample(self) -> Sampling:
        """Say how the pictures are timed: by the source where it states times, else by the rate that was given."""
        timed = not self._container.format.flags & NO_TIMESTAMPS
        stated, given = stated_rate(self._video, timed=timed), exact_rate(self.address)
        rate = (stated or given if timed else given or stated) or DEFAULT_RATE
        return Sampling(
            codec=self._context.name,
            time_base=self._video.time_base or Fraction(1, 1000) if timed else 1 / rate,
            rate=rate,
            timed=timed,
            sample_aspect=self._video.sample_aspect_ratio or Fraction(1),
            deinterlace=self.address.deinterlace,
        )

    def _surprises(self, recorded: bool) -> list[str]:
        """Return what the user may not expect of this source, one line each."""
        asked, given = dict(self.address.options).get("video_size"), f"{self._context.width}x{self._context.height}"
        lines = ["a recording, not a live source: played at its own pace"] if recorded else []
        if self.address.kind == "device" and asked not in (None, given):
            lines.append(f"{asked} was asked for, the device gives {given}")
        return lines

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
                self._damage.gap()

    def _take(self, packet: Any, arrived_ns: int) -> None:
        self._delivery.alive()
        if packet.stream_index != self._video.index:
            self._take_sound(packet, arrived_ns)
            return
        if packet.is_corrupt:
            self._damage.packet(packet.pts)
        self._note_time(packet, arrived_ns)
        pictures = self._decode(packet)
        differing = [picture for picture in pictures if self._differs(picture)]
        if differing:
            self._keeper.renew()
        if not self._packetless and self._keeper.is_wanted:
            self._mark_key_frame(packet, pictures)
            self._keeper.take(packet, is_video=True, arrived_ns=arrived_ns)
        for picture in pictures:
            self._show(picture, arrived_ns)

    def _note_time(self, packet: Any, arrived_ns: int) -> None:
        """Look whether there was a silence before a packet; what is still inside since then is left out."""
        if not self._comes_in_time:
            return
        moment, num_before = packet.dts if packet.dts is not None else packet.pts, self._silence.num_silences
        seconds = None if moment is None or packet.time_base is None else moment * packet.time_base
        self._silence.packet(packet.pts if packet.pts is not None else packet.dts, seconds, arrived_ns)
        if self._silence.num_silences > num_before:
            self._empty()

    def _empty(self) -> None:
        """Leave out the pictures that the deinterlacer held over a silence."""
        for _ in self._maker.flush():
            self._arrivals.take()
            self._delivery.leave_out()

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
                self._damage.packet(packet.pts)
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
        self._damage.picture(picture.pts, is_damaged=picture.is_corrupt)
        if self._silence.is_stale(picture_pts(picture), arrived_ns):
            self._delivery.leave_out()
            return
        self._watch_time(picture)
        self._arrivals.add(arrived_ns)
        try:
            for frame in self._maker.make(picture):
                self._delivery.give(frame, self._facts, self._arrivals.take())
        except InputError as cause:
            raise SourceLost(str(cause), proof=1) from cause
        if self._packetless:
            self._keeper.take_picture(picture, arrived_ns=arrived_ns)

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
        now_ns, num_before = time.monotonic_ns(), self._silence.num_silences
        self._silence.answer(now_ns)
        if self._comes_in_time:
            self._silence.end()
        if self._silence.num_silences > num_before:
            self._empty()
        for picture in self._decode(None):
            self._show(picture, now_ns)
        self._flush()
        self._delivery.tell_left_out()

    def _flush(self) -> None:
        for frame in self._maker.flush():
            self._delivery.give(frame, self._facts, self._arrivals.take())
