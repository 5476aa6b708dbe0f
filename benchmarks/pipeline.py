"""Find how fast a file is enlarged from end to end, beside its generator alone and beside a naive script.

    python -m benchmarks.pipeline

Four questions, each answered by things measured in turn in this one run:

1. *Speed.* From the call of `upscale_file` to the file under its final name is too much to compare with a loop: it
   opens encoders and compiles a graph, once a file. So two figures are given. ``line``: frames a second of the line,
   from its start to the closed file, with decoding, encoding and compiling (`JobResult.seconds`). ``steady``: the same
   without the start, from the 10th frame written to the last. The *generator alone* runs the same frames, already
   decoded, as whole frames into one array, with nothing else; it always computes every pixel. ``whole`` runs compute
   every pixel too (no routing, frame launch), ``routed`` ones skip surround and unchanged patches, as by default.
2. *Where the time goes.* Processor milliseconds a frame of capture, upscaler and sink, each run by itself.
3. *Memory.* Resident memory while 2,000 frames pass.
4. *A naive script* (`benchmarks.naive`) on the same clip with the same network.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.card import machine_card, options_of, print_card, print_table, report
from benchmarks.clips import long_clip, real_clips, rendered_clip
from benchmarks.naive import enlarge_naively
from benchmarks.resident import measure_memory
from benchmarks.students import is_stand_in, random_engine, student_engine
from benchmarks.turns import Company, cpu_seconds
from streamsr import open_source
from streamsr.config import GeneratorSettings, UpscaleSettings
from streamsr.engine import Engine
from streamsr.frame import Frame
from streamsr.job import JobProgress, upscale_file
from streamsr.models.student import StudentSpec
from streamsr.runtimes import load_generator
from streamsr.sinks import EncoderSettings, RecordingSink
from streamsr.upscaler import FrameUpscaler

SPEED_FRAMES, ROUNDS, NAIVE_FRAMES = 100, 3, 20
MEMORY_FRAMES = 2000
STEADY_FROM = 10


@dataclass(frozen=True)
class Case:
    """One clip and one student.

    Attributes:
        clip: name of the clip.
        path: of the clip.
        engine: which student.
        goal_fps: frames a second of the line that are wanted; None where none is stated.
        naive: whether the naive script is run too.
    """

    clip: str
    path: Path
    engine: Engine
    goal_fps: float | None = None
    naive: bool = False


def whole(engine: Engine) -> UpscaleSettings:
    """Return settings that compute every pixel."""
    generator = replace(routed(engine).generator, launch="frame", skip_surround=False, reuse_unchanged=False)
    return replace(routed(engine), generator=generator)


def routed(engine: Engine) -> UpscaleSettings:
    """Return the default settings."""
    return UpscaleSettings(generator=GeneratorSettings(engine=str(engine.folder)), overwrite=True)


def frames_of(path: Path) -> list[Frame]:
    """Decode a clip."""
    with open_source(str(path)) as source:
        return [item for item in source if isinstance(item, Frame)]


def run_alone(engine: Engine, frames: list[Frame]) -> dict[str, float]:
    """Run the generator over frames that are decoded already; it has run once before."""
    generator = load_generator(engine, GeneratorSettings())
    pictures = [np.ascontiguousarray(frame.planes[0])[None, None] for frame in frames]
    height, width = pictures[0].shape[2:]
    out = np.empty((1, 1, engine.scale * height, engine.scale * width), np.uint8)
    generator.generate(pictures[0], out)
    started_s, used_s = time.perf_counter(), cpu_seconds()
    for picture in pictures:
        generator.generate(picture, out)
    taken_s = time.perf_counter() - started_s
    return {"fps": len(frames) / taken_s, "cpu_ms": (cpu_seconds() - used_s) / len(frames) * 1e3}


class Watch:
    """Notes when frames were written, as `upscale_file` tells ten times a second."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, int]] = []

    def __call__(self, progress: JobProgress) -> None:
        """Note the progress."""
        self.marks.append((time.perf_counter(), progress.shown))

    def steady_fps(self) -> float:
        """Return frames a second from the first mark behind `STEADY_FROM` frames to the last change; 0 if unknown."""
        marks = [mark for mark in self.marks if mark[1] >= STEADY_FROM]
        last = max((count for _, count in marks), default=0)
        ends = [mark for mark in marks if mark[1] == last]
        if not marks or ends[0][0] <= marks[0][0]:
            return 0.0
        return (last - marks[0][1]) / (ends[0][0] - marks[0][0])


