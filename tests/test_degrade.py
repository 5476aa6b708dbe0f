"""Degradations: they equal the reference coders, leave crops to themselves, and can be captured."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

pytest.importorskip("PIL")

from PIL import Image

from streamsr.errors import UsageError
from streamsr.training import degrade
from streamsr.training.jpeg import jpeg_constants, scaled_table

GREY = 1 / 255


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(7)


def smooth(channels: int = 1, *, batch: int = 3, side: int = 96) -> Tensor:
    """Return smooth pictures with detail at every size, (batch, channels, side, side), within luma's studio range."""
    total = torch.zeros(batch, channels, side, side)
    for cells in (3, 7, 19, 43):
        noise = torch.rand(batch, channels, cells, cells)
        total += torch.nn.functional.interpolate(noise, (side, side), mode="bicubic") / cells**0.7
    low, high = total.amin((1, 2, 3), keepdim=True), total.amax((1, 2, 3), keepdim=True)
    return degrade.eight_bit(17 / 255 + (total - low) / (high - low) * (216 / 255))


def bytes_of(picture: Tensor) -> NDArray[np.uint8]:
    """Return one crop as (H, W) or (H, W, 3) uint8."""
    array = np.rint(picture.numpy() * 255).astype(np.uint8)
    return array[0] if len(array) == 1 else np.ascontiguousarray(array.transpose(1, 2, 0))


def psnr(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other.astype(float)) ** 2)))


def error(one: Tensor, other: Tensor) -> Tensor:
    """Return the mean squared error of every crop."""
    return (one - other).square().mean((1, 2, 3))


