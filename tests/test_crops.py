"""Training pictures: pairs as files would hold them, what is refused or left out, crops aligned and fair."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

pytest.importorskip("PIL")

from PIL import Image

from streamsr.errors import InputError
from streamsr.training import crops as crops_room
from streamsr.training.crops import CropSampler, FrameBank
from streamsr.training.data import ColourSpace, Pair, load_pairs, luma_of
from tests.frames import SIZE, add_frame, add_marks, make_data, read_rows, scene, write_manifest

CPU = torch.device("cpu")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_data(tmp_path / "data", splits=("train", "val"))


# Pairs.


@pytest.mark.parametrize("scale", [2, 4])
def test_the_reduced_picture_is_pillows_bicubic_of_the_rgb_and_luma_networks_get_its_luma(
    data: Path, scale: int
) -> None:
    colour = load_pairs(data, "train", scale, colour="rgb")
    luma = load_pairs(data, "train", scale)
    assert [pair.file for pair in colour] == [row["file"] for row in read_rows(data) if row["split"] == "train"]
    for pair, grey in zip(colour, luma, strict=True):
        height, width = (side // scale * scale for side in SIZE)
        truth = Image.open(data / pair.file).crop((0, 0, width, height))
        reduced = np.asarray(truth.resize((width // scale, height // scale), Image.Resampling.BICUBIC))
        assert np.array_equal(pair.hr, np.asarray(truth))
        assert np.array_equal(pair.lr, reduced)
        assert np.array_equal(grey.hr, luma_of(pair.hr))
        assert np.array_equal(grey.lr, luma_of(reduced))


def test_luma_of_black_grey_white_and_red_is_studio_range() -> None:
    colours = np.array([[[0, 0, 0], [128, 128, 128], [255, 255, 255], [255, 0, 0]]], np.uint8)
    assert luma_of(colours).tolist() == [[16, 126, 235, 81]]


def test_sides_are_not_mixed_and_frames_are_taken_evenly(tmp_path: Path) -> None:
    data = make_data(tmp_path, splits=("train", "val"), frames=6)
    whole, some = (load_pairs(data, "val", 2, most_per_set=most) for most in (None, 3))
    assert all("/val/" in pair.file for pair in whole)
    assert [pair.file for pair in some] == [pair.file for pair in whole if pair.dataset == "one"][::2] + [
        pair.file for pair in whole if pair.dataset == "two"
    ][::2]


def test_marks_are_read_beside_the_frame_and_only_when_asked(tmp_path: Path) -> None:
    data = make_data(tmp_path, sets=("one",), splits=("train",), frames=1, marked=True)
    assert load_pairs(data, "train", 2)[0].marks is None
    marks = load_pairs(data, "train", 2, with_marks=True)[0].marks
    assert marks is not None
    assert marks.shape == (134, 138)
    assert marks[:, :69].all()
    assert not marks[:, 69:].any()


# What cannot be used.


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"MANIFEST\.tsv: expected the list of frames, got No such file"):
        load_pairs(tmp_path, "train", 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "got 0 rows without"),
        (b"dataset\tfile\none\ta.png\n", "expected rows with dataset, split and file"),
        (b"dataset\tsplit\tfile\none\ttrain\n", "whole sizes in line 2"),
        (b"dataset\tsplit\tfile\twidth\none\ttrain\ta.png\twide\n", "whole sizes in line 2"),
        (b"\xff\xfe\x00\x01", "expected the list of frames"),
    ],
    ids=["empty", "column", "field", "number", "binary"],
)
def test_a_manifest_that_cannot_be_is_refused(tmp_path: Path, text: bytes, words: str) -> None:
    (tmp_path / "MANIFEST.tsv").write_bytes(text)
    with pytest.raises(InputError, match=words) as caught:
        load_pairs(tmp_path, "train", 2)
    assert "\n" not in str(caught.value)


def spoil_file(data: Path, file: str, kind: str) -> None:
    """Spoil a listed frame, or what its row says."""
    path, rows = data / file, read_rows(data)
    row = next(row for row in rows if row["file"] == file)
    if kind == "missing":
        path.unlink()
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "no picture":
        path.write_text("nothing of the kind\n" * 9)
    elif kind == "another picture":
        Image.fromarray(scene(99)).save(path)
    else:
        row["width"], row["sha256"] = "999", ""
    write_manifest(data, rows)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "expected a picture, got .*No such file"),
        ("cut", "expected a picture, got"),
        ("no picture", "expected a picture, got cannot identify"),
        ("another picture", r"expected the 139x134 picture of the manifest, got 139x134 with SHA-256 [0-9a-f]{12}"),
        ("another size", "expected the 999x134 picture of the manifest, got 139x134"),
    ],
)
def test_a_frame_that_is_not_what_the_manifest_lists_is_refused_by_name(data: Path, kind: str, words: str) -> None:
    file = next(row["file"] for row in read_rows(data) if row["split"] == "train")
    spoil_file(data, file, kind)
    with pytest.raises(InputError, match=words) as caught:
        load_pairs(data, "train", 2)
    assert str(caught.value).startswith(str(data / file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"), [(None, "No such file"), (b"no mask", "cannot identify"), (b"", "mask of 138x134, got 20x10")]
)
def test_a_mask_that_is_missing_broken_or_smaller_is_refused(tmp_path: Path, content: bytes | None, words: str) -> None:
    data = make_data(tmp_path, sets=("one",), splits=("train",), frames=1, marked=True)
    mask = data / read_rows(data)[0]["mask"]
    mask.unlink()
    if content:
        mask.write_bytes(content)
    elif content == b"":
        Image.fromarray(np.zeros((10, 20), np.uint8)).save(mask)
    with pytest.raises(InputError, match=words):
        load_pairs(data, "train", 2, with_marks=True)


def test_tiny_gray_and_duplicate_frames_are_left_out_with_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = scene(1)
    gray = np.repeat(good[..., :1], 3, axis=2)
    pictures = {"good": good, "again": good, "gray": gray, "tiny": good[:90], "low": good[:127], "other": scene(2)}
    rows = [add_frame(tmp_path, picture, "one", "train", name) for name, picture in pictures.items()]
    write_manifest(tmp_path, rows)
    with caplog.at_level(logging.WARNING):
        pairs = load_pairs(tmp_path, "train", 2)
    assert [pair.file for pair in pairs] == ["one/train/good.png", "one/train/other.png"]
    (record,) = caplog.records
    line = record.getMessage()
    assert "\n" not in line
    assert all(words in line for words in ("2 frames with a side below 128 px", "1 frames without colour"))
    assert "1 exact copies" in line


def test_groups_that_training_shares_with_another_side_are_named(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    load_pairs(data, "train", 2)
    assert not caplog.records
    rows = read_rows(data)
    for row in rows:
        row["group"] = "monday" if row["dataset"] == "one" else row["group"]
    write_manifest(data, rows)
    load_pairs(data, "val", 2)
    assert not caplog.records
    load_pairs(data, "train", 2)
    (line,) = (record.message for record in caplog.records)
    assert line.endswith("on more than one side, so validation may flatter: one/monday")


def test_a_side_of_which_nothing_is_left_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path, [add_frame(tmp_path, scene(0, 60, 60), "one", "train", "tiny")])
    for side in ("train", "val"):
        with pytest.raises(InputError, match=f"expected frames of the side '{side}', got none that can be used"):
            load_pairs(tmp_path, side, 2)


# Crops.


def coded_pair(dataset: str, number: int, *, scale: int = 2, marked: bool = False) -> Pair:
    """Return a lit colour pair whose samples tell where they are: row and column in the truth, number of the frame."""
    height, width = 20 * scale, 24 * scale
    rows, columns = np.mgrid[:height, :width]
    hr = np.stack([100 + rows, 100 + columns, np.full_like(rows, number)], axis=2).astype(np.uint8)
    marks = np.zeros((height, width), bool)
    marks[:, : width // 2] = True
    return Pair(dataset, hr, np.ascontiguousarray(hr[::scale, ::scale]), f"{number}", marks if marked else None)


def sampler_of(pairs: list[Pair], *, scale: int = 2, patch_px: int = 8, batch: int = 64) -> CropSampler:
    return CropSampler(FrameBank(pairs, scale=scale, device=CPU), patch_px=patch_px, batch=batch)


def levels(crops: Tensor) -> Tensor:
    return (crops * 255).round().long()


def reduced(high: Tensor, scale: int) -> Tensor:
    """Bring down by the antialiased bicubic filter and cut off what the border reaches."""
    size = high.shape[-1] // scale
    return functional.interpolate(high, (size, size), mode="bicubic", antialias=True)[..., 4:-4, 4:-4]


@pytest.mark.parametrize("colour", ["luma", "rgb"])
@pytest.mark.parametrize("scale", [2, 4])
def test_crops_stay_aligned_through_turns_and_mirrors(data: Path, scale: int, colour: ColourSpace) -> None:
    torch.manual_seed(3)
    sampler = sampler_of(load_pairs(data, "train", scale, colour=colour), scale=scale, patch_px=24)
    low, high = next(iter(sampler))
    assert low.shape == (64, 1 if colour == "luma" else 3, 24, 24)
    assert high.shape == (64, low.shape[1], 24 * scale, 24 * scale)
    assert low.dtype == high.dtype == torch.float32
    apart = (reduced(high, scale) - low[..., 4:-4, 4:-4]).abs().amax(dim=(1, 2, 3))
    shifted = (reduced(high.roll(scale, dims=3), scale) - low[..., 4:-4, 4:-4]).abs().amax(dim=(1, 2, 3))
    assert float(apart.max()) * 255 < 2.5
    assert float(shifted.min()) * 255 > 5, "a shift of one pixel would show"


@pytest.mark.parametrize("scale", [2, 4])
def test_every_sample_of_a_crop_lies_where_its_twin_lies(scale: int) -> None:
    torch.manual_seed(1)
    crops = sampler_of([coded_pair("one", 1, scale=scale)], scale=scale).draw()
    low, high = levels(crops.lr), levels(crops.hr)
    centre = functional.avg_pool2d(high[:, :2].float(), scale)
    # The truth's coordinates average to those of the reduced sample plus half a block, whichever way it was turned.
    assert torch.equal(centre, low[:, :2] + (scale - 1) / 2)


def test_crops_are_turned_and_mirrored_in_all_eight_ways() -> None:
    torch.manual_seed(0)
    pair = coded_pair("one", 1)
    square = Pair("one", pair.hr[:, :40], pair.lr[:, :20])
    crops = sampler_of([square], patch_px=20).draw()
    assert len(torch.unique(crops.lr, dim=0)) == 8
    assert len(torch.unique(crops.hr, dim=0)) == 8


def test_every_place_of_a_frame_is_drawn() -> None:
    torch.manual_seed(0)
    low = levels(sampler_of([coded_pair("one", 1)], patch_px=8, batch=4000).draw().lr)
    for channel, last in ((0, 20 - 8), (1, 24 - 8)):
        starts = (low[:, channel].amin(dim=(1, 2)) - 100) // 2
        assert torch.unique(starts).tolist() == list(range(last + 1))


def test_every_set_is_drawn_equally_often_however_many_or_dark_its_frames_are() -> None:
    torch.manual_seed(2)
    dark = coded_pair("dark", 0)
    dark.hr[:, 16:], dark.lr[:, 8:] = 0, 0
    pairs = [dark, *(coded_pair("many", 10 + number) for number in range(9)), coded_pair("one", 50)]
    crops = sampler_of(pairs, batch=9000).draw()
    shares = torch.bincount(crops.datasets, minlength=3) / 9000
    assert float((shares - 1 / 3).abs().max()) < 0.03  # six standard deviations
    within = torch.bincount(crops.frames[crops.datasets == 1] - 1, minlength=9) / (9000 * shares[1])
    assert float((within - 1 / 9).abs().max()) < 0.04


def test_number_of_set_and_frame_are_those_of_the_crop() -> None:
    torch.manual_seed(4)
    sampler = sampler_of([coded_pair("two", 7), coded_pair("one", 3), coded_pair("one", 4)])
    crops = sampler.draw()
    numbers = levels(crops.lr)[:, 2, 0, 0]
    assert sampler.bank.names == ["one", "two"]
    assert [int(sampler.bank.files[frame]) for frame in crops.frames] == numbers.tolist()
    assert torch.equal(crops.datasets, (numbers == 7).long())


def test_mostly_dark_crops_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(5)
    pair = coded_pair("one", 0)
    pair.hr[:, 24:], pair.lr[:, 12:] = 0, 0
    sampler = sampler_of([pair], batch=1000)

    def dark_share() -> float:
        lit = (sampler.draw().lr.amax(dim=1) > 0.2).float().mean(dim=(1, 2))
        return float((lit <= 0.6).float().mean())

    assert dark_share() < 0.1
    monkeypatch.setattr(crops_room, "LIT_SHARE", -1.0)
    assert dark_share() > 0.5, "without the rule they are frequent"


def test_frames_that_are_dark_everywhere_still_give_crops() -> None:
    pair = Pair("one", np.zeros((40, 48), np.uint8), np.zeros((20, 24), np.uint8))
    assert sampler_of([pair]).draw().lr.shape == (64, 1, 8, 8)


def test_marked_share_is_that_of_the_marks_under_the_crop() -> None:
    torch.manual_seed(6)
    pairs = [coded_pair("one", 1, marked=True), coded_pair("two", 2)]
    crops = sampler_of(pairs, batch=500).draw()
    low = levels(crops.lr)
    expected = (low[:, 1] < 100 + 24).float().mean(dim=(1, 2)) * (low[:, 2, 0, 0] == 1)
    assert torch.equal(crops.marked, expected)
    assert {0.0, 1.0} < set(crops.marked.tolist()), "crops inside, outside and across are among them"


def test_crops_are_a_function_of_the_seed() -> None:
    sampler = sampler_of([coded_pair("one", 1), coded_pair("two", 2)])
    batches = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        batches.append(sampler.draw())
    assert torch.equal(batches[0].lr, batches[1].lr)
    assert torch.equal(batches[0].frames, batches[1].frames)
    assert not torch.equal(batches[0].lr, batches[2].lr)


def test_degraded_crops_are_made_of_the_truth_but_for_coded_frames() -> None:
    torch.manual_seed(7)
    bank = FrameBank([coded_pair("one", 1), coded_pair("two", 2)], scale=2, device=CPU)
    coded = torch.tensor([False, True])
    sampler = CropSampler(
        bank, patch_px=8, batch=40, degrade=lambda hr, scale: functional.avg_pool2d(hr, scale) / 2, coded=coded
    )
    crops = sampler.draw()
    made = functional.avg_pool2d(crops.hr, 2) / 2
    assert torch.equal(crops.lr[crops.frames == 0], made[crops.frames == 0])
    assert torch.equal(levels(crops.lr[crops.frames == 1])[:, 2], torch.full((int(crops.frames.sum()), 8, 8), 2))


def test_frames_smaller_than_a_crop_are_refused() -> None:
    with pytest.raises(InputError, match="expected frames of 21 px or more, got 20; lower patch_px"):
        sampler_of([coded_pair("one", 1)], patch_px=21)


def test_marks_of_some_frames_do_not_mark_others(tmp_path: Path) -> None:
    data = make_data(tmp_path, sets=("one", "two"), splits=("train",), frames=1)
    rows = read_rows(data)
    rows[1]["mask"] = add_marks(data, rows[1]["file"])
    write_manifest(data, rows)
    crops = sampler_of(load_pairs(data, "train", 2, with_marks=True)).draw()
    assert float(crops.marked[crops.datasets == 0].max()) == 0
    assert float(crops.marked[crops.datasets == 1].max()) == 1
