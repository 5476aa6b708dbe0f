"""Viewer: one page that watches. What it is sent waits for what it has drawn, so that it is never far behind."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from time import monotonic, monotonic_ns

import numpy as np
from aiohttp import WSCloseCode, WSMsgType, web

from streamsr.sinks.web.messages import Ack, Ask, BadMessage, Coded, Wish, read_message

MOST_UNACKNOWLEDGED = {"jpeg": 2, "h264": 4}
"""Pictures on the way: one being drawn and one behind it. H.264 needs more, since a picture left out spoils all up to
the next key picture: four are 160 ms at 25 a second, the round trip of a thin link."""

MOST_ANSWERS = 16
"""Lines that wait to be said; further ones are left out."""

ASKS_PER_S, ASKS_AT_ONCE = 10.0, 20
"""How often a person may ask for something. No hand is faster; a script is refused."""

DRAWN_WINDOW = 250
"""Newest pictures whose way to the screen is summarised: ten seconds at 25 a second."""


class Viewer:
    """Sends one viewer the newest picture as often as it acknowledges one. Used by the serving loop alone.

    Args:
        socket: the WebSocket, prepared.

    Attributes:
        wish: what it wants to be sent.
        num_sent: pictures.
        num_dropped: pictures that this viewer alone was too slow for.
        needs_key: whether an H.264 decoder at the other end can begin with a key picture only.
    """

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self.socket = socket
        self.wish = Wish()
        self.num_sent = self.num_dropped = 0
        self.needs_key = True
        self._picture: Coded | None = None
        self._status: str | None = None
        self._answers: deque[str] = deque(maxlen=MOST_ANSWERS)
        self._unacknowledged: deque[tuple[int, int]] = deque()
        self._drawn_ms: deque[float] = deque(maxlen=DRAWN_WINDOW)
        self._asked, self._asked_at = 0.0, monotonic()
        self._wake = asyncio.Event()

    def wants(self, codec: str) -> bool:
        """Return whether it is to be sent pictures of a codec."""
        return self.wish.codec == codec and not self.wish.paused

    def change_wish(self, wish: Wish) -> None:
        """Take a new wish; pictures that wait for the old one are forgotten."""
        if (wish.codec, wish.paused) != (self.wish.codec, self.wish.paused) or wish.compare != self.wish.compare:
            self._picture, self.needs_key = None, True
        self.wish = wish

    def offer(self, coded: Coded) -> None:
        """Offer the newest picture; one that still waits gives way to it and is counted."""
        if self.needs_key and not coded.is_key:
            return
        if self._picture is not None:
            self.num_dropped += 1
            if not coded.is_key:
                # What waited is a picture that this one builds on: both are lost, and all up to the next key picture.
                self._picture, self.needs_key = None, True
                self.num_dropped += 1
                return
        self._picture, self.needs_key = coded, False
        self._wake.set()

    def tell(self, status: str) -> None:
        """Send a status, a JSON object, in place of one that still waits."""
        self._status = status
        self._wake.set()

    def answer(self, text: str) -> None:
        """Say one line."""
        self._answers.append(text)
        self._wake.set()

    def may_ask(self) -> bool:
        """Count one wish for the session; return whether it is not one too many."""
        now = monotonic()
        self._asked = max(0.0, self._asked - (now - self._asked_at) * ASKS_PER_S) + 1
        self._asked_at = now
        return self._asked <= ASKS_AT_ONCE

    def acknowledge(self, number: int) -> None:
        """Note that a picture, and all before it, are on the screen; numbers that are not on the way mean nothing."""
        if all(sent != number for sent, _ in self._unacknowledged):
            return
        while self._unacknowledged:
            sent, arrived_ns = self._unacknowledged.popleft()
            if sent == number:
                self._drawn_ms.append((monotonic_ns() - arrived_ns) / 1e6)
                break
        self._wake.set()

    async def send_all(self) -> None:
        """Send what there is until the socket closes; a socket that takes nothing holds up this viewer alone.

        Raises:
            ConnectionError: the socket is gone.
        """
        while not self.socket.closed:
            await self._wake.wait()
            self._wake.clear()
            while (text := self._next_text()) is not None:
                await self.socket.send_str(text)
            if self._picture is not None and self._has_room:
                coded, self._picture = self._picture, None
                self._unacknowledged.append((coded.shown.number & 0xFFFFFFFF, coded.shown.arrived_ns))
                self.num_sent += 1
                await self.socket.send_bytes(coded.message(compare=self.wish.compare))

    @property
    def _has_room(self) -> bool:
        return len(self._unacknowledged) < MOST_UNACKNOWLEDGED[self.wish.codec]

    def _next_text(self) -> str | None:
        if self._answers:
            return json.dumps({"kind": "answer", "text": self._answers.popleft()})
        if self._status is None:
            return None
        status, self._status = self._status, None
        own = json.dumps({"sent": self.num_sent, "dropped": self.num_dropped, "screen_ms": self._way_to_screen()})
        return f'{{"kind": "status", "you": {own}, "all": {status}}}'

    def _way_to_screen(self) -> dict[str, float]:
        """Summarise arrival to the acknowledgement of the drawn picture: an upper bound, the way back included."""
        if not self._drawn_ms:
            return {}
        p50, p99 = np.percentile(np.fromiter(self._drawn_ms, float), (50, 99))
        return {"p50": round(float(p50), 1), "p99": round(float(p99), 1)}


async def heard_from(viewer: Viewer) -> AsyncIterator[Ack | Ask | Wish]:
    """Give out what a viewer says, message by message; a socket that says anything else is closed."""
    while (heard := await viewer.socket.receive()).type is WSMsgType.TEXT:
        try:
            yield read_message(heard.data)
        except BadMessage as cause:
            await viewer.socket.close(code=WSCloseCode.POLICY_VIOLATION, message=str(cause).encode())
            return
    if heard.type is WSMsgType.BINARY:
        await viewer.socket.close(code=WSCloseCode.UNSUPPORTED_DATA, message=b"expected text")
