"""The script that an ffmpeg user would write: raw pictures out of one pipe, torch, raw pictures into another.

    ffmpeg -i IN -f rawvideo -pix_fmt bgr24 -    network on the luma, torch, fp32    ffmpeg -f rawvideo ... -i - OUT

It drops sound, presentation times and colour tags, and converts YUV to BGR and back twice. The encoder is told what
ours is told (libx264, crf 16, superfast), so that its speed decides nothing.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np

from benchmarks.naive import enlarge_picture
from streamsr.engine import Engine
from streamsr.runtimes.torch_cpu import load_network

QUIET = ["ffmpeg", "-nostdin", "-y", "-loglevel", "error"]
ENCODER = ["-c:v", "libx264", "-crf", "16", "-preset", "superfast", "-pix_fmt", "yuv420p"]


def enlarge_through_pipes(source: Path, target: Path, engine: Engine) -> int:
    """Enlarge a video through two pipes and return how many frames there were.

    Args:
        source: a video file.
        target: a video file; replaced.
        engine: a luma student.

    Raises:
        CalledProcessError: ffmpeg failed.
    """
    network = load_network(engine)
    width, height, rate = probe(source)
    size = (engine.scale * width, engine.scale * height)
    raw = ["-f", "rawvideo", "-pix_fmt", "bgr24"]
    reading = [*QUIET, "-i", str(source), *raw, "-"]
    writing = [*QUIET, *raw, "-s", f"{size[0]}x{size[1]}", "-r", rate, "-i", "-", *ENCODER, str(target)]
    num_frames, num_bytes = 0, 3 * width * height
    with (
        subprocess.Popen(reading, stdout=subprocess.PIPE) as reader,
        subprocess.Popen(writing, stdin=subprocess.PIPE) as writer,
    ):
        assert reader.stdout is not None
        assert writer.stdin is not None
        while len(content := reader.stdout.read(num_bytes)) == num_bytes:
            frame = np.frombuffer(content, np.uint8).reshape(height, width, 3)
            writer.stdin.write(enlarge_picture(network, frame, size).tobytes())
            num_frames += 1
        writer.stdin.close()
    for done in (reader, writer):
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, done.args)
    return num_frames


def scale_with_ffmpeg(source: Path, target: Path, scale: int, flags: str) -> None:
    """Enlarge a video with ffmpeg's own filter, into the same encoder.

    Args:
        source: a video file.
        target: a video file; replaced.
        scale: enlargement of each side.
        flags: of the filter ``scale``: ``bicubic`` or ``lanczos``.
    """
    enlarging = ["-vf", f"scale={scale}*iw:{scale}*ih:flags={flags}"]
    subprocess.run([*QUIET, "-i", str(source), *enlarging, *ENCODER, str(target)], check=True)


def probe(source: Path) -> tuple[int, int, str]:
    """Return width, height and the rate of a video as ffprobe writes it."""
    asked = ["-select_streams", "v:0", "-show_entries", "stream=width,height,r_frame_rate", "-of", "json"]
    command = ["ffprobe", "-loglevel", "error", *asked, str(source)]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["streams"][0]
    return int(told["width"]), int(told["height"]), str(told["r_frame_rate"])
