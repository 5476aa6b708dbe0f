"""The consistency projection in torch: differentiable, without synchronisation, ready for a CUDA graph.

    residual = lr - down(enlarged);  enlarged += up(residual)

where ``down`` is the stated filter and ``up`` its approximate inverse (`streamsr.models.reduction`). This is
back-projection (Irani and Peleg 1991) with an inverse in place of a blur, so that one step is enough; as a constraint
on learned enlargement see Bahat and Michaeli 2020. `streamsr.consistency` is the same in numpy.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from streamsr.models.reduction import (
    LEAST_ROOM,
    REACH_PX,
    WITHIN_LEVELS,
    Limits,
    down_sums,
    down_taps,
    num_before,
    sharpening_taps,
)
from streamsr.models.student import bilinear_taps


class Projection(nn.Module):
    """Projects pictures of one size; its kernels are buffers, so a CUDA graph may capture `forward`.

    Everything is computed in float32, under autocast too. Where a GPU's convolutions may round to TF32
    (``torch.backends.cudnn.allow_tf32``), a residual is exact to about 0.1 of 255 levels; turn that off for more.

    Args:
        scale: enlargement of each side.
        height: of the low-resolution picture in pixels.
        width: of the low-resolution picture in pixels.
    """

    taps: Tensor
    row_gains: Tensor
    column_gains: Tensor
    sharpening: Tensor
    bilinear: Tensor

    def __init__(self, scale: int, height: int, width: int) -> None:
        super().__init__()
        self.scale, self.height, self.width = scale, height, width
        buffers = {
            "taps": torch.tensor(down_taps(scale)),
            "row_gains": 1 / torch.tensor(down_sums(scale, height))[:, None],
            "column_gains": 1 / torch.tensor(down_sums(scale, width)),
            "sharpening": torch.tensor(sharpening_taps(scale)),
            "bilinear": bilinear_taps(scale),
        }
        for name, values in buffers.items():
            self.register_buffer(name, values.float(), persistent=False)

    def forward(
        self,
        enlarged: Tensor,
        lr: Tensor,
        iterations: int = 1,
        *,
        slack: float = 0.0,
        most: float | None = None,
        limits: Limits | None = None,
        level: float | None = None,
    ) -> Tensor:
        """Return enlarged pictures that give the low-resolution ones back.

        Args:
            enlarged: (N, C, scale * H, scale * W), any range.
            lr: (N, C, H, W), same range.
            iterations: steps; each leaves a few per cent of the residual where nothing is clamped.
            slack: residual to leave as it is, that of the rounding of ``lr``; 0.5 / 255 for 8-bit samples in [0, 1].
            most: the largest residual to correct; the rest of a larger one stays. None corrects all.
            limits: smallest and largest sample there is; what is made, and what is brought down, is clamped to them.
            level: one grey level. Steps after the first then correct only what is off by more, and by more where
                enlarged samples are at a limit, as `streamsr.correction` does. None corrects all in every step.

        Returns:
            (N, C, scale * H, scale * W) float32, a fresh tensor, not rounded.
        """
        with torch.autocast(enlarged.device.type, enabled=False):
            picture, target = enlarged.float(), lr.float()
            for step in range(iterations):
                reduced = self.down(picture)
                residual = target - (reduced if limits is None else reduced.clamp(*limits))
                outside = residual.detach().abs() > (level or 0.0) * WITHIN_LEVELS
                residual = functional.softshrink(residual, slack) if slack else residual
                if level is not None and step > 0:
                    residual = residual * outside
                    residual = residual if limits is None else residual / self._room(residual, picture, limits)
                residual = residual if most is None else residual.clamp(-most, most)
                picture = picture + self.up(residual)
                picture = picture if limits is None else picture.clamp(*limits)
        return picture

    def _room(self, residual: Tensor, picture: Tensor, limits: Limits) -> Tensor:
        """Return which share of a sample's enlarged ones can move the way its residual asks, at least `LEAST_ROOM`."""
        below, above = (
            functional.avg_pool2d(movable.float(), self.scale) for movable in (picture > limits[0], picture < limits[1])
        )
        return torch.where(residual < 0, below, above).clamp(min=LEAST_ROOM)

    def down(self, picture: Tensor) -> Tensor:
        """Bring (N, C, scale * H, scale * W) float32 down to (N, C, H, W) with the stated filter."""
        before, scale = num_before(self.scale), self.scale
        behind = len(self.taps) - scale - before
        planes = functional.pad(picture.flatten(0, 1)[:, None], (before, behind, before, behind))
        rows = functional.conv2d(planes, self.taps[None, None, :, None], stride=(scale, 1))
        small = functional.conv2d(rows, self.taps[None, None, None, :], stride=(1, scale))
        return (small * self.row_gains * self.column_gains).reshape(*picture.shape[:2], self.height, self.width)

    def up(self, residual: Tensor) -> Tensor:
        """Spread (N, C, H, W) float32 residuals over (N, C, scale * H, scale * W), so that `down` gives them back."""
        planes = functional.pad(residual.flatten(0, 1)[:, None], (REACH_PX,) * 4, mode="replicate")
        planes = functional.conv2d(planes, self.sharpening[None, None, :, None])
        planes = functional.conv2d(planes, self.sharpening[None, None, None, :])
        planes = functional.conv2d(functional.pad(planes, (1, 1, 1, 1), mode="replicate"), self.bilinear)
        spread = functional.pixel_shuffle(planes, self.scale)
        return spread.reshape(*residual.shape[:2], *spread.shape[-2:])


@lru_cache(maxsize=16)
def projection_for(scale: int, height: int, width: int, device: torch.device) -> Projection:
    """Return the projection of a size on a device, made once."""
    return Projection(scale, height, width).to(device)


def project(
    enlarged: Tensor,
    lr: Tensor,
    scale: int,
    iterations: int = 1,
    *,
    slack: float = 0.0,
    most: float | None = None,
    limits: Limits | None = None,
    level: float | None = None,
) -> Tensor:
    """Return enlarged pictures that give the low-resolution ones back; see `Projection.forward`.

    The first call for a size copies the kernels to the device; make it before a CUDA graph is captured.

    Args:
        enlarged: (N, C, scale * H, scale * W).
        lr: (N, C, H, W), same device and range.
        scale: enlargement of each side.
        iterations: steps.
        slack: residual to leave as it is.
        most: the largest residual to correct.
        limits: smallest and largest sample there is.
        level: one grey level.

    Returns:
        (N, C, scale * H, scale * W) float32.
    """
    height, width = lr.shape[-2:]
    projection = projection_for(scale, height, width, enlarged.device)
    return projection.forward(enlarged, lr, iterations, slack=slack, most=most, limits=limits, level=level)
