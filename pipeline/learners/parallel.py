"""Data-parallel training in several processes: rank, world size, this rank's shard of a batch, reductions over all ranks.

All ranks hold the same weights and take the same steps; each processes its own shard of the data, and gradients are summed. Rank and world
size are read from the environment variables set by torchrun. Training in a single process never imports torch.distributed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


class LostError(Exception):
    """Another rank has exited, so this one cannot continue."""


def rank() -> int:
    """Return the rank of this process; only rank 0 writes files."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Return the number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_world_size() -> int:
    """Return the number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def rank_suffix() -> tuple[int, ...]:
    """Return the per-rank suffix of an RNG key; empty on rank 0, so that a single process has the same random numbers as without it."""
    return (rank(),) if rank() else ()


def shard(count: int) -> slice:
    """Return this rank's contiguous shard of `count` items."""
    each, rest = divmod(count, world_size())
    assert not rest, f"{count} do not divide among {world_size()} processes"
    return slice(rank() * each, (rank() + 1) * each)


@contextmanager
def detect_lost_rank() -> Iterator[None]:
    """Turn the RuntimeError of a collective operation, raised when another rank is gone, into LostError."""
    try:
        yield
    except RuntimeError as error:
        raise LostError(str(error)) from error


def all_reduce_sum(tensors: list[Tensor]) -> None:
    """Sum tensors in place over all ranks, with the same bits on each; one all-reduce per dtype."""
    if world_size() == 1:
        return
    import torch
    from torch import distributed

    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        some = [tensor for tensor in tensors if tensor.dtype == dtype]
        flat = torch.cat([tensor.flatten() for tensor in some])
        with detect_lost_rank():
            distributed.all_reduce(flat)
        for tensor, total in zip(some, flat.split([tensor.numel() for tensor in some]), strict=True):
            tensor.copy_(total.view_as(tensor))


def average(tensors: list[Tensor]) -> None:
    """Average tensors in place over all ranks."""
    all_reduce_sum(tensors)
    if world_size() > 1:
        for tensor in tensors:
            tensor.div_(world_size())


def all_reduce_max(values: list[float]) -> list[float]:
    """Return the maximum of each number over all ranks; on the CPU, so that it does not wait for a GPU."""
    if world_size() == 1:
        return values
    import torch
    from torch import distributed

    found = torch.tensor(values, dtype=torch.float64)
    with detect_lost_rank():
        distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return found.tolist()


def gradients(network: nn.Module) -> list[Tensor]:
    """Return the gradients of a network's parameters, for `all_reduce_sum` and `average`; empty in a single process."""
    if world_size() == 1:
        return []
    return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
