"""How near do we come to the best library called directly? ``python -m benchmarks.against_libraries [--quick]``.

Two comparisons, each in turn, of the same network on whole frames (`benchmarks.libraries` has the calls, and says which
cannot take the network):

``alone``       the call of a library with the luma of a decoded frame, against `FrameUpscaler` with the whole frame,
                which enlarges chroma too. First event: the call with a decoded picture; last: its enlarged samples are
                there. Everything is made ready before, and each is called twice in a row, the second time timed.
``end to end``  a plain loop of PyAV, the library and PyAV (`benchmarks.direct_loop`) against `upscale_file`, with the
                same encoder settings; ffmpeg's own scaling is the floor of cost. First event: the call with the name of
                the clip; last: its return, with the result closed. Loading and compiling count on both sides, and each
                has enlarged a short clip before, untimed.

Ours are measured on the processor: as installed (routing, choice of launch, consistency projection), on whole frames,
and on whole frames without the projection, which is the work that the others do. Ratios are taken within a round. The
best library is the one of the shortest median with the same network; the default is to reach 0.9 of it end to end.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

from benchmarks.card import options_of, print_card, print_table, report
from benchmarks.clips import rendered_clip
from benchmarks.comparing import (
    DEFAULT,
    PLAIN,
    WHOLE,
    Enlarge,
    Rounds,
    compare,
    compare_files,
    goal,
    on_processor,
    skip,
    warmed,
)
from benchmarks.direct_loop import enlarge_directly
from benchmarks.installed import card_with_others, no_program
from benchmarks.libraries import LIBRARIES, Job, Library
from benchmarks.piped import scale_with_ffmpeg
from benchmarks.pipeline import frames_of, routed, whole
from benchmarks.students import is_stand_in, random_engine
from streamsr.config import DEFAULT_ENGINE, UpscaleSettings
from streamsr.engine import Engine, find_engine
from streamsr.fallback import make_upscaler
from streamsr.job import upscale_file
from streamsr.models.student import StudentSpec

FLOORS = ("bicubic", "lanczos")
LEAST_OF_BEST = 0.9
SHORT_FRAMES = 4
ALONE_ROUNDS = Rounds(most=20, least=3, budget_s=15.0)
FILE_ROUNDS = Rounds(most=3, least=2, budget_s=60.0)
SAME_NETWORK = {library.name for library in LIBRARIES if library.same_network}


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        engine: a luma student.
        alone: (width, height) of the pictures.
        files: (width, height, frames) of the clips.
        alone_rounds: of calls.
        file_rounds: of clips.
        superres: a network of `dnn_superres`, if there is one.
    """

    engine: Engine
    alone: Sequence[tuple[int, int]] = ((320, 240), (640, 480))
    files: Sequence[tuple[int, int, int]] = ((320, 240, 90),)
    alone_rounds: Rounds = ALONE_ROUNDS
    file_rounds: Rounds = FILE_ROUNDS
    superres: Path | None = None


def ours_of(engine: Engine) -> dict[str, UpscaleSettings]:
    """Return the settings of our three."""
    every = on_processor(whole(engine))
    plain = replace(every, generator=replace(every.generator, consistency=False))
    return {DEFAULT: on_processor(routed(engine)), WHOLE: every, PLAIN: plain}


def ready_libraries(job: Job, skipped: list[dict[str, str]]) -> dict[str, Callable[..., Any]]:
    """Return the libraries that can be made ready, by name."""
    found = {}
    for library in LIBRARIES:
        try:
            found[library.name] = library.make(job)
        except Exception as cause:  # what other people's libraries raise has no common class
            skipped.append(skip(library.name, cause))
    return found


def measure_alone(plan: Plan, width: int, height: int, folder: Path) -> dict[str, Any]:
    """Compare calls on decoded frames that all differ."""
    frames = frames_of(rendered_clip(folder, width, height, 8))
    skipped: list[dict[str, str]] = []
    calls: dict[str, Callable[[], object]] = {}
    for name, settings in ours_of(plan.engine).items():
        upscaler = make_upscaler(plan.engine, settings.generator, bit_depth=8)
        calls[name] = partial(call_next, upscaler.upscale, cycle(frames))
    job = Job(plan.engine, width, height, folder, plan.superres)
    for name, enlarge in ready_libraries(job, skipped).items():
        calls[name] = partial(call_next, enlarge, cycle([frame.planes[0] for frame in frames]))
    names = warmed(calls, skipped)
    found = compare({name: calls[name] for name in names}, 1, plan.alone_rounds, settle=True)
    return {"size": f"{width}x{height}", **found, "skipped": skipped}


def call_next(enlarge: Callable[[Any], object], pictures: Iterator[Any]) -> None:
    """Enlarge the next picture."""
    enlarge(next(pictures))


