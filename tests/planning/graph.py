"""A CUDA graph played on a CPU: operations are recorded, undone, and run again on the same memory."""

from __future__ import annotations

import contextlib
import importlib
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

READS_A_NUMBER = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select")


class NoWaiting(TorchDispatchMode):
    """Fails at what makes the host wait for a GPU: a number that is read, a size that depends on values."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().split("::")[1].split(".")[0]
        assert name not in READS_A_NUMBER, f"{func} waits for the device"
        booleans = [one for one in tree_leaves(args[1:]) if isinstance(one, Tensor) and one.dtype == torch.bool]
        assert not (name in ("index", "index_put_") and booleans), f"{func} by truth values waits for the device"
        return func(*args, **(kwargs or {}))


class Graph:
    """What ``torch.cuda.CUDAGraph`` offers, as far as ``models.speed.cuda_graphs`` uses it."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.replays = 0

    @torch.no_grad()
    def replay(self) -> None:
        self.replays += 1
        for func, args, kwargs, recorded in self.calls:
            found = func(*args, **kwargs)
            for old, new in zip(tree_leaves(recorded), tree_leaves(found), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def _memory_of(value: Any) -> Any:
    """A tensor that lies where ``value`` does and knows nothing of gradients."""
    if not isinstance(value, Tensor):
        return value
    bare = torch.empty(0, dtype=value.dtype, device=value.device)
    return bare.set_(value.untyped_storage(), value.storage_offset(), value.shape, value.stride())


class _Recording(NoWaiting):
    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph, self.before, self.made = graph, {}, set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        written = [
            args[at] if at < len(args) else kwargs.get(argument.name)
            for at, argument in enumerate(func._schema.arguments)
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        for tensor in tree_leaves(written):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in self.made:
                    self.before.setdefault(storage.data_ptr(), (storage, storage.clone()))
        found = super().__torch_dispatch__(func, types, args, kwargs)
        reads = {one.untyped_storage().data_ptr() for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
        made = {one.untyped_storage().data_ptr() for one in tree_leaves(found) if isinstance(one, Tensor)}
        self.made |= made - reads
        self.graph.calls.append((func, *tree_map(_memory_of, (args, kwargs, found))))
        return found

    def undo(self) -> None:
        """A graph that is captured computes nothing."""
        for storage, content in self.before.values():
            storage.copy_(content)


@contextlib.contextmanager
def record(graph: Graph, capture_error_mode: str):
    """What ``torch.cuda.graph`` does."""
    recording = _Recording(graph)
    with recording:
        yield
    recording.undo()


class _Stream:
    def wait_stream(self, other: _Stream) -> None:
        pass


def on_the_cpu(monkeypatch: Any) -> list[Graph]:
    """Let ``models.speed.cuda_graphs`` record on a CPU; returns the graphs that are made from now on."""
    made: list[Graph] = []

    def new() -> Graph:
        made.append(Graph())
        return made[-1]

    monkeypatch.setattr(torch.cuda, "CUDAGraph", new)
    monkeypatch.setattr(torch.cuda, "graph", record)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: _Stream())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: _Stream())
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    count_on_the_device(monkeypatch)
    return made


def count_on_the_device(monkeypatch: Any) -> None:
    """Optimisers as on a GPU: their count of steps is a tensor, which torch only expects there."""
    for name in ("torch.optim.adam", "torch.optim.adamw", "torch.optim.optimizer"):
        module = importlib.import_module(name)
        if hasattr(module, "_get_capturable_supported_devices"):
            monkeypatch.setattr(module, "_get_capturable_supported_devices", lambda supports_xla=True: ["cpu"])
    monkeypatch.setattr("planning.planners.descent._on_gpu", lambda tensors: True)
