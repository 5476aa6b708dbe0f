"""What do the generators really give, and what not? ``python -m benchmarks.evidence [--data DIR]``.

Nothing is timed. Bicubic and Lanczos interpolation and every engine, projected, enlarge the reduced frames of the test
side, or of ``--sides``; every figure of `streamsr.evaluation.figures` is measured, with 95 % intervals over groups.
Engines of SRGAN's size get ``--heavy-frames`` frames of each set, evenly spread, the others all or ``--frames``; the
perceptual distance is measured on ``--perceptual-frames`` of each set. What was measured of a set by a method is kept
in ``runs/evidence``, and pictures in ``runs/enlarged``, so that a run that was stopped goes on, and a new engine costs
only itself; with the code of the measures everything is measured anew.

The result is ``results/evidence.json``, which also tells where the ten worst crops of every engine lie; sheets of the
data (compared crops, those ten, reflections) go to ``runs/evidence`` and are not committed, since the data may not be;
the sheets that README shows are of the rendered scene, which shows no patient: ``crops.png``, ``worst.png`` and
``reflections.png`` in ``results``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.card import ROOT, machine_card
from benchmarks.enlarged import RUNS, KeptEngine, all_engines, code_of, interpolations, is_heavy, key_of_method
from benchmarks.evidence_sheets import (
    compared_sheet,
    reflections_sheet,
    rendered_sheets,
    told_worst,
    worst_crops,
    worst_sheet,
)
from benchmarks.tables import FEWER, dense
from streamsr.evaluation.crops import WORST_PX, Crop, Frame, worst_place
from streamsr.evaluation.figures import FIGURES, Truth, load_distance
from streamsr.evaluation.methods import EngineMethod, Made, Method
from streamsr.evaluation.run import enlarged, row_of, seams_of
from streamsr.evaluation.subjects import Item, Subject, Told, find_items, read_subjects
from streamsr.evaluation.summary import Row, summarise, written
from streamsr.evaluation.writing import write_files
from streamsr.quality.intervals import Resampler
from streamsr.quality.perceptual import LpipsLike

RESULT = ROOT / "benchmarks" / "results" / "evidence.json"
MULTIPLE = 4
"""Sides of all truths are cut to a multiple of it, so that x2 and x4 are judged on the same pixels."""

STAGES = (("srgan-x4", "srresnet-x4"), ("srgan-x2", "srresnet-x2"))
"""Adversarial engines and the engines that they were trained from."""

MEASURES = (
    "evaluation/figures.py",
    *(f"quality/{name}.py" for name in ("agreement", "fidelity", "fourier", "perceptual", "specular")),
)
"""Rooms that a frame's figures depend on besides its picture."""

SPARED_DB = 0.3
"""How much worse than its fidelity stage an adversarial engine may be in and around highlights."""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence", description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--weights", type=Path, default=ROOT.parent / "shared" / "weights")
    parser.add_argument("--engines", nargs="+", help="only these, in the result too; all")
    parser.add_argument("--sides", nargs="+", default=["test"], choices=["val", "test"])
    parser.add_argument("--rendered", action="store_true", help="draw the sheets of the rendered scene, and no more")
    parser.add_argument("--frames", type=int, help="at most so many frames of a set; all")
    parser.add_argument(
        "--heavy-frames", type=int, default=20, help="the same for engines of SRGAN's size; 0: leave out"
    )
    parser.add_argument("--perceptual-frames", type=int, default=20)
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument("--json", type=Path, default=RESULT)
    return parser.parse_args(arguments)


def make_methods(options: argparse.Namespace) -> list[Method]:
    """Return every method that is to be measured."""
    engines = all_engines(names=options.engines)
    if not options.heavy_frames:
        engines = [engine for engine in engines if not is_heavy(engine)]
    methods: list[Method] = []
    for scale in sorted({engine.scale for engine in engines}):
        methods += interpolations(scale)
        methods += [KeptEngine(engine, options.runs / "enlarged") for engine in engines if engine.scale == scale]
    return methods


def chosen(items: list[Item], most: int | None) -> set[str]:
    """Return the names of at most so many items of a set, evenly spread."""
    names: set[str] = set()
    for dataset in {item.dataset for item in items}:
        here = [item.name for item in items if item.dataset == dataset]
        count = len(here) if most is None else min(most, len(here))
        names |= {here[round(at)] for at in np.linspace(0, len(here) - 1, count)}
    return names


