"""DevicePlane: a plane of a frame that lies on a device; and the copy that turns a decoder's surface into such planes.

A decoder's surface holds luma, and U and V by turns: FFmpeg's nv12, or p010le and p016le with the value in the high
bits. What is made of it is what `streamsr.frame` says of planes, so that the same frame could lie in host memory.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from streamsr.frame import Frame, Plane, PlaneLayout

CU_POINTER_ATTRIBUTE_CONTEXT = 1
"""Of `cuPointerGetAttribute` (CUDA driver API, CUpointer_attribute): the context that memory was allocated in."""


class DevicePlane:
    """A plane of a frame on a device, standing where a numpy plane would: the host gets a copy once it looks inside.

    Args:
        tensor: (H, W) uint8, or int16 with the bits of uint16; on the device, contiguous, never written to again.
        ready: CUDA event behind all that writes the tensor; None on the CPU.
    """

    __slots__ = ("_host", "ready", "tensor")

    def __init__(self, tensor: Tensor, ready: Any = None) -> None:
        self.tensor, self.ready = tensor, ready
        self._host: NDArray[Any] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return (self.tensor.shape[0], self.tensor.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the samples on the host: uint8 or uint16."""
        return np.dtype(np.uint8 if self.tensor.dtype == torch.uint8 else np.uint16)

    @property
    def is_downloaded(self) -> bool:
        """Whether the host has a copy already."""
        return self._host is not None

    def on_host(self) -> NDArray[Any]:
        """Return the host's copy, made when it is first asked for.

        Raises:
            RuntimeError: torch's, where the GPU failed.
        """
        if self._host is None:
            if self.ready is not None:
                torch.cuda.current_stream(self.tensor.device).wait_event(self.ready)
            self._host = self.tensor.cpu().numpy().view(self.dtype)
        return self._host

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Return the host's copy, as numpy asks for it."""
        samples = self.on_host().astype(self.dtype if dtype is None else dtype, copy=False)
        return samples.copy() if copy else samples

    def __getitem__(self, place: Any) -> Any:
        """Return a part of the host's copy."""
        return self.on_host()[place]

    def __len__(self) -> int:
        return self.shape[0]

    def send(self, target: Tensor, cuda_stream: Any) -> None:
        """Enqueue a copy to memory of the same device.

        Args:
            target: (H, W), of the tensor's type; written.
            cuda_stream: the present one, which waits until the plane is ready; None on the CPU.
        """
        if self.ready is not None and cuda_stream is not None:
            cuda_stream.wait_event(self.ready)
            self.tensor.record_stream(cuda_stream)  # its memory is not given away before the copy is done
        target.copy_(self.tensor, non_blocking=True)


def planes_on(frame: Frame, device: torch.device) -> list[DevicePlane]:
    """Return the planes of a frame where all of them lie on a device; else none."""
    found = [plane for plane in cast("tuple[Any, ...]", frame.planes) if isinstance(plane, DevicePlane)]
    return found if len(found) == len(frame.planes) and all(one.tensor.device == device for one in found) else []


def on_host(frame: Frame) -> Frame:
    """Return a frame with all its planes in host memory.

    Raises:
        RuntimeError: torch's, where the GPU failed.
    """
    planes = cast("tuple[Any, ...]", frame.planes)
    if not any(isinstance(plane, DevicePlane) for plane in planes):
        return frame
    return frame.with_planes(tuple(np.asarray(plane) for plane in planes))


