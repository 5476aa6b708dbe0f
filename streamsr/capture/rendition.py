"""The rendered test picture as a live source, at its rate, endless unless a number of frames is given."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from streamsr.capture.addresses import Address
from streamsr.capture.base import SourceInfo
from streamsr.capture.clips import picture_of
from streamsr.capture.delivery import Delivery
from streamsr.capture.keeping import OriginalKeeper
from streamsr.capture.testsrc import EndoscopySource, open_test_source
from streamsr.frame import Frame

LEAD = 2.5
"""How many times as long as the last picture took to render before the next one is due, its rendering begins."""

ENDLESS = 1 << 40
"""Frames: a thousand years at 25 a second."""


class Rendition:
    """One run of the test picture. Owned by the thread that reads.

    A frame is rendered before it is due and counts as arrived when it is, so that rendering is no part of the latency.

    Args:
        address: its target is what follows ``testsrc:``.
        delivery: takes the frames.
        keeper: takes the pictures.
    """

    def __init__(self, address: Address, delivery: Delivery, keeper: OriginalKeeper) -> None:
        self._source, self._facts = open_endless(address)
        self._delivery, self._keeper = delivery, keeper

    def run(self) -> None:
        """Render to the end."""
        self._delivery.open(paced=True)
        self._keeper.begin_source([], self._facts.rate)
        frames = iter(self._source)
        while True:
            began_s = time.monotonic()
            frame = next(frames, None)
            if not isinstance(frame, Frame):
                break
            took_s = time.monotonic() - began_s
            self._delivery.give(frame, self._facts, time.monotonic_ns())
            self._keep(frame)
            # A camera does not draw its pictures on the processor that enlarges them: the next one is left until late.
            time.sleep(max(0.0, float(1 / self._facts.rate) - LEAD * took_s))
        self._keeper.end_source()

    def _keep(self, frame: Frame) -> None:
        if self._keeper.is_wanted:
            picture: Any = picture_of(frame)
            self._keeper.take_picture(picture, arrived_ns=time.monotonic_ns())


def open_endless(address: Address) -> tuple[EndoscopySource, SourceInfo]:
    """Open the test picture, without an end where none is asked for.

    Raises:
        UsageError: another picture, another key, or a value that cannot be.
    """
    endless = "frames=" not in address.target
    separator = "," if ":" in address.target else ":"
    source = open_test_source(f"{address.target}{separator}frames={ENDLESS}" if endless else address.target)
    info = replace(source.info, name=address.shown)
    return source, replace(info, num_frames=None, duration_s=None) if endless or address.loop else info
