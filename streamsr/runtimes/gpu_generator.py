"""What every runtime on an NVIDIA GPU shares: pinned buffers, a CUDA stream of its own, one CUDA graph a shape.

    pinned host ──► device ──► network (one graph) ──► device ──► pinned host

The same code runs on the CPU without streams and graphs, which is how it is tested where there is no GPU.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from streamsr.engine import Engine
from streamsr.errors import EngineError, GpuMemoryFault
from streamsr.runtimes.base import Pictures
from streamsr.runtimes.cuda_networks import Chooser
from streamsr.runtimes.gpu_faults import check_gpu, guarded
from streamsr.runtimes.pinned import pinned_empty
from streamsr.runtimes.trials import median_ms

PREPARED_SHAPES = 12
"""Shapes kept ready; each holds its buffers and its graph's memory."""


class DeviceNetwork(Protocol):
    """A network on a device.

    Attributes:
        scale: enlargement of each side.
        chooser: what was chosen for which layer.
    """

    scale: int
    chooser: Chooser

    def enlarge(self, pictures: Tensor, out: Tensor) -> None:
        """Enqueue the enlargement of pictures; see `GpuGenerator.enlarge`."""


@dataclass
class Prepared:
    """A shape made ready: buffers on both sides, and what runs between them.

    Attributes:
        host_in: (N, C, H, W), pinned; ``host_out`` as it comes out.
        device_in: the same on the device; ``device_out`` likewise.
        launch: enqueues the network on the present CUDA stream.
        done: recorded behind everything that a call enqueues; None on the CPU.
    """

    host_in: Tensor
    device_in: Tensor
    device_out: Tensor
    host_out: Tensor
    launch: Callable[[], None]
    done: Any


