"""Choosing a runtime: measured once for a GPU, remembered, and what cannot run is named."""

from __future__ import annotations

import json
import logging
import types
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from benchmarks.gpu_engines import random_engine
from streamsr import runtimes
from streamsr.config import GeneratorSettings
from streamsr.engine import Engine, bicubic_engine, find_engine, list_engines
from streamsr.errors import EngineError, GpuFault, GpuMemoryFault
from streamsr.plans.building import locked
from streamsr.runtimes import choosing, load_generator, notices_of, tell
from streamsr.runtimes.base import Generator, Pictures
from streamsr.runtimes.choosing import facts_of, fastest_generator, measured_shape
from streamsr.runtimes.cuda import CudaGenerator
from streamsr.runtimes.fused import serves
from streamsr.runtimes.nvidia import Gpu
from streamsr.runtimes.trials import sources_digest
from streamsr.worker import Stopped

SHAPE = (2, 1, 8, 8)
FACTS = {"engine": "fast-x2", "name": "NVIDIA L4", "driver": "580.20"}
FAST_MS, SLOW_MS = 0.5, 6.0


FAULTS = [EngineError("tensorrt: not 9.0"), ImportError("no module named torch"), AttributeError("no EAGER")]


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let generators alone make time pass."""
    Sleeper.now_ns = 0
    monkeypatch.setattr(choosing, "time", types.SimpleNamespace(perf_counter_ns=lambda: Sleeper.now_ns))


class Sleeper:
    """A generator that takes so long, and counts."""

    now_ns = 0

    channels, scale, radius_px, precision, description = 1, 2, 1, "fp16", ""

    def __init__(self, runtime: str, ms: float, shape: tuple[int, ...] = SHAPE) -> None:
        self.runtime, self.ms, self.shape, self.dtypes = runtime, ms, shape, []
        self.me = self  # as a generator on a GPU, which its launches hold

    def generate(self, pictures: Pictures, out: Pictures | None = None) -> Pictures:
        assert pictures.shape == self.shape
        assert len(np.unique(pictures)) > 20, "a GPU is faster on flat pictures than on real ones"
        self.dtypes.append(pictures.dtype)
        Sleeper.now_ns += int(self.ms * 1e6)
        return pictures


class Workshop:
    """Makes generators and counts them."""

    def __init__(self, **speeds_ms: float | Exception) -> None:
        self.made: list[str] = []
        self.generators: list[Sleeper] = []
        self.candidates: dict[str, Callable[[], Generator]] = {
            name: self._maker(name, speed) for name, speed in speeds_ms.items()
        }

    def _maker(self, name: str, speed: float | Exception) -> Callable[[], Generator]:
        def make() -> Generator:
            self.made.append(name)
            if isinstance(speed, Exception):
                raise speed
            self.generators.append(Sleeper(name, speed))
            generator: Generator = self.generators[-1]
            return generator

        return make

    @property
    def num_launches(self) -> int:
        return sum(len(generator.dtypes) for generator in self.generators)


def choose(workshop: Workshop, memory: Path, *, facts: dict[str, str] = FACTS, dtype: Any = np.uint8) -> Generator:
    return fastest_generator(workshop.candidates, facts=facts, shape=SHAPE, dtype=dtype, memory=memory)


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "runtimes.json"


@pytest.mark.parametrize("order", [("cuda", "tensorrt"), ("tensorrt", "cuda")])
def test_the_fastest_is_taken_whatever_the_order(memory: Path, order: tuple[str, str]) -> None:
    speeds = {"cuda": SLOW_MS, "tensorrt": FAST_MS}
    assert choose(Workshop(**{name: speeds[name] for name in order}), memory).runtime == "tensorrt"


def test_it_is_measured_once_and_remembered(memory: Path) -> None:
    choose(Workshop(cuda=SLOW_MS, tensorrt=FAST_MS), memory)
    again = Workshop(cuda=SLOW_MS, tensorrt=FAST_MS)
    assert choose(again, memory).runtime == "tensorrt"
    assert again.made == ["tensorrt"]
    assert again.num_launches == 0
    (entry,) = json.loads(memory.read_text()).values()
    assert list(entry["measured_ms"]) == ["tensorrt", "cuda"]
    assert entry["facts"] == FACTS


@pytest.mark.parametrize("change", [{"driver": "590.01"}, {"name": "NVIDIA L40"}, {"engine": "tiny-x2"}])
def test_another_gpu_driver_or_engine_is_measured_anew(memory: Path, change: dict[str, str]) -> None:
    choose(Workshop(cuda=SLOW_MS, tensorrt=FAST_MS), memory)
    other = Workshop(cuda=FAST_MS, tensorrt=SLOW_MS)
    assert choose(other, memory, facts={**FACTS, **change}).runtime == "cuda"
    assert other.num_launches > 0
    assert choose(Workshop(cuda=SLOW_MS, tensorrt=FAST_MS), memory).runtime == "tensorrt"


def test_another_type_of_samples_or_another_set_of_runtimes_is_measured_anew(memory: Path) -> None:
    choose(Workshop(cuda=FAST_MS, tensorrt=SLOW_MS), memory)
    for workshop, dtype in ((Workshop(cuda=SLOW_MS, tensorrt=FAST_MS), np.float32), (Workshop(cuda=FAST_MS), np.uint8)):
        choose(workshop, memory, dtype=dtype)
        assert {str(kind) for generator in workshop.generators for kind in generator.dtypes} == {np.dtype(dtype).name}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_run_is_named_with_what_runs_instead(
    memory: Path, fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert choose(Workshop(cuda=FAST_MS, tensorrt=fault), memory).runtime == "cuda"
    (record,) = caplog.records
    line = record.getMessage()
    assert str(fault) in line
    assert "tensorrt is left out, cuda is used" in line


def test_a_runtime_that_is_remembered_and_gone_gives_way_to_the_next(memory: Path) -> None:
    choose(Workshop(cuda=SLOW_MS, tensorrt=FAST_MS), memory)
    gone = Workshop(cuda=SLOW_MS, tensorrt=EngineError("tensorrt: uninstalled"))
    made = choose(gone, memory)
    assert made.runtime == "cuda"
    assert gone.num_launches == 0
    (line,) = notices_of(made)
    assert "tensorrt is left out, cuda is used: it was measured before and is gone: tensorrt: uninstalled" in line


@pytest.mark.parametrize("fault", [*FAULTS, EngineError("fused: expected 9 bytes of shared memory a block")])
def test_what_is_left_out_for_good_is_told_in_every_run(memory: Path, fault: Exception) -> None:
    first = choose(Workshop(cuda=FAST_MS, tensorrt=fault), memory)
    again = Workshop(cuda=FAST_MS, tensorrt=fault)
    assert notices_of(choose(again, memory)) == notices_of(first) != ()
    assert (again.made, again.num_launches) == (["cuda"], 0)


def disk_full() -> EngineError:
    fault = EngineError("tensorrt: expected a folder to build its plan in")
    fault.__cause__ = OSError(28, "No space left on device")
    return fault


PASSING = [
    GpuMemoryFault("tensorrt: expected enough GPU memory"),
    GpuFault("tensorrt: the GPU failed"),
    OSError("stale file handle"),
    RuntimeError("who knows"),
    disk_full(),
    EngineError("fast-x2: expected its plan to be built within 1800 s, it was not"),
    EngineError("fast-x2: expected another program to finish its plan within 0.5 s, it did not"),
    EngineError("fast-x2: expected its plan to be built, the builder was killed by signal 9: it said nothing"),
    EngineError("fast-x2: expected its plan to be built, the builder failed with code 1: CUDA out of memory"),
]


@pytest.mark.parametrize("fault", PASSING)
def test_nothing_is_remembered_where_the_cause_may_pass(memory: Path, fault: Exception) -> None:
    assert "tensorrt is left out" in notices_of(choose(Workshop(cuda=SLOW_MS, tensorrt=fault), memory))[0]
    assert not memory.exists()
    assert choose(Workshop(cuda=SLOW_MS, tensorrt=FAST_MS), memory).runtime == "tensorrt"


@pytest.mark.parametrize("known", [False, True])
def test_a_gpu_that_a_runtime_ends_is_a_fault_that_names_it(
    memory: Path, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if known:
        choose(Workshop(fused=FAST_MS, cuda=SLOW_MS), memory)
    before = memory.read_text() if known else ""
    workshop = Workshop(cuda=SLOW_MS, fused=GpuFault("fused: the GPU failed"))

    def free() -> None:
        if "fused" in workshop.made:
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with")

    monkeypatch.setattr(choosing, "free_memory", free)
    with pytest.raises(GpuFault, match=r"^fused: the GPU failed: CUDA error: an illegal memory access"):
        choose(workshop, memory)
    assert (memory.read_text() if memory.exists() else "") == before


def test_memory_that_cannot_be_freed_ends_nothing(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def free() -> None:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(choosing, "free_memory", free)
    assert choose(Workshop(cuda=SLOW_MS, tensorrt=FAST_MS), memory).runtime == "tensorrt"


def test_the_frame_that_was_measured_is_not_held_ready_for_the_job(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = CudaGenerator(find_engine("tiny-x2"), precision="fp32", device="cpu")
    monkeypatch.setattr(generator, "is_gpu", True)
    monkeypatch.setattr(choosing, "launch_ms", lambda *_: 1.0)
    generator._prepared["trial",] = cast(Any, "buffers and a graph")
    monkeypatch.setattr(choosing, "differences", lambda *_, **__: "")
    made = fastest_generator({"cuda": lambda: generator}, facts=FACTS, shape=SHAPE, dtype=np.uint8, memory=memory)
    assert made is generator
    assert not generator._prepared


@pytest.mark.parametrize("remembered", [False, True])
def test_a_wait_that_is_ended_from_without_says_nothing_of_the_runtime(memory: Path, remembered: bool) -> None:
    if remembered:
        choose(Workshop(cuda=SLOW_MS, tensorrt=FAST_MS), memory)
    before = memory.read_text() if remembered else ""
    with pytest.raises(Stopped):
        choose(Workshop(cuda=SLOW_MS, tensorrt=Stopped()), memory)
    assert (memory.read_text() if memory.exists() else "") == before


def test_nothing_that_works_is_an_error_with_every_reason(memory: Path) -> None:
    with pytest.raises(EngineError) as caught:
        choose(Workshop(cuda=EngineError("no driver"), tensorrt=EngineError("not installed")), memory)
    line = str(caught.value)
    assert "cuda: no driver; tensorrt: not installed" in line
    assert "--runtime openvino" in line
    assert not memory.exists()


@pytest.mark.parametrize(
    "content", ["", "{ half", "[]", '{"KEY": 3}', '{"KEY": {"measured_ms": {"cuda": "fast"}}}', '{"KEY": {}}']
)
def test_a_memory_that_does_not_hold_is_measured_again(
    memory: Path, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "digest", lambda facts: "KEY")
    memory.parent.mkdir()
    memory.write_text(content)
    assert choose(Workshop(cuda=SLOW_MS, tensorrt=FAST_MS), memory).runtime == "tensorrt"
    assert choose(Workshop(cuda=SLOW_MS, tensorrt=FAST_MS), memory).runtime == "tensorrt"
    assert list(json.loads(memory.read_text())["KEY"]["measured_ms"]) == ["tensorrt", "cuda"]


def test_a_memory_that_cannot_be_written_costs_only_the_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file in the way")
    with caplog.at_level(logging.WARNING):
        assert choose(Workshop(cuda=FAST_MS), tmp_path / "cache" / "runtimes.json").runtime == "cuda"
    assert "is not kept" in caplog.text


def student() -> Engine:
    return next(engine for engine in list_engines() if engine.architecture == "student")


def test_facts_name_the_engine_the_gpu_and_the_versions() -> None:
    engine = student()
    facts = facts_of(engine, "fp16", Gpu("NVIDIA L4", "8.9", "580.20"))
    assert facts["weights_sha256"] == engine.files["model.safetensors"]
    assert (facts["name"], facts["capability"], facts["driver"]) == ("NVIDIA L4", "8.9", "580.20")
    assert "torch" in facts
    assert facts["sources"] == sources_digest()
    assert measured_shape(engine) == (1, 1, 1080, 1920)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Pretend that there is a GPU; return what is asked to be made."""
    asked: list[tuple[str, str]] = []

    def make(engine: Engine, runtime: str, precision: str, threads: int | None) -> Sleeper:
        asked.append((runtime, precision))
        return Sleeper(runtime, FAST_MS, measured_shape(engine))

    monkeypatch.setattr(runtimes, "gpu_runs_torch", lambda: True)
    monkeypatch.setattr(runtimes, "gpu_of_torch", lambda device: Gpu("NVIDIA L4", "8.9", "580.20"))
    monkeypatch.setattr(runtimes, "_make", make)
    return asked


