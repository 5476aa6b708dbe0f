"""Measures of evidence: each says what it claims on pictures whose answer is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from streamsr.quality.agreement import agreement, reduced
from streamsr.quality.downstream import accuracy, flips, majority, matthews, mcnemar, recovery
from streamsr.quality.fidelity import psnr_db, ssim
from streamsr.quality.fourier import cutoff, fourier_agreement
from streamsr.quality.intervals import Resampler
from streamsr.quality.seams import seam_ratio, seam_step
from streamsr.quality.temporal import motion_between, steadiness
from streamsr.training.data import bicubic_down, bicubic_up

Luma = NDArray[np.uint8]


def texture(height: int = 128, width: int = 160, seed: int = 3) -> Luma:
    """Return grain of some pixels, (H, W) uint8."""
    noise = np.random.default_rng(seed).normal(0, 90, (height, width))
    return np.clip(128 + cv2.GaussianBlur(noise, (0, 0), 1.2), 0, 255).astype(np.uint8)


def colour() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    truth = np.stack([texture(40, 52, seed) for seed in range(3)], axis=2)
    noise = np.random.default_rng(0).integers(-9, 10, truth.shape)
    return np.clip(truth + noise, 0, 255).astype(np.uint8), truth


def test_psnr_and_ssim_of_colour_agree_with_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    picture, truth = colour()
    likeness = metrics.structural_similarity(
        truth, picture, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, channel_axis=2
    )
    assert psnr_db(picture, truth) == pytest.approx(metrics.peak_signal_noise_ratio(truth, picture), abs=1e-6)
    assert ssim(picture, truth) == pytest.approx(likeness, abs=1e-6)


# Agreement with the camera.


def test_a_picture_is_brought_down_as_pillow_does() -> None:
    picture, _ = colour()
    down = reduced(picture, (20, 26))
    for at in range(3):
        plane = Image.fromarray(picture[..., at].astype(np.float32)).resize((26, 20), Image.Resampling.BICUBIC)
        assert np.abs(np.asarray(plane) - down[..., at]).max() < 1e-3
        assert np.array_equal(reduced(picture[..., at], (20, 26)), down[..., at])


def test_agreement_counts_what_comes_back_and_what_does_not() -> None:
    lr = np.full((16, 20), 100, np.uint8)
    picture = np.full((32, 40), 100, np.uint8)
    same = agreement(lr, picture)
    assert same.psnr_db > 150, "the filter's float32 alone"
    assert same.within_level == 1.0
    assert same.max_levels < 1e-3
    picture[:, 20:] = 104
    other = agreement(lr, picture)
    assert 0.4 <= other.within_level <= 0.6
    assert other.max_levels == pytest.approx(4, abs=0.5)
    assert other.psnr_db == pytest.approx(10 * np.log10(255**2 / 8), abs=0.5)
    with pytest.raises(ValueError, match="as many channels"):
        agreement(lr, np.dstack([picture] * 3))
    with pytest.raises(ValueError, match="larger one"):
        agreement(picture, lr)


# Seams.


def test_a_grid_of_patches_raises_the_seam_ratio_and_none_leaves_it_at_one() -> None:
    truth = texture()
    assert seam_ratio(truth, truth, every_px=64) == 1.0
    tiled = truth.astype(int)
    tiled[64:] += 12
    tiled[:, 64:] += 12
    tiled[:, 128:] -= 12
    assert seam_ratio(np.clip(tiled, 0, 255).astype(np.uint8), truth, every_px=64) > 1.1
    assert np.isnan(seam_ratio(truth, truth, every_px=500)), "no border"
    assert seam_step(truth, truth) == 0
    other = truth.copy()
    other[3, 4] ^= 1
    assert seam_step(other, truth) == 1
    with pytest.raises(ValueError, match="one shape"):
        seam_ratio(truth, truth[1:], every_px=64)


# The Fourier domain.


def test_the_truth_agrees_with_itself_and_invents_nothing() -> None:
    found = fourier_agreement(texture(), texture(), scale=2)
    assert found is not None
    assert found.cutoff == 1.0
    assert found.invented == pytest.approx(0, abs=1e-9)
    assert found.suspect == 0
    assert found.patches == 4


def test_grain_that_is_not_the_truths_counts_as_invented_and_blur_does_not() -> None:
    truth = texture()
    blurred = cv2.GaussianBlur(truth, (0, 0), 2.0).astype(np.uint8)
    grain = np.random.default_rng(9).normal(0, 30, truth.shape)
    false = np.clip(blurred + grain, 0, 255).astype(np.uint8)
    soft, drawn = (fourier_agreement(each, truth, scale=2) for each in (blurred, false))
    assert soft is not None
    assert drawn is not None
    assert soft.invented < 0.1
    assert soft.suspect == 0
    assert drawn.invented > 1
    assert drawn.suspect == 1
    assert drawn.cutoff < 0.7


def test_only_the_truths_own_detail_counts_as_found() -> None:
    truth = texture()
    low = bicubic_up(bicubic_down(truth, 2), 2)
    noise = np.random.default_rng(9).normal(0, 15, truth.shape)
    detail = truth.astype(float) - low
    given = {"truth": truth, "bicubic": low, "noise": low + noise, "inverted": low - detail, "half": low + detail / 2}
    pictures = {name: np.clip(np.rint(each), 0, 255).astype(np.uint8) for name, each in given.items()}
    agreements = {name: fourier_agreement(each, truth, scale=2) for name, each in pictures.items()}
    found = {name: each.found for name, each in agreements.items() if each is not None}
    assert found["truth"] == pytest.approx(1)
    assert found["bicubic"] < 0.05
    assert found["noise"] < 0.05
    assert found["inverted"] < 0.02
    assert 0.15 < found["half"] < 0.4, "half of the amplitude is a quarter of the power"
    louder = fourier_agreement(np.clip(low + 1.5 * detail, 0, 255).astype(np.uint8), truth, scale=2)
    assert louder is not None
    assert louder.found <= 1, "too much of it is no more than all of it"


def test_patches_without_structure_and_outside_the_field_are_left_out() -> None:
    flat = np.full((128, 128), 90, np.uint8)
    assert fourier_agreement(flat, flat, scale=2) is None
    field = np.zeros((128, 160), bool)
    field[:64, :64] = True
    found = fourier_agreement(texture(), texture(), scale=2, field=field)
    assert found is not None
    assert found.patches == 1


def test_the_cutoff_is_where_the_correlation_is_lost() -> None:
    rings = np.array([1.0] * 16 + [0.0] * 16)
    assert cutoff(rings) == pytest.approx(0.5, abs=0.04)
    assert cutoff(np.ones(32)) == 1.0


# Time.


def test_a_still_video_that_changes_flickers_and_one_that_does_not_is_steady() -> None:
    lr = texture(64, 80)
    large = lr.repeat(2, 0).repeat(2, 1)
    motion = motion_between(lr, lr)
    assert motion.rests.all()
    still = steadiness(large, large, motion, scale=2, truth=(large, large))
    assert (still.flicker, still.warp_error, still.change_error) == (0, 0, 0)
    brighter = np.clip(large.astype(int) + 3, 0, 255).astype(np.uint8)
    restless = steadiness(large, brighter, motion, scale=2, truth=(large, large))
    assert restless.flicker == pytest.approx(3, abs=0.1)
    assert restless.change_error == pytest.approx(3, abs=0.1)


def test_warp_error_follows_the_motion() -> None:
    whole = texture(150, 190)
    first, second = whole[6:134, 8:168], whole[4:132, 5:165]  # what was at (x, y) is at (x + 3, y + 2)
    motion = motion_between(first, second)
    assert motion.trusted.mean() > 0.8
    assert np.median(motion.flow[..., 0]) == pytest.approx(3, abs=0.2)
    found = steadiness(first, second, motion, scale=1)
    assert found.warp_error < 3
    assert found.moved_px == pytest.approx(np.hypot(3, 2), abs=0.3)
    assert np.isnan(found.change_error), "no truth"
    other = np.random.default_rng(1).integers(-20, 21, second.shape)
    restless = steadiness(first, np.clip(second + other, 0, 255).astype(np.uint8), motion, scale=1)
    assert restless.warp_error > found.warp_error + 3


def test_frames_that_do_not_fit_the_motion_are_refused() -> None:
    lr = texture(64, 80)
    with pytest.raises(ValueError, match="frames of"):
        steadiness(lr, lr, motion_between(lr, lr), scale=2)
    with pytest.raises(ValueError, match="one shape"):
        motion_between(lr, lr[1:])


# Intervals.


def test_an_interval_over_groups_is_wider_than_one_over_frames() -> None:
    values = [1.0] * 20 + [2.0] * 20 + [3.0] * 20
    together = Resampler(["a"] * 20 + ["b"] * 20 + ["c"] * 20).interval(values)
    apart = Resampler([str(number) for number in range(60)]).interval(values)
    assert together is not None
    assert apart is not None
    assert together.mean == apart.mean == 2.0
    assert (together.groups, together.frames, apart.groups) == (3, 60, 60)
    assert (together.low, together.high) == (1.0, 3.0), "one draw in 27 holds one group alone"
    assert 1.7 < apart.low < 2.0 < apart.high < 2.3


def test_figures_that_some_frames_lack_are_means_of_the_others() -> None:
    draws = Resampler(["a", "a", "b"])
    found = draws.interval([1.0, float("nan"), 3.0])
    assert found is not None
    assert (found.mean, found.frames, found.groups) == (2.0, 2, 2)
    assert draws.interval([float("nan")] * 3) is None
    with pytest.raises(ValueError, match="one a frame"):
        draws.interval([1.0])
    with pytest.raises(ValueError, match="at least one"):
        Resampler([])


def test_the_interval_holds_the_true_mean_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(4)
    held = 0
    for _ in range(100):
        middles = random.normal(0, 1, 12).repeat(5)
        values = middles + random.normal(0, 0.3, 60)
        groups = [str(number) for number in range(12) for _ in range(5)]
        found = Resampler(groups, resamples=300).interval(list(values))
        assert found is not None
        held += found.low <= 0 <= found.high
    assert 84 <= held <= 99


# Downstream.


def answers(*wrong: int, num: int = 40) -> NDArray[np.bool_]:
    """Return answers to `labels` that are wrong at some places, for three seeds."""
    one = labels(num)
    one[list(wrong)] ^= True
    return np.stack([one] * 3)


def labels(num: int = 40) -> NDArray[np.bool_]:
    return np.arange(num) % 2 == 0


def test_recovery_is_the_part_of_the_loss_that_comes_back() -> None:
    draws = Resampler([str(number) for number in range(40)])
    truth, reference, engine = answers(), answers(*range(10)), answers(*range(5))
    found = recovery(engine, reference, truth, labels(), draws)
    assert found.recovery == pytest.approx(0.5)
    assert found.low < 0.5 < found.high
    assert found.gap == pytest.approx(0.25)
    assert 0 < found.gap_low < 0.25 < found.gap_high
    harm = recovery(answers(*range(15)), reference, truth, labels(), draws)
    assert harm.recovery == pytest.approx(-0.5)


def test_where_nothing_was_lost_there_is_no_recovery() -> None:
    draws = Resampler([str(number) for number in range(40)])
    found = recovery(answers(1), answers(), answers(), labels(), draws)
    assert np.isnan(found.recovery)
    assert np.isnan(found.low)
    assert found.gap == 0
    with pytest.raises(ValueError, match="one shape"):
        recovery(answers(), answers()[:1], answers(), labels(), draws)


def test_mcnemar_counts_where_only_one_is_right() -> None:
    found = mcnemar(answers(0, 1)[0], answers(*range(1, 11))[0], labels())
    assert (found.better, found.worse) == (9, 1)
    assert found.p == pytest.approx(2 * 11 / 1024)
    assert mcnemar(labels(), labels(), labels()).p == 1.0


def test_matthews_is_one_for_right_answers_minus_one_for_wrong_ones_and_zero_for_one_answer() -> None:
    right = labels()
    assert matthews(right, right) == pytest.approx(1)
    assert matthews(~right, right) == pytest.approx(-1)
    assert matthews(np.ones_like(right), right) == 0
    # 18 hits, 19 rejected, 1 false alarm, 2 misses: (18 * 19 - 1 * 2) / sqrt(19 * 20 * 20 * 21)
    assert matthews(answers(0, 2, 1)[0], right) == pytest.approx(340 / (19 * 20 * 20 * 21) ** 0.5)
    assert accuracy(answers(0, 2, 1)[0], right) == pytest.approx(37 / 40)
    assert flips(answers(0)[0], answers(1)[0]) == pytest.approx(2 / 40)
    assert majority(np.array([[True, False], [True, True], [False, False]])).tolist() == [True, False]
