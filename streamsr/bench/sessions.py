"""Put a live session together with an ear at its feed and an eye at its view."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamsr.bench.observing import HeardFeed
from streamsr.capture.feeds import open_feed
from streamsr.config import LiveSettings
from streamsr.display.showing import View
from streamsr.engine import bicubic_engine, find_engine
from streamsr.fallback import make_upscaler
from streamsr.frame import Frame
from streamsr.live.opening import Facts, builder, choose_rungs
from streamsr.live.session import LiveSession


def make_session(
    source: str, settings: LiveSettings, view: View, *, hear: Callable[[Frame], None], **options: Any
) -> LiveSession:
    """Put a session together as `streamsr.live.opening.open_session` does, but for its view; it is not started.

    Args:
        source: as `open_session` has it.
        settings: of the session; its view and its recording are the caller's.
        view: what shows the pictures.
        hear: takes each frame that arrives, before the session does, in the feed's thread.
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
    facts = Facts(feed.address.shown, settings)
    return LiveSession(
        HeardFeed(feed, hear),
        view,
        [(each.name, builder(each, settings, facts)) for each in rungs],
        make_upscaler(bicubic_engine(engine.scale), settings.generator, bit_depth=8),
        scale=engine.scale,
        name=feed.address.shown,
        max_latency_ms=settings.max_latency_ms,
        bypass_on_overrun=settings.on_overrun == "bypass",
        badge=settings.badge,
        **options,
    )
