"""Listing devices: what drivers answer becomes modes, and what they do not answer hangs nothing."""

from __future__ import annotations

import errno
import json
import os
import struct
from pathlib import Path

import av
import pytest
from typer.testing import CliRunner

from streamsr import device_commands
from streamsr.capture import devices, live_opening
from streamsr.capture.addresses import Address
from streamsr.capture.devices import Device, Mode, examine, list_devices
from streamsr.capture.live_opening import SourceLost, open_live
from streamsr.cli import app

CODES = (b"MJPG", b"YUYV", b"ZZ12")
SIZES = ((1920, 1080), (640, 480))


class Driver:
    """Answers as a webcam's driver does: MJPEG in two sizes, YUYV in a range, each with rates."""

    def __init__(self, *, capabilities: int = devices.CAPTURES, endless: bool = False) -> None:
        self.capabilities, self.endless = capabilities, endless

    def __call__(self, descriptor: int, request: int, buffer: bytearray) -> None:
        if request == devices.QUERYCAP:
            whole = devices.HAS_OWN_CAPS | devices.CAPTURES
            buffer[:] = struct.pack(
                "=16s32s32s6I", b"uvc", b"USB Endoscope", b"usb-1", 1, whole, self.capabilities, *[0] * 3
            )
            return
        index, code = struct.unpack_from("=2I", buffer)
        if request == devices.ENUM_FMT:
            self._refuse(index >= len(CODES) and not self.endless)
            struct.pack_into("=4s", buffer, 44, CODES[0 if self.endless else index])
        elif request == devices.ENUM_FRAMESIZES:
            self._sizes(struct.pack("=I", code), index, buffer)
        else:
            rates = [(1, 30), (1001, 60000)]
            self._refuse(index >= len(rates))
            struct.pack_into("=3I", buffer, 16, 1, *rates[index])

    def _sizes(self, letters: bytes, index: int, buffer: bytearray) -> None:
        if letters == b"YUYV":  # a range, from 160x120 to 1280x720 in steps of 16
            self._refuse(index > 0)
            struct.pack_into("=7I", buffer, 8, 3, 160, 1280, 16, 120, 720, 16)
            return
        self._refuse(letters != b"MJPG" or index >= len(SIZES))
        struct.pack_into("=3I", buffer, 8, 1, *SIZES[index])

    @staticmethod
    def _refuse(none: bool) -> None:
        if none:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, Path]:
    """Make the folders of a machine with /dev/video0 and /dev/video10."""
    folders = {"system": tmp_path / "sys", "devices": tmp_path / "dev"}
    for name in ("video10", "video0"):
        (folders["system"] / name).mkdir(parents=True)
        (folders["system"] / name / "name").write_text("Endoscope\n")
        folders["devices"].mkdir(exist_ok=True)
        (folders["devices"] / name).touch()
    return folders


def test_a_device_is_listed_with_its_modes(machine):
    first, second = list_devices(**machine, ask=Driver())
    assert (Path(first.path).name, Path(second.path).name) == ("video0", "video10")
    assert first.name == "USB Endoscope"
    rates = (59.94, 30.0)
    assert first.modes == (
        Mode("mjpeg", 1920, 1080, rates),
        Mode("mjpeg", 640, 480, rates),
        Mode("yuyv422", 1280, 720, rates),
        Mode("ZZ12", 0, 0, rates),
    )
    assert str(first.modes[0]) == "mjpeg 1920x1080 at 59.94"


def test_what_gives_no_pictures_is_left_out(machine):
    assert list_devices(**machine, ask=Driver(capabilities=0x00800000)) == []  # metadata of a UVC camera


def test_a_driver_without_end_is_not_asked_for_ever(machine):
    assert len(list_devices(**machine, ask=Driver(endless=True))[0].modes) <= 2 * devices.MOST_ENTRIES


def test_a_device_that_does_not_answer_says_so(machine):
    def silent(descriptor: int, request: int, buffer: bytearray) -> None:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    (machine["devices"] / "video10").unlink()
    first, second = list_devices(**machine, ask=silent)
    assert "does not answer" in first.fault
    assert "No such file" in second.fault
    assert (first.name, first.modes) == ("Endoscope", ())


def test_request_numbers_are_the_kernels():
    found = (devices.QUERYCAP, devices.ENUM_FMT, devices.ENUM_FRAMESIZES, devices.ENUM_FRAMEINTERVALS)
    assert found == (0x80685600, 0xC0405602, 0xC02C564A, 0xC034564B)


def test_the_command_lists_devices_or_says_what_to_do(monkeypatch):
    found = [
        Device("/dev/video0", "Endoscope", (Mode("mjpeg", 640, 480, (30.0,)),)),
        Device("/dev/video1", "b", (), "x"),
    ]
    monkeypatch.setattr(devices, "list_devices", lambda: found)
    shown = CliRunner().invoke(app, ["devices"]).output
    assert "/dev/video0  Endoscope" in shown
    assert "mjpeg      640x480    30 fps" in shown
    assert "/dev/video1  b: x" in shown
    content = json.loads(CliRunner().invoke(app, ["devices", "--json"]).output)
    assert content["devices"][0]["modes"][0] == {"input_format": "mjpeg", "width": 640, "height": 480, "rates": [30.0]}
    monkeypatch.setattr(devices, "list_devices", list)
    assert CliRunner().invoke(app, ["devices"]).output.strip() == device_commands.NONE_HERE
    assert json.loads(CliRunner().invoke(app, ["devices", "--json"]).output) == {"devices": []}


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.EBUSY, "busy: close the program that uses it"), (errno.EINVAL, "does not offer this size, rate or format")],
)
def test_a_device_that_is_busy_or_has_no_such_mode_is_refused_with_the_modes_it_has(
    machine: dict[str, Path], monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise (
            av.error.ArgumentError(number, os.strerror(number))
            if number == errno.EINVAL
            else av.error.OSError(number, os.strerror(number))
        )

    camera = examine(machine["devices"] / "video0", ask=Driver())
    monkeypatch.setattr(devices, "examine", lambda path: camera)
    monkeypatch.setattr(live_opening.av, "open", refuse)
    address = Address("device", str(machine["devices"] / "video0"), "/dev/video0", demuxer="v4l2")
    with pytest.raises(SourceLost, match=words) as refused:
        open_live(address)
    assert "mjpeg 1920x1080 at 59.94" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert refused.value.proof == 1, "waiting does not mend it"
