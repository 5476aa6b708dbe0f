"""Which tests of Triton kernels can run here, and what shows how they are launched on pictures too large to compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from streamsr.runtimes import gpu_ops

runs_triton = pytest.mark.skipif(
    not (find_spec("triton") and (torch.cuda.is_available() or gpu_ops.interpreted())),
    reason="needs Triton with a GPU, or with TRITON_INTERPRET=1",
)

MOST_ON_OTHER_AXES = 65_535
"""Programs that CUDA allows on the second and third axis of a grid; the first has 2**31 - 1."""


class GridsAlone:
    """Stands in for a room of kernels: launches nothing and keeps the grids."""

    def __init__(self) -> None:
        self.grids: dict[str, tuple[int, ...]] = {}

    def __getattr__(self, name: str) -> Any:
        room = self

        class Kernel:
            def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
                room.grids[name] = grid
                return lambda *arguments, **options: None

        return Kernel()

    @property
    def fit(self) -> bool:
        """Whether CUDA launches every grid that was asked for."""
        return all(
            grid[0] < 1 << 31 and all(size <= MOST_ON_OTHER_AXES for size in grid[1:]) for grid in self.grids.values()
        )


def grids_alone(monkeypatch: pytest.MonkeyPatch, ops: Any) -> GridsAlone:
    """Make a room of typed calls launch nothing, as if there were Triton, and return what keeps their grids."""
    room = GridsAlone()
    monkeypatch.setattr(ops, "uses_triton", lambda tensor: True)
    monkeypatch.setattr(ops, "kernels", lambda: room)
    return room


def last_program_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make Triton's interpreter run the last program of every grid and no other; a GPU runs all of them."""
    if not gpu_ops.interpreted():
        return
    interpreter: Any = import_module("triton.runtime.interpreter")
    builder, plain = interpreter.interpreter_builder, interpreter.GridExecutor.__call__

    def call(executor: Any, *arguments: Any, **options: Any) -> None:
        sizes = (*executor.grid, 1, 1)[:3]
        executor.grid = (1,)
        with monkeypatch.context() as patch:
            kind = type(builder)
            patch.setattr(builder, "set_grid_dim", lambda *_: kind.set_grid_dim(builder, *sizes))
            patch.setattr(builder, "set_grid_idx", lambda *_: kind.set_grid_idx(builder, *(size - 1 for size in sizes)))
            plain(executor, *arguments, **options)

    monkeypatch.setattr(interpreter.GridExecutor, "__call__", call)


WAITING = ("nonzero", "masked_select", "_local_scalar_dense", "is_nonzero", "unique", "_to_cpu", "equal")
"""What torch does on a GPU by asking it how many or how much, which no CUDA graph can hold."""


class _NoWaiting(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in WAITING, f"{name} waits for the device"
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            masks = [index for index in args[1] if index is not None and index.dtype in (torch.bool, torch.uint8)]
            assert not masks, f"{name} with a mask waits for the device"
        return func(*args, **(kwargs or {}))


@contextmanager
def waits_for_nothing() -> Iterator[None]:
    """Fail where the body does what would wait for a GPU."""
    with _NoWaiting():
        yield
