"""Is the fused kernel right, and how long does a frame take in it.

Compares every variant of the kernel with the same network in PyTorch fp32 (TF32 off), then times it: device events
around a captured graph of launches that take frames in turn, from the first read of luma to the last sample written.
Also measures what the tensor cores give for the instructions that the kernel does and might use, as its ceiling. Every
step stands alone: one that fails is reported and the next goes on.
"""

from __future__ import annotations

import argparse
import json
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.card import RESULTS, machine_card
from streamsr.engine import list_engines
from streamsr.models.student import SPECS, Student
from streamsr.runtimes.fused import FusedStudent
from streamsr.runtimes.fused_compile import LoadedKernel, cached_cubin, compile_cubin
from streamsr.runtimes.fused_kernel import SOURCE, VARIANTS, KernelShape, Variant, plan_tiles
from streamsr.runtimes.nvidia import gpu_of_torch

FULL_HD = (1080, 1920)
SIZES = ((243, 321), (1, 1), (37, 150), (480, 640), FULL_HD)
TIMED_SIZES = ((480, 640), (720, 1280), FULL_HD, (2160, 3840))
LAUNCHES, REPLAYS, NUM_FRAMES = 10, 15, 4
BUDGET_S = 80.0
CEILINGS = ((8, "float"), (8, "half"), (16, "warpgroup"), (32, "warpgroup"), (48, "warpgroup"), (96, "warpgroup"))
COLUMNS = {
    "correct": ("network", "variant", "weights", "size", "max_levels", "differing", "psnr_db", "repeatable"),
    "ceilings": ("instruction", "tflops"),
    "ablations": ("variant", "without", "p50_ms"),
    "times": ("network", "variant", "frame", "p50_ms", "p99_ms", "tflops", "tiles", "launch_us"),
}

TINY, FAST = VARIANTS[16][0], VARIANTS[32][0]
CANDIDATES: dict[str, tuple[Variant, ...]] = {
    "tiny-x2": (TINY, replace(TINY, half_sums=True), Variant(1, 4, 128, 2, 1), Variant(2, 2, 128, 2, 1)),
    "fast-x2": (FAST, replace(FAST, half_sums=True), Variant(1, 2, 96, 1, 1)),
    "tiny-x4": (TINY, replace(TINY, half_sums=True)),
    "fast-x4": (FAST, replace(FAST, half_sums=True)),
}
"""What is shipped, first; what may replace it: sums in half precision, once they hold on the shipped weights; what has
lost, as a measure of the day."""

PLACES = "for (int place = 0; place < PHASES + 2; ++place) {"
COPY = """
        if (place >= PHASES) {
            for (int word = 0; word < 4; ++word) pixels[place][word] = pixels[place - PHASES][word];
            continue;
        }"""
ABLATIONS: dict[str, tuple[str, str]] = {
    "a third of the products": ("if (dy < 0 || dy > 2) continue;", "if (dy != 1) continue;"),
    "a half of the loads": (PLACES, PLACES + COPY),
    "activations stored": (
        "address += (group * 16",
        "if (words[0][0] != 0x12345u) return;\n    address += (group * 16",
    ),
    "first layer": ("if (tile.needs(0, y, height)) first_step", "if (height < 0) first_step"),
    "samples written": ("if (mine && y + row >= tile.top", "if (mine && y < -999 && y + row >= tile.top"),
}
"""Wrong kernels whose time shows what a part costs."""


def random_student(name: str) -> Student:
    """Return a student with random weights whose residual is strong, so that a wrong layer shows."""
    torch.manual_seed(sum(map(ord, name)))
    student = Student(SPECS[name]).eval()
    with torch.no_grad():
        for index, layer in enumerate(student.layers):
            weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
            gain = 0.2 if index == len(student.layers) - 1 else 1.0
            weight.copy_(torch.randn_like(weight) * (2 / weight[0].numel()) ** 0.5 * gain)
            bias.copy_(torch.randn_like(bias) * 0.05)
    return student


