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
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import nn

from streamsr.engine import MANIFEST, read_engine
from streamsr.errors import EngineError, OutputError, UsageError
from streamsr.models.srgan import SRGANGenerator
from streamsr.models.student import Student, StudentSpec
from streamsr.training.card import card, with_int8, with_quality
from streamsr.training.measure import Perceptual, measure_degraded, measure_engine
from streamsr.training.networks import build_network, load_weights, plain
from streamsr.training.quantise import INT8_LOSS_DB, arrays, int8_form
from streamsr.training.record import RunRecord, is_robust, read_run
from streamsr.training.run import BEST

log = logging.getLogger(__name__)

JUDGED_FRAMES = 20
"""Validation frames of each set on which forms are compared; the test side is measured whole."""

ROBUST_LINE = 'degradation = "robust"'
"""What the settings beside robust weights say."""

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
        perceptual: weights of the LPIPS-like distance, which is then measured too; it judges adversarial weights.
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
        write_files(folder, plain(network), data, record, int8=int8)
        sides = judged(folder, data, perceptual, robust=is_robust(record))
        if lossy := int8_losses(sides):
            refuse_lossy(engines / name, lossy)
            leave_out_int8(folder)
            sides = judged(folder, data, perceptual, robust=is_robust(record))
        refuse_worse(engines / name, sides, data, perceptual)
        metrics = {**sides, "test": measure_engine(folder, data, split="test", perceptual=perceptual)}
        replace(folder / "metrics.json", json.dumps(metrics, indent=1).encode() + b"\n")
        replace(folder / "card.md", card(record, read_manifest(folder), metrics).encode())
        for file, text in record.stages().items():
            replace(folder / file, text.encode())
        if (run / "curves.png").is_file():
            shutil.copy(run / "curves.png", folder / "curves.png")
        put_in_place(folder, engines / name)
    return engines / name


def judged(folder: Path, data: Path, perceptual: Perceptual | None, *, robust: bool) -> dict[str, Any]:
    """Return the figures that decide on an engine: ``val``, and ``val_degraded`` of robust weights."""
    side = measure_engine(folder, data, split="val", perceptual=perceptual, most_per_set=JUDGED_FRAMES)
    rough = {"val_degraded": measure_degraded(folder, data, most_per_set=JUDGED_FRAMES)} if robust else {}
    return {"val": side, **rough}


def put_in_place(folder: Path, there: Path) -> None:
    """Move the files of a new engine over the one that is there, its manifest last; forms that it lacks go."""
    there.mkdir(exist_ok=True)
    shipped = {path for form in ("model.*", "stage-*.toml") for path in there.glob(form)}
    stale = {path.name for path in shipped} - {path.name for path in folder.iterdir()}
    for path in sorted(folder.iterdir(), key=lambda path: path.name == MANIFEST):
        path.replace(there / path.name)
    for left in stale:
        (there / left).unlink()


def add_int8(there: Path, data: Path, *, perceptual: Perceptual | None = None) -> None:
    """Make the INT8 form of a student that is in place anew, beside its float weights, which stay as they are.

    Raises:
        UsageError: the engine is no student.
        EngineError: it is damaged, has no card, or INT8 would lose more than `INT8_LOSS_DB` on a set; it is left alone.
    """
    engine = read_engine(there)
    if engine.architecture != "student" or not (there / "card.md").is_file():
        raise UsageError(f"{there}: expected a student with its card.md, got {engine.architecture}; name another")
    student = Student(StudentSpec(engine.channels, engine.depth, engine.scale))
    load_weights(str(there / "model.safetensors"), student)
    robust = ROBUST_LINE in (there / "train.toml").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix=".making-", dir=there.parent) as made_in:
        folder = Path(made_in) / there.name
        write_engine(folder, student, int8_form(student, data, degrades=robust), kind=engine.kind)
        sides = judged(folder, data, perceptual, robust=robust)
        if lossy := int8_losses(sides):
            raise EngineError(f"{there.name}: expected INT8 to lose at most {INT8_LOSS_DB} dB, got {lossy}; not added")
        metrics = {**sides, "test": measure_engine(folder, data, split="test", perceptual=perceptual)}
        replace(folder / "metrics.json", json.dumps(metrics, indent=1).encode() + b"\n")
        text = with_int8((there / "card.md").read_text(encoding="utf-8"))
        replace(folder / "card.md", with_quality(text, metrics).encode())
        for kept in there.glob("stage-*.toml"):
            shutil.copy(kept, folder / kept.name)
        put_in_place(folder, there)


