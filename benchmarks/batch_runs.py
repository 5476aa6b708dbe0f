"""Runs of an archive for the benchmark ``batch``: clips, executors that stay warm, and what is timed in them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from benchmarks.clips import rendered_clip
from streamsr.batch.archive import enlarge_archive
from streamsr.batch.board import Board
from streamsr.batch.checking import check_result
from streamsr.batch.journal import Journal
from streamsr.batch.outputs import Destination
from streamsr.batch.tasks import Event, Executor, Task
from streamsr.capture.spans import PassingSource, read_times
from streamsr.config import BatchSettings, GeneratorSettings, ReadSettings, UpscaleSettings
from streamsr.engine import find_engine
from streamsr.frame import Frame
from streamsr.job import run_job
from streamsr.sidecar import file_sha256
from streamsr.sinks.joining import JoinedRecording, Piece
from streamsr.sinks.tracks import Tags


class Silence:
    """A display that shows nothing."""

    def update(self, board: Board) -> None:
        """Show nothing."""

    def finish(self, name: str, details: Mapping[str, Any], incomplete: str | None) -> None:
        """Show nothing."""

    def fail(self, name: str, kind: str, message: str, *, again: bool) -> None:
        """End the benchmark: its clips do not fail."""
        raise RuntimeError(f"{name}: {kind}: {message}")

    def note(self, line: str) -> None:
        """Show nothing."""

    def end(self, board: Board, report: Mapping[str, Any]) -> None:
        """Show nothing."""


class Warm:
    """An executor that runs already and goes on running after a run.

    Args:
        base: entered, and left by whoever entered it.
    """

    def __init__(self, base: Executor) -> None:
        self._base = base

    @property
    def description(self) -> str:
        """Who works."""
        return self._base.description

    @property
    def num_free(self) -> int:
        """How many tasks could start at once."""
        return self._base.num_free

    def submit(self, task: Task) -> None:
        """Start a task."""
        self._base.submit(task)

    def wait(self, timeout_s: float) -> list[Event]:
        """Return what happened."""
        return self._base.wait(timeout_s)

    def __enter__(self) -> Warm:
        return self

    def __exit__(self, *error: object) -> None:
        """Go on."""


class Bench:
    """Clips, settings and a place for results.

    Args:
        folder: of everything.
        quick: small and short.
    """

    def __init__(self, folder: Path, *, quick: bool) -> None:
        self.folder, self.quick = folder, quick
        width, height, frames = (128, 96, 10) if quick else (320, 240, 100)
        self.num_frames, self.num_clips = frames, 2 if quick else 8
        clips = folder / "clips"
        clips.mkdir()
        first = rendered_clip(folder, width, height, frames)
        for number in range(self.num_clips):
            (clips / f"clip {number}.mp4").write_bytes(first.read_bytes())
        self.clips, self.first = clips, first
        engine = "bicubic-x2" if quick else "tiny-x2"
        self.settings = BatchSettings(UpscaleSettings(GeneratorSettings(engine=engine, launch="frame")), segment_s=None)
        self._number = 0

    def run(self, executor: Executor, clips: Path | None = None, settings: BatchSettings | None = None) -> float:
        """Enlarge the clips into a new folder; return the seconds."""
        started = time.perf_counter()
        inputs, made = str(clips or self.clips), Destination(self.new_folder())
        code = enlarge_archive(
            [inputs], made, settings or self.settings, Silence(), make_executor=lambda most: executor
        )
        if code:
            raise RuntimeError("expected every clip to be done")
        return time.perf_counter() - started

    def new_folder(self) -> Path:
        """Return a folder that is not there yet."""
        self._number += 1
        return self.folder / f"out {self._number}"

    def warmed(self, executor: Executor, stack: ExitStack) -> Warm:
        """Start an executor and let every worker do a file."""
        warm = Warm(stack.enter_context(executor))
        self.run(warm)
        return warm

    @property
    def frames(self) -> int:
        """In all clips."""
        return self.num_clips * self.num_frames


def timed_journal(spent: list[float]) -> Callable[[], None]:
    """Time every call of a journal from now on; return what ends that."""
    names = (
        "begin_run",
        "beat",
        "end_run",
        "runs",
        "take_over",
        "plan",
        "touch",
        "claim",
        "publishing",
        "finish",
        "rows",
    )
    before = {name: getattr(Journal, name) for name in names}
    depth = [0]

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*arguments: Any, **options: Any) -> Any:
            depth[0] += 1
            started = time.perf_counter()
            try:
                return call(*arguments, **options)
            finally:
                depth[0] -= 1
                if not depth[0]:  # calls within calls count once
                    spent.append(time.perf_counter() - started)

        return measured

    for name, call in before.items():
        setattr(Journal, name, timed(call))

    def restore() -> None:
        for name, call in before.items():
            setattr(Journal, name, call)

    return restore


def frame_costs(bench: Bench) -> dict[str, Any]:
    """Return what a frame of the first clip costs to read, to hash, to check and to write."""
    (result,) = sorted((bench.folder / "out 1").rglob("clip 0*.mkv"))
    source = bench.clips / "clip 0.mp4"
    started = time.perf_counter()
    check_result(
        str(source), [result], read=ReadSettings(), offset_s=0.0, num_frames=bench.num_frames, sound=True, notices=()
    )
    checked = time.perf_counter()
    file_sha256(source)
    file_sha256(result)
    hashed = time.perf_counter()
    sidecar = json.loads(result.with_name(result.name + ".json").read_text())
    sizes = source.stat().st_size, result.stat().st_size
    return {
        "picture": f"{sidecar['picture']['width']}x{sidecar['picture']['height']}",
        "read_bytes_a_frame": round(sizes[0] / bench.num_frames),
        "written_bytes_a_frame": round(sizes[1] / bench.num_frames),
        "check_ms_a_frame": round(1e3 * (checked - started) / bench.num_frames, 3),
        "hash_ms_a_frame": round(1e3 * (hashed - checked) / bench.num_frames, 4),
        "join_ms_a_frame": round(_join_ms(result, bench.folder) / bench.num_frames, 3),
    }


def codec_costs(bench: Bench, width: int, height: int, num_frames: int) -> dict[str, Any]:
    """Return what a frame costs the processor to decode and, enlarged, to encode, in milliseconds of all its cores.

    Processor time is counted, not time on the clock: what else runs lengthens only the latter.
    """
    home = bench.new_folder()
    home.mkdir()
    clip = rendered_clip(home, width, height, num_frames)
    settings = replace(bench.settings.upscale, overwrite=True)
    engine, result = find_engine(settings.generator.engine), home / "enlarged.mkv"
    details = run_job(str(clip), result, engine, settings, lambda progress: None).details
    codec, pix_fmt, size, *words = details["picture"]["encoder"].split()
    started = time.process_time()
    num_decoded = len(_pictures(clip))
    decoded = time.process_time()
    pictures = _pictures(result)
    context: Any = av.CodecContext.create(codec, "w")
    context.width, context.height = map(int, size.split("x"))
    context.pix_fmt, context.time_base, context.framerate = pix_fmt, Fraction(1, 25), Fraction(25)
    context.options = dict(word.split("=", 1) for word in words)
    encoding = time.process_time()
    for number, picture in enumerate(pictures):
        picture.pts, picture.time_base, picture.pict_type = number, Fraction(1, 25), 0
        context.encode(picture)
    context.encode(None)
    ended = time.process_time()
    return {
        "picture": f"{width}x{height}",
        "encoder": details["picture"]["encoder"],
        "decode_ms_a_frame": round(1e3 * (decoded - started) / num_decoded, 3),
        "encode_ms_a_frame": round(1e3 * (ended - encoding) / len(pictures), 3),
    }


def _pictures(path: Path) -> list[Any]:
    with av.open(str(path)) as container:
        return list(container.decode(container.streams.video[0]))


def _join_ms(result: Path, folder: Path) -> float:
    """Return how long it takes to write the packets of a result anew, as joining its segments would."""
    times = read_times(result)
    assert times is not None
    shown, target = sorted(times.shown), folder / "joined.mkv"
    with PassingSource(result) as source:
        first = next(item for item in source if isinstance(item, Frame))
        started = time.perf_counter()
        pieces = [Piece(result, shown, [0] * len(shown))]
        with JoinedRecording(target, pieces, facts=source.info, first=first, tags=Tags(), overwrite=True) as joined:
            joined.write([], [])
        return 1e3 * (time.perf_counter() - started)
