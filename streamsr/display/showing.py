"""Showing and View: the two sides of the door between the live session and whatever shows its pictures."""

from __future__ import annotations

from typing import Protocol

from streamsr.display.commands import Command
from streamsr.display.shown import Shown
from streamsr.display.status import LiveStatus


class Showing(Protocol):
    """What a view is given: the newest picture, the status, and a way to ask. May be used from any thread.

    Attributes:
        ended: whether the session is over; a view's `View.run` then returns within half a second.
    """

    @property
    def ended(self) -> bool:
        """Whether the session is over."""

    def next(self, timeout_s: float) -> Shown | None:
        """Wait for a picture newer than the last one that this view was given; older ones it missed are dropped.

        Returns:
            The newest picture; None when none came in time or the session is over.
        """

    def presented(self, shown: Shown, at_ns: int | None = None) -> None:
        """Say that a picture is on the screen (or encoded, or sent), which ends its added latency.

        Args:
            shown: the picture.
            at_ns: `time.monotonic_ns` of that; None is now.
        """

    def status(self) -> LiveStatus:
        """Return a snapshot of the session."""

    def ask(self, command: Command, about: Shown | None = None) -> str:
        """Ask the session for one of `SESSION_COMMANDS`; returns at once with what happens, in one line.

        Args:
            command: what is asked for.
            about: the picture that a SNAPSHOT is of, as one frozen in a view; None is the newest.
        """


class View(Protocol):
    """Something that shows pictures.

    Attributes:
        name: ``window``, ``web``, ``none``, ...; also the name of its thread.
        wants_main_thread: whether `run` must be called in the program's main thread.
    """

    name: str
    wants_main_thread: bool

    def run(self, showing: Showing) -> None:
        """Show pictures until `Showing.ended`; called once. A failure ends this view alone and is logged."""
