"""Which plans a network needs for TensorRT: ranges of shapes, keys, and the builder that is asked for them.

An engine has one plan for batches of patches and one for whole frames beside it, each with one optimisation profile.
Kernels are chosen for the usual shape of a range and serve all of it. Frames come in a few sizes (`FRAME_SIZES`), each
serving every frame and region that fits into it, so that a video of another size seldom needs another plan.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from streamsr.engine import Engine
from streamsr.errors import EngineError
from streamsr.plans import BUILD_LIMIT_S, BuildProgress, Plan, PlanCache, PlanKey
from streamsr.runtimes.nvidia import Gpu
from streamsr.runtimes.tensorrt_library import Library

FRAME_SIZES = ((640, 480), (1280, 720), (1920, 1080), (3840, 2160))
"""Widths and heights of frames that plans are made for; a larger frame gets a plan of its own size."""

LEAST_PX = 1
"""The smallest side of a picture."""

CORE_PX, MOST_CORE_PX = 32, 128
"""The usual and the largest core of a patch (`streamsr.launch.CORES_PX`)."""

USUAL_PATCHES = 256
"""Patches of a launch that kernels are chosen for: half of a 640x480 frame's."""

MOST_PATCHES = 2048
"""Patches of a launch at most: all of a 1920x1080 frame's."""

MOST_ELEMENTS = (1 << 31) - 1
"""Elements of a tensor at most; TensorRT counts them in 32 bits."""

FORMS = {"int8": "int8-symmetric", "fp8": "fp8"}
"""Precisions that an engine must ship a form for, and what its manifest calls that form."""

FLOAT8_CAPABILITY = 8.9
"""GPUs from which there is FP8 (Ada)."""

RECIPE = ("onnx_graph.py", "tensorrt_graph.py", "tensorrt_build.py", "tensorrt_export.py")
"""The rooms that decide what a plan computes: a plan that was made by another text of them is made again."""


@dataclass(frozen=True)
class ShapeRange:
    """The shapes that one plan serves; (N, C, H, W) each.

    Attributes:
        name: ``patches``, or ``frame`` and its size.
        least: of every side.
        usual: what kernels are chosen for.
        most: of every side.
    """

    name: str
    least: tuple[int, int, int, int]
    usual: tuple[int, int, int, int]
    most: tuple[int, int, int, int]

    def holds(self, shape: tuple[int, ...]) -> bool:
        """Whether a shape is served."""
        return all(low <= side <= high for low, side, high in zip(self.least, shape, self.most, strict=True))

    def __str__(self) -> str:
        sides = ("x".join(map(str, shape)) for shape in (self.least, self.usual, self.most))
        return f"{self.name} {' to '.join(sides)}"


def patch_range(engine: Engine) -> ShapeRange:
    """Return the range of batches of patches, from single pixels to the largest core with a full halo."""
    channels = channels_of(engine)
    side = MOST_CORE_PX + 2 * engine.radius_px
    window = CORE_PX + 2 * engine.halo_px
    most = max(1, min(MOST_PATCHES, MOST_ELEMENTS // (elements_per_pixel(engine) * side * side)))
    usual = min(USUAL_PATCHES, most)
    return ShapeRange(
        "patches", (1, channels, LEAST_PX, LEAST_PX), (usual, channels, window, window), (most, channels, side, side)
    )


def frame_range(engine: Engine, width: int, height: int) -> ShapeRange:
    """Return the range of whole frames of the smallest of `FRAME_SIZES` that holds one.

    Of a size that is too large for a network the range has only as many rows as can be counted (`most_rows`): such
    frames are launched in bands of no more.
    """
    channels = channels_of(engine)
    height = min(height, most_rows(engine, width))
    sizes = [(wide, min(high, most_rows(engine, wide))) for wide, high in FRAME_SIZES]
    fitting = [size for size in sizes if width <= size[0] and height <= size[1]]
    width, height = fitting[0] if fitting else (width, height)
    whole = (1, channels, height, width)
    return ShapeRange(f"frame {width}x{height}", (1, channels, LEAST_PX, LEAST_PX), whole, whole)


def most_rows(engine: Engine, width: int) -> int:
    """Return how many rows of so many pixels a plan can serve: one at least, which a library may refuse."""
    return max(1, MOST_ELEMENTS // (elements_per_pixel(engine) * width))


def channels_of(engine: Engine) -> int:
    """Return the channels of an engine's pictures."""
    return 1 if engine.colour == "luma" else 3


def elements_per_pixel(engine: Engine) -> int:
    """Return the elements of the largest tensor that a network makes of one input pixel.

    An SRGAN's has four times its channels in front of its last pixel shuffle, at half the size of its output.
    """
    if engine.architecture == "srgan":
        return engine.channels * engine.scale**2
    return max(engine.channels, engine.scale**2)


def check_capability(precision: str, capability: str) -> None:
    """Refuse a precision that GPUs of a compute capability have no units for.

    Raises:
        EngineError: they have none.
    """
    if precision == "fp8" and float(capability) < FLOAT8_CAPABILITY:
        raise EngineError(
            f"fp8: expected a GPU of compute capability {FLOAT8_CAPABILITY} or newer, got {capability}; "
            "use --precision fp16"
        )


def plan_key(
    engine: Engine, *, precision: str, samples: str, shapes: ShapeRange, library: Library, gpu: Gpu
) -> PlanKey:
    """Return the key of a plan."""
    weights = engine.precisions.get(FORMS.get(precision, "fp32"), "")
    return PlanKey(
        engine=engine.name,
        weights_sha256=engine.files.get(weights, ""),
        scale=engine.scale,
        shapes=str(shapes),
        precision=precision,
        samples=samples,
        recipe=recipe(),
        runtime=library.name,
        runtime_version=library.version,
        gpu=gpu.name,
        capability=gpu.capability,
        driver=gpu.driver,
    )


def recipe() -> str:
    """Return the hash of the code that decides what a plan computes."""
    digest = hashlib.sha256()
    for room in RECIPE:
        digest.update(Path(__file__).with_name(room).read_bytes())
    return digest.hexdigest()[:16]


def obtain_plan(
    engine: Engine,
    *,
    precision: str,
    samples: str,
    shapes: ShapeRange,
    library: Library,
    gpu: Gpu,
    visible: str = "",
    cache: PlanCache | None = None,
    watch: Callable[[BuildProgress], None] | None = None,
    limit_s: float = BUILD_LIMIT_S,
) -> Plan:
    """Return a plan from the cache, or have it built.

    Args:
        engine: which network.
        precision: ``fp16``, ``fp8`` or ``int8``.
        samples: type of the pictures at both ends.
        shapes: what it is to serve.
        library: what builds it and will run it.
        gpu: what it is for.
        visible: `streamsr.runtimes.nvidia.visible_name` of the GPU that it is built on; empty for the first.
        cache: where plans are kept; None takes the user's.
        watch: called a few times a second while it is built.
        limit_s: what building may take.

    Raises:
        EngineError: it cannot be built.
    """
    request = {
        "engine": str(engine.folder),
        "precision": precision,
        "samples": samples,
        "shapes": asdict(shapes),
        "library": library.name,
        "capability": gpu.capability,
        "visible": visible,
    }

    def command(folder: Path) -> list[str]:
        (folder / "request").write_text(json.dumps(request), encoding="utf-8")
        return [sys.executable, "-m", "streamsr.runtimes.tensorrt_build", str(folder)]

    key = plan_key(engine, precision=precision, samples=samples, shapes=shapes, library=library, gpu=gpu)
    return (cache or PlanCache()).obtain(key, command, watch=watch, limit_s=limit_s)
