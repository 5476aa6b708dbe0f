"""The plan cache: built once, verified at every load, never loaded for another machine, whatever builders do."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from streamsr.errors import EngineError
from streamsr.plans import FOLDER_VARIABLE, BuildProgress, PlanCache, PlanKey, cache_folder, telling_builds
from streamsr.plans import building as building_room
from streamsr.plans import cache as plans
from streamsr.plans.building import locked, remove_free_lock, try_lock

KEY = PlanKey(
    engine="fast-x2",
    weights_sha256="ab" * 32,
    scale=2,
    shapes="patches 1x1x1x1 to 256x1x52x52 to 2048x1x148x148",
    precision="fp16",
    samples="uint8",
    recipe="0123",
    runtime="tensorrt-rtx",
    runtime_version="1.7",
    gpu="NVIDIA GeForce RTX 4090",
    capability="8.9",
    driver="580.20",
)
CONTENT = b"a plan" * 1000
DEADLINE_S = 20.0
"""What a test waits for something that must happen, before it fails."""

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and permissions of POSIX")


def builder(code: str = "write()") -> Callable[[Path], Sequence[str]]:
    """Return the command of a builder in Python that may write its plan and counts how often it ran."""
    head = (
        "import os, pathlib, signal, subprocess, sys, time\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "def write(content=b'a plan' * 1000): (folder / 'plan').write_bytes(content)\n"
        "with open(folder.parent / 'count.log', 'a') as log: log.write('built\\n')\n"
    )
    return lambda folder: [sys.executable, "-S", "-c", head + code, str(folder)]


def never(folder: Path) -> Sequence[str]:
    raise AssertionError("the plan is there, nothing is built")


def num_built(cache: PlanCache) -> int:
    log = cache.folder / "count.log"
    return len(log.read_text().splitlines()) if log.is_file() else 0


def files_of(cache: PlanCache) -> list[str]:
    """Return what the cache holds but for locks and the builders' log."""
    return sorted(path.name for path in cache.folder.iterdir() if path.suffix not in (".lock", ".log"))


def one_line(error: BaseException) -> str:
    line = str(error)
    assert "\n" not in line
    assert "expected" in line
    return line


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    return PlanCache(tmp_path / "cache" / "plans")


def wait_for(condition: Callable[[], Any]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen"
        time.sleep(0.02)


def test_a_plan_is_built_once_and_then_loaded(cache: PlanCache) -> None:
    first = cache.obtain(KEY, builder())
    assert (first.content, first.built, first.notices) == (CONTENT, True, ())
    second = cache.obtain(KEY, never)
    assert (second.content, second.built, second.notices) == (CONTENT, False, ())
    assert files_of(cache) == [f"{KEY.stem}.json", f"{KEY.stem}.plan"]


def test_the_manifest_beside_a_plan_holds_its_key_and_hash(cache: PlanCache) -> None:
    cache.obtain(KEY, builder())
    manifest = json.loads((cache.folder / f"{KEY.stem}.json").read_text())
    assert manifest["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert PlanKey(**manifest["key"]) == KEY


def other_value(name: str) -> Any:
    return 4 if name == "scale" else f"{getattr(KEY, name)}9"


@pytest.mark.parametrize("name", [field.name for field in fields(PlanKey)])
def test_a_plan_for_another_anything_is_never_loaded(cache: PlanCache, name: str) -> None:
    cache.obtain(replace(KEY, **{name: other_value(name)}), builder("write(b'of another')"))
    plan = cache.obtain(KEY, builder())
    assert plan.content == CONTENT
    assert plan.built


@pytest.mark.parametrize("name", ["gpu", "capability", "driver", "runtime_version", "weights_sha256", "recipe"])
def test_what_made_a_plan_stale_is_said_in_one_line(cache: PlanCache, name: str) -> None:
    cache.obtain(replace(KEY, **{name: other_value(name)}), builder())
    (notice,) = cache.obtain(KEY, builder()).notices
    assert "\n" not in notice
    assert f"{other_value(name)}, here {getattr(KEY, name)}" in notice
    assert "built again" in notice


def test_a_plan_for_other_shapes_is_no_stale_plan(cache: PlanCache) -> None:
    cache.obtain(replace(KEY, shapes="frame 640x480"), builder())
    assert cache.obtain(KEY, builder()).notices == ()


def test_plans_for_two_gpus_live_side_by_side(cache: PlanCache) -> None:
    other = replace(KEY, gpu="NVIDIA L4")
    cache.obtain(KEY, builder())
    cache.obtain(other, builder("write(b'for L4')"))
    assert cache.obtain(KEY, never).content == CONTENT
    assert cache.obtain(other, never).content == b"for L4"


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def swap_hash(path: Path) -> None:
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "sha256": "0" * 64}))


