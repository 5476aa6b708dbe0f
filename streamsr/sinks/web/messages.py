"""Messages between server and page: a small binary header before each picture, JSON for everything else.

    server to page   binary: header, picture, original (empty unless the viewer compares)
                     text: {"kind": "status", ...} or {"kind": "answer", "text": ...}
    page to server   text: {"ack": number}, {"ask": command} or {"wish": {"compare", "codec", "paused"}}

A closing code of 1001 says that the session is over, 1008 that the page said what no page says.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass
from enum import IntFlag
from typing import Any

from streamsr.display.commands import SESSION_COMMANDS, Command
from streamsr.display.shown import Shown
from streamsr.display.status import LiveStatus

HEADER = struct.Struct("<BBBBIqqHHHHII")
"""Little endian: version, flags, rung, 0; number; arrived_ns, presented_ns (`time.monotonic_ns`); width and height of
the picture, of the original; bytes of the picture, of the original. 40 bytes; `picture.js` reads the same."""

VERSION = 1
NO_RUNG = 255
"""Rung of a slate, and of one that the status does not list."""

LONGEST_MESSAGE = 512
"""Bytes of a message from a page; the longest that one sends is under a hundred."""

CODECS = ("jpeg", "h264")

BY_WORD = {command.value: command for command in SESSION_COMMANDS - {Command.QUIT}}
"""What a page may ask of the session. Ending it is left to where it was begun: a page is closed like any other."""


class Flag(IntFlag):
    """What a picture is."""

    SLATE = 1
    ALARM = 2
    KEY = 4
    H264 = 8


class BadMessage(Exception):
    """A message that no page of ours would send."""


@dataclass(frozen=True)
class Wish:
    """What a viewer wants to be sent.

    Attributes:
        compare: the original too.
        codec: one of `CODECS`.
        paused: nothing, as while the page is hidden.
    """

    compare: bool = False
    codec: str = "jpeg"
    paused: bool = False


@dataclass(frozen=True)
class Ack:
    """A picture is on the viewer's screen."""

    number: int


@dataclass(frozen=True)
class Ask:
    """A person asks for something; None where there is no such command."""

    command: Command | None


@dataclass(frozen=True)
class Coded:
    """One presented picture, coded once for every viewer of one codec.

    Attributes:
        shown: what it was made from.
        codec: of both.
        picture: coded bytes.
        original: coded bytes, empty where nobody compares or there is none.
        is_key: whether a decoder may begin with it; always so for JPEG.
        rung: place of its rung in the status.
        presented_ns: `time.monotonic_ns` when it was ready to be sent.
    """

    shown: Shown
    codec: str
    picture: bytes
    original: bytes
    is_key: bool
    rung: int
    presented_ns: int

    def message(self, *, compare: bool) -> bytes:
        """Return it as it is sent.

        Args:
            compare: with the original.
        """
        original = self.original if compare else b""
        return self._header(len(original)) + self.picture + original

    def _header(self, num_original: int) -> bytes:
        shown, other = self.shown, self.shown.original
        flags = Flag(0)
        for flag, is_so in (
            (Flag.SLATE, shown.is_slate),
            (Flag.ALARM, bool(shown.alarm)),
            (Flag.KEY, self.is_key),
            (Flag.H264, self.codec == "h264"),
        ):
            flags |= flag if is_so else Flag(0)
        size = (shown.picture.width, shown.picture.height)
        other_size = (other.width, other.height) if other is not None and num_original else (0, 0)
        times = (shown.arrived_ns, self.presented_ns)
        number = shown.number & 0xFFFFFFFF
        return HEADER.pack(
            VERSION, flags, self.rung, 0, number, *times, *size, *other_size, len(self.picture), num_original
        )


def rung_number(rung: str, status: LiveStatus) -> int:
    """Return the place of a rung in the status, `NO_RUNG` where it has none."""
    return status.rungs.index(rung) if rung in status.rungs[:NO_RUNG] else NO_RUNG


def status_text(status: LiveStatus, shown: Shown | None, *, num_viewers: int, now_ns: int) -> str:
    """Return what every viewer is told of the session, as a JSON object.

    Args:
        status: of the session.
        shown: the newest picture; None before the first.
        num_viewers: who watch.
        now_ns: `time.monotonic_ns`.
    """
    newest = {"number": shown.number, "rung": shown.rung, "reason": shown.reason, "alarm": shown.alarm} if shown else {}
    session = asdict(status)
    session["state"] = status.state.value
    return json.dumps({"session": session, "shown": newest, "viewers": num_viewers, "now_ns": now_ns})


def read_message(text: str) -> Ack | Ask | Wish:
    """Read what a page sent.

    Raises:
        BadMessage: not one of the messages of this module.
    """
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as cause:
        raise BadMessage("not JSON") from cause
    if not isinstance(said, dict) or len(said) != 1:
        raise BadMessage("expected an object of one entry")
    ((kind, value),) = said.items()
    if kind == "ack" and type(value) is int:
        return Ack(value)
    if kind == "ask" and isinstance(value, str):
        return Ask(BY_WORD.get(value))
    if kind == "wish":
        return _read_wish(value)
    raise BadMessage("no such message")


def _read_wish(value: Any) -> Wish:
    if not isinstance(value, dict) or set(value) != {"compare", "codec", "paused"}:
        raise BadMessage("a wish has compare, codec and paused")
    compare, codec, paused = value["compare"], value["codec"], value["paused"]
    if type(compare) is not bool or type(paused) is not bool or codec not in CODECS:
        raise BadMessage("a wish of other values")
    return Wish(compare, codec, paused)
