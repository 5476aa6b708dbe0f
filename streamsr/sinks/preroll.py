"""Preroll: the last seconds, encoded and in memory, so that a recording may begin before it was asked for."""

from __future__ import annotations

from collections import deque

from streamsr.sinks.live_encoder import Coded

PREROLL_BYTES = 64 << 20
"""Memory it takes at most: 30 seconds at 17 Mb/s. Above that the oldest seconds go first."""


class Preroll:
    """Keeps encoded pictures in groups that begin with a key frame; owned by the recording thread.

    It holds at most ``seconds`` and one group (2 s) more, and never more than `PREROLL_BYTES` and one group.

    Args:
        seconds: that a recording is to begin early.
    """

    def __init__(self, seconds: float) -> None:
        self.keep_ms = round(seconds * 1000)
        self._groups: deque[list[Coded]] = deque()
        self._num_bytes = 0

    def __len__(self) -> int:
        return sum(map(len, self._groups))

    def add(self, coded: Coded) -> None:
        """Take the newest picture; what became too old goes."""
        if coded.is_key:
            self._groups.append([])
        if not self._groups:
            return
        self._groups[-1].append(coded)
        self._num_bytes += coded.packet.size
        self._drop_before(coded.at_ms - self.keep_ms)

    def take(self, now_ms: int) -> list[Coded]:
        """Hand over everything from the last key frame before ``now_ms`` less the seconds kept; nothing is left here.

        Args:
            now_ms: the moment of asking, on `time.monotonic`'s clock in milliseconds.
        """
        self._drop_before(now_ms - self.keep_ms)
        while self._groups and self._groups[0][-1].at_ms < now_ms - self.keep_ms:
            self._drop_oldest()
        taken = [coded for group in self._groups for coded in group]
        self.clear()
        return taken

    def clear(self) -> None:
        """Forget everything."""
        self._groups.clear()
        self._num_bytes = 0

    def _drop_before(self, oldest_ms: int) -> None:
        """Drop groups that are over before a moment, and the oldest ones above the memory limit; not the last."""
        while len(self._groups) > 1 and (self._groups[1][0].at_ms <= oldest_ms or self._num_bytes > PREROLL_BYTES):
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self._num_bytes -= sum(coded.packet.size for coded in self._groups.popleft())
