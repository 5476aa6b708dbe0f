"""Does a classifier gain by enlarging, the claim of the 2017 experiment? ``python -m benchmarks.downstream``.

Nothing is timed. Two questions are put to a small classifier (`benchmarks.classifier`), trained on full-resolution
train sides only, with five seeds, and never changed after that:

- ``polyp``: does a patch of 64x64 px show a polyp? colondb, clinicdb and bkai. Patches that an expert marked by half or
  more against patches of the same frames with no mark at all, inside the field of view.
- ``bleeding``: does a capsule frame show blood? The middle 192x192 px; names begin with ``ble`` or ``non``.

It then answers to the same patches of the test sides: of the truth, of both interpolations and of every engine,
projected. Accuracy and Matthews' coefficient are means over the seeds; recovery of accuracy has its 95 % interval over
groups; McNemar's test and flips (against the truth's answer) compare the majority of the seeds. Engines of SRGAN's size
answer to ``--heavy-frames`` frames of each set and are compared with bicubic and truth on the same frames.

The result is ``results/downstream.json``. Classifiers and enlarged pictures are kept in ``runs`` under all that they
depend on, so a run that was stopped goes on. The capsule set has one group a side: its interval knows nothing of other
patients.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.card import ROOT, machine_card
from benchmarks.classifier import (
    PatchClassifier,
    Patches,
    Schooling,
    answers_of,
    load_classifier,
    save_classifier,
    train_classifier,
)
from benchmarks.enlarged import RUNS, KeptEngine, all_engines, code_of, digest_of, interpolations, is_heavy
from benchmarks.tables import dense
from streamsr.config import usable_cores
from streamsr.evaluation.methods import Method, Samples
from streamsr.evaluation.writing import write_files
from streamsr.quality.downstream import Answers, accuracy, flips, majority, matthews, mcnemar, recovery
from streamsr.quality.fidelity import field_of_view
from streamsr.quality.intervals import Resampler
from streamsr.training.data import bicubic_down, chosen_rows, luma_of, read_listed, read_manifest, read_marks

RESULT = ROOT / "benchmarks" / "results" / "downstream.json"
PATCH_PX = 64
STRIDE_PX = {"train": 32, "test": 64}
MOST_PATCHES = 3
"""Patches of either answer that a frame gives; drawn with a seed, the same for all methods."""

MARKED = 0.5
CAPSULE_PX = 192
MULTIPLE = 4
SEEDS = 5
CODE = ("../benchmarks/classifier.py",)
"""Rooms that a classifier depends on besides its patches and settings."""


@dataclass(frozen=True)
class Place:
    """A patch of a frame.

    Attributes:
        file: of the frame.
        dataset: of the frame.
        group: of the frame.
        top: in pixels.
        left: in pixels.
        side: in pixels.
        label: the right answer.
    """

    file: str
    dataset: str
    group: str
    top: int
    left: int
    side: int
    label: bool

    def cut(self, picture: Samples) -> Samples:
        """Return the patch of a picture of the truth's size."""
        return picture[self.top : self.top + self.side, self.left : self.left + self.side]


TASKS = {"polyp": ("bkai", "clinicdb", "colondb"), "bleeding": ("capsule",)}
"""Question -> data sets."""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.downstream", description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--engines", nargs="+", help="only these; all")
    parser.add_argument(
        "--heavy-frames", type=int, default=20, help="of each set, for engines of SRGAN's size; 0: none"
    )
    parser.add_argument("--train-frames", type=int, help="at most so many train frames of a set; all")
    parser.add_argument("--epochs", type=int, default=Schooling.epochs)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="odd")
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument("--json", type=Path, default=RESULT)
    return parser.parse_args(arguments)


@dataclass(frozen=True)
class Frame:
    """A frame at full resolution.

    Attributes:
        file: its name in the manifest.
        dataset: its set.
        group: its group.
        rgb: (H, W, 3) uint8, sides a multiple of 4.
        marks: (H, W) bool, what an expert marked; None where nobody did.
    """

    file: str
    dataset: str
    group: str
    rgb: Samples
    marks: NDArray[np.bool_] | None


