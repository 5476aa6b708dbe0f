"""Audience: all viewers together. What they want decides what is coded; each is then offered the same bytes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from aiohttp import WSCloseCode, web

from streamsr.display.commands import Command
from streamsr.sinks.web.door import Refused
from streamsr.sinks.web.messages import LONGEST_MESSAGE, Ack, Ask, Coded, Wish
from streamsr.sinks.web.viewer import Viewer, heard_from

log = logging.getLogger(__name__)

MOST_VIEWERS = 16
HEARTBEAT_S = 4.0
"""Between two pings; a viewer that leaves one unanswered for half of it is gone, whatever its socket says."""

KEY_PERIOD_S = 1.0
"""At least this long between key pictures that viewers ask for: one slow viewer must not swell everybody's pictures."""

GOODBYE_S = 0.1
"""That a viewer is given to take the news that the session is over."""


@dataclass(frozen=True)
class Demand:
    """What has to be coded for those who watch now: pictures and originals, by codec.

    Attributes:
        pictures: codecs that somebody wants pictures in.
        originals: codecs that somebody compares in.
        key: whether an H.264 viewer waits for a key picture.
    """

    pictures: frozenset[str] = frozenset()
    originals: frozenset[str] = frozenset()
    key: bool = False


class Audience:
    """Every viewer. Used by the serving loop alone, but for `demand` and `num_viewers`, which any thread may read.

    Args:
        ask: asks the session for something, and returns what happens in one line.

    Attributes:
        demand: what has to be coded now.
    """

    def __init__(self, ask: Callable[[Command], str]) -> None:
        self.demand = Demand()
        self._ask = ask
        self._viewers: set[Viewer] = set()
        self._status: str | None = None
        self._key_at = 0.0

    @property
    def num_viewers(self) -> int:
        """How many watch."""
        return len(self._viewers)

    def publish(self, coded: Coded) -> None:
        """Offer a picture to those who want its codec."""
        if coded.codec == "h264" and coded.is_key:
            self._key_at = monotonic()
        for viewer in self._viewers:
            # A picture that was coded before a viewer began to compare has no original for it.
            if viewer.wants(coded.codec):
                viewer.offer(coded)
        self.review()

    def tell(self, status: str) -> None:
        """Send a status, a JSON object, to all."""
        self._status = status
        for viewer in self._viewers:
            viewer.tell(status)
        self.review()

    def review(self) -> None:
        """Find out anew what has to be coded."""
        watching = [viewer for viewer in self._viewers if not viewer.wish.paused]
        waits = any(viewer.needs_key and viewer.wish.codec == "h264" for viewer in watching)
        self.demand = Demand(
            frozenset(viewer.wish.codec for viewer in watching),
            frozenset(viewer.wish.codec for viewer in watching if viewer.wish.compare),
            waits and monotonic() - self._key_at >= KEY_PERIOD_S,
        )

    async def attend(self, request: web.BaseRequest) -> web.WebSocketResponse:
        """Let somebody watch, until they leave.

        Raises:
            Refused: too many do.
        """
        if len(self._viewers) >= MOST_VIEWERS:
            raise Refused(503, f"{MOST_VIEWERS} pages watch already: close one")
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT_S, compress=False, max_msg_size=LONGEST_MESSAGE, timeout=1.0)
        if not socket.can_prepare(request).ok:
            raise Refused(400, "expected a WebSocket")
        viewer = Viewer(socket)
        self._viewers.add(viewer)
        try:
            await socket.prepare(request)
            await self._attend(viewer)
        finally:
            self._viewers.discard(viewer)
            self.review()
        return socket

    async def end(self) -> None:
        """Tell all viewers that the session is over."""
        goodbyes = [viewer.socket.close(code=WSCloseCode.GOING_AWAY, message=b"ended") for viewer in self._viewers]
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.gather(*goodbyes, return_exceptions=True), GOODBYE_S)

    async def _attend(self, viewer: Viewer) -> None:
        if self._status is not None:
            viewer.tell(self._status)
        self.review()
        sending = asyncio.create_task(viewer.send_all())
        try:
            async for message in heard_from(viewer):
                self._heed(viewer, message)
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await sending

    def _heed(self, viewer: Viewer, message: Ack | Ask | Wish) -> None:
        if isinstance(message, Ack):
            viewer.acknowledge(message.number)
        elif isinstance(message, Wish):
            viewer.change_wish(message)
            self.review()
        elif message.command is None:
            viewer.answer("no such command")
        elif not viewer.may_ask():
            viewer.answer("too many commands at once: wait a second")
        else:
            answer = self._ask(message.command)
            log.info("page asked for %s: %s", message.command.value, answer)
            viewer.answer(answer)
