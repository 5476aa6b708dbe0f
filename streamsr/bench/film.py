"""Compare the times in a recording with those at which its pictures arrived."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from streamsr.bench.latency import Stretch, observe
from streamsr.bench.observing import ShownObserver
from streamsr.bench.sightings import Stamp, corner_of, read_corner, summarise
from streamsr.capture import open_source
from streamsr.config import LiveSettings
from streamsr.engine import find_engine
from streamsr.errors import OutputError
from streamsr.frame import Frame
from streamsr.live.monitor import told
from streamsr.sinks.live_recording import LiveRecorder
from streamsr.sinks.null_view import NullView


@dataclass(frozen=True)
class RecordingTimes:
    """What a recording says of the frames that arrived.

    Attributes:
        view: ``record``.
        seen_at: what is compared.
        frames: that arrived while it was measured.
        seen: of these, in the recording.
        missed: dropped, or not recorded.
        out_of_order: pictures that do not follow the one before.
        unreadable: pictures without a number.
        time_error: how far the time between two pictures is off in the recording, as `told` says; without sign.
        files: how many.
        dropped: pictures that the encoder had no time for.
        by_rung: pictures presented, by what made them.
    """

    view: str
    seen_at: str
    frames: int
    seen: int
    missed: int
    out_of_order: int
    unreadable: int
    time_error: Mapping[str, float]
    files: int
    dropped: int
    by_rung: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


@dataclass(frozen=True)
class RecordedPicture:
    """A number in a recording and the picture's time in it; `code` is None where there is no number."""

    code: int | None
    at_ms: float


@dataclass(frozen=True)
class TimesFound:
    """How the times of recorded pictures differ from those of arrival, in milliseconds, and how many do not fit."""

    errors_ms: tuple[float, ...]
    out_of_order: int
    unreadable: int


def compare_times(arrivals: Sequence[Stamp], recorded: Sequence[RecordedPicture], stretch: Stretch) -> TimesFound:
    """Compare the time of each recorded picture with its arrival, both counted from the first one that counts.

    Args:
        arrivals: of all frames, in order.
        recorded: in the order of the recording.
        stretch: frames that arrived outside of it are not counted.
    """
    readable = [picture for picture in recorded if picture.code is not None]
    pairs: list[tuple[float, float]] = []
    place, out_of_order = 0, 0
    for picture in readable:
        later = next((at for at in range(place, len(arrivals)) if arrivals[at].code == picture.code), None)
        if later is None:
            out_of_order += bool(pairs) and arrivals[place - 1].at_ns < stretch.end_ns
            continue
        place = later + 1
        if stretch.begin_ns <= arrivals[later].at_ns < stretch.end_ns:
            pairs.append((arrivals[later].at_ns / 1e6, picture.at_ms))
    errors = tuple(abs((at_ms - pairs[0][1]) - (arrived_ms - pairs[0][0])) for arrived_ms, at_ms in pairs)
    return TimesFound(errors, out_of_order, len(recorded) - len(readable))


def read_recording(paths: Sequence[Path], scale: int) -> list[RecordedPicture]:
    """Read numbers and times back from the files of a recording, in order; it is ``scale`` times the source's size."""
    found = []
    for path in paths:
        with open_source(str(path)) as source:
            for item in source:
                if isinstance(item, Frame):
                    found.append(RecordedPicture(read_corner(corner_of(item.planes[0], scale)), item.seconds * 1e3))
    return found


def measure_recording(source: str, settings: LiveSettings, *, seconds: float) -> RecordingTimes:
    """Record a session into a temporary folder and compare; see `observe`.

    Raises:
        OutputError: nothing was recorded.
    """
    with tempfile.TemporaryDirectory(prefix="streamsr-bench-") as folder:
        chosen = replace(settings.record, folder=Path(folder), from_start=True)
        with LiveRecorder(chosen) as recorder:
            observer = ShownObserver(NullView())
            session, stretch, ledger, _ = observe(observer, source, settings, seconds=seconds, recorder=recorder)
            status, files = recorder.status(), recorder.files
        if status.trouble or not files:
            raise OutputError(f"expected a recording, got none ({status.trouble or 'no file'})")
        recorded = read_recording(files, find_engine(settings.generator.engine).scale)
    arrivals = ledger.arrivals()
    found = compare_times(arrivals, recorded, stretch)
    frames = sum(stretch.begin_ns <= arrival.at_ns < stretch.end_ns for arrival in arrivals)
    return RecordingTimes(
        view="record",
        seen_at="time in the file",
        frames=frames,
        seen=len(found.errors_ms),
        missed=frames - len(found.errors_ms),
        out_of_order=found.out_of_order,
        unreadable=found.unreadable,
        time_error=told(summarise(found.errors_ms)),
        files=len(files),
        dropped=status.dropped,
        by_rung=session.summary()["by_rung"],
    )
