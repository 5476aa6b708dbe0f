"""Jobs and pictures on a GPU's upscaler, played on the CPU here: the same pixels in order, and on when it fails."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import streamsr
from streamsr import fallback
from streamsr import progress as progress_display
from streamsr.capture import open_source
from streamsr.config import GeneratorSettings, UpscaleSettings
from streamsr.engine import Engine, find_engine
from streamsr.errors import EngineError, GpuFault, Interrupted
from streamsr.frame import Frame, PlaneLayout
from streamsr.job import JobProgress, JobResult, upscale_file
from streamsr.plans import PlanCache
from streamsr.progress import summary
from streamsr.runtimes import Generator, load_generator
from streamsr.runtimes.cuda import CudaGenerator
from tests.test_plans import KEY, builder, building, is_gone
from tests.videos import draw_picture, make_video, read_numbers

NUM_FRAMES = 9
LOST = RuntimeError("CUDA error: unspecified launch failure")


pytestmark = pytest.mark.usefixtures("one_thread")


class Bench:
    """Stands in for GPUs: generators of the ``cuda`` runtime on the CPU, which fail at a launch if asked to."""

    def __init__(self) -> None:
        self.fails_at: int | None = None
        self.fault: Exception = LOST
        self.launches = 0
        self.made: list[CudaGenerator] = []

    def load(self, engine: Engine, settings: GeneratorSettings, *, bit_depth: int = 8) -> Generator:
        if settings.runtime != "cuda":
            return load_generator(engine, settings, bit_depth=bit_depth)
        generator = CudaGenerator(engine, precision="fp32", device="cpu")
        generator.notices.append("a plan was built again")
        capture = generator.capture

        def counting(launch: Callable[[], None]) -> Callable[[], None]:
            call = capture(launch)

            def counted() -> None:
                if self.launches == self.fails_at:
                    raise self.fault
                self.launches += 1
                call()

            return counted

        generator.capture = counting  # type: ignore[method-assign]
        self.made.append(generator)
        return generator


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    found = Bench()
    monkeypatch.setattr(fallback, "load_generator", found.load)
    return found


def settings_for(runtime: Any, **changes: Any) -> UpscaleSettings:
    options = {"precision": "fp32", "threads": 1, "skip_surround": False, "launch": "frame", **changes}
    generator = GeneratorSettings(engine="tiny-x2", runtime=runtime, **options)
    return UpscaleSettings(generator=generator, codec="ffv1", lossless=True)


def planes_of(result: JobResult) -> list[tuple[Any, ...]]:
    with open_source(str(result.outputs[0])) as source:
        return [item.planes for item in source if isinstance(item, Frame)]


def run(video: Path, runtime: str, **changes: Any) -> JobResult:
    return upscale_file(video, video.with_name(f"{runtime}.mkv"), settings=settings_for(runtime, **changes))


def levels_off(made: JobResult, expected: JobResult) -> list[int]:
    """Return the largest difference of each frame."""
    return [
        max(int(np.abs(plane.astype(int) - other).max()) for plane, other in zip(planes, others, strict=True))
        for planes, others in zip(planes_of(made), planes_of(expected), strict=True)
    ]


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
def test_a_job_on_the_device_gives_the_processors_pixels_in_order(tmp_path: Path, bench: Bench, pix_fmt: str) -> None:
    codec = "libx264" if pix_fmt == "yuv420p" else "ffv1"
    video = make_video(tmp_path / "in.mkv", num_frames=NUM_FRAMES, pix_fmt=pix_fmt, codec=codec, audio=True)
    made = run(video, "cuda")
    assert read_numbers(made.outputs[0], 2) == list(range(NUM_FRAMES))
    assert made.complete
    assert bench.launches == NUM_FRAMES
    expected = run(video, "torch")
    assert max(levels_off(made, expected)) <= 1
    sidecar = json.loads(made.sidecar.read_text())
    assert sidecar["engine"]["runtime"] == bench.made[0].description
    for share in ("within_one_level", "within_one_level_before"):
        assert sidecar["consistency"][share] == pytest.approx(expected.details["consistency"][share], abs=0.05)
    assert sidecar["launch"]["kind"] == "frame"
    assert sidecar["timings"]["upscale"]["num"] == NUM_FRAMES
    assert set(sidecar["timings"]) == {"capture", "upscale", "sink", "submit", "collect"}
    assert "a plan was built again" in sidecar["notices"]


def test_frames_that_do_not_change_are_not_launched_again(tmp_path: Path, bench: Bench) -> None:
    still = [np.vstack([draw_picture(3), np.full((24, 64), 128, np.uint8)])] * NUM_FRAMES
    video = make_video(tmp_path / "still.mkv", codec="ffv1", num_frames=NUM_FRAMES, pictures=still)
    made = run(video, "cuda", consistency=False)
    assert bench.launches == 1
    assert made.details["consistency"] is None
    assert made.details["patches"]["unchanged"] == made.details["patches"]["total"] * (NUM_FRAMES - 1) // NUM_FRAMES


@pytest.mark.parametrize("fails_at", [0, 1, 5, NUM_FRAMES - 1])
@pytest.mark.parametrize("fault", [LOST, torch.OutOfMemoryError("CUDA out of memory")], ids=["lost", "memory"])
def test_a_job_whose_gpu_fails_goes_on_and_says_so(
    tmp_path: Path, bench: Bench, fails_at: int, fault: Exception
) -> None:
    video = make_video(tmp_path / "in.mp4", num_frames=NUM_FRAMES)
    bench.fails_at, bench.fault = fails_at, fault
    made = run(video, "cuda")
    assert made.complete
    assert read_numbers(made.outputs[0], 2) == list(range(NUM_FRAMES))
    sidecar = json.loads(made.sidecar.read_text())
    (notice,) = [line for line in sidecar["notices"] if "went on with" in line]
    assert notice in made.notices
    assert any(notice in line for line in summary(made))
    first, _, then = sidecar["engine"]["runtime"].partition(", then ")
    assert first == bench.made[0].description
    assert then
    assert notice.endswith(then)
    assert sidecar["timings"]["upscale"]["num"] == NUM_FRAMES
    before, after = levels_off(made, run(video, "torch")), levels_off(made, run(video, "openvino", precision="auto"))
    done = max(fails_at - 2, 0)  # with three in flight, two may have been under way
    assert max(before[:done], default=0) <= 1
    assert max(after[fails_at:]) <= 1
    assert max(map(min, zip(before, after, strict=True))) <= 1


def test_a_failure_that_is_not_the_gpus_ends_the_job(tmp_path: Path, bench: Bench) -> None:
    bench.fails_at, bench.fault = 4, EngineError("tensorrt: expected a plan that loads here, got none")
    video = make_video(tmp_path / "in.mp4", num_frames=NUM_FRAMES)
    with pytest.raises(EngineError, match="expected a plan that loads"):
        run(video, "cuda")


def test_pictures_in_memory_go_through_the_device_and_on_without_it(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    picture = np.stack([draw_picture(number) for number in (1, 2, 3)], axis=2)
    with streamsr.Upscaler("tiny-x2", runtime="cuda") as upscaler:
        assert upscaler.description == bench.made[0].description
        first = upscaler.upscale(picture)
        bench.fails_at = bench.launches
        with caplog.at_level(logging.WARNING):
            second = upscaler.upscale(picture)
        third = upscaler.upscale(picture)
    assert "the GPU failed" in caplog.text
    assert np.abs(first.astype(int) - second).mean() < 1  # INT8 there
    assert np.array_equal(second, third)


def test_progress_names_what_runs(tmp_path: Path, bench: Bench) -> None:
    seen: list[str] = []
    settings = settings_for("cuda")
    video = make_video(tmp_path / "in.mp4", num_frames=NUM_FRAMES)
    upscale_file(video, tmp_path / "out.mkv", settings=settings, watch=lambda progress: seen.append(progress.runtime))
    assert set(seen) == {bench.made[0].description}


@pytest.fixture
def interrupting() -> Iterator[Callable[[float], None]]:
    """Return what sends this program an interrupt after some seconds."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timers: list[threading.Timer] = []

    def interrupt(after_s: float) -> None:
        timers.append(threading.Timer(after_s, lambda: os.kill(os.getpid(), signal.SIGINT)))
        timers[-1].start()

    yield interrupt
    for timer in timers:
        timer.join()
    signal.signal(signal.SIGINT, before)


