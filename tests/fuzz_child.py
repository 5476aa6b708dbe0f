"""Open and decode damaged containers, one after another: ``python -m tests.fuzz_child CLIP FIRST LAST``.

In a process of its own, so that a crash of a codec is seen. Every case prints its number before it begins and how it
ended after it: ``ok N`` (frames), ``refused`` (one of our errors in one line), or the trace of what should not be.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path

import cv2  # noqa: F401 (before PyAV)

from streamsr.capture import open_source
from streamsr.errors import StreamsrError
from streamsr.frame import Frame
from tests.mutations import damaged

MOST_FRAMES = 100
"""No damage may make more of a clip of eight frames."""


def case(content: bytes, path: Path) -> str:
    """Read one damaged file to its end; return how it ended."""
    path.write_bytes(content)
    num = 0
    try:
        with open_source(path, threads=1) as source:
            for item in source:
                num += isinstance(item, Frame)
                if num > MOST_FRAMES:
                    return f"endless: more than {MOST_FRAMES} frames"
    except StreamsrError as cause:
        return "refused" if "\n" not in str(cause) else f"long-winded: {cause!r}"
    return f"ok {num}"


def main() -> None:
    """Run the cases that the command line names."""
    logging.disable(logging.CRITICAL)
    clip, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    content = clip.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / clip.name
        for seed in range(first, last):
            print(f"case {seed}", flush=True)
            print(case(damaged(content, seed), path), flush=True)
            assert [left.name for left in Path(folder).iterdir()] == [clip.name]


if __name__ == "__main__":
    main()
