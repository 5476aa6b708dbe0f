"""Damaged input of every kind: one clear refusal or what could be read; no crash, hang, trace, or stray file.

Seeds are fixed. ``STREAMSR_FUZZ=10`` runs ten times as many.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from streamsr.engine import MANIFEST, read_engine
from streamsr.errors import StreamsrError
from streamsr.sinks.web.messages import BadMessage, read_message
from streamsr.training.data import load_pairs
from streamsr.training.settings import GanSettings, PretrainSettings, read_settings
from tests.frames import make_data
from tests.mutations import damaged, damaged_text
from tests.videos import make_video

MORE = int(os.environ.get("STREAMSR_FUZZ", "1"))
CASES_A_CLIP = 300 * MORE
COMMANDS = 9 * MORE
"""Cases of whole commands: of every clip, and of pictures; of networks three times as many."""

TEXTS = 400 * MORE
PATIENCE_S = 120.0 * MORE

ROOT = Path(__file__).resolve().parents[1]

CLIPS = {
    "h264.mp4": {"codec": "libx264", "audio": True},
    "hevc.mkv": {"codec": "libx265", "options": {"x265-params": "log-level=none"}},
    "mpeg2.ts": {"codec": "mpeg2video", "container_format": "mpegts"},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "ffv1.mkv": {"codec": "ffv1", "audio": True},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "deadline": "realtime"}},
    "h264.h264": {"codec": "libx264", "container_format": "h264"},
}


@pytest.mark.parametrize("name", CLIPS)
def test_damaged_containers_are_read_or_refused(name: str, tmp_path: Path) -> None:
    clip = make_video(tmp_path / name, num_frames=8, **CLIPS[name])
    endings = endings_of("fuzz_child", str(clip), CASES_A_CLIP)
    kinds = Counter(ending.split()[0] for ending in endings)
    assert kinds["ok"] > 0.1 * CASES_A_CLIP, "damage that is never survived tests nothing but the door"


@pytest.mark.parametrize("name", CLIPS)
def test_damaged_videos_are_enlarged_or_refused_by_the_whole_command(name: str, tmp_path: Path) -> None:
    clip = make_video(tmp_path / name, num_frames=8, **CLIPS[name])
    codes = Counter(endings_of("fuzz_commands", "video", str(clip), COMMANDS))
    assert codes["code 0"] + codes["code 1"] > 0, "damage that is never survived tests nothing but the door"


def test_damaged_networks_that_carry_the_right_hash_are_refused_or_harmless(tmp_path: Path) -> None:
    make_video(tmp_path / "clip.mkv", num_frames=2)
    folder = shutil.copytree(engine_folder(), tmp_path / "tiny-x2")
    codes = Counter(endings_of("fuzz_commands", "network", str(folder), 3 * COMMANDS))
    assert codes["code 4"] >= COMMANDS
    assert not codes["code 1"] + codes["code 3"], "an engine that is to blame"


def test_damaged_pictures_are_measured_or_left_out(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    for ending in ("png", "jpg", "bmp", "webp", "tiff"):
        cv2.imwrite(str(tmp_path / f"picture.{ending}"), picture)
    codes = Counter(endings_of("fuzz_commands", "pictures", str(tmp_path), COMMANDS))
    assert codes["code 0"] + codes["code 1"] > 0


def endings_of(child: str, *arguments: str | int, expected: tuple[str, ...] = ("ok", "refused", "code")) -> list[str]:
    """Run cases in a process of their own, the last argument is how many; return how each ended, none of them badly."""
    *named, number = map(str, arguments)
    command = [sys.executable, "-m", f"tests.{child}", *named, "0", number]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"{lines[-1:]}: {done.stderr[-2000:]}"
    endings = lines[1::2]
    assert len(endings) == int(number)
    assert not [pair for pair in zip(lines[::2], endings, strict=True) if not pair[1].startswith(expected)]
    return endings


def engine_folder() -> Path:
    return ROOT / "engines" / "tiny-x2"


def write_damaged(path: Path, text: str, seed: int) -> None:
    """Write a damaged text."""
    path.write_text(damaged_text(text, seed), encoding="utf-8", errors="replace")


def refusal_of(read: Callable[[], object]) -> str:
    """Return how one of our errors refuses; empty where what was read is read, or harmless."""
    try:
        read()
    except StreamsrError as cause:
        return str(cause) or "an error without words"
    return ""


def assert_refused_in_one_line(refusals: list[str], *, least: float) -> None:
    """Every refusal is one line, and at least a part of the cases are refused."""
    assert not [line for line in refusals if "\n" in line]
    assert sum(map(bool, refusals)) >= least * len(refusals)


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny-x2"
    shutil.copytree(engine_folder(), folder)
    return folder


def verified(folder: Path) -> None:
    """Read and verify an engine."""
    read_engine(folder).verify()


def test_damaged_manifests_are_refused_or_harmless(engine: Path) -> None:
    text = (engine / MANIFEST).read_text()
    refusals = []
    for seed in range(TEXTS):
        write_damaged(engine / MANIFEST, text, seed)
        refusals.append(refusal_of(lambda: verified(engine)))
    assert_refused_in_one_line(refusals, least=0.5)


@pytest.mark.parametrize("name", ["model.safetensors", "model.int8.onnx"])
def test_damaged_weights_are_refused_every_time(engine: Path, name: str) -> None:
    content = (engine / name).read_bytes()
    for seed in range(TEXTS // 4):
        broken = damaged(content, seed)
        if broken == content:
            continue
        (engine / name).write_bytes(broken)
        with pytest.raises(StreamsrError, match="SHA-256"):
            verified(engine)


def test_damaged_weights_that_carry_the_right_hash_are_refused_or_harmless(engine: Path) -> None:
    content, manifest = (engine / "model.safetensors").read_bytes(), json.loads((engine / MANIFEST).read_text())
    refusals = []
    for seed in range(TEXTS // 4):
        broken = damaged(content, seed)
        (engine / "model.safetensors").write_bytes(broken)
        manifest["files"]["model.safetensors"] = hashlib.sha256(broken).hexdigest()
        (engine / MANIFEST).write_text(json.dumps(manifest))
        refusals.append(refusal_of(lambda: verified(engine)))
    assert_refused_in_one_line(refusals, least=0.3)


@pytest.mark.parametrize(("name", "settings"), [("tiny-x2", PretrainSettings), ("srgan-x2", GanSettings)])
def test_damaged_settings_are_refused_in_one_line_or_read(name: str, settings: Any, tmp_path: Path) -> None:
    text = (ROOT / "engines" / name / "train.toml").read_text()
    path = tmp_path / "train.toml"
    refusals = []
    for seed in range(TEXTS):
        write_damaged(path, text, seed)
        refusals.append(refusal_of(lambda: read_settings(path, settings)))
    assert_refused_in_one_line(refusals, least=0.25)
    assert [left.name for left in tmp_path.iterdir()] == [path.name], "what is still a setting is read, and never run"


def test_damaged_lists_of_frames_are_refused_in_one_line_or_read(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data")
    text = (data / "MANIFEST.tsv").read_text()
    refusals = []
    for seed in range(TEXTS // 8):
        write_damaged(data / "MANIFEST.tsv", text, seed)
        refusals.append(refusal_of(lambda: load_pairs(data, "train", 2)))
    assert_refused_in_one_line(refusals, least=0.25)


def test_damaged_messages_of_a_page_are_bad_messages_or_read() -> None:
    messages = (
        '{"ack": 12}',
        '{"ask": "h264"}',
        '{"wish": "bypass", "to": null, "n": 3}',
        '{"wish": "split", "to": 0.25}',
    )
    bad = 0
    for seed in range(TEXTS):
        with suppress(BadMessage):
            read_message(damaged_text(messages[seed % len(messages)], seed))
            bad -= 1
        bad += 1
    assert bad > TEXTS / 4


def test_damage_is_the_same_for_the_same_seed() -> None:
    content = bytes(range(256)) * 4
    assert [damaged(content, seed) for seed in range(20)] == [damaged(content, seed) for seed in range(20)]
    assert len({damaged(content, seed) for seed in range(20)}) > 15