def shipped_student(name: str) -> Student | None:
    """Return the student with the catalogue's weights, None where it has none."""
    for engine in list_engines():
        if engine.name == name and engine.architecture == "student":
            student = Student(SPECS[name]).eval()
            student.load_state_dict({key: torch.from_numpy(values) for key, values in engine.weights().items()})
            return student
    return None


def fused_of(student: Student, variant: Variant) -> FusedStudent:
    """Return a student's kernel."""
    layers = [(weight.detach().cpu().numpy(), bias.detach().cpu().numpy()) for weight, bias in student.weights()]
    return FusedStudent(student.spec, layers, variant=variant)


def noise_frame(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Return luma of independent samples, the hardest for rounding."""
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def smooth_frame(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Return luma with slopes, an edge and a little noise, black and white included."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = 120 + 60 * np.sin(x / 9 + y / 31 + seed) + 40 * np.cos(y / 7 - x / 23)
    waves[y + x > 0.8 * (height + width)] = 255
    waves[: height // 8] = 0
    noise = np.random.default_rng(seed).normal(0, 3, waves.shape)
    frame: NDArray[np.uint8] = np.clip(np.rint(waves + noise), 0, 255).astype(np.uint8)
    return frame


def reference(student: Student, luma: Tensor) -> Tensor:
    """Return the frame enlarged in fp32 as uint8."""
    with torch.inference_mode():
        enlarged: Tensor = student(luma[None, None].float() / 255.0)[0, 0]
        return enlarged.mul(255.0).round_().clamp_(0, 255).to(torch.uint8)


def compare(student: Student, fused: FusedStudent, frame: NDArray[np.uint8]) -> dict[str, Any]:
    """Return how far the kernel is from fp32 on a frame, and whether it gives the same again."""
    luma, scale = torch.from_numpy(frame).cuda(), student.spec.scale
    expected = reference(student, luma)
    runs = [torch.full_like(expected, 77 + turn) for turn in range(4)]
    for out in runs:
        fused.enlarge_device(luma, out)
    torch.cuda.synchronize()
    difference = (runs[0].int() - expected.int()).abs()
    mean_square = float(difference.float().square().mean())
    return {
        "size": f"{frame.shape[1]}x{frame.shape[0]} x{scale}",
        "max_levels": int(difference.max()),
        "differing": round(float((difference > 0).float().mean()), 5),
        "psnr_db": round(10 * float(np.log10(255**2 / mean_square)), 2) if mean_square else None,
        "repeatable": all(bool((out == runs[0]).all()) for out in runs),
    }


def median_ms(call: Callable[[int], None], *, launches: int = LAUNCHES) -> dict[str, float]:
    """Time calls captured in a graph.

    Args:
        call: launches the work of one frame, given its number.
        launches: calls in the graph.

    Returns:
        Median and p99 of a call in milliseconds.
    """
    for index in range(3):
        call(index)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        for index in range(launches):
            call(index)
    times = []
    for _ in range(REPLAYS + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / launches)
    p50, p99 = np.percentile(times[3:], (50, 99))
    return {"p50_ms": round(float(p50), 4), "p99_ms": round(float(p99), 4)}


def time_variant(student: Student, fused: FusedStudent, size: tuple[int, int]) -> dict[str, Any]:
    """Return how long a frame takes, and the share of its operations that a second holds."""
    height, width = size
    scale = student.spec.scale
    frames = [torch.from_numpy(smooth_frame(height, width, seed)).cuda() for seed in range(NUM_FRAMES)]
    outs = [frame.new_empty((scale * height, scale * width)) for frame in frames]
    timing = median_ms(lambda index: fused.enlarge_device(frames[index % NUM_FRAMES], outs[index % NUM_FRAMES]))
    operations = 2 * student.spec.macs_per_pixel * height * width
    plan = plan_tiles(height, width, fused.shape, fused.num_multiprocessors)
    tiles = f"{plan.strips} strips of {plan.strip_px}, {plan.num_tiles} tiles of {plan.segment_rows} rows"
    return timing | {"tflops": round(operations / timing["p50_ms"] / 1e9, 1), "tiles": tiles}


def time_launch(fused: FusedStudent) -> dict[str, Any]:
    """Return what one launch costs the calling thread."""
    luma, scale = torch.zeros((64, 64), dtype=torch.uint8, device="cuda"), fused.shape.scale
    out = luma.new_empty((scale * 64, scale * 64))
    fused.enlarge_device(luma, out)
    torch.cuda.synchronize()
    begin = time.perf_counter_ns()
    for _ in range(200):
        fused.enlarge_device(luma, out)
    spent = time.perf_counter_ns() - begin
    torch.cuda.synchronize()
    return {"launch_us": round(spent / 200 / 1000, 2)}


def ablate(fused: FusedStudent, student: Student, part: str) -> dict[str, Any]:
    """Return how long a kernel takes that leaves a part of the work out."""
    right, wrong = ABLATIONS[part]
    source = SOURCE.read_text(encoding="utf-8")
    if source.count(right) != 1:
        raise ValueError(f"{part}: expected once, found {source.count(right)} times: {right}")
    whole, shape = fused.kernel, fused.shape
    cubin = cached_cubin(source.replace(right, wrong), shape.macros, architecture_of_gpu())
    fused.kernel = LoadedKernel(cubin, shared_bytes=shape.shared_bytes, threads=shape.threads)
    try:
        return {"without": part, **time_variant(student, fused, FULL_HD)}
    finally:
        fused.kernel = whole


def architecture_of_gpu() -> str:
    """Return the first GPU's, for example ``sm_90``."""
    return "sm_{}{}".format(*torch.cuda.get_device_capability(0))


def compile_all() -> dict[str, Any]:
    """Compile every candidate and ablation on all cores; they wait in the cache then."""
    source, architecture = SOURCE.read_text(encoding="utf-8"), architecture_of_gpu()
    jobs = []
    for name, variants in CANDIDATES.items():
        spec = SPECS[name]
        jobs += [(source, KernelShape(spec.channels, spec.depth, spec.scale, variant)) for variant in variants]
    jobs += [(source.replace(*swap), KernelShape(16, 7, 2, TINY)) for swap in ABLATIONS.values()]
    begin = time.monotonic()
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda job: cached_cubin(job[0], job[1].macros, architecture), jobs))
    return {"kernels": len(jobs), "seconds": round(time.monotonic() - begin, 1)}


