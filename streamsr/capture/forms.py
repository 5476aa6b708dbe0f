"""Frames and what is known of a source, as heads of messages and back."""

from __future__ import annotations

from dataclasses import asdict
from fractions import Fraction
from typing import Any

from streamsr.capture.base import SourceInfo
from streamsr.capture.wire import WANT, Message, WireError, unpack_planes
from streamsr.frame import Colour, Frame, PlaneLayout, Siting

_DEPTHS = (8, 10, 12, 16)
_SHIFTS = (None, (1, 1), (1, 0), (0, 0), (0, 1))


def head_of_frame(frame: Frame) -> dict[str, Any]:
    """Return everything of a frame but its samples, as JSON can hold it."""
    return {
        "layout": _layout_form(frame.layout),
        "colour": _colour_form(frame.colour),
        "pts": frame.pts,
        "time_base": str(frame.time_base),
        "duration": frame.duration,
        "sequence": frame.sequence,
        "sample_aspect": str(frame.sample_aspect),
        "captured_ns": frame.captured_ns,
        "arrived_ns": frame.arrived_ns,
    }


def frame_of(message: Message) -> Frame:
    """Return the frame of a message.

    Raises:
        WireError: it holds none.
    """
    head = message.head
    try:
        layout = _layout(head["layout"])
        frame = Frame(
            planes=unpack_planes(message, layout.dtype),
            layout=layout,
            colour=_colour(head["colour"]),
            time_base=Fraction(head["time_base"]),
            sample_aspect=Fraction(head["sample_aspect"]),
            **{key: int(head[key]) for key in ("pts", "duration", "sequence", "captured_ns", "arrived_ns")},
        )
    except (KeyError, TypeError, ValueError, ArithmeticError) as cause:
        raise WireError(f"{WANT}, got a frame that cannot be ({cause}); open the source again") from cause
    _check_shapes(frame)
    return frame


def form_of_info(info: SourceInfo) -> dict[str, Any]:
    """Return what is known of a source as JSON can hold it; its tracks stay where it is read."""
    return {
        "name": info.name,
        "width": info.width,
        "height": info.height,
        "layout": _layout_form(info.layout),
        "colour": _colour_form(info.colour),
        "time_base": str(info.time_base),
        "rate": str(info.rate),
        "sample_aspect": str(info.sample_aspect),
        "num_frames": info.num_frames,
        "duration_s": info.duration_s,
        "codec": info.codec,
        "pix_fmt": info.pix_fmt,
        "notices": list(info.notices),
    }


def info_of(form: dict[str, Any]) -> SourceInfo:
    """Return what `form_of_info` was given.

    Raises:
        WireError: it is none.
    """
    try:
        num_frames, duration_s = form["num_frames"], form["duration_s"]
        return SourceInfo(
            name=str(form["name"]),
            width=int(form["width"]),
            height=int(form["height"]),
            layout=_layout(form["layout"]),
            colour=_colour(form["colour"]),
            time_base=Fraction(form["time_base"]),
            rate=Fraction(form["rate"]),
            sample_aspect=Fraction(form["sample_aspect"]),
            num_frames=None if num_frames is None else int(num_frames),
            duration_s=None if duration_s is None else float(duration_s),
            codec=str(form["codec"]),
            pix_fmt=str(form["pix_fmt"]),
            notices=tuple(map(str, form["notices"])),
        )
    except (KeyError, TypeError, ValueError, ArithmeticError) as cause:
        raise WireError(f"{WANT}, got a source that cannot be ({cause}); open it again") from cause


def _layout_form(layout: PlaneLayout) -> list[Any]:
    return [None if layout.chroma_shift is None else list(layout.chroma_shift), layout.bit_depth]


def _layout(form: Any) -> PlaneLayout:
    shift, depth = form
    layout = PlaneLayout(None if shift is None else tuple(shift), depth)
    if layout.chroma_shift not in _SHIFTS or depth not in _DEPTHS:
        raise ValueError(f"layout {form}")
    return layout


def _colour_form(colour: Colour) -> dict[str, Any]:
    return {**asdict(colour), "siting": colour.siting.name}


def _colour(form: Any) -> Colour:
    numbers = {key: int(form[key]) for key in ("matrix", "primaries", "transfer")}
    assumed = tuple(map(str, form["assumed"]))
    return Colour(**numbers, full_range=bool(form["full_range"]), siting=Siting[form["siting"]], assumed=assumed)


def _check_shapes(frame: Frame) -> None:
    wanted = [(frame.height, frame.width)] if frame.planes else []
    if frame.layout.chroma_shift is not None and wanted:
        wanted += [frame.layout.chroma_size(frame.width, frame.height)[::-1]] * 2
    found = [plane.shape for plane in frame.planes]
    if not found or found != wanted:
        raise WireError(f"{WANT}, got planes of {found} for {frame.layout.pix_fmt}; open the source again")
