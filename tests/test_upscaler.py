"""FrameUpscaler: the picture is the whole-frame picture, whatever the launch, the layout and what was skipped."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from streamsr.consistency import PlaneProjector
from streamsr.enlarger import STAGES
from streamsr.errors import EngineError, UsageError
from streamsr.frame import Colour, Frame, Plane, PlaneLayout, Siting
from streamsr.models.student import Student, StudentSpec
from streamsr.patches import PatchGrid, cut_patches, stitch_patches
from streamsr.resample import chroma_enlarger
from streamsr.surround import any_in_windows
from streamsr.upscaler import FrameUpscaler

LIMITED = Colour(6, False, 6, 6)
LAYOUTS = [PlaneLayout(shift, depth) for shift in ((1, 1), (1, 0), (0, 1), (0, 0), None) for depth in (8, 10)]
ROUNDING = 1e-5
"""What a runtime may differ by between shapes, in [0, 1]: it adds in another order."""


def noise_planes(layout: PlaneLayout, width: int, height: int, seed: int = 0) -> tuple[Plane, ...]:
    rng = np.random.default_rng(seed)
    sizes = [(width, height), *([layout.chroma_size(width, height)] * 2 if layout.chroma_shift is not None else [])]
    return tuple(rng.integers(0, layout.peak + 1, (tall, wide)).astype(layout.dtype) for wide, tall in sizes)


def frame_of(planes: tuple[Plane, ...], layout: PlaneLayout, colour: Colour = LIMITED, pts: int = 0) -> Frame:
    return Frame(planes, layout, colour, pts, Fraction(1, 25), sequence=pts)


def noise_frame(layout: PlaneLayout, width: int, height: int, seed: int = 0, colour: Colour = LIMITED) -> Frame:
    return frame_of(noise_planes(layout, width, height, seed), layout, colour)


@pytest.fixture(autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Keep torch to one thread: the pictures are small, and other tests may run beside these."""
    num = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num)