def ceiling_source(columns: int, kind: str) -> str:
    """Return a kernel that does nothing but matrix products.

    Args:
        columns: N of the instruction.
        kind: ``float`` or ``half`` sums of ``mma.sync``, or ``warpgroup`` (A in registers, B in shared memory).
    """
    chains, sums = (2, columns // 2) if kind == "warpgroup" else (8, 4 if kind == "float" else 2)
    letter, type_name = ("r", "unsigned") if kind == "half" else ("f", "float")
    lines = []
    for chain in range(chains):
        outputs = ", ".join(f'"+{letter}"(d[{chain * sums + place}])' for place in range(sums))
        names = ", ".join(f"%{place}" for place in range(sums))
        inputs = ", ".join(f"%{sums + place}" for place in range(4))
        if kind == "warpgroup":
            code = f"wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.f16.f16 {{{names}}}, {{{inputs}}}, "
            code += f"%{sums + 4}, 1, 1, 1, 0;"
            operands = '"r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b)'
        else:
            types = "f32.f16.f16.f32" if kind == "float" else "f16.f16.f16.f16"
            code = f"mma.sync.aligned.m16n8k16.row.col.{types} {{{names}}}, {{{inputs}}}, "
            code += f"{{%{sums + 4}, %{sums + 5}}}, {{{names}}};"
            operands = '"r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1)'
        lines.append(f'asm volatile("{code}" : {outputs} : {operands});')
    group = kind == "warpgroup"
    before = 'asm volatile("wgmma.fence.sync.aligned;" ::: "memory");' if group else ""
    after = 'asm volatile("wgmma.commit_group.sync.aligned;\\nwgmma.wait_group.sync.aligned 0;" ::: "memory");'
    return f"""extern "C" __global__ void __launch_bounds__(512, 1) ceiling({type_name}* out, int rounds) {{
        __shared__ __align__(1024) unsigned short weights[8192];
        for (int i = threadIdx.x; i < 8192; i += blockDim.x) weights[i] = 0x2c00 + i * 37 % 1024;
        __syncthreads();
        unsigned a0 = 0x2e003011 + threadIdx.x, a1 = a0 * 3 & 0x33ff33ff, a2 = a0 ^ 0x1234, a3 = a1 ^ 0x4321;
        unsigned b0 = a1 ^ 0x0101, b1 = a0 ^ 0x0202;
        unsigned long long b = (static_cast<unsigned>(__cvta_generic_to_shared(weights)) & 0x3ffff) >> 4;
        b |= (8ull << 16) | (16ull << 32);
        {type_name} d[{chains * sums}] = {{}};
        for (int round = 0; round < rounds; ++round) {{
            {before}
            {" ".join(lines * (4 if group else 2))}
            {after if group else ""}
        }}
        {type_name} sum = 0;
        for (int i = 0; i < {chains * sums}; ++i) sum += d[i];
        out[blockIdx.x * blockDim.x + threadIdx.x] = sum + b0 + b1;
    }}"""


def measure_ceiling(columns: int, kind: str) -> dict[str, Any]:
    """Return the rate of one matrix instruction over the whole GPU, 16 warps a multiprocessor."""
    properties = torch.cuda.get_device_properties(0)
    architecture = architecture_of_gpu() + ("a" if kind == "warpgroup" else "")
    cubin = compile_cubin(ceiling_source(columns, kind), {}, architecture)
    kernel = LoadedKernel(cubin, shared_bytes=0, threads=512, name="ceiling")
    blocks, rounds = properties.multi_processor_count, 500
    out = torch.empty(blocks * 512, device="cuda")
    timing = median_ms(lambda _: kernel.launch(blocks, (out.data_ptr(),), (rounds,)), launches=2)
    issued = 4 * 2 * 4 if kind == "warpgroup" else 16 * 8 * 2  # 4 warpgroups or 16 warps, chains, repeats
    per_instruction = 64 * columns * 16 if kind == "warpgroup" else 16 * 8 * 16
    operations = 2 * per_instruction * issued * rounds * blocks
    return {"instruction": f"{kind} n{columns}", "tflops": round(operations / timing["p50_ms"] / 1e9, 1)}


class Report:
    """Collects rows, survives failures and knows when time is up."""

    def __init__(self) -> None:
        self.begin = time.monotonic()
        self.rows: dict[str, list[dict[str, Any]]] = {kind: [] for kind in ("compiled", "failures", *COLUMNS)}

    def step(self, kind: str, labels: dict[str, Any], work: Callable[[], dict[str, Any]]) -> None:
        """Do one step unless time is up, and print what came of it."""
        if time.monotonic() - self.begin > BUDGET_S:
            self.rows["failures"].append(labels | {"step": kind, "error": "no time left"})
            return
        try:
            row = labels | work()
            self.rows[kind].append(row)
            print(kind, row, f"at {time.monotonic() - self.begin:.1f} s", flush=True)
        except Exception as cause:
            traceback.print_exc()
            self.rows["failures"].append(labels | {"step": kind, "error": " ".join(str(cause).split())[:300]})


class Kernels:
    """The kernels of the candidates, each made when it is first asked for."""

    def __init__(self) -> None:
        self.made: dict[tuple[str, Variant, bool], tuple[Student, FusedStudent]] = {}

    def pair(self, name: str, variant: Variant, *, shipped: bool = False) -> tuple[Student, FusedStudent]:
        """Return a network on the GPU and its kernel."""
        key = (name, variant, shipped)
        if key not in self.made:
            student = (shipped_student(name) if shipped else None) or random_student(name)
            self.made[key] = (student.cuda(), fused_of(student, variant))
        return self.made[key]

    def compare(self, name: str, variant: Variant, frame: NDArray[np.uint8], shipped: bool) -> dict[str, Any]:
        """Compare a kernel with its network on a frame."""
        return compare(*self.pair(name, variant, shipped=shipped), frame)

    def time(self, name: str, variant: Variant, size: tuple[int, int]) -> dict[str, Any]:
        """Time a kernel."""
        return time_variant(*self.pair(name, variant), size)

    def ablate(self, name: str, variant: Variant, part: str) -> dict[str, Any]:
        """Time a kernel that leaves a part out."""
        student, fused = self.pair(name, variant)
        return ablate(fused, student, part)

    def time_launch(self, name: str, variant: Variant) -> dict[str, Any]:
        """Time the launch of a kernel on the calling thread."""
        return time_launch(self.pair(name, variant)[1])


def measure(report: Report) -> None:
    """Do every step, the ones that matter most first."""
    kernels = Kernels()
    report.step("compiled", {}, compile_all)
    for name, variants in CANDIDATES.items():
        for variant in variants:
            labels = {"network": name, "variant": variant.name}
            report.step("correct", labels, partial(kernels.compare, name, variant, noise_frame(*SIZES[0], 5), False))
            report.step("times", labels, partial(kernels.time, name, variant, FULL_HD))
    for columns, kind in CEILINGS:
        report.step("ceilings", {}, partial(measure_ceiling, columns, kind))
    for name, variants in CANDIDATES.items():
        labels = {"network": name, "variant": variants[0].name}
        for size in SIZES[1:]:
            report.step("correct", labels, partial(kernels.compare, name, variants[0], noise_frame(*size, 7), False))
        report.step("times", labels, partial(kernels.time_launch, name, variants[0]))
    for part in ABLATIONS:
        labels = {"network": "tiny-x2", "variant": TINY.name}
        report.step("ablations", labels, partial(kernels.ablate, "tiny-x2", TINY, part))
    measure_rest(report, kernels)


def print_rows(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Print some columns of some rows, aligned."""
    cells = [list(columns), *([str(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def measure_rest(report: Report, kernels: Kernels) -> None:
    """Compare with the shipped weights, and time other sizes."""
    for name in [engine.name for engine in list_engines() if engine.name in CANDIDATES]:
        for variant in CANDIDATES[name][:3]:
            labels = {"network": name, "variant": variant.name, "weights": "shipped"}
            for size in (SIZES[0], FULL_HD):
                work = partial(kernels.compare, name, variant, smooth_frame(*size, 1), True)
                report.step("correct", labels, work)
    for name, variants in CANDIDATES.items():
        for size in TIMED_SIZES:
            labels = {"network": name, "variant": variants[0].name, "frame": f"{size[1]}x{size[0]}"}
            report.step("times", labels, partial(kernels.time, name, variants[0], size))


def gpu_facts() -> dict[str, Any]:
    """Return what the figures depend on besides the machine card."""
    gpu = gpu_of_torch(torch.device("cuda"))
    return {"gpu": gpu.name, "driver": gpu.driver, "torch": torch.__version__, "cuda": torch.version.cuda}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure on this GPU, print tables and write JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fused", description="the fused kernel: right, and how fast?"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "fused.json", help="where the result goes")
    options = parser.parse_args(arguments)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    report = Report()
    try:
        measure(report)
    finally:
        result = {"question": "fused", "quick": False, **gpu_facts(), "card": machine_card(), "rows": report.rows}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        for kind, columns in COLUMNS.items():
            print_rows(report.rows[kind], columns)
        for failure in report.rows["failures"]:
            print("FAILED", failure)
        seconds = round(time.monotonic() - report.begin, 1)
        print(json.dumps({"seconds": seconds, "failures": len(report.rows["failures"])}))


if __name__ == "__main__":
    main()
