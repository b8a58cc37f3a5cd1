"""Several processes that share a training: who this one is, its part of a batch, and sums over all of them.

Every process holds the same weights and takes the same step. Of what they learn from, each looks at its own part, and gradients are added up.
Who a process is stands in its environment, where torchrun puts it. A training in one process never gets as far as torch.distributed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


class LostError(Exception):
    """Another process of the training has ended, so this one cannot go on."""


def rank() -> int:
    """The number of this process; 0 writes everything that is written."""
    return int(os.environ.get("RANK", "0"))


def size() -> int:
    """How many processes share the training."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def on_this_node() -> int:
    """How many of them are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def ordinal() -> tuple[int, ...]:
    """What a key of random numbers ends with that no two processes may share: nothing for process 0, so that one alone draws as ever."""
    return (rank(),) if rank() else ()


def share(count: int) -> slice:
    """Which of so many things are this process's."""
    each, rest = divmod(count, size())
    assert not rest, f"{count} do not divide among {size()} processes"
    return slice(rank() * each, (rank() + 1) * each)


@contextmanager
def talking() -> Iterator[None]:
    """What torch raises in this block when another process is gone becomes LostError."""
    try:
        yield
    except RuntimeError as error:
        raise LostError(str(error)) from error


def add_up(tensors: list[Tensor]) -> None:
    """Replace tensors by their sums over all processes, which are the same bits on each; one message per kind of number."""
    if size() == 1:
        return
    import torch
    from torch import distributed

    for kind in dict.fromkeys(tensor.dtype for tensor in tensors):
        some = [tensor for tensor in tensors if tensor.dtype == kind]
        flat = torch.cat([tensor.flatten() for tensor in some])
        with talking():
            distributed.all_reduce(flat)
        for tensor, total in zip(some, flat.split([tensor.numel() for tensor in some]), strict=True):
            tensor.copy_(total.view_as(tensor))


def average(tensors: list[Tensor]) -> None:
    """Replace tensors by their means over all processes."""
    add_up(tensors)
    if size() > 1:
        for tensor in tensors:
            tensor.div_(size())


def largest(values: list[float]) -> list[float]:
    """Of each number the largest that any process has. Does not wait for a GPU."""
    if size() == 1:
        return values
    import torch
    from torch import distributed

    found = torch.tensor(values, dtype=torch.float64)
    with talking():
        distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return found.tolist()


def gradients(network: nn.Module) -> list[Tensor]:
    """The gradients of a network's parameters, for `add_up` and `average`; none in the only process, which has nobody to share them with."""
    if size() == 1:
        return []
    return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
