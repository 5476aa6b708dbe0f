"""The doctor: what it finds, and that whatever is not well comes with a remedy."""

from __future__ import annotations

import os

import pytest

from streamsr import doctor


def test_every_finding_that_is_not_ok_has_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = {"libx264": "Invalid argument", "libx265": "Unknown codec", "h264_nvenc": "Operation not permitted"}
    monkeypatch.setattr(doctor, "available_encoders", lambda: refused)
    monkeypatch.setattr(doctor, "find_spec", lambda package: None)
    monkeypatch.setattr(doctor, "FREE_SPACE_BYTES", 1 << 80)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    findings = doctor.examine_machine()
    ailing = [finding for finding in findings if finding.state != "ok"]
    assert {finding.topic for finding in ailing} >= {"GPU", "disk", "encoder libx264", "encoder libx265"}
    assert {finding.topic for finding in ailing} >= {"encoder h264_nvenc", "runtime torch", "extra web"}
    assert [finding.topic for finding in ailing if not finding.remedy] == []
    assert [finding.topic for finding in findings if finding.state == "ok" and finding.remedy] == []


def test_gpu_encoders_say_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {finding.topic: finding for finding in doctor.examine_encoders()}
    for name in ("h264_nvenc", "hevc_nvenc"):
        finding = found[f"encoder {name}"]
        assert "not permitted" not in finding.detail
        assert finding.state == "ok" or "libx264" in finding.remedy


def test_the_doctor_works_where_the_system_knows_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert doctor.examine_machine()[0].detail.startswith(f"{os.cpu_count()} cores")
