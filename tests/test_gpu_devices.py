"""Several GPUs in one program: everything runs on the GPU it is for, whichever the thread has as the present one.

There is no GPU here, so what torch and the driver are told is recorded, and what is launched runs on the CPU.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from streamsr import runtimes
from streamsr.batch import archive
from streamsr.batch.local import LocalExecutor, Place, Worker
from streamsr.config import BatchSettings
from streamsr.engine import find_engine
from streamsr.errors import EngineError
from streamsr.runtimes import fused_compile, tensorrt_build, tensorrt_plans
from streamsr.runtimes.cuda import CudaGenerator
from streamsr.runtimes.fused import check_device
from streamsr.runtimes.fused_compile import LoadedKernel
from streamsr.runtimes.gpu_faults import check_gpu, numbered
from streamsr.runtimes.nvidia import VISIBLE, Gpu, visible_name
from streamsr.runtimes.tensorrt_plans import obtain_plan, patch_range


class Gpus:
    """Stands in for torch.cuda on a machine of several GPUs.

    Attributes:
        present: number of the present one.
    """

    def __init__(self, *capabilities: tuple[int, int]) -> None:
        self.capabilities, self.present = capabilities, 0

    def get_device_capability(self, device: torch.device) -> tuple[int, int]:
        return self.capabilities[self.present if device.index is None else device.index]

    @contextmanager
    def device(self, device: torch.device | int) -> Iterator[None]:
        before, self.present = self.present, device if isinstance(device, int) else (device.index or 0)
        yield
        self.present = before

    @contextmanager
    def stream(self, cuda_stream: Any) -> Iterator[None]:
        with self.device(cuda_stream.device):
            yield

    @contextmanager
    def graph(self, graph: Any, *, pool: Any, stream: Any, capture_error_mode: str) -> Iterator[None]:
        graph.waited_for = self.present
        assert capture_error_mode == "thread_local"
        with self.stream(stream):
            yield

    def current_stream(self) -> Any:
        return SimpleNamespace(cuda_stream=100 + self.present, synchronize=lambda: None)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Gpus:
    found = Gpus((9, 0), (8, 9), (6, 1))
    for name in ("get_device_capability", "device", "stream", "graph", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, getattr(found, name))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(found.capabilities))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: found.present)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    return found


def test_a_gpu_without_a_number_gets_that_of_the_present_one_and_keeps_it(gpus: Gpus) -> None:
    gpus.present = 1
    device = check_gpu(torch.device("cuda"))
    gpus.present = 0
    assert device == torch.device("cuda", 1)
    assert check_gpu(device) == numbered(device) == device


def test_what_was_asked_for_is_named_where_the_gpu_is_too_old(gpus: Gpus) -> None:
    with pytest.raises(EngineError, match=r"^tensorrt: expected a GPU of compute capability 7\.0 or more, got 6\.1"):
        check_gpu(torch.device("cuda:2"), "tensorrt")


@pytest.mark.parametrize("check", [check_gpu, check_device], ids=["cuda", "fused"])
def test_a_gpu_that_is_not_there_or_too_old_is_one_line(gpus: Gpus, check: Any) -> None:
    with pytest.raises(EngineError, match=r"^cuda: expected one of 3 GPUs, got number 3; use cuda:0$"):
        check(torch.device("cuda:3"))
    with pytest.raises(EngineError, match=r"compute capability .*got 6\.1"):
        check(torch.device("cuda:2"))


@pytest.fixture
def second(gpus: Gpus) -> CudaGenerator:
    """A generator of the second GPU, whose network runs on the CPU."""
    generator, device = CudaGenerator(find_engine("tiny-x2"), precision="fp32", device="cpu"), torch.device("cuda:1")
    generator.device, generator.is_gpu, generator.graphs = device, True, True
    generator.cuda_stream = SimpleNamespace(device=device)
    return generator


def test_a_generator_launches_on_its_own_gpu(
    gpus: Gpus, second: CudaGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched: list[int] = []

    def enlarge(pictures: Tensor, out: Tensor) -> None:
        launched.append(gpus.present)

    monkeypatch.setattr(second.network, "enlarge", enlarge)
    second.enlarge(torch.zeros(1), torch.zeros(1))
    assert launched == [1]
    assert gpus.present == 0


@pytest.fixture
def cudnn() -> Iterator[Any]:
    """Return torch's settings of cuDNN, and restore how float32 is rounded."""
    yield torch.backends.cudnn
    torch.backends.cudnn.allow_tf32 = True


