"""Building a plan: the network as ONNX through TensorRT's parser, or where that is missing through torch-tensorrt.

Run as ``python -m streamsr.runtimes.tensorrt_build FOLDER`` this is the builder of `streamsr.plans`: it reads
``request`` from the folder and writes ``plan`` and ``progress`` into it. A network goes in whole or not at all.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from streamsr.engine import Engine, read_engine
from streamsr.errors import EngineError
from streamsr.runtimes.nvidia import VISIBLE
from streamsr.runtimes.tensorrt_library import MODULES, Library
from streamsr.runtimes.tensorrt_plans import ShapeRange, check_capability

ENDS = (("lr",), ("sr",))
"""Inputs and outputs of a plan: anything else would be an operator that did not fit in."""


def main(folder: Path) -> int:
    """Build what a folder's request asks for; return the exit code."""
    try:
        request = json.loads((folder / "request").read_text(encoding="utf-8"))
        if request.get("visible"):
            os.environ[VISIBLE] = request["visible"]  # TensorRT builds for the GPU that it is on
        library = Library(request["library"], importlib.import_module(MODULES[request["library"]]))
        shapes = ShapeRange(**{name: _as_tuple(value) for name, value in request["shapes"].items()})
        plan = build(
            read_engine(Path(request["engine"])),
            precision=request["precision"],
            samples=request["samples"],
            shapes=shapes,
            library=library,
            capabilities=(request["capability"],),
            watch=lambda step: _write(folder / "progress", step),
        )
        (folder / "plan").write_bytes(plan)
    except (EngineError, ImportError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - to the log that the program shows
        return EngineError.exit_code
    return 0


def build(
    engine: Engine,
    *,
    precision: str,
    samples: str,
    shapes: ShapeRange,
    library: Library,
    capabilities: Sequence[str],
    watch: Callable[[str], None] | None = None,
) -> bytes:
    """Build a plan the way that this installation offers.

    Args:
        engine: which network.
        precision: ``fp16``, ``fp8`` or ``int8``.
        samples: type of the pictures at both ends; a plan from torch-tensorrt takes float32 whatever is asked for.
        shapes: what the plan is to serve.
        library: what builds it.
        capabilities: compute capabilities to build for, ``8.9`` and so on; TensorRT itself builds for the GPU it is on.
        watch: called with each step in words.

    Raises:
        EngineError: the network cannot be built whole, or not for these GPUs.
    """
    for capability in capabilities:
        check_capability(precision, capability)
    if hasattr(library.module, "OnnxParser") and find_spec("onnx") is not None:
        from streamsr.runtimes.tensorrt_graph import Samples, tensorrt_graph

        graph = tensorrt_graph(engine, precision=precision, samples=cast(Samples, samples))
        return build_from_onnx(graph, shapes, library=library, capabilities=capabilities, watch=watch)
    if find_spec("torch_tensorrt") is not None and precision == "fp16":
        from streamsr.runtimes.tensorrt_export import build_from_torch

        return build_from_torch(engine, shapes)
    raise EngineError(
        f"{library.name}: expected the package onnx to write the network with, got none; pip install onnx"
    )


def build_from_onnx(
    graph: bytes,
    shapes: ShapeRange,
    *,
    library: Library,
    capabilities: Sequence[str] = (),
    watch: Callable[[str], None] | None = None,
) -> bytes:
    """Build a plan of an ONNX graph.

    Args:
        graph: with one input ``lr`` and one output ``sr``.
        shapes: of ``lr``.
        library: what builds it.
        capabilities: to build for; none builds for the GPU that is there.
        watch: called with each step in words.

    Raises:
        EngineError: an operator that the parser does not know, or a network that cannot be built.
    """
    module = library.module
    builder = module.Builder(library.logger)
    network, _parser = parsed(graph, builder, library)  # the parser owns the weights until the plan is built
    config = builder.create_builder_config()
    config.clear_flag(module.BuilderFlag.TF32)  # deeper samples would lose their lower bits in it
    if hasattr(module.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
        config.set_flag(module.BuilderFlag.REQUIRE_USER_ALLOCATION)  # or no CUDA graph can be captured
    if library.is_ahead_of_time and capabilities:
        config.num_compute_capabilities = len(capabilities)
        for place, capability in enumerate(capabilities):
            if refused := library.refuse_gpu(capability):
                raise EngineError(f"{refused}; use --runtime cuda")
            target = getattr(module.ComputeCapability, f"SM{capability.replace('.', '')}")
            config.set_compute_capability(target, place)
    profile = builder.create_optimization_profile()
    profile.set_shape("lr", shapes.least, shapes.usual, shapes.most)
    config.add_optimization_profile(profile)
    if watch is not None:
        config.progress_monitor = new_monitor(module, watch)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(
            f"{library.name}: expected to build {shapes}, got {library.logger.take_error() or 'no reason'}; "
            "use --launch patch or --runtime cuda"
        )
    return bytes(plan)


def parsed(graph: bytes, builder: Any, library: Library) -> tuple[Any, Any]:
    """Return an ONNX graph as the library's network, and its parser.

    Raises:
        EngineError: it does not go in whole.
    """
    module = library.module
    typed = 1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = module.OnnxParser(network, library.logger)
    if not parser.parse(graph):
        faults = "; ".join(" ".join(str(parser.get_error(place)).split()) for place in range(parser.num_errors))
        raise EngineError(f"{library.name}: expected operators that it knows, got {faults[:300]}; use --runtime cuda")
    inputs = tuple(network.get_input(place).name for place in range(network.num_inputs))
    outputs = tuple(network.get_output(place).name for place in range(network.num_outputs))
    if (inputs, outputs) != ENDS:
        raise EngineError(
            f"{library.name}: expected a network from lr to sr alone, got one from {inputs} to {outputs}; upgrade it"
        )
    return network, parser


def new_monitor(module: Any, watch: Callable[[str], None]) -> Any:
    """Return a monitor that tells the outer steps of a build in words."""

    class Monitor(module.IProgressMonitor):  # type: ignore[misc]
        """Called by the library's threads."""

        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self.sizes: dict[str, int] = {}

        def phase_start(self, name: str, parent: str | None, num_steps: int) -> None:
            """Note how many steps a phase has."""
            self.sizes[name] = num_steps
            watch(name)

        def step_complete(self, name: str, step: int) -> bool:
            """Tell a step, and go on."""
            watch(f"{name} {step + 1}/{self.sizes.get(name, '?')}")
            return True

        def phase_finish(self, name: str) -> None:
            """Forget a phase."""
            self.sizes.pop(name, None)

    return Monitor()


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _write(path: Path, step: str) -> None:
    path.write_text(step, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
