"""The fixed filter: Keys' weights, every sample where its siting says, checked against a slow reference and swscale."""

from __future__ import annotations

from math import floor

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsr.errors import UsageError
from streamsr.frame import PlaneLayout, Siting
from streamsr.resample import (
    chroma_enlarger,
    chroma_filler,
    keys_weights,
    plane_enlarger,
    quantised,
    reduce_chroma,
)

LAYOUTS = [PlaneLayout(shift, depth) for shift in ((1, 1), (1, 0), (0, 1), (0, 0)) for depth in (8, 10)]


def reference_axis(size: int, scale: int, shift: int, there: float, here: float) -> np.ndarray:
    """(outputs, inputs) float64 weights of one axis, straight from the definitions, one sample at a time."""
    step = 2**shift
    num_in, num_out = -(-size // step), -(-size * scale // step)
    weights = np.zeros((num_out, num_in))
    for j in range(num_out):
        in_large_pixels = step * j + (step - 1) / 2 + (there if shift else 0.0)
        in_pixels = (in_large_pixels + 0.5) / scale - 0.5
        place = (in_pixels - (step - 1) / 2 - (here if shift else 0.0)) / step
        for tap in range(floor(place) - 1, floor(place) + 3):
            d = abs(place - tap)
            weight = 1.5 * d**3 - 2.5 * d**2 + 1 if d <= 1 else -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
            weights[j, min(max(tap, 0), num_in - 1)] += weight
    return weights


def reference(
    plane: np.ndarray, layout: PlaneLayout, width: int, height: int, scale: int, siting: Siting
) -> np.ndarray:
    assert layout.chroma_shift is not None
    across = reference_axis(width, scale, layout.chroma_shift[0], siting.value[0], siting.value[0])
    down = reference_axis(height, scale, layout.chroma_shift[1], siting.value[1], siting.value[1])
    return np.clip(down @ plane.astype(float) @ across.T, 0, layout.peak)


def chroma_noise(layout: PlaneLayout, width: int, height: int, seed: int = 0) -> np.ndarray:
    wide, tall = layout.chroma_size(width, height)
    return np.random.default_rng(seed).integers(0, layout.peak + 1, (tall, wide)).astype(layout.dtype)


@settings(max_examples=80, deadline=None)
@given(
    width=st.integers(1, 45),
    height=st.integers(1, 45),
    scale=st.integers(1, 4),
    layout=st.sampled_from(LAYOUTS),
    siting=st.sampled_from(list(Siting)),
    seed=st.integers(0, 99),
)
def test_enlarged_chroma_is_the_slow_reference_rounded_to_nearest(
    width: int, height: int, scale: int, layout: PlaneLayout, siting: Siting, seed: int
) -> None:
    plane = chroma_noise(layout, width, height, seed)
    enlarged = chroma_enlarger(layout, width, height, scale, siting=siting).enlarge(plane)
    expected = reference(plane, layout, width, height, scale, siting)
    assert enlarged.shape == layout.chroma_size(scale * width, scale * height)[::-1]
    assert enlarged.dtype == layout.dtype
    assert np.abs(enlarged - expected).max() <= 0.5 + 1e-6 * layout.peak


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.pix_fmt)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_constant_stays_that_constant(layout: PlaneLayout, scale: int) -> None:
    enlarger = chroma_enlarger(layout, 21, 13, scale, siting=Siting.LEFT)
    wide, tall = layout.chroma_size(21, 13)
    for level in (0, 1, 127, layout.peak):
        assert (enlarger.enlarge(np.full((tall, wide), level, layout.dtype)) == level).all()


