"""Open a live session by the name of its source: rungs, view and recorder put together from settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from typing import Any

from streamsr.capture.feeds import open_feed
from streamsr.choices import refuse_several_gpus
from streamsr.config import LiveSettings
from streamsr.display.showing import View
from streamsr.engine import Engine, bicubic_engine, find_engine, list_engines
from streamsr.errors import UsageError
from streamsr.fallback import Upscaler, make_upscaler
from streamsr.live.rungs import Enlarger
from streamsr.live.session import LiveSession
from streamsr.sidecar import describe_engine, live_marks_of
from streamsr.sinks.folders import check_folder
from streamsr.sinks.live_recording import LiveRecorder

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


INTERVALS = ("rungs", "bypass_intervals", "signal_gaps")
"""Entries of a session's summary that a recording keeps itself, in its own files' time."""


class Facts(Mapping[str, Any]):
    """What sidecars say of a session: settled at its beginning, but for the engines and how it goes.

    Stretches of time are left out: the session tells them in its own seconds at its end (``--json``), and a recording
    in those of its files.

    Args:
        source: name of the source, without secrets.
        settings: of the session.
    """

    def __init__(self, source: str, settings: LiveSettings) -> None:
        self.built: dict[str, tuple[Engine, Upscaler]] = {}
        self.session: LiveSession | None = None
        self._told: set[str] = set()
        # The page's token is a secret.
        self._settled = {"source": source, "settings": {**asdict(settings), "web": None}}

    def __getitem__(self, key: str) -> Any:
        return self._now()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())

    def tell(self, notices: Sequence[str]) -> None:
        """Write notices into the session's log, each once; from any thread."""
        for notice in notices:
            if notice not in self._told and self.session is not None:
                self._told.add(notice)
                self.session.monitor.say(notice)

    def _now(self) -> dict[str, Any]:
        told = {} if self.session is None else self.session.summary()
        session = {key: value for key, value in told.items() if key not in INTERVALS}
        engines = {}
        for name, (engine, upscaler) in dict(self.built).items():
            # What runs may have changed since it was built, and have more to say.
            precision, runtime = upscaler.generator.precision, upscaler.description
            engines[name] = describe_engine(engine, precision=precision, runtime=runtime)
            self.tell(upscaler.notices)
        return {**self._settled, "engines": engines, **({"session": session} if session else {})}


def builder(engine: Engine, settings: LiveSettings, facts: Facts) -> Callable[[int], Enlarger]:
    """Return what builds an engine's upscaler for samples of a bit depth, and notes what it is.

    Args:
        engine: of the catalogue, or of a folder.
        settings: runtime, precision and threads.
        facts: where it is noted; from the thread that builds.
    """

    def build(bit_depth: int) -> Enlarger:
        upscaler = make_upscaler(engine, settings.generator, bit_depth=bit_depth, trial_first=True)
        facts.built[engine.name] = (engine, upscaler)
        facts.tell(upscaler.notices)
        return upscaler

    return build


def open_view(settings: LiveSettings) -> View:
    """Return what shows the pictures, ready to run.

    Raises:
        UsageError: settings that cannot be, an extra that is not installed, or a port that is taken.
        OutputError: there is no screen to open a window on.
    """
    if settings.view == "web":
        from streamsr.sinks.web import WebView

        return WebView(settings.web)
    if settings.view == "window":
        from streamsr.display.keys import bind
        from streamsr.sinks.window import WindowView

        window = WindowView(bind(settings.keys))
        window.check()
        return window
    from streamsr.sinks.null_view import NullView

    return NullView()


@contextmanager
def open_session(
    source: str, settings: LiveSettings, *, say: Callable[[str], None] = lambda text: None
) -> Iterator[LiveSession]:
    """Put a session together and start it; leaving the ``with`` ends it.

    Args:
        source: device, URL, ``-`` for standard input, file or ``testsrc:endoscopy``.
        settings: everything else.
        say: takes each line of the session's log, in any thread.

    Raises:
        InputError: the source cannot be.
        EngineError: an engine is missing, damaged or not what its manifest says.
        UsageError: a setting that cannot be.
        OutputError: nothing can be shown or written where it should be.
    """
    refuse_several_gpus(settings.generator.gpus, "a session enlarges each frame on one GPU")
    if settings.record.from_start and settings.record.folder is not None:
        check_folder(settings.record.folder, settings.record.reserve_bytes)
    engine = find_engine(settings.generator.engine)
    rungs = choose_rungs(engine, settings.lighter)
    for each in rungs:
        each.verify()
    feed = open_feed(source, settings.feed)
    facts = Facts(feed.address.shown, settings)
    with ExitStack() as stack:
        view = open_view(settings)
        stack.callback(getattr(view, "close", lambda: None))
        recorder = stack.enter_context(
            LiveRecorder(replace(settings.record, from_start=False), about=facts, marks=live_marks_of(engine))
        )
        session = LiveSession(
            feed,
            view,
            [(each.name, builder(each, settings, facts)) for each in rungs],
            make_upscaler(bicubic_engine(engine.scale), settings.generator, bit_depth=8),
            scale=engine.scale,
            name=feed.address.shown,
            recorder=recorder,
            folder=settings.record.folder,
            keep_original=settings.record.keep_original,
            about=facts,
            say=say,
            seconds=settings.seconds,
            max_latency_ms=settings.max_latency_ms,
            bypass_on_overrun=settings.on_overrun == "bypass",
            badge=settings.badge,
        )
        facts.session = session
        if settings.metrics_port is not None:
            from streamsr.sinks.metrics import MetricsServer

            metrics = MetricsServer(settings.metrics_port, session.status, lambda: getattr(view, "num_viewers", 0))
            session.metrics = stack.enter_context(metrics)
            say(f"metrics at {metrics.url}")
        if settings.view == "web":
            say(f"open {getattr(view, 'url', '')}")
        stack.enter_context(session)
        if not settings.badge:
            session.monitor.say("badge off")
        if settings.record.from_start:
            session.wishes.record()
        yield session
