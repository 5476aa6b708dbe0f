"""Highlights: found where they are put, left out of dark surround and bright tissue, measured as stated."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from streamsr.quality.specular import (
    SATURATED_LUMA,
    find_highlights,
    measure_highlights,
    overshoot,
    ring_around,
    saturated,
    saturation_mask,
)

SPOTS = ((60, 80, 4), (150, 200, 7), (170, 60, 2))
"""Row, column and radius of the spots of `tissue_with_spots`."""


def tissue(height: int = 240, width: int = 320) -> NDArray[np.uint8]:
    """Return smooth reddish tissue, (H, W, 3) RGB, 70 to 190 in red, with a little noise."""
    random = np.random.default_rng(5)
    shade = cv2.resize(
        random.uniform(0.6, 1, (4, 5)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    rgb = shade[..., None] * np.array([180, 95, 80]) + random.normal(0, 1.5, (height, width, 3))
    return rgb.clip(0, 255).astype(np.uint8)


def spots(height: int = 240, width: int = 320) -> NDArray[np.bool_]:
    mask = np.zeros((height, width), np.uint8)
    for row, column, radius in SPOTS:
        cv2.circle(mask, (column, row), radius, 1, -1)
    return mask > 0


def tissue_with_spots(level: int) -> NDArray[np.uint8]:
    rgb = tissue()
    rgb[spots()] = level
    return cv2.GaussianBlur(rgb, (3, 3), 0.5)


@pytest.mark.parametrize("level", [255, 215])
def test_spots_are_found_and_nothing_else(level: int) -> None:
    """215 lies below module 1's threshold, so that module 2 alone finds it."""
    found, put = find_highlights(tissue_with_spots(level)), spots()
    assert found[put].all()
    near = cv2.dilate(put.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    assert not found[~near].any()
    assert not find_highlights(tissue()).any()


def test_edge_of_the_dark_surround_is_no_highlight() -> None:
    rgb = tissue_with_spots(255)
    inside = np.zeros(rgb.shape[:2], np.uint8)
    cv2.circle(inside, (160, 120), 115, 1, -1)
    rgb[inside == 0] = np.random.default_rng(1).integers(0, 12, (int((inside == 0).sum()), 3))
    near = cv2.dilate(spots().astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    found = find_highlights(rgb)
    assert found[150, 200]
    assert not found[~near].any()


def test_large_bright_tissue_is_no_highlight() -> None:
    rgb = tissue()
    rgb[60:180, 80:240] = 250
    assert not find_highlights(rgb)[70:170, 90:230].any()


def test_soft_glow_is_no_highlight() -> None:
    glow = np.exp(-((np.arange(240)[:, None] - 120) ** 2 + (np.arange(320) - 160) ** 2) / (2 * 40.0**2))
    rgb = (110 + 90 * glow)[..., None].repeat(3, axis=2).astype(np.uint8)
    assert not find_highlights(rgb).any()


@pytest.mark.parametrize(("scale", "channels"), [(2, 1), (4, 1), (2, 3)])
def test_saturation_mask_grows_by_low_resolution_pixels(scale: int, channels: int) -> None:
    hr = torch.full((2, channels, 48, 48), 0.5)
    hr[0, -1, 20, 30] = (SATURATED_LUMA if channels == 1 else 250 / 255) + 1e-6
    hr[1, -1, 20, 30] = (230 if channels == 1 else 249) / 255
    mask = saturation_mask(hr, scale=scale)
    assert mask.shape == (2, 1, 48, 48)
    assert mask.dtype == torch.float32
    reach = 2 * scale
    expected = torch.zeros(48, 48)
    expected[20 - reach : 20 + reach + 1, 30 - reach : 30 + reach + 1] = 1
    assert torch.equal(mask[0, 0], expected)
    assert not mask[1].any()


def test_red_alone_is_no_white() -> None:
    hr = torch.zeros(1, 3, 8, 8)
    hr[0, 0] = 1
    assert saturation_mask(hr, scale=2).all()
    assert not saturation_mask(hr, scale=2, every_channel=True).any()
    assert saturation_mask(torch.ones(1, 3, 8, 8), scale=2, every_channel=True).all()


def test_saturation_begins_at_250_of_rgb_and_at_the_luma_of_that_grey() -> None:
    rgb = np.full((4, 4, 3), 100, np.uint8)
    rgb[1, 2, 0] = 250
    rgb[3, 3] = 249
    assert np.argwhere(saturated(rgb)).tolist() == [[1, 2]]
    luma = np.array([[229, 230], [231, 235]], np.uint8)
    assert saturated(luma).tolist() == [[False, False], [True, True]]


@pytest.mark.needs_cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_saturation_mask_is_captured_in_a_cuda_graph() -> None:
    hr = torch.rand(4, 1, 64, 64, device="cuda")
    saturation_mask(hr, scale=2)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        mask = saturation_mask(hr, scale=2)
    hr.copy_(torch.rand_like(hr))
    graph.replay()
    assert torch.equal(mask, saturation_mask(hr, scale=2))


def test_ring_lies_outside_and_within_eight_pixels() -> None:
    mask = np.zeros((40, 40), bool)
    mask[20, 20] = True
    ring = ring_around(mask)
    assert not ring[20, 20]
    assert ring[20, 28]
    assert ring[12, 20]
    assert not ring[20, 29]


def test_overshoot_is_what_leaves_the_truths_local_range() -> None:
    truth = np.full((20, 20), 100, np.uint8)
    truth[:, 10:] = 200
    picture = truth.copy()
    picture[5, 9], picture[6, 2], picture[7, 12], picture[8, 10] = 190, 90, 207, 90
    excess = overshoot(picture, truth)
    assert excess[5, 9] == 0  # within the step's range
    assert (excess[6, 2], excess[7, 12], excess[8, 10]) == (10, 7, 10)
    assert int((excess > 0).sum()) == 3


def test_measures_are_their_definitions() -> None:
    truth = np.full((60, 60), 100, np.uint8)
    truth_mask = np.zeros((60, 60), bool)
    truth_mask[20:30, 20:30] = True
    picture_mask = np.roll(truth_mask, 5, axis=1)
    picture = truth.copy()
    picture[truth_mask] += 10
    picture[ring_around(truth_mask)] += 4
    measured = measure_highlights(picture, truth, picture_mask=picture_mask, truth_mask=truth_mask)
    assert measured is not None
    assert measured.inside_psnr_db == pytest.approx(20 * np.log10(255 / 10))
    assert measured.ring_psnr_db == pytest.approx(20 * np.log10(255 / 4))
    assert (measured.overshoot, measured.overshoot_peak) == (4, 4)
    assert measured.overlap == pytest.approx(50 / 150)
    assert measured.share == pytest.approx(100 / 3600)


def test_no_highlight_means_no_measure_and_sizes_must_agree() -> None:
    truth, none = np.zeros((20, 20, 3), np.uint8), np.zeros((20, 20), bool)
    assert measure_highlights(truth, truth, picture_mask=none, truth_mask=none) is None
    with pytest.raises(ValueError, match="one size"):
        measure_highlights(truth, truth[:10], picture_mask=none, truth_mask=none)


def test_real_frames_have_small_masks_that_hold_their_whitest_spots() -> None:
    frames = sorted((Path(__file__).parents[2] / "shared" / "data" / "clinicdb" / "test").glob("*.webp"))[::20]
    if not frames:
        pytest.skip("needs the project's frames")
    for path in frames:
        rgb = np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])
        found = find_highlights(rgb)
        assert 0 < found.mean() < 0.08
        white = rgb.min(axis=2) >= 250
        assert not white.any() or found[white].mean() > 0.5