class TorchStudent:
    """A student of random weights in plain torch, by the contract of runtimes; remembers the shapes it was given.

    uint8 is computed in float64: the order of additions differs between shapes, and in float32 that tips one sample in
    thousands over to the next grey level, which would hide what the geometry does.
    """

    channels, runtime, precision, description = 1, "torch", "fp32", "random student"

    def __init__(self, *, depth: int = 2, scale: int = 2) -> None:
        torch.manual_seed(1)
        self.net = Student(StudentSpec(16, depth, scale)).eval()
        for layer in self.net.layers:
            # So large that every layer's border shows in the output by grey levels.
            torch.nn.init.normal_(layer.weight, std=0.12)
            torch.nn.init.normal_(layer.bias, std=0.05)
        self.exact = copy.deepcopy(self.net).double()
        self.scale, self.radius_px = scale, self.net.spec.receptive_radius_px
        self.shapes: list[tuple[int, ...]] = []

    @torch.no_grad()
    def generate(self, pictures: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        assert pictures.flags.c_contiguous
        assert pictures.dtype in (np.uint8, np.float32)
        self.shapes.append(pictures.shape)
        samples = torch.from_numpy(pictures)
        if pictures.dtype == np.uint8:
            exact = self.exact(samples.double() / 255).numpy()
            made = np.clip(np.rint(exact * 255), 0, 255).astype(np.uint8)
        else:
            made = self.net(samples).contiguous().numpy()
        if out is None:
            return made
        assert out.dtype == pictures.dtype
        assert out.flags.c_contiguous
        out[...] = made
        return out

    def whole_picture(self, luma: Plane, peak: int = 255) -> Plane:
        if peak == 255:
            return self.generate(np.ascontiguousarray(luma)[None, None])[0, 0]
        made = self.generate(luma[None, None].astype(np.float32) / np.float32(peak))[0, 0]
        return np.clip(np.rint(made * peak), 0, peak).astype(luma.dtype)


class Nearest:
    """Repeats every sample; at scale 1 it is the identity."""

    runtime, precision, description, radius_px = "numpy", "exact", "nearest neighbour", 0

    def __init__(self, *, scale: int = 2, channels: int = 1, radius_px: int = 0) -> None:
        self.scale, self.channels, self.radius_px = scale, channels, radius_px

    def generate(self, pictures: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        made = pictures.repeat(self.scale, axis=2).repeat(self.scale, axis=3)
        if out is None:
            return made
        out[...] = made
        return out


STUDENTS = {(depth, scale): TorchStudent(depth=depth, scale=scale) for depth in (0, 2) for scale in (2, 4)}
students = st.sampled_from(sorted(STUDENTS))


@settings(max_examples=30, deadline=None)
@given(
    which=students,
    width=st.integers(1, 75),
    height=st.integers(1, 75),
    core_px=st.integers(5, 40),
    extra_px=st.integers(0, 3),
    seed=st.integers(0, 99),
)
def test_stitched_floats_equal_the_whole_frame_when_the_halo_holds_the_radius(
    which: tuple[int, int], width: int, height: int, core_px: int, extra_px: int, seed: int
) -> None:
    student = STUDENTS[which]
    luma = np.random.default_rng(seed).random((height, width), np.float32)
    grid = PatchGrid(width, height, student.scale, student.radius_px + extra_px, core_px)
    stitched = np.full((student.scale * height, student.scale * width), np.nan, np.float32)
    stitch_patches(student.generate(cut_patches(luma, grid, range(grid.num))), grid, range(grid.num), stitched)
    assert np.abs(stitched - student.generate(luma[None, None])[0, 0]).max() <= ROUNDING


@settings(max_examples=30, deadline=None)
@given(
    which=students,
    width=st.integers(1, 75),
    height=st.integers(1, 75),
    patch_px=st.integers(5, 40),
    launch=st.sampled_from(["patch", "frame"]),
    seed=st.integers(0, 99),
)
def test_upscaled_luma_equals_the_whole_frame_to_the_grey_level(
    which: tuple[int, int], width: int, height: int, patch_px: int, launch: str, seed: int
) -> None:
    student = STUDENTS[which]
    frame = noise_frame(PlaneLayout(), width, height, seed)
    upscaler = FrameUpscaler(student, launch=launch, patch_px=patch_px, skip_surround=False)
    np.testing.assert_array_equal(upscaler.upscale(frame).planes[0], student.whole_picture(frame.planes[0]))


def test_a_halo_below_the_radius_leaves_seams_so_the_tests_above_can_fail() -> None:
    student, frame = STUDENTS[2, 2], noise_frame(PlaneLayout(), 75, 61)
    whole = student.whole_picture(frame.planes[0]).astype(int)
    for halo_px, equal in ((student.radius_px, True), (student.radius_px - 1, False), (0, False)):
        made = FrameUpscaler(student, launch="patch", patch_px=16, halo_px=halo_px).upscale(frame).planes[0]
        assert (np.abs(made - whole).max() == 0) == equal


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.pix_fmt)
@pytest.mark.parametrize("launch", ["patch", "frame"])
def test_every_layout_is_enlarged_with_luma_by_the_generator_and_chroma_by_the_filter(
    layout: PlaneLayout, launch: str
) -> None:
    student, frame = STUDENTS[2, 2], noise_frame(layout, 51, 37, colour=Colour(1, False, 1, 1, Siting.TOP_LEFT))
    made = FrameUpscaler(student, launch=launch, patch_px=16).upscale(frame)
    # Above 8 bits a sample is finer than the runtime's rounding, which may tip it over.
    slack = 0 if layout.bit_depth == 8 else 1
    luma = student.whole_picture(frame.planes[0], layout.peak).astype(int)
    assert np.abs(made.planes[0] - luma).max() <= slack
    assert made.planes[0].dtype == layout.dtype
    if layout.chroma_shift is None:
        assert len(made.planes) == 1
        return
    enlarger = chroma_enlarger(layout, 51, 37, 2, siting=Siting.TOP_LEFT)
    for plane, result in zip(frame.planes[1:], made.planes[1:], strict=True):
        np.testing.assert_array_equal(result, enlarger.enlarge(plane))


@pytest.mark.parametrize("depth", [8, 10, 12, 16])
@pytest.mark.parametrize("launch", ["patch", "frame"])
def test_every_level_of_every_depth_survives_the_way_to_the_generator_and_back(depth: int, launch: str) -> None:
    layout = PlaneLayout(None, depth)
    levels = np.linspace(0, layout.peak, 64 * 48).astype(layout.dtype).reshape(48, 64)
    upscaler = FrameUpscaler(Nearest(radius_px=1), launch=launch, patch_px=16, skip_surround=False)
    (made,) = upscaler.upscale(frame_of((levels,), layout)).planes
    np.testing.assert_array_equal(made, levels.repeat(2, axis=0).repeat(2, axis=1))


def test_time_colour_and_place_in_the_sequence_pass_through() -> None:
    planes = noise_planes(PlaneLayout(), 20, 10)
    frame = Frame(planes, PlaneLayout(), LIMITED, -7, Fraction(1, 90_000), 3003, 41, Fraction(16, 11), 12345)
    made = FrameUpscaler(Nearest(), launch="frame").upscale(frame)
    assert (made.width, made.height) == (40, 20)
    for name in ("pts", "time_base", "duration", "sequence", "sample_aspect", "colour", "layout", "captured_ns"):
        assert getattr(made, name) == getattr(frame, name)


def masked_video(num: int, seed: int) -> list[Frame]:
    """Frames of noise under a black mask with codec noise, parts of which stand still from frame to frame."""
    rng, layout = np.random.default_rng(seed), PlaneLayout()
    luma = rng.integers(30, 220, (75, 93)).astype(np.uint8)
    frames = []
    for number in range(num):
        luma = luma.copy()
        top, left = rng.integers(0, 40), rng.integers(45, 80)
        luma[top : top + 9, left : left + 9] = rng.integers(30, 220, luma[top : top + 9, left : left + 9].shape)
        luma[:, :45] = 16 + (rng.integers(0, 3, (75, 45)) if number % 4 > 1 else 0)
        luma[50:, :] = 16
        chroma = noise_planes(layout, 93, 75, seed + number % 3)[1:]
        frames.append(frame_of((luma, *chroma), layout, pts=number))
    return frames


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 999), launch=st.sampled_from(["auto", "patch", "frame"]), fixed=st.booleans())
def test_routed_output_is_the_unrouted_output_bit_for_bit_outside_the_surround(
    seed: int, launch: str, fixed: bool
) -> None:
    student = STUDENTS[0, 2]
    routed = FrameUpscaler(student, launch=launch, patch_px=16 if fixed else None)
    for frame in masked_video(6, seed):
        made = routed.upscale(frame)
        whole = student.whole_picture(frame.planes[0])
        unrouted = FrameUpscaler(student, launch="frame", skip_surround=False, reuse_unchanged=False).upscale(frame)
        differs = (made.planes[0] != whole)[::2, ::2] | (made.planes[0] != whole)[1::2, 1::2]
        assert not differs[frame.planes[0] > 20].any()
        for plane, expected in zip(made.planes[1:], unrouted.planes[1:], strict=True):
            np.testing.assert_array_equal(plane, expected)
    count = routed.count
    assert count.total == count.surround + count.unchanged + count.generated
    assert count.surround > 0
    if fixed:
        assert count.unchanged > 0


