"""The fused kernel: it computes the student that torch computes, on a CPU that plays the GPU and on a GPU."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from streamsr.config import GeneratorSettings
from streamsr.device.upscaler import DeviceUpscaler
from streamsr.engine import bicubic_engine, find_engine
from streamsr.errors import EngineError
from streamsr.frame import Colour, Frame, PlaneLayout
from streamsr.models.student import SPECS, Student, StudentSpec, bilinear_taps
from streamsr.runtimes import fused_compile, load_generator
from streamsr.runtimes.fused import FusedGenerator, FusedStudent, choose_variant
from streamsr.runtimes.fused_kernel import (
    SOURCE,
    VARIANTS,
    KernelShape,
    TilePlan,
    Variant,
    pack_fragments,
    pack_network,
    plan_tiles,
)
from streamsr.runtimes.torch_cpu import TorchGenerator

HEADER = Path(__file__).with_name("cuda_on_cpu.h")
COMPILER = shutil.which("g++")
COMPILER_OPTIONS = ("-std=c++17", "-O1", "-w", "-fPIC", "-shared", "-U_FORTIFY_SOURCE", "-x", "c++")

HALF_LEVELS = 1
"""What half-precision activations may change in an 8-bit sample."""

HALF_SHARE = 0.05
"""Share of samples that they may change, with the strong residual used here."""

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs g++")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")

TINY, TINY_MEDIUM, TINY_SMALL = VARIANTS[16]
FAST, FAST_SMALL = VARIANTS[32]
TALL = Variant(rows=2, phases=2, tile_w=128, xsplit=2, nsplit=1)
PLAIN = Variant(rows=1, phases=1, tile_w=64, xsplit=1, nsplit=1)


class Arguments(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("luma", "enlarged", "weights", "biases")),
        *((name, ctypes.c_int) for name in ("height", "width", "luma_pitch", "enlarged_pitch")),
        *((name, ctypes.c_int) for name in ("strip_px", "strips", "segment_rows", "num_tiles")),
    )


@dataclass(frozen=True)
class Emulator:
    """Compiles the kernel for the CPU and runs it."""

    folder: Path

    def library(self, shape: KernelShape, source: str) -> ctypes.CDLL:
        macros = [f"-D{name}={value}" for name, value in shape.macros.items()]
        name = f"{abs(hash((source, tuple(macros)))):x}"
        target, code = self.folder / f"{name}.so", self.folder / f"{name}.cu"
        if not target.exists():
            code.write_text(source, encoding="utf-8")
            command = [str(COMPILER), *macros, "-include", str(HEADER), *COMPILER_OPTIONS, str(code), "-o", str(target)]
            subprocess.run(command, check=True)
        library = ctypes.CDLL(str(target))
        library.launch_on_cpu.restype = ctypes.c_char_p
        return library

    def enlarge(
        self,
        student: Student,
        shape: KernelShape,
        luma: NDArray[np.uint8],
        *,
        seed: int = 1,
        plan: TilePlan | None = None,
        source: str | None = None,
    ) -> NDArray[np.uint8]:
        height, width = luma.shape
        plan = plan or plan_tiles(height, width, shape, 4)
        words, biases = pack_network(layers_of(student), bilinear_taps(shape.scale).numpy(), shape)
        out = np.full((shape.scale * height, shape.scale * width), 77, np.uint8)
        arguments = Arguments(
            *(array.ctypes.data for array in (luma, out, words, biases)),
            *(height, width, luma.strides[0], out.strides[0]),
            *(plan.strip_px, plan.strips, plan.segment_rows, plan.num_tiles),
        )
        library = self.library(shape, source or SOURCE.read_text(encoding="utf-8"))
        counts = (ctypes.c_longlong * 2)()
        size = (plan.blocks, shape.threads, shape.shared_bytes)
        message = library.launch_on_cpu(ctypes.byref(arguments), *size, ctypes.c_uint(seed), counts)
        assert message == b"", message
        return out


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    return Emulator(tmp_path_factory.mktemp("kernels"))


def layers_of(student: Student) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    return [(weight.detach().cpu().numpy(), bias.detach().cpu().numpy()) for weight, bias in student.weights()]


def random_student(spec: StudentSpec) -> Student:
    """Return a student whose residual is strong enough that a wrong layer shows."""
    torch.manual_seed(spec.channels + spec.scale)
    student = Student(spec).eval()
    with torch.no_grad():
        for index, layer in enumerate(student.layers):
            weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
            gain = 0.2 if index == len(student.layers) - 1 else 1.0
            weight.copy_(torch.randn_like(weight) * (2 / weight[0].numel()) ** 0.5 * gain)
            bias.copy_(torch.randn_like(bias) * 0.05)
    return student


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def in_fp32(student: Student, luma: NDArray[np.uint8]) -> NDArray[np.uint8]:
    with torch.inference_mode():
        enlarged = student(torch.from_numpy(luma)[None, None].float() / 255.0)[0, 0]
        samples: NDArray[np.uint8] = enlarged.mul(255.0).round_().clamp_(0, 255).to(torch.uint8).numpy()
        return samples


def assert_close(found: NDArray[np.uint8], expected: NDArray[np.uint8], *, share: float = HALF_SHARE) -> None:
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert difference.max() <= HALF_LEVELS
    assert (difference > 0).mean() <= share


def shape_of(name: str, variant: Variant) -> KernelShape:
    spec = SPECS[name]
    return KernelShape(spec.channels, spec.depth, spec.scale, variant)


@needs_compiler
@pytest.mark.parametrize(
    ("name", "variant", "size"),
    [
        ("tiny-x2", TINY, (11, 130)),
        ("tiny-x2", replace(TINY_SMALL, half_sums=True), (9, 40)),
        ("tiny-x2", TALL, (12, 47)),
        ("fast-x2", FAST_SMALL, (5, 21)),
        pytest.param("tiny-x2", TINY_MEDIUM, (19, 101), marks=pytest.mark.slow),
        pytest.param("tiny-x2", replace(TALL, xsplit=1, half_sums=True), (14, 50), marks=pytest.mark.slow),
        pytest.param("tiny-x4", TINY, (11, 33), marks=pytest.mark.slow),
        pytest.param("fast-x2", FAST, (7, 90), marks=pytest.mark.slow),
        pytest.param("fast-x2", replace(FAST, half_sums=True), (5, 31), marks=pytest.mark.slow),
        pytest.param("fast-x2", PLAIN, (5, 40), marks=pytest.mark.slow),
        pytest.param("fast-x4", FAST_SMALL, (5, 21), marks=pytest.mark.slow),
    ],
)
def test_kernel_computes_the_student(emulator: Emulator, name: str, variant: Variant, size: tuple[int, int]) -> None:
    student, luma = random_student(SPECS[name]), noise(*size)
    assert_close(emulator.enlarge(student, shape_of(name, variant), luma), in_fp32(student, luma))


@needs_compiler
@pytest.mark.parametrize("size", [(1, 1), (1, 70), (40, 1), (3, 2)])
def test_kernel_enlarges_frames_smaller_than_its_margins(emulator: Emulator, size: tuple[int, int]) -> None:
    student, luma = random_student(SPECS["tiny-x2"]), noise(*size)
    assert_close(emulator.enlarge(student, shape_of("tiny-x2", TINY_SMALL), luma), in_fp32(student, luma), share=0.1)


@needs_compiler
def test_kernel_reads_rows_that_lie_apart(emulator: Emulator) -> None:
    student, wide = random_student(SPECS["tiny-x2"]), noise(12, 64)
    luma = wide[:, 5:36]
    assert_close(emulator.enlarge(student, shape_of("tiny-x2", TINY_SMALL), luma), in_fp32(student, luma))


@needs_compiler
def test_kernel_does_not_depend_on_how_tiles_and_warps_are_dealt_out(emulator: Emulator) -> None:
    shape = shape_of("tiny-x2", TINY_SMALL)
    student, luma = random_student(SPECS["tiny-x2"]), noise(14, 60)
    plans = [TilePlan(48, 2, 14, 2, 1), TilePlan(48, 2, 7, 4, 3), TilePlan(31, 2, 13, 4, 4)]
    results = [emulator.enlarge(student, shape, luma, seed=seed, plan=plan) for seed, plan in enumerate(plans, 1)]
    assert all(np.array_equal(result, results[0]) for result in results)


@needs_compiler
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("constexpr int LAG = ROWS + 1;", "constexpr int LAG = ROWS;"),
        ("constexpr int RING = LAG + 1 + ROWS", "constexpr int RING = LAG + ROWS"),
        ("    if (border) {\n        const int x = tile.left + PHASES", "    if (0) {\n        const int x = PHASES"),
        ("const int reach = MARGIN - layer;", "const int reach = MARGIN - layer - 1;"),
    ],
    ids=["no lag", "short ring", "no zeros outside", "short margin"],
)
def test_the_emulated_gpu_finds_planted_faults(emulator: Emulator, right: str, wrong: str) -> None:
    source = SOURCE.read_text(encoding="utf-8")
    assert source.count(right) == 1
    shape = shape_of("tiny-x2", TINY_SMALL)
    student, luma, plan = random_student(SPECS["tiny-x2"]), noise(10, 50), TilePlan(48, 2, 6, 4, 1)
    expected = in_fp32(student, luma).astype(int)
    planted = source.replace(right, wrong)
    found = (emulator.enlarge(student, shape, luma, source=planted, plan=plan, seed=seed) for seed in range(1, 5))
    assert any(np.abs(frame.astype(int) - expected).max() > HALF_LEVELS for frame in found)


def test_fragments_follow_the_register_layout_of_ptx() -> None:
    matrices = np.arange(2 * 32 * 16, dtype=np.float64).reshape(2, 32, 16)
    words = pack_fragments(matrices).reshape(2, 2, 2, 32, 2)
    halves = words.view(np.float16).reshape(2, 2, 2, 32, 2, 2)
    for g, t in ((0, 0), (5, 3)):
        lane = 4 * g + t
        assert halves[1, 1, 1, lane, 0, 1] == matrices[1, 16 + 2 * t + 1, 8 + g]
        assert halves[1, 0, 1, lane, 1, 0] == matrices[1, 2 * t + 8, 8 + g]


@pytest.mark.parametrize("name", ["tiny-x2", "fast-x2"])
@pytest.mark.parametrize("size", [(1, 1), (480, 640), (1080, 1920), (243, 321), (2160, 4096)])
def test_tiles_cover_the_frame_in_strips_that_fit(name: str, size: tuple[int, int]) -> None:
    shape = shape_of(name, VARIANTS[SPECS[name].channels][0])
    plan = plan_tiles(*size, shape, 132)
    assert plan.strip_px <= shape.core_px
    assert (plan.strips - 1) * plan.strip_px < size[1] <= plan.strips * plan.strip_px
    segments = plan.num_tiles // plan.strips
    assert segments * plan.strips == plan.num_tiles
    assert (segments - 1) * plan.segment_rows < size[0] <= segments * plan.segment_rows
    assert 1 <= plan.blocks <= min(plan.num_tiles, 132)


@pytest.mark.parametrize(("card_bytes", "variant"), [(232448, TINY), (166912, TINY_MEDIUM), (101376, TINY_SMALL)])
def test_a_gpu_takes_the_first_variant_that_its_shared_memory_holds(card_bytes: int, variant: Variant) -> None:
    assert choose_variant(SPECS["tiny-x2"], card_bytes) == variant


def test_what_the_kernel_does_not_serve_is_refused_in_one_line() -> None:
    with pytest.raises(EngineError, match=r"^fused: expected a student of 16 or 32 channels.*got 48 channels"):
        choose_variant(SPECS["quality-x2"], 232448)
    with pytest.raises(EngineError, match=r"^fused: expected \d+ bytes of shared memory a block, got 49152"):
        choose_variant(SPECS["fast-x2"], 49152)
    with pytest.raises(EngineError, match="fused expects a student, got bicubic"):
        FusedGenerator(bicubic_engine(2))


def test_no_gpu_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineError, match=r"^fused: expected an NVIDIA GPU, .*, got .*use --runtime auto$"):
        FusedStudent(SPECS["tiny-x2"], layers_of(Student(SPECS["tiny-x2"])))


def test_an_old_gpu_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(EngineError, match=r"^fused: expected compute capability 8.0 or above, got 7.5"):
        FusedStudent(SPECS["tiny-x2"], layers_of(Student(SPECS["tiny-x2"])))


def test_a_cached_kernel_is_taken_unless_it_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def compile_cubin(source: str, macros: object, architecture: str) -> bytes:
        made.append(architecture)
        return f"machine code {len(made)}".encode()

    monkeypatch.setattr(fused_compile, "compile_cubin", compile_cubin)

    def cubin(**macros: int) -> bytes:
        return fused_compile.cached_cubin("source", macros, "sm_90", folder=tmp_path)

    assert cubin(ROWS=1) == cubin(ROWS=1) == b"machine code 1"
    assert cubin(ROWS=2) == b"machine code 2"
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert cubin(ROWS=1) == b"machine code 3"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(("name", "architecture"), [("tiny-x2", "sm_80"), ("tiny-x4", "sm_90"), ("fast-x2", "sm_89")])
def test_nvrtc_compiles_the_kernel_without_a_gpu(name: str, architecture: str) -> None:
    try:
        fused_compile.nvrtc_library()
    except EngineError:
        pytest.skip("needs NVRTC")
    shape = shape_of(name, VARIANTS[SPECS[name].channels][0])
    source = SOURCE.read_text(encoding="utf-8")
    assert fused_compile.compile_cubin(source, shape.macros, architecture).startswith(b"\x7fELF")
    with pytest.raises(EngineError, match=rf"^fused: expected a kernel that compiles for {architecture}, got .*error"):
        fused_compile.compile_cubin(source, shape.macros | {"TILE_W": 100}, architecture)


@pytest.mark.needs_cuda
@needs_gpu
@pytest.mark.parametrize("name", ["tiny-x2", "tiny-x4", "fast-x2", "fast-x4"])
def test_gpu_computes_the_student(name: str) -> None:
    student, luma = random_student(SPECS[name]), noise(243, 321)
    fused = FusedStudent(student.spec, layers_of(student))
    source = torch.from_numpy(luma).cuda()
    out = source.new_full((student.spec.scale * 243, student.spec.scale * 321), 77)
    fused.enlarge_device(source, out)
    assert_close(out.cpu().numpy(), in_fp32(student, luma))


@pytest.mark.needs_cuda
@needs_gpu
@pytest.mark.parametrize("name", ["tiny-x2", "fast-x2", "fast-x4"])
def test_the_runtime_gives_the_processors_picture_whole_in_patches_and_timed(name: str) -> None:
    engine, pictures = find_engine(name), noise(243, 321)[None, None]
    generator = load_generator(engine, GeneratorSettings(engine=name, runtime="fused"))
    assert isinstance(generator, FusedGenerator)
    expected = TorchGenerator(engine, threads=1).generate(pictures)
    assert_close(generator.generate(pictures), expected)
    assert generator.launch_ms(pictures.shape, pictures.dtype) > 0
    frame = Frame((pictures[0, 0],), PlaneLayout(None, 8), Colour(1, False, 1, 1), 0, Fraction(1, 25))
    for launch in ("frame", "patch"):
        upscaler = DeviceUpscaler(generator, launch=launch)  # type: ignore[arg-type]
        assert_close(upscaler.upscale(frame).planes[0], expected[0, 0])


@pytest.mark.needs_cuda
@needs_gpu
def test_gpu_refuses_tensors_of_another_kind() -> None:
    fused = FusedStudent(SPECS["tiny-x2"], layers_of(random_student(SPECS["tiny-x2"])))
    luma = torch.zeros((8, 8), dtype=torch.uint8, device="cuda")
    for wrong in (luma.float(), luma.cpu(), luma[:, ::2], luma[0]):
        with pytest.raises(EngineError, match=r"^fused: expected luma as"):
            fused.enlarge_device(wrong, luma)
    with pytest.raises(EngineError, match=r"^fused: expected out of 16x16 samples"):
        fused.enlarge_device(luma, luma)


def test_library_names_are_tried_until_one_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(fused_compile, "ctypes", SimpleNamespace(CDLL=refuse))
    fused_compile.nvrtc_library.cache_clear()
    fused_compile.driver_library.cache_clear()
    with pytest.raises(EngineError, match=r"^fused: expected NVRTC of CUDA .*; install a CUDA build of PyTorch$"):
        fused_compile.nvrtc_library()
    with pytest.raises(EngineError, match=r"^fused: expected an NVIDIA driver"):
        fused_compile.driver_library()
