"""DicomSink: a recording that becomes a DICOM object when it is complete, within what DICOM video holds."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

from streamsr.dicom import need_pydicom
from streamsr.dicom.attributes import Derivation
from streamsr.dicom.syntaxes import VideoSyntax, choose_syntax
from streamsr.dicom.writing import check_source, new_place, write_derived
from streamsr.errors import InputError, OutputError, UsageError
from streamsr.frame import Frame
from streamsr.sinks.base import PassingTrack
from streamsr.sinks.containers import MovieFile
from streamsr.sinks.drafts import Draft, explained
from streamsr.sinks.recording import RecordingSink
from streamsr.sinks.settings import EncoderSettings

SUFFIX = ".dcm"
TWINS = {"libx264": "libx265", "auto": "libx265", "h264_nvenc": "hevc_nvenc"}
"""What makes HEVC where a picture is too large for H.264."""

CODECS = {"h264": ("libx264", "auto", "h264_nvenc"), "hevc": ("libx265", "hevc_nvenc")}
SOUND = frozenset({"aac", "mp3", "mp2", "ac3"})
"""Sound that may lie beside the pictures (PS3.5, 8.2.12), with at most two channels and 48 kHz."""


class DicomSink(RecordingSink):
    """Writes a derived Video Endoscopic Image, one object for every size; see `RecordingSink` for the rest.

    While pictures come it is an MP4, and one that is not completed is kept as ``<stem>.partial.mp4``. Pictures are
    8-bit 4:2:0, as every DICOM video is that is written here.

    Args:
        path: the object, ``.dcm``.
        source: the DICOM object that the frames come from; None where they come from something else.
        derivation: how they were made.
        facts: of the source, a dataclass such as `capture.base.SourceInfo`.
        scale: enlargement of each side.
        settings: of the encoder.
        options: further ones of `RecordingSink`.

    Raises:
        UsageError: no DICOM video holds the size at this rate, a setting that DICOM cannot have, or pydicom is missing.
        InputError: the source object does not say what it is.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        source: Path | None,
        derivation: Derivation,
        facts: Any,
        scale: int,
        settings: EncoderSettings | None = None,
        **options: Any,
    ) -> None:
        need_pydicom()
        if source is not None:
            check_source(source, derivation)
        settings = settings or EncoderSettings()
        refuse_settings(settings)
        if facts.sample_aspect != 1:
            raise UsageError(
                f"DICOM video has square pixels: expected 1:1, got {facts.sample_aspect}; write .mkv instead"
            )
        self.source, self.derivation = source, derivation
        self.syntax = choose_syntax(codecs_of(settings), facts.width * scale, facts.height * scale, facts.rate)
        self._place = new_place()
        reasons = [(track, why_no_sound(track)) for track in facts.tracks]
        kept = tuple(track for track, reason in reasons if reason is None)
        super().__init__(
            path,
            facts=replace(facts, tracks=kept, attachments=()),
            scale=scale,
            settings=limited(settings, self.syntax),
            **options,
        )
        for track, reason in reasons:
            if reason is not None:
                self.report.note(f"{track.kind} track {track.index} left out: {reason}")
        if self.settings.codec != settings.codec and settings.codec != "auto":
            self.report.note(f"{self.settings.codec}: no DICOM video holds this size and rate as H.264")

    def _draft(self, target: Path) -> Draft:
        return Draft(target, overwrite=self.overwrite, kept_suffix=".mp4")

    def _open(self, frame: Frame) -> MovieFile:
        reason = self.syntax.refusal(frame.width, frame.height, self.facts.rate)
        if reason is not None:
            raise UsageError(
                f"picture changes to {frame.width}x{frame.height}, but {self.syntax.title} {reason}; use --resize fit"
            )
        return super()._open(frame)

    def _publish(self) -> None:
        """Make objects of all movies, and only then let them take the movies' places and names."""
        drafts = self._drafts if self.report.num_frames else []
        asides = [draft.path.with_name(f".{secrets.token_hex(8)}.part.dcm") for draft in drafts]
        try:
            for number, (draft, aside) in enumerate(zip(drafts, asides, strict=True), start=1):
                with explained(draft.target):
                    self._wrap(draft, aside, number)
            for draft, aside in zip(drafts, asides, strict=True):
                with explained(draft.target):
                    aside.replace(draft.path)
        finally:
            for aside in asides:
                aside.unlink(missing_ok=True)
        super()._publish()

    def _wrap(self, draft: Draft, aside: Path, number: int) -> None:
        place = replace(self._place, number=number)
        try:
            write_derived(self.source, draft.path, aside, derivation=self.derivation, place=place)
        except (InputError, UsageError) as cause:
            # The pictures are made: what kept them from becoming an object costs the object alone.
            raise OutputError(f"cannot write {draft.target}: {cause}") from cause


def refuse_settings(settings: EncoderSettings) -> None:
    """Check that DICOM video can have what is asked of the encoder.

    Raises:
        UsageError: it cannot.
    """
    if settings.lossless:
        raise UsageError("DICOM video is never lossless: expected a crf, got lossless; write .mkv instead")
    if settings.pix_fmt not in ("auto", "yuv420p"):
        raise UsageError(f"DICOM video is yuv420p here: expected auto or yuv420p, got {settings.pix_fmt}")
    codecs_of(settings)


def codecs_of(settings: EncoderSettings) -> tuple[str, ...]:
    """Return the codecs that may be written with these settings, as FFmpeg names their decoders.

    Raises:
        UsageError: none.
    """
    if settings.codec in CODECS["h264"]:
        return ("h264", "hevc")
    if settings.codec in CODECS["hevc"]:
        return ("hevc",)
    known = ", ".join((*CODECS["h264"], *CODECS["hevc"]))
    raise UsageError(f"DICOM video is H.264 or HEVC: expected a codec of {known}, got {settings.codec}")


def limited(settings: EncoderSettings, syntax: VideoSyntax) -> EncoderSettings:
    """Return settings that keep an encoder within a transfer syntax.

    Args:
        settings: what was asked for.
        syntax: that is to hold the result.
    """
    codec = settings.codec
    if codec not in CODECS[syntax.codec]:
        codec = TWINS[codec]
    elif codec == "auto":
        codec = "libx264"
    rate, buffer = syntax.bit_rate_kbit, syntax.buffer_kbit
    level = f"{syntax.level / (10 if syntax.codec == 'h264' else 30):.1f}"
    if codec == "libx265":
        own = f"log-level=none:level-idc={level}:high-tier=0:vbv-maxrate={rate}:vbv-bufsize={buffer}"
        limits = {"x265-params": own, "profile": "main"}
    else:
        profile = "high" if syntax.codec == "h264" else "main"
        limits = {"profile": profile, "level": level, "maxrate": f"{rate}k", "bufsize": f"{buffer}k"}
    return replace(settings, codec=codec, pix_fmt="yuv420p", limits=tuple(limits.items()))


def why_no_sound(track: PassingTrack) -> str | None:
    """Return None where a DICOM video holds a track beside its pictures, else why not."""
    if track.kind != "audio" or track.codec not in SOUND:
        return f"DICOM video holds no {track.codec}"
    context = track.template.codec_context
    if context.layout.nb_channels > 2 or context.sample_rate > 48_000:
        return "DICOM video holds two channels of 48 kHz at most"
    return None
