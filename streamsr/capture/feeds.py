"""ProcessFeed: a live source read by a process of its own, watched, and opened again when it is lost."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from enum import Enum
from pathlib import Path

from streamsr.capture.addresses import Address, find_address
from streamsr.capture.base import SourceInfo
from streamsr.capture.forms import frame_of, info_of
from streamsr.capture.listening import FeedEvent, FeedListener, FeedState
from streamsr.capture.pacing import Continuity
from streamsr.capture.readers import LEAVE_S, ReaderProcess
from streamsr.capture.wire import Message, WireError
from streamsr.config import FeedSettings
from streamsr.errors import InputError, UsageError

__all__ = ["ProcessFeed", "open_feed"]

LOOK_S = 0.1
"""How long a wait lasts before it is looked whether to stop."""

BACK_OFF_S, BACK_OFF_GROWS, MOST_BACK_OFF_S = 0.25, 1.6, 1.0
"""Between two openings: a feed that returns just after one is seen within a second and the time it takes to open."""

START_S = 15.0
"""For a process to start: 0.3 s on an idle machine, seconds on one that builds an engine meanwhile."""

GRACE_S = 0.25
"""How much longer than FFmpeg's own limits the watchdog waits, so that the reader can say what happened."""

PERIODS = 3
"""Silence of so many periods is no loss yet, however short the timeout: capsules give a picture a second."""


def open_feed(name: str, settings: FeedSettings | None = None) -> ProcessFeed:
    """Return the feed of a source; it is opened when it is run.

    Args:
        name: ``/dev/video0``, a URL, ``-`` for standard input, ``testsrc:endoscopy[:...]``, ``lavfi:GRAPH``, or a file
            to be played at its own pace.
        settings: how it is opened and read.

    Raises:
        InputNotFound: no such file or device.
        InputError: a folder, or something else that holds no live video.
        UsageError: an empty name, an unknown protocol, or settings that do not fit the source.
    """
    return ProcessFeed(find_address(name, settings or FeedSettings()))


class _Verdict(Enum):
    """How an opening ended: it may be tried again, or the source is over."""

    LOST = "lost"
    OVER = "over"


