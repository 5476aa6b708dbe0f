"""What does sparing reflections in training change? ``python -m benchmarks.reflections [--before RUN] [--after RUN]``.

Nothing is timed. Two runs of adversarial training that differ in ``spare_highlights`` alone, ``house-unspared`` and
``house`` of `benchmarks.paper_loss` unless others are named, enlarge the same test frames, as made, without the
projection. They are not committed: ``python -m benchmarks.paper_loss --train`` makes them, after ``pixels``. Figures in
and around reflections, and the difference with its 95 % interval over groups, go to ``results/reflections.json``; crops
where reflections are densest to ``runs/evidence/reflections-training.png``, which is not committed, since it shows the
data.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.card import ROOT, machine_card
from benchmarks.enlarged import RUNS
from benchmarks.evidence import MULTIPLE, chosen, differences
from benchmarks.evidence_sheets import reflections_sheet
from benchmarks.tables import dense
from streamsr.config import usable_cores
from streamsr.errors import UsageError
from streamsr.evaluation.methods import Interpolation, Made, Method, Native, Samples, coloured
from streamsr.evaluation.run import enlarged, row_of
from streamsr.evaluation.subjects import Told, find_items, read_subjects
from streamsr.evaluation.summary import Row, summarise
from streamsr.evaluation.writing import write_files
from streamsr.training.data import luma_of
from streamsr.training.networks import build_network, colour_of, load_weights, plain, scale_of
from streamsr.training.pretrain import enlarge
from streamsr.training.record import read_run
from streamsr.training.run import BEST

RESULT = ROOT / "benchmarks" / "results" / "reflections.json"
FIGURES = ("highlight_psnr_db", "ring_psnr_db", "ring_overshoot", "highlight_overlap", "luma_psnr_db")


class TrainedMethod:
    """The best weights of a run, as they enlarge without the projection.

    Args:
        name: of the method.
        run: folder of the run.
    """

    is_engine = True

    def __init__(self, name: str, run: Path) -> None:
        self.name, self.settings = name, read_run(run).settings
        network = build_network(self.settings.model)
        load_weights(str(run / BEST), network)
        self.network = plain(network).eval()
        self.scale = scale_of(network)
        self.native: Native = "rgb" if colour_of(network) == "rgb" else "luma"

    def enlarge(self, lr: Samples) -> Made:
        """Enlarge (h, w, 3) uint8 RGB."""
        if self.native == "luma":
            return coloured(enlarge(self.network, luma_of(lr)), lr, self.scale)
        rgb = enlarge(self.network, lr)
        return Made(luma_of(rgb), rgb)


def refuse_others(before: TrainedMethod, after: TrainedMethod) -> None:
    """Refuse two runs that do not differ as they should.

    Raises:
        UsageError: they do not differ in sparing reflections, or differ in more than that.
    """
    ours, theirs = vars(before.settings), vars(after.settings)
    spared = [bool(each.get("spare_highlights", False)) for each in (ours, theirs)]
    others = sorted(
        name
        for name in ours.keys() | theirs.keys()
        if name not in ("output", "spare_highlights") and ours.get(name) != theirs.get(name)
    )
    if spared != [False, True] or others:
        apart = ", ".join(f"{name} {ours.get(name)} and {theirs.get(name)}" for name in others)
        raise UsageError(
            f"expected runs without and with spare_highlights that are otherwise alike, got {spared[0]} and "
            f"{spared[1]}{f', and {apart}' if others else ''}; name others with --before and --after"
        )


def main(arguments: Sequence[str] | None = None, write: Callable[[str], Any] = print) -> int:
    """Measure both runs, write the result and the sheet.

    Raises:
        UsageError: there are no such runs, or they differ otherwise than they should.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reflections", description=__doc__)
    parser.add_argument(
        "--before", type=Path, default=RUNS / "paper_loss" / "house-unspared", help="run without spare_highlights"
    )
    parser.add_argument("--after", type=Path, default=RUNS / "paper_loss" / "house", help="run with it")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--frames", type=int, default=8, help="of each set: the generator takes seconds for one")
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument("--json", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    torch.set_num_threads(usable_cores())
    before, after = TrainedMethod("before", options.before), TrainedMethod("after", options.after)
    refuse_others(before, after)
    methods: list[Method] = [Interpolation("bicubic", before.scale), before, after]
    items = find_items(options.data, split="test")
    names = chosen(items, options.frames)
    rows: list[Row] = []
    for subject in read_subjects([item for item in items if item.name in names], Told([], [], write), frames=1):
        frame = enlarged(subject, methods, multiple=MULTIPLE)
        rows += [row_of(subject, frame, method, made, None) for method, made in frame.made]
        write(subject.name)
    sets = {
        name: {method: {key: cells[key] for key in FIGURES if key in cells} for method, cells in by_method.items()}
        for name, by_method in summarise(rows).items()
    }
    apart = [each for figure in FIGURES for each in differences(rows, "after", "before", figure)]
    result = {
        "question": "reflections",
        "quick": False,
        "card": machine_card(),
        "model": before.settings.model,
        "steps": before.settings.steps,
        "frames_a_set": options.frames,
        "sets": sets,
        "differences": apart,
    }
    files = {options.json: dense(result)}
    files[options.runs / "evidence" / "reflections-training.png"] = reflections_sheet(rows, methods, options.data)
    write_files(files)
    for each in apart:
        write(f"{each['dataset']:12} {each['figure']:18} {each['mean']:+.3f} [{each['low']:+.3f}, {each['high']:+.3f}]")
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except UsageError as cause:
        raise SystemExit(f"reflections: {cause}") from None
