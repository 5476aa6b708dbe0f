"""Damage: a damaged picture counts once, though its packet, the decoder and the picture itself may each tell of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

MOST_REORDERED = 32
"""Packets that a decoder may hold before their picture comes; H.264 reorders 16 at most."""


class Damage:
    """Counts damaged pictures of one source. Owned by the thread that reads.

    Args:
        count: counts one.
    """

    def __init__(self, count: Callable[[], None]) -> None:
        self._count = count
        self._told: deque[int | None] = deque(maxlen=MOST_REORDERED)
        self._is_lost = False

    def gap(self) -> None:
        """Take that something could not even be read; what is damaged next to it is the same damage."""
        if not self._is_lost:
            self._count()
        self._is_lost = True

    def packet(self, pts: int | None) -> None:
        """Take that a packet is damaged, or cannot be decoded.

        Args:
            pts: its presentation time, by which its picture is known again.
        """
        if pts in self._told:
            return
        self._told.append(pts)
        if not self._is_lost:
            self._count()
        self._is_lost = False

    def picture(self, pts: int | None, *, is_damaged: bool) -> None:
        """Take a picture that came out of the decoder.

        Args:
            pts: its presentation time.
            is_damaged: whether the decoder says so.
        """
        if not is_damaged:
            self._is_lost = False
        elif pts in self._told:
            self._told.remove(pts)
        else:
            self.packet(pts)
            self._told.remove(pts)
