"""The commands of live use."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from streamsr.capture.devices import Device

NONE_HERE = (
    "no video devices: expected /dev/video*, found none; plug in the camera or capture card and load its driver "
    "(in a container, pass --device /dev/video0); try the rest with testsrc:endoscopy"
)


def devices(as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False) -> None:
    """List the video devices that are here, and what they offer."""
    from streamsr.capture.devices import list_devices

    found = list_devices()
    if as_json:
        typer.echo(json.dumps({"devices": [asdict(device) for device in found]}, indent=2))
    elif not found:
        typer.echo(NONE_HERE)
    for device in [] if as_json else found:
        typer.echo("\n".join(lines_of(device)))


def lines_of(device: Device) -> list[str]:
    """Return what is printed of a device: its path and name, then a line for each mode."""
    lines = [f"{device.path}  {device.name}" + (f": {device.fault}" if device.fault else "")]
    for mode in device.modes:
        size = f"{mode.width}x{mode.height}" if mode.width else "any size"
        rates = ", ".join(f"{rate:g}" for rate in mode.rates) or "not stated"
        lines.append(f"  {mode.input_format:<10} {size:<10} {rates} fps")
    return lines
