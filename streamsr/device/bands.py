"""Bands of rows, for pictures of which a network's largest layer would have more values than libraries count."""

from __future__ import annotations

from dataclasses import dataclass

from streamsr.errors import EngineError
from streamsr.runtimes.device import DeviceGenerator

MOST_VALUES = (1 << 31) - 1
"""Values of a tensor: cuDNN and TensorRT count them in 31 bits."""


@dataclass(frozen=True)
class Band:
    """Rows that are launched together.

    Attributes:
        top: the first row that is read.
        height: rows that are read, the same for all bands of a picture.
        core_top: the first row whose enlargement is kept.
        core_end: the row behind the last of them.
    """

    top: int
    height: int
    core_top: int
    core_end: int


def values_per_px(generator: DeviceGenerator) -> int:
    """Return how many values a generator's largest layer has for each input pixel.

    A student's layers are as large as its input; the SRGAN's last stage makes four times its channels, at half the size
    of the output.
    """
    engine, shown = generator.engine, generator.channels * generator.scale**2
    if engine.architecture == "srgan":
        return max(engine.channels * generator.scale**2, shown)
    return max(engine.channels, shown)


def most_rows(generator: DeviceGenerator, width: int) -> int:
    """Return how many rows of so many pixels a generator can be given at once."""
    return MOST_VALUES // (values_per_px(generator) * width)


def rows_a_launch(generator: DeviceGenerator, width: int, height: int) -> int:
    """Return how many rows of a picture are launched at once: all, or those of a band.

    Raises:
        EngineError: not even one row with its context fits.
    """
    most = most_rows(generator, width)
    return height if height <= most else bands_of(height, most, generator.radius_px)[0].height


def bands_of(height: int, most: int, radius_px: int) -> list[Band]:
    """Return as few bands as cover a picture, each with all the context that a network reads.

    Args:
        height: rows of the picture, more than ``most``.
        most: rows that a band may read.
        radius_px: context on each side of a row.

    Raises:
        EngineError: not even one row with its context fits.

    >>> [(band.top, band.core_top, band.core_end) for band in bands_of(10, 7, 1)]
    [(0, 0, 5), (4, 5, 10)]
    """
    for num in range(2, height + 1):
        core = -(-height // num)
        tall = min(core + (1 if num == 2 else 2) * radius_px, height)
        if tall > most:
            continue
        cores = [(top, min(top + core, height)) for top in range(0, height, core)]
        return [Band(min(max(top - radius_px, 0), height - tall), tall, top, end) for top, end in cores]
    raise EngineError(
        f"expected a network that takes {2 * radius_px + 1} rows of such a picture at once, got one that takes {most}; "
        "use a smaller scale or --launch patch"
    )
