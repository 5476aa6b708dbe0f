"""TensorRT as a runtime: plans from the user's cache, run in execution contexts of our own, captured in CUDA graphs.

Buffers, pinned memory, CUDA streams and graphs are those of `streamsr.runtimes.gpu_generator`; what differs is what is
launched (`streamsr.runtimes.tensorrt_network`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from streamsr.engine import Engine
from streamsr.errors import EngineError
from streamsr.plans import BuildProgress, Plan, PlanCache
from streamsr.runtimes.base import Pictures
from streamsr.runtimes.gpu_generator import GpuGenerator
from streamsr.runtimes.nvidia import Gpu, gpu_of_torch, visible_name
from streamsr.runtimes.tensorrt_library import Library, find_library
from streamsr.runtimes.tensorrt_network import PlanSource, ShapeContext, TensorRTNetwork
from streamsr.runtimes.tensorrt_plans import FORMS, ShapeRange, check_capability, obtain_plan, plan_key

log = logging.getLogger(__name__)

TITLES = {"fp8": "an FP8 form", "int8": "a symmetric INT8 form"}
"""Precisions beside fp16, and what an engine must ship for them."""


class TensorRTGenerator(GpuGenerator):
    """A network compiled by TensorRT or TensorRT-RTX, on one GPU.

    Args:
        engine: which network.
        precision: ``fp16``; ``fp8`` and ``int8`` where the engine ships a form for it, which it does where that holds
            the bar.
        device: ``cuda``, ``cuda:1`` and so on; ``cpu`` with a library and plans that run there, for tests.
        graphs: capture every shape in a CUDA graph.
        library: TensorRT or TensorRT-RTX; None takes the one that is installed.
        plans: where plans come from; None takes the user's cache, which builds what it lacks.
        watch: called a few times a second while a plan is built, beside whoever `streamsr.plans.telling_builds` tells;
            None logs that it is.

    Attributes:
        notices: what the user should know, one line each: plans that were built again, and why.

    Raises:
        EngineError: no GPU that torch can use, no library, or one that does not serve this GPU or precision.
    """

    runtime = "tensorrt"

    def __init__(
        self,
        engine: Engine,
        *,
        precision: str = "fp16",
        device: str = "cuda",
        graphs: bool = True,
        library: Library | None = None,
        plans: PlanSource | None = None,
        watch: Callable[[BuildProgress], None] | None = None,
    ) -> None:
        check_precision(engine, precision)
        library = library or find_library()
        super().__init__(engine, precision=precision, device=device, graphs=graphs)
        if plans is None:
            plans = self._cached_plans(library, watch or announcer())
        self.compiled_network = TensorRTNetwork(engine, library, self.device, plans)
        self.network = self.compiled_network
        way = "CUDA graphs" if self.graphs else "no graphs"
        self.description = f"{library.title} {library.version} {precision}, {self.place}, {way}"

    def is_ready_for(self, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
        """Whether a plan that serves a shape is loaded, or whole in the cache, so that none has to be built."""
        return self.compiled_network.has_plan_for(shape, dtype)

    def compile_for(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        """Have a plan that serves a shape loaded, from the cache or built now.

        Raises:
            EngineError: it cannot be built, or does not load.
        """
        with self.on_device():
            self.compiled_network.load_plan_for(shape, dtype)

    def capture(self, launch: Callable[[], None]) -> Callable[[], None]:
        """Return a call that enqueues what ``launch`` does; see `GpuGenerator.capture`.

        The call keeps the contexts that it launches alive: a graph writes to their scratch memory. Where a plan cannot
        be captured, the call is ``launch`` itself.
        """
        with self.compiled_network.keeping() as contexts:
            if self.graphs and not self._can_capture(launch, contexts):
                return Kept(launch, contexts, self.compiled_network)
            call = super().capture(launch)
        return Captured(call, contexts)

    def _can_capture(self, launch: Callable[[], None], contexts: Mapping[tuple[Any, ...], ShapeContext]) -> bool:
        """Whether a CUDA graph can hold a launch, which runs once, so that its contexts are there."""
        with self.on_stream():
            launch()
        handle = self.cuda_stream.cuda_stream if self.is_gpu else 0
        if all(context.is_capturable(handle) for context in contexts.values()):
            return True
        notice = "tensorrt: a plan cannot be captured in a CUDA graph: its steps are enqueued one by one, slower"
        if notice not in self.notices:
            log.warning("%s", notice)
            self.notices.append(notice)
        return False

    def _generate_in_halves(self, pictures: Pictures, out: Pictures | None) -> Pictures:
        """Run a batch that found no memory as two, with no other shape's memory in the way."""
        self.compiled_network.forget()
        return super()._generate_in_halves(pictures, out)

    def _cached_plans(self, library: Library, watch: Callable[[BuildProgress], None]) -> PlanSource:
        """Return the user's plan cache as a source for this GPU.

        Raises:
            EngineError: the library does not serve this GPU, or this GPU has not the precision.
        """
        gpu = gpu_of_torch(self.device)
        if refused := library.refuse_gpu(gpu.capability):
            raise EngineError(f"tensorrt: expected a GPU that it serves, got {gpu.name}: {refused}; use --runtime cuda")
        check_capability(self.precision, gpu.capability)

        return CachedPlans(self.engine, self.precision, library, gpu, self.device.index or 0, watch, self.notices)


