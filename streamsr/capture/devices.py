"""List the video devices of this machine with what they offer, asked of the kernel itself (V4L2).

Structures and request numbers are those of the kernel's ``include/uapi/linux/videodev2.h``; they are the same on every
processor that streamsr runs on.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

Ask = Callable[[int, int, bytearray], object]
"""`fcntl.ioctl`, or what stands in for it: descriptor, request, buffer that is filled."""

SYSTEM, DEVICES = Path("/sys/class/video4linux"), Path("/dev")

_READ, _WRITE = 2, 1
_CAPABILITY, _FORMAT = struct.Struct("=16s32s32s6I"), struct.Struct("=3I32s5I")
_SIZE, _INTERVAL = struct.Struct("=11I"), struct.Struct("=13I")


def _request(direction: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | ord("V") << 8 | number


QUERYCAP = _request(_READ, 0, _CAPABILITY.size)
ENUM_FMT = _request(_READ | _WRITE, 2, _FORMAT.size)
ENUM_FRAMESIZES = _request(_READ | _WRITE, 74, _SIZE.size)
ENUM_FRAMEINTERVALS = _request(_READ | _WRITE, 75, _INTERVAL.size)

CAPTURES, CAPTURES_PLANES, HAS_OWN_CAPS = 0x1, 0x1000, 0x80000000
TYPES = ((CAPTURES, 1), (CAPTURES_PLANES, 9))
"""(capability, buffer type) of pictures in one plane and in several."""

DISCRETE = 1
MOST_ENTRIES = 64
"""Formats, sizes and rates that are asked for; a driver that never says stop must not be asked for ever."""

NAMES = {
    **{"YUYV": "yuyv422", "UYVY": "uyvy422", "MJPG": "mjpeg", "JPEG": "mjpeg", "H264": "h264", "HEVC": "hevc"},
    **{"NV12": "nv12", "NV16": "nv16", "YU12": "yuv420p", "YV12": "yuv420p", "422P": "yuv422p", "GREY": "gray"},
    **{"RGB3": "rgb24", "BGR3": "bgr24", "Y10 ": "gray10le", "Y16 ": "gray16le", "BGR4": "bgr0"},
}
"""The kernel's four letters to FFmpeg's name, which ``--input-format`` takes."""


@dataclass(frozen=True)
class Mode:
    """One thing a device offers.

    Attributes:
        input_format: FFmpeg's name, or the kernel's four letters where FFmpeg has none.
        width: in pixels; 0 where the driver does not say.
        height: in pixels; 0 where the driver does not say.
        rates: frames a second, highest first; empty where the driver does not say.
    """

    input_format: str
    width: int
    height: int
    rates: tuple[float, ...]

    def __str__(self) -> str:
        size = f" {self.width}x{self.height}" if self.width else ""
        return f"{self.input_format}{size}" + (f" at {self.rates[0]:.4g}" if self.rates else "")


@dataclass(frozen=True)
class Device:
    """A device that gives pictures, or one that might.

    Attributes:
        path: as ``streamsr live`` takes it.
        name: as its driver calls it.
        modes: what it offers.
        fault: why nothing more is known; empty where all is.
    """

    path: str
    name: str
    modes: tuple[Mode, ...] = ()
    fault: str = ""


def list_devices(*, system: Path = SYSTEM, devices: Path = DEVICES, ask: Ask = fcntl.ioctl) -> list[Device]:
    """List the devices that give pictures; those that only take them or carry metadata are left out.

    Args:
        system: the kernel's folder of video devices.
        devices: where their files are.
        ask: how they are asked.
    """
    names = sorted(system.glob("video*"), key=lambda path: (len(path.name), path.name)) if system.is_dir() else []
    found = (examine(devices / entry.name, name=_read_name(entry), ask=ask) for entry in names)
    return [device for device in found if device is not None]


def examine(path: Path, *, name: str = "", ask: Ask = fcntl.ioctl) -> Device | None:
    """Ask a device what it offers; None for one that gives no pictures.

    Args:
        path: of its file.
        name: what it is called where it does not say.
        ask: how it is asked.
    """
    try:
        with _opened(path) as descriptor:
            card, capabilities = _capabilities(descriptor, ask)
            types = [kind for bit, kind in TYPES if capabilities & bit]
            if not types:
                return None
            modes = tuple(mode for kind in types for mode in _modes(descriptor, kind, ask))
            return Device(str(path), card or name, modes)
    except PermissionError:
        return Device(str(path), name, fault="no permission to read it: join the group video")
    except OSError as cause:
        return Device(str(path), name, fault=f"does not answer ({cause.strerror})")


def describe_modes(path: str) -> str:
    """Say in a few words what a device offers; empty where that is not known."""
    device = examine(Path(path))
    return "" if device is None or not device.modes else ", ".join(map(str, device.modes[:12]))


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read_name(entry: Path) -> str:
    with suppress(OSError):
        return (entry / "name").read_text(errors="replace").strip()
    return entry.name


def _capabilities(descriptor: int, ask: Ask) -> tuple[str, int]:
    buffer = bytearray(_CAPABILITY.size)
    ask(descriptor, QUERYCAP, buffer)
    _, card, _, _, whole, own, *_ = _CAPABILITY.unpack(buffer)
    return card.split(b"\0")[0].decode(errors="replace"), own if whole & HAS_OWN_CAPS else whole


def _modes(descriptor: int, kind: int, ask: Ask) -> Iterator[Mode]:
    for values in _entries(descriptor, ENUM_FMT, _FORMAT, (kind, 0, b"", 0, 0, 0, 0, 0), ask):
        code = values[4]
        letters = struct.pack("=I", code & 0x7FFFFFFF).decode("ascii", errors="replace")
        name = NAMES.get(letters, letters.strip())
        sizes = list(_sizes(descriptor, code, ask))
        for width, height in sizes or [(0, 0)]:
            yield Mode(name, width, height, tuple(sorted(_rates(descriptor, code, width, height, ask), reverse=True)))


def _sizes(descriptor: int, code: int, ask: Ask) -> Iterator[tuple[int, int]]:
    """Give the sizes of a format; of a range only its largest."""
    for values in _entries(descriptor, ENUM_FRAMESIZES, _SIZE, (code, *[0] * 9), ask):
        _, _, kind, first, second, _, _, tallest, *_ = values
        yield (first, second) if kind == DISCRETE else (second, tallest)
        if kind != DISCRETE:
            return


def _rates(descriptor: int, code: int, width: int, height: int, ask: Ask) -> Iterator[float]:
    """Give the rates of a size; of a range only its highest."""
    for values in _entries(descriptor, ENUM_FRAMEINTERVALS, _INTERVAL, (code, width, height, *[0] * 9), ask):
        kind, numerator, denominator = values[4:7]
        if numerator:
            yield round(denominator / numerator, 3)
        if kind != DISCRETE:
            return


def _entries(
    descriptor: int, request: int, form: struct.Struct, rest: tuple[object, ...], ask: Ask
) -> Iterator[tuple[int, ...]]:
    """Ask for one entry after another, until the driver says that there are no more."""
    for index in range(MOST_ENTRIES):
        buffer = bytearray(form.pack(index, *rest))
        try:
            ask(descriptor, request, buffer)
        except OSError:
            return
        yield form.unpack(buffer)
