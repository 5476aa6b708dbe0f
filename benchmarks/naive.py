"""The script that a user would write: the same network on whole frames in a loop, with what everybody has installed.

    capture = cv2.VideoCapture(...)    network on the luma, torch, fp32    cv2.VideoWriter(..., "mp4v")

It drops sound, presentation times and colour tags, and converts YUV to BGR and back twice.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from streamsr.engine import Engine
from streamsr.runtimes.torch_cpu import load_network


def enlarge_naively(source: Path, target: Path, engine: Engine, *, most_frames: int) -> int:
    """Enlarge a video one frame after the other and return how many frames there were.

    Args:
        source: a video file.
        target: an ``.mp4`` file; replaced.
        engine: a luma student.
        most_frames: stop after so many.
    """
    network = load_network(engine)
    capture = cv2.VideoCapture(str(source))
    size = tuple(
        engine.scale * int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
    )
    rate = capture.get(cv2.CAP_PROP_FPS)
    writer = cv2.VideoWriter(str(target), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
    num_frames = 0
    while num_frames < most_frames:
        found, frame = capture.read()
        if not found:
            break
        writer.write(enlarge_picture(network, frame, size))
        num_frames += 1
    capture.release()
    writer.release()
    return num_frames


def enlarge_picture(network: torch.nn.Module, frame: NDArray[np.uint8], size: tuple[int, ...]) -> NDArray[np.uint8]:
    """Enlarge (H, W, 3) uint8 BGR to (width, height) ``size``: luma by the network, the rest by bicubic."""
    ycc = cv2.cvtColor(frame, cv2.COLOR_BGR2YCrCb)
    luma = torch.from_numpy(ycc[:, :, 0].astype(np.float32) / 255.0)[None, None]
    with torch.no_grad():
        enlarged = network(luma)[0, 0]
    large = cv2.resize(ycc, size, interpolation=cv2.INTER_CUBIC)
    large[:, :, 0] = (enlarged * 255.0).round().clamp(0, 255).to(torch.uint8).numpy()
    bgr: NDArray[np.uint8] = cv2.cvtColor(large, cv2.COLOR_YCrCb2BGR)
    return bgr