@pytest.mark.parametrize("siting", list(Siting))
@pytest.mark.parametrize("scale", [2, 4])
def test_a_ramp_over_the_picture_stays_the_same_ramp_wherever_the_samples_lie(siting: Siting, scale: int) -> None:
    layout, width, height = PlaneLayout((1, 1), 16), 40, 32

    def ramp(num: int, offset: float, magnification: int) -> np.ndarray:
        pixels = 2 * np.arange(num) + 0.5 + offset
        return (pixels + 0.5) / magnification - 0.5

    def plane(magnification: int) -> np.ndarray:
        wide, tall = layout.chroma_size(magnification * width, magnification * height)
        x, y = ramp(wide, siting.value[0], magnification), ramp(tall, siting.value[1], magnification)
        return 10_000 + 640 * x[None, :] + 320 * y[:, None]

    enlarged = chroma_enlarger(layout, width, height, scale, siting=siting).enlarge(plane(1).astype(np.uint16))
    inside = (slice(2 * scale, -2 * scale),) * 2
    np.testing.assert_array_equal(enlarged[inside], np.rint(plane(scale))[inside])


def test_left_and_centre_siting_differ_so_the_ramp_test_can_fail() -> None:
    plane = np.tile(np.arange(0, 200, 10, dtype=np.uint8), (20, 1))
    left, centre = (
        chroma_enlarger(PlaneLayout(), 40, 40, 2, siting=siting).enlarge(plane)
        for siting in (Siting.LEFT, Siting.CENTRE)
    )
    # At x2 the first output lies 1/8 (left) and 1/4 (centre) of a sample before the input.
    assert abs(float(left[20, 10]) - 48.75) <= 0.5
    assert abs(float(centre[20, 10]) - 47.5) <= 0.5


