"""The ``cuda`` runtime: on the CPU its arithmetic, with Triton's interpreter its kernels, on a GPU all of it.

What is expected is computed on the CPU: a GPU's fp32 convolutions may round to TF32.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CalledProcessError
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from streamsr import runtimes
from streamsr.config import GeneratorSettings
from streamsr.engine import Engine, find_engine
from streamsr.errors import EngineError
from streamsr.models.srgan import SRGANGenerator, fold_batch_norm
from streamsr.models.student import SPECS, Student, StudentSpec, bilinear_taps
from streamsr.runtimes import gpu_ops, load_generator, notices_of, trials
from streamsr.runtimes.cuda import CudaGenerator
from streamsr.runtimes.cuda_networks import Layer, Method, SRGANOnDevice, StudentOnDevice
from streamsr.runtimes.gpu_faults import check_gpu, guarded, is_gpu_fault
from streamsr.runtimes.gpu_generator import fill_randomly
from streamsr.runtimes.packing import in_front_of_shuffle, pack_columns, parities_first
from streamsr.runtimes.torch_cpu import TorchGenerator
from streamsr.runtimes.trials import Remembered, fastest, parts_of, sources_digest
from tests.kernels import grids_alone, last_program_alone, runs_triton

HAS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if HAS_GPU else "cpu")
needs_gpu = pytest.mark.skipif(not HAS_GPU, reason="needs an NVIDIA GPU")
FP32 = torch.float32

NOISE_LEVELS = 2
"""What half precision may change where neighbouring samples have nothing to do with each other: a residual is then as
large as the picture, and ten bits of it are coarser than a grey level. On pictures it is 1."""


def noise(height: int, width: int) -> NDArray[np.uint8]:
    """Return (1, 1, H, W) independent samples, the hardest picture for rounding."""
    return np.random.default_rng(3).integers(0, 256, (1, 1, height, width), dtype=np.uint8)


def smooth(height: int, width: int) -> NDArray[np.uint8]:
    """Return (1, 1, H, W) waves, an edge, black, white and a camera's noise."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    waves = 120 + 60 * np.sin(x / 9 + y / 31) + 40 * np.cos(y / 7 - x / 23)
    waves[y + x > 0.8 * (height + width)] = 255
    waves[: height // 8] = 0
    noisy = np.rint(waves + np.random.default_rng(3).normal(0, 2, waves.shape))
    return noisy.clip(0, 255).astype(np.uint8)[None, None]


pytestmark = pytest.mark.usefixtures("one_thread")


def random_student(spec: StudentSpec, seed: int = 0) -> Student:
    torch.manual_seed(seed)
    return Student(spec).eval().requires_grad_(False)


def random_srgan(scale: int, num_blocks: int = 2) -> SRGANGenerator:
    torch.manual_seed(1)
    network = SRGANGenerator(scale=scale, num_blocks=num_blocks).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
        if isinstance(module, torch.nn.PReLU):
            module.weight.data.uniform_(0.05, 0.3)
    return fold_batch_norm(network)


@pytest.mark.parametrize(("side", "factor"), [(3, 1), (3, 2), (3, 4), (3, 8), (5, 2), (9, 4), (9, 8)])
def test_packed_columns_convolve_the_same(side: int, factor: int) -> None:
    torch.manual_seed(0)
    weight, features = torch.randn(5, 3, side, side), torch.randn(2, 3, 11, 24)
    expected = functional.conv2d(features, weight, padding=side // 2)
    flat = features.permute(0, 2, 3, 1).reshape(2, 11, 24 // factor, factor * 3).permute(0, 3, 1, 2)
    packed = pack_columns(weight, factor)
    made = functional.conv2d(flat, packed, padding=(packed.shape[2] // 2, packed.shape[3] // 2))
    torch.testing.assert_close(made.permute(0, 2, 3, 1).reshape(2, 11, 24, 5).permute(0, 3, 1, 2), expected)


def test_convolution_in_front_of_a_shuffle_equals_the_one_behind_prelu_and_shuffle() -> None:
    torch.manual_seed(0)
    weight, features = torch.randn(3, 4, 9, 9), torch.randn(2, 16, 7, 10)
    expected = functional.conv2d(functional.leaky_relu(functional.pixel_shuffle(features, 2), 0.2), weight, padding=4)
    coarse = in_front_of_shuffle(weight)
    assert coarse.shape == (12, 16, 5, 5)
    reordered = functional.leaky_relu(parities_first(features.transpose(0, 1)).transpose(0, 1), 0.2)
    made = functional.pixel_shuffle(functional.conv2d(reordered, coarse, padding=2), 2)
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spec", [SPECS["tiny-x2"], SPECS["fast-x4"], SPECS["quality-x2"]], ids=str)
@pytest.mark.parametrize("size", [(9, 16), (5, 7), (1, 1)])
def test_student_on_device_equals_the_student(spec: StudentSpec, size: tuple[int, int]) -> None:
    student = random_student(spec)
    pictures = torch.rand(2, 1, *size)
    out = torch.full((2, 1, spec.scale * size[0], spec.scale * size[1]), torch.nan)
    with torch.no_grad():
        StudentOnDevice(student, device=torch.device("cpu"), dtype=FP32).enlarge(pictures, out)
        torch.testing.assert_close(out, student(pictures), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("size", [(6, 8), (5, 7)])
def test_srgan_on_device_equals_the_srgan(scale: int, size: tuple[int, int]) -> None:
    network = random_srgan(scale)
    pictures = torch.rand(2, 3, *size)
    out = torch.full((2, 3, scale * size[0], scale * size[1]), torch.nan)
    with torch.no_grad():
        SRGANOnDevice(network, device=torch.device("cpu"), dtype=FP32).enlarge(pictures, out)
        torch.testing.assert_close(out, network(pictures), rtol=1e-4, atol=1e-5)


def test_every_packing_of_a_layer_gives_the_same() -> None:
    torch.manual_seed(0)
    layer = Layer(
        torch.randn(16, 16, 3, 3),
        torch.randn(16),
        device=torch.device("cpu"),
        dtype=FP32,
        slope=0.2,
        factors=(1, 2, 4),
    )
    features, residual = torch.randn(2, 5, 8, 16), torch.randn(2, 5, 8, 16)
    expected = layer.run(features, Method("plain"), residual)
    for factor in (2, 4):
        torch.testing.assert_close(
            layer.run(features, Method("plain", factor), residual), expected, rtol=1e-4, atol=1e-4
        )
    assert [method.factor for method in layer.methods(6) if method.kind == "plain"] == [1, 2]


def test_phases_are_rounded_and_clamped() -> None:
    phases = torch.tensor([-0.1, 0.5 / 255, 1.5 / 255, 1.2]).view(1, 1, 1, 4)
    out = torch.empty(1, 1, 2, 2, dtype=torch.uint8)
    gpu_ops.write_phases(phases, out)
    assert out.flatten().tolist() == [0, 0, 2, 255]


@pytest.mark.parametrize("name", ["tiny-x2", "fast-x4"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_generator_on_the_cpu_agrees_with_torch(name: str, dtype: type[Any]) -> None:
    engine = find_engine(name)
    ours, reference = CudaGenerator(engine, precision="fp32", device="cpu"), TorchGenerator(engine, threads=1)
    rng = np.random.default_rng(0)
    pictures: NDArray[Any] = (
        rng.integers(0, 256, (2, 1, 24, 31), dtype=np.uint8) if dtype is np.uint8 else rng.random((2, 1, 24, 31), dtype)
    )
    out = np.empty((2, 1, 24 * engine.scale, 31 * engine.scale), dtype)
    assert ours.generate(pictures, out) is out
    expected = reference.generate(pictures)
    assert np.abs(out.astype(np.float64) - expected).max() <= (1 if dtype is np.uint8 else 1e-4)
    if dtype is np.uint8:
        assert (out == expected).mean() > 0.999
    assert np.array_equal(ours.generate(pictures[:, :, ::-1][:, :, ::-1]), out)


def test_batch_without_memory_is_run_in_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = CudaGenerator(find_engine("tiny-x2"), precision="fp32", device="cpu")
    pictures = np.random.default_rng(0).integers(0, 256, (5, 1, 8, 9), dtype=np.uint8)
    expected = generator.generate(pictures).copy()
    plain, asked = generator.network.enlarge, []

    def scarce(samples: Tensor, out: Tensor) -> None:
        asked.append(len(samples))
        if len(samples) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        plain(samples, out)

    monkeypatch.setattr(generator.network, "enlarge", scarce)
    generator._prepared.clear()
    assert np.array_equal(generator.generate(pictures), expected)
    assert max(asked) == 5
    generator._prepared.clear()
    monkeypatch.setattr(generator.network, "enlarge", lambda samples, out: scarce(samples.repeat(9, 1, 1, 1), out))
    with pytest.raises(EngineError, match="expected enough GPU memory"):
        generator.generate(pictures)


def test_faults_of_the_gpu_are_named_and_others_pass() -> None:
    with (
        pytest.raises(EngineError, match="tiny: the GPU failed: CUDA error: an illegal memory access"),
        guarded("tiny"),
    ):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    with pytest.raises(RuntimeError, match="shape"), guarded("tiny"):
        raise RuntimeError("shape mismatch")
    assert not is_gpu_fault(ValueError("no"))


def test_unknown_precisions_and_samples_are_refused() -> None:
    engine = find_engine("tiny-x2")
    with pytest.raises(EngineError, match="cuda runs fp16, bf16 or fp32, got int8"):
        CudaGenerator(engine, precision="int8", device="cpu")
    with pytest.raises(EngineError, match="expected uint8 or float32 samples"):
        CudaGenerator(engine, precision="fp32", device="cpu").generate(np.zeros((1, 1, 8, 8), np.int32))


@pytest.mark.skipif(HAS_GPU, reason="there is a GPU")
def test_missing_gpu_is_said_in_one_line() -> None:
    with pytest.raises(EngineError, match="expected an NVIDIA GPU") as caught:
        CudaGenerator(find_engine("tiny-x2"))
    assert "\n" not in str(caught.value)
    with pytest.raises(EngineError, match="use --runtime auto"):
        check_gpu(torch.device("cuda"))


@pytest.mark.skipif(HAS_GPU, reason="there is a GPU")
def test_runtime_asked_for_by_name_is_not_replaced() -> None:
    engine = find_engine("tiny-x2")
    with pytest.raises(EngineError, match="expected an NVIDIA GPU"):
        load_generator(engine, GeneratorSettings(runtime="cuda"))
    assert load_generator(engine, GeneratorSettings(threads=1)).runtime == "openvino"


def test_choices_are_remembered_for_the_same_gpu_only(tmp_path: Path) -> None:
    file = tmp_path / "cache" / "choices.json"
    Remembered("one GPU", file).write("body", {"slow": 2.0, "fast": 1.0})
    Remembered("one GPU", file).write("last", {"only": 1.0})
    assert list(Remembered("one GPU", file).read("body")) == ["fast", "slow"]
    assert Remembered("other GPU", file).read("body") == {}
    file.write_text("[1", encoding="utf-8")
    assert Remembered("one GPU", file).read("body") == {}
    assert {path.name for path in file.parent.iterdir()} == {"choices.json", "choices.lock"}
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")
    Remembered("one GPU", blocked / "choices.json").write("body", {"fast": 1.0})


def test_choices_made_with_other_kernels_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "choices.json"
    Remembered("other GPU", file).write("body", {"fast": 1.0})
    Remembered("one GPU", file).write("body", {"fast": 1.0})
    monkeypatch.setattr(trials, "sources_digest", lambda: "of an update")
    assert Remembered("one GPU", file).read("body") == {}
    Remembered("one GPU", file).write("last", {"fast": 1.0})
    assert len(json.loads(file.read_text())) == 2, "what can never be read again is not kept"
    assert trials.sources_digest() != sources_digest()
    monkeypatch.undo()
    assert list(Remembered("other GPU", file).read("body")) == ["fast"]


def test_choices_of_several_programs_at_once_are_all_remembered(tmp_path: Path) -> None:
    file = tmp_path / "choices.json"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: Remembered("one GPU", file).write(f"role {number}", {"fast": 1.0}), range(24)))
    assert all(Remembered("one GPU", file).read(f"role {number}") for number in range(24))


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Let Triton's interpreter seem to be on, with a kernel that does what ``does`` says."""
    found = SimpleNamespace(does=lambda: None, num=0)

    def launch(*_: Any, **__: Any) -> None:
        found.num += 1
        found.does()

    monkeypatch.setattr(gpu_ops, "find_spec", lambda name: name)
    monkeypatch.setattr(gpu_ops, "interpreted", lambda: True)
    monkeypatch.setattr(gpu_ops, "kernels", lambda: SimpleNamespace(bias_activation={(1,): launch}))
    gpu_ops.triton_fault.cache_clear()
    yield found
    gpu_ops.triton_fault.cache_clear()


def raising(cause: Exception) -> Callable[[], None]:
    def does() -> None:
        raise cause

    return does


@pytest.mark.parametrize(
    ("does", "line"),
    [
        (raising(RuntimeError("Failed to find C compiler. Please specify via CC")), "Failed to find C compiler"),
        (
            raising(CalledProcessError(1, ["/usr/bin/gcc", "cuda_utils.c", "-O3"])),
            "launch a kernel: gcc ended with 1",
        ),
        (raising(RuntimeError("Triton Error [CUDA]: device kernel image is invalid")), "kernel image is invalid"),
        (lambda: None, "compute wrongly here: got [-2.0, 0.0, 4.0, 1.0]"),
    ],
)
def test_triton_that_cannot_launch_gives_way_to_torch(launches: SimpleNamespace, does: Any, line: str) -> None:
    launches.does = does
    student, pictures = random_student(SPECS["tiny-x2"]), torch.rand(1, 1, 9, 16)
    out = torch.full((1, 1, 18, 32), torch.nan)
    with torch.no_grad():
        StudentOnDevice(student, device=torch.device("cpu"), dtype=FP32).enlarge(pictures, out)
        torch.testing.assert_close(out, student(pictures), rtol=1e-4, atol=1e-5)
    assert line in gpu_ops.triton_fault(torch.device("cpu"))
    assert launches.num == 1, "it is tried once"


@pytest.mark.parametrize(
    "fault",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("CUDA error: lost"),
    ],
)
def test_a_gpu_that_fails_while_triton_is_tried_is_no_fault_of_triton(
    launches: SimpleNamespace, fault: Exception
) -> None:
    launches.does = raising(fault)
    with pytest.raises(type(fault)):
        gpu_ops.triton_fault(torch.device("cpu"))


def test_a_gpu_that_is_gone_after_triton_was_tried_is_no_fault_of_triton(
    launches: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    launches.does = raising(RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"))
    monkeypatch.setattr(Tensor, "tolist", lambda tensor: raising(RuntimeError("CUDA error: lost"))())
    with pytest.raises(RuntimeError, match="CUDA error: lost"):
        gpu_ops.triton_fault(torch.device("cpu"))


def test_triton_is_not_tried_where_no_gpu_is_used(launches: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_ops, "interpreted", lambda: False)
    assert not gpu_ops.uses_triton(torch.zeros(1))
    monkeypatch.setattr(gpu_ops, "find_spec", lambda name: None)
    assert gpu_ops.triton_fault(torch.device("cpu")) == "Triton is not installed"
    assert launches.num == 0


def test_what_is_loaded_on_a_gpu_says_that_triton_cannot_launch_there(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []

    def fault(device: torch.device) -> str:
        asked.append(device)
        return "Triton cannot launch a kernel: gcc ended with 1"

    def make(engine: Engine, runtime: str, precision: str, device: str) -> Any:
        return SimpleNamespace(is_gpu=True, device=torch.device("cuda:1"), notices=["a plan was built again"])

    monkeypatch.setattr(runtimes, "_make_on_gpu", make)
    monkeypatch.setattr(gpu_ops, "triton_fault", fault)
    for runtime in ("cuda", "tensorrt", "fused"):
        first, line = notices_of(runtimes._make(find_engine("tiny-x2"), runtime, "fp16", None))
        assert first == "a plan was built again"
        assert line.startswith("torch's own operations are used, which are slower: Triton cannot launch a kernel: gcc")
        assert "python3-dev" in line
    assert asked == [torch.device("cuda:1")] * 3


def test_large_results_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "COMPARED", 4)
    monkeypatch.setattr(trials, "median_ms", lambda call: 1.0)
    whole = torch.arange(20, dtype=torch.float16).view(1, 4, 5)
    assert [part.tolist() for part in parts_of(whole)] == [[0, 1, 2, 3], [8, 9, 10, 11], [16, 17, 18, 19]]
    assert all(part.dtype == FP32 and part.untyped_storage().nbytes() == 16 for part in parts_of(whole))
    assert parts_of(whole[:, :2])[0].tolist() == list(range(10))

    def off_at(place: int, value: float) -> Tensor:
        made = whole.clone()
        made.view(-1)[place] = value
        return made

    def fails() -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    ways = {f"off at {place}": (lambda place=place: off_at(place, 30.0)) for place in (0, 9, 19)}
    ways["nan"] = lambda: off_at(19, torch.nan)
    found = fastest({"right": lambda: whole, "same": lambda: whole.clone(), "no": fails, **ways})
    assert set(found) == {"right", "same"}


# Triton's kernels, on a GPU or in its interpreter.


@pytest.mark.kernels
@runs_triton
def test_triton_launches_a_kernel_here() -> None:
    assert gpu_ops.triton_fault(DEVICE) == ""


def half(*shape: int) -> Tensor:
    return torch.randn(*shape, device=DEVICE).to(torch.float16)


@pytest.mark.kernels
@runs_triton
@pytest.mark.parametrize("channels", [16, 48])
@pytest.mark.parametrize("eight_bit", [True, False])
def test_first_layer_kernel_agrees_with_torch(channels: int, eight_bit: bool) -> None:
    torch.manual_seed(0)
    samples = torch.empty(2, 1, 7, 19, dtype=torch.uint8 if eight_bit else FP32, device=DEVICE)
    fill_randomly(samples)
    weight, bias = torch.randn(9, channels, device=DEVICE), torch.randn(channels, device=DEVICE)
    made = gpu_ops.first_layer(samples, weight, bias, dtype=torch.float16)
    real = samples.cpu().float() / 255 if eight_bit else samples.cpu()
    kernel = weight.cpu().T.reshape(channels, 1, 3, 3)
    expected = functional.relu(functional.conv2d(real, kernel, bias.cpu(), padding=1))
    torch.testing.assert_close(made.cpu().float(), expected.permute(0, 2, 3, 1), rtol=2e-3, atol=2e-3)


@pytest.mark.kernels
@runs_triton
@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("eight_bit", [True, False])
def test_finish_kernel_agrees_with_torch(scale: int, eight_bit: bool) -> None:
    torch.manual_seed(0)
    dtype = torch.uint8 if eight_bit else FP32
    samples = torch.empty(2, 1, 5, 13, dtype=dtype, device=DEVICE)
    fill_randomly(samples)
    residual = half(2, 5, 13, scale * scale)
    taps = bilinear_taps(scale).to(DEVICE)
    out = torch.full((2, 1, 5 * scale, 13 * scale), 77, dtype=dtype, device=DEVICE)
    gpu_ops.finish_student(residual, samples, taps, out, scale=scale)
    real = samples.cpu().float() / (255 if eight_bit else 1)
    skip = functional.conv2d(functional.pad(real, (1, 1, 1, 1), mode="replicate"), taps.cpu())
    expected = functional.pixel_shuffle(skip + residual.cpu().permute(0, 3, 1, 2).float(), scale)
    out = out.cpu()
    if eight_bit:
        levels = (expected * 255).round().clamp(0, 255)
        assert (out.float() - levels).abs().max() <= 1
        assert (out.float() == levels).float().mean() > 0.99
    else:
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.kernels
@runs_triton
@pytest.mark.parametrize("slope", [None, 0.0, 0.25])
@pytest.mark.parametrize("summed", [True, False])
def test_activation_kernel_agrees_with_torch(slope: float | None, summed: bool) -> None:
    torch.manual_seed(0)
    features, bias, residual = half(2, 3, 5, 12), torch.randn(12, device=DEVICE), half(2, 3, 5, 12)
    expected = features.float() + bias
    expected = expected if slope is None else functional.leaky_relu(expected, slope)
    expected = expected + residual if summed else expected
    gpu_ops.bias_activation_(features, bias, slope, residual if summed else None)
    torch.testing.assert_close(features.float(), expected, rtol=2e-3, atol=2e-3)


@pytest.mark.kernels
@runs_triton
def test_shuffle_kernel_agrees_with_torch() -> None:
    torch.manual_seed(0)
    features, bias = half(2, 3, 5, 64), torch.randn(64, device=DEVICE)
    made = gpu_ops.bias_prelu_shuffle(features, bias, 0.25)
    expected = functional.leaky_relu(features.float() + bias, 0.25).view(2, 3, 5, 2, 2, 16).permute(0, 1, 3, 2, 4, 5)
    torch.testing.assert_close(made.float(), expected.reshape(2, 6, 10, 16), rtol=2e-3, atol=2e-3)


@pytest.mark.kernels
@runs_triton
@pytest.mark.parametrize(("inputs", "outputs"), [(16, 16), (48, 48), (32, 4), (64, 64)])
@pytest.mark.parametrize("tile", [(4, 8, 1, 4), (8, 16, 3, 4)])
def test_convolution_kernel_agrees_with_torch(inputs: int, outputs: int, tile: tuple[int, int, int, int]) -> None:
    torch.manual_seed(0)
    features = half(2, 9, 21, inputs)
    layer = Layer(
        torch.randn(outputs, inputs, 3, 3) / inputs, torch.randn(outputs), device=DEVICE, dtype=torch.float16, slope=0.2
    )
    residual = half(2, 9, 21, outputs)
    made = layer.run(features, Method("triton", tile=tile), residual)
    weight = layer.weight.cpu().to(torch.float16).float()
    real = functional.conv2d(features.cpu().permute(0, 3, 1, 2).float(), weight, layer.bias.cpu(), padding=1)
    expected = functional.leaky_relu(real, 0.2).permute(0, 2, 3, 1) + residual.cpu()
    torch.testing.assert_close(made.cpu().float(), expected, rtol=5e-3, atol=5e-3)


@pytest.mark.kernels
@runs_triton
def test_convolution_kernel_shuffles_pixels() -> None:
    torch.manual_seed(0)
    features = half(2, 5, 11, 16)
    layer = Layer(
        torch.randn(64, 16, 3, 3) / 16,
        torch.randn(64),
        device=DEVICE,
        dtype=torch.float16,
        slope=0.2,
        shuffle=True,
    )
    made = layer.run(features, Method("triton", tile=(4, 8, 1, 4)))
    weight = layer.weight.cpu().to(torch.float16).float()
    real = functional.conv2d(features.cpu().permute(0, 3, 1, 2).float(), weight, layer.bias.cpu(), padding=1)
    real = functional.leaky_relu(real, 0.2).permute(0, 2, 3, 1).view(2, 5, 11, 2, 2, 16).permute(0, 1, 3, 2, 4, 5)
    torch.testing.assert_close(made.cpu().float(), real.reshape(2, 10, 22, 16), rtol=5e-3, atol=5e-3)


@pytest.mark.kernels
@runs_triton
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (6, 520)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, FP32], ids=str)
@pytest.mark.parametrize("eight_bit", [True, False])
def test_pictures_go_in_and_come_out_as_in_torch(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], dtype: torch.dtype, eight_bit: bool
) -> None:
    torch.manual_seed(0)
    kind = torch.uint8 if eight_bit else FP32
    pictures = torch.empty(2, 3, *size, dtype=kind, device=DEVICE)
    fill_randomly(pictures)
    phases = (torch.randn(2, *size, 12, device=DEVICE) * 0.4 + 0.5).to(dtype)
    ours, theirs = (torch.full((2, 3, 2 * size[0], 2 * size[1]), 77, dtype=kind, device=DEVICE) for _ in range(2))
    features = gpu_ops.interleave(pictures, dtype=dtype)
    gpu_ops.write_phases(phases, ours)
    with monkeypatch.context() as patch:
        patch.setattr(gpu_ops, "uses_triton", lambda tensor: False)
        expected = gpu_ops.interleave(pictures, dtype=dtype)
        gpu_ops.write_phases(phases, theirs)
    assert features.is_contiguous()
    torch.testing.assert_close(features, expected)
    assert torch.equal(ours, theirs)


@pytest.mark.kernels
@runs_triton
def test_convolution_kernel_multiplies_float32_as_it_is() -> None:
    torch.manual_seed(0)
    features, weight = torch.randn(1, 6, 9, 16, device=DEVICE), torch.randn(9, 16, 16, device=DEVICE)
    made = gpu_ops.convolve_3x3(features, weight, torch.zeros(16, device=DEVICE), tile=(4, 8, 1, 4))
    kernel = weight.cpu().permute(2, 1, 0).reshape(16, 16, 3, 3)
    expected = functional.conv2d(features.cpu().permute(0, 3, 1, 2), kernel, padding=1).permute(0, 2, 3, 1)
    torch.testing.assert_close(made.cpu(), expected, rtol=1e-5, atol=1e-4)


def test_grids_of_many_pictures_are_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    room = grids_alone(monkeypatch, gpu_ops)
    num, bias = 129_600, torch.zeros(64)
    samples = torch.zeros(num, 1, 2, 2, dtype=torch.uint8)
    gpu_ops.first_layer(samples, torch.zeros(9, 16), bias[:16], dtype=torch.float16)
    gpu_ops.finish_student(samples, samples, samples, samples, scale=2)
    features = torch.zeros(num, 2, 2, 16, dtype=torch.float16)
    gpu_ops.convolve_3x3(features, torch.zeros(9, 16, 16), bias, tile=(8, 16, 1, 4))
    gpu_ops.bias_activation_(features, bias[:16])
    gpu_ops.bias_prelu_shuffle(features, bias[:16], 0.5)
    gpu_ops.interleave(samples, dtype=torch.float16)
    gpu_ops.write_phases(features, samples)
    assert len(room.grids) == 7
    assert room.fit, room.grids


# Feature maps of more than 2**31 values: memory that nothing touches is never backed, so this takes little.

TALL, WIDE = 8200, 4096
"""With 64 channels 2**31 values and 2 million more."""


@pytest.mark.kernels
@runs_triton
@pytest.mark.parametrize("shuffle", [False, True])
def test_convolution_kernel_counts_beyond_31_bits(monkeypatch: pytest.MonkeyPatch, shuffle: bool) -> None:
    last_program_alone(monkeypatch)
    torch.manual_seed(0)
    features = torch.empty(1, TALL, WIDE, 16, dtype=torch.float16, device=DEVICE)
    features[:, -6:, -20:] = half(1, 6, 20, 16)
    weight, bias = half(9, 16, 64) / 16, torch.randn(64, device=DEVICE)
    made = gpu_ops.convolve_3x3(features, weight, bias, tile=(4, 8, 1, 4), slope=0.2, shuffle=shuffle)
    kernel = weight.float().cpu().permute(2, 1, 0).reshape(64, 16, 3, 3)
    corner = features[:, -6:, -20:].cpu().permute(0, 3, 1, 2).float()
    real = functional.leaky_relu(functional.conv2d(corner, kernel, bias.cpu(), padding=1), 0.2).permute(0, 2, 3, 1)
    if shuffle:  # the last program makes one parity alone
        assert made.shape == (1, 2 * TALL, 2 * WIDE, 16)
        made, real = made[:, 1::2, 1::2], real[..., 48:]
    torch.testing.assert_close(made[:, -4:, -8:].cpu().float(), real[:, -4:, -8:], rtol=5e-3, atol=5e-3)


@pytest.mark.kernels
@runs_triton
def test_other_kernels_count_beyond_31_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    last_program_alone(monkeypatch)
    torch.manual_seed(0)
    bias = torch.randn(64, device=DEVICE)
    samples = torch.empty(1, 1, TALL, WIDE, dtype=torch.uint8, device=DEVICE)
    samples[:, :, -3:, -40:].random_(0, 256)
    weight = torch.randn(9, 64, device=DEVICE)
    features = gpu_ops.first_layer(samples, weight, bias, dtype=torch.float16)
    corner = samples[:, :, -3:, -40:].cpu().float() / 255
    kernel = weight.cpu().T.reshape(64, 1, 3, 3)
    first = functional.relu(functional.conv2d(corner, kernel, bias.cpu(), padding=1)).permute(0, 2, 3, 1)
    torch.testing.assert_close(features[0, -1, -16:].cpu().float(), first[0, -1, -16:], rtol=2e-3, atol=2e-3)
    kept = features[0, -1, -16:].float()
    made = gpu_ops.bias_prelu_shuffle(features, bias, 0.5)
    expected = functional.leaky_relu(kept + bias, 0.5).view(16, 2, 2, 16)
    torch.testing.assert_close(
        made[0, -2:, -32:].view(2, 16, 2, 16).transpose(0, 1).float(), expected, rtol=2e-3, atol=2e-3
    )
    del made
    gpu_ops.bias_activation_(features, bias, 0.5)
    torch.testing.assert_close(
        features[0, -1, -16:].float(), functional.leaky_relu(kept + bias, 0.5), rtol=2e-3, atol=2e-3
    )


@pytest.mark.kernels
@runs_triton
def test_phases_beyond_31_bits_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    last_program_alone(monkeypatch)
    torch.manual_seed(0)
    height, width = 13_400, 13_600  # of which 12 phases are more than 2**31
    phases = torch.empty(1, height, width, 12, dtype=torch.float16, device=DEVICE)
    assert phases.numel() > 1 << 31
    phases[0, -1, -32:] = half(32, 12) + 0.5
    made = torch.empty(1, 3, 2 * height, 2 * width, dtype=torch.uint8, device=DEVICE)
    gpu_ops.write_phases(phases, made)
    expected = (phases[0, -1, -32:].float() * 255).round().clamp(0, 255).view(32, 3, 2, 2).permute(1, 2, 0, 3)
    assert torch.equal(made[0, :, -2:, -64:].float(), expected.reshape(3, 2, 64))


# What only a GPU can show.


@pytest.mark.needs_cuda
@needs_gpu
@pytest.mark.parametrize("name", ["tiny-x2", "fast-x2", "fast-x4"])
@pytest.mark.parametrize(
    ("precision", "kind", "levels"),
    [("fp32", "noise", 1), ("fp32", "smooth", 1), ("fp16", "smooth", 1), ("fp16", "noise", NOISE_LEVELS)],
)
def test_gpu_agrees_with_the_cpu(name: str, precision: str, kind: str, levels: int) -> None:
    engine = find_engine(name)
    pictures = (noise if kind == "noise" else smooth)(72, 96)
    expected = TorchGenerator(engine, threads=1).generate(pictures).astype(int)
    generator = CudaGenerator(engine, precision=precision)
    made = generator.generate(pictures).astype(int)
    assert np.abs(made - expected).max() <= levels, generator.network.chooser.summary()
    assert np.mean(made != expected) < 0.1
    assert np.array_equal(generator.generate(pictures), made)


@pytest.mark.needs_cuda
@needs_gpu
def test_graph_gives_what_eager_gives() -> None:
    engine = find_engine("tiny-x2")
    pictures = np.random.default_rng(4).integers(0, 256, (3, 1, 40, 56), dtype=np.uint8)
    eager = CudaGenerator(engine, graphs=False).generate(pictures)
    generator = CudaGenerator(engine)
    for _ in range(3):
        assert np.abs(generator.generate(pictures).astype(int) - eager).max() <= 1


@pytest.mark.needs_cuda
@needs_gpu
def test_generator_allocates_nothing_after_warm_up() -> None:
    generator = CudaGenerator(find_engine("tiny-x2"))
    pictures = np.random.default_rng(5).integers(0, 256, (1, 1, 64, 64), dtype=np.uint8)
    generator.generate(pictures)
    before = torch.cuda.memory_stats()["allocation.all.allocated"]
    for _ in range(5):
        generator.generate(pictures)
    assert torch.cuda.memory_stats()["allocation.all.allocated"] == before


@pytest.mark.needs_cuda
@needs_gpu
def test_srgan_on_the_gpu_agrees_with_the_cpu() -> None:
    network = random_srgan(4)
    pictures = torch.rand(1, 3, 24, 32)
    with torch.no_grad():
        expected = network(pictures)
        out = torch.full((1, 3, 96, 128), torch.nan, device="cuda")
        SRGANOnDevice(network, device=DEVICE, dtype=torch.float16).enlarge(pictures.cuda(), out)
    assert (out.cpu() - expected).abs().max() < 0.01 * expected.abs().max()


@pytest.mark.needs_cuda
@needs_gpu
def test_generator_times_its_own_launches() -> None:
    generator = CudaGenerator(find_engine("tiny-x2"))
    assert 0 < generator.launch_ms((1, 1, 64, 64), np.dtype(np.uint8)) < 100


@pytest.mark.needs_cuda
@needs_gpu
def test_trials_drop_what_fails_or_disagrees() -> None:
    def fails() -> Tensor:
        raise RuntimeError("cannot run here")

    ones = torch.ones(4, device="cuda")
    found = fastest(
        {"right": lambda: ones * 2, "wrong": lambda: ones * 3, "nan": lambda: ones * torch.nan, "no": fails}
    )
    assert set(found) == {"right"}
