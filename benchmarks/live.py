"""Find how late live pictures are, whether any is ever stale, and what a session costs in memory.

    python -m benchmarks.live [--minutes 10] [--only none,slow] [--clip PATH]

The first event timed is the arrival of a frame's data in the process that reads the source (`Frame.arrived_ns`: for the
rendered source the moment at which the frame was due), the last one its presentation: in the null view the moment at
which the view holds the finished picture, in the page the first animation frame in which the picture's number is read
back from the canvas (`streamsr.bench`). A picture of a paced file arrives when it is due, decoded already: its decoding
is in no figure. Sections:

``none``    the default student and its ladder on the rendered source, 320x320 at 25 frames a second, null view.
``clip``    the same on a real clip, played at its own pace and size; only where ``--clip`` names one.
``web``     the page in one headless browser beside the null view, in turn; the difference of their medians.
``bypass``  pictures presented between the asking and the first one that is the camera's own, at random moments.
``slow``    a double that sleeps for random, heavy-tailed times in place of the generator: how old each picture was when
            the next one took its place, against the deadline and one period; every picture of the run counts.
``gpu``     1920x1080 at 60 frames a second on the fastest runtime; only where there is a GPU. Needs no display.

Frames count once every engine of the ladder is warm, but in ``slow``, where all count. What is not run keeps its last
figures in the JSON; each section says when and beside how much other work it was measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.installed import no_module

if __name__ == "__main__" and (missing := no_module("av")):
    sys.exit(f"benchmarks.live: expected PyAV for every section, got {missing}; pip install av")

from benchmarks.card import machine_card, options_of, print_card, print_table, report
from benchmarks.clips import long_clip
from benchmarks.live_sessions import NotingView, figures_of, sit
from benchmarks.live_trials import Sleeper, Toggler, ages_of, reactions_of
from benchmarks.turns import Company
from streamsr.bench.observing import HeardFeed
from streamsr.bench.sessions import make_session
from streamsr.bench.views import BenchSettings, measure_one
from streamsr.capture.feeds import open_feed
from streamsr.config import FeedSettings, GeneratorSettings, LiveSettings
from streamsr.engine import bicubic_engine
from streamsr.errors import InputError, UsageError
from streamsr.fallback import make_upscaler
from streamsr.frame import Frame
from streamsr.live.rungs import Enlarger
from streamsr.live.session import LiveSession
from streamsr.runtimes import gpu_runs_torch
from streamsr.runtimes.nvidia import find_gpus

SOURCE, PERIOD_MS = "testsrc:endoscopy:size=320x320", 40.0
SMALL = "testsrc:endoscopy:size=128x96"
DEADLINE_MS = 2 * PERIOD_MS

MOST_P50_MS, MOST_P99_MS, MOST_WEB_MS, MOST_DROPPED = 33.0, 66.0, 30.0, 0.01
MOST_GROWTH_MIB = 10.0
"""Of memory in ten minutes that still counts as flat: clocks and logs that are kept fill up to their bounds."""

MOST_GPU_P99_MS = 1e3 / 60


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        seconds: of a long section.
        tries: of bypass.
        rounds: of page and null view, in turn.
        round_s: each of them.
        source: rendered, at 25 frames a second.
        clip: a real one; None where none is given.
    """

    seconds: float
    tries: int = 100
    rounds: int = 3
    round_s: float = 20.0
    source: str = SOURCE
    clip: Path | None = None


Hear = Callable[[Frame], None]


class LeftOut(Exception):
    """Why a section cannot be measured here."""


def making(source: str, settings: LiveSettings) -> Callable[[NotingView, Hear], LiveSession]:
    """Return what puts a session of a source together."""
    return lambda view, hear: make_session(source, settings, view, hear=hear)


def measure_none(plan: Plan) -> dict[str, Any]:
    """Run the rendered source through the default ladder."""
    return figures_of(sit(making(plan.source, LiveSettings()), seconds=plan.seconds))


