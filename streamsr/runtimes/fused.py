"""A whole student in one CUDA kernel: no activation touches the GPU's memory.

The kernel (``fused_kernel.cu``) reads luma and writes enlarged luma; everything between stays in the shared memory of
the multiprocessors. It serves students of 16 and 32 channels on GPUs from compute capability 8.0 on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from streamsr.engine import Engine
from streamsr.errors import EngineError
from streamsr.models.student import StudentSpec, bilinear_taps
from streamsr.runtimes.cuda_networks import Chooser
from streamsr.runtimes.fused_compile import LoadedKernel, cached_cubin, shared_memory_bytes
from streamsr.runtimes.fused_kernel import (
    SOURCE,
    VARIANTS,
    KernelShape,
    Layer,
    TilePlan,
    Variant,
    pack_network,
    plan_tiles,
)
from streamsr.runtimes.gpu_faults import check_gpu, guarded, numbered
from streamsr.runtimes.gpu_generator import GpuGenerator

OLDEST_CAPABILITY = (8, 0)
"""The first with ``cvt.rn.relu.f16x2`` and enough shared memory."""


def choose_variant(spec: StudentSpec, shared_bytes: int) -> Variant:
    """Return the best variant of a student's kernel that a GPU's shared memory holds.

    Args:
        spec: the student.
        shared_bytes: that a block may have.

    Raises:
        EngineError: the kernel does not serve this student, or no variant fits.
    """
    if spec.channels not in VARIANTS or spec.scale not in (2, 4):
        raise EngineError(
            f"fused: expected a student of {' or '.join(map(str, VARIANTS))} channels and scale 2 or 4, "
            f"got {spec.channels} channels and scale {spec.scale}; use --runtime cuda"
        )
    shapes = [KernelShape(spec.channels, spec.depth, spec.scale, variant) for variant in VARIANTS[spec.channels]]
    for shape in shapes:
        if shape.shared_bytes <= shared_bytes:
            return shape.variant
    raise EngineError(
        f"fused: expected {min(shape.shared_bytes for shape in shapes)} bytes of shared memory a block, "
        f"got {shared_bytes}; use --runtime cuda"
    )


def serves(engine: Engine) -> bool:
    """Whether the kernel is written for an engine: students of 16 and 32 channels."""
    return engine.architecture == "student" and engine.channels in VARIANTS and engine.scale in (2, 4)


def check_engine(engine: Engine) -> None:
    """Check that an engine is of the kind that the kernel computes.

    Raises:
        EngineError: it is not.
    """
    if engine.architecture != "student":
        raise EngineError(f"{engine.name}: fused expects a student, got {engine.architecture}; use --runtime cuda")
    if not serves(engine):
        raise EngineError(
            f"fused: expected a student of {' or '.join(map(str, VARIANTS))} channels and scale 2 or 4, "
            f"got {engine.channels} channels and scale {engine.scale}; use --runtime cuda"
        )


def check_device(device: torch.device) -> None:
    """Check that a device can run the kernel.

    Raises:
        EngineError: it is no NVIDIA GPU, there is none, or it is too old.
    """
    if device.type != "cuda":
        raise EngineError(f"fused: expected an NVIDIA GPU, got {device}; use --runtime openvino")
    if not torch.cuda.is_available():
        check_gpu(device, "fused")  # says what is missing
    if torch.version.cuda is None:
        raise EngineError("fused: expected an NVIDIA GPU, got a torch built without CUDA; use --runtime openvino")
    capability = torch.cuda.get_device_capability(device if device.index is None else numbered(device))
    if capability < OLDEST_CAPABILITY:
        raise EngineError(
            f"fused: expected compute capability 8.0 or above, got {capability[0]}.{capability[1]}; use --runtime cuda"
        )


class FusedStudent:
    """A student's kernel and weights on one GPU.

    Args:
        spec: the student.
        layers: weight (outputs, inputs, 3, 3) and bias (outputs,) of every convolution, float32.
        device: the GPU.
        variant: how the work is divided; None takes the best that fits.

    Raises:
        EngineError: no such GPU, no NVRTC, or a student that the kernel does not serve.
    """

    def __init__(
        self,
        spec: StudentSpec,
        layers: Sequence[Layer],
        *,
        device: torch.device | str = "cuda",
        variant: Variant | None = None,
    ) -> None:
        check_device(torch.device(device))
        self.device = numbered(torch.device(device))
        with torch.cuda.device(self.device):
            properties = torch.cuda.get_device_properties(self.device)
            variant = variant or choose_variant(spec, shared_memory_bytes(torch.cuda.current_device()))
            self.shape = KernelShape(spec.channels, spec.depth, spec.scale, variant)
            self.num_multiprocessors = properties.multi_processor_count
            words, biases = pack_network(layers, bilinear_taps(spec.scale).numpy(), self.shape)
            self.words = torch.from_numpy(words.view(np.int32)).to(self.device)
            self.biases = torch.from_numpy(biases).to(self.device)
            architecture = f"sm_{properties.major}{properties.minor}"
            cubin = cached_cubin(SOURCE.read_text(encoding="utf-8"), self.shape.macros, architecture)
            self.kernel = LoadedKernel(cubin, shared_bytes=self.shape.shared_bytes, threads=self.shape.threads)
        self._plans: dict[tuple[int, int], TilePlan] = {}

    def enlarge_device(self, luma: Tensor, out: Tensor) -> None:
        """Enlarge a frame on the GPU's current CUDA stream, without waiting; may be captured in a graph.

        Args:
            luma: (H, W) uint8, on this GPU, rows contiguous.
            out: (scale * H, scale * W) uint8, on this GPU, rows contiguous, rows on multiples of ``scale`` bytes; every
                sample is written, rounded to nearest (half to even) and clamped.

        Raises:
            EngineError: a tensor is not of that kind.
        """
        height, width = self._check(luma, out)
        plan = self._plans.get((height, width))
        if plan is None:
            plan = self._plans[height, width] = plan_tiles(height, width, self.shape, self.num_multiprocessors)
        pointers = [tensor.data_ptr() for tensor in (luma, out, self.words, self.biases)]
        sizes = (height, width, luma.stride(0), out.stride(0))
        tiles = (plan.strip_px, plan.strips, plan.segment_rows, plan.num_tiles)
        self.kernel.launch(plan.blocks, pointers, (*sizes, *tiles))

    def _check(self, luma: Tensor, out: Tensor) -> tuple[int, int]:
        """Return the frame's height and width."""
        scale = self.shape.scale
        for name, tensor in (("luma", luma), ("out", out)):
            fits = tensor.dtype == torch.uint8 and tensor.device == self.device
            if not fits or tensor.ndim != 2 or tensor.stride(1) != 1:
                raise EngineError(
                    f"fused: expected {name} as (H, W) uint8 on {self.device} with contiguous rows, got "
                    f"{tuple(tensor.shape)} {tensor.dtype} on {tensor.device}; convert it"
                )
        height, width = luma.shape
        if out.shape != (scale * height, scale * width) or (out.data_ptr() | out.stride(0)) % scale != 0:
            raise EngineError(
                f"fused: expected out of {scale * height}x{scale * width} samples with rows on multiples of {scale} "
                f"bytes, got {tuple(out.shape)} with rows {out.stride(0)} bytes apart; allocate it anew"
            )
        return height, width


