"""Tensors of several processes, brought together: gradients summed, weights made equal, rows gathered."""

from __future__ import annotations

import functools
import logging
import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from utils import distributed

log = logging.getLogger(__name__)

BUCKET_BYTES = 64 * 2**20
"""Gradients are summed in pieces of about this size, which bounds the memory that their copy takes."""


@torch.no_grad()
def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its sum over processes; one that no process has stays None.

    If each process's loss is what its samples contribute to the mean over all samples, the sum is the gradient of that
    mean, exactly, however unequal the shares are. The summands of a process are not averaged again.
    """
    if distributed.size() == 1:
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    anywhere = distributed.any_of([parameter.grad is not None for parameter in trained])
    present = [parameter for parameter, has_gradient in zip(trained, anywhere, strict=True) if has_gradient]
    for bucket in _buckets(present):
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in bucket])
        _all_reduce(flat)
        for parameter, total in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
            parameter.grad = total.view_as(parameter).clone()


@torch.no_grad()
def sum_numbers(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The sum over processes of each scalar; all must give the same names in the same order."""
    if distributed.size() == 1:
        return dict(values)
    together = torch.stack([value.detach().float() for value in values.values()])
    _all_reduce(together)
    return dict(zip(values, together, strict=True))


def weighted_means(sums: Mapping[str, float], weight: int) -> dict[str, float]:
    """Divide sums over samples by the number of samples, both of all processes.

    Args:
        sums: Over this process's samples; empty if it has none.
        weight: Their number.
    """
    parts = distributed.gather((dict(sums), weight))
    names = max((part for part, _ in parts), key=len)
    total = sum(part_weight for _, part_weight in parts)
    return {name: sum(part.get(name, 0.0) for part, _ in parts) / total for name in names}


def _buckets(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Consecutive parameters of one dtype and device, up to a size."""
    bucket: list[nn.Parameter] = []
    filled = 0
    for parameter in parameters:
        num_bytes = parameter.numel() * parameter.element_size()
        alike = bucket and (bucket[0].dtype, bucket[0].device) == (parameter.dtype, parameter.device)
        if bucket and (not alike or filled + num_bytes > BUCKET_BYTES):
            yield bucket
            bucket, filled = [], 0
        bucket.append(parameter)
        filled += num_bytes
    if bucket:
        yield bucket


@torch.no_grad()
def make_equal(module: nn.Module) -> None:
    """Give every process the main one's weights and buffers; they were drawn alike, but machines may differ."""
    if distributed.size() == 1:
        return
    for tensor in module.state_dict().values():
        with distributed.talking():
            dist.broadcast(tensor, src=0, group=_group(tensor))


def gather_rows(rows: Tensor, share: distributed.Share) -> Tensor:
    """All ``share.total`` rows, of which this process has ``rows``; differentiable in its own.

    The gradient is that of the mean over processes of what each computes from all rows, so that each is to compute the
    same and to take its ``1 / size``-th part.
    """
    return rows if distributed.size() == 1 else _GatherRows.apply(rows, share)


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, share: distributed.Share) -> Tensor:
        ctx.share = share
        everything = rows.new_zeros(share.total, *rows.shape[1:])
        everything[share.rows] = rows
        _all_reduce(everything)
        return everything

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        # every process has the same gradient here, so their sum needs no talking
        return gradients[0][ctx.share.rows] * distributed.size(), None


def _all_reduce(tensor: Tensor) -> None:
    """Sum over processes, in place."""
    with distributed.talking():
        dist.all_reduce(tensor, group=_group(tensor))


def _group(tensor: Tensor) -> dist.ProcessGroup | None:
    """Through whom to sum: NCCL on GPUs, the group that there is anyway (None) on the CPU."""
    return _nccl() if tensor.device.type == "cuda" else None


@functools.cache
def _nccl() -> dist.ProcessGroup | None:
    """A group that talks from GPU to GPU; None where processes share one, which NCCL refuses."""
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    cards = distributed.gather((socket.gethostname(), str(getattr(properties, "uuid", torch.cuda.current_device()))))
    if len(set(cards)) < len(cards):
        log.warning("several processes share a GPU: gradients are summed on the CPU")
        return None
    group = dist.new_group(backend="nccl", timeout=distributed.WAIT)
    assert isinstance(group, dist.ProcessGroup), "every process is a member"
    return group
