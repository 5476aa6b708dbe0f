"""GPUs that ``auto`` does not use: the processor does the work, and one line says what is missing; none is silent."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from streamsr import doctor, runtimes
from streamsr.config import GeneratorSettings, LiveSettings, UpscaleSettings
from streamsr.engine import bicubic_engine, find_engine
from streamsr.errors import EngineError
from streamsr.fallback import make_upscaler
from streamsr.job import upscale_file
from streamsr.live.opening import Facts, builder
from streamsr.progress import summary
from streamsr.runtimes import lacks, load_generator, notices_of
from streamsr.runtimes.nvidia import VISIBLE, Gpu
from streamsr.upscaler import FrameUpscaler
from tests.videos import make_video

CARD = Gpu("NVIDIA X", "8.9", "535.1")
BUSY = RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable\nCompile with TORCH_USE_CUDA_DSA")


class Machine:
    """A machine with one GPU, as far as its driver and torch say."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.patch = monkeypatch
        self.gpus: list[Gpu] = [CARD]
        monkeypatch.delenv(VISIBLE, raising=False)
        monkeypatch.setattr(lacks, "find_gpus", lambda: self.gpus)
        monkeypatch.setattr(runtimes, "find_gpus", lambda: self.gpus)
        self.torch("13.0", usable=False)

    def torch(self, cuda: str | None, *, usable: bool) -> None:
        self.patch.setattr(torch.version, "cuda", cuda)
        self.patch.setattr(torch.cuda, "is_available", lambda: usable)

    def fails(self, fault: Exception) -> None:
        """Let torch use the GPU, on which nothing can be loaded."""

        def make(*_: Any, **__: Any) -> None:
            raise fault

        self.torch("13.0", usable=True)
        self.patch.setattr(runtimes, "fastest_on_gpu", make)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def settings(**changes: Any) -> GeneratorSettings:
    return GeneratorSettings(**{"engine": "tiny-x2", "threads": 1, **changes})


def told(**changes: Any) -> str:
    generator = load_generator(find_engine("tiny-x2"), settings(**changes))
    assert generator.runtime == "openvino"
    (line,) = notices_of(generator)
    assert "\n" not in line
    assert line.startswith(f"no GPU is used, {generator.description} is: ")
    return line


def test_a_torch_without_cuda_and_an_old_driver_are_named(machine: Machine) -> None:
    machine.torch(None, usable=False)
    assert told().endswith(f"torch {torch.__version__} is built for no GPU")
    machine.torch("13.0", usable=False)
    assert told().endswith("for CUDA 13.0 cannot use NVIDIA X: driver 535.1")
    machine.patch.setenv(VISIBLE, "7")
    assert told().endswith("driver 535.1, CUDA_VISIBLE_DEVICES=7")


def test_an_old_gpu_is_named_without_torch(machine: Machine) -> None:
    machine.gpus = [Gpu("NVIDIA Old", "6.1", "535.1")]
    machine.patch.setattr(torch.cuda, "is_available", lambda: pytest.fail("asked torch"))
    assert told().endswith("NVIDIA Old has compute capability 6.1, 7.0 is the least")


@pytest.mark.parametrize("shown", [None, "", "-1"])
def test_nothing_is_said_of_gpus_that_are_not_there_or_that_the_user_hides(machine: Machine, shown: str | None) -> None:
    if shown is None:
        machine.gpus = []
    else:
        machine.patch.setenv(VISIBLE, shown)
    assert notices_of(load_generator(find_engine("tiny-x2"), settings())) == ()


@pytest.mark.parametrize(
    "fault", [EngineError("tiny-x2: expected a GPU of compute capability 7.0"), BUSY, ImportError("libcudnn.so.9")]
)
def test_a_gpu_that_cannot_be_loaded_on_gives_way_to_the_processor(machine: Machine, fault: Exception) -> None:
    machine.fails(fault)
    assert told().endswith(" ".join(str(fault).split()))
    assert "busy" in told(precision="bf16") or fault is not BUSY


def test_int8_says_that_it_leaves_the_gpu_alone(machine: Machine) -> None:
    machine.torch("13.0", usable=True)
    assert told(precision="int8").endswith("is the processor's; --runtime tensorrt tries it on NVIDIA X")


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_a_runtime_that_was_asked_for_by_name_is_no_surprise(machine: Machine, runtime: Any) -> None:
    assert notices_of(load_generator(find_engine("tiny-x2"), settings(runtime=runtime))) == ()
    assert notices_of(load_generator(bicubic_engine(2), settings())) == ()


