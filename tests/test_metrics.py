"""The metrics: what Prometheus's own parser reads from them, and who is answered."""

from __future__ import annotations

import http.client
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from streamsr.display.status import LiveStatus, RecordingStatus, SourceState
from streamsr.errors import UsageError
from streamsr.sinks.metrics import BOUNDS_MS, CONTENT_TYPE, MetricsServer, gpu_families
from streamsr.timing import Percentiles
from tests.web_doubles import FakeShowing

STATUS = LiveStatus(
    source="testsrc",
    state=SourceState.LIVE,
    rungs=("fast-x2", "bicubic-x2"),
    rung="bicubic-x2",
    frames_in=120,
    frames_shown=110,
    dropped={"newer came": 7, 'odd "name"\\\n': 3},
    by_rung={"fast-x2": 100, "bicubic-x2": 10},
    late=4,
    shown_late=6,
    reconnects=2,
    max_latency_ms=80,
    added_latency=Percentiles(100, 17.25, 24.5, 31.75, 40.0),
    recording=RecordingStatus(active=True, seconds=12.5, dropped=1),
)

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    with MetricsServer(0, lambda: STATUS, lambda: 3) as made:
        yield made


def ask(server: MetricsServer, path: str = "/metrics", method: str = "GET", **headers: str) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers["Content-Type"]
    finally:
        connection.close()


def samples(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    return found[f"streamsr_{name}", frozenset(labels.items())]


def test_prometheus_reads_what_the_session_says(server: MetricsServer) -> None:
    status, text, kind = ask(server)
    assert (status, kind) == (200, CONTENT_TYPE)
    found = samples(text)
    assert value(found, "frames_in_total") == 120
    assert value(found, "frames_shown_total") == 110
    assert value(found, "frames_dropped_total", cause="newer came") == 7
    assert value(found, "frames_dropped_total", cause='odd "name"\\\n') == 3
    assert value(found, "frames_shown_late_total") == 6
    assert value(found, "frames_by_rung_total", rung="fast-x2") == 100
    assert value(found, "rung_in_use", rung="bicubic-x2") == 1
    assert value(found, "rung_in_use", rung="fast-x2") == 0
    assert value(found, "frames_late_total") == 4
    assert value(found, "reconnects_total") == 2
    assert value(found, "viewers") == 3
    assert value(found, "recording_active") == 1
    assert value(found, "deadline_seconds") == 0.08
    assert value(found, "source_live") == 1
    lately_s = {"0.5": 0.01725, "0.95": 0.0245, "0.99": 0.03175, "1": 0.04}
    for quantile, seconds in lately_s.items():
        assert value(found, "added_latency_lately_seconds", quantile=quantile) == pytest.approx(seconds)


def test_every_family_is_described_once_and_before_its_samples(server: MetricsServer) -> None:
    _, text, _ = ask(server)
    described: list[str] = []
    for line in text.splitlines():
        if line.startswith("# TYPE"):
            described.append(line.split()[2])
        elif not line.startswith("#"):
            assert line.startswith(described[-1])
    assert len(described) == len(set(described)) > 15


def test_histograms_are_cumulative_and_add_up(server: MetricsServer) -> None:
    showing = FakeShowing()
    added_ms = [0.5, 1.0, 10.0, 33.0, 33.1, 5000.0]
    for number, added in enumerate(added_ms):
        shown = replace(showing.shown(number), stages_ms={"generate": added / 2})
        shown = replace(shown, made_ns=shown.arrived_ns + round(added / 4 * 1e6))
        server.observe(shown, round(added * 1e6))
    found = samples(server.text())
    for bound in BOUNDS_MS:
        expected = sum(added <= bound for added in added_ms)
        assert value(found, "added_latency_seconds_bucket", le=f"{bound / 1e3:g}") == expected
    assert value(found, "added_latency_seconds_bucket", le="+Inf") == len(added_ms)
    assert value(found, "added_latency_seconds_count") == len(added_ms)
    assert value(found, "added_latency_seconds_sum") == pytest.approx(sum(added_ms) / 1e3)
    assert value(found, "stage_latency_seconds_count", stage="generate") == len(added_ms)
    present_s = value(found, "stage_latency_seconds_sum", stage="present")
    assert present_s == pytest.approx(0.75 * sum(added_ms) / 1e3, rel=1e-4)
    assert value(found, "stage_latency_seconds_sum", stage="generate") == pytest.approx(sum(added_ms) / 2e3)


def test_slates_are_in_no_histogram(server: MetricsServer) -> None:
    server.observe(replace(FakeShowing().shown(0), original=None), 10**6)
    assert value(samples(server.text()), "added_latency_seconds_count") == 0


def test_observing_from_many_threads_loses_nothing(server: MetricsServer) -> None:
    shown = FakeShowing().shown(0)
    threads = [threading.Thread(target=lambda: [server.observe(shown, 10**6) for _ in range(200)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert value(samples(server.text()), "added_latency_seconds_count") == 800


@pytest.mark.parametrize(
    ("path", "method", "headers", "status"),
    [
        ("/", "GET", {}, 404),
        ("/metrics/..", "GET", {}, 404),
        ("/metrics", "POST", {}, 405),
        ("/metrics", "GET", {"Host": "evil.example"}, 421),
        ("/metrics", "GET", {"Origin": "http://evil.example"}, 403),
    ],
)
def test_nothing_else_is_answered(
    server: MetricsServer, path: str, method: str, headers: dict[str, str], status: int
) -> None:
    answered, text, _ = ask(server, path, method, **headers)
    assert answered == status
    assert "streamsr_" not in text


def test_a_taken_port_is_refused_in_one_line_and_free_again_afterwards(server: MetricsServer) -> None:
    with pytest.raises(UsageError, match=f"port {server.port} is taken"):
        MetricsServer(server.port, lambda: STATUS)
    server.close()
    MetricsServer(server.port, lambda: STATUS).close()


def test_gpu_memory_is_told_where_a_gpu_is_in_use_only(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = SimpleNamespace(
        is_available=lambda: True,
        is_initialized=lambda: True,
        device_count=lambda: 1,
        memory_allocated=lambda device: 100,
        memory_reserved=lambda device: 200,
        mem_get_info=lambda device: (600, 1000),
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    found = samples("".join(f"{line}\n" for family in gpu_families() for line in family))
    kinds = ("allocated", "reserved", "used_by_all", "total")
    assert [value(found, "gpu_memory_bytes", device="0", kind=kind) for kind in kinds] == [100, 200, 400, 1000]
    cuda.is_initialized = lambda: False
    assert not list(gpu_families())
    monkeypatch.delitem(sys.modules, "torch")
    assert not list(gpu_families())