def read_frames(data: Path, side: str, datasets: Sequence[str], most: int | None = None) -> Iterator[Frame]:
    """Read the frames of some sets, one after the other."""
    rows = [row for row in read_manifest(data) if row["dataset"] in datasets]
    for row in chosen_rows(rows, side, most):
        rgb, _ = read_listed(data, row)
        height, width = (length // MULTIPLE * MULTIPLE for length in rgb.shape[:2])
        marks = read_marks(data / row["mask"], (height, width)) if row.get("mask") else None
        whole = np.ascontiguousarray(rgb[:height, :width])
        yield Frame(row["file"], row["dataset"], row.get("group") or row["file"], whole, marks)


def places_in(task: str, frame: Frame, stride_px: int) -> list[Place]:
    """Return the patches of a frame that a question is asked of."""
    height, width = frame.rgb.shape[:2]
    names = (frame.file, frame.dataset, frame.group)
    if task == "bleeding":
        side = min(CAPSULE_PX, height, width) // MULTIPLE * MULTIPLE
        top, left = (height - side) // 2, (width - side) // 2
        return [Place(*names, top, left, side, Path(frame.file).name.startswith("ble"))]
    if frame.marks is None:
        return []
    field = field_of_view(luma_of(frame.rgb))
    found: dict[bool, list[Place]] = {True: [], False: []}
    for top in range(0, height - PATCH_PX + 1, stride_px):
        for left in range(0, width - PATCH_PX + 1, stride_px):
            window = slice(top, top + PATCH_PX), slice(left, left + PATCH_PX)
            share = frame.marks[window].mean()
            if field[window].all() and (share >= MARKED or share == 0):
                label = bool(share >= MARKED)
                found[label].append(Place(*names, top, left, PATCH_PX, label))
    random = np.random.default_rng(0)
    kept: list[Place] = []
    for places in found.values():
        chosen = random.permutation(len(places))[:MOST_PATCHES]
        kept += [places[at] for at in sorted(chosen)]
    return kept


def patches_of(places: list[Place], pictures: dict[str, Samples]) -> Patches:
    """Return (N, side, side, 3) uint8 patches of pictures by file."""
    return np.stack([place.cut(pictures[place.file]) for place in places])


def classifiers(
    task: str, options: argparse.Namespace, write: Callable[[str], Any]
) -> tuple[str, list[PatchClassifier]]:
    """Train what was not trained before, and return the key of all and a classifier for each seed."""
    schooling = Schooling(epochs=options.epochs)
    patches, labels = training_patches(task, options)
    key = key_of(patches, labels, schooling)
    write(f"{task}: {len(patches)} training patches, {int(labels.sum())} of them yes")
    paths = [options.runs / "downstream" / f"{task}-{key}-{seed}.safetensors" for seed in range(options.seeds)]
    for seed, path in enumerate(paths):
        if not path.is_file():
            network = train_classifier(patches, labels, seed=seed, schooling=schooling, report=write)
            save_classifier(network, path)
    return key, [load_classifier(path) for path in paths]


def key_of(patches: Patches, labels: Answers, schooling: Schooling) -> str:
    """Return digits that change with everything that a classifier depends on but its seed."""
    data = hashlib.sha256(np.ascontiguousarray(patches).tobytes() + labels.tobytes()).hexdigest()
    return digest_of({"data": data, "shape": patches.shape, "how": asdict(schooling), "code": code_of(CODE)})


def training_patches(task: str, options: argparse.Namespace) -> tuple[Patches, Answers]:
    """Return the patches of the train sides, and their labels."""
    patches: list[Samples] = []
    labels: list[bool] = []
    for frame in read_frames(options.data, "train", TASKS[task], options.train_frames):
        places = places_in(task, frame, STRIDE_PX["train"])
        patches += [place.cut(frame.rgb).copy() for place in places]
        labels += [place.label for place in places]
    return np.stack(patches), np.array(labels)


def make_methods(options: argparse.Namespace) -> Iterator[Method]:
    """Give every method, the interpolations of a scale before its engines."""
    engines = [each for each in all_engines(names=options.engines) if options.heavy_frames or not is_heavy(each)]
    for scale in sorted({engine.scale for engine in engines}):
        yield from interpolations(scale)
        for engine in engines:
            if engine.scale == scale:
                yield KeptEngine(engine, options.runs / "enlarged")


def measure_task(task: str, options: argparse.Namespace, write: Callable[[str], Any]) -> dict[str, Any]:
    """Return method -> figures of a question."""
    key, networks = classifiers(task, options, write)
    frames = list(read_frames(options.data, "test", TASKS[task]))
    places = [place for frame in frames for place in places_in(task, frame, STRIDE_PX["test"])]
    few = _few(frames, options.heavy_frames)
    labels = np.array([place.label for place in places])
    on_truth = _answers(networks, patches_of(places, {frame.file: frame.rgb for frame in frames}))
    found = {"truth": _plain(on_truth, labels, places)}
    references: dict[int, Answers] = {}
    for method in make_methods(options):
        heavy = isinstance(method, KeptEngine) and is_heavy(method.engine)
        here = np.array([not heavy or place.file in few for place in places])
        asked = [place for place, kept in zip(places, here, strict=True) if kept]
        files = {place.file for place in asked}
        made = {f.file: method.enlarge(bicubic_down(f.rgb, method.scale)).rgb for f in frames if f.file in files}
        answers = _answers(networks, patches_of(asked, made))
        reference = references.setdefault(method.scale, answers)[:, here]
        found[method.name] = _compared(answers, reference, on_truth[:, here], labels[here], asked)
        write(f"{task:9} {method.name:15} {found[method.name]['accuracy']:.4f} {found[method.name].get('recovery')}")
    asked_of = {"seeds": options.seeds, "epochs": options.epochs, "classifiers": key}
    return {"sets": list(TASKS[task]), **asked_of, "methods": found}


def _few(frames: list[Frame], most: int) -> set[str]:
    """Return at most so many files of each set, evenly spread."""
    files: set[str] = set()
    for dataset in {frame.dataset for frame in frames}:
        here = [frame.file for frame in frames if frame.dataset == dataset]
        files |= {here[round(at)] for at in np.linspace(0, len(here) - 1, min(most, len(here)))}
    return files


def _answers(networks: list[PatchClassifier], patches: Patches) -> Answers:
    return np.stack([answers_of(network, patches) for network in networks])


def _plain(answers: Answers, labels: Answers, places: list[Place]) -> dict[str, Any]:
    """Return what can be said without comparing: (seeds, patches) answers."""
    sets = np.array([place.dataset for place in places])
    return {
        "accuracy": round(float(np.mean([accuracy(each, labels) for each in answers])), 5),
        "matthews": round(float(np.mean([matthews(each, labels) for each in answers])), 5),
        "accuracy_by_seed": [round(accuracy(each, labels), 5) for each in answers],
        "accuracy_by_set": {
            str(name): round(float(np.mean((answers == labels)[:, sets == name])), 5) for name in np.unique(sets)
        },
        "patches": len(places),
        "yes": int(labels.sum()),
        "frames": len({place.file for place in places}),
        "groups": len({(place.dataset, place.group) for place in places}),
    }


def _compared(
    answers: Answers, reference: Answers, on_truth: Answers, labels: Answers, places: list[Place]
) -> dict[str, Any]:
    """Return what a method's answers are worth beside bicubic interpolation's and the truth's, on the same patches."""
    draws = Resampler([f"{place.dataset} {place.group}" for place in places])
    ours, theirs, best = majority(answers), majority(reference), majority(on_truth)
    back = {
        name: _number(value) for name, value in asdict(recovery(answers, reference, on_truth, labels, draws)).items()
    }
    right = draws.interval((answers == labels).mean(axis=0).tolist())
    gained = draws.interval(((answers == labels).mean(axis=0) - (reference == labels).mean(axis=0)).tolist())
    assert right is not None
    assert gained is not None
    test = mcnemar(ours, theirs, labels)
    return {
        **_plain(answers, labels, places),
        "accuracy_interval": [round(right.low, 5), round(right.high, 5)],
        "gain_over_bicubic": [round(each, 5) for each in (gained.mean, gained.low, gained.high)],
        "bicubic": round(float(np.mean(reference == labels)), 5),
        "truth": round(float(np.mean(on_truth == labels)), 5),
        **back,
        "mcnemar": {"better": test.better, "worse": test.worse, "p": round(test.p, 6)},
        "flips": round(flips(ours, best), 5),
    }


def _number(value: float) -> float | None:
    """Return a number that JSON has."""
    return round(value, 4) if np.isfinite(value) else None


def main(arguments: Sequence[str] | None = None, write: Callable[[str], Any] = print) -> int:
    """Train, ask, write the result."""
    options = parse(arguments)
    torch.set_num_threads(usable_cores())
    tasks = {task: measure_task(task, options, write) for task in options.tasks}
    result = {
        "question": "downstream",
        "quick": False,
        "card": machine_card(),
        "heavy_frames": options.heavy_frames,
        "tasks": tasks,
    }
    write_files({options.json: dense(result)})
    for task, found in tasks.items():
        for name, row in found["methods"].items():
            back = f"{row['recovery']} [{row['low']}, {row['high']}]" if "recovery" in row else ""
            write(f"{task:9} {name:15} accuracy {row['accuracy']:.4f}  MCC {row['matthews']:.4f}  recovery {back}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
