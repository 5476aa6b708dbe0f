"""`Upscaler`: the generator for pictures that are already in memory."""

from __future__ import annotations

from fractions import Fraction
from types import TracebackType
from typing import Any, Literal, overload

import cv2  # noqa: F401 (before PyAV, whose X11 libraries hang the windows of an OpenCV that is loaded after it)

# isort: split
import av
import numpy as np
from numpy.typing import NDArray

from streamsr.capture.pictures import FrameMaker, Sampling
from streamsr.colour import from_rgb8, to_rgb8
from streamsr.config import DEFAULT_ENGINE, GeneratorSettings
from streamsr.engine import find_engine
from streamsr.errors import UsageError
from streamsr.fallback import Upscaler as AnyUpscaler
from streamsr.fallback import make_upscaler
from streamsr.frame import Colour, Frame, PlaneLayout
from streamsr.sinks.planes import fill

ARRAY_LAYOUT = PlaneLayout(chroma_shift=(0, 0))
ARRAY_COLOUR = Colour(matrix=1, full_range=True, primaries=1, transfer=13)
"""How arrays are taken: 4:4:4, full-range BT.709 matrix, sRGB; reversible to one grey level."""


class Upscaler:
    """Enlarges single pictures; a context manager. Owned by one thread.

    Args:
        engine: name in the catalogue, or the path of an engine folder.
        runtime: ``auto`` takes the fastest that is here; ``openvino``, ``torch`` and ``onnxruntime`` run on the
            processor, ``cuda``, ``tensorrt`` and ``fused`` on an NVIDIA GPU. Where a GPU fails, pictures go on on the
            processor, and a warning is logged.
        precision: ``auto``, ``fp32``, ``fp16`` (GPU), ``bf16``, ``fp8`` (TensorRT) or ``int8``.
        threads: CPU threads; None takes all cores.
        consistency: project what the generator made, so that brought down again it gives the picture back.

    Attributes:
        scale: enlargement of each side.
        description: what runs the generator, in one line.

    Raises:
        EngineError: the engine is missing, damaged or cannot run here.

    Example:
        with streamsr.Upscaler("fast-x2") as upscaler:
            large = upscaler.upscale(small)  # (H, W, 3) uint8 RGB to (2H, 2W, 3)
    """

    def __init__(
        self,
        engine: str = DEFAULT_ENGINE,
        *,
        runtime: Literal["auto", "openvino", "torch", "onnxruntime", "cuda", "tensorrt", "fused"] = "auto",
        precision: Literal["auto", "fp32", "fp16", "bf16", "fp8", "int8"] = "auto",
        threads: int | None = None,
        consistency: bool = True,
    ) -> None:
        self.settings = GeneratorSettings(
            engine=engine, runtime=runtime, precision=precision, threads=threads, consistency=consistency
        )
        self.engine = find_engine(engine)
        self.scale = self.engine.scale
        self._upscalers: dict[int, AnyUpscaler] = {}
        self.description = self._upscaler(8).description

    @overload
    def upscale(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]: ...
    @overload
    def upscale(self, picture: av.VideoFrame) -> av.VideoFrame: ...
    def upscale(self, picture: Any) -> Any:
        """Enlarge one picture.

        Args:
            picture: (H, W, 3) uint8 RGB, (H, W) uint8 gray, or a PyAV video frame of any pixel format.

        Returns:
            An array of the same kind, ``scale`` times as high and wide; or a PyAV frame of the nearest planar format,
            with the colour tags, pts and time base of the one that came.

        Raises:
            UsageError: it is none of these.
        """
        if isinstance(picture, av.VideoFrame):
            return self._upscale_frame(picture)
        if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.size == 0:
            raise UsageError(
                f"expected (H, W, 3) or (H, W) uint8 or an av.VideoFrame, got {describe(picture)}; convert it first"
            )
        if picture.ndim == 2:
            layout = PlaneLayout(chroma_shift=None)
            frame = Frame((picture,), layout, ARRAY_COLOUR, pts=0, time_base=Fraction(1))
            return self._upscaler(8).upscale(frame).planes[0]
        planes = from_rgb8(picture, layout=ARRAY_LAYOUT, colour=ARRAY_COLOUR)
        frame = Frame(planes, ARRAY_LAYOUT, ARRAY_COLOUR, pts=0, time_base=Fraction(1))
        return to_rgb8(self._upscaler(8).upscale(frame))

    def _upscale_frame(self, picture: av.VideoFrame) -> av.VideoFrame:
        time_base = picture.time_base or Fraction(1, 25)
        sampling = Sampling(codec="", time_base=time_base, rate=Fraction(1) / time_base, deinterlace="off")
        small = next(FrameMaker(sampling, lambda notice: None).make(picture))
        large = self._upscaler(small.layout.bit_depth).upscale(small)
        made = av.VideoFrame(large.width, large.height, large.layout.pix_fmt)
        fill(made, large, large.layout)
        made.pts, made.time_base = picture.pts, time_base
        made.colorspace, made.color_range = large.colour.matrix, 2 if large.colour.full_range else 1
        made.color_primaries, made.color_trc = large.colour.primaries, large.colour.transfer
        return made

    def _upscaler(self, bit_depth: int) -> AnyUpscaler:
        depth = min(bit_depth, 9)  # every depth above 8 runs the same float network
        if depth not in self._upscalers:
            # Reuse compares with the last picture where it lies, and the caller may write there.
            self._upscalers[depth] = make_upscaler(
                self.engine, self.settings, bit_depth=bit_depth, reuse_unchanged=False
            )
        return self._upscalers[depth]

    def __enter__(self) -> Upscaler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._upscalers.clear()


def describe(value: Any) -> str:
    """Return what a value is, for a message."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and type {value.dtype}"
    return type(value).__name__
