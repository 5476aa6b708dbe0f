"""TensorRT: graphs that agree with torch, contexts that launch them, and plans built for GPUs that are not there."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import sys
import types
from collections.abc import Callable, Iterator
from enum import IntFlag
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import nn
from torch.nn import functional

from streamsr.config import GeneratorSettings
from streamsr.device import bands
from streamsr.device.bands import rows_a_launch
from streamsr.device.upscaler import DeviceUpscaler
from streamsr.engine import MANIFEST, Engine, bicubic_engine, list_engines, read_engine
from streamsr.errors import EngineError, GpuFault, GpuMemoryFault
from streamsr.frame import Colour, Frame, PlaneLayout
from streamsr.launch import sizes_of
from streamsr.models.srgan import SRGANGenerator, fold_batch_norm
from streamsr.models.student import Student, StudentSpec, add_skip
from streamsr.plans import Plan, PlanCache
from streamsr.quality.fidelity import psnr_db
from streamsr.runtimes import load_generator, nvidia, tensorrt_library
from streamsr.runtimes.gpu_generator import GpuGenerator
from streamsr.runtimes.nvidia import Gpu
from streamsr.runtimes.tensorrt import TensorRTGenerator
from streamsr.runtimes.tensorrt_library import Library, find_library, probe
from streamsr.runtimes.tensorrt_network import ALIGNMENT
from streamsr.runtimes.tensorrt_plans import (
    FORMS,
    FRAME_SIZES,
    MOST_ELEMENTS,
    ShapeRange,
    check_capability,
    elements_per_pixel,
    frame_range,
    most_rows,
    obtain_plan,
    patch_range,
    plan_key,
)
from streamsr.runtimes.torch_cpu import load_network

graphs = pytest.importorskip("streamsr.runtimes.tensorrt_graph", reason="needs onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from streamsr.runtimes.onnx_graph import float_student, quantised_student  # noqa: E402

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

FP16_LOSS_DB = 0.01
FP16_LEVELS = 1
"""What FP16 may cost: hundredths of a decibel on real pictures, one grey level on any."""

UNROUNDED_LEVELS = {"float16": 1.0, "float32": 0.5}
"""The same before rounding, on noise, which no picture is: FP16 samples near white have steps of an eighth."""

CAPABILITIES = ("8.0", "8.6", "8.9", "12.0")
"""Ampere's data centre and desktop, Ada, Blackwell."""

RTX_4090 = Gpu("NVIDIA GeForce RTX 4090", "8.9", "580.20")


def run_onnx(graph: bytes, pictures: NDArray[Any], *, optimised: bool = True) -> NDArray[Any]:
    """Return what ONNX Runtime makes; ``optimised`` rewrites the graph, which FP8 layers in a row do not bear."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    made: NDArray[Any] = session.run(None, {"lr": pictures})[0]
    return made


def noisy(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return slopes with noise, black and white included."""
    random = np.random.default_rng(7)
    y, x = np.mgrid[0 : shape[2], 0 : shape[3]]
    waves = 125 + 90 * np.sin(x / 9 + y / 31) + 40 * np.cos(y / 7 - x / 23) + random.normal(0, 8, shape)
    return np.clip(np.rint(waves), 0, 255).astype(np.uint8)


def write_random(folder: Path, network: nn.Module, **manifest: Any) -> Engine:
    """Write an engine of any network, and read it back."""
    folder.mkdir(parents=True)
    content = save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})
    (folder / "model.safetensors").write_bytes(content)
    stated = {
        "name": folder.name,
        "kind": "fidelity",
        "files": {"model.safetensors": hashlib.sha256(content).hexdigest()},
        "precisions": {"fp32": "model.safetensors"},
        **manifest,
    }
    (folder / MANIFEST).write_text(json.dumps(stated))
    return read_engine(folder)


def random_srgan(folder: Path, scale: int, *, num_blocks: int = 2) -> Engine:
    """Write an SRGAN whose every part does something: normalisation, slopes, biases."""
    torch.manual_seed(scale)
    network = SRGANGenerator(scale=scale, num_blocks=num_blocks)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            layer.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
            layer.weight.data.uniform_(0.5, 1.5)
            layer.bias.data.normal_(0, 0.1)
        if isinstance(layer, nn.PReLU):
            layer.weight.data.uniform_(0.05, 0.4)
    with torch.no_grad():
        network.tail.weight *= 4
        network.tail.bias += 0.5  # type: ignore[operator]
    return write_random(
        folder,
        network,
        architecture="srgan",
        scale=scale,
        colour="rgb",
        channels=64,
        depth=num_blocks,
        radius_px=network.receptive_radius_px,
        halo_px=10,
    )


def random_student(folder: Path, spec: StudentSpec) -> Engine:
    torch.manual_seed(spec.scale)
    student = Student(spec)
    with torch.no_grad():
        for layer in student.layers:
            weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
            weight.copy_(torch.randn_like(weight) * (2 / weight[0].numel()) ** 0.5)
            bias.copy_(torch.randn_like(bias) * 0.05)
        weight *= 0.4
    radius = spec.receptive_radius_px
    return write_random(
        folder,
        student,
        architecture="student",
        scale=spec.scale,
        colour="luma",
        channels=spec.channels,
        depth=spec.depth,
        radius_px=radius,
        halo_px=radius,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="module")
def mini(folder: Path) -> Engine:
    return random_student(folder / "mini-x2", StudentSpec(16, 2, 2))


@pytest.fixture(scope="module")
def srgans(folder: Path) -> dict[int, Engine]:
    return {scale: random_srgan(folder / f"srgan-x{scale}", scale) for scale in (2, 4)}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def networks() -> list[Engine]:
    return [engine for engine in list_engines() if engine.architecture != "bicubic"]


