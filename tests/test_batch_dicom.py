"""Archives of DICOM: read, written as derived objects, checked, and verified later."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("pydicom")

import pydicom

from streamsr.batch.auditing import audit
from tests.archives import BICUBIC, run_archive
from tests.dicom_objects import make_dicom
from tests.videos import make_video

H264 = replace(BICUBIC, codec="libx264")


def test_a_study_becomes_derived_objects_that_are_checked(tmp_path: Path) -> None:
    studies = tmp_path / "in"
    (studies / "patient 1").mkdir(parents=True)
    make_dicom(studies / "patient 1/IM0001").rename(studies / "patient 1/IM0002")
    make_dicom(studies / "a.dcm")
    make_video(studies / "b.mp4", audio=True)
    code, witness = run_archive(studies, out=tmp_path / "out", container="dcm", upscale=H264, segment_s=0.1)
    assert (code, witness.failed) == (0, [])
    names = ["a_bicubic-x2.dcm", "b_bicubic-x2.dcm", "patient 1/IM0002_bicubic-x2.dcm"]
    assert sorted(witness.made) == names
    for name in names:
        made = pydicom.dcmread(tmp_path / "out" / name, stop_before_pixels=True)
        assert made.ImageType[0] == "DERIVED"
    findings = list(audit(tmp_path / "out", deep=True))
    assert len(findings) == 3
    assert [finding.differs for finding in findings] == [[], [], []]


def test_objects_become_ordinary_videos(tmp_path: Path) -> None:
    make_dicom(tmp_path / "a.dcm")
    code, witness = run_archive(tmp_path / "a.dcm", out=tmp_path / "out", upscale=H264)
    assert (code, witness.made, witness.failed) == (0, ["a_bicubic-x2.mkv"], [])
    assert all(file["thumbnails"] for file in witness.report["files"])


def test_what_no_dicom_video_holds_is_unsupported(tmp_path: Path) -> None:
    wide = make_video(tmp_path / "a.mkv", width=4400, height=64, num_frames=2, codec="ffv1")
    code, witness = run_archive(wide, out=tmp_path / "out", container="dcm", upscale=H264)
    assert code == 1
    assert [kind for _, kind, _, _ in witness.failed] == ["unsupported"]