def measure_clip(plan: Plan) -> dict[str, Any]:
    """Run a real clip, again and again, at its own pace."""
    if plan.clip is None:
        raise LeftOut("no --clip was given")
    settings = LiveSettings(feed=FeedSettings(pace=True, loop=True))
    source = str(plan.clip)
    sitting = sit(making(source, settings), seconds=plan.seconds)
    return {"clip": plan.clip.name, **figures_of(sitting)}


def measure_web(plan: Plan) -> dict[str, Any]:
    """Measure the null view and the page in turn."""
    settings = BenchSettings(plan.source, GeneratorSettings().engine, seconds=plan.round_s)
    rows: dict[str, list[dict[str, Any]]] = {"none": [], "web": []}
    try:
        for _ in range(plan.rounds):
            for view, found in rows.items():
                found.append(dict(measure_one(view, settings)))
    except UsageError as cause:
        raise LeftOut(str(cause)) from cause
    pairs = zip(rows["none"], rows["web"], strict=True)
    more = [web["added_latency"]["p50_ms"] - none["added_latency"]["p50_ms"] for none, web in pairs]
    return {"rounds": rows, "more_at_the_median_ms": round(float(np.median(more)), 3)}


def measure_bypass(plan: Plan) -> dict[str, Any]:
    """Ask for bypass at random moments."""
    toggler = Toggler(plan.tries)
    seconds = 2 * plan.tries * Toggler.HOLD_S[1]
    sitting = sit(making(plan.source, LiveSettings()), seconds=seconds, during=toggler)
    return reactions_of(sitting, toggler)


def measure_slow(plan: Plan) -> dict[str, Any]:
    """Run a generator that is late at random."""

    def make(view: NotingView, hear: Hear) -> LiveSession:
        bicubic = make_upscaler(bicubic_engine(2), GeneratorSettings(), bit_depth=8)
        feed = HeardFeed(open_feed(plan.source), hear)
        rungs: list[tuple[str, Callable[[int], Enlarger]]] = [("sleeper", lambda depth: Sleeper())]
        return LiveSession(feed, view, rungs, bicubic, scale=2, max_latency_ms=DEADLINE_MS, name="sleeper")

    sitting = sit(make, seconds=plan.seconds)
    return {**figures_of(sitting), **ages_of(sitting, deadline_ms=DEADLINE_MS, period_ms=PERIOD_MS)}


def measure_gpu(plan: Plan) -> dict[str, Any]:
    """Play a rendered clip of 1920x1080 at 60 frames a second to a GPU."""
    gpus = find_gpus()
    if not gpus:
        raise LeftOut("there is no GPU")
    if not gpu_runs_torch():
        raise LeftOut(f"{gpus[0]}: torch cannot use it")
    with tempfile.TemporaryDirectory() as folder:
        clip = long_clip(Path(folder), 1920, 1080, 600, rate=60)
        settings = LiveSettings(feed=FeedSettings(pace=True, loop=True))
        try:
            sitting = sit(making(str(clip), settings), seconds=plan.seconds)
        except InputError as cause:
            raise LeftOut(str(cause)) from cause
    return {"gpu": gpus[0].name, "driver": gpus[0].driver, **figures_of(sitting)}


SECTIONS: dict[str, Callable[[Plan], dict[str, Any]]] = {
    "none": measure_none,
    "clip": measure_clip,
    "web": measure_web,
    "bypass": measure_bypass,
    "slow": measure_slow,
    "gpu": measure_gpu,
}


def bicubic_share(found: Any) -> float:
    """Return the part of the pictures that no generator made."""
    return sum(float(share) for rung, share in found["rung_shares"].items() if rung.startswith("bicubic"))


