"""Runtimes: every one computes the student that torch computes; what it cannot run it refuses in one line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from streamsr.config import GeneratorSettings
from streamsr.engine import Engine, bicubic_engine, list_engines, read_engine
from streamsr.errors import EngineError
from streamsr.models.student import SPECS, Student, StudentSpec
from streamsr.quality.fidelity import psnr_db
from streamsr.runtimes import Generator, load_generator
from streamsr.runtimes.openvino_cpu import COMPILED_SHAPES, OpenVINOGenerator, shuffle_phases
from streamsr.runtimes.torch_cpu import TorchGenerator
from streamsr.training.quantise import arrays, calibrate
from streamsr.training.ship import write_engine

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

ROUNDING_LEVELS = 1
"""Two fp32 sums in another order may fall on either side of a half."""

FLOAT_TOLERANCE = 1e-4
INT8_LOSS_DB = 0.05
"""What INT8 may cost a shipped engine on the validation sides."""

SYNTHETIC_INT8_DB = 40.0
"""INT8 against fp32 of the same random, uncalibrated-for-this network: above what 8 bits a layer leave."""

SHAPES = ((1, 1, 33, 47), (3, 1, 52, 52), (1, 1, 1, 1), (2, 1, 7, 64))
OTHERS = ("openvino", "onnxruntime")


@pytest.fixture(autouse=True, scope="module")
def threads_of_torch_are_put_back() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def smooth_picture(height: int, width: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """Return (H, W) luma with slopes, an edge and a little noise, black and white included."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = 120 + 60 * np.sin(x / 9 + y / 31) + 40 * np.cos(y / 7 - x / 23)
    waves[y + x > 0.8 * (height + width)] = 255
    waves[: height // 8] = 0
    return np.clip(np.rint(waves + random.normal(0, 3, waves.shape)), 0, 255).astype(np.uint8)


def pictures_of(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.stack([smooth_picture(*shape[2:], seed=place)[None] for place in range(shape[0])])


def write_random(folder: Path, spec: StudentSpec, *, gain: float = 1.0) -> Engine:
    """Write an engine whose residual is strong enough that a wrong layer shows."""
    onnx_graph = pytest.importorskip("streamsr.runtimes.onnx_graph")
    torch.manual_seed(spec.channels + spec.scale)
    student = Student(spec).eval()
    with torch.no_grad():
        for index, layer in enumerate(student.layers):
            weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
            fan_in = weight[0].numel()
            last = index == len(student.layers) - 1
            weight.copy_(torch.randn_like(weight) * (2 / fan_in) ** 0.5 * (0.2 * gain if last else 1.0))
            bias.copy_(torch.randn_like(bias) * 0.05)
    scales = calibrate(student, [smooth_picture(48, 64, seed=9)])
    int8 = onnx_graph.quantised_student(
        arrays(student),
        scale=spec.scale,
        activation_clips=scales.activation_clips,
        weight_scales=scales.weight_scales,
    )
    write_engine(folder, student, int8)
    return read_engine(folder)


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Engine]:
    folder = tmp_path_factory.mktemp("engines")
    return {name: write_random(folder / name, spec) for name, spec in SPECS.items()}


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return write_random(tmp_path_factory.mktemp("mini") / "mini-x2", StudentSpec(16, 1, 2))


def load(engine: Engine, runtime: Any, precision: Any, **options: Any) -> Generator:
    """Load a generator on one thread: on several, networks this small wait for one another."""
    if runtime == "onnxruntime":
        pytest.importorskip("onnxruntime")
    return load_generator(engine, GeneratorSettings(runtime=runtime, precision=precision, threads=1), **options)


def difference(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    return np.abs(first.astype(np.float64) - second.astype(np.float64))


def psnr_between(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    return float(10 * np.log10(255**2 / max(float(np.square(difference(first, second)).mean()), 1e-9)))


@pytest.mark.parametrize("runtime", OTHERS)
@pytest.mark.parametrize("name", list(SPECS))
def test_fp32_agrees_with_torch_within_one_level_after_rounding(
    engines: dict[str, Engine], name: str, runtime: str
) -> None:
    reference, other = load(engines[name], "torch", "fp32"), load(engines[name], runtime, "fp32")
    for shape in SHAPES:
        pictures = pictures_of(shape)
        expected, made = reference.generate(pictures).copy(), other.generate(pictures)
        assert made.dtype == np.uint8
        assert made.shape == (shape[0], 1, other.scale * shape[2], other.scale * shape[3])
        assert difference(made, expected).max() <= ROUNDING_LEVELS, shape


@pytest.mark.parametrize("runtime", OTHERS)
@pytest.mark.parametrize("name", list(SPECS))
def test_float32_ends_agree_with_torch(engines: dict[str, Engine], name: str, runtime: str) -> None:
    reference, other = load(engines[name], "torch", "fp32"), load(engines[name], runtime, "fp32")
    pictures = pictures_of(SHAPES[0]).astype(np.float32) / np.float32(255)
    expected, made = reference.generate(pictures), other.generate(pictures)
    assert made.dtype == np.float32
    assert difference(made, expected).max() <= FLOAT_TOLERANCE


def test_float32_ends_are_not_clamped(tmp_path: Path) -> None:
    engine = write_random(tmp_path / "strong-x2", StudentSpec(16, 1, 2), gain=20.0)
    pictures = pictures_of(SHAPES[0]).astype(np.float32) / np.float32(255)
    for runtime in ("torch", *OTHERS):
        made = load(engine, runtime, "fp32").generate(pictures)
        assert made.min() < 0.0, runtime
        assert made.max() > 1.0, runtime


def test_uint8_ends_clamp_instead_of_wrapping(tmp_path: Path) -> None:
    engine = write_random(tmp_path / "strong-x2", StudentSpec(16, 1, 2), gain=20.0)
    pictures = pictures_of(SHAPES[0])
    exact = load(engine, "torch", "fp32").generate(pictures.astype(np.float32) / np.float32(255)) * 255
    for runtime, precision in (("torch", "fp32"), ("openvino", "fp32"), ("openvino", "int8"), ("onnxruntime", "fp32")):
        made = load(engine, runtime, precision).generate(pictures)
        assert (made[exact < -20] == 0).all(), (runtime, precision)
        assert (made[exact > 275] == 255).all(), (runtime, precision)
    assert (exact < -20).any()
    assert (exact > 275).any()


@pytest.mark.parametrize("runtime", ["torch", *OTHERS])
def test_the_agreement_would_notice_one_changed_weight(
    engines: dict[str, Engine], tmp_path: Path, runtime: str
) -> None:
    spec = SPECS["tiny-x2"]
    student = Student(spec)
    weights = {name: torch.from_numpy(values) for name, values in engines["tiny-x2"].weights().items()}
    weights["layers.3.weight"][0] += 0.1
    student.load_state_dict(weights)
    write_engine(tmp_path / "changed-x2", student, b"")
    pictures = pictures_of(SHAPES[0])
    expected = load(engines["tiny-x2"], "torch", "fp32").generate(pictures).copy()
    made = load(read_engine(tmp_path / "changed-x2"), runtime, "fp32").generate(pictures)
    assert difference(made, expected).max() > ROUNDING_LEVELS


@pytest.mark.parametrize("name", list(SPECS))
def test_int8_of_openvino_is_what_the_graph_says(engines: dict[str, Engine], name: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # node by node, in float
    literal = onnxruntime.InferenceSession(engines[name].read_file("int8"), options, providers=["CPUExecutionProvider"])
    pictures = pictures_of((2, 1, 33, 47))
    made = load(engines[name], "openvino", "int8").generate(pictures)
    expected = literal.run(None, {"lr": pictures})[0]
    # Equal but where a float sum lies on the border of two inner levels, which the layers behind it carry on.
    assert difference(made, expected).max() <= 2 * ROUNDING_LEVELS
    assert psnr_between(made, expected) > 60.0


@pytest.mark.parametrize("name", list(SPECS))
def test_int8_of_onnxruntime_stays_near_that_of_openvino(engines: dict[str, Engine], name: str) -> None:
    """ONNX Runtime rounds the biases to whole steps when it fuses, so it is near and not equal."""
    pictures = pictures_of((2, 1, 33, 47))
    made = load(engines[name], "openvino", "int8").generate(pictures).copy()
    beside = load(engines[name], "onnxruntime", "int8").generate(pictures)
    assert difference(made, beside).max() <= 3 * ROUNDING_LEVELS
    assert psnr_between(made, beside) > 48.0


@pytest.mark.parametrize("name", list(SPECS))
def test_int8_stays_near_fp32_on_a_synthetic_picture(engines: dict[str, Engine], name: str) -> None:
    picture = pictures_of((1, 1, 64, 80))
    exact = load(engines[name], "openvino", "fp32").generate(picture).copy()
    made = load(engines[name], "openvino", "int8").generate(picture)
    assert psnr_between(made, exact) > SYNTHETIC_INT8_DB
    assert (made != exact).any()  # it is another computation, not fp32 under another name


@pytest.mark.skipif(not DATA.is_dir(), reason="the endoscopy frames are not beside this checkout")
@pytest.mark.parametrize("engine", [each for each in list_engines() if "int8" in each.precisions], ids=lambda e: e.name)
def test_int8_of_a_shipped_engine_loses_at_most_its_share_on_validation_frames(engine: Engine) -> None:
    data = pytest.importorskip("streamsr.training.data")
    pairs = data.load_pairs(DATA, "val", engine.scale, most_per_set=3)
    masks = data.field_masks(pairs)
    exact, rounded = load(engine, "openvino", "fp32"), load(engine, "openvino", "int8")
    lost = []
    for pair, mask in zip(pairs, masks, strict=True):
        picture = np.ascontiguousarray(pair.lr[None, None])
        figures = [psnr_db(generator.generate(picture)[0, 0], pair.hr, mask=mask) for generator in (exact, rounded)]
        lost.append(figures[0] - figures[1])
    assert len(lost) >= 10
    assert np.mean(lost) <= INT8_LOSS_DB


@pytest.mark.parametrize(("runtime", "precision"), [("openvino", "bf16"), ("torch", "bf16")])
def test_bf16_runs_and_is_within_a_few_levels(mini: Engine, runtime: str, precision: str) -> None:
    picture = pictures_of((1, 1, 32, 40))
    exact, made = load(mini, "torch", "fp32").generate(picture).copy(), load(mini, runtime, precision).generate(picture)
    assert psnr_between(made, exact) > 40.0


ALL = [("torch", "fp32"), ("torch", "bf16"), *[(name, kind) for name in OTHERS for kind in ("fp32", "int8")]]


@pytest.mark.parametrize(("runtime", "precision"), ALL)
def test_read_only_pictures_are_taken_and_kept(mini: Engine, runtime: str, precision: str) -> None:
    generator = load(mini, runtime, precision)
    pictures = pictures_of((1, 1, 20, 24))
    expected = generator.generate(pictures).copy()
    kept = pictures.copy()
    pictures.flags.writeable = False
    assert (generator.generate(pictures) == expected).all()
    assert (pictures == kept).all()


@pytest.mark.parametrize(("runtime", "precision"), ALL)
def test_out_is_written_and_returned(mini: Engine, runtime: str, precision: str) -> None:
    generator = load(mini, runtime, precision)
    pictures = pictures_of((2, 1, 20, 24))
    expected = generator.generate(pictures).copy()
    out = np.zeros_like(expected)
    assert generator.generate(pictures, out) is out
    assert (out == expected).all()


@pytest.mark.parametrize(("runtime", "precision"), ALL)
def test_pictures_of_a_batch_do_not_touch_one_another(mini: Engine, runtime: str, precision: str) -> None:
    generator = load(mini, runtime, precision)
    pictures = pictures_of((3, 1, 21, 24))
    together = generator.generate(pictures).copy()
    for place in range(3):
        alone = generator.generate(pictures[place : place + 1])
        assert difference(alone[0], together[place]).max() <= (ROUNDING_LEVELS if precision == "bf16" else 0)


@pytest.mark.parametrize(("runtime", "precision"), ALL)
def test_shapes_may_alternate(mini: Engine, runtime: str, precision: str) -> None:
    generator = load(mini, runtime, precision)
    first, second = pictures_of((1, 1, 20, 24)), pictures_of((2, 1, 17, 9))
    expected = [generator.generate(pictures).copy() for pictures in (first, second)]
    for _ in range(2):
        assert (generator.generate(first) == expected[0]).all()
        assert (generator.generate(second) == expected[1]).all()


def test_a_result_of_openvino_survives_the_next_call_when_the_caller_gave_the_array(mini: Engine) -> None:
    generator = load(mini, "openvino", "int8")
    first, second = pictures_of((2, 1, 20, 24))[:, None]
    out = np.empty((1, 1, 40, 48), np.uint8)
    generator.generate(first, out)
    kept = out.copy()
    generator.generate(second, np.empty_like(out))
    assert (out == kept).all()


def test_openvino_keeps_the_newest_shapes_only(mini: Engine) -> None:
    generator = OpenVINOGenerator(mini, precision="fp32", threads=1)
    for width in range(8, 8 + COMPILED_SHAPES + 2):
        generator.generate(np.zeros((1, 1, 8, width), np.uint8))
    widths = [shape[3] for shape, _ in generator._launches]
    assert widths == list(range(10, 10 + COMPILED_SHAPES))


@pytest.mark.parametrize("scale", [2, 4])
def test_shuffle_phases_is_the_pixel_shuffle(scale: int) -> None:
    phases = np.random.default_rng(0).integers(0, 256, (2, 5, 7, scale**2), dtype=np.uint8)
    out = np.zeros((2, 1, 5 * scale, 7 * scale), np.uint8)
    shuffle_phases(phases, out, scale)
    expected = torch.pixel_shuffle(torch.from_numpy(phases).permute(0, 3, 1, 2), scale)
    assert (out == expected.numpy()).all()


def test_every_convolution_of_the_int8_form_runs_in_8_bits(mini: Engine) -> None:
    generator = OpenVINOGenerator(mini, precision="int8", threads=1)
    picture = pictures_of((1, 1, 20, 24))
    generator.generate(picture)
    compiled = next(iter(generator._launches.values())).request.get_compiled_model()
    kinds = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    run = [kind["runtimePrecision"].astype(str) for kind in kinds if kind["layerType"].astype(str) == "Convolution"]
    assert len(run) == mini.depth + 3  # first, body, last and skip
    if "VNNI" not in processor_flags() and "AMX" not in processor_flags():
        pytest.skip("this processor has no 8-bit products")
    assert set(run) <= {"u8", "i8"}


def processor_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").upper()
    except OSError:
        return ""


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_keeps_flat_pictures_flat_and_every_dtype(scale: int) -> None:
    generator = load_generator(bicubic_engine(scale), GeneratorSettings())
    assert (generator.scale, generator.channels, generator.runtime) == (scale, 1, "bicubic")
    for dtype in (np.uint8, np.float32):
        made = generator.generate(np.full((2, 1, 9, 11), 77, dtype))
        assert made.dtype == dtype
        assert made.shape == (2, 1, 9 * scale, 11 * scale)
        assert (made == 77).all()


def test_bicubic_writes_into_out_and_keeps_a_ramp() -> None:
    generator = load_generator(bicubic_engine(2), GeneratorSettings())
    ramp = np.tile(np.arange(32, dtype=np.float32), (16, 1))[None, None]
    out = np.empty((1, 1, 32, 64), np.float32)
    assert generator.generate(ramp, out) is out
    expected = (np.arange(64) + 0.5) / 2 - 0.5
    assert np.abs(out[0, 0, :, 8:-8] - expected[8:-8]).max() < 0.05  # a = -0.75 is not exact for ramps


def assert_refused(caught: pytest.ExceptionInfo[EngineError], *parts: str) -> None:
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 4
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("runtime", "precision", "advice"),
    [("torch", "int8", "--runtime openvino"), ("onnxruntime", "bf16", "--runtime openvino")],
)
def test_a_precision_that_a_runtime_has_not_is_refused(mini: Engine, runtime: str, precision: str, advice: str) -> None:
    with pytest.raises(EngineError) as caught:
        load(mini, runtime, precision)
    assert_refused(caught, mini.name, runtime, precision, advice)


def test_openvino_refuses_a_precision_that_it_has_not(mini: Engine) -> None:
    with pytest.raises(EngineError) as caught:
        OpenVINOGenerator(mini, precision="int4")
    assert_refused(caught, mini.name, "int4")


def test_int8_is_refused_for_deep_samples_and_auto_takes_fp32(mini: Engine) -> None:
    with pytest.raises(EngineError) as caught:
        load(mini, "openvino", "int8", bit_depth=10)
    assert_refused(caught, "10-bit", "--precision fp32")
    assert load(mini, "auto", "auto", bit_depth=10).precision == "fp32"


def test_auto_takes_openvino_in_int8_for_8_bit_samples(mini: Engine) -> None:
    generator = load(mini, "auto", "auto")
    assert (generator.runtime, generator.precision) == ("openvino", "int8")
    assert "OpenVINO" in generator.description
    assert load(mini, "torch", "auto").precision == "fp32"


def test_auto_takes_fp32_where_there_is_no_int8_form(mini: Engine, tmp_path: Path) -> None:
    write_engine(tmp_path / "bare-x2", Student(StudentSpec(16, 1, 2)), b"")
    bare = read_engine(tmp_path / "bare-x2")
    del bare.precisions["int8"]
    assert load(bare, "auto", "auto").precision == "fp32"
    with pytest.raises(EngineError) as caught:
        load(bare, "openvino", "int8")
    assert_refused(caught, "fp32", "int8")


@pytest.mark.parametrize(
    ("runtime", "room", "package"),
    [("onnxruntime", "onnxruntime_cpu", "onnxruntime"), ("openvino", "openvino_cpu", "openvino")],
)
def test_a_runtime_that_is_not_installed_is_refused(
    mini: Engine, monkeypatch: pytest.MonkeyPatch, runtime: str, room: str, package: str
) -> None:
    for loaded in (room, f"untold_{package}"):
        monkeypatch.delitem(sys.modules, f"streamsr.runtimes.{loaded}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EngineError) as caught:
        load_generator(mini, GeneratorSettings(runtime=runtime))  # type: ignore[arg-type]
    assert_refused(caught, runtime, "installed")


def test_onnxruntime_refuses_what_is_no_student(mini: Engine) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(EngineError) as caught:
        load(Engine("srgan-x4", "srgan", 4, "rgb", "adversarial"), "onnxruntime", "fp32")
    assert_refused(caught, "srgan")


@pytest.mark.parametrize(
    "cause",
    [UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), IndexError("no\nend"), RuntimeError("no")],
)
def test_what_openvino_cannot_read_is_refused(mini: Engine, monkeypatch: pytest.MonkeyPatch, cause: Exception) -> None:
    def read(*given: object) -> None:
        raise cause

    monkeypatch.setattr(OpenVINOGenerator, "_model", read)
    with pytest.raises(EngineError) as caught:
        OpenVINOGenerator(mini).generate(np.zeros((1, 1, 8, 8), np.uint8))
    assert_refused(caught, "OpenVINO")


@pytest.mark.parametrize("package", ["onnxruntime", "openvino"])
def test_no_runtime_tells_its_makers_anything(package: str, tmp_path: Path) -> None:
    pytest.importorskip(package)
    hidden = ("CI", "TF_BUILD", "JENKINS_URL", "ORT_DISABLE_TELEMETRY")  # where they are silent by themselves
    there = {name: value for name, value in os.environ.items() if name not in hidden}
    homes = dict.fromkeys(("HOME", "USERPROFILE", "TMPDIR", "TEMP", "XDG_CACHE_HOME"), str(tmp_path))
    program = f"import streamsr.runtimes.untold_{package}, sys\nassert not sys.modules.get('openvino_telemetry')"
    subprocess.run([sys.executable, "-c", program], check=True, env={**there, **homes})
    assert not list(tmp_path.iterdir())


def test_every_runtime_is_loaded_through_the_room_that_silences_it() -> None:
    for path in (Path(__file__).parents[1] / "streamsr").rglob("*.py"):
        found = re.search(r"(?m)^\s*(import|from) (onnxruntime|openvino)\b", path.read_text(encoding="utf-8"))
        assert not found or path.name == f"untold_{found[2]}.py", path


def test_threads_are_as_asked(mini: Engine) -> None:
    for runtime in ("torch", *OTHERS):
        if runtime == "onnxruntime":
            pytest.importorskip("onnxruntime")
        generator = load_generator(mini, GeneratorSettings(runtime=runtime, threads=1))  # type: ignore[arg-type]
        assert "1 threads" in generator.description


def test_torch_follows_the_thread_count_it_was_given(mini: Engine) -> None:
    for threads in (2, 1):
        TorchGenerator(mini, threads=threads).generate(np.zeros((1, 1, 8, 8), np.uint8))
        assert torch.get_num_threads() == threads


INTERRUPTED = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
import signal, sys, threading
from pathlib import Path
import numpy as np
from streamsr.engine import read_engine
from streamsr.runtimes.openvino_cpu import OpenVINOGenerator
held = [OpenVINOGenerator(read_engine(Path(sys.argv[1])), precision="fp32", threads=1)]
held[0].generate(np.zeros((1, 1, 8, 8), np.uint8))
dropping = threading.Thread(target=held.clear)
dropping.start()
dropping.join()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("alive")
"""


def test_an_interrupt_is_no_crash_after_a_generator_was_dropped_in_another_thread(mini: Engine) -> None:
    # On processors with AMX OpenVINO's stack for signals went with its last core, and the program with the signal.
    program = [sys.executable, "-c", INTERRUPTED, str(mini.folder)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "alive"), done.stderr