@dataclass(frozen=True)
class CachedPlans:
    """The plans of a network in the user's cache: a `streamsr.runtimes.tensorrt_network.PlanSource`.

    Attributes:
        engine: which network.
        precision: of its arithmetic.
        library: what builds and runs them.
        gpu: what they are for.
        number: of the GPU, as torch counts.
        watch: called a few times a second while one is built.
        notices: where it is noted what was built again, and why.
    """

    engine: Engine
    precision: str
    library: Library
    gpu: Gpu
    number: int
    watch: Callable[[BuildProgress], None]
    notices: list[str]

    def obtain(self, shapes: ShapeRange, samples: str) -> Plan:
        """Return a plan; see `obtain_plan`."""
        plan = obtain_plan(
            self.engine,
            precision=self.precision,
            samples=samples,
            shapes=shapes,
            library=self.library,
            gpu=self.gpu,
            visible=visible_name(self.number),
            watch=self.watch,
        )
        for notice in plan.notices:
            log.warning("%s", notice)
        self.notices.extend(plan.notices)
        return plan

    def holds(self, shapes: ShapeRange, samples: str) -> bool:
        """Whether a plan is in the cache and whole."""
        key = plan_key(
            self.engine,
            precision=self.precision,
            samples=samples,
            shapes=shapes,
            library=self.library,
            gpu=self.gpu,
        )
        return PlanCache().read(key)[0] is not None


@dataclass(frozen=True)
class Captured:
    """A captured launch.

    Attributes:
        call: enqueues it.
        contexts: what it launches, alive as long as it is.
    """

    call: Callable[[], None]
    contexts: dict[tuple[Any, ...], ShapeContext]

    def __call__(self) -> None:
        """Enqueue the launch."""
        self.call()


@dataclass(frozen=True)
class Kept:
    """A launch that no graph holds.

    Attributes:
        launch: enqueues it.
        contexts: what it launches, alive and ready as long as it is.
        network: whose they are.
    """

    launch: Callable[[], None]
    contexts: dict[tuple[Any, ...], ShapeContext]
    network: TensorRTNetwork

    def __call__(self) -> None:
        """Enqueue the launch."""
        with self.network.keeping(self.contexts):
            self.launch()


def check_precision(engine: Engine, precision: str) -> None:
    """Refuse a precision that TensorRT here does not offer for an engine.

    Raises:
        EngineError: it does not.
    """
    if precision not in ("fp16", *TITLES):
        raise EngineError(f"{engine.name}: tensorrt runs fp16, fp8 or int8, got {precision}; use --precision fp16")
    if precision != "fp16" and FORMS[precision] not in engine.precisions:
        raise EngineError(
            f"{engine.name}: expected {TITLES[precision]} for tensorrt, got none (one that loses more than "
            "0.05 dB is not offered); use --precision fp16"
        )


def announcer() -> Callable[[BuildProgress], None]:
    """Return what says once for each engine that its plan is being built; `telling_builds` shows how far it is."""
    said: set[str] = set()

    def announce(progress: BuildProgress) -> None:
        if progress.name not in said:
            said.add(progress.name)
            log.warning(
                "%s: building its plan, once for this GPU; streamsr engine build does that ahead", progress.name
            )
        log.debug("%s: plan: %s, %.0f s", progress.name, progress.step or "starting", progress.elapsed_s)

    return announce
