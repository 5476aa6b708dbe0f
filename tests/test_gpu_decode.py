"""The decoding section of the GPU benchmark: it runs on the CPU with the one way there is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.gpu_decode import WAYS, levels_off, served, time_decode
from benchmarks.gpu_timing import Section
from tests.videos import make_video

pytestmark = pytest.mark.usefixtures("one_thread")


def section_in(folder: Path) -> Section:
    return Section(torch.device("cpu"), True, None, folder, folder, folder / "part.json")


def test_without_a_gpu_the_processors_way_is_timed(tmp_path: Path) -> None:
    section = section_in(tmp_path)
    time_decode(section, "tiny-x2")
    found = json.loads(section.file.read_text())
    assert not [key for key in found if key.endswith("error")]
    assert found["clip"]["frames"] == 24
    for what in ("decoding", "whole line"):
        assert list(found[what]) == ["software"]
        assert found[what]["software"]["frames_a_second"] > 0
        assert found[what]["software"]["against_software"] == 1.0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_ways_that_are_not_taken_are_left_out_and_said(tmp_path: Path) -> None:
    section, path = section_in(tmp_path), make_video(tmp_path / "in.mkv", num_frames=3)
    assert [served(section, path, way) for way in WAYS] == [True, False, False]
    assert "decoded in software" in section.result["staying: left out"][0]
    assert levels_off(section, path, "software") == 0
