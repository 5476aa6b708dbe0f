"""``streamsr engine``: what generators there are, whether their files are whole, and the plans compiled from them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Annotated

import typer

from streamsr.choices import parse_size
from streamsr.engine import MANIFEST, Engine, catalogue_folder, find_engine, list_engines, read_engine
from streamsr.errors import EngineError, StreamsrError, UsageError
from streamsr.plans import BUILD_LIMIT_S, BuildProgress, PlanCache, PlanEntry

if TYPE_CHECKING:
    from streamsr.plans import Plan
    from streamsr.runtimes.nvidia import Gpu

engine_app = typer.Typer(no_args_is_help=True, help="Generators, and the plans that TensorRT compiles from them.")

MEBIBYTE = 1 << 20


@engine_app.command("list")
def list_all(as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False) -> None:
    """Show the generators of the catalogue and the compiled plans in the user's cache."""
    from streamsr.runtimes.nvidia import find_gpus

    engines, cache, gpus = list_engines(), PlanCache(), find_gpus()
    plans = [describe_plan(entry, state_of(entry, gpus)) for entry in cache.entries(verify=False)]
    if as_json:
        content = {"engines": [describe_engine(engine) for engine in engines], "plans": plans}
        typer.echo(json.dumps({**content, "folder": str(cache.folder)}, indent=2))
        return
    print_table([describe_engine(engine) for engine in engines])
    typer.echo(f"\nplans in {cache.folder}: {len(plans) or 'none'}")
    print_table(plans)


@engine_app.command()
def verify(names: Annotated[list[str] | None, typer.Argument(metavar="[ENGINE...]", help="All.")] = None) -> None:
    """Check every file of the generators, and every plan, against its SHA-256; 4 where one does not hold."""
    faults = 0
    for name, fault in verdicts(names or []):
        faults += bool(fault)
        typer.echo(f"broken  {fault}" if fault else f"ok      {name}")
    if faults:
        raise typer.Exit(EngineError.exit_code)


@engine_app.command()
def build(
    names: Annotated[list[str], typer.Argument(metavar="ENGINE...", help="fast-x2, tiny-x2, ... or folders.")],
    size: Annotated[str, typer.Option(help="Size of the frames that will come, WIDTHxHEIGHT.")] = "1920x1080",
    precision: Annotated[str, typer.Option(help="fp16, fp8 or int8.")] = "fp16",
    library: Annotated[str, typer.Option(help="auto, tensorrt or tensorrt-rtx.")] = "auto",
    limit: Annotated[float, typer.Option(min=1, help="Seconds that one plan may take.")] = BUILD_LIMIT_S,
) -> None:
    """Compile plans for this machine's GPU now, instead of when the first frame comes."""
    width, height = parse_size(size)
    engines = [find_engine(name) for name in names]
    with watching() as watch:
        for engine in engines:
            for plan in built_plans(engine, width, height, precision, library, limit, watch):
                for notice in plan.notices:
                    typer.echo(f"note: {notice}")
                made = "built" if plan.built else "was there"
                megabytes = len(plan.content) / MEBIBYTE
                typer.echo(f"{plan.key.engine} {plan.key.shapes}: {made}, {megabytes:.1f} MiB, for {plan.key.gpu}")


@engine_app.command()
def clean(
    stale: Annotated[bool, typer.Option("--stale", help="Only damaged plans and those for no GPU here.")] = False,
) -> None:
    """Remove compiled plans; they are built again when they are needed."""
    from streamsr.runtimes.nvidia import find_gpus

    cache, gpus = PlanCache(), find_gpus()
    keep: Callable[[PlanEntry], bool] = lambda entry: stale and state_of(entry, gpus) == "ready"  # noqa: E731
    number, num_bytes = cache.clean(keep=keep)
    typer.echo(f"{number} plans removed from {cache.folder}, {num_bytes / MEBIBYTE:.1f} MiB")


