"""The shape of a launch: whole frame, patches, or the region that holds the patches that need the generator.

Every shape gives the same picture, as long as the halo is at least the generator's radius; they differ in cost. Patches
compute their halos twice but skip what need not be computed; a whole frame computes everything once. What a device
makes of that is measured in a second or so when the first frame comes, and each frame then takes the cheapest launch
for the patches it has.

Compiled runtimes prepare every input shape once, at a cost of up to a second, so shapes are few: the frame, one patch
size in the batches of `BATCHES`, and at most `MAX_REGIONS` regions.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from streamsr.errors import EngineError, UsageError
from streamsr.patches import PatchGrid
from streamsr.runtimes.base import Generator, Pictures
from streamsr.surround import Mask

Kind = Literal["frame", "patch", "region"]
Choice = Literal["auto", "frame", "patch"]
LAUNCHES = ("auto", "frame", "patch")

BATCHES = (64, 16, 4, 1)
"""Patches a launch: enough to fill two to sixteen cores, in steps of four so that padding stays small."""

MAX_BATCH_PX = 1 << 18
"""Input pixels a batch: the SRGAN at x4 holds 256 channels of four times as many, in fp32 1 GiB."""

TRIED_BATCH = 16
"""Patches of the batch that is measured."""

MAX_WASTE = 0.25
"""The part of a batch that may be padding, beyond which the next smaller batch is taken."""

FEW_PATCHES = 4
"""Patches of the smallest size up to which a frame is launched whole, unmeasured: its halos would double it."""

MAX_REGIONS = 4
"""Shapes of regions an upscaler launches in its life; a video's surround seldom changes, and each is compiled."""

PATIENCE = 50
"""Frames, about two seconds, for which a smaller region must have done before it is prepared."""

SHRINKS_BY = 0.2
"""How much smaller, as a part, a region must be to be worth preparing."""

WORTHWHILE = 0.8
"""A launch of less than the frame is taken where it is predicted to cost at most this part of the frame's: predictions
on a busy machine are that coarse, and every shape has to be compiled."""

BUDGET_MS = 1500.0
"""What measuring may cost; shapes that a first look predicts to cost more are not tried."""

CORES_PX = (32, 64, 128)
"""Patch sizes to choose from."""


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
        costs: what was measured; None where nothing was.
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
        if self.kind != "region" or self.costs is None or self.costs.frame_ms is None:
            return self.kind
        frame_ms = self.costs.frame_ms
        options: dict[Kind, float] = {"frame": frame_ms, "patch": self.costs.patches_ms(num_patches)}
        if region_part < 1.0:
            options["region"] = frame_ms * region_part
        best = min(options, key=lambda kind: options[kind])
        return best if options[best] < WORTHWHILE * frame_ms else "frame"


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


def choose_launch(
    generator: Generator,
    width: int,
    height: int,
    *,
    launch: Choice = "auto",
    halo_px: int | None = None,
    cores: tuple[int, ...] = CORES_PX,
    dtype: type[np.generic] = np.uint8,
    budget_ms: float = BUDGET_MS,
) -> LaunchPlan:
    """Choose how frames of one size are launched, by a short measurement where there is something to choose.

    Args:
        generator: what is launched.
        width: of a frame in pixels.
        height: of a frame in pixels.
        launch: ``frame`` or ``patch`` to fix the kind, ``auto`` to measure.
        halo_px: context on each side; the generator's radius when None.
        cores: sides of cores to choose from; one to fix it.
        dtype: uint8 or float32, what the generator will be given.
        budget_ms: what measuring may cost.

    Raises:
        UsageError: a halo or a core that cannot be.
    """
    halo_px = generator.radius_px if halo_px is None else halo_px
    grids = [PatchGrid(width, height, generator.scale, halo_px, core) for core in sorted(cores)]
    if launch == "frame" or (launch == "auto" and grids[0].num <= FEW_PATCHES):
        return LaunchPlan("frame", cores[0], halo_px)
    if launch == "patch" and len(cores) == 1:
        return LaunchPlan("patch", cores[0], halo_px)
    return _measured(generator, grids, launch, dtype, budget_ms)


def _measured(
    generator: Generator, grids: list[PatchGrid], launch: Choice, dtype: type[np.generic], budget_ms: float
) -> LaunchPlan:
    """Measure patch sizes, then the frame, as far as the budget goes, and return the plan.

    What a patch size costs that would take too long to try is taken to grow with the window. A frame that would take
    too long is not launched whole: it may need more memory than there is.
    """
    share_ms = budget_ms / (len(grids) + 1)
    found: list[tuple[Costs, PatchGrid]] = []
    for grid in grids:
        found.append((_patch_costs(generator, grid, dtype, share_ms, found[-1][0] if found else None), grid))
    costs, grid = min(found, key=lambda entry: entry[0].patches_ms(entry[1].num))
    if launch == "auto" and costs.patches_ms(grid.num) < budget_ms:
        frame_ms = _launch_ms(generator, (1, grid.height, grid.width), dtype, share_ms)
        # The clock may change between two measurements: a pixel in a patch never costs less than one in a frame.
        least_ms = frame_ms * costs.window_px / (grid.width * grid.height)
        costs = replace(costs, frame_ms=frame_ms, patch_ms=max(costs.patch_ms, least_ms))
    kind: Kind = "patch" if costs.frame_ms is None else "region"
    return LaunchPlan(kind, grid.core_px, grid.halo_px, costs)


