"""DicomSource: the video inside a DICOM object as a source like any other; of what the object says, only its timing."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from av.container import InputContainer

from streamsr.capture.base import SourceInfo
from streamsr.capture.files import FileSource
from streamsr.capture.opening import NO_TIMESTAMPS
from streamsr.capture.pictures import Sampling
from streamsr.dicom.objects import read_object


class DicomSource(FileSource):
    """A DICOM object with MPEG-2, H.264 or HEVC video as a `Source`.

    The bitstream's own times count; where it has none, those of the object (Frame Time Vector, Frame Time, Cine Rate,
    Recommended Display Frame Rate, in this order) do, unless the caller states a rate. No attribute of the patient is
    read, so none can reach a result.

    Args:
        path: the object.
        rate: frames a second of a bitstream without times; None takes the object's word.
        options: further ones of `FileSource`.

    Raises:
        InputError: no DICOM object, one without video, or a video that cannot be read.
        UsageError: pydicom is missing, or an option that cannot be.
    """

    def __init__(self, path: str | Path, *, rate: Fraction | None = None, **options: Any) -> None:
        self._object = read_object(Path(path))
        super().__init__(path, rate=rate, **options)

    def close(self) -> None:
        """Close it; frames given out stay valid. Not while another thread iterates."""
        super().close()
        self._file.close()

    def _open_container(self) -> InputContainer:
        container, self._file = self._object.open_bitstream()
        return container

    def _open_accelerated(self) -> InputContainer:
        self._note("decoded in software: the GPU's decoder is given files alone, no DICOM objects")
        return self._open_container()

    def _num_bytes(self) -> int:
        return self._object.fragments.num_bytes

    def _sample(self, rate: Fraction | None, fits: bool, deinterlace: str) -> Sampling:
        said = self._object
        found = self._video.codec_context.name
        self._note(f"DICOM object: {said.syntax}")
        if found != said.codec:
            self._note(f"the object says {said.codec}, its bitstream is {found}: the bitstream counts")
        if rate is not None or said.rate is None or not self._container.format.flags & NO_TIMESTAMPS:
            return super()._sample(rate, fits, deinterlace)
        self._note(f"times are the object's: {float(said.rate):g} fps ({said.rate_from})")
        sampling = super()._sample(said.rate, fits, deinterlace)
        if not said.frame_times_us:
            return sampling
        return replace(sampling, time_base=Fraction(1, 1_000_000), pts=said.frame_times_us)

    def _inform(self, sampling: Sampling) -> SourceInfo:
        info = super()._inform(sampling)
        return replace(info, num_frames=info.num_frames or self._object.num_frames)

    def _conclude(self) -> None:
        if not self._object.fragments.whole:
            self.report.truncated = True
        super()._conclude()
        stated, found = self._object.num_frames, self._frames.num_frames
        if stated is not None and stated != found:
            self._note(f"the object says {stated} frames, its bitstream holds {found}")
