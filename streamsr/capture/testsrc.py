"""EndoscopySource: a rendered endoscopy with its own truth, numbered frames, and nothing of any patient."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from time import monotonic_ns
from types import TracebackType

from streamsr.capture.base import SourceInfo, SourceReport, TrackPacket
from streamsr.capture.clips import write_clip
from streamsr.capture.framecode import draw_frame_code, read_frame_code
from streamsr.capture.scene import Pose
from streamsr.capture.surround import DevicePicture, bring_down
from streamsr.capture.tags import Tags, decide_colour
from streamsr.errors import UsageError
from streamsr.frame import Colour, Frame, Plane, PlaneLayout

__all__ = ["EndoscopySource", "TestSettings", "open_test_source", "read_frame_code", "write_clip"]

CYCLE, REST = 50, 10
"""The camera moves for 40 of every 50 frames and rests for 10: resting frames differ in nothing but their number."""

SMALLEST = (128, 96)
"""Width and height in pixels that leave room for the number, the panel and the octagon."""

EXAMPLE = "testsrc:endoscopy:size=640x480,rate=25,frames=250,seed=0,scale=2,audio=1"


@dataclass(frozen=True)
class TestSettings:
    """What is rendered.

    Attributes:
        width: of the small (LR) picture in pixels, even.
        height: of the small picture in pixels, even.
        rate: frames a second.
        frames: how many.
        seed: of everything random.
        truth_scale: how much larger the truth is, 2 or 4.
        audio: whether `write_clip` adds a tone.
    """

    __test__ = False

    width: int = 640
    height: int = 480
    rate: Fraction = Fraction(25)
    frames: int = 250
    seed: int = 0
    truth_scale: int = 2
    audio: bool = False


class EndoscopySource:
    """A colonoscopy that never was, as a `Source`: lumen, folds, vessels, highlights, surround, text panel.

    Frames are the truth brought down by averaging areas; the truth is rendered at ``truth_scale`` times the size. The
    picture is tagged as a device of its size would (BT.601 below 720 lines), limited range, 4:2:0, siting left.

    Args:
        settings: what to render.

    Raises:
        UsageError: a setting that cannot be.
    """

    def __init__(self, settings: TestSettings | None = None) -> None:
        self.settings = chosen = settings or TestSettings()
        _check(chosen)
        self._colour = _tag(chosen)
        self.report = SourceReport()
        self._picture = DevicePicture(
            chosen.width * chosen.truth_scale,
            chosen.height * chosen.truth_scale,
            scale=chosen.truth_scale,
            seed=chosen.seed,
            bt709=self._colour.matrix == 1,
            lines=("SYNTHETIC", f"{float(chosen.rate):g} fps", f"seed {chosen.seed}", "NO PATIENT"),
        )
        self._shown: tuple[Pose, tuple[Plane, ...], tuple[Plane, ...]] | None = None

    @property
    def info(self) -> SourceInfo:
        """What is known before the first frame."""
        chosen = self.settings
        return SourceInfo(
            name="testsrc:endoscopy",
            width=chosen.width,
            height=chosen.height,
            layout=PlaneLayout(),
            colour=self._colour,
            time_base=1 / chosen.rate,
            rate=chosen.rate,
            num_frames=chosen.frames,
            duration_s=float(chosen.frames / chosen.rate),
        )

    def frame(self, number: int) -> Frame:
        """Render one frame.

        Args:
            number: from 0; its pts, sequence and code.
        """
        small = tuple(plane.copy() for plane in self._render(number)[2])
        draw_frame_code(small[0], number)
        return Frame(
            planes=small,
            layout=PlaneLayout(),
            colour=self._colour,
            pts=number,
            time_base=1 / self.settings.rate,
            duration=1,
            sequence=number,
            captured_ns=monotonic_ns(),
        )

    def truth_frame(self, number: int) -> tuple[Plane, Plane, Plane]:
        """Render what a perfect enlargement of a frame would be.

        Returns:
            Y (scale * H, scale * W), U and V half that size each way; uint8, limited range, siting left.
        """
        luma, u, v = (plane.copy() for plane in self._render(number)[1])
        draw_frame_code(luma, number, scale=self.settings.truth_scale)
        return luma, u, v

    def __iter__(self) -> Iterator[Frame | TrackPacket]:
        """Give out the frames, once."""
        for number in range(self.report.num_frames, self.settings.frames):
            frame = self.frame(number)
            self.report.num_frames += 1
            yield frame

    def __enter__(self) -> EndoscopySource:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the last picture."""
        self._shown = None

    def _render(self, number: int) -> tuple[Pose, tuple[Plane, ...], tuple[Plane, ...]]:
        pose = pose_at(number, reach_px=self._picture.reach_px)
        if self._shown is None or self._shown[0] != pose:
            large = self._picture.render(pose)
            self._shown = (pose, large, bring_down(large, self.settings.truth_scale))
        return self._shown