@pytest.mark.parametrize("patch_px", [None, 16, 24])
@pytest.mark.parametrize("consistency", [False, True])
def test_the_launch_and_the_reuse_change_no_sample_of_a_masked_video(patch_px: int | None, consistency: bool) -> None:
    student = STUDENTS[2, 2]
    options = [
        {"launch": "frame", "reuse_unchanged": False},
        {"launch": "frame"},
        {"launch": "patch"},
        {"launch": "auto"},
        {"launch": "patch", "reuse_unchanged": False},
    ]
    upscalers = [FrameUpscaler(student, patch_px=patch_px, consistency=consistency, **option) for option in options]
    for frame in masked_video(8, 3):
        first, *others = (upscaler.upscale(frame) for upscaler in upscalers)
        for other in others:
            for expected, plane in zip(first.planes, other.planes, strict=True):
                np.testing.assert_array_equal(plane, expected)


@pytest.mark.parametrize("consistency", [False, True])
def test_a_region_launch_gives_the_same_picture_and_spares_the_surround(
    consistency: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = STUDENTS[2, 2]
    regional, whole = (
        FrameUpscaler(student, launch=launch, patch_px=16, reuse_unchanged=False, consistency=consistency)
        for launch in ("auto", "frame")
    )
    monkeypatch.setattr("streamsr.launch.LaunchPlan.cheapest", lambda *_: "region")
    made = [regional.upscale(frame) for frame in masked_video(4, 5)]
    monkeypatch.undo()
    for frame, other in zip(masked_video(4, 5), made, strict=True):
        for expected, plane in zip(whole.upscale(frame).planes, other.planes, strict=True):
            np.testing.assert_array_equal(plane, expected)
    assert 0 < regional.count.launched < regional.count.total
    assert regional.count.launched >= regional.count.generated


def test_a_trial_in_the_middle_of_a_video_changes_no_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamsr.launch_choice.TRIAL_MS", 0.0)
    late, first, whole = (
        FrameUpscaler(STUDENTS[2, 2], **option) for option in ({}, {"trial_first": True}, {"launch": "frame"})
    )
    start, tried = noise_frame(PlaneLayout((1, 1), 8), 160, 128), []
    for number in range(4):
        luma = start.planes[0].copy()
        luma[:4, :4] = luma[-4:, -4:] = 60 + 9 * number  # far corners: the region that holds both is the frame
        frame = start.with_planes((luma, *start.planes[1:]))
        expected, *others = (upscaler.upscale(frame).planes for upscaler in (whole, late, first))
        for other in others:
            for plane, same in zip(expected, other, strict=True):
                np.testing.assert_array_equal(plane, same)
        tried.append([upscaler.plan is not None and upscaler.plan.costs is not None for upscaler in (late, first)])
    assert tried == [[False, True], [True, True], [True, True], [True, True]]


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 999), launch=st.sampled_from(["auto", "patch", "frame"]))
def test_the_projection_is_that_of_the_whole_stitched_picture(seed: int, launch: str) -> None:
    student = STUDENTS[0, 2]
    upscaler = FrameUpscaler(student, launch=launch, patch_px=16, skip_surround=False, consistency=True)
    changed = 0
    for frame in masked_video(6, seed):
        made, whole = upscaler.upscale(frame).planes[0], student.whole_picture(frame.planes[0])
        expected = PlaneProjector(2, frame.width, frame.height).project(frame.planes[0], whole)
        np.testing.assert_array_equal(made, expected)
        changed += np.count_nonzero(made != whole)
    assert changed > 0
    assert upscaler.count.unchanged > 0
    assert upscaler.consistency.samples > 0


