"""The consistency projection: what is shown, brought down again, is what the camera gave; and it is measured."""

from __future__ import annotations

import csv
import json
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from streamsr.colour import from_rgb8
from streamsr.config import GeneratorSettings, UpscaleSettings
from streamsr.consistency import STEP_REACH_PX, ConsistencyCount, PlaneProjector, Projector
from streamsr.engine import list_engines
from streamsr.errors import UsageError
from streamsr.frame import Colour, Frame, PlaneLayout
from streamsr.job import upscale_file
from streamsr.models.projection import Projection, project
from streamsr.models.reduction import MOST_PART, SLACK_LEVELS
from streamsr.progress import summary
from streamsr.reducer import Reducer
from streamsr.runtimes import load_generator
from streamsr.upscaler import FrameUpscaler
from tests.test_cli import run
from tests.videos import make_video

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
REQUIRED = 0.999
"""Part of the samples of camera pictures that must be given back within one grey level."""

SHIPPED = [engine for engine in list_engines() if engine.kind != "interpolation"]

scales = st.sampled_from([2, 3, 4])
Picture = NDArray[Any]


def down(picture: Picture, scale: int) -> NDArray[np.float32]:
    """Bring (H, W) down with PIL's antialiased bicubic filter, in float."""
    height, width = (side // scale for side in picture.shape)
    real = Image.fromarray(picture.astype(np.float32))
    return np.asarray(real.resize((width, height), Image.Resampling.BICUBIC))


def pair(
    scale: int, width: int, height: int, *, seed: int = 0, peak: int = 255, off_levels: float = 3.0
) -> tuple[Picture, Picture]:
    """Return a low-resolution plane and an enlarged one that does not give it back, all of it far from clipping."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0.35, 0.65, (height + 1, width + 1)).astype(np.float32)
    enlarged = np.asarray(
        Image.fromarray(coarse).resize((scale * width, scale * height), Image.Resampling.BILINEAR), np.float32
    )
    dtype = np.uint8 if peak == 255 else np.uint16
    stitched = np.rint(enlarged * peak).astype(dtype)
    wanted = down(stitched, scale) + rng.uniform(-off_levels, off_levels, (height, width))
    return np.rint(wanted).astype(dtype), stitched


@settings(max_examples=40, deadline=None)
@given(scale=scales, width=st.integers(1, 70), height=st.integers(1, 90), seed=st.integers(0, 99))
def test_planes_come_down_as_pil_brings_them(scale: int, width: int, height: int, seed: int) -> None:
    plane = np.random.default_rng(seed).integers(0, 256, (scale * height, scale * width)).astype(np.uint8)
    reducer, reduced = Reducer(scale, width, height), np.full((height, width), np.nan, np.float32)
    for top in range(0, height, reducer.rows):
        reducer.reduce(plane, top, reduced[top : top + reducer.rows])
    np.testing.assert_allclose(reduced, down(plane, scale), atol=2e-4)


@settings(max_examples=20, deadline=None)
@given(scale=scales, width=st.integers(2, 40), height=st.integers(2, 40), seed=st.integers(0, 99))
def test_torch_comes_down_as_torch_interpolates(scale: int, width: int, height: int, seed: int) -> None:
    picture = torch.rand(2, 3, scale * height, scale * width, generator=torch.Generator().manual_seed(seed))
    # Not a single column: there torch differs from PIL, and from itself with rows and columns swapped.
    expected = functional.interpolate(picture, size=(height, width), mode="bicubic", antialias=True)
    torch.testing.assert_close(Projection(scale, height, width).down(picture), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (40, 30), (133, 97)], ids=str)
@pytest.mark.parametrize("peak", [255, 1023, 65535])
def test_one_step_gives_the_input_back_within_a_level(scale: int, size: tuple[int, int], peak: int) -> None:
    picture, stitched = pair(scale, *size, peak=peak)
    before = np.abs(down(stitched, scale) - picture)
    projector = PlaneProjector(scale, *size, peak=peak, measured_turns=1)
    after = np.abs(down(projector.project(picture, stitched), scale) - picture)
    slack = 0.01 * peak / 65535  # what float32 adds at 16 bits
    assert (after <= 1.0 + slack).mean() >= REQUIRED
    if min(size) > 2:
        assert (before <= 1.0).mean() < 0.6
    count = projector.count
    assert (count.samples, count.clipped) == (picture.size, 0)
    for counted, off in ((count.within, after), (count.within_before, before)):
        # Samples so near the limit that rounding decides, in an order of additions that is the processor's.
        tipping = 0 if peak < 65535 else np.count_nonzero(np.abs(off - 1.001) <= 2 * slack)
        assert abs(counted - np.count_nonzero(off <= 1.001)) <= tipping
    assert count.max_levels == pytest.approx(after.max(), abs=0.02)


def test_rgb_in_floats_is_given_back_in_levels_of_its_own() -> None:
    picture, stitched = (np.stack([plane / np.float32(255)] * 3).astype(np.float32) for plane in pair(2, 48, 40))
    stitched -= np.float32(0.7)  # below black and so never clamped
    picture -= np.float32(0.7)
    projector = Projector(2, (48, 40), channels=3, peak=1.0, level=1 / 219)
    made = projector.project(picture, stitched)
    assert made.dtype == np.float32
    for plane, target in zip(made, picture, strict=True):
        assert np.abs(down(plane, 2) - target).max() * 219 <= 1.0
    assert projector.count.samples == 3 * 48 * 40
    assert projector.count.share == 1.0
    assert projector.count.share_before < 0.7


@pytest.mark.parametrize("scale", [2, 4])
def test_what_the_inputs_rounding_explains_is_left_alone(scale: int) -> None:
    picture, stitched = pair(scale, 60, 44, off_levels=0.0)
    assert np.abs(down(stitched, scale) - picture).max() > 0.4
    np.testing.assert_array_equal(PlaneProjector(scale, 60, 44).project(picture, stitched), stitched)


@settings(max_examples=25, deadline=None)
@given(scale=scales, width=st.integers(1, 60), height=st.integers(1, 60), seed=st.integers(0, 99))
def test_numpy_and_torch_project_alike(scale: int, width: int, height: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (height, width)).astype(np.uint8)
    stitched = rng.integers(0, 256, (scale * height, scale * width)).astype(np.uint8)
    made = PlaneProjector(scale, width, height).project(picture, stitched).astype(int)
    tensors = (torch.from_numpy(plane)[None, None] for plane in (stitched, picture))
    expected = project(*tensors, scale, slack=SLACK_LEVELS, most=255 * MOST_PART, limits=(0.0, 255.0))
    differs = np.abs(made - expected.round()[0, 0].numpy())
    assert differs.max() <= 1
    assert np.count_nonzero(differs) <= 1 + made.size // 1000


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_numpy_and_torch_settle_clipped_samples_alike(scale: int) -> None:
    picture, stitched = clipped_pair(scale, 61, 47)
    made = PlaneProjector(scale, 61, 47, steps=4).project(picture, stitched).astype(int)
    tensors = [torch.from_numpy(plane)[None, None] for plane in (stitched, picture)]
    options: dict[str, Any] = {"slack": SLACK_LEVELS, "most": 255 * MOST_PART, "limits": (0.0, 255.0)}
    expected, once = (project(*tensors, scale, steps, level=1.0, **options).round()[0, 0].numpy() for steps in (4, 1))
    # Bytes are rounded between steps, torch's samples are not.
    moved = np.abs(expected - once) > 2
    assert moved.any()
    assert np.abs(made - expected)[moved].mean() < 0.25 * np.abs(made - once)[moved].mean()
    assert (np.abs(made - expected) <= 1).mean() > 0.995


def clipped_pair(scale: int, width: int, height: int, *, seed: int = 0) -> tuple[Picture, Picture]:
    """Return a camera's plane of a truth with black and white areas, and an enlarged one that errs at their edges."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0.5, 0.6, (max(height // 4, 2), max(width // 4, 2))).astype(np.float32)
    smooth = Image.fromarray(coarse).resize((scale * width, scale * height), Image.Resampling.BICUBIC)
    truth = np.rint(np.asarray(smooth).clip(0, 1) * 255).astype(np.uint8)
    stitched = np.asarray(smooth) + rng.normal(0, 0.03, truth.shape)
    return np.rint(down(truth, scale).clip(0, 255)).astype(np.uint8), np.rint(stitched.clip(0, 1) * 255).astype(
        np.uint8
    )


@pytest.mark.parametrize("scale", [2, 4])
def test_rgb_is_given_back_where_black_and_white_undo_a_part_of_one_step(scale: int) -> None:
    planes = [clipped_pair(scale, 90, 70, seed=seed) for seed in range(3)]
    picture, stitched = (np.stack(each) for each in zip(*planes, strict=True))
    assert 0.2 < np.isin(stitched, (0, 255)).mean() < 0.8
    shares = []
    for made in (
        np.stack([PlaneProjector(scale, 90, 70).project(*each) for each in planes]),
        Projector(scale, (90, 70), channels=3).project(picture, stitched),
    ):
        off = [np.abs(down(plane, scale).clip(0, 255) - each) for plane, each in zip(made, picture, strict=True)]
        shares.append((np.array(off) <= 1.001).mean())
    assert shares[0] < REQUIRED <= shares[1]


def test_later_steps_leave_alone_what_the_first_gave_back() -> None:
    clipped, unclipped = clipped_pair(4, 60, 60), pair(4, 60, 60)
    picture, stitched = (np.hstack([left, right]) for left, right in zip(clipped, unclipped, strict=True))
    first, later = (PlaneProjector(4, 120, 60, steps=steps).project(picture, stitched) for steps in (1, 5))
    assert not np.array_equal(first[:, :240], later[:, :240])
    beyond = 4 * (60 + 5 * STEP_REACH_PX)
    np.testing.assert_array_equal(first[:, beyond:], later[:, beyond:])
    assert not np.array_equal(first[:, beyond:], stitched[:, beyond:])


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_every_torch_step_leaves_little_of_the_residual(scale: int) -> None:
    generator = torch.Generator().manual_seed(0)
    enlarged = torch.rand(2, 3, 31 * scale, 45 * scale, generator=generator)
    lr = torch.rand(2, 3, 31, 45, generator=generator)
    projection = Projection(scale, 31, 45)
    left = [(projection.down(project(enlarged, lr, scale, steps)) - lr).abs().max().item() for steps in range(4)]
    assert all(after < 0.2 * before for before, after in pairwise(left)), left


def test_torch_projection_passes_gradients_and_ignores_autocast() -> None:
    enlarged = torch.rand(1, 1, 24, 32, requires_grad=True)
    lr = torch.rand(1, 1, 12, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = project(enlarged, lr, 2, slack=0.5 / 255, most=0.5, limits=(-1.0, 2.0))
    assert made.dtype == torch.float32
    torch.testing.assert_close(made, project(enlarged, lr, 2, slack=0.5 / 255, most=0.5, limits=(-1.0, 2.0)))
    made.square().sum().backward()
    assert enlarged.grad is not None
    assert enlarged.grad.abs().max() > 0


@pytest.mark.needs_cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_torch_projection_runs_inside_a_cuda_graph() -> None:
    enlarged, lr = torch.rand(1, 1, 64, 96, device="cuda"), torch.rand(1, 1, 32, 48, device="cuda")
    expected = project(enlarged, lr, 2, 2)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        made = project(enlarged, lr, 2, 2)
    graph.replay()
    torch.testing.assert_close(made, expected, atol=1e-3, rtol=0)


@settings(max_examples=25, deadline=None)
@given(
    scale=st.sampled_from([2, 4]),
    changes=st.lists(st.tuples(st.integers(0, 119), st.integers(1, 40)), min_size=1, max_size=4),
    wide=st.booleans(),
    steps=st.sampled_from([1, 3]),
)
def test_projecting_what_changed_is_projecting_everything(
    scale: int, changes: list[tuple[int, int]], wide: bool, steps: int
) -> None:
    width, height = (1200 if wide else 300), 120  # narrow bands of 16 rows, or one or a few
    picture, stitched = pair(scale, width, height, off_levels=4.0)
    partly = PlaneProjector(scale, width, height, steps=steps)
    partly.project(picture, stitched)
    rng = np.random.default_rng(len(changes))
    for first, num in changes:
        picture, stitched, rows = picture.copy(), stitched.copy(), slice(first, min(first + num, height))
        picture[rows] = rng.integers(0, 256, picture[rows].shape)
        large = slice(scale * rows.start, scale * rows.stop)
        stitched[large] = rng.integers(90, 160, stitched[large].shape)
        whole = PlaneProjector(scale, width, height, steps=steps).project(picture, stitched)
        np.testing.assert_array_equal(partly.project(picture, stitched, rows), whole)


def test_planes_that_were_given_out_are_never_written_to_again() -> None:
    projector = PlaneProjector(2, 64, 100)
    picture, stitched = pair(2, 64, 100)
    first = projector.project(picture, stitched)
    kept, input_kept = first.copy(), stitched.copy()
    projector.project(picture[::-1], stitched[::-1], slice(20, 50))
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(stitched, input_kept)


@pytest.mark.parametrize("peak", [255, 1023])
def test_what_clipping_forbids_is_counted_apart_and_corrections_stay_small(peak: int) -> None:
    dtype = np.uint8 if peak == 255 else np.uint16
    squares = np.indices((64, 96)).sum(axis=0) % 2
    picture = (squares * peak).astype(dtype)
    stitched = picture.repeat(2, axis=0).repeat(2, axis=1)
    projector = PlaneProjector(2, 96, 64, peak=peak, measured_turns=1)
    made = projector.project(picture, stitched)
    assert made.max() <= peak
    assert projector.count.share < 0.5
    assert projector.count.clipped == projector.count.samples - projector.count.within
    picture, stitched = pair(2, 96, 64, peak=peak)
    picture[20:40, 20:40] = peak  # far above what the generator made: limited, yet nothing is clipped
    change = PlaneProjector(2, 96, 64, peak=peak).project(picture, stitched).astype(int) - stitched
    assert 10 * peak / 255 < np.abs(change).max() < 60 * peak / 255


def test_bands_are_measured_in_turns() -> None:
    picture, stitched = pair(2, 600, 128)
    projector = PlaneProjector(2, 600, 128)
    rows = Reducer(2, 600, 128).rows
    assert 128 // rows >= 4
    for number in range(1, 5):
        projector.project(picture, stitched)
        assert projector.count.samples == number * picture.size // 4
    whole = PlaneProjector(2, 600, 128, measured_turns=1)
    whole.project(picture, stitched)
    assert projector.count == whole.count


def test_counts_add_up_and_keep_the_largest_residual() -> None:
    total = ConsistencyCount(100, 90, 99, 1, 2.5) + ConsistencyCount(300, 280, 299, 0, 1.5)
    assert total == ConsistencyCount(400, 370, 398, 1, 2.5)
    assert (total.share, total.share_before) == (0.995, 0.925)
    assert ConsistencyCount().share == 1.0


def test_planes_of_another_size_are_refused() -> None:
    picture, stitched = pair(2, 20, 10)
    with pytest.raises(UsageError, match="expected planes of 11x20"):
        PlaneProjector(2, 20, 11).project(picture, stitched)


def camera_frames(scale: int, num_each: int = 2) -> list[Frame]:
    """Return a few frames of each data set's validation side, their middles reduced, in YUV 4:4:4."""
    with (DATA / "MANIFEST.tsv").open(newline="", encoding="utf-8") as manifest:
        rows = [row for row in csv.DictReader(manifest, delimiter="\t") if row["split"] == "val"]
    layout, colour, frames = PlaneLayout((0, 0)), Colour(6, False, 6, 6), []
    for name in sorted({row["dataset"] for row in rows}):
        files = [row["file"] for row in rows if row["dataset"] == name]
        for file in files[:: len(files) // num_each][:num_each]:
            with Image.open(DATA / file) as stored:
                left, top = (stored.width - 192) // 2, (stored.height - 192) // 2
                truth = stored.convert("RGB").crop((left, top, left + 192, top + 192))
            small = truth.resize((192 // scale, 192 // scale), Image.Resampling.BICUBIC)
            planes = from_rgb8(np.array(small), layout=layout, colour=colour)
            frames.append(Frame(planes, layout, colour, len(frames), Fraction(1, 25)))
    return frames


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the data folder")
@pytest.mark.parametrize("engine", SHIPPED, ids=lambda engine: engine.name)
def test_every_shipped_engine_is_consistent_on_camera_pictures(engine: Any) -> None:
    generator = load_generator(engine, GeneratorSettings(engine=engine.name, threads=1))
    upscaler = FrameUpscaler(generator, launch="frame", reuse_unchanged=False, consistency=True)
    frames = camera_frames(engine.scale)
    for frame in frames:
        made = upscaler.upscale(frame)
        off = np.abs(down(made.planes[0], engine.scale) - frame.planes[0])
        assert (off <= 1.0).mean() >= REQUIRED - 1 / off.size
    count = upscaler.consistency
    assert count.share >= REQUIRED
    assert count.share_before < count.share


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the data folder")
@pytest.mark.parametrize(
    "engine", [engine for engine in SHIPPED if engine.colour == "rgb"], ids=lambda engine: engine.name
)
def test_rgb_engines_give_8_bit_rgb_and_its_black_border_back(engine: Any) -> None:
    from streamsr.training.data import bicubic_down, load_pairs
    from streamsr.training.measure import enlarger_of, projected, within_level

    enlarge, shares = enlarger_of(engine, "fp32"), []
    for pair in load_pairs(DATA, "val", engine.scale, colour="rgb", most_per_set=1):
        corner = bicubic_down(pair.hr[:192, :192], engine.scale)
        made = enlarge(corner)
        shares.append([within_level(corner, each) for each in (made, projected(corner, made, engine.scale))])
    before, after = np.mean(shares, axis=0)
    assert before < REQUIRED <= after


def test_a_job_says_how_consistent_it_was_and_that_it_can_be_left_out(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4", num_frames=3)
    shares = []
    for consistency in (True, False):
        generator = GeneratorSettings(engine="tiny-x2", threads=1, consistency=consistency)
        result = upscale_file(video, tmp_path / f"{consistency}.mkv", settings=UpscaleSettings(generator=generator))
        told = json.loads(result.sidecar.read_text())["consistency"]
        assert ("consistent with the input" in summary(result)[0]) == consistency
        shares.append(told)
    assert shares[1] is None
    assert shares[0]["filter"].startswith("antialiased bicubic")
    assert shares[0]["samples"] > 0
    assert 0 <= shares[0]["within_one_level_before"] <= shares[0]["within_one_level"] <= 1
    assert shares[0]["max_levels"] >= 0


def test_interpolation_is_left_as_it_is(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4", num_frames=2)
    settings = UpscaleSettings(generator=GeneratorSettings(engine="bicubic-x2"))
    assert upscale_file(video, tmp_path / "b.mkv", settings=settings).details["consistency"] is None


def test_the_command_line_can_leave_it_out(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4", num_frames=2)
    assert run("upscale", video, "-m", "tiny-x2", "--threads", "1", "--no-consistency", "-o", tmp_path / "b.mkv") == 0
    told = json.loads((tmp_path / "b.mkv.json").read_text())
    assert told["consistency"] is None
    assert told["settings"]["generator"]["consistency"] is False
