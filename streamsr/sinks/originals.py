"""Originals: the source's own files beside a recording, as its sidecar lists them; somebody else writes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamsr.sidecar import FileHash


@dataclass(eq=False)
class Original:
    """One file of the source's own packets.

    Attributes:
        path: of the file.
        hash: takes the SHA-256 once the file is complete; None before.
    """

    path: Path
    hash: FileHash | None = None

    @property
    def is_complete(self) -> bool:
        """Whether whoever writes it has closed it."""
        return self.hash is not None

    def complete(self) -> None:
        """Note that nothing is written to it any more."""
        self.hash = self.hash or FileHash(self.path)

    def describe(self) -> dict[str, Any]:
        """Return what the sidecar says of it; the hash is None where it is not known yet or there was no time."""
        try:
            num_bytes = self.path.stat().st_size
        except OSError:
            num_bytes = 0
        return {
            "name": self.path.name,
            "kind": "original",
            "bytes": num_bytes,
            "sha256": self.hash.hexdigest if self.hash else None,
            "complete": self.is_complete,
        }