def run_line(case: Case, settings: UpscaleSettings, folder: Path) -> dict[str, Any]:
    """Enlarge a clip from end to end."""
    watch, used_s = Watch(), cpu_seconds()
    result = upscale_file(case.path, folder / "out.mkv", settings=settings, watch=watch)
    timings = result.details["timings"]
    return {
        "fps": result.frames_out / result.seconds,
        "steady_fps": watch.steady_fps(),
        "cpu_ms": (cpu_seconds() - used_s) / result.frames_out * 1e3,
        "stages_p50_ms": {name: stage["p50_ms"] for name, stage in timings.items()},
        "skipped": result.details["patches"],
        "launch": result.details["launch"],
        "encoder": result.details["picture"]["encoder"],
        "bytes_a_frame": round(result.outputs[0].stat().st_size / result.frames_out),
    }


def run_naive(case: Case, folder: Path, most_frames: int) -> dict[str, float]:
    """Run the naive script."""
    started_s, used_s = time.perf_counter(), cpu_seconds()
    num_frames = enlarge_naively(case.path, folder / "naive.mp4", case.engine, most_frames=most_frames)
    taken_s = time.perf_counter() - started_s
    return {"fps": num_frames / taken_s, "cpu_ms": (cpu_seconds() - used_s) / num_frames * 1e3}


def measure_speed(case: Case, folder: Path, *, rounds: int, naive_frames: int) -> dict[str, Any]:
    """Run everything that is to be compared, in turn, round after round."""
    frames = frames_of(case.path)
    runs: dict[str, Callable[[], dict[str, Any]]] = {
        "alone": lambda: run_alone(case.engine, frames),
        "whole": lambda: run_line(case, whole(case.engine), folder),
        "routed": lambda: run_line(case, routed(case.engine), folder),
    }
    if case.naive:
        runs["naive"] = lambda: run_naive(case, folder, naive_frames)
    company = Company()
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            found[name].append(run())
    return {
        "clip": case.clip,
        "student": case.engine.name,
        "random_weights": is_stand_in(case.engine),
        "size": f"{frames[0].width}x{frames[0].height}",
        "num_frames": len(frames),
        "rounds": rounds,
        "cores_busy_with_others": company.cores(),
        **figures_of(found, case.goal_fps),
        "stages_alone": measure_stages(case, frames, folder),
        "runs": found,
    }


def figures_of(found: dict[str, list[dict[str, Any]]], goal_fps: float | None) -> dict[str, Any]:
    """Return medians, and ratios as medians of the ratios of each round."""

    def median(name: str, figure: str) -> float:
        return round(float(np.median([run[figure] for run in found[name]])), 2)

    def ratio(name: str, figure: str, other: str) -> float:
        pairs = zip(found[name], found[other], strict=True)
        return round(float(np.median([run[figure] / beside["fps"] for run, beside in pairs])), 3)

    figures: dict[str, Any] = {f"{name}_fps": median(name, "fps") for name in found}
    figures |= {f"{name}_cpu_ms": median(name, "cpu_ms") for name in found}
    for name in ("whole", "routed"):
        figures[f"{name}_steady_fps"] = median(name, "steady_fps")
        figures[f"{name}_of_alone"] = ratio(name, "fps", "alone")
        figures[f"{name}_steady_of_alone"] = ratio(name, "steady_fps", "alone")
        if "naive" in found:
            figures[f"{name}_of_naive"] = ratio(name, "fps", "naive")
    figures["goal_fps"] = goal_fps
    return figures


