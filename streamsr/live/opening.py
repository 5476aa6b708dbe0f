"""Open a live session by the name of its source: rungs, view and recorder put together from settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from streamsr.capture.feeds import open_feed
from streamsr.config import LiveSettings
from streamsr.display.showing import View
from streamsr.engine import Engine, bicubic_engine, find_engine, list_engines
from streamsr.errors import UsageError
from streamsr.fallback import make_upscaler
from streamsr.live.rungs import Enlarger
from streamsr.live.session import LiveSession

LIGHTER = ("fast", "tiny")
"""Families of students that a processor runs live, best first: what stands below the engine that is asked for."""


def choose_rungs(engine: Engine, lighter: tuple[str, ...] | None) -> list[Engine]:
    """Return the rungs above bicubic, best first: the engine, and lighter students of the same scale.

    Args:
        engine: the best rung.
        lighter: names of those below it; None takes the catalogue's students of `LIGHTER` that are lighter.

    Raises:
        EngineError: one is missing or damaged.
        UsageError: one has another scale.
    """
    if engine.kind == "interpolation":
        return []
    if lighter is None:
        family = engine.name.split("-")[0]
        below = LIGHTER[LIGHTER.index(family) + 1 :] if family in LIGHTER else LIGHTER
        there = {each.name: each for each in list_engines()}
        names = (f"{each}-x{engine.scale}" for each in below)
        return [engine, *(there[name] for name in names if name in there)]
    found = [find_engine(name) for name in lighter]
    for other in found:
        if other.scale != engine.scale:
            raise UsageError(
                f"--lighter {other.name}: expected an engine of x{engine.scale}, got x{other.scale}; name another"
            )
    return [engine, *(other for other in found if other.kind != "interpolation")]


def builder(engine: Engine, settings: LiveSettings) -> Callable[[int], Enlarger]:
    """Return what builds an engine's upscaler for samples of a bit depth."""
    chosen = replace(settings.generator, engine=engine.name)

    def build(bit_depth: int) -> Enlarger:
        return make_upscaler(engine, chosen, bit_depth=bit_depth)

    return build


def open_session(source: str, settings: LiveSettings, view: View, **options: Any) -> LiveSession:
    """Put a session together; nothing runs before its ``with`` is entered.

    Args:
        source: device, URL, ``-`` for standard input, file or ``testsrc:endoscopy``.
        settings: everything else.
        view: what shows the pictures.
        options: further arguments of `LiveSession`.

    Raises:
        InputError: the source cannot be.
        EngineError: an engine is missing, damaged or not what its manifest says.
        UsageError: a setting that cannot be.
    """
    engine = find_engine(settings.generator.engine)
    rungs = choose_rungs(engine, settings.lighter)
    for each in rungs:
        each.verify()
    feed = open_feed(source, settings.feed)
    return LiveSession(
        feed,
        view,
        [(each.name, builder(each, settings)) for each in rungs],
        make_upscaler(bicubic_engine(engine.scale), settings.generator, bit_depth=8),
        scale=engine.scale,
        seconds=settings.seconds,
        max_latency_ms=settings.max_latency_ms,
        bypass_on_overrun=settings.on_overrun == "bypass",
        badge=settings.badge,
        **options,
    )
