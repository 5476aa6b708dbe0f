"""A frame number in the picture, as black and white cells that survive enlarging and lossy coding.

Sixteen cells of 8x8 pixels stand four by four, 8 pixels from the left and the bottom edge. The first is always white
and the last always black, which tells what white and black are at any depth and range; the fourteen between are the
number's bits, the lowest first.
"""

from __future__ import annotations

import numpy as np

from streamsr.errors import InputError
from streamsr.frame import Plane

CELL_PX, CELLS_A_SIDE, MARGIN_PX = 8, 4, 8
CODE_PX = CELL_PX * CELLS_A_SIDE
NUM_BITS = CELLS_A_SIDE * CELLS_A_SIDE - 2
SMALLEST_PX = CODE_PX + MARGIN_PX
"""Width and height below which a picture has no room for the code."""


def draw_frame_code(luma: Plane, number: int, *, scale: int = 1, black: int = 16, white: int = 235) -> None:
    """Draw a number into a luma plane, in place.

    Args:
        luma: (scale * H, scale * W) uint8 or uint16; H and W at least 40.
        number: counts modulo 16384.
        scale: how much larger than the smallest form of this picture the plane is.
        black: sample of black.
        white: sample of white.
    """
    bits = [1, *((number >> bit) & 1 for bit in range(NUM_BITS)), 0]
    cells = np.where(np.array(bits).reshape(CELLS_A_SIDE, CELLS_A_SIDE), white, black).astype(luma.dtype)
    top, left = luma.shape[0] - (MARGIN_PX + CODE_PX) * scale, MARGIN_PX * scale
    block = cells.repeat(CELL_PX * scale, axis=0).repeat(CELL_PX * scale, axis=1)
    luma[top : top + CODE_PX * scale, left : left + CODE_PX * scale] = block


def read_frame_code(luma: Plane, scale: int = 1) -> int:
    """Read the number that `draw_frame_code` drew.

    Args:
        luma: (scale * H, scale * W) samples of any depth and range.
        scale: how much the picture was enlarged.

    Returns:
        The number, from 0 to 16383.

    Raises:
        InputError: there is no code.
    """
    side = CELL_PX * scale
    top, left = luma.shape[0] - (MARGIN_PX + CODE_PX) * scale, MARGIN_PX * scale
    block = luma[max(top, 0) : top + CODE_PX * scale, left : left + CODE_PX * scale].astype(np.float64)
    if block.shape != (CODE_PX * scale, CODE_PX * scale):
        raise InputError(f"frame code: expected room for {CODE_PX * scale} px, got {luma.shape}; check the scale")
    cells = block.reshape(CELLS_A_SIDE, side, CELLS_A_SIDE, side)
    edge = side // 4
    levels = cells[:, edge : side - edge, :, edge : side - edge].mean(axis=(1, 3)).ravel()
    white, black = levels[0], levels[-1]
    if white - black < 0.4 * max(levels.max(), 1):
        raise InputError(
            f"frame code: expected a white and a black cell, got {white:.0f} and {black:.0f}; not numbered"
        )
    bits = levels[1:-1] > (white + black) / 2
    return int(sum(1 << int(bit) for bit in np.flatnonzero(bits)))