class GpuGenerator:
    """A network on one GPU: a `streamsr.runtimes.base.Generator` and a `streamsr.runtimes.device.DeviceGenerator`.

    A runtime sets ``network`` and ``description``.

    Args:
        engine: which network.
        precision: of weights and features.
        device: ``cuda``, ``cuda:1`` and so on; ``cpu`` runs the same without graphs, for tests.
        graphs: capture every shape in a CUDA graph.

    Attributes:
        notices: what the user should know, one line each.

    Raises:
        EngineError: no GPU that torch can use, or too old a one.
    """

    runtime = ""
    runs_batches = True
    network: DeviceNetwork
    description: str

    def __init__(
        self, engine: Engine, *, precision: str, device: torch.device | str = "cuda", graphs: bool = True
    ) -> None:
        self.device = torch.device(device)
        self.is_gpu = self.device.type == "cuda"
        if self.is_gpu:
            self.device = check_gpu(self.device, self.runtime or "cuda")
        self.engine, self.precision = engine, precision
        self.scale, self.radius_px = engine.scale, engine.radius_px
        self.channels = 1 if engine.colour == "luma" else 3
        self.graphs = graphs and self.is_gpu
        self.notices: list[str] = []
        with guarded(engine.name):
            self.cuda_stream: Any = new_cuda_stream(self.device) if self.is_gpu else None
            self.pool: Any = torch.cuda.graph_pool_handle() if self.graphs else None
            self.place = torch.cuda.get_device_name(self.device) if self.is_gpu else "CPU"
        self._prepared: OrderedDict[tuple[Any, ...], Prepared] = OrderedDict()

    def generate(self, pictures: Pictures, out: Pictures | None = None) -> Pictures:
        """Enlarge pictures; see `streamsr.runtimes.base.Generator.generate`.

        Raises:
            GpuFault: not enough memory even for half the batch, or the GPU was lost.
        """
        try:
            return self._generate(pictures, out)
        except GpuMemoryFault:
            if len(pictures) == 1:
                raise
        # Behind the handler, whose exception holds what was allocated.
        return self._generate_in_halves(pictures, out)

    def launch_ms(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> float:
        """Return the median time of a launch between device memory and device memory, on noise; on a GPU alone.

        Raises:
            GpuFault: not enough memory, or the GPU was lost.
        """
        with guarded(self.engine.name):
            prepared = self._ready(shape, dtype)
            with self.on_stream():
                return median_ms(prepared.launch)

    def forget_shapes(self) -> None:
        """Give back what is held ready for every shape.

        Graphs to come have a pool of their own: torch takes none whose graphs are all gone.
        """
        self._prepared.clear()
        if self.graphs:
            self.pool = torch.cuda.graph_pool_handle()

    def enlarge(self, pictures: Tensor, out: Tensor) -> None:
        """Enqueue the enlargement of pictures on its GPU's present CUDA stream, without waiting; may be captured.

        Each shape must have run once before it is captured: that run tries what is fastest.

        Args:
            pictures: (N, C, H, W) uint8, or float32 in [0, 1]; on the device, contiguous.
            out: (N, C, scale * H, scale * W) uint8 (rounded, clamped) or float32 (not clamped); contiguous, written.
        """
        with torch.no_grad(), tuned_convolutions(on=self.is_gpu, exact=self.precision == "fp32"), self.on_device():
            self.network.enlarge(pictures, out)

    def is_ready_for(self, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
        """Whether a launch can be had at once: always, where nothing is compiled for minutes."""
        return True

    def compile_for(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        """Compile what a launch needs: nothing, where nothing is compiled for minutes."""

    def capture(self, launch: Callable[[], None]) -> Callable[[], None]:
        """Return a call that enqueues what ``launch`` does: a CUDA graph of it where graphs are on.

        ``launch`` runs twice, on this generator's stream. Graphs of one generator share memory for what lies between
        input and output, so they must all run on one CUDA stream, one after the other.
        """
        with self.on_stream():
            launch()
            launch()
        if not self.graphs:
            return launch
        graph = torch.cuda.CUDAGraph()
        options: dict[str, Any] = {"stream": self.cuda_stream, "capture_error_mode": "thread_local"}
        with self.on_device(), torch.cuda.graph(graph, pool=self.pool, **options):  # it first waits for the present GPU
            launch()
        return graph.replay

    def on_device(self) -> AbstractContextManager[Any]:
        """Make this generator's GPU the present one: kernels that torch knows nothing of are launched there."""
        return torch.cuda.device(self.device) if self.is_gpu else nullcontext()

    def on_stream(self) -> AbstractContextManager[Any]:
        """Make this generator's CUDA stream and GPU the present ones."""
        return torch.cuda.stream(self.cuda_stream) if self.is_gpu else nullcontext()

    def _generate(self, pictures: Pictures, out: Pictures | None) -> Pictures:
        with guarded(self.engine.name):
            prepared = self._ready(pictures.shape, pictures.dtype)
            np.copyto(prepared.host_in.numpy(), pictures)
            with self.on_stream():
                prepared.device_in.copy_(prepared.host_in, non_blocking=True)
                prepared.launch()
                prepared.host_out.copy_(prepared.device_out, non_blocking=True)
                if prepared.done is not None:
                    prepared.done.record()
            if prepared.done is not None:
                prepared.done.synchronize()
        made: Pictures = prepared.host_out.numpy()
        if out is None:
            return made
        np.copyto(out, made)
        return out

    def _generate_in_halves(self, pictures: Pictures, out: Pictures | None) -> Pictures:
        """Run a batch that found no memory as two."""
        self._prepared.clear()
        if self.is_gpu:
            torch.cuda.empty_cache()
        if out is None:
            num, channels, height, width = pictures.shape
            out = np.empty((num, channels, self.scale * height, self.scale * width), pictures.dtype)
        middle = (len(pictures) + 1) // 2
        for part in (slice(0, middle), slice(middle, None)):
            self._generate(np.ascontiguousarray(pictures[part]), out[part])
        return out

    def _ready(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Prepared:
        key = (shape, dtype.str)
        if key in self._prepared:
            self._prepared.move_to_end(key)
            return self._prepared[key]
        if dtype not in (np.uint8, np.float32):
            raise EngineError(f"{self.engine.name}: expected uint8 or float32 samples, got {dtype}; convert them")
        self._prepared[key] = self._prepare(shape, torch.uint8 if dtype == np.uint8 else torch.float32)
        if len(self._prepared) > PREPARED_SHAPES:
            self._prepared.popitem(last=False)
        return self._prepared[key]

    def _prepare(self, shape: tuple[int, ...], dtype: torch.dtype) -> Prepared:
        num, channels, height, width = shape
        large = (num, channels, self.scale * height, self.scale * width)
        device_in = torch.empty(shape, dtype=dtype, device=self.device)
        device_out = torch.empty(large, dtype=dtype, device=self.device)
        fill_randomly(device_in)
        if self.is_gpu:  # the buffers were filled on another stream
            torch.cuda.current_stream(self.device).synchronize()
        return Prepared(
            pinned_empty(shape, dtype, pins=self.is_gpu),
            device_in,
            device_out,
            pinned_empty(large, dtype, pins=self.is_gpu),
            self.capture(lambda: self.enlarge(device_in, device_out)),
            new_event() if self.is_gpu else None,
        )


def new_cuda_stream(device: torch.device) -> Any:
    """Return a CUDA stream of the caller's own."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def new_event(*, sleeps: bool = True, timed: bool = False) -> Any:
    """Return an event.

    Args:
        sleeps: whether the host waits for it asleep: a thread that spins takes a core from the encoder, and one that
            sleeps wakes some 50 us late.
        timed: whether the time between two such events can be asked for.
    """
    return torch.cuda.Event(blocking=sleeps, enable_timing=timed)  # type: ignore[no-untyped-call]


@contextmanager
def tuned_convolutions(*, on: bool, exact: bool = False) -> Iterator[None]:
    """Let cuDNN try its kernels for a shape and remember the fastest, also where a graph is captured.

    Args:
        on: whether anything is changed.
        exact: whether float32 is computed as such; torch lets cuDNN round it to TF32, of 10 bits, unless told.
    """
    if not on:
        yield
        return
    cudnn: Any = torch.backends.cudnn
    before, of_layers = cudnn.benchmark, (cudnn.conv, cudnn.rnn)
    rounding = [each.fp32_precision for each in of_layers]
    cudnn.benchmark = True
    if exact:
        cudnn.allow_tf32 = False  # of both at once: torch refuses to read it where they differ
    try:
        yield
    finally:
        cudnn.benchmark = before
        for each, precision in zip(of_layers, rounding, strict=True):
            each.fp32_precision = precision


def fill_randomly(samples: Tensor) -> None:
    """Fill a buffer with noise: on zeros a wrong kernel looks right, and a GPU runs faster than on pictures."""
    if samples.dtype == torch.uint8:
        samples.random_(0, 256)
    else:
        samples.uniform_(0, 1)
