"""The window: shows the newest picture on this machine's screen and takes keys, pedals and the mouse."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic, monotonic_ns

from streamsr.display.commands import Command
from streamsr.display.compose import compose
from streamsr.display.decoration import Around
from streamsr.display.hand import Hand
from streamsr.display.keys import DEFAULT_KEYS, list_keys
from streamsr.display.panes import panes
from streamsr.display.showing import Showing
from streamsr.display.shown import Shown
from streamsr.display.status import LiveStatus
from streamsr.display.viewstate import ViewState
from streamsr.sinks.highgui import HighGuiWindow
from streamsr.sinks.screen import ScreenProbe

TITLE = "streamsr"
FIRST_SIZE, LARGEST_FIRST_SIZE = (960, 720), (1600, 1000)
"""Of the window before the first picture, and the largest that it takes after it by itself."""

TURN_S = 0.004
"""Longest wait for a picture before keys are looked at again."""

STATUS_S, REDRAW_S, NOTICE_S = 0.25, 0.1, 2.5
"""How often figures change, how often a picture is drawn anew without a newer one, how long a notice stands."""

SILENCE_S, SILENT_PERIODS = 1.0, 4
"""Without a picture or slate for as long as the longer of the two, the window itself says that it shows an old one."""


class WindowView:
    """Shows pictures in a window of this machine. Its `run` must be called in the main thread.

    Args:
        keys: command of each key, as `keys.bind` returns.
        full_screen: whether it begins full screen.

    Raises:
        UsageError: by `check` and `run`, where no window can be opened.
    """

    name = "window"
    wants_main_thread = True

    def __init__(self, keys: Mapping[str, Command] = DEFAULT_KEYS, *, full_screen: bool = False) -> None:
        self.keys = dict(keys)
        self.full_screen = full_screen
        self._probe: ScreenProbe | None = None

    def check(self) -> None:
        """Check that a window can be opened, which takes a fifth of a second; `run` does so too where nobody did."""
        if self._probe is None:
            self._probe = ScreenProbe()

    def close(self) -> None:
        """Let go of what `check` holds; `run` does so by itself."""
        if self._probe is not None:
            self._probe.close()
            self._probe = None

    def run(self, showing: Showing) -> None:
        """Show pictures until the session is over; a window that a person closes ends it."""
        self.check()
        with HighGuiWindow(TITLE, FIRST_SIZE) as window:
            self.close()
            watch = _Watch(window, showing, self.keys)
            if self.full_screen:
                watch.obey(Command.FULL_SCREEN)
            while not showing.ended:
                watch.turn()


class _Watch:
    """What a person sees and does in one window during one session."""

    def __init__(self, window: HighGuiWindow, showing: Showing, keys: Mapping[str, Command]) -> None:
        self.window, self.showing, self.keys = window, showing, keys
        self.state, self.hand, self.status = ViewState(), Hand(), LiveStatus()
        self.shown: Shown | None = None
        self.held: Shown | None = None
        self._help = list_keys(keys)
        self._notice, self._notice_until = "", 0.0
        self._status_at = self._drawn_at = float("-inf")
        self._heard_at = monotonic()
        self._stale, self._fitted = True, False

    def turn(self) -> None:
        """Wait shortly for a picture, draw, and do what was asked for."""
        newer = self.showing.next(TURN_S)
        if newer is not None:
            self._take(newer)
        drawn = self._draw()
        key = self.window.poll()
        if drawn is not None and drawn is newer:
            self.showing.presented(newer)
        if self.window.closed:
            self.showing.ask(Command.QUIT)
            return
        if key in self.keys:
            self.obey(self.keys[key])
        self._follow_mouse()

    def obey(self, command: Command) -> None:
        """Do what was asked for: here, or by the session."""
        self._stale = True
        if command.is_for_session:
            self._ask(command)
            return
        if command is Command.FREEZE and not self.state.frozen and (self.shown is None or self.shown.is_slate):
            self._notify("no picture to freeze")
            return
        self.state = self.state.after(command)
        if command is Command.FREEZE:
            self.held = self.shown if self.state.frozen else None
        if command is Command.FULL_SCREEN:
            self.window.set_full_screen(self.state.full_screen)

    def _ask(self, command: Command) -> None:
        """Ask the session; a snapshot of a frozen view is of the picture that is seen there."""
        about = self.held if command is Command.SNAPSHOT else None
        self._notify(self.showing.ask(command, about) if about else self.showing.ask(command))

    def _notify(self, text: str) -> None:
        """Show a line for a while."""
        self._notice, self._notice_until = text, monotonic() + NOTICE_S

    def _take(self, newer: Shown) -> None:
        if self.shown is None or (self.shown.is_slate and not self._fitted and not newer.is_slate):
            self._fit_window(newer)
            self._fitted = not newer.is_slate
        self.shown, self._heard_at, self._stale = newer, monotonic(), True

    def _fit_window(self, first: Shown) -> None:
        """Give the window the first picture's size, made smaller where that is too large for most screens."""
        picture = first.picture
        aspect = float(picture.sample_aspect)
        size = (picture.width * aspect, picture.height)
        share = min(1.0, *(most / side for most, side in zip(LARGEST_FIRST_SIZE, size, strict=True)))
        self.window.resize(round(size[0] * share), round(size[1] * share))

    def _draw(self) -> Shown | None:
        """Draw where there is something new to see; returns what was drawn."""
        now = monotonic()
        shown = self.held or self.shown
        if shown is None or not (self._stale or now - self._drawn_at >= REDRAW_S):
            return None
        if now - self._status_at >= STATUS_S:
            self.status, self._status_at = self.showing.status(), now
        notice = self._notice if now < self._notice_until else ""
        around = Around(self.status, notice, self._help, self._silence(now))
        self.window.show(compose(shown, self.state, self.window.size, now_ns=monotonic_ns(), around=around))
        self._drawn_at, self._stale = now, False
        return shown

    def _silence(self, now: float) -> float:
        """Return for how many seconds the session gave nothing, where that is too long; else 0."""
        silent_s = now - self._heard_at
        limit_s = max(SILENCE_S, SILENT_PERIODS * self.status.period_ms / 1000)
        return silent_s if silent_s > limit_s else 0.0

    def _follow_mouse(self) -> None:
        shown = self.held or self.shown
        for event in self.window.mouse():
            if shown is not None:
                before = self.state
                self.state = self.hand.apply(event, before, panes(shown, before, self.window.size))
                self._stale |= self.state != before
