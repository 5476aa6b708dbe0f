"""A network as TensorRT plans: which plan serves a shape, and an execution context of our own for each shape.

A context's scratch memory is allocated here, once, and the addresses of its pictures are set again only when they
change, so that a launch is one call and a CUDA graph can hold it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from streamsr.engine import Engine
from streamsr.plans import Plan
from streamsr.runtimes.cuda_networks import Chooser
from streamsr.runtimes.gpu_generator import PREPARED_SHAPES
from streamsr.runtimes.tensorrt_library import Library
from streamsr.runtimes.tensorrt_plans import ShapeRange, frame_range, patch_range

SAMPLES = {torch.uint8: "uint8", torch.float16: "float16", torch.float32: "float32"}
TORCH_TYPES = {"UINT8": torch.uint8, "HALF": torch.float16, "FLOAT": torch.float32}

ALIGNMENT = 256
"""Bytes: TensorRT's kernels read and write whole vectors, so pictures that lie askew are copied first."""


class PlanSource(Protocol):
    """Where plans come from."""

    def obtain(self, shapes: ShapeRange, samples: str) -> Plan:
        """Return the plan that serves a range of shapes with a type of samples; may build it."""

    def holds(self, shapes: ShapeRange, samples: str) -> bool:
        """Whether that plan is there and whole, so that nothing is built."""


