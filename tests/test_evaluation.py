"""``streamsr evaluate``: what is read, what is left out, what is measured, what is shown, and the exit codes."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("PIL")
pytest.importorskip("jinja2")

from PIL import Image, ImageOps

from streamsr.errors import InputError
from streamsr.evaluation import crops, sheets, summary
from streamsr.evaluation import run as run_room
from streamsr.evaluation.figures import FIGURES, Truth, figures_of
from streamsr.evaluation.images import read_picture
from streamsr.evaluation.methods import EngineMethod, Interpolation, Made, stitched_and_whole
from streamsr.evaluation.run import EvaluationSettings, evaluate, make_methods
from streamsr.evaluation.subjects import KIN, Told, find_items, read_subjects
from streamsr.training.data import bicubic_down
from tests.frames import add_frame, make_data, scene, write_manifest
from tests.test_cli import one_line, run
from tests.videos import make_video

ENGINE = "tiny-x2"


def write(path: Path, picture: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures of two sizes."""
    write(tmp_path / "in" / "a.png", scene(1))
    write(tmp_path / "in" / "b.png", scene(2, 150, 141))
    return tmp_path / "in"


def figures(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "evaluation.json").read_text())
    return found


def told_lines(text: str) -> list[str]:
    """Return what is said of files; progress comes by the clock."""
    return [line for line in text.splitlines() if line.startswith(("note: ", "left out: "))]


# What is left behind.


