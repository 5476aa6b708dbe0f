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
        hash: takes the SHA-256 once nothing is written to the file any more; None before.
        cut_short: whether its writer never closed it.
    """

    path: Path
    hash: FileHash | None = None
    cut_short: bool = False

    @property
    def is_over(self) -> bool:
        """Whether nothing is written to it any more."""
        return self.hash is not None

    def end(self, *, cut_short: bool) -> None:
        """Note that nothing is written to it any more."""
        self.hash, self.cut_short = self.hash or FileHash(self.path), cut_short

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
            "complete": self.is_over and not self.cut_short,
        }
