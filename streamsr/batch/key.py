"""The key of a piece of work: a hash of all that decides what its result is."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from typing import Any

from streamsr.config import UpscaleSettings
from streamsr.engine import Engine
from streamsr.sidecar import plain


def settings_key(engine: Engine, settings: UpscaleSettings, container: str) -> str:
    """Return the hash of an engine's weights and of the settings that a result depends on.

    How many threads and GPUs work on it, what decodes, and whether a result may be replaced change nothing in it, so
    they are left out.

    Args:
        engine: which generator.
        settings: the rest.
        container: suffix of the results, without its dot.
    """
    generator = replace(settings.generator, threads=None, engine=engine.name)
    counted = asdict(replace(settings, generator=generator, overwrite=False))
    del counted["read"]["hwaccel"], counted["generator"]["gpus"]
    weights = {"name": engine.name, "scale": engine.scale, "files": engine.files}
    return _hash({"engine": weights, "settings": counted, "container": container})


def work_key(sha256: str, settings: str, *, segment: tuple[int, int | None] | None = None) -> str:
    """Return the key of a piece of work.

    Args:
        sha256: of the input's content.
        settings: `settings_key`.
        segment: first pts and the pts behind the last, in the source's time base; None for a whole file.
    """
    return _hash({"input": sha256, "settings": settings, "segment": segment})


def _hash(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain(content), sort_keys=True).encode()).hexdigest()