def compiling(bench: Bench, monkeypatch: pytest.MonkeyPatch, compile_for: Callable[..., None]) -> None:
    """Let the generators of a bench compile."""
    monkeypatch.setattr(CudaGenerator, "compile_for", lambda generator, *asked: compile_for(*asked))


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_an_interrupt_ends_a_job_that_waits_for_a_plan_at_once(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch, interrupting: Callable[[float], None]
) -> None:
    number, video = tmp_path / "number", make_video(tmp_path / "in.mp4", num_frames=2)
    told: list[JobProgress] = []

    def watch(progress: JobProgress) -> None:
        told.append(progress)
        if len(told) == 5:
            interrupting(0.05)

    compiling(bench, monkeypatch, lambda *asked: building(PlanCache(tmp_path / "plans"), number))
    with pytest.raises(Interrupted, match="nothing had been written"):
        upscale_file(video, tmp_path / "out.mkv", settings=settings_for("cuda"), watch=watch)
    assert is_gone(int(number.read_text()))
    assert told[-1].elapsed_s < 10
    assert all("plan of fast-x2: " in progress.step and progress.runtime == "" for progress in told)
    assert not list(tmp_path.glob("out*"))


def test_plans_are_there_before_the_first_frame_and_their_steps_are_told(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, int]] = []
    threads: list[threading.Thread] = []
    code = "(folder / 'progress').write_text('Timing 3/12'); time.sleep(0.5); write()"

    def compile_for(shape: tuple[int, ...], dtype: torch.dtype) -> None:
        threads.append(threading.current_thread())
        assert (shape, dtype) == ((1, 1, 48, 64), torch.uint8)
        PlanCache(tmp_path / "plans").obtain(KEY, builder(code))

    compiling(bench, monkeypatch, compile_for)
    video = make_video(tmp_path / "in.mp4", num_frames=NUM_FRAMES)
    watch = lambda progress: seen.append((progress.step, progress.captured))  # noqa: E731
    upscale_file(video, tmp_path / "out.mkv", settings=settings_for("cuda"), watch=watch)
    assert threads == [threading.main_thread()]
    told = [step for step, _ in seen if step]
    assert told
    assert "plan of fast-x2: Timing 3/12, " in told[-1]
    assert seen[: len(told)] == [(step, 0) for step in told]
    assert seen[-1] == ("", NUM_FRAMES)


