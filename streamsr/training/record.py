"""What a run's folder, or the engine it started from, tells of how weights came about."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path, PureWindowsPath

from streamsr.errors import UsageError
from streamsr.training.curves import read_log
from streamsr.training.run import BEST
from streamsr.training.settings import KINDS, RunSettings


@dataclass(frozen=True)
class RunRecord:
    """What a run's folder tells of it.

    Attributes:
        kind: ``pretrain``, ``gan``, ``distill`` or ``features``.
        settings: of the run.
        device: name of what it ran on.
        step: at which its best weights were validated.
        seconds: that it ran, loading and validation included.
        folder: where its weights, log and curves are.
        follows: the run or the engine whose weights it started from, if its folder is there.
    """

    kind: str
    settings: RunSettings
    device: str
    step: int
    seconds: float
    folder: Path
    follows: RunRecord | ShippedRecord | None = None

    def stages(self) -> dict[str, str]:
        """Return the settings of this run and of those before it, by file name: ``stage-1.toml`` on, ``train.toml``."""
        before = list(self.follows.stages().values()) if self.follows else []
        earlier = {f"stage-{number}.toml": text for number, text in enumerate(before, 1)}
        return {**earlier, "train.toml": settings_text(self)}


@dataclass(frozen=True)
class ShippedRecord:
    """What an engine tells of how its weights came about.

    Attributes:
        name: of the engine.
        told: what its card says of losses and run.
        folder: of the engine.
    """

    name: str
    told: str
    folder: Path

    def stages(self) -> dict[str, str]:
        """Return the settings files that lie beside it, in order; see `RunRecord.stages`."""
        paths = [*sorted(self.folder.glob("stage-*.toml")), self.folder / "train.toml"]
        return {path.name: path.read_text(encoding="utf-8") for path in paths if path.is_file()}


def read_run(folder: Path) -> RunRecord:
    """Read a run's log.

    Raises:
        UsageError: there is none, or it is of another version.
    """
    try:
        lines = read_log(folder)
        starts = [line for line in lines if "settings" in line]
        values, devices = starts[-1]["settings"], dict.fromkeys(line["device"] for line in starts)
        best = max((line for line in lines if "score" in line), key=lambda line: float(line["score"]))
    except (OSError, LookupError, ValueError) as cause:
        raise UsageError(
            f"{folder}: expected the folder of a run with a validation in its log.jsonl, got none; name another"
        ) from cause
    for kind, form in sorted(KINDS.items(), key=lambda item: len(fields(item[1]))):
        if set(values) <= {field.name for field in fields(form)}:
            settings = form(**values)
            before = _run_before(folder, getattr(settings, "start", ""))
            seconds = max(float(line.get("seconds", 0.0)) for line in lines)
            return RunRecord(kind, settings, " and ".join(devices), best["step"], seconds, folder, before)
    raise UsageError(f"{folder}: expected settings of this version, got others; train it anew")


def _run_before(folder: Path, start: str) -> RunRecord | ShippedRecord | None:
    """Return what another started from: a run, where it is or beside under its old name, or an engine."""
    if not start:
        return None
    if (card := Path(start).with_name("card.md")).is_file():
        return _shipped(card)
    for before in (Path(start).parent, folder.parent / Path(start).parent.name):
        if before != folder and (before / "log.jsonl").is_file():
            return read_run(before)
    return None


def _shipped(card: Path) -> ShippedRecord:
    """Return what an engine's card says of its run, without what it says of the files beside it."""
    told = card.read_text(encoding="utf-8").partition("**Losses and run.** ")[2].partition("\n\n")[0]
    return ShippedRecord(card.parent.name, " ".join(told.partition(" `train.toml` beside")[0].split()), card.parent)


def is_robust(record: RunRecord) -> bool:
    """Return whether a run's weights are to know degraded input."""
    return getattr(record.settings, "degradation", "clean") == "robust"


def settings_text(record: RunRecord) -> str:
    """Return the settings of a run as TOML, with the paths of this machine taken out."""
    values = {field.name: getattr(record.settings, field.name) for field in fields(record.settings)}
    values |= {"data": "DATA", "output": f"runs/{record.folder.name}"}
    for name in ("start", "teacher_weights", "features", "squeezenet", "lpips_linear"):
        if path := values.get(name):
            values[name] = portable(path)
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return f"# streamsr train {record.kind} train.toml\n" + "\n".join(lines) + "\n"


def portable(path: str) -> str:
    """Return a path without the folders of this machine: a run's or an engine's file keeps the name of its folder."""
    *_, folder, name = ("", *PureWindowsPath(path).parts)  # which splits at both kinds of slash
    if name == "model.safetensors":
        return f"engines/{folder}/{name}"
    return f"runs/{folder}/{name}" if name in (BEST, "features.safetensors") else f"weights/{name}"
