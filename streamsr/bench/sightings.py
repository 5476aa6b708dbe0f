"""Sightings: which arrived picture a number seen somewhere belongs to, and how late it was seen. Pure.

The test source draws a number into every picture (see `streamsr.capture.framecode`). What arrives and what is seen are
both stamps of such a number; `match` brings them together.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from streamsr.capture.framecode import SMALLEST_PX, read_frame_code
from streamsr.errors import InputError
from streamsr.frame import Plane
from streamsr.timing import Percentiles, StageClock


@dataclass(frozen=True)
class Stamp:
    """A number, and `time.monotonic_ns` when a picture that carries it arrived, or was seen."""

    code: int
    at_ns: int


@dataclass(frozen=True)
class Findings:
    """What became of the frames of a stretch of time.

    Attributes:
        latencies_ms: from arrival to the first sighting, of each frame that was seen in its turn.
        frames: that arrived.
        out_of_order: sightings of a frame older than one that was seen before.
        unknown: sightings of a number that had not arrived: misread, or drawn by something else.
    """

    latencies_ms: tuple[float, ...]
    frames: int
    out_of_order: int
    unknown: int

    @property
    def seen(self) -> int:
        """Frames that were seen."""
        return len(self.latencies_ms)

    @property
    def missed(self) -> int:
        """Frames that were never seen: dropped, or replaced between two looks."""
        return self.frames - self.seen

    @property
    def percentiles(self) -> Percentiles:
        """The latencies' distribution."""
        return summarise(self.latencies_ms)


def match(arrivals: Sequence[Stamp], sightings: Iterable[Stamp], *, begin_ns: int, end_ns: int) -> Findings:
    """Find when each frame was first seen.

    Numbers repeat after 16384 frames: a sighting belongs to the newest frame of its number that had arrived by then.
    A frame that was passed over counts as missed, even if it appears later.

    Args:
        arrivals: of all frames, in order.
        sightings: in order; a number may be seen often.
        begin_ns: frames that arrived before are not counted.
        end_ns: nor those that arrived from then on.
    """
    places: dict[int, list[int]] = defaultdict(list)
    times: dict[int, list[int]] = defaultdict(list)
    for place, arrival in enumerate(arrivals):
        places[arrival.code].append(place)
        times[arrival.code].append(arrival.at_ns)
    first: dict[int, int] = {}
    newest, last, out_of_order, unknown = -1, -1, 0, 0
    for sighting in sightings:
        known = bisect_right(times[sighting.code], sighting.at_ns)
        place = places[sighting.code][known - 1] if known else -1
        if place > newest:
            newest = place
            first[place] = sighting.at_ns
        elif begin_ns <= sighting.at_ns < end_ns and sighting.code != last:
            out_of_order += known > 0
            unknown += known == 0
        last = sighting.code
    counted = [place for place, arrival in enumerate(arrivals) if begin_ns <= arrival.at_ns < end_ns]
    latencies = ((first[place] - arrivals[place].at_ns) / 1e6 for place in counted if place in first)
    return Findings(tuple(latencies), len(counted), out_of_order, unknown)


def corner_of(luma: Plane, scale: float) -> Plane:
    """Cut out the corner of a picture that holds the number.

    Args:
        luma: (scale * H, scale * W), the lowest rows last.
        scale: how much larger than the numbered picture it is.

    Returns:
        A copy of some 40 * scale pixels square.
    """
    side = max(1, round(SMALLEST_PX * scale))
    corner: Plane = luma[-side:, :side].copy()
    return corner


def read_corner(corner: Plane) -> int | None:
    """Read the number in a corner of any scale; None where there is none."""
    if min(corner.shape[:2]) < SMALLEST_PX // 2:
        return None
    brought: Plane = cv2.resize(corner, (SMALLEST_PX, SMALLEST_PX), interpolation=cv2.INTER_AREA)
    try:
        return read_frame_code(brought)
    except InputError:
        return None


def read_stamps(looks: Iterable[tuple[int, Plane]]) -> tuple[list[Stamp], int]:
    """Read the numbers of many corners, each with its time.

    Returns:
        The stamps, and how many corners held no number.
    """
    codes = [(at_ns, read_corner(corner)) for at_ns, corner in looks]
    stamps = [Stamp(code, at_ns) for at_ns, code in codes if code is not None]
    return stamps, len(codes) - len(stamps)


def usual_interval_ms(times_ns: Sequence[int]) -> float:
    """Return the median time between two looks in milliseconds; 0 for fewer than two."""
    return round(float(np.median(np.diff(times_ns))) / 1e6, 3) if len(times_ns) > 1 else 0.0


def summarise(durations_ms: Iterable[float]) -> Percentiles:
    """Return the distribution of durations in milliseconds."""
    clock = StageClock("")
    for duration_ms in durations_ms:
        clock.add(round(duration_ms * 1e6))
    return clock.percentiles()