def test_auto_measures_nothing_where_there_is_one_runtime(
    gpu: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes.tensorrt_library, "is_installed", lambda: False)
    assert load_generator(student(), GeneratorSettings()).runtime == "cuda"
    assert gpu == [("cuda", "fp16")]


def test_auto_measures_what_is_there(
    gpu: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(runtimes.tensorrt_library, "is_installed", lambda: True)
    monkeypatch.setenv("STREAMSR_CACHE", str(tmp_path))
    monkeypatch.setattr(choosing, "launch_ms", lambda generator, shape, dtype: len(generator.runtime))
    assert load_generator(student(), GeneratorSettings()).runtime == "cuda"
    assert gpu == [("cuda", "fp16"), ("tensorrt", "fp16")]
    assert (tmp_path / "runtimes.json").is_file()


@pytest.mark.parametrize(
    ("capability", "name", "settings", "depth", "expected"),
    [
        ("9.0", "fast-x2", GeneratorSettings(), 8, ["cuda", "fused"]),
        ("12.0", "tiny-x2", GeneratorSettings(precision="fp16"), 8, ["cuda", "fused"]),
        ("8.9", "fast-x2", GeneratorSettings(), 8, ["cuda"]),
        ("9.0", "fast-x2", GeneratorSettings(), 10, ["cuda"]),
        ("9.0", "fast-x2", GeneratorSettings(precision="bf16"), 8, ["cuda"]),
    ],
)
def test_auto_tries_the_fused_kernel_where_it_may_win(
    gpu: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capability: str,
    name: str,
    settings: GeneratorSettings,
    depth: int,
    expected: list[str],
) -> None:
    monkeypatch.setattr(runtimes.tensorrt_library, "is_installed", lambda: False)
    monkeypatch.setattr(runtimes, "gpu_of_torch", lambda device: Gpu("NVIDIA X", capability, "580.20"))
    monkeypatch.setenv("STREAMSR_CACHE", str(tmp_path))
    monkeypatch.setattr(choosing, "launch_ms", lambda generator, shape, dtype: -len(generator.runtime))
    made = load_generator(find_engine(name), settings, bit_depth=depth)
    assert [runtime for runtime, _ in gpu] == expected
    assert made.runtime == expected[-1]


def test_the_fused_kernel_serves_small_students_alone(tmp_path: Path) -> None:
    assert [serves(find_engine(name)) for name in ("tiny-x2", "fast-x2", "fast-x4", "bicubic-x2")] == [True] * 3 + [
        False
    ]
    assert not serves(random_engine("srgan-x2", tmp_path / "srgan-x2", num_blocks=1))
    assert not serves(random_engine("quality-x2", tmp_path / "quality-x2", num_blocks=1))


@pytest.mark.parametrize(("precision", "depth"), [("fp32", 8), ("bf16", 8), ("auto", 10)])
def test_the_fused_kernel_takes_8_bits_in_fp16_alone(precision: Any, depth: int) -> None:
    settings = GeneratorSettings(runtime="fused", precision=precision)
    with pytest.raises(EngineError, match=r"fused expects 8-bit samples and fp16.*use --runtime cuda"):
        load_generator(student(), settings, bit_depth=depth)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("runtime", ["fused", "cuda", "tensorrt"])
def test_a_runtime_by_name_without_a_gpu_is_one_line(runtime: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamsr.runtimes.tensorrt.find_library", lambda: None)
    with pytest.raises(EngineError, match=rf"^{runtime}: expected an NVIDIA GPU") as caught:
        load_generator(student(), GeneratorSettings(runtime=runtime))
    assert "\n" not in str(caught.value)


def test_generators_on_a_gpu_time_their_own_launches() -> None:
    class OnGpu(Sleeper):
        is_gpu = True

        def launch_ms(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> float:
            assert shape == SHAPE
            assert dtype == np.uint8
            return 0.25

    generator: Any = OnGpu("cuda", SLOW_MS)
    assert choosing.launch_ms(generator, SHAPE, np.uint8) == 0.25
    assert generator.dtypes == []


def test_auto_leaves_tensorrt_out_where_it_has_not_the_precision(
    gpu: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes.tensorrt_library, "is_installed", lambda: True)
    load_generator(student(), GeneratorSettings(precision="bf16"))
    assert gpu == [("cuda", "bf16")]


def test_interpolation_is_never_measured(gpu: list[tuple[str, str]]) -> None:
    assert load_generator(bicubic_engine(2), GeneratorSettings()).runtime == "bicubic"
    assert gpu == []


class Painter(Sleeper):
    """A generator whose pictures are not those of the others: shifted, brighter, or no numbers."""

    def __init__(self, runtime: str, ms: float, change: Callable[[Pictures], Pictures]) -> None:
        super().__init__(runtime, ms)
        self.change = change

    def generate(self, pictures: Pictures, out: Pictures | None = None) -> Pictures:
        return self.change(super().generate(pictures).copy())


def brighter(levels: float, share: float = 1.0) -> Callable[[Pictures], Pictures]:
    """Return what makes a share of the samples brighter, where they stay below white."""

    def change(pictures: Pictures) -> Pictures:
        unit = 255.0 if pictures.dtype == np.float32 else 1.0
        chosen = np.random.default_rng(1).random(pictures.shape) < share
        return np.where(chosen & (pictures * unit < 240), pictures + levels / unit, pictures).astype(pictures.dtype)

    return change


def nowhere(pictures: Pictures) -> Pictures:
    return np.full_like(pictures, np.nan) if pictures.dtype == np.float32 else 255 - pictures


WRONG = [lambda pictures: np.roll(pictures, 1, axis=3), brighter(3, 0.1), brighter(2), nowhere]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("change", WRONG)
def test_a_runtime_that_computes_wrongly_never_wins_and_is_named(
    memory: Path, change: Any, dtype: Any, caplog: pytest.LogCaptureFixture
) -> None:
    workshop = Workshop(tensorrt=SLOW_MS, cuda=SLOW_MS)
    workshop.candidates = {"fused": lambda: Painter("fused", FAST_MS, change), **workshop.candidates}
    made = choose(workshop, memory, dtype=dtype)
    assert made.runtime == "cuda"
    (record,) = caplog.records
    assert record.getMessage() == notices_of(made)[0]
    assert "fused is left out, cuda is used: its pictures are not those of cuda: " in record.getMessage()
    (entry,) = json.loads(memory.read_text()).values()
    assert list(entry["measured_ms"]) == ["cuda", "tensorrt"]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("change", [brighter(2, 0.4), brighter(1)])
def test_what_half_precision_changes_is_not_wrong(memory: Path, change: Any, dtype: Any) -> None:
    workshop = Workshop(cuda=SLOW_MS)
    workshop.candidates["fused"] = lambda: Painter("fused", FAST_MS, change)
    assert choose(workshop, memory, dtype=dtype).runtime == "fused"


def test_without_the_reference_the_others_are_measured_all_the_same(memory: Path) -> None:
    assert choose(Workshop(cuda=EngineError("no"), tensorrt=SLOW_MS, fused=FAST_MS), memory).runtime == "fused"


def test_no_more_than_two_generators_are_kept_and_the_losers_are_freed(memory: Path) -> None:
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most: list[int] = []

    def maker(name: str, ms: float) -> Callable[[], Generator]:
        def make() -> Generator:
            made = Sleeper(name, ms)
            alive.add(made)
            most.append(len(alive))
            if name == "broken":
                raise EngineError("broken: no memory left")
            generator: Generator = made
            return generator

        return make

    speeds = {"cuda": 4.0, "tensorrt": 1.0, "broken": 0.0, "fused": 2.0}
    made = fastest_generator(
        {name: maker(name, ms) for name, ms in speeds.items()}, facts=FACTS, shape=SHAPE, dtype=np.uint8, memory=memory
    )
    assert made.runtime == "tensorrt"
    assert most == [1, 2, 2, 2]
    assert list(alive) == [made]


def test_what_several_programs_measure_at_once_is_all_remembered(memory: Path) -> None:
    def write(number: int) -> None:
        choosing.remember(memory, f"key {number}", choosing.Choice({"cuda": 1.0}, {}), FACTS)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(24)))
    assert len(json.loads(memory.read_text())) == 24


def test_a_lock_that_is_not_given_costs_only_the_memory(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "LOCK_S", 0.0)
    memory.parent.mkdir()
    with locked(memory.with_suffix(".lock"), name="other", watch=lambda told: None, limit_s=1.0):
        assert choose(Workshop(cuda=FAST_MS), memory).runtime == "cuda"
    assert not memory.exists()


def test_what_is_told_of_a_generator_leaves_the_list_that_its_parts_hold() -> None:
    generator: Any = types.SimpleNamespace(notices=["first"])
    held = generator.notices
    tell(generator, "second")
    held.append("a plan was built again")
    assert notices_of(generator) == ("first", "second", "a plan was built again")
    bare: Any = types.SimpleNamespace()
    tell(bare, "only")
    assert notices_of(bare) == ("only",)
