"""RecordingLog: what a live recording's sidecar says of its pictures: rungs, bypass, alarms, gaps, holes, latency."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from streamsr.display.shown import Shown
from streamsr.sidecar import describe_timings
from streamsr.timing import StageClock

MAX_SPELLS = 500
"""Entries kept of each kind; more are only counted, so that writing the sidecar takes some milliseconds at most."""


@dataclass(frozen=True)
class Moment:
    """What is remembered of a presented picture while it is encoded.

    Attributes:
        number: of the presentation.
        rung: what made it.
        reason: why no better rung was used.
        alarm: what is wrong.
        is_bypassed: whether a person asked for the camera's own picture.
        added_ns: nanoseconds from the arrival of its data to its presentation.
        stages_ms: milliseconds of each stage, by name.
        is_generated: whether a learned generator made it.
        follows_loss: whether there was no signal just before it.
    """

    number: int
    rung: str
    reason: str
    alarm: str
    is_bypassed: bool
    added_ns: int
    stages_ms: Mapping[str, float] = field(default_factory=dict)
    is_generated: bool = False
    follows_loss: bool = False


def moment_of(shown: Shown, presented_ns: int, *, follows_loss: bool) -> Moment:
    """Return what is remembered of a picture that was presented at a `time.monotonic_ns`."""
    added_ns = max(0, presented_ns - shown.arrived_ns) if shown.arrived_ns else 0
    return Moment(
        shown.number,
        shown.rung,
        shown.reason,
        shown.alarm,
        shown.is_bypassed,
        added_ns,
        shown.stages_ms,
        shown.is_generated,
        follows_loss,
    )


class Spells:
    """Stretches of time over which something stayed the same, each with its first and its last picture's time."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self.num_left_out = 0
        self._what: dict[str, str] | None = None

    def add(self, at_s: float, what: dict[str, str] | None) -> None:
        """Take the next picture.

        Args:
            at_s: its time.
            what: what holds for it; None where there is nothing to say, which ends the spell.
        """
        begins = what is not None and what != self._what
        self._what = what
        if begins and len(self.entries) == MAX_SPELLS:
            self.num_left_out += 1
        elif begins:
            self.entries.append({"from_s": at_s, "to_s": at_s, "pictures": 0} | (what or {}))
        if what is not None and not self.num_left_out:
            self.entries[-1]["to_s"] = at_s
            self.entries[-1]["pictures"] += 1

    def end(self) -> None:
        """End the spell: what comes next is a new one, even where nothing changed."""
        self._what = None


class RecordingLog:
    """Collects what happened in one recording; owned by the recording thread.

    Times are seconds since the recording's first moment, as in its files.

    Attributes:
        origin_ms: that moment on `time.monotonic`'s clock in milliseconds; None before it.
        num_pictures: pictures written.
        num_generated: of these, made by a learned generator.
    """

    def __init__(self) -> None:
        self.origin_ms: int | None = None
        self.num_pictures = self.num_generated = 0
        self._spells = {name: Spells() for name in ("rungs", "bypass", "alarms")}
        self._gaps: list[dict[str, Any]] = []
        self._holes: list[dict[str, Any]] = []
        self._num_missing = 0
        self._added = StageClock("added_latency")
        self._stages: dict[str, StageClock] = {}
        self._last_number: int | None = None
        self._last_s = 0.0
        self._lost = False

    def seconds(self, at_ms: int) -> float:
        """Return a moment as seconds of this recording; the first one asked for becomes its zero."""
        if self.origin_ms is None:
            self.origin_ms = at_ms
        return (at_ms - self.origin_ms) / 1000

    def add(self, moment: Moment, at_ms: int) -> None:
        """Note a written picture."""
        at_s = self.seconds(at_ms)
        if moment.follows_loss and self.num_pictures:
            self.lose_signal(at_ms)  # the loss lies within the pre-roll
        if self._lost:
            self._gaps[-1]["to_s"] = at_s
        elif self._last_number is not None and moment.number > self._last_number + 1:
            self._note_hole(at_s, moment.number - self._last_number - 1)
        self._lost, self._last_number, self._last_s = False, moment.number, at_s
        self.num_pictures += 1
        self.num_generated += moment.is_generated
        self._note_spells(at_s, moment)
        self._added.add(moment.added_ns)
        for name, duration_ms in moment.stages_ms.items():
            self._stages.setdefault(name, StageClock(name)).add(round(duration_ms * 1e6))

    def lose_signal(self, at_ms: int) -> None:
        """Note that there is no camera picture from now on; said again, it changes nothing."""
        at_s = self.seconds(at_ms)
        if self._lost:
            return
        self._lost = True
        self._gaps.append({"from_s": self._last_s if self.num_pictures else at_s, "to_s": None})
        del self._gaps[:-MAX_SPELLS]
        for spells in self._spells.values():
            spells.end()

    def describe(self, *, final: bool) -> dict[str, Any]:
        """Return the entries for the sidecar.

        Args:
            final: whether the recording is over; percentiles of single stages are worked out only then.
        """
        clocks = {"added_latency": self._added} | (self._stages if final else {})
        described: dict[str, Any] = {name: spells.entries for name, spells in self._spells.items()}
        return described | {
            "signal_gaps": self._gaps,
            "holes": self._holes,
            "missing_in_holes": self._num_missing,
            "intervals_left_out": sum(spells.num_left_out for spells in self._spells.values()),
            "timings": describe_timings(clocks),
        }

    def _note_spells(self, at_s: float, moment: Moment) -> None:
        self._spells["rungs"].add(at_s, {"rung": moment.rung, "reason": moment.reason})
        self._spells["bypass"].add(at_s, {} if moment.is_bypassed else None)
        self._spells["alarms"].add(at_s, {"alarm": moment.alarm} if moment.alarm else None)

    def _note_hole(self, at_s: float, num_missing: int) -> None:
        self._num_missing += num_missing
        if len(self._holes) < MAX_SPELLS:
            self._holes.append({"from_s": self._last_s, "to_s": at_s, "pictures": num_missing})


def settings_entry(settings: Any) -> dict[str, Any]:
    """Return settings for the sidecar, but for the folder, which may name a person, and how the session began."""
    return {name: value for name, value in asdict(settings).items() if name not in ("folder", "from_start")}