def measure_again(folder: Path, data: Path, *, perceptual: Perceptual | None = None) -> dict[str, Any]:
    """Measure an engine that is in place and write its metrics, and the figures in its card, anew.

    Raises:
        EngineError: the engine is damaged, or has no card.
    """
    read_engine(folder)
    if not (folder / "card.md").is_file():
        raise EngineError(f"{folder}: expected an engine with its card.md, got none; ship it anew")
    settings = folder / "train.toml"
    robust = settings.is_file() and ROBUST_LINE in settings.read_text(encoding="utf-8")
    metrics = {
        **judged(folder, data, perceptual, robust=robust),
        "test": measure_engine(folder, data, split="test", perceptual=perceptual),
    }
    replace(folder / "metrics.json", json.dumps(metrics, indent=1).encode() + b"\n")
    text = (folder / "card.md").read_text(encoding="utf-8")
    replace(folder / "card.md", with_quality(text, metrics).encode())
    return metrics


def write_files(folder: Path, network: nn.Module, data: Path, record: RunRecord, *, int8: bool = True) -> None:
    """Write weights and manifest of a network, its INT8 form too where it is a student and one is wanted."""
    kind = "adversarial" if record.kind == "gan" else "fidelity"
    if isinstance(network, Student):
        content = int8_form(network, data, degrades=is_robust(record)) if int8 else b""
        write_engine(folder, network, content, kind=kind)
        if not int8:
            leave_out_int8(folder)
    elif isinstance(network, SRGANGenerator):
        write_srgan(folder, network, kind=kind)
    else:
        raise UsageError(f"expected a student or an SRGAN generator to ship, got {type(network).__name__}")


def int8_losses(sides: dict[str, Any]) -> dict[str, float]:
    """Return what an INT8 form loses in dB on every set, if that is more than `INT8_LOSS_DB` on one of a side."""
    losses = {
        f"{side}/{name}": row["field_of_view"] - figures["int8"][name]["field_of_view"]
        for side, figures in sides.items()
        if "int8" in figures
        for name, row in figures["fp32"].items()
    }
    too_much = max(losses.values(), default=0.0) > INT8_LOSS_DB
    return {name: round(loss, 4) for name, loss in losses.items()} if too_much else {}


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


def refuse_worse(there: Path, sides: dict[str, Any], data: Path, perceptual: Perceptual | None) -> None:
    """Refuse what is worse, on the validation side, than the engine that is there; both are measured on the same files.

    Fidelity weights are compared by the mean luma PSNR of the sets, robust ones on degraded input, adversarial ones by
    the LPIPS-like distance.

    Raises:
        EngineError: the engine that is there is better.
    """
    if not (there / MANIFEST).is_file():
        return
    adversarial, robust = read_engine(there).kind == "adversarial", "val_degraded" in sides
    key, sign = ("lpips_like", -1.0) if adversarial else ("field_of_view", 1.0)
    if adversarial and perceptual is None:
        raise UsageError("expected --squeezenet and --lpips-linear, which judge adversarial weights, got none")
    old_sides = judged(there, data, perceptual if adversarial else None, robust=robust)
    side, form = "val_degraded" if robust else "val", "projected" if adversarial else "fp32"
    old, new = (float(np.mean([row[key] for row in each[side][form].values()])) for each in (old_sides, sides))
    if not sign * new >= sign * old:  # NaN is worse too
        raise EngineError(
            f"{there.name}: expected weights no worse than those there, {old:.4f}, got {new:.4f}; not replaced"
        )


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