def _patch_costs(
    generator: Generator, grid: PatchGrid, dtype: type[np.generic], share_ms: float, before: Costs | None
) -> Costs:
    """Measure one batch.

    Args:
        generator: what is launched.
        grid: its windows.
        dtype: of the samples.
        share_ms: what one launch may cost.
        before: the costs of a smaller window, where they are known.
    """
    width, height = grid.window_size
    window_px = width * height
    size = next(size for size in sizes_of(window_px) if size <= min(grid.num, TRIED_BATCH))
    if before and before.patch_ms * size * window_px / before.window_px > share_ms:
        return replace(before, patch_ms=before.patch_ms * window_px / before.window_px, window_px=window_px)
    batch_ms = _launch_ms(generator, (size, height, width), dtype, share_ms)
    return Costs(None, batch_ms / size, window_px)


def _launch_ms(
    generator: Generator, shape: tuple[int, int, int], dtype: type[np.generic], share_ms: float, *, runs: int = 4
) -> float:
    """Return the shortest of a few launches, at least one, after a first one that prepares the shape."""
    num, height, width = shape
    pictures: Pictures = np.ones((num, generator.channels, height, width), dtype)
    scale = generator.scale
    out = np.empty((num, generator.channels, scale * height, scale * width), dtype)
    generator.generate(pictures, out)
    taken_ms: list[float] = []
    while not taken_ms or (len(taken_ms) < runs and sum(taken_ms) < share_ms):
        started = time.perf_counter_ns()
        generator.generate(pictures, out)
        taken_ms.append((time.perf_counter_ns() - started) / 1e6)
    return min(taken_ms)


@dataclass(frozen=True)
class Region:
    """A rectangle of patches: rows and columns of the routing grid, start and stop."""

    rows: tuple[int, int]
    columns: tuple[int, int]

    @property
    def num_patches(self) -> int:
        """Patches in it."""
        return (self.rows[1] - self.rows[0]) * (self.columns[1] - self.columns[0])

    def holds(self, other: Region) -> bool:
        """Whether another region lies in this one."""
        return (
            self.rows[0] <= other.rows[0]
            and self.rows[1] >= other.rows[1]
            and self.columns[0] <= other.columns[0]
            and self.columns[1] >= other.columns[1]
        )

    def joined(self, other: Region) -> Region:
        """Return the smallest region that holds both."""
        return Region(
            (min(self.rows[0], other.rows[0]), max(self.rows[1], other.rows[1])),
            (min(self.columns[0], other.columns[0]), max(self.columns[1], other.columns[1])),
        )

    def core(self, grid: PatchGrid) -> tuple[slice, slice]:
        """Return the (rows, columns) of its cores in the frame."""
        rows, columns = grid.row_spans, grid.column_spans
        return (
            slice(rows[self.rows[0]].core[0], rows[self.rows[1] - 1].core[1]),
            slice(columns[self.columns[0]].core[0], columns[self.columns[1] - 1].core[1]),
        )

    def window(self, grid: PatchGrid, halo_px: int) -> tuple[slice, slice]:
        """Return the (rows, columns) of its cores and their halo in the frame."""
        rows, columns = self.core(grid)
        return (
            slice(max(rows.start - halo_px, 0), min(rows.stop + halo_px, grid.height)),
            slice(max(columns.start - halo_px, 0), min(columns.stop + halo_px, grid.width)),
        )

    def mask(self, grid: PatchGrid) -> Mask:
        """Return the (rows, columns) mask of its patches."""
        mask: Mask = np.zeros((grid.rows, grid.columns), np.bool_)
        mask[slice(*self.rows), slice(*self.columns)] = True
        return mask


def region_of(mask: Mask) -> Region:
    """Return the smallest region that holds a mask that is set somewhere."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return Region((int(rows[0]), int(rows[-1]) + 1), (int(columns[0]), int(columns[-1]) + 1))


class Regions:
    """The few regions that the frames of one size are launched in.

    A region that was launched before is prepared, so the smallest of these that will do is taken, or else the whole
    frame. What the first frame needs is a region; another is added when one smaller by `SHRINKS_BY` would have done
    for `PATIENCE` frames, until there are `MAX_REGIONS`.

    Args:
        grid: the routing grid.
    """

    def __init__(self, grid: PatchGrid) -> None:
        self.whole = Region((0, grid.rows), (0, grid.columns))
        self.known: list[Region] = []
        self._recent: Region | None = None
        self._num_loose = 0
        self._patience = 1

    def cover(self, mask: Mask) -> Region:
        """Return the region to launch for the patches that need the generator, at least one."""
        needed = region_of(mask)
        fitting = [region for region in (*self.known, self.whole) if region.holds(needed)]
        best = min(fitting, key=lambda region: region.num_patches)
        self._watch(needed, best)
        if len(self.known) < MAX_REGIONS and self._recent is not None and self._num_loose >= self._patience:
            best = self._recent
            self._add(best)
        self._patience = PATIENCE
        return best

    def _add(self, region: Region) -> None:
        """Know a region, and start watching anew."""
        self.known.append(region)
        self._recent, self._num_loose = None, 0

    def _watch(self, needed: Region, best: Region) -> None:
        """Count for how many frames a smaller region than the best would have done."""
        self._recent = needed if self._recent is None else self._recent.joined(needed)
        if self._recent.num_patches > (1 - SHRINKS_BY) * best.num_patches:
            self._recent, self._num_loose = None, 0
        else:
            self._num_loose += 1
