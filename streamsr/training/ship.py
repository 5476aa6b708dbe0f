"""Make an engine folder out of a run: files, hashes, INT8 form, measured quality, card. What is worse is refused."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import nn

from streamsr.engine import MANIFEST, read_engine
from streamsr.errors import EngineError, OutputError, UsageError
from streamsr.models.srgan import SRGANGenerator
from streamsr.models.student import Student
from streamsr.runtimes.onnx_graph import quantised_student
from streamsr.training.card import card, with_quality
from streamsr.training.crops import CropSampler, FrameBank
from streamsr.training.data import load_pairs
from streamsr.training.measure import Perceptual, measure_engine
from streamsr.training.networks import build_network, load_weights, plain
from streamsr.training.quantise import INT8_LOSS_DB, RoundedStudent, calibrate, tune
from streamsr.training.record import read_run
from streamsr.training.run import BEST

log = logging.getLogger(__name__)

TUNING_STEPS = 400
"""Optimiser steps under rounding, of 8 crops: after 200 fast-x2 lost up to 0.064 dB on validation frames."""

CALIBRATION_FRAMES = 8
"""Training frames of each set from which INT8 scales are chosen."""

JUDGED_FRAMES = 20
"""Validation frames of each set on which forms are compared; the test side is measured whole."""

SRGAN_HALO_PX = 10
"""Context that leaves less than a grey level of seam (facts of trained networks of this depth); its radius is 40."""


def ship(
    run: Path,
    engines: Path,
    *,
    name: str | None = None,
    data: Path | None = None,
    perceptual: Perceptual | None = None,
    int8: bool = True,
) -> Path:
    """Make the engine folder of a run and put it in place, if it is no worse than the one that is there.

    Args:
        run: the run's folder.
        engines: where engine folders are.
        name: of the engine; the model's name when None.
        data: folder of the data; the run's own when None.
        perceptual: weights of the LPIPS-like distance, which judges adversarial weights.
        int8: whether an INT8 form is wanted.

    Returns:
        The engine folder.

    Raises:
        UsageError: the run cannot be read.
        OutputError: there is no such folder of engines.
        EngineError: the engine that is there is better on the validation side, or has an INT8 form while that of the
            run loses more than `INT8_LOSS_DB` on a set; the run and that engine are left as they are.
    """
    record = read_run(run)
    if not engines.is_dir():
        raise OutputError(f"{engines}: expected the folder of engines, got none; make it or name another")
    name, data = name or record.settings.model, data or Path(record.settings.data)
    network = build_network(record.settings.model)
    load_weights(str(run / BEST), network)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=engines) as made_in:
        folder = Path(made_in) / name
        write_files(folder, plain(network), data, kind="adversarial" if record.kind == "gan" else "fidelity", int8=int8)
        judge = perceptual if record.kind == "gan" else None
        side = measure_engine(folder, data, split="val", perceptual=judge, most_per_set=JUDGED_FRAMES)
        if lossy := int8_losses(side):
            refuse_lossy(engines / name, lossy)
            leave_out_int8(folder)
            side = measure_engine(folder, data, split="val", perceptual=judge, most_per_set=JUDGED_FRAMES)
        metrics = {"val": side, "test": measure_engine(folder, data, split="test", perceptual=perceptual)}
        refuse_worse(engines / name, metrics["val"], data, perceptual)
        replace(folder / "metrics.json", json.dumps(metrics, indent=1).encode() + b"\n")
        replace(folder / "card.md", card(record, read_manifest(folder), metrics).encode())
        for file, text in record.stages().items():
            replace(folder / file, text.encode())
        if (run / "curves.png").is_file():
            shutil.copy(run / "curves.png", folder / "curves.png")
        (engines / name).mkdir(exist_ok=True)
        shipped = {path for form in ("model.*", "stage-*.toml") for path in (engines / name).glob(form)}
        stale = {path.name for path in shipped} - {path.name for path in folder.iterdir()}
        for path in sorted(folder.iterdir(), key=lambda path: path.name == MANIFEST):
            path.replace(engines / name / path.name)
        for left in stale:  # forms that the new weights do not have
            (engines / name / left).unlink()
    return engines / name


def measure_again(folder: Path, data: Path, *, perceptual: Perceptual | None = None) -> dict[str, Any]:
    """Measure an engine that is in place and write its metrics, and the figures in its card, anew.

    Raises:
        EngineError: the engine is damaged, or has no card.
    """
    judge = perceptual if read_engine(folder).kind == "adversarial" else None
    if not (folder / "card.md").is_file():
        raise EngineError(f"{folder}: expected an engine with its card.md, got none; ship it anew")
    metrics = {
        "val": measure_engine(folder, data, split="val", perceptual=judge, most_per_set=JUDGED_FRAMES),
        "test": measure_engine(folder, data, split="test", perceptual=perceptual),
    }
    replace(folder / "metrics.json", json.dumps(metrics, indent=1).encode() + b"\n")
    text = (folder / "card.md").read_text(encoding="utf-8")
    replace(folder / "card.md", with_quality(text, metrics).encode())
    return metrics


def write_files(folder: Path, network: nn.Module, data: Path, *, kind: str, int8: bool = True) -> None:
    """Write weights and manifest of a network, its INT8 form too where it is a student and one is wanted."""
    if isinstance(network, Student):
        content = quantise(network, data, tuning_steps=TUNING_STEPS)[0] if int8 else b""
        write_engine(folder, network, content, kind=kind)
        if not int8:
            leave_out_int8(folder)
    elif isinstance(network, SRGANGenerator):
        write_srgan(folder, network, kind=kind)
    else:
        raise UsageError(f"expected a student or an SRGAN generator to ship, got {type(network).__name__}")


def int8_losses(side: dict[str, Any]) -> dict[str, float]:
    """Return what an INT8 form loses in dB on every set, if that is more than `INT8_LOSS_DB` on one of them."""
    if "int8" not in side:
        return {}
    losses = {name: row["field_of_view"] - side["int8"][name]["field_of_view"] for name, row in side["fp32"].items()}
    return {name: round(loss, 4) for name, loss in losses.items()} if max(losses.values()) > INT8_LOSS_DB else {}


def refuse_lossy(there: Path, losses: dict[str, float]) -> None:
    """Refuse an INT8 form that loses too much where the engine that is there has one that does not.

    Raises:
        EngineError: it does.
    """
    if (there / MANIFEST).is_file() and "int8" in read_manifest(there)["precisions"]:
        raise EngineError(
            f"{there.name}: expected INT8 to lose at most {INT8_LOSS_DB} dB, got {losses}; not replaced, tune it longer"
        )
    log.warning("%s: INT8 would lose %s dB, more than %s; left out", there.name, losses, INT8_LOSS_DB)


def leave_out_int8(folder: Path) -> None:
    """Take the INT8 form out of an engine that was just written."""
    manifest = read_manifest(folder)
    name = manifest["precisions"].pop("int8")
    del manifest["files"][name]
    (folder / name).unlink()
    replace(folder / MANIFEST, json.dumps(manifest, indent=2).encode() + b"\n")


def refuse_worse(there: Path, side: dict[str, Any], data: Path, perceptual: Perceptual | None) -> None:
    """Refuse what is worse, on the validation side, than the engine that is there; both are measured on the same files.

    Fidelity weights are compared by the mean luma PSNR of the sets, adversarial ones by the LPIPS-like distance.

    Raises:
        EngineError: the engine that is there is better.
    """
    if not (there / MANIFEST).is_file():
        return
    adversarial = read_engine(there).kind == "adversarial"
    key, sign = ("lpips_like", -1.0) if adversarial else ("field_of_view", 1.0)
    if adversarial and perceptual is None:
        raise UsageError("expected --squeezenet and --lpips-linear, which judge adversarial weights, got none")
    old_side = measure_engine(
        there, data, split="val", perceptual=perceptual if adversarial else None, most_per_set=JUDGED_FRAMES
    )
    form = "projected" if adversarial else "fp32"
    old, new = (float(np.mean([row[key] for row in each[form].values()])) for each in (old_side, side))
    if not sign * new >= sign * old:  # NaN is worse too
        raise EngineError(
            f"{there.name}: expected weights no worse than those there, {old:.4f}, got {new:.4f}; not replaced"
        )


def quantise(student: Student, data: Path, *, tuning_steps: int) -> tuple[bytes, Student]:
    """Return a student's INT8 form, scaled and tuned on training frames, and the tuned float weights behind it.

    Args:
        student: the float network.
        data: folder with MANIFEST.tsv.
        tuning_steps: optimiser steps under rounding; 0 for none.
    """
    scale = student.spec.scale
    pairs = load_pairs(data, "train", scale, most_per_set=200)
    shown = [pair.lr for pair in load_pairs(data, "train", scale, most_per_set=CALIBRATION_FRAMES)]
    rounded = RoundedStudent(student, calibrate(student, shown))
    torch.manual_seed(7)
    bank = FrameBank(pairs, scale=scale, device=torch.device("cpu"))
    sampler = CropSampler(bank, patch_px=min(48, bank.smallest_px), batch=8)
    tune(rounded, iter(sampler), steps=tuning_steps)
    scales = rounded.scales()
    content = quantised_student(
        arrays(rounded.student),
        scale=scale,
        activation_clips=scales.activation_clips,
        weight_scales=scales.weight_scales,
    )
    return content, rounded.student


def arrays(network: nn.Module) -> dict[str, NDArray[np.float32]]:
    """Return a network's weights by name, as they are stored."""
    return {
        name: tensor.detach().cpu().numpy().astype(np.float32)
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def write_engine(folder: Path, student: Student, int8: bytes, *, kind: str = "fidelity") -> None:
    """Write the files of a student's engine and its manifest, each aside and renamed.

    Args:
        folder: ``engines/NAME``.
        student: the float network.
        int8: its quantised form.
        kind: ``fidelity`` or ``adversarial``.
    """
    spec = student.spec
    shape = {
        "architecture": "student",
        "scale": spec.scale,
        "colour": "luma",
        "kind": kind,
        "channels": spec.channels,
        "depth": spec.depth,
        "radius_px": spec.receptive_radius_px,
        "halo_px": spec.receptive_radius_px,
        "macs_per_pixel": spec.macs_per_pixel,
        "precisions": {"fp32": "model.safetensors", "int8": "model.int8.onnx"},
    }
    write_with_manifest(folder, shape, {"model.safetensors": save(arrays(student)), "model.int8.onnx": int8})


def write_srgan(folder: Path, generator: SRGANGenerator, *, kind: str) -> None:
    """Write the files of an SRGAN generator's engine; weights as float16, as its card says, statistics as float32.

    Args:
        folder: ``engines/NAME``.
        generator: in training form, batch normalisation apart.
        kind: ``fidelity`` or ``adversarial``.
    """
    tensors: dict[str, NDArray[Any]] = {}
    for name, values in arrays(generator).items():
        convolution = name.endswith("weight") and values.ndim == 4
        tensors[name] = values.astype(np.float16) if convolution else values
    shape = {
        "architecture": "srgan",
        "scale": generator.scale,
        "colour": "rgb",
        "kind": kind,
        "channels": 64,
        "depth": generator.num_blocks,
        "radius_px": generator.receptive_radius_px,
        "halo_px": SRGAN_HALO_PX,
        "macs_per_pixel": generator.macs_per_pixel,
        "precisions": {"fp32": "model.safetensors"},
    }
    write_with_manifest(folder, shape, {"model.safetensors": save(tensors)})


def write_with_manifest(folder: Path, shape: dict[str, Any], files: dict[str, bytes]) -> None:
    """Write files, and a manifest that holds their hashes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        replace(folder / name, content)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    manifest = {"name": folder.name, **shape, "patch_px": 32, "files": hashes}
    replace(folder / MANIFEST, json.dumps(manifest, indent=2).encode() + b"\n")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the fields of a manifest that was just written."""
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return manifest


def replace(path: Path, content: bytes) -> None:
    """Write a file aside and rename it into place."""
    aside = path.with_name(f".{path.name}.part")
    aside.write_bytes(content)
    aside.replace(path)