def expected_of(engine: Engine, pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return what torch computes in float32, in grey levels, not rounded."""
    with torch.inference_mode():
        made = load_network(engine)(torch.from_numpy(pictures).float() / 255)
    levels: NDArray[np.float64] = made.numpy().astype(np.float64) * 255
    return levels


def assert_agrees(graph: bytes, engine: Engine, samples: str) -> None:
    channels = 1 if engine.colour == "luma" else 3
    pictures = noisy((2, channels, 21, 34))
    expected = expected_of(engine, pictures)
    if samples == "uint8":
        made = run_onnx(graph, pictures)
        assert made.dtype == np.uint8
        assert np.abs(made - np.clip(np.rint(expected), 0, 255)).max() <= FP16_LEVELS
        return
    made = run_onnx(graph, (pictures / 255).astype(samples))
    assert made.dtype == samples
    assert np.abs(made.astype(np.float64) * 255 - expected).max() <= UNROUNDED_LEVELS[samples]


@pytest.mark.parametrize("samples", ["uint8", "float16", "float32"])
@pytest.mark.parametrize("engine", networks(), ids=lambda engine: engine.name)
def test_shipped_networks_in_fp16_agree_with_torch(engine: Engine, samples: str) -> None:
    assert_agrees(graphs.tensorrt_graph(engine, precision="fp16", samples=samples), engine, samples)


@pytest.mark.parametrize("samples", ["uint8", "float16", "float32"])
@pytest.mark.parametrize("scale", [2, 4])
def test_srgans_in_fp16_agree_with_torch(srgans: dict[int, Engine], scale: int, samples: str) -> None:
    engine = srgans[scale]
    assert_agrees(graphs.tensorrt_graph(engine, precision="fp16", samples=samples), engine, samples)


@pytest.mark.parametrize("samples", ["uint8", "float32"])
@pytest.mark.parametrize("architecture", ["student", "srgan"])
def test_the_agreement_would_notice_a_layer_that_is_off_by_a_tenth(
    mini: Engine, srgans: dict[int, Engine], samples: str, architecture: str
) -> None:
    engine = mini if architecture == "student" else srgans[2]
    weights = dict(engine.weights())
    name = "layers.1.weight" if architecture == "student" else "blocks.0.body.0.weight"
    weights[name] = weights[name] * np.float32(1.1)
    if architecture == "student":
        graph = graphs.half_student(weights, scale=2, samples=samples)
    else:
        graph = graphs.half_srgan(weights, scale=2, num_blocks=2, samples=samples)
    with pytest.raises(AssertionError):
        assert_agrees(graph, engine, samples)


def test_ten_bit_samples_keep_their_lower_bits(folder: Path) -> None:
    """A student of zeros is its skip alone: flat pictures must come out as they went in, to a tenth of a level."""
    engine = random_student(folder / "flat-x2", StudentSpec(16, 1, 2))
    weights = {name: np.zeros_like(values) for name, values in engine.weights().items()}
    levels = np.linspace(0, 1, 1024, dtype=np.float32).reshape(-1, 1, 1, 1)
    made = run_onnx(graphs.half_student(weights, scale=2, samples="float32"), np.tile(levels, (1, 1, 3, 3)))
    assert np.abs(made - levels).max() * 1023 <= 0.1


@pytest.mark.parametrize("scale", [2, 4])
def test_eight_bit_samples_clamp_instead_of_wrapping(folder: Path, scale: int) -> None:
    engine = random_student(folder / f"strong-x{scale}", StudentSpec(16, 1, scale))
    weights = {name: values * (30 if "layers.2" in name else 1) for name, values in engine.weights().items()}
    pictures = noisy((1, 1, 30, 30))
    exact = run_onnx(graphs.half_student(weights, scale=scale, samples="float32"), (pictures / 255).astype(np.float32))
    made = run_onnx(graphs.half_student(weights, scale=scale, samples="uint8"), pictures)
    assert (made[exact * 255 < -20] == 0).all()
    assert (made[exact * 255 > 275] == 255).all()
    assert (exact * 255 < -20).any()
    assert (exact * 255 > 275).any()


@pytest.mark.parametrize("side", [3, 5, 9])
def test_a_convolution_behind_a_pixel_shuffle_equals_one_in_front_of_it(side: int) -> None:
    torch.manual_seed(side)
    weight, features = torch.randn(3, 4, side, side), torch.randn(2, 16, 7, 5)
    expected = functional.conv2d(functional.pixel_shuffle(features, 2), weight, padding=side // 2)
    unshuffled = torch.from_numpy(graphs.unshuffled(weight.numpy()))
    made = functional.pixel_shuffle(functional.conv2d(features, unshuffled, padding=unshuffled.shape[-1] // 2), 2)
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-4)


def test_batch_normalisation_is_folded_as_the_models_room_folds_it(srgans: dict[int, Engine]) -> None:
    folded = fold_batch_norm(SRGANGenerator(scale=2, num_blocks=2))
    network = load_network(srgans[2])
    assert type(network) is type(folded)
    weights = srgans[2].weights()
    weight, bias = graphs.folded(weights, "blocks.1.body.3", "blocks.1.body.4")
    convolution = network.blocks[1].body[3]  # type: ignore[index,union-attr]
    np.testing.assert_allclose(weight, convolution.weight.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(bias, convolution.bias.numpy(), rtol=1e-5, atol=1e-6)


def test_slopes_of_a_channel_each_are_refused(srgans: dict[int, Engine]) -> None:
    weights = {**srgans[2].weights(), "head.1.weight": np.full(64, 0.2, np.float32)}
    with pytest.raises(EngineError, match="one slope, got 64"):
        graphs.half_srgan(weights, scale=2, num_blocks=2, samples="uint8")


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="needs the validation pictures")
@pytest.mark.parametrize("engine", networks(), ids=lambda engine: engine.name)
def test_fp16_loses_next_to_nothing_on_real_pictures(engine: Engine) -> None:
    if engine.architecture != "student":
        pytest.skip("minutes on a CPU; agreement on noise is tested above")
    pytest.importorskip("PIL")
    from streamsr.training.data import load_pairs

    exact = float_student(engine.weights(), scale=engine.scale, eight_bit=True)
    half = graphs.tensorrt_graph(engine, precision="fp16", samples="uint8")
    losses: dict[str, list[float]] = {}
    for pair in load_pairs(DATA, "val", engine.scale, most_per_set=6):
        low = np.ascontiguousarray(pair.lr[None, None])
        first, second = run_onnx(exact, low)[0, 0], run_onnx(half, low)[0, 0]
        assert np.abs(first.astype(int) - second).max() <= FP16_LEVELS
        losses.setdefault(pair.dataset, []).append(psnr_db(first, pair.hr) - psnr_db(second, pair.hr))
    assert losses
    assert max(float(np.mean(values)) for values in losses.values()) <= FP16_LOSS_DB


def quantised(engine: Engine) -> bytes:
    """Return an engine's INT8 form with scales that are wide enough for anything."""
    weights = engine.weights()
    steps = []
    for index in range(engine.depth + 2):
        largest = np.abs(weights[f"layers.{index}.weight"]).max(axis=(1, 2, 3))
        steps.append((largest / 127).astype(np.float32))
    return quantised_student(
        weights, scale=engine.scale, activation_clips=[4.0] * (engine.depth + 1), weight_scales=steps
    )


def test_the_symmetric_form_computes_the_same_network(mini: Engine) -> None:
    pictures = noisy((1, 1, 40, 50))
    expected = np.clip(np.rint(expected_of(mini, pictures)), 0, 255)
    psnr = {}
    for layers in ((), (2,), (1, 2, 3)):
        made = run_onnx(graphs.symmetric_student(quantised(mini), scale=2, layers=layers), pictures)
        psnr[len(layers)] = psnr_db(made[0, 0], expected[0, 0].astype(np.uint8))
    assert psnr[3] > 30.0
    assert psnr[0] > psnr[1] > psnr[3]


def test_symmetric_activations_are_signed_and_biases_stay_real(mini: Engine) -> None:
    import onnx

    model = onnx.load_from_string(graphs.symmetric_student(quantised(mini), scale=2, layers=(1, 2, 3)))
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    changes = [node for node in model.graph.node if node.op_type.endswith("uantizeLinear")]
    assert len(changes) == 9  # activations there and back, weights back, of three layers
    for node in changes:
        assert values[node.input[2]].dtype == np.int8
        assert not values[node.input[2]].any()
    biases = {node.input[2] for node in model.graph.node if node.op_type == "Conv" and len(node.input) > 2}
    assert {values[name].dtype.kind for name in biases} == {"f"}


def float8_of(engine: Engine, layers: tuple[int, ...], *, peak: float = 4.0) -> dict[int, Any]:
    """Return scales of FP8 layers that are wide enough for anything."""
    steps = {index: np.abs(engine.weights()[f"layers.{index}.weight"]).max(axis=(1, 2, 3)) / 448 for index in layers}
    return {index: graphs.Float8Layer(peak * 1.3**index / 448, weight_steps) for index, weight_steps in steps.items()}


def in_float8(engine: Engine, pictures: NDArray[np.uint8], layers: dict[int, Any]) -> NDArray[np.float64]:
    """Return what torch computes with its own FP8 rounding in some layers, in grey levels, not rounded."""

    def eight_bits(values: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        held = step.half().float()
        return (values / held).clamp(-448, 448).to(torch.float8_e4m3fn).float() * held

    network: Any = load_network(engine)
    features = samples = torch.from_numpy(pictures).float() / 255
    with torch.inference_mode():
        for index, (weight, bias) in enumerate(network.weights()):
            last = index == engine.depth + 1
            if index in layers:
                features = eight_bits(features, torch.tensor(layers[index].input_step))
                gain = 255.0 if last else 1.0
                steps = torch.from_numpy(layers[index].weight_steps * gain).reshape(-1, 1, 1, 1)
                weight = eight_bits(weight * gain, steps) / gain
            else:
                weight = weight.half().float()
            features = functional.conv2d(features, weight, bias, padding=1)
            features = features if last else functional.relu(features).half().float()
        made = add_skip(samples, features, network.skip_taps)
    levels: NDArray[np.float64] = made.numpy().astype(np.float64) * 255
    return levels


@pytest.mark.parametrize("layers", [(1,), (2,), (3,), (1, 2, 3)])
def test_the_fp8_form_computes_what_torch_rounds_to(mini: Engine, layers: tuple[int, ...]) -> None:
    """ONNX Runtime's FP8 is torch's; a value on the edge between two falls to either side, and that is passed on."""
    pictures, chosen = noisy((1, 1, 40, 50)), float8_of(mini, layers)
    expected = np.clip(np.rint(in_float8(mini, pictures, chosen)), 0, 255)
    graph = graphs.half_student(mini.weights(), scale=2, samples="uint8", float8=chosen)
    made = run_onnx(graph, pictures, optimised=False)
    off = np.abs(made - expected)
    exact = np.clip(np.rint(expected_of(mini, pictures)), 0, 255)
    assert np.abs(expected - exact).mean() > 5 * off.mean(), "rounding is seen, and it is the same"
    assert np.mean(off > 2) < (0.001 if len(layers) == 1 else 0.03)


def test_layers_in_fp8_read_and_hold_e4m3(mini: Engine) -> None:
    import onnx

    chosen = float8_of(mini, (1, 3))
    model = onnx.load_from_string(graphs.half_student(mini.weights(), scale=2, samples="uint8", float8=chosen))
    assert model.opset_import[0].version >= 19
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    float8, half = onnx.TensorProto.FLOAT8E4M3FN, onnx.TensorProto.FLOAT16
    changes = [node for node in model.graph.node if node.op_type.endswith("uantizeLinear")]
    assert len(changes) == 6  # activations there and back, weights back, of two layers
    for node in changes:
        assert (kinds[node.input[1]], kinds[node.input[2]]) == (half, float8)
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    assert shapes["conv1_weight_levels"] == [16, 16, 3, 3]
    assert shapes["conv1_weight_step"] == [16]
    assert "conv2_weight_levels" not in shapes


@pytest.mark.parametrize(
    ("precision", "samples"), [("bf16", "uint8"), ("int8", "uint8"), ("fp8", "uint8"), ("fp32", "float32")]
)
def test_precisions_that_are_not_offered_are_refused(mini: Engine, precision: str, samples: str) -> None:
    with pytest.raises(EngineError, match="use --precision fp16"):
        graphs.tensorrt_graph(mini, precision=precision, samples=samples)


# Shapes and keys


@pytest.mark.parametrize("engine", networks(), ids=lambda engine: engine.name)
def test_ranges_hold_every_launch_there_is(engine: Engine) -> None:
    channels = 1 if engine.colour == "luma" else 3
    patches = patch_range(engine)
    for core in (32, 64, 128):
        window = core + 2 * engine.halo_px
        num = min(max(sizes_of(window * window)), patches.most[0])  # larger batches go in parts
        assert patches.holds((num, channels, window, window))
    assert patches.most[0] >= (64 if engine.architecture == "student" else 16)
    assert patches.holds(patches.usual)
    assert not patches.holds((1, channels, 1080, 1920))
    for width, height in ((640, 480), (720, 576), (1920, 1080), (1080, 1350), (5000, 400)):
        assert frame_range(engine, width, height).holds((1, channels, height, width))
    assert frame_range(engine, 1920, 1080).usual == (1, channels, 1080, 1920)


def test_no_tensor_of_a_batch_of_patches_is_too_large(srgans: dict[int, Engine], mini: Engine) -> None:
    for engine in (*srgans.values(), mini):
        num, _, height, width = patch_range(engine).most
        assert num * height * width * elements_per_pixel(engine) <= MOST_ELEMENTS
        assert num >= 64


@pytest.mark.parametrize("size", [(1920, 1090), (1900, 2000), (2560, 1440), (3000, 1320), (3840, 2160), (7680, 4320)])
def test_bands_of_large_frames_have_plans_whose_tensors_can_be_counted(
    srgans: dict[int, Engine], mini: Engine, size: tuple[int, int]
) -> None:
    for engine in (*srgans.values(), mini):
        channels = 1 if engine.colour == "luma" else 3
        launched: Any = types.SimpleNamespace(
            engine=engine, channels=channels, scale=engine.scale, radius_px=engine.radius_px
        )
        rows = rows_a_launch(launched, *size)
        shapes = frame_range(engine, size[0], rows)
        assert shapes.holds((1, channels, rows, size[0]))
        for asked in (shapes, frame_range(engine, *size)):
            assert asked.most[2] * asked.most[3] * elements_per_pixel(engine) <= MOST_ELEMENTS
        assert most_rows(engine, size[0]) == bands.most_rows(launched, size[0])


def test_frames_share_few_plans(mini: Engine) -> None:
    sizes = [(320, 240), (640, 480), (720, 576), (1024, 768), (1280, 1024), (1920, 1080)]
    assert len({frame_range(mini, *size) for size in sizes}) <= len(FRAME_SIZES)


class Severity:
    ERROR, INTERNAL_ERROR, WARNING = "error", "internal", "warning"


class FakeLogger:
    Severity = Severity


class FakeContext:
    """Runs the graph between two addresses, and notes what it was told."""

    def __init__(self, module: Any, session: Any) -> None:
        self.module, self.session, self.launches = module, session, 0
        self.shape: tuple[int, ...] = ()
        self.told: list[str] = []
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "lr"
        self.shape = tuple(shape)
        return True

    def update_device_memory_size_for_shapes(self) -> int:
        assert self.shape
        if self.shape[0] > self.module.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 4096

    def set_device_memory(self, address: int, num_bytes: int) -> None:
        assert address
        assert num_bytes == 4096

    def set_tensor_address(self, name: str, address: int) -> None:
        assert address % ALIGNMENT == 0
        self.told.append(name)
        self.addresses[name] = address

    def execute_async_v3(self, handle: int) -> bool:
        self.launches += 1
        kind = np.dtype({"tensor(uint8)": np.uint8, "tensor(float)": np.float32}[self.session.get_inputs()[0].type])
        num_bytes = int(np.prod(self.shape)) * kind.itemsize
        memory = (ctypes.c_char * num_bytes).from_address(self.addresses["lr"])
        made = self.session.run(None, {"lr": np.frombuffer(memory, kind).reshape(self.shape)})[0]
        ctypes.memmove(self.addresses["sr"], made.ctypes.data, made.nbytes)
        return not self.module.failing


class FakeCudaEngine:
    """A plan that is loaded: an ONNX graph."""

    num_io_tensors = 2

    def __init__(self, module: Any, graph: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.module = module
        self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def get_tensor_name(self, place: int) -> str:
        return ("sr", "lr")[place]

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name == "lr" else "out"

    def get_tensor_dtype(self, name: str) -> Any:
        kind = {"tensor(uint8)": "UINT8", "tensor(float)": "FLOAT"}[self.session.get_inputs()[0].type]
        return types.SimpleNamespace(name=kind)

    def create_execution_context(self, strategy: str) -> FakeContext:
        assert strategy == "user"
        self.module.contexts.append(FakeContext(self.module, self.session))
        context: FakeContext = self.module.contexts[-1]
        return context


class FakeRuntime:
    """Loads plans; one that begins with ``bad`` is refused."""

    module: Any

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def deserialize_cuda_engine(self, plan: bytes) -> FakeCudaEngine | None:
        if plan.startswith(b"bad"):
            self.logger.log(Severity.ERROR, self.module.saying)
            return None
        return FakeCudaEngine(self.module, plan)


def fake_module(**extra: Any) -> Any:
    """Return as much of TensorRT as runs ONNX graphs, which stand for plans, on the CPU."""
    module = types.ModuleType("fake")
    parts = {
        "__version__": "11.0",
        "contexts": [],
        "failing": False,
        "saying": "Serialization assertion\nfailed",
        "room": 1 << 20,
        "ILogger": FakeLogger,
        "Runtime": type("Runtime", (FakeRuntime,), {"module": module}),
        "TensorIOMode": types.SimpleNamespace(INPUT="in", OUTPUT="out"),
        "ExecutionContextAllocationStrategy": types.SimpleNamespace(USER_MANAGED="user"),
    }
    for name, value in {**parts, **extra}.items():
        setattr(module, name, value)
    return module


class Fake:
    """A generator on a fake library, its plans written as ONNX."""

    def __init__(self, engine: Engine, *, samples: str | None = None, precision: str = "fp16") -> None:
        self.module = fake_module()
        self.asked: list[tuple[str, str]] = []
        self.held: list[str] = []
        self.engine, self.samples, self.precision = engine, samples, precision
        library = Library("tensorrt", self.module)
        self.generator = TensorRTGenerator(engine, precision=precision, device="cpu", library=library, plans=self)

    def obtain(self, shapes: ShapeRange, samples: str) -> Plan:
        self.asked.append((shapes.name, samples))
        graph = graphs.tensorrt_graph(self.engine, precision=self.precision, samples=self.samples or samples)
        library = Library("tensorrt", self.module)
        key = plan_key(
            self.engine, precision=self.precision, samples=samples, shapes=shapes, library=library, gpu=RTX_4090
        )
        return Plan(key, graph, built=False)

    def holds(self, shapes: ShapeRange, samples: str) -> bool:
        return shapes.name in self.held

    @property
    def told(self) -> list[list[str]]:
        return [context.told for context in self.module.contexts]


def test_a_generator_runs_what_torch_runs(mini: Engine, srgans: dict[int, Engine]) -> None:
    for engine in (mini, srgans[4]):
        generator = Fake(engine).generator
        shape = (2, generator.channels, 20, 24)
        pictures = noisy(shape)
        expected = expected_of(engine, pictures)
        made = generator.generate(pictures)
        assert made.shape == (2, generator.channels, 20 * engine.scale, 24 * engine.scale)
        assert np.abs(made - np.clip(np.rint(expected), 0, 255)).max() <= FP16_LEVELS
        real = generator.generate((pictures / 255).astype(np.float32))
        assert np.abs(real.astype(np.float64) * 255 - expected).max() <= UNROUNDED_LEVELS["float32"]
        out = np.empty_like(made)
        assert generator.generate(pictures, out) is out


def test_it_says_what_it_is(mini: Engine) -> None:
    generator = Fake(mini).generator
    assert (generator.runtime, generator.precision, generator.channels) == ("tensorrt", "fp16", 1)
    assert "TensorRT 11.0 fp16" in generator.description


def test_addresses_are_set_once_for_a_shape(mini: Engine) -> None:
    fake = Fake(mini)
    first, second = noisy((1, 1, 20, 24)), noisy((3, 1, 16, 16))
    kept = fake.generator.generate(first).copy()
    for _ in range(3):
        fake.generator.generate(second)
        assert (fake.generator.generate(first) == kept).all()
    assert fake.told == [["lr", "sr"], ["lr", "sr"]]
    assert len(fake.module.contexts) == 2


def test_plans_are_asked_for_once_and_serve_what_fits(mini: Engine) -> None:
    fake = Fake(mini)
    for shape in ((16, 1, 40, 40), (1, 1, 480, 640), (64, 1, 40, 40), (1, 1, 300, 500), (1, 1, 40, 40), (2, 1, 72, 72)):
        fake.generator.generate(np.zeros(shape, np.uint8))
    assert fake.asked == [("patches", "uint8"), ("frame 640x480", "uint8")]
    fake.generator.generate(np.zeros((1, 1, 8, 8), np.float32))
    assert fake.asked[2:] == [("frame 640x480", "float32")]


def frame_of(shade: int, *, bit_depth: int = 8) -> Frame:
    """Return a frame with a picture of its own in a corner."""
    layout = PlaneLayout(None, bit_depth)
    plane = noisy((1, 1, 320, 400))[0, 0].astype(layout.dtype)
    plane[:8, :8] = shade
    return Frame((plane,), layout, Colour(1, False, 1, 1), pts=shade, time_base=Fraction(1, 25), sequence=shade)


@pytest.mark.parametrize("bit_depth", [8, 10])
def test_what_is_compiled_ahead_is_all_that_frames_need(mini: Engine, bit_depth: int) -> None:
    fake, frames = Fake(mini), [frame_of(shade, bit_depth=bit_depth) for shade in range(4)]
    upscaler = DeviceUpscaler(fake.generator, patch_px=64)
    upscaler.prepare(400, 320, frames[0].layout)
    samples = "uint8" if bit_depth == 8 else "float32"
    assert fake.asked == [("frame 640x480", samples)], "routing may never pay, so no frame waits for its plan"
    upscaler.upscale(frames[0])
    assert upscaler._router is not None
    fake.generator.compile_for((2, 1, 70, 70), torch.uint8 if bit_depth == 8 else torch.float32)
    upscaler._router.worth._enter("route")
    for frame in frames[1:]:
        upscaler.upscale(frame)
    assert upscaler.count.launched < upscaler.count.total
    assert fake.asked[1:] == [("patches", samples)]
    patches = Fake(mini)
    DeviceUpscaler(patches.generator, launch="patch").prepare(400, 320, frames[0].layout)
    assert patches.asked == [("patches", samples)]
    whole = Fake(mini)
    DeviceUpscaler(whole.generator, launch="frame").prepare(400, 320, frames[0].layout)
    assert whole.asked == [("frame 640x480", samples)]


def test_without_a_plan_for_patches_routing_is_given_up_and_said(mini: Engine) -> None:
    fake, frames = Fake(mini), [frame_of(shade) for shade in range(3)]
    upscaler = DeviceUpscaler(fake.generator, patch_px=64)
    upscaler.upscale(frames[0])
    assert upscaler._router is not None
    upscaler._router.worth._enter("route")
    for frame in frames[1:]:
        upscaler.upscale(frame)
    assert upscaler.count.launched == upscaler.count.total
    assert fake.asked == [("frame 640x480", "uint8")]
    (notice,) = fake.generator.notices
    assert "whole frames are launched from here on: mini-x2: expected a plan for patches to be there" in notice


def test_a_launch_can_be_had_where_its_plan_is_loaded_or_in_the_cache(mini: Engine) -> None:
    fake = Fake(mini)
    patches, frame, larger = (16, 1, 40, 40), (1, 1, 400, 600), (1, 1, 700, 1000)
    ready = fake.generator.is_ready_for
    assert not any(ready(shape, torch.uint8) for shape in (patches, frame, larger))
    fake.held = ["patches"]
    assert ready(patches, torch.uint8)
    assert fake.asked == [], "nothing is loaded for the question"
    fake.held = []
    fake.generator.generate(np.zeros(frame, np.uint8))
    assert ready(frame, torch.uint8)
    assert ready((1, 1, 40, 40), torch.uint8)
    assert not any(ready(shape, torch.uint8) for shape in (patches, larger))
    assert not ready(frame, torch.float32)


def test_plans_in_the_cache_are_there_where_they_are_whole(
    mini: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.test_plans import builder, flip_byte

    monkeypatch.setenv("STREAMSR_CACHE", str(tmp_path))
    monkeypatch.setattr("streamsr.runtimes.tensorrt.gpu_of_torch", lambda device: RTX_4090)
    library, shape = Library("tensorrt", fake_module()), (16, 1, 40, 40)
    generator = TensorRTGenerator(mini, device="cpu", library=library)
    assert not generator.is_ready_for(shape, torch.uint8)
    options: dict[str, Any] = {"precision": "fp16", "samples": "uint8", "library": library, "gpu": RTX_4090}
    PlanCache().obtain(plan_key(mini, shapes=patch_range(mini), **options), builder())
    assert generator.is_ready_for(shape, torch.uint8)
    assert not generator.is_ready_for(shape, torch.float32)
    (plan,) = (tmp_path / "plans").glob("*.plan")
    flip_byte(plan)
    assert not generator.is_ready_for(shape, torch.uint8)


def test_a_plan_for_frames_does_not_serve_patches_one_by_one(mini: Engine) -> None:
    fake = Fake(mini)
    fake.generator.generate(np.zeros((1, 1, 480, 640), np.uint8))
    fake.generator.generate(np.zeros((16, 1, 40, 40), np.uint8))
    assert fake.asked == [("frame 640x480", "uint8"), ("patches", "uint8")]
    assert fake.module.contexts[-1].shape == (16, 1, 40, 40)


def test_batches_larger_than_a_plan_are_launched_in_parts(mini: Engine) -> None:
    fake = Fake(mini)
    frames = np.concatenate([noisy((1, 1, 160, 200)) // (place + 1) for place in range(3)])
    together = fake.generator.generate(frames).copy()
    for place in range(3):
        assert (together[place] == Fake(mini).generator.generate(frames[place : place + 1])[0]).all()
    assert {context.shape for context in fake.module.contexts} == {(1, 1, 160, 200)}


def test_pictures_that_lie_askew_are_copied_first(mini: Engine) -> None:
    fake = Fake(mini)
    pictures = torch.from_numpy(noisy((1, 1, 21, 33)))
    store, out_store = torch.zeros(21 * 33 + 1, dtype=torch.uint8), torch.zeros(4 * 21 * 33 + 3, dtype=torch.uint8)
    askew, out = store[1:].view(1, 1, 21, 33), out_store[3:].view(1, 1, 42, 66)
    askew.copy_(pictures)
    fake.generator.enlarge(askew, out)
    assert (out.numpy() == fake.generator.generate(pictures.numpy())).all()
    assert not out_store[:3].any()


def test_a_plan_with_other_samples_is_served_through_a_change(mini: Engine) -> None:
    pictures = noisy((2, 1, 20, 24))
    expected = np.clip(np.rint(expected_of(mini, pictures)), 0, 255)
    assert np.abs(Fake(mini, samples="float32").generator.generate(pictures) - expected).max() <= FP16_LEVELS


def test_a_captured_launch_keeps_its_contexts(mini: Engine) -> None:
    fake = Fake(mini)
    ends = [(torch.zeros(1, 1, 8, w).byte(), torch.zeros(1, 1, 16, 2 * w).byte()) for w in range(8, 28)]

    def launch() -> None:
        for pictures, out in ends:
            fake.generator.enlarge(pictures, out)

    call = fake.generator.capture(launch)
    fake.generator.compiled_network.forget()
    kept = [context.context for context in call.contexts.values()]  # type: ignore[attr-defined]
    assert kept == fake.module.contexts
    assert [context.launches for context in kept] == [2] * len(ends)


@pytest.mark.parametrize("capturable", [False, True])
def test_a_plan_that_cannot_be_captured_is_launched_as_it_is(
    mini: Engine, capturable: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake, asked, graph = Fake(mini), [], []
    monkeypatch.setattr(GpuGenerator, "capture", lambda generator, launch: graph.append(launch) or launch)

    def is_stream_capturable(context: FakeContext, handle: int) -> bool:
        asked.append(context.shape)
        return capturable or context.shape[-1] != 12

    monkeypatch.setattr(FakeContext, "is_stream_capturable", is_stream_capturable, raising=False)
    fake.generator.graphs = True
    ends = [(torch.from_numpy(noisy((1, 1, 8, w))), torch.zeros(1, 1, 16, 2 * w).byte()) for w in (12, 16)]

    def launch() -> None:
        for pictures, out in ends:
            fake.generator.enlarge(pictures, out)

    calls = [fake.generator.capture(launch) for _ in range(2)]
    assert asked[:1] == [(1, 1, 8, 12)]
    assert len(graph) == (2 if capturable else 0)
    assert len(fake.generator.notices) == (0 if capturable else 1)
    assert ("one by one" in caplog.text) != capturable
    expected = [out.clone() for _, out in ends]
    fake.generator.compiled_network.forget()
    for _, out in ends:
        out.zero_()
    calls[0]()
    assert all((out == made).all() for (_, out), made in zip(ends, expected, strict=True))
    if not capturable:
        assert len(fake.module.contexts) == 2, "what a launch needs is kept for it"


def test_shapes_that_nobody_holds_are_forgotten(mini: Engine) -> None:
    fake = Fake(mini)
    for width in range(8, 40):
        pictures, out = torch.zeros(1, 1, 8, width, dtype=torch.uint8), torch.zeros(1, 1, 16, 2 * width).byte()
        fake.generator.enlarge(pictures, out)
    assert len(fake.generator.compiled_network._contexts) == 12


def test_a_launch_that_fails_is_an_error_in_one_line(mini: Engine) -> None:
    fake = Fake(mini)
    fake.module.failing = True
    with pytest.raises(EngineError, match="expected a launch") as caught:
        fake.generator.generate(noisy((1, 1, 16, 16)))
    assert "\n" not in str(caught.value)


def test_a_batch_that_finds_no_memory_is_run_as_two(mini: Engine) -> None:
    fake = Fake(mini)
    pictures = noisy((5, 1, 12, 12))
    expected = fake.generator.generate(pictures).copy()
    other = Fake(mini)
    other.module.room = 3
    assert (other.generator.generate(pictures) == expected).all()
    assert {context.shape[0] for context in other.module.contexts if context.launches} == {3, 2}
    other.module.room = 0
    with pytest.raises(EngineError, match="GPU memory"):
        other.generator.generate(noisy((1, 1, 9, 9)))


LACKING = "Error Code 2: OutOfMemory (Requested size was 2147483648 bytes.)"
ILLEGAL = "Error Code 1: Cuda Runtime (an illegal memory access was encountered)"
OTHER_VERSION = (
    "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion stdVersionRead == "
    "kSERIALIZATION_VERSION failed.Version tag does not match. Note: Current Version: 237, Serialized Engine Version: "
    "239)"
)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (LACKING, GpuMemoryFault),
        ("Requested amount of GPU memory (4096 bytes) could not be allocated", GpuMemoryFault),
        (ILLEGAL, GpuFault),
        ("CUDA initialization failure with error: 999", GpuFault),
        ("cudaError 35: CUDA driver version is insufficient for CUDA runtime version", EngineError),
        ("[defaultAllocator.cpp::deallocate::61] Error Code 1: Cuda Runtime (unspecified launch failure)", GpuFault),
        (f"IRuntime::deserializeCudaEngine: {ILLEGAL}", GpuFault),
        (f"ICudaEngine::createExecutionContext: {LACKING}", GpuMemoryFault),
        ("Error Code 1: Cudnn (CUDNN_STATUS_EXECUTION_FAILED)", GpuFault),
        ("Error Code 1: Myelin ([myelin_cuda.cpp:371] Platform (Cuda) error)", GpuFault),
        (OTHER_VERSION, EngineError),
        ("[runtime.cpp::deserializeCudaEngine::50] Error Code 4: Internal Error (Engine failed.)", EngineError),
        ("ICudaEngine::getProfileShape: Error Code 3: API Usage Error (profileIndex >= 0)", EngineError),
        ("Error Code 3: API Usage Error (Parameter check failed, condition: memory != nullptr)", EngineError),
        ("Error Code 3: API Usage Error (Parameter check failed)", EngineError),
        ("", EngineError),
    ],
)
def test_what_the_gpu_did_is_its_fault(mini: Engine, said: str, kind: type[EngineError]) -> None:
    fake = Fake(mini)
    fake.module.failing = True
    logger = fake.generator.compiled_network.library.logger
    logger.log(Severity.ERROR, said)
    pictures, out = torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    with pytest.raises(EngineError) as caught:
        fake.generator.enlarge(pictures, out)
    assert type(caught.value) is kind
    assert_exit_4(caught, said)
    fake.module.saying = said
    with pytest.raises(EngineError) as caught:
        Library("tensorrt", fake.module).load(b"bad plan")
    assert type(caught.value) is kind


def test_a_launch_that_finds_no_memory_is_run_as_two(mini: Engine) -> None:
    fake = Fake(mini)
    pictures = noisy((4, 1, 12, 12))
    expected = Fake(mini).generator.generate(pictures).copy()
    plain = FakeContext.execute_async_v3

    def scarce(context: FakeContext, handle: int) -> bool:
        if context.shape[0] > 2:
            fake.generator.compiled_network.library.logger.log(Severity.ERROR, LACKING)
            return False
        return plain(context, handle)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeContext, "execute_async_v3", scarce)
        assert (fake.generator.generate(pictures) == expected).all()


class FakeStream:
    """A CUDA stream on which something failed before."""

    def synchronize(self) -> None:
        raise RuntimeError("CUDA error: unspecified launch failure")


def test_work_that_failed_before_is_found_out(mini: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library("tensorrt", fake_module())
    capturing = False
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
    monkeypatch.setattr(torch.cuda, "current_stream", FakeStream)
    assert "unspecified launch failure" in str(library.refusal("a launch", "wait"))
    assert type(library.refusal("a launch", "wait")) is GpuFault
    capturing = True  # waiting would spoil the graph
    assert type(library.refusal("a launch", "wait")) is EngineError


@pytest.mark.parametrize(
    ("flag", "kind"), [(4, EngineError), (1 | 8, EngineError), (16, GpuMemoryFault), (64, GpuFault)]
)
def test_why_a_plan_is_not_valid_here_is_said(flag: int, kind: type[EngineError]) -> None:
    names = {
        "VERSION_MISMATCH": 1,
        "OLD_CUDA_DRIVER": 4,
        "OLD_CUDA_RUNTIME": 8,
        "INSUFFICIENT_GPU_MEMORY": 16,
        "CUDA_ERROR": 64,
    }
    module = fake_module(
        EngineValidity=types.SimpleNamespace(INVALID="no"),
        EngineInvalidityDiagnostics=IntFlag("Diagnostics", names),
    )
    module.Runtime.get_engine_validity = lambda runtime, plan: ("no", flag)
    with pytest.raises(EngineError) as caught:
        Library("tensorrt-rtx", module).load(b"plan")
    assert type(caught.value) is kind
    for name, bit in names.items():
        assert (name.replace("_", " ") in str(caught.value)) == bool(flag & bit)


def test_a_plan_that_the_library_refuses_is_an_error_in_one_line(mini: Engine) -> None:
    with pytest.raises(EngineError, match="Serialization assertion failed; streamsr engine clean"):
        Library("tensorrt", fake_module()).load(b"bad plan")


def test_a_library_has_one_logger_in_a_program(mini: Engine) -> None:
    """The library keeps the first that it is given: what a second one would hold is empty for ever."""
    module, told = fake_module(), []

    class Runtime(module.Runtime):  # type: ignore[misc]
        def __init__(self, logger: Any) -> None:
            told.append(logger)
            super().__init__(told[0])

    module.Runtime = Runtime
    for _ in range(2):
        with pytest.raises(EngineError, match="Serialization assertion failed"):
            Library("tensorrt", module).load(b"bad plan")
    assert told[0] is told[1]
    assert told[0].take_error() == "", "what was told once does not explain what fails later"


# Libraries, GPUs and what is missing


def assert_exit_4(caught: pytest.ExceptionInfo[EngineError], *words: str) -> None:
    line = str(caught.value)
    assert caught.value.exit_code == 4
    assert "\n" not in line
    assert all(word in line for word in words), line


@pytest.fixture
def fresh_probes() -> Iterator[None]:
    probe.cache_clear()
    yield
    probe.cache_clear()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("raise Exception('placeholder without libraries')", "placeholder without libraries"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed with signal 11"),
        ("raise AssertionError", "cannot be imported"),
        ("__version__ = '9.0'", "Builder"),
    ],
    ids=["raises", "crashes", "asserts", "lean"],
)
@pytest.mark.usefixtures("fresh_probes")
def test_a_library_that_does_not_work_harms_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    (tmp_path / "broken_tensorrt.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(tensorrt_library, "MODULES", {"tensorrt": "broken_tensorrt", "tensorrt-rtx": "not_there"})
    with pytest.raises(EngineError) as caught:
        find_library()
    assert_exit_4(caught, words, "tensorrt-rtx: not installed", "pip install", "--runtime cuda")


@pytest.mark.usefixtures("fresh_probes")
def test_the_first_library_that_works_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_tensorrt.py").write_text("raise Exception('no')")
    (tmp_path / "whole_tensorrt.py").write_text(
        "__version__ = '1.7'\nclass Builder: pass\nclass ILogger:\n    class Severity: ERROR = INTERNAL_ERROR = 0\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    names = {"tensorrt": "broken_tensorrt", "tensorrt-rtx": "whole_tensorrt"}
    monkeypatch.setattr(tensorrt_library, "MODULES", names)
    assert find_library().name == "tensorrt-rtx"
    with pytest.raises(EngineError, match="tensorrt: cannot be imported: Exception: no"):
        find_library("tensorrt")


@pytest.mark.usefixtures("fresh_probes")
def test_asked_for_by_name_and_not_there_is_4(mini: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_library, "MODULES", {"tensorrt": "not_there", "tensorrt-rtx": "nor_this"})
    with pytest.raises(EngineError) as caught:
        load_generator(mini, GeneratorSettings(runtime="tensorrt"))
    assert_exit_4(caught, "tensorrt: not installed", "pip install 'streamsr[tensorrt-rtx]'")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_4(mini: Engine) -> None:
    with pytest.raises(EngineError) as caught:
        TensorRTGenerator(mini, library=Library("tensorrt", fake_module()))
    assert_exit_4(caught, "NVIDIA GPU")


def test_int8_is_refused_where_no_form_holds_the_bar(mini: Engine) -> None:
    with pytest.raises(EngineError) as caught:
        TensorRTGenerator(mini, precision="int8", device="cpu", library=Library("tensorrt", fake_module()))
    assert_exit_4(caught, "symmetric INT8", "--precision fp16")
    with pytest.raises(EngineError, match="fp16, fp8 or int8, got bf16"):
        TensorRTGenerator(mini, precision="bf16", device="cpu", library=Library("tensorrt", fake_module()))


def capabilities_of(*names: str) -> type:
    return type("ComputeCapability", (), dict.fromkeys(names, 0))


def test_gpus_that_a_library_does_not_serve_are_refused() -> None:
    module = fake_module(ComputeCapability=capabilities_of("NONE", "CURRENT", "SM75", "SM89", "SM120"))
    library = Library("tensorrt-rtx", module)
    assert library.capabilities == ("7.5", "8.9", "12.0")
    assert library.refuse_gpu("8.9") == ""
    assert "not 9.0" in library.refuse_gpu("9.0")
    assert Library("tensorrt", module).refuse_gpu("9.0") == ""


class FakeNvml:
    """The driver's library with two GPUs, the second of which it does not show."""

    def __init__(self, *, working: bool = True) -> None:
        self.working, self.is_open = working, False

    def nvmlInit_v2(self) -> int:  # noqa: N802
        self.is_open = self.working
        return 0 if self.working else 9

    def nvmlShutdown(self) -> int:  # noqa: N802
        self.is_open = False
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        count._obj.value = 2
        return 0

    def nvmlSystemGetDriverVersion(self, text: Any, length: int) -> int:  # noqa: N802
        text.value = b"580.20"
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, device: Any) -> int:  # noqa: N802
        device._obj.value = index + 1
        return 0 if index == 0 else 4

    def nvmlDeviceGetName(self, device: Any, text: Any, length: int) -> int:  # noqa: N802
        text.value = b"NVIDIA L4"
        return 0

    def nvmlDeviceGetCudaComputeCapability(self, device: Any, major: Any, minor: Any) -> int:  # noqa: N802
        major._obj.value, minor._obj.value = 8, 9
        return 0


class FakeCuda:
    """The CUDA driver with two GPUs, the first of which has fallen off the bus."""

    def __init__(self, *, working: bool = True) -> None:
        self.working = working

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return 0 if self.working else 100

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = 2
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:  # noqa: N802
        device._obj.value = index + 7
        return 101 if index == 0 else 0

    def cuDeviceGetName(self, text: Any, length: int, device: Any) -> int:  # noqa: N802
        text.value = b"NVIDIA H200" if device.value == 8 else b"?"
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:  # noqa: N802
        value._obj.value = {75: 9, 76: 0}[attribute]
        return 0


@pytest.mark.parametrize(
    ("told", "version"),
    [
        ("580.159.04\n", "580.159.04"),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5\nGCC version:  12.3.0\n", "550.54.15"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.10  Release Build\n", "570.86.10"),
        ("no version here\n", ""),
        (None, ""),
    ],
)
def test_containers_without_nvml_ask_the_cuda_driver(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: str | None, version: str
) -> None:
    library, file = FakeCuda(), tmp_path / "version"
    if told is not None:
        file.write_text(told)

    def load(name: str) -> FakeCuda:
        if "nvidia-ml" in name or name == "nvml.dll":
            raise OSError("cannot open shared object file")
        return library

    monkeypatch.setattr(nvidia.ctypes, "CDLL", load)
    monkeypatch.setattr(nvidia, "MODULE_FILES", (tmp_path / "missing", file))
    assert nvidia.find_gpus() == [Gpu("NVIDIA H200", "9.0", version)]
    assert nvidia.driver_version() == version
    library.working = False
    assert nvidia.find_gpus() == []


def test_gpus_are_found_through_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeNvml()

    def load(name: str) -> FakeNvml:
        if "cuda" in name:
            raise OSError("cannot open shared object file")
        return library

    monkeypatch.setattr(nvidia.ctypes, "CDLL", load)
    monkeypatch.setattr(nvidia, "MODULE_FILES", ())
    assert nvidia.find_gpus() == [Gpu("NVIDIA L4", "8.9", "580.20")]
    assert nvidia.driver_version() == "580.20"
    assert not library.is_open
    library.working = False
    assert nvidia.find_gpus() == []
    assert nvidia.driver_version() == ""


def test_no_driver_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError("cannot open shared object file")

    monkeypatch.setattr(nvidia.ctypes, "CDLL", missing)
    assert nvidia.find_gpus() == []


@pytest.mark.needs_cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_driver_and_torch_agree_on_the_gpu() -> None:
    gpu = nvidia.gpu_of_torch(torch.device("cuda"))
    assert any(found.capability == gpu.capability and found.driver == gpu.driver for found in nvidia.find_gpus())


# torch-tensorrt, where TensorRT has no parser


def test_the_exported_program_is_the_network_at_any_size(mini: Engine, srgans: dict[int, Engine]) -> None:
    from streamsr.runtimes.tensorrt_export import exported

    for engine, shape in ((mini, (3, 1, 17, 40)), (srgans[2], (1, 3, 12, 9))):
        pictures = noisy(shape)
        with torch.inference_mode():
            made = exported(engine).module()(torch.from_numpy(pictures).float() / 255)
        assert made.dtype == torch.float32
        assert np.abs(made.numpy() * 255 - expected_of(engine, pictures)).max() <= 1.0
    ranges = sorted((int(side.lower) for side in exported(mini).range_constraints.values()), reverse=True)
    assert ranges == [2, 2, 1], "rows and columns from 2 on, one picture or more"


def test_torch_tensorrt_is_asked_for_a_whole_network(mini: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    from streamsr.runtimes import tensorrt_export

    asked: dict[str, Any] = {}

    def convert(program: Any, **options: Any) -> bytes:
        asked.update(options)
        if mini.scale != 2:
            raise RuntimeError
        return b"plan"

    fake: Any = types.ModuleType("torch_tensorrt")
    fake.Input = lambda **options: options
    fake.dynamo = types.SimpleNamespace(convert_exported_program_to_serialized_trt_engine=convert)
    monkeypatch.setitem(sys.modules, "torch_tensorrt", fake)
    monkeypatch.setattr(tensorrt_export, "exported", lambda engine: engine)
    shapes = patch_range(mini)
    assert tensorrt_export.build_from_torch(mini, shapes) == b"plan"
    assert asked["require_full_compilation"] is True
    (pictures,) = asked["arg_inputs"]
    assert asked["use_explicit_typing"] is True
    assert shapes.least == (1, 1, 1, 1)
    assert (pictures["min_shape"], pictures["max_shape"]) == ((1, 1, 2, 2), shapes.most)

    def refuse(program: Any, **options: Any) -> bytes:
        raise RuntimeError("aten.foo\nis not supported")

    fake.dynamo = types.SimpleNamespace(convert_exported_program_to_serialized_trt_engine=refuse)
    with pytest.raises(EngineError, match=r"aten\.foo is not supported"):
        tensorrt_export.build_from_torch(mini, shapes)


# Built for real, for GPUs that are not there


@pytest.fixture(scope="module")
def library() -> Library:
    found = probe("tensorrt-rtx")
    if not found.version:
        if os.environ.get("STREAMSR_NO_SKIPS"):
            pytest.fail(f"TensorRT-RTX: {found.fault}")
        pytest.skip(f"TensorRT-RTX: {found.fault}")
    return find_library("tensorrt-rtx")


def build_all(library: Library, engine: Engine, samples: str, shapes: ShapeRange) -> bytes:
    from streamsr.runtimes.tensorrt_build import build

    return build(engine, precision="fp16", samples=samples, shapes=shapes, library=library, capabilities=CAPABILITIES)


@pytest.mark.needs_tensorrt
@pytest.mark.parametrize("samples", ["uint8", "float32"])
@pytest.mark.parametrize("engine", networks(), ids=lambda engine: engine.name)
def test_every_shipped_network_is_built_whole(library: Library, engine: Engine, samples: str) -> None:
    for shapes in (patch_range(engine), frame_range(engine, 1280, 720)):
        assert len(build_all(library, engine, samples, shapes)) > 100_000


@pytest.mark.needs_tensorrt
@pytest.mark.parametrize("scale", [2, 4])
def test_an_srgan_of_full_depth_is_built_whole(library: Library, folder: Path, scale: int) -> None:
    engine = random_srgan(folder / f"deep-x{scale}", scale, num_blocks=16)
    for samples, shapes in (("float32", patch_range(engine)), ("uint8", frame_range(engine, 640, 480))):
        assert len(build_all(library, engine, samples, shapes)) > 2_000_000


@pytest.mark.needs_tensorrt
def test_the_stand_in_has_no_call_that_the_library_lacks(library: Library) -> None:
    pairs = [
        (FakeContext, library.module.IExecutionContext),
        (FakeCudaEngine, library.module.ICudaEngine),
        (FakeRuntime, library.module.Runtime),
    ]
    for ours, theirs in pairs:
        missing = {name for name in vars(ours) if not name.startswith("_")} - set(dir(theirs)) - {"module"}
        assert not missing
    settings = {"set_execution_context_allocation_strategy", "dynamic_shapes_kernel_specialization_strategy"}
    assert settings <= set(dir(library.module.IRuntimeConfig))
    assert library.module.DynamicShapesKernelSpecializationStrategy.EAGER
    assert library.module.BuilderFlag.REQUIRE_USER_ALLOCATION
    assert hasattr(library.module.IExecutionContext, "is_stream_capturable")
    assert hasattr(library.module.Runtime, "get_engine_validity")
    assert {"OLD_CUDA_DRIVER", "INSUFFICIENT_GPU_MEMORY", "CUDA_ERROR"} <= set(
        library.module.EngineInvalidityDiagnostics.__members__
    )
    assert {"UINT8", "HALF", "FLOAT"} <= set(dir(library.module.DataType))


@pytest.mark.needs_tensorrt
def test_the_symmetric_form_is_built_whole(library: Library, mini: Engine) -> None:
    from streamsr.runtimes.tensorrt_build import build_from_onnx

    graph = graphs.symmetric_student(quantised(mini), scale=2, layers=(1, 2, 3))
    assert build_from_onnx(graph, patch_range(mini), library=library, capabilities=CAPABILITIES)


@pytest.mark.needs_tensorrt
@pytest.mark.parametrize("layers", [(1, 2), (1, 2, 3)], ids=["some", "all"])
def test_the_fp8_form_is_built_whole_for_gpus_that_have_it(
    library: Library, mini: Engine, layers: tuple[int, ...]
) -> None:
    from streamsr.runtimes.tensorrt_build import build_from_onnx

    graph = graphs.half_student(mini.weights(), scale=2, samples="uint8", float8=float8_of(mini, layers))
    for capabilities in (("8.9",), ("12.0",), ("8.9", "12.0")):
        for shapes in (patch_range(mini), frame_range(mini, 1280, 720)):
            assert b"fp8" in build_from_onnx(graph, shapes, library=library, capabilities=capabilities)
    with pytest.raises(EngineError) as caught:
        build_from_onnx(graph, patch_range(mini), library=library, capabilities=("8.6",))
    assert_exit_4(caught, "fp8")


def with_form(engine: Engine, folder: Path) -> Engine:
    """Return a copy of a student that ships an FP8 form."""
    manifest = json.loads((engine.folder / MANIFEST).read_text())  # type: ignore[operator]
    contents = {"model.safetensors": (engine.folder / "model.safetensors").read_bytes()}  # type: ignore[operator]
    contents["model.fp8.onnx"] = graphs.half_student(
        engine.weights(), scale=engine.scale, samples="uint8", float8=float8_of(engine, (1, 2))
    )
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        manifest["files"][name] = hashlib.sha256(content).hexdigest()
    manifest["precisions"]["fp8"] = "model.fp8.onnx"
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return read_engine(folder)


@pytest.fixture
def eight(mini: Engine, tmp_path: Path) -> Engine:
    return with_form(mini, tmp_path / "eight-x2")


def test_a_plan_in_fp8_has_a_key_of_its_own(eight: Engine) -> None:
    options: dict[str, Any] = {"samples": "uint8", "shapes": patch_range(eight), "gpu": RTX_4090}
    library = Library("tensorrt", fake_module())
    half, float8 = (plan_key(eight, precision=name, library=library, **options) for name in ("fp16", "fp8"))
    assert half.weights_sha256 == eight.files["model.safetensors"]
    assert float8.weights_sha256 == eight.files["model.fp8.onnx"]
    assert "-fp8-" in float8.stem


def test_gpus_without_fp8_are_refused_before_anything_is_built(eight: Engine, tmp_path: Path) -> None:
    from streamsr.runtimes.tensorrt_build import build

    options: dict[str, Any] = {"samples": "uint8", "shapes": patch_range(eight)}
    with pytest.raises(EngineError) as caught:
        build(
            eight, precision="fp8", capabilities=("8.9", "8.6"), library=Library("tensorrt", fake_module()), **options
        )
    assert_exit_4(caught, "fp8: expected a GPU of compute capability 8.9 or newer, got 8.6", "--precision fp16")
    for capability, refused in (("7.5", True), ("8.0", True), ("8.9", False), ("9.0", False), ("12.0", False)):
        try:
            check_capability("fp8", capability)
        except EngineError:
            assert refused
        else:
            assert not refused
        check_capability("fp16", capability)


def test_a_generator_in_fp8_is_refused_on_an_older_gpu(eight: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    ampere = Gpu("NVIDIA GeForce RTX 3090", "8.6", "580.20")
    monkeypatch.setattr("streamsr.runtimes.tensorrt.gpu_of_torch", lambda device: ampere)
    library = Library("tensorrt", fake_module())
    with pytest.raises(EngineError) as caught:
        TensorRTGenerator(eight, precision="fp8", device="cpu", library=library)
    assert_exit_4(caught, "compute capability 8.9 or newer, got 8.6", "--precision fp16")
    assert TensorRTGenerator(eight, precision="fp16", device="cpu", library=library).precision == "fp16"


def test_a_generator_in_fp8_runs_the_shipped_form(eight: Engine) -> None:
    pictures = noisy((2, 1, 20, 24))
    fake = Fake(eight, precision="fp8")
    generator = fake.generator
    assert (generator.precision, "fp8" in generator.description) == ("fp8", True)
    assert (generator.generate(pictures) == run_onnx(eight.read_file("fp8"), pictures)).all()
    assert fake.asked == [("patches", "uint8")]


@pytest.mark.needs_tensorrt
def test_a_plan_in_fp8_is_built_in_a_process_of_its_own(library: Library, eight: Engine, tmp_path: Path) -> None:
    options: dict[str, Any] = {"precision": "fp8", "samples": "uint8", "shapes": patch_range(eight), "library": library}
    cache = PlanCache(tmp_path / "plans")
    made = obtain_plan(eight, gpu=RTX_4090, cache=cache, **options)
    assert made.built
    assert b"fp8" in made.content
    with pytest.raises(EngineError) as caught:
        obtain_plan(eight, gpu=Gpu("NVIDIA GeForce RTX 3090", "8.6", "580.20"), cache=cache, **options)
    assert "compute capability 8.9" in str(caught.value)


SHIPPED = [
    pytest.param(engine, precision, id=f"{engine.name}-{precision}")
    for engine in list_engines()
    for precision, form in FORMS.items()
    if form in engine.precisions
]


@pytest.mark.needs_tensorrt
@pytest.mark.parametrize(("engine", "precision"), SHIPPED)
def test_every_shipped_form_is_built_whole(library: Library, engine: Engine, precision: str) -> None:
    from streamsr.runtimes.tensorrt_build import build

    capabilities = ("8.9", "12.0") if precision == "fp8" else CAPABILITIES
    options: dict[str, Any] = {"precision": precision, "samples": "uint8", "library": library}
    for shapes in (patch_range(engine), frame_range(engine, 1920, 1080)):
        assert precision.encode() in build(engine, shapes=shapes, capabilities=capabilities, **options)


def test_fp8_leads_to_tensorrt_or_to_a_line_that_says_why(
    mini: Engine, eight: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from streamsr import runtimes

    made: list[tuple[str, str]] = []
    monkeypatch.setattr(
        runtimes, "_make", lambda engine, runtime, precision, threads: made.append((runtime, precision))
    )
    monkeypatch.setattr(runtimes, "gpu_runs_torch", lambda: True)
    for runtime in ("auto", "tensorrt"):
        load_generator(eight, GeneratorSettings(runtime=runtime, precision="fp8"))  # type: ignore[arg-type]
    assert made == [("tensorrt", "fp8")] * 2
    with pytest.raises(EngineError) as caught:
        load_generator(eight, GeneratorSettings(precision="fp8"), bit_depth=10)
    assert_exit_4(caught, "fp8 expects 8-bit samples, got 10-bit", "--precision fp16")
    monkeypatch.undo()
    with pytest.raises(EngineError) as caught:
        load_generator(mini, GeneratorSettings(runtime="tensorrt", precision="fp8"))
    assert_exit_4(caught, "FP8 form", "--precision fp16")
    monkeypatch.setattr(runtimes, "gpu_runs_torch", lambda: False)
    with pytest.raises(EngineError) as caught:
        load_generator(eight, GeneratorSettings(precision="fp8"))
    assert_exit_4(caught, "fp8 runs in tensorrt on an NVIDIA GPU", "--precision auto")


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime", "torch", "fused"])
def test_runtimes_without_fp8_say_so(eight: Engine, runtime: Any) -> None:
    with pytest.raises(EngineError) as caught:
        load_generator(eight, GeneratorSettings(runtime=runtime, precision="fp8"))
    assert_exit_4(caught, runtime, "fp8")


def with_unknown_operator(graph: bytes) -> bytes:
    import onnx

    model = onnx.load_from_string(graph)
    for node in model.graph.node:
        if node.op_type == "Relu":
            node.op_type, node.domain = "Cuddle", "teddy.bears"
            break
    model.opset_import.append(onnx.helper.make_opsetid("teddy.bears", 1))
    content: bytes = model.SerializeToString()
    return content


def with_second_output(graph: bytes) -> bytes:
    import onnx

    model = onnx.load_from_string(graph)
    extra = onnx.helper.make_tensor_value_info("relu0", onnx.TensorProto.FLOAT16, ["n", 16, "h", "w"])
    model.graph.output.append(extra)
    content: bytes = model.SerializeToString()
    return content


@pytest.mark.needs_tensorrt
@pytest.mark.parametrize(
    ("change", "word"),
    [
        (with_unknown_operator, "Cuddle"),
        (with_second_output, "relu0"),
        (lambda graph: b"", "from lr to sr alone"),
        (lambda graph: graph[: len(graph) // 2], "expected operators that it knows"),
    ],
    ids=["operator", "output", "empty", "cut"],
)
def test_what_does_not_go_into_a_plan_whole_is_refused(
    library: Library, mini: Engine, change: Callable[[bytes], bytes], word: str
) -> None:
    from streamsr.runtimes.tensorrt_build import build_from_onnx

    graph = change(graphs.tensorrt_graph(mini, precision="fp16", samples="uint8"))
    with pytest.raises(EngineError) as caught:
        build_from_onnx(graph, patch_range(mini), library=library, capabilities=("8.9",))
    assert_exit_4(caught, word)


@pytest.mark.needs_tensorrt
def test_a_plan_is_built_in_a_process_of_its_own_and_kept(library: Library, mini: Engine, tmp_path: Path) -> None:
    cache, steps = PlanCache(tmp_path / "plans"), set()
    options: dict[str, Any] = {"precision": "fp16", "samples": "uint8", "library": library, "cache": cache}
    first, second = (
        obtain_plan(
            mini, shapes=patch_range(mini), gpu=RTX_4090, watch=lambda progress: steps.add(progress.step), **options
        )
        for _ in range(2)
    )
    assert (first.built, second.built) == (True, False)
    assert first.content == second.content
    assert first.key.runtime_version == library.version
    assert steps
    newer = Gpu(RTX_4090.name, RTX_4090.capability, "590.01")
    (notice,) = obtain_plan(mini, shapes=patch_range(mini), gpu=newer, **options).notices
    assert "driver 580.20, here 590.01" in notice


@pytest.mark.needs_tensorrt
def test_a_gpu_that_it_does_not_serve_ends_in_one_line(library: Library, mini: Engine, tmp_path: Path) -> None:
    h100 = Gpu("NVIDIA H100 80GB HBM3", "9.0", "580.20")
    with pytest.raises(EngineError) as caught:
        obtain_plan(
            mini,
            precision="fp16",
            samples="uint8",
            shapes=patch_range(mini),
            library=library,
            gpu=h100,
            cache=PlanCache(tmp_path / "plans"),
        )
    assert_exit_4(caught, "not 9.0", "--runtime cuda")


@pytest.mark.needs_tensorrt
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_plan_without_a_gpu_does_not_load_and_says_why(library: Library, mini: Engine) -> None:
    plan = build_all(library, mini, "uint8", patch_range(mini))
    with pytest.raises(EngineError) as caught:
        library.load(plan)
    assert_exit_4(caught, "driver", "--runtime cuda")


@pytest.mark.needs_tensorrt
@pytest.mark.needs_cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_on_a_gpu_it_agrees_with_torch(mini: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMSR_CACHE", str(tmp_path))
    try:
        generator = TensorRTGenerator(mini)
    except EngineError as cause:
        pytest.skip(str(cause))
    for shape in ((1, 1, 120, 160), (16, 1, 40, 40), (1, 1, 120, 160)):
        pictures = noisy(shape)
        expected = np.clip(np.rint(expected_of(mini, pictures)), 0, 255)
        assert np.abs(generator.generate(pictures) - expected).max() <= FP16_LEVELS


def test_interpolation_needs_no_plan() -> None:
    assert load_generator(bicubic_engine(2), GeneratorSettings(runtime="tensorrt")).runtime == "bicubic"


def test_onnx_comes_with_the_extras() -> None:
    if sys.version_info < (3, 11):
        tomllib = pytest.importorskip("tomli")
    else:
        import tomllib

    text = (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    for name in ("tensorrt", "tensorrt-rtx"):
        assert any(requirement.startswith("onnx") for requirement in extras[name])
    assert find_spec("onnx") is not None