@pytest.mark.parametrize("fault", [GpuFault("the GPU failed"), EngineError("expected its plan to be built")])
def test_a_gpu_that_fails_before_the_first_frame_ends_no_job_and_a_missing_plan_does(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch, fault: EngineError
) -> None:
    def compile_for(*asked: object) -> None:
        raise fault

    compiling(bench, monkeypatch, compile_for)
    video = make_video(tmp_path / "in.mp4", num_frames=2)
    if isinstance(fault, GpuFault):
        assert run(video, "cuda").complete
        return
    with pytest.raises(EngineError, match="expected its plan"):
        run(video, "cuda")
    assert not list(tmp_path.glob("cuda*"))


@pytest.mark.parametrize("terminal", [False, True])
def test_displays_show_what_is_compiled(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100)
    monkeypatch.setattr(progress_display, "Console", lambda **options: console)
    monkeypatch.setattr(progress_display, "PLAIN_INTERVAL_S", 0.0)
    first = JobProgress("a.mkv", None, 0, 0, 0.0, 0, 3.0, "", "plan of fast-x2: Timing 3/12, 3 s")
    then = JobProgress("a.mkv", 9, 5, 4, 0.5, 0, 4.0, "TensorRT")
    with progress_display.open_display() as display:
        display.update(first)
        if isinstance(display, progress_display.BarDisplay):
            display.bars.refresh()
        display.update(then)
    text = out.getvalue()
    assert "plan of fast-x2: Timing 3/12, 3 s" in text
    assert text.index("Timing") < text.index("TensorRT") < text.index("4/9 frames")


