"""Address: where a page is served, refused before anything listens where it would be open to others by mistake."""

from __future__ import annotations

import errno
import ipaddress
import secrets
import socket
import ssl
from pathlib import Path
from urllib.parse import quote

from streamsr.config import WebSettings
from streamsr.errors import UsageError

TOKEN_BYTES = 24
"""Of a random token: 192 bits, past the 128 below which guessing is worth a thought."""

SHORTEST_TOKEN = 16
"""Characters that a chosen token must have."""

BACKLOG = 64
"""Connections that may wait to be accepted while the session starts."""


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address.

    Examples:
        >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "192.168.1.7", "tower")]
        [True, True, True, False, False, False]
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def choose_token(settings: WebSettings) -> str:
    """Return the token that the URL must carry: the chosen one, or 192 random bits.

    Raises:
        UsageError: a chosen token that is short, or that an URL would have to escape.
    """
    token = settings.token
    if token is None:
        return secrets.token_urlsafe(TOKEN_BYTES)
    if len(token) < SHORTEST_TOKEN or quote(token, safe="") != token:
        raise UsageError(
            f"token: expected at least {SHORTEST_TOKEN} letters, digits, '-', '_' or '.'; leave it out for a random one"
        )
    return token


def check_reach(settings: WebSettings) -> None:
    """Refuse to serve beyond this machine without TLS.

    Raises:
        UsageError: such an address without a certificate, and not said to be insecure.
    """
    if is_loopback(settings.host) or settings.tls_cert is not None or settings.insecure:
        return
    raise UsageError(
        f"{settings.host} can be reached from other machines, and without TLS anyone between can see the pictures:"
        " give --tls-cert and --tls-key, or --insecure to serve all the same"
    )


def tls_context(settings: WebSettings) -> ssl.SSLContext | None:
    """Return what encrypts connections (TLS 1.2 or later), None where no certificate is set.

    Raises:
        UsageError: one of the two files alone, or files that hold no certificate and its key.
    """
    cert, key = settings.tls_cert, settings.tls_key
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise UsageError("TLS needs both --tls-cert and --tls-key: give the other one too")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, cert, key)
    return context


def _load(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    def no_password() -> str:
        raise UsageError(f"TLS key {key}: expected one without a password; decrypt it with openssl rsa or openssl pkey")

    try:
        context.load_cert_chain(cert, key, password=no_password)
    except UsageError:
        raise
    except FileNotFoundError as cause:
        raise UsageError(f"TLS: expected PEM files {cert} and {key}, one is not there; check the paths") from cause
    except (ssl.SSLError, OSError, ValueError) as cause:
        reason = getattr(cause, "reason", None) or str(cause)
        raise UsageError(f"TLS: {cert} and {key} are no PEM certificate and its key ({reason}); check both") from cause


def open_listener(host: str, port: int) -> socket.socket:
    """Bind and listen, so that a port that is taken is known before a session begins.

    Args:
        host: name or address of this machine.
        port: 0 takes a free one.

    Raises:
        UsageError: a port that is taken or not allowed, an address that is not of this machine.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"port: expected 0 (a free one) to 65535, got {port}")
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as cause:
        raise UsageError(f"host {host!r}: expected a name or address of this machine ({cause.strerror})") from cause
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A session that has just ended leaves connections in TIME_WAIT; a port that is listened on is still refused.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(BACKLOG)
    except OSError as cause:
        listener.close()
        raise _unusable(host, port, cause) from cause
    return listener


def _unusable(host: str, port: int, cause: OSError) -> UsageError:
    if cause.errno == errno.EADDRINUSE:
        return UsageError(
            f"port {port} is taken, perhaps by another session: choose another one, or 0 for any that is free"
        )
    if cause.errno == errno.EACCES:
        return UsageError(f"port {port} is reserved for the system: choose one from 1024, or 0 for any that is free")
    return UsageError(f"cannot listen on {host}: not an address of this machine ({cause.strerror}); try 127.0.0.1")


def url_host(host: str) -> str:
    """Return a host as URLs write it; one that stands for every address becomes the machine's name.

    Examples:
        >>> url_host("127.0.0.1"), url_host("::1")
        ('127.0.0.1', '[::1]')
    """
    if host in ("0.0.0.0", "::", ""):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host
