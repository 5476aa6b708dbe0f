"""Ways to enlarge a picture: the two interpolations and every engine, projected unless asked otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from streamsr.colour import from_rgb8
from streamsr.config import GeneratorSettings
from streamsr.engine import Engine
from streamsr.frame import Colour, Frame, PlaneLayout
from streamsr.quality.perceptual import in_colour
from streamsr.runtimes import load_generator
from streamsr.training.data import bicubic_up, luma_of
from streamsr.training.measure import Precision, enlarger_of, projected
from streamsr.upscaler import FrameUpscaler

Samples = NDArray[np.uint8]
Native = Literal["luma", "rgb"]

PATCH_PX = 32
"""Side of a patch's core, in input pixels, as the line cuts them."""

FULL_601 = Colour(matrix=5, full_range=True, primaries=1, transfer=13)


@dataclass(frozen=True)
class Made:
    """An enlarged picture.

    Attributes:
        luma: (H, W) uint8 studio-range BT.601 luma.
        rgb: (H, W, 3) uint8.
    """

    luma: Samples
    rgb: Samples


class Method(Protocol):
    """A way to enlarge a picture.

    Attributes:
        name: such as ``bicubic-x2`` or ``fast-x2``.
        scale: enlargement.
        native: what it reads and writes.
        is_engine: whether a network does it.
    """

    name: str
    scale: int
    native: Native
    is_engine: bool

    def enlarge(self, lr: Samples) -> Made:
        """Enlarge (h, w, 3) uint8 RGB."""


class Interpolation:
    """Bicubic (a = -1/2) or Lanczos interpolation (three lobes), Pillow's, of luma and of RGB.

    Args:
        kind: ``bicubic`` or ``lanczos``.
        scale: enlargement.
    """

    native: Native = "luma"
    is_engine = False

    def __init__(self, kind: Literal["bicubic", "lanczos"], scale: int) -> None:
        self.name, self.scale = f"{kind}-x{scale}", scale
        self._up: Callable[[Samples, int], Samples] = bicubic_up if kind == "bicubic" else lanczos_up

    def enlarge(self, lr: Samples) -> Made:
        """Enlarge (h, w, 3) uint8 RGB."""
        return Made(self._up(luma_of(lr), self.scale), self._up(lr, self.scale))


def lanczos_up(lr: Samples, scale: int) -> Samples:
    """Enlarge a picture with Lanczos interpolation, three lobes."""
    height, width = lr.shape[:2]
    return np.array(Image.fromarray(lr).resize((width * scale, height * scale), Image.Resampling.LANCZOS))


class EngineMethod:
    """An engine as a processor runs it: INT8 where it has that form, else float.

    A luma engine gets the picture's luma; the colour of its result is bicubic interpolation's.

    Args:
        engine: which.
        consistency: project the result, as videos are by default.

    Raises:
        EngineError: its files are missing or damaged.
    """

    is_engine = True

    def __init__(self, engine: Engine, *, consistency: bool = True) -> None:
        self.engine, self.name, self.scale = engine, engine.name, engine.scale
        self.native: Native = "rgb" if engine.colour == "rgb" else "luma"
        self.consistency = consistency
        self.precision: Precision = "int8" if "int8" in engine.precisions else "fp32"
        self._enlarge = enlarger_of(engine, self.precision)

    def enlarge(self, lr: Samples) -> Made:
        """Enlarge (h, w, 3) uint8 RGB."""
        given = lr if self.native == "rgb" else luma_of(lr)
        made = self._enlarge(given)
        if self.consistency:
            made = projected(given, made, self.scale)
        if self.native == "rgb":
            return Made(luma_of(made), made)
        return coloured(made, lr, self.scale)


def coloured(luma: Samples, lr: Samples, scale: int) -> Made:
    """Return an enlarged luma with the colour of bicubic interpolation."""
    rgb = np.rint(in_colour(luma, bicubic_up(lr, scale))).astype(np.uint8)
    return Made(luma, rgb)


def stitched_and_whole(engine: Engine, lr: Samples) -> tuple[Samples, Samples]:
    """Return luma of a picture made in patches of 32 px with the engine's own halo, and made in one piece.

    Both are before the projection, which would spread what a seam leaves.

    Args:
        engine: which.
        lr: (h, w, 3) uint8 RGB.
    """
    precision: Precision = "int8" if "int8" in engine.precisions else "fp32"
    generator = load_generator(engine, GeneratorSettings(runtime="openvino", precision=precision))
    layout = PlaneLayout(chroma_shift=(0, 0) if engine.colour == "rgb" else None)
    planes = from_rgb8(lr, layout=layout, colour=FULL_601) if engine.colour == "rgb" else (luma_of(lr),)
    frame = Frame(planes, layout, FULL_601, pts=0, time_base=Fraction(1))
    whole = {"skip_surround": False, "reuse_unchanged": False}
    upscalers = (
        FrameUpscaler(generator, launch="patch", patch_px=PATCH_PX, halo_px=engine.halo_px, **whole),
        FrameUpscaler(generator, launch="frame", **whole),
    )
    stitched, at_once = (np.array(upscaler.upscale(frame).planes[0], np.uint8) for upscaler in upscalers)
    return stitched, at_once
