"""What a live feed gives: frames as they come, and events; the door between capture and the live session."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from streamsr.capture.base import SourceInfo
from streamsr.frame import Frame


class FeedState(Enum):
    """What happened to a feed; UNKEPT: some of the original that was to be kept is not."""

    OPENED = "opened"
    LOST = "lost"
    RETRYING = "retrying"
    CHANGED = "changed"
    NOTICE = "notice"
    KEPT = "kept"
    UNKEPT = "unkept"
    ENDED = "ended"


@dataclass(frozen=True)
class FeedEvent:
    """One thing that happened.

    Attributes:
        state: what.
        text: in one line, for the log and the person watching; never holds a password or a token.
        at_ns: `time.monotonic_ns` when it happened.
        info: the source as it is from here on, with OPENED and CHANGED.
        kept: the file of the original that was begun (NOTICE) or closed (KEPT), where the event is about one.
        cut_short: whether that file was not closed by its writer, which hung or died.
    """

    state: FeedState
    text: str
    at_ns: int
    info: SourceInfo | None = None
    kept: Path | None = None
    cut_short: bool = False


class FeedListener(Protocol):
    """Takes what a feed gives, in the feed's own thread; must return at once."""

    def receive(self, frame: Frame) -> None:
        """Take the next frame; ``arrived_ns`` and ``captured_ns`` are set, ``sequence`` counts over reconnects."""

    def tell(self, event: FeedEvent) -> None:
        """Take an event."""


class Feed(Protocol):
    """A live source that is watched and opened again when it is lost.

    Attributes:
        num_reconnects: how often it was opened again.
        num_dropped: frames that were dropped before they were received: the newest won.
        num_damaged: packets and pictures that were damaged.
    """

    @property
    def num_reconnects(self) -> int:
        """How often it was opened again."""

    @property
    def num_damaged(self) -> int:
        """Packets and pictures that were damaged."""

    @property
    def num_dropped(self) -> int:
        """Frames that were dropped before they were received: the newest won."""

    def run(self, listener: FeedListener) -> None:
        """Read until the source ends for good or `stop` is called; call it once, in a thread of its own.

        Raises:
            InputError: it could not be opened the first time, for a reason that waiting cannot mend.
        """

    def keep_original(self, folder: str | None) -> None:
        """Write the source's own packets into a folder from now on; None ends that; returns at once."""

    def stop(self) -> None:
        """Make `run` return within a second, whatever the source does; may be called from any thread, twice too."""
