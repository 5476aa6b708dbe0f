"""Open a video file, or say in one line why it cannot be, and choose its tracks."""

from __future__ import annotations

import stat
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from streamsr.capture.base import Attachment, TrackInfo
from streamsr.errors import InputError, InputNotFound, InputUnsupported

WANT = "expected a video file"
HIGHEST_RATE = 240
"""Frames a second above which a stated rate is a time base in disguise (Matroska says 1000 for variable rates)."""

NO_TIMESTAMPS = 0x80
"""AVFMT_NOTIMESTAMPS: bare bitstreams such as raw H.264, whose stamps FFmpeg makes up."""

TEXT_DEMUXERS = frozenset({"tty", "txt"})
"""FFmpeg would draw any text file as a picture of a terminal."""

_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip", b"moof", b"styp", b"sidx"})
_MAGICS = (b"RIFF", b"\x1aE\xdf\xa3", b"FLV", b"OggS", b"\x30\x26\xb2\x75", b"\x00\x00\x01\xba", b"\x06\x0e\x2b\x34")
_COPIED = ("audio", "subtitle")


def open_container(path: Path) -> InputContainer:
    """Open a file with PyAV.

    Raises:
        InputNotFound: nothing is there.
        InputError: a folder or a pipe, no permission, an empty file, no video file, or one without its index.
    """
    _check_file(path)
    try:
        # With the protocol named, a colon in the name (recorders write times) is not taken for another one.
        container = av.open(f"file:{path}", metadata_errors="replace")
    except av.error.EOFError as cause:
        raise InputError(
            f"{path}: no video: expected pictures, found a header alone; record or copy it again"
        ) from cause
    except av.error.FFmpegError as cause:
        raise InputError(f"{path}: {WANT}, found {_sniff(path, cause)}") from cause
    if container.format.name in TEXT_DEMUXERS:
        container.close()
        raise InputError(f"{path}: not a video: {WANT}, found text; check the name")
    return container


def open_accelerated(path: Path) -> tuple[InputContainer, str]:
    """Open a file for an NVIDIA GPU's decoder; its pictures are copied to host memory.

    Returns:
        The file, and why it is decoded in software all the same: an empty line where it is not.

    Raises:
        InputError: as `open_container`.
    """
    from av.codec.hwaccel import HWAccel

    _check_file(path)
    try:
        container = av.open(
            f"file:{path}", metadata_errors="replace", hwaccel=HWAccel("cuda", allow_software_fallback=True)
        )
    except (av.error.FFmpegError, ValueError, RuntimeError) as cause:
        return open_container(path), f"no decoder of an NVIDIA GPU can be opened ({cause_of(cause)})"
    contexts = [track.codec_context for track in container.streams.video if track.codec_context]
    taken = [context for context in contexts if context.is_hwaccel]
    # FFmpeg 8.1 copies half of a surface's rows as chroma, rounded down: the last row of an odd height never arrives.
    odd = any(context.height % 2 for context in taken)
    if taken and not odd:
        return container, ""
    codecs = ", ".join(sorted({context.name for context in contexts})) or "such codec"
    container.close()
    return open_container(path), f"the GPU's decoder takes no {'odd height' if odd else codecs}"


def cause_of(error: Exception) -> str:
    """Return what an error says, in one line."""
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__


def choose_video(container: InputContainer, path: Path | str) -> tuple[VideoStream, list[str]]:
    """Choose the video track: the default one, else the largest; cover art is none.

    Returns:
        The track, and notices about those left out.

    Raises:
        InputUnsupported: no video, or none that can be decoded.
    """
    notices, tracks = [], []
    for track in container.streams.video:
        if track.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails):
            notices.append(f"track {track.index} is cover art: left out")
        else:
            tracks.append(track)
    if not tracks:
        kinds = ", ".join(sorted({track.type for track in container.streams})) or "nothing"
        raise InputUnsupported(f"{path}: no video: expected a video track, found {kinds}; give a file with pictures")
    decodable = [track for track in tracks if track.codec_context is not None]
    if not decodable:
        raise InputUnsupported(f"{path}: no decoder for its video track; convert it to H.264 first")
    chosen = max(decodable, key=_rank)
    notices += [f"track {track.index} is another video: left out" for track in tracks if track is not chosen]
    return chosen, notices