def open_test_source(name: str) -> EndoscopySource:
    """Open ``endoscopy[:key=value,...]``; see `read_test_name`.

    Raises:
        UsageError: another picture, another key, or a value that cannot be.
    """
    return EndoscopySource(read_test_name(name))


def read_test_name(name: str) -> TestSettings:
    """Say what ``endoscopy[:key=value,...]`` asks for.

    Args:
        name: keys are ``size`` (as ``640x480``), ``rate``, ``frames``, ``seed``, ``scale`` (of the truth) and
            ``audio`` (0 or 1).

    Raises:
        UsageError: another picture, another key, or a value that cannot be.
    """
    kind, _, options = name.partition(":")
    if kind != "endoscopy":
        raise UsageError(f"testsrc:{kind}: expected testsrc:endoscopy; it is the only test picture")
    values: dict[str, object] = {}
    for option in filter(None, options.split(",")):
        values |= _parse(option)
    settings = TestSettings(**values)  # type: ignore[arg-type]
    _check(settings)
    return settings


def pose_at(number: int, *, reach_px: int) -> Pose:
    """Return where the camera is at a frame.

    Args:
        number: of the frame.
        reach_px: the largest pan, in truth pixels.
    """
    cycle, phase = divmod(number, CYCLE)
    moving = min(phase / (CYCLE - REST), 1.0)
    eased = moving - math.sin(2 * math.pi * moving) / (2 * math.pi)
    when = (cycle + eased) * (CYCLE - REST)
    pan_x = 0.85 * math.sin(when / 47) + 0.15 * math.sin(when / 13 + 1)
    pan_y = 0.80 * math.sin(when / 61 + 2) + 0.20 * math.sin(when / 17)
    turn = 0.06 * math.sin(when / 83) + 0.015 * math.sin(when / 21 + 0.5)
    travel = -when * 0.0011 - 0.006 * math.sin(when / 19)
    return Pose(travel, turn, (2 * round(reach_px / 2 * pan_x), 2 * round(reach_px / 2 * pan_y)))


def _tag(settings: TestSettings) -> Colour:
    """Tag the picture as a device of its size would: nothing is left to be assumed."""
    decided = decide_colour(Tags(colour_range=1), layout=PlaneLayout(), height=settings.height, rate=settings.rate)
    return replace(decided, assumed=())


def _parse(option: str) -> dict[str, object]:
    key, _, value = option.partition("=")
    try:
        if key == "size":
            width, height = value.split("x")
            return {"width": int(width), "height": int(height)}
        if key == "rate":
            return {"rate": Fraction(value)}
        if key == "audio":
            return {"audio": bool(int(value))}
        return {{"frames": "frames", "seed": "seed", "scale": "truth_scale"}[key]: int(value)}
    except (ValueError, ZeroDivisionError) as cause:
        raise UsageError(f"testsrc option {option!r}: expected for example {EXAMPLE}") from cause
    except KeyError as cause:
        raise UsageError(f"testsrc option {key!r}: expected size, rate, frames, seed, scale or audio") from cause


def _check(settings: TestSettings) -> None:
    width, height = settings.width, settings.height
    if width % 2 or height % 2 or width < SMALLEST[0] or height < SMALLEST[1]:
        raise UsageError(f"testsrc size: expected even sides of at least {SMALLEST}, got {width}x{height}")
    if settings.truth_scale not in (2, 4):
        raise UsageError(f"testsrc scale: expected 2 or 4, got {settings.truth_scale}")
    if settings.rate <= 0 or settings.frames < 1 or settings.seed < 0:
        raise UsageError("testsrc: expected a rate above 0, at least 1 frame and a seed of at least 0; see its options")
