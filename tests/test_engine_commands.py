"""``streamsr engine``: what is listed, what is verified, what is built and what is removed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks.gpu_engines import random_engine
from streamsr import cli, engine_commands
from streamsr.device.bands import rows_a_launch
from streamsr.engine import catalogue_folder
from streamsr.errors import EngineError, UsageError
from streamsr.plans import PlanCache
from streamsr.runtimes import nvidia, tensorrt_library
from streamsr.runtimes.nvidia import Gpu
from streamsr.runtimes.tensorrt_library import probe
from streamsr.runtimes.tensorrt_plans import frame_range, recipe
from tests.test_device_upscaler import generator_for
from tests.test_plans import CONTENT, KEY, builder

HERE = Gpu(KEY.gpu, KEY.capability, KEY.driver)
KEY = replace(KEY, recipe=recipe())


def run(*arguments: str | Path) -> int:
    """Run the command line in this process and return its exit code."""
    before = sys.argv
    sys.argv = ["streamsr", "engine", *map(str, arguments)]
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before


def one_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(lines) == 1, text
    assert "Traceback" not in text
    return lines[0]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlanCache:
    monkeypatch.setenv("STREAMSR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(nvidia, "find_gpus", lambda: [HERE])
    monkeypatch.setattr(engine_commands, "version", lambda package: KEY.runtime_version)
    return PlanCache()


def test_list_shows_engines_and_the_state_of_every_plan(cache: PlanCache, capsys: pytest.CaptureFixture[str]) -> None:
    others = [{"gpu": "NVIDIA L4"}, {"driver": "570.10"}, {"runtime_version": "1.6"}, {"recipe": "older"}]
    for other in ({}, *others):
        cache.obtain(replace(KEY, **other), builder())
    (cache.folder / "stray.plan").write_bytes(b"x")
    assert run("list") == 0
    text = capsys.readouterr().out
    assert {"fast-x2", "bicubic-x4"} <= {line.split()[0] for line in text.splitlines() if line}
    rows = [line for line in text.splitlines() if "MiB" in line]
    assert len(rows) == 6
    states = ["ready", "for another GPU (NVIDIA L4)", "for another driver (570.10, here 580.20)"]
    for words in (*states, "for another tensorrt-rtx (1.6, here 1.7)", "for another streamsr", "manifest"):
        assert sum(words in row for row in rows) == 1, words


def test_list_as_json_is_one_object(cache: PlanCache, capsys: pytest.CaptureFixture[str]) -> None:
    cache.obtain(KEY, builder())
    assert run("list", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["folder"] == str(cache.folder)
    assert [plan["state"] for plan in content["plans"]] == ["ready"]
    assert "fast-x2" in [engine["engine"] for engine in content["engines"]]


def test_list_without_gpu_and_plans_says_so(
    cache: PlanCache, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvidia, "find_gpus", lambda: [])
    assert run("list") == 0
    assert f"plans in {cache.folder}: none" in capsys.readouterr().out


def test_verify_is_0_where_all_files_are_whole(cache: PlanCache, capsys: pytest.CaptureFixture[str]) -> None:
    cache.obtain(KEY, builder())
    assert run("verify") == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("ok ") for line in lines)
    assert any("fast-x2" in line for line in lines)
    assert any(KEY.stem in line for line in lines)


def test_verify_is_4_for_a_changed_engine(cache: PlanCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "fast-x2"
    shutil.copytree(catalogue_folder() / "fast-x2", copy)
    assert run("verify", copy) == 0
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    capsys.readouterr()
    assert run("verify", copy) == EngineError.exit_code
    line = one_line(capsys.readouterr().out)
    assert line.startswith("broken")
    assert "SHA-256" in line


def test_verify_is_4_for_a_changed_plan_and_for_no_such_engine(
    cache: PlanCache, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.obtain(KEY, builder())
    (cache.folder / f"{KEY.stem}.plan").write_bytes(b"changed")
    assert run("verify") == EngineError.exit_code
    assert "SHA-256" in capsys.readouterr().out
    assert run("verify", "no-such-engine") == EngineError.exit_code
    assert "no-such-engine" in one_line(capsys.readouterr().out)


def test_clean_removes_plans_and_says_how_much(cache: PlanCache, capsys: pytest.CaptureFixture[str]) -> None:
    cache.obtain(KEY, builder())
    assert run("clean") == 0
    assert one_line(capsys.readouterr().out).startswith("1 plans removed")
    assert cache.entries() == []
    assert run("clean") == 0


def test_clean_stale_keeps_what_this_machine_would_load(cache: PlanCache) -> None:
    for key in (KEY, replace(KEY, driver="570.10")):
        cache.obtain(key, builder())
    assert run("clean", "--stale") == 0
    assert cache.read(KEY)[0] == CONTENT
    assert len(cache.entries()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("build", "fast-x2", "--size", "huge"), "1920x1080"),
        (("build", "fast-x2", "--size", "0x10"), "1920x1080"),
        (("build", "fast-x2", "--library", "onnx"), "tensorrt-rtx"),
        (("build", "bicubic-x2"), "interpolation"),
        (("build",), "ENGINE"),
        (("nonsense",), "nonsense"),
    ],
)
def test_what_cannot_be_is_2(
    cache: PlanCache, arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == UsageError.exit_code
    assert words in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("build", "no-such-engine"), "no-such-engine"),
        (("build", "fast-x2", "--precision", "bf16"), "fp16, fp8 or int8"),
        (("build", "srgan-x2", "--precision", "fp8"), "expected an FP8 form"),
        (("build", "fast-x2"), "tensorrt: not installed"),
    ],
)
def test_what_is_missing_is_4_in_one_line(
    cache: PlanCache,
    arguments: tuple[str, ...],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    probe.cache_clear()
    monkeypatch.setattr(tensorrt_library, "MODULES", {"tensorrt": "not_there", "tensorrt-rtx": "nor_this"})
    assert run(*arguments) == EngineError.exit_code
    assert words in one_line(capsys.readouterr().err)
    probe.cache_clear()


def test_build_for_a_gpu_without_fp8_is_4(
    cache: PlanCache, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = Gpu("NVIDIA GeForce RTX 3090", "8.6", "580.20")
    library = SimpleNamespace(name="tensorrt", refuse_gpu=lambda capability: "")
    monkeypatch.setattr("streamsr.runtimes.tensorrt.check_precision", lambda engine, precision: None)
    monkeypatch.setattr("streamsr.runtimes.tensorrt_library.find_library", lambda name: library)
    monkeypatch.setattr("streamsr.runtimes.gpu_faults.check_gpu", lambda device, runtime: None)
    monkeypatch.setattr("streamsr.runtimes.nvidia.gpu_of_torch", lambda device: gpu)
    assert run("build", "fast-x2", "--precision", "fp8") == EngineError.exit_code
    line = one_line(capsys.readouterr().err)
    assert "compute capability 8.9 or newer, got 8.6; use --precision fp16" in line


def test_build_without_a_gpu_names_what_it_needs(
    cache: PlanCache, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    library = SimpleNamespace(name="tensorrt-rtx")
    monkeypatch.setattr("streamsr.runtimes.tensorrt_library.find_library", lambda name: library)
    monkeypatch.setattr("streamsr.runtimes.tensorrt.check_precision", lambda engine, precision: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run("build", "tiny-x2") == EngineError.exit_code
    line = one_line(capsys.readouterr().err)
    assert "tensorrt-rtx: expected an NVIDIA GPU, its driver and a CUDA build of torch, got" in line
    assert "run this where the GPU is" in line
    assert "--runtime" not in line


@pytest.mark.needs_tensorrt
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_build_without_a_gpu_is_4(cache: PlanCache, capsys: pytest.CaptureFixture[str]) -> None:
    if not probe("tensorrt-rtx").version:
        pytest.skip("needs TensorRT-RTX")
    assert run("build", "fast-x2") == EngineError.exit_code
    assert "NVIDIA GPU" in one_line(capsys.readouterr().err)


@pytest.fixture
def rtx(cache: PlanCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that this machine has the GPU of the plans."""
    monkeypatch.setattr(engine_commands, "version", metadata.version)
    if not probe("tensorrt-rtx").version:
        pytest.skip("needs TensorRT-RTX")
    monkeypatch.setattr("streamsr.runtimes.gpu_faults.check_gpu", lambda device, runtime: None)
    monkeypatch.setattr(nvidia, "gpu_of_torch", lambda device: HERE)


