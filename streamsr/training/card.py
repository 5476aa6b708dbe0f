"""The card of an engine: what it is, what made it, what it gives, and where it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from streamsr.training.record import RunRecord, ShippedRecord, is_robust
from streamsr.training.settings import DistillSettings, GanSettings, PretrainSettings

DATA = """Train sides of five sets, each set drawn equally often, crops of the dark surround left out; no exam day,
sequence or surgery is on two sides; capsule has no patient numbers and was cut by order, so sides may share patients.
CVC-ClinicDB (Bernal et al. 2015) and CVC-ColonDB (Bernal et al. 2012): research and education, no commercial use.
BKAI-IGH NeoPolyp-Small (Lan et al. 2021, NeoUNet): competition data, taken as non-commercial research. WCEBleedGen
(Zenodo 10.5281/zenodo.10156571): licence not verified. Intermountain-Stanford laparoscopy: MIT.
**The weights are for research.**"""

FIDELITY = """Fidelity weights: they lower the error against the truth and add no texture of their own, but detail
finer than the camera's is an estimate, and no medical claim is made. {inputs} Spots of reflection are enlarged like
everything else. PSNR says how near the samples are, not whether a finding is visible."""

CLEAN = "They know clean bicubic reduction; on strongly compressed or noisy video they sharpen what compression left."
ROBUST = (
    "They know blurred, noisy and compressed input; on clean input they are a little softer than the clean weights."
)

INT8 = (
    "**INT8.** QDQ ONNX: unsigned 8-bit activations, signed 8-bit weights per channel, float biases; scales from "
    "training frames, every channel scaled to the range of 8 bits and channels that are never active spent on those "
    "that need most; then a short tuning under rounding on training crops (degraded ones for robust weights) by the "
    "logarithm of each crop's squared error."
)

ADVERSARIAL = """**Adversarial weights: they draw texture that looks right and was not measured.** Every fine detail may
be invented; they are for looking, never for measuring or deciding, and no medical claim is made. The consistency
projection bounds what they may add, though not on every sample: `within_level` in `metrics.json` is the share that is
given back within one grey level. They know clean bicubic reduction only."""


def card(record: RunRecord, manifest: dict[str, Any], metrics: dict[str, Any]) -> str:
    """Return the card in Markdown, its figures from the measured metrics."""
    adversarial = manifest["kind"] == "adversarial"
    limits = ADVERSARIAL if adversarial else FIDELITY.format(inputs=ROBUST if is_robust(record) else CLEAN)
    stages = ", ".join(f"`{name}`" for name in record.stages())
    parts = [
        f"# {manifest['name']}",
        f"{'An adversarial' if adversarial else 'A fidelity'} generator: {manifest['colour']} in, {manifest['colour']} "
        f"out at x{manifest['scale']}.",
        f"**Architecture.** {architecture(manifest)}",
        f"**Data.** {DATA}",
        f"**Losses and run.** {history(record)} `train.toml` beside this card is the "
        f"{'last ' if record.follows else ''}run (in order: {stages}): `streamsr train {record.kind} train.toml`; "
        "`curves.png` shows it.",
    ]
    if "int8" in metrics["val"]:
        parts.append(INT8)
    else:
        stored = "; convolutions are stored as float16" if manifest["architecture"] == "srgan" else ""
        parts.append(f"**Precision.** float32{stored}. No INT8 form: none was made, or it lost more than 0.05 dB.")
    parts += quality(metrics)
    return "\n\n".join([*parts, f"**Limits.** {limits}"]) + "\n"


def quality(metrics: dict[str, Any]) -> list[str]:
    """Return the paragraphs of measured quality."""
    parts = [
        "**Quality.** Luma PSNR in dB inside the field of view, mean over frames; `projected` is what is shown "
        "by default: the best form for a CPU made consistent with its input. `metrics.json` has the whole frame too, "
        "and the share of input samples that are given back within one grey level."
    ]
    sides = [side for side in ("val", "val_degraded", "test") if side in metrics]
    parts += [table(metrics, side, "field_of_view", 2) for side in sides]
    if told := [side for side in ("val", "test") if has_distance(metrics[side])]:
        parts.append(
            "LPIPS-like distance, smaller is nearer (SqueezeNet 1.1 trunk with LPIPS v0.1's linear layers; the "
            "trunk is not proven the one they were fitted on, so these are no LPIPS figures)."
        )
        parts += [table(metrics, side, "lpips_like", 4) for side in told]
    return parts


def has_distance(figures: dict[str, Any]) -> bool:
    """Return whether the LPIPS-like distance was measured on a side."""
    return "lpips_like" in next(iter(figures["bicubic"].values()))


def with_quality(text: str, metrics: dict[str, Any]) -> str:
    """Return a card with its paragraphs of quality made anew."""
    before, _, rest = text.partition("**Quality.**")
    _, limits, after = rest.partition("**Limits.**")
    return before + "\n\n".join(quality(metrics)) + "\n\n" + limits + after


def with_blend(text: str, part: float, stage: str) -> str:
    """Return a card that says, before its precisions, how much of an adversarial engine was kept in a blend."""
    before, named, rest = text.partition("**Precision.**")
    told = (
        f"**Blend.** What is here is {part:g} of the weights told above and {1 - part:g} of `{stage}`'s (network "
        "interpolation, Wang et al. 2018): farther from the truth in the LPIPS-like distance than the former, nearer "
        "in error, round reflections too. `streamsr train blend` made it."
    )
    return f"{before}{told}\n\n{named}{rest}"


def with_int8(text: str) -> str:
    """Return a card that speaks of an INT8 form, in the place of what it said of precisions."""
    named = "**INT8.**" if "**INT8.**" in text else "**Precision.**"
    before, _, rest = text.partition(named)
    return before + INT8 + "\n\n" + rest.partition("\n\n")[2]


def with_form(text: str, title: str, told: str) -> str:
    """Return a card that speaks of a form for TensorRT, in front of its quality; of none where nothing is told."""
    named = f"**{title} for TensorRT.**"
    before, found, rest = text.partition(named)
    text = before + rest.partition("\n\n")[2] if found else text
    before, quality_named, rest = text.partition("**Quality.**")
    return f"{before}{named} {told}\n\n{quality_named}{rest}" if told else text


def architecture(manifest: dict[str, Any]) -> str:
    """Return what the network is made of."""
    channels, depth, scale = manifest["channels"], manifest["depth"], manifest["scale"]
    cost = f"{manifest['macs_per_pixel']:,} multiply-adds an input pixel, receptive radius {manifest['radius_px']} px."
    if manifest["architecture"] == "srgan":
        return (
            f"The generator of Ledig et al. 2017 (SRResNet): 9x9 convolution, {depth} residual blocks of {channels} "
            f"channels with batch normalisation and PReLU, long skip, pixel shuffle, 9x9 convolution. {cost} "
            f"The default halo of {manifest['halo_px']} px is less than that: seams below a grey level may be left."
        )
    return (
        f"3x3 convolutions and ReLU: 1 to {channels}, {depth} times {channels} to {channels}, {channels} to "
        f"{scale**2}; bilinear skip folded in front of the pixel shuffle; chroma goes through a fixed filter. "
        f"{cost} In training every convolution is a sum of branches that collapses exactly."
    )


def history(record: RunRecord | ShippedRecord) -> str:
    """Return how the weights came about, what they started from first."""
    if isinstance(record, ShippedRecord):
        return f"The weights of an earlier {record.name}, of which its card said: {record.told}"
    before = f"{history(record.follows)} Then: " if record.follows else ""
    settings = record.settings
    crops = f"{record.step:,} steps of {settings.batch} crops of {settings.patch_px}x{settings.patch_px} input pixels"
    if record.step < settings.steps:
        crops += f" (of {settings.steps:,} planned; the best by validation is kept)"
    device = record.device.replace("CPU, 1 threads", "CPU, 1 thread")
    exact = getattr(settings, "finetune_steps", 0) >= settings.steps
    arithmetic = "float32" if exact else "bfloat16"
    where = (
        f"{record.seconds / 60:.1f} minutes for the whole run on {device}, {arithmetic}, Adam at "
        f"{settings.learning_rate:g} down a cosine, moving average of the weights."
    )
    return f"{before}{crops}: {losses(record)}; {where}"


def losses(record: RunRecord) -> str:
    """Return what a run's steps lowered."""
    settings = record.settings
    if isinstance(settings, GanSettings):
        form = "squared" if settings.squared_features else "absolute"
        terms = [
            f"{settings.feature_weight:g} x {form} distance of features ({feature_name(settings.features)})",
            f"{settings.adversarial_weight:g} x adversarial loss",
            f"{settings.pixel_weight:g} x absolute error" if settings.pixel_weight else "",
            f"{settings.artefact_weight:g} x artefact map (Liang et al. 2022)" if settings.artefact_weight else "",
            f"{settings.consistency_weight:g} x consistency with the input" if settings.consistency_weight else "",
        ]
        spared = ", highlights kept out of feature and adversarial losses and held by Charbonnier's"
        spared = spared if settings.spare_highlights else ""
        blend = f"; what is kept is {settings.blend:g} of these weights and {1 - settings.blend:g} of the start's"
        return " + ".join(term for term in terms if term) + spared + (blend if settings.blend < 1 else "")
    assert isinstance(settings, PretrainSettings)
    terms = ["Charbonnier"] if settings.finetune_steps < settings.steps else []
    if settings.finetune_steps:
        last = f"the last {settings.finetune_steps:,} steps " if terms else ""
        form = "squared error" if settings.finetune_loss == "squared" else "logarithm of each crop's squared error"
        terms.append(f"{last}{form} in float32")
    if isinstance(settings, DistillSettings):
        terms.append(f"{settings.teacher_weight:g} x distance from {settings.teacher}")
    if settings.degradation == "robust":
        terms.append("input blurred, noisy, compressed (JPEG) at random, a quarter clean")
    if settings.coded_share:
        terms.append(f"{settings.coded_share:.0%} of the frames through H.264")
    return ", ".join(terms)


def feature_name(path: str) -> str:
    """Return what a feature network is called."""
    return "in-domain network" if Path(path).stem == "features" else Path(path).stem


def table(metrics: dict[str, Any], split: str, key: str, digits: int) -> str:
    """Return a Markdown table of one side: a row a form, a column a data set."""
    side = metrics[split]
    sets = sorted(side["bicubic"])
    rows = [f"| {split} | {' | '.join(sets)} |", f"|{'---|' * (len(sets) + 1)}"]
    shown = {form: figures for form, figures in side.items() if all(key in figures[dataset] for dataset in sets)}
    for form, figures in shown.items():
        rows.append(f"| {form} | {' | '.join(f'{figures[dataset][key]:.{digits}f}' for dataset in sets)} |")
    return "\n".join(rows)
