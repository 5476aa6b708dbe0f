"""The bitstream inside a DICOM object: its fragments, found without reading them, and a file of them put together."""

from __future__ import annotations

import io
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from streamsr.errors import InputError

ITEM, DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
PIXEL_DATA = b"\xe0\x7f\x10\x00"
UNDEFINED = b"\xff\xff\xff\xff"
MOST_FRAGMENTS = 1_000_000
"""Far above what any object holds; a damaged one could name empty fragments without end."""


@dataclass(frozen=True)
class Fragments:
    """Where the parts of a bitstream lie in a file.

    Attributes:
        starts: offset of each part in the file, rising.
        sizes: bytes of each part.
        whole: whether the object ends as it should.
    """

    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    whole: bool

    @property
    def num_bytes(self) -> int:
        """Of the bitstream."""
        return sum(self.sizes)


def find_fragments(file: BinaryIO, path: Path) -> Fragments:
    """Find the fragments of encapsulated pixel data (PS3.5, A.4); the first item, the offset table, is none.

    pydicom's own finder refuses an object that was cut; here what is left of one counts.

    Args:
        file: open, at the beginning of the pixel data element.
        path: for messages.

    Raises:
        InputError: no pixel data, or such that is not encapsulated.
    """
    head = file.read(12)
    if head[:4] != PIXEL_DATA:
        raise InputError(f"{path}: expected a DICOM object with video, found one without pixel data; copy it again")
    if head[8:] != UNDEFINED:
        raise InputError(f"{path}: expected encapsulated video, found pixel data that is not; store it again")
    place = file.tell()
    end = file.seek(0, io.SEEK_END)
    starts: list[int] = []
    sizes: list[int] = []
    whole, is_table = False, True
    while len(starts) < MOST_FRAGMENTS:
        file.seek(place)
        item = file.read(8)
        if item[:4] != ITEM or len(item) < 8:
            whole = item[:4] == DELIMITER
            break
        size = int.from_bytes(item[4:], "little")
        place += 8
        if not is_table and size and place < end:
            starts.append(place)
            sizes.append(min(size, end - place))
        is_table = False
        place += size
    return Fragments(tuple(starts), tuple(sizes), whole)


class FragmentFile(io.RawIOBase):
    """A readable file that is the fragments of an object put together; nothing is copied, and little held in memory.

    Args:
        path: of the object.
        fragments: of its bitstream.

    Attributes:
        name: of the object.
    """

    def __init__(self, path: Path, fragments: Fragments) -> None:
        super().__init__()
        self.name = str(path)
        self._file = path.open("rb")
        self._fragments, self._place = fragments, 0
        self._edges = [0]
        for size in fragments.sizes:
            self._edges.append(self._edges[-1] + size)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return where in the bitstream the next byte is read."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place in the bitstream; return it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._edges[-1]}[whence]
        self._place = max(0, base + offset)
        return self._place

    def read(self, size: int = -1) -> bytes:
        """Read bytes, across fragments; fewer only at the end."""
        left = self._edges[-1] - self._place if size is None or size < 0 else size
        parts = []
        while left > 0 and self._place < self._edges[-1]:
            part = bisect_right(self._edges, self._place) - 1
            within = self._place - self._edges[part]
            self._file.seek(self._fragments.starts[part] + within)
            data = self._file.read(min(left, self._fragments.sizes[part] - within))
            if not data:
                break
            parts.append(data)
            self._place += len(data)
            left -= len(data)
        return b"".join(parts)

    def close(self) -> None:
        """Close the object's file."""
        file = getattr(self, "_file", None)
        if file is not None:
            file.close()
        super().close()
