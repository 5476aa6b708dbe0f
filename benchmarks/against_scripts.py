"""Is a file enlarged faster than by the scripts that people write? ``python -m benchmarks.against_scripts [--quick]``.

The same clip and the same network, in turn: ours with its default settings, ours on whole frames (every pixel, nothing
skipped or reused), the loop of OpenCV's reader and writer with torch (`benchmarks.naive`), and a script between two
ffmpeg pipes with torch (`benchmarks.piped`). First event: the call with the name of the clip; last event: its return,
with the result closed under its name. So what each side loads, compiles and measures when a file begins counts; the
interpreter's start and its imports do not. Each has enlarged a short clip of the same size before, which is not timed.
Ratios are taken within a round; their medians are told.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.card import options_of, print_card, print_table, report
from benchmarks.clips import rendered_clip
from benchmarks.comparing import DEFAULT, WHOLE, Enlarge, Rounds, compare_files, goal, on_processor, skip
from benchmarks.installed import card_with_others, no_program
from benchmarks.naive import enlarge_naively
from benchmarks.piped import enlarge_through_pipes
from benchmarks.pipeline import routed, whole
from benchmarks.students import is_stand_in, random_engine
from streamsr.config import DEFAULT_ENGINE
from streamsr.engine import Engine, find_engine
from streamsr.job import upscale_file
from streamsr.models.student import StudentSpec

CASES = ((320, 240, 80), (640, 480, 20))
"""Width, height and frames of the clips; the scripts do some two frames a second at the second size."""

ROUNDS = Rounds(most=3, least=2, budget_s=60.0)
SHORT_FRAMES = 4
NAIVE, PIPED = "OpenCV and torch", "ffmpeg pipes and torch"
LEAST_TIMES = 2.0


def contenders_of(engine: Engine, folder: Path, skipped: list[dict[str, str]]) -> dict[str, Enlarge]:
    """Return what can be run here, by name."""
    default, every = on_processor(routed(engine)), on_processor(whole(engine))
    found: dict[str, Enlarge] = {
        DEFAULT: lambda clip: upscale_file(clip, folder / "default.mkv", settings=default),
        WHOLE: lambda clip: upscale_file(clip, folder / "whole.mkv", settings=every),
        NAIVE: lambda clip: enlarge_naively(clip, folder / "naive.mp4", engine, most_frames=sys.maxsize),
    }
    missing = no_program("ffmpeg", "ffprobe")
    if missing is None:
        found[PIPED] = lambda clip: enlarge_through_pipes(clip, folder / "piped.mp4", engine)
    else:
        skipped.append(skip(PIPED, missing))
    return found


def measure(engine: Engine, case: tuple[int, int, int], rounds: Rounds, folder: Path) -> dict[str, Any]:
    """Compare everything on one clip."""
    width, height, num_frames = case
    skipped: list[dict[str, str]] = []
    contenders = contenders_of(engine, folder, skipped)
    clip = rendered_clip(folder, width, height, num_frames)
    short = rendered_clip(folder, width, height, SHORT_FRAMES)
    found = compare_files(contenders, clip, short, num_frames, rounds)
    return {
        "clip": "rendered",
        "size": f"{width}x{height}",
        "student": engine.name,
        "random_weights": is_stand_in(engine),
        **found,
        "skipped": skipped + found["skipped"],
    }


def goals_of(cases: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what was to be reached: the default at least twice as fast as each script."""
    return [
        goal(f"{case['student']}, {case['size']}: times as fast as {row['name']}", LEAST_TIMES, row["default_times"])
        for case in cases
        for row in case["rows"]
        if not row["ours"]
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    options = options_of("against_scripts", "Is a file enlarged faster than by scripts that people write?", arguments)
    card, started_s = card_with_others(), time.monotonic()
    print_card(card)
    cases = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        engine = find_engine(DEFAULT_ENGINE)
        shapes: Sequence[tuple[int, int, int]] = CASES
        rounds = ROUNDS
        if options.quick:
            engine = random_engine(folder / "mini-x2", StudentSpec(16, 1, 2))
            shapes, rounds = [(128, 96, 8)], Rounds(1, 1, 0.0)
        for case in shapes:
            cases.append(measure(engine, case, rounds, folder))
            show(cases[-1])
    result = {
        "question": "against_scripts",
        "quick": options.quick,
        "card": card,
        "cases": cases,
        "goals": goals_of(cases),
        "seconds": round(time.monotonic() - started_s, 1),
    }
    print()
    print_table(result["goals"], ("goal", "least", "got", "reached"))
    report(result, options.json)
    return 0


def show(case: dict[str, Any]) -> None:
    """Print one case."""
    print(f"\n{case['student']} {case['clip']} {case['size']}: {case['rounds']} rounds of {case['num_frames']} frames")
    print(f"others kept {case['cores_busy_with_others']} cores busy")
    print_table(case["rows"], ("name", "p50_ms", "fps", "default_times", "whole_times"))
    for skipped in case["skipped"]:
        print(f"skipped: {skipped['name']}: {skipped['reason']}")


if __name__ == "__main__":
    sys.exit(main())
