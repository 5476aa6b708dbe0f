"""Look at the page in a headless browser: numbers are read from its canvas, in its own animation frames."""

from __future__ import annotations

import os
import shutil
import threading
import time
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from streamsr.bench.sightings import Stamp, usual_interval_ms
from streamsr.config import WebSettings
from streamsr.display.shown import Shown
from streamsr.errors import UsageError
from streamsr.sinks.web import WebView
from streamsr.worker import Line, Worker

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
"""Programs that are looked for where playwright has none of its own."""

VIEWPORT = {"width": 1280, "height": 900}
OPEN_MS = 60_000
DRAIN_S = 0.25
"""Between two collections of what the page saw."""


class PageObserver:
    """Reads numbers from the page as one headless Chromium draws it.

    The page's clock is brought to this program's by asking for it many times: the quickest answer tells the offset
    to within half the time that it took.

    Args:
        settings: of the page; a free port is taken.

    Attributes:
        clock_error_ms: by how much the page's clock may be misjudged.

    Raises:
        UsageError: there is no browser, or the page cannot be served.
    """

    seen_at = "on the page's canvas"

    def __init__(self, settings: WebSettings) -> None:
        require_browser()
        self.view = WebView(settings)
        self.clock_error_ms = float("inf")
        self._ahead_ms = 0.0
        self._looks: list[tuple[float, int]] = []
        self._sizes: tuple[int, int, int] | None = None
        self._leaving = threading.Event()
        self._line = Line()
        self._worker = Worker("browser", self._line, self._watch, lambda: None)

    @property
    def is_ready(self) -> bool:
        """Whether a number was seen, or the browser failed, which `__exit__` raises."""
        return self._line.failure is not None or any(number >= 0 for _, number in self._looks[-5:])

    def presented(self, shown: Shown, at_ns: int) -> None:
        """Note how large the pictures are."""
        if shown.original is not None:
            self._sizes = (shown.picture.width, shown.picture.height, shown.original.width)

    def sightings(self) -> tuple[list[Stamp], int]:
        """Return what the page saw, at this program's times."""
        seen = [Stamp(number, self._monotonic_ns(at_ms)) for at_ms, number in self._looks if number >= 0]
        return seen, len(self._looks) - len(seen)

    def interval_ms(self) -> float:
        """Return the usual time between two animation frames."""
        return usual_interval_ms([self._monotonic_ns(at_ms) for at_ms, _ in self._looks])

    def __enter__(self) -> PageObserver:
        """Start the browser; it opens the page when the session serves it."""
        self._worker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the browser.

        Raises:
            UsageError: it could not be started, or did not show the page.
        """
        self._leaving.set()
        self.view.__exit__(None, None, None)  # so that a page that was never served is refused, not waited for
        self._worker.join()
        if self._line.failure is not None and kind is None:
            raise UsageError(f"browser: {_first_line(self._line.failure)}; see playwright install chromium")

    def _monotonic_ns(self, page_ms: float) -> int:
        return round((page_ms + self._ahead_ms) * 1e6)

    def _watch(self) -> None:
        """Drive the browser; playwright's objects belong to this thread."""
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            own = Path(playwright.chromium.executable_path)
            arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
            browser = playwright.chromium.launch(
                executable_path=None if own.is_file() else find_browser(), args=arguments
            )
            try:
                page = browser.new_page(viewport=VIEWPORT)  # type: ignore[arg-type]
                page.add_init_script(script_text())
                page.goto(self.view.url, timeout=OPEN_MS, wait_until="domcontentloaded")
                while not self._leaving.wait(DRAIN_S):
                    self._drain(page)
            finally:
                browser.close()

    def _drain(self, page: Any) -> None:
        """Collect what the page saw, and compare the clocks."""
        asked_ms = time.monotonic_ns() / 1e6
        told = page.evaluate("sizes => window.streamsrBench.drain(sizes)", self._sizes)
        took_ms = time.monotonic_ns() / 1e6 - asked_ms
        if took_ms / 2 < self.clock_error_ms:
            self.clock_error_ms, self._ahead_ms = took_ms / 2, asked_ms + took_ms / 2 - told["now"]
        self._looks += [(at_ms, number) for at_ms, number in told["looks"]]


def script_text() -> str:
    """Return what runs in the page."""
    return (resources.files("streamsr.bench") / "page.js").read_text(encoding="utf-8")


def find_browser() -> str | None:
    """Return the path of a Chromium of this machine; None where there is none."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def require_browser() -> None:
    """Check that a page could be looked at.

    Raises:
        UsageError: playwright or a Chromium is missing.
    """
    if find_spec("playwright") is None:
        raise UsageError("expected playwright, which drives the browser, found none; pip install playwright")
    if find_browser() is None and not _has_own_browser():
        raise UsageError("expected a Chromium, found none; playwright install chromium")


def _has_own_browser() -> bool:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        return Path(playwright.chromium.executable_path).is_file()


def _first_line(failure: BaseException) -> str:
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
    return lines[0] if lines else type(failure).__name__