def test_projected_light_does_not_depend_on_whether_the_surround_is_skipped() -> None:
    routed, unrouted = (
        FrameUpscaler(STUDENTS[0, 2], launch="patch", patch_px=8, skip_surround=skip, consistency=True)
        for skip in (True, False)
    )
    for frame in masked_video(6, 4):
        lit = (frame.planes[0] > 20).repeat(2, axis=0).repeat(2, axis=1)
        np.testing.assert_array_equal(*(each.upscale(frame).planes[0][lit] for each in (routed, unrouted)))
    assert routed.count.surround > 0


def test_the_projection_is_for_pictures_that_are_enlarged() -> None:
    upscaler = FrameUpscaler(Nearest(scale=1, radius_px=1), launch="frame", consistency=True)
    frame = noise_frame(PlaneLayout(), 30, 20)
    np.testing.assert_array_equal(upscaler.upscale(frame).planes[0], frame.planes[0])
    assert upscaler.consistency.samples == 0


@pytest.mark.parametrize(("depth", "contrast"), [(8, 6), (10, 3)])
def test_rgb_is_projected_before_it_becomes_planes(depth: int, contrast: int) -> None:
    layout, one = PlaneLayout((1, 1), depth), 1 << (depth - 8)
    rng = np.random.default_rng(0)
    luma = (rng.integers(118 - contrast, 118 + contrast, (40, 56)) * one).astype(layout.dtype)
    chroma = tuple((rng.integers(124, 132, (20, 28)) * one).astype(layout.dtype) for _ in "UV")
    upscaler = FrameUpscaler(Nearest(scale=2, channels=3, radius_px=1), launch="frame", consistency=True)
    made = upscaler.upscale(frame_of((luma, *chroma), layout)).planes[0].astype(np.float32)
    size = (luma.shape[1], luma.shape[0])
    off = np.abs(np.asarray(Image.fromarray(made).resize(size, Image.Resampling.BICUBIC)) - luma)
    assert off.max() <= 1.5  # one level in RGB, and the rounding of the planes
    assert upscaler.consistency.share > 0.999
    assert upscaler.consistency.share_before < 0.8


