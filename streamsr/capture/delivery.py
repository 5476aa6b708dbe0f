"""What the reader hands over: each frame with its stamps, and word of the source when it opens and when it changes."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace

from streamsr.capture.base import SourceInfo
from streamsr.capture.forms import form_of_info
from streamsr.capture.outlet import Outlet
from streamsr.capture.pacing import SIGN_OF_LIFE_S, Pace, RateWatch
from streamsr.frame import Frame

KEYFRAME_PATIENCE_S = 10.0
"""How long packets without a picture count as signs of life: cameras send a key frame every 1 to 10 s."""

DAMAGE_EVERY_S = 1.0


class Delivery:
    """Hands over the frames of one source. Owned by the thread that reads.

    Args:
        outlet: where to.
        paced: whether the source is held to its own pace.
    """

    def __init__(self, outlet: Outlet, *, paced: bool) -> None:
        self.outlet = outlet
        self.num_frames, self.num_damaged, self.stretch = 0, 0, 0
        self._pace = Pace(self.alive) if paced else None
        self._info: SourceInfo | None = None
        self._rates: RateWatch | None = None
        self._notices: list[str] = []
        self._noted: set[str] = set()
        self._told_ns = self._picture_ns = time.monotonic_ns()
        self._damage_told = (0, 0)
        self._num_left_out = 0

    def open(self, paced: bool) -> None:
        """Begin anew: the next frame is told of as the opening."""
        self._pace = Pace(self.alive) if paced else None
        self._info, self._rates = None, None
        self._notices.clear()
        self._noted.clear()
        self._told_ns = self._picture_ns = time.monotonic_ns()
        self.jump()

    def jump(self) -> None:
        """Begin a stretch of times that have nothing to do with those before."""
        self.stretch += 1

    def note(self, line: str) -> None:
        """Tell the user something once."""
        if line in self._noted or line.startswith("size changed"):
            return
        self._noted.add(line)
        if self._info is None:
            self._notices.append(line)
        else:
            self.outlet.tell("notice", line)

    def damage(self) -> None:
        """Count a picture that was lost or damaged; told of at most once a second."""
        self.num_damaged += 1
        now_ns = time.monotonic_ns()
        if now_ns - self._damage_told[1] > DAMAGE_EVERY_S * 1e9:
            self._damage_told = (self.num_damaged, now_ns)
            self.outlet.tell("notice", f"{self.num_damaged} damaged so far (packets or pictures)")

    def alive(self) -> None:
        """Say now and then that data comes, though no picture is ready; not for ever."""
        now_ns = time.monotonic_ns()
        if now_ns - self._told_ns > SIGN_OF_LIFE_S * 1e9 and now_ns - self._picture_ns < KEYFRAME_PATIENCE_S * 1e9:
            self._told_ns = now_ns
            self.outlet.tell("alive")

    def leave_out(self) -> None:
        """Count a picture that is too old to be shown: its number is missing, as that of every frame dropped."""
        self.num_frames += 1
        self._num_left_out += 1

    def tell_left_out(self) -> None:
        """Tell the user of the pictures that were left out since the last time."""
        number, self._num_left_out = self._num_left_out, 0
        if number:
            came = "1 picture that came" if number == 1 else f"{number} pictures that came"
            self.outlet.tell("notice", f"{came} before the silence: not shown")

    def give(self, frame: Frame, facts: SourceInfo, arrived_ns: int) -> None:
        """Hand over a frame.

        Args:
            frame: as it was made.
            facts: what is known of the source but for what the frame itself says.
            arrived_ns: when the data it was made of came in.
        """
        if self._pace is not None:
            self._pace.wait(frame.seconds)
            # A picture that waited for its moment came in at that moment.
            arrived_ns = time.monotonic_ns()
            frame = replace(frame, captured_ns=arrived_ns)
        self._describe(frame, facts)
        self.tell_left_out()
        self._told_ns = self._picture_ns = time.monotonic_ns()
        numbered = replace(frame, sequence=self.num_frames, arrived_ns=arrived_ns)
        self.num_frames += 1
        self.outlet.give(numbered, stretch=self.stretch, damaged=self.num_damaged)

    def _describe(self, frame: Frame, facts: SourceInfo) -> None:
        """Tell of the source with its first frame, and when frames become different."""
        rates = self._rates = self._rates or RateWatch(facts.rate)
        other_rate = rates.add(frame)
        info = replace(
            facts,
            width=frame.width,
            height=frame.height,
            layout=frame.layout,
            colour=frame.colour,
            sample_aspect=frame.sample_aspect,
            rate=rates.rate,
            notices=(),
        )
        before, self._info = self._info, info
        if before is None:
            opened = replace(info, notices=tuple(self._notices))
            self.outlet.tell("opened", describe(info), info=form_of_info(opened))
        elif other_rate or _changed(before, info):
            self.outlet.tell("changed", f"now {describe(info)}, was {describe(before)}", info=form_of_info(info))


class Arrivals:
    """Remembers when the data of each picture came in, while pictures wait in decoders and filters.

    One goes in for each picture, one comes out for each frame, in the same order.
    """

    def __init__(self) -> None:
        self._waiting: deque[int] = deque()

    def add(self, arrived_ns: int) -> None:
        """Remember a picture's."""
        self._waiting.append(arrived_ns)

    def take(self) -> int:
        """Return the next frame's."""
        return self._waiting.popleft()


def describe(info: SourceInfo) -> str:
    """Return what a source is like, in a few words."""
    colour = {1: "BT.709", 5: "BT.601", 6: "BT.601", 9: "BT.2020"}.get(
        info.colour.matrix, f"matrix {info.colour.matrix}"
    )
    span = "full" if info.colour.full_range else "limited"
    form = info.layout.pix_fmt
    return f"{info.width}x{info.height} {form} {colour} {span} range, {float(info.rate):.4g} fps, {info.codec}"


def _changed(before: SourceInfo, after: SourceInfo) -> bool:
    parts = ("width", "height", "layout", "colour", "sample_aspect", "codec", "pix_fmt")
    return any(getattr(before, part) != getattr(after, part) for part in parts)
