"""The shape of a launch: whole frame, patches, or the region that holds the patches that need the generator.

Every shape gives the same picture, as long as the halo is at least the generator's radius; they differ in cost. Patches
compute their halos twice but skip what need not be computed; a whole frame computes everything once. A `LaunchPlan`
takes the cheapest launch for the patches that a frame has; `streamsr.launch_choice` makes it.

Compiled runtimes prepare every input shape once, at a cost of up to a second, so shapes are few: the frame, one patch
size in the batches of `BATCHES`, and at most `regions.MAX_REGIONS` regions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from streamsr.errors import EngineError, UsageError
from streamsr.patches import PatchGrid
from streamsr.surround import Mask

Kind = Literal["frame", "patch", "region"]
Choice = Literal["auto", "frame", "patch"]
LAUNCHES = ("auto", "frame", "patch")

BATCHES = (64, 16, 4, 1)
"""Patches a launch: enough to fill two to sixteen cores, in steps of four so that padding stays small."""

MAX_BATCH_PX = 1 << 18
"""Input pixels a batch: the SRGAN at x4 holds 256 channels of four times as many, in fp32 1 GiB."""

MAX_WASTE = 0.25
"""The part of a batch that may be padding, beyond which the next smaller batch is taken."""

WORTHWHILE = 0.8
"""A launch of less than the frame is taken where it is predicted to cost at most this part of the frame's: predictions
on a busy machine are that coarse, and every shape has to be compiled."""


def refuse_unusable(channels: int, launch: Choice, patch_px: int | None, halo_px: int | None) -> None:
    """Refuse what no upscaler can work with.

    Raises:
        UsageError: an option that cannot be.
        EngineError: a generator that reads neither luma nor RGB.
    """
    if channels not in (1, 3):
        raise EngineError(f"expected a generator of 1 (luma) or 3 (RGB) channels, got {channels}; use another engine")
    if launch not in LAUNCHES:
        raise UsageError(f"expected a launch of {', '.join(LAUNCHES)}, got {launch!r}; choose one of these")
    if (patch_px is not None and patch_px < 1) or (halo_px is not None and halo_px < 0):
        raise UsageError(f"expected a patch of 1 px or more and a halo of 0 or more, got {patch_px} and {halo_px}")


@dataclass(frozen=True)
class Costs:
    """What launches cost, measured, in milliseconds.

    Attributes:
        frame_ms: one whole frame; None where it was not tried.
        patch_ms: one patch, as part of a batch.
        window_px: input pixels of a patch and its halo.
    """

    frame_ms: float | None
    patch_ms: float
    window_px: int

    def patches_ms(self, num: int) -> float:
        """Return the cost of some patches in the batches they would be launched in, padding included."""
        return sum(size for _, size in batches_of(num, self.window_px)) * self.patch_ms


@dataclass(frozen=True)
class LaunchPlan:
    """How the frames of one size are launched.

    Attributes:
        kind: ``frame`` or ``patch`` where that is fixed; ``region`` where each frame takes the cheapest of all three.
        core_px: side of a launched patch's core.
        halo_px: context on each side.
        costs: what was measured; None where nothing was, and patches are left out of account.
    """

    kind: Kind
    core_px: int
    halo_px: int
    costs: Costs | None = None

    def cheapest(self, num_patches: int, region_part: float) -> Kind:
        """Return the cheapest launch.

        Args:
            num_patches: patches of ``core_px`` that hold all that needs the generator.
            region_part: area of the region that holds it, as a part of the frame's.
        """
        if self.kind != "region":
            return self.kind
        parts: dict[Kind, float] = {"frame": 1.0, "region": region_part}
        if self.costs is not None and self.costs.frame_ms is not None:
            parts["patch"] = self.costs.patches_ms(num_patches) / self.costs.frame_ms
        best = min(parts, key=lambda kind: parts[kind])
        return best if parts[best] < WORTHWHILE else "frame"


def sizes_of(window_px: int) -> tuple[int, ...]:
    """Return the sizes of batches of windows of so many pixels, the largest first."""
    return tuple(size for size in BATCHES if size == 1 or size * window_px <= MAX_BATCH_PX)


def batches_of(num: int, window_px: int) -> Iterator[tuple[int, int]]:
    """Split patches into batches of the few sizes there are.

    Args:
        num: patches.
        window_px: input pixels of a patch and its halo.

    Yields:
        (patches, size): how many patches the batch holds, and its size; the rest of it is padding.

    >>> list(batches_of(99, 52 * 52))
    [(64, 64), (16, 16), (16, 16), (3, 4)]
    """
    while num > 0:
        size = next(size for size in sizes_of(window_px) if num >= size * (1 - MAX_WASTE))
        taken = min(num, size)
        yield taken, size
        num -= taken


def tiles_of(mask: Mask, grid: PatchGrid, tiles: PatchGrid) -> Mask:
    """Return which tiles of a coarser grid hold a patch of a mask, as (rows, columns) of the coarser grid."""
    factor = tiles.core_px // grid.core_px
    if factor == 1:
        return mask
    rows = np.logical_or.reduceat(mask, range(0, grid.rows, factor), axis=0)
    joined: Mask = np.logical_or.reduceat(rows, range(0, grid.columns, factor), axis=1)
    return joined
