"""A file's job with a fault at every stage and boundary, at random moments: it ends, says why, and leaves nothing.

Every seed is a fault of one kind at one place; `SEEDS` of them run here, and ``STREAMSR_SEEDS=5000`` runs more.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamsr import fallback, job, results, sidecar
from streamsr.config import GeneratorSettings, UpscaleSettings
from streamsr.errors import StreamsrError
from streamsr.job import JobResult, upscale_file
from streamsr.runtimes.bicubic import BicubicGenerator
from streamsr.sinks import recording
from tests.faults import (
    RAISED,
    WAITS,
    Fault,
    FaultyGenerator,
    FaultySource,
    Held,
    faulty_draft,
    faulty_movie,
    faulty_sink,
)
from tests.videos import make_video, read_numbers

NUM_FRAMES = 8
SEEDS = int(os.environ.get("STREAMSR_SEEDS", "400"))

CALLS = {
    **dict.fromkeys(("source", "generator", "show"), NUM_FRAMES),
    "pass through": 4,
    **dict.fromkeys(("source open", "source close", "build", "sink open", "flush", "publish", "sidecar"), 1),
}
"""Place -> how often it is called at least in a job that goes well."""

SPOILS = {"source": ("shape",), "generator": ("shape", "nan"), "show": ("shape",)}
FAULTS = [(place, kind) for place in CALLS for kind in (*RAISED, *WAITS, *SPOILS.get(place, ()))]
"""What can go wrong, and where: each has its turn."""

WHOLE_BEFORE = ("source close", "sidecar")
"""Places that a result is whole at."""

DEADLINE_S = 60.0
"""A job of eight tiny frames that takes longer hangs, however slow the machine."""

needs_proc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts what is open in /proc")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("clip") / "clip.mkv", num_frames=NUM_FRAMES, audio=True)


def fault_of(seed: int) -> tuple[str, Fault]:
    """Return the place and the fault of a seed."""
    place, kind = FAULTS[seed % len(FAULTS)]
    return place, Fault(kind, random.Random(seed).randrange(CALLS[place]))


class RgbBicubic(BicubicGenerator):
    """Bicubic interpolation that reads RGB in floating point, as the SRGAN does."""

    channels = 3


def break_at(patch: pytest.MonkeyPatch, place: str, fault: Fault) -> None:
    """Put a fault into the next job."""
    made: Any = RgbBicubic(2) if fault.kind == "nan" else BicubicGenerator(2)
    opened, plain = job.open_source, sidecar.plain

    def first(do: Callable[..., Any]) -> Callable[..., Any]:
        def struck(*given: Any, **options: Any) -> Any:
            fault.strikes()
            return do(*given, **options)

        return struck

    if place in ("source", "source close"):
        patch.setattr(job, "open_source", lambda *given, **how: FaultySource(opened(*given, **how), fault, place))
    elif place == "source open":
        patch.setattr(job, "open_source", first(opened))
    elif place == "generator":
        faulty = FaultyGenerator(made, fault, channels=made.channels)
        patch.setattr(fallback, "load_generator", lambda *given, **how: faulty)
    elif place == "build":
        patch.setattr(fallback, "load_generator", first(fallback.load_generator))
    elif place == "flush":
        patch.setattr(recording, "MovieFile", faulty_movie(fault))
    elif place == "publish":
        patch.setattr(recording, "Draft", faulty_draft(fault))
    elif place == "sidecar":
        patch.setattr(sidecar, "plain", first(plain))
    else:
        patch.setattr(results, "RecordingSink", faulty_sink(fault, place))


def settings() -> UpscaleSettings:
    """Return settings that launch whole frames and encode quickly."""
    return UpscaleSettings(
        generator=GeneratorSettings(engine="bicubic-x2", launch="frame", reuse_unchanged=False, skip_surround=False),
        preset="ultrafast",
    )


class Attempt(threading.Thread):
    """A job in a thread of its own, so that one that hangs is seen."""

    def __init__(self, clip: Path, output: Path) -> None:
        super().__init__(daemon=True)
        self.clip, self.output = clip, output
        self.result: JobResult | None = None
        self.failure: Exception | None = None

    def run(self) -> None:
        """Enlarge the clip; keep how that went."""
        try:
            self.result = upscale_file(self.clip, self.output, settings=settings())
        except Exception as cause:
            self.failure = cause


def causes(failure: BaseException | None) -> list[BaseException]:
    """Return a failure and what led to it."""
    return [] if failure is None else [failure, *causes(failure.__cause__)]


def run(clip: Path, folder: Path, seed: int) -> None:
    """Run the job of a seed and check how it ends."""
    place, fault = fault_of(seed)
    output = folder / "out.mkv"
    told = f"seed {seed}: {fault.kind} at call {fault.at} of {place}"
    with pytest.MonkeyPatch.context() as patch:
        break_at(patch, place, fault)
        attempt = Attempt(clip, output)
        attempt.start()
        attempt.join(DEADLINE_S)
        assert not attempt.is_alive(), f"{told}: hangs"
    result, failure = attempt.result, attempt.failure
    assert fault.struck, f"{told}: never struck"
    if fault.raised is not None:
        assert failure is not None, told
        assert fault.raised in causes(failure), told
        assert "\n" not in str(failure), told
    elif fault.kind in WAITS:
        assert failure is None, f"{told}: {failure}"
    elif fault.kind == "nan" or place == "generator":
        assert isinstance(failure, StreamsrError), told
    else:  # a picture of another size is a new part, or refused
        assert isinstance(failure, StreamsrError) or (folder / "out.part2.mkv").is_file(), told
    assert_tidy(folder, told, failed=failure is not None and place not in WHOLE_BEFORE)
    if fault.kind in WAITS:
        assert result is not None, told
        assert result.complete, told
    if fault.kind in WAITS or place in WHOLE_BEFORE:
        assert read_numbers(output, 2) == list(range(NUM_FRAMES)), told
        assert (folder / "out.mkv.json").is_file() == (place != "sidecar" or fault.kind in WAITS), told


def assert_tidy(folder: Path, told: str, *, failed: bool) -> None:
    """Nothing hidden is left; what failed has not the name of what is complete; what is kept can be played."""
    left = {path.name for path in folder.iterdir()}
    assert not [name for name in left if name.startswith(".")], f"{told}: {left}"
    assert all(name.startswith(("out.mkv", "out.partial.mkv", "out.part2")) for name in left), f"{told}: {left}"
    assert failed != ("out.mkv" in left), f"{told}: {left}"
    for partial in folder.glob("*.partial.mkv"):
        numbers = read_numbers(partial, 2)
        assert numbers == list(range(len(numbers))), told


@needs_proc
def test_every_fault_ends_the_job_with_its_cause_and_leaves_nothing_behind(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    upscale_file(clip, tmp_path / "warm.mkv", settings=settings())  # loads what is loaded once
    before = Held.now()
    for seed in range(SEEDS):
        folder = tmp_path / str(seed)
        folder.mkdir()
        run(clip, folder, seed)
        shutil.rmtree(folder)
        assert not list((tmp_path / "temporary").iterdir()), seed
    assert Held.now() == before


def test_seeds_reach_every_kind_of_fault_at_every_place() -> None:
    reached = {(place, fault.kind) for place, fault in map(fault_of, range(SEEDS))}
    assert reached == set(FAULTS)


def test_a_sidecar_that_cannot_be_written_does_not_hide_why_the_line_failed(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault, unwritten = Fault("full disk", 4), Fault("full disk", 0)
    break_at(monkeypatch, "generator", fault)
    break_at(monkeypatch, "sidecar", unwritten)
    with pytest.raises(StreamsrError) as raised:
        upscale_file(clip, tmp_path / "out.mkv", settings=settings())
    assert unwritten.struck
    assert fault.raised in causes(raised.value)
    assert_tidy(tmp_path, "both", failed=True)


def test_numbers_that_are_none_end_the_job_and_say_what_to_do(clip: Path, tmp_path: Path) -> None:
    fault = Fault("nan", 2)
    with pytest.MonkeyPatch.context() as patch:
        break_at(patch, "generator", fault)
        with pytest.raises(StreamsrError, match=r"not a number.*--precision fp32") as raised:
            upscale_file(clip, tmp_path / "out.mkv", settings=settings())
    assert raised.value.exit_code == 4
