"""WebView: a page that shows the pictures, served to browsers that hold the token."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from importlib import resources
from types import TracebackType

from aiohttp import web

from streamsr.config import WebSettings
from streamsr.display.showing import Showing
from streamsr.errors import UsageError
from streamsr.sinks.web.address import check_reach, choose_token, open_listener, tls_context, url_host
from streamsr.sinks.web.audience import Audience
from streamsr.sinks.web.door import Door, Refused
from streamsr.sinks.web.pump import Pump
from streamsr.sinks.web.serving import page_headers, serving

log = logging.getLogger(__name__)

FILES: Mapping[str, tuple[str, str]] = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/link.js": ("link.js", "text/javascript"),
    "/picture.js": ("picture.js", "text/javascript"),
    "/stage.js": ("stage.js", "text/javascript"),
    "/panel.js": ("panel.js", "text/javascript"),
    "/graph.js": ("graph.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""Every path but the socket's, and the file of the package that it gives: nothing is ever looked up by a path."""

SOCKET_PATH = "/watch"


class WebView:
    """Shows pictures in browsers. A context manager; `run` also closes it.

    The address is bound when this is made, so that a port that is taken is known before the session begins.

    Args:
        settings: where it is served, and to whom.

    Attributes:
        name: ``web``.
        wants_main_thread: False.
        url: to be opened in a browser; whoever has it may watch and give commands.

    Raises:
        UsageError: settings that cannot be, or an address that is not to be had.
    """

    name = "web"
    wants_main_thread = False

    def __init__(self, settings: WebSettings | None = None) -> None:
        self.settings = chosen = settings or WebSettings()
        if not 1 <= chosen.jpeg_quality <= 100:
            raise UsageError(f"JPEG quality: expected 1 to 100, got {chosen.jpeg_quality}; 88 is the default")
        token = choose_token(chosen)
        check_reach(chosen)
        self._tls = tls_context(chosen)
        self._files = _load_files()
        self._listener = open_listener(chosen.host, chosen.port)
        port = self._listener.getsockname()[1]
        self._door = Door(chosen.host, port, secure=self._tls is not None, token=token)
        self._audience: Audience | None = None
        self.url = f"{'https' if self._tls else 'http'}://{url_host(chosen.host)}:{port}/?token={token}"

    @property
    def num_viewers(self) -> int:
        """How many pages watch; may be read from any thread."""
        return self._audience.num_viewers if self._audience is not None else 0

    def run(self, showing: Showing) -> None:
        """Serve until the session is over.

        Raises:
            StreamsrError: pictures that no browser can be sent.
        """
        with self:
            asyncio.run(self._serve(showing))

    def __enter__(self) -> WebView:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening."""
        self.close()

    def close(self) -> None:
        """Stop listening; `run` does so by itself."""
        self._listener.close()

    async def _serve(self, showing: Showing) -> None:
        loop, finished = asyncio.get_running_loop(), asyncio.Event()
        self._audience = audience = Audience(showing.ask)
        quality = self.settings.jpeg_quality
        pump = Pump(showing, audience, quality, loop.call_soon_threadsafe, finished.set)
        async with serving(self._answer, self._listener, self._tls):
            pump.start()
            try:
                await finished.wait()
                await audience.end()
            finally:
                pump.stop()
        if pump.failure is not None:
            raise pump.failure

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        assert self._audience is not None
        is_socket = request.path == SOCKET_PATH
        brings_token = self._door.check(request, upgrade=is_socket)
        if is_socket:
            return await self._audience.attend(request)
        if request.path not in self._files:
            raise Refused(404, "there is nothing here")
        body, kind = self._files[request.path]
        response = web.Response(body=body, content_type=kind, charset="utf-8", headers=page_headers(request))
        if brings_token:
            self._door.admit(response)
        return response


def _load_files() -> dict[str, tuple[bytes, str]]:
    folder = resources.files("streamsr.sinks.web") / "page"
    return {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in FILES.items()}
