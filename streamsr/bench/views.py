"""Which views can be measured on this machine, and how."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from streamsr.bench.latency import PATIENCE_S, measure_view
from streamsr.config import FeedSettings, GeneratorSettings, LiveSettings
from streamsr.errors import InputError, StreamsrError, UsageError

CHILD_S = 60.0
"""For a program under a virtual screen to start and to end, beside what it measures."""


TRIES = 4
"""Windows that are opened on a virtual screen before it counts as a failure that nothing is seen there."""


@dataclass(frozen=True)
class BenchSettings:
    """What is measured.

    Attributes:
        source: of numbered frames.
        engine: the best rung's.
        runtime: that runs it.
        seconds: for how long frames count.
    """

    source: str
    engine: str
    runtime: Any = "auto"
    seconds: float = 20.0

    def live(self) -> LiveSettings:
        """Return the settings of the sessions: without a badge, which might stand on the number."""
        return LiveSettings(
            badge=False,
            generator=GeneratorSettings(engine=self.engine, runtime=self.runtime),
            feed=FeedSettings(pace=Path(self.source).is_file()),
        )


@dataclass(frozen=True)
class BenchResult:
    """What was measured, and what could not be.

    Attributes:
        rows: of each view that was measured, as JSON has it.
        left_out: why a view was not, in one line each.
    """

    rows: Sequence[Mapping[str, Any]]
    left_out: Mapping[str, str]


def measure_views(views: Sequence[str], settings: BenchSettings) -> BenchResult:
    """Measure some views, one session each; what this machine lacks, or what fails beside others, leaves its row out.

    Raises:
        StreamsrError: what is wrong with the source or the engine, as any session would say, where there is one view.
    """
    rows, left_out = [], {}
    for view in views:
        try:
            rows.append(measure_one(view, settings))
        except StreamsrError as cause:
            if len(views) == 1 and not isinstance(cause, UsageError):
                raise
            left_out[view] = str(cause)
    return BenchResult(rows, left_out)


def measure_one(view: str, settings: BenchSettings) -> Mapping[str, Any]:
    """Measure one view.

    Raises:
        UsageError: this machine lacks what it takes.
        StreamsrError: the session failed.
    """
    if view == "record":
        from streamsr.bench.film import measure_recording

        return measure_recording(settings.source, settings.live(), seconds=settings.seconds).to_json()
    if view == "window" and not os.environ.get("DISPLAY"):
        return measure_under_virtual_screen(settings)
    observer = observer_of(view, settings)
    return measure_view(observer, settings.source, settings.live(), seconds=settings.seconds).to_json()


def observer_of(view: str, settings: BenchSettings) -> Any:
    """Return what looks at a view; each brings in its own libraries."""
    if view == "window":
        from streamsr.bench.screen import ScreenObserver

        return ScreenObserver(os.environ["DISPLAY"])
    if view == "web":
        from streamsr.bench.browser import PageObserver

        return PageObserver(replace(settings.live().web, port=0))
    from streamsr.bench.observing import ShownObserver
    from streamsr.sinks.null_view import NullView

    return ShownObserver(NullView())


def measure_under_virtual_screen(settings: BenchSettings) -> Mapping[str, Any]:
    """Measure the window in a program of its own, for which an Xvfb is run.

    A program whose windows lose their screen is ended by Qt: this one's must not. On a bare X server a window sometimes
    stays black; then it is tried again.

    Raises:
        UsageError: there is no Xvfb.
        StreamsrError: the other program failed; with its own line.
    """
    for _ in range(TRIES):
        done = run_under_virtual_screen(settings)
        if done.returncode != InputError.exit_code:
            break
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1].removeprefix("streamsr: ")
        raise StreamsrError(f"the window under Xvfb: {said}")
    row: Mapping[str, Any] = json.loads(done.stdout.splitlines()[-1])["views"][0]
    return row


def run_under_virtual_screen(settings: BenchSettings) -> subprocess.CompletedProcess[str]:
    """Run ``streamsr bench latency --view window`` on a virtual screen.

    Raises:
        UsageError: there is no Xvfb.
        StreamsrError: it does not end.
    """
    from streamsr.bench.screen import virtual_screen

    command = [sys.executable, "-m", "streamsr", "bench", "latency", "--view", "window", "--json"]
    command += ["--source", settings.source, "-m", settings.engine, "--runtime", settings.runtime]
    command += ["-t", str(settings.seconds)]
    with virtual_screen() as display:
        environment = {name: value for name, value in os.environ.items() if name != "WAYLAND_DISPLAY"}
        environment |= {"DISPLAY": display, "QT_QPA_PLATFORM": "xcb"}
        limit_s = PATIENCE_S + settings.seconds + CHILD_S
        try:
            return subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=limit_s, check=False
            )
        except subprocess.TimeoutExpired as cause:
            raise StreamsrError("the window under Xvfb was not measured in time; set DISPLAY and try again") from cause
