"""Reducer: brings planes down with the stated filter, antialiased bicubic (`streamsr.models.reduction`).

The filter falls into small equal matrix products over strided views, one a block of reduced samples, along the columns
of samples and, turned, along the rows. A plane is worked on in bands of rows that fit a core's cache, every band in
arrays of the same shape, so that what is made of a band does not depend on which other bands are made.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from streamsr.models.reduction import down_sums, down_taps, num_before

Real = NDArray[np.float32]
Samples = NDArray[Any]

BAND_SAMPLES = 80_000
"""Enlarged samples a band: in float32 a third of a megabyte, which a core's cache holds with what is made of it. At
640x480 x2, bands of 32 rows cost 0.9 ms where one of all rows costs 1.4 ms."""

BLOCK = 4
"""Reduced samples that one small matrix product makes along an axis."""


def band_matrix(scale: int) -> Real:
    """Return the (BLOCK, reach) float32 matrix that makes one block of reduced samples."""
    taps = down_taps(scale)
    matrix = np.zeros((BLOCK, scale * (BLOCK - 1) + len(taps)), np.float32)
    for row in range(BLOCK):
        matrix[row, scale * row : scale * row + len(taps)] = taps
    return matrix


def overlapping(padded: Real, num: int, reach: int, step: int) -> Real:
    """Return (num, reach, W) views of the rows of a padded plane, each ``step`` rows behind the one before."""
    stride, item = padded.strides
    return as_strided(padded, (num, reach, padded.shape[1]), (step * stride, stride, item), writeable=False)


def band_rows(scale: int, width: int) -> int:
    """Return how many reduced rows a band of a plane of a reduced width has, a multiple of 16."""
    return 16 * max(1, round(BAND_SAMPLES / (16 * scale * scale * width)))


class Reducer:
    """Brings planes of one size down with the stated filter, band by band. Owned by one thread, for its memory.

    Args:
        scale: how far.
        width: of the reduced plane in pixels.
        height: of the reduced plane in pixels.

    Attributes:
        rows: reduced rows a band; the last of a plane may have fewer.
    """

    def __init__(self, scale: int, width: int, height: int) -> None:
        self.scale, self.width, self.height = scale, width, height
        self.rows = rows = min(band_rows(scale, width), -(-height // BLOCK) * BLOCK)
        self._matrix, self._before = band_matrix(scale), num_before(scale)
        self._row_gains, self._column_gains = (
            np.reciprocal(np.asarray(down_sums(scale, side), np.float32)) for side in (height, width)
        )
        # Only the outermost samples read beyond the border.
        self._cut_rows, self._cut_columns = (np.flatnonzero(g != 1.0) for g in (self._row_gains, self._column_gains))
        behind, blocks = self._matrix.shape[1] - scale * BLOCK, -(-width // BLOCK)
        self._loaded = np.zeros((scale * rows + behind, scale * width), np.float32)
        self._halfway = np.empty((rows // BLOCK, BLOCK, scale * width), np.float32)
        self._upright = np.zeros((scale * blocks * BLOCK + behind, rows), np.float32)
        self._turned = np.empty((blocks, BLOCK, rows), np.float32)
        reach, step = self._matrix.shape[1], scale * BLOCK
        self._loaded_views = overlapping(self._loaded, len(self._halfway), reach, step)
        self._upright_views = overlapping(self._upright, blocks, reach, step)

    def reduce(self, plane: Samples, top: int, out: Real) -> None:
        """Make some rows of the reduced plane.

        Args:
            plane: (scale * height, scale * width), any number type.
            top: the first reduced row.
            out: (at most ``rows``, width) float32, written; not clamped.
        """
        self._load(plane, self.scale * top - self._before)
        np.matmul(self._matrix, self._loaded_views, out=self._halfway)
        inside = self._upright[self._before : self._before + self.scale * self.width]
        cv2.transpose(self._halfway.reshape(self.rows, -1), dst=inside)
        np.matmul(self._matrix, self._upright_views, out=self._turned)
        cv2.transpose(self._turned.reshape(-1, self.rows)[: self.width, : len(out)], dst=out)
        for row in self._cut_rows[(self._cut_rows >= top) & (self._cut_rows < top + len(out))]:
            out[row - top] *= self._row_gains[row]
        out[:, self._cut_columns] *= self._column_gains[self._cut_columns]

    def _load(self, plane: Samples, first: int) -> None:
        """Copy rows of the plane, from the first on, and zeros where there are none."""
        start, stop = max(-first, 0), min(len(plane) - first, len(self._loaded))
        self._loaded[:start] = 0
        np.copyto(self._loaded[start:stop], plane[first + start : first + stop])
        self._loaded[stop:] = 0
