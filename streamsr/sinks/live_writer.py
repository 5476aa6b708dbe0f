"""LiveWriter: what becomes of each presented picture: encoded, kept for the pre-roll, or written."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import Any

from av.error import FFmpegError

from streamsr.config import RecordSettings
from streamsr.display.shown import Shown
from streamsr.errors import OutputError, StreamsrError
from streamsr.sinks.drafts import explain
from streamsr.sinks.live_encoder import Coded, LiveEncoder
from streamsr.sinks.live_log import moment_of
from streamsr.sinks.live_series import FileSeries, Take
from streamsr.sinks.preroll import Preroll
from streamsr.sinks.video_track import shape_of

log = logging.getLogger(__name__)

FORESEEN = (StreamsrError, OSError, ValueError, FFmpegError)
"""What encoders and disks fail with; a recording ends by it, and nothing else does."""


ORIGINAL_S, LOOK_S = 1.2, 0.02
"""How long a take that ended waits for the original beside it to be closed, and between two looks at that."""


class LiveWriter:
    """The recording thread's own state: encoder, pre-roll, the take being written and those being hashed.

    Args:
        settings: what is recorded, and how.
        about: further entries for the sidecar.
        marks: tags of the files.

    Attributes:
        take: what is being recorded; None where nothing is.
        trouble: why the last take ended by itself, in one line; empty where it did not.
        seconds: recorded in the last take.
    """

    def __init__(self, settings: RecordSettings, *, about: Mapping[str, Any], marks: Mapping[str, str]) -> None:
        self.settings, self.about, self.marks = settings, about, marks
        self.take: Take | None = None
        self.trouble = ""
        self.seconds = 0.0
        self._series: FileSeries | None = None
        self._closed: list[tuple[FileSeries, str]] = []
        self._closed_s = 0.0
        self._encoder: LiveEncoder | None = None
        self._preroll = Preroll(settings.preroll_s)
        self._rests = False
        self._lost = False
        self._last_ms = 0

    @property
    def is_busy(self) -> bool:
        """Whether there is something left to hash while no picture waits."""
        return bool(self._closed) and not self._waits

    @property
    def _waits(self) -> bool:
        """Whether the oldest take has nothing left to do but to wait for its original to be closed."""
        series = self._closed[0][0]
        in_time = time.monotonic() < self._closed_s + ORIGINAL_S
        return in_time and series.awaits_original and not series.has_to_hash

    def holds(self, take: Take) -> bool:
        """Return whether a take still has something to write."""
        return take is self.take or any(series.take is take for series, _ in self._closed)

    def present(self, shown: Shown, presented_ns: int) -> None:
        """Take the next presented picture.

        Args:
            shown: the picture; a slate is not recorded, and ends the file.
            presented_ns: `time.monotonic_ns` of its presentation.
        """
        at_ms = (shown.arrived_ns or shown.picture.captured_ns or presented_ns) // 1_000_000
        if shown.is_slate:
            self._lose_signal(at_ms)
        elif self._series is not None or (self._preroll.keep_ms and not self._rests):
            self._encode(shown, at_ms, presented_ns)
        if self._series is not None:
            self._series.tick()
            self.seconds = self._series.seconds

    def turn(self, take: Take | None, until_s: float = inf) -> None:
        """End the take that is being recorded, if any, and begin another one, if any.

        Args:
            take: the next one.
            until_s: `time.monotonic` after which pictures that the encoder still holds are let go, and counted.
        """
        self._end_take(until_s)
        self.take = take
        if take is None:
            return
        self.trouble, self.seconds, self._rests = "", 0.0, False
        self._series = FileSeries(take, self.settings, about=self.about, marks=self.marks)
        for coded in self._preroll.take(take.asked_ns // 1_000_000):
            self._series.write(coded)

    def idle(self) -> None:
        """Use a moment without pictures: look after the take, hash a little, seal what is hashed."""
        if self._series is not None:
            self._series.tick()
        if not self._closed:
            return
        series, trouble = self._closed[0]
        try:
            if not series.hash_more() and not self._waits:
                self._seal(series, trouble)
        except OutputError as failure:
            self._seal(series, trouble or str(failure))

    def fail(self, cause: Exception) -> None:
        """End the take after a failure, and with it all encoding until the next one begins."""
        take, self.take = self.take, None
        self.trouble = _in_one_line(cause, take)
        log.debug("%s", self.trouble)  # whoever owns the recorder says it
        if self._encoder is not None:
            self._encoder.close()
            self._encoder = None
        self._preroll.clear()
        self._rests = not isinstance(cause, OutputError)  # a full disk says nothing against the encoder
        series, self._series = self._series, None
        if series is not None:
            series.abandon()
            self._close(series, self.trouble)
        if take is not None:
            take.failed = True

    def close(self, drain_s: float, deadline_s: float) -> None:
        """End everything.

        Args:
            drain_s: `time.monotonic` after which pictures that the encoder still holds are let go, and counted.
            deadline_s: `time.monotonic` after which files that are not hashed yet get no hash.
        """
        try:
            self.turn(None, drain_s)
        except FORESEEN as cause:
            self.fail(cause)
        while self._closed and time.monotonic() < deadline_s:
            if not self.is_busy:
                time.sleep(LOOK_S)
            self.idle()
        for series, trouble in list(self._closed):
            self._seal(series, trouble)

    def _encode(self, shown: Shown, at_ms: int, presented_ns: int) -> None:
        if self._encoder is None or shape_of(shown.picture) != self._encoder.shape:
            self._end_run()
            self._encoder = LiveEncoder(shown.picture, self.settings)
        self._last_ms = max(at_ms, self._last_ms + 1)
        moment = moment_of(shown, presented_ns, follows_loss=self._lost)
        self._lost = False
        self._keep(self._encoder.encode(shown.picture, self._last_ms, moment))

    def _lose_signal(self, at_ms: int) -> None:
        self._lost = True
        self._end_run()
        if self._series is not None:
            self._series.finish_file()
            self._series.log.lose_signal(at_ms)

    def _end_run(self, until_s: float = inf) -> None:
        """Take out what the encoder holds; the next picture gets a new one, and with it a new file."""
        encoder, self._encoder = self._encoder, None
        if encoder is None:
            return
        if time.monotonic() < until_s:
            self._keep(encoder.drain())
            return
        num_left = encoder.abandon()
        if self._series is not None:
            self._series.take.num_dropped += num_left

    def _keep(self, pictures: list[Coded]) -> None:
        for coded in pictures:
            if self._series is not None:
                self._series.write(coded)
            else:
                self._preroll.add(coded)

    def _end_take(self, until_s: float) -> None:
        if self._series is None:
            return
        self._end_run(until_s)
        self._series.finish_file()
        self.seconds = self._series.seconds
        self._close(self._series, "")
        self._series = None

    def _close(self, series: FileSeries, trouble: str) -> None:
        self._closed.append((series, trouble))
        self._closed_s = time.monotonic()

    def _seal(self, series: FileSeries, trouble: str) -> None:
        """Write a take's last sidecar; a failure of that alone loses no picture."""
        self._closed = [entry for entry in self._closed if entry[0] is not series]
        try:
            series.seal(trouble)
        except OutputError as failure:
            log.warning("%s", failure)
            self.trouble = self.trouble or str(failure)


def _in_one_line(cause: Exception, take: Take | None) -> str:
    if isinstance(cause, StreamsrError):
        return str(cause)
    if isinstance(cause, (OSError, FFmpegError)):
        return str(explain(cause, (take.folder if take else Path()) / "recording"))
    return f"recording stopped: {' '.join(str(cause).split())[:200]}"
