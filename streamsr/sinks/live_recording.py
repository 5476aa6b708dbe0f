"""LiveRecorder: records what is presented live, and never delays it.

    director's thread              streamsr-record thread
    offer(shown) ──────────────►   encoder ──► pre-roll ──► file after file, sidecar
    start, stop     [one second]

Slates are not recorded. Who opens the file later wants to see what the camera saw: a slate would be a picture that no
camera made, and the last picture held would be worse. The signal's loss ends the file; the next picture begins another
one, whose times run on, so that the gap shows in the times, and the sidecar names it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from streamsr.config import RecordSettings
from streamsr.display.shown import Shown
from streamsr.display.status import RecordingStatus
from streamsr.errors import UsageError
from streamsr.sinks.containers import refuse_codec
from streamsr.sinks.live_encoder import encoder_settings
from streamsr.sinks.live_series import Take
from streamsr.sinks.live_writer import FORESEEN, LiveWriter
from streamsr.sinks.offered import Offered, OfferedQueue
from streamsr.sinks.originals import Original
from streamsr.worker import Line, Worker

log = logging.getLogger(__name__)

TICK_S = 0.25
"""Longest wait between two looks at the disk and the sidecar."""

STOP_S = 1.8
"""What stopping may take: a session's own end, two seconds, needs a little more."""

DRAIN_S = 0.5
"""Part of that in which waiting pictures are still encoded, but for the one in work; later ones are dropped and
counted, so that an encoder that takes half a second a picture still leaves time to close the file."""

HASH_S = 1.5
"""Part of that in which files are still hashed when the recorder is left; later ones get no hash."""

MARKS = {"comment": "Enlarged live by streamsr - research use; the original is the record"}
"""Tags of every file, where the caller gives none that say more."""


