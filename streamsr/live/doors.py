"""Doors of a session: what a view is given, and what a recorder and a counter of metrics must offer."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Protocol

from streamsr.display.commands import Command
from streamsr.display.shown import Shown
from streamsr.display.status import LiveStatus, RecordingStatus
from streamsr.worker import Latest, Line, Stopped


class Recorder(Protocol):
    """What records; `sinks.live_recording.LiveRecorder` is one."""

    hangs: bool
    """Whether it could not be ended in time."""

    def offer(self, shown: Shown) -> None:
        """Take a picture; never waits."""

    def start(self, folder: Path) -> None:
        """Begin to record into a folder."""

    def stop(self, timeout_s: float = 2.0) -> bool:
        """End the recording; wait for that at most so long, and return whether it is done."""

    def status(self) -> RecordingStatus:
        """Say how the recording is."""

    def note_original(self, path: Path, *, over: bool, cut_short: bool = False) -> None:
        """Note a file of the original that was begun or is over, closed or not, beside the recording; never waits."""


class Metrics(Protocol):
    """What counts for Prometheus; `sinks.metrics.MetricsServer` is one."""

    def observe(self, shown: Shown, added_ns: int) -> None:
        """Count a presented picture; never waits."""


class Session(Protocol):
    """What a door needs of the session behind it."""

    line: Line

    @property
    def over(self) -> bool:
        """Whether the session is over."""

    def status(self) -> LiveStatus:
        """Return a snapshot of the session."""

    def ask(self, command: Command, about: Shown | None = None) -> str:
        """Do what a person asked for; returns at once with what happens, in one line."""

    def note_presented(self, view: str, shown: Shown, at_ns: int) -> None:
        """Note that a view has a picture on its screen."""


class Door:
    """What one view is given of a session; see `streamsr.display.showing.Showing`.

    Args:
        session: behind it.
        name: of the view.

    Attributes:
        missed: camera pictures that newer ones replaced before the view took them, by rung.
    """

    def __init__(self, session: Session, name: str) -> None:
        self._session, self._name = session, name
        self._newest: Latest[Shown] = Latest(session.line)
        self._waiting: Shown | None = None
        self.missed: Counter[str] = Counter()

    @property
    def ended(self) -> bool:
        """Whether the session is over."""
        return self._session.over

    def leave(self, shown: Shown) -> None:
        """Leave a picture for the view; never waits."""
        before = self._newest.num_dropped
        self._newest.put(shown)
        if self._newest.num_dropped > before and self._waiting is not None and not self._waiting.is_slate:
            self.missed[self._waiting.rung] += 1
        self._waiting = shown

    def next(self, timeout_s: float) -> Shown | None:
        """Wait for a picture newer than the last one given; None when none came in time or the session is over."""
        try:
            return self._newest.take(timeout_s)
        except Stopped:
            return None

    def presented(self, shown: Shown, at_ns: int | None = None) -> None:
        """Say that a picture is on the screen."""
        self._session.note_presented(self._name, shown, time.monotonic_ns() if at_ns is None else at_ns)

    def status(self) -> LiveStatus:
        """Return a snapshot of the session."""
        return self._session.status()

    def ask(self, command: Command, about: Shown | None = None) -> str:
        """Ask the session for one of its commands; returns what happens, in one line."""
        return self._session.ask(command, about)
