"""FrameBank and CropSampler: every frame on the device once, and batches of aligned crops drawn there.

Nothing here waits for the device or depends on its values in Python, so a whole training step, the draw included, can
be captured in one CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamsr.errors import InputError
from streamsr.training.data import Pair, luma_of

LIT_LUMA = 32
"""Luma above which a pixel counts as lit."""

LIT_SHARE = 0.6
"""Share of a crop that has to be lit; the dark surround teaches nothing."""

CANDIDATES = 6
"""Places drawn in a set for a crop; the first that is lit enough is taken."""

Degradation = Callable[[Tensor, int], Tensor]
"""(B, C, s h, s w) in [0, 1] and s -> (B, C, h, w) in [0, 1], drawn anew at every call."""


@dataclass(frozen=True)
class Crops:
    """A batch.

    Attributes:
        lr: (B, C, p, p) float32 in [0, 1].
        hr: (B, C, s p, s p) float32 in [0, 1].
        datasets: (B,) int64, number of the set in alphabetical order.
        frames: (B,) int64, number of the frame in the bank.
        marked: (B,) float32, share of the crop that an expert marked.
    """

    lr: Tensor
    hr: Tensor
    datasets: Tensor
    frames: Tensor
    marked: Tensor


class FrameBank:
    """The frames of one side, flat in device memory: a channel is one long row of samples, frame after frame.

    Args:
        pairs: what it holds; frames of a set lie together.
        scale: of the pairs.
        device: where.
    """

    def __init__(self, pairs: list[Pair], *, scale: int, device: torch.device) -> None:
        pairs = sorted(pairs, key=lambda pair: pair.dataset)
        self.scale, self.device = scale, device
        self.names = sorted({pair.dataset for pair in pairs})
        self.files = [pair.file for pair in pairs]
        counts = [sum(pair.dataset == name for pair in pairs) for name in self.names]
        sizes = np.array([pair.lr.shape[:2] for pair in pairs])
        self.set_counts = torch.tensor(counts, device=device)
        self.set_starts = torch.tensor(np.cumsum([0, *counts[:-1]]), device=device)
        self.heights, self.widths = (torch.tensor(sizes[:, axis], device=device) for axis in (0, 1))
        areas = sizes[:, 0] * sizes[:, 1]
        self.starts = torch.tensor(np.cumsum([0, *areas[:-1]]), device=device)
        self.lr = _flat([pair.lr for pair in pairs], device)
        self.hr = _flat([pair.hr for pair in pairs], device)
        self.smallest_px = int(sizes.min())
        corners = (sizes + 1).prod(axis=1)
        self.sum_starts = torch.tensor(np.cumsum([0, *corners[:-1]]), device=device)
        self.lit = _sums([_luma(pair.lr) > LIT_LUMA for pair in pairs], device)
        blank = [np.zeros(pair.lr.shape[:2], bool) for pair in pairs]
        marks = [
            none if pair.marks is None else pair.marks[::scale, ::scale]
            for pair, none in zip(pairs, blank, strict=True)
        ]
        self.marks = _sums(marks, device) if any(pair.marks is not None for pair in pairs) else None


class CropSampler:
    """Endless batches of aligned crops, every set drawn equally often, mostly dark crops left out.

    Args:
        bank: the frames to draw from.
        patch_px: side of the low-resolution crop.
        batch: crops a batch.
        degrade: makes the low-resolution crop from the truth; None takes the bank's reduced frame.
        coded: (frames,) bool on the device: frames whose own reduced picture is taken all the same.

    Raises:
        InputError: a frame is smaller than a crop.
    """

    def __init__(
        self,
        bank: FrameBank,
        *,
        patch_px: int,
        batch: int,
        degrade: Degradation | None = None,
        coded: Tensor | None = None,
    ) -> None:
        if bank.smallest_px < patch_px:
            raise InputError(f"expected frames of {patch_px} px or more, got {bank.smallest_px}; lower patch_px")
        self.bank, self.patch_px, self.batch = bank, patch_px, batch
        self.degrade, self.coded = degrade, coded
        device = bank.device
        self.low_grid = torch.arange(patch_px, device=device)
        self.high_grid = torch.arange(patch_px * bank.scale, device=device)
        self.order = torch.arange(CANDIDATES, 0, -1, device=device)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            crops = self.draw()
            yield crops.lr, crops.hr

    def draw(self) -> Crops:
        """Draw a batch from the device's random numbers."""
        bank, scale = self.bank, self.bank.scale
        datasets, frames, tops, lefts, marked = self._places()
        turned = torch.rand((3, self.batch, 1, 1), device=bank.device) < 0.5
        start, width = bank.starts[frames], bank.widths[frames]
        low = _indices(self.low_grid, start, width, tops, lefts, turned)
        high = _indices(self.high_grid, start * scale**2, width * scale, tops * scale, lefts * scale, turned)
        hr = bank.hr[:, high].transpose(0, 1).float() / 255.0
        lr = bank.lr[:, low].transpose(0, 1).float() / 255.0
        if self.degrade is not None:
            made = self.degrade(hr, scale)
            lr = made if self.coded is None else torch.where(self.coded[frames][:, None, None, None], lr, made)
        return Crops(lr.contiguous(), hr.contiguous(), datasets, frames, marked)

    def _places(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return set, frame, top, left and marked share of each crop, (B,) each."""
        bank, size = self.bank, self.patch_px
        shape, device = (self.batch, CANDIDATES), bank.device
        # One set a crop, not one a candidate: sets with a wide dark surround would be drawn less often.
        datasets = torch.randint(len(bank.names), (self.batch, 1), device=device).expand(shape)
        frames = bank.set_starts[datasets] + _below(bank.set_counts[datasets])
        tops = _below(bank.heights[frames] - size + 1)
        lefts = _below(bank.widths[frames] - size + 1)
        lit = self._share(bank.lit, frames, tops, lefts) > LIT_SHARE
        first = (lit * self.order).argmax(dim=1, keepdim=True)
        datasets, frames, tops, lefts = (values.gather(1, first)[:, 0] for values in (datasets, frames, tops, lefts))
        marked = torch.zeros(self.batch, device=device)
        if bank.marks is not None:
            marked = self._share(bank.marks, frames, tops, lefts)
        return datasets, frames, tops, lefts, marked

    def _share(self, sums: Tensor, frames: Tensor, tops: Tensor, lefts: Tensor) -> Tensor:
        """Return the share of true pixels in each window from sums over rectangles (Crow 1984)."""
        stride, start, size = self.bank.widths[frames] + 1, self.bank.sum_starts[frames], self.patch_px

        def corner(top: Tensor, left: Tensor) -> Tensor:
            return sums[start + top * stride + left]

        inside = corner(tops + size, lefts + size) + corner(tops, lefts)
        inside = inside - corner(tops + size, lefts) - corner(tops, lefts + size)
        return inside.float() / size**2


def _below(limits: Tensor) -> Tensor:
    """Return a whole number in [0, limit) for each limit."""
    drawn = (torch.rand(limits.shape, device=limits.device) * limits).long()
    return torch.minimum(drawn, limits - 1)


def _indices(grid: Tensor, start: Tensor, width: Tensor, top: Tensor, left: Tensor, turned: Tensor) -> Tensor:
    """Return (B, p, p) places in the flat row, mirrored in each direction and transposed where ``turned`` says so."""
    size = len(grid)
    rows, columns = grid[None, :, None], grid[None, None, :]
    rows = torch.where(turned[0], size - 1 - rows, rows) + top[:, None, None]
    columns = torch.where(turned[1], size - 1 - columns, columns) + left[:, None, None]
    places = start[:, None, None] + rows * width[:, None, None] + columns
    return torch.where(turned[2], places.transpose(1, 2), places)


def _flat(pictures: list[NDArray[np.uint8]], device: torch.device) -> Tensor:
    """Return (C, all pixels) uint8 on the device."""
    rows = [picture.reshape(1, -1) if picture.ndim == 2 else picture.reshape(-1, 3).T for picture in pictures]
    return torch.from_numpy(np.ascontiguousarray(np.concatenate(rows, axis=1))).to(device)


def _sums(masks: list[NDArray[np.bool_]], device: torch.device) -> Tensor:
    """Return the sums over all rectangles from the top left corner, (h + 1) (w + 1) numbers a mask, flat, int32."""
    tables = []
    for mask in masks:
        table = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int32)
        table[1:, 1:] = mask.cumsum(axis=0, dtype=np.int32).cumsum(axis=1, dtype=np.int32)
        tables.append(table.ravel())
    return torch.from_numpy(np.concatenate(tables)).to(device)


def _luma(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return picture if picture.ndim == 2 else luma_of(picture)
