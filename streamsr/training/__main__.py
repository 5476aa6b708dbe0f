"""Train from a settings file where the command line is not installed: ``python -m streamsr.training KIND FILE``."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from streamsr.errors import StreamsrError
from streamsr.training.commands import train
from streamsr.training.settings import KINDS


def main() -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m streamsr.training", description=__doc__)
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("settings", type=Path, help="settings in TOML, see engines/*/train.toml")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        train(arguments.kind, arguments.settings)
    except StreamsrError as error:
        print(f"streamsr.training: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