def test_surround_is_filled_by_interpolation_that_stays_black() -> None:
    student, frame = STUDENTS[2, 2], masked_video(2, 1)[1]
    upscaler = FrameUpscaler(student, launch="patch", patch_px=16)
    made = upscaler.upscale(frame).planes[0]
    grid = PatchGrid(93, 75, 2, student.radius_px, 16)
    dark = ~any_in_windows(frame.planes[0] > 20, grid)
    assert upscaler.count.surround == dark.sum() > 0
    for index in np.flatnonzero(dark):
        assert np.abs(made[grid.targets[index]].astype(int) - 17).max() <= 3


def test_an_unchanged_frame_asks_nothing_of_the_generator() -> None:
    student, frame = TorchStudent(), noise_frame(PlaneLayout(), 64, 48)
    upscaler = FrameUpscaler(student, launch="patch", patch_px=16)
    first, num = upscaler.upscale(frame), len(student.shapes)
    again = upscaler.upscale(frame_of(tuple(plane.copy() for plane in frame.planes), PlaneLayout(), pts=1))
    assert len(student.shapes) == num
    for before, after in zip(first.planes, again.planes, strict=True):
        np.testing.assert_array_equal(before, after)
    assert again.pts == 1
    assert upscaler.count.unchanged == upscaler.count.total // 2 == 12


def test_planes_that_were_given_out_are_never_written_to_again() -> None:
    upscaler = FrameUpscaler(STUDENTS[2, 2], launch="patch", patch_px=16)
    frames = [upscaler.upscale(frame) for frame in masked_video(6, 9)[:1]]
    kept = [[plane.copy() for plane in frame.planes] for frame in frames]
    for frame in masked_video(6, 9)[1:]:
        frames.append(upscaler.upscale(frame))
        kept.append([plane.copy() for plane in frames[-1].planes])
    for frame, copies in zip(frames, kept, strict=True):
        for plane, copied in zip(frame.planes, copies, strict=True):
            np.testing.assert_array_equal(plane, copied)


def test_size_layout_and_colour_may_change_between_frames() -> None:
    student = STUDENTS[0, 2]
    upscaler = FrameUpscaler(student, launch="patch", patch_px=16)
    total = 0
    for width, height, layout in (
        (40, 30, LAYOUTS[0]),
        (41, 33, LAYOUTS[0]),
        (41, 33, LAYOUTS[7]),
        (40, 30, LAYOUTS[8]),
    ):
        frame = noise_frame(layout, width, height)
        made = upscaler.upscale(frame)
        expected = student.whole_picture(frame.planes[0], layout.peak).astype(int)
        assert np.abs(made.planes[0] - expected).max() <= (0 if layout.bit_depth == 8 else 1)
        assert [plane.shape for plane in made.planes[1:]] == [layout.chroma_size(2 * width, 2 * height)[::-1]] * (
            len(frame.planes) - 1
        )
        total += PatchGrid(width, height, 2, 2, 16).num
    assert upscaler.count.total == upscaler.count.generated == total


def test_strided_planes_are_enlarged_like_contiguous_ones() -> None:
    student, wide = STUDENTS[2, 2], noise_planes(PlaneLayout(), 100, 48)
    strided = frame_of((wide[0][:, 10:60], wide[1][:, :25], wide[2][:, :25]), PlaneLayout())
    packed = frame_of(tuple(np.ascontiguousarray(plane) for plane in strided.planes), PlaneLayout())
    for launch in ("patch", "frame"):
        one, other = (FrameUpscaler(student, launch=launch, patch_px=16).upscale(frame) for frame in (strided, packed))
        for plane, expected in zip(one.planes, other.planes, strict=True):
            np.testing.assert_array_equal(plane, expected)


