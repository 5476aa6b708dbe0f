"""OfferedQueue: presented pictures that wait to be recorded, bounded in number and in memory."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

from streamsr.display.shown import Shown
from streamsr.sinks.live_series import Take

QUEUE_PICTURES = 25
"""Pictures that wait at most: one second at 25 a second, which rides out a slow disk."""

QUEUE_BYTES = 64 << 20
"""Memory they take at most: 25 pictures up to 1344x1344, five of 3840x2160; one waits whatever its size."""


@dataclass(frozen=True)
class Offered:
    """A picture that waits.

    Attributes:
        shown: the picture.
        take: what it is to be recorded in; None is for the pre-roll alone.
        presented_ns: `time.monotonic_ns` when it was offered.
    """

    shown: Shown
    take: Take | None
    presented_ns: int = field(default_factory=time.monotonic_ns)

    @property
    def num_bytes(self) -> int:
        """Memory of its samples."""
        return sum(plane.nbytes for plane in self.shown.picture.planes)

    def count_dropped(self) -> None:
        """Count it as lost to its recording; what would not have been recorded is no loss."""
        if self.take is not None and not self.shown.is_slate:
            self.take.num_dropped += 1


class OfferedQueue:
    """Waiting pictures, oldest first. Not safe for threads by itself: the recorder's lock guards it."""

    def __init__(self) -> None:
        self._waiting: deque[Offered] = deque()
        self._num_bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, offered: Offered) -> None:
        """Add a picture, or count it as dropped where there is no room."""
        num_bytes = self._num_bytes + offered.num_bytes
        if self._waiting and (len(self._waiting) >= QUEUE_PICTURES or num_bytes > QUEUE_BYTES):
            offered.count_dropped()
            return
        self._waiting.append(offered)
        self._num_bytes = num_bytes

    def take(self) -> Offered:
        """Remove and return the oldest picture; there must be one."""
        offered = self._waiting.popleft()
        self._num_bytes -= offered.num_bytes
        return offered
