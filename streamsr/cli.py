"""The command line: parse, call, print; errors become exit codes here and nowhere else."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from streamsr import __version__
from streamsr.batch_commands import batch_app, verify
from streamsr.bench_commands import bench_app
from streamsr.config import DEFAULT_ENGINE, UpscaleSettings
from streamsr.device_commands import devices
from streamsr.engine_commands import engine_app
from streamsr.errors import EngineError, Interrupted, StreamsrError, UsageError, printable
from streamsr.evaluate_commands import evaluate
from streamsr.interrupt import Ears, heeding_interrupts
from streamsr.live_commands import live
from streamsr.options import (
    AsJson,
    Audio,
    Codec,
    Crf,
    Deinterlace,
    Gpus,
    Halo,
    HwAccel,
    KeepMetadata,
    Launch,
    Lossless,
    Model,
    NoConsistency,
    Overwrite,
    Patch,
    PixFmt,
    Precision,
    Preset,
    Quiet,
    Rate,
    Resize,
    Runtime,
    upscale_settings,
)
from streamsr.train_commands import train_app

if TYPE_CHECKING:
    from streamsr.engine import Engine
    from streamsr.progress import Display


class Commands(TyperGroup):
    """All commands; an interrupt that none of them took is said in one line, which typer leaves out."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for.

        Raises:
            Interrupted: it was interrupted before it had anything to end.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as cause:
            raise Interrupted("interrupted") from cause


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Enlarge endoscopy video with learned generators. Research use only; no medical claim; the original is kept.",
)
app.add_typer(batch_app, name="batch")
app.add_typer(bench_app, name="bench")
app.add_typer(engine_app, name="engine")
app.add_typer(train_app, name="train")
app.command()(live)
app.command()(devices)
app.command()(verify)
app.command()(evaluate)

EXIT_SOME_FAILED = 1


def main() -> NoReturn:
    """Run the command line; the console script."""
    code: object = 0
    ears = Ears()
    for output in (sys.stdout, sys.stderr):
        if isinstance(output, io.TextIOWrapper):
            output.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show ends no job
    try:
        with heeding_interrupts() as ears:
            code = app(standalone_mode=False)  # returns the code of a typer.Exit
    except StreamsrError as error:
        fail(error)
    except KeyboardInterrupt:
        fail(Interrupted("interrupted"))
    except Exception as error:
        if ears.heard:
            fail(Interrupted("interrupted"))
        if type(error).__module__.split(".")[0] not in ("click", "typer"):
            raise
        show_usage_error(error)
    sys.exit(code if isinstance(code, int) else 0)


def fail(error: StreamsrError) -> NoReturn:
    """Print an error in one line and leave with its exit code."""
    print(f"streamsr: {error}", file=sys.stderr)  # noqa: T201
    sys.exit(error.exit_code)


def show_usage_error(error: Any) -> NoReturn:
    """Print what the command line's parser refused and leave with 2."""
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    print(f"streamsr: {printable(message) or 'aborted'}; see streamsr --help", file=sys.stderr)  # noqa: T201
    sys.exit(getattr(error, "exit_code", UsageError.exit_code))


