"""The wall of the rendered colon as textures: folds, vessels, the grain of the mucosa, wet highlights."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Real = NDArray[Any]
"""float32 samples."""

CHROMA_TEXEL = 4
"""Texels of the detail texture that one texel of the smooth one covers."""

DEEPEST = 4.2
"""ln of the largest over the smallest distance from the lumen's centre that is drawn."""

SWING = 0.12
"""Share of a turn that the camera swings to each side."""

BT601, BT709 = (0.299, 0.114), (0.2126, 0.0722)
"""(Kr, Kb) of Rec. ITU-R BT.601 and BT.709."""


class Wall:
    """The wall of the tunnel as textures.

    Attributes:
        detail: (2, rows, columns) uint8; fine luma around 128, and highlights.
        smooth: (rows / 4, columns / 4, 3) uint8; luma over black, Cb and Cr around 128.
        period: texels a turn, in both directions of ``detail``.
    """

    def __init__(self, *, seed: int, period: int, luma_weights: tuple[float, float]) -> None:
        chance = np.random.default_rng(seed)
        self.period = period // (4 * CHROMA_TEXEL) * 4 * CHROMA_TEXEL
        small = self.period // CHROMA_TEXEL
        folds = _draw_folds(chance, small)
        vessels = _draw_vessels(chance, self.period)
        rgb = _paint(chance, folds, _shrink(vessels, CHROMA_TEXEL))
        detail = _draw_detail(chance, self.period, vessels)
        highlights = _draw_highlights(chance, folds)
        rows, columns = int(self.period * (1 + DEEPEST / (2 * np.pi))) + 8, int(self.period * (1 + 2 * SWING)) + 8
        both = np.stack([np.clip(detail + 128, 0, 255), np.clip(highlights, 0, 255)], axis=2).astype(np.uint8)
        self.detail = _tile(both, rows, columns)
        smooth = _to_ycbcr(rgb, luma_weights)
        self.smooth = _tile(smooth, rows // CHROMA_TEXEL + 4, columns // CHROMA_TEXEL + 4)


def _draw_folds(chance: np.random.Generator, side: int) -> Real:
    """Draw the height of the wall, (side, side) in [0, 1]: haustral folds across, crests sharp on the near side."""
    across = np.arange(side) / side
    along = np.arange(side)[:, None] / side
    num_folds = 11
    wave = sum(
        chance.uniform(0.2, 0.5) / order * np.sin(2 * np.pi * (order * across + chance.uniform()))
        for order in (1, 2, 3)
    )
    wave = wave + 0.5 * _smooth_noise(chance, side, 12)
    place = (along * num_folds + 0.55 * wave) % 1
    crest = np.where(place < 0.78, (place / 0.78) ** 2.2, (1 - place) / 0.22)
    strength = 0.55 + 0.45 * np.clip(0.5 + _smooth_noise(chance, side, 6), 0, 1)
    folds: Real = (crest * strength).astype(np.float32)
    return _blur(folds, side / 400)


def _paint(chance: np.random.Generator, folds: Real, vessels: Real) -> Real:
    """Paint the wall, (side, side, 3) RGB in [0, 255]: pink crests, red valleys, darker vessels, blotches."""
    side = len(folds)
    valley, crest = np.array([150, 52, 40], np.float32), np.array([232, 142, 118], np.float32)
    slope = np.roll(folds, side // 160 + 1, axis=0) - folds
    shade = np.clip(0.28 + 0.85 * folds + 2.2 * _blur(slope, side / 500), 0, 1.15)[:, :, None]
    rgb = valley * (1 - shade) + crest * shade
    rgb += _smooth_noise(chance, side, 9)[:, :, None] * np.array([16, 15, 10], np.float32)
    rgb += _smooth_noise(chance, side, 40)[:, :, None] * np.array([6, 9, 7], np.float32)
    rgb -= vessels[:, :, None] * np.array([40, 44, 30], np.float32)
    return np.clip(rgb, 0, 255).astype(np.float32)


def _draw_detail(chance: np.random.Generator, side: int, vessels: Real) -> Real:
    """Draw what only luma carries, (side, side) around 0: the mucosa's grain, its pits, and the vessels' sharp part."""
    tile = side // 4
    grain = _blur(chance.standard_normal((tile, tile)).astype(np.float32), 1.0)
    coarse = _blur(chance.standard_normal((tile, tile)).astype(np.float32), 2.6)
    texture = np.tile(2.4 * grain / grain.std() + 4.5 * np.minimum(coarse / coarse.std(), 0.4), (4, 4))
    return np.asarray(texture - 24 * (vessels - _blur(vessels, CHROMA_TEXEL)), np.float32)


def _draw_vessels(chance: np.random.Generator, side: int) -> Real:
    """Draw branching vessels, (side, side) in [0, 1]."""
    import cv2

    canvas = np.zeros((side, side), np.uint8)
    buds = [(*chance.uniform(0, side, 2), chance.uniform(0, 2 * np.pi), side / 330, 0) for _ in range(13)]
    while buds:
        x, y, heading, width, order = buds.pop()
        points = [(x, y)]
        for _ in range(int(chance.integers(14, 30))):
            heading += chance.normal(0, 0.24)
            x, y = x + side / 110 * np.cos(heading), y + side / 110 * np.sin(heading)
            points.append((x, y))
            if order < 3 and chance.random() < 0.10:
                side_way = heading + chance.choice([-1, 1]) * chance.uniform(0.4, 0.9)
                buds.append((x, y, side_way, width * 0.66, order + 1))
        path = np.array(points)
        for shift in np.array([(a, b) for a in (-side, 0, side) for b in (-side, 0, side)]):
            line = np.round((path + shift) * 16).astype(np.int32)
            cv2.polylines(canvas, [line], False, 255, max(1, round(width)), cv2.LINE_AA, 4)
    return _blur(canvas.astype(np.float32) / 255, 0.8)


def _draw_highlights(chance: np.random.Generator, folds: Real) -> Real:
    """Draw wet spots, four times the size of ``folds``, in [0, 255] with sharp edges: mostly on crests."""
    side = len(folds)
    wet, broad = (_blur(chance.standard_normal((side, side)).astype(np.float32), side / parts) for parts in (300, 110))
    film = _smooth_noise(chance, side, 14)
    wetness = 0.8 * wet / wet.std() + 0.6 * broad / broad.std()
    score = _grow(wetness + 1.6 * np.clip(folds - 0.35, 0, 1) + 0.6 * film, CHROMA_TEXEL)
    return np.clip((score - 2.7) * 420, 0, 255).astype(np.float32)


def _smooth_noise(chance: np.random.Generator, side: int, cells: int) -> Real:
    """Draw periodic noise, (side, side), mean 0 and deviation 0.5, with ``cells`` bumps a side."""
    import cv2

    coarse = np.pad(chance.standard_normal((cells, cells)).astype(np.float32), 4, mode="wrap")
    zoom = side / cells
    fine = cv2.resize(coarse, (round((cells + 8) * zoom), round((cells + 8) * zoom)), interpolation=cv2.INTER_CUBIC)
    start = round(4 * zoom)
    cut = fine[start : start + side, start : start + side]
    return np.asarray((cut - cut.mean()) / cut.std() / 2, np.float32)


def _blur(picture: Real, sigma: float) -> Real:
    """Blur periodically."""
    import cv2

    rim = int(4 * sigma) + 2
    padded = np.pad(picture, rim, mode="wrap")
    return np.asarray(cv2.GaussianBlur(padded, (0, 0), max(sigma, 0.3))[rim:-rim, rim:-rim], np.float32)


def _shrink(picture: Real, factor: int) -> Real:
    side = len(picture) // factor
    return np.asarray(picture.reshape(side, factor, side, factor).mean(axis=(1, 3)), np.float32)


def _grow(picture: Real, factor: int) -> Real:
    import cv2

    side = len(picture) * factor
    return np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_LINEAR), np.float32)


def _tile(texture: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.uint8]:
    """Repeat a periodic texture to at least this size."""
    height, width = texture.shape[:2]
    return np.ascontiguousarray(np.pad(texture, ((0, rows - height), (0, columns - width), (0, 0)), mode="wrap"))


def _to_ycbcr(rgb: Real, luma_weights: tuple[float, float]) -> NDArray[np.uint8]:
    """Convert to limited-range luma over black (0 is black) and chroma around 128 (Rec. ITU-R BT.601-7, 2.5)."""
    kr, kb = luma_weights
    red, green, blue = (rgb[:, :, index] / 255 for index in range(3))
    y = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - y) / (2 * (1 - kb)), (red - y) / (2 * (1 - kr))
    return np.clip(np.stack([219 * y, 224 * cb + 128, 224 * cr + 128], axis=2) + 0.5, 0, 255).astype(np.uint8)
