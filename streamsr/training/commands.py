"""The four kinds of run, from a settings file to trained weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from streamsr.errors import UsageError
from streamsr.training.settings import KINDS, read_settings


def train(kind: str, path: Path) -> Path:
    """Train what a settings file says, going on from its newest checkpoint.

    Args:
        kind: ``pretrain``, ``gan``, ``distill`` or ``features``.
        path: of the settings.

    Returns:
        The run's folder: ``best.safetensors``, ``log.jsonl``, ``curves.png`` and ``checkpoints``.

    Raises:
        UsageError: the kind or the settings cannot be.
        InputError: the data cannot be used.
        OutputError: a checkpoint or the weights cannot be written.
    """
    if kind not in KINDS:
        raise UsageError(f"expected a run among {', '.join(KINDS)}, got {kind!r}; choose one of these")
    settings = read_settings(path, KINDS[kind])
    make_run(kind, settings).run()
    return Path(settings.output)


def make_run(kind: str, settings: Any) -> Any:
    """Return the run of a kind; only its own rooms are imported."""
    if kind == "gan":
        from streamsr.training.gan import AdversarialTraining

        return AdversarialTraining(settings)
    if kind == "features":
        from streamsr.training.features import FeatureTraining

        return FeatureTraining(settings)
    from streamsr.training.pretrain import Distilling, Pretraining

    return cast("Any", Distilling if kind == "distill" else Pretraining)(settings)
