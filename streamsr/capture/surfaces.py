"""Pictures that a GPU decoded and that stay on it: how they are opened, kept and downloaded where the host needs them.

FFmpeg decodes into a CUDA context that torch must share to read it. PyAV asks for the device's primary one by itself,
which FFmpeg refuses once torch has made that with flags of its own (PyAV's pull request 2339). So the file is opened
while torch's context is the present one, and FFmpeg is told to take that.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
from av.container import InputContainer
from av.video.format import VideoFormat
from av.video.frame import VideoFrame

from streamsr.capture.opening import cause_of
from streamsr.frame import Plane, PlaneLayout

if TYPE_CHECKING:
    from streamsr.device_frame import SurfaceCopier

REFUSALS = (av.error.FFmpegError, RuntimeError, ValueError, TypeError, AttributeError, BufferError, OSError)
"""What PyAV, torch and the loader of the CUDA driver raise where a picture cannot stay."""


def open_kept(path: Path, device: str) -> InputContainer:
    """Open a file for a GPU's decoder so that its pictures stay there.

    Args:
        path: a file that the GPU's decoder took before.
        device: torch's name of the GPU.

    Raises:
        RuntimeError: PyAV cannot tell what a picture on a GPU holds, or torch can use no GPU.
        FFmpegError: the decoder cannot be opened in torch's context.
    """
    from av.codec.hwaccel import HWAccel

    from streamsr.device_frame import torch_context

    if not hasattr(VideoFrame, "sw_format"):
        raise RuntimeError(f"PyAV 18 or newer is needed, this is {av.__version__}")
    with torch_context(device) as number:
        hwaccel = HWAccel(
            "cuda",
            device=str(number),
            allow_software_fallback=True,
            options={"primary_ctx": "0", "current_ctx": "1"},
            is_hw_owned=True,
        )
        return av.open(f"file:{path}", metadata_errors="replace", hwaccel=hwaccel)


def lies_on_gpu(picture: VideoFrame) -> bool:
    """Return whether a picture's samples lie on a GPU."""
    return picture.format.name == "cuda"


def stored_format(picture: VideoFrame) -> VideoFormat:
    """Return the format of a picture's samples, wherever they lie."""
    stored = picture.sw_format if lies_on_gpu(picture) else picture.format
    return stored or picture.format


def download(picture: VideoFrame) -> VideoFrame:
    """Return a picture in host memory, in the format that it has on the GPU; one that is there already is itself."""
    return picture.reformat(format=stored_format(picture).name, threads=1) if lies_on_gpu(picture) else picture


class Surfaces:
    """Keeps pictures on a GPU as planes of frames, until one cannot be: from then on all are downloaded.

    Args:
        device: torch's name of the GPU.
        note: takes what the user is to know, one line each.
    """

    def __init__(self, device: str, note: Callable[[str], None]) -> None:
        self._device, self._note = device, note
        self._copier: SurfaceCopier | None = None
        self._gave_up = False

    def keep(self, picture: VideoFrame, layout: PlaneLayout) -> tuple[Plane, ...] | None:
        """Return planes of a picture that lie on the GPU; None where it must be downloaded.

        Args:
            picture: decoded by the GPU.
            layout: of the planes.
        """
        # PyAV gives odd sides half their length in chroma samples, which is one too few.
        if self._gave_up or not lies_on_gpu(picture) or picture.width % 2 or picture.height % 2:
            return None
        try:
            planes: tuple[Plane, ...] = self._open_copier().copy(picture, layout)
        except REFUSALS as cause:
            self._gave_up = True
            self._note(f"decoded pictures come by way of the host: {cause_of(cause)}")
            return None
        self._note("decoded pictures stay on the GPU")
        return planes

    def release(self) -> None:
        """Let go of what the decoder made."""
        if self._copier is not None:
            with suppress(RuntimeError):  # a GPU that failed reads none of it any more
                self._copier.release()

    def _open_copier(self) -> Any:
        if self._copier is None:
            from streamsr.device_frame import SurfaceCopier

            self._copier = SurfaceCopier(self._device)
        return self._copier
