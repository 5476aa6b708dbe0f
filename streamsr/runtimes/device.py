"""What a runtime on a GPU gives besides `streamsr.runtimes.base.Generator`, so that pictures can stay on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from streamsr.engine import Engine
from streamsr.runtimes.base import Generator

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class DeviceGenerator(Generator, Protocol):
    """A network on a GPU, ready to be enqueued. Owned by one thread at a time.

    Attributes:
        engine: which network.
        device: where it runs; a GPU has its number.
        is_gpu: False where the same code runs on the CPU, for tests.
        cuda_stream: the CUDA stream that it computes on, its own; None on the CPU.
        runs_batches: whether several pictures are one launch; False where each is a launch of its own, made for frames.
        notices: what the user should know, one line each.
    """

    engine: Engine
    device: torch.device
    is_gpu: bool
    cuda_stream: Any
    runs_batches: bool
    notices: list[str]

    def enlarge(self, pictures: Tensor, out: Tensor) -> None:
        """Enqueue the enlargement of pictures on its GPU's present CUDA stream, without waiting; may be captured.

        Each shape must have run once before it is captured: that run tries what is fastest.

        Args:
            pictures: (N, C, H, W) uint8, or float32 in [0, 1]; on the device, contiguous.
            out: (N, C, scale * H, scale * W) uint8 (rounded, clamped) or float32 (not clamped); contiguous, written.
        """

    def is_ready_for(self, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
        """Whether the first launch of pictures can be had at once, without waiting for a compiler.

        Args:
            shape: (N, C, H, W).
            dtype: uint8 or float32.
        """

    def compile_for(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        """Compile what the first launch of pictures would wait for; nothing where nothing is compiled for minutes.

        Args:
            shape: (N, C, H, W).
            dtype: uint8 or float32.

        Raises:
            EngineError: it cannot be had.
        """

    def capture(self, launch: Callable[[], None]) -> Callable[[], None]:
        """Return a call that enqueues what ``launch`` does: a CUDA graph of it where graphs are on.

        ``launch`` runs twice before, on this generator's stream, which the device then waits for.
        """
