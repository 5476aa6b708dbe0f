"""FileSource: every video file as frames with the source's time and colour, and the packets that pass through."""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Callable, Generator, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream

from streamsr.capture.base import SourceInfo, SourceReport, TrackPacket
from streamsr.capture.decode import Decoder, read_packets
from streamsr.capture.opening import (
    NO_TIMESTAMPS,
    cause_of,
    choose_video,
    index_exceeds,
    list_attachments,
    list_tracks,
    open_accelerated,
    open_container,
    stated_rate,
)
from streamsr.capture.pictures import FrameMaker, Sampling
from streamsr.capture.surfaces import REFUSALS, Surfaces, open_kept
from streamsr.capture.times import Splicer, find_holes
from streamsr.errors import InputError, UsageError
from streamsr.frame import Frame

DEFAULT_RATE = Fraction(25)
SHORTEST_LOSS_S = 0.1
"""How much before its stated end a track may end without being called truncated, where no count of frames helps."""

CHOICES = {"resize": ("parts", "fit"), "deinterlace": ("auto", "on", "off"), "hwaccel": ("none", "cuda")}


class FileSource:
    """A video file as a `Source`; opened when made, closed by leaving the ``with``.

    Planes are views of the decoder's own pictures wherever these are planar. Frames come in presentation order with the
    file's pts; what cannot be kept (a repeated time, a clock that jumps back) is mended and said in the report.

    Args:
        path: the file.
        rate: frames a second of a file without times (raw H.264); None takes the bitstream's word, else 25.
        resize: what a change of size in mid-file does: ``parts`` gives frames of the new size, ``fit`` scales them to
            the first size.
        deinterlace: ``auto`` from the first picture flagged as interlaced, ``on`` every picture, ``off`` none.
        threads: for decoding; 0 lets FFmpeg choose.
        hwaccel: ``cuda`` decodes on an NVIDIA GPU where that takes the file, and says where it does not; ``none`` in
            software.

    Raises:
        InputNotFound: nothing is there.
        InputError: it is no video file, or no picture of it can be decoded.
        UsageError: an option that cannot be.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        rate: Fraction | None = None,
        resize: str = "parts",
        deinterlace: str = "auto",
        threads: int = 0,
        hwaccel: str = "none",
    ) -> None:
        _check_options(rate, resize=resize, deinterlace=deinterlace, hwaccel=hwaccel)
        if path == "":
            raise InputError("expected the name of a video file, got an empty name; name a file")
        self.report = SourceReport()
        self._path = Path(path)
        self._noted: set[str] = set()
        self._items: Generator[Frame | TrackPacket, None, None] | None = None
        self._surfaces: Surfaces | None = None
        self._accelerated = False
        self._options = (rate, resize == "fit", deinterlace, threads)
        self._container = self._open_accelerated() if hwaccel == "cuda" else self._open_container()
        self._start()

    @property
    def info(self) -> SourceInfo:
        """What is known before the first frame."""
        return self._info

    def __iter__(self) -> Iterator[Frame | TrackPacket]:
        """Give out the frames and packets, once."""
        while self._ahead:
            yield self._count(self._ahead.pop(0))
        for item in self._items or ():
            yield self._count(item)

    def __enter__(self) -> FileSource:
        """Return itself, open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def keep_on(self, device: str) -> None:
        """Let pictures that a GPU decodes stay there, as `streamsr.device_frame.DevicePlane`s; before any iteration.

        The file is opened again for that. Where that fails, pictures come by way of the host as before, and a notice
        says why; those that the host has work with (to deinterlace, to turn, to scale) always do.

        Args:
            device: torch's name of the GPU that reads them; nothing happens where no GPU decodes the file.
        """
        if not self._accelerated or self._options[2] == "on":
            return
        try:
            self._start_again(lambda: self._open_kept(device), Surfaces(device, self._note))
        except (*REFUSALS, InputError) as cause:
            self._start_again(self._open_accelerated, None)
            self._note(f"decoded pictures come by way of the host: {cause_of(cause)}")

    def close(self) -> None:
        """Close the file; frames given out stay valid. Not while another thread iterates."""
        if self._items is not None:
            self._items.close()
        if self._surfaces is not None:
            self._surfaces.release()
        self._container.close()

    def _start(self) -> None:
        try:
            self._open(*self._options)
        except BaseException:
            self.close()
            raise

    def _start_again(self, reopen: Callable[[], InputContainer], surfaces: Surfaces | None) -> None:
        """Open the file another way and read up to its first frame again; nothing that was read counts."""
        self.close()
        self._noted.clear()
        self.report.gaps.clear()
        self.report.notices.clear()
        self.report.truncated = False
        self._container, self._surfaces = reopen(), surfaces
        self._start()

    def _open_container(self) -> InputContainer:
        return open_container(self._path)

    def _open_accelerated(self) -> InputContainer:
        container, why_not = open_accelerated(self._path)
        self._accelerated = not why_not
        self._note(f"decoded in software: {why_not}" if why_not else "decoded by the GPU (NVDEC)")
        return container

    def _open_kept(self, device: str) -> InputContainer:
        container = open_kept(self._path, device)
        self._note("decoded by the GPU (NVDEC)")
        return container

    def _num_bytes(self) -> int:
        return self._path.stat().st_size

    def _open(self, rate: Fraction | None, fits: bool, deinterlace: str, threads: int) -> None:
        self._video, notices = choose_video(self._container, self._path)
        self._tracks, left_out = list_tracks(self._container)
        for notice in notices + left_out:
            self._note(notice)
        sampling = self._sample(rate, fits, deinterlace)
        self._time_base = sampling.time_base
        self._decoder = Decoder(self._video, self.report, threads=threads)
        self._splicer = Splicer()
        self._frames = FrameMaker(sampling, self._note, surfaces=self._surfaces)
        self._shown = array("q")
        self._items = self._read(timed=sampling.timed)
        self._ahead = self._read_ahead(self._items)
        self._info = self._inform(sampling)
        self.report.notices.clear()

    def _sample(self, rate: Fraction | None, fits: bool, deinterlace: str) -> Sampling:
        context = self._video.codec_context
        timed = not self._container.format.flags & NO_TIMESTAMPS
        stated = stated_rate(self._video, timed=timed)
        if timed and rate is not None:
            self._note("the rate given is not used: the file states its times")
        elif not timed and rate is None:
            basis = " (its bitstream says so)" if stated else ""
            self._note(f"assuming {float(stated or DEFAULT_RATE):g} fps{basis}; set --rate")
        nominal = stated or DEFAULT_RATE if timed or rate is None else rate
        return Sampling(
            codec=context.name,
            time_base=self._video.time_base or Fraction(1, 1000) if timed else 1 / nominal,
            rate=nominal,
            timed=timed,
            sample_aspect=self._video.sample_aspect_ratio or Fraction(1),
            fits=fits,
            deinterlace=deinterlace,
        )

    def _packets(self, tracks: list[Stream]) -> Iterator[Packet[Any]]:
        return read_packets(self._container, tracks, self.report)

    def _read(self, *, timed: bool) -> Generator[Frame | TrackPacket, None, None]:
        tracks = [self._video, *(track.template for track in self._tracks)]
        for packet in self._packets(tracks):
            if timed and self._splicer.move(packet, packet.stream_index):
                self._note(
                    f"warning: the clock jumps back after {float(self._splicer.end_s):.2f} s: what follows is rebased"
                )
            if packet.stream_index != self._video.index:
                yield TrackPacket(packet.stream_index, packet)
                continue
            for picture in self._decoder.decode(packet):
                yield from self._frames.make(picture)
        for picture in self._decoder.drain():
            yield from self._frames.make(picture)
        yield from self._frames.flush()
        self._conclude()

    def _read_ahead(self, items: Iterator[Frame | TrackPacket]) -> list[Frame | TrackPacket]:
        """Read up to the first frame: only that tells rotation, true pixel format and interlacing."""
        ahead: list[Frame | TrackPacket] = []
        for item in items:
            ahead.append(item)
            if isinstance(item, Frame):
                return ahead
        found = "none that can be decoded" if self._decoder.num_packets else "none in its video track"
        raise InputError(f"{self._path}: no video: expected pictures, found {found}; record or copy it again")

    def _count(self, item: Frame | TrackPacket) -> Frame | TrackPacket:
        if isinstance(item, Frame):
            self.report.num_frames += 1
            self._shown.append(item.pts)
        return item

    def _inform(self, sampling: Sampling) -> SourceInfo:
        first = next(item for item in self._ahead if isinstance(item, Frame))
        tracks = (self._video, *(track.template for track in self._tracks))
        starts_s = [float(track.start_time * track.time_base) for track in tracks if track.start_time is not None]
        duration = self._container.duration
        return SourceInfo(
            name=str(self._path),
            width=first.width,
            height=first.height,
            layout=first.layout,
            colour=first.colour,
            time_base=sampling.time_base,
            rate=sampling.rate,
            sample_aspect=first.sample_aspect,
            num_frames=self._stated_frames(),
            duration_s=None if duration is None else duration / 1e6,
            start_s=min(starts_s, default=0.0) if sampling.timed else 0.0,
            codec=sampling.codec,
            pix_fmt=first.layout.pix_fmt if self._accelerated else str(self._video.codec_context.pix_fmt),
            tracks=self._tracks,
            attachments=list_attachments(self._container),
            metadata=dict(self._container.metadata),
            notices=tuple(self.report.notices),
        )

    def _stated_frames(self) -> int | None:
        tags = self._video.metadata
        tagged = next((tags[key] for key in ("NUMBER_OF_FRAMES", "NUMBER_OF_FRAMES-eng") if key in tags), "")
        return self._video.frames or (int(tagged) if tagged.isdecimal() else None) or None

    def _conclude(self) -> None:
        """Say whether the file ended before it should have: fewer packets than stated, and an early end."""
        stated, stated_end_s = self._stated_frames(), self._stated_end_s()
        if "mpegts" in self._container.format.name and len(self._splicer.offsets_s) == 1:
            self.report.gaps.extend(find_holes(self._shown, self._time_base))
        if self._decoder.num_hidden:
            self._note(f"{self._decoder.num_hidden} pictures are hidden by the file's edit list: not shown")
        all_there = stated is not None and self._decoder.num_packets >= stated
        grace_s = 0.5 / float(self._frames.rate) if stated else SHORTEST_LOSS_S
        ends_early = stated_end_s is not None and not all_there and self._end_s() < stated_end_s - grace_s
        if ends_early or index_exceeds(self._video, self._num_bytes()):
            self.report.truncated = True
        if self.report.truncated:
            given = self._frames.num_frames
            count = f"{given} frames" if stated is None else f"{given} of {stated} frames"
            self._note(
                f"truncated: {count}" + ("" if stated_end_s is None else f", the end was to be at {stated_end_s:.2f} s")
            )

    def _end_s(self) -> float:
        """Return when the last packet of the video ends, in seconds; of any track where Matroska states only that."""
        end_pts = self._decoder.end_pts
        end_s = -math.inf if end_pts is None else float(end_pts * (self._video.time_base or 0))
        return end_s if self._video_end_s() is not None else max(end_s, float(self._splicer.end_s))

    def _stated_end_s(self) -> float | None:
        """Return when the video ends as the file's header says, in seconds."""
        video_end_s = self._video_end_s()
        # Other containers' durations are estimates made from what is there, which say nothing about what is missing.
        if video_end_s is not None or "matroska" not in self._container.format.name or not self._container.duration:
            return video_end_s
        return self._container.duration / 1e6

    def _video_end_s(self) -> float | None:
        """Return when the video track ends, in seconds; Matroska says so in a tag, if at all."""
        track = self._video
        if track.duration is not None:
            return float((track.duration + (track.start_time or 0)) * (track.time_base or 0))
        clock = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", track.metadata.get("DURATION", ""))
        return float(clock[1]) * 3600 + float(clock[2]) * 60 + float(clock[3]) if clock else None

    def _note(self, line: str) -> None:
        if line not in self._noted:
            self._noted.add(line)
            self.report.notices.append(line)


def _check_options(rate: Fraction | None, **chosen: str) -> None:
    if rate is not None and rate <= 0:
        raise UsageError(f"rate: expected more than 0 frames a second, got {rate}; give for example 25 or 30000/1001")
    for name, value in chosen.items():
        if value not in CHOICES[name]:
            raise UsageError(f"{name}: expected one of {', '.join(CHOICES[name])}, got {value!r}")
