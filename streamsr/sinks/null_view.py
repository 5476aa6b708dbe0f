"""The view of a session that nobody watches: pictures count as presented when they are taken."""

from __future__ import annotations

from streamsr.display.showing import Showing

TURN_S = 0.2
"""Longest wait for a picture before the end of the session is looked for."""


class NullView:
    """Takes every newest picture and shows none: for recording alone, and for measuring a session without a screen."""

    name = "none"
    wants_main_thread = False

    def run(self, showing: Showing) -> None:
        """Take pictures until the session is over."""
        while not showing.ended:
            shown = showing.next(TURN_S)
            if shown is not None:
                showing.presented(shown)
