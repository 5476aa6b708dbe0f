"""What the GPU can do at most: a large matrix product, a large copy, copies to and from the host."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu_timing import Section, measured
from streamsr.runtimes.nvidia import driver_version
from streamsr.runtimes.trials import context_of, cudnn_version


def measure_ceilings(section: Section) -> None:
    """Measure the ceilings and say what they were measured on."""
    with section.step("gpu"):
        section.note("gpu", gpu_card(section))
    for dtype in (torch.float16, torch.bfloat16):
        with section.step(str(dtype)):
            section.note(f"matrix product {str(dtype).removeprefix('torch.')}", matrix_product(section, dtype))
    with section.step("copy"):
        section.note("device copy", device_copy(section))
    if section.device.type == "cuda":
        with section.step("host copies"):
            section.note("host copies", host_copies(section))
    with section.step("clocks"):
        section.note("clocks", asked("--query-gpu=clocks.sm,clocks.mem,temperature.gpu,power.draw,pstate"))
        section.note("programs on the gpu", asked("--query-compute-apps=name,used_memory"))


def gpu_card(section: Section) -> dict[str, Any]:
    """Return the GPU and the versions that its speed depends on."""
    card: dict[str, Any] = {"context": context_of(section.device), "cudnn": cudnn_version(), "cuda": torch.version.cuda}
    if section.device.type == "cuda":
        properties = torch.cuda.get_device_properties(section.device)
        card |= {
            "name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "driver": driver_version(),
        }
    return card


def matrix_product(section: Section, dtype: torch.dtype) -> dict[str, Any]:
    """Time a product of two random matrices of 8192 x 8192."""
    side = 256 if section.quick else 8192
    left, right = (torch.randn(side, side, device=section.device).to(dtype) for _ in range(2))
    out = torch.empty_like(left)
    times: dict[str, Any] = dict(
        measured(lambda: torch.mm(left, right, out=out), device=section.device, runs=3 if section.quick else 30)
    )
    return {**times, "side": side, "tflops": round(2e-9 * side**3 / times["p50_ms"], 1)}


def device_copy(section: Section) -> dict[str, Any]:
    """Time a copy of 4 GiB on the device, bytes read and written counted."""
    size = 1 << (20 if section.quick else 32)
    source = torch.empty(size, dtype=torch.uint8, device=section.device).random_(0, 256)
    target = torch.empty_like(source)
    times: dict[str, Any] = dict(
        measured(lambda: target.copy_(source), device=section.device, runs=3 if section.quick else 20)
    )
    return {**times, "tb_a_second": round(2e-9 * size / times["p50_ms"], 3)}


def host_copies(section: Section) -> dict[str, Any]:
    """Time copies of 256 MiB between pinned host memory and the device."""
    size = 1 << 28
    host, there = torch.empty(size, dtype=torch.uint8, pin_memory=True), torch.empty(size, dtype=torch.uint8).cuda()
    calls: dict[str, Callable[[], object]] = {
        "upload": lambda: there.copy_(host, non_blocking=True),
        "download": lambda: host.copy_(there, non_blocking=True),
    }
    found = {}
    for way, call in calls.items():
        times = measured(call, device=section.device, runs=10)
        found[way] = {**times, "gb_a_second": round(1e-6 * size / times["p50_ms"], 2)}
    return found


def asked(query: str) -> str:
    """Return what the driver's own tool says; it is asked, and never told to set anything."""
    try:
        command = ["nvidia-smi", query, "--format=csv"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as cause:
        return f"unknown: {cause}"
    return "; ".join(done.stdout.splitlines())
