"""Resident memory: of this program, of all that it started, and over the frames of a long clip."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from streamsr.config import UpscaleSettings
from streamsr.job import JobProgress, upscale_file

SETTLED = 0.5
"""The first part of a clip does not count: shapes are compiled, and allocators take what they will need (40 MiB, most
of it in 500 frames). What still grows behind it are the stage clocks, nine durations of four bytes a frame, up to
`streamsr.timing.WINDOW`."""

PAGE_KIB = os.sysconf("SC_PAGE_SIZE") / 1024


def resident_kib() -> float:
    """Return the resident memory of this program in KiB."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE_KIB


def peak_kib() -> float:
    """Return the most resident memory that this program has had, in KiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def measure_memory(clip: Path, settings: UpscaleSettings, folder: Path) -> dict[str, Any]:
    """Enlarge a long clip and return how resident memory went with the frames.

    Every patch is computed (no reuse), so that every frame allocates what a frame can allocate.

    Returns:
        ``slope_kib_a_frame`` is the least-squares slope behind the settled part; ``growth_mib`` the difference between
        the medians of the last and the first fifth of it.
    """
    samples: list[tuple[int, float]] = []

    def watch(progress: JobProgress) -> None:
        samples.append((progress.shown, resident_kib()))

    generator = replace(settings.generator, reuse_unchanged=False, skip_surround=False)
    result = upscale_file(clip, folder / "long.mkv", settings=replace(settings, generator=generator), watch=watch)
    settled = [sample for sample in samples if sample[0] >= SETTLED * result.frames_out]
    frames, kib = (np.array(values, float) for values in zip(*settled, strict=True))
    fifth = max(1, len(settled) // 5)
    moved = len(set(frames.tolist())) > 1
    return {
        "num_frames": result.frames_out,
        "samples": len(settled),
        "resident_mib": round(float(np.median(kib)) / 1024, 1),
        "slope_kib_a_frame": round(float(np.polyfit(frames, kib, 1)[0]), 3) if moved else 0.0,
        "growth_mib": round(float(np.median(kib[-fifth:]) - np.median(kib[:fifth])) / 1024, 2),
    }


def family_kib() -> float:
    """Return the resident memory of this program and of all that it started, in KiB; shared pages count in each."""
    parents: dict[int, int] = {}
    pages: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                fields = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            except OSError:  # it has ended meanwhile
                continue
            parents[int(folder.name)], pages[int(folder.name)] = int(fields[1]), int(fields[21])
    return sum(pages[pid] for pid in pages if _descends(pid, os.getpid(), parents)) * PAGE_KIB


def _descends(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    while pid and pid != ancestor:
        pid = parents.get(pid, 0)
    return pid == ancestor
