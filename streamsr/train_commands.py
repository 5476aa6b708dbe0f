"""``streamsr train``: the four kinds of run, and making an engine of what they leave."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from streamsr.errors import Interrupted, UsageError, needing_extra

train_app = typer.Typer(
    no_args_is_help=True,
    help="Train generators from one settings file each; a run that was stopped goes on from its last checkpoint.",
)

Settings = Annotated[Path, typer.Argument(metavar="SETTINGS.toml", help="Keys: see engines/*/train.toml.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


@train_app.command()
def pretrain(settings: Settings, as_json: AsJson = False) -> None:
    """Train a network towards the truth."""
    start("pretrain", settings, as_json)


@train_app.command()
def distill(settings: Settings, as_json: AsJson = False) -> None:
    """Train a network towards the truth and a larger network's picture of it."""
    start("distill", settings, as_json)


@train_app.command()
def features(settings: Settings, as_json: AsJson = False) -> None:
    """Train the feature network of the domain, for perceptual losses."""
    start("features", settings, as_json)


@train_app.command()
def gan(
    settings: Settings,
    vgg19: Annotated[
        Path | None, typer.Option("--vgg19", help="torchvision's VGG-19 weights, instead of the settings' features.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train an SRGAN adversarially from a pretrained generator."""
    if vgg19:
        with needing_extra("train"):
            from streamsr.quality.feature_files import load_vgg19
        load_vgg19(vgg19)  # refuses every other network
    start("gan", settings, as_json, **({"features": str(vgg19)} if vgg19 else {}))


@train_app.command()
def ship(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    engines: Annotated[Path, typer.Option(help="Where engine folders are.")] = Path("engines"),
    name: Annotated[str | None, typer.Option(help="Of the engine; the model's.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the data; the run's.")] = None,
    squeezenet: Annotated[Path | None, typer.Option(help="Trunk of the LPIPS-like distance.")] = None,
    lpips_linear: Annotated[Path | None, typer.Option(help="Its linear layers.")] = None,
    no_int8: Annotated[bool, typer.Option("--no-int8", help="Make no INT8 form.")] = False,
) -> None:
    """Make an engine of a run: hashes, INT8 form, measured quality, card. A worse one than is there is refused."""
    with needing_extra("train"):
        from streamsr.training.ship import ship as make_engine
    perceptual = perceptual_of(squeezenet, lpips_linear)
    made = make_engine(run, engines, name=name, data=data, perceptual=perceptual, int8=not no_int8)
    typer.echo(str(made))


@train_app.command()
def measure(
    engine: Annotated[Path, typer.Argument(metavar="ENGINE", help="Folder of an engine.")],
    data: Annotated[Path, typer.Option(help="Folder of the data.")],
    squeezenet: Annotated[Path | None, typer.Option(help="Trunk of the LPIPS-like distance.")] = None,
    lpips_linear: Annotated[Path | None, typer.Option(help="Its linear layers.")] = None,
) -> None:
    """Measure an engine again on validation and test sides; its metrics and the figures in its card are replaced."""
    with needing_extra("train"):
        from streamsr.training.ship import measure_again
    measure_again(engine, data, perceptual=perceptual_of(squeezenet, lpips_linear))
    typer.echo(str(engine))


@train_app.command()
def blend(
    engine: Annotated[Path, typer.Argument(metavar="ENGINE", help="Folder of an adversarial engine; replaced.")],
    stage: Annotated[Path, typer.Argument(metavar="STAGE", help="Folder of the fidelity engine it was trained from.")],
    part: Annotated[float, typer.Option(help="Of the adversarial weights, 0 to 1.")],
    data: Annotated[Path, typer.Option(help="Folder of the data.")],
    squeezenet: Annotated[Path | None, typer.Option(help="Trunk of the LPIPS-like distance.")] = None,
    lpips_linear: Annotated[Path | None, typer.Option(help="Its linear layers.")] = None,
) -> None:
    """Blend an adversarial engine with its fidelity stage: it draws less and stays nearer to the truth."""
    with needing_extra("train"):
        from streamsr.training.blending import blend_engine
    blend_engine(engine, stage, part, data, perceptual=perceptual_of(squeezenet, lpips_linear))
    typer.echo(str(engine))


@train_app.command()
def quantise(
    engine: Annotated[Path, typer.Argument(metavar="ENGINE", help="Folder of a student's engine.")],
    data: Annotated[Path, typer.Option(help="Folder of the data.")],
    squeezenet: Annotated[Path | None, typer.Option(help="Trunk of the LPIPS-like distance.")] = None,
    lpips_linear: Annotated[Path | None, typer.Option(help="Its linear layers.")] = None,
) -> None:
    """Make a student's INT8 form anew; its float weights stay. One that loses too much is refused."""
    with needing_extra("train"):
        from streamsr.training.ship import add_int8
    add_int8(engine, data, perceptual=perceptual_of(squeezenet, lpips_linear))
    typer.echo(str(engine))


def perceptual_of(squeezenet: Path | None, linear: Path | None) -> Any:
    """Return the files of the LPIPS-like distance, None where none are given.

    Raises:
        UsageError: one is given without the other.
    """
    from streamsr.training.measure import Perceptual

    if squeezenet and linear:
        return Perceptual(squeezenet, linear)
    if squeezenet or linear:
        raise UsageError("expected --squeezenet and --lpips-linear together, got one of them; name both or none")
    return None


def start(kind: str, path: Path, as_json: bool, **changes: Any) -> None:
    """Train what a settings file says and show every line of its log.

    Raises:
        Interrupted: the user asked to stop; the last checkpoint is there.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    with needing_extra("train"):
        from streamsr.training.commands import make_run
        from streamsr.training.settings import KINDS, read_settings
    settings = read_settings(path, KINDS[kind])
    with needing_extra("train"):  # a run imports its own rooms
        run = make_run(kind, replace(settings, **changes))
    run.report = lambda line: typer.echo(json.dumps(line) if as_json else describe(line, settings.steps))
    try:
        run.run()
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted at step {run.step}; the same command goes on from the last checkpoint, if there is one"
        ) from None
    typer.echo(json.dumps({"folder": str(run.folder)}) if as_json else str(run.folder))


def describe(line: dict[str, Any], steps: int) -> str:
    """Return a line of a run's log for people."""
    if "settings" in line:
        return f"{line['settings']['model']} on {line['device']}, from step {line['resumed_at']} of {steps}"
    if "bicubic" in line:
        return f"bicubic: {numbers(line['bicubic'], 2)}"
    figures = {key: value for key, value in line.items() if isinstance(value, dict)}
    shown = "  ".join(f"{key} {numbers(value, 5 if key == 'losses' else 3)}" for key, value in figures.items())
    ahead = line["seconds"] / line["step"] * (steps - line["step"])
    return f"step {line['step']}/{steps}  {line['seconds']:.0f} s, {ahead:.0f} s to go  {shown}"


def numbers(values: dict[str, float], digits: int) -> str:
    """Return named numbers in one line."""
    return " ".join(f"{name} {value:.{digits}f}" for name, value in values.items())
