"""Comparing in turn: contenders that do the same work, warmed, timed round after round, told as ratios of a round."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.installed import Unavailable
from benchmarks.turns import Company, Timings, in_turn
from streamsr.config import UpscaleSettings

DEFAULT, WHOLE, PLAIN = "ours, default", "ours, whole frames", "ours, whole frames, not projected"
"""Our three: as installed; every pixel in one launch a frame; the same without the consistency projection, which is
all that the others do."""

Enlarge = Callable[[Path], object]
"""Enlarges the file of that name into one of its own."""


@dataclass(frozen=True)
class Rounds:
    """How often things are called.

    Attributes:
        most: rounds.
        least: rounds that run whatever they take.
        budget_s: no further round starts after so many seconds.
    """

    most: int
    least: int
    budget_s: float


def warmed(calls: Mapping[str, Callable[[], object]], skipped: list[dict[str, str]]) -> list[str]:
    """Call everything once, untimed, and return the names of what works; the rest is noted with its reason."""
    names = []
    for name, call in calls.items():
        try:
            call()
        except Exception as cause:  # what other people's libraries raise has no common class
            skipped.append(skip(name, cause))
        else:
            names.append(name)
    return names


def skip(name: str, reason: object) -> dict[str, str]:
    """Return why something was not measured, in one line."""
    text = " ".join(str(reason).split())[:240]
    foreseen = isinstance(reason, (str, Unavailable))
    return {"name": name, "reason": text if foreseen else f"{type(reason).__name__}: {text}"}


def compare_files(
    contenders: Mapping[str, Enlarge], clip: Path, short: Path, num_frames: int, rounds: Rounds
) -> dict[str, Any]:
    """Enlarge one clip with everything, in turn, after a short clip of the same size that is not timed.

    Returns:
        The rows of `rows_of`, and what was skipped.
    """
    skipped: list[dict[str, str]] = []
    names = warmed({name: partial(enlarge, short) for name, enlarge in contenders.items()}, skipped)
    found = compare({name: partial(contenders[name], clip) for name in names}, num_frames, rounds)
    return {"num_frames": num_frames, **found, "skipped": skipped}


def compare(
    calls: Mapping[str, Callable[[], object]], num_frames: int, rounds: Rounds, *, settle: bool = False
) -> dict[str, Any]:
    """Time calls that have run before, in turn; each enlarges so many frames."""
    company = Company()
    timings = in_turn(calls, rounds=rounds.most, least=rounds.least, budget_s=rounds.budget_s, settle=settle)
    return {
        "rounds": len(timings[DEFAULT].walls_ms),
        "cores_busy_with_others": company.cores(),
        "rows": rows_of(timings, num_frames),
    }


def rows_of(timings: Mapping[str, Timings], num_frames: int) -> list[dict[str, Any]]:
    """Return a row for each contender: milliseconds a frame, and how many times as fast ours are.

    ``default_times`` and ``plain_times`` are medians over the rounds of its time by that of ours in the same round.
    """
    rows = []
    for name, timing in timings.items():
        low, middle, high = (float(value) for value in np.percentile(timing.walls_ms, (10, 50, 90)) / num_frames)
        row: dict[str, Any] = {
            "name": name,
            "ours": name in (DEFAULT, WHOLE, PLAIN),
            "p10_ms": round(low, 3),
            "p50_ms": round(middle, 3),
            "p90_ms": round(high, 3),
            "fps": round(1e3 / middle, 2),
        }
        for key, reference in (("default_times", DEFAULT), ("whole_times", WHOLE), ("plain_times", PLAIN)):
            if reference in timings:
                row[key] = round(times_of(timing, timings[reference]), 3)
        rows.append(row)
    return rows


def on_processor(settings: UpscaleSettings) -> UpscaleSettings:
    """Return settings whose generator runs where the others' do, on a machine with a GPU too."""
    return replace(settings, generator=replace(settings.generator, runtime="openvino"))


def times_of(theirs: Timings, ours: Timings) -> float:
    """Return how many times as fast ours is: the median of the ratios of each round."""
    return float(np.median(np.array(theirs.walls_ms) / np.array(ours.walls_ms)))


def goal(text: str, least: float, got: float) -> dict[str, Any]:
    """Return something that was to be reached, and whether it was."""
    return {"goal": text, "least": least, "got": round(got, 3), "reached": got >= least}