def test_a_folder_of_pictures_is_measured_and_leaves_figures_sheets_and_a_report(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run("evaluate", folder, "-m", ENGINE, "-o", out) == 0
    shown = capsys.readouterr()
    assert told_lines(shown.err) == [
        f"note: 2 pictures in no group's folder count as groups: {KIN}",
        "note: 2 sizes (139x134, 141x150), each measured as it is",
        "note: 2 files cut to sides that are a multiple of 2",
        "note: no perceptual distance measured: that needs --squeezenet and --lpips-linear",
    ]
    assert "in, fidelity: 2 frames of 2 groups" in shown.out
    assert (out / "figures.txt").read_text().split() == shown.out.split()[
        : len((out / "figures.txt").read_text().split())
    ]
    for name in ("report.html", "evaluation.json", "figures.txt", "crops.png", f"worst-{ENGINE}.png"):
        assert (out / name).is_file()
        assert name in shown.out.replace("\n", "")
    found = figures(out)
    methods = found["sets"]["in"]
    assert list(methods) == ["bicubic-x2", "lanczos-x2", ENGINE]
    gain = methods[ENGINE]["luma_psnr_db"]["gain"]
    assert gain["mean"] == pytest.approx(
        methods[ENGINE]["luma_psnr_db"]["mean"] - methods["bicubic-x2"]["luma_psnr_db"]["mean"], abs=1e-5
    )
    assert gain["low"] <= gain["mean"] <= gain["high"]
    assert methods[ENGINE]["lr_within_level"]["mean"] > methods["bicubic-x2"]["lr_within_level"]["mean"]
    assert found["precisions"] == {ENGINE: "int8"}
    assert found["seams"]["in"][ENGINE]["step_levels"] <= 1
    assert len(found["frames"]) == 6
    assert found["left_out"] == []


def test_without_the_projection_the_input_comes_back_less_well(folder: Path, tmp_path: Path) -> None:
    shares = []
    for more in ([], ["--no-consistency"]):
        assert run("evaluate", folder, "-m", ENGINE, "-o", tmp_path / "out", "-q", "-y", *more) == 0
        shares.append(figures(tmp_path / "out")["sets"]["in"][ENGINE]["lr_within_level"]["mean"])
    assert shares[0] > shares[1]


def test_a_data_folder_is_measured_by_its_sets_and_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_data(tmp_path / "data", frames=3)
    out = tmp_path / "out"
    assert run("evaluate", data, "-m", ENGINE, "-o", out, "--most", "2", "--split", "val", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told == figures(out)
    assert list(told["sets"]) == ["one", "two"]
    assert all("/val/" in row["name"] for row in told["frames"])
    cell = told["sets"]["one"]["bicubic-x2"]["luma_psnr_db"]
    assert (cell["frames"], cell["groups"]) == (2, 2)


def test_a_video_is_measured_over_time_too(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mkv", width=96, height=80, num_frames=4)
    out = tmp_path / "out"
    assert run("evaluate", video, "-m", ENGINE, "-o", out, "--frames", "3", "-q") == 0
    found = figures(out)
    methods = found["sets"]["a"]
    assert methods[ENGINE]["warp_error"]["frames"] == 2
    assert methods[ENGINE]["luma_psnr_db"]["frames"] == 3
    assert methods[ENGINE]["change_error"]["mean"] > 0
    assert set(methods["camera-x2"]) <= {"warp_error", "flicker"}
    assert "warp_error" in methods["truth-x2"]


def test_what_the_truth_does_over_time_is_told_for_every_scale(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mkv", width=128, height=128, num_frames=3)
    rows = evaluate(video, EvaluationSettings(("bicubic-x2", "bicubic-x4"))).rows
    steps = {name: [row for row in rows if row["method"] == name] for name in ("truth-x2", "truth-x4")}
    assert [len(each) for each in steps.values()] == [2, 2]
    assert steps["truth-x2"][0]["warp_error"] != steps["truth-x4"][0]["warp_error"], "by the motion of another input"


def test_progress_counts_the_frames_of_a_video(folder: Path) -> None:
    make_video(folder / "v.mkv", width=96, height=80, num_frames=4)
    (folder / "bad.png").touch()
    said: list[tuple[str, int, int]] = []
    evaluate(folder, EvaluationSettings(("bicubic-x2",), frames=3), advance=lambda *at: said.append(at))
    assert said == [
        ("a.png", 1, 6),
        ("b.png", 2, 6),
        ("v.mkv#0", 4, 6),
        ("v.mkv#1", 5, 6),
        ("v.mkv#2", 6, 6),
        ("done", 6, 6),
    ]


def test_an_interrupt_keeps_what_was_measured_and_is_130(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = run_room.read_subjects

    def stopped(*args: Any, **more: Any) -> Any:
        yield next(real(*args, **more))
        raise KeyboardInterrupt

    monkeypatch.setattr(run_room, "read_subjects", stopped)
    assert run("evaluate", folder, "-m", ENGINE, "-o", tmp_path / "out") == 130
    assert str(tmp_path / "out") in capsys.readouterr().err.splitlines()[-1]
    found = figures(tmp_path / "out")
    assert found["complete"] is False
    assert {row["name"] for row in found["frames"]} == {"a.png"}
    assert "Interrupted" in (tmp_path / "out" / "report.html").read_text()


def test_the_report_loads_nothing_and_holds_what_was_left_out(folder: Path, tmp_path: Path) -> None:
    (folder / "<b>.png").write_text("no picture")
    out = tmp_path / "out"
    assert run("evaluate", folder, "-m", ENGINE, "-o", out, "-q") == 1
    page = (out / "report.html").read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:image/png;base64,)""", page)
    assert "https://" not in page.replace("http-equiv", "")
    assert "&lt;b&gt;.png" in page
    assert "<b>.png" not in page
    assert page.count('type="range"') == 2 + 2, "two compared crops and two worst ones"
    assert page.count("<script") == 4 + 1


# Bad input.


def test_pictures_of_other_kinds_are_measured_and_those_that_cannot_be_are_left_out_with_a_line_each(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    colour = scene(3)
    write(folder / "gray.png", colour[..., 0])
    write(folder / "deep.png", colour.astype(np.uint16) * 257)
    write(folder / "alpha.png", np.dstack([colour, colour[..., 0]]))
    write(folder / "small.png", colour[:40, :60])
    write(folder / "real.tif", colour.astype(np.float32))
    (folder / "text.png").write_text("no picture")
    (folder / "empty.jpg").touch()
    whole = write(folder / "cut.jpg", colour).read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "bad.mp4").write_text("no video at all\n" * 9)
    (folder / "notes.txt").write_text("not looked at")
    out = tmp_path / "out"
    assert run("evaluate", folder, "-m", ENGINE, "-o", out) == 1
    lines = told_lines(capsys.readouterr().err)
    said = {Path(line.split(": ")[1]).name: line for line in lines}
    for name, words in {
        "gray.png": "three equal channels",
        "deep.png": "16 bits brought to 8",
        "alpha.png": "alpha dropped",
        "small.png": "64x64 pixels or more, got 60x40",
        "real.tif": "float32",
        "text.png": "none that can be decoded",
        "empty.jpg": "an empty file",
        "cut.jpg": "truncated",
        "bad.mp4": "not a video",
    }.items():
        assert words in said[name]
    assert len(lines) == 14, "one line each, and one for groups, sizes, cuts, other kinds and what is not measured"
    assert "note: 1 file of another kind (.txt) not looked at" in lines
    found = figures(out)
    assert {Path(each["name"]).name for each in found["left_out"]} == {
        "small.png",
        "real.tif",
        "text.png",
        "empty.jpg",
        "cut.jpg",
        "bad.mp4",
    }
    measured = {row["name"] for row in found["frames"]}
    assert measured == {"a.png", "b.png", "gray.png", "deep.png", "alpha.png"}


def test_a_picture_of_16_bits_and_its_8_bit_form_are_read_alike(tmp_path: Path) -> None:
    colour = scene(3)
    deep, done = read_picture(write(tmp_path / "deep.png", colour.astype(np.uint16) * 257))
    plain, nothing = read_picture(write(tmp_path / "plain.png", colour))
    assert np.array_equal(deep, plain)
    assert np.array_equal(plain, colour[..., ::-1])
    assert (done, nothing) == (("16 bits brought to 8",), ())


def test_a_folder_with_nothing_to_measure_is_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").touch()
    assert run("evaluate", tmp_path / "in", "-o", tmp_path / "out") == 3
    assert "expected pictures or videos" in one_line(capsys.readouterr().err)
    assert run("evaluate", tmp_path / "nowhere", "-o", tmp_path / "out") == 3
    assert "nothing there" in one_line(capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_a_folder_where_everything_is_left_out_is_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "in" / "small.png", scene(3)[:40, :60])
    assert run("evaluate", tmp_path / "in", "-o", tmp_path / "out") == 3
    assert "none" in capsys.readouterr().err.splitlines()[-1]


def test_usage_engine_and_output_errors_have_their_codes(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("evaluate", folder, "-m", "no-such-engine", "-o", tmp_path / "out") == 4
    assert run("evaluate", folder, "--split", "side", "-o", tmp_path / "out") == 2
    assert run("evaluate", folder, "--squeezenet", "a", "-o", tmp_path / "out") == 2
    taken = tmp_path / "taken"
    taken.touch()
    assert run("evaluate", folder, "-o", taken) == 5
    assert run("evaluate", folder, "-m", "no-such-engine", "-o", taken / "out") == 5, "before anything is measured"
    assert run("evaluate", folder, "-m", "no-such-engine", "-o", tmp_path / "new" / "out") == 4
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "evaluation.json").touch()
    assert run("evaluate", folder, "-o", tmp_path / "old") == 2
    assert "-y" in capsys.readouterr().err.splitlines()[-1]


# What is found.


def test_sets_and_groups_are_the_folders(tmp_path: Path) -> None:
    for name in ("one/x/a.png", "one/x/b.png", "one/y/c.png", "two/d.png", "e.png", ".hidden/f.png", "one/a.mask.png"):
        write(tmp_path / "in" / name, scene(1))
    found = {item.name: (item.dataset, item.group) for item in find_items(tmp_path / "in")}
    assert found == {
        "e.png": ("in", "e.png"),
        "one/x/a.png": ("one", "x"),
        "one/x/b.png": ("one", "x"),
        "one/y/c.png": ("one", "y"),
        "two/d.png": ("two", "two/d.png"),
    }
    assert len(find_items(tmp_path / "in", most_per_set=1)) == 3


def test_a_damaged_manifest_is_refused_and_a_damaged_frame_left_out(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", sets=("one",))
    first = find_items(data)[0]
    first.path.write_bytes(first.path.read_bytes()[:-40])
    said: list[str] = []
    result = evaluate(data, EvaluationSettings(("bicubic-x2",)), say=said.append)
    assert [line for line in said if line.startswith("left out")] == said[:1]
    assert first.name in said[0]
    assert {row["method"] for row in result.rows} == {"bicubic-x2", "lanczos-x2"}
    (data / "MANIFEST.tsv").write_text("nothing\n")
    with pytest.raises(InputError, match="rows with dataset"):
        find_items(data)


def test_a_deep_gray_picture_of_a_manifest_is_read_as_one_of_a_folder_and_told(tmp_path: Path) -> None:
    gray = scene(3)[..., 0]
    row = add_frame(tmp_path, scene(4), "one", "test", "deep")
    write(tmp_path / row["file"], gray.astype(np.uint16) * 257)
    write_manifest(tmp_path, [row | {"sha256": ""}])
    told = Told([], [], lambda line: None)
    (subject,) = read_subjects(find_items(tmp_path), told, frames=1)
    assert np.array_equal(subject.truth, np.dstack([gray] * 3))
    assert [what for _, what in told.notes] == ["16 bits brought to 8", "gray, as three equal channels"]


@pytest.mark.parametrize("wrong", [{"width": "99"}, {"sha256": "0" * 64}])
def test_a_picture_that_is_not_the_one_of_its_row_is_left_out(tmp_path: Path, wrong: dict[str, str]) -> None:
    row = add_frame(tmp_path, scene(4), "one", "test", "a")
    write_manifest(tmp_path, [row | wrong])
    told = Told([], [], lambda line: None)
    assert not list(read_subjects(find_items(tmp_path), told, frames=1))
    ((name, why),) = told.left_out
    assert name == row["file"]
    assert why.startswith("expected the ")
    assert "mend the manifest" in why


def test_pictures_and_frames_in_which_nothing_is_lit_are_left_out_with_a_line_each(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.png", scene(1))
    write(tmp_path / "in" / "dark.png", np.full((100, 120, 3), 9, np.uint8))
    video = tmp_path / "in" / "v.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 25, (139, 134))
    for number in range(6):
        writer.write(np.zeros((134, 139, 3), np.uint8) if number in (0, 3) else scene(number))
    writer.release()
    told = Told([], [], lambda line: None)
    subjects = list(read_subjects(find_items(tmp_path / "in"), told, frames=6))
    assert [subject.name for subject in subjects] == ["a.png", "v.avi#1", "v.avi#2", "v.avi#4", "v.avi#5"]
    assert [subject.follows for subject in subjects] == [False, False, True, False, True]
    assert dict(told.left_out) == {
        "dark.png": "expected something lit, got a black picture; every method gives it back",
        "v.avi": "nothing is lit in 2 frames, the first is 0",
    }


def test_what_a_folder_holds_besides_is_told_and_no_folder_vanishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.gif", "b.DCM", "c.png", "d", "closed/e.png", "closed/f.png", ".hidden.txt", "c.mask.png"):
        write(tmp_path / "in" / f"{name}.png", scene(1)).rename(tmp_path / "in" / name)
    scan = os.scandir

    def scandir(path: Any) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    told = Told([], [], lambda line: None)
    assert [item.name for item in find_items(tmp_path / "in", told=told)] == ["c.png"]
    assert told.notes == [("", "3 files of other kinds (.dcm, .gif, without an ending) not looked at")]
    assert told.left_out == [
        ("closed", "expected a folder that can be read, got Permission denied; open it or move it")
    ]


def test_further_pages_are_told(tmp_path: Path) -> None:
    first, second = Image.fromarray(scene(1)), Image.fromarray(scene(2))
    first.save(tmp_path / "pages.tif", save_all=True, append_images=[second, second])
    rgb, done = read_picture(tmp_path / "pages.tif")
    assert np.array_equal(rgb, scene(1))
    assert done == ("the first of 3 pages",)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_a_picture_stands_as_its_exif_says(tmp_path: Path, orientation: int, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(scene(1)).save(path, exif=exif)
    with Image.open(path) as picture:
        upright = np.asarray(ImageOps.exif_transpose(picture))
    rgb, done = read_picture(path)
    assert np.array_equal(rgb, upright)
    assert done == (("turned as its EXIF says",) if ending == "png" and orientation > 1 else ())


@pytest.mark.parametrize(
    ("bits", "words"), [(10, "16 bits that hold 10,"), (12, "16 bits that hold 12,"), (16, "16 bits")]
)
def test_deep_samples_are_brought_to_8_bits_by_what_they_hold(tmp_path: Path, bits: int, words: str) -> None:
    colour = scene(3)
    colour[0, 0] = 255
    deep = np.rint(colour * ((2**bits - 1) / 255)).astype(np.uint16)
    rgb, done = read_picture(write(tmp_path / "deep.png", deep))
    assert np.array_equal(rgb, colour[..., ::-1])
    assert done[0].startswith(words)


def test_an_evaluation_is_not_measured_again(folder: Path) -> None:
    assert run("evaluate", folder, "-m", "bicubic-x2", "-o", folder / "out", "-q") == 0
    assert run("evaluate", folder, "-m", "bicubic-x2", "-o", folder, "-q") == 0
    assert (folder / "crops.png").is_file()
    told = Told([], [], lambda line: None)
    assert [item.name for item in find_items(folder, told=told)] == ["a.png", "b.png"]
    assert told.notes == [("", f"2 pictures in no group's folder count as groups: {KIN}")]


# How it is measured.


def test_methods_come_in_the_order_of_their_scales_with_the_interpolations_first() -> None:
    names = [method.name for method in make_methods(["tiny-x4", ENGINE, "tiny-x4"])]
    assert names == ["bicubic-x2", "lanczos-x2", ENGINE, "bicubic-x4", "lanczos-x4", "tiny-x4"]


@pytest.mark.parametrize("kind", ["bicubic", "lanczos"])
def test_interpolation_keeps_a_flat_picture(kind: Any) -> None:
    lr = np.full((32, 40, 3), (90, 120, 60), np.uint8)
    made = Interpolation(kind, 2).enlarge(lr)
    assert made.rgb.shape == (64, 80, 3)
    assert (made.rgb == lr[0, 0]).all()
    assert np.ptp(made.luma) == 0


def test_a_students_patches_leave_no_seam() -> None:
    method = EngineMethod(make_methods([ENGINE])[-1].engine)  # type: ignore[attr-defined]
    stitched, whole = stitched_and_whole(method.engine, bicubic_down(scene(5, 200, 220), 2))
    assert stitched.shape == (200, 220)
    assert np.abs(stitched.astype(int) - whole).max() <= 1


def test_summary_takes_gains_frame_by_frame() -> None:
    rows = [
        {"name": name, "dataset": "d", "group": name, "method": method, "scale": 2, "luma_psnr_db": value}
        for name, base in (("a", 30.0), ("b", 40.0))
        for method, value in (("bicubic-x2", base), ("new-x2", base + 2))
    ]
    cells = summary.summarise(rows)["d"]
    assert cells["new-x2"]["luma_psnr_db"]["mean"] == 37.0
    gain = cells["new-x2"]["luma_psnr_db"]["gain"]
    assert (gain["mean"], gain["low"], gain["high"]) == (2.0, 2.0, 2.0)
    assert "gain" not in cells["bicubic-x2"]["luma_psnr_db"]


def test_consistency_is_measured_on_luma_whatever_a_network_writes() -> None:
    rgb = scene(6)[:134, :138]
    lr = bicubic_down(rgb, 2)
    gray = Interpolation("bicubic", 2).enlarge(lr)
    other_colour = Made(gray.luma, np.ascontiguousarray(gray.rgb[..., ::-1]))
    figures = [figures_of(made, lr, Truth.of(rgb), scale=2) for made in (gray, other_colour)]
    assert figures[0]["lr_psnr_db"] == figures[1]["lr_psnr_db"]
    assert figures[0]["lr_within_level"] == figures[1]["lr_within_level"]
    assert figures[0]["rgb_psnr_db"] > figures[1]["rgb_psnr_db"] + 1
    assert "luma" in FIGURES["lr_psnr_db"].meaning


def test_tables_hold_the_gain_over_bicubic_and_every_figure_once() -> None:
    cell = {"mean": 30.0, "low": 29.0, "high": 31.0, "frames": 1, "groups": 1}
    gain = {"mean": 2.5, "low": 2.0, "high": 3.0, "frames": 9, "groups": 9}
    methods = {
        "bicubic-x2": {"luma_psnr_db": cell, "invented": cell},
        "new-x2": {"luma_psnr_db": {**cell, "gain": gain}, "invented": cell},
        "truth-x2": {"flicker": cell},
    }
    text = summary.as_text({"d": methods})
    assert "d, fidelity: 1 frame of 1 group" in text
    assert "[2.00, 3.00]" in text
    told = {
        topic: [figure.title for figure, _ in columns] for topic, columns in summary.by_topic(methods, summary.TOPICS)
    }
    assert told == {"fidelity": ["PSNR Y", "over bicubic"], "trust": ["invented"], "over time": ["flicker"]}
    assert sorted(name for names in summary.TOPICS.values() for name in names) == sorted(FIGURES)


def test_every_figure_says_what_it_means() -> None:
    for figure in FIGURES.values():
        assert figure.title
        assert len(figure.meaning) > 20


# Crops.


def test_the_worst_place_is_where_the_error_is_and_lies_in_the_field() -> None:
    error = np.zeros((100, 120), np.float32)
    error[30:40, 70:80] = 4
    error[0:20, 0:20] = 9
    field = np.zeros(error.shape, bool)
    field[20:, 20:] = True
    top, left, mean = crops.worst_place(error, field, 32)
    assert top <= 30
    assert top + 32 >= 40
    assert left <= 70
    assert left + 32 >= 80
    assert mean == pytest.approx(400 / 32**2)
    assert crops.worst_place(error, np.zeros_like(field), 32)[2] == pytest.approx(9 * 400 / 32**2), "no square fits"


def test_ten_worst_crops_are_kept_the_worst_first_and_a_place_in_a_video_once(folder: Path) -> None:
    gallery = evaluate(folder, EvaluationSettings((ENGINE,))).gallery
    kept = gallery.worst[ENGINE]
    assert [crop.score for crop in kept] == sorted((crop.score for crop in kept), reverse=True)
    assert list(kept[0].pictures) == ["input-x2", "bicubic-x2", ENGINE, "truth"]
    again, other = (crops.Crop(f"v#{at}", "d", 8 * at, 0, 1.0 + at, {}) for at in (0, 1))
    assert crops._shows_the_same(again, other)
    assert not crops._shows_the_same(kept[0], kept[1])


def test_a_sheet_has_a_row_a_crop_and_a_column_a_picture() -> None:
    picture = scene(1)[:64, :64]
    crop = crops.Crop("a.png", "d", 0, 0, 1.0, {"bicubic-x2": picture, "truth": picture}, {"bicubic-x2": 30.0})
    drawn = sheets.sheet([crop, crop], difference_of="bicubic-x2")
    width = 3 * (sheets.CELL_PX + sheets.GAP_PX)
    assert drawn.shape == (2 * (sheets.CELL_PX + 2 * sheets.LABEL_PX + sheets.GAP_PX), width, 3)
    last = drawn[sheets.LABEL_PX : sheets.LABEL_PX + sheets.CELL_PX, -sheets.CELL_PX - sheets.GAP_PX : -sheets.GAP_PX]
    assert (last == 128).all(), "no difference to itself"
    with pytest.raises(ValueError, match="none"):
        sheets.sheet([])
