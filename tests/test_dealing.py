"""Several GPUs, played on the CPU here: every frame comes out once, in its order, whichever GPU fails when."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsr import fallback, runtimes
from streamsr.batch.archive import enlarge_archive
from streamsr.batch.outputs import parse_destination
from streamsr.choices import parse_gpus
from streamsr.config import BatchSettings, GeneratorSettings, LiveSettings, UpscaleSettings
from streamsr.dealing import DealingUpscaler
from streamsr.device.upscaler import DeviceUpscaler, InFlight
from streamsr.engine import Engine, bicubic_engine, find_engine
from streamsr.errors import EngineError, GpuFault, InputError, UsageError
from streamsr.fallback import FallbackUpscaler, make_upscaler
from streamsr.frame import Colour, Frame, PlaneLayout
from streamsr.job import upscale_file
from streamsr.live.opening import open_session
from streamsr.runtimes import Generator, load_alike, refuse_missing_gpus, usable_gpus
from streamsr.runtimes.cuda import CudaGenerator
from streamsr.upscaler import FrameUpscaler
from tests.videos import make_video, read_numbers

COLOUR = Colour(6, False, 6, 6)
KINDS = [
    (PlaneLayout((1, 1), 8), (20, 12)),
    (PlaneLayout((1, 1), 8), (13, 9)),
    (PlaneLayout(None, 8), (20, 12)),
    (PlaneLayout((1, 0), 10), (16, 8)),
]
NUM_FRAMES = 9


pytestmark = pytest.mark.usefixtures("one_thread")


class Card(DeviceUpscaler):
    """A GPU's upscaler on the CPU that fails for good at its so-manieth frame.

    Args:
        fails_at: number of the frame; None never fails.
        where: ``submit`` or ``collect``.
        options: of the upscaler.

    Attributes:
        taken: pts of the frames that it was given.
    """

    def __init__(self, fails_at: int | None = None, where: str = "collect", **options: Any) -> None:
        super().__init__(generator(), **options)
        self.fails_at, self.where, self.done, self.failed = fails_at, where, 0, False
        self.taken: list[int] = []

    def submit(self, frame: Frame) -> None:
        if self.where == "submit":
            self._perhaps_fail()
        assert not self.failed or self.where == "collect"
        super().submit(frame)
        self.taken.append(frame.pts)

    def collect(self) -> Frame:
        if self.where == "collect":
            self._perhaps_fail()
        return super().collect()

    def drain(self) -> None:
        super().drain()
        if self.failed:
            raise GpuFault("tiny-x2: the GPU failed while it was drained")

    def _perhaps_fail(self) -> None:
        self.failed = self.failed or self.done == self.fails_at
        self.done += 1
        if self.failed:
            raise GpuFault("tiny-x2: the GPU failed: CUDA error")


def generator(name: str = "") -> CudaGenerator:
    made = CudaGenerator(find_engine("tiny-x2"), precision="fp32", device="cpu")
    made.description += name
    return made


@cache
def picture(kind: int, seed: int) -> tuple[np.ndarray[Any, Any], ...]:
    layout, size = KINDS[kind]
    rng = np.random.default_rng(10 * kind + seed)
    sizes = [size, *([layout.chroma_size(*size)] * 2 if layout.chroma_shift is not None else [])]
    return tuple(rng.integers(0, layout.peak + 1, (tall, wide)).astype(layout.dtype) for wide, tall in sizes)


def frame_of(number: int, kind: int = 0, seed: int | None = None) -> Frame:
    planes = picture(kind, number if seed is None else seed)
    return Frame(planes, KINDS[kind][0], COLOUR, number, Fraction(1, 25), sequence=number)


@cache
def expected(kind: int, seed: int) -> tuple[np.ndarray[Any, Any], ...]:
    """Return what one GPU that never fails makes of a picture."""
    return DeviceUpscaler(generator()).upscale(frame_of(0, kind, seed)).planes


@cache
def num_patches(kind: int) -> int:
    alone = DeviceUpscaler(generator())
    alone.upscale(frame_of(0, kind))
    return alone.count.total


def run(
    upscaler: DealingUpscaler | FallbackUpscaler, frames: Sequence[Frame], *, lag: int | None = None
) -> list[Frame]:
    """Enlarge frames as the pipeline does, with so many in flight."""
    made, lag = [], min(lag or upscaler.frames_in_flight, upscaler.frames_in_flight)
    for frame in frames:
        while upscaler.num_in_flight >= lag:
            made.append(upscaler.collect())
        upscaler.submit(frame)
    while upscaler.num_in_flight:
        made.append(upscaler.collect())
    return made


def assert_same(frame: Frame, planes: tuple[Any, ...]) -> None:
    assert all(np.array_equal(plane, other) for plane, other in zip(frame.planes, planes, strict=True))


def test_frames_take_turns_and_come_out_in_order_whatever_their_kind() -> None:
    cards = [Card(), Card(), Card()]
    kinds = [0, 0, 1, 1, 2, 0, 3, 3, 0, 0, 1]
    frames = [frame_of(number, kind) for number, kind in enumerate(kinds)]
    upscaler = DealingUpscaler(cards)
    assert upscaler.plan is None
    assert upscaler.frames_in_flight == 9
    made = run(upscaler, frames)
    assert [frame.pts for frame in made] == list(range(len(kinds)))
    for frame, enlarged in zip(frames, made, strict=True):
        assert (enlarged.layout, enlarged.width) == (frame.layout, 2 * frame.width)
        assert_same(enlarged, expected(kinds[frame.pts], frame.pts))
    assert [card.taken for card in cards] == [list(range(first, len(kinds), 3)) for first in range(3)]
    assert upscaler.count.total == upscaler.count.launched == sum(map(num_patches, kinds))
    assert {name: clock.num for name, clock in upscaler.clocks.items()} == {"submit": 11, "collect": 11}
    assert upscaler.plan == cards[0].plan
    assert upscaler.notices == []


def test_unchanged_frames_are_shown_again_and_measurements_add_up() -> None:
    still = [frame_of(number, seed=0) for number in range(8)]
    upscaler = DealingUpscaler([Card(consistency=True), Card(consistency=True)])
    made = run(upscaler, still)
    assert len({id(frame.planes[0]) for frame in made}) == 2
    assert upscaler.count.total == 8 * num_patches(0)
    assert upscaler.count.unchanged == 6 * num_patches(0)
    assert upscaler.consistency.samples == 2 * 20 * 12


@pytest.mark.parametrize("where", ["submit", "collect"])
@pytest.mark.parametrize("fails_at", [0, 1, 3])
def test_a_gpu_that_fails_leaves_its_frames_to_the_other(where: str, fails_at: int) -> None:
    cards = [Card(), Card(fails_at, where)]
    upscaler = DealingUpscaler(cards)
    made = run(upscaler, [frame_of(number) for number in range(NUM_FRAMES)])
    assert [frame.pts for frame in made] == list(range(NUM_FRAMES))
    for frame in made:
        assert_same(frame, expected(0, frame.pts))
    assert upscaler.count.total == NUM_FRAMES * num_patches(0)
    assert upscaler.notices == ["GPU 1: tiny-x2: the GPU failed: CUDA error; went on with GPU 0"]
    way = cards[0].generator.description
    assert upscaler.description == f"GPUs 0 and 1: {way}, then without GPU 1"


def test_the_last_gpu_that_fails_is_the_callers_to_go_on_from() -> None:
    upscaler = DealingUpscaler([Card(1), Card(0, "submit")])
    upscaler.submit(frame_of(0))
    upscaler.submit(frame_of(1))
    assert upscaler.collect().pts == 0
    with pytest.raises(GpuFault, match=r"^GPU 0: tiny-x2: the GPU failed"):
        upscaler.collect()
    alone = DealingUpscaler([Card(0)])
    alone.submit(frame_of(0))
    with pytest.raises(GpuFault, match=r"^tiny-x2: the GPU failed"):
        alone.collect()
    assert alone.notices == []
    upscaler.drain()
    alone.drain()


def test_gpus_are_named_by_their_numbers_and_by_what_runs_on_them() -> None:
    class Numbered(Card):
        def __init__(self, number: int, name: str, fails_at: int | None = None) -> None:
            super().__init__(fails_at, "submit")
            self.generator: Any = SimpleNamespace(
                device=torch.device("cuda", number), description=f"torch {name}", notices=[f"plan of {number}"]
            )

        def submit(self, frame: Frame) -> None:
            self._perhaps_fail()
            self._flying.append(InFlight(frame, self))  # type: ignore[arg-type]

        def collect(self) -> Frame:
            return self._flying.popleft().frame

        def drain(self) -> None:
            self._flying.clear()

    cards = [Numbered(2, "A"), Numbered(0, "B"), Numbered(5, "A", 0)]
    upscaler = DealingUpscaler(cards)
    assert upscaler.description == "GPUs 2 and 5: torch A; GPU 0: torch B"
    run(upscaler, [frame_of(number) for number in range(4)])
    assert upscaler.description == "GPUs 2 and 5: torch A; GPU 0: torch B, then without GPU 5"
    *made, lost = upscaler.notices
    assert made == ["plan of 2", "plan of 0", "plan of 5"]
    assert lost.startswith("GPU 5: ")
    assert lost.endswith("; went on with GPUs 2 and 0")
    assert DealingUpscaler(cards[1:2]).description == "torch B"


def test_drained_frames_are_forgotten_and_not_counted() -> None:
    upscaler = DealingUpscaler([Card(), Card()])
    for number in range(5):
        upscaler.submit(frame_of(number))
    upscaler.drain()
    assert upscaler.num_in_flight == upscaler.count.total == 0
    upscaler.submit(frame_of(7))
    assert_same(upscaler.collect(), expected(0, 7))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="expected a GPU or more"):
        DealingUpscaler([])
    upscaler = DealingUpscaler([Card(frames_in_flight=1), Card(frames_in_flight=2)])
    with pytest.raises(UsageError, match="expected a frame in flight"):
        upscaler.collect()
    for number in range(3):
        upscaler.submit(frame_of(number))
    with pytest.raises(UsageError, match="fewer than 3 frames in flight"):
        upscaler.submit(frame_of(3))


def test_a_frame_that_is_refused_is_not_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    upscaler = DealingUpscaler([Card(), Card()])
    upscaler.submit(frame_of(0))
    plain = Card.submit

    def picky(card: Card, frame: Frame) -> None:
        if frame.colour.matrix == 8:
            raise InputError("expected a colour matrix that RGB can be reached from")
        plain(card, frame)

    monkeypatch.setattr(Card, "submit", picky)
    with pytest.raises(InputError, match="expected a colour matrix"):
        upscaler.submit(replace(frame_of(1), colour=replace(COLOUR, matrix=8)))
    upscaler.submit(frame_of(2))
    assert [upscaler.collect().pts, upscaler.collect().pts] == [0, 2]
    assert upscaler.num_in_flight == 0


FAULTS = st.tuples(st.one_of(st.none(), st.integers(0, 6)), st.sampled_from(["submit", "collect"]))
FRAMES = st.lists(st.tuples(st.integers(0, len(KINDS) - 1), st.integers(0, 2)), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.lists(FAULTS, min_size=1, max_size=4), FRAMES, st.integers(1, 8))
def test_whichever_gpus_fail_every_frame_comes_out_once_in_order_with_the_same_picture(
    faults: list[tuple[int | None, str]], kinds: list[tuple[int, int]], lag: int
) -> None:
    told: list[GpuFault] = []

    def spare(fault: GpuFault) -> tuple[FrameUpscaler, str]:
        told.append(fault)
        made: Any = DeviceUpscaler(generator())
        return made, "went on"

    cards = [Card(fails_at, where, frames_in_flight=2) for fails_at, where in faults]
    upscaler = FallbackUpscaler(DealingUpscaler(cards), spare)
    frames = [frame_of(number, *kind) for number, kind in enumerate(kinds)]
    made = run(upscaler, frames, lag=lag)
    assert [frame.pts for frame in made] == list(range(len(kinds)))
    for frame, kind in zip(made, kinds, strict=True):
        assert_same(frame, expected(*kind))
    assert upscaler.count.total == sum(num_patches(kind) for kind, _ in kinds)
    lost = sum(card.failed for card in cards)
    assert len(told) == (lost == len(cards))
    assert len(upscaler.notices) == lost
    upscaler.drain()


# which GPUs are used


class Machine:
    """Stands in for a machine with GPUs, on which generators are made that run on the CPU.

    Attributes:
        capabilities: of its GPUs.
        made: (runtime, precision, device) of each generator.
        refused: device -> why it cannot be used.
    """

    def __init__(self) -> None:
        self.capabilities: list[tuple[int, int]] = [(9, 0), (8, 9)]
        self.made: list[tuple[str, str, str]] = []
        self.generators: list[CudaGenerator] = []
        self.refused: dict[str, str] = {}

    def make(self, engine: Engine, runtime: str, precision: str, device: str) -> Generator:
        self.made.append((runtime, precision, device))
        if device in self.refused:
            raise EngineError(self.refused[device])
        self.generators.append(CudaGenerator(engine, precision="fp32", device="cpu"))
        self.generators[-1].precision = precision
        return self.generators[-1]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine()
    monkeypatch.setattr(runtimes, "_make_on_gpu", found.make)
    monkeypatch.setattr(runtimes, "gpu_runs_torch", lambda: bool(found.capabilities))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(found.capabilities))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: found.capabilities[number])
    return found


def asked(gpus: Any, **changes: Any) -> GeneratorSettings:
    return GeneratorSettings(**{"engine": "tiny-x2", "runtime": "cuda", "precision": "fp16", "gpus": gpus, **changes})


@pytest.mark.parametrize(
    ("gpus", "devices"), [(1, ["cuda"]), (2, ["cuda", "cuda:1"]), ("all", ["cuda", "cuda:1", "cuda:3"])]
)
def test_the_runtime_of_the_first_gpu_is_made_on_as_many_others_as_are_asked_for(
    machine: Machine, gpus: Any, devices: list[str]
) -> None:
    machine.capabilities = [(9, 0), (8, 9), (6, 1), (9, 0)]
    first = machine.make(find_engine("tiny-x2"), "cuda", "bf16", "cuda")
    assert len(load_alike(find_engine("tiny-x2"), first, gpus)) == len(devices)
    assert machine.made == [("cuda", "bf16", device) for device in devices]


def test_the_present_gpu_comes_first(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.capabilities = [(9, 0), (9, 0), (6, 1), (9, 0)]
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert usable_gpus() == [3, 0, 1]


def test_nothing_is_looked_for_where_one_gpu_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "gpu_runs_torch", lambda: pytest.fail("looked for GPUs"))
    refuse_missing_gpus(1)
    assert load_alike(find_engine("tiny-x2"), generator(), 1)


@pytest.mark.parametrize(
    ("capabilities", "gpus", "line"),
    [
        ([(9, 0), (8, 9)], 3, "--gpus: expected 3 GPUs, got 2; use --gpus all"),
        ([(9, 0), (6, 1)], 2, "--gpus: expected 2 GPUs, got 1; use --gpus all"),
        ([], 2, "--gpus: expected GPUs that torch can use, got none; leave --gpus out"),
    ],
)
def test_more_gpus_than_there_are_is_one_line_before_anything_is_made(
    machine: Machine, capabilities: list[tuple[int, int]], gpus: int, line: str
) -> None:
    machine.capabilities = capabilities
    with pytest.raises(EngineError) as caught:
        make_upscaler(find_engine("tiny-x2"), asked(gpus), bit_depth=8)
    assert str(caught.value) == line
    assert machine.made == []


@pytest.mark.parametrize("wrong", [0, -1, "some", 2.5])
def test_numbers_of_gpus_that_cannot_be_are_refused(wrong: Any) -> None:
    with pytest.raises(UsageError, match=r"^--gpus: expected a number of GPUs from 1 on, or all, got"):
        make_upscaler(find_engine("tiny-x2"), asked(wrong), bit_depth=8)
    with pytest.raises(UsageError, match=r"^--gpus: expected a number of GPUs from 1 on, or all, got"):
        parse_gpus(str(wrong))
    assert [parse_gpus("1"), parse_gpus("12"), parse_gpus("all")] == [1, 12, "all"]


def test_a_gpu_that_cannot_run_it_is_named(machine: Machine) -> None:
    machine.refused["cuda:1"] = "fused: expected compute capability 8.0 or above, got 7.5; use --runtime cuda"
    with pytest.raises(EngineError, match=r"^GPU 1: fused: expected compute capability"):
        make_upscaler(find_engine("tiny-x2"), asked(2), bit_depth=8)


def test_all_gpus_are_those_that_can_run_it_and_the_others_are_named(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.capabilities = [(9, 0), (7, 5), (8, 9), (9, 0)]
    machine.refused["cuda:1"] = "fused: expected compute capability 8.0 or above, got 7.5; use --runtime cuda"
    make = machine.make

    def busy(engine: Engine, runtime: str, precision: str, device: str) -> Generator:
        if device == "cuda:2":
            raise RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable")
        return make(engine, runtime, precision, device)

    monkeypatch.setattr(runtimes, "_make_on_gpu", busy)
    upscaler = make_upscaler(find_engine("tiny-x2"), asked("all"), bit_depth=8)
    assert isinstance(upscaler, FallbackUpscaler)
    assert len(upscaler._gpus._upscalers) == 2
    old, taken = upscaler.notices
    assert old.startswith("--gpus all: GPU 1 is left out: fused: expected compute capability 8.0")
    assert taken.startswith("--gpus all: GPU 2 is left out: tiny-x2: the GPU failed: CUDA error: all CUDA-capable")


@pytest.mark.parametrize("engine", ["tiny-x2", "bicubic-x2"])
def test_gpus_for_what_runs_on_the_processor_are_refused_or_said_to_be_unused(machine: Machine, engine: str) -> None:
    found = bicubic_engine(2) if engine == "bicubic-x2" else find_engine(engine)
    options: dict[str, Any] = {"runtime": "torch", "precision": "fp32", "threads": 1}
    with pytest.raises(EngineError, match=r"^--gpus: expected a generator that runs on GPUs, got .*; leave --gpus out"):
        make_upscaler(found, asked(2, **options), bit_depth=8)
    upscaler = make_upscaler(found, asked("all", **options), bit_depth=8)
    assert list(upscaler.notices) == [f"--gpus all: no GPU is used, {upscaler.description} is"]
    assert make_upscaler(found, asked(1, **options), bit_depth=8).notices == ()


def test_archives_and_live_sessions_take_one_gpu_for_each_piece_of_work(tmp_path: Path) -> None:
    several = UpscaleSettings(asked(2))
    display: Any = None
    with pytest.raises(UsageError, match=r"^--gpus: expected 1, since each worker has a GPU, and files are dealt out"):
        enlarge_archive([str(tmp_path)], parse_destination(f"{tmp_path}/out"), BatchSettings(upscale=several), display)
    live = LiveSettings(asked("all"), view="none")
    with (
        pytest.raises(
            UsageError, match=r"^--gpus: expected 1, since a session enlarges each frame on one GPU, got all"
        ),
        open_session("testsrc:endoscopy", live),
    ):
        pass


# a whole job


def upscale(video: Path, **changes: Any) -> Any:
    options = {"precision": "fp32", "threads": 1, "launch": "frame", **changes}
    how = UpscaleSettings(GeneratorSettings(engine="tiny-x2", runtime="cuda", **options), codec="ffv1", lossless=True)
    seen: list[str] = []
    made = upscale_file(video, video.with_name("out.mkv"), settings=how, watch=lambda now: seen.append(now.runtime))
    return made, seen


def failing(generator: CudaGenerator, launches: int) -> None:
    """Let a generator's launches fail after some, from capturing on."""
    capture = generator.capture

    def counting(launch: Any) -> Any:
        call = capture(launch)

        def counted() -> None:
            nonlocal launches
            launches -= 1
            if launches < 0:
                raise RuntimeError("CUDA error: unspecified launch failure")
            call()

        return counted

    generator.capture = counting  # type: ignore[method-assign]


