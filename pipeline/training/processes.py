"""The processes of one training as a group: joining it, what process 0 finds for all, what all have for process 0, and one voice for errors.

What they tell each other besides numbers is JSON and safetensors, as in a checkpoint: nothing is unpickled here either.
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

from pipeline.learners.parallel import LostError, largest, rank, size, talking
from pipeline.storage.errors import UserError
from pipeline.training.signals import StopRequest

if TYPE_CHECKING:
    import torch

    from pipeline.training.spec import RunSpec

PATIENCE = timedelta(days=30)
"""A process waits as long for the others, who may be waiting for a lease. That one has died, it hears from the connection."""
ANSWER = timedelta(seconds=10)
"""A process waits as long for what tells whether another has said a line."""
LOST = 76
"""Exit code of a process that lost another one, whose code says more."""
PARENT_DEATH = 1
"""PR_SET_PDEATHSIG of prctl(2)."""
GRACE = 20.0
"""Seconds in which such a process is told to end, once the one that failed is found; it must not be taken for the first that did."""


def check_division(run: RunSpec, spec: Path, processes: int) -> None:
    """Raise UserError where a run, whose specification lies at `spec`, cannot be shared among so many processes."""
    problem = run.learner.undivided(processes)
    if problem:
        raise UserError(f"{spec}: learner.{problem} of runtime.gpus, processes and nodes")


@contextmanager
def together(stop: StopRequest) -> Iterator[None]:
    """Inside, the processes of this training can talk; nothing where there is one. A UserError that several meet is raised by one of them.

    The others leave with its code, 2, and those that lose another process with `LOST`, when they are told to stop.
    """
    if size() == 1:
        yield
        return
    import torch
    from torch import distributed

    _end_with_parent()
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with talking():
        distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        yield
    except UserError as error:
        if not _is_first_to_say(str(error)):
            raise SystemExit(2) from None
        raise
    except LostError:
        end = time.monotonic() + GRACE
        while not stop.received and time.monotonic() < end:
            time.sleep(0.1)
        raise SystemExit(LOST) from None
    distributed.destroy_process_group()


def _end_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when the one that started it dies, however it does: nobody else would tell it to stop."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH, signal.SIGTERM)


def wait_for_all() -> None:
    """Return once every process has come here."""
    largest([0.0])


def agreed(find: Callable[[], Any]) -> Any:
    """What process 0 finds, on every process; the others don't look."""
    if size() == 1:
        return find()
    import torch
    from torch import distributed

    data = _encode(find()) if rank() == 0 else torch.empty(0, dtype=torch.uint8)
    length = int(largest([float(len(data))])[0])
    data = data if rank() == 0 else torch.empty(length, dtype=torch.uint8)
    with talking():
        distributed.broadcast(data, 0)
    return _decode(data)


def gathered(value: Any) -> list[Any]:
    """What each process has, by its number; on the others than process 0, nothing."""
    if size() == 1:
        return [value]
    import torch
    from torch import distributed

    data = _encode(value)
    lengths = torch.zeros(size())
    lengths[rank()] = len(data)
    lengths = [int(length) for length in largest(lengths.tolist())]
    padded = torch.cat([data, torch.zeros(max(lengths) - len(data), dtype=torch.uint8)])
    parts = [torch.empty_like(padded) for _ in lengths] if rank() == 0 else None
    with talking():
        distributed.gather(padded, parts)
    return [_decode(part[:length]) for part, length in zip(parts, lengths, strict=True)] if parts else []


def _encode(value: Any) -> torch.Tensor:
    import torch
    from safetensors.torch import save

    from pipeline.training.state import pack

    tensors: dict[str, torch.Tensor] = {}
    text = json.dumps(pack(value, tensors)).encode()
    whole = save({**tensors, "json": torch.frombuffer(bytearray(text), dtype=torch.uint8)})
    return torch.frombuffer(bytearray(whole), dtype=torch.uint8)


def _decode(data: torch.Tensor) -> Any:
    from safetensors.torch import load

    from pipeline.training.state import unpack

    tensors = load(data.numpy().tobytes())
    return unpack(json.loads(tensors.pop("json").numpy().tobytes()), tensors)


def _is_first_to_say(line: str) -> bool:
    """Whether no other process has said this line; true where the processes' common store is gone."""
    from torch import distributed

    try:
        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = distributed.TCPStore(*place, is_master=False, timeout=ANSWER)  # pyright: ignore[reportPrivateImportUsage]
        return store.add(f"recurlab/said/{line}", 1) == 1
    except RuntimeError:
        return True