@pytest.mark.parametrize("scale", [2, 4])
def test_clean_is_pil_bicubic_within_one_level(scale: int) -> None:
    hr = smooth()
    for crop, lr in zip(hr, degrade.clean(hr, scale), strict=True):
        reference = Image.fromarray(bytes_of(crop)).resize((96 // scale, 96 // scale), Image.Resampling.BICUBIC)
        difference = bytes_of(lr).astype(int) - np.asarray(reference).astype(int)
        assert np.abs(difference).max() <= 1
        assert (difference == 0).mean() > 0.8  # PIL rounds between its two passes


@pytest.mark.parametrize("quality", [30, 50, 75, 95])
def test_jpeg_of_luma_is_pils_jpeg(quality: int) -> None:
    pictures = smooth(batch=2)
    ours = degrade.jpeg(pictures, torch.full((2,), float(quality)))
    for crop, coded in zip(pictures, ours, strict=True):
        file = io.BytesIO()
        Image.fromarray(bytes_of(crop)).save(file, "JPEG", quality=quality)
        theirs = np.asarray(Image.open(file))
        assert psnr(bytes_of(coded), bytes_of(crop)) == pytest.approx(psnr(theirs, bytes_of(crop)), abs=0.1)
        assert np.abs(bytes_of(coded).astype(int) - theirs.astype(int)).mean() < 0.3  # ties round another way


def test_jpeg_of_rgb_is_near_pils_jpeg() -> None:
    pictures = smooth(3, batch=2)
    for crop, coded in zip(pictures, degrade.jpeg(pictures, torch.full((2,), 75.0)), strict=True):
        file = io.BytesIO()
        Image.fromarray(bytes_of(crop)).save(file, "JPEG", quality=75, subsampling="4:2:0")
        theirs = np.asarray(Image.open(file))
        assert psnr(bytes_of(coded), bytes_of(crop)) == pytest.approx(psnr(theirs, bytes_of(crop)), abs=0.5)


@pytest.mark.parametrize("quality", [1, 40, 50, 77, 100])
def test_tables_are_scaled_as_libjpeg_scales_them(quality: int) -> None:
    file = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file, "JPEG", quality=quality)
    theirs = Image.open(file).quantization
    constants = jpeg_constants(torch.device("cpu"))
    for number, table in enumerate((constants.luma, constants.chroma)):
        ours = scaled_table(table, torch.tensor([float(quality)]))[0]
        assert sorted(theirs[number]) == sorted(ours.int().tolist())


def test_lower_quality_errs_more() -> None:
    crop = smooth(batch=1).expand(5, -1, -1, -1)
    errors = error(degrade.jpeg(crop, torch.tensor([95.0, 80.0, 60.0, 40.0, 15.0])), crop).tolist()
    assert all(better < worse for better, worse in itertools.pairwise(errors))


def test_jpeg_takes_sides_that_are_no_multiple_of_eight() -> None:
    assert degrade.jpeg(smooth(3, side=20), torch.full((3,), 60.0)).shape == (3, 3, 20, 20)


def test_every_crop_has_its_own_quality_and_blur() -> None:
    pictures = smooth(batch=3)
    quality, sigma = torch.tensor([40.0, 95.0, 60.0]), torch.tensor([0.2, 1.0, 2.0])
    length, angle = torch.tensor([1.0, 5.0, 9.0]), torch.tensor([0.0, 1.0, 2.0])
    together = (
        degrade.jpeg(pictures, quality),
        degrade.gaussian_blur(pictures, sigma),
        degrade.motion_blur(pictures, length, angle),
    )
    for crop in range(3):
        one = slice(crop, crop + 1)
        torch.testing.assert_close(together[0][one], degrade.jpeg(pictures[one], quality[one]), atol=GREY, rtol=0)
        torch.testing.assert_close(together[1][one], degrade.gaussian_blur(pictures[one], sigma[one]))
        torch.testing.assert_close(together[2][one], degrade.motion_blur(pictures[one], length[one], angle[one]))


def test_gaussian_blur_has_the_stated_variance_and_keeps_the_sum() -> None:
    point = torch.zeros(2, 1, 33, 33)
    point[:, :, 16, 16] = 1
    spread = degrade.gaussian_blur(point, torch.tensor([1.0, 2.0]))
    across = spread.sum(2)[:, 0]
    variance = (across * (torch.arange(33) - 16.0).square()).sum(1)
    torch.testing.assert_close(across.sum(1), torch.ones(2))
    torch.testing.assert_close(variance.sqrt(), torch.tensor([1.0, 2.0]), rtol=0.02, atol=0)


def test_motion_blur_lies_along_its_angle_and_length_one_is_none() -> None:
    point = torch.zeros(2, 1, 33, 33)
    point[:, :, 16, 16] = 1
    none, flat = degrade.motion_blur(point, torch.tensor([1.0, 7.0]), torch.zeros(2))
    torch.testing.assert_close(none, point[0])
    torch.testing.assert_close(flat[0, 16, 13:20], torch.full((7,), 1 / 7))
    assert float(flat[0].sum()) == pytest.approx(1)


def test_area_down_is_the_mean() -> None:
    picture = smooth(batch=1, side=32)
    torch.testing.assert_close(degrade.area_down(picture, 4)[0, 0, 1, 2], picture[0, 0, 4:8, 8:12].mean())


def test_noise_has_the_stated_deviation_at_black_and_at_full_scale() -> None:
    levels = torch.tensor([degrade.STUDIO_BLACK, 0.5 * (degrade.STUDIO_BLACK + degrade.STUDIO_WHITE)])
    flat = levels.view(2, 1, 1, 1).expand(2, 1, 200, 200)
    noise = degrade.sensor_noise(flat, torch.full((2,), 8 / 255), torch.full((2,), 3 / 255)) - flat
    torch.testing.assert_close(
        noise.std((1, 2, 3)) * 255, torch.tensor([3.0, (64 * 0.5 + 9) ** 0.5]), rtol=0.02, atol=0
    )


def test_banding_is_one_value_a_row() -> None:
    flat = torch.full((1, 3, 40, 24), 0.5)
    noise = degrade.sensor_noise(flat, torch.zeros(1), torch.zeros(1), torch.full((1,), 2 / 255)) - flat
    assert float(noise.std(3).max()) < 1e-6
    assert float(noise[0, 0, :, 0].std()) * 255 == pytest.approx(2, rel=0.4)


def test_highlights_clip_at_full_scale_and_darker_levels_keep_theirs() -> None:
    luma = torch.linspace(16, 235, 220).view(1, 1, 1, 220) / 255
    bright = degrade.brighten_highlights(luma, torch.tensor([2.0]))
    dark = luma < 200 / 255
    torch.testing.assert_close(bright[dark], luma[dark])
    assert float(bright.max()) == pytest.approx((235 + 219) / 255)
    assert float(degrade.clip_highlights(bright).max()) == pytest.approx(235 / 255)
    exposed = degrade.clip_highlights(torch.tensor([0.2, 0.6]).view(1, 1, 1, 2).expand(1, 3, 1, 2), torch.tensor([2.0]))
    torch.testing.assert_close(exposed[0, 0, 0], torch.tensor([0.4, 1.0]))


def test_chroma_loss_spares_luma() -> None:
    luma = smooth()
    assert degrade.chroma_420(luma) is luma
    rgb = 0.3 + 0.4 * smooth(3)
    lost = degrade.chroma_420(rgb)
    torch.testing.assert_close(degrade.rgb_to_ycc(lost)[:, 0], degrade.rgb_to_ycc(rgb)[:, 0], atol=1e-5, rtol=0)
    assert float(error(lost, rgb).min()) > 0
    torch.testing.assert_close(degrade.ycc_to_rgb(degrade.rgb_to_ycc(rgb)), rgb)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [2, 4])
