"""Metrics: what Prometheus reads of a live session, on the loopback address alone.

The text is of the exposition format 0.0.4 (prometheus.io, "Text-based format"): base units (seconds, bytes), counters
that end in ``_total``, histograms with cumulative buckets.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType

from aiohttp import web

from streamsr.display.shown import Shown
from streamsr.display.status import LiveStatus, SourceState
from streamsr.errors import StreamsrError
from streamsr.sinks.web.address import open_listener
from streamsr.sinks.web.door import Door, Refused
from streamsr.sinks.web.serving import serving

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
HOST = "127.0.0.1"

BOUNDS_MS = (1.0, 2.0, 4.0, 8.0, 12.0, 16.7, 25.0, 33.0, 50.0, 66.0, 100.0, 150.0, 250.0, 500.0, 1000.0)
"""Upper bounds of the buckets: around the targets (16.7, 33 and 66 ms), and up to a second, past which all is lost."""

START_S, STOP_S = 10.0, 5.0
"""Bounds against hanging: of the server's thread to begin, and to end."""

Labels = Mapping[str, str]


class Histogram:
    """Counts durations by bucket. Not thread-safe by itself."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_MS) + 1)
        self.sum_ms = 0.0

    def add(self, duration_ms: float) -> None:
        """Count a duration: in the first bucket whose bound is not below it."""
        self.counts[bisect_left(BOUNDS_MS, duration_ms)] += 1
        self.sum_ms += duration_ms

    def lines(self, name: str, labels: Labels) -> Iterable[str]:
        """Give out its samples, each bucket with all below it."""
        total = 0
        for bound, count in zip((*BOUNDS_MS, None), self.counts, strict=True):
            total += count
            edge = "+Inf" if bound is None else f"{bound / 1e3:g}"
            yield sample(f"{name}_bucket", total, {**labels, "le": edge})
        yield sample(f"{name}_sum", self.sum_ms / 1e3, labels)
        yield sample(f"{name}_count", total, labels)


class LatencyCounts:
    """Histograms of added latency and of every stage. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._added = Histogram()
        self._stages: dict[str, Histogram] = {}

    def observe(self, shown: Shown, added_ns: int) -> None:
        """Count a presented picture.

        Args:
            shown: the picture; a slate took no camera's picture anywhere and is left out.
            added_ns: from its arrival to its presentation.
        """
        if shown.is_slate:
            return
        with self._lock:
            self._added.add(added_ns / 1e6)
            present_ms = (shown.arrived_ns + added_ns - shown.made_ns) / 1e6
            for stage, duration_ms in {**shown.stages_ms, "present": present_ms}.items():
                self._stages.setdefault(stage, Histogram()).add(duration_ms)

    def families(self) -> Iterable[list[str]]:
        """Give out both families."""
        with self._lock:
            added = "streamsr_added_latency_seconds"
            yield [*header(added, "histogram", "From arrival to presentation."), *self._added.lines(added, {})]
            name = "streamsr_stage_latency_seconds"
            lines = [line for stage, found in self._stages.items() for line in found.lines(name, {"stage": stage})]
            yield [*header(name, "histogram", "Time that a stage took a presented picture."), *lines]


