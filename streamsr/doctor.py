"""What is in a source and what would be done with it; what this machine has and what it lacks."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from streamsr.capture import open_source
from streamsr.config import GeneratorSettings, usable_cores
from streamsr.engine import BICUBIC_SCALES, MANIFEST, catalogue_folder, find_engine, read_engine
from streamsr.errors import StreamsrError, UsageError, printable
from streamsr.gpu_findings import Finding, examine_gpus
from streamsr.runtimes import load_generator, notices_of
from streamsr.sidecar import describe_colour
from streamsr.sinks import EncoderSettings, available_encoders
from streamsr.sinks.encoders import choose_encoding
from streamsr.sinks.screen import ScreenProbe

FREE_SPACE_BYTES = 2 << 30
"""Less free space than an hour of enlarged SD video takes is worth a warning."""

PLAIN_WIDTH = 140
"""Columns of a table that goes to a file or a pipe."""

STATE_COLOURS = {"ok": "green", "missing": "yellow", "broken": "red"}


def examine_machine() -> list[Finding]:
    """Look at processor, GPUs, runtimes, encoders, engines and disk."""
    return [
        Finding("processor", "ok", f"{usable_cores()} cores, {processor_name()}"),
        *examine_gpus(),
        *examine_runtimes(),
        *examine_encoders(),
        *examine_engines(),
        *examine_extras(),
        *examine_live(),
        examine_disk(Path.cwd()),
    ]


def processor_name() -> str:
    """Return the processor's name and the units for small integers that it has."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in text.split("\n\n", maxsplit=1)[0].splitlines() if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    flags = named.get("flags", "").split()
    units = [unit for unit in ("avx2", "avx512f", "avx512_vnni", "amx_int8") if unit in flags]
    return f"{named.get('model name', platform.machine())} ({', '.join(units) or 'no vector units known'})"


def examine_runtimes() -> Iterator[Finding]:
    """Say which runtimes of the processor are installed."""
    for name, package, needed in (
        ("openvino", "openvino", True),
        ("torch", "torch", True),
        ("onnxruntime", "onnxruntime", False),
    ):
        if find_spec(package) is not None:
            yield Finding(f"runtime {name}", "ok", package_version(package))
        else:
            yield Finding(f"runtime {name}", "broken" if needed else "missing", "not installed", f"pip install {name}")


