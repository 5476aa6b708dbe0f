"""Wishes: what a person may ask of a session, done at once or in a thread that nobody waits for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from streamsr.capture.listening import Feed
from streamsr.display.commands import Command
from streamsr.display.shown import Shown
from streamsr.display.status import LiveStatus
from streamsr.errors import StreamsrError
from streamsr.live.director import Director
from streamsr.live.doors import Recorder
from streamsr.snapshot import write_snapshot
from streamsr.worker import Line, Worker

log = logging.getLogger(__name__)


class Wishes:
    """Does what a person asks for; `ask` may be called from any thread.

    Args:
        director: bypasses, and burns the badge in.
        feed: keeps the original.
        recorder: records; None where nothing can be recorded.
        say: takes lines for the session's log.
        folder: where recordings and snapshots go.
        keep_original: write the source's own packets beside every recording.
        about: what a snapshot's sidecar says of the session.
    """

    def __init__(
        self,
        director: Director,
        feed: Feed,
        recorder: Recorder | None,
        *,
        say: Callable[[str], None],
        folder: Path,
        keep_original: bool = False,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self._director, self._feed, self._recorder, self._say = director, feed, recorder, say
        self._folder, self._keep_original, self._about = folder, keep_original, about or {}
        self._writer: Worker | None = None

    def ask(self, command: Command, shown: Shown | None, status: Callable[[], LiveStatus]) -> str:
        """Do one of `SESSION_COMMANDS`, but for QUIT; returns at once with what happens, in one line.

        Args:
            command: what is asked for.
            shown: the picture that a snapshot is of.
            status: takes a snapshot of the session.
        """
        if command is Command.BYPASS:
            self._director.bypass(not self._director.bypassed)
            return self._said(f"bypass {'on' if self._director.bypassed else 'off'}")
        if command is Command.BADGE:
            self._director.badge = not self._director.badge
            return self._said(f"badge {'on' if self._director.badge else 'off'}")
        if command is Command.RECORD:
            return self._said(self._toggle_recording())
        if command is Command.SNAPSHOT:
            return self._take_snapshot(shown, status)
        return f"{command.value} is for the view, not for the session"

    def record(self) -> None:
        """Begin to record, and to keep the original where that is wanted.

        Raises:
            StreamsrError: there is no folder to keep the original in, and none can be made.
        """
        if self._recorder is not None:
            self._recorder.start(self._folder)
        if self._keep_original:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._feed.keep_original(str(self._folder))

    def join(self, timeout_s: float) -> bool:
        """Wait for a snapshot that is being written; return whether none is left."""
        return self._writer is None or self._writer.join(timeout_s)

    def _toggle_recording(self) -> str:
        if self._recorder is None:
            return "recording: there is no recorder"
        if self._recorder.status().active:
            self._recorder.stop(0.0)
            self._feed.keep_original(None)
            return "recording off"
        try:
            self.record()
        except (StreamsrError, OSError) as cause:
            return f"no recording: {cause}"
        return "recording on"

    def _take_snapshot(self, shown: Shown | None, status: Callable[[], LiveStatus]) -> str:
        """Have a pair of pictures written: coding a large PNG takes longer than a frame, so a thread does it."""
        if shown is None or shown.is_slate:
            return "no snapshot: there is no picture"
        if not self.join(0.0):
            return "no snapshot: the last one is still being written"
        now = status()
        self._writer = Worker("snapshot", Line(), lambda: self._write_snapshot(shown, now), lambda: None)
        self._writer.start()
        return "taking a snapshot"

    def _write_snapshot(self, shown: Shown, status: LiveStatus) -> None:
        try:
            paths = write_snapshot(shown, status, self._folder, self._about)
        except StreamsrError as cause:
            self._say(f"no snapshot: {cause}")
        else:
            self._say("snapshot: " + ", ".join(path.name for path in paths))

    def _said(self, text: str) -> str:
        self._say(text)
        return text
