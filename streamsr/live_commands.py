"""``streamsr live``: one source to the screen now."""

from __future__ import annotations

import json
import os
import select
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from streamsr.choices import PRECISIONS, RUNTIMES, choice, parse_gpus, parse_pair, parse_rate, parse_size
from streamsr.config import (
    DEFAULT_ENGINE,
    FeedSettings,
    GeneratorSettings,
    LiveSettings,
    RecordSettings,
    WebSettings,
)
from streamsr.errors import InputError, Interrupted, OutputError, StreamsrError, UsageError, printable
from streamsr.options import OneGpu

MEBIBYTE = 1 << 20

TERMINAL_PATIENCE_S = 0.5
"""For a stopped terminal to take the last line; a session ends within two seconds all the same."""


def live(
    source: Annotated[
        str, typer.Argument(help="/dev/video0, a URL, - for standard input, testsrc:endoscopy, or a file with --pace.")
    ],
    model: Annotated[str, typer.Option("-m", "--model", help="The best rung of the ladder.")] = DEFAULT_ENGINE,
    lighter: Annotated[str | None, typer.Option(help="Engines below it, as tiny-x2,...; none for bicubic.")] = None,
    runtime: Annotated[str, typer.Option(help="auto, openvino, cuda, tensorrt, fused, torch or onnxruntime.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, int8, fp8, fp16, bf16 or fp32.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of a generator; all cores.")] = None,
    gpus: OneGpu = "1",
    view: Annotated[str, typer.Option(help="window, web or none.")] = "window",
    max_latency: Annotated[
        float | None, typer.Option(min=1, help="From arrival to the screen, ms; two frame periods.")
    ] = None,
    on_overrun: Annotated[str, typer.Option(help="drop-oldest, or bypass: through bicubic instead.")] = "drop-oldest",
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT asked of a device, or stated for a raw pipe.")] = None,
    rate: Annotated[str | None, typer.Option(help="Frames a second asked of a device, or stated for a pipe.")] = None,
    input_format: Annotated[
        str | None, typer.Option("-f", "--input-format", help="mjpeg, yuyv422, mpegts, nut, rawvideo, ...")
    ] = None,
    input_opt: Annotated[list[str] | None, typer.Option(help="KEY=VALUE for FFmpeg; may be repeated.")] = None,
    pace: Annotated[bool, typer.Option("--pace", help="Play a file at its own pace.")] = False,
    loop: Annotated[bool, typer.Option("--loop", help="Begin a paced file anew at its end.")] = False,
    deinterlace: Annotated[str, typer.Option(help="auto, on or off.")] = "auto",
    badge: Annotated[bool, typer.Option(help="Mark pictures that a generator made.")] = True,
    record: Annotated[Path | None, typer.Option(metavar="DIR", help="Record the enlarged video.")] = None,
    keep_original: Annotated[
        bool, typer.Option("--keep-original", help="Write the source's own packets beside it.")
    ] = False,
    preroll: Annotated[float, typer.Option(min=0, max=60, help="Seconds that a recording begins earlier.")] = 0.0,
    container: Annotated[str, typer.Option(help="mkv or mp4 (fragmented).")] = "mkv",
    codec: Annotated[str, typer.Option(help="libx264, libx265, h264_nvenc, ...")] = "libx264",
    crf: Annotated[int, typer.Option(min=0, max=63, help="Quality; smaller is better and larger.")] = 18,
    preset: Annotated[str | None, typer.Option(help="The encoder's preset.")] = None,
    reserve: Annotated[float, typer.Option(min=1, help="MiB kept free: recording stops before.")] = 256.0,
    host: Annotated[str, typer.Option(help="Address of the page.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0 takes a free one.")] = 8008,
    token: Annotated[str | None, typer.Option(help="That the page's URL carries; random.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM file of the page's certificate.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of its key.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Serve beyond this machine without TLS.")] = False,
    jpeg_quality: Annotated[int, typer.Option(min=1, max=100, help="Of the page's pictures.")] = 88,
    metrics: Annotated[
        int | None, typer.Option(metavar="PORT", min=0, max=65535, help="Serve Prometheus text on 127.0.0.1.")
    ] = None,
    key: Annotated[list[str] | None, typer.Option(help="KEY=COMMAND for the window; may be repeated.")] = None,
    seconds: Annotated[
        float | None, typer.Option("-t", "--seconds", min=0.1, help="End by itself after these.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object at the end.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only errors.")] = False,
) -> None:
    """Enlarge a live source to the screen: never late, never stale."""
    settings = LiveSettings(
        generator=GeneratorSettings(
            engine=model,
            runtime=choice("runtime", runtime, RUNTIMES),
            precision=choice("precision", precision, PRECISIONS),
            threads=threads,
            gpus=parse_gpus(gpus),
        ),
        lighter=parse_lighter(lighter),
        feed=FeedSettings(
            size=None if size is None else parse_size(size),
            rate=None if rate is None else parse_rate(rate),
            input_format=input_format,
            options=tuple(parse_pair("--input-opt", each) for each in input_opt or ()),
            pace=pace,
            loop=loop,
            deinterlace=choice("deinterlace", deinterlace, ("auto", "on", "off")),
            reserve_bytes=round(reserve * MEBIBYTE),
            preroll_s=preroll,
        ),
        view=choice("view", view, ("window", "web", "none")),
        max_latency_ms=max_latency,
        on_overrun=choice("on-overrun", on_overrun, ("drop-oldest", "bypass")),
        badge=badge,
        record=RecordSettings(
            folder=record,
            from_start=record is not None,
            keep_original=keep_original,
            preroll_s=preroll,
            container=choice("container", container, ("mkv", "mp4")),
            codec=codec,
            crf=crf,
            preset=preset,
            reserve_bytes=round(reserve * MEBIBYTE),
        ),
        web=WebSettings(host, port, token, tls_cert, tls_key, insecure, jpeg_quality),
        metrics_port=metrics,
        seconds=seconds,
        keys=tuple(parse_pair("--key", each) for each in key or ()),
    )
    if key and view != "window":
        raise UsageError(f"--key: expected --view window, which alone takes keys, got --view {view}; leave --key out")
    if keep_original and record is None:
        raise UsageError("--keep-original: expected a folder to write to, got none; add --record DIR")
    code = run_live(source, settings, as_json=as_json, quiet=quiet)
    if code:
        raise typer.Exit(code)


