"""Measures: definitions as in scikit-image, and the field of view."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from streamsr.quality.fidelity import FIELD_EROSION_PX, field_of_view, is_lit, psnr_db, ssim


def two_pictures() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    random = np.random.default_rng(5)
    truth = random.integers(0, 256, (60, 83), dtype=np.uint8)
    noise = random.integers(-9, 10, truth.shape)
    return np.clip(truth + noise, 0, 255).astype(np.uint8), truth


def test_psnr_agrees_with_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    picture, truth = two_pictures()
    assert psnr_db(picture, truth) == pytest.approx(metrics.peak_signal_noise_ratio(truth, picture), abs=1e-6)


def test_ssim_agrees_with_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    picture, truth = two_pictures()
    expected = metrics.structural_similarity(
        truth, picture, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
    )
    assert ssim(picture, truth) == pytest.approx(expected, abs=1e-6)


def test_psnr_of_equal_pictures_is_infinite_and_masks_choose_what_counts() -> None:
    picture, truth = two_pictures()
    assert psnr_db(truth, truth) == float("inf")
    mask = np.zeros(truth.shape, bool)
    mask[:10] = True
    picture[:10] = truth[:10]
    assert psnr_db(picture, truth, mask=mask) == float("inf")


def test_pictures_of_two_shapes_are_refused() -> None:
    picture, truth = two_pictures()
    with pytest.raises(ValueError, match="one shape"):
        psnr_db(picture[1:], truth)
    with pytest.raises(ValueError, match="one shape"):
        ssim(picture[1:], truth)


def test_field_of_view_fills_dark_holes_and_leaves_the_surround_out() -> None:
    luma = np.full((200, 240), 16, np.uint8)
    luma[20:180, 40:200] = 120
    luma[90:110, 110:130] = 16  # a dark lumen inside
    field = field_of_view(luma)
    expected = np.zeros_like(field)
    expected[20 + FIELD_EROSION_PX : 180 - FIELD_EROSION_PX, 40 + FIELD_EROSION_PX : 200 - FIELD_EROSION_PX] = True
    assert np.array_equal(field, expected)


def test_field_of_view_of_a_black_picture_is_everything() -> None:
    black = np.full((80, 80), 16, np.uint8)
    assert field_of_view(black).all()
    assert not is_lit(black)
    black[3:70, 30:60] = 90
    assert is_lit(black)
    assert not field_of_view(black).all()