def package_version(package: str) -> str:
    """Return the version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "version unknown"


def examine_encoders() -> Iterator[Finding]:
    """Say which encoders open; they are tried, since a build lists encoders that cannot run."""
    for name, reason in available_encoders().items():
        state = "ok" if reason is None else "broken" if name == "libx264" else "missing"
        yield Finding(f"encoder {name}", state, reason or "opens", "" if reason is None else encoder_remedy(name))


def encoder_remedy(name: str) -> str:
    """Return what makes an encoder work, or how to do without."""
    if name.endswith("_nvenc"):
        return "none is needed: --codec libx264 does without; else install NVIDIA's driver"
    return "pip install --force-reinstall av" + ("" if name == "libx264" else ", or do without: --codec libx264")


def examine_engines() -> Iterator[Finding]:
    """Verify every engine of the catalogue against its hashes."""
    found = sorted(catalogue_folder().glob(f"*/{MANIFEST}"))
    for manifest in found:
        name = manifest.parent.name
        try:
            engine = read_engine(manifest.parent)
            engine.verify()
        except StreamsrError as error:
            yield Finding(f"engine {name}", "broken", str(error), "pip install --force-reinstall streamsr")
        else:
            yield Finding(f"engine {name}", "ok", f"{engine.kind}, {engine.colour}, {', '.join(engine.precisions)}")
    if not found:
        remedy = "pip install --force-reinstall streamsr"
        yield Finding("engines", "broken", f"none in {catalogue_folder()}", remedy)
    yield Finding("engine bicubic", "ok", f"interpolation, x{', x'.join(map(str, BICUBIC_SCALES))}")


def examine_extras() -> Iterator[Finding]:
    """Say which optional parts are installed."""
    packages = {"web": "aiohttp", "dicom": "pydicom", "ray": "ray", "evaluate": "pillow", "train": "onnx"}
    for extra, package in packages.items():
        installed = find_spec({"pillow": "PIL"}.get(package, package)) is not None
        detail = package_version(package) if installed else "not installed"
        remedy = "" if installed else f"pip install 'streamsr[{extra}]'"
        yield Finding(f"extra {extra}", "ok" if installed else "missing", detail, remedy)


def examine_live() -> Iterator[Finding]:
    """Say what a live session finds here: a screen for its window, and video devices."""
    try:
        with ScreenProbe():
            yield Finding("live window", "ok", "a window opens")
    except UsageError as cause:
        yield Finding("live window", "missing", str(cause), "streamsr live --view web needs none")
    if not sys.platform.startswith("linux"):
        yield Finding("video devices", "missing", "listed on Linux alone", "feed them in through a pipe")
        return
    from streamsr.capture.devices import list_devices

    names = [f"{device.path} {device.name}" for device in list_devices()]
    remedy = "" if names else "plug one in, and load its driver"
    yield Finding("video devices", "ok" if names else "missing", ", ".join(names) or "none", remedy)


def examine_disk(folder: Path) -> Finding:
    """Say how much room a folder has."""
    free = shutil.disk_usage(folder).free
    state = "ok" if free >= FREE_SPACE_BYTES else "missing"
    return Finding(
        "disk",
        state,
        f"{free / (1 << 30):.1f} GiB free in the present folder",
        "" if state == "ok" else "free some space",
    )


def print_findings(findings: list[Finding]) -> None:
    """Print findings as a table."""
    table = Table("what", "state", "found", "remedy", box=None, pad_edge=False)
    for finding in findings:
        state = Text(finding.state, style=STATE_COLOURS[finding.state])
        table.add_row(finding.topic, state, Text(finding.detail), Text(finding.remedy))
    wide_console().print(table, highlight=False)


def describe_source(name: str, model: str) -> dict[str, Any]:
    """Say what is in a source and what streamsr would do with it.

    Args:
        name: a file, or ``testsrc:endoscopy``.
        model: the engine that would enlarge it.

    Raises:
        InputError: it cannot be opened or holds no video.
        EngineError: the engine cannot be used.
    """
    engine = find_engine(model)
    with open_source(name) as source:
        info = source.info
    generator = load_generator(engine, GeneratorSettings(engine=model), bit_depth=info.layout.bit_depth)
    width, height = info.width * engine.scale, info.height * engine.scale
    encoding = choose_encoding(EncoderSettings(), info.layout, width, height)
    return {
        "source": {
            "codec": info.codec,
            "pix_fmt": info.pix_fmt,
            "size": f"{info.width}x{info.height}",
            "sample_aspect": info.sample_aspect,
            "rate": readable_rate(info.rate),
            "time_base": info.time_base,
            "frames": info.num_frames,
            "duration_s": info.duration_s,
            "start_s": info.start_s,
            "colour": describe_colour(info.colour),
            "tracks": [f"{track.kind}: {track.codec}" for track in info.tracks],
            "attachments": len(info.attachments),
            "tags": sorted(info.metadata),
        },
        "would do": {
            "engine": f"{engine.name} ({engine.kind}, {engine.colour})",
            "runtime": generator.description,
            "read as": info.layout.pix_fmt,
            "written as": encoding.description,
            "tags": "left out (may name a patient); --keep-metadata copies them" if info.metadata else "none to copy",
            "tracks": "copied" if info.tracks else "none to copy",
            "notices": [*info.notices, *notices_of(generator), *encoding.notices],
        },
    }


def readable_rate(rate: Fraction) -> str:
    """Return a rate as a fraction and a number."""
    return str(rate) if rate.denominator == 1 else f"{rate} ({float(rate):.3f})"


def print_rows(title: str, description: Mapping[str, Any]) -> None:
    """Print a nested description as a table."""
    table = Table(title=Text(printable(title)), show_header=False, box=None, pad_edge=False, title_justify="left")
    for part, rows in description.items():
        table.add_row(Text(part, style="bold"))
        for key, value in rows.items():
            table.add_row(Text(f"  {key}"), Text(printable(readable(value))))
    wide_console().print(table, highlight=False)


def wide_console() -> Console:
    """Return a console as wide as the terminal, and wide enough for a table where there is none."""
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_WIDTH)


def readable(value: Any) -> str:
    """Return a value in words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {readable(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return "not stated" if value is None else str(value)
