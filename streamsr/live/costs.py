"""Costs: what a step takes lately, for planning when it must begin to end in time."""

from __future__ import annotations

from collections import deque

COSTS_KEPT = 25
"""Newest costs that are planned with: a second at 25 frames a second."""


class Costs:
    """Newest costs of one step in milliseconds; written by one thread, read by any.

    Args:
        first_ms: taken before anything was measured.

    Attributes:
        dear_ms: the second dearest of the newest, which is kept back for the step; one alone may have been a stall.
    """

    def __init__(self, first_ms: float = 0.0) -> None:
        self.dear_ms = first_ms
        self._newest: deque[float] = deque([first_ms], maxlen=COSTS_KEPT)

    def add(self, cost_ms: float) -> None:
        """Note what the step took."""
        self._newest.append(cost_ms)
        self.dear_ms = sorted(self._newest)[-2]