def goals_of(sections: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what must be reached, and whether it is; None where that was never measured."""
    wanted: list[tuple[str, str, Callable[[Any], float], float]] = []
    for name, source in (("none", "rendered"), ("clip", "real clip")):
        wanted += [
            (name, f"{source}: added latency p50, ms", lambda found: found["added_latency"]["p50_ms"], MOST_P50_MS),
            (name, f"{source}: added latency p99, ms", lambda found: found["added_latency"]["p99_ms"], MOST_P99_MS),
            (name, f"{source}: part of the frames dropped", lambda found: found["dropped_share"], MOST_DROPPED),
            (name, f"{source}: memory grown, MiB", lambda found: found["memory"]["growth_mib"], MOST_GROWTH_MIB),
        ]
    wanted += [
        ("web", "page beyond the null view, median, ms", lambda found: found["more_at_the_median_ms"], MOST_WEB_MS),
        ("bypass", "pictures before bypass is seen", lambda found: found["most_pictures_before"], 1),
        ("slow", "pictures older than deadline and period", lambda found: found["violations"], 0),
        (
            "gpu",
            "1080p60 on a GPU: added latency p99, ms",
            lambda found: found["added_latency"]["p99_ms"],
            MOST_GPU_P99_MS,
        ),
        ("gpu", "1080p60 on a GPU: part of the pictures through bicubic", bicubic_share, MOST_DROPPED),
    ]
    rows = []
    for name, goal, figure, most in wanted:
        measured = "left_out" not in sections.get(name, {"left_out": ""})
        found = figure(sections[name]) if measured else None
        reached = None if found is None else found <= most
        rows.append({"section": name, "goal": goal, "most": round(most, 3), "got": found, "reached": reached})
    return rows


def measure(name: str, plan: Plan, card: dict[str, Any]) -> dict[str, Any]:
    """Measure one section, or say why not."""
    company = Company()
    try:
        found = SECTIONS[name](plan)
    except LeftOut as cause:
        return {"left_out": str(cause)}
    on = f"{card['cores']} cores, {card['processor']}"
    stamp = {"measured": card["date"], "on": on, "commit": card["commit"]}
    return {**found, **stamp, "cores_busy_with_others": company.cores()}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that this benchmark has beside the usual ones."""
    parser.add_argument("--minutes", type=float, default=10.0, help="of the long sections")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, with commas between them")
    parser.add_argument("--clip", type=Path, help="a real clip for the section of that name")


def plan_of(options: argparse.Namespace) -> Plan:
    """Return how much is to be measured."""
    if options.quick:
        return Plan(2.0, tries=4, rounds=1, round_s=1.0, source=SMALL, clip=options.clip)
    return Plan(60 * options.minutes, clip=options.clip)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    options = options_of("live", "How late, how stale and how costly is a live session?", arguments, add_options)
    names = options.only.split(",")
    if unknown := set(names) - set(SECTIONS):
        print(f"--only: expected some of {', '.join(SECTIONS)}, got {', '.join(sorted(unknown))}", file=sys.stderr)
        return UsageError.exit_code
    card, started_s, plan = machine_card(), time.monotonic(), plan_of(options)
    print_card(card)
    before = result_before(options.json)
    sections = before.get("sections", {})
    for name in names:
        sections[name] = measure(name, plan, card)
        show(name, sections[name])
    whole = {"card": card, "minutes": plan.seconds / 60}
    if names == ["gpu"]:  # on another machine than the rest, as its own figures say
        whole |= {key: before[key] for key in whole if key in before}
    result = {
        "question": "live",
        "quick": options.quick,
        **whole,
        "sections": sections,
        "goals": goals_of(sections),
        "seconds": round(time.monotonic() - started_s, 1),
    }
    print()
    print_table(result["goals"], ("goal", "most", "got", "reached"))
    report(result, options.json)
    return 0


def result_before(path: Path | None) -> dict[str, Any]:
    """Return an earlier result; the sections measured now replace its own."""
    if path is None or not path.is_file():
        return {}
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


def show(name: str, section: dict[str, Any]) -> None:
    """Print one section."""
    print(f"\n{name}")
    for key, value in section.items():
        if key != "rounds":
            print(f"  {key:36} {value}")
    for view, rows in section.get("rounds", {}).items():
        for row in rows:
            print(f"  {view:36} {row['added_latency']}, missed {row['missed']} of {row['frames']}")


if __name__ == "__main__":
    sys.exit(main())
