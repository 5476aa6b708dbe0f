"""How long does each stage take a frame, and a frame in the line? ``python -m benchmarks.latency [--quick]``.

10,000 frames of 160x120 go through the line of `upscale_file`, put together here so that every duration can be read: a
file decoded, the default generator with its default settings, a recording. The first 100 frames are discarded: shapes
are compiled and launches measured in them. The clip shows 40 rendered pictures to and fro.

``capture``   from asking the source for the next item to the decoded frame.
``upscale``   from the decoded frame in the upscaler's hands to the enlarged one; ``route`` to ``chroma`` are its parts.
``sink``      from the enlarged frame in the sink's hands to its return: planes copied and given to the encoder.
``frame``     first event: the frame has left the decoder (`Frame.captured_ns`); last event: the sink has returned with
              it. A file is read as fast as the line takes it, so up to four frames wait before each stage, and this is
              the time in a full line, not the delay of a camera's picture; `benchmarks.live` measures that.
"""

from __future__ import annotations

import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.card import machine_card, options_of, print_card, print_table, report
from benchmarks.clips import long_clip
from benchmarks.fits import draw, plot_beside
from benchmarks.turns import Company
from streamsr import open_source
from streamsr.config import DEFAULT_ENGINE, GeneratorSettings
from streamsr.engine import find_engine
from streamsr.fallback import make_upscaler
from streamsr.frame import Frame
from streamsr.pipeline import Pipeline
from streamsr.sinks import EncoderSettings, RecordingSink, Sink

NUM_FRAMES, DISCARDED, SIZE = 10_000, 100, (160, 120)
PERCENTILES = (50.0, 95.0, 99.0, 99.9)
FRAME = "frame"


class NotingSink:
    """A sink that notes how long each frame took from the decoder until the sink had it.

    Args:
        sink: that frames go to.

    Attributes:
        durations_ns: one a frame.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.durations_ns = array("q")

    def show(self, frame: Frame) -> None:
        """Give a frame on, and note its time when that is done."""
        self._sink.show(frame)
        self.durations_ns.append(time.monotonic_ns() - frame.captured_ns)

    def pass_through(self, track: int, packet: Any) -> None:
        """Give a packet on."""
        self._sink.pass_through(track, packet)

    def __enter__(self) -> NotingSink:
        self._sink.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sink.__exit__(kind, error, trace)


def run_line(clip: Path, target: Path) -> tuple[dict[str, NDArray[np.float64]], str]:
    """Enlarge a clip and return every duration in milliseconds, by stage, and what ran the generator."""
    engine = find_engine(DEFAULT_ENGINE)
    with open_source(str(clip)) as source:
        upscaler = make_upscaler(engine, GeneratorSettings(), bit_depth=source.info.layout.bit_depth)
        recording = RecordingSink(
            target, facts=source.info, scale=engine.scale, settings=EncoderSettings(), overwrite=True
        )
        with NotingSink(recording) as sink:
            line = Pipeline(source, upscaler.upscale, sink)
            with line:
                line.join()
    clocks = {**line.clocks, **upscaler.clocks}
    durations = {name: np.array(clock.durations_us, np.float64) / 1e3 for name, clock in clocks.items()}
    return {FRAME: np.array(sink.durations_ns, np.float64) / 1e6, **durations}, upscaler.description


def row_of(stage: str, durations_ms: NDArray[np.float64]) -> dict[str, Any]:
    """Return the percentiles of one stage in milliseconds."""
    found = [round(float(value), 3) for value in np.percentile(durations_ms, PERCENTILES)]
    names = [f"p{percentile:g}_ms" for percentile in PERCENTILES]
    return {
        "stage": stage,
        "num": len(durations_ms),
        **dict(zip(names, found, strict=True)),
        "max_ms": worst(durations_ms),
    }


def worst(durations_ms: NDArray[np.float64]) -> float:
    """Return the longest, rounded."""
    return round(float(durations_ms.max()), 3)


def draw_plot(stages: Mapping[str, NDArray[np.float64]], path: Path) -> str | None:
    """Draw the distribution of every stage, and its tail."""
    panels: list[Callable[[Any], None]] = [partial(draw_share, stages), partial(draw_tail, stages)]
    return draw(path, panels, columns=2, title="milliseconds a frame, every stage of the line")


def draw_share(stages: Mapping[str, NDArray[np.float64]], axes: Any) -> None:
    """Draw the share of frames that took no longer."""
    for name, durations in stages.items():
        times = np.sort(durations)
        axes.step(times, np.arange(1, len(times) + 1) / len(times), where="post", linewidth=1, label=name)
    axes.set_xscale("log")
    axes.set_title("share of frames that took at most so long", fontsize=8)
    axes.legend(fontsize=6)


def draw_tail(stages: Mapping[str, NDArray[np.float64]], axes: Any) -> None:
    """Draw the share of frames that took longer, on a scale that shows the last ones."""
    for name, durations in stages.items():
        times = np.sort(durations)
        axes.step(times, 1 - np.arange(len(times)) / len(times), where="post", linewidth=1, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_title("share of frames that took at least so long", fontsize=8)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, draw and write."""
    options = options_of("latency", "How long does each stage take a frame?", arguments)
    card, started_s, company = machine_card(), time.monotonic(), Company()
    print_card(card)
    num_frames, discarded, size = (60, 10, (128, 96)) if options.quick else (NUM_FRAMES, DISCARDED, SIZE)
    with tempfile.TemporaryDirectory() as folder:
        clip = long_clip(Path(folder), *size, num_frames)
        line_s = time.monotonic()
        durations, description = run_line(clip, Path(folder) / "out.mkv")
        line_s = time.monotonic() - line_s
    stages = {name: values[discarded:] for name, values in durations.items()}
    rows = [row_of(name, values) for name, values in stages.items()]
    print_table(rows, tuple(rows[0]))
    result = {
        "question": "latency",
        "quick": options.quick,
        "card": card,
        "size": f"{size[0]}x{size[1]}",
        "runtime": description,
        "num_frames": num_frames,
        "discarded": discarded,
        "fps": round(num_frames / line_s, 1),
        "cores_busy_with_others": company.cores(),
        "rows": rows,
        "seconds": round(time.monotonic() - started_s, 1),
    }
    plot = plot_beside(options.json)
    result["plot"] = draw_plot(stages, plot) if plot else None
    report(result, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