def stated_rate(track: VideoStream, *, timed: bool) -> Fraction | None:
    """Return the first believable rate of a track; None where it states none.

    Args:
        track: an open video track.
        timed: whether the source states times; FFmpeg's average is a made-up 25 where it does not.
    """
    context = track.codec_context
    stated = (track.average_rate, track.guessed_rate, context.framerate) if timed else (context.framerate,)
    return next((Fraction(rate) for rate in stated if rate and 0 < rate <= HIGHEST_RATE), None)


def list_tracks(container: InputContainer) -> tuple[tuple[TrackInfo, ...], list[str]]:
    """List the tracks that pass through, and notices about those that cannot."""
    tracks, notices = [], []
    for track in container.streams:
        if track.type in ("video", "attachment"):
            continue
        if track.type in _COPIED and track.codec_context is not None:
            tracks.append(TrackInfo(track.index, track.type, track.codec_context.name, track))
        else:
            what = track.name or "unknown codec" if hasattr(track, "name") else "unknown codec"
            notices.append(f"track {track.index} ({track.type}, {what}) cannot be copied: left out")
    return tuple(tracks), notices


def list_attachments(container: InputContainer) -> tuple[Attachment, ...]:
    """Read the files inside the container, for example fonts."""
    return tuple(
        Attachment(
            track.metadata.get("filename", f"attachment-{track.index}"),
            track.mimetype or track.metadata.get("mimetype", "application/octet-stream"),
            bytes(track.data),
        )
        for track in container.streams.attachments
    )


def index_exceeds(track: VideoStream, size: int) -> bool:
    """Return whether a file's index names pictures behind its end, which only a cut file has.

    Args:
        track: open.
        size: of the file, in bytes.
    """
    entries = track.index_entries
    # Pictures lie in decoding order but for a little interleaving, so the last entries tell.
    return any(
        entries[place].pos + entries[place].size > size for place in range(max(0, len(entries) - 64), len(entries))
    )


def _check_file(path: Path) -> None:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputError(f"{path}: {WANT}, found a folder; name the files in it")
        if not stat.S_ISREG(mode):
            # Opening a pipe would wait for its writer, perhaps for ever.
            raise InputError(f"{path}: expected a file, found {_kind(mode)}; write it to a file first")
        with path.open("rb") as file:
            if not file.read(1):
                raise InputError(f"{path}: empty file: {WANT}, found 0 bytes; copy or record it again")
    except FileNotFoundError as cause:
        raise InputNotFound(f"{path}: no such file: {WANT}; check the name") from cause
    except PermissionError as cause:
        raise InputError(f"{path}: no permission to read it: {WANT}; change its owner or mode") from cause
    except OSError as cause:
        raise InputError(f"{path}: cannot be read ({cause.strerror}): {WANT}; check the disk") from cause


def _kind(mode: int) -> str:
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFBLK: "a disk", stat.S_IFCHR: "a device"}
    return kinds.get(stat.S_IFMT(mode), "something else")


def _sniff(path: Path, cause: Exception) -> str:
    """Say what a file is that FFmpeg could not open, and what to do; the answer follows the word 'found'."""
    with path.open("rb") as file:
        head = file.read(4096)
    if head[4:8] in _BOXES and not _has_box(path, b"moov"):
        return "an MP4 with no index (recording cut?); repair it with a recovery tool, or record it again"
    if head[4:8] in _BOXES or head.startswith(_MAGICS):
        return f"a damaged one ({getattr(cause, 'strerror', cause)}); copy it again or repair it"
    what = "text" if _is_text(head) else "other data"
    return f"{what}: not a video; check the name"


def _has_box(path: Path, wanted: bytes) -> bool:
    """Walk the top-level boxes of an MP4 (ISO/IEC 14496-12, 4.2)."""
    end, place = path.stat().st_size, 0
    with path.open("rb") as file:
        while place + 8 <= end:
            file.seek(place)
            head = file.read(16)
            size = int.from_bytes(head[:4], "big")
            if head[4:8] == wanted:
                return True
            if size == 1:
                size = int.from_bytes(head[8:16], "big")
            if size < 8:
                return False
            place += size
    return False


def _is_text(head: bytes) -> bool:
    try:
        text = head[:-4].decode() if len(head) == 4096 else head.decode()
    except UnicodeDecodeError:
        return False
    return all(mark.isprintable() or mark in "\r\n\t\f" for mark in text)


def _rank(track: Any) -> tuple[bool, int, int]:
    size = track.codec_context.width * track.codec_context.height
    return bool(track.disposition & Disposition.default), size, -track.index
