"""FileSeries: one live recording: its files in order, the space they may take, and the sidecar that tells of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from av.error import FFmpegError

from streamsr.config import RecordSettings
from streamsr.errors import DiskFull, OutputError
from streamsr.sidecar import FileHash, statement_of_pictures, versions, write_sidecar
from streamsr.sinks.drafts import explained
from streamsr.sinks.live_encoder import Coded
from streamsr.sinks.live_file import LiveFile
from streamsr.sinks.live_log import RecordingLog, settings_entry
from streamsr.sinks.originals import Original
from streamsr.space import TAIL_BYTES, room_bytes

log = logging.getLogger(__name__)

CHECK_S = 1.0
"""Time between two looks whether the file is still there and the disk has room, where no picture asks earlier."""

SIDECAR_S = 4.0
"""Time between two writings of the sidecar, so that with what writing takes none is older than five seconds."""

FILE_BYTES = 1 << 30
"""A larger file is continued in a next one: hashing the last one then takes no longer than stopping may take (0.8 GB
a second on one core), and the file fits every disk."""

SIDECAR_BYTES = 1 << 20
"""Space kept for the last writing of the sidecar, beside what closing the file still has to write."""

HASH_BYTES = 4 << 20
"""Hashed at a time between pictures: 5 ms."""

HASH_S = 0.1
"""Time between two such slices while pictures come: 40 MB a second keep up with any recording, for 5 % of a core."""


@dataclass(eq=False)
class Take:
    """One stretch of recording, from being asked to being told to stop.

    Attributes:
        folder: where to.
        asked_ns: `time.monotonic_ns` of the asking.
        asked_utc: the same moment on the calendar.
        num_dropped: pictures that the encoder had no time for.
        failed: whether it ended by itself.
        done: whether nothing more of it will be written.
        paths: its files, in order.
        sidecar: its sidecar; None where none could be made.
        originals: the source's own files beside them, in order; written by somebody else.
    """

    folder: Path
    asked_ns: int = field(default_factory=time.monotonic_ns)
    asked_utc: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    num_dropped: int = 0
    failed: bool = False
    done: bool = False
    paths: tuple[Path, ...] = ()
    sidecar: Path | None = None
    originals: list[Original] = field(default_factory=list)


class FileSeries:
    """Writes one recording; owned by the recording thread. Made, its folder and its first sidecar exist.

    A new file begins where the encoder changes (the picture's shape changed, or the signal was lost) and where one has
    become large. Times run on over all files, so that what is missing between two of them shows.

    Args:
        take: what was asked for.
        settings: container and space to keep free.
        about: further entries for the sidecar, read anew at each writing.
        marks: tags of the files.

    Raises:
        DiskFull: less than the reserve is free already.
        OutputError: the folder cannot be made or written to.
    """

    def __init__(
        self, take: Take, settings: RecordSettings, *, about: Mapping[str, Any], marks: Mapping[str, str]
    ) -> None:
        self.take, self.settings, self.about, self.marks = take, settings, about, marks
        self.log = RecordingLog()
        self.files: list[LiveFile] = []
        self._open: LiveFile | None = None
        self._versions = versions()
        self._checked_s = self._written_s = self._hashed_s = time.monotonic()
        with explained(take.folder / "recording"):
            take.folder.mkdir(parents=True, exist_ok=True)
            self._stamp, take.sidecar = _claim(take.folder, take.asked_utc)
        self._check_space(0)
        self._write_sidecar()

    @property
    def seconds(self) -> float:
        """Recorded so far; what is missing between files does not count."""
        return sum(file.span_ms for file in self.files) / 1000

    def write(self, coded: Coded) -> None:
        """Write a picture.

        Raises:
            DiskFull: the reserve would be touched.
            OutputError: it cannot be written.
        """
        self._check_space(coded.packet.size)
        with explained(self._next_path()):
            file = self._file_for(coded)
            file.write(coded)
        self.log.add(coded.moment, coded.at_ms)

    def tick(self) -> None:
        """Look after the disk, the closed files' hashes and the sidecar when it is time.

        Raises:
            DiskFull: the reserve would be touched.
            OutputError: the file vanished, or the sidecar cannot be written.
        """
        now_s = time.monotonic()
        if now_s - self._checked_s >= CHECK_S:
            self._checked_s = now_s
            self._check_space(0)
            self._check_presence()
        if now_s - self._hashed_s >= HASH_S:
            self._hashed_s = now_s
            self.hash_more()
        if now_s - self._written_s >= SIDECAR_S:
            self._written_s = now_s
            if self._open is not None:
                with explained(self._open.path):
                    self._open.sync()
            self._write_sidecar()

    def finish_file(self) -> None:
        """Close the file that is open, if any; the next picture begins another one.

        Raises:
            OutputError: its end cannot be written.
        """
        file, self._open = self._open, None
        if file is not None:
            with explained(file.path):
                file.finish()

    def hash_more(self) -> bool:
        """Hash a little more of the closed files; return whether there is more to do."""
        hash_ = next(self._unhashed(), None)
        if hash_ is not None:
            with explained(hash_.path):
                hash_.advance(HASH_BYTES)
        return hash_ is not None

    @property
    def has_to_hash(self) -> bool:
        """Whether a closed file has no hash yet."""
        return next(self._unhashed(), None) is not None

    def _unhashed(self) -> Iterator[FileHash]:
        originals = (original.hash for original in self.take.originals if original.path.exists())  # it is not ours
        hashes = (*(file.hash for file in self.files), *originals)
        return (hash_ for hash_ in hashes if hash_ is not None and hash_.hexdigest is None)

    @property
    def awaits_original(self) -> bool:
        """Whether an original beside it is still written to."""
        return any(not original.is_over for original in self.take.originals)

    def abandon(self) -> None:
        """Close what is open as well as it can be, after a failure."""
        try:
            self.finish_file()
        except (OutputError, ValueError, FFmpegError) as failure:
            log.debug("closing a recording that had failed: %s", failure)

    def seal(self, trouble: str = "") -> None:
        """Write the final sidecar.

        Args:
            trouble: why the recording ended by itself; empty where it did not.

        Raises:
            OutputError: it cannot be written.
        """
        self._write_sidecar(final=True, trouble=trouble)

    def _file_for(self, coded: Coded) -> LiveFile:
        """Return the open file for a picture, beginning a new one where it has to be."""
        file = self._open
        is_full = file is not None and coded.is_key and file.num_bytes >= FILE_BYTES
        if file is None or file.encoder is not coded.encoder or is_full:
            self.finish_file()
            path = self._next_path()
            self.log.seconds(coded.at_ms)
            origin_ms = self.log.origin_ms or 0
            file = self._open = LiveFile(path, coded.encoder, origin_ms=origin_ms, marks=self.marks)
            self.files.append(file)
            self.take.paths = tuple(file.path for file in self.files)
            self._write_sidecar()  # no picture in a file that it does not name
        return file

    def _next_path(self) -> Path:
        return self.take.folder / f"enlarged-{self._stamp}-{len(self.files) + 1:03d}.{self.settings.container}"

    def _check_space(self, num_bytes: int) -> None:
        """Check that a picture, the end of the file and the sidecar leave the reserve alone."""
        with explained(self._next_path()):
            # Twice the original's own margin: the recording is the first to stop, and whoever owns both ends the other.
            num_writers = 2 * int(self.settings.keep_original)
            room = room_bytes(self.take.folder, self.settings.reserve_bytes, num_writers=num_writers)
        needed = num_bytes + SIDECAR_BYTES + (self._open.unwritten_bytes if self._open else 0)
        if room < needed:
            margin = num_writers * TAIL_BYTES + needed - num_bytes
            both = "recording and original" if num_writers else "the recording"
            raise DiskFull(
                f"recording stopped: expected {self.settings.reserve_bytes >> 20} MiB to stay free in"
                f" {self.take.folder} and {-(-margin >> 20)} MiB for {both} to end in, got less with the next picture;"
                " free some space and record again"
            )

    def _check_presence(self) -> None:
        if self._open is not None and not self._open.is_there:
            raise OutputError(
                f"recording stopped: expected {self._open.path.name} in {self.take.folder}, found it gone or replaced;"
                " record again into a folder that stays"
            )

    def _write_sidecar(self, *, final: bool = False, trouble: str = "") -> None:
        if self.take.sidecar is not None:
            write_sidecar(self.take.sidecar, self._describe(final=final, trouble=trouble))

    def _describe(self, *, final: bool, trouble: str) -> dict[str, Any]:
        take, asked_ms = self.take, self.take.asked_ns // 1_000_000
        early_ms = asked_ms - (self.log.origin_ms or asked_ms)
        return dict(self.about) | {
            "statement": statement_of_pictures(self.log.num_generated, self.log.num_pictures),
            "in_progress": not final,
            "begun_utc": (take.asked_utc - timedelta(milliseconds=early_ms)).isoformat(timespec="milliseconds"),
            "preroll_s": max(0, early_ms) / 1000,
            "written_utc": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "files": [*(file.describe() for file in self.files), *(file.describe() for file in take.originals)],
            "recording": settings_entry(self.settings),
            "versions": self._versions,
            "frames": {
                "written": self.log.num_pictures,
                "generated": self.log.num_generated,
                "dropped": take.num_dropped,
            },
            **self.log.describe(final=final),
            "trouble": trouble or None,
        }


def _claim(folder: Path, asked_utc: datetime) -> tuple[str, Path]:
    """Take a time stamp that no other recording in a folder has; return it and the sidecar, made and empty."""
    second = asked_utc.strftime("%Y%m%dT%H%M%SZ")
    for number in range(1, 1000):
        stamp = second if number == 1 else f"{second}-{number}"
        sidecar = folder / f"recording-{stamp}.json"
        try:
            sidecar.open("xb").close()
        except FileExistsError:
            continue
        return stamp, sidecar
    raise OutputError(f"expected less than 1000 recordings a second in {folder}, got more; wait a second")
