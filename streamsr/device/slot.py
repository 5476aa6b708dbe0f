"""Slot: the buffers of one frame in flight on both sides, and the CUDA graphs that read and write them."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamsr.consistency import ConsistencyCount
from streamsr.device.enlarger import DeviceEnlarger
from streamsr.device_frame import planes_on
from streamsr.frame import Frame
from streamsr.runtimes.device import DeviceGenerator
from streamsr.runtimes.gpu_generator import new_event
from streamsr.runtimes.pinned import pinned_empty


class Slot:
    """The buffers of one frame in flight. Its graphs are captured here, which takes a few frames' time.

    Args:
        generator: whose CUDA stream computes.
        enlarger: of frames of one size, layout and colour.
        measures: whether some frames' consistency is measured.

    Attributes:
        host_in: planes of the input, pinned; ``device_in`` the same on the device.
        device_out: planes of the output on the device.
        figures: (4,) float64 on the device, of the consistency of a measured frame.
        launch: enqueues all that lies between.
        was_compared: whether the frame in it was compared with the one before.
    """

    def __init__(self, generator: DeviceGenerator, enlarger: DeviceEnlarger, *, measures: bool) -> None:
        gpu, device = generator.is_gpu, generator.device
        small, large, num_patches = enlarger.small, enlarger.large, enlarger.grid.num
        self.generator, self.enlarger = generator, enlarger
        self.host_in = pinned_empty((small.num_samples,), small.dtype, pins=gpu)
        self.device_in = torch.empty(small.num_samples, dtype=small.dtype, device=device)
        self.device_in.random_(0, min(small.layout.peak + 1, 1 << 15))
        self.device_out = torch.zeros(large.num_samples, dtype=large.dtype, device=device)
        self.figures = torch.zeros(4, dtype=torch.float64, device=device)
        self._host_figures = pinned_empty((4,), torch.float64, pins=gpu)
        self._mask = torch.zeros(num_patches, dtype=torch.uint8, device=device)
        self._host_mask = pinned_empty((num_patches,), torch.uint8, pins=gpu)
        self._indices = pinned_empty((num_patches,), torch.int32, pins=gpu)
        self.was_compared = False
        if gpu:
            torch.cuda.current_stream(device).synchronize()
        source, out, figures = self.device_in, self.device_out, self.figures  # a graph must not hold its slot
        self.launch = generator.capture(lambda: enlarger.enlarge(source, out))
        self._launch_measured = (
            generator.capture(lambda: enlarger.enlarge(source, out, figures)) if measures else self.launch
        )
        self._uploaded: Any = new_event() if gpu else None
        self._compared: Any = new_event(sleeps=False) if gpu else None
        self._started: Any = new_event(timed=True) if gpu else None
        self._computed: Any = new_event(timed=True) if gpu else None
        self._done: Any = new_event() if gpu else None
        self._compute_ms = 0.0

    def upload(self, frame: Frame, copy_in: Any) -> None:
        """Copy a frame's planes to pinned memory and enqueue their upload.

        Planes that lie on the device already are copied there instead.

        Args:
            frame: of the enlarger's kind.
            copy_in: the CUDA stream of uploads; None on the CPU.
        """
        kept = planes_on(frame, self.device_in.device)
        if not kept:
            for plane, target in zip(frame.planes, self.enlarger.small.planes(self.host_in), strict=True):
                np.copyto(target.numpy().view(frame.layout.dtype), plane)
        self.was_compared = False
        with on(copy_in):
            if kept:
                for one, target in zip(kept, self.enlarger.small.planes(self.device_in), strict=True):
                    one.send(target, copy_in)
            else:
                self.device_in.copy_(self.host_in, non_blocking=True)
            if copy_in is not None:
                self._uploaded.record()

    def compare(self, enqueue: Callable[[Tensor], None], copy_in: Any) -> None:
        """Enqueue a comparison with the frame before, and the copy of what it found to the host.

        Args:
            enqueue: given a (patches,) uint8 mask to write.
            copy_in: as for `upload`.
        """
        with on(copy_in):
            enqueue(self._mask)
            self._host_mask.copy_(self._mask, non_blocking=True)
            if copy_in is not None:
                self._compared.record()
        self.was_compared = True

    def compared(self) -> NDArray[np.uint8]:
        """Wait for what a comparison found and return it, (patches,)."""
        if self._compared is not None:
            self._compared.synchronize()
        found: NDArray[np.uint8] = self._host_mask.numpy()
        return found

    def fill_indices(self, indices: Any, size: int) -> Tensor:
        """Return (size,) int32 in pinned memory: some numbers of patches, the last of them repeated."""
        chosen = self._indices[:size].numpy()
        chosen[: len(indices)] = indices
        chosen[len(indices) :] = indices[-1]
        return self._indices[:size]

    def compute(self, launch: Callable[[], None]) -> None:
        """Enqueue a launch behind the upload, on the generator's CUDA stream."""
        started = time.perf_counter_ns()
        stream = self.generator.cuda_stream
        with on(stream):
            if stream is not None:
                stream.wait_event(self._uploaded)
                self._started.record()
            launch()
            if stream is not None:
                self._computed.record()
        self._compute_ms = (time.perf_counter_ns() - started) / 1e6

    def launch_whole(self, *, measured: bool) -> None:
        """Enqueue all that lies between input and output in one graph, on the present CUDA stream."""
        (self._launch_measured if measured else self.launch)()

    def download(self, host_out: Tensor, copy_out: Any, *, measured: bool) -> Tensor:
        """Enqueue the download of the enlarged planes.

        Args:
            host_out: pinned, of the size of the enlarged planes; written.
            copy_out: the CUDA stream of downloads; None on the CPU.
            measured: whether the frame's consistency was measured.

        Returns:
            ``host_out``, where they will have arrived when `wait` returns.
        """
        with on(copy_out):
            if copy_out is not None:
                copy_out.wait_event(self._computed)
            host_out.copy_(self.device_out, non_blocking=True)
            if measured:
                self._host_figures.copy_(self.figures, non_blocking=True)
            if copy_out is not None:
                self._done.record()
        return host_out

    def wait(self) -> None:
        """Wait until what was sent last has arrived."""
        if self._done is not None:
            self._done.synchronize()

    def compute_ms(self) -> float:
        """Return what the frame that arrived took the device between upload and download."""
        return float(self._started.elapsed_time(self._computed)) if self._started is not None else self._compute_ms

    def count(self, num_samples: int) -> ConsistencyCount:
        """Return what was measured of the frame that arrived; see `ProjectionOnDevice.measure`.

        Args:
            num_samples: how many were compared.
        """
        before, within, clipped, largest = self._host_figures.tolist()
        return ConsistencyCount(num_samples, int(before), int(within), int(clipped), largest)


def on(stream: Any) -> Any:
    """Make a CUDA stream the present one for the body; None leaves it, on the CPU."""
    return nullcontext() if stream is None else torch.cuda.stream(stream)
