"""The card of an engine: what it is, what made it, what it gives, and where it ends."""

from __future__ import annotations

from typing import Any

from streamsr.models.student import Student
from streamsr.training.pretrain import PretrainSettings

DATA = """Train sides of five sets, each set drawn equally often, crops of the dark surround left out; no exam day,
sequence or surgery is on two sides. CVC-ClinicDB (Bernal et al. 2015) and CVC-ColonDB (Bernal et al. 2012): research
and education, no commercial use. BKAI-IGH NeoPolyp-Small (Lan et al. 2021, NeoUNet): competition data, taken as
non-commercial research. WCEBleedGen (Zenodo 10.5281/zenodo.10156571): licence not verified. Intermountain-Stanford
laparoscopy: MIT. **The weights are for research.**"""

LIMITS = """Fidelity weights: they lower the squared error against bicubic reduction of the truth and add no texture of
their own, but detail finer than the camera's is an estimate, and no medical claim is made. They know clean bicubic
reduction; on strongly compressed or noisy video they sharpen what compression left. Spots of reflection are enlarged
like everything else. PSNR says how near the samples are, not whether a finding is visible."""


def card(student: Student, settings: PretrainSettings, metrics: dict[str, Any], *, name: str, seconds: float) -> str:
    """Return the card in Markdown, its figures from the measured metrics."""
    spec = student.spec
    parameters = sum(parameter.numel() for parameter in student.parameters())
    return f"""# {name}

A fidelity student: luma in, luma out at x{spec.scale}; chroma goes through a fixed filter elsewhere.

**Architecture.** 3x3 convolutions and ReLU: 1 to {spec.channels}, {spec.depth} times {spec.channels} to
{spec.channels}, {spec.channels} to {spec.scale**2}; bilinear skip folded in front of the pixel shuffle.
{parameters:,} parameters, {spec.macs_per_pixel:,} multiply-adds an input pixel, receptive radius
{spec.receptive_radius_px} px. In training every convolution is a sum of branches that collapses exactly.

**Data.** {DATA}

**Losses and run.** {settings.steps:,} steps of {settings.batch} crops of {settings.patch_px}x{settings.patch_px}
low-resolution pixels: Charbonnier under bfloat16, the last {settings.finetune_steps:,} steps squared error in float32;
Adam, {settings.learning_rate:g} down a cosine; moving average of the weights. {seconds / 60:.0f} minutes on one core of
a two-core processor that other work shared. `train.toml` beside this card is the run:
`python -m streamsr.training train.toml`.

**INT8.** QDQ ONNX: unsigned 8-bit activations, signed 8-bit weights per channel, float biases; scales from training
frames, then a short tuning under rounding on training crops.

**Quality.** Luma PSNR in dB inside the field of view, mean over frames (`metrics.json` has the whole frame too).

{table(metrics, "val")}

{table(metrics, "test")}

**Limits.** {LIMITS}
"""


def table(metrics: dict[str, Any], split: str) -> str:
    """Return a Markdown table of one side: a row a form, a column a data set."""
    side = metrics[split]
    sets = sorted(side["bicubic"])
    rows = [f"| {split} | {' | '.join(sets)} |", f"|{'---|' * (len(sets) + 1)}"]
    for form in ("bicubic", "fp32", "int8"):
        figures = " | ".join(f"{side[form][dataset]['field_of_view']:.2f}" for dataset in sets)
        rows.append(f"| {form} | {figures} |")
    return "\n".join(rows)
