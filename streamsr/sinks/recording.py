"""RecordingSink: enlarged frames and passing packets into a file that survives, at the source's own times."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

from streamsr.errors import DiskFull, OutputError
from streamsr.frame import Frame
from streamsr.sinks.base import SinkReport, SourceFacts
from streamsr.sinks.containers import MovieFile, choose_offset, muxer_of, refuse_codec
from streamsr.sinks.drafts import KEPT, Draft, explained, refuse_taken
from streamsr.sinks.encoders import Encoding, choose_encoding
from streamsr.sinks.settings import EncoderSettings
from streamsr.sinks.tracks import Tags
from streamsr.sinks.video_track import shape_of

log = logging.getLogger(__name__)

RESERVE_BYTES = 1 << 20
"""Space kept free for the container's index and for what else writes to that disk; added to what is still unwritten."""


class RecordingSink:
    """Writes one recording: a file, and a further part for every change of size, layout, colour or aspect.

    Entering checks everything that can be checked before the first frame and makes a hidden draft beside the target.
    Leaving normally finishes the drafts, makes them durable and gives them their names. Leaving by an exception, or a
    full disk, finishes what there is and names it ``<stem>.partial<suffix>``; the final name is then never used. A
    process that is killed leaves the hidden draft, which plays up to its last key frame.

    Args:
        path: the file; its suffix chooses the container (.mkv, .mp4, .m4v or .mov).
        facts: of the source; a `capture.base.SourceInfo` fits. Its tracks must stay open while this is.
        scale: enlargement of each side, so that what cannot be encoded is refused before work begins.
        settings: of the encoder.
        overwrite: whether files of the names that are needed may be replaced.
        keep_metadata: whether the source's tags and track titles, which may name a patient, are copied.
        marks: tags of this project, such as the one that says a generator made the picture.

    Attributes:
        report: `SinkReport`; complete when the ``with`` has been left.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        facts: SourceFacts,
        scale: int,
        settings: EncoderSettings | None = None,
        overwrite: bool = False,
        keep_metadata: bool = False,
        marks: Mapping[str, str] | None = None,
    ) -> None:
        self.path, self.facts, self.scale = Path(path), facts, scale
        self.settings = settings or EncoderSettings()
        self.overwrite = overwrite
        self.tags = Tags(keep_metadata, dict(marks or {}))
        self.report = SinkReport()
        self._drafts: list[Draft] = []
        self._num_in_last = 0
        self._movie: MovieFile | None = None
        self._shape: tuple[Any, ...] | None = None
        self._waiting: list[tuple[int, Any]] = []
        self._offset_s: Fraction | None = None

    @property
    def paths(self) -> list[Path]:
        """The files written, in order; empty until the ``with`` has been left."""
        return self.report.paths

    def __enter__(self) -> RecordingSink:
        """Check the target and the encoder, and make the draft.

        Raises:
            UsageError: the suffix, the codec or the settings cannot be.
            OutputExists: the target, or its second part, is there and may not be replaced.
            OutputError: the folder is missing or cannot be written to.
        """
        muxer_of(self.path)
        refuse_taken(self._part_path(2), overwrite=self.overwrite)
        refuse_taken(self.path, overwrite=self.overwrite)
        facts = self.facts
        encoding = choose_encoding(self.settings, facts.layout, facts.width * self.scale, facts.height * self.scale)
        refuse_codec(self.path, encoding.codec)
        self._drafts.append(self._draft(self.path))
        return self

    def show(self, frame: Frame) -> None:
        """Encode the next frame at its own time.

        Args:
            frame: with a pts above the last one's; its planes are not needed after this returns.

        Raises:
            DiskFull: the disk is nearly full; what was written is kept.
            OutputError: it cannot be written.
            UsageError: the frame's shape changed to one that the encoder cannot hold.
        """
        self._check_space()
        with explained(self.path):
            movie = self._movie_for(frame)
            movie.write_frame(frame)
        self.report.num_frames += 1
        self._num_in_last += 1

    def pass_through(self, track: int, packet: Any) -> None:
        """Write the next packet of a passing track; its times are moved in place.

        Args:
            track: `PassingTrack.index`; tracks that the container does not hold are left out.
            packet: the PyAV packet.

        Raises:
            DiskFull: no space is left; what was written is kept.
            OutputError: it cannot be written.
        """
        if self._movie is None:
            self._waiting.append((track, packet))
            return
        with explained(self.path):
            self._movie.write_packet(track, packet)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the file under its name, or under its partial name after an exception.

        Raises:
            DiskFull: the end did not fit; what was written is kept under the partial name.
            OutputExists: another file took the name meanwhile; this one is kept under the partial name.
            OutputError: the end could not be written.
        """
        if error is not None:
            self._abandon(error)
            return
        try:
            self._finish_movie()
            self._publish()
        except OutputError as failure:
            self._keep_partial()
            raise self._say_kept(failure) from failure
        except BaseException:
            self._keep_partial()
            raise

    def _movie_for(self, frame: Frame) -> MovieFile:
        """Return the open file for frames of this shape; a new shape ends the last one and begins a new part."""
        shape = (*shape_of(frame), frame.time_base)
        if self._movie is None or shape != self._shape:
            if self._movie is not None:
                self._finish_movie()
                self._begin_part(frame)
            self._movie, self._shape = self._open(frame), shape
            waiting, self._waiting = self._waiting, []
            for track, packet in waiting:
                self._movie.write_packet(track, packet)
        return self._movie

    def _open(self, frame: Frame) -> MovieFile:
        encoding = choose_encoding(self.settings, frame.layout, frame.width, frame.height)
        if self._offset_s is None:
            self._offset_s = choose_offset(self.facts, frame, self._waiting)
            self.report.offset_s = float(self._offset_s)
        self._note(encoding, frame)
        return MovieFile(
            self._drafts[-1].path,
            muxer_of(self.path),
            encoding,
            facts=self.facts,
            first=frame,
            offset_s=self._offset_s,
            tags=self.tags,
            report=self.report,
        )

    def _note(self, encoding: Encoding, frame: Frame) -> None:
        self.report.encoder = self.report.encoder or encoding.description
        for notice in encoding.notices:
            self.report.note(notice)
        if self._offset_s:
            self.report.note(f"the source starts before zero: all tracks moved by {float(self._offset_s):.6f} s")
        if frame.layout.chroma_shift in ((1, 1), (1, 0)) and frame.colour.siting.value[0] > 0:
            self.report.note(
                f"chroma siting {frame.colour.siting.name.lower()} has no code in video files: not written"
            )

    def _begin_part(self, frame: Frame) -> None:
        target = self._part_path(len(self._drafts) + 1)
        self._drafts.append(self._draft(target))
        self._num_in_last = 0
        self.report.note(
            f"picture changes to {frame.width}x{frame.height} {frame.layout.pix_fmt} at {frame.seconds:.3f} s:"
            f" continued in {target.name}"
        )

    def _draft(self, target: Path) -> Draft:
        return Draft(target, overwrite=self.overwrite)

    def _part_path(self, number: int) -> Path:
        return self.path if number == 1 else self.path.with_name(f"{self.path.stem}.part{number}{self.path.suffix}")

    def _check_space(self) -> None:
        """Stop while there is still room to end the file well.

        Raises:
            DiskFull: less is free than closing the file may need.
        """
        draft = self._drafts[-1]
        unwritten = self._movie.unwritten_bytes(draft.size_bytes) if self._movie else 0
        if draft.free_bytes < RESERVE_BYTES + unwritten:
            kept = f"; {KEPT} {draft.partial_name()}" if self.report.num_frames else ""
            raise DiskFull(
                f"no space left for {self.path} after {self.report.num_frames} frames{kept}; free some space"
            )

    def _finish_movie(self, *, drain: bool = True) -> None:
        movie, self._movie = self._movie, None
        if movie is not None:
            with explained(self.path):
                movie.finish(drain=drain)

    def _publish(self) -> None:
        if not self.report.num_frames:
            self._discard()
            return
        while self._drafts:
            self.report.paths.append(self._drafts[0].publish())
            del self._drafts[0]
        self._weigh()
        self.report.complete = True

    def _abandon(self, error: BaseException) -> None:
        """End what there is as well as it can be; the error that led here is the one that counts."""
        try:
            self._finish_movie(drain=not isinstance(error, DiskFull))
        except Exception as failure:
            log.warning("closing %s: %s", self.path.name, failure)
        self._keep_partial()

    def _keep_partial(self) -> None:
        if not self.report.num_frames:
            self._discard()
            return
        drafts, self._drafts = self._drafts, []
        for draft in drafts:
            if draft.size_bytes and (draft is not drafts[-1] or self._num_in_last):
                self.report.paths.append(draft.keep_partial())
            else:
                draft.discard()
        self._weigh()

    def _say_kept(self, failure: OutputError) -> OutputError:
        kept = ", ".join(map(str, self.report.paths))
        return type(failure)(f"{failure}; {KEPT} {kept}" if kept else str(failure))

    def _weigh(self) -> None:
        self.report.num_bytes = sum(path.stat().st_size for path in self.report.paths)

    def _discard(self) -> None:
        for draft in self._drafts:
            draft.discard()
