"""Whether a folder can take a recording, asked before there is anything to record."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from streamsr.errors import DiskFull
from streamsr.sinks.drafts import explained


def check_folder(folder: Path, reserve_bytes: int) -> None:
    """Make a folder where it is missing, and write to it once.

    Args:
        folder: of recordings to come.
        reserve_bytes: that must stay free.

    Raises:
        DiskFull: less than the reserve is free already.
        OutputError: it is no folder, cannot be made, or cannot be written to.
    """
    with explained(folder / "recording"):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"0")
            probe.flush()
        free = shutil.disk_usage(folder).free
    if free < reserve_bytes:
        raise DiskFull(
            f"--record {folder}: expected more than {reserve_bytes >> 20} MiB free, which recording leaves alone"
            f" (--reserve), got {free >> 20} MiB; free some space"
        )
