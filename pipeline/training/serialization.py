"""Serialize nested state without pickling: tensors to safetensors, everything else to JSON.

In the JSON, a tensor is `{"$tensor": name}`, an array `{"$array": ...}`, a replay buffer `{"$replay": ...}`, a tuple `{"$tuple": [...]}`, and
a mapping with keys that are not plain strings `{"$items": [[key, value], ...]}`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from pipeline.learners.replay import Replay
from pipeline.storage.atomic import atomic
from pipeline.storage.errors import UserError

Fill = Callable[[str, Replay, int], None]
"""Called with a replay buffer's name, the empty buffer, and the number of rows ever appended; fills it with its rows."""


def pack(value: Any, tensors: dict[str, Tensor], replays: dict[str, Replay] | None = None, name: str = "state") -> Any:
    """Return the JSON form of a nested value. Its tensors and arrays are copied to the CPU and added to `tensors` by their path.

    Replay buffers are added to `replays`; if that is None, there must be none.
    """
    if isinstance(value, Tensor | np.ndarray):
        assert name not in tensors, f"two parts of a state are called {name}"
        tensors[name] = host_copy(value) if isinstance(value, Tensor) else torch.from_numpy(value.copy())
        return {"$tensor" if isinstance(value, Tensor) else "$array": name}
    if isinstance(value, Replay):
        assert replays is not None, f"{name}: a replay buffer belongs to a training in one process"
        replays[name] = value
        return {"$replay": name, "capacity": value.capacity, "count": value.count}
    if isinstance(value, dict):
        items = [[key, pack(item, tensors, replays, f"{name}/{key}")] for key, item in value.items()]
        plain = all(isinstance(key, str) and not key.startswith("$") for key in value)
        return dict(items) if plain else {"$items": items}
    if isinstance(value, list | tuple):
        items = [pack(item, tensors, replays, f"{name}/{index}") for index, item in enumerate(value)]
        return {"$tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, np.generic):
        return value.item()
    assert value is None or isinstance(value, bool | int | float | str), f"{name} is a {type(value).__name__}, which no checkpoint can hold"
    return value


def unpack(value: Any, tensors: dict[str, Tensor], fill: Fill | None = None) -> Any:
    """Rebuild a nested value from its JSON form and tensors, the inverse of `pack`; `fill` fills its replay buffers."""
    if isinstance(value, list):
        return [unpack(item, tensors, fill) for item in value]
    if not isinstance(value, dict):
        return value
    if "$tensor" in value:
        return tensors[value["$tensor"]]
    if "$array" in value:
        return tensors[value["$array"]].numpy()
    if "$replay" in value:
        assert fill is not None
        replay = Replay(value["capacity"])
        fill(value["$replay"], replay, value["count"])
        return replay
    if "$tuple" in value:
        return tuple(unpack(item, tensors, fill) for item in value["$tuple"])
    if "$items" in value:
        return {key: unpack(item, tensors, fill) for key, item in value["$items"]}
    return {key: unpack(item, tensors, fill) for key, item in value.items()}


def host_copy(tensor: Tensor) -> Tensor:
    """Copy a tensor to the CPU, with memory of its own as safetensors requires."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def on_host(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy all tensors to the CPU, see `host_copy`."""
    return {name: host_copy(tensor) for name, tensor in weights.items()}


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write host copies of tensors as safetensors, atomically. Equal tensors give equal bytes."""
    with atomic(path) as temporary:
        temporary.write_bytes(save(dict(sorted(tensors.items()))))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read tensors from a file whose digest has been verified."""
    return load(path.read_bytes())


def is_finite(tensors: Mapping[str, Tensor]) -> bool:
    """Whether all numbers of all tensors are finite."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())


def check_finite(network: nn.Module, file: Path) -> None:
    """Raise UserError, naming the file and the tensor, if any weight is not finite."""
    for name, weight in network.named_parameters():
        wrong = int((~torch.isfinite(weight)).sum())
        if wrong:
            raise UserError(f"{file}: {name}: {wrong} of {weight.numel()} weights are not finite; expected finite numbers")
