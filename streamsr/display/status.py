"""LiveStatus: everything a view may want to tell a person, as one frozen snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from streamsr.timing import Percentiles

NOTHING_MEASURED = Percentiles(0, 0.0, 0.0, 0.0, 0.0)


class SourceState(Enum):
    """How the source is."""

    OPENING = "opening"
    LIVE = "live"
    LOST = "no signal"
    RECONNECTING = "reconnecting"
    ENDED = "ended"


@dataclass(frozen=True)
class RecordingStatus:
    """How the recording is.

    Attributes:
        active: whether frames are being written now.
        folder: where to; empty where nothing was ever recorded.
        seconds: recorded so far.
        files: written so far.
        name: of the newest of these; empty where there is none.
        dropped: frames that the encoder had no time for.
        trouble: why it stopped by itself, in one line; empty where it did not.
    """

    active: bool = False
    folder: str = ""
    seconds: float = 0.0
    files: int = 0
    name: str = ""
    dropped: int = 0
    trouble: str = ""


@dataclass(frozen=True)
class LiveStatus:
    """A snapshot of a live session; `dataclasses.asdict` of it is what pages and metrics are made from.

    Attributes:
        source: name of the source, without secrets.
        state: how the source is.
        signal_age_s: seconds since the last frame arrived; 0 before the first.
        size_in: (width, height) of the camera's picture in pixels; (0, 0) before the first.
        size_out: (width, height) of the shown picture.
        engine: the best rung's engine.
        runtime: what runs the rung in use, in one line.
        rungs: names of all rungs, best first.
        rung: the one in use.
        reason: why it is not the best one; empty where it is.
        bypassed: whether a person asked for the camera's own picture.
        alarm: what is wrong, in one short line; empty where nothing is.
        badge: whether the badge is burnt in.
        period_ms: between two frames of the source.
        max_latency_ms: the deadline.
        frames_in: frames that came from the source.
        frames_shown: frames presented, slates not counted.
        dropped: frames that were never shown, by cause.
        damaged: packets and pictures of the source that were damaged; what could be decoded of them was shown.
        by_rung: frames presented, by rung.
        late: frames whose generator was late, so that they were shown through bicubic.
        shown_late: frames presented after the deadline all the same.
        reconnects: how often the source was opened again.
        rate_in: frames a second that come, over the last seconds.
        rate_shown: frames a second that are presented, over the last seconds.
        skipped: part of the patches that the generator was spared, 0 to 1.
        added_latency: arrival to presentation over a sliding window.
        stages: each stage over the same window, by name.
        recording: how the recording is.
        events: the latest lines of the log, oldest first.
        uptime_s: since the session began.
    """

    source: str = ""
    state: SourceState = SourceState.OPENING
    signal_age_s: float = 0.0
    size_in: tuple[int, int] = (0, 0)
    size_out: tuple[int, int] = (0, 0)
    engine: str = ""
    runtime: str = ""
    rungs: tuple[str, ...] = ()
    rung: str = ""
    reason: str = ""
    bypassed: bool = False
    alarm: str = ""
    badge: bool = True
    period_ms: float = 0.0
    max_latency_ms: float = 0.0
    frames_in: int = 0
    frames_shown: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    damaged: int = 0
    by_rung: Mapping[str, int] = field(default_factory=dict)
    late: int = 0
    shown_late: int = 0
    reconnects: int = 0
    rate_in: float = 0.0
    rate_shown: float = 0.0
    skipped: float = 0.0
    added_latency: Percentiles = NOTHING_MEASURED
    stages: Mapping[str, Percentiles] = field(default_factory=dict)
    recording: RecordingStatus = RecordingStatus()
    events: tuple[str, ...] = ()
    uptime_s: float = 0.0
