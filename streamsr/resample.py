"""The one fixed filter that enlarges chroma (or any plane), with every sample where its siting says it lies.

The filter is cubic convolution with a = -1/2 (Keys, "Cubic convolution interpolation for digital image processing",
IEEE Trans. ASSP 29(6), 1981, equation 15; also known as Catmull-Rom): four taps along each axis, exact for ramps and
parabolas, and the only member of its family with third-order convergence. Beyond the border the edge sample repeats.

An axis is enlarged by a whole number R, so its outputs fall into R phases of four fixed weights each. Few inputs make
one block of outputs by one small matrix, the same for every block: a batched matrix product over strided views, which
needs no gather and no copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil, floor
from typing import Any

import cv2
import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from streamsr.errors import UsageError
from streamsr.frame import Plane, PlaneLayout, Siting

Real = NDArray[np.float32]

BLOCK = 4
"""Inputs a block: of 4, 8, 16 and more the fastest, since the matrix is banded and grows with the block."""


def keys_weights(fraction: float) -> tuple[float, float, float, float]:
    """Return the weights of the samples at -1, 0, 1 and 2 for a point ``fraction`` in [0, 1) behind sample 0.

    Keys 1981, equation 15: 1.5 |d|^3 - 2.5 |d|^2 + 1 up to distance 1, -0.5 |d|^3 + 2.5 |d|^2 - 4 |d| + 2 up to 2.
    """
    far, near = fraction + 1.0, 2.0 - fraction
    rest = 1.0 - fraction
    return (
        ((-0.5 * far + 2.5) * far - 4.0) * far + 2.0,
        (1.5 * fraction - 2.5) * fraction * fraction + 1.0,
        (1.5 * rest - 2.5) * rest * rest + 1.0,
        ((-0.5 * near + 2.5) * near - 4.0) * near + 2.0,
    )


@dataclass(frozen=True)
class Axis:
    """How one axis of a plane is enlarged.

    Output sample ``j`` lies at ``origin + j / ratio`` in units of input samples.

    Attributes:
        num_in: input samples.
        num_out: output samples, at most ``ratio * num_in``.
        ratio: outputs an input sample.
        origin: where output sample 0 lies, in (-1, 1).
    """

    num_in: int
    num_out: int
    ratio: int
    origin: float

    @property
    def is_identity(self) -> bool:
        """Whether every output is the input at the same place."""
        return self.ratio == 1 and self.origin == 0.0

    @property
    def before(self) -> int:
        """Repeated edge samples that the first output needs."""
        return 1 - floor(self.origin)

    @property
    def reach(self) -> int:
        """Inputs that one block of outputs reads."""
        last = self.origin + (self.ratio * BLOCK - 1) / self.ratio
        return floor(last) + 3 + self.before

    @property
    def num_blocks(self) -> int:
        """Blocks that hold all outputs."""
        return ceil(self.num_out / (BLOCK * self.ratio))

    @cached_property
    def matrix(self) -> Real:
        """(ratio * BLOCK, reach) float32: the weights of one block; every row sums to one."""
        matrix = np.zeros((self.ratio * BLOCK, self.reach), np.float32)
        for row in range(len(matrix)):
            place = self.origin + row / self.ratio
            first = floor(place) - 1 + self.before
            matrix[row, first : first + 4] = keys_weights(place - floor(place))
        return matrix

    @cached_property
    def sources(self) -> NDArray[np.intp]:
        """Which input sample each sample of the padded axis repeats."""
        num = (self.num_blocks - 1) * BLOCK + self.reach
        return np.clip(np.arange(num) - self.before, 0, self.num_in - 1)


def quantised(samples: Real, dtype: np.dtype[Any], peak: int) -> Plane:
    """Return samples rounded to nearest, halves to even, and clamped.

    Args:
        samples: (H, W) float32; overwritten.
        dtype: uint8 or uint16.
        peak: the largest sample to leave; 255 for uint8.

    Returns:
        (H, W), fresh, in [0, peak].
    """
    rounded: Plane = np.empty(samples.shape, dtype)
    if dtype == np.uint8:
        # Rounds and saturates in one pass: 0.10 ms for 640x480, where the two lines below take 0.19 ms.
        cv2.addWeighted(samples, 1.0, samples, 0.0, 0.0, dst=rounded, dtype=cv2.CV_8U)
        return rounded
    np.rint(samples, out=samples)
    np.clip(samples, 0, peak, out=rounded, casting="unsafe")
    return rounded


def siting_axis(size: int, scale: int, shifts: tuple[int, int], offsets: tuple[float, float]) -> Axis:
    """Return how one axis of a chroma plane is enlarged when its picture is.

    Pixel centres have whole coordinates: output pixel X lies over input pixel ``(X + 0.5) / scale - 0.5``. Sample j
    of a plane subsampled by ``2 ** shift`` lies at ``2**shift * j + (2**shift - 1) / 2 + offset`` in pixels.

    Args:
        size: the picture's side in input pixels.
        scale: enlargement of the picture.
        shifts: binary logarithm of the subsampling of the input and the output.
        offsets: siting of the input in input pixels and of the output in output pixels; ignored where not subsampled.
    """
    (step_in, step_out), (offset_in, offset_out) = (1 << shifts[0], 1 << shifts[1]), offsets
    start_out = (step_out - 1) / 2 + (offset_out if shifts[1] else 0.0)
    start_in = (step_in - 1) / 2 + (offset_in if shifts[0] else 0.0)
    origin = ((start_out + 0.5) / scale - 0.5 - start_in) / step_in
    ratio = scale * step_in // step_out
    return Axis(-(-size // step_in), -(-scale * size // step_out), ratio, origin)


class PlaneEnlarger:
    """Enlarges planes of one size with the fixed filter. Not thread-safe: it owns its working memory.

    Args:
        horizontal: the axis along a row.
        vertical: the axis along a column.
        peak: the largest integer sample.
    """

    def __init__(self, horizontal: Axis, vertical: Axis, *, peak: int = 255) -> None:
        self.horizontal, self.vertical, self.peak = horizontal, vertical, peak
        tall, wide = len(vertical.sources), len(horizontal.sources)
        self._rows = np.empty((tall, horizontal.num_blocks * BLOCK * horizontal.ratio), np.float32)
        self._padded = np.empty((tall, wide), np.float32)
        self._picture = np.empty((vertical.num_blocks * BLOCK * vertical.ratio, self._rows.shape[1]), np.float32)

    def enlarge(self, plane: Plane) -> Plane:
        """Enlarge a plane.

        Args:
            plane: (vertical.num_in, horizontal.num_in) uint8 or uint16; rows may be strided.

        Returns:
            (vertical.num_out, horizontal.num_out), fresh, same dtype, rounded to nearest and clamped to [0, peak].
        """
        if self.horizontal.is_identity and self.vertical.is_identity:
            copied: Plane = plane.copy()
            return copied
        real = self.enlarge_real(plane)
        return quantised(real, plane.dtype, self.peak)

    def enlarge_real(self, plane: NDArray[Any]) -> Real:
        """Enlarge a plane without rounding.

        Args:
            plane: (vertical.num_in, horizontal.num_in), integer or float32; rows may be strided.

        Returns:
            (vertical.num_out, horizontal.num_out) float32, not clamped; valid until the next call.

        Raises:
            UsageError: the plane is not of the stated size.
        """
        horizontal, vertical = self.horizontal, self.vertical
        if plane.shape != (vertical.num_in, horizontal.num_in):
            raise UsageError(
                f"expected a plane of {horizontal.num_in}x{vertical.num_in}, got {plane.shape}; make a new enlarger"
            )
        self._pad(plane)
        along_rows(self._padded, horizontal.matrix, self._rows)
        along_columns(self._rows, vertical.matrix, self._picture)
        return self._picture[: vertical.num_out, : horizontal.num_out]

    def _pad(self, plane: NDArray[Any]) -> None:
        """Copy the plane into the middle of the padded one and repeat its edges."""
        top, left = self.vertical.before, self.horizontal.before
        tall, wide = plane.shape
        padded = self._padded
        inside = padded[top : top + tall, left : left + wide]
        inside[...] = plane[: len(inside), : inside.shape[1]]
        padded[top : top + tall, :left] = inside[:, :1]
        padded[top : top + tall, left + wide :] = inside[:, -1:]
        padded[:top] = padded[top]
        padded[top + tall :] = padded[top + len(inside) - 1]


def along_rows(padded: Real, matrix: Real, out: Real) -> None:
    """Multiply every block of every row by the block's matrix.

    Args:
        padded: (H, blocks * BLOCK + some) float32.
        matrix: (outputs a block, reach).
        out: (H, blocks * outputs a block), written.
    """
    made, reach = matrix.shape
    num = out.shape[1] // made
    step, item = padded.strides
    views = as_strided(padded, (num, len(padded), reach), (BLOCK * item, step, item), writeable=False)
    results = as_strided(out, (num, len(out), made), (made * out.itemsize, out.strides[0], out.itemsize))
    np.matmul(views, matrix.T, out=results)


def along_columns(rows: Real, matrix: Real, out: Real) -> None:
    """Multiply every block of rows by the block's matrix.

    Args:
        rows: (blocks * BLOCK + some, W) float32.
        matrix: (outputs a block, reach).
        out: (blocks * outputs a block, W), written.
    """
    made, reach = matrix.shape
    num, wide = len(out) // made, out.shape[1]
    step, item = rows.strides
    views = as_strided(rows, (num, reach, wide), (BLOCK * step, step, item), writeable=False)
    np.matmul(matrix, views, out=out.reshape(num, made, wide))


def chroma_enlarger(
    layout: PlaneLayout, width: int, height: int, scale: int, *, siting: Siting, siting_out: Siting | None = None
) -> PlaneEnlarger:
    """Return what enlarges the chroma planes of a frame to those of the enlarged frame, in the same layout.

    Args:
        layout: of both frames; not gray.
        width: of the input picture in pixels.
        height: of the input picture in pixels.
        scale: enlargement of each side.
        siting: of the input.
        siting_out: of the output; that of the input when None.
    """
    assert layout.chroma_shift is not None
    (x_shift, y_shift), there = layout.chroma_shift, (siting_out or siting).value
    horizontal = siting_axis(width, scale, (x_shift, x_shift), (siting.value[0], there[0]))
    vertical = siting_axis(height, scale, (y_shift, y_shift), (siting.value[1], there[1]))
    return PlaneEnlarger(horizontal, vertical, peak=layout.peak)


def chroma_filler(layout: PlaneLayout, width: int, height: int, *, siting: Siting) -> PlaneEnlarger:
    """Return what brings the chroma planes of a frame to the resolution of its luma (4:4:4); arguments as above."""
    assert layout.chroma_shift is not None
    x_shift, y_shift = layout.chroma_shift
    horizontal = siting_axis(width, 1, (x_shift, 0), (siting.value[0], 0.0))
    vertical = siting_axis(height, 1, (y_shift, 0), (siting.value[1], 0.0))
    return PlaneEnlarger(horizontal, vertical, peak=layout.peak)


def plane_enlarger(width: int, height: int, scale: int, *, peak: int = 255) -> PlaneEnlarger:
    """Return what enlarges a plane that is not subsampled, its pixels in half-pixel alignment."""
    axes = (siting_axis(side, scale, (0, 0), (0.0, 0.0)) for side in (width, height))
    return PlaneEnlarger(*axes, peak=peak)


def reduce_chroma(plane: Real, shifts: tuple[int, int], siting: Siting) -> Real:
    """Subsample a plane of full resolution, each sample where the siting says it lies.

    Along an axis a sample midway between two pixels is their mean, and one on a pixel weighs it 1/2 and its
    neighbours 1/4 each: the shortest filters that are in phase and have no alias at half the sampling rate.

    Args:
        plane: (H, W) float32.
        shifts: (x, y) binary logarithm of the subsampling, 0 or 1 each.
        siting: where the results lie.

    Returns:
        (ceil(H / 2**y), ceil(W / 2**x)) float32.
    """
    if shifts[0]:
        plane = _halve(plane.T, siting.value[0]).T
    if shifts[1]:
        plane = _halve(plane, siting.value[1])
    return plane


def _halve(plane: Real, offset: float) -> Real:
    """Halve the first axis; ``offset`` is -0.5 (on the even samples), 0 (midway) or 0.5 (on the odd samples)."""
    padded = np.concatenate([plane[:1], plane, plane[-1:], plane[-1:]])
    num = -(-len(plane) // 2)
    halved: Real
    if offset == 0.0:
        halved = (padded[1::2][:num] + padded[2::2][:num]) * np.float32(0.5)
    else:
        first = 0 if offset < 0 else 1
        sides = padded[first::2][:num] + padded[first + 2 :: 2][:num]
        halved = sides * np.float32(0.25) + padded[first + 1 :: 2][:num] * np.float32(0.5)
    return halved