class Side:
    """One side of the data, measured set by set and method by method.

    Args:
        name: ``val`` or ``test``.
        options: of the command line.
        distance: of the perceptual figure.
        write: takes lines about how it goes.
    """

    def __init__(
        self, name: str, options: argparse.Namespace, distance: LpipsLike | None, write: Callable[[str], Any]
    ) -> None:
        self.name, self.options, self.distance, self.write = name, options, distance, write
        self.items = find_items(options.data, split=name)
        self.all, self.few = chosen(self.items, options.frames), chosen(self.items, options.heavy_frames or 1)
        self.perceptual = chosen(self.items, options.perceptual_frames) | self.few
        self.told = Told([], [], write)
        self.folder = options.runs / "evidence" / name

    def measure(self, methods: list[Method]) -> None:
        """Measure what was not measured before."""
        for dataset in dict.fromkeys(item.dataset for item in self.items):
            missing = [method for method in methods if not self.path(dataset, method).is_file()]
            if not missing:
                continue
            subjects = [(subject, Truth.of(_cut(subject))) for subject in self.subjects(dataset)]
            for method in missing:
                measured = self.measure_method(method, subjects)
                write_files({self.path(dataset, method): json.dumps(measured).encode()})
                self.write(f"{self.name:5} {dataset:12} {method.name:15} {len(measured['rows'])} frames")

    def measure_method(self, method: Method, subjects: list[tuple[Subject, Truth]]) -> dict[str, Any]:
        """Return the rows of a set by a method, and its seams."""
        rows: list[Row] = []
        seams: dict[str, float] = {}
        for subject, truth in subjects:
            if subject.name not in self.names_for(method):
                continue
            frame = enlarged(subject, [method], multiple=MULTIPLE, truth=truth)
            made = frame.made[0][1]
            row = row_of(subject, frame, method, made, self.distance if subject.name in self.perceptual else None)
            rows.append({**row, **_place(frame, made)})
            if not seams and isinstance(method, EngineMethod):
                seams = seams_of(method, frame)
        return {"rows": rows, "seams": seams}

    def subjects(self, dataset: str) -> Iterator[Subject]:
        """Read the frames of a set."""
        here = [item for item in self.items if item.dataset == dataset and item.name in self.all | self.few]
        return read_subjects(here, self.told, frames=1)

    def names_for(self, method: Method) -> set[str]:
        """Return the frames that a method is measured on."""
        return self.few if isinstance(method, EngineMethod) and is_heavy(method.engine) else self.all | self.few

    def path(self, dataset: str, method: Method) -> Path:
        """Return where the figures of a set by a method are kept: under all that they depend on."""
        counts = f"{len(self.names_for(method))}-{len(self.perceptual) if self.distance else 0}"
        return Path(self.folder / f"{dataset}-{key_of_method(method)}-{counts}-{code_of(MEASURES)}.json")

    def found(self, methods: list[Method]) -> tuple[list[Row], dict[str, dict[str, Any]]]:
        """Return all rows, set by set, and the seams."""
        rows: list[Row] = []
        seams: dict[str, dict[str, Any]] = {}
        for dataset in dict.fromkeys(item.dataset for item in self.items):
            for method in methods:
                kept = json.loads(self.path(dataset, method).read_text())
                rows += kept["rows"]
                if kept["seams"]:
                    seams.setdefault(dataset, {})[method.name] = kept["seams"]
        return rows, seams

    def beside_heavy(self, rows: list[Row], methods: list[Method]) -> list[Row]:
        """Return bicubic interpolation's rows once more, of the frames that heavy engines get."""
        scales = {method.scale for method in methods if _heavy(method)}
        beside = {f"bicubic-x{scale}": f"bicubic-x{scale}{FEWER}" for scale in sorted(scales)}
        here = [row for row in rows if row["method"] in beside and row["name"] in self.few]
        return [{**row, "method": beside[row["method"]]} for row in here]


