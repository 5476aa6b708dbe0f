"""Shown: one picture as the live session presents it, beside the camera's own, with when and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from streamsr.frame import Frame

BICUBIC = "bicubic"
"""What the names of rungs without a generator begin with."""

BYPASS = "bypass"
"""The reason of a picture for which a person asked for the camera's own."""


@dataclass(frozen=True)
class Shown:
    """One presented picture. Immutable, so that every view may hold it for as long as it likes.

    Attributes:
        number: of the presentation, from 0, without gaps.
        picture: what is to be shown, at output size, badge and slate burnt in; planes as `Frame` says.
        original: the camera's own frame of the same moment, never written to; None on a slate.
        rung: what made it: an engine's name, ``bicubic-xS``, or ``slate`` where there is no signal.
        reason: why no better rung was used, in a word or two; empty where the best one was.
        alarm: what is wrong, in one short line, where a generator failed or the signal is lost; else empty.
        stages_ms: milliseconds of each stage it went through, by name, in their order.
        made_ns: `time.monotonic_ns` when it was handed to the views.
    """

    number: int
    picture: Frame
    original: Frame | None
    rung: str
    reason: str = ""
    alarm: str = ""
    stages_ms: Mapping[str, float] = field(default_factory=dict)
    made_ns: int = 0

    @property
    def is_slate(self) -> bool:
        """Whether there is no camera picture in it."""
        return self.original is None

    @property
    def is_bypassed(self) -> bool:
        """Whether a person asked for the camera's own picture."""
        return self.reason == BYPASS

    @property
    def is_generated(self) -> bool:
        """Whether a learned generator made the picture; neither interpolation nor a slate is that."""
        return not self.is_slate and not self.rung.startswith(BICUBIC)

    @property
    def arrived_ns(self) -> int:
        """`time.monotonic_ns` when the camera's data of this moment arrived here; of a slate, when it was drawn."""
        return (self.original or self.picture).arrived_ns
