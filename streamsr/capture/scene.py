"""A rendered colonoscopy: a tunnel seen by a moving camera.

The wall of the tunnel is a texture over (angle, logarithm of the distance from the lumen's centre). In these log-polar
coordinates a step along the tunnel is a shift of the texture and a turn of the camera another, so that a picture is one
look-up by maps made once. Shading depends on the distance alone: dark where the light does not reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamsr.capture.wall import CHROMA_TEXEL, DEEPEST, SWING, Real, Wall
from streamsr.frame import Plane

TEXELS_A_LINE = 3.2
"""Width of the wall's texture in texels a picture line: about one texel a pixel at the edge of the field."""


@dataclass(frozen=True)
class Pose:
    """Where the camera is.

    Attributes:
        travel: how far along the tunnel, in turns (one turn is the height of the texture).
        turn: rotation about the axis, in turns, within +-`SWING`.
        pan_px: (x, y) of the lumen's centre from the middle of the field, in even output pixels.
    """

    travel: float
    turn: float
    pan_px: tuple[int, int]


class Scene:
    """Renders the field of view.

    Args:
        size: (width, height) of the field in output pixels, even.
        seed: of everything random.
        luma_weights: (Kr, Kb) of the colour matrix.
        reach_px: how far the lumen's centre moves from the middle, in output pixels, even.
    """

    def __init__(self, size: tuple[int, int], *, seed: int, luma_weights: tuple[float, float], reach_px: int) -> None:
        self.size, self.reach_px = size, reach_px
        self.wall = Wall(seed=seed, period=int(size[1] * TEXELS_A_LINE), luma_weights=luma_weights)
        self._luma = _Maps(size, reach_px, step=1, period=self.wall.period, seed=seed)
        self._chroma = _Maps(size, reach_px, step=2, period=self.wall.period, seed=seed)

    def render(self, pose: Pose) -> tuple[Plane, Plane, Plane]:
        """Render one picture.

        Returns:
            Y (H, W), U and V (H / 2, W / 2), uint8 in the limited range, chroma sited left.
        """
        import cv2

        along, across, light = self._luma.look(pose)
        detail, shine = cv2.split(_look_up(self.wall.detail, along, across))
        smooth = _look_up(self.wall.smooth[:, :, 0].copy(), along / CHROMA_TEXEL, across / CHROMA_TEXEL)
        fine = cv2.addWeighted(smooth, 1.0, detail, 1.0, -128.0, dtype=cv2.CV_32F)
        lit = cv2.multiply(fine, light)
        luma = cv2.add(lit, cv2.multiply(shine, light, scale=1.4, dtype=cv2.CV_32F)) + 16.5
        return (np.clip(luma, 16, 235).astype(np.uint8), *self._render_chroma(pose, shine))

    def _render_chroma(self, pose: Pose, shine: Plane) -> tuple[Plane, Plane]:
        along, across, light = self._chroma.look(pose)
        smooth = _look_up(self.wall.smooth, along / CHROMA_TEXEL, across / CHROMA_TEXEL)
        # A highlight has the colour of the lamp: chroma goes where it shines, at the same samples (siting left).
        glare = (shine[0::2, 0::2].astype(np.float32) + shine[1::2, 0::2]) / 256
        strength = light * np.clip(1.2 - glare, 0, 1)
        u, v = ((smooth[:, :, index].astype(np.float32) - 128) * strength + 128.5 for index in (1, 2))
        return np.clip(u, 16, 240).astype(np.uint8), np.clip(v, 16, 240).astype(np.uint8)


class _Maps:
    """Where each pixel looks on the wall, for a canvas that is larger than the picture by the reach of the pan.

    Args:
        size: (width, height) in output pixels.
        reach_px: of the pan, each way.
        step: output pixels between samples: 1 for luma, 2 for chroma.
        period: texels a turn.
        seed: of the lumen's shape.
    """

    def __init__(self, size: tuple[int, int], reach_px: int, *, step: int, period: int, seed: int) -> None:
        self.size, self.reach_px, self.step, self.period = size, reach_px, step, period
        chance = np.random.default_rng(seed + 1)
        # Samples of chroma lie on every other pixel across, but between two rows down (siting left).
        x = np.arange(0, size[0] + 2 * reach_px, step, dtype=np.float32) - size[0] / 2 - reach_px + 0.5
        y = np.arange(0, size[1] + 2 * reach_px, step, dtype=np.float32) - size[1] / 2 - reach_px + step / 2
        dx, dy = np.meshgrid(x, y)
        angle = np.arctan2(dy, dx)
        phase = chance.uniform(0, 2 * np.pi, 2)
        shape = 1 + 0.14 * np.cos(3 * angle + phase[0]) + 0.05 * np.cos(5 * angle + phase[1])
        distance = np.hypot(dx, dy) / shape / (size[1] / 2)
        depth = np.clip(-np.log(np.maximum(distance, 1e-4)) + 0.9, 0, DEEPEST)
        self.across = ((angle / (2 * np.pi) + 0.5 + SWING) * period).astype(np.float32)
        self.along = (depth / (2 * np.pi) * period).astype(np.float32)
        near = 1 - 0.30 * np.clip(distance - 0.75, 0, 1)
        self.light = (np.clip((distance - 0.07) / 0.62, 0, 1) ** 0.75 * near).astype(np.float32)

    def look(self, pose: Pose) -> tuple[Real, Real, Real]:
        """Return the (along, across) texels and the light of each sample, (H / step, W / step) each."""
        left, top = ((self.reach_px - pan) // self.step for pan in pose.pan_px)
        width, height = (side // self.step for side in self.size)
        window = (slice(top, top + height), slice(left, left + width))
        along = self.along[window] + np.float32(pose.travel % 1 * self.period)
        across = self.across[window] + np.float32(pose.turn * self.period)
        return along, across, np.ascontiguousarray(self.light[window])


def _look_up(texture: NDArray[np.uint8], along: Real, across: Real) -> Any:
    import cv2

    return cv2.remap(texture, across, along, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
