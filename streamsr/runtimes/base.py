"""What every runtime gives: pictures in, pictures ``scale`` times the size out, with a stated context."""

from __future__ import annotations

from typing import Any, Protocol, cast

from numpy.typing import NDArray

Pictures = NDArray[Any]
"""(N, C, H, W): uint8 samples, or float32 in [0, 1]; C is 1 for luma generators, 3 (RGB) for colour ones."""


class Generator(Protocol):
    """A network on a device, ready to run. Owned by one thread at a time; a context manager is not needed.

    Attributes:
        scale: enlargement of each side.
        channels: 1 (luma) or 3 (RGB).
        radius_px: input pixels on each side of a pixel that its output depends on.
        runtime: ``openvino``, ``torch`` or ``onnxruntime`` on a processor, ``cuda``, ``tensorrt`` or ``fused`` on an
            NVIDIA GPU (those are a `streamsr.runtimes.device.DeviceGenerator` too), or ``bicubic``.
        precision: ``fp32``, ``fp16``, ``bf16``, ``fp8`` or ``int8``.
        description: runtime, version, precision and device in one line, for the user and the sidecar.
    """

    scale: int
    channels: int
    radius_px: int
    runtime: str
    precision: str
    description: str

    def generate(self, pictures: Pictures, out: Pictures | None = None) -> Pictures:
        """Enlarge pictures; samples beyond the border count as zero in every layer.

        Args:
            pictures: (N, C, H, W) uint8 or float32, C-contiguous.
            out: (N, C, scale * H, scale * W), same dtype, C-contiguous, to write into; allocated when None.

        Returns:
            ``out``, of the dtype of ``pictures``; uint8 is rounded to nearest and clamped, float32 is not clamped.
            A result that was allocated here is valid until the next call.
        """


def notices_of(generator: Generator) -> tuple[str, ...]:
    """Return what the user should know of a generator, one line each."""
    return tuple(getattr(generator, "notices", ()))


def tell(generator: Generator, notice: str) -> None:
    """Add a line to what the user should know of a generator: to its own list, which its parts may hold too."""
    notices = getattr(generator, "notices", None)
    if isinstance(notices, list):
        notices.append(notice)
    else:
        cast(Any, generator).notices = [*notices_of(generator), notice]
