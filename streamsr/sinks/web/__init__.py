"""The page: live pictures and controls in a browser, served by aiohttp to whoever holds the token.

    showing ──► pump ──► audience ──► viewer, viewer, ...      one thread encodes, one loop serves
                JPEG or    newest       at most two unacknowledged
                H.264,     wins         pictures each
                once

Importing this without aiohttp raises a `UsageError` that says what to install.
"""

from streamsr.errors import UsageError

try:
    import aiohttp as _aiohttp  # noqa: F401
except ModuleNotFoundError as missing:
    raise UsageError("serving needs aiohttp: pip install 'streamsr[web]'") from missing

from streamsr.sinks.web.view import WebView

__all__ = ["WebView"]