@pytest.mark.parametrize(
    ("ending", "change", "word"),
    [
        ("plan", flip_byte, "SHA-256"),
        ("plan", lambda path: path.write_bytes(b""), "SHA-256"),
        ("json", swap_hash, "SHA-256"),
        ("json", lambda path: path.write_text("{ half a manif"), "manifest"),
        ("json", lambda path: path.write_text('{"key": {"engine": "fast-x2"}}'), "manifest"),
        ("json", lambda path: path.unlink(), "manifest"),
    ],
    ids=["byte", "empty", "hash", "json", "key", "missing"],
)
def test_a_tampered_plan_is_not_loaded_but_built_again(
    cache: PlanCache, ending: str, change: Callable[[Path], Any], word: str
) -> None:
    cache.obtain(KEY, builder("write(b'first')"))
    change(cache.folder / f"{KEY.stem}.{ending}")
    assert cache.read(KEY)[0] is None
    assert word in cache.entries()[0].fault
    plan = cache.obtain(KEY, builder())
    assert plan.content == CONTENT
    assert word in plan.notices[0]
    assert cache.obtain(KEY, never).content == CONTENT


def test_a_plan_under_the_name_of_another_is_not_loaded(cache: PlanCache) -> None:
    other = replace(KEY, driver="570.10")
    cache.obtain(other, builder("write(b'for another driver')"))
    for ending in ("plan", "json"):
        (cache.folder / f"{other.stem}.{ending}").rename(cache.folder / f"{KEY.stem}.{ending}")
    plan = cache.obtain(KEY, builder())
    assert plan.content == CONTENT
    assert "570.10, here 580.20" in plan.notices[0]


@posix
def test_a_killed_builder_leaves_nothing_and_the_next_one_works(cache: PlanCache) -> None:
    with pytest.raises(EngineError) as caught:
        cache.obtain(KEY, builder("write(); os.kill(os.getpid(), signal.SIGKILL)"))
    assert "killed by signal 9" in one_line(caught.value)
    assert files_of(cache) == []
    assert cache.obtain(KEY, builder()).content == CONTENT


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("sys.exit('tensorrt: expected an operator, got Foo')", "expected an operator, got Foo"),
        ("print('first'); print('out of memory'); sys.exit(7)", "failed with code 7: out of memory"),
        ("pass", "wrote nothing"),
        ("write(b'')", "wrote nothing"),
        ("raise OSError(28, 'No space left on device')", "No space left on device"),
    ],
)
def test_a_builder_that_fails_says_why_in_one_line(cache: PlanCache, code: str, words: str) -> None:
    with pytest.raises(EngineError) as caught:
        cache.obtain(KEY, builder(code))
    assert words in one_line(caught.value)
    assert files_of(cache) == []


@posix
def test_a_builder_that_hangs_is_ended_with_its_children(cache: PlanCache, tmp_path: Path) -> None:
    number = tmp_path / "child"
    code = (
        "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(number)!r}).write_text(str(child.pid))\ntime.sleep(60)"
    )
    with pytest.raises(EngineError) as caught:
        cache.obtain(KEY, builder(code), limit_s=1.5)
    assert "within 1.5 s" in one_line(caught.value)
    wait_for(lambda: is_gone(int(number.read_text())))
    assert files_of(cache) == []


def building(cache: PlanCache, number: Path) -> None:
    """Wait for a plan whose builder notes its number and then takes for ever."""
    cache.obtain(KEY, builder(f"pathlib.Path({str(number)!r}).write_text(str(os.getpid())); time.sleep(60)"))


def is_gone(number: int) -> bool:
    """Whether a process has ended; one that nobody waited for counts as ended."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        try:
            os.kill(number, 0)
        except OSError:
            return True
        return False


def test_an_interrupt_ends_the_builder_and_leaves_nothing(cache: PlanCache) -> None:
    def interrupt(progress: BuildProgress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.obtain(KEY, builder("time.sleep(60)"), watch=interrupt)
    assert files_of(cache) == []
    assert cache.obtain(KEY, builder()).built


@pytest.mark.parametrize("kept", [True, False], ids=["in the cache", "elsewhere"])
@pytest.mark.parametrize("kind", [BrokenPipeError, ConnectionError, OSError])
def test_what_a_watch_raises_comes_out_and_ends_the_builder(
    tmp_path: Path, kept: bool, kind: type[OSError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An OSError is no word on the cache's folder: nothing is built again, and nothing is said of that folder."""
    parent, raised, started = tmp_path / "cache", kind("nobody reads"), list[subprocess.Popen[bytes]]()
    if not kept:
        parent.write_text("no folder")
    plain = building_room.kill

    def killed(process: subprocess.Popen[bytes]) -> None:
        started.append(process)
        plain(process)

    def broken(progress: BuildProgress) -> None:
        raise raised

    monkeypatch.setattr(building_room, "kill", killed)
    with pytest.raises(kind) as caught:
        PlanCache(parent / "plans").obtain(KEY, builder("time.sleep(60)"), watch=broken)
    assert caught.value is raised
    (process,) = started
    assert process.returncode
    assert not kept or files_of(PlanCache(parent / "plans")) == []


