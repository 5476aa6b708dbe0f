"""A file's job with a fault at every stage and boundary, at random moments: it ends, says why, and leaves nothing.

Every seed is a fault of one kind at one place; `SEEDS` of them run here, and ``STREAMSR_SEEDS=5000`` runs more.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from streamsr import fallback, job, results
from streamsr.config import GeneratorSettings, UpscaleSettings
from streamsr.errors import StreamsrError
from streamsr.job import upscale_file
from streamsr.runtimes.bicubic import BicubicGenerator
from tests.faults import RAISED, WAITS, Fault, FaultyGenerator, FaultySource, Held, faulty_sink
from tests.videos import make_video, read_numbers

NUM_FRAMES = 8
SEEDS = int(os.environ.get("STREAMSR_SEEDS", "400"))

PLACES = ("source", "generator", "show", "pass through", "close")

needs_proc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts what is open in /proc")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("clip") / "clip.mkv", num_frames=NUM_FRAMES, audio=True)


def kinds_at(place: str) -> list[str]:
    """Return what can go wrong at a place."""
    spoils = {"source": ["shape"], "generator": ["shape", "nan"], "show": ["shape"]}
    return [*RAISED, *WAITS, *spoils.get(place, [])]


def fault_of(seed: int) -> tuple[str, Fault]:
    """Return the place and the fault of a seed."""
    chance = random.Random(seed)
    place = chance.choice(PLACES)
    kind = chance.choice(kinds_at(place))
    return place, Fault(kind, 0 if place == "close" else chance.randrange(NUM_FRAMES))


class RgbBicubic(BicubicGenerator):
    """Bicubic interpolation that reads RGB in floating point, as the SRGAN does."""

    channels = 3


def break_at(patch: pytest.MonkeyPatch, place: str, fault: Fault) -> None:
    """Put a fault into the next job."""
    if place == "source":
        opened = job.open_source
        patch.setattr(job, "open_source", lambda *given, **options: FaultySource(opened(*given, **options), fault))
    elif place == "generator":
        made: Any = RgbBicubic(2) if fault.kind == "nan" else BicubicGenerator(2)
        faulty = FaultyGenerator(made, fault, channels=made.channels)
        patch.setattr(fallback, "load_generator", lambda *given, **options: faulty)
    else:
        patch.setattr(results, "RecordingSink", faulty_sink(fault, place))


def settings() -> UpscaleSettings:
    """Return settings that launch whole frames and encode quickly."""
    return UpscaleSettings(
        generator=GeneratorSettings(engine="bicubic-x2", launch="frame", reuse_unchanged=False, skip_surround=False),
        preset="ultrafast",
    )


def run(clip: Path, folder: Path, seed: int) -> None:
    """Run the job of a seed and check how it ends."""
    place, fault = fault_of(seed)
    output = folder / "out.mkv"
    with pytest.MonkeyPatch.context() as patch:
        break_at(patch, place, fault)
        failure: BaseException | None = None
        try:
            result = upscale_file(clip, output, settings=settings())
        except StreamsrError as cause:
            failure = cause
    told = f"seed {seed}: {fault.kind} at call {fault.at} of {place}"
    if fault.kind in WAITS:
        assert failure is None, told
        assert result.complete, told
        assert read_numbers(output, 2) == list(range(NUM_FRAMES)), told
    elif fault.raised is not None:
        assert failure is not None, told
        assert fault.raised in (failure, failure.__cause__), told
        assert "\n" not in str(failure), told
    elif fault.kind != "shape" and fault.calls > fault.at:
        assert failure is not None, told
    assert_tidy(folder, told, failed=failure is not None)


def assert_tidy(folder: Path, told: str, *, failed: bool) -> None:
    """Nothing hidden is left; a result that failed is not called complete; what is kept can be played."""
    left = {path.name for path in folder.iterdir()}
    assert not [name for name in left if name.startswith(".")], f"{told}: {left}"
    assert all(name.startswith(("out.mkv", "out.partial.mkv", "out.part2")) for name in left), f"{told}: {left}"
    for partial in folder.glob("*.partial.mkv"):
        numbers = read_numbers(partial, 2)
        assert numbers == list(range(len(numbers))), told


@needs_proc
def test_every_fault_ends_the_job_with_its_cause_and_leaves_nothing_behind(clip: Path, tmp_path: Path) -> None:
    upscale_file(clip, tmp_path / "warm.mkv", settings=settings())  # loads what is loaded once
    before = Held.now()
    for seed in range(SEEDS):
        folder = tmp_path / str(seed)
        folder.mkdir()
        run(clip, folder, seed)
    assert Held.now() == before


def test_seeds_reach_every_kind_of_fault_at_every_place() -> None:
    reached = {(place, fault.kind) for place, fault in map(fault_of, range(SEEDS))}
    assert reached == {(place, kind) for place in PLACES for kind in kinds_at(place)}


def test_numbers_that_are_none_end_the_job_and_say_what_to_do(clip: Path, tmp_path: Path) -> None:
    fault = Fault("nan", 2)
    with pytest.MonkeyPatch.context() as patch:
        break_at(patch, "generator", fault)
        with pytest.raises(StreamsrError, match=r"not a number.*--precision fp32") as raised:
            upscale_file(clip, tmp_path / "out.mkv", settings=settings())
    assert raised.value.exit_code == 4
