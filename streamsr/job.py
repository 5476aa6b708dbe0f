"""One source to one recording: the line put together, run, watched, and written down in a sidecar."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from streamsr.capture import open_source
from streamsr.capture.base import KeepingSource, Source
from streamsr.config import UpscaleSettings
from streamsr.engine import Engine, find_engine
from streamsr.errors import Interrupted, OutputError, StreamsrError
from streamsr.fallback import FallbackUpscaler, make_upscaler
from streamsr.naming import output_path
from streamsr.pipeline import Pipeline
from streamsr.plans import BuildProgress, telling_builds
from streamsr.results import make_sink
from streamsr.sidecar import (
    describe_colour,
    describe_consistency,
    describe_engine,
    describe_file,
    describe_timings,
    sidecar_path,
    statement_of,
    versions,
    write_sidecar,
)
from streamsr.sinks.drafts import refuse_taken

log = logging.getLogger(__name__)

WATCH_INTERVAL_S = 0.1


@dataclass(frozen=True)
class JobProgress:
    """How far a job is.

    Attributes:
        name: of the source.
        num_frames: as the source says; None where it does not.
        captured: frames decoded.
        shown: frames written.
        skipped: part of the patches that the generator was spared, 0 to 1.
        gaps: what could not be decoded so far.
        elapsed_s: since the line started.
        runtime: what runs the generator; empty before it is known.
        step: what is compiled before the first frame, and how far that is; empty otherwise.
    """

    name: str
    num_frames: int | None
    captured: int
    shown: int
    skipped: float
    gaps: int
    elapsed_s: float
    runtime: str
    step: str = ""


@dataclass(frozen=True)
class JobResult:
    """How a job went.

    Attributes:
        name: of the source.
        outputs: files written; more than one where the size changed in mid-file.
        sidecar: where the sidecar is.
        frames_in: frames decoded.
        frames_out: frames written.
        complete: every frame the source holds was decoded and written.
        notices: what the user should know, one line each.
        gaps: what could not be decoded, one line each.
        seconds: from the first frame to the closed file.
        details: the whole sidecar.
    """

    name: str
    outputs: tuple[Path, ...]
    sidecar: Path
    frames_in: int
    frames_out: int
    complete: bool
    notices: tuple[str, ...]
    gaps: tuple[str, ...]
    seconds: float
    details: dict[str, Any] = field(repr=False)


def upscale_file(
    source: str | Path,
    output: str | Path | None = None,
    *,
    settings: UpscaleSettings | None = None,
    watch: Callable[[JobProgress], None] | None = None,
) -> JobResult:
    """Enlarge one video into a file.

    Frame count, presentation times, colour tags, sound and subtitles are the source's. The result has a temporary name
    until it is complete. A sidecar with hashes, settings and timings is written beside it.

    Args:
        source: a file, or ``testsrc:endoscopy``.
        output: a file or a folder; ``.dcm`` makes a derived DICOM object; None is beside the source.
        settings: generator, encoder and reading; None takes the defaults.
        watch: called ten times a second with the progress, in the caller's thread.

    Returns:
        What was written and how it went; `JobResult.complete` is False where the source had damage.

    Raises:
        InputError: the source cannot be opened or holds no video.
        EngineError: the generator is missing, damaged or cannot run here.
        OutputError: the result cannot be written, or exists and may not be replaced.
        Interrupted: the user pressed Ctrl-C; a playable partial result was kept and is named.
    """
    settings = settings or UpscaleSettings()
    engine = find_engine(settings.generator.engine)
    target = output_path(str(source), output, engine)
    return run_job(str(source), target, engine, settings, watch or (lambda progress: None))


def run_job(
    name: str, target: Path, engine: Engine, settings: UpscaleSettings, watch: Callable[[JobProgress], None]
) -> JobResult:
    """Open both ends, run the line between them, and write the sidecar; see `upscale_file`."""
    read = settings.read
    with open_source(
        name, rate=read.rate, resize=read.resize, deinterlace=read.deinterlace, hwaccel=read.hwaccel
    ) as source:
        with telling(name, watch):
            job = Job(name, source, target, engine, settings)
        failure = job.run(watch)
        details = job.describe(failure)
        paths = job.sink.report.paths
        if paths:  # before the source is closed: what is whole has its sidecar, whatever fails afterwards
            job.write_down(details, failure)
    if isinstance(failure, KeyboardInterrupt):
        kept = f"a playable part is kept as {paths[0]}" if paths else "nothing had been written"
        raise Interrupted(f"{name}: interrupted after {job.sink.report.num_frames} frames; {kept}") from failure
    if failure is not None:
        raise failure
    return job.result(details)


def telling(name: str, watch: Callable[[JobProgress], None]) -> AbstractContextManager[None]:
    """Tell the plans that the body waits for, each with its steps, as progress of a job that has no frame yet.

    Args:
        name: of the source.
        watch: takes the progress; what it raises, and an interrupt, ends the wait, and the builder.
    """

    def tell(plan: BuildProgress) -> None:
        step = f"plan of {plan.name}: {plan.step or 'starting'}, {plan.elapsed_s:.0f} s"
        watch(JobProgress(name, None, 0, 0, 0.0, 0, plan.elapsed_s, "", step))

    return telling_builds(tell)


class Job:
    """One source, one upscaler and one recording, ready to run once.

    Args:
        name: of the source, as the user wrote it.
        source: open.
        target: the file to write.
        engine: which generator.
        settings: the rest.

    Raises:
        EngineError: the generator cannot run here.
        UsageError: a setting that cannot be.
    """

    def __init__(self, name: str, source: Source, target: Path, engine: Engine, settings: UpscaleSettings) -> None:
        self.name, self.source, self.engine, self.settings = name, source, engine, settings
        self.upscaler = make_upscaler(engine, settings.generator, bit_depth=source.info.layout.bit_depth)
        self.generator = self.upscaler.generator
        device = self.upscaler.device if isinstance(self.upscaler, FallbackUpscaler) else None
        if device is not None and isinstance(source, KeepingSource):
            source.keep_on(device)  # before the sink takes the source's tracks: the file is opened again
        self.sink = make_sink(name, source, target, engine, settings, precision=self.generator.precision)
        refuse_taken(sidecar_path(target), overwrite=settings.overwrite)
        upscaler = self.upscaler
        stage = upscaler if isinstance(upscaler, FallbackUpscaler) else upscaler.upscale
        self.pipeline = Pipeline(source, stage, self.sink)
        self.started_s = time.monotonic()
        self.seconds = 0.0

    def run(self, watch: Callable[[JobProgress], None]) -> BaseException | None:
        """Run the line to its end; return what ended it early, or None.

        What the first frame would wait for is compiled before, in the caller's thread, which interrupts reach.
        """
        try:
            with telling(self.name, watch):
                self._prepare()
            self.started_s = time.monotonic()
            with self.sink, self.pipeline:
                while not self.pipeline.join(WATCH_INTERVAL_S):
                    watch(self.progress())
        except (StreamsrError, KeyboardInterrupt) as cause:
            return cause
        except Exception as cause:  # a stage's own failure, re-raised by join: this file is lost, the next is not
            log.debug("the line failed", exc_info=True)
            return unexpected(self.name, cause)
        finally:
            self.seconds = time.monotonic() - self.started_s
        watch(self.progress())
        return None

    def _prepare(self) -> None:
        """Have compiled what takes minutes; a size that comes in mid-file is compiled for when it comes."""
        info = self.source.info
        if isinstance(self.upscaler, FallbackUpscaler):
            self.upscaler.prepare(info.width, info.height, info.layout)

    def progress(self) -> JobProgress:
        """Say how far the job is."""
        line, count = self.pipeline.progress(), self.upscaler.count
        return JobProgress(
            name=self.name,
            num_frames=self.source.info.num_frames,
            captured=line.captured,
            shown=line.shown,
            skipped=count.skipped / count.total if count.total else 0.0,
            gaps=len(self.source.report.gaps),
            elapsed_s=time.monotonic() - self.started_s,
            runtime=self.upscaler.description,
        )

    def seam_notices(self) -> list[str]:
        """Return a line where the halo that was asked for is too small to leave no seam."""
        asked, radius = self.settings.generator.halo_px, self.generator.radius_px
        if asked is None or asked >= radius:
            return []
        return [f"seams may show: a halo of {asked} px is below the network's radius of {radius} px"]

    @property
    def complete(self) -> bool:
        """Whether every frame that the source holds was decoded and written."""
        read, written = self.source.report, self.sink.report
        return read.complete and written.complete and read.num_frames == written.num_frames

    def describe(self, failure: BaseException | None) -> dict[str, Any]:
        """Return the sidecar."""
        read, written, info = self.source.report, self.sink.report, self.source.info
        path = Path(self.name)
        return {
            "statement": statement_of(self.engine),
            "input": describe_file(path) if path.is_file() else {"name": self.name},
            "outputs": [describe_file(path) for path in written.paths],
            "engine": describe_engine(
                self.engine, precision=self.generator.precision, runtime=self.upscaler.description
            ),
            "settings": asdict(self.settings),
            "versions": versions(),
            "picture": {
                "width": info.width,
                "height": info.height,
                "codec": info.codec,
                "pix_fmt": info.pix_fmt,
                "colour": describe_colour(info.colour),
                "encoder": written.encoder,
            },
            "frames": {
                "in": read.num_frames,
                "out": written.num_frames,
                "complete": self.complete and failure is None,
                "gaps": read.gaps,
                "truncated": read.truncated,
            },
            "time": {
                "time_base": info.time_base,
                "offset_s": written.offset_s,
                "seconds_taken": round(self.seconds, 3),
            },
            "patches": {**asdict(self.upscaler.count), "skipped": self.upscaler.count.skipped},
            "consistency": describe_consistency(self.upscaler.consistency),
            "launch": asdict(self.upscaler.plan) if self.upscaler.plan else None,
            "timings": describe_timings({**self.pipeline.clocks, **self.upscaler.clocks}),
            "notices": [
                *info.notices,
                *read.notices,
                *written.notices,
                *self.seam_notices(),
                *self.upscaler.notices,
            ],
            "failure": None if failure is None else str(failure) or type(failure).__name__,
        }

    def write_down(self, details: dict[str, Any], failure: BaseException | None) -> None:
        """Write the sidecar; where the line failed already, that is what counts.

        Raises:
            OutputError: a result that is whole has no sidecar.
        """
        try:
            write_sidecar(sidecar_path(self.sink.report.paths[0]), details)
        except OutputError as cause:
            if failure is None:
                raise
            log.warning("%s", cause)

    def result(self, details: dict[str, Any]) -> JobResult:
        """Return how the job went, from its sidecar."""
        paths = self.sink.report.paths
        return JobResult(
            name=self.name,
            outputs=tuple(paths),
            sidecar=sidecar_path(paths[0]),
            frames_in=self.source.report.num_frames,
            frames_out=self.sink.report.num_frames,
            complete=self.complete,
            notices=tuple(dict.fromkeys(details["notices"])),
            gaps=tuple(self.source.report.gaps),
            seconds=self.seconds,
            details=details,
        )


def unexpected(name: str, cause: Exception) -> StreamsrError:
    """Return a failure that nobody foresaw as one of ours, in one line."""
    error = StreamsrError(f"{name}: failed unexpectedly: {type(cause).__name__}: {' '.join(str(cause).split())[:200]}")
    error.__cause__ = cause
    return error
