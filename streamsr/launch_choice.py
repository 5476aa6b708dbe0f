"""Which launches the frames of one size have to choose from: known beforehand, or found by a short trial on the device.

A whole frame and a region need no trial: a region costs its share of the frame. Patches compute their halos too, and
what a device makes of that is only known by a trial, in which every patch size is prepared and timed; it takes about as
long as twenty frames. So the trial waits until patches could have saved as much as it costs: a video that moves
everywhere never has one. Where no later frame may wait for it, or whole frames may be too much for the machine, it is
made before the first frame.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from streamsr.launch import WORTHWHILE, Choice, Costs, Kind, LaunchPlan, batches_of, sizes_of, tiles_of
from streamsr.patches import PatchGrid
from streamsr.runtimes.base import Generator, Pictures
from streamsr.surround import Mask

CORES_PX = (32, 64, 128)
"""Patch sizes to choose from."""

FEW_PATCHES = 4
"""Patches of the smallest size up to which a frame is launched whole, unmeasured: its halos would double it."""

SURE_PX = 1 << 21
"""Pixels of the largest frame that is launched whole with no trial before it: 1920x1080. A student holds some hundred
MiB of activations for it."""

TRIED_BATCH = 16
"""Patches of the batch that is measured."""

BUDGET_MS = 1500.0
"""What measuring may cost; shapes that a first look predicts to cost more are not tried."""

TRIAL_MS = 500.0
"""What a trial is taken to cost, most of it for preparing shapes; measured at 320x240 on two cores with OpenVINO."""


@dataclass(frozen=True)
class Trial:
    """What can be tried: a generator with frames of one size.

    Attributes:
        generator: what is launched.
        grids: one for each patch size to choose from, the smallest first.
        dtype: uint8 or float32, what the generator will be given.
        budget_ms: what measuring may cost.
    """

    generator: Generator
    grids: tuple[PatchGrid, ...]
    dtype: type[np.generic] = np.uint8
    budget_ms: float = BUDGET_MS

    def run(self, launch: Choice = "auto") -> LaunchPlan:
        """Measure patch sizes, then the frame unless ``launch`` is ``patch``, as far as the budget goes.

        What a patch size costs that would take too long to try is taken to grow with the window. A frame that would
        take too long is not launched whole: it may need more memory than there is.
        """
        share_ms = self.budget_ms / (len(self.grids) + 1)
        found: list[tuple[Costs, PatchGrid]] = []
        for grid in self.grids:
            found.append((self._patch_costs(grid, share_ms, found[-1][0] if found else None), grid))
        costs, grid = min(found, key=lambda entry: entry[0].patches_ms(entry[1].num))
        if launch == "auto" and costs.patches_ms(grid.num) < self.budget_ms:
            frame_ms = self._launch_ms((1, grid.height, grid.width), share_ms)
            # The clock may change between two measurements: a pixel in a patch never costs less than one in a frame.
            least_ms = frame_ms * costs.window_px / (grid.width * grid.height)
            costs = replace(costs, frame_ms=frame_ms, patch_ms=max(costs.patch_ms, least_ms))
        kind: Kind = "patch" if costs.frame_ms is None else "region"
        return LaunchPlan(kind, grid.core_px, grid.halo_px, costs)

    def _patch_costs(self, grid: PatchGrid, share_ms: float, before: Costs | None) -> Costs:
        """Measure one batch.

        Args:
            grid: its windows.
            share_ms: what one launch may cost.
            before: the costs of a smaller window, where they are known.
        """
        width, height = grid.window_size
        window_px = width * height
        size = next(size for size in sizes_of(window_px) if size <= min(grid.num, TRIED_BATCH))
        if before and before.patch_ms * size * window_px / before.window_px > share_ms:
            return replace(before, patch_ms=before.patch_ms * window_px / before.window_px, window_px=window_px)
        return Costs(None, self._launch_ms((size, height, width), share_ms) / size, window_px)

    def _launch_ms(self, shape: tuple[int, int, int], share_ms: float, *, runs: int = 4) -> float:
        """Return the shortest of a few launches, at least one, after a first one that prepares the shape."""
        num, height, width = shape
        generator = self.generator
        pictures: Pictures = np.ones((num, generator.channels, height, width), self.dtype)
        scale = generator.scale
        out = np.empty((num, generator.channels, scale * height, scale * width), self.dtype)
        generator.generate(pictures, out)
        taken_ms: list[float] = []
        while not taken_ms or (len(taken_ms) < runs and sum(taken_ms) < share_ms):
            started = time.perf_counter_ns()
            generator.generate(pictures, out)
            taken_ms.append((time.perf_counter_ns() - started) / 1e6)
        return min(taken_ms)


class LaunchChooser:
    """Chooses how each of the frames of one size is launched. Owned by one thread.

    Args:
        generator: what is launched.
        width: of a frame in pixels.
        height: of a frame in pixels.
        launch: ``frame`` or ``patch`` to fix the kind, ``auto`` to choose.
        halo_px: context on each side; the generator's radius when None.
        cores: sides of cores to choose from; one to fix it.
        dtype: uint8 or float32, what the generator will be given.
        trial_first: make the trial now rather than when it pays.
        budget_ms: what measuring may cost.

    Attributes:
        plan: the present one.
        tiles: the patches that it launches.

    Raises:
        UsageError: a halo or a core that cannot be.
    """

    def __init__(
        self,
        generator: Generator,
        width: int,
        height: int,
        *,
        launch: Choice = "auto",
        halo_px: int | None = None,
        cores: tuple[int, ...] = CORES_PX,
        dtype: type[np.generic] = np.uint8,
        trial_first: bool = False,
        budget_ms: float = BUDGET_MS,
    ) -> None:
        halo_px = generator.radius_px if halo_px is None else halo_px
        grids = tuple(PatchGrid(width, height, generator.scale, halo_px, core) for core in sorted(cores))
        self._trial = Trial(generator, grids, dtype, budget_ms)
        self._spared, self._frame_ms = 0.0, np.inf
        few = grids[0].num <= FEW_PATCHES
        if launch == "frame" or (launch == "auto" and few) or (launch == "patch" and len(grids) == 1):
            self._take(LaunchPlan("patch" if launch == "patch" else "frame", grids[0].core_px, halo_px))
        elif launch == "patch" or trial_first or width * height > SURE_PX:
            self._take(self._trial.run(launch))
        else:
            self._take(LaunchPlan("region", grids[0].core_px, halo_px))

    def _take(self, plan: LaunchPlan) -> None:
        self.plan = plan
        self.tiles = next(grid for grid in self._trial.grids if grid.core_px == plan.core_px)

    def note(self, part: float, taken_ms: float) -> None:
        """Note what a launch took.

        Args:
            part: what was launched, as a part of the frame.
            taken_ms: how long it took; a shape's first launch, which is prepared, may be among them.
        """
        self._frame_ms = min(self._frame_ms, taken_ms / part)

    def choose(self, mask: Mask, grid: PatchGrid, region_part: float) -> Kind:
        """Choose the launch of the next frame, after a trial where that has come to pay.

        Args:
            mask: (rows, columns) of ``grid``: the patches that need the generator, at least one.
            grid: the routing grid, whose core divides those of the tiles.
            region_part: area of the region that holds them, as a part of the frame's.
        """
        if self.plan.kind == "region" and self.plan.costs is None:
            whole = region_part if region_part < WORTHWHILE else 1.0
            least = min(self._least_part(mask, grid, tiles) for tiles in self._trial.grids)
            if least < WORTHWHILE * whole:
                self._spared += whole - least
            if self._frame_ms < np.inf and self._spared * self._frame_ms > TRIAL_MS:
                self._take(self._trial.run())
        return self.plan.cheapest(int(np.count_nonzero(tiles_of(mask, grid, self.tiles))), region_part)

    @staticmethod
    def _least_part(mask: Mask, grid: PatchGrid, tiles: PatchGrid) -> float:
        """Return the least that patches can cost, as a part of the frame: a pixel in a patch as one in the frame."""
        width, height = tiles.window_size
        batches = batches_of(int(np.count_nonzero(tiles_of(mask, grid, tiles))), width * height)
        return sum(size for _, size in batches) * width * height / (tiles.width * tiles.height)
