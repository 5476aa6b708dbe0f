"""Train a student from one settings file and make its engine folder: ``python -m streamsr.training SETTINGS.toml``."""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from streamsr.errors import StreamsrError, UsageError
from streamsr.training.pretrain import Pretraining, PretrainSettings
from streamsr.training.ship import ship

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_settings(path: Path) -> PretrainSettings:
    """Read a run's settings.

    Raises:
        UsageError: the file is unreadable, or has a key or a value that cannot be.
    """
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise UsageError(f"{path}: expected settings in TOML, got {cause}; see engines/*/train.toml") from cause
    known = {field.name for field in fields(PretrainSettings)}
    if unknown := sorted(set(values) - known):
        raise UsageError(
            f"{path}: expected the keys {', '.join(sorted(known))}, got {', '.join(unknown)}; remove these"
        )
    try:
        return PretrainSettings(**values)
    except TypeError as cause:
        raise UsageError(
            f"{path}: expected model, data and output, got {sorted(values)}; add what is missing"
        ) from cause


def main() -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m streamsr.training", description=__doc__)
    parser.add_argument("settings", type=Path, help="settings in TOML, see engines/*/train.toml")
    parser.add_argument("--engines", type=Path, default=Path("engines"), help="where the engine folder is made")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        run = Pretraining(read_settings(arguments.settings))
        student = run.run()
        ship(arguments.engines / run.settings.model, student, run.settings, seconds=run.seconds)
    except StreamsrError as error:
        print(f"streamsr.training: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
