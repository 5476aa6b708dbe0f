"""The structure: imports run one way, down the rooms; the package is light; rooms stay small."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "streamsr"

ROOMS = (
    "__main__",
    "cli",
    "batch_commands",
    "live_commands",
    "bench_commands",
    "device_commands",
    "engine_commands",
    "train_commands",
    "options",
    "evaluate_commands",
    "interrupt",
    "demo",
    "progress",
    "doctor",
    "gpu_findings",
    "api",
    "bench",
    "live",
    "batch",
    "evaluation",
    "job",
    "results",
    "naming",
    "snapshot",
    "pipeline",
    "training",
    "capture",
    "sinks",
    "display",
    "sidecar",
    "dicom",
    "fallback",
    "dealing",
    "device",
    "upscaler",
    "enlarger",
    "consistency",
    "correction",
    "reducer",
    "launch_choice",
    "launch",
    "regions",
    "routing",
    "surround",
    "patches",
    "colour",
    "resample",
    "runtimes",
    "quality",
    "engine",
    "plans",
    "models",
    "device_frame",
    "frame",
    "timing",
    "worker",
    "space",
    "choices",
    "config",
    "errors",
)
"""From the top of the house to its ground; an import goes down this list, never up and never to its own storey."""

TORCH_FREE = (
    "consistency",
    "correction",
    "reducer",
    "patches",
    "routing",
    "config",
    "errors",
    "frame",
    "worker",
    "timing",
    "engine",
    "plans",
    "snapshot",
    "sidecar",
    "capture",
    "sinks",
    "display",
    "dicom",
    "results",
)


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def modules() -> list[tuple[str, ast.Module]]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(("streamsr", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        found.append((name, ast.parse(path.read_text(encoding="utf-8"))))
    return found


def imports_of(tree: ast.Module) -> set[str]:
    """Return every module imported anywhere in a module, lazy imports included."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == "streamsr":
                found |= {f"streamsr.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_every_room_has_its_storey() -> None:
    rooms = {room_of(name) for name, _ in modules()} - {"__init__"}
    assert rooms == set(ROOMS)


@pytest.mark.parametrize(
    ("name", "tree"), [pytest.param(*item, id=item[0]) for item in modules() if item[0] != "streamsr"]
)
def test_imports_run_down_the_house(name: str, tree: ast.Module) -> None:
    ours = ROOMS.index(room_of(name))
    for target in imports_of(tree):
        if not target.startswith("streamsr.") or room_of(target) == room_of(name):
            continue
        theirs = room_of(target)
        if theirs in ("__version__",):
            continue
        assert ROOMS.index(theirs) > ours, f"{name} imports {target}, which is above it"


@pytest.mark.parametrize("room", ["capture", "runtimes", "sinks"])
def test_stages_do_not_know_each_other(room: str) -> None:
    others = {"capture", "runtimes", "sinks"} - {room}
    for name, tree in modules():
        if room_of(name) == room:
            assert not {room_of(target) for target in imports_of(tree) if target.startswith("streamsr.")} & others


@pytest.mark.parametrize("room", TORCH_FREE)
def test_rooms_that_need_no_torch_do_not_import_it(room: str) -> None:
    for name, tree in modules():
        if room_of(name) == room:
            assert not {target.split(".")[0] for target in imports_of(tree)} & {"torch", "openvino", "onnxruntime"}


def test_models_need_torch_alone() -> None:
    for name, tree in modules():
        if room_of(name) == "models":
            outside = {target.split(".")[0] for target in imports_of(tree)} - set(sys.stdlib_module_names)
            assert outside <= {"torch", "streamsr"}
            assert all(room_of(target) == "models" for target in imports_of(tree) if target.startswith("streamsr"))


def test_nothing_is_unpickled() -> None:
    for name, tree in modules():
        assert not imports_of(tree) & {"pickle", "dill", "joblib", "shelve", "marshal"}, name
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert options.get("weights_only") == "True", name


def test_rooms_stay_small() -> None:
    sizes = {
        name: len((PACKAGE.parent / Path(*name.split("."))).with_suffix(".py").read_text().splitlines())
        for name, _ in modules()
        if (PACKAGE.parent / Path(*name.split("."))).with_suffix(".py").is_file()
    }
    assert max(sizes.values()) <= 400, {name: size for name, size in sizes.items() if size > 400}


HEAVY = "{'torch', 'cv2', 'openvino', 'onnxruntime', 'av'} & {name.split('.')[0] for name in sys.modules}"


@pytest.mark.parametrize(
    "program",
    [
        f"import sys, streamsr; assert not {HEAVY}, {HEAVY}",
        f"import sys; sys.argv = ['streamsr', '--help']\nfrom streamsr.cli import main\n"
        f"try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\nassert not {HEAVY}, {HEAVY}",
        f"import sys; sys.argv = ['streamsr', 'upscale', '--help']\nfrom streamsr.cli import main\n"
        f"try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\nassert not {HEAVY}, {HEAVY}",
    ],
    ids=["import", "help", "upscale-help"],
)
def test_importing_and_help_load_nothing_heavy(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
