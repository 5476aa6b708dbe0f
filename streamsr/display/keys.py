"""Keys: which command a key gives, and how that is changed; a foot pedal is a keyboard, so this serves both."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

from streamsr.display.commands import Command
from streamsr.errors import UsageError

DEFAULT_KEYS: Mapping[str, Command] = {
    "b": Command.BYPASS,
    "o": Command.ORIGINAL,
    "s": Command.SIDE_BY_SIDE,
    "v": Command.SPLIT,
    "[": Command.SPLIT_LEFT,
    "]": Command.SPLIT_RIGHT,
    "+": Command.ZOOM_IN,
    "=": Command.ZOOM_IN,
    "-": Command.ZOOM_OUT,
    "0": Command.ZOOM_FIT,
    "h": Command.PAN_LEFT,
    "j": Command.PAN_DOWN,
    "k": Command.PAN_UP,
    "l": Command.PAN_RIGHT,
    "left": Command.PAN_LEFT,
    "down": Command.PAN_DOWN,
    "up": Command.PAN_UP,
    "right": Command.PAN_RIGHT,
    "space": Command.FREEZE,
    "p": Command.SNAPSHOT,
    "r": Command.RECORD,
    "g": Command.BADGE,
    "i": Command.OVERLAY,
    "f": Command.FULL_SCREEN,
    "?": Command.HELP,
    "f1": Command.HELP,
    "q": Command.QUIT,
    "esc": Command.QUIT,
}

MEANINGS: Mapping[Command, str] = {
    Command.BYPASS: "the camera's own picture, resampled; again to go back",
    Command.ORIGINAL: "original alone, in this view only",
    Command.SIDE_BY_SIDE: "original and enlarged side by side",
    Command.SPLIT: "original left of a line, enlarged right of it",
    Command.SPLIT_LEFT: "move the line left",
    Command.SPLIT_RIGHT: "move the line right",
    Command.ZOOM_IN: "zoom in",
    Command.ZOOM_OUT: "zoom out",
    Command.ZOOM_FIT: "whole picture",
    Command.PAN_LEFT: "pan left, or move the line",
    Command.PAN_DOWN: "pan down",
    Command.PAN_UP: "pan up",
    Command.PAN_RIGHT: "pan right, or move the line",
    Command.FREEZE: "freeze this view",
    Command.SNAPSHOT: "write original and enlarged as PNG",
    Command.RECORD: "start or stop recording",
    Command.BADGE: "badge on or off",
    Command.OVERLAY: "latency and state",
    Command.FULL_SCREEN: "full screen",
    Command.HELP: "these keys",
    Command.QUIT: "quit",
}
"""What each command does, in a few words."""

UNBOUND = "none"
"""Command name that takes a key's meaning away."""

_X11 = {
    **{0xFF08: "backspace", 0xFF09: "tab", 0xFF0D: "enter", 0xFF1B: "esc", 0xFF50: "home", 0xFF51: "left"},
    **{0xFF52: "up", 0xFF53: "right", 0xFF54: "down", 0xFF55: "pageup", 0xFF56: "pagedown", 0xFF57: "end"},
    **{0xFF63: "insert", 0xFFFF: "delete", 0xFF8D: "enter", 0xFFAB: "+", 0xFFAD: "-"},
    **{0xFFB0 + digit: str(digit) for digit in range(10)},
    **{0xFFBE + number: f"f{number + 1}" for number in range(24)},
}
"""Low 16 bits that HighGUI gives on X11 with Qt and GTK: keysyms of X11/keysymdef.h."""

_WINDOWS = {
    **{0x21: "pageup", 0x22: "pagedown", 0x23: "end", 0x24: "home", 0x25: "left", 0x26: "up", 0x27: "right"},
    **{0x28: "down", 0x2D: "insert", 0x2E: "delete"},
    **{0x70 + number: f"f{number + 1}" for number in range(24)},
}
"""Bits 16 to 23 that HighGUI gives on Windows: virtual key codes of winuser.h."""

_MACOS = {
    **{0xF700: "up", 0xF701: "down", 0xF702: "left", 0xF703: "right", 0xF728: "delete", 0xF729: "home"},
    **{0xF72B: "end", 0xF72C: "pageup", 0xF72D: "pagedown"},
    **{0xF704 + number: f"f{number + 1}" for number in range(24)},
}
"""What HighGUI gives on macOS: function key code points of NSEvent.h."""

_ASCII = {8: "backspace", 9: "tab", 10: "enter", 13: "enter", 27: "esc", 32: "space", 127: "delete"}

NAMED_KEYS = frozenset({*_X11.values(), *_WINDOWS.values(), *_MACOS.values(), *_ASCII.values()})


def key_name(code: int, platform: str = sys.platform) -> str:
    """Return the name of a key.

    Args:
        code: what ``cv2.waitKeyEx`` gave.
        platform: as `sys.platform`.

    Returns:
        A small letter, digit or sign, or a name such as ``left``, ``pageup``, ``space`` or ``f5``; empty where no key
        was pressed or it has no name.
    """
    if code < 0:
        return ""
    low = code & 0xFFFF
    if platform == "win32" and low == 0:
        return _WINDOWS.get(code >> 16 & 0xFF, "")
    if low in _ASCII:
        return _ASCII[low]
    if 32 < low < 127:
        return chr(low).lower()
    return (_MACOS if platform == "darwin" else _X11).get(low, "")


def bind(pairs: Iterable[tuple[str, str]]) -> dict[str, Command]:
    """Return the command of each key: the default ones, changed by pairs.

    Args:
        pairs: (key, command) names; the command ``none`` takes a key's meaning away.

    Raises:
        UsageError: a key or a command that there is not, or no key left that quits.
    """
    bound = dict(DEFAULT_KEYS)
    for key, name in pairs:
        key = _checked_key(key)
        bound.pop(key, None)
        if name != UNBOUND:
            bound[key] = _checked_command(name)
    if Command.QUIT not in bound.values():
        raise UsageError(f"--key: expected a key that quits, got none; add --key q={Command.QUIT.value}")
    return bound


def parse_key_option(option: str) -> tuple[str, str]:
    """Return (key, command) of ``KEY=COMMAND``; the key may be ``=`` itself.

    Raises:
        UsageError: not of that form.
    """
    key, sign, name = option.rpartition("=")
    if not (key and sign and name):
        raise UsageError(f"--key {option!r}: expected KEY=COMMAND, for example --key pageup=bypass")
    return (_checked_key(key), name)


def list_keys(bound: Mapping[str, Command]) -> tuple[tuple[str, str], ...]:
    """Return (keys, meaning) of every bound command, for help."""
    keys: dict[Command, list[str]] = {}
    for key, command in bound.items():
        keys.setdefault(command, []).append(key)
    return tuple((" ".join(keys[command]), meaning) for command, meaning in MEANINGS.items() if command in keys)


def _checked_key(key: str) -> str:
    name = key if len(key) == 1 else key.strip().lower()
    name = {" ": "space", "escape": "esc", "return": "enter", "prior": "pageup", "next": "pagedown"}.get(name, name)
    if not (name in NAMED_KEYS or (len(name) == 1 and "!" <= name <= "~")):
        raise UsageError(f"--key {key!r}: expected a letter, a digit, a sign, f1 to f24, pageup, left, space, ...")
    return name.lower()


def _checked_command(name: str) -> Command:
    try:
        return Command(name.strip().lower())
    except ValueError as cause:
        known = ", ".join(command.value for command in Command)
        raise UsageError(f"--key: expected a command, got {name!r}; there are {known} and {UNBOUND}") from cause
