"""What writes the result of a job: a recording, or a DICOM object that is derived from its source."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamsr import __version__
from streamsr.capture.base import Source, SourceInfo
from streamsr.config import UpscaleSettings
from streamsr.dicom import is_dicom
from streamsr.engine import Engine
from streamsr.sidecar import STATEMENT, marks_of
from streamsr.sinks import EncoderSettings, RecordingSink

if TYPE_CHECKING:
    from streamsr.dicom.attributes import Derivation

DICOM_SUFFIX = ".dcm"


def make_sink(
    name: str, source: Source, target: Path, engine: Engine, settings: UpscaleSettings, *, precision: str
) -> RecordingSink:
    """Return what writes a result: by its name's ending, a recording or a derived DICOM object.

    Args:
        name: of the source.
        source: open.
        target: the file to write.
        engine: the generator.
        settings: of the job.
        precision: that the generator runs in.

    Raises:
        UsageError: no DICOM video holds the result, or a setting that cannot be.
        InputError: the source object does not say what it is.
    """
    info = source.info if settings.audio == "copy" else replace(source.info, tracks=(), attachments=())
    options: dict[str, Any] = {
        "facts": info,
        "scale": engine.scale,
        "settings": EncoderSettings(
            codec=settings.codec,
            crf=settings.crf,
            preset=settings.preset,
            pix_fmt=settings.pix_fmt,
            lossless=settings.lossless,
        ),
        "overwrite": settings.overwrite,
        "keep_metadata": settings.keep_metadata,
        "marks": marks_of(engine),
    }
    if target.suffix.lower() != DICOM_SUFFIX:
        return RecordingSink(target, **options)
    from streamsr.sinks.dicom_recording import DicomSink

    path = Path(name)
    derivation = describe_derivation(engine, precision, path, info)
    return DicomSink(target, source=path if is_dicom(path) else None, derivation=derivation, **options)


def describe_derivation(engine: Engine, precision: str, path: Path, info: SourceInfo) -> Derivation:
    """Return what a derived DICOM object says of how it was made.

    Args:
        engine: the generator.
        precision: that it runs in.
        path: of the source; its size tells how much its own codec had compressed it.
        info: of the source.
    """
    from streamsr.dicom.attributes import Derivation, estimate_ratio
    from streamsr.dicom.syntaxes import METHODS

    history: tuple[tuple[float, str], ...] = ()
    if info.codec in METHODS and info.num_frames and path.is_file():
        ratio = estimate_ratio(info.width, info.height, info.num_frames, path.stat().st_size)
        history = ((ratio, METHODS[info.codec]),)
    drawn = engine.kind != "interpolation"
    weights = engine.files.get(engine.precisions.get(precision, ""))
    said = f"Enlarged x{engine.scale} by streamsr {__version__}, {engine.kind} engine {engine.name}"
    said += f", weights SHA-256 {weights}" if weights else ""
    said += f". {STATEMENT}" if drawn else ". Research use only; no medical claim. The original is the record."
    return Derivation(description=said, synthetic=drawn, model=f"streamsr {engine.name}", history=history)