@pytest.mark.parametrize("of_user", [("tf32", "tf32"), ("none", "tf32"), ("ieee", "ieee")])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_float32_is_not_rounded_to_tf32_and_what_the_user_set_is_restored(
    cudnn: Any, second: CudaGenerator, monkeypatch: pytest.MonkeyPatch, precision: str, of_user: tuple[str, str]
) -> None:
    cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision = of_user
    found: list[str] = []
    second.precision = precision
    monkeypatch.setattr(second.network, "enlarge", lambda pictures, out: found.append(cudnn.conv.fp32_precision))
    second.enlarge(torch.zeros(1), torch.zeros(1))
    assert ("tf32" in found) is (precision == "fp16" and of_user[0] == "tf32")
    assert (cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision) == of_user


def test_a_capture_runs_on_the_generators_gpu_and_waits_for_it(
    gpus: Gpus, second: CudaGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, launched = SimpleNamespace(replay="replay", waited_for=None), []
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
    assert second.capture(lambda: launched.append(gpus.present)) == "replay"
    assert launched == [1, 1, 1]
    assert graph.waited_for == 1
    assert gpus.present == 0


class Driver:
    """Stands in for the CUDA driver's library: notes the context and the CUDA stream of every launch."""

    def __init__(self, gpus: Gpus) -> None:
        self.gpus, self.context, self.launches = gpus, 0, []

    def cuCtxGetCurrent(self, context: Any) -> int:  # noqa: N802
        context._obj.value = 10 + self.gpus.present
        return 0

    def cuCtxSetCurrent(self, context: Any) -> int:  # noqa: N802
        self.context = context.value
        return 0

    def cuLaunchKernel(self, function: Any, *arguments: Any) -> int:  # noqa: N802
        self.launches.append((self.context, arguments[7].value))
        return 0

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: 0


def test_the_fused_kernel_is_launched_on_the_gpu_it_was_loaded_on(gpus: Gpus, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(gpus)
    monkeypatch.setattr(fused_compile, "driver_library", lambda: driver)
    kernels = []
    for number in (0, 1):
        with torch.cuda.device(number):
            kernels.append(LoadedKernel(b"machine code", shared_bytes=0, threads=32))
    for present in (0, 1):
        gpus.present = present
        for kernel in kernels:
            kernel.launch(1, [0], [1])
        assert gpus.present == present
    assert driver.launches == [(10, 100), (11, 101)] * 2


@pytest.mark.parametrize(
    ("shown", "names"),
    [(None, ["0", "1"]), ("", ["0", "1"]), ("2,5", ["2", "5"]), ("GPU-8f1, MIG-3c", ["GPU-8f1", "MIG-3c"])],
)
def test_a_child_process_is_shown_the_gpu_that_this_one_means(
    monkeypatch: pytest.MonkeyPatch, shown: str | None, names: list[str]
) -> None:
    monkeypatch.delenv(VISIBLE, raising=False)
    if shown is not None:
        monkeypatch.setenv(VISIBLE, shown)
    assert [visible_name(index) for index in range(2)] == names


def test_a_plan_is_built_on_the_gpu_that_it_is_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    class Cache:
        def obtain(self, key: Any, command: Any, **options: Any) -> str:
            command(tmp_path)
            asked.append(tmp_path / "request")
            return "plan"

    monkeypatch.setattr(tensorrt_plans, "PlanCache", Cache)
    engine, library = find_engine("tiny-x2"), SimpleNamespace(name="tensorrt", version="10")
    options: dict[str, Any] = {"precision": "fp16", "samples": "uint8", "library": library}
    made: Any = obtain_plan(
        engine, shapes=patch_range(engine), gpu=Gpu("NVIDIA L4", "8.9", ""), visible="GPU-8f1", **options
    )
    assert made == "plan"
    assert json.loads(asked[0].read_text())["visible"] == "GPU-8f1"
    seen: list[str] = []

    def refuse(name: str) -> None:
        seen.append(os.environ[VISIBLE])
        raise ImportError(name)

    monkeypatch.setenv(VISIBLE, "0,GPU-8f1")
    monkeypatch.setattr(tensorrt_build.importlib, "import_module", refuse)
    assert tensorrt_build.main(tmp_path) == EngineError.exit_code
    assert seen == ["GPU-8f1"]


def test_workers_of_an_archive_use_no_gpu_that_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "gpu_runs_torch", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv(VISIBLE, "3,5")
    executor = archive.local_executor(find_engine("tiny-x2"), BatchSettings(), None, 9)
    assert isinstance(executor, LocalExecutor)
    assert [place.gpu for place in executor._places] == [0, 1]
    started: list[str] = []
    monkeypatch.setattr("streamsr.batch.local.subprocess.Popen", lambda *_, env, **__: started.append(env[VISIBLE]))
    for place in executor._places:
        Worker(Place(place.cores, place.gpu)).connection.close()
    assert started == ["3", "5"]