def test_fp8_names_what_is_missing(machine: Machine) -> None:
    with pytest.raises(EngineError, match=r"fp8 runs in tensorrt on an NVIDIA GPU, got torch .* cannot use NVIDIA X"):
        load_generator(find_engine("tiny-x2"), settings(precision="fp8"))


def test_fp16_names_the_gpu_that_is_missing(machine: Machine) -> None:
    def refused() -> str:
        with pytest.raises(
            EngineError, match=r"^tiny-x2: expected an NVIDIA GPU for fp16, got .*; use --prec"
        ) as caught:
            load_generator(find_engine("tiny-x2"), settings(precision="fp16"))
        return str(caught.value)

    assert "cannot use NVIDIA X: driver 535.1" in refused()
    machine.fails(BUSY)
    assert "devices are busy" in refused()
    machine.gpus = []
    machine.torch(None, usable=False)
    assert "got no NVIDIA GPU; use" in refused()


@pytest.mark.parametrize("precision", ["fp8", "fp16"])
def test_no_gpu_is_said_in_the_same_words_whatever_needs_it(machine: Machine, precision: str) -> None:
    def refused() -> str:
        with pytest.raises(EngineError) as caught:
            load_generator(find_engine("tiny-x2"), settings(precision=precision))
        return str(caught.value)

    machine.patch.setenv(VISIBLE, "")
    assert "got NVIDIA X is hidden by CUDA_VISIBLE_DEVICES; use --precision auto" in refused()
    machine.gpus = []
    assert "got no NVIDIA GPU; use --precision auto" in refused()


def test_every_runtime_says_that_torch_is_built_without_cuda(machine: Machine) -> None:
    machine.torch(None, usable=False)
    for runtime in ("cuda", "fused"):
        with pytest.raises(EngineError, match=f"^{runtime}: expected an NVIDIA GPU.*, got a torch built without CUDA;"):
            load_generator(find_engine("tiny-x2"), settings(runtime=runtime))


def test_a_precision_that_a_processor_has_not_comes_with_a_remedy() -> None:
    with pytest.raises(EngineError, match=r"openvino runs .*, got fp8; use --precision auto$"):
        load_generator(find_engine("tiny-x2"), settings(runtime="openvino", precision="fp8"))


def test_a_job_says_once_why_it_runs_on_the_processor(tmp_path: Path, machine: Machine) -> None:
    video = make_video(tmp_path / "in.mp4", num_frames=2)
    how = UpscaleSettings(generator=settings(precision="fp32"), codec="ffv1", lossless=True)
    made = upscale_file(video, tmp_path / "out.mkv", settings=how)
    (line,) = [notice for notice in json.loads(made.sidecar.read_text())["notices"] if "no GPU is used" in notice]
    assert sum(line in shown for shown in summary(made)) == 1
    description = doctor.describe_source(str(video), "tiny-x2")
    assert sum("no GPU is used" in notice for notice in description["would do"]["notices"]) == 1


def test_a_live_session_says_once_why_it_runs_on_the_processor(machine: Machine) -> None:
    live, lines = LiveSettings(settings()), list[str]()
    facts = Facts("testsrc:endoscopy", live)
    session: Any = SimpleNamespace(monitor=SimpleNamespace(say=lines.append), summary=dict)
    facts.session = session
    for _ in range(2):
        builder(find_engine("tiny-x2"), live, facts)(8)
    (line,) = lines
    assert "cannot use NVIDIA X" in line


def test_a_number_of_gpus_that_cannot_be_loaded_on_stays_an_error_that_says_why(machine: Machine) -> None:
    machine.fails(BUSY)
    machine.patch.setattr(runtimes, "usable_gpus", lambda: [0, 1])
    with pytest.raises(EngineError, match=r"^--gpus: expected .*all CUDA-capable devices are busy.*; leave --gpus out"):
        make_upscaler(find_engine("tiny-x2"), settings(gpus=2), bit_depth=8)
    upscaler = make_upscaler(find_engine("tiny-x2"), settings(gpus="all"), bit_depth=8)
    assert isinstance(upscaler, FrameUpscaler)
    assert len(upscaler.notices) == 2


@pytest.mark.parametrize("runtime", ["cuda", "tensorrt", "fused"])
def test_a_gpu_that_is_taken_is_one_line_where_it_was_asked_for_by_name(machine: Machine, runtime: Any) -> None:
    def make(*_: Any, **__: Any) -> None:
        raise BUSY

    machine.patch.setattr(runtimes, "_make_on_gpu", make)
    with pytest.raises(EngineError, match=r"^tiny-x2: the GPU failed: CUDA error: all CUDA-capable devices") as caught:
        load_generator(find_engine("tiny-x2"), settings(runtime=runtime))
    assert "\n" not in str(caught.value)
