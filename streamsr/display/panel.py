"""The panel: what the session is doing, in a dozen short lines, and the keys; drawn as covers for a window."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from streamsr.display.lettering import LEADING, draw_line
from streamsr.display.paint import WHITE, Box, Cover, box_letters
from streamsr.display.slate import spoken_age
from streamsr.display.status import LiveStatus, RecordingStatus, SourceState

PANEL_BOX = Box(ink=WHITE, paper=(0.06, 0.06, 0.07), opacity=0.86)

Rows = tuple[tuple[str, str], ...]
"""(name, value) of each line."""


def status_rows(status: LiveStatus) -> Rows:
    """Return what a panel says of a session."""
    latency = status.added_latency
    rows = [
        ("rung", status.rung + (f" ({status.reason})" if status.reason else "")),
        ("runs on", status.runtime),
        ("added latency", f"p50 {latency.p50_ms:.0f}  p95 {latency.p95_ms:.0f}  p99 {latency.p99_ms:.0f} ms"),
        ("slowest", f"{latency.max_ms:.0f} ms of {status.max_latency_ms:.0f} allowed"),
        ("rate", f"{status.rate_in:.1f} in, {status.rate_shown:.1f} shown"),
        ("dropped", _dropped(status)),
        ("late", f"{status.late} shown through bicubic"),
        ("skipped", f"{100 * status.skipped:.0f} % of patches"),
        ("source", _source(status)),
        ("size", "{}x{} to {}x{}".format(*status.size_in, *status.size_out) if status.frames_in else ""),
        ("recording", recording_line(status.recording)),
    ]
    return tuple(row for row in rows if row[1])


def recording_line(recording: RecordingStatus) -> str:
    """Say in a few words how a recording is."""
    if recording.trouble:
        return f"stopped: {recording.trouble}"
    if not recording.active:
        return "off"
    lost = f", {recording.dropped} dropped" if recording.dropped else ""
    return f"{clock(recording.seconds)}, files {recording.files}{lost}"


def clock(seconds: float) -> str:
    """Return minutes and seconds, and hours where there are any: ``1:02:03``."""
    whole = int(seconds)
    hours = f"{whole // 3600}:" if whole >= 3600 else ""
    return f"{hours}{whole // 60 % 60:02d}:{whole % 60:02d}"


def _dropped(status: LiveStatus) -> str:
    total = sum(status.dropped.values())
    causes = ", ".join(f"{cause} {num}" for cause, num in status.dropped.items() if num)
    return f"{total} of {status.frames_in}" + (f" ({causes})" if causes else "")


def _source(status: LiveStatus) -> str:
    age = "" if status.state is SourceState.LIVE else f", last picture {spoken_age(status.signal_age_s)} ago"
    again = f", opened again {status.reconnects}x" if status.reconnects else ""
    return f"{status.state.value}{age if status.frames_in else ''}{again}"


@lru_cache(maxsize=4)
def draw_panel(rows: Rows, capital_px: int) -> Cover:
    """Draw names and values as two columns in a box."""
    names, values = ([draw_line(row[side], capital_px) for row in rows] for side in (0, 1))
    column = max(line.shape[1] for line in names) + round(1.2 * capital_px)
    step = round(LEADING * capital_px)
    wide = column + max(line.shape[1] for line in values)
    block = np.zeros((step * (len(rows) - 1) + len(names[-1]), wide), np.float32)
    for index, (name, value) in enumerate(zip(names, values, strict=True)):
        line = block[index * step :]
        # Names are fainter than values, which is where one looks.
        line[: len(name), : name.shape[1]] = np.maximum(line[: len(name), : name.shape[1]], 0.62 * name)
        there = line[: len(value), column : column + value.shape[1]]
        np.maximum(there, value, out=there)
    return box_letters(block, round(0.9 * capital_px), PANEL_BOX)