class FusedNetwork:
    """A student in one kernel, as a `streamsr.runtimes.gpu_generator.DeviceNetwork`.

    Args:
        engine: which network; a student.
        device: the GPU.

    Attributes:
        chooser: empty; the variant is chosen by shared memory.

    Raises:
        EngineError: no GPU that can, another architecture, or a student that the kernel does not serve.
        EngineTampered: the weights' hash is not the manifest's.
    """

    def __init__(self, engine: Engine, device: torch.device | str = "cuda") -> None:
        check_engine(engine)
        check_device(torch.device(device))
        weights = engine.weights()
        names = [f"layers.{layer}" for layer in range(engine.depth + 2)]
        layers = [(weights[f"{name}.weight"], weights[f"{name}.bias"]) for name in names]
        self.scale, self.chooser = engine.scale, Chooser()
        self.student = FusedStudent(StudentSpec(engine.channels, engine.depth, engine.scale), layers, device=device)

    def enlarge(self, pictures: Tensor, out: Tensor) -> None:
        """Enqueue the enlargement of pictures; see `streamsr.runtimes.gpu_generator.GpuGenerator.enlarge`.

        Raises:
            EngineError: the samples are not uint8.
        """
        for picture, enlarged in zip(pictures, out, strict=True):
            self.student.enlarge_device(picture[0], enlarged[0])


class FusedGenerator(GpuGenerator):
    """A student of the catalogue in one kernel, for 8-bit luma.

    Args:
        engine: which network.
        device: the GPU.
        graphs: capture every shape in a CUDA graph.

    Raises:
        EngineError: no GPU that can, another architecture, or a student that the kernel does not serve.
        EngineTampered: the weights' hash is not the manifest's.
    """

    runtime = "fused"
    runs_batches = False

    def __init__(self, engine: Engine, *, device: torch.device | str = "cuda", graphs: bool = True) -> None:
        check_engine(engine)
        check_device(torch.device(device))
        super().__init__(engine, precision="fp16", device=device, graphs=graphs)
        with guarded(engine.name):
            network = FusedNetwork(engine, self.device)
        self.network = network
        self.description = f"fused kernel {network.student.shape.variant.name} fp16, {self.place}, one launch a frame"
