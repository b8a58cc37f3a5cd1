"""State goes to files and comes back as it was, bit by bit and type by type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.config.learners import Supervised
from pipeline.learners.optimization import make_optimizer
from pipeline.training.serialization import pack, read_tensors, unpack, write_tensors

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64)

scalars = st.one_of(st.none(), st.booleans(), st.integers(-(2**130), 2**130), st.floats(), st.text(max_size=8))
tensors = st.builds(
    lambda dtype, shape, seed: (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 9).to(dtype),
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 3), max_size=3),
    st.integers(0, 100),
)
arrays = st.builds(lambda dtype, size: np.arange(size).astype(dtype), st.sampled_from(["u2", "i4", "u8", "f8", "bool"]), st.integers(0, 4))
nested = st.recursive(
    st.one_of(scalars, tensors, arrays),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.tuples(inner, inner), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    """Equality of types, values and bits, NaN equal to itself."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return (
            a.dtype == b.dtype
            and a.shape == b.shape
            and a.contiguous().flatten().view(torch.uint8).equal(b.contiguous().flatten().view(torch.uint8))
        )
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)


def through_files(value: Any, path: Path) -> Any:
    """The value after a trip over the disk."""
    parts: dict[str, Tensor] = {}
    text = json.dumps(pack(value, parts))
    write_tensors(path, parts)
    return unpack(json.loads(text), read_tensors(path))


@settings(max_examples=150, deadline=None)
@given(value=st.dictionaries(st.text(max_size=4), nested, max_size=4))
def test_round_trip(value: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    assert same(through_files(value, tmp_path_factory.getbasetemp() / "state.safetensors"), value)


def test_optimizer_state_round_trips(tmp_path: Path) -> None:
    layer = torch.nn.Linear(3, 2)
    optimizer = make_optimizer(Supervised(steps=1), layer)
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    assert same(through_files(state, tmp_path / "optimizer.safetensors"), state)


def test_equal_tensors_give_equal_bytes(tmp_path: Path) -> None:
    one = {"b": torch.ones(2), "a": torch.zeros(3, dtype=torch.int64)}
    write_tensors(tmp_path / "one", one)
    write_tensors(tmp_path / "other", dict(reversed(one.items())))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_parts_of_one_memory_are_kept_apart(tmp_path: Path) -> None:
    whole = torch.arange(6.0)
    value = {"head": whole[:3], "tail": whole[3:], "tied": whole, "turned": whole.view(2, 3).T}
    assert same(through_files(value, tmp_path / "tied.safetensors"), value)


def test_what_cannot_be_held_is_refused() -> None:
    with pytest.raises(AssertionError, match="state/when is a PosixPath"):
        pack({"when": Path()}, {})
    with pytest.raises(AssertionError, match="called state/1"):
        pack({1: torch.ones(1), "1": torch.ones(1)}, {})
