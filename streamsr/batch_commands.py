"""``streamsr batch`` and ``streamsr verify``: archives, and whether their results are still what they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from streamsr.choices import choice
from streamsr.config import DEFAULT_ENGINE, BatchSettings
from streamsr.errors import UsageError, printable
from streamsr.options import (
    AsJson,
    Audio,
    Codec,
    Crf,
    Deinterlace,
    KeepMetadata,
    Launch,
    Lossless,
    Model,
    NoConsistency,
    OneGpu,
    Overwrite,
    PixFmt,
    Precision,
    Preset,
    Quiet,
    Rate,
    Resize,
    Runtime,
    upscale_settings,
)

if TYPE_CHECKING:
    from streamsr.batch.auditing import Finding

CONTAINERS = ("mkv", "mp4", "mov", "dcm")
EXECUTORS = ("local", "ray")


class BatchGroup(TyperGroup):
    """A group whose first argument need not be a command: then it is an input of ``run``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command in where it was left out."""
        if args and args[0] not in (*self.commands, "-h", "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


batch_app = typer.Typer(
    cls=BatchGroup,
    no_args_is_help=True,
    help="Enlarge archives: streamsr batch INPUT... -o FOLDER/ (the same as batch run); see batch run --help.",
)

Inputs = Annotated[list[str] | None, typer.Argument(metavar="INPUT...", help="Files, folders (with all below), globs.")]
Output = Annotated[str, typer.Option("-o", "--output", help="Folder, or names: 'out/%(folder)s/%(stem)s_x2.%(ext)s'.")]


@batch_app.command()
def run(
    context: typer.Context,
    inputs: Inputs = None,
    output: Output = "enlarged/",
    lists: Annotated[list[str] | None, typer.Option("--list", help="File with one name a line; - is stdin.")] = None,
    go_on: Annotated[
        bool, typer.Option("--continue", help="Go on; without inputs with those of the last run.")
    ] = False,
    container: Annotated[str, typer.Option("--container", help="mkv, mp4, mov or dcm.")] = "mkv",
    workers: Annotated[int | None, typer.Option("-w", "--workers", min=1, help="One a GPU, else one a core.")] = None,
    segment: Annotated[float, typer.Option(min=0, help="Seconds of a segment of long files; 0 cuts none.")] = 300.0,
    retries: Annotated[int, typer.Option(min=0, max=5, help="More tries for what may pass (engine, disk).")] = 1,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try what failed for good again.")] = False,
    ignore_errors: Annotated[
        bool | None, typer.Option("--ignore-errors/--abort-on-error", help="Go on after failures; default for folders.")
    ] = None,
    shard: Annotated[str | None, typer.Option(help="This run's part of the files: 1/8 to 8/8.")] = None,
    executor: Annotated[str, typer.Option(help="local, or ray (extra ray).")] = "local",
    ray_address: Annotated[str | None, typer.Option(help="Of the Ray cluster; none starts one here.")] = None,
    model: Model = DEFAULT_ENGINE,
    runtime: Runtime = "auto",
    precision: Precision = "auto",
    gpus: OneGpu = "1",
    launch: Launch = "auto",
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
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Enlarge every video, each exactly once; the same command goes on after a kill."""
    from streamsr.batch.outputs import parse_destination
    from streamsr.batch.planning import parse_shard

    settings = BatchSettings(
        upscale=upscale_settings(
            model=model,
            runtime=runtime,
            precision=precision,
            gpus=gpus,
            launch=launch,
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
            overwrite=overwrite,
        ),
        container=choice("container", container, CONTAINERS),
        segment_s=segment or None,
        retries=retries,
        ignore_errors=ignore_errors,
        retry_failed=retry_failed,
        shard=None if shard is None else parse_shard(shard),
    )
    destination = parse_destination(output)
    names, files = list(inputs or ()), list(lists or ())
    if not names and not files:
        if not go_on:
            raise UsageError("expected inputs, got none; name files or folders, or --continue with -o FOLDER")
        from streamsr.batch.resuming import last_run

        asked = asked_for(context)
        names, files, destination, settings = last_run(destination, settings, asked)
    code = enlarge(
        names,
        files,
        destination,
        settings,
        choice("executor", executor, EXECUTORS),
        ray_address,
        workers,
        as_json,
        quiet,
    )
    if code:
        raise typer.Exit(code)


def asked_for(context: typer.Context) -> set[str]:
    """Return the options that stand in the command itself."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def enlarge(
    names: list[str],
    lists: list[str],
    destination: Any,
    settings: BatchSettings,
    executor: str,
    ray_address: str | None,
    workers: int | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Enlarge an archive with what shows it; return the exit code."""
    from streamsr.batch.archive import enlarge_archive
    from streamsr.batch.telling import open_batch_display

    make = None
    if executor == "ray":
        from streamsr.batch.ray_cluster import ray_executor

        make = ray_executor(ray_address, settings, workers)
    with open_batch_display(as_json=as_json, quiet=quiet) as display:
        return enlarge_archive(
            names, destination, settings, display, lists=lists, make_executor=make, num_workers=workers
        )


@batch_app.command()
def status(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of results.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show how an archive stands, also while another terminal is at it."""
    from streamsr.batch.status import read_status, status_lines

    found = read_status(folder)
    if as_json:
        typer.echo(json.dumps(found, default=str))
    else:
        for line in status_lines(found):
            typer.echo(printable(line))


def verify(
    target: Annotated[Path, typer.Argument(metavar="OUT", help="A result, or a folder of results.")],
    sources: Annotated[Path | None, typer.Option(help="Folder of the originals, where no journal knows them.")] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Decode again; compare every time and the sound.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Say whether results are intact: hashes against the sidecars, the sources and the journal."""
    from streamsr.batch.auditing import audit

    num, num_differing = 0, 0
    for finding in audit(target, sources=sources, deep=deep):
        num, num_differing = num + 1, num_differing + (not finding.intact)
        show_finding(finding, as_json=as_json, quiet=quiet)
    if not as_json and not quiet:
        typer.echo(f"{num - num_differing} of {num} results are intact")
    if num_differing:
        if not as_json:
            typer.echo(
                "a result that differs is made again: remove it and run the same streamsr batch command", err=True
            )
        raise typer.Exit(1)


def show_finding(finding: Finding, *, as_json: bool, quiet: bool) -> None:
    """Print what is true of one result."""
    if as_json:
        content = {"result": str(finding.path), "intact": finding.intact}
        typer.echo(json.dumps({**content, "differs": finding.differs, "notes": finding.notes}))
        return
    if finding.intact and quiet:
        return
    typer.echo(printable(f"{finding.path}: {'intact' if finding.intact else 'differs'}"))
    for line in (*finding.differs, *(f"note: {note}" for note in finding.notes)):
        typer.echo(printable(f"  {line}"))
