"""Keep the original: the source's own packets beside whatever is made of them, in a thread that nothing waits for."""

from __future__ import annotations

import errno
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from av.error import FFmpegError
from av.stream import Stream
from av.video.frame import VideoFrame

from streamsr.capture.segments import PacketSegment, PictureSegment
from streamsr.space import TAIL_BYTES, room_bytes

MOST_WAITING_BYTES = 64 << 20
"""What may wait for a slow disk: 20 s at 25 Mb/s, or 20 raw pictures of 1080p. Beyond it packets are lost, and said."""

NUM_WRITERS = 1
"""Whose ends are left room for: this one's. What records beside it keeps twice as much free, so it stops first, and its
owner ends keeping with it."""

DRAIN_S = 0.5

SEGMENT_BYTES = 1 << 30
"""A larger file is continued in a next one at a key frame, so that the last one can be hashed while a session ends."""


@dataclass(frozen=True)
class _Item:
    """A packet or a picture that came."""

    content: Any
    is_video: bool
    is_start: bool
    arrived_ns: int
    num_bytes: int


class OriginalKeeper:
    """Writes what a source gives into files of their own. Its methods return at once; the disk's work has its thread.

    A file begins with a key frame and ends when the source is lost, its pictures change, the disk could not follow, it
    has become large, or keeping ends. Files are named in the order ``keeping`` (begun) and ``kept`` (complete).

    Args:
        tell: takes (kind, text), in the keeper's thread.
        reserve_bytes: disk space that is left free, and room for the recording beside it to end in; keeping ends before
            either is touched. 0 fills the disk.
        preroll_s: what is kept from before the moment of asking.
    """

    def __init__(self, tell: Callable[[str, str], None], *, reserve_bytes: int, preroll_s: float) -> None:
        self._tell, self._reserve_bytes, self._preroll_s = tell, reserve_bytes, preroll_s
        self._folder: Path | None = None
        self._tracks: list[Stream] = []
        self._rate = Fraction(25)
        self._segment: PacketSegment | PictureSegment | None = None
        self._recent: deque[_Item] = deque()
        self._tasks: deque[tuple[Callable[[], None], int]] = deque()
        self._waiting_bytes = 0
        self._overran = self._closing = False
        self._wanted = preroll_s > 0
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._serve, name="streamsr-keeper")
        self._thread.start()

    def keep(self, folder: str | None) -> None:
        """Keep from now on, or no longer."""
        self._wanted = folder is not None or self._preroll_s > 0
        self._ask(lambda: self._set_folder(None if folder is None else Path(folder)))

    @property
    def is_wanted(self) -> bool:
        """Whether what comes now may be kept."""
        return self._wanted

    def begin_source(self, tracks: list[Stream], rate: Fraction) -> None:
        """Say what is read from now on.

        Args:
            tracks: open ones, the video first; none where there are only pictures.
            rate: frames a second, nominal.
        """
        self._ask(lambda: self._begin(tracks, rate))

    def take(self, packet: Any, *, is_video: bool, arrived_ns: int) -> None:
        """Take a packet; nobody else may use it afterwards."""
        if self._wanted:
            starts = is_video and packet.is_keyframe
            self._offer(_Item(packet, is_video, starts, arrived_ns, packet.size))

    def take_picture(self, picture: VideoFrame, *, arrived_ns: int) -> None:
        """Take a picture of a source without packets; its samples stay, its times become those of the file."""
        if self._wanted:
            num_bytes = sum(plane.buffer_size for plane in picture.planes)
            self._offer(_Item(picture, True, True, arrived_ns, num_bytes))

    def renew(self) -> None:
        """Begin a new file with the next key frame: the pictures are different from here on."""
        self._ask(self._end_stretch)

    def end_source(self) -> bool:
        """Say that the source ended; return whether its tracks are no longer used, so that it may be closed."""
        done = threading.Event()

        def end() -> None:
            self._end_stretch()
            self._tracks = []
            done.set()

        self._ask(end)
        return done.wait(DRAIN_S)

    def close(self, timeout_s: float) -> None:
        """End the file, as far as the time goes; a file that is cut short still plays."""
        self._wanted = False
        self._ask(lambda: self._set_folder(None))
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)

    def _offer(self, item: _Item) -> None:
        if self._waiting_bytes > MOST_WAITING_BYTES:
            self._overran = True
            return
        self._ask(lambda: self._add(item), item.num_bytes)

    def _ask(self, task: Callable[[], None], num_bytes: int = 0) -> None:
        with self._changed:
            self._tasks.append((task, num_bytes))
            self._waiting_bytes += num_bytes
            self._changed.notify_all()

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._tasks or self._closing)
                if not self._tasks:
                    return
                task, num_bytes = self._tasks.popleft()
            try:
                task()
            except (OSError, FFmpegError, ValueError) as cause:
                self._give_up(cause)
            with self._changed:
                self._waiting_bytes -= num_bytes

    def _set_folder(self, folder: Path | None) -> None:
        if folder == self._folder:
            return
        self._end_segment()
        self._folder = folder
        recent, self._recent = list(self._recent), deque()
        for item in recent if folder is not None else ():
            self._add(item)

    def _begin(self, tracks: list[Stream], rate: Fraction) -> None:
        self._tracks, self._rate = tracks, rate

    def _add(self, item: _Item) -> None:
        if self._overran:
            self._overran = False
            self._end_stretch()
            self._tell("unkept", "the disk is too slow for the original: some of it is missing")
        if self._folder is None:
            self._remember(item)
            return
        if self._is_short_of_space(self._folder, item.num_bytes):
            margin_mib = NUM_WRITERS * TAIL_BYTES >> 20
            self._stop(
                f"less than {self._reserve_bytes >> 20} MiB, and {margin_mib} MiB to end in, would stay free in"
                f" {self._folder}"
            )
            return
        if self._segment is not None and item.is_start and self._segment.num_bytes >= SEGMENT_BYTES:
            self._end_segment()
        if self._segment is None:
            if not item.is_start:
                return
            self._segment = self._start_segment(self._folder, item)
            self._tell("keeping", str(self._segment.path))
        self._segment.write(item.content, item.arrived_ns)

    def _start_segment(self, folder: Path, first: _Item) -> PacketSegment | PictureSegment:
        if self._tracks:
            return PacketSegment(folder, self._tracks)
        self._tell("notice", "the source has pictures and no packets: they are kept without loss (FFV1)")
        return PictureSegment(folder, first.content, self._rate)

    def _remember(self, item: _Item) -> None:
        """Hold the newest seconds, from a key frame on."""
        recent = self._recent
        if recent or item.is_start:
            recent.append(item)
        starts = [place for place, kept in enumerate(recent) if kept.is_start]
        oldest_ns = item.arrived_ns - round(self._preroll_s * 1e9)
        passed = [place for place in starts if recent[place].arrived_ns <= oldest_ns]
        for _ in range(passed[-1] if passed else 0):
            recent.popleft()
        if sum(kept.num_bytes for kept in recent) > MOST_WAITING_BYTES:
            recent.clear()

    def _is_short_of_space(self, folder: Path, num_bytes: int) -> bool:
        """Return whether a packet would touch the reserve; asked for each, as the recorder beside it does."""
        if not self._reserve_bytes:
            return False
        return room_bytes(folder, self._reserve_bytes, num_writers=NUM_WRITERS) < num_bytes

    def _end_stretch(self) -> None:
        self._recent.clear()
        self._end_segment()

    def _end_segment(self) -> None:
        segment, self._segment = self._segment, None
        if segment is None:
            return
        try:
            segment.close()
        finally:
            refused = f", {segment.num_refused} packets refused" if segment.num_refused else ""
            self._tell("kept", f"{segment.path} ({segment.num_packets} packets, {segment.num_bytes} bytes{refused})")

    def _give_up(self, cause: Exception) -> None:
        if getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            self._stop(f"no space left in {self._folder}")
        else:
            self._stop(str(getattr(cause, "strerror", None) or cause))

    def _stop(self, why: str) -> None:
        """End keeping; showing goes on."""
        with suppress(OSError, FFmpegError):  # what was flushed before plays
            self._end_stretch()
        self._folder = None
        self._wanted = self._preroll_s > 0
        self._tell("unkept", f"the original is no longer kept: {why}")
