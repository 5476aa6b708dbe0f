"""Telling: what a session says of itself, as a snapshot for views and as a summary at its end."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from streamsr.capture.listening import Feed
from streamsr.display.shown import BYPASS, Shown
from streamsr.display.status import LiveStatus, RecordingStatus, SourceState
from streamsr.live.director import Director
from streamsr.live.doors import Door
from streamsr.live.keeper import RungKeeper
from streamsr.live.monitor import Monitor


class Teller:
    """Puts together what monitor, director, keeper and feed know. May be used from any thread.

    Args:
        name: of the source, without secrets.
        door: counts what the view had no time for.
        scale: of the rungs.
        feed: counts what it dropped itself.
        monitor: counts and times the rest.
        director: knows the deadline and the newest frame.
        keeper: knows the rungs.
    """

    def __init__(
        self,
        name: str,
        scale: int,
        feed: Feed,
        *,
        door: Door,
        monitor: Monitor,
        director: Director,
        keeper: RungKeeper,
    ) -> None:
        self.name, self.rungs = name, (*(rung.name for rung in keeper.rungs), f"bicubic-x{scale}")
        self._feed, self._door = feed, door
        self._monitor, self._director, self._keeper = monitor, director, keeper

    def status(self, state: SourceState, shown: Shown | None, recording: RecordingStatus) -> LiveStatus:
        """Return a snapshot.

        Args:
            state: of the feed.
            shown: the picture that is shown.
            recording: how the recording is.
        """
        director, keeper, latest = self._director, self._keeper, self._director.latest
        rung = keeper.rung
        silent = shown is not None and shown.is_slate and latest is not None
        return LiveStatus(
            **self._counted(self._monitor.measured()),
            source=self.name,
            # A silent source is lost before the feed itself knows.
            state=SourceState.LOST if silent and state is SourceState.LIVE else state,
            signal_age_s=0.0 if latest is None else (time.monotonic_ns() - latest.arrived_ns) / 1e9,
            size_in=(0, 0) if latest is None else (latest.width, latest.height),
            size_out=(0, 0) if shown is None else (shown.picture.width, shown.picture.height),
            engine=self.rungs[0],
            runtime=rung.description if rung else self.rungs[-1],
            rungs=self.rungs,
            rung=self.rungs[keeper.ladder.rung],
            reason=BYPASS if director.bypassed else keeper.ladder.reason,
            bypassed=director.bypassed,
            alarm=keeper.alarm or ("no signal" if silent else ""),
            badge=director.badge,
            period_ms=director.period_ms,
            max_latency_ms=director.max_latency_ms,
            skipped=self._skipped(),
            recording=recording,
        )

    def summary(self) -> dict[str, Any]:
        """Return what the ``--json`` line holds of the whole session."""
        return {
            "source": self.name,
            "ladder": list(self.rungs),
            "max_latency_ms": round(self._director.max_latency_ms, 3),
            **self._counted(self._monitor.summary()),
        }

    def _counted(self, measured: dict[str, Any]) -> dict[str, Any]:
        """Add to what the monitor counted what the feed and the place of the newest frame count."""
        feed, missed_by_rung = self._feed, Counter(self._door.missed)
        missed = missed_by_rung.total()
        overrun = self._director.frames.num_dropped + self._director.num_passed_over + feed.num_dropped
        causes = {"overrun": overrun, "view": missed}
        shown = next(key for key in ("shown", "frames_shown") if key in measured)
        return {
            **measured,
            "frames_in": measured["frames_in"] + feed.num_dropped,
            shown: measured[shown] - missed,
            "by_rung": dict(Counter(measured["by_rung"]) - missed_by_rung),
            "damaged": feed.num_damaged,
            "dropped": {cause: number for cause, number in causes.items() if number},
        }

    def _skipped(self) -> float:
        rung = self._keeper.rung
        count = getattr(rung.enlarger, "count", None) if rung else None
        return count.skipped / count.total if count is not None and count.total else 0.0