@pytest.mark.needs_tensorrt
@pytest.mark.usefixtures("rtx")
def test_build_makes_plans_for_patches_and_frames_once(cache: PlanCache, capsys: pytest.CaptureFixture[str]) -> None:
    for made in ("built", "was there"):
        assert run("build", "tiny-x2", "--size", "1024x768", "--library", "tensorrt-rtx") == 0
        lines = capsys.readouterr().out.splitlines()
        assert [made in line for line in lines] == [True, True], lines
        assert "patches" in lines[0]
        assert "frame 1920x1080" in lines[1]  # the smallest that holds 768 rows
    assert run("list") == 0
    assert capsys.readouterr().out.count("ready") == 2
    assert run("verify") == 0


@pytest.mark.parametrize("size", [(1280, 720), (2560, 1440), (3000, 1320), (3840, 2160)])
def test_build_makes_the_plan_that_bands_of_large_frames_ask_for(
    size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = random_engine("srgan-x4", tmp_path / "srgan-x4", num_blocks=1)
    library, asked = SimpleNamespace(name="tensorrt", refuse_gpu=lambda capability: ""), []
    monkeypatch.setattr("streamsr.runtimes.tensorrt.check_precision", lambda engine, precision: None)
    monkeypatch.setattr("streamsr.runtimes.tensorrt_library.find_library", lambda name: library)
    monkeypatch.setattr("streamsr.runtimes.gpu_faults.check_gpu", lambda device, runtime: None)
    monkeypatch.setattr(nvidia, "gpu_of_torch", lambda device: HERE)
    monkeypatch.setattr(
        "streamsr.runtimes.tensorrt_plans.obtain_plan", lambda engine, *, shapes, **options: asked.append(shapes)
    )
    list(engine_commands.built_plans(engine, *size, "fp16", "auto", 1.0, lambda progress: None))
    rows = rows_a_launch(generator_for(engine, "cpu"), *size)
    assert asked[1] == frame_range(engine, size[0], rows)
    assert asked[1].holds((1, 3, rows, size[0]))


@pytest.mark.needs_tensorrt
@pytest.mark.usefixtures("rtx")
def test_build_on_a_gpu_that_is_not_served_is_4(
    cache: PlanCache, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvidia, "gpu_of_torch", lambda device: Gpu("NVIDIA H100", "9.0", "580.20"))
    assert run("build", "tiny-x2", "--library", "tensorrt-rtx") == EngineError.exit_code
    assert "not 9.0" in one_line(capsys.readouterr().err)
    assert cache.entries() == []


@pytest.mark.needs_tensorrt
@pytest.mark.usefixtures("rtx")
def test_build_that_takes_too_long_is_4(cache: PlanCache, capsys: pytest.CaptureFixture[str]) -> None:
    from streamsr import plans

    assert plans.BUILD_LIMIT_S > 60
    with pytest.raises(EngineError, match=r"within 0\.01 s"):
        list(
            engine_commands.built_plans(
                engine_commands.find_engine("tiny-x2"), 64, 64, "fp16", "tensorrt-rtx", 0.01, lambda progress: None
            )
        )
    assert cache.entries() == []


def test_help_of_the_commands_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'cv2', 'openvino', 'onnxruntime', 'av', 'onnx', 'tensorrt_rtx'}"
    program = (
        "import sys; sys.argv = ['streamsr', 'engine', 'list']\nfrom streamsr.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        f"loaded = {heavy} & {{name.split('.')[0] for name in sys.modules}}\nassert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
