"""Where a live source is: what kind it is, how FFmpeg opens it, and the name it is shown under, without its secrets."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from streamsr.capture.protocols import (
    DATAGRAMS,
    HLS_PATIENCE_S,
    PROBE,
    WHOLE,
    is_playlist,
    options_of,
    redact,
    refuse_url,
    scheme_of,
)
from streamsr.capture.unparsed import FORMATS
from streamsr.config import FeedSettings
from streamsr.errors import InputError, InputNotFound, UsageError

Kind = Literal["device", "network", "pipe", "fifo", "file", "filter", "rendered"]

RENDERED, FILTERED = "testsrc:", "lavfi:"
STANDARD_INPUT = ("-", "pipe:", "pipe:0")

SCENE_PATIENCE_S = 60.0
"""For the scene of the rendered source to be drawn: 2 s of a processor at 1280x720, 5 s at 1920x1080, and longer beside
other work. A reader that is ended meanwhile begins anew, and would never be done."""


@dataclass(frozen=True)
class Address:
    """A live source, as it is opened; crosses to the process that reads it as JSON.

    Attributes:
        kind: what it is.
        target: what FFmpeg, or the renderer, is given; may hold a password and is never shown.
        shown: what it is called in events, errors and recordings.
        demuxer: FFmpeg's name; None lets it find out.
        options: FFmpeg's, as (key, value) pairs.
        whole: packets are known to hold whole pictures, so that none needs to wait for the next one's beginning.
        paced: played at its own pace, since it would give everything at once.
        loop: begun anew at its end.
        rate: frames a second where the source states no times, as a fraction's text.
        deinterlace: ``auto``, ``on`` or ``off``.
        open_timeout_s: an opening that takes longer is given up.
        read_timeout_s: silence after which the source counts as lost.
        reserve_bytes: disk space that keeping the original leaves free.
        preroll_s: what is kept from before the moment of asking.
    """

    kind: Kind
    target: str
    shown: str
    demuxer: str | None = None
    options: tuple[tuple[str, str], ...] = ()
    whole: bool = False
    paced: bool = False
    loop: bool = False
    rate: str | None = None
    deinterlace: str = "auto"
    open_timeout_s: float = 3.0
    read_timeout_s: float = 1.0
    reserve_bytes: int = 256 << 20
    preroll_s: float = 0.0

    @property
    def recurs(self) -> bool:
        """Whether it can be opened again after it ended or failed; what came through standard input is gone."""
        return self.kind in ("device", "network", "fifo")

    @property
    def may_stall(self) -> bool:
        """Whether silence is no reason to close it: reading goes on where it stopped, and reopening loses data.

        So it is with standard input, and with datagrams, which need no connection: their sender comes back unannounced,
        its first key frame at once.
        """
        return self.kind == "pipe" or (self.kind == "network" and scheme_of(self.target) in DATAGRAMS)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Address:
        """Return what `to_json` was called on."""
        known = {field.name: content[field.name] for field in fields(cls)}
        return cls(**{**known, "options": tuple((str(key), str(value)) for key, value in known["options"])})


def find_address(name: str, settings: FeedSettings) -> Address:
    """Say what a source's name means, and refuse what cannot be one.

    Args:
        name: ``/dev/video0``, a URL, ``-`` for standard input, ``testsrc:endoscopy[:...]``, ``lavfi:GRAPH``, or a file.
        settings: how it is to be read.

    Raises:
        InputNotFound: no such file or device.
        InputError: a folder, or something else that holds no live video.
        UsageError: an empty name, an unknown protocol, or settings that do not fit the source.
    """
    if not name.strip():
        raise UsageError("expected a source, got an empty name; give /dev/video0, a URL, - or testsrc:endoscopy")
    _check(settings)
    if name.startswith(RENDERED):
        return _rendered(name, settings)
    if name.startswith(FILTERED):
        graph = name.removeprefix(FILTERED)
        _refuse(name, "the graph says", {"--size": settings.size, "--rate": settings.rate, "-f": settings.input_format})
        return _address(settings, kind="filter", target=graph, shown=name, demuxer="lavfi", paced=True)
    if name in STANDARD_INPUT:
        return _piped(settings)
    return _remote(name, settings) if scheme_of(name) else _local(name, settings)


def _check(settings: FeedSettings) -> None:
    if settings.open_timeout_s <= 0 or settings.read_timeout_s <= 0:
        raise UsageError(f"expected timeouts above 0 s, got {settings.open_timeout_s} and {settings.read_timeout_s}")
    if settings.size is not None and min(settings.size) < 1:
        raise UsageError(f"--size: expected a width and height above 0, got {settings.size}; give for example 1280x720")
    if settings.rate is not None and settings.rate <= 0:
        raise UsageError(f"--rate: expected more than 0 frames a second, got {settings.rate}; give for example 25")


def _address(settings: FeedSettings, **values: Any) -> Address:
    options = {**dict(values.pop("options", {})), **dict(settings.options)}
    common: dict[str, Any] = {
        "whole": settings.input_format in FORMATS,
        "loop": settings.loop,
        "rate": None if settings.rate is None else str(settings.rate),
        "deinterlace": settings.deinterlace,
        "open_timeout_s": settings.open_timeout_s,
        "read_timeout_s": settings.read_timeout_s,
        "reserve_bytes": settings.reserve_bytes,
        "preroll_s": settings.preroll_s,
    }
    return Address(**{**common, **values}, options=tuple(options.items()))


def _refuse(name: str, why: str, given: Mapping[str, object]) -> None:
    """Refuse options that would change nothing.

    Raises:
        UsageError: one was given.
    """
    for option, value in given.items():
        if value is not None:
            raise UsageError(f"{name}: {why} what {option} would; leave {option} out")


def _rendered(name: str, settings: FeedSettings) -> Address:
    """Return the address of the rendered endoscopy, at the size and rate that are asked for."""
    from streamsr.capture.testsrc import read_test_name

    target = name.removeprefix(RENDERED)
    read_test_name(target)
    _refuse(name, "it is rendered, and has no form that says", {"-f": settings.input_format})
    kind, _, listed = target.partition(":")
    options = [option for option in listed.split(",") if option]
    asked = {
        "size": None if settings.size is None else "{}x{}".format(*settings.size),
        "rate": None if settings.rate is None else str(settings.rate),
    }
    for key, value in asked.items():
        stated = next((option for option in options if option.startswith(f"{key}=")), None)
        if value is not None and stated not in (None, f"{key}={value}"):
            raise UsageError(f"{name}: expected one {key}, got {stated} and --{key} {value}; leave one out")
        if value is not None and stated is None:
            options.append(f"{key}={value}")
    target = ":".join(filter(None, (kind, ",".join(options))))
    read_test_name(target)
    patience_s = max(settings.open_timeout_s, SCENE_PATIENCE_S)
    return _address(
        settings, kind="rendered", target=target, shown=RENDERED + target, paced=True, open_timeout_s=patience_s
    )


def _piped(settings: FeedSettings) -> Address:
    demuxer, options = settings.input_format, dict(PROBE)
    if is_pixel_format(demuxer) or demuxer == "rawvideo":
        shapeless = demuxer == "rawvideo" and not _has_pixel_format(settings)
        if settings.size is None or settings.rate is None or shapeless:
            raise UsageError(
                "raw pictures on standard input: expected --size, --rate and a pixel format, not all given; "
                "add for example --size 1280x720 --rate 25 --input-format yuv420p"
            )
        options = {"video_size": "{}x{}".format(*settings.size), "framerate": str(settings.rate)}
        options |= {} if demuxer == "rawvideo" else {"pixel_format": str(demuxer)}
        demuxer = "rawvideo"
    else:
        _refuse("standard input", "all but raw pictures say", {"--size": settings.size})
    if settings.rate is not None and demuxer in ("mjpeg", "h264", "hevc"):
        options["framerate"] = str(settings.rate)
    return _address(
        settings,
        kind="pipe",
        target="pipe:0",
        shown="standard input",
        demuxer=_demuxer(demuxer),
        options=options,
        paced=settings.pace,
    )


def _remote(name: str, settings: FeedSettings) -> Address:
    refuse_url(name)
    _refuse(redact(name), "the source itself says", {"--size": settings.size})
    patient = is_playlist(name)
    timeouts = {}
    if patient:
        timeouts = {
            "open_timeout_s": max(settings.open_timeout_s, HLS_PATIENCE_S),
            "read_timeout_s": max(settings.read_timeout_s, HLS_PATIENCE_S),
        }
    return _address(
        settings,
        kind="network",
        target=name,
        shown=redact(name),
        demuxer=_demuxer(settings.input_format),
        options=options_of(scheme_of(name), longest_s=max(settings.open_timeout_s, settings.read_timeout_s)),
        whole=settings.input_format in FORMATS or scheme_of(name) in WHOLE,
        paced=settings.pace or patient,
        **timeouts,
    )


def _local(name: str, settings: FeedSettings) -> Address:
    path = Path(name)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as cause:
        hint = "see streamsr devices" if name.startswith("/dev/") else "check the name"
        raise InputNotFound(
            f"{name}: expected a device, a URL or a file, found nothing of that name; {hint}"
        ) from cause
    except OSError as cause:
        raise InputError(f"{name}: expected a device or a file, cannot look at it ({cause.strerror})") from cause
    if stat.S_ISDIR(mode):
        raise InputError(f"{name}: expected a device, a URL or a file, found a folder; name what is in it")
    if not os.access(path, os.R_OK):
        raise InputError(f"{name}: no permission to read it; join the group video, or change its owner or mode")
    if stat.S_ISCHR(mode):
        return _device(name, settings)
    kind: Kind = "fifo" if stat.S_ISFIFO(mode) else "file"
    if kind == "file" and not settings.pace:
        raise UsageError(f"{name}: expected a live source, found a file; add --pace to play it at its own pace")
    _refuse(path.name, "the file itself says", {"--size": settings.size})
    demuxer, paced = _demuxer(settings.input_format), kind == "file" or settings.pace
    options = PROBE if kind == "fifo" else {}
    # The folder may name a person.
    return _address(
        settings, kind=kind, target=f"file:{name}", shown=path.name, demuxer=demuxer, options=options, paced=paced
    )


def _device(name: str, settings: FeedSettings) -> Address:
    options = {}
    if settings.size is not None:
        options["video_size"] = "{}x{}".format(*settings.size)
    if settings.rate is not None:
        options["framerate"] = str(settings.rate)
    if settings.input_format not in (None, "v4l2", "video4linux2"):
        options["input_format"] = str(settings.input_format)
    return _address(settings, kind="device", target=name, shown=name, demuxer="video4linux2", options=options)


def _demuxer(name: str | None) -> str | None:
    """Return a demuxer's name.

    Raises:
        UsageError: FFmpeg has none of that name.
    """
    if name is None:
        return None
    from av.format import ContainerFormat

    try:
        ContainerFormat(name, "r")
    except ValueError as cause:
        raise UsageError(f"--input-format: expected a format such as mpegts, nut or mjpeg, got {name!r}") from cause
    return name


def is_pixel_format(name: str | None) -> bool:
    """Return whether FFmpeg knows a pixel format of that name."""
    from av.video.format import VideoFormat

    try:
        return name is not None and bool(VideoFormat(name).name)
    except ValueError:
        return False


def _has_pixel_format(settings: FeedSettings) -> bool:
    return any(key == "pixel_format" for key, _ in settings.options)


def exact_rate(address: Address) -> Fraction | None:
    """Return the rate that was stated for a source; None where none was."""
    return None if address.rate is None else Fraction(address.rate)
