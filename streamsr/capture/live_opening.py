"""Open a live source with FFmpeg, and say in one line why it cannot be, and whether waiting may mend that."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import av
from av.container import InputContainer

from streamsr.capture.addresses import Address
from streamsr.capture.devices import describe_modes
from streamsr.capture.opening import TEXT_DEMUXERS
from streamsr.capture.unparsed import FORMATS, OPTION
from streamsr.dicom import is_dicom
from streamsr.errors import InputError, UsageError

MOST_DOUBTS = 3
"""Openings in a row that found no video before a network source is said to have none."""


class SourceLost(Exception):
    """A source that gives no more.

    Attributes:
        proof: so many openings in a row that end like this show that waiting will not mend it; 0 where none do.
    """

    def __init__(self, text: str, *, proof: int = 0) -> None:
        super().__init__(text)
        self.proof = proof


def open_live(address: Address) -> tuple[InputContainer, Address]:
    """Open a source with PyAV, in bounded time as far as FFmpeg heeds it.

    A web server's transport stream is only known as such once it is open, and is opened once more.

    Returns:
        The source, and its address with what was learnt.

    Raises:
        SourceLost: it cannot be opened.
    """
    path = Path(address.target.removeprefix("file:"))
    if address.kind == "file" and is_dicom(path):
        return _open_object(path, address)
    container = _open(address)
    if container.format.name in TEXT_DEMUXERS:
        raise SourceLost(f"{address.shown}: expected a video, found text; check the name", proof=1)
    if address.target.startswith("http") and container.format.name in FORMATS and not address.whole:
        container.close()
        address = replace(address, whole=True)
        container = _open(address)
    return container, address


def _open_object(path: Path, address: Address) -> tuple[InputContainer, Address]:
    """Open a DICOM object's bitstream, at the object's rate where it has none and none was given."""
    from streamsr.dicom.objects import read_object

    try:
        found = read_object(path)
        container, _ = found.open_bitstream()  # the container keeps the file, which closes with the last of both
    except (InputError, UsageError) as cause:
        raise SourceLost(str(cause).replace(str(path), address.shown), proof=1) from cause
    rate = found.rate
    return container, address if address.rate or rate is None else replace(address, rate=str(rate))


def _open(address: Address) -> InputContainer:
    try:
        return av.open(
            address.target,
            format=address.demuxer,
            options={**(OPTION if address.whole else {}), **dict(address.options)},
            metadata_errors="replace",
            timeout=None if address.may_stall else (address.open_timeout_s, address.read_timeout_s),
        )
    except av.error.FFmpegError as cause:
        text = f"{address.shown}: cannot be opened: {reason_of(cause, address, opening=True)}"
        offers = describe_modes(address.target) if address.kind == "device" else ""
        text += f"; it offers {offers}" if offers else ""
        raise SourceLost(text, proof=proof_of(cause, address)) from cause


def reason_of(cause: av.error.FFmpegError, address: Address, *, opening: bool = False) -> str:
    """Say what FFmpeg met, in words that hold no part of the address."""
    if isinstance(cause, (av.error.ExitError, av.error.TimeoutError)):
        return f"nothing came within {address.open_timeout_s if opening else address.read_timeout_s:g} s"
    if isinstance(cause, av.error.EOFError):
        return "it ended before its first picture"
    if isinstance(cause, av.error.InvalidDataError):
        return "expected video, found other data; check the source and --input-format"
    if cause.errno == errno.EBUSY:
        return "it is busy: close the program that uses it"
    if address.kind == "device" and cause.errno == errno.EINVAL:
        return "it does not offer this size, rate or format; see streamsr devices"
    return str(cause.strerror or "it failed")


def proof_of(cause: av.error.FFmpegError, address: Address) -> int:
    """Return how many openings in a row must end with an error to show that waiting will not mend it; 0: none do."""
    if isinstance(cause, av.error.InvalidDataError):
        # A network source may have been met in the middle of damage.
        return MOST_DOUBTS if address.recurs else 1
    if isinstance(cause, av.error.EOFError):
        return 0 if address.recurs else 1
    lasting = (
        av.error.HTTPClientError,
        av.error.LookupError,
        av.error.FileNotFoundError,
        av.error.PermissionError,
        av.error.ArgumentError,
    )
    return int(isinstance(cause, lasting) or cause.errno == errno.EBUSY)
