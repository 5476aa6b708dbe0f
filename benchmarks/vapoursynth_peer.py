"""VapourSynth with an ONNX plugin, asked for one picture after the other; imports nothing of ours.

Its packages (``vapoursynth`` and ``vapoursynth-mlrt-ov`` or ``-ort``) are for Python 3.12 and newer. The filter graph
is a blank clip into which a Python function puts the picture, as floats, and the plugin with the network behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

DEVICES = {"ov": {"device": "CPU"}, "ort": {"provider": "CPU"}}
"""How each plugin is told to use the processor."""


def with_plugin(plugin: str, network: Path, width: int, height: int) -> Callable[[Picture], Picture]:
    """Return a function that enlarges (H, W) uint8 luma.

    Args:
        plugin: ``ov`` (OpenVINO) or ``ort`` (ONNX Runtime).
        network: an ONNX file with float samples at both ends.
        width: of the pictures in pixels.
        height: of the pictures in pixels.

    Raises:
        ImportError: VapourSynth is not installed.
        AttributeError: the plugin is not.
    """
    import vapoursynth

    core: Any = vapoursynth.core
    waiting: list[Picture] = []

    def put(n: int, f: Any) -> Any:
        frame = f.copy()
        np.multiply(waiting[0], np.float32(1.0 / 255.0), out=np.asarray(frame[0]))
        return frame

    blank = core.std.BlankClip(format=vapoursynth.GRAYS, width=width, height=height, length=2**31 - 1, keep=True)
    fed = core.std.ModifyFrame(blank, [blank], put)
    model = getattr(core, plugin).Model
    enlarged = model([fed], network_path=str(network), tilesize=[width, height], overlap=[0, 0], **DEVICES[plugin])
    numbers = iter(range(2**31 - 1))

    def enlarge(luma: Picture) -> Picture:
        waiting[:] = [luma]
        with enlarged.get_frame(next(numbers)) as frame:
            result: Picture = np.rint(np.asarray(frame[0]) * 255.0).clip(0, 255).astype(np.uint8)
        return result

    return enlarge