class ProcessFeed:
    """A `Feed` whose source is read by a process of its own, since FFmpeg can hang for ever on a dead one.

    The thread that calls `run` owns the process: it hears it with bounded waits, ends it when it is silent for too
    long, and starts another. The process drops frames that this one is too slow to take, all but the newest; `run`
    hands over at once what it takes, so nothing else here waits or drops.

    Args:
        address: of the source.

    Attributes:
        num_reconnects: how often it was opened again.
        num_damaged: packets and pictures that were damaged.
        reader_pid: of the process that reads at present; None where there is none.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.num_reconnects = self.num_damaged = 0
        self.reader_pid: int | None = None
        self._continuity = Continuity()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._folder: str | None = None
        self._reader: ReaderProcess | None = None
        self._has_run = self._has_opened = self._stalls = False
        self._info: SourceInfo | None = None
        self._kept_now: str | None = None
        self._damaged_before = self._num_refusals = 0

    @property
    def num_dropped(self) -> int:
        """Frames dropped before they were received; their numbers are missing from the sequence."""
        return self._continuity.num_dropped

    def run(self, listener: FeedListener) -> None:
        """Read until the source ends for good or `stop` is called; call it once, in a thread of its own.

        Raises:
            InputError: it could not be opened the first time, for a reason that waiting cannot mend.
            UsageError: it was run before.
        """
        if self._has_run:
            raise UsageError("a feed runs once; open another one")
        self._has_run = True
        back_off_s, num_tries, before = BACK_OFF_S, 0, 0
        try:
            while self._watch(listener) is _Verdict.LOST:
                if self._continuity.num_placed > before:
                    back_off_s, num_tries, before = BACK_OFF_S, 0, self._continuity.num_placed
                num_tries += 1
                self._tell(listener, FeedState.RETRYING, f"{self.address.shown}: opening again, try {num_tries}")
                self._need_reader()  # it starts while there is nothing to do but wait
                self._stopping.wait(back_off_s)
                back_off_s = min(back_off_s * BACK_OFF_GROWS, MOST_BACK_OFF_S)
        finally:
            self._let_go(listener)

    def keep_original(self, folder: str | None) -> None:
        """Write the source's own packets into a folder from now on; None ends that; returns at once.

        Raises:
            InputError: there is no such folder.
        """
        if folder is not None and not Path(folder).is_dir():
            raise InputError(f"{folder}: expected a folder to keep the original in, found none; create it")
        with self._lock:
            self._folder = None if folder is None else str(Path(folder).absolute())
            if self._reader is not None:
                self._reader.tell(keep=self._folder)

    def stop(self) -> None:
        """Make `run` return within a second, whatever the source does; may be called from any thread, twice too."""
        self._stopping.set()

    def _watch(self, listener: FeedListener) -> _Verdict:
        """Have the source opened, and hear of it until it is lost, over, or not wanted any more."""
        if self._stopping.is_set():
            return _Verdict.OVER
        self._info, self._stalls = None, False
        reader, asked, heard_s = self._need_reader(), False, time.monotonic()
        while not self._stopping.is_set():
            if reader.is_ready and not asked:
                reader.tell(open=self.address.to_json())
                asked, heard_s = True, time.monotonic()
            try:
                message = reader.read(LOOK_S)
                verdict = None if message is None else self._heed(message, listener)
            except EOFError:
                return self._lose(listener, reader.how_it_ended())
            except WireError as cause:
                return self._lose(listener, str(cause))
            if verdict is not None:
                return verdict
            if message is not None:
                heard_s = time.monotonic()
            elif time.monotonic() - heard_s > self._patience_s(asked) and not self._may_wait(asked, listener):
                return self._lose(listener, self._silence(asked))
        return _Verdict.OVER

    def _patience_s(self, asked: bool) -> float:
        """Return how long the reader may be silent."""
        if not asked:
            return START_S
        if self._info is None:
            return self.address.open_timeout_s + GRACE_S
        return max(self.address.read_timeout_s, PERIODS / float(self._info.rate)) + GRACE_S

    def _silence(self, asked: bool) -> str:
        if not asked:
            return f"its reader did not start within {START_S:g} s"
        return f"nothing came for {self._patience_s(asked):.2g} s"

    def _may_wait(self, asked: bool, listener: FeedListener) -> bool:
        """Return whether a silent source is left open, and say so once."""
        if not (asked and self.address.may_stall):
            return False
        if not self._stalls:
            self._stalls = True
            self._tell(listener, FeedState.LOST, f"{self.address.shown}: {self._silence(asked)}: waiting for more")
        return True

    def _lose(self, listener: FeedListener, why: str) -> _Verdict:
        """End a reader that died, hangs or talks nonsense."""
        self._tell(listener, FeedState.LOST, f"{self.address.shown}: {why}")
        self._drop_reader(listener)
        if self.address.kind != "pipe":
            return _Verdict.LOST
        self._tell(listener, FeedState.ENDED, f"{self.address.shown}: cannot be taken up again in the middle")
        return _Verdict.OVER

    def _heed(self, message: Message, listener: FeedListener) -> _Verdict | None:
        """Pass on what the reader says; return how the opening ended, once it has."""
        kind, text = message.head.get("kind"), str(message.head.get("text", ""))
        if kind == "frame":
            self._receive(message, listener)
        elif kind == "opened":
            self._open(info_of(message.head["info"]), text, listener)
        elif kind == "changed":
            self._info = info_of(message.head["info"])
            self._tell(listener, FeedState.CHANGED, text, self._info)
        elif kind in ("notice", "unkept"):
            self._tell(listener, FeedState(kind), text)
        elif kind in ("keeping", "kept"):
            self._note_kept(kind, text, listener)
        elif kind in ("lost", "ended"):
            return self._end_opening(kind, text, int(message.head.get("proof", 0)), listener)
        return None

    def _receive(self, message: Message, listener: FeedListener) -> None:
        frame, head = frame_of(message), message.head
        self.num_damaged = self._damaged_before + int(head["damaged"])
        placed = self._continuity.place(frame, self.reader_pid, head["stretch"])
        if self._stalls and self._info is not None:
            self._stalls = False
            self._tell(listener, FeedState.OPENED, f"{self.address.shown}: goes on", self._info)
        listener.receive(placed)

    def _open(self, info: SourceInfo, text: str, listener: FeedListener) -> None:
        self.num_reconnects += self._has_opened and self.address.kind != "file"  # which begins anew to be looped
        self._has_opened, self._stalls, self._info = True, False, info
        self._tell(listener, FeedState.OPENED, f"{self.address.shown}: {text}", info)

    def _end_opening(self, kind: str, text: str, proof: int, listener: FeedListener) -> _Verdict:
        if kind == "lost":
            self._num_refusals += proof > 0
            if 0 < proof <= self._num_refusals and not self._has_opened:
                raise InputError(text)
            self._tell(listener, FeedState.LOST, text)
            if self.address.recurs:
                return _Verdict.LOST
        self._tell(listener, FeedState.ENDED, text)
        return _Verdict.OVER

    def _note_kept(self, kind: str, text: str, listener: FeedListener) -> None:
        if kind == "keeping":
            self._kept_now = text
            self._tell(listener, FeedState.NOTICE, f"keeping the original in {text}", kept=text)
        else:
            kept, self._kept_now = self._kept_now, None
            self._tell(listener, FeedState.KEPT, text, kept=kept)

    def _tell(
        self,
        listener: FeedListener,
        state: FeedState,
        text: str,
        info: SourceInfo | None = None,
        *,
        kept: str | None = None,
        cut_short: bool = False,
    ) -> None:
        path = None if kept is None else Path(kept)
        listener.tell(FeedEvent(state, text, time.monotonic_ns(), info, path, cut_short))

    def _need_reader(self) -> ReaderProcess:
        """Return the process that reads, started if there is none."""
        reader = self._reader
        if reader is None:
            reader = ReaderProcess(takes_input=self.address.kind == "pipe")
            with self._lock:
                self._reader, self.reader_pid = reader, reader.pid
                self._damaged_before = self.num_damaged
                reader.tell(keep=self._folder)
        return reader

    def _drop_reader(self, listener: FeedListener) -> None:
        """End the process at once; a file that it was keeping plays as far as it was flushed."""
        with self._lock:
            reader, self._reader, self.reader_pid = self._reader, None, None
        if reader is not None:
            reader.kill()
        kept, self._kept_now = self._kept_now, None
        if kept is not None and not remove_if_empty(Path(kept)):
            self._tell(listener, FeedState.KEPT, f"{kept} (cut short)", kept=kept, cut_short=True)

    def _let_go(self, listener: FeedListener) -> None:
        """End the process, hearing what it says while it closes the file that it keeps."""
        reader = self._reader
        if reader is not None and reader.is_ready:
            reader.tell(leave=True)
            until_s = time.monotonic() + LEAVE_S
            with suppress(EOFError, InputError):
                while (left_s := until_s - time.monotonic()) > 0:
                    message = reader.read(left_s)
                    if message is not None and message.head.get("kind") in ("keeping", "kept", "notice"):
                        self._heed(message, listener)
        self._drop_reader(listener)


def remove_if_empty(path: Path) -> bool:
    """Remove a file that nothing was written to; return whether there was nothing."""
    with suppress(OSError):
        if path.stat().st_size:
            return False
        path.unlink()
    return True
