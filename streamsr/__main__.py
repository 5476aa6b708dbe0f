"""Run the command line: ``python -m streamsr``, and the console script."""

import os
import signal
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130
"""The exit code of `errors.Interrupted`, which is not loaded yet."""


def main() -> NoReturn:
    """Load the command line and run it; an interrupt while it loads ends the program with one line, too."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    from streamsr.cli import main as run

    run()


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """End the program: nothing has begun yet, so there is nothing to close."""
    os.write(2, b"streamsr: interrupted\n")
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
