"""Values of command-line options: parsed once, and refused in one line that says what was expected."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from streamsr.errors import UsageError

RUNTIMES = ("auto", "openvino", "torch", "onnxruntime", "cuda", "tensorrt", "fused")
PRECISIONS = ("auto", "fp32", "fp16", "bf16", "fp8", "int8")

LARGEST_SIDE_PX = 1 << 15


def choice(option: str, value: str, allowed: tuple[str, ...]) -> Any:
    """Return a value that is one of those allowed.

    Raises:
        UsageError: it is not.
    """
    if value not in allowed:
        raise UsageError(f"--{option}: expected one of {', '.join(allowed)}, got {value!r}")
    return value


def parse_rate(text: str) -> Fraction:
    """Return frames a second from ``25``, ``29.97`` or ``30000/1001``.

    Raises:
        UsageError: it is no positive number.
    """
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate <= 1000:
        raise UsageError(f"--rate: expected frames a second such as 25 or 30000/1001, got {text!r}")
    return rate


def parse_size(text: str) -> tuple[int, int]:
    """Return width and height in pixels from ``1920x1080``.

    Raises:
        UsageError: it is no size.
    """
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and 0 < int(part) <= LARGEST_SIDE_PX for part in parts):
        raise UsageError(f"--size: expected WIDTHxHEIGHT such as 1920x1080, got {text!r}")
    return int(parts[0]), int(parts[1])


def parse_gpus(text: str) -> Any:
    """Return a number of GPUs from ``2``, or ``all``.

    Raises:
        UsageError: it is neither.
    """
    if text != "all" and not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise UsageError(f"--gpus: expected a number of GPUs from 1 on, or all, got {text!r}")
    return text if text == "all" else int(text)


def refuse_several_gpus(asked: int | str, instead: str) -> None:
    """Refuse more than one GPU where each piece of work has one.

    Args:
        asked: the setting.
        instead: what is done with GPUs there.

    Raises:
        UsageError: it is not 1.
    """
    if asked != 1:
        raise UsageError(f"--gpus: expected 1, since {instead}, got {asked}; leave it out")


def parse_pair(option: str, text: str) -> tuple[str, str]:
    """Return a key and a value from ``KEY=VALUE``.

    Raises:
        UsageError: there is no ``=``, or nothing before it.
    """
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UsageError(f"{option}: expected KEY=VALUE, got {text!r}")
    return key, value