def test_a_job_on_the_processor_loads_no_torch(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    video = make_video(tmp_path / "in.mp4", num_frames=2)
    program = (
        f"import sys, streamsr\nstreamsr.upscale_file({str(video)!r}, {str(tmp_path / 'out.mkv')!r})\n"
        "assert 'openvino' in sys.modules\nassert 'torch' not in sys.modules"
    )
    if torch.cuda.is_available():
        pytest.skip("a GPU is asked for through torch")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.needs_cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("runtime", ["auto", "cuda"])
def test_a_job_on_a_gpu_keeps_order_and_pixels(tmp_path: Path, runtime: str) -> None:
    video = make_video(tmp_path / "in.mp4", num_frames=NUM_FRAMES)
    made = run(video, runtime, precision="fp16")
    assert read_numbers(made.outputs[0], 2) == list(range(NUM_FRAMES))
    assert made.details["consistency"]["samples"] > 0
    assert max(levels_off(made, run(video, "torch"))) <= 3  # a sample that is tipped over moves its corrections


@pytest.mark.parametrize("live", [False, True])
def test_no_launch_is_made_ready_late_where_no_frame_may_wait(bench: Bench, live: bool) -> None:
    settings = GeneratorSettings(engine="tiny-x2", runtime="cuda")
    upscaler = fallback.make_upscaler(find_engine("tiny-x2"), settings, bit_depth=8, trial_first=live)
    assert isinstance(upscaler, fallback.FallbackUpscaler)
    assert all(each._routes is not live for each in upscaler._gpus._upscalers)


@pytest.mark.parametrize("runtime", ["auto", "tensorrt"])
def test_a_plan_that_cannot_be_built_is_no_end_where_the_runtime_was_ours_to_choose(
    monkeypatch: pytest.MonkeyPatch, bench: Bench, runtime: Any
) -> None:
    engine = find_engine("tiny-x2")
    settings = GeneratorSettings(engine="tiny-x2", runtime=runtime)

    def load(engine: Engine, settings: GeneratorSettings, *, bit_depth: int = 8) -> Generator:
        generator: Any = bench.load(engine, replace(settings, runtime="cuda"), bit_depth=bit_depth)
        if settings.runtime != "cuda":
            generator.runtime, generator.description = "tensorrt", "TensorRT"

            def compile_for(*_: Any) -> None:
                raise EngineError("tiny-x2: expected its plan to be built within 900 s, it was not")

            generator.compile_for = compile_for
        made: Generator = generator
        return made

    monkeypatch.setattr(fallback, "load_generator", load)
    upscaler = fallback.make_upscaler(engine, settings, bit_depth=8)
    assert isinstance(upscaler, fallback.FallbackUpscaler)
    if runtime != "auto":
        with pytest.raises(EngineError, match="within 900 s"):
            upscaler.prepare(64, 48, PlaneLayout())
        return
    upscaler.prepare(64, 48, PlaneLayout())
    assert upscaler.generator.runtime == "cuda"
    assert any("within 900 s, it was not; went on with" in notice for notice in upscaler.notices)