class MetricsServer:
    """Answers GET /metrics on a port of this machine, from a thread of its own. A context manager.

    The port is bound when this is made, so that one that is taken is known before the session begins.

    Args:
        port: 0 takes a free one.
        status: takes a snapshot of the session; called in the server's thread.
        num_viewers: counts the pages that watch; None where there is no page.

    Attributes:
        url: where the text is.

    Raises:
        UsageError: the port is not to be had.
    """

    def __init__(
        self, port: int, status: Callable[[], LiveStatus], num_viewers: Callable[[], int] | None = None
    ) -> None:
        self._listener = open_listener(HOST, port)
        self.port = int(self._listener.getsockname()[1])
        self.url = f"http://{HOST}:{self.port}/metrics"
        self._status, self._num_viewers = status, num_viewers
        self._counts = LatencyCounts()
        self._door = Door(HOST, self.port, secure=False, token=None)
        self._begun = threading.Event()
        self._stop: Callable[[], object] | None = None
        self._thread = threading.Thread(target=self._run, name="streamsr-metrics", daemon=False)

    def observe(self, shown: Shown, added_ns: int) -> None:
        """Count a presented picture; may be called from any thread, and never waits for a reader."""
        self._counts.observe(shown, added_ns)

    def text(self) -> str:
        """Return what is served now."""
        viewers = self._num_viewers() if self._num_viewers is not None else 0
        families = [*status_families(self._status(), viewers), *self._counts.families(), *gpu_families()]
        return "".join(f"{line}\n" for family in families for line in family)

    def __enter__(self) -> MetricsServer:
        """Start serving."""
        self._thread.start()
        if not self._begun.wait(START_S):
            raise StreamsrError(f"metrics: the server on port {self.port} did not begin within {START_S:g} s")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop serving."""
        self.close()

    def close(self) -> None:
        """Stop serving and let go of the port; also right where it was never entered."""
        if self._stop is not None:
            self._stop()
        if self._thread.is_alive():
            self._thread.join(STOP_S)
        self._listener.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self._begun.set()

    async def _serve(self) -> None:
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()

        def stop() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(stopped.set)

        async with serving(self._answer, self._listener):
            self._stop = stop
            self._begun.set()
            await stopped.wait()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self._door.check(request)
        if request.path != "/metrics":
            raise Refused(404, "only /metrics is here")
        return web.Response(body=self.text().encode(), headers={"Content-Type": CONTENT_TYPE})


def header(name: str, kind: str, text: str) -> tuple[str, str]:
    """Return the two lines that begin a family."""
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


def sample(name: str, value: float, labels: Labels | None = None) -> str:
    r"""Return one line.

    Examples:
        >>> sample("frames_total", 3, {"cause": 'a "b"'})
        'frames_total{cause="a \\"b\\""} 3'
    """
    pairs = ",".join(f'{key}="{_escaped(text)}"' for key, text in (labels or {}).items())
    number = str(value) if isinstance(value, int) else repr(float(value))
    return f"{name}{{{pairs}}} {number}" if pairs else f"{name} {number}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def status_families(status: LiveStatus, num_viewers: int) -> Iterable[list[str]]:
    """Give out one family of lines for each figure of a status."""
    recording = status.recording
    single: tuple[tuple[str, str, float, str], ...] = (
        ("frames_in_total", "counter", status.frames_in, "Frames that came from the source."),
        ("frames_shown_total", "counter", status.frames_shown, "Frames presented, slates not counted."),
        ("frames_late_total", "counter", status.late, "Frames shown through bicubic, their generator being late."),
        ("frames_shown_late_total", "counter", status.shown_late, "Frames presented after the deadline all the same."),
        ("reconnects_total", "counter", status.reconnects, "How often the source was opened again."),
        ("source_live", "gauge", int(status.state is SourceState.LIVE), "Whether the source gives frames."),
        ("signal_age_seconds", "gauge", status.signal_age_s, "Since the last frame arrived."),
        ("alarm", "gauge", int(bool(status.alarm)), "Whether something is wrong."),
        ("bypassed", "gauge", int(status.bypassed), "Whether a person asked for the camera's own picture."),
        ("rate_in_hertz", "gauge", status.rate_in, "Frames a second that come."),
        ("rate_shown_hertz", "gauge", status.rate_shown, "Frames a second that are presented."),
        ("deadline_seconds", "gauge", status.max_latency_ms / 1e3, "From arrival to presentation at most."),
        ("patches_skipped_ratio", "gauge", status.skipped, "Part of the patches that the generator was spared."),
        ("viewers", "gauge", num_viewers, "Pages that watch."),
        ("recording_active", "gauge", int(recording.active), "Whether frames are being written."),
        ("recording_seconds", "gauge", recording.seconds, "Recorded so far."),
        ("recording_dropped_total", "counter", recording.dropped, "Frames that the encoder had no time for."),
        ("uptime_seconds", "gauge", status.uptime_s, "Since the session began."),
    )
    for name, kind, value, text in single:
        yield [*header(f"streamsr_{name}", kind, text), sample(f"streamsr_{name}", value)]
    in_use = {rung: int(rung == status.rung) for rung in dict.fromkeys((*status.rungs, status.rung)) if rung}
    yield _family("frames_dropped_total", "counter", "Frames never shown.", "cause", status.dropped)
    yield _family("frames_by_rung_total", "counter", "Frames presented, by rung.", "rung", status.by_rung)
    yield _family("rung_in_use", "gauge", "1 for the rung that makes the picture now.", "rung", in_use)
    latency = status.added_latency
    lately_s = {"0.5": latency.p50_ms, "0.95": latency.p95_ms, "0.99": latency.p99_ms, "1": latency.max_ms}
    lately_s = {quantile: figure_ms / 1e3 for quantile, figure_ms in lately_s.items()}
    text = "From arrival to presentation, over the last ten seconds."
    yield _family("added_latency_lately_seconds", "gauge", text, "quantile", lately_s)


def _family(name: str, kind: str, text: str, label: str, values: Mapping[str, float]) -> list[str]:
    name = f"streamsr_{name}"
    return [*header(name, kind, text), *(sample(name, value, {label: key}) for key, value in values.items())]


def gpu_families() -> Iterable[list[str]]:
    """Give out the GPU's memory, where torch is in use and has begun to use one; asking must not begin it."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return
    name, lines = "streamsr_gpu_memory_bytes", []
    for device in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(device)
        kinds = {
            "allocated": torch.cuda.memory_allocated(device),
            "reserved": torch.cuda.memory_reserved(device),
            "used_by_all": total - free,
            "total": total,
        }
        lines += [sample(name, value, {"device": str(device), "kind": kind}) for kind, value in kinds.items()]
    yield [*header(name, "gauge", "Memory of a GPU."), *lines]