class LiveRecorder:
    """Records presented pictures on a thread of its own; a context manager, which makes and joins that thread.

    `offer`, `start`, `stop`, `status` and `files` may be used from any thread. A failure (a full disk, a folder that
    vanished or cannot be written to, an encoder that gives up) ends the take, says why in `status`, and leaves the
    recorder ready for the next `start`; what was written until then stays and plays.

    With ``settings.preroll_s`` above 0 everything presented is encoded all the time, and the last seconds are kept in
    memory (`preroll.PREROLL_BYTES` at most) until a recording begins with them.

    Args:
        settings: folder, container, encoder, pre-roll and the space to keep free. Recording begins on entering where
            ``from_start`` says so.
        about: further entries for the sidecar, such as ``engine`` and ``source``; copied anew at each writing.
        marks: tags of the files; None takes `MARKS`.

    Attributes:
        hangs: whether its thread did not end in time when it was left; what was flushed plays.

    Raises:
        UsageError: settings that cannot be.
    """

    def __init__(
        self,
        settings: RecordSettings | None = None,
        *,
        about: Mapping[str, Any] | None = None,
        marks: Mapping[str, str] | None = None,
    ) -> None:
        self.settings = settings or RecordSettings()
        _check(self.settings)
        self._about, self._marks = {} if about is None else about, MARKS if marks is None else marks
        self.writer = self._make_writer()
        self._changed = threading.Condition()
        self._waiting = OfferedQueue()
        self._take: Take | None = None
        self._last: Take | None = None
        self._originals: dict[Path, Original] = {}
        self._over, self._ended = False, False
        self._stopped_s = 0.0
        self._trouble, self._seconds = "", 0.0
        self._worker: Worker | None = None
        self.hangs = False

    @property
    def _drain_s(self) -> float:
        """`time.monotonic` after which nothing of a take that was told to stop is encoded any more."""
        return self._stopped_s + DRAIN_S

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of the take that runs, or else of the last one."""
        return self._last.paths if self._last else ()

    @property
    def sidecar(self) -> Path | None:
        """The sidecar of that take; None where there is none yet."""
        return self._last.sidecar if self._last else None

    def offer(self, shown: Shown) -> None:
        """Take a picture that was presented just now; returns at once, whatever the encoder and the disk do.

        Args:
            shown: the picture; held until it is encoded. Where too many wait it is dropped and counted.
        """
        with self._changed:
            if self._over or (self._take is None and not self.settings.preroll_s):
                return
            self._waiting.put(Offered(shown, self._take))
            self._changed.notify_all()

    def start(self, folder: str | Path | None = None) -> None:
        """Begin to record; returns at once, and what goes wrong is said by `status`. While recording it does nothing.

        Args:
            folder: where to, made where it is missing; None takes the settings' folder, or else the working folder.

        Raises:
            UsageError: the recorder is not entered.
        """
        with self._changed:
            if self._worker is None or self._over:
                raise UsageError("expected start within the recorder's with block, got it outside; enter it first")
            if self._take is not None:
                return
            self._take = self._last = Take(Path(folder or self.settings.folder or "."))
            self._trouble, self._seconds = "", 0.0
            if self._ended:
                self.writer, self._worker = self._make_writer(), self._begin_thread()
            self._changed.notify_all()

    def note_original(self, path: Path, *, over: bool, cut_short: bool = False) -> None:
        """Note a file that somebody else writes beside the recording: its sidecar lists and hashes it too.

        Args:
            path: of the file.
            over: whether nothing is written to it any more; else it was begun.
            cut_short: whether it was over before it was closed.
        """
        with self._changed:
            if self._last is None:
                return
            original = self._originals.get(path)
            if original is None:
                original = self._originals[path] = Original(path)
                self._last.originals.append(original)
            if over:
                original.end(cut_short=cut_short)
                del self._originals[path]
            self._changed.notify_all()

    def stop(self, timeout_s: float = STOP_S) -> bool:
        """End the recording: pictures offered until now are written, files closed, hashed and described.

        Args:
            timeout_s: how long to wait for that; 0 returns at once, and the rest happens by itself.

        Returns:
            Whether it is done. False means a disk or an encoder that is slower; what was flushed is safe.
        """
        with self._changed:
            self._take, self._stopped_s = None, time.monotonic()
            self._changed.notify_all()
            last = self._last
            return self._changed.wait_for(lambda: last is None or last.done, timeout_s)

    def status(self) -> RecordingStatus:
        """Return how the recording is."""
        with self._changed:
            last = self._last
            return RecordingStatus(
                active=self._take is not None,
                folder=str(last.folder.absolute()) if last else "",
                seconds=self._seconds,
                files=len(last.paths) if last else 0,
                name=last.paths[-1].name if last and last.paths else "",
                dropped=last.num_dropped if last else 0,
                trouble=self._trouble,
            )

    def __enter__(self) -> LiveRecorder:
        """Start the thread, and record from the start where the settings say so."""
        self._worker = self._begin_thread()
        if self.settings.from_start:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the recording and the thread, within `STOP_S` unless the disk or the encoder hangs."""
        with self._changed:
            if self._take is not None or self._last is None or self._last.done:
                self._stopped_s = time.monotonic()  # else it was told before, and its time runs
            self._take, self._over = None, True
            self._changed.notify_all()
        left_s = max(0.05, self._stopped_s + STOP_S - time.monotonic())
        if self._worker is not None and not self._worker.join(left_s):
            self.hangs = True
            log.warning("the recording could not be closed in %.1f s: its disk or its encoder hangs", STOP_S)

    def _make_writer(self) -> LiveWriter:
        return LiveWriter(self.settings, about=self._about, marks=self._marks)

    def _begin_thread(self) -> Worker:
        line = Line()
        self._ended = False
        worker = Worker("record", line, self._record, lambda: self._note_end(line.failure))
        worker.start()
        return worker

    def _record(self) -> None:
        """Work until the recorder is left; runs in the recording thread."""
        try:
            while not self._is_over():
                offered, wanted = self._next()
                try:
                    self._step(offered, wanted)
                except FORESEEN as cause:
                    self.writer.fail(cause)
                self._tell()
        finally:
            self.writer.close(self._stopped_s + DRAIN_S, self._stopped_s + HASH_S)

    def _step(self, offered: Offered | None, wanted: Take | None) -> None:
        if offered is not None:
            take = None if offered.take is None or offered.take.failed else offered.take
            if take is not self.writer.take:
                self.writer.turn(take, self._drain_s)
            self.writer.present(offered.shown, offered.presented_ns)
        elif wanted is not self.writer.take:
            self.writer.turn(wanted, self._drain_s)
        else:
            self.writer.idle()

    def _next(self) -> tuple[Offered | None, Take | None]:
        """Wait for a picture or for something to do; return the picture, if any, and the take that is wanted."""
        with self._changed:
            self._changed.wait_for(self._has_work, 0 if self.writer.is_busy else TICK_S)
            while self._waiting:
                offered = self._waiting.take()
                if not self._is_late(offered):
                    return offered, self._take
                offered.count_dropped()
            return None, self._take

    def _has_work(self) -> bool:
        return bool(self._waiting) or self._over or self._take is not self.writer.take

    def _is_late(self, offered: Offered) -> bool:
        """Return whether there is no time any more for a picture of a take that was told to stop."""
        if offered.take is None or offered.take is self._take:
            return self._over
        return time.monotonic() >= self._drain_s

    def _is_over(self) -> bool:
        with self._changed:
            return self._over and not self._waiting

    def _tell(self) -> None:
        """Make public what the last step changed."""
        with self._changed:
            if self._take is not None and self._take.failed:
                self._take = None
            if self._take is None or self._take is self.writer.take:
                self._trouble, self._seconds = self.writer.trouble, self.writer.seconds
            last = self._last
            if last is not None and last is not self._take and not self._waiting:
                last.done = not self.writer.holds(last)
            self._changed.notify_all()

    def _note_end(self, failure: BaseException | None) -> None:
        """Say that the thread ended, and by what if nobody foresaw it; runs last in it."""
        with self._changed:
            self._ended = True
            if failure is not None:
                self._trouble = f"recording stopped: {type(failure).__name__}: {' '.join(str(failure).split())[:200]}"
                self._take = None
            if self._last is not None:
                self._last.done = True
            self._changed.notify_all()


def _check(settings: RecordSettings) -> None:
    """Refuse settings that cannot be before anything is recorded with them."""
    if settings.preroll_s < 0 or settings.reserve_bytes < 0:
        raise UsageError(
            "expected a pre-roll and a reserve of 0 or more, got"
            f" {settings.preroll_s:g} s and {settings.reserve_bytes} bytes; correct them"
        )
    codec = encoder_settings(settings, 640, 480).codec
    if codec != "auto":
        refuse_codec(Path(f"recording.{settings.container}"), codec)
