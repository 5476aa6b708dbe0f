"""StepGraph: a whole optimiser step captured once in a CUDA graph and replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

WARM_STEPS = 3
"""Steps before capture: libraries choose their kernels and optimisers make their state in them."""

Step = Callable[[], dict[str, Tensor]]


class StepGraph:
    """A step as one launch; the warming up leaves no trace in weights or optimiser state.

    Args:
        step: one optimiser step; returns its losses as device scalars. It must not wait for the device.
        networks: every network that the step changes.
        optimisers: every optimiser that it steps.
    """

    def __init__(self, step: Step, networks: Iterable[nn.Module], optimisers: Iterable[Optimizer]) -> None:
        tensors = [tensor for network in networks for tensor in network.state_dict().values()]
        kept = [tensor.clone() for tensor in tensors]
        stepped = list(optimisers)
        states = [{key: dict(state) for key, state in optimiser.state.items()} for optimiser in stepped]
        states = [
            {key: {name: _copy(value) for name, value in state.items()} for key, state in states_of.items()}
            for states_of in states
        ]
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(WARM_STEPS):
                step()
        torch.cuda.current_stream().wait_stream(beside)
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.losses = step()
        for tensor, value in zip(tensors, kept, strict=True):
            tensor.copy_(value)
        for optimiser, before in zip(stepped, states, strict=True):
            _restore(optimiser, before)

    def __call__(self) -> dict[str, Tensor]:
        """Replay the step; the losses are overwritten by the next call."""
        self.graph.replay()
        return self.losses


def _copy(value: object) -> object:
    return value.clone() if isinstance(value, Tensor) else value


def _restore(optimiser: Optimizer, before: dict[Tensor, dict[str, object]]) -> None:
    """Put an optimiser's tensors back in place; state that was not there starts from zero."""
    for parameter, state in optimiser.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                old = before.get(parameter, {}).get(name)
                value.copy_(old) if isinstance(old, Tensor) else value.zero_()
