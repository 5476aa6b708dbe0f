"""The doctor: what it finds, and that whatever is not well comes with a remedy."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest
import torch

from streamsr import doctor, gpu_findings
from streamsr.errors import EngineError
from streamsr.runtimes import choosing, fused_compile, gpu_ops, trials
from streamsr.runtimes.nvidia import Gpu
from streamsr.runtimes.tensorrt_library import Probe


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


class Machine:
    """A machine with GPUs, a CUDA build of torch, TensorRT-RTX and NVRTC, as far as the doctor looks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.patch = monkeypatch
        self.gpus("9.0")
        self.serves("")
        self.triton_fault = ""
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr(trials, "triton_version", lambda: "3.6")
        monkeypatch.setattr(gpu_ops, "triton_fault", lambda device: self.triton_fault)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(fused_compile, "nvrtc_library", lambda: None)
        probes = {"tensorrt": Probe("tensorrt", "", "not installed"), "tensorrt-rtx": Probe("tensorrt-rtx", "1.7", "")}
        monkeypatch.setattr(gpu_findings, "probe", probes.__getitem__)

    def gpus(self, *capabilities: str) -> None:
        found = [Gpu("NVIDIA X", capability, "580.20") for capability in capabilities]
        self.patch.setattr(gpu_findings, "find_gpus", lambda: found)
        self.uses(found[0] if found else None)

    def uses(self, gpu: Gpu | None) -> None:
        self.patch.setattr(gpu_findings, "gpu_of_torch", lambda device: gpu)

    def serves(self, refused: str) -> None:
        library = SimpleNamespace(refuse_gpu=lambda capability: refused)
        self.patch.setattr(gpu_findings, "find_library", lambda name: library)

    def states(self) -> dict[str, str]:
        findings = list(gpu_findings.examine_gpus())
        assert all(bool(finding.remedy) == (finding.state != "ok") for finding in findings)
        assert not [finding for finding in findings if "\n" in finding.detail]
        self.remedies = {finding.topic: finding.remedy for finding in findings}
        self.lines = {finding.topic.removeprefix("runtime "): finding.detail for finding in findings}
        return {finding.topic.removeprefix("runtime "): finding.state for finding in findings}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_a_gpu_and_each_of_its_runtimes_have_a_line(machine: Machine) -> None:
    expected = {"GPU": "ok", "cuda": "ok", "tensorrt": "missing", "tensorrt-rtx": "ok", "fused": "ok"}
    assert machine.states() == {**expected, "Triton": "ok"}
    assert machine.lines["Triton"] == "Triton 3.6 launches kernels"
    assert "compute capability 9.0, driver 580.20" in machine.lines["GPU"]
    assert machine.lines["tensorrt"] == "not installed"
    assert machine.lines["tensorrt-rtx"] == "tensorrt-rtx 1.7; asked for as --runtime tensorrt"
    assert machine.remedies["runtime tensorrt"].startswith("pip install 'streamsr[tensorrt]'")


def test_an_old_gpu_is_told_what_it_lacks(machine: Machine) -> None:
    machine.gpus("7.5")
    machine.serves("tensorrt-rtx serves compute capability 8.6, not 7.5")
    assert machine.states() == {
        "GPU": "ok",
        "cuda": "ok",
        "Triton": "ok",
        "tensorrt": "missing",
        "tensorrt-rtx": "missing",
        "fused": "missing",
    }
    assert "8.0 is the least" in machine.lines["fused"]
    assert "not 7.5" in machine.lines["tensorrt-rtx"]
    machine.gpus("6.1")
    assert machine.states()["cuda"] == "missing"
    assert "7.0 is the least" in machine.lines["cuda"]
    machine.gpus("8.9")
    assert machine.states()["fused"] == "ok"
    assert "never measured on this GPU" in machine.lines["fused"]


def test_a_torch_or_a_driver_that_cannot_is_named(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert set(machine.states().values()) == {"ok", "missing"}
    assert "driver 580.20" in machine.lines["cuda"]
    assert machine.states()["fused"] == "missing"
    monkeypatch.setattr(torch.version, "cuda", None)
    assert machine.states()["tensorrt-rtx"] == "missing"
    assert machine.lines["cuda"].endswith("is built for no GPU")


def test_without_nvrtc_the_fused_kernel_is_out(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise EngineError("fused: expected NVRTC of CUDA 13, got none; install a CUDA build of PyTorch")

    monkeypatch.setattr(fused_compile, "nvrtc_library", absent)
    assert machine.states()["fused"] == "missing"
    assert machine.lines["fused"].startswith("expected NVRTC")


def test_no_gpu_needs_no_remedy_but_the_processor(machine: Machine) -> None:
    machine.gpus()
    assert set(machine.states().values()) == {"missing"}
    assert "the processor is used" in machine.lines["GPU"]
    assert set(machine.remedies.values()) == {gpu_findings.WITHOUT}


def test_a_triton_that_cannot_launch_says_what_to_install(machine: Machine) -> None:
    machine.triton_fault = "Triton cannot launch a kernel: Failed to find C compiler"
    states = machine.states()
    assert (states["Triton"], states["cuda"]) == ("missing", "ok")
    assert machine.lines["Triton"] == machine.triton_fault
    assert "install a C compiler and Python's headers" in machine.remedies["Triton"]


def test_the_gpu_that_would_be_used_is_judged_and_not_the_best_there_is(machine: Machine) -> None:
    machine.gpus("9.0", "7.5")
    machine.uses(Gpu("NVIDIA Shown", "7.5", "580.20"))
    assert machine.states()["fused"] == "missing"
    assert machine.lines["fused"].startswith("NVIDIA Shown has compute capability 7.5")
    assert machine.lines["cuda"].startswith("torch on NVIDIA Shown; ")
    machine.uses(Gpu("NVIDIA Old", "6.1", "580.20"))
    assert machine.states()["cuda"] == "missing"
    assert machine.lines["cuda"] == "NVIDIA Old has compute capability 6.1, 7.0 is the least"


def test_a_gpu_that_another_program_has_for_itself_is_a_finding(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(device: torch.device) -> Gpu:
        raise RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable\nFor debugging")

    monkeypatch.setattr(gpu_findings, "gpu_of_torch", busy)
    assert machine.states()["cuda"] == "missing"
    assert machine.lines["cuda"].startswith("CUDA error: all CUDA-capable devices are busy")


def test_gpus_that_the_user_hides_are_said_to_be_hidden(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert machine.states()["cuda"] == "missing"
    assert machine.lines["cuda"] == "NVIDIA X is hidden by CUDA_VISIBLE_DEVICES"


@pytest.mark.parametrize(
    ("module", "said"), [(SimpleNamespace(__version__="3.5.1.post2"), "3.5.1.post2"), (None, "none")]
)
def test_triton_says_its_version_itself_whatever_its_package_is_called(
    monkeypatch: pytest.MonkeyPatch, module: SimpleNamespace | None, said: str
) -> None:
    monkeypatch.setitem(sys.modules, "triton", module)
    assert trials.triton_version() == said
    assert trials.context_of(torch.device("cpu")).endswith(f"; Triton {said};")
    assert dict(choosing.versions())["triton"] == said
