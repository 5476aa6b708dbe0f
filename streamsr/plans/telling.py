"""Who is told how far plans are: whoever waits for one, though others, many calls away, ask for it.

A plan is asked for where a picture is launched, under runtimes and upscalers that know nothing of terminals and lines.
Who is told is a matter of the thread that waits, so it is kept as one: `telling_builds` round all that may build.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias

from streamsr.plans.building import BuildProgress

Watch: TypeAlias = Callable[[BuildProgress], None]

_watches: ContextVar[tuple[Watch, ...]] = ContextVar("_watches", default=())


@contextmanager
def telling_builds(watch: Watch) -> Iterator[None]:
    """Tell somebody how far plans are that the body waits for, in this thread.

    Args:
        watch: called a few times a second while something is waited for; what it raises ends the wait, and the builder.
    """
    token = _watches.set((*_watches.get(), watch))
    try:
        yield
    finally:
        _watches.reset(token)


def all_told(watch: Watch | None) -> Watch:
    """Return what tells everybody who waits in this thread, and whoever asks.

    Args:
        watch: of who asks; told first.
    """
    watches = (*([] if watch is None else [watch]), *_watches.get())

    def tell(progress: BuildProgress) -> None:
        for each in watches:
            each(progress)

    return tell
