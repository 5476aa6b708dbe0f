"""The picture as a device gives it: the scene in an octagon, a black surround, a panel of burnt-in text."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamsr.capture.framecode import CODE_PX, MARGIN_PX
from streamsr.capture.scene import Pose, Scene
from streamsr.capture.wall import BT601, BT709
from streamsr.frame import Plane

BLACK, NEUTRAL, TEXT = 16, 128, 200
CORNER = 0.24
"""Share of a side that each corner of the octagon cuts off."""

PANEL = 0.24
"""Share of the width left of the octagon."""


class DevicePicture:
    """Renders whole pictures at the truth's size.

    Args:
        width: in pixels of the truth.
        height: in pixels of the truth.
        scale: of the truth over the small picture.
        seed: of the scene.
        bt709: whether the matrix is BT.709's, else BT.601's.
        lines: of the text panel.
    """

    def __init__(self, width: int, height: int, *, scale: int, seed: int, bt709: bool, lines: tuple[str, ...]) -> None:
        self.width, self.height = width, height
        left = _even(max(width * PANEL, (2 * MARGIN_PX + CODE_PX) * scale))
        top = _even(height * 0.02)
        self._box = (left, top, _even(width * 0.99) - left, height - 2 * top)
        size = self._box[2:]
        self.reach_px = _even(size[1] * 0.09)
        self._scene = Scene(size, seed=seed, luma_weights=BT709 if bt709 else BT601, reach_px=self.reach_px)
        self._inside = _octagon(size)
        self._panel = _draw_panel(left, height - (2 * MARGIN_PX + CODE_PX) * scale, lines)

    def render(self, pose: Pose) -> tuple[Plane, Plane, Plane]:
        """Render the picture without its number.

        Returns:
            Y (H, W), U and V (H / 2, W / 2), uint8, limited range, siting left.
        """
        luma, u, v = self._scene.render(pose)
        large = np.full((self.height, self.width), BLACK, np.uint8)
        large[: self._panel.shape[0], : self._panel.shape[1]] = self._panel
        left, top, width, height = self._box
        large[top : top + height, left : left + width] = np.where(self._inside, luma, BLACK)
        return large, self._set_chroma(u), self._set_chroma(v)

    def _set_chroma(self, plane: Plane) -> Plane:
        left, top, width, height = (side // 2 for side in self._box)
        whole = np.full((self.height // 2, self.width // 2), NEUTRAL, np.uint8)
        whole[top : top + height, left : left + width] = np.where(self._inside[::2, ::2], plane, NEUTRAL)
        return whole


def bring_down(planes: tuple[Plane, Plane, Plane], scale: int) -> tuple[Plane, Plane, Plane]:
    """Bring a picture down by averaging areas, keeping its chroma sited left.

    Left siting puts sample i of the small chroma at s i + (s - 1) / 4 of the large one, a quarter of (s - 1) left of
    the middle of the s samples that are averaged; chroma is moved by that much first.

    Args:
        planes: Y (s H, s W), U and V half that size, uint8.
        scale: s, 2 or 4.

    Returns:
        Y (H, W), U and V (H / 2, W / 2), uint8.
    """
    luma, u, v = planes
    return _average(luma, scale), _average(_move_right(u, scale), scale), _average(_move_right(v, scale), scale)


def _move_right(plane: Plane, scale: int) -> Plane:
    import cv2

    share = (scale - 1) / 4
    before = np.concatenate([plane[:, :1], plane[:, :-1]], axis=1)
    return np.asarray(cv2.addWeighted(plane, 1 - share, before, share, 0))


def _average(plane: Plane, scale: int) -> Plane:
    import cv2

    size = (plane.shape[1] // scale, plane.shape[0] // scale)
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA))


def _octagon(size: tuple[int, int]) -> NDArray[np.bool_]:
    width, height = size
    cut = CORNER * min(size)
    x = np.minimum(np.arange(width), np.arange(width)[::-1])[None, :]
    y = np.minimum(np.arange(height), np.arange(height)[::-1])[:, None]
    return np.asarray(x + y >= cut)


def _draw_panel(width: int, height: int, lines: tuple[str, ...]) -> NDArray[np.uint8]:
    """Draw text as (height, width) uint8 luma, as large as the panel's width allows."""
    import cv2

    panel: Any = np.full((height, width), BLACK, np.uint8)
    longest = max(cv2.getTextSize(line, cv2.FONT_HERSHEY_SIMPLEX, 1, 1)[0][0] for line in lines)
    font = width * 0.86 / longest
    thick = max(1, round(font * 1.7))
    for index, line in enumerate(lines):
        place = (round(width * 0.06), round(font * (42 + 40 * index)))
        cv2.putText(panel, line, place, cv2.FONT_HERSHEY_SIMPLEX, font, TEXT, thick, cv2.LINE_AA)
    return np.asarray(panel, np.uint8)


def _even(length: float) -> int:
    return 2 * round(length / 2)
