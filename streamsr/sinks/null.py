"""A sink that counts and forgets: for measuring the line without an encoder, and for tests."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from streamsr.frame import Frame
from streamsr.sinks.base import SinkReport


class NullSink:
    """Counts frames and packets.

    Attributes:
        report: `SinkReport` with `num_frames`.
        num_packets: packets that passed through.
    """

    def __init__(self) -> None:
        self.report = SinkReport()
        self.num_packets = 0

    def show(self, frame: Frame) -> None:
        """Count a frame and forget it."""
        self.report.num_frames += 1

    def pass_through(self, track: int, packet: Any) -> None:
        """Count a packet and forget it."""
        self.num_packets += 1

    def __enter__(self) -> NullSink:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say whether it ended well."""
        self.report.complete = kind is None
