"""Commands: what a person may ask for, by key, by page or by foot pedal."""

from __future__ import annotations

from enum import Enum


class Command(Enum):
    """One wish. Those of the session act for every view; those of a view for the one where they were given."""

    BYPASS = "bypass"
    RECORD = "record"
    SNAPSHOT = "snapshot"
    BADGE = "badge"
    QUIT = "quit"

    ORIGINAL = "original"
    SIDE_BY_SIDE = "side-by-side"
    SPLIT = "split"
    SPLIT_LEFT = "split-left"
    SPLIT_RIGHT = "split-right"
    ZOOM_IN = "zoom-in"
    ZOOM_OUT = "zoom-out"
    ZOOM_FIT = "zoom-fit"
    PAN_LEFT = "pan-left"
    PAN_RIGHT = "pan-right"
    PAN_UP = "pan-up"
    PAN_DOWN = "pan-down"
    FREEZE = "freeze"
    OVERLAY = "overlay"
    HELP = "help"
    FULL_SCREEN = "full-screen"

    @property
    def is_for_session(self) -> bool:
        """Whether it acts for every view at once."""
        return self in SESSION_COMMANDS


SESSION_COMMANDS = frozenset({Command.BYPASS, Command.RECORD, Command.SNAPSHOT, Command.BADGE, Command.QUIT})