def show_version(asked: bool) -> None:
    """Print the version and leave."""
    if asked:
        typer.echo(f"streamsr {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Take the options that belong to no command."""


Inputs = Annotated[list[str], typer.Argument(metavar="INPUT...", help="Video files, DICOM too, or testsrc:endoscopy.")]
Output = Annotated[str | None, typer.Option("-o", "--output", help="File (.mkv, .mp4, .mov, .dcm), or folder/.")]


@app.command()
def upscale(
    inputs: Inputs,
    output: Output = None,
    model: Model = DEFAULT_ENGINE,
    runtime: Runtime = "auto",
    precision: Precision = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of the generator; all cores.")] = None,
    gpus: Gpus = "1",
    launch: Launch = "auto",
    patch: Patch = None,
    halo: Halo = None,
    no_consistency: NoConsistency = False,
    codec: Codec = "libx264",
    crf: Crf = 16,
    preset: Preset = None,
    pix_fmt: PixFmt = "auto",
    lossless: Lossless = False,
    audio: Audio = "copy",
    keep_metadata: KeepMetadata = False,
    rate: Rate = None,
    resize: Resize = "parts",
    deinterlace: Deinterlace = "auto",
    hwaccel: HwAccel = "none",
    overwrite: Overwrite = False,
    no_overwrite: Annotated[bool, typer.Option("-n", hidden=True)] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Enlarge video files; each result gets a sidecar that says what was done."""
    settings = upscale_settings(
        model=model,
        runtime=runtime,
        precision=precision,
        threads=threads,
        gpus=gpus,
        launch=launch,
        patch=patch,
        halo=halo,
        consistency=not no_consistency,
        codec=codec,
        crf=crf,
        preset=preset,
        pix_fmt=pix_fmt,
        lossless=lossless,
        audio=audio,
        keep_metadata=keep_metadata,
        rate=rate,
        resize=resize,
        deinterlace=deinterlace,
        hwaccel=hwaccel,
        overwrite=overwrite and not no_overwrite,
    )
    code = upscale_all(inputs, output, settings, as_json=as_json, quiet=quiet)
    if code:
        raise typer.Exit(code)


def upscale_all(inputs: list[str], output: str | None, settings: UpscaleSettings, *, as_json: bool, quiet: bool) -> int:
    """Enlarge each input; go on after one that fails; return the exit code.

    A single input that fails gives the code of its own error; among several, 1 says that some failed. An interrupt
    ends the command.
    """
    from streamsr.progress import open_display

    with open_display(as_json=as_json, quiet=quiet) as display:
        try:
            engine, targets = plan(inputs, output, settings)
        except StreamsrError as error:
            display.fail("", error)
            return error.exit_code
        codes = []
        for name, target in zip(inputs, targets, strict=True):
            codes.append(upscale_one(name, target, engine, settings, display))
            if codes[-1] == Interrupted.exit_code:
                return Interrupted.exit_code
    return codes[0] if len(codes) == 1 else EXIT_SOME_FAILED if any(codes) else 0


def plan(inputs: list[str], output: str | None, settings: UpscaleSettings) -> tuple[Engine, list[Path]]:
    """Find the engine and where every result goes.

    Raises:
        EngineError: the engine is missing or damaged.
        UsageError: an output that cannot be.
        OutputError: the folder that is asked for cannot be made.
    """
    from streamsr.engine import find_engine
    from streamsr.naming import output_path

    engine = find_engine(settings.generator.engine)
    targets = [output_path(name, output, engine, several=len(inputs) > 1) for name in inputs]
    refuse_clashes(inputs, targets)
    return engine, targets


def upscale_one(name: str, target: Path, engine: Engine, settings: UpscaleSettings, display: Display) -> int:
    """Enlarge one input, show how it went, and return its exit code."""
    from streamsr.job import run_job, unexpected

    try:
        result = run_job(name, target, engine, settings, display.update)
    except StreamsrError as error:
        display.fail(name, error)
        return error.exit_code
    except Exception as cause:  # nobody foresaw it: the other inputs are still done
        failure = unexpected(name, cause)
        display.fail(name, failure)
        return failure.exit_code
    display.finish(result)
    return 0 if result.complete else EXIT_SOME_FAILED


def refuse_clashes(inputs: list[str], targets: list[Path]) -> None:
    """Refuse two inputs that would be written to one file.

    Raises:
        UsageError: there are two.
    """
    seen: dict[Path, str] = {}
    for name, target in zip(inputs, targets, strict=True):
        if target in seen:
            raise UsageError(
                f"{target}: expected one input for each output, got {seen[target]} and {name}; use two runs"
            )
        seen[target] = name


@app.command()
def probe(
    file: Annotated[str, typer.Argument(help="Video file, DICOM too, or testsrc:endoscopy.")],
    model: Model = DEFAULT_ENGINE,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show what is in a file and what streamsr would do with it."""
    from streamsr.doctor import describe_source, print_rows

    description = describe_source(file, model)
    if as_json:
        typer.echo(json.dumps(description, indent=2, default=str))
    else:
        print_rows(file, description)


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False) -> None:
    """Show what this machine has, what is missing, and the command that mends it."""
    from streamsr.doctor import examine_machine, print_findings

    findings = examine_machine()
    if as_json:
        typer.echo(json.dumps([vars(finding) for finding in findings], indent=2))
    else:
        print_findings(findings)
    if any(finding.state == "broken" for finding in findings):
        raise typer.Exit(EngineError.exit_code)


@app.command()
def demo(
    output: Annotated[str, typer.Option("-o", "--output", help="Folder for the results.")] = "streamsr-demo/",
    model: Model = DEFAULT_ENGINE,
    seconds: Annotated[float, typer.Option(min=0.4, max=60, help="Length of the clip.")] = 4.0,
    size: Annotated[str, typer.Option(help="Size of the clip to be enlarged.")] = "320x240",
    overwrite: Annotated[bool, typer.Option("-y", "--overwrite", help="Replace existing results.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Render a synthetic endoscopy clip, enlarge it, and measure the result against the rendered truth."""
    from streamsr.demo import print_demo, run_demo

    result = run_demo(Path(output), engine=model, seconds=seconds, size=size, overwrite=overwrite)
    if as_json:
        typer.echo(json.dumps(result, indent=2, default=str))
    else:
        print_demo(result)