def test_a_job_on_several_gpus_keeps_the_order_and_names_them(tmp_path: Path, machine: Machine) -> None:
    video = make_video(tmp_path / "in.mp4", num_frames=NUM_FRAMES)
    made, seen = upscale(video, gpus=2)
    assert read_numbers(made.outputs[0], 2) == list(range(NUM_FRAMES))
    assert made.complete
    sidecar = json.loads(made.sidecar.read_text())
    first = machine.generators[0].description
    assert sidecar["engine"]["runtime"] == f"GPUs 0 and 1: {first}"
    assert set(seen) == {f"GPUs 0 and 1: {first}"}
    assert sidecar["settings"]["generator"]["gpus"] == 2
    assert sidecar["timings"]["upscale"]["num"] == NUM_FRAMES
    assert set(sidecar["timings"]) == {"capture", "upscale", "sink", "submit", "collect"}


@pytest.mark.parametrize("launches", [(0, 99), (3, 99), (99, 2), (2, 3), (0, 0)])
def test_a_job_goes_on_with_the_gpus_that_are_left_and_then_the_processor(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch, launches: tuple[int, int]
) -> None:
    video = make_video(tmp_path / "in.mp4", num_frames=NUM_FRAMES)
    make = fallback.load_alike

    def doomed(engine: Engine, first: Generator, gpus: Any) -> list[Any]:
        made = make(engine, first, gpus)
        for each, number in zip(made, launches, strict=True):
            failing(each, number)
        return made

    monkeypatch.setattr(fallback, "load_alike", doomed)
    made, _ = upscale(video, gpus="all")
    assert made.complete
    assert read_numbers(made.outputs[0], 2) == list(range(NUM_FRAMES))
    sidecar = json.loads(made.sidecar.read_text())
    told = [line for line in sidecar["notices"] if "went on with" in line]
    lost = [number for number, left in enumerate(launches) if left < 99]
    assert len(told) == len(lost)
    assert {line.partition(":")[0] for line in told} == {f"GPU {number}" for number in lost}
    first, _, then = sidecar["engine"]["runtime"].partition(", then ")
    assert first == f"GPUs 0 and 1: {machine.generators[0].description}"
    if len(lost) == 1:
        assert then == f"without GPU {lost[0]}"
        assert sidecar["patches"]["total"] % NUM_FRAMES == 0
        assert told[0].endswith(f"went on with GPU {1 - lost[0]}")
    else:
        assert told[-1].endswith(f"went on with {then}")
    assert set(told) <= set(made.notices)


@pytest.mark.needs_cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs")
@pytest.mark.parametrize("runtime", ["cuda", "fused", "tensorrt"])
def test_two_gpus_give_the_picture_of_one(runtime: Any) -> None:
    engine = find_engine("tiny-x2")
    one, two = (
        make_upscaler(engine, GeneratorSettings(engine="tiny-x2", runtime=runtime, gpus=gpus), bit_depth=8)
        for gpus in (1, 2)
    )
    assert isinstance(one, FallbackUpscaler)
    assert isinstance(two, FallbackUpscaler)
    frames = [frame_of(number) for number in range(12)]
    for made, wanted in zip(run(two, frames), run(one, frames), strict=True):
        assert made.pts == wanted.pts
        for plane, other in zip(made.planes, wanted.planes, strict=True):
            assert np.abs(plane.astype(int) - other).max() <= 1
    assert two.notices == []
