"""Keep time rising: join recordings whose clock jumps back, and part pictures that claim one moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Any

JUMP_BACK_S = Fraction(1, 5)
"""A decode time that falls by more than this starts a new recording; less is a disordered stamp."""

CONSTANT_PART = 0.9
"""Part of the steps between pictures that are alike where a track has a constant rate."""


@dataclass
class _TrackClock:
    """Where one track stands.

    Attributes:
        part: which recording it is in.
        start_s: presentation time of its first packet.
        raw_s: its last decode time as stored.
        last: its last decode time as moved, in its time base.
    """

    start_s: Fraction
    part: int = 0
    raw_s: Fraction | None = None
    last: int | None = None


@dataclass
class Splicer:
    """Joins recordings that were put one after the other into one file (often MPEG-TS), each with a clock of its own.

    Decode times rise within a track, so a fall means a new recording. The first track that falls decides by how much
    its recording is moved: its earliest track, if the tracks start as far apart as in the first recording, goes to the
    end of everything before. The other tracks follow with the same offset when they fall too, so that sound and picture
    stay together.

    Attributes:
        offsets_s: what is added to the times of each recording, in seconds; the first is 0.
        end_s: when everything read so far ends, after moving, in seconds.
    """

    offsets_s: list[Fraction] = field(default_factory=lambda: [Fraction(0)])
    end_s: Fraction = Fraction(0)
    _clocks: dict[int, _TrackClock] = field(default_factory=dict)

    def move(self, packet: Any, track: int) -> bool:
        """Move a packet's times to where its recording belongs.

        Args:
            packet: a PyAV packet; its pts and dts are rewritten from the second recording on.
            track: index of its track.

        Returns:
            Whether a new recording begins with it.
        """
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None:
            return False
        shown_s = stamp * packet.time_base
        clock = self._clocks.setdefault(track, _TrackClock(shown_s))
        begins = self._is_fall(clock, packet) and self._next_part(clock, shown_s)
        if clock.part:
            self._shift(clock, packet)
        elif packet.dts is not None:
            clock.last = packet.dts
        shown_s += self.offsets_s[clock.part] + (packet.duration or 0) * packet.time_base
        self.end_s = max(self.end_s, shown_s)
        return begins

    def _is_fall(self, clock: _TrackClock, packet: Any) -> bool:
        # Matroska gives the first packets of a track no decode time, and their pts may be out of order.
        if packet.dts is None:
            return False
        before_s, clock.raw_s = clock.raw_s, packet.dts * packet.time_base
        return before_s is not None and clock.raw_s < before_s - JUMP_BACK_S

    def _next_part(self, clock: _TrackClock, shown_s: Fraction) -> bool:
        clock.part += 1
        if clock.part < len(self.offsets_s):
            return False
        lead_s = clock.start_s - min(other.start_s for other in self._clocks.values())
        self.offsets_s.append(self.end_s - (shown_s - lead_s))
        return True

    def _shift(self, clock: _TrackClock, packet: Any) -> None:
        shift = round(self.offsets_s[clock.part] / packet.time_base)
        if packet.dts is not None:
            # A track that started earlier here than in the first recording overlaps; decode times must still rise.
            late = 0 if clock.last is None else max(0, clock.last + 1 - (packet.dts + shift))
            clock.last = packet.dts = packet.dts + shift + late
            shift += late
        packet.pts = None if packet.pts is None else packet.pts + shift


class RisingTimes:
    """Makes presentation times strictly rising, touching only those that do not rise.

    Args:
        frame_ticks: length of a picture in units of the time base; its half parts a picture from one that claims the
            same moment.
    """

    def __init__(self, frame_ticks: int) -> None:
        self._frame_ticks = max(1, frame_ticks)
        self._last: int | None = None
        self.num_moved = 0
        self.num_made = 0

    def next(self, pts: int | None) -> int:
        """Return the time of the next picture.

        Args:
            pts: as the file says; None where it says nothing, which gives the time one picture after the last.
        """
        if pts is None:
            self.num_made += 1
            pts = 0 if self._last is None else self._last + self._frame_ticks
        elif self._last is not None and pts <= self._last:
            self.num_moved += 1
            pts = self._last + max(1, self._frame_ticks // 2)
        self._last = pts
        return pts


def find_holes(times: Sequence[int], time_base: Fraction) -> list[str]:
    """Find where pictures are missing from a track of constant rate; one line a hole, with its time.

    A transport file states neither how many pictures it holds nor their numbers: where whole packets were lost, a step
    that is a multiple of all the others is the only sign.

    Args:
        times: pts of the pictures, rising.
        time_base: seconds a unit.
    """
    steps = Counter(later - earlier for earlier, later in pairwise(times))
    if not steps:
        return []
    usual, num_usual = steps.most_common(1)[0]
    if num_usual < CONSTANT_PART * sum(steps.values()):
        return []
    holes = [(earlier, round((later - earlier) / usual) - 1) for earlier, later in pairwise(times)]
    return [
        f"{num} picture{'s' if num > 1 else ''} missing after {float(earlier * time_base):.2f} s"
        for earlier, num in holes
        if num > 0
    ]
