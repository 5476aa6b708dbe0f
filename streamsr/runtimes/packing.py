"""Convolutions rewritten so that matrix units are filled: neighbouring pixels as channels, and shuffles moved behind.

A map of (H, W, C) is, without moving a byte, one of (H, W / f, f * C). A convolution on the one is a convolution on
the other, with more channels, fewer pixels and some zeros among its weights. Small networks of 16 or 32 channels
leave most of a matrix unit idle, so the zeros are cheaper than they look; which f is fastest is measured.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pack_columns(weight: Tensor, factor: int) -> Tensor:
    """Return the convolution of packed columns that equals a convolution with zeros around.

    Output column q of a packed pixel reads input column r of the packed pixel k places to the right through the tap
    ``dx = factor * k + r - q``.

    Args:
        weight: (outputs, inputs, rows, columns), both odd, of a convolution that keeps the size.
        factor: columns that are packed into channels, (column, channel) in this order; must divide the width.

    Returns:
        (factor * outputs, factor * inputs, rows, 2 * ceil(radius / factor) + 1), padded by half its size.

    >>> pack_columns(torch.ones(1, 1, 1, 3), 2)[:, :, 0].tolist()
    [[[0.0, 1.0, 0.0], [1.0, 1.0, 0.0]], [[0.0, 1.0, 1.0], [0.0, 1.0, 0.0]]]
    """
    outputs, inputs, rows, columns = weight.shape
    radius = columns // 2
    reach = -(-radius // factor)
    packed = weight.new_zeros(factor, outputs, factor, inputs, rows, 2 * reach + 1)
    for to in range(factor):
        for source in range(factor):
            for place in range(-reach, reach + 1):
                tap = factor * place + source - to
                if abs(tap) <= radius:
                    packed[to, :, source, :, :, place + reach] = weight[:, :, :, tap + radius]
    return packed.reshape(factor * outputs, factor * inputs, rows, 2 * reach + 1)


def parities_first(weight: Tensor) -> Tensor:
    """Reorder outputs in front of a pixel shuffle by two from (channel, row, column parity) to (row, column, channel).

    Args:
        weight: (4 * C, ...), a convolution's weight or bias.
    """
    return weight.reshape(-1, 2, 2, *weight.shape[1:]).movedim(0, 2).reshape(weight.shape)


def in_front_of_shuffle(weight: Tensor) -> Tensor:
    """Return the convolution in front of a pixel shuffle by two that equals a convolution behind it.

    Fine pixel (2 y + p, 2 x + q) reads the fine pixel dy rows below, which is of parity i in the coarse row k below,
    ``2 k + i = p + dy``; columns likewise. Whatever acts on samples one by one (PReLU) commutes with the shuffle, and
    the zeros round the fine picture are the zeros round the coarse one. A 9x9 convolution becomes 5x5: 25 x 4 taps
    where 81 were, on a quarter of the pixels and with four times the outputs, 1.23 times the arithmetic for a
    matrix product that is four times as wide.

    Args:
        weight: (outputs, C, n, n), n = 4 m + 1, on the shuffled picture.

    Returns:
        (4 * outputs, 4 * C, 2 m + 1, 2 m + 1): inputs as (row parity, column parity, channel), outputs as
        (channel, row parity, column parity), what a pixel shuffle takes.
    """
    outputs, channels, side, _ = weight.shape
    radius = side // 2
    reach = radius // 2
    coarse = weight.new_zeros(outputs, 2, 2, 2, 2, channels, 2 * reach + 1, 2 * reach + 1)
    for p in range(2):
        for q in range(2):
            for dy in range(-radius, radius + 1):
                for dx in range(-radius, radius + 1):
                    (k, i), (m, j) = divmod(p + dy, 2), divmod(q + dx, 2)
                    coarse[:, p, q, i, j, :, k + reach, m + reach] = weight[:, :, dy + radius, dx + radius]
    return coarse.reshape(4 * outputs, 4 * channels, 2 * reach + 1, 2 * reach + 1)


def rows_of_taps(weight: Tensor) -> Tensor:
    """Return a 3x3 convolution's weight (outputs, inputs, 3, 3) as (9, inputs, outputs), contiguous."""
    return weight.permute(2, 3, 1, 0).reshape(9, weight.shape[1], weight.shape[0]).contiguous()


def channels_last(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a weight in the type and memory format that matrix units read."""
    return weight.to(dtype).contiguous(memory_format=torch.channels_last)
