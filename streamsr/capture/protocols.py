"""Network sources: the protocols there are, how FFmpeg is to use each, and URLs without their secrets."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from streamsr.errors import UsageError

TCP_BASED = frozenset({"http", "https", "tcp", "rtmp", "rtmps"})
SCHEMES = TCP_BASED | {"rtsp", "rtsps", "udp", "rtp"}

WHOLE = frozenset({"rtsp", "rtsps", "udp", "rtp"})
"""Protocols whose packets hold whole pictures: RTP, and the transport streams that UDP carries."""

DATAGRAMS = frozenset({"udp", "rtp"})
"""Protocols without a connection that could be lost."""

ELSEWHERE = {
    "srt": "ffmpeg -i 'srt://...' -c copy -f mpegts - | streamsr live -",
    "ndi": "gst-launch-1.0 -q ndisrc ndi-name=... ! ... ! matroskamux streamable=true ! fdsink | streamsr live -",
    "decklink": "gst-launch-1.0 -q decklinkvideosrc ! ... ! matroskamux streamable=true ! fdsink | streamsr live -",
}
"""Sources that PyAV's wheels do not hold, and the line that feeds them in."""

HLS_PATIENCE_S = 20.0
"""An HLS source gives a whole segment at a time, usually 2 to 6 s, and nothing before its playlist and one are in."""

PROBE = {"probesize": "1000000", "analyzeduration": "500000", "fpsprobesize": "4"}
"""What FFmpeg may read before it names the tracks, in bytes, microseconds and pictures: by default 5 MB, 5 s and 20.
(``nobuffer`` is not among them: it throws away what was read for that, the key frame first of all.)"""


def scheme_of(name: str) -> str:
    """Return the scheme of a URL in small letters; empty where it is none."""
    found = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]*)://", name)
    return found[1].lower() if found else ""


def refuse_url(url: str) -> None:
    """Refuse a URL that cannot be read.

    Raises:
        UsageError: its protocol is not there, or it names no host.
    """
    scheme = scheme_of(url)
    if scheme in ELSEWHERE:
        raise UsageError(f"{scheme}: not in PyAV's FFmpeg; feed it in through a pipe: {ELSEWHERE[scheme]}")
    if scheme not in SCHEMES:
        known = ", ".join(sorted(SCHEMES))
        raise UsageError(f"{scheme}: expected a URL of {known}; see streamsr live --help")
    if not _has_host(url):
        raise UsageError(f"{scheme}: expected a host and a port after {scheme}://, found none; check the address")


def is_playlist(url: str) -> bool:
    """Return whether a URL names an HLS playlist."""
    return urlsplit(url).path.lower().endswith(".m3u8")


def options_of(scheme: str, *, longest_s: float) -> dict[str, str]:
    """Return FFmpeg's options of a protocol.

    Args:
        scheme: of the URL.
        longest_s: how long a single wait may last.
    """
    longest_us = str(round(1e6 * longest_s))
    if scheme in ("rtsp", "rtsps"):
        return {**PROBE, "rtsp_transport": "tcp", "timeout": longest_us}
    if scheme in ("rtmp", "rtmps"):
        # By default a server is asked to send 3 s ahead.
        return {**PROBE, "rtmp_live": "live", "rtmp_buffer": "100", "rw_timeout": longest_us}
    if scheme == "udp":
        return {**PROBE, "overrun_nonfatal": "1", "fifo_size": "5000", "timeout": longest_us}
    return {**PROBE, "rw_timeout": longest_us}


def redact(url: str) -> str:
    """Return a URL with its user, password, query and stream key hidden.

    >>> redact("rtsp://nurse:secret@camera:554/live?token=1")
    'rtsp://***@camera:554/live?***'
    >>> redact("rtmp://host/app/key")
    'rtmp://host/app/***'
    """
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    path = parts.path
    if parts.scheme.lower().startswith("rtmp") and path.count("/") > 1:
        path = f"{path.rpartition('/')[0]}/***"
    shown = f"{parts.scheme}://{'***' if user else ''}{at}{host}{path}"
    return shown + ("?***" if parts.query else "")


def _has_host(name: str) -> bool:
    try:
        parts = urlsplit(name)
        return bool(parts.netloc.rpartition("@")[2]) and (parts.port is None or parts.port >= 0)
    except ValueError:
        return False