class SurfaceCopier:
    """Copies decoded surfaces into planes of their own, on a CUDA stream of its own. Owned by the capture thread.

    FFmpeg enqueues what fills a surface on the default stream, and fills it anew once nobody holds it. So the copy
    waits for the default stream, and a surface is held until it has been copied.

    Args:
        device: torch's name of where the surfaces are; ``cpu`` does the same without streams, for tests.
    """

    def __init__(self, device: str) -> None:
        self._device = torch.empty(0, device=device).device  # with its number
        self._is_gpu = self._device.type == "cuda"
        self._cuda_stream: Any = torch.cuda.Stream(self._device) if self._is_gpu else None  # type: ignore[no-untyped-call]
        self._held: tuple[Tensor, ...] = ()
        self._copied: Any = None
        self._shares_context = not self._is_gpu

    def copy(self, surface: Any, layout: PlaneLayout) -> tuple[Plane, ...]:
        """Enqueue the copy of a surface.

        Args:
            surface: PyAV's picture, whose two planes have ``__dlpack__``.
            layout: 4:2:0, and as many bits as the surface's samples hold.

        Returns:
            A `DevicePlane` each for Y, U and V.

        Raises:
            ValueError: a surface of another form, device or CUDA context than expected.
            NotImplementedError: PyAV's, where it does not export the surface's format.
            RuntimeError: torch's, for example where there is too little memory.
        """
        self.release()
        with self._on_stream():
            if self._is_gpu:
                self._cuda_stream.wait_stream(torch.cuda.default_stream(self._device))
            # As capsules: PyAV refuses the CUDA stream that torch names to an object with __dlpack__.
            luma, chroma = (from_dlpack(plane.__dlpack__()) for plane in surface.planes)
            self._check(luma, chroma, layout)
            self._held = (luma, chroma)
            planes = (_levels(luma, layout), *_levels(chroma.permute(2, 0, 1), layout))
            if self._is_gpu:
                self._copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
                self._copied.record()
        return tuple(cast(Plane, DevicePlane(plane, self._copied)) for plane in planes)

    def release(self) -> None:
        """Wait until the last surface has been copied, and let go of it."""
        if self._copied is not None:
            self._copied.synchronize()
        self._held, self._copied = (), None

    def _check(self, luma: Tensor, chroma: Tensor, layout: PlaneLayout) -> None:
        """Refuse what would be copied wrongly."""
        height, width = luma.shape
        wide, tall = layout.chroma_size(width, height)
        if chroma.shape != (tall, wide, 2) or layout.chroma_shift != (1, 1):
            raise ValueError(f"expected chroma of {tall}x{wide}x2 samples, got {'x'.join(map(str, chroma.shape))}")
        if luma.dtype != (torch.uint8 if layout.bit_depth == 8 else torch.uint16) or chroma.dtype != luma.dtype:
            raise ValueError(f"expected samples of {layout.bit_depth} bits, got {luma.dtype}")
        if luma.device != self._device:
            raise ValueError(f"expected a surface on {self._device}, got one on {luma.device}")
        if not self._shares_context and not in_present_context(luma.data_ptr()):
            raise ValueError("the surface lies in another CUDA context than torch's")
        self._shares_context = True

    def _on_stream(self) -> AbstractContextManager[Any]:
        return torch.cuda.stream(self._cuda_stream) if self._is_gpu else nullcontext()


def _levels(samples: Tensor, layout: PlaneLayout) -> Tensor:
    """Return samples in memory of their own, with the value moved from their high bits to the low ones."""
    shift = 8 * samples.element_size() - layout.bit_depth
    if layout.bit_depth == 8:
        return samples.clone(memory_format=torch.contiguous_format)
    # As int16, for torch hardly computes with uint16; the sign that is drawn in from above is masked away.
    levels = samples.view(torch.int16).clone(memory_format=torch.contiguous_format)
    return levels.bitwise_right_shift_(shift).bitwise_and_(layout.peak) if shift else levels


@contextmanager
def torch_context(device: str) -> Iterator[int]:
    """Make the CUDA context that torch uses on a GPU the present one of this thread; yield the GPU's number.

    Raises:
        RuntimeError: torch can use no GPU, or this one failed.
    """
    if not torch.cuda.is_available():
        raise RuntimeError("torch can use no NVIDIA GPU")
    number = torch.empty(1, device=device).device.index
    with torch.cuda.device(number):
        torch.cuda.current_stream(number).synchronize()
        yield number


def in_present_context(pointer: int, driver: Callable[[], Any] | None = None) -> bool:
    """Whether device memory was allocated in the CUDA context that is this thread's; others cannot be read in it.

    Args:
        pointer: its address.
        driver: loads the CUDA driver's library; None loads the system's.
    """
    library = (driver or _load_driver)()
    owner, present = ctypes.c_void_p(), ctypes.c_void_p()
    asked = library.cuPointerGetAttribute(
        ctypes.byref(owner), ctypes.c_int(CU_POINTER_ATTRIBUTE_CONTEXT), ctypes.c_uint64(pointer)
    )
    return not asked and not library.cuCtxGetCurrent(ctypes.byref(present)) and owner.value == present.value


def _load_driver() -> Any:
    return ctypes.CDLL("nvcuda.dll" if ctypes.sizeof(ctypes.c_wchar) == 2 else "libcuda.so.1")