def _cut(subject: Subject) -> Any:
    height, width = (side // MULTIPLE * MULTIPLE for side in subject.truth.shape[:2])
    return np.ascontiguousarray(subject.truth[:height, :width])


def _place(frame: Frame, made: Made) -> Row:
    """Return where a picture is furthest from its truth."""
    error = np.square(made.luma.astype(np.float32) - frame.truth.luma)
    top, left, mean = worst_place(error, frame.truth.field, WORST_PX)
    return {"worst_top": top, "worst_left": left, "worst_rms": mean**0.5}


def highlight_claims(rows: list[Row]) -> Iterator[dict[str, Any]]:
    """Yield, set by set, how far adversarial engines are above their fidelity stage in and around highlights, in dB."""
    for ours, stage in STAGES:
        for figure in ("highlight_psnr_db", "ring_psnr_db"):
            for apart in differences(rows, ours, stage, figure):
                yield {
                    "engine": ours,
                    "stage": stage,
                    "least": -SPARED_DB,
                    "holds": apart["mean"] >= -SPARED_DB,
                    **apart,
                }


def differences(rows: list[Row], ours: str, theirs: str, figure: str) -> Iterator[dict[str, Any]]:
    """Yield, set by set, the mean difference of a figure between two methods, frame by frame, and its interval."""
    by_method: dict[str, dict[str, Row]] = {ours: {}, theirs: {}}
    for row in rows:
        if row["method"] in by_method and figure in row:
            by_method[row["method"]][row["name"]] = row
    pairs = [(by_method[ours].get(name), row) for name, row in by_method[theirs].items()]
    for dataset in dict.fromkeys(row["dataset"] for _, row in pairs):
        here = [(mine, row) for mine, row in pairs if mine and row["dataset"] == dataset]
        if here:
            draws = Resampler([row["group"] for _, row in here])
            apart = draws.interval([mine[figure] - row[figure] for mine, row in here])
            if apart is not None:
                yield {"dataset": dataset, "figure": figure, **written(apart)}


def not_shipped(folder: Path = ROOT / "engines") -> list[dict[str, str]]:
    """Return what of `STAGES` cannot be held against each other, because one of the two engines is not there."""
    there = {engine.name for engine in all_engines(folder)}
    return [
        {"engine": ours, "stage": stage, "missing": " and ".join(sorted({ours, stage} - there))}
        for ours, stage in STAGES
        if not {ours, stage} <= there
    ]


def gather(
    options: argparse.Namespace, methods: list[Method], sides: list[Side], worst: dict[str, list[Crop]]
) -> dict[str, Any]:
    """Return the result."""
    found = {}
    for side in sides:
        rows, seams = side.found(methods)
        found[side.name] = {
            "sets": summarise(rows + side.beside_heavy(rows, methods)),
            "seams": seams,
            "highlights": list(highlight_claims(rows)),
            "left_out": [{"name": name, "why": why} for name, why in side.told.left_out],
        }
    return {
        "question": "evidence",
        "quick": False,
        "card": machine_card(),
        "frames_a_set": {
            "engines": options.frames or "all",
            "heavy": {"frames": options.heavy_frames, "engines": sorted({m.name for m in methods if _heavy(m)})},
            "lpips_like": options.perceptual_frames,
        },
        "engines": {
            method.name: {"scale": method.scale, "kind": method.engine.kind, "form": method.precision}
            for method in methods
            if isinstance(method, EngineMethod)
        },
        "figures": {name: {"title": each.title, "meaning": each.meaning} for name, each in FIGURES.items()},
        "not_shipped": not_shipped(),
        "worst": {"side": sides[0].name, **{name: told_worst(crops, name) for name, crops in worst.items()}},
        **found,
    }


def _heavy(method: Method) -> bool:
    return isinstance(method, EngineMethod) and is_heavy(method.engine)


def draw_rendered(options: argparse.Namespace, methods: list[Method]) -> None:
    """Draw the sheets of the rendered scene, which README shows."""
    write_files({options.json.with_name(name): content for name, content in rendered_sheets(methods).items()})


def draw_sheets(options: argparse.Namespace, methods: list[Method], side: Side, worst: dict[str, list[Crop]]) -> None:
    """Draw the sheets of a side, which stay where they are: the data may not be shown."""
    rows, _ = side.found(methods)
    folder = options.runs / "evidence"
    scales = sorted({method.scale for method in methods})
    files = {folder / f"worst-{name}.png": worst_sheet(crops, name) for name, crops in worst.items()}
    for scale in scales:
        here = [method for method in methods if method.scale == scale]
        files[folder / f"crops-x{scale}.png"] = compared_sheet(rows, here, options.data)
        if any("highlight_psnr_db" in row for row in rows):
            files[folder / f"reflections-x{scale}.png"] = reflections_sheet(rows, here, options.data)
    write_files(files)


def main(arguments: Sequence[str] | None = None, write: Callable[[str], Any] = print) -> int:
    """Measure what was not measured, write the result and the sheets, and print the gains."""
    options = parse(arguments)
    torch.set_num_threads(1)
    methods = make_methods(options)
    draw_rendered(options, methods)
    if options.rendered:
        return 0
    files = (options.weights / "squeezenet1.1.safetensors", options.weights / "lpips_linear_v0.1.safetensors")
    distance = load_distance(*files) if options.perceptual_frames else None
    sides = [Side(name, options, distance, write) for name in options.sides]
    for side in sides:
        side.measure(methods)
    rows, _ = sides[0].found(methods)
    worst = {m.name: worst_crops(rows, m, options.data) for m in methods if isinstance(m, EngineMethod)}
    result = gather(options, methods, sides, worst)
    write_files({options.json: dense(result)})
    draw_sheets(options, methods, sides[0], worst)
    for each in result["not_shipped"]:
        write(f"{each['engine']} less {each['stage']}: {each['missing']} not shipped")
    for side in sides:
        for dataset, by_method in result[side.name]["sets"].items():
            for name, cells in by_method.items():
                if gain := cells["luma_psnr_db"].get("gain"):
                    shown = f"{gain['mean']:+.2f} [{gain['low']:+.2f}, {gain['high']:+.2f}]"
                    write(f"{side.name:5} {dataset:12} {name:15} {shown}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
