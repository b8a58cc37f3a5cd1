"""The ranks of a distributed training: join the process group, broadcast and gather nested values, report each error once.

Nested values are sent as JSON and safetensors, as in a checkpoint: nothing is pickled.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.learners.parallel import LostError, all_reduce_max, detect_lost_rank, rank, world_size
from pipeline.storage.errors import UserError
from pipeline.training.signals import StopRequest

if TYPE_CHECKING:
    import torch

    from pipeline.training.run_spec import RunSpec

COLLECTIVE_TIMEOUT = timedelta(days=30)
"""Collective timeout: the other ranks may be waiting for a lease. A dead rank is detected by its closed connection."""
STORE_TIMEOUT = timedelta(seconds=10)
"""Timeout of the store that records which errors were reported."""
LOST = 76
"""Exit code of a rank that lost another one; the exit code of the lost rank is the cause."""
PARENT_DEATH = 1
"""PR_SET_PDEATHSIG of prctl(2)."""
GRACE = 20.0
"""Seconds that a rank that lost another one waits for SIGTERM, so that the launcher sees the lost rank fail first."""


def check_division(run: RunSpec, spec: Path, processes: int) -> None:
    """Raise UserError if a run, specified by the file `spec`, cannot be divided among this many processes."""
    problem = run.learner.division_error(processes)
    if problem:
        raise UserError(f"{spec}: learner.{problem} of runtime.gpus, processes and nodes")


@contextmanager
def process_group(stop: StopRequest) -> Iterator[None]:
    """Join the process group of this training inside the block; do nothing in a single process.

    A UserError that several ranks raise is reported by one; the others exit with its code, 2. Ranks that lose another one exit with `LOST`.
    """
    if world_size() == 1:
        yield
        return
    import torch
    from torch import distributed

    _end_with_parent()
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with detect_lost_rank():
        distributed.init_process_group(backend, timeout=COLLECTIVE_TIMEOUT)
    try:
        yield
    except UserError as error:
        if not _is_first_to_report(str(error)):
            raise SystemExit(2) from None
        raise
    except LostError:
        end = time.monotonic() + GRACE
        while not stop.received and time.monotonic() < end:
            time.sleep(0.1)
        raise SystemExit(LOST) from None
    distributed.destroy_process_group()


def _end_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent dies: nothing else would stop it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH, signal.SIGTERM)


def barrier() -> None:
    """Wait until every rank has reached this point."""
    all_reduce_max([0.0])


def from_rank_0(compute: Callable[[], Any]) -> Any:
    """Compute a nested value on rank 0 only, and broadcast it."""
    if world_size() == 1:
        return compute()
    import torch
    from torch import distributed

    data = _encode(compute()) if rank() == 0 else torch.empty(0, dtype=torch.uint8)
    length = int(all_reduce_max([float(len(data))])[0])
    data = data if rank() == 0 else torch.empty(length, dtype=torch.uint8)
    with detect_lost_rank():
        distributed.broadcast(data, 0)
    return _decode(data)


def gather(value: Any) -> list[Any]:
    """Gather nested values to rank 0, by rank; empty elsewhere."""
    if world_size() == 1:
        return [value]
    import torch
    from torch import distributed

    data = _encode(value)
    lengths = torch.zeros(world_size())
    lengths[rank()] = len(data)
    lengths = [int(length) for length in all_reduce_max(lengths.tolist())]
    padded = torch.cat([data, torch.zeros(max(lengths) - len(data), dtype=torch.uint8)])
    parts = [torch.empty_like(padded) for _ in lengths] if rank() == 0 else None
    with detect_lost_rank():
        distributed.gather(padded, parts)
    return [_decode(part[:length]) for part, length in zip(parts, lengths, strict=True)] if parts else []


def _encode(value: Any) -> torch.Tensor:
    import torch
    from safetensors.torch import save

    from pipeline.training.serialization import pack

    tensors: dict[str, torch.Tensor] = {}
    text = json.dumps(pack(value, tensors)).encode()
    whole = save({**tensors, "json": torch.frombuffer(bytearray(text), dtype=torch.uint8)})
    return torch.frombuffer(bytearray(whole), dtype=torch.uint8)


def _decode(data: torch.Tensor) -> Any:
    from safetensors.torch import load

    from pipeline.training.serialization import unpack

    tensors = load(data.numpy().tobytes())
    return unpack(json.loads(tensors.pop("json").numpy().tobytes()), tensors)


def _is_first_to_report(line: str) -> bool:
    """Whether no other rank has reported this error; True if their common store is gone."""
    from torch import distributed

    try:
        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = distributed.TCPStore(*place, is_master=False, timeout=STORE_TIMEOUT)  # pyright: ignore[reportPrivateImportUsage]
        return store.add(f"recurlab/reported/{line}", 1) == 1
    except RuntimeError:
        return True