def test_recipes_return_eight_bit_levels_in_range(channels: int, scale: int) -> None:
    hr = smooth(channels, batch=8, side=64)
    for lr in (degrade.clean(hr, scale), degrade.robust(hr, scale)):
        assert lr.shape == (8, channels, 64 // scale, 64 // scale)
        assert lr.dtype == torch.float32
        assert float(lr.min()) >= 0
        assert float(lr.max()) <= 1
        torch.testing.assert_close(torch.round(lr * 255), lr * 255, atol=1e-4, rtol=0)


def test_robust_is_a_function_of_the_seed() -> None:
    hr = smooth(batch=4, side=64)
    torch.manual_seed(1)
    first, second = degrade.robust(hr, 2), degrade.robust(hr, 2)
    torch.manual_seed(1)
    assert torch.equal(degrade.robust(hr, 2), first)
    assert not torch.equal(first, second)


def test_robust_keeps_the_stated_share_clean_and_degrades_the_rest() -> None:
    hr = smooth(batch=1, side=32).expand(400, -1, -1, -1)
    untouched = (degrade.robust(hr, 2) == degrade.clean(hr, 2)).all((1, 2, 3)).float().mean()
    nothing = 0.4 * 0.85 * 0.7 * 0.4 * 0.25  # no blur, motion, area, noise, JPEG; clipping and bloom may do nothing
    assert 0.25 - 0.07 < float(untouched) < 0.25 + 0.75 * nothing + 0.07
    none = degrade.RobustSettings(clean=1.0)
    assert torch.equal(degrade.robust(hr[:4], 2, none), degrade.clean(hr[:4], 2))


def test_robust_under_autocast_is_the_same() -> None:
    hr = smooth(batch=4, side=64)
    torch.manual_seed(1)
    plain = degrade.robust(hr, 2)
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(degrade.robust(hr, 2), plain)


@pytest.mark.parametrize("channels", [1, 3])
def test_recipes_read_nothing_back_from_the_device(channels: int) -> None:
    """Fake tensors have shapes and no values: .item(), boolean indexing and branches over data raise."""
    jpeg_constants(torch.device("cpu"))
    with FakeTensorMode(allow_non_fake_inputs=True):
        hr = torch.rand(4, channels, 64, 64)
        assert degrade.robust(hr, 4).shape == degrade.clean(hr, 4).shape == (4, channels, 16, 16)
        with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
            hr[hr > 0].sum().item()


@pytest.mark.needs_cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("channels", [1, 3])
def test_robust_is_captured_in_a_cuda_graph_and_draws_anew(channels: int) -> None:
    hr = smooth(channels, batch=8, side=64).cuda()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        degrade.robust(hr, 2)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        lr = degrade.robust(hr, 2)
    graph.replay()
    first = lr.clone()
    graph.replay()
    assert not torch.equal(first, lr)
    assert float(error(lr, degrade.clean(hr, 2)).max()) < 0.01


@pytest.mark.parametrize("size", [(64, 80), (45, 51)])
@pytest.mark.parametrize("colours", [1, 3])
def test_h264_keeps_count_size_and_order(size: tuple[int, int], colours: int) -> None:
    base = bytes_of(smooth(colours, batch=1, side=96)[0])
    frames = [np.ascontiguousarray(base[k : k + size[0], k : k + size[1]]) for k in range(9)]
    decoded = degrade.h264_frames(frames, crf=20)
    assert [frame.shape for frame in decoded] == [frame.shape for frame in frames]
    for number, frame in enumerate(decoded):
        nearest = max(range(9), key=lambda other: psnr(frame, frames[other]))
        assert nearest == number
        assert frame.dtype == np.uint8


def test_h264_errs_more_at_a_higher_factor_and_nothing_at_zero() -> None:
    frames = [bytes_of(crop) for crop in smooth(batch=4)]
    assert all(np.array_equal(*pair) for pair in zip(degrade.h264_frames(frames, crf=0), frames, strict=True))
    quality = [
        np.mean(
            [psnr(*pair) for pair in zip(degrade.h264_frames(frames, crf=crf, keyframe_every=1), frames, strict=True)]
        )
        for crf in (18, 26, 34)
    ]
    assert quality[0] > quality[1] > quality[2]
    assert degrade.h264_frames([], crf=20) == []


def test_h264_refuses_pictures_of_two_sizes() -> None:
    with pytest.raises(UsageError, match="one size"):
        degrade.h264_frames([np.zeros((16, 16), np.uint8), np.zeros((16, 18), np.uint8)], crf=20)
    with pytest.raises(UsageError, match="51"):
        degrade.h264_frames([np.zeros((16, 16), np.uint8)], crf=60)
