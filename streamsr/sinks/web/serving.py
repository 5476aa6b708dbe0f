"""Serving: one small HTTP server on one socket, which stops in bounded time whatever its clients do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

from aiohttp import web

from streamsr.sinks.web.door import SECURITY_HEADERS, Refused, content_policy

log = logging.getLogger(__name__)

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

MOST_CONNECTIONS = 64
"""At once; further ones are closed unanswered. Sixteen viewers with four connections each."""

FIRST_REQUEST_S = 5.0
"""Until which a connection must have sent a whole request, so that half-open ones cannot use all of them up."""

STOP_S = 0.05
"""That the answering of a request is given to notice that its connection was cut; then it is cancelled."""

LONGEST_LINE = 4096
"""Bytes of a request line or a header."""

SILENT = logging.Logger("streamsr.sinks.web.http", logging.CRITICAL + 1)
"""aiohttp would log a traceback for every malformed request, and a hostile client can send many."""


class _Request(web.BaseRequest):
    """A request whose answer, even one that aiohttp makes to a malformed one, does not say what runs here."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        # There is no public way to reach the answers to malformed requests.
        await super()._prepare_hook(response)
        response.headers["Server"] = "streamsr"
        response.headers.update(SECURITY_HEADERS)


class _Refusal(asyncio.Protocol):
    """Closes a connection at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close it."""
        transport.abort()  # type: ignore[attr-defined]


class Connections:
    """Makes aiohttp's protocols, not too many at once, and cuts those that never ask for anything.

    Args:
        server: that answers.
    """

    def __init__(self, server: web.Server) -> None:
        self.server = server
        self._silent: dict[Any, float] = {}

    def accept(self) -> asyncio.Protocol:
        """Return the protocol of a new connection."""
        if len(self.server.connections) >= MOST_CONNECTIONS:
            return _Refusal()
        made = self.server()
        self._silent[made] = monotonic()
        return made

    def has_asked(self, request: web.BaseRequest) -> None:
        """Note that a connection has sent a whole request."""
        self._silent.pop(request.protocol, None)

    async def cut_silent(self) -> None:
        """Cut connections that sent no whole request in time; runs until it is cancelled."""
        while True:
            await asyncio.sleep(FIRST_REQUEST_S / 5)
            late = [made for made, since in self._silent.items() if monotonic() - since > FIRST_REQUEST_S]
            for made in late:
                del self._silent[made]
                _cut(made)

    async def end(self) -> None:
        """End every connection, the stuck ones by force."""
        self.server.pre_shutdown()
        for made in self.server.connections:
            _cut(made)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.server.shutdown(STOP_S), 2 * STOP_S)


def _cut(made: Any) -> None:
    if made.transport is not None:
        made.transport.abort()


@asynccontextmanager
async def serving(answer: Answer, listener: socket.socket, tls: ssl.SSLContext | None = None) -> AsyncIterator[None]:
    """Serve while the body runs.

    Args:
        answer: answers a request, or raises `Refused`; any other exception is answered by 500 and logged.
        listener: bound, listening; closed at the end.
        tls: encrypts; None serves in the clear.
    """

    async def respond(request: web.BaseRequest) -> web.StreamResponse:
        connections.has_asked(request)
        return await _respond(answer, request)

    server = web.Server(
        respond,
        request_factory=_make_request,
        access_log=None,
        logger=SILENT,
        keepalive_timeout=15.0,
        max_line_size=LONGEST_LINE,
        max_field_size=LONGEST_LINE,
    )
    connections = Connections(server)
    patience = FIRST_REQUEST_S if tls is not None else None
    listening = await asyncio.get_running_loop().create_server(
        connections.accept, sock=listener, ssl=tls, ssl_handshake_timeout=patience
    )
    cutter = asyncio.create_task(connections.cut_silent())
    try:
        yield
    finally:
        listening.close()
        cutter.cancel()
        await connections.end()


def _make_request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
    return _Request(message, payload, protocol, writer, task, asyncio.get_running_loop())


async def _respond(answer: Answer, request: web.BaseRequest) -> web.StreamResponse:
    try:
        return await answer(request)
    except Refused as refused:
        log.debug("%s %s refused: %s", request.method, request.path, refused.reason)
        return web.Response(status=refused.status, text=refused.reason + "\n")
    except (ConnectionError, asyncio.CancelledError):
        raise
    except Exception:
        log.exception("a request could not be answered")
        return web.Response(status=500, text="something went wrong here\n")


def page_headers(request: web.BaseRequest) -> dict[str, str]:
    """Return the policy of a page, for a request whose Host was checked."""
    return {"Content-Security-Policy": content_policy(request.headers["Host"])}
