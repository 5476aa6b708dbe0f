"""Joining a Ray cluster: a bounded wait where nothing answers, and SIGTERM that keeps its meaning; needs no Ray."""

from __future__ import annotations

import signal
import socket

import pytest

from streamsr.batch.ray_cluster import WAIT_S, keeping_sigterm, wait_for
from streamsr.errors import UsageError


def test_no_cluster_at_an_address_is_said_after_a_while() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody answers here
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"a Ray cluster at 127.0.0.1:{port}, got .* for 0.2 s") as caught:
            wait_for(f"127.0.0.1:{port}", 0.2)
    assert "\n" not in str(caught.value)
    assert WAIT_S <= 20


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_what_answers_is_left_to_ray(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        wait_for(f"{scheme}127.0.0.1:{server.getsockname()[1]}", 5.0)
    wait_for("auto")


@pytest.mark.parametrize("address", ["nonsense", "host:", ":6379", "host:x", "host:99999"])
def test_what_is_no_address_is_refused_at_once(address: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT"):
        wait_for(address)


def test_sigterm_keeps_its_meaning_when_ray_sets_its_own() -> None:
    def ours(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, ours)
    try:
        with keeping_sigterm():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
