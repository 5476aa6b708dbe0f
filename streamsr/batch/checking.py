"""Whether a result is what its source says: as many pictures, each at its time, the same sound, whole."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from streamsr.batch.contents import Content, Keep, Times, content_of, is_plain, opened, sound_of
from streamsr.capture import open_source
from streamsr.capture.spans import read_times
from streamsr.config import ReadSettings
from streamsr.errors import ResultDiffers
from streamsr.frame import Frame


def check_result(
    source: str,
    results: Sequence[Path],
    *,
    read: ReadSettings,
    offset_s: float,
    num_frames: int,
    sound: bool,
    notices: Sequence[str] = (),
    keep: Keep | None = None,
) -> dict[str, Any]:
    """Check a result against its source.

    Args:
        source: name of the source.
        results: its files, in order.
        read: how the source was read.
        offset_s: by which every time was moved.
        num_frames: how many pictures the source gave.
        sound: whether sound was copied.
        notices: of the recording, which say what the container could not hold.
        keep: takes each decoded picture.

    Returns:
        What was checked, for the sidecar.

    Raises:
        ResultDiffers: the result is not what it must be.
        InputError: a file cannot be read.
    """
    expected = times_of(source, read, num_frames)
    found: list[Content] = []
    num_done = 0
    for path in results:
        found.append(content_of(path, num_done, keep))
        num_done += len(found[-1].times.seconds)
    name = results[0].name
    if num_done != num_frames or len(expected.seconds) != num_frames:
        raise ResultDiffers(
            f"{name}: expected the {len(expected.seconds)} pictures of its source, found {num_done}; do it again"
        )
    _check_times(name, expected, found, offset_s, [_tick(path) for path in results])
    return {
        "frames": num_done,
        "times": "equal",
        "decodes": "to the end",
        "ends_s": [float(content.times.end_s or 0) for content in found],
        "sound": _check_sound(name, source, found, notices) if sound else [],
    }


def times_of(source: str, read: ReadSettings, num_frames: int) -> Times:
    """Return when the pictures of a source are shown.

    The packets say so without being decoded; where they leave doubt, or are not as many as the pictures that came of
    them, the source is read once more.
    """
    path = Path(source)
    packets = None
    if is_plain(path):
        packets = read_times(path)
    if packets is not None and len(packets.shown) == num_frames:
        shown, last = sorted(packets.shown), packets.last_duration
        end = (shown[-1] + last) * packets.time_base if last else None
        return Times(tuple(pts * packets.time_base for pts in shown), end)
    with open_source(source, rate=read.rate, resize=read.resize, deinterlace=read.deinterlace) as opened:
        frames = [
            (item.pts * item.time_base, item.duration * item.time_base) for item in opened if isinstance(item, Frame)
        ]
    last_s, duration_s = frames[-1]
    return Times(tuple(shown_s for shown_s, _ in frames), last_s + duration_s if duration_s else None)


def _tick(path: Path) -> Fraction:
    with opened(path) as container:
        return Fraction(container.streams.video[0].time_base or Fraction(1, 1000))


def _check_times(
    name: str, expected: Times, found: Sequence[Content], offset_s: float, ticks: Sequence[Fraction]
) -> None:
    """Compare every time; a container may round to the nearest of its own ticks."""
    offset = Fraction(offset_s).limit_denominator(10**7)
    shown = [(seconds, tick) for content, tick in zip(found, ticks, strict=True) for seconds in content.times.seconds]
    for number, (ours, (theirs, tick)) in enumerate(zip(expected.seconds, shown, strict=True)):
        if abs(ours + offset - theirs) > tick / 2 + Fraction(1, 10**6):
            raise ResultDiffers(
                f"{name}: expected picture {number} at {float(ours + offset):.6f} s, found it at {float(theirs):.6f} s"
            )
    end_s = found[-1].times.end_s
    if expected.end_s is None or end_s is None:
        return
    if abs(expected.end_s + offset - end_s) > expected.slack_s + ticks[-1]:
        raise ResultDiffers(
            f"{name}: expected to end at {float(expected.end_s + offset):.3f} s, found {float(end_s):.3f} s"
        )


def _check_sound(name: str, source: str, found: Sequence[Content], notices: Sequence[str]) -> list[dict[str, Any]]:
    """Compare the sound tracks of the result with those of the source, packet for packet."""
    ours = sound_of(Path(source)) if Path(source).is_file() else []
    left_out = sum(notice.startswith("audio track") and "left out" in notice for notice in notices)
    damaged = any("packets of track" in notice for notice in notices)
    tracks = [
        [digest for part in theirs for digest in part] for theirs in zip(*(one.sound for one in found), strict=True)
    ]
    if len(tracks) + left_out != len(ours):
        raise ResultDiffers(f"{name}: expected {len(ours) - left_out} sound tracks, found {len(tracks)}; do it again")
    result = []
    for place, packets in enumerate(tracks):
        # Containers cut bare samples (PCM) into packets of their own size: then all bytes together must be the same.
        whole = found[0].sound_sha256[place] if len(found) == 1 else None
        alike = [
            track
            for track in ours
            if packets == track.packets or track.sha256 == whole or (damaged and _lies_in(packets, track.packets))
        ]
        if not alike:
            raise ResultDiffers(f"{name}: expected sound track {place} as in its source, found another; do it again")
        result.append({"codec": alike[0].codec, "packets": len(packets), "sha256": alike[0].sha256})
    return result


def _lies_in(part: list[bytes], whole: list[bytes]) -> bool:
    """Whether a list is another one with some of its items left out."""
    rest = iter(whole)
    return all(item in rest for item in part)