def test_batches_come_in_few_shapes() -> None:
    student = TorchStudent(depth=0)
    upscaler = FrameUpscaler(student, launch="patch", patch_px=16)
    rng, luma = np.random.default_rng(0), noise_planes(PlaneLayout(), 160, 128)[0]
    for number in range(12):
        luma = luma.copy()
        luma[: rng.integers(1, 128), : rng.integers(1, 160)] ^= 1
        upscaler.upscale(frame_of((luma,), PlaneLayout(None), pts=number))
    assert {shape[0] for shape in student.shapes} <= {1, 4, 16, 64}
    assert len({shape[1:] for shape in student.shapes}) == 1


@pytest.mark.parametrize("consistency", [False, True])
def test_a_generator_that_fails_once_leaves_nothing_stale_behind(consistency: bool) -> None:
    student = TorchStudent()
    upscaler = FrameUpscaler(student, launch="patch", patch_px=16, consistency=consistency)
    first, second = (noise_frame(PlaneLayout(), 50, 40, seed) for seed in (1, 2))
    upscaler.upscale(first)
    works, student.generate = student.generate, lambda *_: (_ for _ in ()).throw(RuntimeError("lost the device"))
    with pytest.raises(RuntimeError, match="lost the device"):
        upscaler.upscale(second)
    student.generate = works
    expected = student.whole_picture(second.planes[0])
    if consistency:
        expected = PlaneProjector(2, second.width, second.height).project(second.planes[0], expected)
    np.testing.assert_array_equal(upscaler.upscale(second).planes[0], expected)


def test_every_stage_is_timed_once_a_frame() -> None:
    upscaler = FrameUpscaler(STUDENTS[0, 2], launch="patch", patch_px=16, consistency=True)
    for frame in masked_video(3, 0):
        upscaler.upscale(frame)
    assert tuple(upscaler.clocks) == STAGES
    assert {clock.num for clock in upscaler.clocks.values()} == {3}
    assert all(clock.percentiles().max_ms > 0 for clock in upscaler.clocks.values())


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.pix_fmt)
@pytest.mark.parametrize("launch", ["patch", "frame"])
def test_an_rgb_identity_generator_changes_no_sample_by_more_than_one(layout: PlaneLayout, launch: str) -> None:
    frame = noise_frame(layout, 45, 37)
    generator = Nearest(scale=1, channels=3, radius_px=3)
    made = FrameUpscaler(generator, launch=launch, patch_px=16).upscale(frame)
    for plane, expected in zip(made.planes, frame.planes, strict=True):
        assert plane.dtype == expected.dtype
        assert np.abs(plane.astype(int) - expected).max() <= 1


def test_rgb_generators_are_routed_too() -> None:
    upscaler = FrameUpscaler(Nearest(scale=2, channels=3, radius_px=2), launch="patch", patch_px=16)
    whole = FrameUpscaler(Nearest(scale=2, channels=3), launch="frame", reuse_unchanged=False, skip_surround=False)
    layout = PlaneLayout((0, 0))
    luma = np.random.default_rng(0).integers(60, 200, (48, 64)).astype(np.uint8)
    luma[:, :20] = 16
    gray = np.full((48, 64), 128, np.uint8)
    for number in range(3):
        luma = luma.copy()
        luma[40, 60] += 1
        frame = frame_of((luma, gray, gray), layout, pts=number)
        for plane, expected in zip(upscaler.upscale(frame).planes, whole.upscale(frame).planes, strict=True):
            np.testing.assert_array_equal(plane[:, 44:], expected[:, 44:])
    assert (upscaler.count.surround, upscaler.count.unchanged) == (9, 2 * 8)


@pytest.mark.parametrize("wrong", [{"launch": "tiles"}, {"patch_px": 0}, {"halo_px": -1}], ids=str)
def test_options_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="expected"):
        FrameUpscaler(Nearest(), **wrong)


def test_a_generator_of_two_channels_is_refused() -> None:
    with pytest.raises(EngineError, match="got 2"):
        FrameUpscaler(Nearest(channels=2))
