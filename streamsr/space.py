"""Free space: what a disk has room for above what is to stay free, where more than one writes to it."""

from __future__ import annotations

import shutil
from pathlib import Path

TAIL_BYTES = 4 << 20
"""What a writer may still put on the disk once it ends: what its muxer holds, an index, a sidecar."""


def room_bytes(folder: Path, reserve_bytes: int, *, num_writers: int) -> int:
    """Return what may be written into a folder: what is free, less the reserve and the tails of all who write there.

    Args:
        folder: on the disk.
        reserve_bytes: that stay free.
        num_writers: tails that are left room for, beside what the caller counts itself.

    Raises:
        OSError: the disk cannot be asked.
    """
    return shutil.disk_usage(folder).free - reserve_bytes - num_writers * TAIL_BYTES