def file_contenders(plan: Plan, folder: Path, skipped: list[dict[str, str]]) -> dict[str, Enlarge]:
    """Return what enlarges files: ours, a plain loop round every library, and ffmpeg's own scaling."""
    found: dict[str, Enlarge] = {}
    for name, settings in ours_of(plan.engine).items():
        found[name] = partial(enlarge_with_ours, folder / "ours.mkv", settings)
    for library in LIBRARIES:
        found[library.name] = partial(enlarge_with_library, library, plan, folder)
    missing = no_program("ffmpeg")
    for flags in FLOORS:
        if missing is None:
            found[f"ffmpeg {flags}"] = partial(enlarge_with_ffmpeg, folder / "ffmpeg.mkv", plan.engine.scale, flags)
        else:
            skipped.append(skip(f"ffmpeg {flags}", missing))
    return found


def enlarge_with_ours(target: Path, settings: UpscaleSettings, clip: Path) -> None:
    """Enlarge a file with `upscale_file`."""
    upscale_file(clip, target, settings=settings)


def enlarge_with_library(library: Library, plan: Plan, folder: Path, clip: Path) -> None:
    """Enlarge a file with the plain loop; the library is made ready when the size is known."""
    enlarge_directly(
        clip,
        folder / "direct.mkv",
        plan.engine.scale,
        lambda width, height: library.make(Job(plan.engine, width, height, folder, plan.superres)),
    )


def enlarge_with_ffmpeg(target: Path, scale: int, flags: str, clip: Path) -> None:
    """Enlarge a file with ffmpeg."""
    scale_with_ffmpeg(clip, target, scale, flags)


def measure_files(plan: Plan, case: tuple[int, int, int], folder: Path) -> dict[str, Any]:
    """Compare everything on one clip."""
    width, height, num_frames = case
    skipped: list[dict[str, str]] = []
    contenders = file_contenders(plan, folder, skipped)
    clip = rendered_clip(folder, width, height, num_frames)
    short = rendered_clip(folder, width, height, SHORT_FRAMES)
    found = compare_files(contenders, clip, short, num_frames, plan.file_rounds)
    return {"size": f"{width}x{height}", **found, "skipped": skipped + found["skipped"]}


def best_of(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the row of the fastest library with the same network."""
    return min((row for row in rows if row["name"] in SAME_NETWORK), key=lambda row: float(row["p50_ms"]))


def goals_of(engine: Engine, cases: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what was to be reached end to end."""
    found = []
    for case in cases:
        best = best_of(case["rows"])
        text = f"{engine.name}, {case['size']}: of {best['name']} called directly, end to end"
        found.append(goal(text, LEAST_OF_BEST, best["default_times"]))
    return found


def plan_of(options: argparse.Namespace, folder: Path) -> Plan:
    """Return what is to be measured."""
    if not options.quick:
        return Plan(find_engine(DEFAULT_ENGINE), superres=options.superres)
    mini = random_engine(folder / "mini-x2", StudentSpec(16, 1, 2))
    once = Rounds(1, 1, 0.0)
    return Plan(mini, [(128, 96)], [(128, 96, 6)], once, once, options.superres)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the option that this benchmark has beside the usual ones."""
    parser.add_argument("--superres", type=Path, help="a network of cv2.dnn_superres, named like FSRCNN_x2.pb")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    options = options_of("against_libraries", "How near do we come to the best library?", arguments, add_options)
    card, started_s = card_with_others(), time.monotonic()
    print_card(card)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = plan_of(options, folder)
        alone = [shown("alone", measure_alone(plan, *size, folder)) for size in plan.alone]
        files = [shown("end to end", measure_files(plan, case, folder)) for case in plan.files]
        result = {
            "question": "against_libraries",
            "quick": options.quick,
            "card": card,
            "student": plan.engine.name,
            "random_weights": is_stand_in(plan.engine),
            "alone": alone,
            "end_to_end": files,
            "goals": goals_of(plan.engine, files),
            "seconds": round(time.monotonic() - started_s, 1),
        }
    print()
    print_table(result["goals"], ("goal", "least", "got", "reached"))
    report(result, options.json)
    return 0


def shown(kind: str, case: dict[str, Any]) -> dict[str, Any]:
    """Print one case and return it."""
    print(f"\n{kind} {case['size']}: {case['rounds']} rounds, others kept {case['cores_busy_with_others']} cores busy")
    print_table(case["rows"], ("name", "p50_ms", "fps", "default_times", "plain_times"))
    for skipped in case["skipped"]:
        print(f"skipped: {skipped['name']}: {skipped['reason']}")
    return case


if __name__ == "__main__":
    sys.exit(main())
