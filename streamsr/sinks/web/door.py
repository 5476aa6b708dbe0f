"""Door: who may come in. Host, Origin and token are checked on every request, before its path is looked at.

The token comes once, in the printed URL. It is exchanged for a cookie that is another random value, closed to scripts
(HttpOnly) and never sent from another site (SameSite=Strict); the page then takes the token out of the address bar.
"""

from __future__ import annotations

import hmac
import secrets
import socket
from collections import OrderedDict
from collections.abc import Mapping
from time import monotonic
from urllib.parse import urlsplit

from aiohttp import web

from streamsr.sinks.web.address import is_loopback, url_host

SECURITY_HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), fullscreen=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Of every answer; `content_policy` comes with them."""

SESSION_BYTES = 32
GUESSES, GUESS_PERIOD_S = 10, 2.0
"""Wrong tokens that an address may send at once, and seconds until it may send one more."""

REMEMBERED = 256
"""Addresses whose wrong tokens are counted; the one unseen longest is forgotten first."""


def content_policy(host: str) -> str:
    """Return the Content-Security-Policy of a page at a checked host: nothing but its own files and its own socket."""
    sources = f"connect-src 'self' ws://{host} wss://{host}; script-src 'self'; style-src 'self'; img-src 'self'"
    return f"default-src 'none'; {sources}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


class Refused(Exception):
    """A request that is not served: the HTTP status, and why in one line."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Guesses:
    """Counts wrong tokens by address, so that guessing is slow as well as hopeless."""

    def __init__(self) -> None:
        self._spent: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def exhausted(self, address: str) -> bool:
        """Return whether an address has to wait before its token is even looked at."""
        return self._level(address) > GUESSES - 1

    def add(self, address: str) -> None:
        """Count a wrong token."""
        self._spent[address] = (self._level(address) + 1, monotonic())
        self._spent.move_to_end(address)
        if len(self._spent) > REMEMBERED:
            self._spent.popitem(last=False)

    def _level(self, address: str) -> float:
        level, since = self._spent.get(address, (0.0, 0.0))
        return max(0.0, level - (monotonic() - since) / GUESS_PERIOD_S)


class Door:
    """Lets requests in or refuses them. Used by the serving loop alone.

    Args:
        host: that was listened on.
        port: that was listened on.
        secure: whether connections are encrypted.
        token: of the URL; None lets everybody in whose Host and Origin are right, which only loopback may do.
    """

    def __init__(self, host: str, port: int, *, secure: bool, token: str | None) -> None:
        self.port, self.secure = port, secure
        self.cookie = f"streamsr-{port}"
        self._token, self._session = token, secrets.token_urlsafe(SESSION_BYTES)
        self._names = {"localhost", "127.0.0.1", "::1", url_host(host).strip("[]").lower()}
        if not is_loopback(host):
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        self._guesses = Guesses()

    def check(self, request: web.BaseRequest, *, upgrade: bool = False) -> bool:
        """Let a request in.

        Args:
            request: the request.
            upgrade: whether it opens a WebSocket, which browsers allow across sites unless its Origin is checked.

        Returns:
            Whether it came with the token, so that the answer is to set the cookie.

        Raises:
            Refused: it may not come in.
        """
        self._check_host(request)
        self._check_origin(request, upgrade)
        if request.method != "GET":
            raise Refused(405, "only GET is answered here")
        return self._token is not None and self._check_token(request)

    def admit(self, response: web.StreamResponse) -> None:
        """Set the cookie that lets the page's further requests in, until the browser is closed."""
        response.set_cookie(self.cookie, self._session, path="/", httponly=True, samesite="Strict", secure=self.secure)

    def _check_host(self, request: web.BaseRequest) -> None:
        """Refuse a name that is not ours: a foreign one may have been rebound to this address (DNS rebinding)."""
        named = request.headers.getall("Host", [])
        name, port = split_host(named[0]) if len(named) == 1 else ("", None)
        if (port or (443 if self.secure else 80)) != self.port or not self._is_ours(name, request):
            raise Refused(421, "this host is not served here")

    def _is_ours(self, name: str, request: web.BaseRequest) -> bool:
        if name in self._names:
            return True
        transport = request.transport
        own = transport.get_extra_info("sockname") if transport is not None else None
        return own is not None and name == own[0]

    def _check_origin(self, request: web.BaseRequest, upgrade: bool) -> None:
        origins = request.headers.getall("Origin", [])
        expected = f"{'https' if self.secure else 'http'}://{request.headers['Host']}".lower()
        if any(origin.lower() != expected for origin in origins) or (upgrade and len(origins) != 1):
            raise Refused(403, "requests from other sites are not served")

    def _check_token(self, request: web.BaseRequest) -> bool:
        token, cookie = request.query.get("token"), request.cookies.get(self.cookie, "")
        if token is None:
            if not _same(cookie, self._session):
                # No guess: a page that was left open by an earlier session tries its old cookie again and again.
                raise Refused(403, "open the address that streamsr printed: it holds the token")
            return False
        address = request.remote or ""
        if self._guesses.exhausted(address):
            raise Refused(429, "too many wrong tokens: wait some seconds")
        if self._token is None or not _same(token, self._token):
            self._guesses.add(address)
            raise Refused(403, "wrong token: open the address that streamsr printed")
        return True


def split_host(value: str) -> tuple[str, int | None]:
    """Return name and port of a Host header; an empty name for one that is malformed.

    Examples:
        >>> split_host("127.0.0.1:8008"), split_host("[::1]:80"), split_host("me@127.0.0.1"), split_host("a:b")
        (('127.0.0.1', 8008), ('::1', 80), ('', None), ('', None))
    """
    try:
        parts = urlsplit(f"//{value}")
        name, port = parts.hostname or "", parts.port
    except ValueError:
        return "", None
    return ("", None) if parts.netloc != value or "@" in value else (name.lower(), port)


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())
