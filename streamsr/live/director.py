"""Director: takes the newest frame and has a picture of it ready before its deadline, whatever the generator does.

    newest frame ─► the rung in use ─► done in time? ─► badge ─► views, recording
                    (its own thread)         │ no
                                             └─► bicubic, here

One thread. A rung that is slow or hangs costs the picture its detail and never its time; a source that falls silent
costs the picture itself, for a slate takes its place.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from streamsr.display.overlay import BadgePlace, badge_line, burn_badge
from streamsr.display.shown import BYPASS, Shown
from streamsr.display.slate import blank_frame, no_signal_lines, opening_lines, slate
from streamsr.frame import Frame
from streamsr.live.costs import Costs
from streamsr.live.keeper import Made, RungKeeper
from streamsr.live.ladder import Budget
from streamsr.live.monitor import Monitor
from streamsr.live.rungs import Enlarger
from streamsr.worker import Latest, Line

SILENT_PERIODS = 3
"""Periods without a frame after which the last picture is taken away."""

SLATE_INTERVAL_S = 0.2
"""Between two slates, whose age goes on counting."""

OPENING_SIZE = (640, 360)
"""Width and height in pixels of the slate before the first frame."""

FIRST_PERIOD_MS = 40.0
"""Until the source states or shows its rate: 25 frames a second."""

SPARE_MS, SPARE_PERIODS = 2.0, 0.2
"""Kept free before the deadline, the longer of the two: waking up late, and periods that are not all alike."""

SMOOTHING = 0.1
"""Weight of the newest of what is averaged over some ten frames."""


class Director:
    """Makes what is shown. `run` is called in a thread of its own; the rest may be called from any thread.

    Args:
        line: whose stop ends it.
        keeper: of the rungs above bicubic.
        bicubic: enlarges in this thread; always works.
        scale: of all of them.
        monitor: counts and times.
        show: takes every picture; must return at once.
        max_latency_ms: from arrival to presentation; None is two periods.
        bypass_on_overrun: whether a frame is shown through bicubic as soon as the next one is due.
        badge: whether the badge is burnt in.

    Attributes:
        frames: where the source leaves its newest frame.
        latest: the frame taken last; None before the first.
        bypassed: whether a person asked for the camera's own picture.
        badge: whether the badge is burnt in; alarms always are.
        stated_period_ms: between two frames, as the source states.
        present: what views need, from the director's hand to the screen; told by the owner.
        num_passed_over: frames that would have been shown too old, while a newer one was there.
        waiting_text: what is being opened, for the slate before the first frame.
    """

    def __init__(
        self,
        line: Line,
        keeper: RungKeeper,
        bicubic: Enlarger,
        *,
        scale: int,
        monitor: Monitor,
        show: Callable[[Shown], None],
        max_latency_ms: float | None = None,
        bypass_on_overrun: bool = False,
        badge: bool = True,
    ) -> None:
        self.frames: Latest[Frame] = Latest(line)
        self.latest: Frame | None = None
        self.badge, self.bypassed = badge, False
        self.stated_period_ms, self.present = FIRST_PERIOD_MS, Costs()
        self.num_passed_over, self._passed_over = 0, False
        self.waiting_text = ""
        self._keeper, self._bicubic, self._scale = keeper, bicubic, scale
        self._monitor, self._show = monitor, show
        self._max_latency_ms, self._bypass_on_overrun = max_latency_ms, bypass_on_overrun
        self._place = BadgePlace()
        self._number, self._told_rung = 0, keeper.ladder.rung
        self._silent, self._on_screen_ns = True, 0
        self._last_picture = blank_frame(*OPENING_SIZE)
        self._bicubic_costs, self._wait_ms = Costs(1.0), 1.0

    @property
    def period_ms(self) -> float:
        """Between two frames: as measured, or as stated where nothing was measured yet."""
        return self._monitor.interval_ms or self.stated_period_ms

    @property
    def max_latency_ms(self) -> float:
        """The deadline, from arrival to presentation."""
        return 2 * self.period_ms if self._max_latency_ms is None else self._max_latency_ms

    @property
    def silent_after_ms(self) -> float:
        """How long a source may give nothing before its last picture is taken away."""
        return SILENT_PERIODS * max(self.period_ms, self.stated_period_ms)

    @property
    def _generator_ms(self) -> float:
        """From arrival to the moment at which a generator must be done: what is left after it needs its time too."""
        limit_ms = min(self.max_latency_ms, self.period_ms) if self._bypass_on_overrun else self.max_latency_ms
        return limit_ms - self._fallback_ms - max(SPARE_MS, SPARE_PERIODS * self.period_ms)

    @property
    def _fallback_ms(self) -> float:
        """What a frame still needs once a generator was given up: bicubic, and the view."""
        return self._bicubic_costs.dear_ms + self.present.dear_ms

    def bypass(self, asked: bool) -> None:
        """Show the camera's own picture, or no longer; the frame in work heeds it too."""
        self.bypassed = asked
        for rung in self._keeper.rungs:
            rung.poke()

    def run(self) -> None:
        """Direct until the line stops.

        Raises:
            Stopped: it did.
        """
        self._keeper.start()
        self._show_slate()
        while True:
            frame = self.frames.take(SLATE_INTERVAL_S if self._silent else max(self._patience_s(), 0.001))
            if frame is not None:
                self._direct(frame)
            elif self._silent or self._patience_s() <= 0:
                self._show_slate()

    def _patience_s(self) -> float:
        """Return for how long the source may still give nothing before a slate is due."""
        silent_ms = (time.monotonic_ns() - self._monitor.last_arrival_ns) / 1e6
        return (self.silent_after_ms - silent_ms) / 1e3

    def _direct(self, frame: Frame) -> None:
        """Show one frame."""
        taken_ns = time.monotonic_ns()
        self.latest, self._silent = frame, False
        self._wait_ms += SMOOTHING * ((taken_ns - frame.arrived_ns) / 1e6 - self._wait_ms)
        self._keeper.ladder.budget = Budget(self.period_ms, self._generator_ms - self._wait_ms)
        self._keeper.meet(frame)
        made = self._make(frame)
        if made.frame is None and self._is_better_passed_over(frame):
            return
        stages = {"decode": (frame.captured_ns - frame.arrived_ns) / 1e6, "wait": (taken_ns - frame.captured_ns) / 1e6}
        if made.frame is None:
            started = time.perf_counter_ns()
            picture = self._bicubic.upscale(frame)
            stages["bicubic"] = (time.perf_counter_ns() - started) / 1e6
            self._bicubic_costs.add(stages["bicubic"])
        else:
            picture = made.frame
        self._publish(frame, picture, made, {**stages, **made.stages_ms})
        self._keeper.tend(frame)
        self._tell_rung()

    def _is_better_passed_over(self, frame: Frame) -> bool:
        """Return whether a frame would be too old when it is shown and a newer one waits; never two in a row."""
        shown_ms = (time.monotonic_ns() - frame.arrived_ns) / 1e6 + self._fallback_ms
        self._passed_over = not self._passed_over and self.frames.is_filled and shown_ms > self.max_latency_ms
        self.num_passed_over += self._passed_over
        return self._passed_over

    def _tell_rung(self) -> None:
        """Log a change of rung, and why."""
        ladder, rung = self._keeper.ladder, self._keeper.rung
        if ladder.rung != self._told_rung:
            went, self._told_rung = "up" if ladder.rung < self._told_rung else "down", ladder.rung
            name = rung.name if rung else f"bicubic-x{self._scale}"
            why = f"better ones {ladder.reason}" if went == "up" and ladder.reason else ladder.reason
            self._monitor.say(f"{went} to {name}" + (f": {why}" if why else ""))

    def _make(self, frame: Frame) -> Made:
        """Have a frame made by a generator, unless a person asked for none."""
        if self.bypassed:
            return Made(None, reason=BYPASS)
        until_ns = frame.arrived_ns + round(self._generator_ms * 1e6)
        if self._on_screen_ns:
            # Where frames were dropped since, the picture on the screen grows old before this frame's own deadline.
            until_ns = min(until_ns, self._on_screen_ns + round((self._generator_ms + self.period_ms) * 1e6))
        return self._keeper.generate(frame, until_ns, lambda: self.bypassed)

    def _publish(self, frame: Frame, picture: Frame, made: Made, stages: dict[str, float]) -> None:
        started = time.perf_counter_ns()
        alarm = self._keeper.alarm
        said = badge_line(self._scale, is_generated=bool(made.rung), reason=made.reason)
        text = alarm.upper() if alarm else said if self.badge else ""
        if text:
            picture = burn_badge(picture, text, alarm=bool(alarm), place=self._place)
        stages["badge"] = (time.perf_counter_ns() - started) / 1e6
        self._last_picture, self._on_screen_ns = picture, frame.arrived_ns
        rung = made.rung or f"bicubic-x{self._scale}"
        self._hand_on(Shown(self._number, picture, frame, rung, made.reason, alarm, stages, time.monotonic_ns()))

    def _show_slate(self) -> None:
        """Show that there is no signal and how old the last picture is, or that the first one is waited for."""
        last, fell_silent = self.latest, not self._silent
        self._silent, self._on_screen_ns = True, 0
        if last is None:
            lines = opening_lines(self.waiting_text)
        else:
            lines = no_signal_lines((time.monotonic_ns() - last.arrived_ns) / 1e9)
        lost = last is not None
        picture = slate(self._last_picture, lines, alarm=lost)
        alarm, now_ns = "no signal" if lost else "", time.monotonic_ns()
        self._hand_on(Shown(self._number, picture, None, "slate", "no signal", alarm, made_ns=now_ns))
        if fell_silent:
            self._monitor.gap_ends()
            self._monitor.say("no signal")

    def _hand_on(self, shown: Shown) -> None:
        self._number += 1
        self._monitor.show(shown)
        self._show(shown)
