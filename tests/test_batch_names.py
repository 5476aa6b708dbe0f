"""Archives' names: what is found, where it goes, and that no two inputs meet in one place."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from streamsr.batch.inputs import find_inputs
from streamsr.batch.key import settings_key, work_key
from streamsr.batch.local import share_out
from streamsr.batch.outputs import name_outputs, parse_destination
from streamsr.batch.planning import in_shard, parse_shard
from streamsr.config import GeneratorSettings, ReadSettings, UpscaleSettings, usable_cores
from streamsr.engine import bicubic_engine, find_engine
from streamsr.errors import InputError, InputNotFound, UsageError
from streamsr.sidecar import STATEMENT

ENGINE = bicubic_engine(2)


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def found(*names: Path | str, root: Path, lists: tuple[str, ...] = ()) -> list[str]:
    return [
        str(file.relative) for file in find_inputs([str(name) for name in names], lists=lists, root=root / "out").files
    ]


def outputs(*names: Path | str, output: str, ext: str = "mkv", known: dict[str, str] | None = None) -> list[str]:
    destination = parse_destination(output)
    files = find_inputs([str(name) for name in names], root=destination.root).files
    return list(name_outputs(files, destination, ENGINE, ext=ext, known=known))


def test_folders_are_searched_to_their_depth_and_other_files_are_left(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b/c d/内视镜 ü.MKV", "b/notes.txt", "b/.hidden.mp4", ".cache/x.mp4", "study.dcm")
    discovery = find_inputs([str(tmp_path)], root=tmp_path / "out")
    assert [str(file.relative) for file in discovery.files] == ["a.mp4", "b/c d/内视镜 ü.MKV", "study.dcm"]
    assert discovery.num_left_alone == 1
    assert discovery.forgiving


def test_dicom_files_without_a_suffix_are_found(tmp_path: Path) -> None:
    touch(tmp_path, "IM0001", "README")
    (tmp_path / "IM0001").write_bytes(bytes(128) + b"DICM")
    assert found(tmp_path, root=tmp_path) == ["IM0001"]


def test_results_are_no_inputs(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "a_bicubic-x2.mkv", "out/b.mkv")
    content = {"statement": STATEMENT, "outputs": [{"name": "a_bicubic-x2.mkv"}]}
    (tmp_path / "a_bicubic-x2.mkv.json").write_text(json.dumps(content))
    assert found(tmp_path, root=tmp_path) == ["a.mp4"]
    assert found(tmp_path / "**/*.m*", root=tmp_path) == ["a.mp4"]
    assert found(tmp_path / "a_bicubic-x2.mkv", root=tmp_path) == ["a_bicubic-x2.mkv"], "it was named"
    assert find_inputs([str(tmp_path)], root=tmp_path / "out").num_results == 1


@pytest.mark.parametrize(
    "content",
    ["x", "[]", "{}", '{"title": "a film"}', json.dumps({"statement": STATEMENT, "outputs": [{"name": "b.mp4"}]})],
)
def test_a_json_file_of_another_program_hides_no_video(content: str, tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    (tmp_path / "a.mp4.json").write_text(content)
    assert found(tmp_path, root=tmp_path) == ["a.mp4"]


def test_globs_lists_and_names_are_found_once(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.mp4", "x/y/b.mp4", "x/y/c [1].avi")
    assert found(tmp_path / "x/**/*.mp4", root=tmp_path) == ["a.mp4", "y/b.mp4"]
    assert found(tmp_path / "*/a.mp4", root=tmp_path) == ["x/a.mp4"]
    assert found(tmp_path / "x/y/c [1].avi", tmp_path / "x/y/c [1].avi", root=tmp_path) == ["c [1].avi"]
    listed = tmp_path / "list.txt"
    listed.write_text(f"# studies\n{tmp_path}/x/a.mp4\n\n{tmp_path}/gone.mp4\n")
    assert found(root=tmp_path, lists=(str(listed),)) == ["gone.mp4", "a.mp4"]


def test_a_link_to_a_file_is_found_once_and_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.mp4")
    (tmp_path / "x/again.mp4").symlink_to("a.mp4")
    (tmp_path / "x/loop").symlink_to(tmp_path / "x")
    assert found(tmp_path / "x", root=tmp_path) == ["a.mp4"]


def test_names_that_are_not_unicode_are_kept(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    touch(tmp_path, name)
    assert outputs(tmp_path, output=str(tmp_path / "out")) == [os.fsdecode(b"caf\xe9_bicubic-x2.mkv")]


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    for name in ("gone.mp4", "*.nothing"):
        with pytest.raises(InputNotFound, match="check the"):
            found(tmp_path / name, root=tmp_path)
    with pytest.raises(InputError, match="list"):
        found(root=tmp_path, lists=(str(tmp_path / "gone.txt"),))


def test_trees_are_mirrored_and_templates_fill_in(tmp_path: Path) -> None:
    touch(tmp_path, "in/p1/a.mp4", "in/p2/a.mp4")
    assert outputs(tmp_path / "in", output=f"{tmp_path}/out") == ["p1/a_bicubic-x2.mkv", "p2/a_bicubic-x2.mkv"]
    template = f"{tmp_path}/out/%(folder)s/%(stem)s_x%(scale)s.%(ext)s"
    assert outputs(tmp_path / "in", output=template, ext="mp4") == ["p1/a_x2.mp4", "p2/a_x2.mp4"]
    assert parse_destination(template).root == tmp_path / "out"
    assert parse_destination("%(stem)s_x2.%(ext)s").root == Path()


def test_files_that_would_meet_are_kept_apart(tmp_path: Path) -> None:
    touch(tmp_path, "p1/a.mp4", "p2/a.mp4", "p2/a.avi", "p2/b.mp4")
    named = outputs(*sorted(tmp_path.rglob("*.*")), output=f"{tmp_path}/out")
    assert named == [
        "p1/a_bicubic-x2.mkv",
        "p2/a.avi_bicubic-x2.mkv",
        "p2/a.mp4_bicubic-x2.mkv",
        "b_bicubic-x2.mkv",
    ]


def test_a_template_with_the_folder_keeps_files_apart(tmp_path: Path) -> None:
    touch(tmp_path, "p1/a.mp4", "p2/a.mp4", "p2/a.avi")
    template = f"{tmp_path}/out/%(folder)s/%(stem)s.%(ext)s"
    assert outputs(tmp_path / "p1", tmp_path / "p2/a.mp4", output=template) == ["p1/a.mkv", "p2/a.mkv"]
    assert outputs(tmp_path / "p2", output=template) == ["a.avi.mkv", "a.mp4.mkv"]
    with pytest.raises(UsageError, match=r"put %\(name\)s into"):
        outputs(tmp_path / "p2", output=f"{tmp_path}/out/%(stem)s.%(ext)s")


def test_a_template_that_makes_files_meet_is_refused_with_a_way_out(tmp_path: Path) -> None:
    touch(tmp_path, "p1/a.mp4", "p2/a.mp4")
    with pytest.raises(UsageError, match=r"%\(folder\)s"):
        outputs(tmp_path, output=f"{tmp_path}/out/%(stem)s.%(ext)s")


@pytest.mark.parametrize("template", ["%(stem)", "%(nothing)s.mkv", "%(stem)s/../../x.mkv", "%(stem)s", "%(stem)d.mkv"])
def test_templates_that_cannot_be_are_refused(template: str) -> None:
    with pytest.raises(UsageError, match="expected"):
        outputs(__file__, output=template)


def test_an_earlier_name_is_kept_when_inputs_join(tmp_path: Path) -> None:
    touch(tmp_path, "p1/a.mp4")
    first = outputs(tmp_path / "p1", output=f"{tmp_path}/out")
    assert first == ["a_bicubic-x2.mkv"]
    touch(tmp_path, "p1/a.avi")
    known = {str(tmp_path / "p1/a.mp4"): first[0]}
    named = outputs(tmp_path / "p1", output=f"{tmp_path}/out", known=known)
    assert named == ["a.avi_bicubic-x2.mkv", "a_bicubic-x2.mkv"]


def test_the_key_counts_what_decides_a_result_and_nothing_else() -> None:
    plain, engine = UpscaleSettings(), find_engine("fast-x2")
    key = settings_key(engine, plain, "mkv")
    other = UpscaleSettings(GeneratorSettings(threads=3, gpus=2), ReadSettings(hwaccel="cuda"), overwrite=True)
    assert key == settings_key(engine, other, "mkv")
    others = [
        settings_key(engine, plain, "mp4"),
        settings_key(engine, UpscaleSettings(crf=17), "mkv"),
        settings_key(find_engine("tiny-x2"), plain, "mkv"),
        settings_key(engine, UpscaleSettings(GeneratorSettings(precision="fp32")), "mkv"),
    ]
    assert len({key, *others}) == 5
    keys = {
        work_key("a", key),
        work_key("b", key),
        work_key("a", key, segment=(0, 9)),
        work_key("a", key, segment=(9, None)),
    }
    assert len(keys) == 4


def test_shards_part_everything_once() -> None:
    names = [f"study {number}/clip.mkv" for number in range(200)]
    parts = [[name for name in names if in_shard(name, (part, 7))] for part in range(1, 8)]
    assert sorted(name for part in parts for name in part) == sorted(names)
    assert all(len(part) > 10 for part in parts)
    assert parse_shard("3/8") == (3, 8)
    for wrong in ("0/8", "9/8", "3", "a/b", "-1/8"):
        with pytest.raises(UsageError, match="--shard"):
            parse_shard(wrong)


@pytest.mark.parametrize("wanted", [None, 1, 2, 99])
def test_cores_are_given_out_once(wanted: int | None) -> None:
    places = share_out(wanted, num_gpus=0, most=99)
    cores = [core for place in places for core in place.cores]
    assert len(cores) == len(set(cores)) == usable_cores()
    assert len(places) <= usable_cores()
    assert len(share_out(wanted, num_gpus=0, most=1)) == 1


def test_each_gpu_has_a_worker() -> None:
    assert [place.gpu for place in share_out(None, num_gpus=4, most=99)] == [0, 1, 2, 3]
    assert [place.gpu for place in share_out(None, num_gpus=4, most=2)] == [0, 1]
