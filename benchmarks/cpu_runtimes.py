"""Find which runtime runs the students fastest on this processor, in which precision and launch shape.

    python -m benchmarks.cpu_runtimes

Timed is `Generator.generate` alone: from uint8 samples in the caller's array to uint8 samples in the caller's array,
for one picture as a whole frame, as four horizontal strips with their halo, and as batches of up to 64 patches of 32x32
with their halo (cutting and stitching are not timed). All candidates of one student and one size are called in turn,
round after round, twice, the second time timed (the first lets the threads of the last one come to rest), and the
processor's peaks with them; ratios are between medians of the same rounds. GMAC/s count the
picture's own pixels, so what a halo costs shows.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.card import machine_card, options_of, print_card, print_table, report
from benchmarks.peaks import peak_candidates
from benchmarks.students import is_stand_in, macs_per_pixel, random_engine, student_engine
from benchmarks.turns import Company, Timings, in_turn
from streamsr.config import GeneratorSettings
from streamsr.engine import Engine
from streamsr.errors import StreamsrError
from streamsr.models.student import StudentSpec
from streamsr.patches import PatchGrid, cut_patches
from streamsr.runtimes import load_generator
from streamsr.runtimes.torch_cpu import load_network, to_eight_bit

Enlarge = Callable[[NDArray[np.uint8], NDArray[np.uint8]], object]

STUDENTS = ("fast-x2", "fast-x4", "tiny-x2")
SIZES = ((256, 256), (320, 320), (640, 480))
RUNTIMES = (
    ("torch", "fp32"),
    ("torch", "bf16"),
    ("onnxruntime", "fp32"),
    ("onnxruntime", "int8"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
)
REFERENCE = "torch fp32 frame"
COMPILED_FOR = "fast-x2"
"""torch.compile takes about half a minute a shape, so it is tried for one student, as a whole frame."""

NUM_STRIPS, PATCHES_A_BATCH = 4, 64
ROUNDS, LEAST_ROUNDS, BUDGET_S = 15, 5, 25.0


def launches_of(engine: Engine, width: int, height: int) -> dict[str, list[NDArray[np.uint8]]]:
    """Return the batches that a picture is launched in, by the name of the launch; each (N, 1, h, w) uint8."""
    picture = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
    grid = PatchGrid(width, height, engine.scale, engine.halo_px)
    patches = cut_patches(picture, grid, range(grid.num))
    return {
        "frame": [picture[None, None]],
        "strips": strips_of(picture, engine.halo_px),
        "patches": [patches[first : first + PATCHES_A_BATCH] for first in range(0, grid.num, PATCHES_A_BATCH)],
    }


def strips_of(picture: NDArray[np.uint8], halo_px: int) -> list[NDArray[np.uint8]]:
    """Return `NUM_STRIPS` strips of a picture with their halo."""
    height = len(picture)
    starts = range(0, height, -(-height // NUM_STRIPS))
    ends = [*starts[1:], height]
    windows = [(max(start - halo_px, 0), min(end + halo_px, height)) for start, end in zip(starts, ends, strict=True)]
    return [np.ascontiguousarray(picture[first:last])[None, None] for first, last in windows]


def candidates_of(engine: Engine, width: int, height: int, notes: list[str]) -> dict[str, Callable[[], None]]:
    """Return every runtime, precision and launch that runs here, by name; each has run once."""
    found: dict[str, Callable[[], None]] = {}
    launches = launches_of(engine, width, height)
    for runtime, precision in RUNTIMES:
        for launch, batches in launches.items():
            name = f"{runtime} {precision} {launch}"
            try:
                found[name] = prepared(generate_of(engine, runtime, precision), batches, engine.scale)
            except (StreamsrError, RuntimeError) as cause:
                notes.append(f"{engine.name} {width}x{height} {name}: {' '.join(str(cause).split())[:200]}")
    if engine.name == COMPILED_FOR:
        name = "torch.compile fp32 frame"
        try:
            found[name] = prepared(compiled_of(engine), launches["frame"], engine.scale)
        except Exception as cause:  # what is missing (a C++ compiler, say) has no common class
            notes.append(f"{engine.name} {width}x{height} {name}: {type(cause).__name__} {str(cause)[:160]}")
    return found


def generate_of(engine: Engine, runtime: str, precision: str) -> Enlarge:
    """Return the generator of a runtime as a function."""
    settings = GeneratorSettings(runtime=cast(Any, runtime), precision=cast(Any, precision))
    return load_generator(engine, settings).generate


def compiled_of(engine: Engine) -> Enlarge:
    """Return a student under torch.compile, static shapes."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    network = load_network(engine).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    compiled: Callable[..., torch.Tensor] = torch.compile(network, dynamic=False)

    def enlarge(pictures: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
        with torch.inference_mode():
            np.copyto(out, to_eight_bit(compiled(torch.from_numpy(pictures).float() / 255.0)))

    return enlarge


def prepared(enlarge: Enlarge, batches: list[NDArray[np.uint8]], scale: int) -> Callable[[], None]:
    """Return a call that enlarges all batches into arrays of their own; it has run once."""
    outs = [np.empty((*batch.shape[:2], scale * batch.shape[2], scale * batch.shape[3]), np.uint8) for batch in batches]

    def run() -> None:
        for batch, out in zip(batches, outs, strict=True):
            enlarge(batch, out)

    run()
    return run


def measure(engine: Engine, size: tuple[int, int], rounds: int, notes: list[str], *, quick: bool) -> dict[str, Any]:
    """Measure one student at one size, the peaks in turn with it."""
    width, height = size
    calls: dict[str, Callable[[], object]] = dict(candidates_of(engine, width, height, notes))
    peaks = peak_candidates(len(os.sched_getaffinity(0)), quick=quick)
    work = {name: gmac for name, (_, gmac) in peaks.items()}
    # A virtual processor's clock wanders within seconds, so what is divided by one another is called side by side.
    order = sorted([*calls, *work], key=lambda name: ("int8" in name, name in work))
    company = Company()
    timings = in_turn(
        {name: peaks[name][0] if name in work else calls[name] for name in order},
        rounds=rounds,
        budget_s=BUDGET_S,
        least=min(rounds, LEAST_ROUNDS),
        settle=True,
    )
    gmac = macs_per_pixel(engine) * width * height / 1e9
    ceiling = {kind: peak_of(kind, timings, work) for kind in PEAKS}
    ceilings = peaks_by_round("int8", timings, work)
    rows = [row_of(name, timings[name], gmac, timings[REFERENCE], ceilings) for name in calls]
    return {
        "student": engine.name,
        "random_weights": is_stand_in(engine),
        "size": f"{width}x{height}",
        "gmac": round(gmac, 3),
        "rounds": len(timings[REFERENCE].walls_ms),
        "cores_busy_with_others": company.cores(),
        "peaks": ceiling,
        "rows": rows,
        "fastest": min(rows, key=lambda row: cast(float, row["p50_ms"]))["candidate"],
    }


PEAKS: tuple[Literal["fp32", "int8"], ...] = ("fp32", "int8")


def peak_of(kind: str, timings: dict[str, Timings], work: dict[str, float]) -> dict[str, Any]:
    """Return the fastest graph of a kind: its median, and the best single run of any."""
    speeds = {
        name: (gmac / np.median(timings[name].walls_ms) * 1e3, gmac / min(timings[name].walls_ms) * 1e3)
        for name, gmac in work.items()
        if name.startswith(kind)
    }
    fastest = max(speeds, key=lambda name: speeds[name][0])
    return {
        "graph": fastest,
        "gmac_s": round(float(speeds[fastest][0]), 1),
        "best_gmac_s": round(float(max(best for _, best in speeds.values())), 1),
        "all_gmac_s": {name: round(float(median), 1) for name, (median, _) in speeds.items()},
    }


def peaks_by_round(kind: str, timings: dict[str, Timings], work: dict[str, float]) -> NDArray[np.float64]:
    """Return the fastest graph of a kind in each round, in GMAC/s."""
    speeds = [gmac / np.array(timings[name].walls_ms) * 1e3 for name, gmac in work.items() if name.startswith(kind)]
    fastest: NDArray[np.float64] = np.max(speeds, axis=0)
    return fastest


def row_of(
    name: str, timings: Timings, gmac: float, reference: Timings, int8_ceilings: NDArray[np.float64]
) -> dict[str, Any]:
    """Return the figures of one candidate; its share of the INT8 peak is the median of the shares of each round."""
    summary = timings.summary()
    speeds = gmac / np.array(timings.walls_ms) * 1e3
    row: dict[str, Any] = {
        "candidate": name,
        **summary,
        "gmac_s": round(float(np.median(speeds)), 1),
        "best_gmac_s": round(float(speeds.max()), 1),
        "times_torch_fp32": round(float(np.median(reference.walls_ms)) / summary["p50_ms"], 2),
    }
    if " int8 " in name:
        row["share_of_int8_peak"] = round(float(np.median(speeds / int8_ceilings)), 3)
    return row


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    options = options_of("cpu_runtimes", "Which runtime runs the students fastest on this processor?", arguments)
    card, started_s = machine_card(), time.monotonic()
    notes: list[str] = []
    tables: list[dict[str, Any]] = []
    print_card(card)
    with tempfile.TemporaryDirectory() as folder:
        sizes: tuple[tuple[int, int], ...] = ((64, 48),) if options.quick else SIZES
        if options.quick:
            engines = [random_engine(Path(folder) / "mini-x2", StudentSpec(16, 1, 2))]
        else:
            engines = [student_engine(name, Path(folder)) for name in STUDENTS]
        for engine in engines:
            for size in sizes:
                table = measure(engine, size, 2 if options.quick else ROUNDS, notes, quick=options.quick)
                tables.append(table)
                show(table)
    result = {
        "question": "cpu_runtimes",
        "quick": options.quick,
        "card": card,
        "tables": tables,
        "notes": notes,
        "seconds": round(time.monotonic() - started_s, 1),
    }
    report(result, options.json)
    return 0


def show(table: dict[str, Any]) -> None:
    """Print one table."""
    peaks = table["peaks"]
    print(f"\n{table['student']} {table['size']}: {table['gmac']} GMAC, {table['rounds']} rounds, ", end="")
    print(f"others kept {table['cores_busy_with_others']} cores busy")
    for kind in PEAKS:
        print(
            f"peak {kind}: {peaks[kind]['gmac_s']} GMAC/s ({peaks[kind]['graph']}), best {peaks[kind]['best_gmac_s']}"
        )
    columns = ("candidate", "p10_ms", "p50_ms", "p90_ms", "cpu_p50_ms", "gmac_s", "times_torch_fp32")
    print_table(table["rows"], (*columns, "share_of_int8_peak"))


if __name__ == "__main__":
    sys.exit(main())