def run_live(source: str, settings: LiveSettings, *, as_json: bool, quiet: bool) -> int:
    """Run a session to its end, print how it went, and return the exit code.

    Raises:
        StreamsrError: it could not begin, or ended badly.
    """
    from streamsr.live.opening import open_session

    def say(text: str) -> None:
        # Lines come from threads that the picture needs: a terminal that takes none must not hold them up.
        if not quiet and takes_more(sys.stderr if as_json else sys.stdout):
            with suppress(OSError):  # a log that cannot be written is no reason to take the picture away
                typer.echo(printable(text), err=as_json)

    interrupted: KeyboardInterrupt | None = None
    failure: StreamsrError | None = None
    with open_session(source, settings, say=say) as session:
        try:
            session.run()
        except KeyboardInterrupt as cause:
            interrupted = cause
        except StreamsrError as cause:
            failure = cause
    summary = session.summary()
    if not as_json:
        say(summarise(summary))
    elif not sys.stdout.isatty() or takes_more(sys.stdout, TERMINAL_PATIENCE_S):
        typer.echo(json.dumps(summary, default=str))
    if failure is None and not interrupted and settings.seconds is not None and not summary["frames_in"]:
        failure = InputError(
            f"{summary['source']}: expected a picture within {settings.seconds:g} s, got none;"
            " check the source, or wait longer"
        )
    if failure is not None:
        typer.echo(f"streamsr: {failure}", err=True)
    trouble = (summary["recording"] or {}).get("trouble") or summary["original_trouble"]
    code = Interrupted.exit_code if interrupted else failure.exit_code if failure else 0
    if trouble and not code:
        if quiet or trouble not in (session.trouble_told, session.original_trouble):
            typer.echo(printable(f"streamsr: {trouble}"), err=True)
        code = OutputError.exit_code
    if session.num_abandoned or session.num_building or (session.recorder is not None and session.recorder.hangs):
        # A thread that hangs, or builds, inside a runtime or an encoder cannot be ended and would keep us alive.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def takes_more(output: TextIO, patience_s: float = 0.0) -> bool:
    """Return whether a line can be written without waiting: a pipe that is full, or a stopped terminal, takes none."""
    try:
        return bool(select.select([], [output], [], patience_s)[1])
    except (OSError, ValueError):
        return True  # no descriptor, as in tests, or none that can be asked, as on Windows


def summarise(summary: Mapping[str, Any]) -> str:
    """Return a session's summary for a person, in one line."""
    added = summary["added_latency"]
    dropped = ", ".join(f"{number} {cause}" for cause, number in summary["dropped"].items()) or "none"
    rungs = ", ".join(f"{name} {number}" for name, number in summary["by_rung"].items()) or "none"
    return (
        f"{summary['shown']} of {summary['frames_in']} frames shown in {summary['seconds']:.1f} s ({rungs}), "
        f"dropped: {dropped}; added latency p50 {added['p50_ms']:.1f} ms, p95 {added['p95_ms']:.1f} ms, "
        f"p99 {added['p99_ms']:.1f} ms, max {added['max_ms']:.1f} ms, "
        f"{summary['shown_late']} past the deadline; reconnects: {summary['reconnects']}"
    )


def parse_lighter(text: str | None) -> tuple[str, ...] | None:
    """Return names from ``tiny-x2,...``; ``none`` is none at all."""
    if text is None:
        return None
    return () if text == "none" else tuple(filter(None, text.split(",")))