def test_the_builders_steps_are_told(cache: PlanCache) -> None:
    seen: list[BuildProgress] = []
    code = "(folder / 'progress').write_text('Timing tactics 3/12'); time.sleep(0.5); write()"
    cache.obtain(KEY, builder(code), watch=seen.append)
    assert seen[-1].step == "Timing tactics 3/12"
    assert {progress.name for progress in seen} == {"fast-x2"}
    assert [progress.elapsed_s for progress in seen] == sorted(progress.elapsed_s for progress in seen)


def test_everybody_who_waits_in_a_thread_is_told_and_nobody_else(cache: PlanCache) -> None:
    told: dict[str, list[str]] = {name: [] for name in ("asking", "inner", "outer", "other thread", "before")}
    code = "(folder / 'progress').write_text('Timing 3/12'); time.sleep(0.4); write()"

    def note(name: str) -> Callable[[BuildProgress], None]:
        return lambda progress: told[name].append(progress.step)

    def other() -> None:
        with telling_builds(note("other thread")):
            entered.set()
            done.wait()

    entered, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=other)
    thread.start()
    entered.wait()
    with telling_builds(note("before")):
        pass
    with telling_builds(note("outer")), telling_builds(note("inner")):
        cache.obtain(KEY, builder(code), watch=note("asking"))
    done.set()
    thread.join()
    assert told["outer"] == told["inner"] == told["asking"]
    assert told["outer"][-1] == "Timing 3/12"
    assert told["other thread"] == told["before"] == []


PROGRAM = """
import sys
from pathlib import Path
from tests.test_plans import KEY, builder
from streamsr.plans import PlanCache
steps = set()
plan = PlanCache(Path(sys.argv[1])).obtain(
    KEY, builder("time.sleep(float(%r)); write()"), watch=lambda progress: steps.add(progress.step), limit_s=60
)
print(len(plan.content), plan.built, any("waiting" in step for step in steps))
"""


