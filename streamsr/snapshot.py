"""Snapshots: the camera's picture and the enlarged one as a pair of PNG files, with a sidecar that tells them apart."""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from time import monotonic_ns
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from streamsr import __version__
from streamsr.colour import RgbBridge, to_rgb8
from streamsr.display.shown import Shown
from streamsr.display.status import LiveStatus
from streamsr.errors import DiskFull, InputError, OutputError
from streamsr.frame import Colour, Frame
from streamsr.sidecar import BICUBIC_STATEMENT, STATEMENT, describe_colour, describe_file, versions, write_sidecar

ORIGINAL_STATEMENT = "The camera's own picture as it was received; not enhanced."

ENHANCED_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:ext="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" ext:DigitalSourceType='
    '"http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"/>'
    "</rdf:RDF></x:xmpmeta>"
)
"""Machine-readable mark of a picture that a trained network had a part in: IPTC's digital source types."""

IHDR_END = 33
"""Where the second chunk of a PNG file begins: 8 bytes of signature and 25 of the first chunk (PNG, clause 5)."""


def write_snapshot(
    shown: Shown, status: LiveStatus, folder: Path, engine_facts: Mapping[str, Any]
) -> tuple[Path, Path, Path]:
    """Write what is shown and what it was made from; every file appears whole, the sidecar last.

    Args:
        shown: the presentation; not a slate.
        status: of the session, for source and latency.
        folder: where to; made where it is not there.
        engine_facts: of the generator, as `sidecar.describe_engine` gives them.

    Returns:
        The original's PNG file, the enlarged picture's, and the sidecar. Samples are 8-bit RGB, or 16-bit where the
        frame is deeper.

    Raises:
        InputError: there is no camera picture, or a colour matrix that is not known.
        OutputError: the files cannot be written.
    """
    if shown.original is None:
        raise InputError("snapshot: expected a camera picture, got a slate; wait for the signal")
    taken = datetime.now(timezone.utc)
    age_ms = (monotonic_ns() - shown.arrived_ns) / 1e6
    pictures = {
        "original": encode_png(shown.original, _texts(ORIGINAL_STATEMENT, taken)),
        "enhanced": encode_png(shown.picture, _texts(_statement(shown), taken), xmp=_xmp(shown)),
    }
    stem = _free_stem(folder, taken)
    paths = {kind: folder / f"{stem}-{kind}.png" for kind in pictures}
    _write_all({paths[kind]: data for kind, data in pictures.items()})
    content = {
        "streamsr": __version__,
        "statement": _statement(shown),
        "taken": taken.isoformat(),
        "source": status.source,
        "picture": {**_describe_picture(shown), "age_ms": round(age_ms, 3), "badge": status.badge},
        "engine": dict(engine_facts),
        "added_latency": asdict(status.added_latency),
        "files": {kind: describe_file(path) for kind, path in paths.items()},
        "versions": versions(),
    }
    sidecar = folder / f"{stem}.json"
    write_sidecar(sidecar, content)
    return paths["original"], paths["enhanced"], sidecar


def encode_png(frame: Frame, texts: Mapping[str, str], *, xmp: str = "") -> bytes:
    """Encode a frame as an RGB PNG file with text and colour tags.

    Args:
        frame: of any layout; deeper than 8 bits it becomes a 16-bit file.
        texts: ASCII by keyword, as PNG's clause 11.3.3 names them.
        xmp: an XMP packet; empty for none.

    Raises:
        InputError: a colour matrix that is not known.
    """
    pixels = to_rgb8(frame) if frame.layout.bit_depth == 8 else to_rgb16(frame)
    done, data = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 3])
    assert done
    chunks = _colour_chunk(frame.colour)
    for keyword, text in texts.items():
        chunks += _chunk(b"tEXt", keyword.encode("ascii") + b"\0" + text.encode("latin-1", "replace"))
    if xmp:
        chunks += _chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp.encode())
    png = data.tobytes()
    return png[:IHDR_END] + chunks + png[IHDR_END:]


def to_rgb16(frame: Frame) -> NDArray[np.uint16]:
    """Return a frame as (H, W, 3) uint16 RGB in [0, 65535].

    Raises:
        InputError: a colour matrix that is not known.
    """
    bridge = RgbBridge(frame.layout, frame.colour, frame.width, frame.height, 1)
    rgb = bridge.rgb_of(frame.planes).transpose(1, 2, 0)
    return np.ascontiguousarray(np.clip(np.rint(rgb * np.float32(65535)), 0, 65535).astype(np.uint16))


def _colour_chunk(colour: Colour) -> bytes:
    """Return a cICP chunk: primaries and transfer of H.273, RGB in full range (PNG 3, clause 11.3.2.6)."""
    return _chunk(b"cICP", bytes((colour.primaries & 0xFF, colour.transfer & 0xFF, 0, 1)))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _statement(shown: Shown) -> str:
    return STATEMENT if shown.is_generated else BICUBIC_STATEMENT


def _xmp(shown: Shown) -> str:
    return ENHANCED_XMP if shown.is_generated else ""


def _texts(statement: str, taken: datetime) -> dict[str, str]:
    return {
        "Comment": statement,
        "Software": f"streamsr {__version__}",
        "Creation Time": taken.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _describe_picture(shown: Shown) -> dict[str, Any]:
    """Return what is known of how a presentation came about."""
    assert shown.original is not None
    return {
        "number": shown.number,
        "frame": shown.original.sequence,
        "pts": shown.original.pts,
        "time_base": shown.original.time_base,
        "rung": shown.rung,
        "reason": shown.reason,
        "alarm": shown.alarm,
        "stages_ms": dict(shown.stages_ms),
        "size_in": [shown.original.width, shown.original.height],
        "size_out": [shown.picture.width, shown.picture.height],
        "pix_fmt": shown.original.layout.pix_fmt,
        "colour": describe_colour(shown.original.colour),
    }


def _free_stem(folder: Path, taken: datetime) -> str:
    """Return a name that no snapshot of the folder has yet."""
    stem = f"snapshot-{taken:%Y%m%dT%H%M%S}.{taken.microsecond // 1000:03d}Z"
    number, free = 1, stem
    while any((folder / f"{free}{end}").exists() for end in ("-original.png", "-enhanced.png", ".json")):
        number += 1
        free = f"{stem}-{number}"
    return free


def _write_all(files: Mapping[Path, bytes]) -> None:
    """Write files aside, flush them, and only then rename all into place."""
    asides = {path: path.with_name(f".{path.name}.part") for path in files}
    try:
        for path, data in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with asides[path].open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for path, aside in asides.items():
            aside.replace(path)
    except OSError as cause:
        for aside in asides.values():
            with suppress(OSError):
                aside.unlink(missing_ok=True)
        kind = DiskFull if cause.errno == errno.ENOSPC else OutputError
        place = next(iter(files)).parent
        raise kind(
            f"{place}: expected to write a snapshot, got {cause.strerror}; free space or --record DIR"
        ) from cause