def built_plans(
    engine: Engine,
    width: int,
    height: int,
    precision: str,
    library: str,
    limit_s: float,
    watch: Callable[[BuildProgress], None],
) -> Iterator[Plan]:
    """Yield the plans of an engine for patches and for frames, each when it is there.

    Raises:
        EngineError: a GPU, a driver or a package is missing, or a plan cannot be built.
    """
    import torch

    from streamsr.device.bands import bands_of
    from streamsr.runtimes.gpu_faults import check_gpu
    from streamsr.runtimes.nvidia import gpu_of_torch
    from streamsr.runtimes.tensorrt import check_precision
    from streamsr.runtimes.tensorrt_library import MODULES, find_library
    from streamsr.runtimes.tensorrt_plans import check_capability, frame_range, most_rows, obtain_plan, patch_range

    if library not in ("auto", *MODULES):
        raise UsageError(f"--library: expected auto, {' or '.join(MODULES)}, got {library!r}")
    if engine.architecture == "bicubic":
        raise UsageError(f"{engine.name}: expected an engine with a network to compile, got interpolation")
    check_precision(engine, precision)
    found = find_library(None if library == "auto" else library)
    device = torch.device("cuda")
    try:
        check_gpu(device, found.name)
    except EngineError as cause:
        missing = str(cause).rpartition("; ")[0]  # what it advises is for who enlarges
        raise EngineError(f"{missing}; run this where the GPU is that plans are built for") from cause
    gpu = gpu_of_torch(device)
    if refused := found.refuse_gpu(gpu.capability):
        raise EngineError(f"{refused} ({gpu.name}): no plan is built; use --runtime cuda")
    check_capability(precision, gpu.capability)
    most = most_rows(engine, width)
    if height > most:  # such frames are launched in bands
        height = bands_of(height, most, engine.radius_px)[0].height
    for shapes in (patch_range(engine), frame_range(engine, width, height)):
        yield obtain_plan(
            engine,
            precision=precision,
            samples="uint8" if engine.colour == "luma" else "float32",
            shapes=shapes,
            library=found,
            gpu=gpu,
            watch=watch,
            limit_s=limit_s,
        )


def verdicts(names: list[str]) -> Iterator[tuple[str, str]]:
    """Yield what was checked and why it does not hold, empty where it does: engines first, then plans."""
    folders = [manifest.parent for manifest in sorted(catalogue_folder().glob(f"*/{MANIFEST}"))]
    for place in names or folders:
        try:
            engine = find_engine(place) if isinstance(place, str) else read_engine(place)
            engine.verify()
        except StreamsrError as error:
            yield str(place), str(error)
        else:
            yield f"engine {engine.name}: {', '.join(engine.files) or 'no files'}", ""
    for entry in [] if names else PlanCache().entries():
        yield f"plan {entry.path.name}", f"{entry.path}: {entry.fault}; it is never loaded" if entry.fault else ""


def state_of(entry: PlanEntry, gpus: list[Gpu]) -> str:
    """Return ``ready``, or why a plan would not be loaded on this machine."""
    from streamsr.runtimes.tensorrt_plans import recipe

    if entry.fault or entry.key is None:
        return entry.fault or "its manifest is damaged"
    key = entry.key
    here = [gpu for gpu in gpus if (gpu.name, gpu.capability) == (key.gpu, key.capability)]
    if not here:
        return f"for another GPU ({key.gpu})"
    if here[0].driver != key.driver:
        return f"for another driver ({key.driver}, here {here[0].driver})"
    installed = installed_version(key.runtime)
    if installed != key.runtime_version:
        return f"for another {key.runtime} ({key.runtime_version}, here {installed or 'none'})"
    return "ready" if key.recipe == recipe() else "for another streamsr"


def installed_version(package: str) -> str:
    """Return the version of a package; empty where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def describe_engine(engine: Engine) -> dict[str, str]:
    """Return what there is to say of an engine."""
    return {
        "engine": engine.name,
        "network": engine.architecture,
        "kind": engine.kind,
        "colour": engine.colour,
        "scale": f"x{engine.scale}",
        "precisions": ", ".join(engine.precisions) or "-",
    }


def describe_plan(entry: PlanEntry, state: str) -> dict[str, str]:
    """Return what there is to say of a plan."""
    key = {} if entry.key is None else asdict(entry.key)
    return {
        "plan": key.get("engine", entry.path.stem),
        "precision": key.get("precision", "-"),
        "shapes": key.get("shapes", "-"),
        "runtime": f"{key.get('runtime', '-')} {key.get('runtime_version', '')}".strip(),
        "GPU": key.get("gpu", "-"),
        "size": f"{entry.num_bytes / MEBIBYTE:.1f} MiB",
        "state": state,
    }


def print_table(rows: list[dict[str, str]]) -> None:
    """Print rows under their names; nothing where there are none."""
    if not rows:
        return
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
    for row in (dict(zip(rows[0], rows[0], strict=True)), *rows):
        typer.echo("  ".join(value.ljust(widths[name]) for name, value in row.items()).rstrip())


@contextmanager
def watching() -> Iterator[Callable[[BuildProgress], None]]:
    """Show how far a plan is on a terminal; say nothing elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("") as status:

        def show(progress: BuildProgress) -> None:
            step = progress.step or "starting"
            status.update(f"{progress.name}: {step}, {progress.elapsed_s:.0f} s")

        yield show if console.is_terminal else lambda progress: None