def measure_stages(case: Case, frames: list[Frame], folder: Path) -> dict[str, dict[str, float]]:
    """Run capture, upscaler and sink each by itself and return what they cost a frame; nothing overlaps here."""
    upscaler = FrameUpscaler(
        load_generator(case.engine, GeneratorSettings()), launch="frame", skip_surround=False, reuse_unchanged=False
    )
    upscaler.upscale(frames[0])
    enlarged: list[Frame] = []
    costs = {
        "capture": costs_of(lambda: frames_of(case.path), len(frames)),
        "upscaler": costs_of(lambda: enlarged.extend(map(upscaler.upscale, frames)), len(frames)),
    }
    with open_source(str(case.path)) as source:
        sink = RecordingSink(
            folder / "sink.mkv", facts=source.info, scale=case.engine.scale, settings=EncoderSettings(), overwrite=True
        )
        return costs | {"sink": costs_of(lambda: show_all(sink, enlarged), len(frames))}


def show_all(sink: RecordingSink, frames: list[Frame]) -> None:
    """Write frames into a sink and close it."""
    with sink:
        for frame in frames:
            sink.show(frame)


def costs_of(work: Callable[[], object], num_frames: int) -> dict[str, float]:
    """Run something once and return its wall and processor milliseconds a frame."""
    started_s, used_s = time.perf_counter(), cpu_seconds()
    work()
    wall_s, cpu_s = time.perf_counter() - started_s, cpu_seconds() - used_s
    return {"wall_ms": round(wall_s / num_frames * 1e3, 3), "cpu_ms": round(cpu_s / num_frames * 1e3, 3)}


def make_cases(folder: Path, *, quick: bool) -> list[Case]:
    """Return what is measured."""
    if quick:
        mini = random_engine(folder / "mini-x2", StudentSpec(16, 1, 2))
        return [Case("rendered", rendered_clip(folder, 128, 96, 24), mini, naive=True)]
    fast, tiny = (student_engine(name, folder) for name in ("fast-x2", "tiny-x2"))
    large = rendered_clip(folder, 640, 480, SPEED_FRAMES)
    small = rendered_clip(folder, 320, 320, SPEED_FRAMES)
    cases = [
        Case("rendered", large, fast, naive=True),
        Case("rendered", large, tiny, goal_fps=25.0),
        Case("rendered", small, fast, goal_fps=30.0),
    ]
    for name, path in real_clips(folder, 640, 480, SPEED_FRAMES).items():
        cases += [Case(name, path, fast), Case(name, path, tiny, goal_fps=25.0)]
    for name, path in real_clips(folder, 320, 320, SPEED_FRAMES).items():
        cases.append(Case(name, path, fast, goal_fps=30.0))
    return cases


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    options = options_of("pipeline", "How fast is a file enlarged from end to end?", arguments)
    card, started_s = machine_card(), time.monotonic()
    print_card(card)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = make_cases(folder, quick=options.quick)
        rounds, naive_frames = (1, 2) if options.quick else (ROUNDS, NAIVE_FRAMES)
        speed = []
        for case in cases:
            speed.append(measure_speed(case, folder, rounds=rounds, naive_frames=naive_frames))
            show(speed[-1])
        num_frames = 40 if options.quick else MEMORY_FRAMES
        engine = cases[0].engine if options.quick else student_engine("tiny-x2", folder)
        memory = measure_memory(long_clip(folder, 160, 120, num_frames), routed(engine), folder)
        print(f"\nmemory: {memory}")
    result = {
        "question": "pipeline",
        "quick": options.quick,
        "card": card,
        "speed": speed,
        "memory": memory,
        "seconds": round(time.monotonic() - started_s, 1),
    }
    report(result, options.json)
    return 0


FIGURES = ("fps", "steady_fps", "cpu_ms", "of_alone", "steady_of_alone", "of_naive")


def show(speed: dict[str, Any]) -> None:
    """Print one case."""
    print(f"\n{speed['clip']} {speed['size']} {speed['student']}, {speed['rounds']} rounds of", end=" ")
    print(f"{speed['num_frames']} frames, others kept {speed['cores_busy_with_others']} cores busy")
    rows = [{"run": name} | {key: speed.get(f"{name}_{key}") for key in FIGURES} for name in speed["runs"]]
    print_table(rows, ("run", *FIGURES))
    stages = [{"stage alone": stage} | costs for stage, costs in speed["stages_alone"].items()]
    print_table(stages, ("stage alone", "wall_ms", "cpu_ms"))


if __name__ == "__main__":
    sys.exit(main())
