"""Are our students above published networks retrained alike? ``python -m benchmarks.retrained --all [--runs RUNS]``.

Nothing is timed but the training itself. ``--train NAME`` trains one network (`CONTENDERS`: ours and FSRCNN, ESPCN, and
Compact, SPAN and SRResNet at the cost of ``fast``), ``--all`` every one whose run in RUNS is not finished, minutes to
an hour of a core each, and then measures: all have the same data, crops, loss, rate, steps and seed, see `budget`.
Without either every finished run in RUNS is measured on the same reduced files of validation and test sides; rows of
networks that were trained elsewhere, for as many steps of the same crops, stay. The result is
``results/retrained.json``: multiply-adds, parameters, minutes of training, luma PSNR of each set; and
``results/retrained.png``: quality against multiply-adds.

Two things are not alike. Ours and SPAN train as sums of branches that are folded afterwards, as they were published;
the others train as they run. And so few steps favour networks that add to an interpolated picture: FSRCNN, ESPCN and
SPAN have to learn it first.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.card import ROOT, machine_card
from benchmarks.peers.networks import PEERS, Peer
from streamsr.errors import UsageError
from streamsr.evaluation.writing import write_files
from streamsr.quality.fidelity import psnr_db
from streamsr.training.curves import LOG, read_log
from streamsr.training.data import bicubic_up, field_masks, load_pairs
from streamsr.training.networks import NETWORKS, load_weights, plain, scale_of
from streamsr.training.pretrain import Pretraining, enlarge
from streamsr.training.record import read_run
from streamsr.training.run import BEST
from streamsr.training.settings import PretrainSettings
from streamsr.training.ship import JUDGED_FRAMES

RESULT = ROOT / "benchmarks" / "results" / "retrained.json"
PLOT = RESULT.with_suffix(".png")
OURS = ("tiny", "fast")
FAMILIES = ("fsrcnn", "fsrcnn-wide", "espcn", "compact-s", "span-s", "resnet-s")
TICKS = (10, 20, 40, 80)
"""Thousand multiply-adds that the plot names."""

CONTENDERS = [f"{name}-x{scale}" for scale in (2, 4) for name in (*OURS, *FAMILIES)]


def budget(name: str, data: Path, runs: Path) -> PretrainSettings:
    """Return the settings of a run; nothing but the names differs between networks."""
    return PretrainSettings(
        model=name,
        data=str(data),
        output=str(runs / name),
        steps=3_000,
        batch=16,
        patch_px=48,
        learning_rate=1e-3,
        warm_steps=100,
        validate_every=1_000,
        checkpoint_every=200,
        log_every=100,
        finetune_steps=300,
        device="cpu",
    )


def drawn(name: str) -> nn.Module:
    """Return a freshly drawn network in training form."""
    return PEERS[name]() if name in PEERS else NETWORKS[name]()


def as_run(network: nn.Module) -> nn.Module:
    """Return a network as it runs: branches collapsed."""
    return network.collapse() if isinstance(network, Peer) else plain(network)


def cost(network: nn.Module) -> dict[str, int]:
    """Return multiply-adds a low-resolution pixel, as they are run and as tables count them, and parameters."""
    ran = as_run(network)
    macs = int(ran.spec.macs_per_pixel) if hasattr(ran, "spec") else int(ran.macs_per_pixel)  # type: ignore[union-attr, arg-type]
    published = int(getattr(ran, "published_macs_per_pixel", macs))
    parameters = sum(parameter.numel() for parameter in ran.parameters())
    return {"macs_per_pixel": macs, "published_macs_per_pixel": published, "parameters": parameters}


def measure(run: Path, data: Path) -> dict[str, Any]:
    """Return what a run cost and gives on both sides, beside bicubic interpolation."""
    record = read_run(run)
    network = drawn(record.settings.model)
    load_weights(str(run / BEST), network)
    network = as_run(network).eval()
    sides = {
        side: psnr_by_set(network, scale_of(drawn(record.settings.model)), data, side, most)
        for side, most in (("val", JUDGED_FRAMES), ("test", None))
    }
    settings = record.settings
    run_of = {"steps": settings.steps, "batch": settings.batch, "patch_px": settings.patch_px, "device": record.device}
    return {**cost(network), **run_of, "minutes": round(record.seconds / 60, 1), **sides}


def psnr_by_set(
    network: nn.Module, scale: int, data: Path, side: str, most: int | None
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return form (``bicubic``, ``fp32``) -> set -> mean luma PSNR in dB inside the field of view, and frames."""
    pairs = load_pairs(data, side, scale, most_per_set=most)
    figures: dict[str, dict[str, list[float]]] = {"bicubic": {}, "fp32": {}}
    for pair, mask in zip(pairs, field_masks(pairs), strict=True):
        pictures = {"bicubic": bicubic_up(pair.lr, scale), "fp32": enlarge(network, pair.lr)}
        for form, picture in pictures.items():
            figures[form].setdefault(pair.dataset, []).append(psnr_db(picture, pair.hr, mask=mask))
    return {
        form: {
            key: {"field_of_view": round(float(np.mean(values)), 5), "frames": len(values)}
            for key, values in by_set.items()
        }
        for form, by_set in figures.items()
    }


