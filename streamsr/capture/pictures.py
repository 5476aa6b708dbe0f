"""Turn decoded pictures into frames: planar, deinterlaced, of one size where asked, upright, with rising times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from time import monotonic_ns

from av.video.frame import VideoFrame

from streamsr.capture.decode import picture_pts
from streamsr.capture.deinterlace import Deinterlacer
from streamsr.capture.planes import (
    choose_layout,
    describe_chroma_change,
    fit,
    has_alpha,
    is_rgb,
    make_planar,
    view_planes,
)
from streamsr.capture.surfaces import Surfaces, download, stored_format
from streamsr.capture.tags import Tags, decide_colour, describe_assumption
from streamsr.capture.times import RisingTimes
from streamsr.capture.upright import Turn, read_turn
from streamsr.frame import Colour, Frame, Plane, PlaneLayout


@dataclass(frozen=True)
class Sampling:
    """How the pictures of a track are taken and what is to be done to them.

    Attributes:
        codec: FFmpeg codec name.
        time_base: of the frames.
        rate: frames a second, nominal.
        timed: whether the pictures' own times count; else they are those of ``pts``, or numbered, at ``rate``.
        pts: when each picture is shown, where something other than the bitstream says so; it may end early.
        sample_aspect: width of a pixel over its height, as coded.
        fits: scale pictures of another size to the first one's.
        deinterlace: ``auto``, ``on`` or ``off``.
    """

    codec: str
    time_base: Fraction
    rate: Fraction
    timed: bool = True
    pts: tuple[int, ...] = ()
    sample_aspect: Fraction = Fraction(1)
    fits: bool = False
    deinterlace: str = "auto"


@dataclass(frozen=True)
class _Moment:
    """What is known of a picture beside its samples; it waits while bwdif works on them."""

    layout: PlaneLayout
    colour: Colour
    turn: Turn
    pts: int
    duration: int
    captured_ns: int


class FrameMaker:
    """Makes frames of decoded pictures, in their order; one frame a picture.

    Args:
        sampling: of the track.
        note: takes what the user is to know, one line each.
        surfaces: keeps pictures on the GPU that decoded them; None downloads them all.
    """

    def __init__(self, sampling: Sampling, note: Callable[[str], None], *, surfaces: Surfaces | None = None) -> None:
        self._sampling, self._note, self._surfaces = sampling, note, surfaces
        self._frame_ticks = max(1, round(1 / (sampling.rate * sampling.time_base)))
        self._times = RisingTimes(self._frame_ticks)
        self._given = iter(sampling.pts)
        self._deinterlacer: Deinterlacer[_Moment] = Deinterlacer(everything=sampling.deinterlace == "on")
        self._interlaced = sampling.deinterlace == "on"
        self._colours: dict[tuple[Tags, PlaneLayout, int, str], Colour] = {}
        self._first: tuple[int, int, PlaneLayout] | None = None
        self._size: tuple[int, int] | None = None
        self.rate = sampling.rate
        self.num_frames = 0

    def make(self, picture: VideoFrame) -> Iterator[Frame]:
        """Take the next picture; give out the frames that are ready."""
        moment, deinterlaces = self._describe(picture), self._deinterlaces(picture)
        kept = None if deinterlaces else self._keep(picture, moment)
        if kept is not None:
            yield self._finish(picture, moment, kept)
            return
        planar = make_planar(download(picture), moment.layout, moment.colour)
        if deinterlaces:
            for done, when in self._deinterlacer.push(planar, moment):
                yield self._finish(done, when)
        else:
            yield self._finish(planar, moment)

    def flush(self) -> Iterator[Frame]:
        """Give out the frames still inside."""
        for done, moment in self._deinterlacer.flush():
            yield self._finish(done, moment)

    def _keep(self, picture: VideoFrame, moment: _Moment) -> tuple[Plane, ...] | None:
        """Return the planes of a picture that stays on a GPU; None where it does not, or the host has work with it."""
        if self._surfaces is None or not moment.turn.is_identity or self._is_unfit(picture, moment):
            return None
        return self._surfaces.keep(picture, moment.layout)

    def _is_unfit(self, picture: VideoFrame, moment: _Moment) -> bool:
        """Return whether a picture is to be scaled to the first one's size and layout."""
        if not self._sampling.fits or self._first is None:
            return False
        return (picture.width, picture.height, moment.layout) != self._first

    def _describe(self, picture: VideoFrame) -> _Moment:
        layout = choose_layout(stored_format(picture))
        self._note_losses(picture, layout)
        turn = read_turn(picture)
        if turn is None:
            self._note("display matrix: expected a multiple of 90 degrees: pictures are left as they are")
        elif not turn.is_identity:
            self._note(f"turned upright ({turn.degrees} degrees counterclockwise)")
        pts, duration = self._time(picture)
        return _Moment(layout, self._colour(picture, layout), turn or Turn(), pts, duration, monotonic_ns())

    def _time(self, picture: VideoFrame) -> tuple[int, int]:
        if not self._sampling.timed:
            return self._times.next(next(self._given, None)), self._frame_ticks
        stated = picture_pts(picture)
        pts = self._times.next(stated)
        place_s = float(pts * self._sampling.time_base)
        if stated is None and self._times.num_made == 1:
            self._note(
                f"pictures without a time from {place_s:.2f} s on: times made at {float(self._sampling.rate):g} fps"
            )
        elif stated not in (None, pts) and self._times.num_moved == 1:
            self._note(f"warning: times do not rise at {place_s:.2f} s: rebased")
        return pts, picture.duration or 0

    def _colour(self, picture: VideoFrame, layout: PlaneLayout) -> Colour:
        stored = stored_format(picture)
        tags = Tags(picture.colorspace, picture.color_range, picture.color_primaries, picture.color_trc)
        key = (tags, layout, picture.height, stored.name)
        if key not in self._colours:
            self._colours[key] = decide_colour(
                tags,
                layout=layout,
                height=picture.height,
                codec=self._sampling.codec,
                pix_fmt=stored.name,
                rgb=is_rgb(stored),
                rate=self._sampling.rate,
            )
            self._note_assumption(self._colours[key], layout)
        return self._colours[key]

    def _note_assumption(self, colour: Colour, layout: PlaneLayout) -> None:
        assumption = describe_assumption(colour, gray=layout.chroma_shift is None)
        if assumption:
            self._note(assumption)

    def _note_losses(self, picture: VideoFrame, layout: PlaneLayout) -> None:
        stored = stored_format(picture)
        if has_alpha(stored) and not stored.has_palette:
            self._note("alpha dropped")
        change = describe_chroma_change(stored)
        if change:
            self._note(change)
        if is_rgb(stored):
            matrix = "BT.709" if self._colour(picture, layout).matrix == 1 else "BT.601"
            self._note(f"RGB becomes YUV 4:4:4 by the {matrix} matrix")

    def _deinterlaces(self, picture: VideoFrame) -> bool:
        if picture.interlaced_frame and not self._interlaced:
            self._interlaced = self._sampling.deinterlace == "auto"
            if not self._interlaced:
                self._note("interlaced pictures are left as they are")
        if self._interlaced:
            self._note("deinterlacing (bwdif)")
        return self._interlaced

    def _finish(self, picture: VideoFrame, moment: _Moment, kept: tuple[Plane, ...] | None = None) -> Frame:
        if self._first is None:
            self._first = (picture.width, picture.height, moment.layout)
        width, height, layout = self._first
        if self._is_unfit(picture, moment):
            picture = fit(picture, layout, moment.colour, width=width, height=height)
            moment = replace(moment, layout=layout)
        frame = self._turn_upright(picture, moment, kept or view_planes(picture, moment.layout))
        self._note_size(frame)
        self.num_frames += 1
        return frame

    def _turn_upright(self, picture: VideoFrame, moment: _Moment, planes: tuple[Plane, ...]) -> Frame:
        turn, layout = moment.turn, moment.layout
        siting = turn.siting(moment.colour.siting, layout, width=picture.width, height=picture.height)
        return Frame(
            planes=tuple(map(turn.plane, planes)),
            layout=turn.layout(layout),
            colour=moment.colour if siting is moment.colour.siting else replace(moment.colour, siting=siting),
            pts=moment.pts,
            time_base=self._sampling.time_base,
            duration=moment.duration,
            sequence=self.num_frames,
            sample_aspect=turn.aspect(self._sampling.sample_aspect),
            captured_ns=moment.captured_ns,
        )

    def _note_size(self, frame: Frame) -> None:
        size = (frame.width, frame.height)
        if self._size is not None and size != self._size:
            before, after = ("{}x{}".format(*pair) for pair in (self._size, size))
            self._note(f"size changed from {before} to {after} at {frame.seconds:.2f} s")
        self._size = size