@pytest.mark.parametrize("scale", [2, 4])
def test_swscale_with_the_same_kernel_agrees_where_the_siting_is_the_same_and_only_there(scale: int) -> None:
    width, height, sitings = 48, 32, {"LEFT": (0, 128), "CENTRE": (128, 128), "TOP_LEFT": (0, 0)}
    # Within 70..185, since swscale clamps between its two passes and this filter does not.
    plane = np.random.default_rng(0).integers(70, 186, (height // 2, width // 2)).astype(np.uint8)
    for name in sitings:
        mine = chroma_enlarger(PlaneLayout(), width, height, scale, siting=Siting[name]).enlarge(plane)
        for other, (across, down) in sitings.items():
            difference = np.abs(mine.astype(int) - through_swscale(plane, width, height, scale, across, down))
            # swscale rounds its weights to 14 and 12 bits and its first pass to 15.
            assert (difference.mean() < 0.1 and difference.max() <= 3) == (name == other)


def through_swscale(plane: np.ndarray, width: int, height: int, scale: int, across: int, down: int) -> np.ndarray:
    positions = f"in_h_chr_pos={across}:in_v_chr_pos={down}:out_h_chr_pos={across}:out_v_chr_pos={down}"
    flags = "flags=bicubic+accurate_rnd+bitexact:param0=0:param1=0.5"
    graph = av.filter.Graph()
    source = graph.add_buffer(width=width, height=height, format="yuv420p", time_base="1/25")
    scaler = graph.add("scale", f"{scale * width}:{scale * height}:{flags}:{positions}")
    sink = graph.add("buffersink")
    source.link_to(scaler)
    scaler.link_to(sink)
    graph.configure()
    luma = np.full((height, width), 100, np.uint8)
    packed = np.concatenate([part.reshape(-1, width) for part in (luma, plane, plane)])
    graph.push(av.VideoFrame.from_ndarray(packed, format="yuv420p"))
    made = graph.pull().planes[1]
    return np.frombuffer(made, np.uint8).reshape(-1, made.line_size)[: made.height, : made.width].astype(int)


@pytest.mark.parametrize("siting", list(Siting))
def test_filling_brings_chroma_onto_the_luma_grid(siting: Siting) -> None:
    layout, width, height = PlaneLayout((1, 1), 16), 40, 32
    x = 2 * np.arange(20) + 0.5 + siting.value[0]
    y = 2 * np.arange(16) + 0.5 + siting.value[1]
    plane = (1000 + 40 * x[None, :] + 20 * y[:, None]).astype(np.uint16)
    filled = chroma_filler(layout, width, height, siting=siting).enlarge_real(plane)
    expected = 1000 + 40 * np.arange(width)[None, :] + 20 * np.arange(height)[:, None]
    np.testing.assert_allclose(filled[4:-4, 4:-4], expected[4:-4, 4:-4], atol=1e-2)


@pytest.mark.parametrize("siting", list(Siting))
@pytest.mark.parametrize("shifts", [(1, 1), (1, 0), (0, 1)])
def test_reducing_keeps_a_ramp_where_the_siting_puts_it(siting: Siting, shifts: tuple[int, int]) -> None:
    width, height = 21, 17
    plane = (3.0 * np.arange(width)[None, :] + 5.0 * np.arange(height)[:, None]).astype(np.float32)
    reduced = reduce_chroma(plane, shifts, siting)
    places = []
    for size, shift, offset in zip((width, height), shifts, siting.value, strict=True):
        num = -(-size // 2) if shift else size
        places.append(2 * np.arange(num) + 0.5 + offset if shift else np.arange(num))
    expected = 3.0 * places[0][None, :] + 5.0 * places[1][:, None]
    assert reduced.shape == expected.shape
    np.testing.assert_allclose(reduced[1:-1, 1:-1], expected[1:-1, 1:-1], atol=1e-4)


def test_scale_one_with_one_siting_gives_the_same_samples_in_fresh_memory() -> None:
    plane = chroma_noise(PlaneLayout(), 31, 19)
    same = chroma_enlarger(PlaneLayout(), 31, 19, 1, siting=Siting.LEFT).enlarge(plane)
    np.testing.assert_array_equal(same, plane)
    assert not np.shares_memory(same, plane)


def test_results_are_fresh_and_strided_planes_are_read_right() -> None:
    wide = np.random.default_rng(1).integers(0, 256, (12, 40)).astype(np.uint8)
    enlarger = chroma_enlarger(PlaneLayout(), 40, 24, 2, siting=Siting.LEFT)
    first = enlarger.enlarge(wide[:, ::2])
    kept = first.copy()
    second = enlarger.enlarge(255 - wide[:, ::2])
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(kept, enlarger.enlarge(np.ascontiguousarray(wide[:, ::2])))
    assert (first != second).any()


def test_a_plane_that_is_not_subsampled_keeps_half_pixel_alignment() -> None:
    enlarged = plane_enlarger(20, 20, 2).enlarge(np.tile(np.arange(0, 200, 10, dtype=np.uint8), (20, 1)))
    expected = 10 * ((np.arange(40) + 0.5) / 2 - 0.5)
    assert np.abs(enlarged[20, 4:-4] - expected[4:-4]).max() <= 0.5


@pytest.mark.parametrize(("dtype", "peak"), [(np.uint8, 255), (np.uint16, 1023)])
def test_quantising_rounds_to_nearest_and_clamps(dtype: type, peak: int) -> None:
    samples = np.array([[-7.0, 0.4, 0.6, 1.5, 2.5, peak - 0.4, peak + 0.6, 90_000.0]], np.float32)
    expected = [0, 0, 1, 2, 2, peak, peak, peak]
    np.testing.assert_array_equal(quantised(samples, np.dtype(dtype), peak)[0], expected)


def test_weights_sum_to_one_and_interpolate() -> None:
    assert keys_weights(0.0) == (0.0, 1.0, 0.0, 0.0)
    assert keys_weights(0.5) == (-0.0625, 0.5625, 0.5625, -0.0625)
    assert all(abs(sum(keys_weights(place / 64)) - 1) < 1e-12 for place in range(64))


def test_a_plane_of_another_size_is_refused() -> None:
    with pytest.raises(UsageError, match="20x10"):
        plane_enlarger(20, 10, 2).enlarge(np.zeros((10, 21), np.uint8))
