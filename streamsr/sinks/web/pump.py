"""Pump: takes the newest picture from the session, codes it once for all who watch, and hands it to the loop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from time import monotonic_ns

from streamsr.display.showing import Showing
from streamsr.display.shown import Shown
from streamsr.display.status import LiveStatus
from streamsr.sinks.web.audience import Audience, Demand
from streamsr.sinks.web.h264 import H264Encoder
from streamsr.sinks.web.jpeg import bgr_of, encode_jpeg
from streamsr.sinks.web.messages import Coded, rung_number, status_text

log = logging.getLogger(__name__)

WAIT_S = 0.1
"""For a picture, before looking again whether the session is over."""

STATUS_NS = 250_000_000
"""Between two messages of status where nothing noteworthy changes; the page takes 1 s without any as a lost link."""

ORIGINAL_QUALITY = 95
"""JPEG quality of the camera's picture, so that what a comparison shows is the camera's and not the codec's."""


class Pump:
    """Runs in a thread of its own, since coding takes milliseconds that the loop has not.

    Args:
        showing: of the session.
        audience: who watches.
        quality: of JPEG pictures, 1 to 100.
        hand_over: calls a function in the serving loop.
        finished: called in the serving loop at the end.

    Attributes:
        failure: what ended it; None where the session did.
    """

    def __init__(
        self,
        showing: Showing,
        audience: Audience,
        quality: int,
        hand_over: Callable[..., object],
        finished: Callable[[], object],
    ) -> None:
        self.showing, self.audience, self.quality = showing, audience, quality
        self.failure: BaseException | None = None
        self._hand_over, self._finished = hand_over, finished
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="streamsr-web-pictures", daemon=False)
        self._h264, self._h264_original = H264Encoder(), H264Encoder()
        self._told_ns, self._told_of = 0, ("", "", "")
        self._newest: Shown | None = None
        self._status: LiveStatus | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and wait for it: no longer than for one picture."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not (self._stopped.is_set() or self.showing.ended):
                shown = self.showing.next(WAIT_S)
                if shown is not None:
                    self._show(shown)
                self._tell()
        except BaseException as cause:
            self.failure = cause
        finally:
            self._hand_over(self._finished)

    def _show(self, shown: Shown) -> None:
        self._newest = shown
        demand = self.audience.demand
        made = list(self._encode(shown, demand)) if demand.pictures else []
        self.showing.presented(shown, made[0].presented_ns if made else None)
        for coded in made:
            self._hand_over(self.audience.publish, coded)

    def _encode(self, shown: Shown, demand: Demand) -> list[Coded]:
        rung = rung_number(shown.rung, self._status or self._look())
        made = []
        if "jpeg" in demand.pictures:
            picture = encode_jpeg(bgr_of(shown.picture), self.quality)
            wanted = shown.original if "jpeg" in demand.originals else None
            original = encode_jpeg(bgr_of(wanted), ORIGINAL_QUALITY) if wanted is not None else b""
            made.append(Coded(shown, "jpeg", picture, original, True, rung, monotonic_ns()))
        if "h264" in demand.pictures:
            made.append(self._encode_h264(shown, demand, rung))
        return made

    def _encode_h264(self, shown: Shown, demand: Demand, rung: int) -> Coded:
        # Both begin a group together, so that a viewer can begin with both.
        picture = self._h264.encode(shown.picture, key=demand.key)
        original = b""
        if "h264" in demand.originals and shown.original is not None:
            original = self._h264_original.encode(shown.original, key=picture.is_key).data
        return Coded(shown, "h264", picture.data, original, picture.is_key, rung, monotonic_ns())

    def _tell(self) -> None:
        """Tell the viewers how the session is: four times a second, and at once when what is shown changes its kind."""
        if not self.audience.num_viewers:
            return
        newest, now = self._newest, monotonic_ns()
        kind = (newest.rung, newest.reason, newest.alarm) if newest else self._told_of
        if now - self._told_ns < STATUS_NS and kind == self._told_of:
            return
        self._told_ns, self._told_of = now, kind
        text = status_text(self._look(), newest, num_viewers=self.audience.num_viewers, now_ns=now)
        self._hand_over(self.audience.tell, text)

    def _look(self) -> LiveStatus:
        """Take a fresh snapshot; the last one is kept, since its rungs do not change and percentiles cost time."""
        self._status = self.showing.status()
        return self._status
