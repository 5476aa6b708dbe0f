"""Observing: what an observer of a view is, and the wrappers that let it stand between a session and its view."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Protocol

from streamsr.bench.sightings import Stamp, corner_of, read_stamps
from streamsr.capture.listening import Feed, FeedEvent, FeedListener
from streamsr.display.commands import Command
from streamsr.display.showing import Showing, View
from streamsr.display.shown import Shown
from streamsr.display.status import LiveStatus
from streamsr.errors import InputError
from streamsr.frame import Frame, Plane

MOST_LOOKS = 200_000
"""Looks kept: two hours of frames, 300 MB; a longer run keeps the first."""


class Observer(Protocol):
    """Reads numbers back from what one view shows. A context manager, entered before the session begins.

    Attributes:
        view: what the session shows through.
        seen_at: where a number counts as seen, in a few words.
        clock_error_ms: by how much the clock of its looks may be misjudged; 0 where it is this program's own.
    """

    view: View
    seen_at: str
    clock_error_ms: float

    @property
    def is_ready(self) -> bool:
        """Whether numbers can be read by now."""

    def presented(self, shown: Shown, at_ns: int) -> None:
        """Take note that the view says it presented a picture; called in the view's thread."""

    def sightings(self) -> tuple[list[Stamp], int]:
        """Return what was seen, in order, and how many looks held no number; called after the session."""

    def interval_ms(self) -> float:
        """Return the usual time between two looks: how much later than shown a picture may have been seen."""

    def __enter__(self) -> Observer:
        """Begin to look."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Look no more."""


class ShownObserver:
    """Reads numbers from the pictures that a view presents, at the moment at which it says so; there is no screen.

    Args:
        view: any; the null view shows what the session itself costs.
    """

    seen_at = "handed to the view"
    clock_error_ms = 0.0

    def __init__(self, view: View) -> None:
        self.view = view
        self._looks: list[tuple[int, Plane]] = []

    @property
    def is_ready(self) -> bool:
        """Always: there is nothing to open."""
        return True

    def presented(self, shown: Shown, at_ns: int) -> None:
        """Keep the picture's corner."""
        if shown.original is not None and len(self._looks) < MOST_LOOKS:
            scale = shown.picture.width / shown.original.width
            self._looks.append((at_ns, corner_of(shown.picture.planes[0], scale)))

    def sightings(self) -> tuple[list[Stamp], int]:
        """Return what was presented."""
        return read_stamps(self._looks)

    def interval_ms(self) -> float:
        """Return 0: every picture is looked at when it is handed over."""
        return 0.0

    def __enter__(self) -> ShownObserver:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing."""


class ObservedView:
    """A view whose presentations are also told to somebody else.

    Args:
        view: the real one.
        presented: takes each picture and when it was presented, in the view's thread.
    """

    def __init__(self, view: View, presented: Callable[[Shown, int], None]) -> None:
        self.name, self.wants_main_thread = view.name, view.wants_main_thread
        self._view, self._presented = view, presented

    def run(self, showing: Showing) -> None:
        """Run the real view."""
        self._view.run(_Overheard(showing, self._presented))


class _Overheard:
    """A session's door that passes everything on."""

    def __init__(self, showing: Showing, presented: Callable[[Shown, int], None]) -> None:
        self._showing, self._presented = showing, presented

    @property
    def ended(self) -> bool:
        """Whether the session is over."""
        return self._showing.ended

    def next(self, timeout_s: float) -> Shown | None:
        """Wait for a picture."""
        return self._showing.next(timeout_s)

    def presented(self, shown: Shown, at_ns: int | None = None) -> None:
        """Tell both."""
        at_ns = time.monotonic_ns() if at_ns is None else at_ns
        self._showing.presented(shown, at_ns)
        self._presented(shown, at_ns)

    def status(self) -> LiveStatus:
        """Return a snapshot of the session."""
        return self._showing.status()

    def ask(self, command: Command, *about: Any) -> str:
        """Ask the session."""
        return self._showing.ask(command, *about)


class HeardFeed:
    """A feed whose frames are also given to somebody else, before the session gets them.

    Args:
        feed: the real one.
        hear: takes each frame, in the feed's thread; must return at once.
    """

    def __init__(self, feed: Feed, hear: Callable[[Frame], None]) -> None:
        self._feed, self._hear = feed, hear

    @property
    def num_reconnects(self) -> int:
        """How often it was opened again."""
        return self._feed.num_reconnects

    @property
    def num_damaged(self) -> int:
        """Damaged packets and pictures."""
        return self._feed.num_damaged

    @property
    def num_dropped(self) -> int:
        """Frames dropped before they were received."""
        return self._feed.num_dropped

    def run(self, listener: FeedListener) -> None:
        """Run the real feed."""
        self._feed.run(_Tee(listener, self._hear))

    def keep_original(self, folder: str | None) -> None:
        """Pass it on."""
        self._feed.keep_original(folder)

    def stop(self) -> None:
        """Pass it on."""
        self._feed.stop()


class _Tee:
    def __init__(self, listener: FeedListener, hear: Callable[[Frame], None]) -> None:
        self._listener, self._hear = listener, hear

    def receive(self, frame: Frame) -> None:
        self._hear(frame)
        self._listener.receive(frame)

    def tell(self, event: FeedEvent) -> None:
        self._listener.tell(event)


class Ledger:
    """When each numbered frame arrived. Written by the feed's thread, read when the session is over."""

    def __init__(self) -> None:
        self._looks: list[tuple[int, Plane]] = []

    def note(self, frame: Frame) -> None:
        """Keep a frame's corner and arrival; some microseconds."""
        if len(self._looks) < MOST_LOOKS:
            self._looks.append((frame.arrived_ns, corner_of(frame.planes[0], 1.0)))

    def arrivals(self) -> Sequence[Stamp]:
        """Return the frames that arrived.

        Raises:
            InputError: they carry no numbers.
        """
        stamps, num_unreadable = read_stamps(self._looks)
        if num_unreadable > len(stamps):
            raise InputError(
                f"expected numbered frames, got {num_unreadable} of {len(self._looks)} without a number; "
                "give testsrc:endoscopy, or what was recorded of it"
            )
        return stamps