def drawn_plot(networks: dict[str, Any]) -> bytes:
    """Return the gain over bicubic interpolation, mean of the test sides of all sets, against multiply-adds, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    scales = sorted({int(name[-1]) for name in networks})
    for axes, scale in zip(figure.subplots(1, len(scales), squeeze=False)[0], scales, strict=True):
        for name, row in networks.items():
            if not name.endswith(f"-x{scale}"):
                continue
            family = name.removesuffix(f"-x{scale}")
            place, ours = (row["macs_per_pixel"] / 1000, mean_gain(row)), family in OURS
            axes.scatter(*place, s=46, marker="o" if ours else "s", color="#c0392b" if ours else "#4a6fa5")
            axes.annotate(family, place, textcoords="offset points", xytext=(5, 4 if ours else -11), fontsize=9)
        axes.set_xscale("log")
        axes.set_xlim(10, 130)
        axes.set_xticks(TICKS, [str(tick) for tick in TICKS])
        axes.minorticks_off()
        axes.margins(y=0.12)
        axes.set_xlabel("thousand multiply-adds a low-resolution pixel")
        axes.set_ylabel("luma PSNR over bicubic, dB")
        axes.set_title(f"x{scale}, retrained alike", fontsize=10)
        axes.grid(alpha=0.3)
    content = io.BytesIO()
    figure.savefig(content, dpi=110, format="png")
    return content.getvalue()


def mean_gain(row: dict[str, Any]) -> float:
    """Return the gain over bicubic interpolation on the test sides, mean of the sets, in dB."""
    test = row["test"]
    apart = [test["fp32"][name]["field_of_view"] - test["bicubic"][name]["field_of_view"] for name in test["bicubic"]]
    return float(np.mean(apart))


def is_finished(run: Path) -> bool:
    """Return whether a run's last step was validated, and its weights are there."""
    if not (run / LOG).is_file() or not (run / BEST).is_file():
        return False
    validated = [line["step"] for line in read_log(run) if "score" in line]
    return bool(validated) and max(validated) >= read_run(run).settings.steps


def train(name: str, data: Path, runs: Path) -> None:
    """Train one network, or go on where it stopped."""
    Pretraining(budget(name, data, runs), drawn(name)).run()


def measured_before(data: Path, runs: Path) -> dict[str, Any]:
    """Return the rows of the present result whose networks were trained on today's budget, by name."""
    if not RESULT.is_file():
        return {}
    rows: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8"))["networks"]
    wanted = {name: budget(name, data, runs) for name in rows}
    return {
        name: row
        for name, row in rows.items()
        if all(row[key] == getattr(wanted[name], key) for key in ("steps", "batch", "patch_px"))
    }


def trained(
    question: str,
    about: str | None,
    contenders: Sequence[str],
    arguments: Sequence[str] | None,
    write: Callable[[str], Any],
) -> tuple[argparse.Namespace, list[str]]:
    """Read a command line, train what it asks for, and return it with the contenders whose runs are finished.

    With ``--train`` nothing is to be measured, and none is returned.

    Raises:
        UsageError: no run is finished.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{question}", description=about)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "retrained", help="folder of the runs")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--train", choices=contenders, help="train this one instead of measuring")
    what.add_argument("--all", action="store_true", help="train every one that is not trained, then measure")
    options = parser.parse_args(arguments)
    if options.train:
        train(options.train, options.data, options.runs)
        return options, []
    for name in contenders if options.all else ():
        if not is_finished(options.runs / name):
            write(f"{name}: training")
            train(name, options.data, options.runs)
    finished = [name for name in contenders if is_finished(options.runs / name)]
    if not finished:
        raise UsageError(f"{options.runs}: expected a finished run, got none; train them with --all or name --runs")
    return options, finished


def main(arguments: Sequence[str] | None = None, write: Callable[[str], Any] = print) -> int:
    """Train what is asked for, measure every finished run and write the result.

    Raises:
        UsageError: no run is finished.
    """
    options, finished = trained("retrained", __doc__, CONTENDERS, arguments, write)
    if options.train:
        return 0
    torch.set_num_threads(1)
    before = measured_before(options.data, options.runs)
    rows = {name: measure(options.runs / name, options.data) for name in finished}
    networks = {name: {**before, **rows}[name] for name in CONTENDERS if name in rows or name in before}
    if kept := [name for name in networks if name not in rows]:
        write(f"not trained here, rows kept as they are: {', '.join(kept)}")
    if missing := [name for name in CONTENDERS if name not in networks]:
        write(f"not trained, and left out: {', '.join(missing)}")
    result = {"question": "retrained", "quick": False, "card": machine_card(), "networks": networks}
    write_files({RESULT: (json.dumps(result, indent=1) + "\n").encode(), PLOT: drawn_plot(networks)})
    for name, row in networks.items():
        means = {key: figure["field_of_view"] for key, figure in row["test"]["fp32"].items()}
        write(f"{name:15} {row['macs_per_pixel']:6} MAC  {row['minutes']:5} min  {means}")
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except UsageError as cause:
        raise SystemExit(f"retrained: {cause}") from None