def start_program(cache: PlanCache, *, seconds: float) -> subprocess.Popen[str]:
    """Start another program that needs the plan; its builder takes so long."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM % seconds, str(cache.folder)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[1],
        start_new_session=True,
    )


def test_two_programs_that_need_a_plan_build_it_once(cache: PlanCache) -> None:
    programs = [start_program(cache, seconds=1.0) for _ in range(2)]
    said = sorted(program.communicate(timeout=DEADLINE_S)[0].split() for program in programs)
    assert said == [[str(len(CONTENT)), "False", "True"], [str(len(CONTENT)), "True", "False"]]
    assert num_built(cache) == 1


@posix
def test_a_program_that_is_killed_while_it_builds_blocks_no_other(cache: PlanCache) -> None:
    program = start_program(cache, seconds=3.0)
    wait_for(lambda: num_built(cache) == 1)
    os.killpg(program.pid, signal.SIGKILL)
    program.communicate()
    plan = cache.obtain(KEY, builder(), limit_s=DEADLINE_S)
    assert plan.content == CONTENT
    assert plan.built


def test_waiting_for_another_program_ends_too(cache: PlanCache) -> None:
    program = start_program(cache, seconds=1.5)
    wait_for(lambda: num_built(cache) == 1)
    with pytest.raises(EngineError) as caught:
        cache.obtain(KEY, never, limit_s=0.3)
    assert "another program" in one_line(caught.value)
    assert program.wait(DEADLINE_S) == 0
    program.communicate()


def test_a_full_disk_costs_the_keeping_and_not_the_plan(cache: PlanCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, target: Path) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr(Path, "replace", full)
    plan = cache.obtain(KEY, builder())
    assert plan.content == CONTENT
    (notice,) = plan.notices
    assert "No space left on device" in notice
    assert FOLDER_VARIABLE in notice
    assert files_of(cache) == []


@posix
@pytest.mark.parametrize("kind", ["a file in the way", "no permission"])
def test_a_cache_that_cannot_be_written_costs_the_keeping_and_not_the_plan(tmp_path: Path, kind: str) -> None:
    parent = tmp_path / "cache"
    if kind == "a file in the way":
        parent.write_text("no folder")
    else:
        parent.mkdir(mode=0o500)
        if os.access(parent, os.W_OK):
            pytest.skip("this user may write anywhere")
    plan = PlanCache(parent / "plans").obtain(KEY, builder())
    assert plan.content == CONTENT
    assert plan.built
    assert "is not kept" in plan.notices[0]
    assert "\n" not in plan.notices[0]


def test_no_room_anywhere_is_an_error_in_one_line(cache: PlanCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(plans.tempfile, "mkdtemp", full)
    with pytest.raises(EngineError) as caught:
        cache.obtain(KEY, never)
    assert "No space left on device" in one_line(caught.value)
    assert files_of(cache) == []


def test_entries_say_what_is_wrong_with_each_plan(cache: PlanCache) -> None:
    whole, damaged = replace(KEY, engine="a"), replace(KEY, engine="b")
    for key in (whole, damaged):
        cache.obtain(key, builder())
    flip_byte(cache.folder / f"{damaged.stem}.plan")
    (cache.folder / "orphan.plan").write_bytes(b"x")
    (cache.folder / "lonely.json").write_text("{}")
    faults = {entry.path.stem: entry.fault for entry in cache.entries()}
    assert faults[whole.stem] == ""
    assert "SHA-256" in faults[damaged.stem]
    assert "manifest is missing" in faults["orphan"]
    assert "plan is missing" in faults["lonely"]


def test_clean_removes_what_is_not_kept_and_what_killed_builders_left(
    cache: PlanCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        cache.obtain(replace(KEY, engine=name), builder())
    old, new = cache.folder / f"{plans.BUILDING}old", cache.folder / f"{plans.BUILDING}new"
    for folder in (old, new):
        folder.mkdir()
        (folder / "plan").write_bytes(b"half")
    os.utime(old, (1.0, 1.0))
    assert cache.clean(keep=lambda entry: entry.key is not None and entry.key.engine == "a") == (1, len(CONTENT))
    assert [entry.key.engine for entry in cache.entries() if entry.key] == ["a"]
    assert new.is_dir(), "another program is building there"
    assert not old.exists()
    assert cache.clean() == (1, len(CONTENT))
    assert cache.entries() == []


def test_clean_removes_locks_that_nobody_holds(cache: PlanCache) -> None:
    other = replace(KEY, engine="other")
    cache.obtain(other, builder())
    program = start_program(cache, seconds=1.5)
    wait_for(lambda: num_built(cache) == 2)
    cache.clean()
    assert [path.name for path in cache.folder.glob("*.lock")] == [f"{KEY.stem}.lock"]
    assert program.communicate(timeout=DEADLINE_S)[0].split()[:2] == [str(len(CONTENT)), "True"]
    cache.clean()
    assert list(cache.folder.iterdir()) == [cache.folder / "count.log"]


@posix
def test_a_lock_that_was_removed_keeps_nobody_out_and_is_made_again(cache: PlanCache) -> None:
    """A program that waited for a lock finds it free because it was removed; a third one would make a new one."""
    cache.folder.mkdir(parents=True)
    path = cache.folder / "a.lock"
    waiting: list[BuildProgress] = []

    def removed(progress: BuildProgress) -> None:
        waiting.append(progress)
        path.unlink()
        first.__exit__(None, None, None)

    first = locked(path, name="a", watch=waiting.append, limit_s=DEADLINE_S)
    first.__enter__()
    with locked(path, name="a", watch=removed, limit_s=DEADLINE_S):
        assert len(waiting) == 1
        assert path.is_file()
        with path.open("ab") as file:
            assert not try_lock(file), "who comes now waits"
        remove_free_lock(path)
        assert path.is_file(), "it is held"
    remove_free_lock(path)
    assert not path.exists()


def test_an_empty_or_missing_cache_has_no_entries(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path / "nowhere")
    assert cache.entries() == []
    assert cache.clean() == (0, 0)
    assert cache.read(KEY) == (None, "")


@pytest.mark.parametrize("name", ["fast-x2", "../../etc", "a b/c", "ü"])
def test_names_of_files_are_plain(name: str) -> None:
    stem = replace(KEY, engine=name).stem
    assert Path(stem).name == stem
    assert not stem.startswith(".")


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {FOLDER_VARIABLE: "/fast/disk"}, "/fast/disk"),
        ("linux", {"XDG_CACHE_HOME": "/xdg"}, "/xdg/streamsr"),
        ("linux", {}, "/home/me/.cache/streamsr"),
        ("darwin", {}, "/home/me/Library/Caches/streamsr"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/streamsr/cache"),
    ],
)
def test_the_cache_is_where_the_system_keeps_caches(
    monkeypatch: pytest.MonkeyPatch, platform: str, variables: dict[str, str], expected: str
) -> None:
    for name in (FOLDER_VARIABLE, "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(plans.sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/me"))
    assert cache_folder() == Path(expected)
