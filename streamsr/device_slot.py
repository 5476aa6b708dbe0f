"""Slot: the buffers of one frame in flight on both sides, and the CUDA graphs that read and write them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from streamsr.consistency import ConsistencyCount
from streamsr.device_enlarger import DeviceEnlarger
from streamsr.frame import Frame
from streamsr.runtimes.device import DeviceGenerator
from streamsr.runtimes.gpu_generator import new_event


class Slot:
    """The buffers of one frame in flight. Its graphs are captured here, which takes a few frames' time.

    Args:
        generator: whose CUDA stream computes.
        enlarger: of frames of one size, layout and colour.
        measures: whether some frames' consistency is measured.

    Attributes:
        host_in: planes of the input, pinned; ``device_in`` the same on the device.
        device_out: planes of the output on the device.
        launch: enqueues all that lies between.
    """

    def __init__(self, generator: DeviceGenerator, enlarger: DeviceEnlarger, *, measures: bool) -> None:
        gpu, device = generator.is_gpu, generator.device
        small, large = enlarger.small, enlarger.large
        self.generator, self.enlarger = generator, enlarger
        self.host_in = torch.zeros(small.num_samples, dtype=small.dtype, pin_memory=gpu)
        self.device_in = torch.empty(small.num_samples, dtype=small.dtype, device=device)
        self.device_in.random_(0, min(small.layout.peak + 1, 1 << 15))
        self.device_out = torch.zeros(large.num_samples, dtype=large.dtype, device=device)
        self._figures = torch.zeros(4, dtype=torch.float64, device=device)
        self._host_figures = torch.zeros(4, dtype=torch.float64, pin_memory=gpu)
        if gpu:
            torch.cuda.current_stream(device).synchronize()
        source, out, figures = self.device_in, self.device_out, self._figures  # a graph must not hold its slot
        self.launch = generator.capture(lambda: enlarger.enlarge(source, out))
        self._launch_measured = (
            generator.capture(lambda: enlarger.enlarge(source, out, figures)) if measures else self.launch
        )
        self._events: list[Any] = [new_event() for _ in range(3)] if gpu else []

    def send(self, frame: Frame, copy_in: Any, copy_out: Any, *, measured: bool = False) -> Tensor:
        """Copy a frame's planes to pinned memory, enqueue upload, graph and download.

        Args:
            frame: of the enlarger's kind.
            copy_in: the CUDA stream of uploads; None on the CPU, as is ``copy_out``, that of downloads.
            copy_out: see there.
            measured: whether its consistency is measured.

        Returns:
            Where its planes will have arrived when `wait` returns, pinned.
        """
        for plane, target in zip(frame.planes, self.enlarger.small.planes(self.host_in), strict=True):
            np.copyto(target.numpy().view(frame.layout.dtype), plane)
        large, launch = self.enlarger.large, self._launch_measured if measured else self.launch
        host_out = torch.empty(large.num_samples, dtype=large.dtype, pin_memory=self.generator.is_gpu)
        if not self.generator.is_gpu:
            self.device_in.copy_(self.host_in)
            launch()
            self._host_figures.copy_(self._figures)
            return host_out.copy_(self.device_out)
        compute, (uploaded, computed, done) = self.generator.cuda_stream, self._events
        with torch.cuda.stream(copy_in):
            self.device_in.copy_(self.host_in, non_blocking=True)
            uploaded.record()
        with torch.cuda.stream(compute):
            compute.wait_event(uploaded)
            launch()
            computed.record()
        with torch.cuda.stream(copy_out):
            copy_out.wait_event(computed)
            host_out.copy_(self.device_out, non_blocking=True)
            if measured:
                self._host_figures.copy_(self._figures, non_blocking=True)
            done.record()
        return host_out

    def wait(self) -> None:
        """Wait until what was sent last has arrived."""
        if self._events:
            self._events[-1].synchronize()

    def count(self, num_samples: int) -> ConsistencyCount:
        """Return what was measured of the frame that arrived; see `ProjectionOnDevice.measure`.

        Args:
            num_samples: how many were compared.
        """
        before, within, clipped, largest = self._host_figures.tolist()
        return ConsistencyCount(num_samples, int(before), int(within), int(clipped), largest)