class TensorRTNetwork:
    """A network as plans: a `streamsr.runtimes.gpu_generator.DeviceNetwork`.

    Args:
        engine: which network.
        library: what runs it.
        device: where.
        plans: where plans come from.

    Attributes:
        chooser: empty; TensorRT chooses when it builds.
    """

    def __init__(self, engine: Engine, library: Library, device: torch.device, plans: PlanSource) -> None:
        self.engine, self.library, self.device = engine, library, device
        self.scale, self.chooser = engine.scale, Chooser()
        self._plans = plans
        self._patches = patch_range(engine)
        self._loaded: dict[str, list[LoadedPlan]] = {}
        self._contexts: OrderedDict[tuple[Any, ...], ShapeContext] = OrderedDict()
        self._kept: dict[tuple[Any, ...], ShapeContext] | None = None

    def enlarge(self, pictures: Tensor, out: Tensor) -> None:
        """Enqueue the enlargement of pictures; see `streamsr.runtimes.device.DeviceGenerator.enlarge`.

        Raises:
            EngineError: a plan cannot be had, or TensorRT failed.
        """
        samples = SAMPLES[pictures.dtype]
        most = self._plan_for(tuple(pictures.shape), samples).shapes.most[0]
        for first in range(0, len(pictures), most):
            part = pictures[first : first + most]
            self._context_for(tuple(part.shape), samples).run(part, out[first : first + most])

    @contextmanager
    def keeping(
        self, kept: dict[tuple[Any, ...], ShapeContext] | None = None
    ) -> Iterator[dict[tuple[Any, ...], ShapeContext]]:
        """Collect the contexts that the body uses, none of which is forgotten before its end.

        Args:
            kept: those that are there already, for the body to use; the others are added.
        """
        self._kept = {} if kept is None else kept
        try:
            yield self._kept
        finally:
            self._kept = None

    def forget(self) -> None:
        """Give back the scratch memory of every shape that no graph holds."""
        self._contexts.clear()

    def has_plan_for(self, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
        """Whether a plan that serves a shape is loaded, or is there to be loaded."""
        samples = SAMPLES[dtype]
        wanted, fitting = self._serving(shape, samples)
        return bool(fitting) or self._plans.holds(wanted, samples)

    def load_plan_for(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        """Have a plan that serves a shape loaded.

        Raises:
            EngineError: it cannot be had.
        """
        self._plan_for(shape, SAMPLES[dtype])

    def _context_for(self, shape: tuple[int, ...], samples: str) -> ShapeContext:
        key = (*shape, samples)
        context = (self._kept or {}).get(key) or self._contexts.get(key)
        if context is None:
            context = self._plan_for(shape, samples).new_context(shape, self.device)
        self._contexts[key] = context
        self._contexts.move_to_end(key)
        if len(self._contexts) > PREPARED_SHAPES:
            self._contexts.popitem(last=False)
        if self._kept is not None:
            self._kept[key] = context
        return context

    def _plan_for(self, shape: tuple[int, ...], samples: str) -> LoadedPlan:
        """Return a loaded plan that serves a shape, the one for the smallest pictures, or else load one.

        A batch of more than a plan serves is launched in parts; a plan for single frames is none for patches.
        """
        wanted, fitting = self._serving(shape, samples)
        if fitting:
            return min(fitting, key=lambda plan: plan.num_pixels)
        loaded = LoadedPlan(self._plans.obtain(wanted, samples), wanted, self.library, self.scale)
        self._loaded.setdefault(samples, []).append(loaded)
        return loaded

    def _serving(self, shape: tuple[int, ...], samples: str) -> tuple[ShapeRange, list[LoadedPlan]]:
        """Return the range that a plan is made for which serves a shape, and the loaded plans that serve it already."""
        picture = (1, *shape[1:])
        of_patches = shape[0] > 1 and self._patches.holds(picture)
        wanted = self._patches if of_patches else frame_range(self.engine, width=shape[3], height=shape[2])
        least, loaded = min(shape[0], wanted.most[0]), self._loaded.get(samples, [])
        return wanted, [plan for plan in loaded if plan.shapes.holds(picture) and plan.shapes.most[0] >= least]


class LoadedPlan:
    """A plan on the GPU.

    Args:
        plan: verified.
        shapes: that it serves.
        library: what runs it.
        scale: enlargement of each side.

    Raises:
        EngineError: the library refuses it.
    """

    def __init__(self, plan: Plan, shapes: ShapeRange, library: Library, scale: int) -> None:
        self.shapes, self.library, self.scale = shapes, library, scale
        self.engine = library.load(plan.content)
        self.names = {}
        for place in range(self.engine.num_io_tensors):
            name = self.engine.get_tensor_name(place)
            mode = self.engine.get_tensor_mode(name)
            self.names["input" if mode == library.module.TensorIOMode.INPUT else "output"] = name
        self.dtype = TORCH_TYPES[self.engine.get_tensor_dtype(self.names["input"]).name]

    @property
    def num_pixels(self) -> int:
        """Pixels of its largest picture."""
        return self.shapes.most[2] * self.shapes.most[3]

    def new_context(self, shape: tuple[int, ...], device: torch.device) -> ShapeContext:
        """Return a context for a shape, its scratch memory allocated.

        Raises:
            EngineError: the library refuses it.
        """
        context = self.library.new_context(self.engine)
        if not context.set_input_shape(self.names["input"], shape):
            raise self.library.refusal(f"to be ready for {shape}, one of {self.shapes}", "use --runtime cuda")
        num_bytes = int(context.update_device_memory_size_for_shapes())
        scratch = torch.empty(max(num_bytes, 1), dtype=torch.uint8, device=device)
        context.set_device_memory(scratch.data_ptr(), num_bytes)
        return ShapeContext(self, context, scratch)


@dataclass
class ShapeContext:
    """An execution context for one shape, with all that it needs between two launches.

    Attributes:
        plan: what it runs.
        context: the library's.
        scratch: memory for what lies between input and output.
        addresses: of the pictures that it last read and wrote.
        copies: aligned stand-ins for pictures that lie askew, by the tensor's name.
    """

    plan: LoadedPlan
    context: Any
    scratch: Tensor
    addresses: dict[str, int] = field(default_factory=dict)
    copies: dict[str, Tensor] = field(default_factory=dict)

    def run(self, pictures: Tensor, out: Tensor) -> None:
        """Enqueue one launch on the present CUDA stream.

        Raises:
            EngineError: TensorRT refused it; a `GpuFault` where the GPU failed, or lacks memory.
        """
        read, written = self._readable(pictures), self._writable(out)
        self._point("input", read)
        self._point("output", written)
        handle = torch.cuda.current_stream(pictures.device).cuda_stream if pictures.is_cuda else 0
        if not self.context.execute_async_v3(handle):
            raise self.plan.library.refusal("a launch", "use --runtime cuda")
        if written is not out:
            self._hand_over(written, out)

    def is_capturable(self, handle: int) -> bool:
        """Whether a CUDA graph can hold its launches; a library that cannot be asked (TensorRT) has no others.

        Args:
            handle: of the CUDA stream.
        """
        asked = getattr(self.context, "is_stream_capturable", None)
        return asked is None or bool(asked(handle))

    def _point(self, end: str, pictures: Tensor) -> None:
        """Tell the context where pictures are, where that is news to it."""
        address = pictures.data_ptr()
        if self.addresses.get(end) != address:
            self.context.set_tensor_address(self.plan.names[end], address)
            self.addresses[end] = address

    def _readable(self, pictures: Tensor) -> Tensor:
        """Return pictures of the plan's type where the plan can read them."""
        if pictures.dtype == self.plan.dtype and is_aligned(pictures):
            return pictures
        copy = self._copy("input", pictures)
        copy.copy_(pictures)
        if self.plan.dtype != pictures.dtype == torch.uint8:
            copy.mul_(1 / 255.0)
        return copy

    def _writable(self, out: Tensor) -> Tensor:
        """Return where the plan can write."""
        return out if out.dtype == self.plan.dtype and is_aligned(out) else self._copy("output", out)

    def _copy(self, end: str, pictures: Tensor) -> Tensor:
        if end not in self.copies:
            self.copies[end] = aligned_empty(pictures.shape, self.plan.dtype, pictures.device)
        return self.copies[end]

    def _hand_over(self, written: Tensor, out: Tensor) -> None:
        """Copy what the plan wrote to where it is wanted."""
        if written.dtype != out.dtype == torch.uint8:
            written.mul_(255.0).round_().clamp_(0, 255)
        out.copy_(written)


def aligned_empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return an empty tensor that TensorRT can read and write; on the CPU torch aligns to less than that."""
    num_bytes = math.prod(shape) * dtype.itemsize
    store = torch.empty(num_bytes + ALIGNMENT, dtype=torch.uint8, device=device)
    first = -store.data_ptr() % ALIGNMENT
    return store[first : first + num_bytes].view(dtype).view(shape)


def is_aligned(pictures: Tensor) -> bool:
    """Whether TensorRT can read or write pictures where they are."""
    return pictures.data_ptr() % ALIGNMENT == 0 and pictures.is_contiguous()
