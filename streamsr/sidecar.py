"""The sidecar: a JSON file beside every result that says what it was made from, with what, and how it went."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from streamsr import __version__
from streamsr.consistency import FILTER, ConsistencyCount
from streamsr.engine import Engine
from streamsr.errors import OutputError
from streamsr.frame import Colour
from streamsr.timing import StageClock

STATEMENT = (
    "Enlarged by a learned generator: detail was added that the camera did not record. Research use only; no medical "
    "claim. The original is the record."
)
INTERPOLATED_STATEMENT = (
    "Enlarged by bicubic interpolation alone; no learned generator made it. The original is the record."
)
STATEMENTS = (STATEMENT, INTERPOLATED_STATEMENT)
"""What a sidecar begins with, and is known by."""

PACKAGES = ("torch", "openvino", "onnxruntime", "av", "numpy", "opencv-python")


class FileHash:
    """The SHA-256 of a file that is complete, taken a slice at a time by whoever has other work between the slices.

    Args:
        path: the file.

    Attributes:
        hexdigest: the hash in hexadecimal; None until `advance` has returned False.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.hexdigest: str | None = None
        self._digest, self._offset = hashlib.sha256(), 0

    def advance(self, num_bytes: int) -> bool:
        """Take in the next bytes at most; return whether there may be more."""
        with self.path.open("rb") as file:
            file.seek(self._offset)
            slice_ = file.read(num_bytes)
        self._digest.update(slice_)
        self._offset += len(slice_)
        if len(slice_) == num_bytes:
            return True
        self.hexdigest = self._digest.hexdigest()
        return False


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    found = FileHash(path)
    while found.advance(1 << 20):
        pass
    return str(found.hexdigest)


def describe_file(path: Path) -> dict[str, Any]:
    """Return name, size and hash of a file; the folder is left out, for it may name a person."""
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": file_sha256(path)}


def describe_engine(engine: Engine, *, precision: str, runtime: str) -> dict[str, Any]:
    """Return which generator ran, with the hash of its weights."""
    file = engine.precisions.get(precision) or engine.precisions.get("fp32")
    return {
        "name": engine.name,
        "kind": engine.kind,
        "scale": engine.scale,
        "colour": engine.colour,
        "precision": precision,
        "runtime": runtime,
        "weights": file,
        "weights_sha256": engine.files.get(file or ""),
    }


def describe_colour(colour: Colour) -> dict[str, Any]:
    """Return code points of Rec. ITU-T H.273 and which of them were assumed."""
    return {
        "matrix": colour.matrix,
        "primaries": colour.primaries,
        "transfer": colour.transfer,
        "range": "full" if colour.full_range else "limited",
        "siting": colour.siting.name.lower(),
        "assumed": list(colour.assumed),
    }


def describe_consistency(count: ConsistencyCount) -> dict[str, Any] | None:
    """Return how well the result, brought down again, gives the input back; None where that was not seen to.

    Shares are of the low-resolution samples compared; levels are grey levels of the picture's own bit depth.
    """
    if not count.samples:
        return None
    return {
        "filter": FILTER,
        "samples": count.samples,
        "within_one_level": round(count.share, 7),
        "within_one_level_before": round(count.share_before, 7),
        "outside_by_clipping": round(count.clipped / count.samples, 7),
        "max_levels": round(count.max_levels, 3),
    }


def describe_timings(clocks: Mapping[str, StageClock]) -> dict[str, dict[str, float]]:
    """Return the percentiles of every stage in milliseconds a frame."""
    return {name: asdict(clock.percentiles()) for name, clock in clocks.items()}


def versions() -> dict[str, str]:
    """Return the versions of Python, of streamsr and of what it stands on."""
    found = {"streamsr": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def plain(value: Any) -> Any:
    """Return a value in types that JSON has: fractions and paths as strings."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, (Fraction, Path)) else value


def sidecar_path(output: Path) -> Path:
    """Return where the sidecar of a result is: its whole name with ``.json`` behind."""
    return output.with_name(output.name + ".json")


def is_sidecar(content: object) -> bool:
    """Whether the content of a JSON file is that of a result's sidecar."""
    return isinstance(content, dict) and content.get("statement") in STATEMENTS and "outputs" in content


def is_result(path: Path) -> bool:
    """Whether a sidecar of ours lies beside a file and names it among its outputs."""
    try:
        content = json.loads(sidecar_path(path).read_text(encoding="ascii", errors="replace"))
        return is_sidecar(content) and any(output["name"] == path.name for output in content["outputs"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_sidecar(path: Path, content: Mapping[str, Any]) -> None:
    """Write a sidecar aside, flush it and rename it into place.

    Raises:
        OutputError: it cannot be written; the video is not touched.
    """
    aside = path.with_name(f".{path.name}.part")
    try:
        with aside.open("w", encoding="ascii") as file:
            json.dump(plain(content), file, indent=2)  # ASCII: names need not be valid Unicode
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as cause:
        aside.unlink(missing_ok=True)
        raise OutputError(
            f"{path}: expected to write the sidecar, got {cause.strerror}; the video beside it is whole"
        ) from cause
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def statement_of(engine: Engine) -> str:
    """Return what a reader of a result is to know first: whether a generator drew in it."""
    return INTERPOLATED_STATEMENT if engine.kind == "interpolation" else STATEMENT


def statement_of_pictures(num_generated: int, num_pictures: int) -> str:
    """Return what is to be said of a video some of whose pictures a learned generator made."""
    if not num_generated:
        return INTERPOLATED_STATEMENT if num_pictures else STATEMENT
    if num_generated == num_pictures:
        return STATEMENT
    return f"{num_generated} of {num_pictures} pictures, the others by bicubic interpolation: {STATEMENT}"


def live_marks_of(engine: Engine) -> dict[str, str]:
    """Return the tags of a live recording, which are written before anybody knows what will make its pictures."""
    if engine.kind == "interpolation":
        return marks_of(engine)
    may = f"may hold AI-enhanced pictures (x{engine.scale}, streamsr {engine.name}); see the sidecar"
    return {"comment": f"{may} - research use; the original is the record"}


def marks_of(engine: Engine) -> dict[str, str]:
    """Return the tags that tell every player that a generator made the picture."""
    made = "interpolated" if engine.kind == "interpolation" else "AI-ENHANCED"
    return {"comment": f"{made} x{engine.scale} by streamsr {engine.name} - research use; the original is the record"}
