"""What a run is made of: one frozen dataclass a kind of run, read from one TOML file."""

from __future__ import annotations

import sys
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from streamsr.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class RunSettings:
    """What every run has.

    Attributes:
        model: name in `streamsr.training.networks.NETWORKS`.
        data: folder with MANIFEST.tsv.
        output: folder for checkpoints, log, curves and weights.
        steps: optimiser steps altogether.
        batch: crops a step.
        patch_px: side of the low-resolution crop.
        learning_rate: Adam's first rate; falls along a cosine to a thousandth.
        warm_steps: steps over which the rate rises from nothing.
        ema_decay: decay of the moving average of the weights that is validated and shipped.
        validate_every: steps between validations.
        validation_frames: frames of each set that are validated.
        checkpoint_every: steps between checkpoints at most; a run that was killed goes on from the last.
        checkpoint_seconds: seconds between checkpoints at most, but for a step or a validation that takes longer.
        log_every: steps between lines of the log.
        seed: crops and first weights are a function of it.
        threads: CPU threads.
        device: ``auto``, ``cpu`` or ``cuda``.
        compiled: whether the network is compiled first (GPU).
        deterministic: whether a GPU repeats a run bit for bit, which makes it slower; a CPU always does.
    """

    model: str
    data: str
    output: str
    steps: int = 40_000
    batch: int = 16
    patch_px: int = 48
    learning_rate: float = 1e-3
    warm_steps: int = 500
    ema_decay: float = 0.999
    validate_every: int = 4_000
    validation_frames: int = 8
    checkpoint_every: int = 400
    checkpoint_seconds: float = 45.0
    log_every: int = 200
    seed: int = 1
    threads: int = 1
    device: str = "auto"
    compiled: bool = False
    deterministic: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be."""
        self.bound(1, "steps", "batch", "patch_px", "validate_every", "validation_frames", "checkpoint_every")
        self.bound(1, "log_every", "threads")
        self.bound(0, "warm_steps", "checkpoint_seconds")
        self.bound(0, "learning_rate", "ema_decay", high=1)
        self.bound(0, "seed", high=1e9)
        if self.device not in ("auto", "cpu", "cuda"):
            raise UsageError(f"expected a device of auto, cpu or cuda, got {self.device!r}; mend the settings")

    def oddities(self) -> list[str]:
        """Return what the numbers say that is hardly meant, one line each."""
        if self.warm_steps < self.steps:
            return []
        return [f"warm_steps of {self.warm_steps} for {self.steps} steps: the rate never reaches learning_rate"]

    def bound(self, low: float, *names: str, high: float = sys.float_info.max) -> None:
        """Refuse numbers outside [low, high], NaN among them.

        Raises:
            UsageError: a named one is.
        """
        for name in names:
            if not low <= getattr(self, name) <= high:
                allowed = f"{low:g} or more" if high == sys.float_info.max else f"{low:g} to {high:g}"
                raise UsageError(f"expected {name} of {allowed}, got {getattr(self, name)}; mend the settings")


@dataclass(frozen=True)
class PretrainSettings(RunSettings):
    """A run towards the truth.

    Attributes:
        finetune_steps: how many of the steps, the last, run in float32 under squared error.
        finetune_loss: ``squared``, or ``psnr`` (its logarithm, so that smooth pictures count as much as detailed ones).
        fft_weight: weight of the L1 distance of spectra beside the Charbonnier loss.
        degradation: ``clean`` (bicubic) or ``robust`` (the endoscope's own, see `streamsr.training.degrade`).
        coded_share: share of the frames whose reduced picture went through H.264 (``robust``).
        start: weights to start from, as a run leaves them (safetensors); freshly drawn when empty.
    """

    finetune_steps: int = 3_000
    finetune_loss: str = "squared"
    fft_weight: float = 0.0
    degradation: str = "clean"
    coded_share: float = 0.0
    start: str = ""

    def __post_init__(self) -> None:
        """Refuse settings that cannot be."""
        super().__post_init__()
        if self.degradation not in ("clean", "robust"):
            raise UsageError(f"expected a degradation of clean or robust, got {self.degradation!r}; mend the settings")
        if self.finetune_loss not in ("squared", "psnr"):
            raise UsageError(f"expected finetune_loss squared or psnr, got {self.finetune_loss!r}; mend the settings")
        self.bound(0, "finetune_steps", "fft_weight")
        self.bound(0, "coded_share", high=1)
        if self.degradation == "robust" and (self.patch_px % 2 or self.patch_px < 4):
            raise UsageError(
                f"expected an even patch_px of 4 or more for robust, got {self.patch_px}; mend the settings"
            )
        if self.degradation == "clean" and self.coded_share:
            raise UsageError(f"expected coded_share of 0 for clean, got {self.coded_share}; set degradation to robust")

    def oddities(self) -> list[str]:
        """Return what the numbers say that is hardly meant, one line each."""
        lines = super().oddities()
        if self.finetune_steps > self.steps:
            lines.append(f"finetune_steps of {self.finetune_steps} for {self.steps} steps: all are under squared error")
        return lines


@dataclass(frozen=True)
class DistillSettings(PretrainSettings):
    """A run towards the truth and a larger network's picture of it.

    Attributes:
        teacher: name of the larger network.
        teacher_weights: its weights, as a run leaves them (safetensors).
        teacher_weight: weight of the L1 distance from its output.
    """

    teacher: str = ""
    teacher_weights: str = ""
    teacher_weight: float = 0.5

    def __post_init__(self) -> None:
        """Refuse settings that cannot be."""
        super().__post_init__()
        self.bound(0, "teacher_weight")


@dataclass(frozen=True)
class GanSettings(RunSettings):
    """An adversarial run from a generator that was trained towards the truth.

    The defaults are the loss of Ledig et al. 2017: squared error of features, plus 1e-3 of the adversarial loss.

    Attributes:
        start: weights of that generator, as a run leaves them (safetensors).
        features: file of the feature network, see `streamsr.quality.feature_files.load_feature_network`.
        feature_weight: weight of the distance of features.
        squared_features: whether that distance is squared (the paper) or absolute.
        pixel_weight: weight of the absolute error.
        adversarial_weight: weight of the adversarial loss.
        artefact_weight: weight of the artefact map's loss (Liang et al. 2022).
        consistency_weight: weight of the distance of the reduced output from the input.
        spare_highlights: keep saturated pixels away from feature and adversarial losses.
        discriminator_rate: Adam's first rate of the discriminator as a multiple of the generator's.
        blend: the part of the trained weights in those that are validated and kept; the rest is the start's (network
            interpolation, Wang et al. 2018, ESRGAN, section 3.4).
        squeezenet: trunk of the LPIPS-like distance that picks the best weights; none when empty.
        lpips_linear: its linear layers.
    """

    learning_rate: float = 1e-4
    start: str = ""
    features: str = ""
    feature_weight: float = 1.0
    squared_features: bool = True
    pixel_weight: float = 0.0
    adversarial_weight: float = 1e-3
    artefact_weight: float = 0.0
    consistency_weight: float = 0.0
    spare_highlights: bool = False
    discriminator_rate: float = 1.0
    blend: float = 1.0
    squeezenet: str = ""
    lpips_linear: str = ""

    def __post_init__(self) -> None:
        """Refuse settings that cannot be."""
        super().__post_init__()
        self.bound(0, "feature_weight", "pixel_weight", "adversarial_weight", "artefact_weight", "consistency_weight")
        self.bound(0, "discriminator_rate", "blend")
        if self.blend > 1 or (self.blend < 1 and not self.start):
            raise UsageError(
                f"expected a blend of 0 to 1 with weights of start, got {self.blend:g} with {self.start or 'none'}; "
                "1 keeps the trained weights"
            )
        if bool(self.squeezenet) != bool(self.lpips_linear):
            raise UsageError("expected squeezenet and lpips_linear together, got one of them; name both or none")


@dataclass(frozen=True)
class FeatureSettings(RunSettings):
    """A run that teaches the feature network of the domain; ``patch_px`` is the side of a full-resolution crop."""

    patch_px: int = 96
    batch: int = 64


Settings = TypeVar("Settings", bound=RunSettings)

KINDS: dict[str, type[RunSettings]] = {
    "pretrain": PretrainSettings,
    "gan": GanSettings,
    "distill": DistillSettings,
    "features": FeatureSettings,
}


def read_settings(path: Path, kind: type[Settings]) -> Settings:
    """Read a run's settings.

    Raises:
        UsageError: the file is unreadable, or has a key or a value that cannot be.
    """
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as cause:
        raise UsageError(f"{path}: expected a file of settings, got {cause.strerror}; check the path") from cause
    except ValueError as cause:
        raise UsageError(f"{path}: expected settings in TOML, got {cause}; see engines/*/train.toml") from cause
    known = {field.name: field for field in fields(kind)}
    if unknown := sorted(set(values) - set(known)):
        raise UsageError(
            f"{path}: expected the keys {', '.join(sorted(known))}, got {', '.join(unknown)}; remove these"
        )
    missing = [name for name, field in known.items() if field.default is MISSING and name not in values]
    if missing:
        raise UsageError(f"{path}: expected model, data and output, got no {', '.join(missing)}; add what is missing")
    for name, value in values.items():
        values[name] = _checked(path, name, value, str(known[name].type))
    return kind(**values)


def _checked(path: Path, name: str, value: Any, expected: str) -> Any:
    """Return a value of a key's type; whole numbers serve as fractions.

    Raises:
        UsageError: it is of another type.
    """
    if expected == "float" and type(value) is int:
        return float(value)
    if type(value).__name__ != expected:
        raise UsageError(f"{path}: expected {name} of type {expected}, got {value!r}; mend it")
    return value
