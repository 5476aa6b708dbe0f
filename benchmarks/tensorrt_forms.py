"""What do TensorRT's forms of eight bits lose? ``python -m benchmarks.tensorrt_forms [ENGINE...] [--ship]``.

Symmetric INT8 and FP8 of every student (`streamsr.training.forms`): each layer alone, then as many as the worst
validation set bears together, in luma PSNR inside the field of view against the same network in float32. ONNX Runtime
computes both on one core of a processor, FP8 as it is defined; nothing is timed and no GPU is needed. Layers are chosen
on the validation side alone; of forms that are offered the test side is told beside it. The result is
``results/tensorrt_forms.json``; rows of engines that are not named stay. With ``--ship`` the forms that are offered go
into the engines, and those that are not leave them.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.card import ROOT, machine_card
from benchmarks.tables import dense, load
from streamsr.engine import MANIFEST, Engine, read_engine
from streamsr.training.eight_bits import FORMS, Form
from streamsr.training.forms import Finding, find_layers, load_scenes, loss_by_set, write_form

RESULT = ROOT / "benchmarks" / "results" / "tensorrt_forms.json"


def row_of(engine: Engine, form: Form, data: Path) -> tuple[dict[str, Any], Finding | None]:
    """Return what one form of an engine loses, and the form; None where the engine has not what it is made of."""
    row: dict[str, Any] = {"engine": engine.name, "form": form.name}
    if form.needs not in engine.precisions:
        return {**row, "offered": False, "why": f"ships no {form.needs}"}, None
    found = find_layers(engine, form, data)
    row |= {
        "offered": found.offered,
        "tuned": found.tuned,
        "layers": list(found.layers),
        "of": found.num_layers,
        "alone_db": rounded(found.alone_db),
        "val_db": rounded(found.loss_db),
    }
    if found.content is not None:
        row |= {
            "test_db": rounded(loss_by_set(engine, load_scenes(data, engine.scale, split="test"))(found.content)),
            "bytes": len(found.content),
            "sha256": hashlib.sha256(found.content).hexdigest(),
        }
    return row, found


def rounded(losses: Any) -> dict[str, float]:
    """Return losses in tenths of a thousandth of a decibel."""
    return {str(name): round(loss, 4) for name, loss in losses.items()}


def students(engines: Path, names: Sequence[str]) -> list[Path]:
    """Return the folders of the students that are named, or of all."""
    folders = [path.parent for path in sorted(engines.glob(f"*/{MANIFEST}")) if not names or path.parent.name in names]
    return [folder for folder in folders if read_engine(folder).architecture == "student"]


def merged(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows in order, the new ones in the place of those of the same engine and form."""
    rows = {(row["engine"], row["form"]): row for row in (*old, *new)}
    return [rows[key] for key in sorted(rows)]


def main(arguments: Sequence[str] | None = None, write: Callable[[str], Any] = print) -> int:
    """Measure, write the result and print a line for each form."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tensorrt_forms", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="ENGINE", help="students to measure (default: all)")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--engines", type=Path, default=ROOT / "engines")
    parser.add_argument("--json", type=Path, default=RESULT)
    parser.add_argument("--ship", action="store_true", help="put offered forms into the engines, take others away")
    parser.add_argument("--form", choices=[form.name for form in FORMS], help="one form alone")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for folder in students(options.engines, options.names):
        for form in FORMS:
            if options.form not in (None, form.name):
                continue
            row, found = row_of(read_engine(folder), form, options.data)
            if options.ship:
                write_form(folder, form, found)
            old = load(options.json)["rows"] if options.json.is_file() else []
            result = {"question": "tensorrt_forms", "quick": False, "card": machine_card(), "rows": merged(old, [row])}
            options.json.write_bytes(dense(result))
            write(str(found or f"{row['engine']}: {row['form']}: {row['why']}"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
